"""Many ``jumar`` commands in one process, so that each costs milliseconds instead of seconds.

For commands that are to refuse something, or that are short. The process reads a line of JSON for each command and answers
with one. A command that hangs or crashes takes the process along; the next one gets a new process.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import selectors
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from jumar.drills.processes import PATIENCE, Ended


class Session:
    """Runs commands one after another; leaving the block ends its process."""

    def __init__(self, folder: Path, environment: Mapping[str, str] | None = None) -> None:
        """Start nothing yet.

        Args:
            folder: where commands run.
            environment: variables beside this process's.
        """
        self._folder, self._environment = folder, dict(environment or {})
        self._process: subprocess.Popen[bytes] | None = None
        self._waiting = b""

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def jumar(self, *words: str | Path, seconds: float = PATIENCE) -> Ended:
        """Run ``jumar`` with these words; after so many seconds it counts as one that hangs."""
        process = self._started()
        assert process.stdin is not None
        typed = list(map(str, words))
        try:
            process.stdin.write(json.dumps(typed).encode() + b"\n")
            process.stdin.flush()
            line = self._line(process, time.monotonic() + seconds)
        except BrokenPipeError:
            line = b""
        if line is None:
            self.end()
            return Ended(typed, None, "", "")
        if not line:
            code = process.wait()
            self.end()
            return Ended(typed, code, "", self._said())
        answer = json.loads(line)
        return Ended(typed, answer["code"], answer["output"], answer["errors"])

    def end(self) -> None:
        """End the process, with all that it has started."""
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        self._process, self._waiting = None, b""

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            self.end()
            with (self._folder / "session.err").open("ab") as errors:
                self._process = subprocess.Popen(
                    [sys.executable, "-P", "-m", "jumar.drills.session"],
                    cwd=self._folder,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    env={**os.environ, **self._environment},
                    start_new_session=True,
                )
        return self._process

    def _line(self, process: subprocess.Popen[bytes], deadline: float) -> bytes | None:
        """Return the next line that the process answers with; empty where it has ended, ``None`` where it is late."""
        assert process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            while b"\n" not in self._waiting:
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    return None
                piece = os.read(process.stdout.fileno(), 2**16)
                if not piece:
                    return b""
                self._waiting += piece
        line, _, self._waiting = self._waiting.partition(b"\n")
        return line

    def _said(self) -> str:
        return (self._folder / "session.err").read_text("utf-8", "replace")[-2000:]


def main() -> None:
    """Answer commands until the other end is closed."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever else is printed goes to standard error
    from jumar.cli import main as jumar

    for line in sys.stdin:
        output, errors = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
            try:
                code = jumar(json.loads(line))
            except BaseException:
                traceback.print_exc()
                code = 1
        answers.write(json.dumps({"code": code, "output": output.getvalue(), "errors": errors.getvalue()}) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
