"""What a terminal can do: who draws on it, and how wide it is."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import struct
import termios
from collections.abc import Iterator
from typing import IO

import pytest

from jumar.console.terminal import can_draw, columns_of


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def narrow() -> Iterator[IO[str]]:
    """A terminal of 37 columns."""
    reader, writer = pty.openpty()
    fcntl.ioctl(writer, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 37, 0, 0))
    with open(writer, "w") as stream:
        yield stream
    os.close(reader)


@pytest.mark.parametrize(
    ("environment", "able"),
    [
        ({"TERM": "xterm"}, True),
        ({"TERM": "xterm", "JUMAR_PLAIN": ""}, True),
        ({"TERM": "xterm", "JUMAR_PLAIN": "1"}, False),
        ({"TERM": "dumb"}, False),
        ({"TERM": ""}, False),
        ({}, False),
    ],
)
def test_only_what_can_be_written_over_is_drawn_on(environment: dict[str, str], able: bool) -> None:
    assert can_draw(Terminal(), environment) is able
    assert not can_draw(io.StringIO(), environment)


def test_the_width_is_that_of_the_stream_itself(narrow: IO[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    assert columns_of(narrow) == 37  # not that of standard output, which is none here
    monkeypatch.setenv("COLUMNS", "50")
    assert columns_of(narrow) == columns_of(Terminal()) == 50
    assert columns_of(io.StringIO()) is None


def test_a_stream_that_was_closed_has_no_width() -> None:
    stream = Terminal()
    stream.close()
    stream.isatty = lambda: (_ for _ in ()).throw(ValueError("I/O operation on closed file"))  # type: ignore[method-assign]
    assert columns_of(stream) is None
