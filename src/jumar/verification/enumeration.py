r"""All trajectories of a small process, each as often as it is likely: a plain mean over them is an expectation.

The probabilities of the process are halves, and those of the policy that acts are thirds. So every trajectory of
:data:`LENGTH` steps has a probability that is a whole multiple of :math:`1 / 432`, and 432 environments side by side, each
with a trajectory of its own, are the exact distribution of trajectories. Whole updates take them as they take any rollout.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np

from jumar.lab import gradients, tabular
from jumar.lab.families import softmax
from jumar.lab.precision import compiled_in_double
from jumar.lab.tabular import TabularMDP

STATES, ACTIONS, LENGTH, GAMMA = 3, 2, 3, 0.8

_TRANSITIONS = np.array(
    [
        [[0.5, 0.5, 0.0], [0.0, 0.5, 0.5]],
        [[0.0, 0.0, 1.0], [0.5, 0.0, 0.5]],
        [[0.5, 0.5, 0.0], [0.0, 1.0, 0.0]],
    ]
)
_REWARDS = np.array([[1.0, -0.5], [0.25, 2.0], [-1.0, 0.75]])
_INITIAL = np.array([0.5, 0.0, 0.5])
COSTS = np.array([[0.5, 0.0], [1.5, 0.25], [0.0, 1.0]])
"""What actions cost, ``[S, A]``."""
ACTED = np.array([[1.0, 2.0], [2.0, 1.0], [1.0, 2.0]]) / 3.0
"""The action probabilities of the policy that acts, ``[S, A]``."""
OTHER = np.array([[0.6, 0.4], [0.3, 0.7], [0.45, 0.55]])
"""Those of another policy, which learns from what was done by the first."""


def process(horizon: int | None = LENGTH, gamma: float = GAMMA, rewards: np.ndarray = _REWARDS) -> TabularMDP:
    """Return the process; it ends after :data:`LENGTH` steps, or never where ``horizon`` is ``None``."""
    return TabularMDP.of(_TRANSITIONS, rewards, _INITIAL, gamma, horizon)


class Everything(NamedTuple):
    """All trajectories, ``[T, N]``."""

    states: np.ndarray
    actions: np.ndarray
    successors: np.ndarray
    """The true ones, also of the last step."""

    @property
    def shape(self) -> tuple[int, int]:
        """``(T, N)``."""
        return self.states.shape[0], self.states.shape[1]

    def of(self, table: Any) -> np.ndarray:
        """Return the entries of a table ``[S, A]``, or of one for each step ``[T, S, A]``."""
        table = np.asarray(table)
        if table.ndim == 2:
            return table[self.states, self.actions]
        return table[np.arange(len(self.states))[:, None], self.states, self.actions]


@functools.cache
def everything() -> Everything:
    """Return the trajectories of the policy :data:`ACTED`."""
    n_tickets = [2, *[3, 2] * LENGTH]
    tickets = np.indices(n_tickets).reshape(len(n_tickets), -1)
    state = _outcome(np.broadcast_to(_INITIAL, (tickets.shape[1], STATES)), tickets[0], 2)
    rows = []
    for t in range(LENGTH):
        action = _outcome(ACTED[state], tickets[1 + 2 * t], 3)
        successor = _outcome(_TRANSITIONS[state, action], tickets[2 + 2 * t], 2)
        rows.append((state, action, successor))
        state = successor
    return Everything(*(np.stack(column) for column in zip(*rows, strict=True)))


def _outcome(probs: np.ndarray, ticket: np.ndarray, tickets: int) -> np.ndarray:
    """Return the outcome ``[N]`` that a ticket out of so many stands for; ``probs`` ``[N, outcomes]``."""
    bounds = np.rint(np.cumsum(probs, -1) * tickets)
    return np.sum(bounds <= ticket[:, None], -1)


class Exact(NamedTuple):
    """What is known exactly of a policy in the process that ends after :data:`LENGTH` steps."""

    performance: np.ndarray
    gradient: np.ndarray
    """Of the performance in the logits, ``[S, A]``."""
    visits: np.ndarray
    r""":math:`\gamma^t P(s_t = s)`, ``[T, S]``."""
    values: np.ndarray
    """V, ``[T, S]``."""
    action_values: np.ndarray
    """Q, ``[T, S, A]``."""
    fisher: np.ndarray
    """The mean of the Fisher matrices of decisions under the normalised visits, ``[S A, S A]``."""


@compiled_in_double
def _exact(mdp: TabularMDP, flat: Any) -> Exact:
    family = softmax(mdp)
    policy, shape = family(flat), (mdp.n_states, mdp.n_actions)
    fisher = gradients.step_fisher(family, flat, tabular.state_distribution(mdp, policy))
    gradient: Any = gradients.policy_gradient(mdp, family, flat).reshape(shape)
    found: Any = tabular.visitation(mdp, policy), tabular.state_values(mdp, policy), tabular.action_values(mdp, policy)
    performance: Any = tabular.performance(mdp, policy)
    return Exact(performance, gradient, *found, fisher=fisher)  # type: ignore[arg-type]


@functools.cache
def exact(gamma: float = GAMMA, other: bool = False, costs: bool = False) -> Exact:
    """Return what is known of the policy :data:`ACTED`, or of :data:`OTHER`; with costs in the place of rewards, if so."""
    mdp = process(gamma=gamma, rewards=COSTS if costs else _REWARDS)
    return _exact(mdp, np.log(OTHER if other else ACTED).reshape(-1))


def exact_of(probs: np.ndarray, gamma: float = GAMMA, costs: bool = False) -> Exact:
    """Return the same of any policy."""
    mdp = process(gamma=gamma, rewards=COSTS if costs else _REWARDS)
    return _exact(mdp, np.log(probs).reshape(-1))
