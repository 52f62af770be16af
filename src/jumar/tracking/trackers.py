"""What a tracker is to the one who sends, and which there are."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from jumar.errors import JumarError, UsageError

TRACKERS = ("wandb", "trackio")


class TrackerFailed(JumarError):
    """A tracker took nothing, or no more (exit code 1)."""


@dataclass(frozen=True)
class Wanted:
    """The run that is wanted in a tracker.

    Attributes:
        project: where it is.
        name: what it is called.
        run_id: what tells it from others, where the tracker takes such a thing.
        known: whether it should be there already.
        settings: what the run was told, as JSON-ready data.
    """

    project: str
    name: str
    run_id: str
    known: bool
    settings: Mapping[str, Any]


class Tracker(Protocol):
    """A run in a tracker, open to be added to.

    Attributes:
        place: where its numbers can be seen, or how to send them there: a sentence without its full stop.
    """

    place: str

    @property
    def last_step(self) -> int | None:
        """The last step that it holds, ``NOTHING`` if none; ``None`` where it cannot tell."""
        ...

    def send(self, step: int, numbers: Mapping[str, float]) -> None:
        """Hand over a row. Raises ``TrackerFailed``."""
        ...

    def settle(self) -> None:
        """Wait until what was handed over is kept, where that can be told. Raises ``TrackerFailed`` if it is not."""
        ...

    def close(self) -> None:
        """End it. Raises ``TrackerFailed`` if something that was handed over is lost."""
        ...


def check_installed(tracker: str) -> None:
    """Raise a ``UsageError`` where a tracker's package is missing."""
    if importlib.util.find_spec(tracker) is None:
        raise UsageError(
            f"{tracker} is not installed: pip install 'jumar[follow]' brings all trackers, pip install {tracker} this one."
        )


def open_tracker(tracker: str, wanted: Wanted) -> Tracker:
    """Open the run that is wanted.

    Raises:
        UsageError: the tracker does not take its project or its name, or nobody is logged in.
        TrackerFailed: it cannot be reached.
    """
    if tracker == "wandb":
        from jumar.tracking.on_wandb import OnWandb

        return OnWandb(wanted)
    from jumar.tracking.on_trackio import OnTrackio

    return OnTrackio(wanted)


def free_name(tracker: str, project: str, name: str, given: bool) -> str:
    """Return what a run is called that is new in a tracker.

    Args:
        tracker: the tracker.
        project: where the run is to be.
        name: what it would be called.
        given: whether the user chose that.

    Raises:
        UsageError: the name is taken, the user chose it, and the tracker tells runs apart by their names.
    """
    if tracker == "wandb":  # it tells them apart by their ids
        return name
    from jumar.tracking.on_trackio import names_in

    taken = names_in(project)
    if given and name in taken:
        raise UsageError(f"the project {project} has a run called {name!r} already; give another name by --name.")
    number = 2
    while name in taken:
        name, number = f"{name.removesuffix(f'-{number - 1}')}-{number}", number + 1
    return name
