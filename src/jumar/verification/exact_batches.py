"""Solvers on exact batches: every state and action of a random process, weighted by how often the policy visits them."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from jumar.lab import tabular
from jumar.lab.families import Family, neural_softmax
from jumar.lab.tabular import TabularMDP
from jumar.policies.distributions import Categorical
from jumar.solvers.objectives import surrogate
from jumar.solvers.problem import Problem
from jumar.trajectory import Batch, weighted_mean

STATES, ACTIONS, GAMMA, WIDTH, FEATURES = 4, 3, 0.8, 4, 5
SIZE = WIDTH * (FEATURES + 2)
"""How many parameters the policy has."""


def process() -> TabularMDP:
    """Return a process of random tables, without an end."""
    draw = np.random.default_rng(4)
    transitions = draw.dirichlet(np.ones(STATES), (STATES, ACTIONS))
    return TabularMDP.of(transitions, draw.normal(size=(STATES, ACTIONS)), np.full(STATES, 1.0 / STATES), GAMMA)


def family() -> Family:
    """Return the policies: softmax of a network with a hidden layer, of random features."""
    return neural_softmax(np.random.default_rng(5).normal(size=(STATES, ACTIONS, FEATURES)), WIDTH)


def parameters() -> np.ndarray:
    """Return where policies begin, ``[d]``."""
    return np.random.default_rng(6).normal(scale=0.5, size=SIZE)


class Exact(NamedTuple):
    """What a solver is given."""

    problem: Problem
    batch: Batch
    """A row for each state and action, its weight the probability of both."""
    states: Array
    """The normalised discounted visits, ``[S]``."""


def exact_problem(mdp: TabularMDP, flat: Array) -> Exact:
    """Return the problem of a policy's parameters with exact advantages; its objective is the surrogate per step."""
    policies = family()
    policy = policies(flat)
    states = tabular.state_distribution(mdp, policy)
    index = jnp.repeat(jnp.arange(STATES), ACTIONS)
    actions = jnp.tile(jnp.arange(ACTIONS), STATES)
    advantages = tabular.advantages(mdp, policy)
    zeros = jnp.zeros(STATES * ACTIONS)
    batch = Batch(
        features=index,
        actions=actions,
        log_probs=policy.log_probs.reshape(-1),
        advantages=jnp.asarray(advantages).reshape(-1),
        returns=zeros,
        values=zeros,
        weights=(jnp.asarray(states)[:, None] * policy.probs).reshape(-1),
        action_masks=None,
        episode_start=jnp.zeros(STATES * ACTIONS, bool),
        carry=(),
        critic_carry=(),
    )

    def distribution(parameters: Array, rows: Batch) -> Categorical:
        return Categorical(policies(parameters).logits[rows.features])

    def gain(new: Any, rows: Batch) -> tuple[Array, dict[str, Array]]:
        return weighted_mean(surrogate(new.log_prob(rows.actions), rows.log_probs, rows.advantages), rows.weights), {}

    def no_loss(parameters: Any, rows: Batch) -> tuple[Array, dict[str, Array]]:
        return jnp.zeros(()), {}

    return Exact(Problem(gain, no_loss, distribution, lambda _: batch), batch, jnp.asarray(states))


def unravel(flat: Array) -> Array:
    """Return the parameters: they are a flat vector themselves."""
    return flat
