r"""What a new policy gains on an old one in the simple regulator, and what can be known of it from the old one alone.

The old policy's values are quadratic in the state, so every expectation of them is a closed form:

.. math::
    V_t(s) = -p_t s^2 - k_t, \qquad Q_t(s, a) = -s^2 - \gamma \big(p_{t+1} ((s + a)^2 + \omega^2) + k_{t+1}\big),

.. math::
    p_t = 1 + \gamma (1 + \theta_1)^2 p_{t+1}, \qquad k_t = \gamma \big(p_{t+1} (\sigma^2 + \omega^2) + k_{t+1}\big),

with both 0 after the last step. It is for :class:`~jumar.lab.regulator.Regulator` what :mod:`jumar.lab.improvement` is for
tabular processes. Three means over states are in use, and three functions have them: :func:`trajectory_kl` sums over the
steps, :func:`discounted_kl` weighs them by :math:`\gamma^t`, and :func:`jumar.lab.regulator.mean_kl` divides by their number.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jumar.lab.precision import in_double
from jumar.lab.regulator import Regulator, mean_kl, policy, second_moments, standard_deviation
from jumar.lab.rollouts import discounts


class Quadratic(NamedTuple):
    """The coefficients of :math:`V_t(s) = -p_t s^2 - k_t`, ``[depth + 1]`` each; those after the last step are 0."""

    curvature: Array
    """p."""
    constant: Array
    """k."""


@in_double
def value_coefficients(problem: Regulator, theta: Array) -> Quadratic:
    """Return the coefficients of the values of the policy ``theta`` ``[2]``."""
    spread = jnp.square(standard_deviation(theta)) + problem.noise_std**2
    contraction = problem.gamma * jnp.square(1.0 + theta[0])

    def before(later: Quadratic, _: None) -> tuple[Quadratic, Quadratic]:
        constant = problem.gamma * (later.curvature * spread + later.constant)
        now = Quadratic(1.0 + contraction * later.curvature, constant)
        return now, now

    end = Quadratic(jnp.zeros_like(spread), jnp.zeros_like(spread))
    _, values = jax.lax.scan(before, end, None, length=problem.depth, reverse=True)
    return Quadratic(*(jnp.concatenate([x, jnp.zeros_like(x[:1])]) for x in values))


@in_double
def state_values(problem: Regulator, theta: Array, states: Array) -> Array:
    r"""Return :math:`V_t(s_t)` of states ``[..., depth]``: each with as many steps left as its place says."""
    values = value_coefficients(problem, theta)
    return -values.curvature[:-1] * jnp.square(states) - values.constant[:-1]


@in_double
def action_values(problem: Regulator, theta: Array, states: Array, actions: Array) -> Array:
    r"""Return :math:`Q_t(s_t, a_t)` of states and actions ``[..., depth]``."""
    values = value_coefficients(problem, theta)
    successors = jnp.square(states + actions) + problem.noise_std**2
    return -jnp.square(states) - problem.gamma * (values.curvature[1:] * successors + values.constant[1:])


@in_double
def advantages(problem: Regulator, theta: Array, states: Array, actions: Array) -> Array:
    r"""Return :math:`A_t(s_t, a_t) = Q_t(s_t, a_t) - V_t(s_t)` of states and actions ``[..., depth]``."""
    # Not as a difference of the two, which are much larger: what the action makes of the next state, less its expectation.
    curvature = value_coefficients(problem, theta).curvature[1:]
    expected = jnp.square((1.0 + theta[0]) * states) + jnp.square(standard_deviation(theta))
    return -problem.gamma * curvature * (jnp.square(states + actions) - expected)


@in_double
def surrogate(problem: Regulator, old: Array, new: Array) -> Array:
    r"""Return :math:`L_\pi(\pi') = \sum_t \gamma^t E_{s_t \sim \pi, a \sim \pi'}[A_t(s_t, a)]`; 0 where both are the same.

    .. math::
        L = -\sum_t \gamma^{t+1} p_{t+1} \big(q_t ((1 + \theta'_1)^2 - (1 + \theta_1)^2) + \sigma'^2 - \sigma^2\big)

    with the second moments :math:`q_t` of the old policy. Its gradient in ``new``, at ``old``, is that of J.

    Source: Schulman et al. 2015, *Trust Region Policy Optimization*, equation 3, without the constant :math:`J(\pi)`.
    """
    worth = problem.gamma * discounts(problem.gamma, problem.depth) * value_coefficients(problem, old).curvature[1:]
    change = second_moments(problem, old) * (jnp.square(1.0 + new[0]) - jnp.square(1.0 + old[0]))
    return -worth @ (change + jnp.square(standard_deviation(new)) - jnp.square(standard_deviation(old)))


@in_double
def surrogate_objective(problem: Regulator, old: Array, new: Array) -> Array:
    r"""Return :math:`f(\theta, \theta') = \sum_t \gamma^t E_{s_t, a_t \sim \pi}[\frac{\pi'}{\pi} Q_t(s_t, a_t)]`, a scalar.

    It is :func:`surrogate` and what does not depend on the new policy, :math:`\sum_t \gamma^t E[V_t(s_t)]`. A sum over steps:
    Algorithm 12.5 divides it by their number.

    Source: Kochenderfer, Wheeler and Wray, *Algorithms for Decision Making*, equation 12.18.
    """
    values = value_coefficients(problem, old)
    mean_values = -values.curvature[:-1] * second_moments(problem, old) - values.constant[:-1]
    return discounts(problem.gamma, problem.depth) @ mean_values + surrogate(problem, old, new)


@in_double
def surrogate_gradient(problem: Regulator, old: Array, new: Array) -> Array:
    r"""Return :math:`\nabla_{\theta'} L_\pi(\pi')`, ``[2]``, which is also that of :func:`surrogate_objective`."""
    return jax.grad(lambda new: surrogate(problem, old, new))(new)


@in_double
def trajectory_kl(problem: Regulator, old: Array, new: Array) -> Array:
    r"""Return :math:`KL(p_\theta(\tau) \| p_{\theta'}(\tau)) = \sum_t E[KL(\pi(\cdot|s_t) \| \pi'(\cdot|s_t))]`.

    Source: Kochenderfer, Wheeler and Wray, *Algorithms for Decision Making*, equation 12.7.
    """
    return problem.depth * mean_kl(problem, old, new)


@in_double
def discounted_kl(problem: Regulator, old: Array, new: Array) -> Array:
    r"""Return :math:`\sum_t \gamma^t E[KL(\pi(\cdot|s_t) \| \pi'(\cdot|s_t))]`, with the states of the old policy.

    Divided by :math:`\sum_t \gamma^t` it is the mean over the discounted visits of equation 12.19; divided by ``depth`` it is
    what Algorithm 12.5 checks, which is smaller (:func:`surrogate_constraint`).

    Source: Kochenderfer, Wheeler and Wray, *Algorithms for Decision Making*, equation 12.19.
    """
    weights = discounts(problem.gamma, problem.depth)
    # The divergence is linear in the squared state: where the state is the root of its second moment, it is the mean.
    typical = jnp.sqrt(second_moments(problem, old))
    return weights @ policy(old, typical).kl(policy(new, typical))


@in_double
def surrogate_constraint(problem: Regulator, old: Array, new: Array) -> Array:
    r"""Return :math:`\frac1d \sum_t \gamma^t E[KL(\pi(\cdot|s_t) \| \pi'(\cdot|s_t))]`, the expectation of Algorithm 12.5's."""
    return discounted_kl(problem, old, new) / problem.depth
