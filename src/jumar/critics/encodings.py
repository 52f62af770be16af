r"""How a critic writes an action value in its outputs, and how it regresses on a target: as a number, or as a distribution."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import jax
import jax.numpy as jnp
from jax import Array


class Encoding(Protocol):
    """A part that reads a value from a critic's outputs, and says how far they are from a target."""

    @property
    def size(self) -> int:
        """How many outputs there are for each value, m."""
        ...

    @property
    def limit(self) -> float:
        """The largest size of a value that can be written."""
        ...

    def value(self, outputs: Array) -> Array:
        """Return the values ``[...]`` that outputs ``[..., m]`` stand for."""
        ...

    def loss(self, outputs: Array, targets: Array) -> Array:
        """Return the losses ``[...]`` of outputs ``[..., m]``; targets ``[...]`` are values."""
        ...


@dataclass(frozen=True)
class Number:
    r"""The part by which the output is the value; the loss is :math:`\frac12 (Q - y)^2`."""

    size = 1
    limit = math.inf

    def value(self, outputs: Array) -> Array:
        """Return the only output."""
        return outputs[..., 0]

    def loss(self, outputs: Array, targets: Array) -> Array:
        """Return half of the squared errors."""
        return 0.5 * jnp.square(outputs[..., 0] - targets)


SPREAD = 0.75
"""The deviation of the Gaussian around a target, in widths of a bin: the mass lies in some six bins."""


@dataclass(frozen=True)
class Histogram:
    r"""The part by which outputs are logits over ``size`` bins of equal width between ``-limit`` and ``limit``.

    The value is the mean of the bins' centres, :math:`Q = \sum_i p_i c_i` with :math:`p = softmax(outputs)`. A target y stands
    for a Gaussian around it, cut off at the limits: bin i, from :math:`b_i` to :math:`b_{i+1}`, is to have the share

    .. math::
        t_i = \frac{\Phi((b_{i+1} - y) / \sigma) - \Phi((b_i - y) / \sigma)}{\Phi((l - y) / \sigma) - \Phi((-l - y) / \sigma)},
        \qquad \sigma = 0.75 \cdot \frac{2 l}{m},

    and the loss is the cross-entropy :math:`-\sum_i t_i \log p_i` less its least, :math:`-\sum_i t_i \log t_i`. Its gradient
    with respect to the outputs is :math:`p - t`, which no error makes larger than 1. A target beyond the limits counts as one
    on them.

    Sources: Imani and White 2018, *Improving Regression Performance with Distributional Losses*; Farebrother et al. 2024, *Stop
    Regressing: Training Value Functions via Classification for Scalable Deep RL*, section 3.1.
    """

    size: int
    limit: float

    @property
    def width(self) -> float:
        """The width of a bin."""
        return 2.0 * self.limit / self.size

    def centres(self) -> Array:
        """Return the middles of the bins, ``[m]``."""
        return (jnp.arange(self.size) + 0.5) * self.width - self.limit

    def value(self, outputs: Array) -> Array:
        """Return the means of the distributions."""
        return jax.nn.softmax(outputs, axis=-1) @ self.centres()

    def shares(self, targets: Array) -> Array:
        """Return what share each bin is to have, ``[..., m]``, for targets ``[...]``."""
        y = jnp.clip(targets, -self.limit, self.limit)[..., None]
        edges = jnp.arange(self.size + 1) * self.width - self.limit
        below = jax.scipy.special.ndtr((edges - y) / (SPREAD * self.width))
        return jnp.diff(below, axis=-1) / (below[..., -1:] - below[..., :1])

    def loss(self, outputs: Array, targets: Array) -> Array:
        """Return the relative entropies of the targets' distributions with respect to the outputs'."""
        shares = self.shares(targets)
        best = jnp.sum(jax.scipy.special.xlogy(shares, shares), axis=-1)
        return best - jnp.sum(shares * jax.nn.log_softmax(outputs, axis=-1), axis=-1)
