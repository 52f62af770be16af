"""Gradient ascent: one step of an optimiser along the gradient of the objective on the whole batch."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.flatten_util import ravel_pytree

from jumar.schedules import Schedule
from jumar.solvers.problem import Climb, Diagnostics, Parameters
from jumar.trajectory import Batch

Tree = TypeVar("Tree")


def scale_gradient(gradient: Array, max_norm: float) -> Array:
    r"""Return :math:`\min(c / \|g\|, 1) \, g`: the gradient, scaled down to the norm ``max_norm`` where it is longer.

    Its direction stays. A zero gradient stays zero.

    Source: Kochenderfer, Wheeler and Wray, *Algorithms for Decision Making*, algorithm 12.2.
    """
    norm = jnp.linalg.norm(gradient)
    return jnp.where(norm > max_norm, gradient / jnp.maximum(norm, max_norm) * max_norm, gradient)


def clip_gradient(gradient: Array, max_value: float, min_value: float | None = None) -> Array:
    r"""Return :math:`clip(g_i, a, b)`: every entry of the gradient limited to ``b = max_value`` and ``a = min_value``.

    Without ``min_value`` it is ``-max_value``. The gradient's direction changes where an entry is limited. Source: as for
    :func:`scale_gradient`.
    """
    return jnp.clip(gradient, -max_value if min_value is None else min_value, max_value)


@dataclass(frozen=True)
class Optimiser:
    """How a gradient becomes a step: limit its entries and its norm, transform it, scale it by the learning rate.

    It works on one flat vector of all parameters, where an optimiser's few operations cost a fraction of the same operations
    on a dozen small arrays; or on any pytree, where large arrays make up most of it and would only be copied.
    """

    learning_rate: Schedule
    scaling: optax.GradientTransformation
    """An Optax transformation: ``optax.scale_by_adam(eps=1e-5)``, or ``optax.identity()`` for plain ascent."""
    max_grad_norm: float | None = None
    """The gradient is scaled down to this Euclidean norm of all its entries together; ``None``: never."""
    max_grad_value: float | None = None
    """Every entry of the gradient is limited to this, before its norm is; ``None``: never."""
    min_grad_value: float | None = None
    """The least value of an entry; ``None``: minus ``max_grad_value``."""

    @property
    def transformation(self) -> optax.GradientTransformation:
        """The steps before the learning rate, as one Optax transformation."""
        limits = []
        if self.max_grad_value is not None or self.min_grad_value is not None:
            most = math.inf if self.max_grad_value is None else self.max_grad_value
            limits.append(_limit(partial(clip_gradient, max_value=most, min_value=self.min_grad_value)))
        if self.max_grad_norm is not None:
            limits.append(_limit(partial(scale_gradient, max_norm=self.max_grad_norm)))
        return optax.chain(*limits, self.scaling) if limits else self.scaling

    def init(self, flat: Array) -> optax.OptState:
        """Return the state for a flat parameter vector, or a pytree."""
        return self.transformation.init(flat)

    def ascend(
        self, flat: Tree, gradient: Tree, state: optax.OptState, remaining: Array
    ) -> tuple[Tree, optax.OptState]:
        """Return ``flat`` a step up the ``gradient``, and the new state."""
        direction, state = self.transformation.update(gradient, state, flat)  # type: ignore[arg-type]
        rate = self.learning_rate(remaining)
        return jax.tree.map(lambda x, d: x + rate * jnp.asarray(d), flat, direction), state


def _limit(function: Callable[[Array], Array]) -> optax.GradientTransformation:
    """Return a limit on gradients, all entries of a pytree together, as an Optax transformation."""

    def limit(gradient: Any, _: Any) -> Any:
        flat, unravel = ravel_pytree(gradient)
        return unravel(function(flat))

    return optax.stateless(limit)


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
