"""Decisions that mean nothing: made of numbers that are not finite or not in their space, or where no action was allowed.

A compiled program cannot stop at one, so it marks it, and whoever called the program names it.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jumar.policies.policy import Decision, Policy


class Unsound(IntEnum):
    """What is wrong with a decision; the first that applies."""

    NOTHING = 0
    OBSERVATION = 1
    """The observation holds a number that is NaN or infinite, or a choice that its space does not have."""
    MASK = 2
    """The mask allows no action."""
    POLICY = 3
    """The policy computed something that is NaN or infinite."""


def unsound(policy: Policy, observation: Any, decision: Decision) -> Array:
    """Return what is wrong with each of N decisions, int8 ``[N]``, as numbers of :class:`Unsound`."""
    n = len(decision.actions)
    leaves = policy.encoder.acting_leaves
    seen = _not_finite([leaf.pick(observation) for leaf in leaves], n)
    for leaf in leaves:
        if leaf.counted:
            seen |= jnp.any(leaf.outside(observation).reshape(n, -1), axis=-1)
    # Actions that are choices are whole numbers, whatever they were chosen by.
    computed = decision.actions if policy.actions.kind == "box" else decision.outcomes
    stuck = False if decision.mask is None else ~policy.actions.leaves_a_choice(decision.mask, jnp)
    found = jnp.where(_not_finite(computed, n), Unsound.POLICY, Unsound.NOTHING)
    found = jnp.where(stuck, Unsound.MASK, found)
    return jnp.where(seen, Unsound.OBSERVATION, found).astype(jnp.int8)


def own_encoder_words(policy: Policy) -> str:
    """Return what to add to a sentence that says that the policy computed something that is not finite."""
    own = policy.encoder.own_name
    return "" if own is None else f"; its encoder {own} must return finite numbers for every observation"


def _not_finite(tree: Any, n: int) -> Array:
    """Return where one of the numbers of a tree of arrays ``[N, ...]`` is NaN or infinite, ``[N]`` boolean."""
    marks = jnp.zeros((n,), bool)
    for x in jax.tree.leaves(tree):
        if jnp.issubdtype(x.dtype, jnp.floating):
            marks |= ~jnp.all(jnp.isfinite(x.reshape(n, -1)), axis=-1)
    return marks
