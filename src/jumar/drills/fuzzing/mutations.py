"""Changed files: bytes that are flipped, cut, doubled and mixed, and data with absurd values whose digest is right again.

The digest in a file of Jumar's tells damage. It is no secret, so what a reader must stand is any value at all.
"""

from __future__ import annotations

import json
import math
import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from jumar.runs.files import FORMAT, sha256

LEFT_OUT = object()
"""Stands for a value that is left out."""
Place = tuple[str | int, ...]
"""The way to a value in some data."""
ABSURD: Sequence[Any] = (
    *(None, True, False, 0, -1, 1, 2, 3.5, -0.5, 1e308, 5e-324, math.nan, math.inf, -math.inf),
    *(2**31 - 1, 2**31, 2**53 + 1, 2**63, -(2**63), 10**9, 10**12, 10**30, 10**300, 10**400),
    *(
        "",
        "x",
        "nan",
        "1",
        "none",
        "../../etc/passwd",
        "/dev/zero",
        "canary:Canary",
        "linear:-1",
        "\x1b[2J\x07",
        "\ud800",
    ),
    *(
        " ",
        "\u202e",
        "0" * 64,
        "é" * 40,
        2000 * "x",
        100 * "[",
        "os.system",
        "__import__('os')",
        "a" * 70 + ".safetensors",
    ),
    *([], {}, [[]], [None], [1] * 200, {"": 1}, {"type": "Box"}, {"$float": "nan"}, {"$float": 3}, [{}] * 3),
    LEFT_OUT,
)
"""What takes the place of a value."""
DEEP = 300
"""Levels of a value that is nested too deep."""
MOST_PLACES = 2000
"""How many of the first places of some data are drawn from: data that were made wide and deep have very many."""
WIDE = 3000
"""Entries of a value that has too many."""


def places(data: Any) -> Iterator[Place]:
    """Yield the way to each value in some data, those that hold others before what they hold."""
    waiting: list[tuple[Place, Any]] = [((), data)]
    while waiting:
        place, value = waiting.pop()
        if place:
            yield place
        if isinstance(value, (dict, list)):
            inner = list(value.items() if isinstance(value, dict) else enumerate(value))
            waiting += [((*place, key), each) for key, each in reversed(inner)]


def changed(data: Any, place: Place, value: Any) -> Any:
    """Return some data with another value at a place; it is left out where ``value`` says so.

    What is not on the way to it is shared with the data that were given.
    """
    key, *rest = place
    result = data.copy()
    if rest:
        result[key] = changed(data[key], tuple(rest), value)
    elif value is LEFT_OUT:
        del result[key]
    else:
        result[key] = value
    return result


def forged(what: str, data: Mapping[str, Any]) -> bytes:
    """Return the bytes of a JSON file of Jumar's with a right digest; there is no more to it than this."""
    body = json.dumps({"format": FORMAT, "what": what, **data}, indent=2).encode()[:-2]
    return body + b',\n  "digest": "' + sha256(body + b"\n}\n").encode() + b'"\n}\n'


# Data ----------------------------------------------------------------------------------------------------------------


def mutated_data(data: Any, chance: random.Random) -> Any:
    """Return some data with one to three of its values changed: to absurd ones, to each other, to more or fewer of them."""
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        known = list(islice(places(data), MOST_PLACES))
        if not known:
            return data
        data = chance.choice(CHANGES)(data, chance.choice(known), chance)
    return data


def _absurd(data: Any, place: Place, chance: random.Random) -> Any:
    value = chance.choice(ABSURD)
    if value is LEFT_OUT and isinstance(at(data, place[:-1]), list):
        value = None
    return changed(data, place, value)


def _scaled(data: Any, place: Place, chance: random.Random) -> Any:
    """Change a number to one near it, or far off."""
    value = at(data, place)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return _absurd(data, place, chance)
    factor = chance.choice((-1, 0, 2, 10, 1000, 2**20, 2**33))
    if chance.random() < 0.5:
        return changed(data, place, value * factor)
    try:
        return changed(data, place, value + chance.choice((-1, 1, 0.5, factor)))
    except OverflowError:  # half more than a whole number beyond all floats
        return changed(data, place, value + 1)


def _moved(data: Any, place: Place, chance: random.Random) -> Any:
    """Put a value of one place in another."""
    other = chance.choice(list(islice(places(data), MOST_PLACES)))
    return changed(data, place, at(data, other))


def _renamed(data: Any, place: Place, chance: random.Random) -> Any:
    """Give an entry another name."""
    key = place[-1]
    if not isinstance(key, str):
        return _absurd(data, place, chance)
    value = at(data, place)
    other = chance.choice((key + "_", key.upper(), key[:-1], "__class__", "type", "x" * 5000, "\x00", "$float"))
    without = changed(data, place, LEFT_OUT)
    return changed(without, (*place[:-1], other), value)


def _more(data: Any, place: Place, chance: random.Random) -> Any:
    """Repeat a list, fill an object, or lengthen a text."""
    value = at(data, place)
    many = chance.choice((2, 10, WIDE))
    if isinstance(value, list):
        return changed(data, place, (value * many)[:WIDE] or [0] * many)
    if isinstance(value, dict):
        return changed(data, place, {**value, **{f"entry {i}": i for i in range(many)}})
    if isinstance(value, str):
        return changed(data, place, value * many)
    return _absurd(data, place, chance)


def _deep(data: Any, place: Place, chance: random.Random) -> Any:
    """Wrap a value in many lists or objects."""
    value, in_lists = at(data, place), chance.random() < 0.5
    for _ in range(chance.choice((1, 5, 40, DEEP))):
        value = [value] if in_lists else {"spaces": value}
    return changed(data, place, value)


CHANGES: Sequence[Callable[[Any, Place, random.Random], Any]] = (
    *(_absurd, _absurd, _absurd, _scaled, _scaled, _moved, _renamed, _more, _deep),
)


def at(data: Any, place: Place) -> Any:
    """Return the value at a place."""
    for key in place:
        data = data[key]
    return data


# Bytes ---------------------------------------------------------------------------------------------------------------


def mutated_bytes(data: bytes, chance: random.Random) -> bytes:
    """Return some bytes with a few changes: flips, cuts, repeats, foreign pieces, other numbers and words."""
    for _ in range(chance.choice((1, 1, 2, 4))):
        data = chance.choice(BYTE_CHANGES)(data, chance)
    return data


def _flip(data: bytes, chance: random.Random) -> bytes:
    if not data:
        return data
    changed = bytearray(data)
    for _ in range(chance.choice((1, 1, 3, 20))):
        changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def _cut(data: bytes, chance: random.Random) -> bytes:
    return data[: chance.choice((0, 1, len(data) // 2, max(0, len(data) - 1), chance.randint(0, len(data))))]


def _without(data: bytes, chance: random.Random) -> bytes:
    start = chance.randint(0, len(data))
    return data[:start] + data[start + chance.choice((1, 2, 8, 100)) :]


def _twice(data: bytes, chance: random.Random) -> bytes:
    start, length = chance.randint(0, len(data)), chance.choice((1, 8, 100, 1000))
    return data[:start] + data[start : start + length] * chance.choice((2, 2, 50)) + data[start + length :]


FOREIGN: Sequence[bytes] = (
    *(b"\x00", b"\xff\xff\xff\xff", b"\xff" * 8, b"\x80", b"\n", b"\r\n", b'"', b"{", b"}", b"[" * 3000, b"{" * 3000),
    *(b"NaN", b"Infinity", b"-Infinity", b"1e999", b"-1", b"9" * 400, b"9" * 5000, b"null", b"true", b"\xef\xbb\xbf"),
    *(
        b"\x80\x04\x95\x1a\x00",
        b"PK\x03\x04",
        b"\x89HDF\r\n\x1a\n",
        b"<html>",
        b"= 1\n",
        b"\n[x]\n",
        b"\xed\xa0\x80",
        b"# ",
    ),
)


def _foreign(data: bytes, chance: random.Random) -> bytes:
    start = chance.randint(0, len(data))
    return data[:start] + chance.choice(FOREIGN) + data[start + chance.choice((0, 0, 1, 8)) :]


def _other_number(data: bytes, chance: random.Random) -> bytes:
    """Put something else in the place of a number in a text."""
    numbers = list(re.finditer(rb"-?\d+(\.\d+)?(e-?\d+)?", data[:100_000]))
    if not numbers:
        return _foreign(data, chance)
    found = chance.choice(numbers)
    options = (
        b"0",
        b"-1",
        b"1e999",
        b"NaN",
        b"Infinity",
        b"9" * 25,
        b"9" * 400,
        b"9" * 5000,
        b"0.5",
        b'"1"',
        b"null",
        b"[]",
    )
    return data[: found.start()] + chance.choice(options) + data[found.end() :]


def _swapped(data: bytes, chance: random.Random) -> bytes:
    """Exchange two lines, or two pieces where there are no lines."""
    lines = data.split(b"\n")
    if len(lines) < 3:
        middle = chance.randint(0, len(data))
        return data[middle:] + data[:middle]
    a, b = chance.randrange(len(lines)), chance.randrange(len(lines))
    lines[a], lines[b] = lines[b], lines[a]
    return b"\n".join(lines)


BYTE_CHANGES: Sequence[Callable[[bytes, random.Random], bytes]] = (
    *(_flip, _flip, _cut, _without, _twice, _foreign, _foreign, _other_number, _other_number, _swapped),
)
