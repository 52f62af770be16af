"""What a worked example consists of, and what comes out of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

Values = Mapping[str, Any]
"""By name: numbers, arrays of numbers, truth values, or formulas as text."""


@dataclass(frozen=True)
class Findings:
    """What an example gives: numbers in the order in which they are computed."""

    data: Values
    """What is given."""
    steps: Values
    """The intermediate results."""
    printed: Values
    """What is printed; where that is a formula, what it gives with the data."""
    right: Values
    """What is right, by the same names."""
    tolerance: float = 1e-9
    """How far a printed number may be from the right one: half a unit of its last digit, where it was rounded."""

    @property
    def wrong(self) -> tuple[str, ...]:
        """The names of what is printed wrong."""
        return tuple(name for name, value in self.printed.items() if not self._agrees(value, self.right[name]))

    def _agrees(self, printed: Any, right: Any) -> bool:
        if isinstance(printed, str) or isinstance(right, str):
            return isinstance(printed, str) and isinstance(right, str) and printed == right
        # A rounded number may be a little more than half a unit away, where its data were rounded too.
        return bool(
            np.allclose(np.asarray(printed, float), np.asarray(right, float), rtol=0.0, atol=1.2 * self.tolerance)
        )


@dataclass(frozen=True)
class Example:
    """A worked number, an exercise or a formula of a text, which Jumar's functions compute anew."""

    name: str
    """What is typed."""
    title: str
    """What it is about, in a few words."""
    source: str
    """The text, and the number in it."""
    question: str
    """What is asked, in one or two sentences."""
    verdict: str
    """What the numbers say of the print, in a few sentences; the first word is Right or Wrong."""
    find: Callable[[], Findings]
    """Compute everything."""

    def summary(self, found: Findings) -> dict[str, Any]:
        """Return the example and what it gave, for a program."""
        return {
            "name": self.name,
            "title": self.title,
            "source": self.source,
            "question": self.question,
            "data": dict(found.data),
            "steps": dict(found.steps),
            "printed": dict(found.printed),
            "right": dict(found.right),
            "wrong": list(found.wrong),
            "verdict": self.verdict,
        }
