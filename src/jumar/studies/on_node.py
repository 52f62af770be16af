"""What a machine does of a study that was begun on another one: a job that is written down where both find it."""

from __future__ import annotations

import contextlib
import os
import platform
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from jumar.cluster.versions import SAME_VERSIONS, other_versions, versions
from jumar.errors import DamagedFile
from jumar.runs.run_directory import LOCK, is_locked
from jumar.studies import beside
from jumar.studies.attempts import NUMERIC, Assignment, Files
from jumar.studies.claims import claim
from jumar.studies.executor import NOT_BEGUN, Failure, Task
from jumar.studies.processes import Processes

PAUSE = 0.2
"""Seconds between two looks at the process."""
SAVING = 100.0
"""Seconds for which an attempt whose machine died in part may go on: it notices, and saves."""
LOOK_AT_LEASH = 1.0
"""Seconds between two looks at the leash, which lies on another machine."""


def carry_out(place: Path, index: int, stop: Callable[[], bool] = lambda: False) -> Failure | None:
    """Do a job that was written down, and write down how it ended.

    Args:
        place: the folder of its submission, as an absolute path.
        index: its number there.
        stop: whether this machine wants an end: the job saves and stops, and may be given again.

    Returns:
        Why it failed; ``None`` if it was done.
    """
    files = Files(place, index)
    try:
        failure = _carried_out(files, stop)
    except DamagedFile as error:
        failure = Failure(_not_shared(files) if not files.job.exists() else str(error), refused=True)
    except OSError as error:
        failure = Failure(f"{platform.node()}: {error.strerror or error}: {error.filename}", lost=True)
    with contextlib.suppress(OSError):  # whoever waits for it hears in another way that the job is over
        files.write_ending(failure)
    return failure


def _carried_out(files: Files, stop: Callable[[], bool]) -> Failure | None:
    assignment = Assignment.read(files.job)
    folder = Path(assignment.folder)
    if not folder.is_dir():
        return Failure(f"there is no folder {folder} on {platform.node()}; {_SHARE}", refused=True)
    if (differing := other_versions(assignment.versions, versions())) is not None:
        return Failure(f"{platform.node()} has {differing}; {SAME_VERSIONS}", refused=True)
    if files.told_to_stop():
        return NOT_BEGUN
    run = folder / assignment.run
    words = list(assignment.words)
    apart = not is_locked(folder / assignment.lock)
    _wait_for(run, lambda: stop() or files.told_to_stop())
    if apart:
        beside.begin(run, files.run)
        words = beside.redirected(words, assignment.run, files.run)
    local = Processes(environment=_environment(assignment), folder=folder)
    # Containers on one machine do not see each other's claims: not all of them should begin at the same processor.
    with claim(assignment.processors, anywhere=True) as claims:
        task = local.start(assignment.name, lambda: words, run, folder / assignment.log, claims.numbers)
        try:
            failure = _watched(task, files, stop)
        finally:
            task.close()
    if apart:
        beside.put_in_place(files.run, run)
    if failure is not None and failure.interrupted and not files.told_to_stop():
        return replace(failure, lost=True)  # the machine wanted its place back
    if failure is not None and failure.refused and is_locked(run / LOCK):
        return replace(failure, refused=False, lost=True)  # an attempt that was thought dead is still at work
    return failure


def _wait_for(run: Path, stop: Callable[[], bool]) -> None:
    """Wait for an attempt that was thought dead to save and stop: until then it keeps the run locked."""
    until = time.monotonic() + SAVING
    while is_locked(run / LOCK) and time.monotonic() < until and not stop():
        time.sleep(LOOK_AT_LEASH)


def _watched(task: Task, files: Files, stop: Callable[[], bool]) -> Failure | None:
    """Wait for a job to end, letting it go where it is told to; return why it failed."""
    looked, told = time.monotonic(), False
    while not task.over():
        due = time.monotonic() - looked >= LOOK_AT_LEASH
        if not told and (stop() or (due and files.told_to_stop())):
            told = True
            task.let_go()
        if due:
            looked = time.monotonic()
        time.sleep(PAUSE)
    return task.failure()


def _environment(assignment: Assignment) -> dict[str, str | None]:
    """Return the variables that decide what is computed as they are where the job was given, set there or not."""
    return {**dict.fromkeys(name for name in os.environ if name.startswith(NUMERIC)), **assignment.environment}


_SHARE = (
    "comparisons and sweeps over several machines need one file system that all of them see: begin them there, with --out "
    "there."
)


def _not_shared(files: Files) -> str:
    return f"{platform.node()} does not see {files.place}; {_SHARE}"
