"""The geometry of Kronecker factors: natural directions that cost little more than a gradient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.flatten_util import ravel_pytree

from jumar.networks.taps import Factors
from jumar.solvers.fisher import fisher_form, fisher_product
from jumar.solvers.kronecker_factors import Division, damped_inverse, diagonal, measured_factors, no_factors, solve
from jumar.solvers.natural import Direction, Unravel
from jumar.solvers.problem import Parameters, Problem
from jumar.trajectory import Batch


class Curvature(NamedTuple):
    """What is remembered of the curvature from one update to the next."""

    factors: list[Factors]
    """The running mean of the factors of each affine layer."""
    diagonal: Array
    """The running mean of the diagonal of all other parameters' Fisher matrix, flat."""
    inverses: list[Factors]
    """Of the damped factors, as they were when they were last renewed."""
    updates: Array
    """How many updates have been averaged, int32."""


@dataclass(frozen=True)
class Kronecker:
    r"""The mean divergence of the action distributions, its curvature Kronecker-factored.

    For every affine layer the direction is

    .. math::
        (A + \pi \sqrt\lambda I)^{-1} \, \nabla W \, (G + \tfrac{\sqrt\lambda}{\pi} I)^{-1}

    with the factors and the :math:`\pi` of :func:`jumar.solvers.kronecker_factors.damped_inverse`. The factors are
    measured with actions drawn from the policy itself, so that the matrix is the Fisher matrix and not that of the
    actions that were taken. They are averaged over updates,

    .. math::
        A \leftarrow \epsilon A + (1 - \epsilon) A_{new}, \qquad \epsilon = \min(1 - 1/k, \text{decay})

    in the ``k``-th update, the plain mean at first. All other parameters have the diagonal of the exact Fisher matrix
    (:func:`jumar.solvers.kronecker_factors.diagonal`): for the free deviations of a Gaussian that is the whole of their block.

    An update whose measurement is no number, or of no row, changes nothing of what is remembered.

    Sources: Martens and Grosse 2015, sections 5, 6.3 and 8; Wu et al. 2017.
    """

    damping: float
    r"""The :math:`\lambda`, above 0."""
    decay: float = 0.99
    """The most weight that the past has in the running means, in [0, 1)."""
    renew: int = 1
    """The inverses are computed anew every so many updates."""
    every: int = 1
    """Only every so many-th row has a part in the factors, and in the length of the step."""

    def init(self, parameters: Parameters) -> Curvature:
        """Return factors of zeros: with these, the direction is the gradient, divided by the damping."""
        layers, rest = Division.of(parameters).divide(parameters)
        factors = [no_factors(layer) for layer in layers]
        inverses = jax.tree.map(lambda x: jnp.eye(len(x), dtype=x.dtype) / self.damping**0.5, factors)
        return Curvature(factors, jnp.zeros_like(ravel_pytree(rest)[0]), inverses, jnp.zeros((), jnp.int32))

    def direction(
        self, problem: Problem, flat: Array, unravel: Unravel, batch: Batch, gradient: Array, state: Any, key: Array
    ) -> Direction:
        """Measure the curvature, and solve for the natural gradient."""
        some = jax.tree.map(lambda x: x[:: self.every], batch)
        parameters = unravel(flat)
        division = Division.of(parameters)
        state = self._renewed(self._averaged(state, self._measured(problem, parameters, some, key), some.weights))

        layers, rest = division.divide(unravel(gradient))
        solved = [solve(inverse, layer) for inverse, layer in zip(state.inverses, layers, strict=True)]
        free, unravel_rest = ravel_pytree(rest)
        damped = jnp.maximum(state.diagonal, 0.0) + self.damping
        x, _ = ravel_pytree(division.join(solved, unravel_rest(free / damped)))

        bend = fisher_form(lambda flat: problem.distribution(unravel(flat), some), flat, x, some.weights)
        return Direction(x, bend, gradient @ x, {}, state)

    def _measured(
        self, problem: Problem, parameters: Parameters, batch: Batch, key: Array
    ) -> tuple[list[Factors], Array]:
        """Return the factors of the layers, and the diagonal of the rest, on one batch."""
        draw, toss = jax.random.split(key)
        division = Division.of(parameters)
        layers, rest = division.divide(parameters)

        def log_likelihood(parameters: Parameters) -> Array:
            at = problem.distribution(parameters, batch)
            return jnp.sum(jnp.sqrt(batch.weights) * at.log_prob(jax.lax.stop_gradient(at.sample(draw))))

        factors = measured_factors(log_likelihood, parameters, batch.weights)
        free, unravel_rest = ravel_pytree(rest)
        if not free.size:
            return factors, free
        product = fisher_product(
            lambda free: problem.distribution(division.join(layers, unravel_rest(free)), batch), free, batch.weights
        )
        return factors, diagonal(product, jax.random.rademacher(toss, free.shape, free.dtype))

    def _averaged(self, state: Curvature, measured: tuple[list[Factors], Array], weights: Array) -> Curvature:
        """Return the state with a measurement taken into its means, where that is sound."""
        sound = jnp.all(jnp.stack([jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(measured)]))
        sound = sound & (jnp.sum(weights) > 0.0)
        updates = state.updates + sound.astype(jnp.int32)
        past = jnp.minimum(1.0 - 1.0 / jnp.maximum(updates, 1), self.decay)

        def mean(old: Array, new: Array) -> Array:
            return jnp.where(sound, past.astype(old.dtype) * old + (1.0 - past).astype(old.dtype) * new, old)

        factors, rest = jax.tree.map(mean, (state.factors, state.diagonal), measured)
        return state._replace(factors=factors, diagonal=rest, updates=updates)

    def _renewed(self, state: Curvature) -> Curvature:
        """Return the state with its inverses computed anew, where it is time and they exist."""

        def renewed() -> list[Factors]:
            fresh = [damped_inverse(factors, self.damping) for factors in state.factors]
            return jax.tree.map(lambda old, new: jnp.where(jnp.all(jnp.isfinite(new)), new, old), state.inverses, fresh)

        due = (state.updates - 1) % self.renew == 0
        return state._replace(inverses=jax.lax.cond(due, renewed, lambda: state.inverses))
