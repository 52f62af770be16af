"""Estimators of returns and advantages: pure functions of arrays with leading axes ``[T, N]``.

All treat the end of an episode the same way. ``terminated``: the future is worth 0. ``truncated``: the future is worth
``successor_values``, V of the true last observation. After either, nothing flows back from the next episode. The last
row of the batch bootstraps from its successor like any other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

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
    return discounted_sum(deltas, decay)


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
    return discounted_sum(rewards, gamma * (1.0 - ended.astype(rewards.dtype)))


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
    n = min(n, length)  # more steps there are none
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


def discounted_sum(terms: Array, decay: Array) -> Array:
    r"""Return :math:`y_t = x_t + d_t y_{t+1}` for every row, backwards in time: ``x`` the terms, ``d`` the decay."""

    def step(later: Array, row: tuple[Array, Array]) -> tuple[Array, Array]:
        term, factor = row
        total = term + factor * later
        return total, total

    return jax.lax.scan(step, jnp.zeros_like(terms[0]), (terms, decay), reverse=True)[1]


def ages(first: Array, ended: Array, valid: Array) -> tuple[Array, Array]:
    """Return how many steps of its episode came before each row, and before the row that follows the batch.

    Rows that are no experience are not counted. A row of age 0 is the first of its episode.

    Args:
        first: ``[N]`` int32, the ages of the first rows.
        ended: ``[T, N]`` boolean, whether the episode ended with the row.
        valid: ``[T, N]`` boolean.

    Returns:
        ``[T, N]`` and ``[N]``, int32.
    """
    counted = jnp.cumsum(valid, axis=0, dtype=jnp.int32)
    before = jnp.concatenate([jnp.zeros_like(counted[:1]), counted])
    # The count at the start of the episode under way: it never falls, so the largest so far is the latest.
    starts = jnp.concatenate([-first[None], jnp.where(ended, counted, -first)])
    all_ages = before - jax.lax.cummax(starts)
    return all_ages[:-1], all_ages[-1]


class Steps(NamedTuple):
    """What advantages are made from: ``T`` steps of ``N`` environments as a critic and a policy see them, ``[T, N]`` each."""

    rewards: Array
    values: Array
    """V of the observation."""
    successor_values: Array
    """V of the true successor."""
    terminated: Array
    truncated: Array
    age: Array
    """How many steps of its episode came before the row (:func:`ages`), int32."""
    log_ratios: Array
    r""":math:`\log \pi_\theta(a|s) - \log \mu(a|s)`, ``mu`` the policy that acted: 0 where that is the policy itself."""
    weights: Array
    """1 for experience and 0 for rows that are none."""
    action_values: Array | None = None
    """Q of the observation and the action taken, where the critic is one of actions; its values of states are those
    under the policy."""

    @classmethod
    def on_policy(
        cls, rewards: Array, values: Array, successor_values: Array, terminated: Array, truncated: Array
    ) -> Steps:
        """Return the steps of the policy itself, of episodes that begin with the first row."""
        ended = jnp.asarray(terminated) | jnp.asarray(truncated)
        age, _ = ages(jnp.zeros(ended.shape[1:], jnp.int32), ended, jnp.ones_like(ended))
        zeros, ones = jnp.zeros_like(rewards), jnp.ones_like(rewards)
        return cls(rewards, values, successor_values, terminated, truncated, age, zeros, ones)


class Estimates(NamedTuple):
    """What an estimator makes of steps, ``[T, N]`` each."""

    advantages: Array
    targets: Array
    """What the critic shall learn to predict."""
    weights: Array
    """Factors of the rows' weights in all means: 1, but for rows that tell nothing or less."""
    importance: Array | float = 1.0
    """Importance weights of the advantages (:mod:`jumar.estimators.importance`): 1 where the policy itself acted."""

    @classmethod
    def on_policy(cls, advantages: Array, targets: Array) -> Estimates:
        """Return estimates in which all rows count alike, and the policy itself acted."""
        ones = jnp.ones_like(advantages)
        return cls(advantages, targets, ones, ones)


class Estimator(Protocol):
    """A part that makes advantages and value targets."""

    def __call__(self, steps: Steps) -> Estimates:
        """Return advantages, value targets and weights."""
        ...


@dataclass(frozen=True)
class GAE:
    """The part that makes advantages and value targets by :func:`gae`: ``A`` and ``A + V``."""

    gamma: float
    gae_lambda: float

    def __call__(self, steps: Steps) -> Estimates:
        """Return the advantages, the lambda-returns, and weights of 1."""
        advantages = gae(
            steps.rewards,
            steps.values,
            steps.successor_values,
            steps.terminated,
            steps.truncated,
            self.gamma,
            self.gae_lambda,
        )
        return Estimates.on_policy(advantages, advantages + steps.values)


@dataclass(frozen=True)
class NStep:
    """The part that makes advantages and value targets by :func:`n_step_returns`: ``G - V`` and ``G``."""

    gamma: float
    n: int

    def __call__(self, steps: Steps) -> Estimates:
        """Return the advantages, the returns, and weights of 1."""
        returns = n_step_returns(
            steps.rewards, steps.successor_values, steps.terminated, steps.truncated, self.gamma, self.n
        )
        return Estimates.on_policy(returns - steps.values, returns)


@dataclass(frozen=True)
class RewardToGo:
    """The part that makes advantages and value targets by :func:`discounted_returns`: ``G - V`` and ``G``."""

    gamma: float

    def __call__(self, steps: Steps) -> Estimates:
        """Return the advantages, the returns, and weights of 1."""
        returns = discounted_returns(
            steps.rewards, steps.successor_values, steps.terminated, steps.truncated, self.gamma
        )
        return Estimates.on_policy(returns - steps.values, returns)


@dataclass(frozen=True)
class ExpectedSarsa:
    r"""The part of actor-critic with a critic of actions: an action is judged by :math:`Q_w(s, a)` itself.

    .. math::
        A_t = Q_w(s_t, a_t) - V(s_t), \qquad y_t = r_t + \gamma (1 - \text{terminated}_t) V(s'_t), \qquad
        V(s) = \sum_a \pi(a|s) Q_w(s, a),

    with the advantage ``A``, or :math:`Q_w` alone without the baseline, and the target ``y`` of :math:`Q_w(s_t, a_t)`.
    The expectation over the next action takes the place of the next action of Sarsa, which has the same mean and more
    variance. No return is part of the advantage: its error is that of the critic.

    Sources: Sutton, McAllester, Singh and Mansour 2000, theorem 1 (the gradient
    :math:`E[\nabla \log \pi(a|s) Q(s, a)]`); van Seijen, van Hasselt, Whiteson and Wiering 2009, *A Theoretical and
    Empirical Analysis of Expected Sarsa*.
    """

    gamma: float
    baseline: bool = True
    """Whether V is subtracted."""

    def __call__(self, steps: Steps) -> Estimates:
        """Return the advantages, the targets, and weights of 1.

        Raises:
            ValueError: the critic is one of states.
        """
        if steps.action_values is None:
            raise ValueError("ExpectedSarsa needs the values of actions: a critic of actions and its valuation.")
        targets = n_step_returns(
            steps.rewards, steps.successor_values, steps.terminated, steps.truncated, self.gamma, 1
        )
        advantages = steps.action_values - steps.values if self.baseline else steps.action_values
        return Estimates.on_policy(advantages, targets)


@dataclass(frozen=True)
class FullReturn:
    r"""The part whose advantage is the whole return: :math:`R(\tau) - V(s_t)`, the same ``R`` in all rows of an episode.

    A time limit adds the discounted value of the true successor to the last reward, as everywhere. Episodes of which the
    batch has only a part have weight 0. The value target is the reward-to-go.

    Source: Williams 1992 (REINFORCE); Kochenderfer, Wheeler and Wray, *Algorithms for Decision Making*, algorithm 12.3.
    """

    gamma: float

    def __call__(self, steps: Steps) -> Estimates:
        """Return the advantages, the rewards-to-go, and weights of 1 for whole episodes and 0 for others."""
        to_go = RewardToGo(self.gamma)(steps)
        limit = steps.truncated & ~steps.terminated
        rewards = steps.rewards + self.gamma * jnp.where(limit, steps.successor_values, 0.0)
        returns = full_returns(rewards, steps.terminated, steps.truncated, self.gamma, steps.age == 0)
        row = jnp.arange(steps.rewards.shape[0])[:, None]
        whole = (steps.age <= row) & ends_inside(steps.terminated | steps.truncated)
        return Estimates.on_policy(returns - steps.values, to_go.targets)._replace(weights=whole.astype(returns.dtype))


@dataclass(frozen=True)
class Finished:
    """A part around an estimator: rows whose episode goes on after the batch have weight 0.

    Their return is not known yet, and where there is no critic, nothing can stand for what is missing.
    """

    estimator: Estimator

    def __call__(self, steps: Steps) -> Estimates:
        """Return the estimates with the weights of the last, unfinished episodes at 0."""
        estimates = self.estimator(steps)
        finished = ends_inside(steps.terminated | steps.truncated)
        return estimates._replace(weights=estimates.weights * finished)


@dataclass(frozen=True)
class TimeBaseline:
    r"""A part around an estimator: :math:`A_t - b_t`, with ``b`` the mean over the rows of the same time in their episodes.

    The baseline of a step may depend on its time. The mean is over all rows that count, by :func:`means_by_age`, and has the
    row's own return in it: so the expected gradient of a step is :math:`1 - 1/n_t` of what it would be, where :math:`n_t` rows
    have its time. A row that is the only one of its time has the advantage 0, and teaches nothing.

    Source: course notes *Policy Gradients*, section 4.4.
    """

    estimator: Estimator

    def __call__(self, steps: Steps) -> Estimates:
        """Return the estimates with centred advantages."""
        estimates = self.estimator(steps)
        means = means_by_age(estimates.advantages, steps.age, steps.weights * estimates.weights)
        return estimates._replace(advantages=estimates.advantages - means)


@dataclass(frozen=True)
class LimitsAsEnds:
    """A part around an estimator: a time limit counts as a termination, its future worth 0, as ``ppo2`` had it."""

    estimator: Estimator

    def __call__(self, steps: Steps) -> Estimates:
        """Return the estimates of the same steps with all ends as terminations."""
        return self.estimator(steps._replace(terminated=steps.terminated | steps.truncated))


@dataclass(frozen=True)
class DiscountedStates:
    r"""A part around an estimator: the state at step ``t`` of an episode has the weight :math:`\gamma^{t - t_0}` in all means.

    :math:`t_0` is the least ``t`` among the rows that count. A factor of all weights changes no mean; without it, the sums
    over a batch that lies wholly late in its episodes would leave the range of the numbers.

    So means are over the discounted visitation :math:`d(s) \propto \sum_t \gamma^t P(s_t = s)`, of which the policy gradient
    theorem speaks; practice leaves the factor out. It belongs to rewards-to-go and what stands for them; around
    :class:`FullReturn`, whose returns are discounted from the first step on, it would discount twice.

    A row that counts never gets a weight of exactly 0, however late it is, so that it can be told from one that does not.

    Source: Kochenderfer, Wheeler and Wray, *Algorithms for Decision Making*, equation 12.15; Thomas 2014, *Bias in Natural
    Actor-Critic Algorithms*.
    """

    estimator: Estimator
    gamma: float

    def __call__(self, steps: Steps) -> Estimates:
        """Return the estimates with discounted weights."""
        estimates = self.estimator(steps)
        dtype = estimates.weights.dtype
        counted = steps.weights * estimates.weights > 0.0
        first = jnp.min(jnp.where(counted, steps.age, jnp.iinfo(steps.age.dtype).max))
        since = jnp.maximum(steps.age - first, 0)
        discount = jnp.power(jnp.asarray(self.gamma, dtype), since.astype(dtype))
        discount = jnp.maximum(discount, jnp.finfo(dtype).tiny)
        return estimates._replace(weights=estimates.weights * discount)


def means_by_age(values: Array, age: Array, weights: Array) -> Array:
    r"""Return for each row :math:`\sum_j w_j x_j / \sum_j w_j` over the rows ``j`` of the same age; 0 where none counts.

    Args:
        values: ``x``, ``[T, N]``.
        age: how many steps of its episode came before each row, ``[T, N]`` int32.
        weights: ``w``, ``[T, N]``.
    """
    _, group = jnp.unique(age, return_inverse=True, size=age.size)
    group = group.reshape(-1)

    def total(terms: Array) -> Array:
        return jax.ops.segment_sum(terms.reshape(-1), group, age.size)

    weight = total(weights)
    means = total(weights * values) / jnp.where(weight > 0.0, weight, 1.0)
    return means[group].reshape(values.shape)


def ends_inside(ended: Array) -> Array:
    """Return whether the episode of each row ends inside the batch, ``[T, N]`` boolean."""
    return jnp.flip(jax.lax.cummax(jnp.flip(ended, 0).astype(jnp.int32)), 0) > 0
