r"""When a trial of a search is not worth its other seeds.

A trial is trained over :math:`S` seeds, the same for all trials. After :math:`r < S` of them its value so far,
:math:`v_r = f(x_1, \dots, x_r)` with :math:`f` the objective over the scores, is compared with that of *rivals*: trials of
earlier generations that got as far, over the same seeds. So what is decided depends on nothing that trains beside the trial.
Until there are enough rivals every trial goes on.

Sources: Golovin, Solnik, Moitra, Kochanski, Karro and Sculley (2017), *Google Vizier*, section 3.2.2 (median stopping);
Jamieson and Talwalkar (2016), *Non-stochastic best arm identification and hyperparameter optimization* (successive halving),
here with seeds as the resource.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

Objective = Callable[[Sequence[float]], float]
"""What makes one value of the scores of some seeds; larger is better."""


class Pruner(Protocol):
    """A rule that says after how many seeds a trial is looked at, and whether it goes on."""

    def stages(self, seeds: int) -> list[int]:
        """Return after how many seeds a trial is looked at, in order; the last one is ``seeds``."""
        ...

    def goes_on(self, scores: Sequence[float], rivals: Sequence[Sequence[float]], objective: Objective) -> bool:
        """Whether a trial with these scores so far goes on; ``rivals`` are the scores of trials of earlier generations."""
        ...


@dataclass(frozen=True)
class Never:
    """Every trial is trained over all seeds."""

    def stages(self, seeds: int) -> list[int]:
        """Return the end alone."""
        return [seeds]

    def goes_on(self, scores: Sequence[float], rivals: Sequence[Sequence[float]], objective: Objective) -> bool:
        """Say yes."""
        return True


@dataclass(frozen=True)
class Median:
    """After each seed a trial goes on if its value is not below the median of its rivals'."""

    least: int
    """How many rivals there must be."""

    def stages(self, seeds: int) -> list[int]:
        """Return every number of seeds."""
        return list(range(1, seeds + 1))

    def goes_on(self, scores: Sequence[float], rivals: Sequence[Sequence[float]], objective: Objective) -> bool:
        """Compare with the median."""
        values = _values(len(scores), rivals, objective)
        return len(values) < max(1, self.least) or objective(scores) >= statistics.median(values)


@dataclass(frozen=True)
class Halving:
    r"""After :math:`1, \eta, \eta^2, \dots` seeds a trial goes on if it is among the best :math:`1 / \eta` that got so far.

    With :math:`n` rivals these are the best :math:`\lceil (n + 1) / \eta \rceil`, the trial itself among them; of equal values
    the later one goes on, too.
    """

    least: int
    """How many rivals there must be."""
    factor: int = 2

    def stages(self, seeds: int) -> list[int]:
        """Return the powers of the factor below ``seeds``, and ``seeds``."""
        found, stage = [], 1
        while stage < seeds:
            found.append(stage)
            stage *= self.factor
        return [*found, seeds]

    def goes_on(self, scores: Sequence[float], rivals: Sequence[Sequence[float]], objective: Objective) -> bool:
        """Count the rivals that are better."""
        values = _values(len(scores), rivals, objective)
        if len(values) < max(1, self.least):
            return True
        kept = -(-(len(values) + 1) // self.factor)
        return sum(value > objective(scores) for value in values) < kept


def _values(seeds: int, rivals: Sequence[Sequence[float]], objective: Objective) -> list[float]:
    """Return what the rivals that got so far were worth then."""
    return [objective(scores[:seeds]) for scores in rivals if len(scores) >= seeds]
