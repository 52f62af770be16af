"""Whether a run is under way, as it looks from outside."""

from __future__ import annotations

import os
import time

from jumar.runs.run_directory import SEED_NAME, RunDirectory

FRESH = 60.0
"""Seconds for which a run that writes nothing is still taken to be under way, where locks cannot be looked at."""


def with_parent(run: RunDirectory) -> list[RunDirectory]:
    """Return a run's directory, and the one that it is a seed's part of."""
    return [run] + ([RunDirectory(run.path.parent)] if SEED_NAME.fullmatch(run.path.name) else [])


def is_at_work(run: RunDirectory, now: float | None = None) -> bool:
    """Whether a process works on a run, or on the run of several seeds that it is a part of.

    Where that cannot be known, as on a file system without locks, a run that wrote to its log in the last minute is taken
    to be under way.

    Args:
        run: the run.
        now: the time in seconds since 1970; that of the system by default.
    """
    locked = [place.locked() for place in with_parent(run)]
    if True in locked or None not in locked:
        return True in locked
    try:
        written = os.lstat(run.metrics).st_mtime
    except OSError:
        return False
    return abs((time.time() if now is None else now) - written) < FRESH  # a server's clock may be ahead
