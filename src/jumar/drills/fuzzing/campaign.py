"""Many tries in a process that is watched: one that hangs or crashes is found, named and begun anew after the try."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

SILENCE = 60.0
"""Seconds without a word after which a try counts as one that hangs: a slow one is told by the process itself."""
START = 300.0
"""Seconds that the process has to begin."""
MOST_DEATHS = 50
"""After so many processes the campaign ends: whatever it is, it is found."""


@dataclass(frozen=True)
class Finding:
    """A try in which something went wrong.

    Attributes:
        number: of the try.
        what: which file was changed; empty where the process did not come to tell.
        wrong: what went wrong, in a sentence.
    """

    number: int
    what: str
    wrong: str


@dataclass(frozen=True)
class Campaign:
    """Tries from ``0`` to ``count - 1``.

    Attributes:
        corpus: the sound files; the process changes a copy, beside them.
        seed: of the tries.
        count: how many.
        names: of targets; none: all.
        heard: is told the number of each try that begins.
        program: the arguments of Python that start the process.
    """

    corpus: Path
    seed: int
    count: int
    names: Sequence[str] = ()
    heard: Callable[[int], None] = lambda done: None
    program: Sequence[str] = ("-m", "jumar.drills.fuzzing.child")

    def run(self) -> Iterator[Finding]:
        """Do the tries; yield those in which something went wrong."""
        start, deaths = 0, 0
        while start < self.count and deaths < MOST_DEATHS:
            last = start - 1
            with self._process(start) as process:
                for line in self._lines(process):
                    if line == "end":
                        return
                    if line.isdigit():
                        last = int(line)
                        self.heard(last)
                    else:
                        yield Finding(**json.loads(line))
                hung = process.poll() is None
            deaths += 1
            yield Finding(last, "", self._ending(process.returncode, hung))
            start = last + 1 if last >= start else self.count

    def _ending(self, code: int, hung: bool) -> str:
        if hung:
            return "the process hung"
        said = (self.corpus.parent / "fuzzing.err").read_text("utf-8", "replace").strip().splitlines()
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        return f"the process {how}: {said[-1][:300] if said else 'it said nothing'}"

    @contextlib.contextmanager
    def _process(self, start: int) -> Iterator[subprocess.Popen[bytes]]:
        work = self.corpus.with_name("changed")
        shutil.rmtree(work, ignore_errors=True)  # of a process that died, with a changed file in it
        shutil.copytree(self.corpus, work)
        words = [sys.executable, "-P", *self.program, str(work), str(self.seed)]
        words += [str(start), str(self.count - start), *self.names]
        with (self.corpus.parent / "fuzzing.err").open("wb") as errors:
            process = subprocess.Popen(
                words,
                cwd=self.corpus.parent,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                start_new_session=True,
            )
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            assert process.stdout is not None
            process.stdout.close()

    @staticmethod
    def _lines(process: subprocess.Popen[bytes]) -> Iterator[str]:
        """Yield what the process says, line by line, until it ends or is silent for too long."""
        assert process.stdout is not None
        rest, patience = b"", START
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            while selector.select(patience):
                piece = os.read(process.stdout.fileno(), 2**16)
                if not piece:
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        process.wait(SILENCE)
                    return
                patience = SILENCE
                *lines, rest = (rest + piece).split(b"\n")
                yield from (line.decode("utf-8", "replace") for line in lines)
