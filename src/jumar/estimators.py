"""Estimators of returns and advantages: pure functions of arrays with leading axes ``[T, N]``.

All treat the end of an episode the same way. ``terminated``: the future is worth 0. ``truncated``: the future is worth
``successor_values``, V of the true last observation. After either, nothing flows back from the next episode. The last
row of the batch bootstraps from its successor like any other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import jax
import jax.numpy as jnp
from jax import Array


def gae(
    rewards: Array,
    values: Array,
    successor_values: Array,
    terminated: Array,
    truncated: Array,
    gamma: float,
    gae_lambda: float,
) -> Array:
    r"""Generalized advantage estimation.

    .. math::
        \delta_t = r_t + \gamma (1 - \text{terminated}_t) V(s'_t) - V(s_t), \qquad
        A_t = \delta_t + \gamma \lambda (1 - \text{ended}_t) A_{t+1}.

    With ``gae_lambda = 0`` this is the one-step advantage, with 1 the (bootstrapped) return minus the value.

    Args:
        rewards: ``[T, N]``.
        values: ``[T, N]``, V of the observation.
        successor_values: ``[T, N]``, V of the true successor.
        terminated: ``[T, N]`` boolean.
        truncated: ``[T, N]`` boolean.
        gamma: discount in [0, 1].
        gae_lambda: lambda in [0, 1].

    Returns:
        Advantages ``[T, N]``; add ``values`` for the lambda-return, the usual target of the value function.

    Source: Schulman et al. 2016, *High-Dimensional Continuous Control Using GAE*, eq. 16.
    """
    deltas = rewards + gamma * jnp.where(terminated, 0.0, successor_values) - values
    decay = gamma * gae_lambda * (1.0 - (terminated | truncated).astype(rewards.dtype))
    return _discounted_sum(deltas, decay)


def discounted_returns(
    rewards: Array, successor_values: Array, terminated: Array, truncated: Array, gamma: float
) -> Array:
    r"""Reward-to-go of each row, bootstrapped where the episode goes on outside of the batch.

    :math:`G_t = r_t + \gamma G_{t+1}` inside an episode; at its last row :math:`r_t` if it terminated and
    :math:`r_t + \gamma V(s'_t)` if it was cut (by a time limit or by the end of the batch).
    Pass zeros for ``successor_values`` for the plain Monte Carlo reward-to-go. Shapes ``[T, N]``.
    """
    ended = terminated | truncated
    cut = (~terminated & truncated) | (~ended & (jnp.arange(rewards.shape[0]) == rewards.shape[0] - 1)[:, None])
    rewards = rewards + gamma * jnp.where(cut, successor_values, 0.0)
    return _discounted_sum(rewards, gamma * (1.0 - ended.astype(rewards.dtype)))


def n_step_returns(
    rewards: Array,
    successor_values: Array,
    terminated: Array,
    truncated: Array,
    gamma: float,
    n: int,
) -> Array:
    r"""Returns over at most ``n`` steps, then the value function.

    :math:`G^{(n)}_t = \sum_{k<m} \gamma^k r_{t+k} + \gamma^m V(s'_{t+m-1})`, where ``m`` is ``n`` or fewer steps to the
    end of the episode or of the batch; no value is added after a termination. Shapes ``[T, N]``.

    Raises:
        ValueError: ``n`` is below 1.
    """
    if n < 1:
        raise ValueError(f"n={n} is out of range: it must be at least 1.")
    length = rewards.shape[0]
    bootstrap = gamma * jnp.where(terminated, 0.0, successor_values)
    on = ~(terminated | truncated) & (jnp.arange(length) < length - 1)[:, None]

    def extend(shorter: Array, _: None) -> tuple[Array, None]:
        later = jnp.concatenate([shorter[1:], jnp.zeros_like(shorter[:1])])
        return rewards + jnp.where(on, gamma * later, bootstrap), None

    result, _ = jax.lax.scan(extend, rewards + bootstrap, None, length=n - 1)
    return result


def full_returns(
    rewards: Array, terminated: Array, truncated: Array, gamma: float, episode_start: Array | None = None
) -> Array:
    r"""The whole discounted return :math:`R(\tau) = \sum_k \gamma^{k} r_k` of the episode that each row belongs to.

    Only the part of the episode inside the batch counts. Every row of an episode gets the same number; ``[T, N]``.
    ``episode_start`` says where episodes begin if that is not always right after an end (NEXT_STEP environments).
    """
    ended = terminated | truncated
    zeros = jnp.zeros_like(rewards)
    to_go = discounted_returns(rewards, zeros, terminated, truncated, gamma)

    after_end = jnp.concatenate([jnp.ones_like(ended[:1]), ended[:-1]])
    begins = after_end if episode_start is None else after_end | episode_start

    def spread(total: Array, row: tuple[Array, Array]) -> tuple[Array, Array]:
        here, fresh = row
        total = jnp.where(fresh, here, total)
        return total, total

    return jax.lax.scan(spread, jnp.zeros_like(rewards[0]), (to_go, begins))[1]


def _discounted_sum(terms: Array, decay: Array) -> Array:
    """Return ``x_t + decay_t * y_{t+1}`` for every row, backwards in time."""

    def step(later: Array, row: tuple[Array, Array]) -> tuple[Array, Array]:
        term, factor = row
        total = term + factor * later
        return total, total

    return jax.lax.scan(step, jnp.zeros_like(terms[0]), (terms, decay), reverse=True)[1]


class Estimator(Protocol):
    """A part that makes advantages and value targets, each ``[T, N]``."""

    def __call__(
        self, rewards: Array, values: Array, successor_values: Array, terminated: Array, truncated: Array
    ) -> tuple[Array, Array]:
        """Return (advantages, value targets)."""
        ...


@dataclass(frozen=True)
class GAE:
    """The part that makes advantages and value targets by :func:`gae`: ``A`` and ``A + V``."""

    gamma: float
    gae_lambda: float

    def __call__(
        self, rewards: Array, values: Array, successor_values: Array, terminated: Array, truncated: Array
    ) -> tuple[Array, Array]:
        """Return (advantages, value targets), each ``[T, N]``."""
        advantages = gae(rewards, values, successor_values, terminated, truncated, self.gamma, self.gae_lambda)
        return advantages, advantages + values


@dataclass(frozen=True)
class NStep:
    """The part that makes advantages and value targets by :func:`n_step_returns`: ``G - V`` and ``G``."""

    gamma: float
    n: int

    def __call__(
        self, rewards: Array, values: Array, successor_values: Array, terminated: Array, truncated: Array
    ) -> tuple[Array, Array]:
        """Return (advantages, value targets), each ``[T, N]``."""
        returns = n_step_returns(rewards, successor_values, terminated, truncated, self.gamma, self.n)
        return returns - values, returns


@dataclass(frozen=True)
class RewardToGo:
    """The part that makes advantages and value targets by :func:`discounted_returns`: ``G - V`` and ``G``."""

    gamma: float

    def __call__(
        self, rewards: Array, values: Array, successor_values: Array, terminated: Array, truncated: Array
    ) -> tuple[Array, Array]:
        """Return (advantages, value targets), each ``[T, N]``."""
        returns = discounted_returns(rewards, successor_values, terminated, truncated, self.gamma)
        return returns - values, returns


@dataclass(frozen=True)
class LimitsAsEnds:
    """A part around an estimator: a time limit counts as a termination, its future worth 0, as ``ppo2`` had it."""

    estimator: Estimator

    def __call__(
        self, rewards: Array, values: Array, successor_values: Array, terminated: Array, truncated: Array
    ) -> tuple[Array, Array]:
        """Return (advantages, value targets), each ``[T, N]``."""
        return self.estimator(rewards, values, successor_values, terminated | truncated, truncated)
