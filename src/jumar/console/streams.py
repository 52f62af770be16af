"""Standard streams that cannot stop a run: those that were closed are opened, those that break fall silent.

Where a process begins with standard output closed (``>&-``), the next file that it opens gets descriptor 1, and whatever
is printed, by C code or by a child process, would be written into that file. And whoever prints to a pipe whose reader has
left, or to a full disk, is met by an exception in the midst of other work.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Iterator
from typing import IO, Any

_NAMES = ("stdin", "stdout", "stderr")


class Steady:
    """A text stream to which printing never fails: once it could not be written to, it writes to nowhere.

    Everything but printing is the stream's own. ``failure`` is the error that ended it, or ``None``.
    """

    def __init__(self, stream: IO[str], failure: OSError | None = None) -> None:
        self._stream = stream
        self.failure = failure

    def write(self, text: str) -> int:
        """Print, or do nothing where that cannot be done."""
        with self._kept_steady():
            self._stream.write(text)
        return len(text)

    def writelines(self, lines: Any) -> None:
        """Print the lines."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Print what waits in the buffer, or drop it."""
        with self._kept_steady():
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        """Return what the stream has."""
        return getattr(self._stream, name)

    @contextlib.contextmanager
    def _kept_steady(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.failure = self.failure or error
            # What is left in the buffer would raise once more when Python closes the stream.
            with contextlib.suppress(OSError, ValueError, AttributeError):
                to_nowhere(self._stream.fileno())
        except ValueError as error:  # a closed stream
            self.failure = self.failure or OSError(errno.EBADF, str(error))


@contextlib.contextmanager
def steady_streams() -> Iterator[Steady]:
    """Within the block no standard stream is closed, and printing never fails; yield standard output.

    Where it was closed, it has had its failure already.

    Descriptors 0, 1 and 2 stay open afterwards.
    """
    before = [getattr(sys, name) for name in _NAMES]
    for number, name in enumerate(_NAMES):
        _open_where_closed(number, name)
    sys.stdout, sys.stderr = output, errors = _steady(sys.stdout, before[1]), _steady(sys.stderr, before[2])
    try:
        yield output
    finally:
        for stream in (output, errors):
            stream.flush()
        sys.stdin, sys.stdout, sys.stderr = before


def to_nowhere(descriptor: int) -> None:
    """Let what is written to a file descriptor vanish from now on, for children too."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    if nowhere == descriptor:
        os.set_inheritable(descriptor, True)
        return
    os.dup2(nowhere, descriptor)
    os.close(nowhere)


def _open_where_closed(number: int, name: str) -> None:
    try:
        os.fstat(number)
        ours = False
    except OSError:
        to_nowhere(number)
        ours = True
    if getattr(sys, name) is None:  # closed when Python began
        mode = "r" if number == 0 else "w"
        # A descriptor that is open all the same is that of some file that was opened since.
        stream = open(number, mode, closefd=False) if ours else open(os.devnull, mode)  # noqa: SIM115
        setattr(sys, name, stream)


def _steady(stream: Any, before: Any) -> Any:
    if isinstance(stream, Steady):
        return stream
    return Steady(stream, OSError(errno.EBADF, "standard output is closed") if before is None else None)


__all__ = ["Steady", "steady_streams", "to_nowhere"]
