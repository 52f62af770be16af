"""What of a rollout is no experience: values that are no numbers or not in their space, and states without an action."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jumar.algorithms.update import Update, all_finite
from jumar.errors import EnvironmentFault
from jumar.networks.layers import Torso
from jumar.networks.own import OwnNetwork
from jumar.policies.observations import Encoder, Leaf
from jumar.policies.policy import Policy
from jumar.trajectory import Trajectory

WITHIN = -(2**31)
"""Stands for a choice that its space has."""


class Faults(NamedTuple):
    """What is wrong in each row, ``[T, N]`` each: of what is no number 0 where all is well, else NaN or infinite."""

    observations: Array
    rewards: Array
    costs: Array
    masks: Array
    choices: Array | None = None
    """A choice or a bit in the observation that its space does not have, int32; :data:`WITHIN` where there is none.

    ``None`` where observations are numbers alone.
    """
    encodings: Array | None = None
    """What an encoder of the user's makes of a finite observation; ``None`` where there is no such encoder."""


_WORDS = {
    "encodings": (0.0, "returned an observation of which encoder {encoder} makes {}"),
    "observations": (0.0, "returned an observation that is {}"),
    "rewards": (0.0, "returned a reward that is {}"),
    "costs": (0.0, "returned a cost that is {}"),
    "masks": (0.0, "allowed no action"),
    "choices": (WITHIN, "returned an observation with {}, which is not in its space,"),
}
"""For each field of :class:`Faults` what stands where all is well, and what to say of anything else.

Of several in one row the first is the cause of the others.
"""


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


def check_faults(faults: Faults, name: str, rows: int, encoder: str | None = None) -> None:
    """Raise an ``EnvironmentFault`` for the first fault in time; ``rows`` steps were taken before these.

    ``encoder`` is the name of the user's, if there is one. For several seeds the arrays have a leading axis, and the
    environment's index counts within its seed.
    """
    found = first_fault(faults, name, rows, encoder)
    if found is not None:
        raise EnvironmentFault(f"{found}; nothing was learnt from it.")


def first_fault(faults: Faults, name: str, rows: int, encoder: str | None = None) -> str | None:
    """Say what the first fault in time is; ``None`` where all is well. See :func:`check_faults`."""
    found = [
        (int(place[-2]), int(place[-1]), words.format(marks[tuple(place)], encoder=encoder))
        for field, (sound, words) in _WORDS.items()
        if (marks := getattr(faults, field)) is not None
        for place in np.argwhere(marks != sound)
    ]
    if not found:
        return None
    step, index, words = min(found, key=lambda fault: fault[:2])
    return f"environment {index} of {name} {words} at step {rows + step + 1}"


def faults_of(update: Update, trajectory: Trajectory, before: Any, after: Any) -> Faults:
    """Mark the rows in which something is not finite, or not in its space.

    ``before`` and ``after`` are the learner whose policy acted, and what it learnt from these rows.
    """
    offence = functools.partial(_offence, trajectory.rewards.shape)
    zeros = jnp.zeros(trajectory.rewards.shape, jnp.float32)

    def in_floats(tree: Any) -> Array:
        floats = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.floating)]
        return sum((offence(x) for x in floats), zeros)

    seen, led_to = in_floats(trajectory.observations), in_floats(trajectory.successors)
    mask = update.policy.encoder.mask(trajectory.observations, trajectory.action_masks)
    stuck = zeros if mask is None else 1.0 - update.policy.actions.leaves_a_choice(mask, jnp).astype(jnp.float32)
    none_allowed = stuck * trajectory.weights  # no action is taken in a row that is no experience
    costs = zeros if trajectory.costs is None else jnp.where(trajectory.valid, offence(trajectory.costs), 0.0)
    choices = _choices_outside(update.policy.encoder, trajectory)
    encodings = _encodings(update, trajectory, before, after, (seen == 0.0) & trajectory.valid)
    return Faults(seen + led_to, offence(trajectory.rewards), costs, none_allowed, choices, encodings)


def _offence(rows: tuple[int, ...], x: Array) -> Array:
    """Return for each row 0 where all is finite, else something that is not."""
    flat = x.reshape(*rows, -1)
    return jnp.sum(jnp.where(jnp.isfinite(flat), 0.0, flat).astype(jnp.float32), axis=-1)


def _encodings(update: Update, trajectory: Trajectory, before: Any, after: Any, rows: Array) -> Array | None:
    """Return ``Faults.encodings`` of these rows. It is only computed where something came out that is not finite."""
    if own_network(update.policy) is None:
        return None
    sound = all_finite((after.parameters["policy"], trajectory))
    shape, observations = trajectory.rewards.shape, trajectory.observations
    return jax.lax.cond(
        sound,
        lambda: jnp.zeros(shape, jnp.float32),
        lambda: jnp.where(rows, encodings_of(update, before, observations), 0.0),
    )


def own_network(policy: Policy) -> OwnNetwork | None:
    """Return the user's network that encodes what a policy observes, if there is one."""
    return policy.torso.own if isinstance(policy.torso, Torso) else None


def encodings_of(update: Update, learner: Any, observations: Any) -> Array:
    """Return for each of the observations ``[T, N, ...]`` 0 where the user's encoder makes finite numbers of it, else one that
    is not. They are encoded a step at a time.
    """
    network, acting = own_network(update.policy), update.acting(learner, jnp.ones((), jnp.float32))
    assert network is not None

    def marks(step: Any) -> Array:
        features = update.policy.encoder.encode(step, acting.moments)
        outputs = network.apply(acting.parameters["torso"]["encoder"], features)
        return _offence(outputs.shape[:1], outputs)

    return jax.lax.map(marks, observations)


def _choices_outside(encoder: Encoder, trajectory: Trajectory) -> Array | None:
    """Return ``Faults.choices``."""

    def largest(leaf: Leaf, observations: Any) -> Array:
        values = jnp.where(leaf.outside(observations), jnp.asarray(leaf.pick(observations)).astype(jnp.int32), WITHIN)
        return jnp.max(values.reshape(*trajectory.rewards.shape, -1), axis=-1)

    seen = trajectory.observations, trajectory.successors
    found = [largest(leaf, observations) for leaf in encoder.leaves if leaf.counted for observations in seen]
    # Rows that are no experience may hold anything.
    return jnp.where(trajectory.valid, functools.reduce(jnp.maximum, found), WITHIN) if found else None
