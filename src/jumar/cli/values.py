"""Readers of what is typed behind an option; each mistake is an ``ArgumentTypeError`` with Jumar's own sentence."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable

from jumar.errors import unknown
from jumar.text import whole_number, wrapper_words


def count(at_least: int, example: str = "8") -> Callable[[str], int]:
    """Return a reader of whole numbers from ``at_least`` on; see :func:`~jumar.text.whole_number`."""

    def read(text: str) -> int:
        try:
            number = whole_number(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number such as {example}.") from None
        if number < at_least:
            raise argparse.ArgumentTypeError(f"{text} is out of range: it must be at least {at_least}.")
        return number

    return read


steps = count(1, "500000, 1e6 or 100k")
steps_or_none = count(0, "50000, 1e5 or 50k (0: never)")


def mean_return(text: str) -> float:
    """Read a return: any finite number."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise argparse.ArgumentTypeError(f"{text!r} is not a finite number such as 475 or -200.")
    return number


def seed(text: str) -> int:
    """Read a seed: a whole number from 0 to 2^31 - 2, which is what all environments take."""
    number = count(0, "0 or 42")(text)
    if number >= 2**31 - 1:
        raise argparse.ArgumentTypeError(f"{text} is out of range: it must be at most {2**31 - 2}.")
    return number


def workers(text: str) -> int | None:
    """Read a number of worker processes; ``auto`` is ``None``."""
    return None if text == "auto" else count(0, "0, 4 or auto")(text)


def one_of(kind: str, *known: str) -> Callable[[str], str]:
    """Return a reader of one of the ``known`` words."""

    def read(text: str) -> str:
        if text not in known:
            raise argparse.ArgumentTypeError(str(unknown(kind, text, known)))
        return text

    return read


def frame_rate(text: str) -> float:
    """Read frames per second: a positive number."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not (math.isfinite(number) and number > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number such as 30.")
    return number


def picture_size(text: str) -> tuple[int, int]:
    """Read ``WIDTHxHEIGHT``."""
    found = re.fullmatch(r"(\d{1,6})[xX](\d{1,6})", text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a width and a height in pixels such as 640x480.")
    return int(found[1]), int(found[2])


def wrapper(text: str) -> tuple[str, tuple[str, ...]]:
    """Read ``NAME`` or ``NAME:key=value,...`` into the name (``module:Name`` too) and its assignments."""
    try:
        name, assignments = wrapper_words(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME or NAME:key=value,...") from None
    return name, tuple(assignments)


def scale(text: str) -> tuple[str, tuple[float, float]]:
    """Read ``ENV=LOW:HIGH`` into the environment and the two numbers."""
    env, _, ends = text.rpartition("=")
    try:
        low, high = map(float, ends.split(":"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not ENV=LOW:HIGH, such as Hopper-v5=0:3000.") from None
    return env, (low, high)


def port(text: str) -> int:
    """Read a port: a whole number from 0 to 65,535."""
    number = count(0, "8765 (0: a free one)")(text)
    if number > 65_535:
        raise argparse.ArgumentTypeError(f"{text} is out of range: it must be at most 65535.")
    return number
