"""Schedules: a setting's value as a function of the share of training that is left."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

Number = TypeVar("Number")


@dataclass(frozen=True)
class Constant:
    """A value that stays: ``f(p) = value``."""

    value: float

    def __call__(self, remaining: Number) -> Number:
        """Return the value; ``remaining`` only gives the type (a number or an array)."""
        return self.value + 0.0 * remaining  # type: ignore[operator]

    def __str__(self) -> str:
        return repr(self.value)


@dataclass(frozen=True)
class Linear:
    """A value that falls in a line to 0: ``f(p) = value * p``, where ``p`` in [0, 1] is the share of steps left.

    ``p`` is taken at the start of an iteration, so that the first one uses the whole value and the last one is not
    wasted on a zero.
    """

    value: float

    def __call__(self, remaining: Number) -> Number:
        """Return ``value * remaining``."""
        return self.value * remaining  # type: ignore[operator]

    def __str__(self) -> str:
        return f"linear:{self.value!r}"


Schedule = Constant | Linear


def schedule(value: float | str | Schedule) -> Schedule:
    """Make a schedule of a number, of its text, or of ``"linear:3e-4"``.

    Raises:
        TypeError: the value is neither a number, a text nor a schedule.
        ValueError: the text is neither a number nor ``linear:NUMBER``.
    """
    if isinstance(value, (Constant, Linear)):
        return type(value)(float(value.value))  # a NumPy number in it would go neither to JSON nor through a check
    if isinstance(value, str):
        kind, colon, number = value.rpartition(":")
        if colon and kind == "linear":
            return Linear(float(number))
        return Constant(float(value))
    return Constant(float(value))
