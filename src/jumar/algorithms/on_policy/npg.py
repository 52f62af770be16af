"""NPG and TNPG: surrogate . mean KL . one natural step."""

from __future__ import annotations

import dataclasses

from jumar import solvers
from jumar.algorithms.on_policy.parts import apart, compose, geometry
from jumar.algorithms.on_policy.update import OnPolicy
from jumar.algorithms.settings import NaturalSettings
from jumar.policies.policy import Policy
from jumar.schedules import Constant, Schedule
from jumar.settings import setting
from jumar.solvers import objectives


@dataclasses.dataclass(frozen=True, kw_only=True)
class TNPGSettings(NaturalSettings):
    """Settings of the truncated natural policy gradient."""

    cg_max_steps: int = setting(10, "number of conjugate gradient iterations, all of which are done", at_least=1)
    cg_tolerance: float = setting(
        0.0,
        "stop the conjugate gradient early at this residual, relative to the gradient; 0: never",
        at_least=0,
        below=1,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class NPGSettings(NaturalSettings):
    """Settings of the natural policy gradient."""

    natural_step: str = setting(
        "kl",
        "length of the step; kl: as long as target_kl allows; rate: policy_learning_rate times the natural gradient",
        choices=("kl", "rate"),
    )
    policy_learning_rate: Schedule = setting(
        Constant(0.05), "factor of the natural gradient, with natural_step rate", above=0
    )
    cg_max_steps: int = setting(100, "largest number of conjugate gradient iterations", at_least=1)
    cg_tolerance: float = setting(
        1e-4, "stop the conjugate gradient at this residual, relative to the gradient", at_least=0, below=1
    )
    dense_up_to: int = setting(
        400,
        "solve with the whole Fisher matrix if the policy has at most this many parameters",
        unit="parameters",
        at_least=0,
    )


def tnpg(settings: TNPGSettings, policy: Policy) -> OnPolicy:
    r"""Truncated natural policy gradient (Duan et al. 2016): TRPO without its line search.

    ``x`` is what a fixed number of conjugate-gradient iterations make of :math:`(F + \lambda I) x = g`; the step is
    :math:`\sqrt{2 \delta / x^T F x} \, x`.
    """
    system = solvers.ConjugateGradient(settings.cg_max_steps, settings.cg_tolerance)
    return _natural(settings, policy, geometry(settings, policy, system), solvers.Boundary(settings.target_kl))


def npg(settings: NPGSettings, policy: Policy) -> OnPolicy:
    r"""Natural policy gradient (Kakade 2001) as a choice of parts.

    :math:`\theta \leftarrow \theta + \eta F^{-1} g` with ``g`` the gradient of the surrogate at the old parameters, which
    is the policy gradient. The multiplier :math:`\eta` is either that of the KL-normalised step,
    :math:`\sqrt{2 \delta / g^T F^{-1} g}`, or a fixed rate. The system is solved: by the whole matrix for small policies, by
    conjugate gradients to a tolerance for others.
    """
    n_parameters = policy.count_parameters()
    system = (
        solvers.Dense()
        if n_parameters <= settings.dense_up_to
        else solvers.ConjugateGradient(settings.cg_max_steps, settings.cg_tolerance)
    )
    fixed = settings.natural_step == "rate"
    length = solvers.Rate(settings.policy_learning_rate) if fixed else solvers.Boundary(settings.target_kl)
    return _natural(settings, policy, geometry(settings, policy, system), length)


def _natural(settings: NaturalSettings, policy: Policy, distance: solvers.Geometry, length: solvers.Length) -> OnPolicy:
    solver = apart(settings, policy, solvers.Step(distance, length))
    return compose(settings, policy, objectives.Surrogate(), solver)
