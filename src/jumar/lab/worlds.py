r"""Small worlds with names: as tabular processes, and as compiled environments for any agent and the command line.

========================================  ===========================================================================
``jax/jumar.lab.worlds:GridWorld``        any map, ``--env-kwargs rows=S.G/.#P slip=0.1``
``jax/jumar.lab.worlds:CliffWalk``        a safe detour, or the short way along a cliff
``jax/jumar.lab.worlds:FourRooms``        far from start to goal, with a reward at the goal alone
``jax/jumar.lab.worlds:Chain``            a small reward near by, and a large one that takes a detour to reach
``jax/jumar.lab.worlds:RandomWalk``       a line with two ends
========================================  ===========================================================================

An environment keeps its process as ``mdp``, so that what an agent reaches can be compared with the optimum
(:mod:`jumar.lab.dynamic_programming`). Observations are the states' numbers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from jumar.errors import UsageError
from jumar.lab.grids import CLIFF, FOUR_ROOMS, Map, check_probability, check_rewards, grid_world, parse_map
from jumar.lab.tabular import TabularEnvironment, TabularMDP

# -- processes --------------------------------------------------------------------------------------------------------


def cliff_walk(slip: float = 0.0, gamma: float = 0.99, horizon: int | None = None) -> TabularMDP:
    """Return the cliff walk: -1 a step, -100 for a fall, after which it goes on from the start.

    Source: Sutton and Barto 2018, *Reinforcement Learning*, example 6.6 (without slips and discount).

    Raises:
        UsageError: a number is out of range.
    """
    return grid_world(
        CLIFF, slip=slip, gamma=gamma, horizon=horizon, step_reward=-1.0, goal_reward=-1.0, cliff_reward=-100.0
    )


def four_rooms(slip: float = 0.1, gamma: float = 0.97, horizon: int | None = None) -> TabularMDP:
    """Return four rooms with a door between each and the next: 1 at the goal, 20 steps away, and nothing elsewhere.

    Source of the rooms: Sutton, Precup and Singh 1999, *Between MDPs and Semi-MDPs*.

    Raises:
        UsageError: a number is out of range.
    """
    return grid_world(FOUR_ROOMS, slip=slip, gamma=gamma, horizon=horizon)


def chain(
    n: int = 5,
    slip: float = 0.2,
    near: float = 2.0,
    far: float = 10.0,
    gamma: float = 0.95,
    horizon: int | None = None,
) -> TabularMDP:
    """Return a chain of ``n`` states: back to the first one for a small reward, or on to the last one for a large one.

    Action 0 goes on, and is paid ``far`` in the last state, where it stays. Action 1 goes back to the first state, and is paid
    ``near``. With a probability of ``slip`` an action has the effect of the other one.

    Source: Dearden, Friedman and Russell 1998, *Bayesian Q-Learning*, figure 1; Strens 2000, *A Bayesian Framework for
    Reinforcement Learning*.

    Raises:
        UsageError: ``n`` is below 2, or a number is out of range.
    """
    _check_size("n", n, 2)
    check_probability("slip", slip)
    check_rewards(near=near, far=far)
    states = np.arange(n)
    transitions, rewards = np.zeros((n, 2, n)), np.zeros((n, 2))
    for action, on in enumerate((1.0 - slip, slip)):
        transitions[states, action, np.minimum(states + 1, n - 1)] += on
        transitions[states, action, 0] += 1.0 - on
        rewards[:, action] = (1.0 - on) * near
        rewards[-1, action] += on * far
    return TabularMDP.of(transitions, rewards, np.eye(n)[0], gamma, horizon)


def random_walk(n: int = 5, gamma: float = 0.9, horizon: int | None = None) -> TabularMDP:
    """Return a line of ``n`` states between two ends: 1 for the step to the right end, and nothing elsewhere.

    State 0 is the left end, n + 1 the right one; it begins in the middle. Action 0 goes left, 1 right. The walk is the policy
    that does both equally often: without a discount, and with many steps, state i is worth i / (n + 1).

    Source: Sutton and Barto 2018, *Reinforcement Learning*, example 6.2.

    Raises:
        UsageError: ``n`` is below 1, or a number is out of range.
    """
    _check_size("n", n, 1)
    transitions, rewards = np.zeros((n + 2, 2, n + 2)), np.zeros((n + 2, 2))
    inner = np.arange(1, n + 1)
    transitions[inner, 0, inner - 1] = transitions[inner, 1, inner + 1] = 1.0
    transitions[[0, -1], :, [0, -1]] = 1.0
    rewards[n, 1] = 1.0
    return TabularMDP.of(transitions, rewards, np.eye(n + 2)[(n + 1) // 2], gamma, horizon)


def _check_size(name: str, value: Any, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise UsageError(f"{name}={value} must be a whole number of at least {least}.")


# -- environments -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class MapEnvironment(TabularEnvironment):
    """The environment of a map, which it keeps: ``rows`` are the map's, see :mod:`jumar.lab.grids`."""

    rows: tuple[str, ...] = field(kw_only=True)


def GridWorld(
    rows: Map,
    slip: float = 0.0,
    gamma: float = 0.99,
    horizon: int | None = None,
    step_reward: float = 0.0,
    goal_reward: float = 1.0,
    pit_reward: float = -1.0,
    cliff_reward: float = -100.0,
    time_limit: int | None = 200,
) -> MapEnvironment:
    """Return the environment of a map: that of :func:`~jumar.lab.grids.grid_world`."""
    mdp = grid_world(
        rows,
        slip=slip,
        gamma=gamma,
        horizon=horizon,
        step_reward=step_reward,
        goal_reward=goal_reward,
        pit_reward=pit_reward,
        cliff_reward=cliff_reward,
    )
    return MapEnvironment(mdp, time_limit, rows=tuple(parse_map(rows)))


def CliffWalk(
    slip: float = 0.0, gamma: float = 0.99, horizon: int | None = None, time_limit: int | None = 200
) -> MapEnvironment:
    """Return the environment of :func:`cliff_walk`."""
    return MapEnvironment(cliff_walk(slip, gamma, horizon), time_limit, rows=tuple(parse_map(CLIFF)))


def FourRooms(
    slip: float = 0.1, gamma: float = 0.97, horizon: int | None = None, time_limit: int | None = 200
) -> MapEnvironment:
    """Return the environment of :func:`four_rooms`."""
    return MapEnvironment(four_rooms(slip, gamma, horizon), time_limit, rows=tuple(parse_map(FOUR_ROOMS)))


def Chain(
    n: int = 5,
    slip: float = 0.2,
    near: float = 2.0,
    far: float = 10.0,
    gamma: float = 0.95,
    horizon: int | None = None,
    time_limit: int | None = 100,
) -> TabularEnvironment:
    """Return the environment of :func:`chain`."""
    return TabularEnvironment(chain(n, slip, near, far, gamma, horizon), time_limit)


def RandomWalk(
    n: int = 5, gamma: float = 0.9, horizon: int | None = None, time_limit: int | None = 200
) -> TabularEnvironment:
    """Return the environment of :func:`random_walk`."""
    return TabularEnvironment(random_walk(n, gamma, horizon), time_limit)
