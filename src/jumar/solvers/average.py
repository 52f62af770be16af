"""A trust region around an average of past policies: each row's gradient is bent so that it does not lead away from it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jumar.policies.distributions import Distribution
from jumar.solvers.joint import Solver
from jumar.solvers.problem import Diagnostics, Parameters, Problem
from jumar.trajectory import Batch, sum_of_weights, weighted_mean


@dataclass(frozen=True)
class AverageTrustRegion:
    r"""A trust region around any solver, by a projection of each row's gradient.

    With ``g`` the gradient of the objective of one row in the parameters of its distribution (logits, say), and
    :math:`k = \nabla KL(\bar\pi \| \pi_\theta)` in the same, ``g`` is replaced by the nearest ``z`` along which the
    divergence grows, to first order, by at most :math:`\delta`:

    .. math::
        \min_z \tfrac12 \|g - z\|^2 \;\text{subject to}\; k^T z \le \delta, \qquad
        z = g - \max\Bigl(0, \frac{k^T g - \delta}{\|k\|^2}\Bigr) k,

    and ``z`` is what goes back through the network. The average policy's parameters follow after each solve:
    :math:`\bar\theta \leftarrow \alpha \bar\theta + (1 - \alpha) \theta`.

    Source: Wang et al. 2017, *Sample Efficient Actor-Critic with Experience Replay*, section 3.3.
    """

    solver: Solver
    delta: float
    """Above 0: where the policy is its own average, ``k`` is rounding error."""
    decay: float
    r""":math:`\alpha` in [0, 1)."""

    def init(self, parameters: Parameters) -> Any:
        """Return the state of the solver inside, and the first average: the policy itself."""
        return {"solver": self.solver.init(parameters), "average": parameters["policy"]}

    def solve(
        self, problem: Problem, parameters: Parameters, state: Any, remaining: Array, key: Array
    ) -> tuple[Parameters, Any, Diagnostics]:
        """Solve with projected gradients, then move the average.

        The record has ``average_kl``, the mean divergence from the average before the solve, and ``projected``, the share of
        rows whose gradient was bent.
        """
        average = state["average"]

        def gain(distribution: Distribution, batch: Batch) -> tuple[Array, Diagnostics]:
            return self._projected(problem, distribution, batch)

        def estimate(parameters: Parameters) -> Batch:
            batch = problem.estimate(parameters)
            return batch._replace(old=problem.distribution(average, batch))

        trusted = replace(problem, gain=gain, estimate=estimate)
        new, inside, record = self.solver.solve(trusted, parameters, state["solver"], remaining, key)
        average = jax.tree.map(lambda old, x: self.decay * old + (1.0 - self.decay) * x, average, new["policy"])
        return new, {"solver": inside, "average": average}, record

    def _projected(self, problem: Problem, distribution: Distribution, batch: Batch) -> tuple[Array, Diagnostics]:
        """Return the objective with the projected gradient: its value is that of the objective itself."""
        here = jax.lax.stop_gradient(distribution)
        (value, about), gradient = jax.value_and_grad(problem.gain, has_aux=True)(here, batch)

        def divergences(distribution: Distribution) -> tuple[Array, Array]:
            rows = batch.old.kl(distribution)
            return jnp.sum(rows), rows

        outwards, rows = jax.grad(divergences, has_aux=True)(here)
        # The objective is a mean: a row's own gradient is what it adds to that of the mean, over its share in it.
        shares = batch.weights / sum_of_weights(batch.weights)
        counted = shares > 0.0
        along = _products(outwards, gradient, shares) / jnp.where(counted, shares, 1.0)
        length = _products(outwards, outwards, shares)
        excess = jnp.where(counted & (length > 0.0), jnp.maximum(0.0, along - self.delta), 0.0)
        bend = shares * excess / jnp.where(length > 0.0, length, 1.0)
        moved = jax.tree.map(lambda x, fixed: x - fixed, distribution, here)  # 0, but for its gradient
        climb = jnp.sum(_products(gradient, moved, shares) - bend * _products(outwards, moved, shares))
        means = {
            "average_kl": weighted_mean(rows, batch.weights),
            "projected": weighted_mean((excess > 0.0).astype(jnp.float32), batch.weights),
        }
        return value + climb, {**about, **means}


def _products(first: Any, second: Any, like: Array) -> Array:
    """Return the inner product of each row of two pytrees of arrays; the rows' axes are those of ``like``."""
    axes = [tuple(range(like.ndim, x.ndim)) for x in jax.tree.leaves(first)]
    pairs = zip(jax.tree.leaves(first), jax.tree.leaves(second), axes, strict=True)
    return sum((jnp.sum(x * y, axis=over) for x, y, over in pairs), jnp.zeros_like(like))
