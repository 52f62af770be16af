"""Small processes whose numbers are written out, for examples whose own data are not printed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax.numpy as jnp
import numpy as np

from jumar.lab.arguments import ArrayLike
from jumar.lab.families import softmax
from jumar.lab.precision import in_double
from jumar.lab.tabular import TabularMDP
from jumar.policies.distributions import Categorical

EPISODE = TabularMDP.of(
    transitions=[
        [[0.8, 0.2, 0.0], [0.1, 0.6, 0.3]],
        [[0.5, 0.5, 0.0], [0.0, 0.3, 0.7]],
        [[0.2, 0.3, 0.5], [0.6, 0.0, 0.4]],
    ],
    rewards=[[0.0, -1.0], [1.0, 0.0], [-2.0, 3.0]],
    initial=[0.7, 0.3, 0.0],
    gamma=0.8,
    horizon=4,
)
"""Three states, two actions, four steps."""

ENDLESS = replace(EPISODE, horizon=None)
"""The same without an end."""

OLD = np.array([0.5, 0.0, 0.0, 0.5, 0.2, -0.2])
"""The parameters of a tabular softmax policy in it, [S A]."""

NEW = np.array([0.0, 0.6, 0.8, 0.0, -0.5, 0.3])
"""Those of another one, rather far from it."""

PATIENCE = TabularMDP.of(
    transitions=[[[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [0.0, 1.0]]],
    rewards=[[1.0, 0.0], [3.0, 2.0]],
    initial=[1.0, 0.0],
    gamma=0.8,
    horizon=3,
)
"""Two states, three steps: the action of state 0 that pays nothing leads to where every action pays more."""

EVEN = np.zeros(4)
"""Parameters of a tabular softmax policy in it that takes each action half of the time."""


@in_double
def policy(flat: ArrayLike) -> Categorical:
    """Return the tabular softmax policy of three states; parameters ``[6]``."""
    return softmax(EPISODE)(jnp.asarray(flat))


def tables(mdp: TabularMDP) -> dict[str, Any]:
    """Return the numbers of a process by their names."""
    data = {f"P(s' | s={s}, a)": mdp.transitions[s] for s in range(mdp.n_states)}
    data |= {"r(s, a)": mdp.rewards, "P(s_0)": mdp.initial, "gamma": mdp.gamma}
    return data if mdp.horizon is None else data | {"steps": mdp.horizon}


def softmax_data(**flat: ArrayLike) -> dict[str, Any]:
    """Return parameters of tabular softmax policies as tables [S, A], by what they are called."""
    return {name: by_action(parameters) for name, parameters in flat.items()}


def by_action(flat: ArrayLike) -> np.ndarray:
    """Return flat parameters, or a gradient in them, as a table [S, A] of two actions."""
    return np.asarray(flat).reshape(-1, 2)


POLICIES = {"policies": "softmax of theta[s, a]", **softmax_data(**{"theta, old": OLD, "theta, new": NEW})}
"""The two policies as data."""
