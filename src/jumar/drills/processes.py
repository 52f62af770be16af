"""Jumar's commands in processes of their own, as a user's shell starts them, and what is wrong with how they ended."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from jumar.text import printable

PATIENCE = 600.0
"""Seconds after which a command counts as one that hangs: compiling takes long on a busy machine."""
LONGEST_QUOTE = 300
BUG = "this is a bug in Jumar"
UNSPOKEN = ("Traceback (most recent call last)", "Exception ignored", BUG)
"""What a user's mistake or a fault of the system never shows."""


@dataclass(frozen=True)
class Ended:
    """How a command ended.

    Attributes:
        words: the command.
        code: its exit code, minus the signal's number where one ended it; ``None`` where it had to be killed, as it hung.
        output: standard output.
        errors: standard error.
    """

    words: Sequence[str]
    code: int | None
    output: str
    errors: str

    def answer(self) -> dict[str, Any]:
        """Return what ``--json`` printed; empty where there is none."""
        for line in reversed(self.output.splitlines()):
            with contextlib.suppress(ValueError):
                found = json.loads(line)
                return found if isinstance(found, dict) else {}
        return {}

    @property
    def last_words(self) -> str:
        """The last line that it said, to quote."""
        said = (self.errors.strip() or self.output.strip()).splitlines()
        return printable(said[-1])[:LONGEST_QUOTE] if said else "it said nothing"


def complaint(ended: Ended, codes: Container[int | None], *said: str) -> str | None:
    """Return what is wrong with how a command ended; ``None`` if nothing is.

    Args:
        ended: the command.
        codes: the exit codes that are right.
        said: regular expressions, each of which must be found in what it said.
    """
    if ended.code is None:
        return "it hung and had to be killed"
    both = f"{ended.output}\n{ended.errors}"
    for words in UNSPOKEN:
        if words in both:
            return f"it showed {words!r}: {ended.last_words}"
    if ended.code not in codes:
        return f"exit code {ended.code}: {ended.last_words}"
    for words in said:
        if not re.search(words, both):
            return f"it did not say {words!r}: {ended.last_words}"
    return None


class Running:
    """A command under way, in a session of its own, so that a signal from outside does not reach it by chance.

    Leaving the block ends it with all processes that it started.
    """

    def __init__(
        self,
        words: Sequence[str | Path],
        folder: Path,
        environment: Mapping[str, str | None] | None = None,
        name: str = "command",
    ) -> None:
        """Start the command.

        Args:
            words: the program and its arguments.
            folder: where it runs; its output is kept there, in ``NAME.out`` and ``NAME.err``.
            environment: variables beside this process's; ``None`` as a value takes one away.
            name: of the files.
        """
        self.words = list(map(str, words))
        self._output, self._errors = folder / f"{name}.out", folder / f"{name}.err"
        variables = {**os.environ, **(environment or {})}
        with self._output.open("wb") as output, self._errors.open("wb") as errors:
            self.process = subprocess.Popen(
                self.words,
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=errors,
                env={key: value for key, value in variables.items() if value is not None},
                start_new_session=True,
            )

    def __enter__(self) -> Running:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    @property
    def under_way(self) -> bool:
        """Whether it has not ended."""
        return self.process.poll() is None

    def send(self, number: signal.Signals) -> None:
        """Send it a signal; one that has ended does not hear it."""
        self.process.send_signal(number)

    def wait(self, seconds: float = PATIENCE) -> Ended:
        """Wait for its end; after so many seconds it is killed."""
        try:
            code: int | None = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.end()
            code = None
        output, errors = (path.read_text("utf-8", "replace") for path in (self._output, self._errors))
        return Ended(self.words, code, output, errors)

    def end(self) -> None:
        """Kill it, and whatever it has started and left behind."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def command(*words: str | Path, limits: Mapping[str, int] | None = None) -> list[str]:
    """Return the words that start a ``jumar`` command in a process with limits, such as ``{"NOFILE": 64}``."""
    jumar = [sys.executable, "-P", "-m", "jumar", *map(str, words)]
    if not limits:
        return jumar
    set_to = [f"{name}={value}" for name, value in limits.items()]
    return [sys.executable, "-P", "-m", "jumar.drills.launch", *set_to, "--", *jumar]


def run(words: Sequence[str | Path], folder: Path, environment: Mapping[str, str | None] | None = None) -> Ended:
    """Run a program to its end in a folder, which is made if need be."""
    folder.mkdir(parents=True, exist_ok=True)
    with Running(words, folder, environment) as running:
        return running.wait()


def jumar(
    *words: str | Path,
    folder: Path,
    limits: Mapping[str, int] | None = None,
    environment: Mapping[str, str | None] | None = None,
) -> Ended:
    """Run a ``jumar`` command to its end in a folder."""
    return run(command(*words, limits=limits), folder, environment)


def wait_until(true: Callable[[], bool], running: Running, seconds: float = PATIENCE) -> bool:
    """Wait until something is so; return whether it is. The end of the process, or so many seconds, end the waiting."""
    deadline = time.monotonic() + seconds
    while not true():
        if not running.under_way or time.monotonic() > deadline:
            return true()
        time.sleep(0.01)
    return True
