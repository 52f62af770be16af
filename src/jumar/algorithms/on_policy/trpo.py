"""TRPO: surrogate . mean KL . backtracking around a truncated natural step."""

from __future__ import annotations

import dataclasses

from jumar import solvers
from jumar.algorithms.on_policy.parts import DIVERGENCES, apart, compose, geometry
from jumar.algorithms.on_policy.update import OnPolicy
from jumar.algorithms.settings import NaturalSettings
from jumar.policies.policy import Policy
from jumar.settings import setting
from jumar.solvers import objectives
from jumar.solvers.problem import kl, mean_over_steps


@dataclasses.dataclass(frozen=True, kw_only=True)
class TRPOSettings(NaturalSettings):
    """Settings of TRPO; the defaults are sb3-contrib's."""

    line_search_shrinking_factor: float = setting(
        0.8, "each step that the line search tries is this fraction of the one before", above=0, below=1
    )
    line_search_max_iter: int = setting(
        10, "largest number of steps that the line search tries", at_least=1, at_most=1000
    )
    divergence: str = setting(
        "exact",
        "divergence in the line search; exact: KL(old || new) of the distributions at each row; reverse: KL(new || old) of "
        "them; sampled: KL(old || new), estimated from the actions taken; log-ratio: log(old / new) of the actions taken, in "
        "addition to exact",
        choices=("exact", "reverse", "sampled", "log-ratio"),
    )
    divergence_per: str = setting(
        "step",
        "what target_kl limits in the line search; step: the mean over steps; trajectory: the mean over trajectories of sums "
        "over their steps",
        choices=("step", "trajectory"),
    )


def trpo(settings: TRPOSettings, policy: Policy) -> OnPolicy:
    r"""Trust region policy optimization (Schulman et al. 2015) as a choice of parts.

    .. math::
        \max_\theta E[w A] \quad \text{subject to} \quad E[KL(\pi_{old} \| \pi_\theta)] \le \delta, \quad
        w = \pi_\theta(a|s) / \pi_{old}(a|s).

    The direction ``x`` solves :math:`(F + \lambda I) x = g` by conjugate gradients, the step is
    :math:`\sqrt{2 \delta / x^T F x} \, x` with the undamped ``F``, and a line search shortens it until the constraint holds
    and the surrogate has grown. The critic is fitted afterwards, by itself.
    """
    step = solvers.Step(geometry_of(settings, policy), solvers.Boundary(settings.target_kl))
    solver = apart(settings, policy, line_search(settings, step, solvers.Better()))
    divergence = DIVERGENCES[settings.divergence]
    return compose(settings, policy, objectives.Surrogate(), solver, divergence=divergence)


def line_search(
    settings: TRPOSettings, step: solvers.PolicySolver, acceptance: solvers.Acceptance
) -> solvers.LineSearch:
    """Return the line search around a step, for the divergence of the settings.

    The logarithms of the ratios of actions may have a negative mean however far a candidate is. So where they are the
    divergence, the exact one has to keep the bound too.
    """
    trajectories = settings.divergence_per == "trajectory"
    mean = solvers.MeanOverTrajectories(settings.n_envs) if trajectories else mean_over_steps
    if settings.divergence == "log-ratio":
        acceptance = solvers.Both(acceptance, solvers.Within(kl, settings.target_kl, mean))
    return solvers.LineSearch(
        step,
        settings.target_kl,
        settings.line_search_shrinking_factor,
        settings.line_search_max_iter,
        acceptance,
        mean,
    )


def geometry_of(settings: NaturalSettings, policy: Policy) -> solvers.Geometry:
    """Return the distance by which the direction of a step is found, by conjugate gradients."""
    return geometry(settings, policy, solvers.ConjugateGradient(settings.cg_max_steps, settings.cg_tolerance))
