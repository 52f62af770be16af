"""What is counted in off-policy training, and what is due when."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from jumar.errors import UsageError
from jumar.experience.replay import Cursor
from jumar.text import whole_number
from jumar.trajectory import Trajectory

MOST_COUNTED = 2**31 - 1
"""Counts stay here once they have come so far."""


class Clock(NamedTuple):
    """What is counted: scalars that all seeds of a program share."""

    steps: Array
    """Environment steps, int32; they stay at 2^31 - 1."""
    waiting: Array
    """Steps since updates were last due, int32."""
    episodes: Array
    """Episodes that ended since updates were last due, int32."""
    updates: Array
    """Updates so far, uint32."""
    cursor: Cursor
    """Where the memory is written to."""

    @classmethod
    def start(cls) -> Clock:
        """Return the clock before anything."""
        zero = jnp.zeros((), jnp.int32)
        return cls(zero, zero, zero, jnp.zeros((), jnp.uint32), Cursor.start())

    def updated(self) -> Clock:
        """Return the clock after one more update."""
        return self._replace(updates=self.updates + jnp.uint32(1))


@dataclass(frozen=True)
class Cadence:
    """When there are updates and how many, and how often policy and targets move."""

    learning_starts: int
    """There is no update before so many steps."""
    train_freq: int
    """Updates are due every so many steps or episodes."""
    by_episodes: bool
    gradient_steps: int
    """How many are due each time; -1: one for each step since."""
    policy_delay: int = 1
    """The policy moves in every so many-th update."""
    target_interval: int = 1
    """Targets move in every so many-th update."""
    all_valid: bool = True
    """Whether each row is a step, so that the number of steps is known before they are taken."""

    def after(self, clock: Clock, trajectory: Trajectory) -> tuple[Clock, Array]:
        """Return the clock after a round of steps, and how many updates are due now, int32."""
        rows = trajectory.rewards.size
        taken = jnp.int32(rows) if self.all_valid else jnp.sum(trajectory.valid, dtype=jnp.int32)
        steps = jnp.where(clock.steps > MOST_COUNTED - rows, MOST_COUNTED, clock.steps + taken)
        waiting = clock.waiting + taken
        episodes = clock.episodes
        if self.by_episodes:
            episodes = episodes + jnp.sum(trajectory.ended & trajectory.valid, dtype=jnp.int32)
            times = (episodes >= self.train_freq).astype(jnp.int32)
            left_waiting, left_episodes = jnp.where(times > 0, 0, waiting), jnp.where(times > 0, 0, episodes)
        else:
            times = waiting // self.train_freq
            left_waiting, left_episodes = waiting % self.train_freq, episodes
        due = times * self.gradient_steps
        if self.gradient_steps < 0:
            due, left_waiting = jnp.where(times > 0, waiting, 0), jnp.where(times > 0, 0, waiting)
        learning = steps > self.learning_starts
        # What was due before learning starts is not made up for.
        clock = clock._replace(steps=steps, waiting=left_waiting, episodes=left_episodes)
        return clock, jnp.where(learning, due, 0).astype(jnp.int32)

    def actor_moves(self, clock: Clock) -> Array:
        """Return whether the policy moves in the update that was just counted."""
        return clock.updates % jnp.uint32(self.policy_delay) == 0

    def targets_move(self, clock: Clock) -> Array:
        """Return whether targets move in the update that was just counted."""
        return clock.updates % jnp.uint32(self.target_interval) == 0


def parse_train_freq(given: int | str) -> tuple[int, bool]:
    """Return how many steps or episodes lie between updates, and whether they are episodes.

    Raises:
        UsageError: it is neither a whole number of at least 1, nor one followed by ``:episodes`` or ``:steps``.
    """
    number, _, unit = str(given).partition(":")
    said = "write a number of steps such as 1, or of episodes such as 1:episodes"
    try:
        count = whole_number(number)
    except ValueError:
        raise UsageError(f"train_freq={given} is not a whole number; {said}.") from None
    if unit not in ("", "steps", "step", "episodes", "episode"):
        raise UsageError(f"train_freq={given}: {unit!r} is neither steps nor episodes; {said}.")
    if not 1 <= count <= MOST_COUNTED:
        raise UsageError(f"train_freq={given} is out of range: it must be at least 1.")
    return count, unit.startswith("episode")
