"""Off-policy policy gradient: weighted score . Euclidean . ascent, on the last few rollouts."""

from __future__ import annotations

import dataclasses

from jumar import estimators, solvers
from jumar.algorithms.on_policy.a2c import A2CSettings, ascent
from jumar.algorithms.on_policy.parts import completed, compose, estimator
from jumar.algorithms.on_policy.update import OnPolicy
from jumar.errors import UsageError
from jumar.estimators import importance
from jumar.experience.rollouts import Recent
from jumar.policies.policy import Policy
from jumar.settings import setting
from jumar.solvers import objectives
from jumar.trajectory import unscaled


@dataclasses.dataclass(frozen=True, kw_only=True)
class ISPGSettings(A2CSettings):
    """Settings of the off-policy policy gradient; those that A2C has too have A2C's defaults."""

    n_rollouts: int = setting(4, "number of newest rollouts to learn from", at_least=1, at_most=65536)
    n_updates: int = setting(
        1,
        "optimiser steps per iteration on all these rollouts, each with new importance weights",
        at_least=1,
        at_most=100_000,
    )
    importance: str = setting(
        "clipped",
        "importance weight of a row; clipped: its own ratio, clipped (V-trace); per-decision: the product of the ratios up to "
        "it; trajectory: the product of all ratios of its trajectory",
        choices=("clipped", "per-decision", "trajectory"),
    )
    self_normalize: bool = setting(False, "divide importance weights by their mean")
    rho_bar: float = setting(
        1.0,
        "importance clipped: limit of a row's ratio, in its weight and in its temporal difference; must be at least c_bar",
        above=0,
    )
    c_bar: float = setting(
        1.0, "importance clipped: limit of the ratios that carry later temporal differences back", above=0
    )


def ispg(settings: ISPGSettings, policy: Policy) -> OnPolicy:
    r"""Off-policy policy gradient by importance sampling, as a choice of parts.

    Steps per iteration on the last rollouts along

    .. math::
        E_\mu[w \, \nabla \log \pi_\theta(a|s) \, A] + c_1 \nabla H(\pi_\theta) - c_2 \nabla (V - R)^2,

    with the importance weight ``w`` (of the row, of what came up to it, or of the whole trajectory) and ``A`` and ``R``
    corrected to match it. With the newest rollout alone and one step it is A2C.

    Raises:
        UsageError: the settings do not go together.
    """
    if settings.advantage == "q":
        raise UsageError(
            "advantage=q is for methods that learn from the newest rollout alone; choose gae or to-go, or acer, which learns "
            "from earlier rollouts by the values of actions."
        )
    solver = solvers.Joint(solvers.Repeated(ascent(settings), settings.n_updates), settings.vf_coef)
    share = settings.share_features_extractor
    plain = compose(settings, policy, objectives.Score(), solver, share_features_extractor=share)
    scale_importance = importance.self_normalised if settings.self_normalize else unscaled
    return dataclasses.replace(
        plain,
        estimator=importance.Reweighted(weighted(settings), plain.scale_advantages, scale_importance),
        scale_advantages=unscaled,
        experience=Recent(settings.n_rollouts, settings.n_steps),
    )


def weighted(settings: ISPGSettings) -> estimators.Estimator:
    """Return what makes advantages, value targets and importance weights.

    Raises:
        UsageError: returns of whole episodes or of some steps, with ratios that are not of whole trajectories; or bounds out
            of order.
    """
    if settings.importance == "trajectory":
        return importance.WholeTrajectory(estimator(settings))
    if settings.advantage in ("return", "n-step"):
        raise UsageError(
            f"advantage={settings.advantage} needs importance=trajectory, and importance={settings.importance} weighs each "
            "reward by itself; choose advantage to-go or gae."
        )
    gae_lambda = settings.gae_lambda if settings.advantage == "gae" else 1.0
    if settings.importance == "per-decision":
        return completed(settings, importance.PerDecision(settings.gamma, gae_lambda))
    if settings.c_bar > settings.rho_bar:
        raise UsageError(f"c_bar={settings.c_bar:g} is above rho_bar={settings.rho_bar:g}; it must be at most that.")
    return completed(settings, importance.VTrace(settings.gamma, gae_lambda, settings.rho_bar, settings.c_bar))
