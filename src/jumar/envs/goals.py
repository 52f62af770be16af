"""Goal-conditioned environments: the protocol of Gymnasium-Robotics' ``GoalEnv``, and EnvPool's, which cannot be asked.

The observation is a Dict with ``observation``, ``achieved_goal`` and ``desired_goal``, and the environment has a method
``compute_reward(achieved_goal, desired_goal, info)`` that takes many goals at once. With what a step returns,

    observation, reward, terminated, truncated, info = env.step(action)
    reward == env.compute_reward(observation["achieved_goal"], observation["desired_goal"], info)
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from gymnasium import Space, spaces

from jumar.errors import UnsupportedEnvironment
from jumar.spaces import describe_space

PARTS = ("observation", "achieved_goal", "desired_goal")
"""What the observation of a goal-conditioned environment has."""
MAZE_RADIUS = 0.45
"""How near to its goal a point must come in Gymnasium-Robotics' mazes, in metres."""


class Goals(NamedTuple):
    """Goals, and infos, for which rewards are asked: ``[R, ...]`` each, and R infos."""

    achieved: np.ndarray
    desired: np.ndarray
    infos: list[dict[str, Any]]


def check_goal_space(space: Space, name: str) -> None:
    """Refuse an observation space that is not that of a goal-conditioned environment.

    Raises:
        UnsupportedEnvironment: the message says what it lacks.
    """
    found = space.spaces if isinstance(space, spaces.Dict) else {}
    if missing := [part for part in PARTS if part not in found]:
        raise UnsupportedEnvironment(
            f"goal_selection_strategy relabels goals, and the observation of {name} has no {missing[0]}: it needs a Dict with "
            f"{', '.join(PARTS[:-1])} and {PARTS[-1]}, and this one is {describe_space(space)}."
        )
    achieved, desired = (found[part] for part in PARTS[1:])
    if achieved.shape is None or desired.shape is None or achieved.shape != desired.shape:
        raise UnsupportedEnvironment(
            f"in {name} achieved_goal is {describe_space(achieved)} and desired_goal is {describe_space(desired)}; to take the "
            "place of the other, both must be arrays of the same shape."
        )


def pool_rewards(name: str, config: Mapping[str, Any]) -> Callable[[Goals], np.ndarray] | None:
    r"""Return how an EnvPool environment rewards goals; ``None`` where that is not known here.

    EnvPool has no ``compute_reward``. These are Gymnasium-Robotics' formulas: with the distance :math:`d` between the two
    goals, Fetch and HandReach give :math:`-[d > \varepsilon]` (``distance_threshold``) or, if dense, :math:`-d`; PointMaze
    gives :math:`[d \le 0.45]` or :math:`e^{-d}`.

    Args:
        name: the id.
        config: the settings of the environment.
    """
    dense = config.get("reward_type") == "dense"
    if re.match(r"(Fetch(Reach|Push|Slide|PickAndPlace)|HandReach)(Dense)?-v", name):
        threshold = float(config["distance_threshold"])
        if dense:
            return lambda goals: -_distance(goals)
        return lambda goals: -(_distance(goals) > threshold).astype(np.float64)
    if name.startswith("PointMaze_"):
        if dense:
            return lambda goals: np.exp(-_distance(goals))
        return lambda goals: (_distance(goals) <= MAZE_RADIUS).astype(np.float64)
    return None


def _distance(goals: Goals) -> np.ndarray:
    return np.linalg.norm(goals.achieved - goals.desired, axis=-1)
