"""What a step costs: the environment's own ``info["cost"]``, or a number of its ``info`` held against a limit.

A cost is a part: it says which entry of ``info`` it reads, whether every step must have that entry, and what a value of
it costs. All backends read it, each where it reads ``info``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

from jumar.errors import UsageError, unknown


class Cost(Protocol):
    """How the cost of a step is read from its ``info``."""

    @property
    def entry(self) -> str:
        """The entry of ``info`` that it is made of."""
        ...

    @property
    def described(self) -> str:
        """What a value of the entry is, for messages."""
        ...

    @property
    def required(self) -> bool:
        """Whether every step must have the entry; else a step without it costs nothing."""
        ...

    @property
    def text(self) -> str | None:
        """What is typed for it and kept in ``config.json``; ``None`` for the environment's own."""
        ...

    def __call__(self, value: Any, xp: Any) -> Any:
        """Return the cost, given the entry; ``xp`` is ``numpy`` or ``jax.numpy``."""
        ...


@dataclass(frozen=True)
class GivenCost:
    """The environment's own cost, where it gives one."""

    entry = "cost"
    described = "a cost"
    required = False
    text = None

    def __call__(self, value: Any, xp: Any) -> Any:
        """Return the value itself."""
        return value


@dataclass(frozen=True)
class VelocityCost:
    """1 where the body moves along x faster than ``limit``, else 0; NaN where its velocity is no finite number.

    Gymnasium's and EnvPool's MuJoCo tasks that move a body, and Brax's, give ``info["x_velocity"]``, in m/s.
    """

    limit: float

    entry = "x_velocity"
    described = "an x_velocity"
    required = True

    @property
    def text(self) -> str:
        """``velocity:LIMIT``."""
        return f"velocity:{self.limit:g}" if float(f"{self.limit:g}") == self.limit else f"velocity:{self.limit!r}"

    def __call__(self, value: Any, xp: Any) -> Any:
        """Hold the velocity against the limit."""
        return xp.where(xp.isfinite(value), (value > self.limit) * 1.0, xp.nan)


GIVEN = GivenCost()


def parse_cost(text: str | None) -> Cost:
    """Read ``velocity:V``; ``None`` is the environment's own cost.

    Raises:
        UsageError: it is neither.
    """
    if text is None:
        return GIVEN
    if not isinstance(text, str):
        raise UsageError(f"cost={text!r} is not a text; write it as velocity:2.5, in the task's m/s.")
    kind, _, limit = text.partition(":")
    if kind != "velocity":
        raise unknown("cost", kind, ["velocity:V"])
    try:
        number = float(limit)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise UsageError(f"the cost {text!r} has no limit; write it as velocity:2.5, in the task's m/s.")
    return VelocityCost(number)


def lacking(entry: str, name: str) -> UsageError:
    """Return the error for an environment that does not have what the cost is made of."""
    return UsageError(
        f"{name} gives no info[{entry!r}], which the cost is made of; choose another cost or environment."
    )
