"""Regression: a critic moves as a policy does, by the likelihood of its targets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from jax import Array
from jax.flatten_util import ravel_pytree

from jumar.policies.distributions import DiagGaussian
from jumar.solvers.natural import PolicySolver
from jumar.solvers.problem import Climb, Diagnostics, Parameters, Problem
from jumar.trajectory import Batch, weighted_mean


@dataclass(frozen=True)
class Regression:
    r"""Fits values to the batch's value targets by one move of a policy solver.

    The critic counts as a policy that draws its targets from :math:`N(V(s), 1)`. It climbs their mean log-likelihood,
    :math:`-\frac12 E[(V - R)^2]` and a constant, whatever the loss in the climb. This policy's Fisher matrix is the
    Gauss-Newton matrix :math:`E[\nabla V \nabla V^T]` of that objective, and its divergence is
    :math:`\frac12 (V - V')^2`: what moves policies, within a trust region too, moves critics.

    Source: Wu et al. 2017, section 3.1.
    """

    values: Callable[[Parameters, Batch], Array]
    """V at all rows of a batch, a function of the critic's parameters."""
    solver: PolicySolver

    def init(self, parameters: Parameters) -> Any:
        """Return the solver's state."""
        return self.solver.init(parameters)

    def climb(
        self, climb: Climb, parameters: Parameters, state: Any, remaining: Array, key: Array
    ) -> tuple[Parameters, Any, Diagnostics]:
        """Take the step; the record has the climb's own scalars at the old parameters."""
        flat, unravel = ravel_pytree(parameters)
        batch = climb.prepare(climb.estimate(parameters))

        def distribution(parameters: Parameters, batch: Batch) -> DiagGaussian:
            mean = self.values(parameters, batch)[..., None]
            return DiagGaussian(mean, jnp.zeros_like(mean))

        def gain(at: DiagGaussian, batch: Batch) -> tuple[Array, Diagnostics]:
            return weighted_mean(at.log_prob(batch.returns[..., None]), batch.weights), {}

        problem = Problem(gain, climb.objective, distribution, climb.estimate, climb.prepare)
        moved = self.solver.move(problem, flat, unravel, batch, state, remaining, key)
        _, numbers = climb.objective(parameters, batch)
        return unravel(moved.flat), moved.state, {**numbers, **moved.about}
