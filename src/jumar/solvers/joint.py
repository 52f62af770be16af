"""The solver of plain actor-critic methods: climb the policy's objective and the critic's loss as one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from jax import Array

from jumar.solvers.problem import Climb, Diagnostics, Parameters, Problem


class Climber(Protocol):
    """A way up one objective of one pytree of parameters: ``Ascent`` and ``Epochs``."""

    def init(self, parameters: Parameters) -> Any:
        """Return the climber's own state (an optimiser's moments)."""
        ...

    def climb(
        self, climb: Climb, parameters: Parameters, state: Any, remaining: Array, key: Array
    ) -> tuple[Parameters, Any, Diagnostics]:
        """Return better parameters, the new state, and scalars for the flight record.

        Args:
            climb: what to climb.
            parameters: where to start.
            state: what ``init`` or the last ``climb`` returned.
            remaining: the share of training that is left, in [0, 1], for schedules.
            key: a random key.
        """
        ...


class Solver(Protocol):
    """A part that takes an update's problem and returns better joint parameters."""

    def init(self, parameters: Parameters) -> Any:
        """Return the solver's own state for joint parameters ``{"policy": ..., "critic": ...}``."""
        ...

    def solve(
        self, problem: Problem, parameters: Parameters, state: Any, remaining: Array, key: Array
    ) -> tuple[Parameters, Any, Diagnostics]:
        """Return better joint parameters, the new state, and scalars for the flight record.

        ``parameters`` are those that the experience was collected with; the rest is as in :meth:`Climber.climb`.
        """
        ...


@dataclass(frozen=True)
class Joint:
    """Hands :meth:`Problem.joint` to a climber, so that one gradient, with one norm, moves actor and critic."""

    climber: Climber
    vf_coef: float
    """The weight of the critic's loss."""

    def init(self, parameters: Parameters) -> Any:
        """Return the climber's state."""
        return self.climber.init(parameters)

    def solve(
        self, problem: Problem, parameters: Parameters, state: Any, remaining: Array, key: Array
    ) -> tuple[Parameters, Any, Diagnostics]:
        """Climb both at once."""
        return self.climber.climb(problem.joint(self.vf_coef), parameters, state, remaining, key)
