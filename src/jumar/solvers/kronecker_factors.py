r"""Kronecker-factored curvature: the Fisher matrix of a network, one small pair of matrices for each affine layer.

The gradient of a log-probability with respect to an affine layer ``W`` is :math:`a g^T`, with the layer's inputs :math:`a`
(a 1 appended for the bias, if there is one) and the gradient :math:`g` with respect to its outputs. Its Fisher matrix is
taken to be

.. math::
    F = E[a a^T \otimes g g^T] \approx A \otimes G, \quad A = E[a a^T], \; G = E[g g^T],

whose inverse is that of its factors: :math:`(A \otimes G)^{-1} vec(V) = vec(A^{-1} V G^{-1})` for ``V`` of the shape of ``W``.
Different layers count as independent. Where one decision goes through a layer several times (the places of an image under
a convolution, the steps of a recurrent core) the times count as independent too: ``A`` is the mean over all of them,
``G`` the sum over the times of one decision.

Sources: Martens and Grosse 2015, *Optimizing Neural Networks with Kronecker-factored Approximate Curvature*; Grosse and
Martens 2016 (convolutions); Martens, Ba and Johnson 2018 (recurrent networks).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jumar.networks.taps import Factors, Tapped
from jumar.trajectory import sum_of_weights

Parameters = Any


def is_layer(node: Any) -> bool:
    """Return whether a node of a tree of parameters is an affine layer: a kernel, and a bias if it has one."""
    return isinstance(node, dict) and "kernel" in node and node.keys() <= {"kernel", "bias"}


@dataclass(frozen=True)
class Division:
    """How a tree of parameters falls into affine layers and the rest (a Gaussian's free deviations, say)."""

    structure: Any
    """The tree without its parts, JAX's ``PyTreeDef``."""
    layered: tuple[bool, ...]
    """Which parts are layers."""

    @classmethod
    def of(cls, parameters: Parameters) -> Division:
        """Find the affine layers of parameters."""
        parts, structure = jax.tree.flatten(parameters, is_leaf=is_layer)
        return cls(structure, tuple(map(is_layer, parts)))

    def divide(self, parameters: Parameters) -> tuple[list[Any], list[Array]]:
        """Return the layers, in order, and the arrays outside of layers."""
        parts = self.structure.flatten_up_to(parameters)
        layers = [part for part, layered in zip(parts, self.layered, strict=True) if layered]
        return layers, [part for part, layered in zip(parts, self.layered, strict=True) if not layered]

    def join(self, layers: Sequence[Any], rest: Sequence[Array]) -> Parameters:
        """Return the tree of both again."""
        first, second = iter(layers), iter(rest)
        return self.structure.unflatten([next(first) if layered else next(second) for layered in self.layered])


def matrix(layer: Parameters) -> Array:
    """Return kernel and bias of a layer as one matrix, ``[n + 1, m]``; without a bias ``[n, m]``."""
    kernel = layer["kernel"].reshape(-1, layer["kernel"].shape[-1])
    return jnp.concatenate([kernel, layer["bias"][None]]) if "bias" in layer else kernel


def layer_of(matrix: Array, like: Parameters) -> Parameters:
    """Return the layer of a :func:`matrix`, in the shapes of another layer."""
    if "bias" not in like:
        return {"kernel": matrix.reshape(like["kernel"].shape)}
    return {"kernel": matrix[:-1].reshape(like["kernel"].shape), "bias": matrix[-1]}


def no_factors(layer: Parameters) -> Factors:
    """Return zeros in the shapes of a layer's factors."""
    n, m = matrix(layer).shape
    kind = layer["kernel"].dtype
    return Factors(jnp.zeros((n, n), kind), jnp.zeros((m, m), kind))


def measured_factors(
    log_likelihood: Callable[[Parameters], Array], parameters: Parameters, weights: Array
) -> list[Factors]:
    r"""Return the factors ``(A, G)`` of every affine layer, in the order of :class:`Division`.

    Args:
        log_likelihood: of tapped parameters; :math:`\sum_i \sqrt{w_i} \log p(y_i | x_i)` over the rows, where
            :math:`y_i` is drawn from the model itself. With the root, the squares in ``G`` have the weight :math:`w_i`.
        parameters: where to measure.
        weights: of the rows; where all are 0, so are the factors.
    """
    division = Division.of(parameters)
    layers, rest = division.divide(parameters)

    def tapped(taps: list[Factors]) -> Array:
        kernels = [Tapped(layer["kernel"], tap, weights) for layer, tap in zip(layers, taps, strict=True)]
        measured = [{**layer, "kernel": kernel} for layer, kernel in zip(layers, kernels, strict=True)]
        return log_likelihood(division.join(measured, rest))

    sums = jax.grad(tapped)([Factors.zeros(layer["kernel"]) for layer in layers])
    decisions = sum_of_weights(weights)
    factors = []
    for layer, total in zip(layers, sums, strict=True):
        n = len(matrix(layer))
        # The last entry of the inputs' sum is that of the 1 for the bias: how often the layer was gone through.
        times = jnp.where((counted := total.inputs[-1, -1]) > 0.0, counted, 1.0)
        factors.append(Factors(total.inputs[:n, :n] / times, total.outputs / decisions))
    return factors


def damped_inverse(factors: Factors, damping: float | Array) -> Factors:
    r"""Return the inverses of the damped factors,

    .. math::
        (A + \pi \sqrt\lambda I)^{-1}, \quad (G + \tfrac{\sqrt\lambda}{\pi} I)^{-1}, \quad
        \pi = \sqrt{\frac{tr A / (n + 1)}{tr G / m}},

    whose Kronecker product stands for :math:`(A \otimes G + \lambda I)^{-1}`; :math:`\pi` divides the damping so that the
    error is small for factors of any two sizes. Where a trace is 0, :math:`\pi = 1`.

    Source: Martens and Grosse 2015, section 6.3.
    """
    a, g = (jnp.trace(x) / len(x) for x in factors)
    balanced = (a > 0.0) & (g > 0.0)
    pi = jnp.where(balanced, jnp.sqrt(jnp.where(balanced, a, 1.0)) / jnp.sqrt(jnp.where(balanced, g, 1.0)), 1.0)
    root = jnp.sqrt(jnp.asarray(damping, factors.inputs.dtype))
    return Factors(_inverse(factors.inputs, pi * root), _inverse(factors.outputs, root / pi))


@jax.custom_batching.sequential_vmap
def _inverse(matrix: Array, damping: Array) -> Array:
    """Return the inverse of a symmetric positive definite matrix with ``damping`` added to its diagonal.

    Mapped over seeds it takes one matrix after the other: XLA's processor backend comes to a standstill over several
    triangular solves of stacked matrices at once.
    """
    identity = jnp.eye(len(matrix), dtype=matrix.dtype)
    return jax.scipy.linalg.cho_solve((jnp.linalg.cholesky(matrix + damping * identity), True), identity)


def solve(inverse: Factors, gradient: Parameters) -> Parameters:
    """Return the layer :math:`A^{-1} V G^{-1}` of a layer ``V``, given the inverses."""
    return layer_of(inverse.inputs @ matrix(gradient) @ inverse.outputs, gradient)


def diagonal(product: Callable[[Array], Array], signs: Array) -> Array:
    r"""Return an estimate of the diagonal of a symmetric matrix, :math:`z \odot F z`, with random signs ``z`` ``[d]``.

    It is without bias, and exact for a diagonal matrix.

    Source: Bekas, Kokiopoulou and Saad 2007, *An estimator for the diagonal of a matrix*.
    """
    return signs * product(signs)
