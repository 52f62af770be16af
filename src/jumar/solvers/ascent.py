"""Gradient ascent: one step of an optimiser along the gradient of the objective on the whole batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.flatten_util import ravel_pytree

from jumar.problem import Climb, Diagnostics, Parameters
from jumar.schedules import Schedule
from jumar.trajectory import Batch


@dataclass(frozen=True)
class Optimiser:
    """How a gradient becomes a step: clip it by its global norm, transform it, scale it by the learning rate.

    It works on one flat vector of all parameters: an optimiser's few operations on a vector cost a fraction of the
    same operations on a dozen small arrays.
    """

    learning_rate: Schedule
    scaling: optax.GradientTransformation
    """An Optax transformation: ``optax.scale_by_adam(eps=1e-5)``, or ``optax.identity()`` for plain ascent."""
    max_grad_norm: float | None = None
    """The gradient is scaled down to this Euclidean norm of all its entries together; ``None``: never."""

    @property
    def transformation(self) -> optax.GradientTransformation:
        """The steps before the learning rate, as one Optax transformation."""
        if self.max_grad_norm is None:
            return self.scaling
        return optax.chain(optax.clip_by_global_norm(self.max_grad_norm), self.scaling)

    def init(self, flat: Array) -> optax.OptState:
        """Return the state for a flat parameter vector."""
        return self.transformation.init(flat)

    def ascend(
        self, flat: Array, gradient: Array, state: optax.OptState, remaining: Array
    ) -> tuple[Array, optax.OptState]:
        """Return ``flat`` a step up the ``gradient``, and the new state."""
        direction, state = self.transformation.update(gradient, state, flat)
        return flat + self.learning_rate(remaining) * jnp.asarray(direction), state


def flat_objective(
    climb: Climb, unravel: Callable[[Array], Parameters]
) -> Callable[[Array, Batch], tuple[tuple[Array, Diagnostics], Array]]:
    """Return (flat parameters, batch) -> ((objective, diagnostics), gradient)."""
    return jax.value_and_grad(lambda flat, batch: climb.objective(unravel(flat), batch), has_aux=True)


@dataclass(frozen=True)
class Ascent:
    """The plain solver: one step of the optimiser on the whole batch."""

    optimiser: Optimiser

    def init(self, parameters: Parameters) -> Any:
        """Return the optimiser's state."""
        return self.optimiser.init(ravel_pytree(parameters)[0])

    def climb(
        self, climb: Climb, parameters: Parameters, state: Any, remaining: Array, key: Array
    ) -> tuple[Parameters, Any, Diagnostics]:
        """Take the step."""
        flat, unravel = ravel_pytree(parameters)
        (_, diagnostics), gradient = flat_objective(climb, unravel)(flat, climb.prepare(climb.estimate(parameters)))
        flat, state = self.optimiser.ascend(flat, gradient, state, remaining)
        return unravel(flat), state, {**diagnostics, "grad_norm": jnp.linalg.norm(gradient)}
