"""Objectives and losses of one row: pure functions of arrays of any one shape.

What is maximised is an objective, what is minimised is named a loss. Averaging over rows is the problem's business.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import jax.numpy as jnp
from jax import Array

from jumar.estimators.importance import MAX_LOG_RATIO
from jumar.schedules import Schedule


def log_ratio(log_probs: Array, old_log_probs: Array) -> Array:
    r"""Return :math:`\log \pi_\theta(a|s) - \log \pi_{old}(a|s)`, clamped to ±20."""
    return jnp.clip(log_probs - old_log_probs, -MAX_LOG_RATIO, MAX_LOG_RATIO)


def score(log_probs: Array, advantages: Array) -> Array:
    r"""The score-function objective :math:`\log \pi_\theta(a|s) A`, whose gradient is REINFORCE's."""
    return log_probs * advantages


def score_of_all(log_probs: Array, advantages: Array) -> Array:
    r"""The same for all actions at once: :math:`\sum_a \log \pi_\theta(a|s) A(a)`, arrays ``[..., n]`` to ``[...]``."""
    # An action that is forbidden has no advantage; its logarithm, of the size of FORBIDDEN, times 0 is 0.
    return jnp.sum(score(log_probs, advantages), axis=-1)


def surrogate(log_probs: Array, old_log_probs: Array, advantages: Array) -> Array:
    r"""The surrogate objective :math:`\frac{\pi_\theta(a|s)}{\pi_{old}(a|s)} A` (Schulman et al. 2015, eq. 14)."""
    return jnp.exp(log_ratio(log_probs, old_log_probs)) * advantages


def clipped_surrogate(log_probs: Array, old_log_probs: Array, advantages: Array, clip_range: Array | float) -> Array:
    r"""PPO's clipped surrogate :math:`\min(w A, clip(w, 1 - \epsilon, 1 + \epsilon) A)`, ``w`` the ratio.

    Its gradient is zero exactly where ``A > 0 and w > 1 + eps`` or ``A < 0 and w < 1 - eps``.
    Source: Schulman et al. 2017, eq. 7.
    """
    ratio = jnp.exp(log_ratio(log_probs, old_log_probs))
    return jnp.minimum(ratio * advantages, jnp.clip(ratio, 1.0 - clip_range, 1.0 + clip_range) * advantages)


def squared_error(values: Array, targets: Array) -> Array:
    r"""The value loss :math:`(V - R)^2` (without a factor 1/2, as in Stable-Baselines3)."""
    return jnp.square(values - targets)


def huber_loss(values: Array, targets: Array, delta: float) -> Array:
    r"""The value loss of Huber: :math:`e^2` for errors :math:`e = V - R` of at most :math:`\delta`, linear beyond.

    .. math:: e^2 \;\text{if}\; |e| \le \delta, \qquad 2 \delta |e| - \delta^2 \;\text{otherwise}

    It is twice the usual one, so that it is :func:`squared_error` where no error is beyond ``delta``; its slope is at most
    :math:`2 \delta`.

    Source: Huber 1964, *Robust Estimation of a Location Parameter*.
    """
    size = jnp.abs(values - targets)
    inside = jnp.minimum(size, delta)
    return inside * (2.0 * size - inside)


def clipped_value_loss(
    values: Array,
    old_values: Array,
    targets: Array,
    clip_range: Array | float,
    loss: Callable[[Array, Array], Array] = squared_error,
) -> Array:
    r"""The pessimistic value loss :math:`\max(l(V, R), l(V_{old} + clip(V - V_{old}, \pm\epsilon), R))`, of the squared error.

    The maximum keeps the gradient of a value that moved away from its target; the clipped term alone would drop it.
    Another ``loss`` (values, targets) may stand for the squared error.
    Source: Schulman et al. 2016 and the ``ppo2`` implementation.
    """
    near = old_values + jnp.clip(values - old_values, -clip_range, clip_range)
    return jnp.maximum(loss(values, targets), loss(near, targets))


def sampled_kl(log_probs: Array, old_log_probs: Array) -> Array:
    r"""The estimate :math:`(w - 1) - \log w \ge 0` of KL(old || new) from one action drawn by the old policy.

    Source: Schulman 2020, *Approximating KL divergence*.
    """
    difference = log_ratio(log_probs, old_log_probs)
    return jnp.expm1(difference) - difference


def clip_fraction(log_probs: Array, old_log_probs: Array, clip_range: Array | float) -> Array:
    """1 where the ratio lies outside ``1 ± clip_range``, else 0."""
    return (jnp.abs(jnp.expm1(log_ratio(log_probs, old_log_probs))) > clip_range).astype(log_probs.dtype)


class PolicyObjective(Protocol):
    """A part that says what the policy climbs, given the share of training that is left."""

    def __call__(self, log_probs: Array, old_log_probs: Array, advantages: Array, remaining: Array) -> Array:
        """Return the objective of each row."""
        ...

    def diagnose(self, log_probs: Array, old_log_probs: Array, remaining: Array) -> dict[str, Array]:
        """Return numbers of each row whose means are worth knowing."""
        ...


@dataclass(frozen=True)
class Score:
    """The part that climbs :func:`score`."""

    def __call__(self, log_probs: Array, old_log_probs: Array, advantages: Array, remaining: Array) -> Array:
        """Return the objective of each row."""
        return score(log_probs, advantages)

    def diagnose(self, log_probs: Array, old_log_probs: Array, remaining: Array) -> dict[str, Array]:
        """Return nothing: there is no clipping."""
        return {}


@dataclass(frozen=True)
class Surrogate:
    """The part that climbs :func:`surrogate`."""

    def __call__(self, log_probs: Array, old_log_probs: Array, advantages: Array, remaining: Array) -> Array:
        """Return the objective of each row."""
        return surrogate(log_probs, old_log_probs, advantages)

    def diagnose(self, log_probs: Array, old_log_probs: Array, remaining: Array) -> dict[str, Array]:
        """Return nothing: there is no clipping."""
        return {}


@dataclass(frozen=True)
class Clipped:
    """The part that climbs :func:`clipped_surrogate`, with a range that may shrink over training."""

    clip_range: Schedule

    def __call__(self, log_probs: Array, old_log_probs: Array, advantages: Array, remaining: Array) -> Array:
        """Return the objective of each row."""
        return clipped_surrogate(log_probs, old_log_probs, advantages, self.clip_range(remaining))

    def diagnose(self, log_probs: Array, old_log_probs: Array, remaining: Array) -> dict[str, Array]:
        """Return 1 for the rows outside of the range."""
        return {"clip_fraction": clip_fraction(log_probs, old_log_probs, self.clip_range(remaining))}


class ValueLoss(Protocol):
    """A part that says what the critic makes small, given the share of training that is left."""

    def __call__(self, values: Array, old_values: Array, targets: Array, remaining: Array) -> Array:
        """Return the loss of each row."""
        ...


@dataclass(frozen=True)
class SquaredError:
    """The part whose loss is :func:`squared_error`."""

    def __call__(self, values: Array, old_values: Array, targets: Array, remaining: Array) -> Array:
        """Return the loss of each row."""
        return squared_error(values, targets)


@dataclass(frozen=True)
class ClippedSquaredError:
    """The part whose loss is :func:`clipped_value_loss`, with a range that may shrink over training."""

    clip_range: Schedule

    def __call__(self, values: Array, old_values: Array, targets: Array, remaining: Array) -> Array:
        """Return the loss of each row."""
        return clipped_value_loss(values, old_values, targets, self.clip_range(remaining))


@dataclass(frozen=True)
class Huber:
    """The part whose loss is :func:`huber_loss`."""

    delta: float

    def __call__(self, values: Array, old_values: Array, targets: Array, remaining: Array) -> Array:
        """Return the loss of each row."""
        return huber_loss(values, targets, self.delta)


@dataclass(frozen=True)
class ClippedHuber:
    """The part whose loss is :func:`clipped_value_loss` of :func:`huber_loss`, with a range that may shrink over training."""

    clip_range: Schedule
    delta: float

    def __call__(self, values: Array, old_values: Array, targets: Array, remaining: Array) -> Array:
        """Return the loss of each row."""
        loss = partial(huber_loss, delta=self.delta)
        return clipped_value_loss(values, old_values, targets, self.clip_range(remaining), loss)
