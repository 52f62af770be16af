"""The settings that off-policy methods share."""

from __future__ import annotations

import dataclasses
from typing import Any

import gymnasium as gym
from gymnasium import spaces

from jumar.algorithms.off_policy.cadence import parse_train_freq
from jumar.algorithms.settings import CollectingSettings
from jumar.errors import UsageError
from jumar.policies.actions import check_bounds
from jumar.schedules import Constant, Schedule
from jumar.settings import setting
from jumar.spaces import describe_space


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReplaySettings(CollectingSettings):
    """The settings of every off-policy method; the defaults are Stable-Baselines3's where it has them."""

    net_arch: tuple[int, ...] = setting((256, 256), "sizes of the policy's hidden layers", at_least=1)
    critic_net_arch: tuple[int, ...] | None = setting(
        None, "sizes of the hidden layers of each critic; none: those of net_arch", at_least=1
    )
    activation: str = setting(
        "relu", "activation of the hidden layers", choices=("tanh", "relu", "elu", "silu", "gelu")
    )
    ortho_init: bool = setting(False, "draw matrices orthogonal instead of uniform within 1 / sqrt(inputs)")
    squash: bool = setting(True, "always true here: actions are squashed into the bounds of their Box by tanh")
    learning_rate: Schedule = setting(Constant(3e-4), "learning rate of all of Adam's", above=0, at_most=100)
    buffer_size: int = setting(
        1_000_000, "steps that are remembered, of all environments together", unit="steps", at_least=1
    )
    learning_starts: int = setting(
        100, "steps with random actions and without updates at the beginning", unit="steps", at_least=0
    )
    batch_size: int = setting(256, "steps drawn from the memory for each update", at_least=1, at_most=1_000_000)
    train_freq: int | str = setting(
        1,
        "updates are due every so many steps of all environments together, rounded up to whole steps of each; or N:episodes, "
        "with one environment",
        unit="steps",
    )
    gradient_steps: int = setting(
        1, "updates each time that some are due; -1: as many as there were steps", at_least=-1, at_most=1_000_000
    )
    n_steps: int = setting(
        1, "rewards that a target sums up before it asks the critics", unit="steps", at_least=1, at_most=100
    )
    tau: float = setting(0.005, "how far target networks move towards the others; 1 copies", above=0, at_most=1)
    n_critics: int = setting(2, "how many critics there are", at_least=1, at_most=100)
    n_critics_subset: int | None = setting(
        None, "targets take the least value of so many critics, drawn anew each time; none: of all", at_least=1
    )
    policy_delay: int = setting(1, "the policy moves in every so many-th update", at_least=1, at_most=1_000_000)
    target_update_interval: int = setting(1, "targets move in every so many-th update", at_least=1, at_most=1_000_000)
    action_noise: str | None = setting(
        None,
        "exploration noise in half ranges of the action: normal:0.1, ou:0.2, with a schedule normal:linear:0.2, or none",
    )
    log_every: int = setting(
        1000, "steps between two lines of the log; changes no result", unit="steps", at_least=1, at_most=10_000_000
    )
    adam_epsilon: float = setting(1e-8, "epsilon of Adam", above=0, at_most=1)

    def check_action_space(self, space: gym.Space[Any]) -> None:
        """Refuse what is no Box with finite bounds that leave room between them.

        Raises:
            UsageError: the message says what would be right.
        """
        if not isinstance(space, spaces.Box):
            raise UsageError(
                f"this method needs a Box action space, and this one is {describe_space(space)}; ppo takes every action space."
            )
        check_bounds(space, "this method", "train ppo, which clips actions")

    def shortcoming(self, steps: int) -> str | None:
        """Say that all steps are over before learning starts, where they are."""
        if steps > self.learning_starts:
            return None
        return (
            f"learning_starts={self.learning_starts} leaves none of {steps} steps to learn from, so the policy stays as it is; "
            "lower it, or train for longer."
        )

    @property
    def rows_per_round(self) -> int:
        """Steps of each environment between two looks at whether updates are due."""
        count, by_episodes = parse_train_freq(self.train_freq)
        return 1 if by_episodes else -(-count // self.n_envs)

    @property
    def rounds(self) -> int:
        """Rounds per line of the log."""
        return max(1, round(self.log_every / (self.rows_per_round * self.n_envs)))
