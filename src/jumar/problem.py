"""The problem that a solver is given: climb an objective while a divergence stays small.

    maximise  L(theta)   while   D(theta_old, theta)  stays small

Solvers know nothing of policies, critics or algorithms: they see functions of (parameters, batch).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import jax.numpy as jnp
from jax import Array

from jumar.distributions import Distribution
from jumar.trajectory import Batch, weighted_mean

Parameters = Any
Diagnostics = dict[str, Array]


@dataclass(frozen=True)
class Problem:
    """One update's problem. ``parameters`` are always the joint ones of actor and critic."""

    objective: Callable[[Parameters, Batch], tuple[Array, Diagnostics]]
    """L: the number to maximise on a batch, and what is worth knowing about it (scalars)."""
    distribution: Callable[[Parameters, Batch], Distribution]
    """The policy's action distributions at all rows: what a divergence is measured between."""
    estimate: Callable[[Parameters], Batch]
    """The whole batch, its advantages and value targets estimated with the critic of these parameters."""

    def divergence(self, old: Parameters, new: Parameters, batch: Batch) -> tuple[Array, Array]:
        """Return D: the mean over rows of KL(old || new), and the largest of them."""
        kl = self.distribution(old, batch).kl(self.distribution(new, batch))
        return weighted_mean(kl, batch.weights), jnp.max(jnp.where(batch.weights > 0, kl, 0.0))


class Solver(Protocol):
    """A part that takes a problem and returns better parameters."""

    def init(self, parameters: Parameters) -> Any:
        """Return the solver's own state (an optimiser's moments, a penalty's coefficient)."""
        ...

    def solve(
        self, problem: Problem, parameters: Parameters, state: Any, remaining: Array, key: Array
    ) -> tuple[Parameters, Any, Diagnostics]:
        """Return new parameters, the new state and the flight record's scalars.

        Args:
            problem: what to climb.
            parameters: where to start, the parameters that the batch was collected with.
            state: what ``init`` or the last ``solve`` returned.
            remaining: the share of training that is left, in [0, 1], for schedules.
            key: a random key.
        """
        ...
