"""What of a rollout is no experience: values that are no numbers, and states in which no action is allowed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jumar.algorithms.update import Update
from jumar.errors import EnvironmentFault
from jumar.trajectory import Trajectory


class Faults(NamedTuple):
    """The first thing in each row that is no number, ``[T, N]`` each: 0 where all is well, else NaN or infinite."""

    observations: Array
    rewards: Array
    costs: Array
    masks: Array


class CostWatch:
    """What becomes of costs that are no finite numbers.

    Methods that use costs, and runs with a cost of the user's choice (``required``), refuse them. For any other run
    ``info["cost"]`` may mean something else: they count as no cost, and ``warn`` hears of it once.
    """

    def __init__(self, update: Update, required: bool = False, warn: Callable[[str], None] | None = None) -> None:
        self.strict = update.needs_cost or required
        self._warn = warn

    def complain(self, sentence: str) -> None:
        """Refuse a bad cost, or say so once.

        Raises:
            EnvironmentFault: costs are needed.
        """
        if self.strict:
            raise EnvironmentFault(sentence)
        if self._warn is not None:
            self._warn(f"{sentence} It is taken for no cost, as no costs are needed here.")
            self._warn = None

    def without(self, faults: Faults, name: str, rows: int) -> Faults:
        """Return the faults of a rollout without those of costs, if they are forgiven."""
        if self.strict or not np.any(faults.costs != 0.0):
            return faults
        none: Any = np.zeros_like(faults.costs)
        costs = first_fault(Faults(none, none, faults.costs, none), name, rows)
        self.complain(f"{costs}.")
        return faults._replace(costs=none)


def check_faults(faults: Faults, name: str, rows: int) -> None:
    """Raise an ``EnvironmentFault`` for the first fault in time; ``rows`` steps were taken before these.

    For several seeds the arrays have a leading axis, and the environment's index counts within its seed.
    """
    found = first_fault(faults, name, rows)
    if found is not None:
        raise EnvironmentFault(f"{found}; nothing was learnt from it.")


def first_fault(faults: Faults, name: str, rows: int) -> str | None:
    """Say what the first fault in time is; ``None`` where all is well. See :func:`check_faults`."""
    found = [
        (int(place[-2]), int(place[-1]), what, marks[tuple(place)])
        for what, marks in zip(("an observation", "a reward", "a cost", ""), faults, strict=True)
        for place in np.argwhere(marks != 0.0)
    ]
    if not found:
        return None
    step, index, what, value = min(found, key=lambda fault: fault[:2])
    words = f"returned {what} that is {value}" if what else "allowed no action"
    return f"environment {index} of {name} {words} at step {rows + step + 1}"


def faults_of(update: Update, trajectory: Trajectory) -> Faults:
    """Mark the rows in which something is not finite."""

    def offence(x: Array) -> Array:
        flat = x.reshape(*trajectory.rewards.shape, -1)
        return jnp.sum(jnp.where(jnp.isfinite(flat), 0.0, flat).astype(jnp.float32), axis=-1)

    leaves = jax.tree.leaves((trajectory.observations, trajectory.successors))
    floats = [x for x in leaves if jnp.issubdtype(x.dtype, jnp.floating)]
    zeros = jnp.zeros(trajectory.rewards.shape, jnp.float32)
    mask = update.policy.encoder.mask(trajectory.observations, trajectory.action_masks)
    stuck = zeros if mask is None else 1.0 - update.policy.actions.leaves_a_choice(mask, jnp).astype(jnp.float32)
    none_allowed = stuck * trajectory.weights  # no action is taken in a row that is no experience
    costs = zeros if trajectory.costs is None else jnp.where(trajectory.valid, offence(trajectory.costs), 0.0)
    return Faults(sum((offence(x) for x in floats), zeros), offence(trajectory.rewards), costs, none_allowed)
