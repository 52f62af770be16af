"""Settings that several algorithms share."""

from __future__ import annotations

import dataclasses

from jumar.policies import PolicySettings
from jumar.settings import Settings, setting


@dataclasses.dataclass(frozen=True, kw_only=True)
class PolicyFields(Settings):
    """The settings of the policy and of its observation normaliser."""

    net_arch: tuple[int, ...] = setting((64, 64), "sizes of the hidden layers, of actor and critic each", at_least=1)
    activation: str = setting(
        "tanh", "activation of the hidden layers", choices=("tanh", "relu", "elu", "silu", "gelu")
    )
    ortho_init: bool = setting(True, "draw matrices orthogonal (gain sqrt 2, heads 0.01 and 1)")
    log_std_init: float = setting(0.0, "first log standard deviation of a Gaussian policy", at_least=-20, at_most=5)
    use_sde: bool = setting(False, "explore with state-dependent noise (gSDE) in Box action spaces")
    sde_sample_freq: int = setting(-1, "draw new gSDE noise every so many steps; -1: once per rollout", at_least=-1)
    recurrent: str | None = setting(None, "recurrent core of actor and critic", choices=("gru", "lstm"))
    recurrent_size: int = setting(256, "width of the recurrent core", at_least=1)
    normalize_observations: bool = setting(False, "normalise observations by their running mean and variance")
    clip_observations: float = setting(10.0, "clip normalised observations to this size", above=0)

    def policy_settings(self) -> PolicySettings:
        """Return what the policy is made of."""
        names = [field.name for field in dataclasses.fields(PolicySettings)]
        return PolicySettings(**{name: getattr(self, name) for name in names})


@dataclasses.dataclass(frozen=True, kw_only=True)
class OnPolicyFields(PolicyFields):
    """The settings of every on-policy method."""

    n_envs: int = setting(1, "environments stepped side by side", at_least=1, at_most=65536)
    n_steps: int = setting(2048, "steps of each environment per iteration", unit="steps", at_least=1)
    gamma: float = setting(0.99, "discount", at_least=0, at_most=1)
    normalize_rewards: bool = setting(False, "divide rewards by the running deviation of the discounted return")
    clip_rewards: float = setting(10.0, "clip normalised rewards to this size", above=0)
    bootstrap_truncated: bool = setting(
        True, "value the future of an episode that a time limit cut; false treats the cut as the end, as ppo2 did"
    )
