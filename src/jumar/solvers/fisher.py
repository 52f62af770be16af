r"""Curvature: Fisher matrices, their products with vectors, and the linear systems that natural gradients solve.

The Fisher matrix of a policy at :math:`\theta` is the second derivative of the mean divergence
:math:`E_s[KL(\pi_\theta(\cdot|s) \| \pi_{\theta'}(\cdot|s))]` in :math:`\theta'`, at :math:`\theta' = \theta`. It comes
in three forms here, all of flat parameter vectors ``[d]``:

- exact in the actions, from the distributions at the rows of a batch: :math:`E_s[J^T H J]`, with ``J`` the derivative of
  the distribution's own parameters and ``H`` their Fisher matrix in closed form (:func:`fisher_product`, and
  :func:`dense` for the matrix itself);
- sampled per step, :math:`E[s_t s_t^T]` of scores :math:`s_t = \nabla \log \pi(a_t|s_t)` (:func:`step_fisher`,
  :func:`step_fisher_product`);
- sampled per trajectory, :math:`E[(\sum_t s_t)(\sum_t s_t)^T]` (:func:`trajectory_fisher`,
  :func:`trajectory_fisher_product`): the Fisher matrix of the distribution of whole trajectories, some ``T`` times as large as
  the mean over steps.

Sources: Amari 1998, *Natural Gradient Works Efficiently in Learning*; Kakade 2001, *A Natural Policy Gradient*;
Martens and Sutskever 2012 (products by linearising, conjugate gradient with damping).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jumar.policies.distributions import Distribution
from jumar.trajectory import sum_of_weights

Product = Callable[[Array], Array]
"""The product of a fixed symmetric matrix ``[d, d]`` with a vector ``[d]``."""


def fisher_product(
    distribution: Callable[[Array], Distribution],
    flat: Array,
    weights: Array,
    backward: Callable[[Array], Distribution] | None = None,
) -> Product:
    r"""Return :math:`v \mapsto F v` with :math:`F = \sum_i w_i J_i^T H_i J_i / \sum_i w_i`.

    The distributions are linearised once, here; each product costs one evaluation of their derivative forward and one
    backward: four matrix products a layer, where a gradient of an objective takes three and the activations.

    Args:
        distribution: of flat parameters ``[d]``; the action distributions at all rows.
        flat: the parameters to linearise at.
        weights: of the rows, the shape of a log-probability; where all are 0, so is F.
        backward: the same distributions, in a form whose derivative backward is cheaper (:mod:`jumar.networks.transposed`).
    """
    at, push = jax.linearize(distribution, flat)
    pull = jax.linear_transpose(push, flat) if backward is None else jax.vjp(backward, flat)[1]
    shares = weights / sum_of_weights(weights)

    def product(vector: Array) -> Array:
        curved = at.fisher_product(push(vector))
        (result,) = pull(
            jax.tree.map(lambda x: x * shares.reshape(shares.shape + (1,) * (x.ndim - shares.ndim)), curved)
        )
        return result

    return product


def fisher_form(distribution: Callable[[Array], Distribution], flat: Array, vector: Array, weights: Array) -> Array:
    r"""Return :math:`v^T F v \ge 0` of one vector, with the ``F`` of :func:`fisher_product`.

    It needs the derivative forward alone, half of what a product costs.
    """
    at, change = jax.jvp(distribution, (flat,), (vector,))
    shares = weights / sum_of_weights(weights)
    parts = jax.tree.map(lambda x, y: (x * y).reshape(*weights.shape, -1), change, at.fisher_product(change))
    return sum((jnp.sum(jnp.sum(x, -1) * shares) for x in jax.tree.leaves(parts)), jnp.zeros((), flat.dtype))


def step_fisher_product(log_prob: Callable[[Array], Array], flat: Array, weights: Array) -> Product:
    r"""Return :math:`v \mapsto F v` with the :func:`step_fisher` of the actions taken, without its matrix.

    .. math::
        F v = \frac{1}{\sum_i w_i} \sum_i w_i s_i (s_i^T v)

    Args:
        log_prob: of flat parameters ``[d]``; log pi of the actions of all rows, linearised once, here.
        flat: the parameters.
        weights: of the rows, the shape of a log-probability; where all are 0, so is F.
    """
    _, push = jax.linearize(log_prob, flat)
    pull = jax.linear_transpose(push, flat)
    shares = weights / sum_of_weights(weights)
    return lambda vector: pull(shares * push(vector))[0]


def trajectory_fisher_product(
    log_prob: Callable[[Array], Array], flat: Array, weights: Array, trajectory: Array, most: int
) -> Product:
    r"""Return :math:`v \mapsto F v` with the :func:`trajectory_fisher` of the trajectories taken, without its matrix.

    .. math::
        F v = \frac1M \sum_m S_m (S_m^T v), \qquad S_m = \sum_{i \in m} w_i s_i

    Args:
        log_prob: of flat parameters ``[d]``; log pi of the actions of all rows ``[...]``, linearised once, here.
        flat: the parameters.
        weights: of the rows ``[...]``.
        trajectory: which trajectory each row belongs to, ``[...]`` int32 below ``most``; M counts those that weigh anything.
        most: how many trajectories there can be.
    """
    _, push = jax.linearize(log_prob, flat)
    pull = jax.linear_transpose(push, flat)
    index = trajectory.reshape(-1)

    def sums(rows: Array) -> Array:
        return jax.ops.segment_sum(rows.reshape(-1), index, most)

    count = jnp.sum(sums(weights) > 0.0)

    def product(vector: Array) -> Array:
        along = sums(weights * push(vector)) / jnp.maximum(count, 1)
        return pull(weights * along[index].reshape(weights.shape))[0]

    return product


def damped(product: Product, damping: float | Array) -> Product:
    r"""Return :math:`v \mapsto F v + \lambda v`."""
    return lambda vector: product(vector) + damping * vector


def dense(product: Product, flat: Array) -> Array:
    """Return the matrix ``[d, d]`` of a product, for small ``d``: one product for each column."""
    return jax.vmap(product)(jnp.eye(flat.size, dtype=flat.dtype))


def scores(log_prob: Callable[[Array], Array], flat: Array) -> Array:
    r"""Return :math:`\nabla \log \pi` of every row, ``[..., d]``; ``log_prob`` gives ``[...]``. For small ``d``."""
    return jax.jacfwd(log_prob)(flat)


def step_fisher(scores: Array, weights: Array) -> Array:
    r"""Return :math:`\sum_i w_i s_i s_i^T / \sum_i w_i`, ``[d, d]``, of scores ``[..., d]`` and weights ``[...]``.

    The mean over steps of the outer product of scores: an unbiased estimate of the Fisher matrix of one decision.
    """
    rows, shares = scores.reshape(-1, scores.shape[-1]), weights.reshape(-1) / sum_of_weights(weights)
    return (rows * shares[:, None]).T @ rows


def trajectory_fisher(scores: Array, weights: Array) -> Array:
    r"""Return the mean over trajectories of :math:`(\sum_t w_t s_t)(\sum_t w_t s_t)^T`, ``[d, d]``.

    Args:
        scores: ``[N, T, d]``.
        weights: ``[N, T]``: 0 where a trajectory has ended before, else 1.

    Source: Kochenderfer, Wheeler and Wray, *Algorithms for Decision Making*, equation 12.9.
    """
    whole = jnp.einsum("ntd,nt->nd", scores, weights)
    return whole.T @ whole / whole.shape[0]


MOST_RESIDUALS = 100
"""How many residuals conjugate gradients keep to stay orthogonal to: a bound on their memory."""


class Solution(NamedTuple):
    """What the conjugate gradient method found for ``A x = b``."""

    x: Array
    residual: Array
    r""":math:`\|b - A x\| / \|b\|`; 0 where b is 0."""
    iterations: Array
    """How many products were taken, int32."""
    blocked: Array
    """True where it stopped at a direction without positive curvature: there ``A`` is not positive definite."""


def conjugate_gradient(product: Product, b: Array, iterations: int, tolerance: float = 1e-10) -> Solution:
    r"""Solve ``A x = b`` for a symmetric positive definite ``A``, from ``x = 0``.

    .. math::
        \alpha = \frac{r^T r}{p^T A p}, \quad x \leftarrow x + \alpha p, \quad
        r \leftarrow (I - Q Q^T)(r - \alpha A p), \quad p \leftarrow r + \frac{r_{new}^T r_{new}}{r^T r} p

    The columns of ``Q`` are the residuals so far (the last :data:`MOST_RESIDUALS`), normalised. Without rounding errors every
    residual is orthogonal to all before it and the projection does nothing; with those of float32 the orthogonality is soon
    lost, and with it iterations: without ``Q``, fifteen on the Fisher matrix of a locomotion policy gained 91 to 95 % of the
    :math:`b^T x` that they gain with it.

    It ends after ``iterations``, when :math:`\|r\| \le tolerance \, \|b\|`, or at a direction with
    :math:`p^T A p \le 0` (or none that is a number), which is not taken: ``x`` is then what was found before, 0 at worst.
    Every ``x`` on the way has :math:`b^T x \ge 0`, so a step along it never goes down.

    Args:
        product: :math:`v \mapsto A v`.
        b: the right-hand side ``[d]``.
        iterations: the most products to take; as many vectors ``[d]`` are kept, up to :data:`MOST_RESIDUALS`.
        tolerance: on the residual, relative to b.

    Source: Hestenes and Stiefel 1952; Nocedal and Wright 2006, *Numerical Optimization*, algorithm 5.2; for the loss of
    orthogonality and its remedy Golub and Van Loan 2013, *Matrix Computations*, section 10.3.
    """
    kept = max(1, min(iterations, MOST_RESIDUALS))
    size = b @ b
    goal = jnp.square(jnp.asarray(tolerance, b.dtype)) * size

    def unfinished(state: tuple[Array, ...]) -> Array:
        _, _, _, _, remaining, count, blocked = state
        return (count < iterations) & (remaining > goal) & ~blocked

    def step(state: tuple[Array, ...]) -> tuple[Array, ...]:
        x, r, p, earlier, remaining, count, _ = state
        image = product(p)
        bend = p @ image
        ahead = bend > 0.0  # False for NaN
        length = jnp.where(ahead, remaining / jnp.where(ahead, bend, 1.0), 0.0)
        earlier = earlier.at[count % kept].set(r / jnp.sqrt(remaining))
        r_new = r - length * image
        r_new = r_new - earlier.T @ (earlier @ r_new)
        x, r_new = jnp.where(ahead, x + length * p, x), jnp.where(ahead, r_new, r)
        left = r_new @ r_new
        p = r_new + left / remaining * p
        return x, r_new, p, earlier, left, count + 1, ~ahead

    earlier = jnp.zeros((kept, b.size), b.dtype)
    start = (jnp.zeros_like(b), b, b, earlier, size, jnp.zeros((), jnp.int32), jnp.zeros((), bool))
    x, r, _, _, _, count, blocked = jax.lax.while_loop(unfinished, step, start)
    residual = jnp.where(size > 0.0, jnp.linalg.norm(r) / jnp.sqrt(jnp.where(size > 0.0, size, 1.0)), 0.0)
    return Solution(x, residual, count, blocked)


def boundary_length(bend: Array, delta: float | Array) -> Array:
    r"""Return :math:`\sqrt{2 \delta / x^T F x}`: how often a direction ``x`` fits into :math:`\frac12 d^T F d \le \delta`.

    ``bend`` is :math:`x^T F x`: with the Fisher matrix *undamped*, however ``x`` was found, so that the divergence of
    the step is ``delta`` to second order. With :math:`F = I` it is the length of the restricted gradient, whose ball has
    the radius :math:`\sqrt{2 \delta}`. Where ``bend`` is not positive, the length is 0: there is nothing to go along.

    Source: Kochenderfer, Wheeler and Wray, *Algorithms for Decision Making*, equations 12.6 and 12.12.
    """
    ahead = bend > 0.0
    return jnp.where(ahead, jnp.sqrt(2.0 * delta / jnp.where(ahead, bend, 1.0)), 0.0)
