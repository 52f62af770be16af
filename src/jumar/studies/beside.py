"""Runs on file systems without locks: each attempt works in a folder of its own, which is then renamed into place.

Where nothing keeps two machines from one run directory, a job that is given again may meet the attempt that was thought dead.
So each attempt goes on with a copy of what there is, and its result takes the place of what has not come as far. Training is
exact: where two attempts come to the end, both have the same files, and it does not matter which stays.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from jumar.report.comparison import STEPS
from jumar.runs import logs
from jumar.runs.checkpoints import CheckpointStore
from jumar.runs.entries import check_entries, temporary_beside
from jumar.runs.run_directory import LAYOUT, RunDirectory


def begin(run: Path, place: Path) -> None:
    """Copy a run, if it has begun, to the place where an attempt goes on with it. Raises ``DamagedFile`` and ``OSError``."""
    if place.exists() or trained(run) < 0:
        return
    copy = temporary_beside(place)
    try:
        _copied(run, copy)
        os.rename(copy, place)
    finally:
        shutil.rmtree(copy, ignore_errors=True)


def put_in_place(place: Path, run: Path) -> None:
    """Let what an attempt has made take the place of the run, unless that has come further. Raises ``OSError``.

    A copy is renamed, so that an attempt which still goes on, although it was thought dead, changes nothing in the run.
    """
    if not place.exists():
        return
    if reached(run) <= reached(place):
        run.parent.mkdir(parents=True, exist_ok=True)
        copy, before = temporary_beside(place), temporary_beside(place)
        try:
            _copied(place, copy)
            with contextlib.suppress(FileNotFoundError):
                os.rename(run, before)
            os.rename(copy, run)
        finally:
            shutil.rmtree(copy, ignore_errors=True)
            shutil.rmtree(before, ignore_errors=True)
    # Under another name first: half of it, left by a kill, must not be taken for an attempt once more.
    gone = temporary_beside(place)
    os.rename(place, gone)
    shutil.rmtree(gone, ignore_errors=True)


def reached(path: Path) -> tuple[int, int]:
    """Return how far a run has come: the step of its newest checkpoint, where it goes on, and the steps that it has logged."""
    steps = CheckpointStore(RunDirectory(path).checkpoints).steps()
    return (steps[-1] if steps else -1), trained(path)


def trained(path: Path) -> int:
    """Return the environment steps that a run, or the first seed of a program, has logged; -1 where nothing has begun."""
    run = RunDirectory(path)
    seeds = run.seeds()
    if not seeds and not run.config.exists():
        return -1
    steps = logs.read_last((run.seed(seeds[0]) if seeds else run).metrics).get(STEPS)
    return int(steps) if isinstance(steps, (int, float)) else 0


def redirected(words: Sequence[str], run: str, place: Path) -> list[str]:
    """Return the words of a job with another place for its run directory."""
    options = {run: str(place), f"--run-dir={run}": f"--run-dir={place}"}
    return [options.get(word, word) for word in words]


def _copied(source: Path, target: Path) -> None:
    """Copy a run directory; links are not followed, and temporary files that vanish meanwhile do not matter."""
    check_entries(source, LAYOUT)
    try:
        shutil.copytree(source, target, symlinks=True, ignore=shutil.ignore_patterns("*.tmp", ".lock"))
    except shutil.Error as error:
        gone = [source for source, _, words in error.args[0] if "No such file" in words]
        if len(gone) < len(error.args[0]):
            raise OSError(errno.EIO, str(error.args[0][0][2]), str(source)) from None
