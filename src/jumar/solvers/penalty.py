"""The penalty: a solver climbs the objective minus a multiple of the divergence from the old policy."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import jax.numpy as jnp
from jax import Array

from jumar.policies.distributions import Distribution
from jumar.solvers.joint import Solver
from jumar.solvers.problem import Diagnostics, Divergence, Parameters, Problem, kl
from jumar.trajectory import Batch, weighted_mean

SMALLEST, LARGEST = 1e-4, 1e4
"""The adaptive coefficient stays between these."""


def adapted_coefficient(beta: Array, mean_kl: Array, target: float) -> Array:
    r"""Return the coefficient after an update: :math:`2 \beta` where the divergence is above 1.5 times its target.

    Where it is below the target divided by 1.5, :math:`\beta / 2`, and else :math:`\beta`; always between
    :data:`SMALLEST` and :data:`LARGEST`.

    Source: Schulman et al. 2017, *Proximal Policy Optimization Algorithms*, section 4.
    """
    factor = jnp.where(mean_kl > 1.5 * target, 2.0, jnp.where(mean_kl < target / 1.5, 0.5, 1.0))
    return jnp.clip(beta * factor, SMALLEST, LARGEST)


@dataclass(frozen=True)
class Penalty:
    r"""Penalty around any solver: :math:`\max_\theta L(\theta) - \beta E[KL(\pi_{old} \| \pi_\theta)]`.

    The problem may have another divergence in the place of this one.

    With a target the coefficient is adapted once after each update, by the divergence of the whole batch:

    .. math::
        \beta \leftarrow 2 \beta \;\text{if}\; KL > 1.5 \, KL_{target}, \qquad
        \beta \leftarrow \beta / 2 \;\text{if}\; KL < KL_{target} / 1.5.

    Source: Schulman et al. 2017, *Proximal Policy Optimization Algorithms*, section 4.
    """

    solver: Solver
    coefficient: float
    r"""The first, or only, :math:`\beta`."""
    target: float | None = None
    """The mean divergence that an update shall have; ``None``: the coefficient is fixed."""
    measure: Divergence = kl
    """The divergence that the coefficient is adapted by: an exact one, whatever the penalty itself is."""

    def init(self, parameters: Parameters) -> Any:
        """Return the state of the solver inside, and the coefficient."""
        return {"solver": self.solver.init(parameters), "coefficient": jnp.asarray(self.coefficient, jnp.float32)}

    def solve(
        self, problem: Problem, parameters: Parameters, state: Any, remaining: Array, key: Array
    ) -> tuple[Parameters, Any, Diagnostics]:
        """Climb the penalised objective, then adapt the coefficient."""
        beta, old = state["coefficient"], parameters["policy"]

        def gain(distribution: Distribution, batch: Batch) -> tuple[Array, Diagnostics]:
            value, about = problem.gain(distribution, batch)
            rows = problem.divergence(batch.old, distribution, batch)
            return value - beta * weighted_mean(rows, batch.weights), about

        def estimate(parameters: Parameters) -> Batch:
            batch = problem.estimate(parameters)
            return batch._replace(old=problem.distribution(old, batch))

        penalised = replace(problem, gain=gain, estimate=estimate)
        new, inside, record = self.solver.solve(penalised, parameters, state["solver"], remaining, key)
        measured = replace(problem, divergence=self.measure)
        mean_kl, _ = measured.distance(old, new["policy"], problem.estimate(parameters))
        states = {"solver": inside, "coefficient": self._adapted(beta, mean_kl)}
        return new, states, {**record, "kl_coef": beta}

    def _adapted(self, beta: Array, mean_kl: Array) -> Array:
        return beta if self.target is None else adapted_coefficient(beta, mean_kl, self.target)
