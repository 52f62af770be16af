"""TRPO: surrogate . mean KL . backtracking around a truncated natural step."""

from __future__ import annotations

import dataclasses

from jumar import objectives, solvers
from jumar.algorithms.on_policy import OnPolicy
from jumar.algorithms.parts import apart, compose, geometry
from jumar.algorithms.settings import NaturalSettings
from jumar.critics import Critic
from jumar.policies import Policy
from jumar.problem import Divergence, kl, kl_of_actions
from jumar.settings import setting


@dataclasses.dataclass(frozen=True, kw_only=True)
class TRPOSettings(NaturalSettings):
    """Settings of TRPO; the defaults are sb3-contrib's."""

    line_search_shrinking_factor: float = setting(
        0.8, "each step tried is this fraction of the one before", above=0, below=1
    )
    line_search_max_iter: int = setting(10, "how many steps are tried", at_least=1, at_most=1000)
    divergence: str = setting(
        "exact",
        "how the line search measures the divergence: of the distributions at each row, or from the actions taken",
        choices=("exact", "sampled"),
    )


def trpo(settings: TRPOSettings, policy: Policy, critic: Critic) -> OnPolicy:
    r"""Trust region policy optimization (Schulman et al. 2015) as a choice of parts.

    .. math::
        \max_\theta E[w A] \quad \text{subject to} \quad E[KL(\pi_{old} \| \pi_\theta)] \le \delta, \quad
        w = \pi_\theta(a|s) / \pi_{old}(a|s).

    The direction ``x`` solves :math:`(F + \lambda I) x = g` by conjugate gradients, the step is
    :math:`\sqrt{2 \delta / x^T F x} \, x` with the undamped ``F``, and a line search shortens it until the constraint holds
    and the surrogate has grown. The critic is fitted afterwards, by itself.
    """
    search = solvers.LineSearch(
        solvers.Step(geometry_of(settings), solvers.Boundary(settings.target_kl)),
        settings.target_kl,
        settings.line_search_shrinking_factor,
        settings.line_search_max_iter,
    )
    solver = apart(settings, policy, search)
    return compose(settings, policy, critic, objectives.Surrogate(), solver, divergence=divergence_of(settings))


def geometry_of(settings: NaturalSettings) -> solvers.Geometry:
    """Return the distance by which the direction of a step is found, by conjugate gradients."""
    return geometry(settings, solvers.ConjugateGradient(settings.cg_max_steps, settings.cg_tolerance))


def divergence_of(settings: TRPOSettings) -> Divergence:
    """Return how the line search measures the divergence."""
    return kl if settings.divergence == "exact" else kl_of_actions
