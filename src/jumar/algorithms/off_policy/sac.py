"""SAC: the least of two critics . an action that the policy draws . a policy that climbs them and its own entropy."""

from __future__ import annotations

import dataclasses

from jumar.algorithms.off_policy.choices import Drawn
from jumar.algorithms.off_policy.parts import compose, target_entropy
from jumar.algorithms.off_policy.settings import ReplaySettings
from jumar.algorithms.off_policy.temperature import parse_temperature
from jumar.algorithms.off_policy.update import OffPolicy
from jumar.critics.ensemble import Least
from jumar.policies.policy import Policy
from jumar.settings import setting


@dataclasses.dataclass(frozen=True, kw_only=True)
class SACSettings(ReplaySettings):
    """Settings of SAC; the defaults are Stable-Baselines3's."""

    deviation: str = setting(
        "clamped",
        "log deviation of the Gaussian: linear in the last hidden layer and kept within -20 and 2, or as for other methods",
        choices=("clamped", "state", "free", "fixed"),
    )
    ent_coef: float | str = setting("auto", "what entropy is worth: a number, auto, or auto:0.1 with its first value")
    target_entropy: float | str = setting(
        "auto", "the entropy that auto keeps, of actions in half ranges: auto (-d), -d/2, or a number", unit="nats"
    )


def sac(settings: SACSettings, policy: Policy) -> OffPolicy:
    r"""Soft actor-critic (Haarnoja et al. 2018, *Soft Actor-Critic Algorithms and Applications*) as a choice of parts.

    The critics regress on :math:`y = r + \gamma (\min_k Q_{\bar\phi_k}(s', a') - \alpha \log \pi_\theta(a'|s'))` with
    :math:`a' \sim \pi_\theta`, the policy climbs
    :math:`E[\min_k Q_{\phi_k}(s, a_\theta) - \alpha \log \pi_\theta(a_\theta|s)]` through the action
    :math:`a_\theta = m + h \tanh(\mu_\theta(s) + \sigma_\theta(s) \epsilon)`, and :math:`\alpha` is fixed, or keeps the
    entropy at ``target_entropy``.
    """
    temperature = parse_temperature(settings.ent_coef, target_entropy(settings.target_entropy, policy))
    return compose(settings, policy, Drawn(), Drawn(), Least(), temperature)
