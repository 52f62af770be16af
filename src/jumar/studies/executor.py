"""What does the jobs of a comparison or a sweep: this machine's processes, the tasks of a Ray cluster, or SLURM's arrays.

A job is a ``jumar`` command with a run directory that can be resumed. Training is exact, so a job that is done twice ends with
the same files, and one whose machine dies is simply given again.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Protocol

from jumar.console.signals import STOP_SIGNALS
from jumar.errors import UsageError
from jumar.text import printable

LONGEST_REASON = 500
END_OF_LOG = 2**16
"""Bytes at the end of a process's standard error in which its last words are looked for."""

Warn = Callable[[str], None]
Words = Callable[[], Sequence[str]]


@dataclass(frozen=True)
class Failure:
    """Why a job was not done."""

    words: str
    refused: bool = False
    """Whether it was never begun, because what was asked for cannot be."""
    interrupted: bool = field(default=False, compare=False)
    """Whether a signal ended it, so that it may go on."""
    lost: bool = field(default=False, compare=False)
    """Whether where it ran is to blame and not the job: the node died, or the time there was over. It is given again."""

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {"words": self.words, "refused": self.refused, "interrupted": self.interrupted, "lost": self.lost}


NOT_BEGUN = Failure("it was stopped before it began.", interrupted=True)


class Task(Protocol):
    """A job under way."""

    def over(self) -> bool:
        """Whether it has ended."""
        ...

    def failure(self) -> Failure | None:
        """Return why it failed, once it is over; ``None`` if it was done."""
        ...

    def let_go(self) -> None:
        """Ask it to save and stop."""
        ...

    def close(self) -> None:
        """Give back what is held for it; what has not ended is let go."""
        ...


class Executor(Protocol):
    """Where jobs are done: they are started, asked whether they are over, and let go."""

    @property
    def pause(self) -> float:
        """Seconds between two looks at the tasks."""
        ...

    @property
    def outlives(self) -> bool:
        """Whether its tasks go on when this process is gone. Then ``start`` takes up the one that a job has already."""
        ...

    @property
    def room(self) -> int | None:
        """How many jobs can be done at a time; ``None`` where a queue takes any number."""
        ...

    def shares(self, parts: int, *, even: bool) -> list[tuple[int, ...]]:
        """Return the processors of each of so many jobs at a time, by their numbers or just as many numbers.

        ``even``: all have the same number of them.
        """
        ...

    def start(self, name: str, words: Words, run: Path, log: Path, processors: tuple[int, ...]) -> Task:
        """Begin a job.

        Args:
            name: of the job, fit for a file.
            words: returns the words after ``jumar``; not called for a job that is taken up.
            run: the run directory, one of the words.
            log: where standard error is added.
            processors: those that it has, one of ``shares`` or a part of one.

        Raises:
            JumarError: no job can be started there; the message says what would help.
        """
        ...


def failure_of(code: int, output: IO[bytes], log: Path, log_start: int) -> Failure | None:
    """Return why a process failed, in its own words where it has any; ``None`` if it did its job.

    Args:
        code: its exit code, negative where a signal ended it.
        output: its standard output.
        log: where its standard error was added.
        log_start: how long that file was before.
    """
    if code == 0:
        return None
    interrupted = code < 0 or code - 128 in STOP_SIGNALS
    output.seek(0)
    lines = output.read().decode("utf-8", "replace").strip().splitlines()
    with contextlib.suppress(ValueError, KeyError, IndexError, TypeError):
        reason = str(json.loads(lines[-1])["error"]).splitlines()[0]
        return Failure(reason[:LONGEST_REASON], code == UsageError.exit_code, interrupted)
    ending = f"it was ended by {signal.Signals(-code).name}" if code < 0 else f"it ended with exit code {code}"
    with log.open("rb") as errors:
        errors.seek(max(log_start, errors.seek(0, os.SEEK_END) - END_OF_LOG))
        said = printable(errors.read().decode("utf-8", "replace")).strip().splitlines()
    return Failure(f"{ending}: {said[-1][:LONGEST_REASON]}" if said else f"{ending}.", interrupted=interrupted)
