"""Faults of the disk and deaths of the process, at a chosen operation on files: in this process, and so without any chance."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

CHANGES = ("open", "write", "fsync", "replace", "unlink", "mkdir", "rmdir", "ftruncate", "truncate")
NEEDS_SPACE = ("open", "write", "mkdir")
MODES = ("kill", "error", "full")


class Killed(BaseException):
    """Stands for the death of the process: no ``except OSError`` and no clean-up can do anything any more."""


class Faults:
    """Counts the changing operations and lets number ``at`` fail (and what follows, by ``mode``).

    ``kill``: the process is dead; what was not flushed is lost. ``error``: this one operation raises. ``full``: from
    here on, nothing that needs space works. A write that fails has written half.
    """

    def __init__(self, mode: str, at: int) -> None:
        self.mode, self.at = mode, at
        self.names: list[str] = []
        self.unflushed: set[int] = set()
        self._originals = {name: getattr(os, name) for name in CHANGES}

    @property
    def count(self) -> int:
        """How many operations there were."""
        return len(self.names)

    def call(self, name: str, *args: Any, **kwargs: Any) -> Any:
        """Do an operation, or let it fail."""
        original = self._originals[name]
        if name == "open" and not args[1] & (os.O_CREAT | os.O_WRONLY | os.O_RDWR):
            return original(*args, **kwargs)
        self.names.append(name)
        if name == "write":
            self.unflushed.add(os.fstat(args[0]).st_ino)
        if self._fails(needs_space=name in NEEDS_SPACE and (name != "open" or bool(args[1] & os.O_CREAT))):
            if name == "write" and (self.mode != "kill" or self.count == self.at):
                original(args[0], bytes(args[1])[: len(args[1]) // 2])
            raise Killed if self.mode == "kill" else OSError(errno.ENOSPC, "No space left on device")
        if name == "fsync":  # a real one would only be slow
            return self.unflushed.discard(os.fstat(args[0]).st_ino)
        return original(*args, **kwargs)

    def _fails(self, *, needs_space: bool) -> bool:
        if self.mode == "kill":
            return self.count >= self.at
        if self.mode == "full":
            return self.count >= self.at and needs_space
        return self.count == self.at

    def lose_unflushed(self, folder: Path) -> None:
        """Do to the files in ``folder`` what a power loss does to those that were written and not flushed."""
        for path in folder.rglob("*"):
            if path.is_file() and path.stat().st_ino in self.unflushed:
                os.truncate(path, path.stat().st_size // 2)


@contextmanager
def faults(mode: str = "none", at: int = 0) -> Iterator[Faults]:
    """Within the block, operations on files are counted, and number ``at`` fails as ``mode`` says."""
    injected = Faults(mode, at)
    with ExitStack() as stack:
        for name in CHANGES:
            stack.enter_context(mock.patch.object(os, name, _caller(injected, name)))
        yield injected


def _caller(injected: Faults, name: str) -> Callable[..., Any]:
    return lambda *args, **kwargs: injected.call(name, *args, **kwargs)


@dataclass(frozen=True)
class Struck:
    """What came of an act that was struck at one of its operations, and then done again.

    Attributes:
        mode: of the fault.
        at: which operation it was.
        seen: what was observed after the fault.
        repaired: whether doing it again gave what it gives in one go.
    """

    mode: str
    at: int
    seen: Any
    repaired: bool


def each_fault(
    base: Path, prepare: Callable[[Path], None], act: Callable[[Path], None], observe: Callable[[Path], Any]
) -> Iterator[Struck]:
    """Yield, for each mode, what came of ``act`` after it was struck at its 1st, 2nd, ... last operation.

    Args:
        base: an empty folder.
        prepare: makes what there is before the act, in a folder.
        act: does something to the files of a folder.
        observe: says what a reader finds there.
    """
    whole = base / "whole"
    whole.mkdir()
    prepare(whole)
    with faults() as counted:
        act(whole)
    expected = observe(whole)
    for mode in MODES:
        for at in range(1, counted.count + 1):
            folder = base / f"{mode}-{at}"
            folder.mkdir()
            prepare(folder)
            with faults(mode, at) as injected, suppress(Killed, OSError):
                act(folder)
            if mode == "kill":
                injected.lose_unflushed(folder)
            seen = observe(folder)
            act(folder)
            yield Struck(mode, at, seen, observe(folder) == expected)


def after_every_fault(
    base: Path, prepare: Callable[[Path], None], act: Callable[[Path], None], observe: Callable[[Path], Any]
) -> dict[str, list[Any]]:
    """Return, per mode, what ``observe`` sees after each fault of :func:`each_fault`.

    Raises:
        AssertionError: doing it again did not give what it gives in one go.
    """
    seen: dict[str, list[Any]] = {}
    for struck in each_fault(base, prepare, act, observe):
        if not struck.repaired:
            raise AssertionError((struck.mode, struck.at))
        seen.setdefault(struck.mode, []).append(struck.seen)
    return seen
