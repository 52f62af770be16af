r"""Exact gradients and Fisher matrices of policies with parameters, in a tabular process.

A family of policies is a function of flat parameters ``[d]`` (:mod:`jumar.lab.families`). Two Fisher matrices are in use, and
differ by how states are weighted:

- per step, :math:`F = E_{s \sim d, a}[\nabla \log \pi \nabla \log \pi^T]`: the second derivative of the mean divergence
  under a distribution of states (:func:`step_fisher`);
- per trajectory, :math:`F = E_\tau[\nabla \log p(\tau) \nabla \log p(\tau)^T] = \sum_t E[\nabla \log \pi(a_t|s_t) \nabla
  \log \pi(a_t|s_t)^T]`, the cross terms being 0 (:func:`trajectory_fisher`): the second derivative of the divergence
  between the distributions of whole trajectories.

Over T steps without discount the second is T times the first.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer

from jumar.errors import UsageError
from jumar.lab.arguments import check_positive
from jumar.lab.families import Family
from jumar.lab.precision import in_double
from jumar.lab.tabular import TabularMDP, action_values, occupancies, state_distribution, visitation
from jumar.solvers import Dense
from jumar.solvers.fisher import boundary_length, dense, fisher_product


@in_double
def policy_gradient(mdp: TabularMDP, family: Family, flat: Array) -> Array:
    r"""Return :math:`\nabla J = \sum_s \rho(s) \sum_a \nabla \pi(a|s) Q(s, a)`, ``[d]``.

    Source: Sutton, McAllester, Singh and Mansour 2000, *Policy Gradient Methods for Reinforcement Learning with Function
    Approximation*, theorem 1.
    """
    policy = family(flat)
    worth = visitation(mdp, policy)[..., None] * action_values(mdp, policy)
    return jax.grad(lambda flat: jnp.sum(worth * family(flat).probs))(flat)


@in_double
def step_fisher(family: Family, flat: Array, states: Array) -> Array:
    r"""Return :math:`\sum_s w(s) F(s) / \sum_s w(s)`, ``[d, d]``, with the weights ``states`` ``[S]``.

    :math:`F(s)` is the Fisher matrix of one decision. The usual weights are
    :func:`~jumar.lab.tabular.state_distribution`, or the mean of :func:`~jumar.lab.tabular.occupancies` over time.
    """
    return dense(fisher_product(family, flat, states), flat)


@in_double
def trajectory_fisher(mdp: TabularMDP, family: Family, flat: Array, length: int) -> Array:
    r"""Return :math:`\sum_{t < length} \sum_s P(s_t = s) F(s)`, ``[d, d]``: the Fisher matrix of whole trajectories.

    Source: Kochenderfer, Wheeler and Wray, *Algorithms for Decision Making*, equation 12.9.
    """
    return length * step_fisher(family, flat, jnp.sum(occupancies(mdp, family(flat), length), 0))


@in_double
def natural_gradient(mdp: TabularMDP, family: Family, flat: Array) -> Array:
    r"""Return :math:`F^+ \nabla J`, ``[d]``, with the Fisher matrix per step under :math:`d` and its pseudo-inverse.

    Raises:
        UsageError: the Fisher matrix is 0: no parameter changes the policy.
    """
    fisher = step_fisher(family, flat, state_distribution(mdp, family(flat)))
    return solve(fisher, policy_gradient(mdp, family, flat))


@in_double
def solve(fisher: Array, gradient: Array) -> Array:
    """Return the direction ``x`` of least norm with ``F x = g``; F ``[d, d]`` may be singular, as of a tabular softmax.

    Raises:
        UsageError: F is 0, or has entries that are not finite.
    """
    _check_fisher(fisher)
    return Dense().solve(lambda vector: fisher @ vector, gradient).x


@in_double
def natural_step(fisher: Array, gradient: Array, delta: float) -> Array:
    r"""Return :math:`\sqrt{2 \delta / g^T F^+ g} \; F^+ g`, ``[d]``: the best step with :math:`\frac12 x^T F x \le \delta`.

    What ``delta`` bounds is what F belongs to: the divergence per step, or per trajectory. Where the gradient is 0, so is the
    step.

    Raises:
        UsageError: F is 0 or not finite (the length would be 0/0), or ``delta`` is not above 0.

    Source: Kochenderfer, Wheeler and Wray, *Algorithms for Decision Making*, equation 12.12.
    """
    check_positive("delta", delta)
    direction = solve(fisher, gradient)
    return boundary_length(direction @ fisher @ direction, delta) * direction


@in_double
def multiplier(fisher: Array, gradient: Array, delta: float) -> Array:
    r"""Return :math:`\lambda = \sqrt{g^T F^+ g / 2 \delta}`, with which a penalised step has the divergence ``delta``.

    The step :math:`\arg\max_x g^T x - \frac{\lambda}{2} x^T F x = F^+ g / \lambda` (:func:`penalised_step`) is then
    :func:`natural_step`, and :math:`\lambda` is the slope :math:`d (g^T x) / d \delta` of what that step promises,
    :math:`\sqrt{2 \delta \, g^T F^+ g}`.

    Raises:
        UsageError: F is 0 or not finite, or ``delta`` is not above 0.

    Source: lecture notes *Advanced Policy Optimization*, whose step for the multiplier is :math:`F^{-1} g / \lambda`; course
    notes *Policy Gradients* print :math:`\sqrt{\delta / g^T F g}` for the length of the step.
    """
    check_positive("delta", delta)
    return jnp.sqrt(gradient @ solve(fisher, gradient) / (2.0 * delta))


@in_double
def penalised_step(fisher: Array, gradient: Array, multiplier: float) -> Array:
    r"""Return :math:`F^+ g / \lambda`, ``[d]``: the best step under the penalty :math:`\frac{\lambda}{2} x^T F x`.

    Raises:
        UsageError: F is 0 or not finite, or the multiplier is not above 0.
    """
    check_positive("multiplier", multiplier)
    return solve(fisher, gradient) / multiplier


def _check_fisher(fisher: Array) -> None:
    if isinstance(fisher, Tracer):
        return
    if not np.all(np.isfinite(fisher)):
        raise UsageError("the Fisher matrix has entries that are not finite; look for parameters that are not finite.")
    if not np.any(fisher):
        raise UsageError(
            "the Fisher matrix is 0: no parameter changes the policy, and a natural step would be 0/0. Choose other parameters "
            "or another family."
        )
