r"""Fitted policy iteration: what a greedy step can lose where action values are only approximate.

The improved policy is greedy with respect to values :math:`\hat Q` that were fitted to the old policy's data. Where the old
policy seldom is, the fit may be far off, and nothing keeps the new policy from going there: the states that were trained on
are distributed differently from those that come (*distribution shift*). What a step can lose is bounded by

.. math::
    V_{\pi'}(s) \ge V_\pi(s) - H |\Delta_\infty|, \qquad
    \Delta_\infty = \min_{h, s} A_{\pi, h}(s, \pi'(s)) < 0

in *all* states, with :math:`1 / (1 - \gamma)` in the place of H without a horizon. Iterating it is
:func:`jumar.lab.dynamic_programming.policy_iteration` with a ``fit``; steps that cannot lose are in
:mod:`jumar.lab.conservative_iteration`.

Source: course notes on policy gradients, section 4.6.1; Kakade and Langford 2002, *Approximately Optimal Approximate
Reinforcement Learning*, section 3.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jumar.errors import UsageError
from jumar.lab.arguments import ArrayLike
from jumar.lab.dynamic_programming import Fit, discounted_steps, greedy_improvement
from jumar.lab.precision import in_double
from jumar.lab.tabular import TabularMDP, expected_advantages, performance, state_values, visitation
from jumar.policies.distributions import Categorical

# -- fits -------------------------------------------------------------------------------------------------------------


def least_squares(features: ArrayLike) -> Fit:
    r"""Return the fit :math:`\hat Q(s, a) = w^T \phi(s, a)` that is nearest to the values where the data are.

    .. math:: w = \arg\min_w \sum_{s, a} d(s) \pi(a|s) \, (w^T \phi(s, a) - Q_\pi(s, a))^2

    With a horizon each step has its own w, fitted to the states of that step. Of several equally good w it is the shortest:
    features that no data have get the weight 0. This is regression on returns with infinitely much data, so that what it
    lacks is due to features and data distribution alone.

    Args:
        features: :math:`\phi`, ``[S, A, d]``.

    Raises:
        UsageError: the features do not have three axes.
    """
    table = np.asarray(features, np.float64)
    if table.ndim != 3:
        raise UsageError(f"features of shape {table.shape} must have the shape [S, A, d].")

    def at_one_step(values: Array, weights: Array) -> Array:
        phi = jnp.asarray(table, values.dtype).reshape(-1, table.shape[-1])
        root = jnp.sqrt(weights.ravel())
        parameters = jnp.linalg.lstsq(root[:, None] * phi, root * values.ravel())[0]
        return (phi @ parameters).reshape(values.shape)

    def fit(values: Array, weights: Array) -> Array:
        if values.ndim == 2:
            return at_one_step(values, weights)
        return jax.lax.map(lambda both: at_one_step(*both), (values, weights))

    return in_double(fit)


def with_errors(errors: ArrayLike) -> Fit:
    r"""Return the fit :math:`\hat Q = Q_\pi + e` with given errors e, ``[S, A]`` or ``[H, S, A]``.

    A greedy step on it has :math:`\Delta_\infty \ge -2 \max |e|`.
    """
    return in_double(lambda values, _: values + jnp.asarray(errors, values.dtype))


# -- what a step can lose ---------------------------------------------------------------------------------------------


@in_double
def worst_advantage(mdp: TabularMDP, old: Categorical, new: Categorical) -> Array:
    r"""Return :math:`\Delta_\infty = \min_{h, s} \sum_a \pi'(a|s) A_{\pi, h}(s, a)`, over all states, visited or not."""
    return jnp.min(expected_advantages(mdp, old, new))


@in_double
def degradation_bound(mdp: TabularMDP, old: Categorical, new: Categorical) -> Array:
    r"""Return a lower bound of the new policy's values in every state, ``[S]`` or ``[H, S]``.

    It is :math:`V_\pi(s) + c \, \Delta_\infty`, where c is the sum of the discounts of the steps that are left
    (:func:`~jumar.lab.dynamic_programming.discounted_steps`): at most H, or :math:`1 / (1 - \gamma)` without a horizon.
    """
    return state_values(mdp, old) + discounted_steps(mdp)[..., None] * worst_advantage(mdp, old, new)


class FittedStep(NamedTuple):
    """What one step of fitted policy iteration does."""

    new: Categorical
    """The greedy policy of the fitted values."""
    performance: Array
    """J of the old policy and of the new one, ``[2]``."""
    worst_advantage: Array
    r""":math:`\Delta_\infty`, a scalar."""
    bound: Array
    """The lower bound of the new J, a scalar: the mean of :func:`degradation_bound` over the initial states."""
    visits: Array
    """The visits of the old policy and of the new one, ``[2, S]`` or ``[2, H, S]``: what it was fitted on, and what came."""
    shift: Array
    """The total variation between both, as distributions over states (and times): 0 for the same, 1 for no overlap."""


@in_double
def fitted_step(mdp: TabularMDP, policy: Categorical, fit: Fit) -> FittedStep:
    """Make one step of fitted policy iteration, and say what came of it."""
    new = greedy_improvement(mdp, policy, fit)
    visits = jnp.stack([visitation(mdp, policy), visitation(mdp, new)])
    parts = visits / jnp.sum(visits[0])
    bound = degradation_bound(mdp, policy, new).reshape(-1, mdp.n_states)[0]
    return FittedStep(
        new,
        jnp.stack([performance(mdp, policy), performance(mdp, new)]),
        worst_advantage(mdp, policy, new),
        jnp.asarray(mdp.initial) @ bound,
        visits,
        0.5 * jnp.sum(jnp.abs(parts[0] - parts[1])),
    )


# -- a process in which it makes the policy worse ---------------------------------------------------------------------

FORK = TabularMDP.of(
    transitions=[[[0, 1, 0], [0, 0, 1]], [[0, 1, 0], [0, 1, 0]], [[0, 0, 1], [0, 0, 1]]],
    rewards=[[0.0, 6.0], [1.0, 0.0], [-10.0, 0.0]],
    initial=[1.0, 0.0, 0.0],
    gamma=1.0,
    horizon=2,
)
"""A fork (state 0) whose left action leads to a road (state 1), and whose right one pays 6 and leads to a marsh (state 2).

There is one step more. Running (action 0) pays 1 on the road and costs 10 in the marsh; walking (action 1) pays nothing.
"""

FORK_POLICY = Categorical(np.log([[0.95, 0.05], [0.5, 0.5], [0.5, 0.5]]))  # type: ignore[arg-type]
"""It goes left 19 times out of 20, and then runs or walks, at random. It is worth 0.525."""

FORK_FEATURES = np.array([[[1, 0, 0, 0], [0, 1, 0, 0]], [[0, 0, 1, 0], [0, 0, 0, 1]], [[0, 0, 1, 0], [0, 0, 0, 1]]])
r"""Features that cannot tell the road from the marsh, ``[S, A, 4]``.

Nearly all data are of the road, so running seems to be worth :math:`0.95 \cdot 1 - 0.05 \cdot 10 = 0.45`, everywhere. Under
the old policy going right is worth :math:`6 - 5 = 1` and going left 0.5, so the greedy policy goes right. As it also runs
everywhere, it is worth :math:`6 - 10 = -4`.
"""
