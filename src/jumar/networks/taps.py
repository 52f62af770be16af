r"""Taps: kernels that measure what flows through a network, for curvature by layers.

An affine layer maps its inputs :math:`a`, a 1 appended for the bias, to :math:`s = a W`. With a :class:`Tapped` kernel in
the place of the array, the same network computes the same outputs, and the gradient of any sum with respect to the *tap*,
a pair of zeros that no output depends on, is

.. math::
    \sum_i w_i a_i a_i^T, \qquad \sum_i g_i g_i^T,

over all rows that went through the layer, with :math:`g_i` the gradient of the sum with respect to :math:`s_i`. So one
reverse pass measures all layers of a network, and none of them knows.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jumar.networks.convolutions import patches


class Factors(NamedTuple):
    """A pair of square symmetric matrices of an affine layer of ``n`` inputs and ``m`` outputs."""

    inputs: Array
    """Of the inputs, the 1 for the bias among them: ``[n + 1, n + 1]``, or ``[n, n]`` where there is no bias."""
    outputs: Array
    """Of the outputs, ``[m, m]``."""

    @classmethod
    def zeros(cls, kernel: Array) -> Factors:
        """Return the zeros of a kernel's tap, always with a 1 among the inputs.

        A kernel is ``[n, m]``; that of a convolution has its ``n`` inputs on all axes but the last.
        """
        m = kernel.shape[-1]
        n = kernel.size // m
        return cls(jnp.zeros((n + 1, n + 1), kernel.dtype), jnp.zeros((m, m), kernel.dtype))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Tapped:
    """A kernel with a tap: to be multiplied from the left, ``inputs @ kernel``, or to convolve images."""

    kernel: Array
    tap: Factors
    """Zeros, whose gradient is what was measured."""
    weights: Array
    """The weight of each row of the batch.

    Where a layer sees each row at several places (a convolution), all of them have its weight. Where it sees fewer rows at
    once than there are (step by step in a recurrent core), they cannot be told apart, and count alike.
    """

    def __rmatmul__(self, inputs: Array) -> Array:
        """Return ``inputs @ kernel``, ``[..., n]`` to ``[..., m]``."""
        return _product(inputs, self.kernel, self.tap, self.weights)

    def convolve(self, images: Array, stride: int, padding: str) -> Array:
        """Return the convolution of images ``[N, height, width, channels]``, as a product with all their patches."""
        *size, _, filters = self.kernel.shape
        seen = patches(images, (size[0], size[1]), stride, padding)
        return seen @ replace(self, kernel=self.kernel.reshape(-1, filters))


@jax.custom_vjp
def _product(inputs: Array, kernel: Array, tap: Factors, weights: Array) -> Array:
    return inputs @ kernel


def _forward(inputs: Array, kernel: Array, tap: Factors, weights: Array) -> tuple[Array, tuple[Array, Array, Array]]:
    return inputs @ kernel, (inputs, kernel, weights)


def _backward(kept: tuple[Array, Array, Array], slopes: Array) -> tuple[Array, Array, Factors, Array]:
    inputs, kernel, weights = kept
    rows, gradients = inputs.reshape(-1, inputs.shape[-1]), slopes.reshape(-1, slopes.shape[-1])
    places, left_over = divmod(len(rows), weights.size)
    shares = jnp.repeat(weights.reshape(-1, 1), places, axis=0) if not left_over else jnp.ones_like(rows[:, :1])
    ones = jnp.ones_like(rows[:, :1])
    homogeneous = jnp.concatenate([rows, ones], axis=1)
    measured = Factors((homogeneous * shares).T @ homogeneous, gradients.T @ gradients)
    return slopes @ kernel.T, rows.T @ gradients, measured, jnp.zeros_like(weights)


_product.defvjp(_forward, _backward)
