"""The settings that on-policy methods share."""

from __future__ import annotations

import dataclasses
from typing import Any

import gymnasium as gym
from gymnasium import spaces

from jumar.errors import UsageError
from jumar.policies.policy import PolicySettings
from jumar.schedules import Constant, Schedule
from jumar.settings import setting
from jumar.spaces import describe_space

ADVANTAGES = (
    "advantage estimator; gae: generalized advantage estimation; n-step: advantage_steps rewards and the critic's value after "
    "them; to-go: the return from the action on; return: the return of the whole episode; q: the value of the action by a "
    "critic of actions (Discrete only)"
)
"""What ``advantage`` chooses from, in words."""

BASELINES = (
    "baseline that is subtracted from returns; critic: the critic's value; mean: the mean of the rollout; time: the mean over "
    "the same time step of all episodes; none: no baseline"
)
"""What ``baseline`` chooses from, in words."""

INDEPENDENT = "independent: the value of a critic that was just fitted to the other half of the environments"
"""One more baseline, of methods that fit the critic by itself."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class CollectingSettings(PolicySettings):
    """The settings of every method: how experience is collected, and how rewards are scaled."""

    n_envs: int = setting(1, "environments stepped side by side", at_least=1, at_most=65536)
    gamma: float = setting(0.99, "discount factor", at_least=0, at_most=1)
    cost_coef: float = setting(0.0, "price per unit of cost, subtracted from the reward", at_least=0)
    normalize_rewards: bool = setting(
        False, "divide rewards by the running standard deviation of the discounted return"
    )
    clip_rewards: float = setting(10.0, "clip normalised rewards to ± this", above=0)

    @property
    def rows_per_round(self) -> int:
        """Steps of each environment between two updates."""
        raise NotImplementedError

    @property
    def rounds(self) -> int:
        """How many rounds of steps and an update an iteration has, which is what a line of the log is of."""
        raise NotImplementedError

    def shortcoming(self, steps: int) -> str | None:
        """Say why training for so many steps of all environments together would teach nothing, or what has no effect in it.

        ``None``: neither is so.
        """
        return None

    @property
    def steps_per_iteration(self) -> int:
        """Steps of all environments together per iteration."""
        return self.rounds * self.rows_per_round * self.n_envs


@dataclasses.dataclass(frozen=True, kw_only=True)
class RolloutSettings(CollectingSettings):
    """The settings of methods that learn from rollouts."""

    deviation: str = setting(
        "free",
        "standard deviation of a Gaussian policy; free: parameters of its own, the same in every state; fixed: stays at "
        "log_std_init; state: a function of the state",
        choices=("free", "fixed", "state"),
    )
    n_steps: int = setting(2048, "steps of each environment per iteration", unit="steps", at_least=1)
    ent_coef: float = setting(0.0, "weight of the entropy bonus", at_least=0)

    def check_action_space(self, space: gym.Space[Any]) -> None:
        """Refuse to squash what has no bounds.

        Raises:
            UsageError: ``squash``, and the space is no Box.
        """
        if self.squash and not isinstance(space, spaces.Box):
            raise UsageError(f"squash needs a Box action space, and this one is {describe_space(space)}.")

    @property
    def rows_per_round(self) -> int:
        """Steps of each environment between two updates."""
        return self.n_steps

    @property
    def rounds(self) -> int:
        """How many rounds of steps and an update an iteration has: one."""
        return 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class OnPolicySettings(RolloutSettings):
    """The settings of every on-policy method."""

    advantage: str = setting("gae", ADVANTAGES, choices=("gae", "n-step", "to-go", "return", "q"))
    advantage_steps: int = setting(
        5, "number of rewards before the critic's value, for advantage n-step", unit="steps", at_least=1
    )
    gae_lambda: float = setting(0.95, "lambda of generalized advantage estimation", at_least=0, at_most=1)
    baseline: str = setting(
        "critic",
        f"{BASELINES}. With mean, time or none there is no critic, unless advantage is q",
        choices=("critic", "mean", "time", "none"),
    )
    normalize_advantage: bool = setting(True, "standardise the advantages of each rollout")
    value_loss: str = setting(
        "squared",
        "loss of the critic; squared: squared error; huber: Huber loss, in which large errors count linearly",
        choices=("squared", "huber"),
    )
    huber_delta: float = setting(1.0, "error up to which the Huber loss is the squared error", above=0)
    bootstrap_truncated: bool = setting(
        True,
        "bootstrap at a time limit with the critic's value; false: a time limit ends the episode, as in ppo2 of Baselines",
    )
    discount_states: bool = setting(
        False,
        "weight the state at step t of an episode by gamma^t in all means, as in the policy gradient theorem; with advantage "
        "return the weights are 1, as whole returns are discounted already",
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class CriticFitSettings(OnPolicySettings):
    """The settings of methods that update the policy once per rollout, and fit the critic separately."""

    baseline: str = setting(
        "critic", f"{BASELINES}; {INDEPENDENT}", choices=("critic", "independent", "mean", "time", "none")
    )
    learning_rate: Schedule = setting(
        Constant(1e-3), "learning rate of the critic's Adam; the policy has none", above=0, at_most=100
    )
    batch_size: int = setting(
        128, "size of the critic's minibatches; it must divide n_envs * n_steps", unit="steps", at_least=1
    )
    n_critic_updates: int = setting(10, "passes of the critic over each rollout", at_least=1, at_most=100_000)
    adam_epsilon: float = setting(1e-5, "epsilon of Adam", above=0, at_most=1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class NaturalSettings(CriticFitSettings):
    """The settings of methods that follow the natural gradient by conjugate gradients."""

    target_kl: float = setting(0.01, "largest mean KL(old || new) of an update", unit="nats", above=0)
    fisher: str = setting(
        "exact",
        "Fisher matrix; exact: of the distributions at each row; steps: sampled by the actions taken, per step; trajectories: "
        "sampled by the actions taken, per trajectory",
        choices=("exact", "steps", "trajectories"),
    )
    cg_max_steps: int = setting(15, "largest number of conjugate gradient iterations", at_least=1, at_most=10_000)
    cg_damping: float = setting(0.1, "added to the Fisher matrix's diagonal in the conjugate gradient", at_least=0)
    cg_tolerance: float = setting(
        1e-10, "stop the conjugate gradient at this residual, relative to the gradient", at_least=0, below=1
    )
    sub_sampling_factor: int = setting(1, "estimate the Fisher matrix from one row in this many", at_least=1)
