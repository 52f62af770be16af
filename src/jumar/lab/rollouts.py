r"""Drawn trajectories, and what is estimated from them.

Here a batch is ``N`` trajectories of ``T`` steps, arrays ``[N, T]``, all of them whole: none ends before the others. So the
estimators are the textbooks' sums over trajectories and steps, with the weights :math:`\gamma^t` of the states, which
training leaves out.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from jumar.estimators.advantages import discounted_returns, full_returns
from jumar.lab.precision import in_double


class Rollouts(NamedTuple):
    """``N`` trajectories of ``T`` steps, arrays ``[N, T]``."""

    states: Array
    actions: Array
    rewards: Array

    @in_double
    def reward_to_go(self, gamma: float) -> Array:
        r"""Return :math:`G_t = \sum_{k \ge t} \gamma^{k - t} r_k` of each step, ``[N, T]``."""
        never = jnp.zeros(self.rewards.T.shape, bool)
        return discounted_returns(self.rewards.T, jnp.zeros_like(self.rewards.T), never, never, gamma).T

    @in_double
    def returns(self, gamma: float) -> Array:
        r"""Return the whole return :math:`R(\tau) = \sum_k \gamma^k r_k` of the trajectory, at each step, ``[N, T]``."""
        never = jnp.zeros(self.rewards.T.shape, bool)
        return full_returns(self.rewards.T, never, never, gamma).T


@in_double
def discounts(gamma: float, length: int) -> Array:
    r"""Return :math:`1, \gamma, \gamma^2, \dots`, ``[length]``: the weights of the steps in a discounted mean."""
    return jnp.power(jnp.asarray(gamma, float), jnp.arange(length))


@in_double
def sampled_gradient(scores: Array, signals: Array, weights: Array) -> Array:
    r"""Return the likelihood-ratio estimate :math:`\frac1N \sum_n \sum_t w_t \nabla \log \pi(a_t|s_t) \, x_t`, ``[d]``.

    It is an unbiased estimate of :math:`\nabla J` with

    - :math:`x_t = R(\tau)` and :math:`w_t = 1`: the whole return;
    - :math:`x_t = G_t` and :math:`w_t = \gamma^t`: the reward-to-go (equation 11.26 of the book);
    - :math:`x_t = G_t - b(s_t)` and :math:`w_t = \gamma^t`: with a baseline that does not depend on the action, V say.

    With the reward-to-go and :math:`w_t = 1` it is none, unless :math:`\gamma = 1`.

    Args:
        scores: :math:`\nabla \log \pi`, ``[N, T, d]``.
        signals: x, ``[N, T]``.
        weights: w, broadcast to ``[N, T]``.

    Source: Kochenderfer, Wheeler and Wray, *Algorithms for Decision Making*, chapter 11.
    """
    return jnp.einsum("ntd,nt->d", scores, weights * signals) / scores.shape[0]
