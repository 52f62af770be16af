r"""Steps of the policy alone: a direction, and how far to go along it.

A :class:`Geometry` says what distance is, and so which way is up: with the curvature ``F`` of the distance at the old
parameters, the direction is :math:`x = F^{-1} g`. A :class:`Length` says how often to take it. Their product is one
:class:`Step`; a line search may shorten it (:mod:`jumar.solvers.trust_region`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax import Array

from jumar.schedules import Schedule
from jumar.solvers.fisher import Product, Solution, boundary_length, conjugate_gradient, damped, dense, fisher_product
from jumar.solvers.problem import Diagnostics, Parameters, Problem
from jumar.trajectory import Batch

Unravel = Callable[[Array], Parameters]
"""From a flat vector to the policy's parameters."""


class Direction(NamedTuple):
    """Which way to go, in flat parameters."""

    x: Array
    bend: Array
    """:math:`x^T F x`, with the curvature undamped."""
    slope: Array
    """:math:`g^T x`, how steep the objective is along it."""
    about: Diagnostics
    state: Any
    """The geometry's own state after it."""


class Geometry(Protocol):
    """A part that says what distance between policies is."""

    def init(self, parameters: Parameters) -> Any:
        """Return the geometry's own state for the policy's parameters: what it remembers of curvature."""
        ...

    def direction(
        self, problem: Problem, flat: Array, unravel: Unravel, batch: Batch, gradient: Array, state: Any, key: Array
    ) -> Direction:
        """Return the direction of steepest ascent at ``flat``, and the new state.

        Args:
            problem: has the distributions.
            flat: the policy's parameters.
            unravel: makes a pytree of them.
            batch: the whole batch.
            gradient: of the objective, flat.
            state: what ``init`` or the last ``direction`` returned.
            key: a random key.
        """
        ...


@dataclass(frozen=True)
class Euclidean:
    """The distance between parameters: the direction is the gradient."""

    def init(self, parameters: Parameters) -> Any:
        """Return nothing: the distance is always the same."""
        return ()

    def direction(
        self, problem: Problem, flat: Array, unravel: Unravel, batch: Batch, gradient: Array, state: Any, key: Array
    ) -> Direction:
        """Return the gradient itself."""
        size = gradient @ gradient
        return Direction(gradient, size, size, {}, ())


class LinearSolver(Protocol):
    """A way to solve ``F x = g`` for a symmetric ``F`` without negative curvature."""

    def solve(self, product: Product, gradient: Array) -> Solution:
        """Return the solution, of least norm where there are many."""
        ...


@dataclass(frozen=True)
class ConjugateGradient:
    """At most so many iterations of :func:`jumar.solvers.fisher.conjugate_gradient`."""

    iterations: int
    tolerance: float = 1e-10

    def solve(self, product: Product, gradient: Array) -> Solution:
        """Return what was found, with its residual."""
        return conjugate_gradient(product, gradient, self.iterations, self.tolerance)


@dataclass(frozen=True)
class Dense:
    r"""The pseudo-inverse of the whole matrix, for some hundreds of parameters at most.

    Eigenvalues below ``tolerance`` times the largest count as 0: a tabular softmax has one for every state, along which
    the policy does not change.
    """

    tolerance: float | None = None
    r"""``None``: what rounding errors may make of a 0, :math:`\min(10^{-6}, 10 \, d \, \epsilon)` with the precision's
    :math:`\epsilon`: 1e-6 in single precision, some 1e-13 in double."""

    def solve(self, product: Product, gradient: Array) -> Solution:
        """Return the solution of least norm."""
        values, vectors = _eigh(dense(product, gradient))
        rounding = min(1e-6, 10.0 * gradient.size * float(jnp.finfo(gradient.dtype).eps))
        tolerance = rounding if self.tolerance is None else self.tolerance
        counted = values > tolerance * jnp.max(jnp.abs(values))
        shares = jnp.where(counted, (vectors.T @ gradient) / jnp.where(counted, values, 1.0), 0.0)
        x = vectors @ shares
        size = jnp.linalg.norm(gradient)
        residual = jnp.where(size > 0.0, jnp.linalg.norm(product(x) - gradient) / jnp.where(size > 0.0, size, 1.0), 0.0)
        return Solution(x, residual, jnp.asarray(gradient.size, jnp.int32), ~jnp.any(counted) & (size > 0.0))


@jax.custom_batching.sequential_vmap
def _eigh(matrix: Array) -> tuple[Array, Array]:
    """Return eigenvalues and eigenvectors of a symmetric matrix.

    Mapped over seeds it takes one matrix after the other: XLA's processor backend comes to a standstill over many stacked
    ones.
    """
    values, vectors = jnp.linalg.eigh(matrix)
    return values, vectors


@dataclass(frozen=True)
class MeanKL:
    r"""The mean divergence of the action distributions: the natural gradient.

    ``F`` is the second derivative of the mean of :math:`KL(\pi_{old} \| \pi)` over the batch's rows, by the closed form of the
    distributions, and ``x`` solves :math:`(F + \lambda I) x = g`.
    """

    system: LinearSolver
    damping: float = 0.0
    r"""The :math:`\lambda` of the system."""
    every: int = 1
    """Only every so many-th row has a part in the system, which costs as much less."""

    def init(self, parameters: Parameters) -> Any:
        """Return nothing: the curvature is measured anew every time."""
        return ()

    def direction(
        self, problem: Problem, flat: Array, unravel: Unravel, batch: Batch, gradient: Array, state: Any, key: Array
    ) -> Direction:
        """Solve for the natural gradient."""
        some = jax.tree.map(lambda x: x[:: self.every], batch)
        product = fisher_product(
            lambda flat: problem.distribution(unravel(flat), some),
            flat,
            some.weights,
            lambda flat: problem.backward_form(unravel(flat), some),
        )
        return solved(self.system, product, self.damping, gradient)


def solved(system: LinearSolver, product: Product, damping: float, gradient: Array) -> Direction:
    r"""Return the solution of :math:`(F + \lambda I) x = g` as a direction; its bend is that of the undamped ``F``."""
    found = system.solve(damped(product, damping), gradient)
    about = {
        "cg_residual": found.residual,
        "cg_iterations": found.iterations.astype(jnp.float32),
        "cg_blocked": found.blocked.astype(jnp.float32),
    }
    return Direction(found.x, found.x @ product(found.x), gradient @ found.x, about, ())


class Length(Protocol):
    """A part that says how often a direction is taken, given the share of training that is left."""

    def __call__(self, direction: Direction, remaining: Array) -> Array:
        """Return the factor."""
        ...


@dataclass(frozen=True)
class Rate:
    """A fixed rate, whatever the direction's size."""

    rate: Schedule

    def __call__(self, direction: Direction, remaining: Array) -> Array:
        """Return the rate."""
        return jnp.asarray(self.rate(remaining))


@dataclass(frozen=True)
class Boundary:
    r"""To the boundary of :math:`\frac12 d^T F d \le \delta`: :func:`jumar.solvers.fisher.boundary_length`."""

    delta: float

    def __call__(self, direction: Direction, remaining: Array) -> Array:
        """Return the factor; 0 where the direction has no curvature."""
        return boundary_length(direction.bend, self.delta)


@dataclass(frozen=True)
class Top:
    r"""To the top of the quadratic model :math:`g^T d - \frac12 d^T F d` along the direction: :math:`g^T x / x^T F x`.

    For an objective whose second derivative is :math:`-F`, a regression's say, it is the best length there is.
    """

    def __call__(self, direction: Direction, remaining: Array) -> Array:
        """Return the factor; 0 where the direction has no curvature."""
        ahead = direction.bend > 0.0
        return jnp.where(ahead, direction.slope / jnp.where(ahead, direction.bend, 1.0), 0.0)


@dataclass(frozen=True)
class Shorter:
    """The shorter of two lengths: a rate within a trust region, say."""

    first: Length
    second: Length

    def __call__(self, direction: Direction, remaining: Array) -> Array:
        """Return the smaller factor."""
        return jnp.minimum(self.first(direction, remaining), self.second(direction, remaining))


class PolicyMove(NamedTuple):
    """Where a step of the policy led."""

    flat: Array
    """The policy's parameters after it."""
    state: Any
    about: Diagnostics


class PolicySolver(Protocol):
    """A part that moves the policy's parameters alone, on one batch."""

    def init(self, parameters: Parameters) -> Any:
        """Return the solver's own state for the policy's parameters."""
        ...

    def move(
        self, problem: Problem, flat: Array, unravel: Unravel, batch: Batch, state: Any, remaining: Array, key: Array
    ) -> PolicyMove:
        """Return better parameters, flat, and scalars for the flight record.

        Args:
            problem: what to climb, and the distance.
            flat: the policy's parameters, those that the experience was collected with.
            unravel: makes a pytree of them.
            batch: the whole batch, prepared.
            state: what ``init`` or the last ``move`` returned.
            remaining: the share of training that is left, in [0, 1].
            key: a random key.
        """
        ...


@dataclass(frozen=True)
class Step:
    """One step along a geometry's direction, as far as a length says.

    A step that is no number, because a gradient is none, is not taken.
    """

    geometry: Geometry
    length: Length

    def init(self, parameters: Parameters) -> Any:
        """Return the geometry's state: a step has no memory of its own."""
        return self.geometry.init(parameters)

    def move(
        self, problem: Problem, flat: Array, unravel: Unravel, batch: Batch, state: Any, remaining: Array, key: Array
    ) -> PolicyMove:
        """Take the step."""
        gradient = jax.grad(lambda flat: problem.policy_objective(unravel(flat), batch)[0])(flat)
        direction = self.geometry.direction(problem, flat, unravel, batch, gradient, state, key)
        step = sound_step(self.length(direction, remaining) * direction.x, gradient)
        return PolicyMove(step.taken_from(flat), direction.state, {**step.record(gradient), **direction.about})


class SoundStep(NamedTuple):
    """A step that is all 0 where it, or a gradient that it was made from, is no number."""

    change: Array
    sound: Array

    def taken_from(self, flat: Array) -> Array:
        """Return the parameters after the step: to the last bit what they were where it is not sound."""
        return jnp.where(self.sound, flat + self.change, flat)

    def predicted(self, gradient: Array) -> Array:
        """Return by how much the step changes what has this gradient, to first order."""
        return jnp.where(self.sound, gradient @ self.change, 0.0)

    def record(self, gradient: Array) -> Diagnostics:
        """Return what the flight record says of every step; ``gradient`` is that of the objective."""
        return {
            "grad_norm": jnp.linalg.norm(gradient),
            "step_norm": jnp.linalg.norm(self.change),
            "unsound_step": 1.0 - self.sound.astype(jnp.float32),
            "predicted_improvement": self.predicted(gradient),
        }


def sound_step(change: Array, *gradients: Array) -> SoundStep:
    """Return a step made from gradients, or none where one of them is no number."""
    sound = jnp.all(jnp.stack([jnp.all(jnp.isfinite(x)) for x in (change, *gradients)]))
    return SoundStep(jnp.where(sound, change, 0.0), sound)
