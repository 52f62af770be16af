"""What a terminal can do, and how wide it is."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from typing import IO, Any

INCAPABLE = ("dumb", "unknown", "")
PLAIN = "JUMAR_PLAIN"
"""The environment variable that asks for plain lines, such as for a screen reader."""
NARROWEST = 20
"""Columns to which texts are broken at least."""


def can_draw(stream: IO[Any], environment: Mapping[str, str] | None = None) -> bool:
    """Whether a stream is a terminal on which lines may be drawn over, and nobody has asked for plain lines.

    Args:
        stream: where to write.
        environment: the environment variables; the process's own by default.
    """
    environment = os.environ if environment is None else environment
    return stream.isatty() and environment.get("TERM", "dumb") not in INCAPABLE and not environment.get(PLAIN)


def columns_of(stream: IO[Any]) -> int | None:
    """Return how wide the terminal behind a stream is, ``COLUMNS`` if that is set; ``None`` if there is none."""
    try:
        if not stream.isatty():
            return None
    except ValueError:  # it was closed
        return None
    try:
        columns = os.get_terminal_size(stream.fileno()).columns
    except (OSError, ValueError, AttributeError):
        columns = 0
    typed = os.environ.get("COLUMNS", "")
    return int(typed) if typed.isdecimal() and int(typed) else columns or shutil.get_terminal_size().columns


def output_columns() -> int | None:
    """Return how wide standard output is; ``None`` where it is no terminal, and lines are not broken."""
    return columns_of(sys.stdout)
