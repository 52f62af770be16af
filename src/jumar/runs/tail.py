"""A log that grows, read piece by piece: each byte once, however often it is asked."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from jumar.runs.entries import open_plain

PIECE = 2**20
"""Bytes that are read at a time. A longer line is no line of Jumar's, and is passed over."""
REMEMBERED = 4096
"""Bytes before the place reached that must still be the same for reading to go on there."""


@dataclass(frozen=True)
class News:
    """What a log has more than before."""

    lines: list[bytes]
    """Whole lines without their ends."""
    anew: bool = False
    """Whether it was cut back or replaced, so that what was read before does not count, and it is read from its beginning."""
    more: bool = False
    """Whether there may be more to read at once."""


class Tail:
    """The lines of a log that were not read yet. Only what was appended is read, and nothing is kept open.

    A resumed run cuts its logs back, and may have appended to them again since the last look. So the file's identity, its
    length and the last bytes that were read are compared before reading goes on.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._forget()

    def _forget(self) -> None:
        self._offset = 0
        self._before = b""
        self._identity: tuple[int, int] | None = None
        self._inside_long = False

    def read(self) -> News:
        """Return up to ``PIECE`` bytes of lines.

        A half last line is left for later.

        Raises:
            DamagedFile: a link or something else than a plain file is there.
            OSError: it cannot be read.
        """
        try:
            descriptor = open_plain(self.path)
        except (FileNotFoundError, NotADirectoryError):
            anew = self._offset > 0
            self._forget()
            return News([], anew)
        try:
            status = os.fstat(descriptor)
            anew = self._offset > 0 and not self._goes_on(descriptor, status)
            if anew:
                self._forget()
            self._identity = status.st_dev, status.st_ino
            data = os.pread(descriptor, PIECE, self._offset)
        finally:
            os.close(descriptor)
        return News(self._lines(data), anew, more=len(data) == PIECE)

    def _goes_on(self, descriptor: int, status: os.stat_result) -> bool:
        if (status.st_dev, status.st_ino) != self._identity or status.st_size < self._offset:
            return False
        return os.pread(descriptor, len(self._before), self._offset - len(self._before)) == self._before

    def _lines(self, data: bytes) -> list[bytes]:
        end = data.rfind(b"\n") + 1
        if not end and len(data) == PIECE:  # in the midst of a line that is too long
            end, self._inside_long, lines = len(data), True, []
        else:
            lines = data[:end].split(b"\n")[:-1]
            if lines and self._inside_long:
                self._inside_long = False
                del lines[0]
        self._offset += end
        self._before = (self._before + data[:end])[-REMEMBERED:]
        return lines
