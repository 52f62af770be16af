"""Trackio: what is sent goes to a database on this machine, or where ``TRACKIO_SPACE_ID`` or ``TRACKIO_SERVER_URL`` say."""

from __future__ import annotations

import contextlib
import io
import shlex
import time
from collections.abc import Iterator, Mapping

from jumar.errors import UsageError
from jumar.tracking.progress import NOTHING
from jumar.tracking.trackers import TrackerFailed, Wanted

PATIENCE = 30.0
"""Seconds within which the database must have what was handed over; trackio writes twice a second."""
BETWEEN_LOOKS = 0.05


class OnTrackio:
    """A run in Trackio."""

    def __init__(self, wanted: Wanted) -> None:
        import trackio

        self._wanted = wanted
        self._last = NOTHING
        try:
            with _quiet():
                self._run = trackio.init(
                    project=wanted.project,
                    name=wanted.name,
                    resume="allow" if wanted.known else "never",
                    config=dict(wanted.settings),
                    embed=False,
                    auto_log_cpu=False,
                    auto_log_gpu=False,
                )
        except ValueError as error:
            raise UsageError(f"trackio refuses: {error}") from None
        except Exception as error:
            raise TrackerFailed(f"trackio cannot be used: {type(error).__name__}: {error}") from None
        server = _server()
        shown = f"See it by: trackio show --project {shlex.quote(wanted.project)}"
        self.place = shown if server is None else f"See it at {server}"

    @property
    def last_step(self) -> int | None:
        """The last step in the database of this machine; ``None`` where it is elsewhere."""
        if not _is_database():
            return None
        from trackio.sqlite_storage import SQLiteStorage

        found = SQLiteStorage.get_max_step_for_run(self._wanted.project, self._wanted.name, run_id=self._run.id)
        return NOTHING if found is None else int(found)

    def send(self, step: int, numbers: Mapping[str, float]) -> None:
        """Hand over a row, which a thread of trackio's writes down."""
        self._run.log(dict(numbers), step=step)
        self._last = step

    def settle(self) -> None:
        """Wait until the database has it: what trackio cannot write it drops, with a warning alone."""
        end = time.monotonic() + PATIENCE
        while (last := self.last_step) is not None and last < self._last:
            if time.monotonic() > end:
                raise TrackerFailed(
                    f"trackio has not written down step {self._last:,}; its database has step {last:,}. The "
                    "same command goes on."
                )
            time.sleep(BETWEEN_LOOKS)

    def close(self) -> None:
        """Write down the rest."""
        import trackio

        with _quiet():
            trackio.finish()  # the run alone would be finished once more when Python ends, and say so
        self.settle()


def names_in(project: str) -> set[str]:
    """Return the names of the runs that a project has on this machine."""
    from trackio import Api

    try:
        return {run.name for run in Api().runs(project)}
    except ValueError:  # there is no such project
        return set()


def _server() -> str | None:
    from trackio import context_vars

    return context_vars.current_server.get()


def _is_database() -> bool:
    from trackio import utils

    return _server() is None and utils.get_storage_mode() == "sqlite"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Within the block, what trackio prints is not shown; Jumar says what there is to say."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield
