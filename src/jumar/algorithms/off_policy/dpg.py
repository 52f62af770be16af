"""DPG: one critic without target . the policy's action, or the one that was taken . a deterministic policy that climbs it."""

from __future__ import annotations

import dataclasses
from dataclasses import replace

from jumar.algorithms.off_policy.cadence import parse_train_freq
from jumar.algorithms.off_policy.choices import Mode
from jumar.algorithms.off_policy.ddpg import DDPGSettings
from jumar.algorithms.off_policy.improvements import Climbing
from jumar.algorithms.off_policy.parts import PLAIN, compose, least, require
from jumar.algorithms.off_policy.state_values import Sampled, StateValue, Taken
from jumar.algorithms.off_policy.update import OffPolicy
from jumar.critics.compatible import Compatible
from jumar.critics.ensemble import First
from jumar.errors import UsageError
from jumar.policies.policy import Policy, make_critic_torso
from jumar.settings import setting


@dataclasses.dataclass(frozen=True, kw_only=True)
class DPGSettings(DDPGSettings):
    """Settings of DPG; where the paper says nothing, the defaults are DDPG's."""

    net_arch: tuple[int, ...] = setting((64, 64), "sizes of the policy's hidden layers", at_least=1)
    target_network: bool = setting(
        False, "compute targets with networks that follow the critics slowly; false: with the critics themselves"
    )
    on_policy: bool = setting(
        False,
        "learn only from the steps of the last round, with the next action that was taken in targets (Sarsa); false: from the "
        "replay buffer, with the next action of the policy in targets (Q-learning)",
    )
    critic: str = setting(
        "network",
        "critic of actions; network: a network; compatible: a value of the state plus a term that is linear in the derivatives "
        "of the policy's action",
        choices=("network", "compatible"),
    )


def dpg(settings: DPGSettings, policy: Policy) -> OffPolicy:
    r"""Deterministic policy gradient (Silver et al. 2014) as a choice of parts.

    The policy climbs its critic, :math:`\nabla J = E[\nabla_\theta \mu_\theta(s) \nabla_a Q(s, a)|_{a = \mu_\theta(s)}]`. The
    critic regresses on :math:`y = r + \gamma Q(s', a')`: on policy with the action taken next, which is the policy's with its
    noise; from older steps with :math:`a' = \mu_\theta(s')`. It is a network, or compatible with the policy
    (:class:`jumar.critics.compatible.Compatible`).
    """
    if settings.on_policy and settings.n_steps > 1:
        raise UsageError(f"n_steps={settings.n_steps} does not go with on_policy; leave one of them out.")
    if settings.on_policy and parse_train_freq(settings.train_freq)[1]:
        raise UsageError(
            f"train_freq={settings.train_freq} does not go with on_policy, which learns from a round of a known number of "
            "steps; count steps."
        )
    if settings.on_policy and settings.hindsight is not None:
        raise UsageError(
            "goal_selection_strategy needs a replay buffer, and on_policy has none; leave one of them out."
        )
    successor: StateValue = Taken(least(settings)) if settings.on_policy else Sampled(Mode(), least(settings))
    update = compose(settings, policy, successor, Climbing(Sampled(Mode(), First())))
    if settings.critic == "compatible":
        require(settings, {"n_critics": 1, "n_critics_subset": None}, "there is one compatible critic")
        require(settings, PLAIN, "nothing lies between the layers of a compatible critic")
        update = replace(update, critic=Compatible(policy, make_critic_torso(policy.encoder, settings)))
    if not settings.on_policy:
        return update
    # One slot more than a round has: the last step of the one before was followed by the first of this one.
    slots = settings.rows_per_round + 1
    return replace(update, replay=replace(update.replay, slots=slots, next_actions=True))
