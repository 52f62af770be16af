"""``python -m jumar.drills.fuzzing.child CORPUS SEED START COUNT [TARGET...]``: do some tries, and tell of each.

Before each try its number is printed, so that whoever reads along knows which one hung or crashed; and a line of JSON for
each that went wrong. Memory is limited, and what a reader must not do is noticed by an audit hook: writing or removing outside
of the corpus, starting processes, opening connections, importing what a file names.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import resource
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

MOST_MEMORY = 2 * 2**30
"""Bytes that a reading may take beside what the process has before: reading the largest JSON takes half a gigabyte."""
CANARY = "canary"
"""The name of a module that changed files name. Nobody may import it."""
FORBIDDEN = (
    *("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "os.forkpty", "os.startfile"),
    *("socket.connect", "socket.bind", "socket.getaddrinfo", "urllib.Request", "pickle.find_class", "ctypes.cdata"),
    *("shutil.rmtree", "shutil.move", "os.chmod", "os.chown", "os.symlink", "os.link"),
)
"""Events that no reader may raise."""
CHANGING = ("os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.truncate")
"""Events that no reader may raise for a path outside of the corpus."""
BACKENDS = ("envpool", "gymnax", "brax")
"""Installed packages that a file may rightly ask for."""
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


class Watch:
    """Collects what a reader does and must not, while it is on."""

    def __init__(self, corpus: Path) -> None:
        self._corpus = str(corpus.resolve())
        self._seen: list[str] | None = None
        sys.addaudithook(self._hear)

    @contextlib.contextmanager
    def __call__(self) -> Iterator[list[str]]:
        """Collect within the block."""
        self._seen = seen = []
        try:
            yield seen
        finally:
            self._seen = None

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if (seen := self._seen) is None:
            return
        if event in FORBIDDEN:
            seen.append(event)
        elif event == "import" and str(arguments[0]).partition(".")[0] == CANARY:
            seen.append(f"import {arguments[0]}")
        elif event in CHANGING and not self._is_inside(arguments[0]):
            seen.append(f"{event} {arguments[0]!r:.100}")
        elif event == "open" and self._writes(*arguments[:3]) and not self._is_inside(arguments[0]):
            seen.append(f"open {arguments[0]!r:.100} for writing")

    @staticmethod
    def _writes(path: Any, mode: Any, flags: Any) -> bool:
        return (
            bool(flags & WRITING) if isinstance(flags, int) else isinstance(mode, str) and bool(set(mode) & set("wax+"))
        )

    def _is_inside(self, path: Any) -> bool:
        if isinstance(path, int):
            return True  # of a descriptor that was opened before
        return os.path.abspath(os.fsdecode(path)).startswith(self._corpus + os.sep)


def limit_memory(more: int) -> None:
    """Let the process take so many bytes more than it has now."""
    with open("/proc/self/statm", encoding="ascii") as file:
        now = int(file.read().split()[0]) * resource.getpagesize()
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    most = now + more if hard == resource.RLIM_INFINITY else min(now + more, hard)
    resource.setrlimit(resource.RLIMIT_AS, (most, hard))


def main() -> None:
    """Do the tries that the arguments name."""
    corpus, seed, start, count = Path(sys.argv[1]), *map(int, sys.argv[2:5])
    sys.dont_write_bytecode = True
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    for name in BACKENDS:  # an environment's name may ask for one of them, and importing it writes files of its own
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    from jumar.drills.fuzzing.attempts import Attempts

    attempts = Attempts(corpus, seed, sys.argv[5:], guard=Watch(corpus))
    if sys.platform == "linux":
        limit_memory(MOST_MEMORY)
    for number in range(start, start + count):
        print(number, file=answers, flush=True)
        what, wrong = attempts.attempt(number)
        if wrong is not None:
            print(json.dumps({"number": number, "what": what, "wrong": wrong}), file=answers, flush=True)
    print("end", file=answers, flush=True)


if __name__ == "__main__":
    main()
