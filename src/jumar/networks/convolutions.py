r"""Convolutions as matrix products, whose derivatives are matrix products too.

XLA's processor backend has no fast derivatives of its convolutions: inside a loop they run on one thread, element by
element, and take 30 times as long as the convolution itself. With a kernel of ``h x w`` places, stride 1 and ``c`` channels,

.. math::
    y_{n,p,q} = \sum_{i < h} \sum_{j < w} x_{n,p+i,q+j} W_{ij}, \qquad W_{ij} \in R^{c \times f},

which is ``h w`` products of ``[n p q, c]`` with ``[c, f]``. A stride ``s`` that divides the kernel's sides is brought to this
form by :func:`space_to_depth`: ``s x s`` neighbouring pixels become one of ``s s c`` channels, so that there are fewer
and wider products (the first layer of Mnih et al. 2015, 8 x 8 with stride 4 and 4 channels: 4 instead of 64).

Images are ``[N, height, width, channels]``, kernels ``[height, width, channels, filters]``.
"""

from __future__ import annotations

import functools
import operator
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array


def convolve(images: Array, kernel: Array, stride: int, padding: str) -> Array:
    """Return the convolution (as networks call it: the kernel is not flipped), ``[N, height', width', filters]``.

    It equals ``jax.lax.conv_general_dilated`` to rounding.

    Args:
        images: ``[N, height, width, channels]``.
        kernel: ``[h, w, channels, filters]``.
        stride: the same on both axes.
        padding: ``"VALID"`` or ``"SAME"``.
    """
    h, w, channels, filters = kernel.shape
    view = padded(images, (h, w), stride, padding)
    if stride > 1 and h % stride == 0 and w % stride == 0:
        blocks = kernel.reshape(h // stride, stride, w // stride, stride, channels, filters)
        kernel = blocks.transpose(0, 2, 1, 3, 4, 5).reshape(h // stride, w // stride, -1, filters)
        view = View(space_to_depth(view.images, stride), view.height, view.width, 1)
        h, w, channels, _ = kernel.shape
    places = [(i, j) for i in range(h) for j in range(w)]
    products = [view.at(i, j).reshape(-1, channels) @ kernel[i, j] for i, j in places]
    return functools.reduce(operator.add, products).reshape(-1, view.height, view.width, filters)


def patches(images: Array, size: tuple[int, int], stride: int, padding: str) -> Array:
    """Return what a kernel of ``size`` sees at each place, ``[N, height', width', h w channels]``, channels last.

    A convolution is their product with ``kernel.reshape(-1, filters)``.
    """
    view = padded(images, size, stride, padding)
    return jnp.concatenate([view.at(i, j) for i in range(size[0]) for j in range(size[1])], axis=-1)


def space_to_depth(images: Array, block: int) -> Array:
    """Return ``[N, height / s, width / s, s s channels]``: each block of ``s x s`` pixels as one, row by row."""
    n, height, width, channels = images.shape
    blocks = images.reshape(n, height // block, block, width // block, block, channels)
    return blocks.transpose(0, 1, 3, 2, 4, 5).reshape(n, height // block, width // block, -1)


class View(NamedTuple):
    """Images over which a kernel is moved."""

    images: Array
    """Padded, and without the rows and columns at the far ends that no kernel reaches."""
    height: int
    """The number of places from top to bottom."""
    width: int
    """From left to right."""
    stride: int

    def at(self, row: int, column: int) -> Array:
        """Return what the entry ``(row, column)`` of a kernel sees at each place, ``[N, height', width', channels]``."""
        far_row, far_column = (self.stride * (n - 1) + 1 for n in (self.height, self.width))
        return self.images[:, row : row + far_row : self.stride, column : column + far_column : self.stride]


def padded(images: Array, size: tuple[int, int], stride: int, padding: str) -> View:
    """Return the images as a kernel of ``size`` moves over them."""
    sides = images.shape[1:3]
    margins = jax.lax.padtype_to_pads(sides, size, (stride, stride), padding)
    places = [
        (side + sum(margin) - reach) // stride + 1 for side, margin, reach in zip(sides, margins, size, strict=True)
    ]
    if any(map(any, margins)):
        images = jnp.pad(images, [(0, 0), *margins, (0, 0)])
    reached = [stride * (n - 1) + reach for n, reach in zip(places, size, strict=True)]
    return View(images[:, : reached[0], : reached[1]], places[0], places[1], stride)
