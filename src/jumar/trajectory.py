"""Experience: what environments and a policy made together, and the rows that an objective is a mean over."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

PyTree = Any


class Trajectory(NamedTuple):
    """``T`` steps of ``N`` environments, all arrays with leading axes ``[T, N]``.

    A row is one decision: at ``observations`` the policy took ``actions``, the environment answered with ``rewards``
    and ``successors``. Where the episode ended, ``successors`` is still the true last observation, never the first one
    of the next episode, so that a time limit can bootstrap from it.
    """

    observations: PyTree
    """What the policy acted on, in the structure of the observation space."""
    actions: Array
    """The policy's own actions, which its log-probability belongs to: for a Gaussian before they are clipped or squashed."""
    rewards: Array
    """Raw rewards, float32."""
    terminated: Array
    """The episode ended because of what happened in it: the future is worth 0. Boolean."""
    truncated: Array
    """The episode was cut from outside (a time limit): the future is worth V(successor). Boolean."""
    successors: PyTree
    """The true next observation, in the structure of the observation space."""
    valid: Array
    """Whether the row is experience; ``False`` for the reset step of a NEXT_STEP environment. Boolean."""
    episode_start: Array
    """Whether the observation is the first of its episode (a recurrent carry is cleared there). Boolean."""
    log_probs: Array
    """log pi(action | observation) of the policy that acted, float32."""
    action_masks: Array | None
    """Which actions were allowed, ``[T, N, M]`` boolean, where the environment says so beside the observation."""
    costs: Array | None
    """Costs beside the reward, where the environment gives any, float32."""
    carry: PyTree
    """The policy's carry before the first row, leading axis ``[N]``; empty for a policy without memory."""
    critic_carry: PyTree
    """The critic's carry before the first row, leading axis ``[N]``; empty for a critic without memory."""
    successor_masks: Array | None = None
    """Which actions are allowed at ``successors``, like ``action_masks``; all of them after an end, where nothing is known."""

    @property
    def weights(self) -> Array:
        """The weight of each row in a mean: 1 for experience and 0 for what is none, float32."""
        return self.valid.astype(jnp.float32)

    @property
    def ended(self) -> Array:
        """Whether the episode ended with this row, for whichever reason."""
        return self.terminated | self.truncated


class Batch(NamedTuple):
    """Rows that an objective is a weighted mean over.

    The leading axis counts rows: single decisions ``[R]`` for a policy without memory, whole sequences ``[R, T]`` for a
    recurrent one. Any sub-set of rows is a batch again: that is what a minibatch is.
    """

    features: PyTree
    """Encoded, normalised observations: what networks take."""
    actions: Array
    log_probs: Array
    """log pi of the behaviour policy."""
    advantages: Array
    returns: Array
    """The value function's targets."""
    values: Array
    """The value function before the update."""
    weights: Array
    """1 for experience, 0 for padding, or any weight of the exact lab."""
    action_masks: Array | None
    episode_start: Array
    carry: PyTree
    """Carries at the start of each sequence; empty without memory."""
    critic_carry: PyTree
    old: PyTree = ()
    """Other action distributions, where a divergence from them is part of the objective: those before the update, say."""
    action_advantages: PyTree = ()
    """What each of all actions is judged by, ``[..., n]``, where the objective is a sum over them."""
    cost_advantages: PyTree = ()
    """Advantages of costs; like what follows, an array where costs are limited."""
    cost_returns: PyTree = ()
    """The targets of the critic of costs."""
    cost_values: PyTree = ()
    """Its values before the update."""


def of_actions(table: Array, actions: Array) -> Array:
    """Return the entry of each row's action: ``[..., n]`` and integers ``[...]`` to ``[...]``."""
    chosen = jax.nn.one_hot(actions, table.shape[-1], dtype=bool)
    return jnp.sum(jnp.where(chosen, table, 0.0), axis=-1)


def masks_after(masks: Array, ended: Array) -> Array:
    """Return the masks of the rows' successors, from masks ``[T, N, n]`` and ends ``[T, N]``.

    They are those of the next rows. Where there is none, after an end or the last row, nothing is known and all actions
    count as allowed.
    """
    later = jnp.concatenate([masks[1:], jnp.ones_like(masks[:1])])
    return later | ended[..., None]


def sum_of_weights(weights: Array) -> Array:
    """Return the sum of weights to divide by: 1 where all are 0, so that what is divided stays 0. A sum may be tiny."""
    weight = jnp.sum(weights)
    return jnp.where(weight > 0.0, weight, 1.0)


def weighted_mean(values: Array, weights: Array) -> Array:
    r"""Return :math:`\sum_i w_i x_i / \sum_i w_i`, a scalar; 0 when all weights are 0."""
    return jnp.sum(values * weights) / sum_of_weights(weights)


def weighted_means(columns: dict[str, Array], weights: Array) -> dict[str, Array]:
    """Return the :func:`weighted_mean` of each of several arrays of one shape, by one sum over all of them."""
    stack = jnp.stack(list(columns.values()))
    axes = tuple(range(1, stack.ndim))
    means = jnp.sum(stack * weights, axes) / sum_of_weights(weights)
    return dict(zip(columns, means, strict=True))


def counted_row(rows: Array, weights: Array) -> Array:
    """Return the row of largest weight (the first of them): ``rows`` ``[..., *shape]``, ``weights`` ``[...]``."""
    return rows.reshape(-1, *rows.shape[weights.ndim :])[jnp.argmax(weights)]


def standardise(values: Array, weights: Array, epsilon: float = 1e-8) -> Array:
    r"""Return :math:`(x - \bar x) / (s + \epsilon)` with the weighted mean and the weighted (n - 1) deviation.

    This is the field's advantage normalisation. A constant becomes 0. A single row has no deviation and is left as it
    is, as in Stable-Baselines3: centred it would be 0 and teach nothing.
    """
    count = jnp.sum(weights)
    # The mean of equal float32 numbers is not quite their value, and dividing that error by itself would give +-1:
    # after subtracting one of them, a constant is exactly 0.
    shifted = values - counted_row(values, weights)
    around = shifted - weighted_mean(shifted, weights)
    # Weights that are worth less than two rows are a distribution's, whole or in part: they have no degree to lose.
    freedom = jnp.where(count >= 2.0, count - 1.0, jnp.where(count > 0.0, count, 1.0))
    variance = jnp.sum(weights * jnp.square(around)) / freedom
    single = jnp.sum(weights > 0.0) == 1
    return jnp.where(single, values, around / (jnp.sqrt(variance) + epsilon))


def centred(values: Array, weights: Array) -> Array:
    """Return the values minus their weighted mean: what a mean baseline does to returns. A single row stays as it is."""
    single = jnp.sum(weights > 0.0) == 1
    return jnp.where(single, values, values - weighted_mean(values, weights))


def unscaled(values: Array, weights: Array) -> Array:
    """Return the values as they are: what stands in the place of :func:`standardise` where nothing is scaled."""
    return values


def explained_variance(values: Array, returns: Array, weights: Array) -> Array:
    r"""Return :math:`1 - Var(R - V) / Var(R)`: 1 for a perfect critic, 0 for a constant one; 0 where Var(R) is 0."""

    def variance(x: Array) -> Array:
        return weighted_mean(jnp.square(x - weighted_mean(x, weights)), weights)

    spread = variance(returns)
    return jnp.where(spread > 0.0, 1.0 - variance(returns - values) / jnp.where(spread > 0.0, spread, 1.0), 0.0)
