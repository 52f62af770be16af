"""The settings that on-policy methods share."""

from __future__ import annotations

import dataclasses

from jumar.policies import PolicySettings
from jumar.settings import setting


@dataclasses.dataclass(frozen=True, kw_only=True)
class OnPolicySettings(PolicySettings):
    """The settings of every on-policy method."""

    n_envs: int = setting(1, "environments stepped side by side", at_least=1, at_most=65536)
    n_steps: int = setting(2048, "steps of each environment per iteration", unit="steps", at_least=1)
    gamma: float = setting(0.99, "discount", at_least=0, at_most=1)
    normalize_rewards: bool = setting(False, "divide rewards by the running deviation of the discounted return")
    clip_rewards: float = setting(10.0, "clip normalised rewards to this size", above=0)
    bootstrap_truncated: bool = setting(
        True, "value the future of an episode that a time limit cut; false treats the cut as the end, as ppo2 did"
    )
