"""Readers of what a file says: each takes a value as JSON gave it, and returns it checked or says what would be right.

A reader is a function of one value. ``whole``, ``number``, ``text`` and ``choice`` make readers of plain values;
``optional``, ``several`` and ``record`` make one of others. A value that is not right raises a ``DamagedEntry``, which
every reader around it tells where that was; ``reading`` adds the file's name:

    >>> read = record(seed=whole(0, 9), shape=several(whole(1, 5), most=3))
    >>> read({"seed": 3, "shape": [4, 5]})
    {'seed': 3, 'shape': [4, 5]}
    >>> read({"seed": 3, "shape": [4, 6]})
    Traceback (most recent call last):
    jumar.fields.DamagedEntry: the entry shape.1 is 6, but must be a whole number from 1 to 5

The digest in a file of Jumar's tells damage. It is no secret, so a file with a right digest may still say anything.
"""

from __future__ import annotations

import math
import re
import reprlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

from jumar.errors import DamagedFile, UsageError

T = TypeVar("T")
Reader = Callable[[Any], T]

LONGEST_TEXT = 1000
"""Characters: longer names would only fill the screen."""
LONGEST_FAULT = 300
"""Characters of a message about an entry."""
MOST_ENTRIES = 1000
"""How many entries a mapping may have unless told."""

_short = reprlib.Repr()
_short.maxstring = _short.maxother = 60


class DamagedEntry(DamagedFile):
    """An entry of a file is not right.

    Attributes:
        fault: what is wrong, as the end of a sentence that begins with the entry.
        place: the names and numbers that lead to the entry.
    """

    def __init__(self, fault: str, place: tuple[str, ...] = ()) -> None:
        self.fault, self.place = _printable(fault), place
        super().__init__(f"the entry {'.'.join(place)} {fault}" if place else f"the value {fault}")

    @classmethod
    def wrong(cls, value: Any, right: str) -> DamagedEntry:
        """Return the error for a value where something else, ``right``, would be."""
        return cls(f"is {_short.repr(value)}, but must be {right}")

    def inside(self, name: str) -> DamagedEntry:
        """Return the same error, its place being inside of the entry ``name``."""
        return DamagedEntry(self.fault, (name, *self.place))


def _printable(words: str) -> str:
    """Return a sentence as it may be shown, whatever was quoted in it: not too long, and nothing that steers a terminal."""
    words = words if len(words) <= LONGEST_FAULT else words[: LONGEST_FAULT - 3] + "..."
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in words)


@contextmanager
def reading(path: Any) -> Iterator[None]:
    """Within the block, an entry that is not right raises a ``DamagedFile`` that names the file ``path`` too."""
    try:
        yield
    except DamagedEntry as error:
        raise DamagedFile(f"{path} is damaged: {error}. Restore a copy.") from None


def flag(value: Any) -> bool:
    """Read true or false."""
    if not isinstance(value, bool):
        raise DamagedEntry.wrong(value, "true or false")
    return value


def whole(least: int, most: int) -> Reader[int]:
    """Return a reader of whole numbers from ``least`` to ``most``."""
    words = f"a whole number from {least} to {most}" if least < most else f"{least}"

    def read(value: Any) -> int:
        if type(value) is not int or not least <= value <= most:
            raise DamagedEntry.wrong(value, words)
        return value

    return read


def number(least: float = -math.inf, most: float = math.inf) -> Reader[float]:
    """Return a reader of numbers from ``least`` to ``most``. NaN is none; without bounds, infinities are."""
    words = "a number" if least == -math.inf else f"a number from {least:g}"
    words += "" if most == math.inf else f" to {most:g}"

    def read(value: Any) -> float:
        if type(value) not in (int, float) or not least <= value <= most:
            raise DamagedEntry.wrong(value, words)
        try:
            return float(value)
        except OverflowError:
            raise DamagedEntry.wrong(value, "a number that a float can hold") from None

    return read


def text(form: str | None = None, right: str = "a short text") -> Reader[str]:
    """Return a reader of short texts of characters that can be printed, which match the whole regular expression ``form``."""

    def read(value: Any) -> str:
        fits = isinstance(value, str) and len(value) <= LONGEST_TEXT and value.isprintable()
        if not fits or (form is not None and not re.fullmatch(form, value)):
            raise DamagedEntry.wrong(value, right)
        return value

    return read


def choice(*choices: str) -> Reader[str]:
    """Return a reader of one of a few texts."""

    def read(value: Any) -> str:
        if not isinstance(value, str) or value not in choices:
            raise DamagedEntry.wrong(value, f"one of {', '.join(choices)}")
        return value

    return read


def optional(reader: Reader[T]) -> Reader[T | None]:
    """Return a reader of ``null``, which becomes ``None``, and of what ``reader`` reads."""

    def read(value: Any) -> T | None:
        return None if value is None else reader(value)

    return read


def several(reader: Reader[T], least: int = 0, most: int = MOST_ENTRIES) -> Reader[list[T]]:
    """Return a reader of lists of ``least`` to ``most`` values."""
    words = f"a list of {least}" if least == most else f"a list of {least} to {most}"

    def read(value: Any) -> list[T]:
        if not isinstance(value, list) or not least <= len(value) <= most:
            raise DamagedEntry.wrong(value, words)
        return [_inside(str(i), reader, each) for i, each in enumerate(value)]

    return read


def mapping(value: Any) -> dict[str, Any]:
    """Read an object of up to ``MOST_ENTRIES`` entries, whatever they are."""
    if not isinstance(value, Mapping) or len(value) > MOST_ENTRIES:
        raise DamagedEntry.wrong(value, f"an object of at most {MOST_ENTRIES} entries")
    return dict(value)


def record(**readers: Reader[Any]) -> Reader[dict[str, Any]]:
    """Return a reader of objects that have these entries; others are passed over."""

    def read(value: Any) -> dict[str, Any]:
        if not isinstance(value, Mapping):
            raise DamagedEntry.wrong(value, "an object")
        if missing := [name for name in readers if name not in value]:
            raise DamagedEntry("is missing", (missing[0],))
        return {name: _inside(name, reader, value[name]) for name, reader in readers.items()}

    return read


def exact_record(**readers: Reader[Any]) -> Reader[dict[str, Any]]:
    """Return a reader of objects that have these entries and no others."""
    inner = record(**readers)

    def read(value: Any) -> dict[str, Any]:
        found = inner(value)
        if others := [name for name in value if name not in readers]:
            raise DamagedEntry("is not one that this version of Jumar knows", (_short.repr(others[0]),))
        return found

    return read


def made_by(make: Callable[[Any], T], reader: Reader[Any]) -> Reader[T]:
    """Return a reader of what ``make`` makes of what ``reader`` reads; its ``UsageError`` says why a value is not right."""

    def read(value: Any) -> T:
        known = reader(value)
        try:
            return make(known)
        except DamagedFile:
            raise
        except UsageError as error:
            raise DamagedEntry(f"is not right: {str(error).removesuffix('.')}") from None

    return read


def _inside(name: str, reader: Reader[T], value: Any) -> T:
    try:
        return reader(value)
    except DamagedEntry as error:
        raise error.inside(name) from None
