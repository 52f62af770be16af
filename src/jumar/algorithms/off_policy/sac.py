"""SAC: the least of two critics . an action that the policy draws . a policy that climbs them and its own entropy."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from gymnasium import spaces

from jumar.algorithms.off_policy.choices import Drawn
from jumar.algorithms.off_policy.improvements import Climbing
from jumar.algorithms.off_policy.parts import compose, least, share_of_largest_entropy, target_entropy
from jumar.algorithms.off_policy.settings import HindsightSettings
from jumar.algorithms.off_policy.state_values import Expected, Sampled, StateValue
from jumar.algorithms.off_policy.temperature import parse_temperature
from jumar.algorithms.off_policy.update import OffPolicy
from jumar.critics.ensemble import Least
from jumar.policies.policy import Policy
from jumar.settings import setting


@dataclasses.dataclass(frozen=True, kw_only=True)
class SACSettings(HindsightSettings):
    """Settings of SAC; the defaults are Stable-Baselines3's."""

    deviation: str = setting(
        "clamped",
        "standard deviation of the Gaussian; clamped: a function of the state whose logarithm is clipped to -20 and 2; state: "
        "a function of the state; free: parameters of its own, the same in every state; fixed: stays at log_std_init",
        choices=("clamped", "state", "free", "fixed"),
    )
    sde_learn_features: bool = setting(True, "train the hidden layers through the noise of gSDE as well")
    sde_clip_mean: float = setting(
        2.0, "with gSDE, clip the mean to ± this before it is squashed; 0: no clipping", at_least=0
    )
    ent_coef: float | str = setting(
        "auto",
        "temperature alpha, the weight of the entropy: a number, auto (learnt), or auto:0.1 (learnt, beginning at 0.1)",
    )
    target_entropy: float | str = setting(
        "auto",
        "entropy that ent_coef auto aims at, of d action entries in units of half of their range: auto (-d), -d/2, or a "
        "number; of n Discrete actions: auto (0.7 log n, of those that masks allow) or a number",
        unit="nats",
    )

    takes: ClassVar = (spaces.Box, spaces.Discrete)


def sac(settings: SACSettings, policy: Policy) -> OffPolicy:
    r"""Soft actor-critic (Haarnoja et al. 2018, *Soft Actor-Critic Algorithms and Applications*) as a choice of parts.

    The critics regress on :math:`y = r + \gamma (\min_k Q_{\bar\phi_k}(s', a') - \alpha \log \pi_\theta(a'|s'))` with
    :math:`a' \sim \pi_\theta`, the policy climbs
    :math:`E[\min_k Q_{\phi_k}(s, a_\theta) - \alpha \log \pi_\theta(a_\theta|s)]` through the action
    :math:`a_\theta = m + h \tanh(\mu_\theta(s) + \sigma_\theta(s) \epsilon)`, and :math:`\alpha` is fixed, or keeps the
    entropy at ``target_entropy``.

    For Discrete actions there is nothing to draw: both expectations over actions are sums,
    :math:`\sum_a \pi_\theta(a|s) (\min_k Q_k(s, a) - \alpha \log \pi_\theta(a|s))` (Christodoulou 2019).
    """
    aim = settings.target_entropy
    temperature = parse_temperature(
        settings.ent_coef, target_entropy(aim, policy), share_of_largest_entropy(aim, policy)
    )
    successor: StateValue = Sampled(Drawn(), least(settings))
    climbed: StateValue = Sampled(Drawn(), Least())
    if policy.actions.kind == "discrete":
        successor, climbed = Expected(least(settings)), Expected(Least())
    return compose(settings, policy, successor, Climbing(climbed), temperature)
