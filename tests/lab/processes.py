"""Random processes and policies, and programs that are compiled once for all tests of the lab."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax import Array

from jumar.lab.families import Family, linear_softmax, neural_softmax, softmax
from jumar.lab.tabular import TabularMDP, random_mdp
from jumar.policies.distributions import Categorical

STATES, ACTIONS, GAMMA, HORIZON = 4, 3, 0.8, 6
HORIZONS = {"endless": None, "six steps": HORIZON}


def process(horizon: int | None, seed: int = 0) -> TabularMDP:
    return random_mdp(jax.random.PRNGKey(seed), STATES, ACTIONS, GAMMA, horizon)


def tanh_network(flat: Array) -> Categorical:
    """A policy with a hidden layer of two units: not convex, not linear, and the same for every process."""
    first, second = flat[: 2 * STATES].reshape(STATES, 2), flat[2 * STATES :].reshape(2, ACTIONS)
    return Categorical(jnp.tanh(first) @ second)


def families(mdp: TabularMDP) -> dict[str, tuple[Family, int]]:
    """Each family and how many parameters it has."""
    features = jax.random.normal(jax.random.PRNGKey(11), (STATES, ACTIONS, 5))
    return {
        "softmax": (softmax(mdp), STATES * ACTIONS),
        "linear": (linear_softmax(features), 5),
        "neural": (neural_softmax(features, 3), 3 * (5 + 2)),
        "network": (tanh_network, 2 * STATES + 2 * ACTIONS),
    }


@functools.cache
def parameters(size: int, seed: int = 5) -> Array:
    return jax.random.normal(jax.random.PRNGKey(seed), (size,))


def random_policy(seed: int, scale: float = 1.0) -> Categorical:
    return Categorical(scale * jax.random.normal(jax.random.PRNGKey(seed), (STATES, ACTIONS)))
