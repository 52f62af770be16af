r"""The step of constrained policy optimization: as far up the objective as a divergence and a cost allow.

With the gradients ``g`` of the objective and ``b`` of the cost, the present excess ``c`` of the cost over its limit, and the
curvature ``F`` of the divergence, a step ``d`` solves

.. math::
    \max_d \; g^T d \quad \text{subject to} \quad c + b^T d \le 0, \quad \tfrac12 d^T F d \le \delta .

Its solution lies in the plane of the two natural gradients :math:`x = F^{-1} g` and :math:`y = F^{-1} b`.

Source: Achiam, Held, Tamar and Abbeel 2017, *Constrained Policy Optimization*, section 6.1 and appendix 10.2.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jumar.policies.distributions import Distribution
from jumar.solvers.fisher import boundary_length
from jumar.solvers.natural import Geometry, PolicyMove, Unravel, sound_step
from jumar.solvers.problem import Constraint, Parameters, Problem
from jumar.trajectory import Batch


class Optimum(NamedTuple):
    r"""The solution :math:`d = \alpha x - \beta y`, and the multipliers that belong to it."""

    alpha: Array
    beta: Array
    divergence: Array
    r"""The multiplier :math:`\lambda` of the divergence; 0 where the divergence does not bind."""
    cost: Array
    r"""The multiplier :math:`\nu` of the cost; 0 where the cost does not bind."""
    recovery: Array
    """Whether no step keeps both constraints, and the solution goes straight down the cost."""


def constrained_optimum(q: Array, r: Array, s: Array, c: Array, delta: float | Array) -> Optimum:
    r"""Solve the constrained step, given :math:`q = g^T x`, :math:`r = b^T x = g^T y` and :math:`s = b^T y`.

    With :math:`A = q - r^2 / s` and :math:`B = 2 \delta - c^2 / s`, there are three cases.

    - *Free*: the step :math:`\sqrt{2 \delta / q} \, x` without the constraint keeps it, :math:`c + \sqrt{2 \delta / q} \, r
      \le 0`; so it does everywhere in the region where :math:`c \le 0` and :math:`B \le 0`. Or ``b`` is zero, and no step
      changes the cost. :math:`\lambda = \sqrt{q / 2 \delta}`, :math:`\nu = 0`.
    - *Bound*: both constraints bind, :math:`\lambda = \sqrt{A / B}` and :math:`\nu = (r + \lambda c) / s`. The step
      :math:`(x - \nu y) / \lambda` is computed as :math:`-\frac{c}{s} y + \frac{1}{\lambda} (x - \frac{r}{s} y)`: the
      shortest step to the limit, and one along the limit. Where the gradients are parallel, ``A`` is 0 and the second
      is none.
    - *Recovery*: :math:`c > 0` and :math:`B \le 0`: the limit is out of reach. The step is :math:`-\sqrt{2 \delta / s} \,
      y`, and there are no multipliers.

    This is the dual's solution of the paper, which projects the two candidates for :math:`\lambda` onto the intervals where
    :math:`\nu` is 0 and where it is positive, and takes the better: the projected one is never the better where it was
    moved, so it is enough to see whether the free step keeps the constraint.
    """
    able = s > 0.0
    share = jnp.where(able, s, 1.0)
    radius = jnp.sqrt(2.0 * jnp.asarray(delta, q.dtype))
    free_length = boundary_length(q, delta)
    room = 2.0 * delta - c * c / share
    free = ~able | (c + free_length * r <= 0.0) | ((c <= 0.0) & (room <= 0.0))
    recovery = ~free & (room <= 0.0)

    sideways = jnp.maximum(q - r * r / share, 0.0)
    # Rounding of q and of r * r / s leaves this much of parallel gradients.
    apart = sideways > 16.0 * jnp.finfo(q.dtype).eps * q
    along = jnp.where(apart, jnp.sqrt(jnp.maximum(room, 0.0) / jnp.where(apart, sideways, 1.0)), 0.0)
    bound_divergence = jnp.where(along > 0.0, 1.0 / jnp.where(along > 0.0, along, 1.0), 0.0)
    nothing = jnp.zeros_like(q)

    def choose(if_free: Array, if_recovery: Array, if_bound: Array) -> Array:
        return jnp.where(free, if_free, jnp.where(recovery, if_recovery, if_bound))

    return Optimum(
        alpha=choose(free_length, nothing, along),
        beta=choose(nothing, radius / jnp.sqrt(share), (c + along * r) / share),
        divergence=choose(jnp.where(q > 0.0, jnp.sqrt(jnp.maximum(q, 0.0)) / radius, 0.0), nothing, bound_divergence),
        cost=choose(nothing, nothing, jnp.maximum((r + bound_divergence * c) / share, 0.0)),
        recovery=recovery,
    )


@dataclass(frozen=True)
class DualStep:
    r"""The constrained step of the policy: :func:`constrained_optimum` for the gradients at the old parameters.

    A damped geometry solves :math:`(F + \lambda I) x = g`, and its region is a little smaller than that of the divergence.
    So ``delta`` is scaled up until the natural step ends at the boundary of the divergence, as it does in TRPO, whose step
    this is wherever the cost does not bind; the same for the recovery's. Then :math:`r = b^T x`, which differs from
    :math:`g^T y` where conjugate gradients stop early, is the one for which the step meets the limit.

    A step that is no number, because a gradient is none, is not taken.
    """

    geometry: Geometry
    delta: float
    """The largest mean divergence."""

    def init(self, parameters: Parameters) -> Any:
        """Return the geometry's state: a step has no memory of its own."""
        return self.geometry.init(parameters)

    def move(
        self, problem: Problem, flat: Array, unravel: Unravel, batch: Batch, state: Any, remaining: Array, key: Array
    ) -> PolicyMove:
        """Take the step."""
        constraint = constraint_of(problem)

        def cost_of(flat: Array) -> Array:
            return constraint.cost(problem.distribution(unravel(flat), batch), batch)

        gradient = jax.grad(lambda flat: problem.policy_objective(unravel(flat), batch)[0])(flat)
        cost_gradient = jax.grad(cost_of)(flat)
        # With the same state and key both are measured by the same curvature.
        up, down = (
            self.geometry.direction(problem, flat, unravel, batch, each, state, key)
            for each in (gradient, cost_gradient)
        )
        q, r, s = up.slope, cost_gradient @ up.x, down.slope
        curved = up.bend > 0.0
        delta = jnp.where(curved, self.delta * q / jnp.where(curved, up.bend, 1.0), self.delta)
        best = constrained_optimum(q, r, s, constraint.excess, delta)
        beta = jnp.where(best.recovery, boundary_length(down.bend, self.delta), best.beta)
        step = sound_step(best.alpha * up.x - beta * down.x, gradient, cost_gradient)
        about = {
            **step.record(gradient),
            **up.about,
            "cost_grad_norm": jnp.linalg.norm(cost_gradient),
            "predicted_cost_change": step.predicted(cost_gradient),
            **{f"cost_{name}": x for name, x in down.about.items()},
            "lambda": best.divergence,
            "nu": best.cost,
            "recovery": best.recovery.astype(jnp.float32),
        }
        return PolicyMove(step.taken_from(flat), up.state, about)


@dataclass(frozen=True)
class WithinLimit:
    r"""The acceptance of constrained steps: the cost grows by what is left to its limit at most.

    With the objective ``L``, the cost ``C`` and the excess ``c``, a candidate is good enough where

    .. math::
        C(\theta') - C(\theta) \le \max(-c, 0) \quad \text{and} \quad L(\theta') > L(\theta) .

    Beyond the limit, where ``c`` is positive, a lower cost will do for the second.

    Source: Achiam et al. 2017, section 6.3.
    """

    def test(self, problem: Problem, batch: Batch, old: Distribution) -> Callable[[Distribution], Array]:
        """Return the test of a candidate's distributions."""
        constraint = constraint_of(problem)
        before, cost_before = problem.gain(old, batch)[0], constraint.cost(old, batch)
        left = jnp.maximum(-constraint.excess, 0.0)

        def good_enough(new: Distribution) -> Array:
            growth = constraint.cost(new, batch) - cost_before
            recovers = (constraint.excess > 0.0) & (growth < 0.0)
            return (growth <= left) & (recovers | (problem.gain(new, batch)[0] > before))

        return good_enough


def constraint_of(problem: Problem) -> Constraint:
    """Return the constraint of a problem that must have one."""
    if problem.constraint is None:
        raise ValueError("the problem has no constraint, and its solver needs one")
    return problem.constraint
