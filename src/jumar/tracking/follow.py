"""The job behind ``jumar follow``: a run's numbers go to a tracker while another process trains, each row once."""

from __future__ import annotations

import contextlib
import os
import shlex
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jumar._version import __version__
from jumar.console.signals import StopFlag, Stopped, stop_on_signals
from jumar.errors import JumarError, UsageError
from jumar.runs.at_work import is_at_work
from jumar.runs.overview import look
from jumar.runs.run_directory import RunDirectory
from jumar.text import counted, printable
from jumar.tracking.progress import FOLDER, NOTHING, Progress, ProgressFile, new_progress
from jumar.tracking.rows import Row, Rows
from jumar.tracking.trackers import Tracker, Wanted, check_installed, free_name, open_tracker
from jumar.training.plan import Plan
from jumar.training.restore import refuse_several_seeds

BETWEEN_LOOKS = 2.0
"""Seconds between two looks at the logs."""
BETWEEN_CHECKS = 0.1
"""Seconds between two looks at whether a signal came."""

LONGEST_NAME = 100
"""Characters of a project's or a run's name; trackers take 128."""
Words = Callable[[str], None]
"""Takes one sentence for the user."""


@dataclass(frozen=True)
class Following:
    """What is followed, and where it is sent. See ``jumar follow --help``.

    Attributes:
        run: a run directory.
        to: the tracker.
        project: the tracker's project.
        name: what the run is called there; ``None`` for the name of its directory.
    """

    run: Path
    to: str
    project: str
    name: str | None = None


@dataclass(frozen=True)
class Told:
    """Who hears what: what is wrong and no error, what goes on, and how far it is (written over)."""

    warn: Words
    tell: Words
    show: Words


def follow(following: Following, told: Told) -> dict[str, Any]:
    """Send what a run has logged, and what it logs until no process works on it any more; return what ``--json`` prints.

    Raises:
        UsageError: there is no such run or nothing to send, the tracker is not installed, refuses, or has the run under
            another project or name, or somebody else follows.
        DamagedFile: a file of the run, or of its progress, is damaged.
        JumarError: the tracker cannot be reached, the progress cannot be noted, or the run is gone.
        Stopped: a signal came. What was sent is noted, and the same command goes on.
    """
    check_installed(following.to)
    run = RunDirectory.open(following.run)
    refuse_several_seeds(run, "follow")
    plan = Plan.from_json(run.read_config(), run.config)
    rows = Rows(run)
    first = rows.read()
    if not first[0] and not is_at_work(run):
        raise UsageError(f"{run} has logged nothing, and no process works on it: there is nothing to send.")
    with ProgressFile.of(run, following.to) as file:
        noted = file.read()
        progress = _begun(following, run) if noted is None else _checked(noted, following, run)
        wanted = Wanted(progress.project, progress.name, progress.run_id, noted is not None, _settings(plan))
        with _closing(open_tracker(following.to, wanted)) as tracker:
            progress = file.write(reconciled(progress, tracker.last_step, told.warn))
            told.tell(f"sending {run} to {following.to}; Ctrl-C ends this, and the run goes on. {tracker.place}.")
            follower = Follower(run, rows, tracker, file, progress, told)
            follower.follow(first)
    return {
        "run_dir": str(run),
        "to": following.to,
        "project": progress.project,
        "name": progress.name,
        "place": tracker.place,
        "rows": follower.sent,
        "step": max(follower.progress.step, 0),
        "state": _state(run),
        "left_out": sorted(rows.left_out),
    }


def _settings(plan: Plan) -> dict[str, Any]:
    """Return what a tracker is told of a run beside its numbers: no path, and nothing of the machine."""
    environment = plan.environment
    return {
        "algorithm": plan.algorithm,
        "env": plan.environment_name if environment is None else environment.full_name,
        "seed": plan.seed,
        "total_timesteps": plan.total_timesteps,
        "preset": plan.preset,
        "jumar": __version__,
        **plan.settings.to_json(),
    }


def _begun(following: Following, run: RunDirectory) -> Progress:
    """Return the progress of a run that was never sent to this tracker."""
    name = following.name or printable(run.path.resolve().name)[:LONGEST_NAME]
    return new_progress(following.project, free_name(following.to, following.project, name, following.name is not None))


def _checked(noted: Progress, following: Following, run: RunDirectory) -> Progress:
    """Return the progress of a run that was sent before.

    Raises:
        UsageError: it went to another project, or under another name.
    """
    for option, wanted, before in (
        ("--project", following.project, noted.project),
        ("--name", following.name or noted.name, noted.name),
    ):
        if wanted != before:
            folder = run.path / FOLDER / following.to
            raise UsageError(
                f"{run} is in {following.to} already, as {noted.name!r} in the project {noted.project!r}; give {option} "
                f"{shlex.quote(before)}, or remove {folder} to send it anew."
            )
    return noted


def _state(run: RunDirectory) -> str:
    """Return how far a run is, in a word."""
    with contextlib.suppress(OSError):
        if (found := look(run.path, os.listdir(run.path))) is not None:
            return found.state
    return "gone"


def reconciled(progress: Progress, last_step: int | None, warn: Words) -> Progress:
    """Return where sending goes on: after the tracker's last step or, where it cannot tell, after what was noted."""
    if last_step is None and progress.sending is not None:
        warn(
            f"the last jumar follow was killed while it sent the steps from {progress.step + 1:,} to {progress.sending:,}: "
            "some of them may be missing. They are not sent again."
        )
        last_step = progress.sending
    return replace(progress, step=progress.step if last_step is None else last_step, sending=None)


@contextlib.contextmanager
def _closing(tracker: Tracker) -> Iterator[Tracker]:
    """Close a tracker at the end of the block; what went wrong in the block comes first."""
    try:
        yield tracker
    except BaseException:
        with contextlib.suppress(Exception):
            tracker.close()
        raise
    tracker.close()


class Follower:
    """Sends a run's rows.

    Attributes:
        progress: how far it is.
        sent: how many rows it has sent.
    """

    def __init__(
        self, run: RunDirectory, rows: Rows, tracker: Tracker, file: ProgressFile, progress: Progress, told: Told
    ) -> None:
        self.run, self.progress, self.sent = run, progress, 0
        self._rows, self._tracker, self._file, self._told = rows, tracker, file, told
        self._place = self._where()
        self._warned = False

    def follow(self, first: tuple[list[Row], bool]) -> None:
        """Send rows until no process works on the run.

        Args:
            first: what was read already, and whether there is more.

        Raises:
            Stopped: a signal came; the rows that were begun are sent.
            JumarError: see :func:`follow`.
        """
        with stop_on_signals(lambda line: self._told.tell("stopping; once more stops at once")) as stop:
            news: tuple[list[Row], bool] | None = first
            while True:
                at_work = is_at_work(self.run)  # before the last look, so that nothing is logged after it
                self._check_place()
                self._send_all(stop, news)
                news = None
                if not at_work:
                    return
                self._wait(stop)

    def _send_all(self, stop: StopFlag, news: tuple[list[Row], bool] | None) -> None:
        more = True
        while more:
            rows, more = news or self._rows.read()
            news = None
            self._send([row for row in rows if row.step > self.progress.step])
            self._check(stop)
        if self._rows.left_out and not self._warned:
            self._warned = True
            names = ", ".join(map(ascii, sorted(self._rows.left_out)[:3]))
            self._told.warn(f"some numbers are not sent, as their names fit no tracker: {names}.")

    def _send(self, rows: list[Row]) -> None:
        """Send rows that are beyond the last step."""
        if not rows:
            return
        self.progress = self._file.begin(self.progress, rows[-1].step)
        for row in rows:
            if row.numbers:
                self._tracker.send(row.step, row.numbers)
        self._tracker.settle()
        self.progress = self._file.done(self.progress)
        self.sent += len(rows)
        self._told.show(f"{counted(self.sent, 'row')} sent, up to step {self.progress.step:,}")

    def _wait(self, stop: StopFlag) -> None:
        end = time.monotonic() + BETWEEN_LOOKS
        while not stop and time.monotonic() < end:
            time.sleep(BETWEEN_CHECKS)
        self._check(stop)

    def _check(self, stop: StopFlag) -> None:
        if stop:
            raise Stopped(
                stop.signal or 0,
                f"stopped after {counted(self.sent, 'row')}; the same command goes on with the next one.",
            )

    def _where(self) -> tuple[int, int] | None:
        try:
            status = os.stat(self.run.path)
        except OSError:
            return None
        return status.st_dev, status.st_ino

    def _check_place(self) -> None:
        """Raise a ``JumarError`` where the run's directory is gone, or another one has taken its place."""
        if self._place is None or self._where() != self._place or not os.path.lexists(self.run.config):
            until = "" if self.progress.step == NOTHING else f" up to step {self.progress.step:,}"
            raise JumarError(f"{self.run} is gone; {counted(self.sent, 'row')} were sent{until}.")
