r"""Importance sampling: advantages and value targets of a policy from what other policies did.

With :math:`\rho_t = \pi_\theta(a_t|s_t) / \mu(a_t|s_t)`, ``mu`` the policy that acted, all is made from
:math:`\log \rho_t`, the ``log_ratios``. They are 0 in rows that are no experience. The same conventions hold for the ends of
episodes as in :mod:`jumar.estimators`; arrays are ``[T, N]``. An episode that the batch has only a part of counts as if it
began and ended there: the ratios of rows outside of the batch are left out.

Ratios and their products are computed from sums of logarithms that are clamped, and what they multiply is bounded by
:data:`LARGEST`, so that no infinity appears in float32. All are constants to the gradient.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import jax
import jax.numpy as jnp
from jax import Array

from jumar.estimators.advantages import Estimates, Estimator, Steps, discounted_sum
from jumar.trajectory import weighted_mean

MAX_LOG_RATIO = 20.0
"""The size of the log ratio is clamped here, so that a ratio is at most e^20 and no infinity appears in float32."""

LARGEST = 1e12
"""What is multiplied by unbounded importance weights is clipped to this size: squares of it are far from overflow."""


def weights_so_far(log_ratios: Array, ended: Array) -> Array:
    r"""Return :math:`\prod_{i \le t} \rho_i` over the rows of the episode up to and including each row, ``[T, N]``.

    By it the expectation over the states and actions of one policy becomes that over those of another. The sum of the
    logarithms is clamped to ±20.

    Source: Precup, Sutton and Singh 2000, *Eligibility Traces for Off-Policy Policy Evaluation* (per-decision importance
    sampling).
    """
    return _bounded_exp(_sums_so_far(log_ratios, ended))


def weights_to_come(log_ratios: Array, ended: Array) -> Array:
    r"""Return :math:`\prod_{i \ge t} \rho_i` from each row to the last of its episode, ``[T, N]``, clamped as above."""
    return _bounded_exp(_sums_to_come(log_ratios, ended))


def weights_of_trajectories(log_ratios: Array, ended: Array) -> Array:
    r"""Return :math:`\prod_i \rho_i` over all rows of the episode of each row, ``[T, N]``, clamped as above."""
    return _bounded_exp(_sums_so_far(log_ratios, ended) + _sums_to_come(log_ratios, ended) - log_ratios)


def v_trace(
    rewards: Array,
    values: Array,
    successor_values: Array,
    terminated: Array,
    truncated: Array,
    log_ratios: Array,
    gamma: float,
    gae_lambda: float,
    rho_bar: float,
    c_bar: float,
) -> tuple[Array, Array]:
    r"""V-trace: value targets and advantages of the policy, with ratios that are cut.

    .. math::
        e_t &= \min(\bar\rho, \rho_t) \, \delta_t + \gamma \lambda \min(\bar c, \rho_t) (1 - \text{ended}_t) \, e_{t+1}, \\
        v_t &= V(s_t) + e_t, \qquad A_t = \delta_t + \gamma \lambda (1 - \text{ended}_t) \, e_{t+1},

    :math:`\delta_t` as in :func:`jumar.estimators.advantages.gae`. Where all ratios are 1, ``A`` is GAE's and ``v`` the
    lambda-return. With both bounds infinite :math:`E[v_t|s_t]` is the policy's value, whatever ``V`` is (for
    ``gae_lambda`` 1); with finite bounds it is nearer to that of the policy that acted.

    Args:
        rewards: ``[T, N]``.
        values: ``[T, N]``, V of the observation.
        successor_values: ``[T, N]``, V of the true successor.
        terminated: ``[T, N]`` boolean.
        truncated: ``[T, N]`` boolean.
        log_ratios: ``[T, N]``.
        gamma: discount in [0, 1].
        gae_lambda: lambda in [0, 1].
        rho_bar: bound of the ratio of a temporal difference; it decides what the values converge to.
        c_bar: bound of the ratios that carry later differences back; it decides how fast.

    Returns:
        ``A`` and ``v``, ``[T, N]`` each. The ratio of the row itself is in ``v`` and not in ``A``.

    Source: Espeholt et al. 2018, *IMPALA*, equations 1 and 4 and remark 2; for ``A`` with a lambda, RLax.
    """
    ratios = _bounded_exp(log_ratios)
    deltas = rewards + gamma * jnp.where(terminated, 0.0, successor_values) - values
    decay = gamma * gae_lambda * (1.0 - (terminated | truncated).astype(rewards.dtype))

    def step(later: Array, row: tuple[Array, Array, Array]) -> tuple[Array, tuple[Array, Array]]:
        delta, factor, ratio = row
        carried = factor * later
        correction = bounded(jnp.minimum(rho_bar, ratio) * delta + jnp.minimum(c_bar, ratio) * carried)
        return correction, (delta + carried, correction)

    _, (advantages, corrections) = jax.lax.scan(step, jnp.zeros_like(deltas[0]), (deltas, decay, ratios), reverse=True)
    return advantages, values + corrections


def retrace(
    rewards: Array,
    action_values: Array,
    successor_values: Array,
    terminated: Array,
    truncated: Array,
    log_ratios: Array,
    gamma: float,
    retrace_lambda: float,
) -> Array:
    r"""Retrace(lambda): targets of the values of the actions taken.

    .. math::
        Q^{ret}_t = r_t + \gamma \bigl(V(s'_t) + \lambda \min(1, \rho_{t+1}) (Q^{ret}_{t+1} - Q(s_{t+1}, a_{t+1}))\bigr),

    without what is in brackets where the episode terminated, and without its second part where the episode or the batch ends.
    Whatever policy acted, repeated regression to them leads to the policy's own action values.

    Args:
        rewards: ``[T, N]``.
        action_values: ``[T, N]``, Q of the observation and the action taken.
        successor_values: ``[T, N]``, V of the true successor, :math:`\sum_a \pi_\theta(a|s') Q(s', a)`.
        terminated: ``[T, N]`` boolean.
        truncated: ``[T, N]`` boolean.
        log_ratios: ``[T, N]``.
        gamma: discount in [0, 1].
        retrace_lambda: lambda in [0, 1].

    Returns:
        the targets, ``[T, N]``.

    Source: Munos et al. 2016, *Safe and Efficient Off-Policy Reinforcement Learning*, equations 3 and 4; the recursion is
    equation 5 of Wang et al. 2017.
    """
    differences = rewards + gamma * jnp.where(terminated, 0.0, successor_values) - action_values
    next_ratios = jnp.concatenate([_bounded_exp(log_ratios[1:]), jnp.zeros_like(log_ratios[:1])])
    traces = retrace_lambda * jnp.minimum(1.0, next_ratios)
    decay = gamma * traces * (1.0 - (terminated | truncated).astype(rewards.dtype))
    return action_values + discounted_sum(differences, decay)


def beyond_bound(log_ratios: Array, probs: Array, bound: float) -> Array:
    r"""Return :math:`\max(0, 1 - c / \rho(a)) \, \pi_\theta(a|s)` of all actions, ``c`` the bound: ``[..., n]`` each.

    What a ratio has beyond a bound is lost where it is cut there. An expectation over the policy makes up for it:

    .. math::
        E_\mu[\rho(a) f(a)] = E_\mu[\min(c, \rho(a)) f(a)] + \sum_a \max(0, 1 - c / \rho(a)) \, \pi_\theta(a|s) f(a).

    Source: Wang et al. 2017, *Sample Efficient Actor-Critic with Experience Replay*, equation 7.
    """
    return jnp.maximum(0.0, 1.0 - bound / _bounded_exp(log_ratios)) * probs


def effective_sample_size(importance: Array, weights: Array) -> Array:
    r"""Return :math:`(\sum_i w_i)^2 / (n \sum_i w_i^2)`: the share of the rows that the weighted ones are worth, in (0, 1].

    Args:
        importance: the importance weights ``w``, of any shape.
        weights: of the same shape, 0 for rows that do not count; ``n`` is their sum.

    Returns:
        a scalar: 1 where all ``w`` are alike, :math:`1/n` where one of them outweighs all others; 0 without rows.

    Source: Kong 1992, *A Note on Importance Sampling Using Standardized Weights*.
    """
    largest = jnp.max(jnp.where(weights > 0.0, importance, 0.0))
    shares = importance / jnp.where(largest > 0.0, largest, 1.0)
    squares = jnp.sum(weights * jnp.square(shares)) * jnp.sum(weights)
    return jnp.square(jnp.sum(weights * shares)) / jnp.where(squares > 0.0, squares, 1.0)


def self_normalised(importance: Array, weights: Array) -> Array:
    r"""Return :math:`w_i / \bar w`, so that means over the rows become :math:`\sum w_i x_i / \sum w_i`.

    That is biased, vanishingly with more rows, and never leaves the range of ``x``.
    """
    mean = weighted_mean(importance, weights)
    return importance / jnp.where(mean > 0.0, mean, 1.0)


def bounded(x: Array) -> Array:
    """Return ``x`` clipped to ±:data:`LARGEST`."""
    return jnp.clip(x, -LARGEST, LARGEST)


class Scale(Protocol):
    """A part that scales the numbers of rows by what their weights say of all of them."""

    def __call__(self, values: Array, weights: Array, /) -> Array:
        """Return the values scaled."""
        ...


@dataclass(frozen=True)
class VTrace:
    """The part that makes advantages and value targets by :func:`v_trace`; a row's importance is its own cut ratio."""

    gamma: float
    gae_lambda: float
    rho_bar: float = 1.0
    c_bar: float = 1.0

    def __call__(self, steps: Steps) -> Estimates:
        """Return the advantages, the targets, weights of 1 and the importance."""
        advantages, targets = _v_trace_of(steps, self.gamma, self.gae_lambda, self.rho_bar, self.c_bar)
        importance = jnp.minimum(self.rho_bar, _bounded_exp(steps.log_ratios))
        return Estimates(advantages, targets, jnp.ones_like(advantages), importance)


@dataclass(frozen=True)
class PerDecision:
    r"""The part for per-decision importance sampling: a row's importance is :math:`\prod_{i \le t} \rho_i`.

    Advantages and targets are those of :func:`v_trace` without bounds, in which later rewards have the ratios of the actions
    up to them alone. The estimate of the gradient is unbiased where episodes begin in the batch (for ``gae_lambda`` 1).

    Source: Precup, Sutton and Singh 2000; course notes *Advanced Policy Optimization*, whose product
    :math:`\prod_i \pi_\theta(a_i|s_i) / \mu(a_i|s_i)` has the index ``i`` in both.
    """

    gamma: float
    gae_lambda: float

    def __call__(self, steps: Steps) -> Estimates:
        """Return the advantages, the targets, weights of 1 and the importance."""
        advantages, targets = _v_trace_of(steps, self.gamma, self.gae_lambda, jnp.inf, jnp.inf)
        importance = weights_so_far(steps.log_ratios, steps.terminated | steps.truncated)
        return Estimates(advantages, targets, jnp.ones_like(advantages), importance)


@dataclass(frozen=True)
class WholeTrajectory:
    r"""A part around any estimator of the policy that acted: a row's importance is the ratio of its whole trajectory.

    The target of the critic, ``G``, becomes :math:`V + (G - V) \prod_{i \ge t} \rho_i`.

    Source: course notes *Policy Gradients*, definition 4.6.3.
    """

    estimator: Estimator

    def __call__(self, steps: Steps) -> Estimates:
        """Return the estimates with the importance of the trajectories, and corrected targets."""
        estimates = self.estimator(steps)
        ended = steps.terminated | steps.truncated
        surprise = weights_to_come(steps.log_ratios, ended) * (estimates.targets - steps.values)
        importance = weights_of_trajectories(steps.log_ratios, ended)
        return estimates._replace(targets=steps.values + bounded(surprise), importance=importance)


@dataclass(frozen=True)
class Reweighted:
    """A part around an estimator: advantages are scaled as those of the policy, then multiplied by the rows' importance.

    They are scaled before: a mean that is subtracted is a baseline only of advantages that are weighted afterwards.
    """

    estimator: Estimator
    scale_advantages: Scale
    """``standardise``, ``centred`` or ``unscaled`` of ``jumar.trajectory``."""
    scale_importance: Scale
    """:func:`self_normalised`, or ``unscaled``."""

    def __call__(self, steps: Steps) -> Estimates:
        """Return the estimates with weighted advantages."""
        estimates = self.estimator(steps)
        rows = steps.weights * estimates.weights
        advantages = self.scale_advantages(estimates.advantages, rows * estimates.importance)
        importance = self.scale_importance(jnp.broadcast_to(estimates.importance, rows.shape), rows)
        return estimates._replace(advantages=bounded(importance * advantages), importance=importance)


def _v_trace_of(steps: Steps, gamma: float, gae_lambda: float, rho_bar: float, c_bar: float) -> tuple[Array, Array]:
    return v_trace(
        steps.rewards,
        steps.values,
        steps.successor_values,
        steps.terminated,
        steps.truncated,
        steps.log_ratios,
        gamma,
        gae_lambda,
        rho_bar,
        c_bar,
    )


def _bounded_exp(log_ratios: Array) -> Array:
    return jnp.exp(jnp.clip(log_ratios, -MAX_LOG_RATIO, MAX_LOG_RATIO))


def _sums_to_come(terms: Array, ended: Array) -> Array:
    return discounted_sum(terms, 1.0 - ended.astype(terms.dtype))


def _sums_so_far(terms: Array, ended: Array) -> Array:
    """Return the sums of the terms from the first row of each episode up to and including each row."""
    goes_on = jnp.concatenate([jnp.zeros_like(terms[:1]), 1.0 - ended[:-1].astype(terms.dtype)])
    backwards = discounted_sum(jnp.flip(terms, 0), jnp.flip(goes_on, 0))
    return jnp.flip(backwards, 0)
