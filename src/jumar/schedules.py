"""Schedules: a setting's value as a function of the share of training that is left.

The share ``p`` in [0, 1] is taken at the start of an iteration, so that the first one uses the whole value and the
last one is not wasted on the end of the schedule. A schedule has a text, which is what is typed and kept in files:
``3e-4``, ``linear:3e-4``, ``exponential:3e-4:3e-6``, ``inverse_sqrt:3e-4:3e-6``.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TypeVar

from jumar.errors import UsageError

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
    """A value that falls in a line to 0: ``f(p) = value * p``."""

    value: float

    def __call__(self, remaining: Number) -> Number:
        """Return ``value * remaining``."""
        return self.value * remaining  # type: ignore[operator]

    def __str__(self) -> str:
        return f"linear:{self.value!r}"


@dataclass(frozen=True)
class Exponential:
    r"""A value that every iteration multiplies by the same factor: :math:`f(p) = end \, (start / end)^p`.

    Over ``N`` iterations the factor is :math:`(end / start)^{1/N}`: the decaying step factor of Kochenderfer, Wheeler and
    Wray, *Algorithms for Decision Making*, section 12.1.

    Raises:
        UsageError: a number is not above 0.
    """

    start: float
    end: float

    def __post_init__(self) -> None:
        _check_above_zero(self)

    def __call__(self, remaining: Number) -> Number:
        """Return ``end * (start / end) ** remaining``."""
        return self.end * (self.start / self.end) ** remaining  # type: ignore[operator]

    def __str__(self) -> str:
        return f"exponential:{self.start!r}:{self.end!r}"


@dataclass(frozen=True)
class InverseSqrt:
    r"""A value that falls with the root of time: :math:`f(p) = start / \sqrt{1 + (1 - p) ((start / end)^2 - 1)}`.

    That is :math:`start / \sqrt{1 + c t}` after ``t`` iterations, with the ``c`` that leads to ``end``. The step sizes
    :math:`\eta_t = \eta_1 / \sqrt{t}` of stochastic gradient ascent in ``N`` iterations are those with
    :math:`end = start / \sqrt{N + 1}`.

    Raises:
        UsageError: a number is not above 0.
    """

    start: float
    end: float

    def __post_init__(self) -> None:
        _check_above_zero(self)

    def __call__(self, remaining: Number) -> Number:
        """Return the value where ``remaining`` of training is left."""
        growth = (self.start / self.end) ** 2 - 1.0
        return self.start / (1.0 + (1.0 - remaining) * growth) ** 0.5  # type: ignore[operator]

    def __str__(self) -> str:
        return f"inverse_sqrt:{self.start!r}:{self.end!r}"


Schedule = Constant | Linear | Exponential | InverseSqrt

KINDS: dict[str, type[Linear] | type[Exponential] | type[InverseSqrt]] = {
    "linear": Linear,
    "exponential": Exponential,
    "inverse_sqrt": InverseSqrt,
}
"""The schedules that have a name in their text, each with as many numbers after it as the class has fields."""

FORMS = ", ".join(f"{name}:{':'.join('XY'[: len(dataclasses.fields(kind))])}" for name, kind in KINDS.items())
"""Their texts: ``linear:X, exponential:X:Y, inverse_sqrt:X:Y``."""


def numbers(value: Schedule) -> tuple[float, ...]:
    """Return the numbers in a schedule."""
    return dataclasses.astuple(value)


def schedule(value: float | str | Schedule) -> Schedule:
    """Make a schedule of a number, of its text, or of a text such as ``"linear:3e-4"`` or ``"exponential:3e-4:3e-6"``.

    Raises:
        UsageError: the value is a function.
        TypeError: the value is neither a number, a text nor a schedule.
        ValueError: the text is neither a number nor that of a schedule.
    """
    if isinstance(value, Schedule):
        return type(value)(*map(float, numbers(value)))  # a NumPy number in it would go neither to JSON nor a check
    if callable(value):
        raise UsageError(
            f'{value!r:.100} is a function, and no file can keep one; write "linear:1e-3" or jumar.schedules.Linear(1e-3), '
            f"say ({FORMS})."
        )
    if isinstance(value, str):
        name, *parts = value.split(":")
        if name in KINDS and len(parts) == len(dataclasses.fields(KINDS[name])):
            return KINDS[name](*map(float, parts))
    return Constant(float(value))


def _check_above_zero(value: Schedule) -> None:
    if not all(float(number) > 0.0 for number in numbers(value)):
        raise UsageError(f"{value} is out of range: its numbers must be above 0.")
