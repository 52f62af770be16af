"""Lists of names, each with what it stands for."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from jumar.console.terminal import NARROWEST

INDENT = 4
LEAST_ROOM = 32
"""Columns beside the names, where there are fewer, words go below their name."""


def listed(entries: Sequence[tuple[str, str]], width: int | None) -> str:
    """Return a line for each name, with its words beside it.

    Args:
        entries: names and words.
        width: of the terminal, at which words are broken, and begin below their name where there is little room beside it;
            ``None``: every entry is one line.
    """
    names = max((len(name) for name, _ in entries), default=0)
    if width is None or all(names + 2 + len(words) <= width for _, words in entries):
        return "\n".join(f"{name:<{names}}  {words}".rstrip() for name, words in entries)
    beside = width - names - 2 >= LEAST_ROOM
    return "\n".join(line for name, words in entries for line in _broken(name, words, names if beside else None, width))


def _broken(name: str, words: str, names: int | None, width: int) -> list[str]:
    if names is None:
        return [name, *wrapped(words, width, " " * INDENT)]
    first, *rest = wrapped(words, width, " " * (names + 2)) or [""]
    return [f"{name:<{names}}  {first.lstrip()}".rstrip(), *rest]


def wrapped(text: str, width: int | None, indent: str = "") -> list[str]:
    """Return a text in lines of at most so many characters; one line where there is no width.

    Args:
        text: what is broken, at spaces.
        width: of a line, its indent included.
        indent: begins every line.
    """
    if width is None:
        return [indent + text] if text else []
    return textwrap.wrap(text, max(width, NARROWEST), initial_indent=indent, subsequent_indent=indent)
