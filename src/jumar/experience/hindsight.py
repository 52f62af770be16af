r"""Hindsight experience replay: an episode that missed its goal teaches how to reach the goals that it did reach.

A goal-conditioned task gives with each observation the goal that is achieved there and the goal that is desired, and its
reward is a function of the two, :math:`r_t = r(g^{ach}_{t+1}, g)`. So each step of an episode of :math:`T` steps can be
learnt from with other goals :math:`g'`, as if they had been desired,

.. math::
    (s_t \,\|\, g, \; a_t, \; r(g^{ach}_{t+1}, g), \; s_{t+1} \,\|\, g)
    \;\to\; (s_t \,\|\, g', \; a_t, \; r(g^{ach}_{t+1}, g'), \; s_{t+1} \,\|\, g'), \qquad
    g' = g^{ach}_{j+1},

which were achieved at steps :math:`j` of the same episode: ``future`` draws :math:`j` uniformly from :math:`t \dots T - 1`,
``episode`` from :math:`0 \dots T - 1`, and ``final`` takes :math:`T - 1`.

Everything here is NumPy: environments that have such rewards are stepped on the host.

Source: Andrychowicz et al. 2017, *Hindsight Experience Replay*, algorithm 1 and section 4.5.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

STRATEGIES = ("future", "final", "episode")
"""Which goals of an episode its steps are relabelled with."""
ACHIEVED, DESIRED = "achieved_goal", "desired_goal"
"""What the entries of an observation are called that hold goals."""
LONGEST = 1000
"""An episode that is longer is relabelled in stretches of so many steps, each as if it were an episode."""

CHUNK = 256
"""About how many relabelled rows are put into the memory at once."""


@dataclass(frozen=True)
class Hindsight:
    """What a method relabels.

    Attributes:
        strategy: one of ``STRATEGIES``.
        goals: how many relabelled rows are made of each step.
        with_infos: whether the environment's rewards are computed with the infos of the steps; else with empty ones.
    """

    strategy: str
    goals: int
    with_infos: bool = False

    def slots(self, block: int) -> int:
        """Return how many slots of relabelled rows come at most in an iteration of ``block`` slots.

        Those steps are relabelled whose episodes end in it. They were made in it, or are among the fewer than ``LONGEST`` steps
        of an episode that were made before.
        """
        return self.goals * (block + LONGEST)

    def chosen(self, length: int, draw: np.random.Generator) -> np.ndarray:
        """Return the steps whose achieved goals are desired in hindsight, for each step of an episode: ``[length, goals]``."""
        return chosen_steps(self.strategy, length, self.goals, draw)


def slots_at_once(n_envs: int) -> int:
    """Return how many slots, of a row for each environment, are put into the memory at once."""
    return max(1, CHUNK // n_envs)


def chosen_steps(strategy: str, length: int, goals: int, draw: np.random.Generator) -> np.ndarray:
    """Return for each step of an episode the steps ``[length, goals]`` whose successors' achieved goals replace the desired.

    Args:
        strategy: ``future``: uniformly from the step itself on; ``episode``: uniformly from all; ``final``: the last one.
        length: of the episode, in steps.
        goals: how many for each step.
        draw: what random numbers come from.
    """
    shape = length, goals
    if strategy == "final":
        return np.full(shape, length - 1)
    first = np.arange(length)[:, None] if strategy == "future" else 0
    return draw.integers(first, length, shape)


def with_goals(observations: Any, goals: np.ndarray) -> Any:
    """Return Dict observations ``[R, ...]`` with other desired goals, in the type that these have there."""
    return {**observations, DESIRED: goals.astype(observations[DESIRED].dtype, copy=False)}
