"""Where a key stands in a TOML file: ``tomllib`` does not say."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

_PART = r"""(?:[A-Za-z0-9_-]+|"[^"\\]*"|'[^']*')"""
_KEYS = rf"{_PART}(?:\s*\.\s*{_PART})*"
_HEADER = re.compile(rf"\s*\[\[?\s*({_KEYS})\s*\]\]?\s*(?:#.*)?")
_ENTRY = re.compile(rf"\s*({_KEYS})\s*=")
_STRING = re.compile(r""""(?:[^"\\]|\\.)*"|'[^']*\'""")


def line_of(text: str, keys: Sequence[str]) -> int | None:
    """Return the number of the line, from 1 on, in which an entry of a sound TOML text begins.

    Of an entry inside an inline table it is the line in which the table begins, of a table that has no line of its own the
    one of its first entry.

    Args:
        text: the whole file.
        keys: the names that lead to the entry, such as ``("search", "gamma", "low")``.
    """
    asked = tuple(keys)
    found: tuple[int, int] | None = None
    for number, path in _entries(text):
        common = min(len(path), len(asked))
        if path[:common] == asked[:common] and common and (found is None or common > found[0]):
            found = common, number
    return found[1] if found else None


def _entries(text: str) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Yield each line that begins a table or an entry, and the names that lead there."""
    table: tuple[str, ...] = ()
    depth, quotes = 0, ""
    for number, line in enumerate(text.splitlines(), 1):
        if not depth and not quotes:
            if header := _HEADER.fullmatch(line):
                table = _names(header[1])
                yield number, table
                continue
            if entry := _ENTRY.match(line):
                yield number, table + _names(entry[1])
                line = line[entry.end() :]
        depth, quotes = _open(line, depth, quotes)


def _names(keys: str) -> tuple[str, ...]:
    return tuple(part.strip("\"'") for part in re.findall(_PART, keys))


def _open(line: str, depth: int, quotes: str) -> tuple[int, str]:
    """Return how many brackets are open after a line, and which triple quotes are."""
    rest = line
    while rest:
        if quotes:
            _, ended, rest = rest.partition(quotes)
            quotes = "" if ended else quotes
        elif rest.startswith(('"""', "'" * 3)):
            quotes, rest = rest[:3], rest[3:]
        elif string := _STRING.match(rest):
            rest = rest[string.end() :]
        elif rest[0] == "#":
            break
        else:
            depth += (rest[0] in "[{") - (rest[0] in "]}")
            rest = rest[1:]
    return depth, quotes
