r"""How much critics overestimate: what they said of whole training episodes, beside what came of these.

For an episode of rows :math:`0 \dots T` the discounted return from row ``t`` on is
:math:`G_t = \sum_{k \ge t} \gamma^{k-t} r_k + \gamma^{T+1-t} V(s_{T+1})`, the last term where the episode was truncated. Its
sum over rows needs no memory of rows: with :math:`w_k = \sum_{t \le k} \gamma^{k-t} = 1 + \gamma w_{k-1}`,

.. math::
    \sum_t G_t = \sum_k w_k r_k + \gamma w_T V(s_{T+1}).

Where entropy counts, each row but the first one of a return adds what its entropy is worth, :math:`-\alpha \log \pi`, weighted
by :math:`\gamma w_{k-1} = w_k - 1`.

Rows whose observation is not known are left out of the sum over t: they add 0 in the place of 1 to :math:`w_k`.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array


class Overestimation(NamedTuple):
    """Of the episode under way in each environment, ``[N]`` float32 each."""

    weight: Array
    """w of the row before."""
    returns: Array
    """The sum of what is known of all returns."""
    values: Array
    """The sum of what the critics said."""
    rows: Array

    @classmethod
    def start(cls, n_envs: int) -> Overestimation:
        """Return the state with no episode under way."""
        zeros = jnp.zeros((n_envs,), jnp.float32)
        return cls(zeros, zeros, zeros, zeros)

    def after(
        self,
        values: Array,
        rewards: Array,
        bonuses: Array,
        successor_values: Array,
        terminated: Array,
        truncated: Array,
        valid: Array,
        known: Array,
        gamma: float,
    ) -> tuple[Overestimation, Array]:
        """Return the state after steps ``[T, N]``, and the mean of Q - G over known rows of ended episodes; NaN without any.

        Args:
            values: what the critics say of each step's action.
            rewards: as they are learnt from.
            bonuses: what the entropy at each step is worth.
            successor_values: the value of each step's successor.
            terminated: whether the episode ended by itself.
            truncated: whether it was cut.
            valid: which rows are steps.
            known: which rows' observations and successors are known; an episode that is cut in another one counts for nothing.
            gamma: the discount.
        """

        def row(
            state: tuple[Overestimation, Array, Array], x: tuple[Array, ...]
        ) -> tuple[tuple[Overestimation, Array, Array], None]:
            judged, difference, count = state
            value, reward, bonus, successor, ends, cut, use, seen = x
            one = seen.astype(jnp.float32)
            weight = one + gamma * judged.weight
            returns = judged.returns + weight * reward + (weight - one) * bonus
            now = Overestimation(weight, returns, judged.values + jnp.where(seen, value, 0.0), judged.rows + one)
            whole = now.returns + jnp.where(cut & ~ends, gamma * weight * successor, 0.0)
            over = (ends | (cut & seen)) & use
            difference = difference + jnp.sum(jnp.where(over, now.values - whole, 0.0))
            count = count + jnp.sum(jnp.where(over, now.rows, 0.0))
            kept = jax.tree.map(lambda old, new: jnp.where(use, jnp.where(ends | cut, 0.0, new), old), judged, now)
            return (kept, difference, count), None

        zero = jnp.zeros((), jnp.float32)
        columns = (values, rewards, bonuses, successor_values, terminated, truncated, valid, known)
        (judged, difference, count), _ = jax.lax.scan(row, (self, zero, zero), columns)
        return judged, jnp.where(count > 0.0, difference / jnp.maximum(count, 1.0), jnp.nan)
