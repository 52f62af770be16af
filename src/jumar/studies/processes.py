"""Jobs as processes of this machine, each on processors of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from jumar.runs.entries import open_plain
from jumar.studies.claims import Claims, claim
from jumar.studies.executor import Failure, Words, failure_of
from jumar.xla.compiler import processors

PAUSE = 0.1
"""Seconds between two looks at the processes."""


@dataclass
class Process:
    """A job under way."""

    process: subprocess.Popen[bytes]
    output: IO[bytes]
    log: Path
    log_start: int

    def over(self) -> bool:
        """Whether the process has ended."""
        return self.process.poll() is not None

    def failure(self) -> Failure | None:
        """Return why the ended process failed; ``None`` if it did its job."""
        return failure_of(self.process.returncode, self.output, self.log, self.log_start)

    def let_go(self) -> None:
        """Let the process save and stop."""
        if self.process.stdin is not None:
            self.process.stdin.close()

    def close(self) -> None:
        """Close what was opened for the process, which stops it if it has not ended."""
        self.let_go()
        self.output.close()


@dataclass(frozen=True)
class Processes:
    """The machine as an :class:`~jumar.studies.executor.Executor`.

    Attributes:
        each: how many processors each job has; ``None``: all of them are divided among the jobs.
        environment: variables of the processes, beside those of this one; ``None``: they do not have it.
        folder: where they are started; ``None``: where this one was.
    """

    each: int | None = None
    environment: Mapping[str, str | None] = field(default_factory=dict)
    folder: Path | None = None
    pause: float = PAUSE
    outlives: bool = False
    _claims: list[Claims] = field(default_factory=list, repr=False, compare=False)

    @property
    def room(self) -> int:
        """One job for each processor, or for each ``each`` of them."""
        return max(1, len(processors()) // (self.each or 1))

    def shares(self, parts: int, *, even: bool) -> list[tuple[int, ...]]:
        """Divide the processors; jobs that have a fixed number share some where there are too few.

        Those of a fixed number are claimed: another command of Jumar takes others, as long as there are some.
        """
        numbers = processors()
        if self.each is not None:
            while self._claims:
                self._claims.pop().close()
            self._claims.append(claim(parts * self.each))
            numbers = list(self._claims[-1].numbers)
            enough = numbers * -(-parts * self.each // len(numbers))
            return [tuple(dict.fromkeys(enough[i * self.each : (i + 1) * self.each])) for i in range(parts)]
        return shares(numbers[: len(numbers) // parts * parts] or numbers if even else numbers, parts)

    def start(self, name: str, words: Words, run: Path, log: Path, processors: tuple[int, ...]) -> Process:
        """Begin a job. Raises ``OSError``."""
        log.parent.mkdir(parents=True, exist_ok=True)
        output = tempfile.TemporaryFile()  # noqa: SIM115 (it lives as long as the process)
        # One of several processes on a graphics card must not take all of its memory when it begins.
        wanted = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false", **os.environ, **self.environment}
        environment = {name: value for name, value in wanted.items() if value is not None}
        with os.fdopen(open_plain(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND), "ab") as errors:
            start = errors.tell()
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "jumar.cli.leashed", ",".join(map(str, processors)), *words()],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=errors,
                env=environment,
                cwd=self.folder,
                start_new_session=True,  # Ctrl-C comes to this process alone, which passes it on
            )
        return Process(process, output, log, start)


def shares(numbers: Sequence[int], parts: int) -> list[tuple[int, ...]]:
    """Divide processors among so many; where there are more parts than processors, some share one."""
    return [tuple(numbers[i::parts]) or (numbers[i % len(numbers)],) for i in range(parts)]
