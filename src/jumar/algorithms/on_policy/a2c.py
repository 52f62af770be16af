"""A2C: score . Euclidean . ascent, with a critic."""

from __future__ import annotations

import dataclasses

import optax

from jumar import solvers
from jumar.algorithms.on_policy.parts import compose
from jumar.algorithms.on_policy.update import OnPolicy
from jumar.algorithms.settings import OnPolicySettings
from jumar.policies.policy import Policy
from jumar.schedules import Constant, Schedule
from jumar.settings import setting
from jumar.solvers import objectives


@dataclasses.dataclass(frozen=True, kw_only=True)
class A2CSettings(OnPolicySettings):
    """Settings of A2C; the defaults are Stable-Baselines3's."""

    learning_rate: Schedule = setting(Constant(7e-4), "learning rate of the optimiser", above=0, at_most=100)
    n_steps: int = setting(5, "steps of each environment per iteration", unit="steps", at_least=1)
    gae_lambda: float = setting(
        1.0, "lambda of generalized advantage estimation; 1: returns of up to n_steps", at_least=0, at_most=1
    )
    normalize_advantage: bool = setting(False, "standardise the advantages of each rollout")
    vf_coef: float = setting(0.5, "weight of the value loss", at_least=0)
    max_grad_norm: float | None = setting(0.5, "scale the joint gradient down to this norm; none: do not", above=0)
    max_grad_value: float | None = setting(
        None, "clip every entry of the joint gradient to ± this, before max_grad_norm; none: do not", above=0
    )
    min_grad_value: float | None = setting(
        None, "lower limit of every entry of the joint gradient; none: minus max_grad_value", below=0
    )
    share_features_extractor: bool = setting(
        True, "for images, one convolutional network for policy and critic together; false: one each"
    )
    use_rms_prop: bool = setting(True, "RMSprop as the optimiser; false: Adam")
    rms_prop_eps: float = setting(1e-5, "epsilon of RMSprop, or of Adam", above=0, at_most=1)


def a2c(settings: A2CSettings, policy: Policy) -> OnPolicy:
    r"""Advantage actor-critic (Mnih et al. 2016, synchronous) as a choice of parts.

    One step of the optimiser per rollout along the gradient of

    .. math::
        E[\log \pi_\theta(a|s) \, A] + c_1 H(\pi_\theta) - c_2 (V - R)^2.

    With ``gae_lambda`` 1, ``A`` is the return over the rest of the rollout, bootstrapped with the critic, minus its value.
    """
    solver = solvers.Joint(ascent(settings), settings.vf_coef)
    share = settings.share_features_extractor
    return compose(settings, policy, objectives.Score(), solver, share_features_extractor=share)


def ascent(settings: A2CSettings) -> solvers.Ascent:
    """Return the climber of these settings: one step of RMSprop or of Adam."""
    eps = settings.rms_prop_eps
    scaling = (
        optax.scale_by_rms(decay=0.99, eps=eps, eps_in_sqrt=False)
        if settings.use_rms_prop
        else optax.scale_by_adam(eps=eps)
    )
    return solvers.Ascent(
        solvers.Optimiser(
            settings.learning_rate, scaling, settings.max_grad_norm, settings.max_grad_value, settings.min_grad_value
        )
    )
