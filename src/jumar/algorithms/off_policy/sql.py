"""SQL: the soft maximum of a critic . a policy that is that critic's, or a sampler of its density, which climbs it."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from gymnasium import spaces

from jumar.algorithms.off_policy.improvements import Climbing, Mirroring
from jumar.algorithms.off_policy.parts import PLAIN, compose, ensemble, least, require
from jumar.algorithms.off_policy.settings import HindsightSettings
from jumar.algorithms.off_policy.state_values import SampledSoftMaximum, SoftMaximum
from jumar.algorithms.off_policy.stein import Stein
from jumar.algorithms.off_policy.temperature import FixedTemperature
from jumar.algorithms.off_policy.update import OffPolicy
from jumar.critics.ensemble import First, Least
from jumar.errors import UsageError
from jumar.policies.heads import CategoricalHead
from jumar.policies.policy import Policy
from jumar.settings import setting

COLDEST = 1e-5
"""The least temperature of Discrete actions: values of 10,000 have logits of 1e9 there, the size of what forbids an action."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SQLSettings(HindsightSettings):
    """Settings of SQL; the defaults are those of the paper's code."""

    net_arch: tuple[int, ...] = setting((128, 128), "sizes of the policy's hidden layers", at_least=1)
    batch_size: int = setting(128, "steps drawn from the replay buffer for each update", at_least=1, at_most=1_000_000)
    deviation: str = setting(
        "sampler", "always sampler: the policy is what a network makes of noise", choices=("sampler",)
    )
    n_critics: int = setting(
        1,
        "number of critics; targets take the minimum of them, and the policy is that of the minimum in a Box, and of the "
        "first critic for Discrete actions",
        at_least=1,
        at_most=100,
    )
    tau: float = setting(
        1.0, "target networks move this share of the way to the trained networks; 1 copies them", above=0, at_most=1
    )
    target_update_interval: int = setting(
        1000, "updates of the critics for each update of the target networks", at_least=1, at_most=1_000_000
    )
    ent_coef: float = setting(1.0, "temperature alpha, the weight of the entropy", above=0)
    n_value_samples: int = setting(
        16, "Box only: actions drawn uniformly to estimate the value of a state", at_least=1, at_most=10_000
    )
    n_particles: int = setting(
        16,
        "Box only: actions sampled at each state, of which one half moves the other (Stein variational gradient)",
        at_least=2,
        at_most=10_000,
    )

    takes: ClassVar = (spaces.Box, spaces.Discrete)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.use_sde:
            raise UsageError("use_sde=true needs a Gaussian policy, and this one is a sampler; sac has one.")


def sql(settings: SQLSettings, policy: Policy) -> OffPolicy:
    r"""Soft Q-learning (Haarnoja, Tang, Abbeel and Levine 2017) as a choice of parts.

    The critic regresses on :math:`y = r + \gamma V_{\bar\phi}(s')` with the soft maximum of its target,
    :math:`V(s) = \alpha \log \sum_a e^{Q(s, a) / \alpha}`, an integral in a Box. The policy is the best one for these values,
    :math:`\pi(a|s) \propto e^{Q(s, a) / \alpha}`: for Discrete actions exactly, in a Box a network that is trained to sample
    from it (:class:`jumar.algorithms.off_policy.stein.Stein`).
    """
    temperature = FixedTemperature(settings.ent_coef)
    if policy.actions.kind == "discrete":
        if settings.ent_coef < COLDEST:
            raise UsageError(
                f"ent_coef={settings.ent_coef:g} is out of range; for Discrete actions it must be at least {COLDEST:g}, as "
                "values divided by it are the policy's logits."
            )
        check_mirror(settings, policy)
        successor = SoftMaximum(least(settings))
        mirroring = Mirroring(ensemble(settings, policy), SoftMaximum(First()))
        return compose(settings, policy, successor, mirroring, temperature)
    if settings.critic_batch_norm and not settings.target_network:
        raise UsageError(
            "critic_batch_norm without target_network judges one action at each successor, and the soft maximum over a Box "
            "takes many; leave target_network true."
        )
    integral = SampledSoftMaximum(least(settings), settings.n_value_samples, policy.actions.half_range)
    return compose(settings, policy, integral, Climbing(Stein(Least(), settings.n_particles)), temperature)


def check_mirror(settings: SQLSettings, policy: Policy) -> None:
    """Refuse critics that the policy's network cannot be like.

    Raises:
        UsageError: the message says which setting is in the way.
    """
    if settings.critic_net_arch not in (None, settings.net_arch):
        raise UsageError(
            "critic_net_arch: for Discrete actions the policy is the critic's network; leave it out, and set net_arch."
        )
    if settings.critic_activation not in (None, settings.activation):
        raise UsageError(
            "critic_activation: for Discrete actions the policy is the critic's network; leave it out, and set activation."
        )
    if settings.critic_observations != settings.policy_observations:
        raise UsageError(
            "for Discrete actions the policy is the critic's network, which sees the same: give policy_observations and "
            "critic_observations the same keys."
        )
    if not isinstance(policy.head, CategoricalHead):
        raise UsageError(
            "for Discrete actions the policy is the critic's network, so it takes no features of your own."
        )
    why = "for Discrete actions the policy is the critic's network, which must be a plain one"
    require(settings, {**PLAIN, "head_bias": True}, why)
