"""Turned kernels: the backward half of a product that is taken many times at the same parameters, made cheap.

The derivative of an affine layer ``a W`` backward in ``W`` is :math:`a^T g`, a product that sums over all rows; on processors
XLA takes three times as long for it as for the layer itself, because ``a`` lies the wrong way round in memory. Where many
such products are taken with the same ``a``, as by conjugate gradients, ``a`` can be turned round once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
from jax import Array

Parameters = Any


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Turned:
    """A kernel ``[n, m]``, to be multiplied from the left, that keeps its inputs transposed for the way back.

    It computes what the kernel does; it has derivatives backward (``jax.vjp``) and none forward.
    """

    kernel: Array

    def __rmatmul__(self, inputs: Array) -> Array:
        """Return ``inputs @ kernel``, ``[..., n]`` to ``[..., m]``."""
        return _product(inputs, self.kernel)


def with_turned_kernels(parameters: Parameters) -> Parameters:
    """Return parameters with every matrix named ``kernel`` turned; those of convolutions stay as they are."""

    def turned(path: Any, leaf: Array) -> Any:
        is_kernel = bool(path) and getattr(path[-1], "key", None) == "kernel" and leaf.ndim == 2
        return Turned(leaf) if is_kernel else leaf

    return jax.tree_util.tree_map_with_path(turned, parameters)


@jax.custom_vjp
def _product(inputs: Array, kernel: Array) -> Array:
    return inputs @ kernel


def _forward(inputs: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return inputs @ kernel, (inputs.reshape(-1, inputs.shape[-1]).T, kernel)


def _backward(kept: tuple[Array, Array], slopes: Array) -> tuple[Array, Array]:
    turned, kernel = kept
    return slopes @ kernel.T, turned @ slopes.reshape(-1, slopes.shape[-1])


_product.defvjp(_forward, _backward)
