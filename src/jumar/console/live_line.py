"""One line on a terminal that is written over as long as something runs, and nothing anywhere else."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import IO

from jumar.console.terminal import can_draw, columns_of
from jumar.text import printable

CLEAR = "\r\x1b[K"


class LiveLine:
    """A line that is written over; only a terminal that can do so is written to.

    It has no colours. A broken stream is left alone.
    """

    def __init__(self, stream: IO[str], environment: Mapping[str, str] | None = None) -> None:
        self._stream = stream
        self._shown = False
        self._able = can_draw(stream, environment)

    def show(self, text: str) -> None:
        """Put a text in the place of the one before, cut to the terminal's width."""
        if self._able:
            width = (columns_of(self._stream) or 1) - 1
            self._write(CLEAR + printable(text)[: max(width, 0)])
            self._shown = True

    def close(self) -> None:
        """Take the line away."""
        if self._shown:
            self._write(CLEAR)
            self._shown = False

    def _write(self, text: str) -> None:
        encoding = getattr(self._stream, "encoding", None) or "utf-8"
        with suppress(OSError, ValueError):  # ValueError: the stream was closed
            self._stream.write(text.encode(encoding, "replace").decode(encoding, "replace"))
            self._stream.flush()
