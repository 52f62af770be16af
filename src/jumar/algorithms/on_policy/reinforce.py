"""REINFORCE: score . Euclidean . ascent, on whole returns."""

from __future__ import annotations

import dataclasses

from jumar import solvers
from jumar.algorithms.on_policy.parts import apart, compose, scaling
from jumar.algorithms.on_policy.update import OnPolicy
from jumar.algorithms.settings import ADVANTAGES, BASELINES, INDEPENDENT, CriticFitSettings
from jumar.policies.policy import Policy
from jumar.schedules import Constant, Schedule
from jumar.settings import setting
from jumar.solvers import objectives


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReinforceSettings(CriticFitSettings):
    """Settings of REINFORCE."""

    advantage: str = setting("to-go", ADVANTAGES, choices=("to-go", "return", "gae", "n-step", "q"))
    baseline: str = setting(
        "mean", f"{BASELINES}; {INDEPENDENT}", choices=("mean", "time", "none", "critic", "independent")
    )
    normalize_advantage: bool = setting(False, "standardise the advantages of each rollout")
    learning_rate: Schedule = setting(Constant(1e-3), "learning rate of the policy", above=0, at_most=100)
    optimizer: str = setting(
        "adam", "optimiser of the policy; adam: Adam; sgd: plain gradient ascent", choices=("adam", "sgd")
    )
    max_grad_norm: float | None = setting(None, "scale the policy's gradient down to this norm; none: do not", above=0)
    max_grad_value: float | None = setting(
        None, "clip every entry of the policy's gradient to ± this, before max_grad_norm; none: do not", above=0
    )
    min_grad_value: float | None = setting(
        None, "lower limit of every entry of the policy's gradient; none: minus max_grad_value", below=0
    )
    critic_learning_rate: Schedule = setting(Constant(1e-3), "learning rate of the critic's Adam", above=0, at_most=100)


def reinforce(settings: ReinforceSettings, policy: Policy) -> OnPolicy:
    r"""REINFORCE (Williams 1992) as a choice of parts.

    One step per rollout along

    .. math::
        E[\nabla \log \pi_\theta(a_t|s_t) \, (G_t - b)],

    ``G`` the discounted return from the action on (or that of the whole episode), ``b`` a baseline. Without a critic only
    rows count whose episode ends inside the rollout.
    """
    optimiser = solvers.Optimiser(
        settings.learning_rate,
        scaling(settings.optimizer, settings.adam_epsilon),
        settings.max_grad_norm,
        settings.max_grad_value,
        settings.min_grad_value,
    )
    mover = solvers.Climbing(solvers.Ascent(optimiser))
    solver = apart(settings, policy, mover, settings.critic_learning_rate)
    return compose(settings, policy, objectives.Score(), solver)
