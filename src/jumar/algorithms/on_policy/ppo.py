"""PPO with the clipped surrogate: clipped . (divergence implied) . epochs of minibatch Adam."""

from __future__ import annotations

import dataclasses

from jumar import solvers
from jumar.algorithms.on_policy.parts import (
    DIVERGENCES,
    clipped_value_loss,
    compose,
    count_minibatches,
    has_critic,
    scaling,
)
from jumar.algorithms.on_policy.update import OnPolicy
from jumar.algorithms.settings import OnPolicySettings
from jumar.errors import UsageError
from jumar.policies.policy import Policy
from jumar.schedules import Constant, Schedule
from jumar.settings import setting
from jumar.solvers import objectives
from jumar.solvers.problem import Divergence, kl, reverse_kl


@dataclasses.dataclass(frozen=True, kw_only=True)
class EpochSettings(OnPolicySettings):
    """Settings of methods that update by epochs of minibatches; the defaults are Stable-Baselines3's."""

    learning_rate: Schedule = setting(Constant(3e-4), "learning rate", above=0, at_most=100)
    optimizer: str = setting("adam", "optimiser; adam: Adam; sgd: plain gradient ascent", choices=("adam", "sgd"))
    batch_size: int = setting(64, "size of a minibatch; it must divide n_envs * n_steps", unit="steps", at_least=1)
    n_epochs: int = setting(10, "passes over each rollout", at_least=1, at_most=100_000)
    clip_range_vf: Schedule | None = setting(
        None,
        "clip the change of the critic's value to ± this (the loss is the maximum of clipped and unclipped); none: do not",
        above=0,
    )
    normalize_advantage: bool = setting(True, "standardise advantages in every minibatch")
    recompute_advantages: bool = setting(False, "recompute advantages with the current critic before every epoch")
    vf_coef: float = setting(0.5, "weight of the value loss", at_least=0)
    max_grad_norm: float | None = setting(0.5, "scale the gradient down to this norm; none: do not", above=0)
    max_grad_value: float | None = setting(
        None, "clip every entry of the gradient to ± this, before max_grad_norm; none: do not", above=0
    )
    min_grad_value: float | None = setting(
        None, "lower limit of every entry of the gradient; none: minus max_grad_value", below=0
    )
    adam_epsilon: float = setting(1e-5, "epsilon of Adam", above=0, at_most=1)
    share_features_extractor: bool = setting(
        True, "for images, one convolutional network for policy and critic together; false: one each"
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class PPOSettings(EpochSettings):
    """Settings of PPO; the defaults are Stable-Baselines3's."""

    clip_range: Schedule = setting(Constant(0.2), "clip the probability ratio to 1 ± this", above=0)
    target_kl: float | None = setting(
        None, "stop an update when the KL of a minibatch exceeds 1.5 times this; none: never", unit="nats", above=0
    )
    joint_gradient: bool = setting(
        True, "one gradient for policy and critic together, with one norm; false: a gradient and a norm for each"
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class PPOPenaltySettings(EpochSettings):
    """Settings of PPO with a penalty."""

    kl_coef: float = setting(
        1.0, "weight of the divergence from the old policy; with adaptive_kl the initial weight", above=0
    )
    adaptive_kl: bool = setting(
        True,
        "double kl_coef after an update with KL above 1.5 times target_kl, halve it after one below target_kl / 1.5",
    )
    target_kl: float = setting(
        0.01, "target for the mean KL(old || new) of an update, with adaptive_kl", unit="nats", above=0
    )
    divergence: str = setting(
        "exact",
        "divergence in the penalty; exact: KL(old || new) of the distributions at each row; reverse: KL(new || old) of them; "
        "sampled: KL(old || new), estimated from the actions taken; log-ratio: log(old / new) of the actions taken",
        choices=("exact", "reverse", "sampled", "log-ratio"),
    )


def ppo(settings: PPOSettings, policy: Policy) -> OnPolicy:
    r"""Proximal policy optimization (Schulman et al. 2017) as a choice of parts.

    Maximises, by ``n_epochs`` passes of minibatch Adam over each rollout,

    .. math::
        E[\min(w A, clip(w, 1 - \epsilon, 1 + \epsilon) A)] + c_1 H(\pi) - c_2 (V - R)^2, \quad
        w = \pi_\theta(a|s) / \pi_{old}(a|s),

    with ``A`` and ``R`` by GAE. By default one gradient moves policy and critic; without ``joint_gradient`` each has its own
    (:class:`jumar.solvers.SideBySide`).

    Raises:
        UsageError: the settings do not go together.
    """
    epochs = _epochs(settings, policy, settings.target_kl)
    solver: solvers.Solver = solvers.Joint(epochs, settings.vf_coef)
    if not settings.joint_gradient and has_critic(settings):
        if settings.recompute_advantages:
            raise UsageError(
                "recompute_advantages needs the critic after every pass, and without joint_gradient it climbs beside the "
                "policy; turn recompute_advantages off too (presets of MuJoCo tasks turn it on), or keep joint_gradient."
            )
        solver = solvers.SideBySide(epochs, dataclasses.replace(epochs, target_kl=None), settings.vf_coef)
    return _composed(settings, policy, objectives.Clipped(settings.clip_range), solver, joint=settings.joint_gradient)


def ppo_penalty(settings: PPOPenaltySettings, policy: Policy) -> OnPolicy:
    r"""Proximal policy optimization with a penalty (Schulman et al. 2017, section 4) as a choice of parts.

    Maximises, by ``n_epochs`` passes of minibatch Adam over each rollout,

    .. math::
        E[w A] - \beta E[KL(\pi_{old} \| \pi_\theta)] + c_1 H(\pi_\theta) - c_2 (V - R)^2, \quad
        w = \pi_\theta(a|s) / \pi_{old}(a|s),

    with a fixed :math:`\beta` or one that adapts to the divergence of the last update. ``divergence`` puts another one in the
    place of this KL; the coefficient adapts to exact ones, KL(new || old) where that is the penalty.

    Raises:
        UsageError: the settings do not go together.
    """
    joint = solvers.Joint(_epochs(settings, policy), settings.vf_coef)
    target = settings.target_kl if settings.adaptive_kl else None
    measure = reverse_kl if settings.divergence == "reverse" else kl
    penalty = solvers.Penalty(joint, settings.kl_coef, target, measure)
    divergence = DIVERGENCES[settings.divergence]
    return _composed(settings, policy, objectives.Surrogate(), penalty, divergence)


def _epochs(settings: EpochSettings, policy: Policy, stop_at_kl: float | None = None) -> solvers.Epochs:
    optimiser = solvers.Optimiser(
        settings.learning_rate,
        scaling(settings.optimizer, settings.adam_epsilon),
        settings.max_grad_norm,
        settings.max_grad_value,
        settings.min_grad_value,
    )
    return solvers.Epochs(
        optimiser,
        settings.n_epochs,
        count_minibatches(settings, settings.batch_size, policy.recurrent),
        stop_at_kl,
        settings.recompute_advantages,
    )


def _composed(
    settings: EpochSettings,
    policy: Policy,
    objective: objectives.PolicyObjective,
    solver: solvers.Solver,
    divergence: Divergence = kl,
    joint: bool = True,
) -> OnPolicy:
    clip = settings.clip_range_vf
    value_loss = None if clip is None else clipped_value_loss(settings, clip)
    share = joint and settings.share_features_extractor
    return compose(settings, policy, objective, solver, value_loss, divergence, share)
