"""Iterated ascent: an update of the parameters, again and again, until nothing changes any more.

Source: Kochenderfer, Wheeler and Wray, *Algorithms for Decision Making*, section 12.1.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jumar.errors import UsageError
from jumar.lab.precision import in_double


class Update(Protocol):
    """An update of the parameters."""

    def update(self, theta: Array, key: Array, remaining: float | Array = 1.0) -> Any:
        """Return what the update did, with the new parameters as its ``theta``.

        Args:
            theta: the parameters ``[d]``.
            key: for what is drawn.
            remaining: the share of the ascent that is left, for schedules.
        """
        ...


class Path(NamedTuple):
    """Where updates led."""

    thetas: np.ndarray
    """The parameters before the first update and after each, ``[steps + 1, d]``."""
    utilities: np.ndarray | None
    """U of them, ``[steps + 1]``, where it was asked for."""
    converged: bool
    """Whether it ended because nothing changed any more, not because all updates were made."""

    @property
    def steps(self) -> int:
        """How many updates were made."""
        return len(self.thetas) - 1


def ascend(
    update: Update,
    theta: np.ndarray | Array,
    key: Array,
    n: int,
    tolerance: float = 0.0,
    utility: Callable[[Array], Array] | None = None,
    utility_tolerance: float = 0.0,
) -> Path:
    r"""Make ``n`` updates, or fewer, until the parameters or the utility have converged: the loop of section 12.1.

    It ends early after an update that changes every parameter by less than ``tolerance``, or U by less than
    ``utility_tolerance``. With 0 for both, it never does. An update that a line search rejects changes nothing, so a tolerance
    ends the ascent there; with sampled gradients that may be too early.

    A step factor that decays goes from its first value to its last one over the ``n`` updates. The loop is one compiled program
    for each update, ``n`` and ``utility``.

    Args:
        update: one of :mod:`jumar.lab.textbook`, or another object with such a method; it must be hashable.
        theta: the first parameters ``[d]``.
        key: each update has a key made of it and of its number.
        n: how many updates to make at most.
        tolerance: on the parameters.
        utility: U, a function of the parameters, such as ``lambda theta: regulator.performance(problem, theta)``.
        utility_tolerance: on U.

    Raises:
        UsageError: ``n`` is below 1, a tolerance is negative, or one on U is given without U.
    """
    if n < 1:
        raise UsageError(f"n={n} must be at least 1.")
    if tolerance < 0.0 or utility_tolerance < 0.0:
        raise UsageError(f"tolerances must be at least 0, and not {min(tolerance, utility_tolerance)}.")
    if utility is None and utility_tolerance > 0.0:
        raise UsageError("utility_tolerance needs utility, the function U of the parameters.")
    limits = np.array([tolerance, utility_tolerance])
    steps, converged, thetas, utilities = in_double(partial(_ascend, update, n, utility))(
        np.asarray(theta), key, limits
    )
    made = int(steps) + 1
    return Path(np.asarray(thetas)[:made], None if utility is None else np.asarray(utilities)[:made], bool(converged))


@partial(jax.jit, static_argnums=(0, 1, 2))
def _ascend(
    update: Update, n: int, utility: Callable[[Array], Array] | None, theta: Array, key: Array, limits: Array
) -> tuple[Array, Array, Array, Array]:
    """Return the number of updates made, whether they converged, and ``n + 1`` parameters and utilities."""
    worth = (lambda theta: jnp.zeros((), theta.dtype)) if utility is None else utility
    first = worth(theta)
    thetas = jnp.zeros((n + 1, theta.size), theta.dtype).at[0].set(theta)
    utilities = jnp.zeros((n + 1,), first.dtype).at[0].set(first)

    def unfinished(state: tuple[Array, Array, Array, Array]) -> Array:
        steps, converged, _, _ = state
        return ~converged & (steps < n)

    def once(state: tuple[Array, Array, Array, Array]) -> tuple[Array, Array, Array, Array]:
        steps, _, thetas, utilities = state
        old = thetas[steps]
        remaining = 1.0 - steps.astype(theta.dtype) / n
        new = update.update(old, jax.random.fold_in(key, steps), remaining).theta
        gained = worth(new)
        still = jnp.max(jnp.abs(new - old)) < limits[0]
        level = jnp.abs(gained - utilities[steps]) < limits[1]
        return steps + 1, still | level, thetas.at[steps + 1].set(new), utilities.at[steps + 1].set(gained)

    start = (jnp.zeros((), jnp.int32), jnp.zeros((), bool), thetas, utilities)
    return jax.lax.while_loop(unfinished, once, start)
