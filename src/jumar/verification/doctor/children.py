"""Asking in a process of its own what could crash or hang."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jumar.text import printable

END = 2**14
"""Bytes at the end of standard error in which a process's last words are looked for."""
LONGEST_WORDS = 300


@dataclass(frozen=True)
class Answer:
    """What a process said.

    Attributes:
        said: JSON objects, a line each, in order.
        fault: how it failed, in words; ``None`` where it did not.
    """

    said: list[dict[str, Any]] = field(default_factory=list)
    fault: str | None = None

    def value(self, key: str, default: Any = None) -> Any:
        """Return what was said last of a key."""
        return next((each[key] for each in reversed(self.said) if key in each), default)


def ask(name: str, *arguments: str, seconds: float, environment: Mapping[str, str] | None = None) -> Answer:
    """Run a probe of :mod:`jumar.verification.doctor.probe` in a process of its own, and return what it said.

    Args:
        name: of the probe.
        arguments: its arguments.
        seconds: after which it is ended.
        environment: variables that it has beside this process's.
    """
    return run([sys.executable, "-P", "-m", "jumar.verification.doctor.probe", name, *arguments], seconds, environment)


def run(command: Sequence[str], seconds: float, environment: Mapping[str, str] | None = None) -> Answer:
    """Run a command that prints JSON objects, a line each; end it after so many seconds, and its children with it."""
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=errors,
                env={**os.environ, **(environment or {})},
                start_new_session=True,
            )
        except OSError as error:
            return Answer(fault=f"no process could be started ({error.strerror})")
        fault = None
        try:
            code = process.wait(seconds)
            fault = _fault(code)
        except subprocess.TimeoutExpired:
            fault = f"it did not answer within {seconds:g} s"
        finally:
            _end(process)
        output.seek(0)
        said = [each for line in output.read().splitlines() if (each := _object(line)) is not None]
        errors.seek(max(0, errors.seek(0, os.SEEK_END) - END))
        last = errors.read().decode("utf-8", "replace").strip().splitlines()
    told = next((str(each["error"]) for each in said if "error" in each), None)
    if told is not None:
        return Answer(said, printable(told)[:LONGEST_WORDS])
    if fault is not None and last:
        fault += f": {printable(last[-1])[:LONGEST_WORDS]}"
    return Answer(said, fault)


def _fault(code: int) -> str | None:
    if code == 0:
        return None
    if code > 0:
        return f"it ended with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"it was ended by {name}"


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process and those that it started; it has a session of its own."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        process.kill()
    process.wait()


def _object(line: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
