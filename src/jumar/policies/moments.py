"""Running mean and variance of rows."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jumar.trajectory import counted_row

EPSILON = 1e-8
"""Added to variances before they are divided by: a constant is normalised to 0."""


class RunningMoments(NamedTuple):
    """Number (``rows``), mean and variance of all rows seen so far; the latter two have the shape of one row."""

    rows: Array
    mean: Array
    variance: Array

    @classmethod
    def zero(cls, shape: tuple[int, ...]) -> RunningMoments:
        """Return the moments before any row: mean 0 and variance 1, so that normalising changes nothing yet."""
        return cls(jnp.zeros((), jnp.float32), jnp.zeros(shape, jnp.float32), jnp.ones(shape, jnp.float32))

    def updated(self, rows: Array, weights: Array) -> RunningMoments:
        r"""Return the moments with more rows in them.

        Chan, Golub and LeVeque's pairwise form of Welford's method, stable in float32:
        :math:`\bar x = \bar x_a + \delta n_b / n`, :math:`M = M_a + M_b + \delta^2 n_a n_b / n`. Few rows after many change the
        variance by their difference from it: a factor of nearly 1 would round to one side, and the variance would fade.

        Means and variances are float32 numbers: a change of less than half of their last digit is lost. So with one row at
        a time, a mean of 100 deviations no longer follows a change of one deviation after some 250,000 rows.

        Args:
            rows: ``[..., *shape]``.
            weights: ``[...]``, 0 for rows to leave out.
        """
        axes = tuple(range(weights.ndim))
        weight = weights.reshape(weights.shape + (1,) * (rows.ndim - weights.ndim))
        new = jnp.sum(weights)
        seen = new > 0.0
        # Seen from one of the rows, a constant has mean and spread exactly 0, whatever its size.
        origin = counted_row(rows, weights)
        shifted = jnp.where(weight > 0.0, rows - origin, 0.0)
        offset = jnp.sum(shifted * weight, axes) / jnp.where(seen, new, 1.0)
        spread = jnp.sum(jnp.square(shifted - offset) * weight, axes)
        total = self.rows + new
        share = new / jnp.where(seen, total, 1.0)
        delta = (origin - self.mean) + offset
        own = spread / jnp.where(seen, new, 1.0) + jnp.square(delta) * (1.0 - share)
        nudged = self.variance + share * (own - self.variance)
        merged = jnp.where(share < 0.5, nudged, self.variance * (1.0 - share) + share * own)
        return RunningMoments(
            total,
            jnp.where(seen, self.mean + delta * share, self.mean),
            jnp.where(seen, merged, self.variance),
        )

    def normalise(self, rows: Array, clip: float, epsilon: float = EPSILON) -> Array:
        r"""Return :math:`clip((x - \bar x) / \sqrt{s^2 + \epsilon}, \pm clip)`."""
        return jnp.clip((rows - self.mean) * jax.lax.rsqrt(self.variance + epsilon), -clip, clip)
