"""TD3: the least of two critics . the target policy's action with noise . a deterministic policy that climbs now and then."""

from __future__ import annotations

import dataclasses

from jumar.algorithms.off_policy.choices import Mode
from jumar.algorithms.off_policy.ddpg import DDPGSettings
from jumar.algorithms.off_policy.improvements import Climbing
from jumar.algorithms.off_policy.parts import compose, least
from jumar.algorithms.off_policy.state_values import Sampled
from jumar.algorithms.off_policy.update import OffPolicy
from jumar.critics.ensemble import First
from jumar.policies.policy import Policy
from jumar.settings import setting


@dataclasses.dataclass(frozen=True, kw_only=True)
class TD3Settings(DDPGSettings):
    """Settings of TD3; the defaults are Stable-Baselines3's."""

    n_critics: int = setting(2, "number of critics; targets take the minimum of them", at_least=1, at_most=100)
    policy_delay: int = setting(
        2, "updates of the critics for each update of the policy", at_least=1, at_most=1_000_000
    )
    target_update_interval: int = setting(
        2,
        "updates of the critics for each update of the target networks; in the paper the same as policy_delay",
        at_least=1,
        at_most=1_000_000,
    )
    target_policy_noise: float = setting(
        0.2,
        "standard deviation of the noise on the target policy's action, in units of half of the action's range; 0: none",
        at_least=0,
        at_most=10,
    )
    target_noise_clip: float = setting(
        0.5,
        "clip the noise on the target policy's action to ± this, in units of half of the action's range",
        at_least=0,
        at_most=10,
    )
    bc_coef: float = setting(
        0.0,
        "weight of behaviour cloning: the squared distance from the stored actions, beside the critics' values divided by "
        "their mean size; 0.4: TD3+BC, for data sets",
        at_least=0,
    )


def td3(settings: TD3Settings, policy: Policy) -> OffPolicy:
    r"""Twin delayed deep deterministic policy gradient (Fujimoto, van Hoof and Meger 2018) as a choice of parts.

    It is DDPG with three changes, each a setting: the target is
    :math:`y = r + \gamma \min_k Q_{\bar\phi_k}(s', a')` of two critics (``n_critics``), with noise on the action,
    :math:`a' = clip(\mu_{\bar\theta}(s') + clip(\sigma\epsilon, \pm c), -1, 1)` (``target_policy_noise``), and policy
    and targets move in every second update (``policy_delay``, ``target_update_interval``). The policy climbs the first
    critic.
    """
    successor = Mode(True, settings.target_policy_noise, settings.target_noise_clip)
    climbing = Climbing(Sampled(Mode(), First()), settings.bc_coef)
    return compose(settings, policy, Sampled(successor, least(settings)), climbing)
