"""Jobs as processes, several at a time, each on processors of its own."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Protocol

from jumar.console.signals import STOP_SIGNALS, StopFlag
from jumar.errors import UsageError
from jumar.runs.entries import open_plain
from jumar.studies.cells import Job, folder_of
from jumar.xla.compiler import processors

PAUSE = 0.1
"""Seconds between two looks at the processes."""
LONGEST_REASON = 500
END_OF_LOG = 2**16
"""Bytes at the end of a process's standard error in which its last words are looked for."""


@dataclass(frozen=True)
class Failure:
    """Why a job was not done."""

    words: str
    refused: bool = False
    """Whether it was never begun, because what was asked for cannot be."""
    interrupted: bool = field(default=False, compare=False)
    """Whether a signal ended it, so that it may go on."""


class Watcher(Protocol):
    """Who is told how the work goes."""

    def running(self, jobs: Sequence[Job]) -> None:
        """Hear which jobs are running; called again and again."""
        ...

    def ended(self, job: Job, failure: Failure | None) -> Sequence[Job]:
        """Hear that a job has ended, and why it failed if it did; return jobs that are to be done on its account."""
        ...


@dataclass
class _Running:
    """A job under way."""

    job: Job
    process: subprocess.Popen[bytes]
    processors: tuple[int, ...]
    output: IO[bytes]
    log: Path
    log_start: int

    def let_go(self) -> None:
        """Let the process save and stop."""
        if self.process.stdin is not None:
            self.process.stdin.close()

    def close(self) -> None:
        """Close what was opened for the process, which stops it if it has not ended."""
        self.let_go()
        self.output.close()

    def failure(self) -> Failure | None:
        """Return why the ended process failed, in its own words where it has any; ``None`` if it did its job."""
        code = self.process.returncode
        if code == 0:
            return None
        interrupted = code < 0 or code - 128 in STOP_SIGNALS
        self.output.seek(0)
        lines = self.output.read().decode("utf-8", "replace").strip().splitlines()
        with contextlib.suppress(ValueError, KeyError, IndexError, TypeError):
            reason = str(json.loads(lines[-1])["error"]).splitlines()[0]
            return Failure(reason[:LONGEST_REASON], code == UsageError.exit_code, interrupted)
        ending = f"it was ended by {signal.Signals(-code).name}" if code < 0 else f"it ended with exit code {code}"
        with self.log.open("rb") as log:
            log.seek(max(self.log_start, log.seek(0, os.SEEK_END) - END_OF_LOG))
            said = log.read().decode("utf-8", "replace").strip().splitlines()
        return Failure(f"{ending}: {said[-1][:LONGEST_REASON]}" if said else f"{ending}.", interrupted=interrupted)


def work_off(
    jobs: Sequence[Job],
    command: Callable[[Job], list[str]],
    logs: Path,
    parts: int,
    watcher: Watcher,
    stop: StopFlag,
    *,
    even: bool = False,
) -> None:
    """Do all jobs, so many at a time; return when all have ended, or, once ``stop`` is set, have been stopped.

    Args:
        jobs: what is to be done, in this order.
        command: the words after ``jumar`` that do a job.
        logs: a folder for what the processes print on standard error, one file for each job.
        parts: among how many jobs at a time the processors are divided, at least 1.
        watcher: who is told.
        stop: asks for an end: the processes save and stop.
        even: whether every job has the same number of processors, so that it does not matter which it is given.
    """
    waiting = deque(jobs)
    numbers = processors()
    free = shares(numbers[: len(numbers) // parts * parts] or numbers if even else numbers, parts)
    running: list[_Running] = []
    asked_to_stop = False
    try:
        while running or (waiting and not stop):
            while waiting and free and not stop:
                job = waiting.popleft()
                running.append(_start(job, command(job), logs, free.pop(0)))
            for one in [one for one in running if one.process.poll() is not None]:
                running.remove(one)
                more = () if asked_to_stop else watcher.ended(one.job, one.failure())
                # What takes the place of one job shares its processors.
                free += shares(one.processors, max(1, min(len(more), len(one.processors))))
                waiting.extend(more)
                one.close()
            if stop and not asked_to_stop:
                asked_to_stop = True
                for one in running:
                    one.let_go()
            watcher.running([one.job for one in running])
            time.sleep(PAUSE)
    finally:
        for one in running:  # only after an error of our own
            one.close()


def shares(numbers: Sequence[int], parts: int) -> list[tuple[int, ...]]:
    """Divide processors among so many; where there are more parts than processors, some share one."""
    return [tuple(numbers[i::parts]) or (numbers[i % len(numbers)],) for i in range(parts)]


def _start(job: Job, words: list[str], logs: Path, numbers: tuple[int, ...]) -> _Running:
    logs.mkdir(parents=True, exist_ok=True)
    log = logs / f"{folder_of(job.words)}.log"
    output = tempfile.TemporaryFile()  # noqa: SIM115 (it lives as long as the process)
    # One of several processes on a graphics card must not take all of its memory when it begins.
    environment = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false", **os.environ}
    with os.fdopen(open_plain(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND), "ab") as errors:
        start = errors.tell()
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "jumar.cli.leashed", ",".join(map(str, numbers)), *words],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=errors,
            env=environment,
            start_new_session=True,  # Ctrl-C comes to this process alone, which passes it on
        )
    return _Running(job, process, numbers, output, log, start)
