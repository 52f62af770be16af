"""The settings that off-policy methods share."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import gymnasium as gym
from gymnasium import spaces

from jumar.algorithms.off_policy.cadence import parse_train_freq
from jumar.algorithms.settings import CollectingSettings
from jumar.errors import UsageError
from jumar.experience.hindsight import STRATEGIES, Hindsight
from jumar.networks.layers import ACTIVATIONS
from jumar.policies.actions import check_bounds
from jumar.schedules import Constant, Schedule
from jumar.settings import setting
from jumar.spaces import describe_space


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReplaySettings(CollectingSettings):
    """The settings of every off-policy method; the defaults are Stable-Baselines3's where it has them."""

    net_arch: tuple[int, ...] = setting((256, 256), "sizes of the policy's hidden layers", at_least=1)
    activation: str = setting("relu", "activation of the hidden layers", choices=tuple(ACTIVATIONS))
    ortho_init: bool = setting(
        False, "initialise weight matrices orthogonally; false: uniformly within ± 1 / sqrt(inputs)"
    )
    squash: bool = setting(True, "always true: tanh maps actions into the bounds of their Box")
    learning_rate: Schedule = setting(
        Constant(3e-4), "learning rate of Adam, for the policy, the critics and the temperature", above=0, at_most=100
    )
    buffer_size: int = setting(
        1_000_000, "size of the replay buffer: the newest steps of all environments together", unit="steps", at_least=1
    )
    learning_starts: int = setting(
        100, "initial steps with random actions and without updates", unit="steps", at_least=0
    )
    batch_size: int = setting(256, "steps drawn from the replay buffer for each update", at_least=1, at_most=1_000_000)
    train_freq: int | str = setting(
        1,
        "steps of all environments together between updates, rounded up to a multiple of n_envs; or N:episodes, with one "
        "environment",
        unit="steps",
    )
    gradient_steps: int = setting(
        1, "updates every train_freq steps; -1: as many as steps were taken", at_least=-1, at_most=1_000_000
    )
    n_steps: int = setting(
        1, "n of n-step returns: rewards in a target before the critics' value", unit="steps", at_least=1, at_most=100
    )
    tau: float = setting(
        0.005, "target networks move this share of the way to the trained networks; 1 copies them", above=0, at_most=1
    )
    n_critics: int = setting(2, "number of critics", at_least=1, at_most=100)
    n_critics_subset: int | None = setting(
        None,
        "targets take the minimum of this many critics, chosen at random for each update; none: of all critics",
        at_least=1,
    )
    critic_layer_norm: bool = setting(
        False, "standardise the outputs of the critics' hidden layers over the layer, before the activation"
    )
    critic_batch_norm: bool = setting(
        False,
        "standardise the critics' inputs and the outputs of their hidden layers over the batch, after the activation",
    )
    critic_dropout: float = setting(0.0, "dropout rate of the critics' hidden layers", at_least=0, below=1)
    critic_bins: int = setting(
        0,
        "number of bins of equal width: each critic predicts their probabilities, learns by cross-entropy (HL-Gauss), and its "
        "value is the mean; 0: each critic predicts the value itself and learns by the squared error",
        at_least=0,
        at_most=10_000,
    )
    critic_limit: float = setting(
        10.0,
        "with critic_bins, the bins lie between minus and plus this, in the units of the rewards learnt from; larger values "
        "cannot be represented",
        above=0,
    )
    target_network: bool = setting(
        True, "compute targets with networks that follow the critics slowly; false: with the critics themselves"
    )
    policy_delay: int = setting(
        1, "updates of the critics for each update of the policy", at_least=1, at_most=1_000_000
    )
    target_update_interval: int = setting(
        1, "updates of the critics for each update of the target networks", at_least=1, at_most=1_000_000
    )
    action_noise: str | None = setting(
        None,
        "exploration noise with its standard deviation, in units of half of the action's range: normal:0.1, ou:0.2 "
        "(Ornstein-Uhlenbeck), with a schedule normal:linear:0.2; none: no noise",
    )
    noise_repeat: int = setting(
        1,
        "largest number of steps for which an environment explores with the same random numbers; k steps have a probability "
        "that falls as 1/k^2; 1: new random numbers at each step",
        unit="steps",
        at_least=1,
        at_most=1000,
    )
    log_every: int = setting(
        1000,
        "steps of all environments together for each line of the log; training does not depend on it",
        unit="steps",
        at_least=1,
        at_most=10_000_000,
    )
    adam_epsilon: float = setting(1e-8, "epsilon of Adam", above=0, at_most=1)

    @property
    def hindsight(self) -> Hindsight | None:
        """What of each step is remembered with other goals; ``None``: nothing."""
        return None

    needs_dataset: ClassVar[bool] = False
    """Whether the method learns from stored transitions alone."""
    takes: ClassVar[tuple[type[gym.Space[Any]], ...]] = (spaces.Box,)
    """The kinds of action spaces that the method is for."""

    def check_action_space(self, space: gym.Space[Any]) -> None:
        """Refuse what the method is not for, and a Box without finite bounds that leave room between them.

        Raises:
            UsageError: the message says what would be right.
        """
        if not isinstance(space, self.takes):
            names = " or ".join(kind.__name__ for kind in self.takes)
            raise UsageError(
                f"this method needs a {names} action space, and this one is {describe_space(space)}; ppo takes every action "
                "space."
            )
        if isinstance(space, spaces.Box):
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class HindsightSettings(ReplaySettings):
    """The settings of off-policy methods that can learn from goals chosen in hindsight, with Stable-Baselines3's names."""

    goal_selection_strategy: str | None = setting(
        None,
        "hindsight experience replay in goal-conditioned environments: also learn from each step as if the desired goal had "
        "been one that the episode achieved; future: after the step; final: at its end; episode: at any time; none: do not",
        choices=STRATEGIES,
    )
    n_sampled_goal: int = setting(
        4,
        "relabelled rows added to the replay buffer for each step, beside the step itself",
        at_least=1,
        at_most=1000,
    )
    copy_info_dict: bool = setting(
        False, "pass the infos of the steps to compute_reward; false: pass empty ones, which takes less time"
    )

    @property
    def hindsight(self) -> Hindsight | None:
        """What of each step is remembered with other goals; ``None``: nothing."""
        if self.goal_selection_strategy is None:
            return None
        return Hindsight(self.goal_selection_strategy, self.n_sampled_goal, self.copy_info_dict)

    def shortcoming(self, steps: int) -> str | None:
        """Say also that infos are kept for nothing, where nothing is relabelled."""
        found = super().shortcoming(steps)
        if not self.copy_info_dict or self.hindsight is not None:
            return found
        unused = (
            "copy_info_dict has no effect without goal_selection_strategy; set that, to future, say, or leave both out."
        )
        return unused if found is None else f"{found} {unused}"
