"""Numbers and settings in words, as people read and type them."""

from __future__ import annotations

import math
import re
import shlex
import unicodedata
from collections.abc import Iterable
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from typing import Any

_MULTIPLES = {"k": 10**3, "m": 10**6, "g": 10**9, "b": 10**9}
MOST_DIGITS = 300
"""Of a number; larger ones would take long to write out."""


def printable(text: str) -> str:
    r"""Return text of foreign origin as it may be printed: what steers a terminal, as an escape code does, written out.

    Line breaks and tabs stay; other spaces become plain ones; what else cannot be printed is shown as ``\x1b`` or
    ``\u202e``.
    """
    if text.isprintable():
        return text
    return "".join(x if x.isprintable() or x in "\n\t" else _written_out(x) for x in text)


def _written_out(character: str) -> str:
    if unicodedata.category(character) == "Zs":
        return " "
    return character.encode("unicode_escape").decode("ascii")


def shortened(text: str, longest: int) -> str:
    """Return text of at most so many characters: what is longer loses its middle, so that it keeps both ends."""
    if len(text) <= longest:
        return text
    end = longest // 4
    return f"{text[: longest - end - 5]} ... {text[-end:]}"


def whole_number(text: str) -> int:
    """Return a whole number typed as ``1_000_000``, ``1e6``, ``100k`` or ``2M``.

    Raises:
        ValueError: the text is none.
    """
    if re.fullmatch(r"[+-]?\d[\d_]*", text):
        return int(text)  # a float keeps only 53 bits of a seed
    factor = _MULTIPLES.get(text[-1:].lower(), 1)
    try:
        number = Decimal(text if factor == 1 else text[:-1])
    except InvalidOperation:
        raise ValueError from None
    if not (number.is_finite() and abs(number.adjusted()) < MOST_DIGITS):
        raise ValueError
    exact = Fraction(number) * factor  # in binary 64.1 * 1000 is no whole number
    if exact.denominator != 1:
        raise ValueError
    return int(exact)


def wrapper_words(text: str) -> tuple[str, list[str]]:
    """Split ``NAME:key=value,key=value``, where NAME may be ``module:Name``, into the name and the assignments.

    A comma that does not begin another assignment belongs to the value, as in a list.

    Raises:
        ValueError: there is no name, or what comes after it is not an assignment.
    """
    found = re.fullmatch(r"([^:]+(?::[A-Za-z_]\w*(?=:|$))?)(?::(.*))?", text, re.DOTALL)
    if found is None:
        raise ValueError
    assignments = re.split(r",(?=\s*[A-Za-z_]\w*=)", found[2]) if found[2] else []
    if not all("=" in assignment for assignment in assignments):
        raise ValueError
    return found[1], assignments


def repeat_words(env: str | None, wrappers: Iterable[str], encoder: str | None = None) -> str:
    """Return the options, each after a space, that repeat the user's own environment, wrappers and encoder."""
    options = [*([("--env", env)] if env else []), *(("--wrapper", name) for name in wrappers)]
    options += [("--encoder", encoder)] if encoder else []
    return "".join(f" {option} {shlex.quote(value)}" for option, value in options)


def counted(number: int, noun: str) -> str:
    """Return for example ``1 environment`` or ``8 environments``."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def clock_time(seconds: float | None) -> str:
    """Return a duration as ``0:07``, ``12:34`` or ``1:02:03``; ``-:--`` for an unknown one."""
    if seconds is None or not math.isfinite(seconds):
        return "-:--"
    minutes, second = divmod(round(max(seconds, 0.0)), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def short_number(value: float) -> str:
    """Return a number in about four digits: ``1,234``, ``56.7``, ``0.0089`` or ``3.0e-04``."""
    if not math.isfinite(value):
        return str(value)
    size = abs(value)
    if size >= 1e7 or 0 < size < 1e-3:
        return f"{value:.1e}"
    if size >= 1000 or value == 0:
        return f"{value:,.0f}"
    decimals = 1 if size >= 10 else 2 if size >= 1 else 4
    return f"{value:.{decimals}f}"


def percent(share: float) -> str:
    """Return a share as a percentage, with one decimal below 10 %."""
    if not math.isfinite(share):
        return str(share)
    return f"{100 * share:.1f} %" if abs(share) < 0.0995 else f"{100 * share:.0f} %"


def percent_done(share: float) -> str:
    """Return how far a run is in whole percent; 100 % only when it is all done."""
    return f"{math.floor(100 * share + 1e-9):3d} %"


def typed(value: Any) -> str:
    """Return the value of a setting as it is typed."""
    if value is None or isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
