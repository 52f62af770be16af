"""DDPG: one critic . the target policy's action . a deterministic policy that climbs it."""

from __future__ import annotations

import dataclasses

from jumar.algorithms.off_policy.choices import Mode
from jumar.algorithms.off_policy.improvements import Climbing
from jumar.algorithms.off_policy.parts import compose, least
from jumar.algorithms.off_policy.settings import HindsightSettings
from jumar.algorithms.off_policy.state_values import Sampled
from jumar.algorithms.off_policy.update import OffPolicy
from jumar.critics.ensemble import First
from jumar.errors import UsageError
from jumar.policies.policy import Policy
from jumar.schedules import Constant, Schedule
from jumar.settings import setting


@dataclasses.dataclass(frozen=True, kw_only=True)
class DDPGSettings(HindsightSettings):
    """Settings of DDPG; the defaults are Stable-Baselines3's."""

    net_arch: tuple[int, ...] = setting((400, 300), "sizes of the policy's hidden layers", at_least=1)
    deviation: str = setting("none", "always none: the policy is deterministic", choices=("none",))
    learning_rate: Schedule = setting(
        Constant(1e-3), "learning rate of Adam, for the policy and the critics", above=0, at_most=100
    )
    n_critics: int = setting(1, "number of critics", at_least=1, at_most=100)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.use_sde:
            raise UsageError("use_sde=true needs a policy that draws, and this one is deterministic; sac has one.")


def ddpg(settings: DDPGSettings, policy: Policy) -> OffPolicy:
    r"""Deep deterministic policy gradient (Lillicrap et al. 2016) as a choice of parts.

    The critic regresses on :math:`y = r + \gamma Q_{\bar\phi}(s', \mu_{\bar\theta}(s'))`, the policy climbs
    :math:`E[Q_\phi(s, \mu_\theta(s))]`, and both targets follow by ``tau`` after each update.
    """
    successor = Sampled(Mode(follows=True), least(settings))
    return compose(settings, policy, successor, Climbing(Sampled(Mode(), First())))
