"""The restricted gradient: score . Euclidean . a step to the boundary."""

from __future__ import annotations

import dataclasses

from jumar import solvers
from jumar.algorithms.on_policy.parts import apart, compose
from jumar.algorithms.on_policy.update import OnPolicy
from jumar.algorithms.settings import CriticFitSettings
from jumar.policies.policy import Policy
from jumar.settings import setting
from jumar.solvers import objectives


@dataclasses.dataclass(frozen=True, kw_only=True)
class RestrictedSettings(CriticFitSettings):
    """Settings of the restricted gradient."""

    epsilon: float = setting(
        0.005, "half of the squared length of every step: a step is sqrt(2 epsilon) long in the parameters", above=0
    )


def restricted(settings: RestrictedSettings, policy: Policy) -> OnPolicy:
    r"""The restricted gradient (Kochenderfer, Wheeler and Wray, *Algorithms for Decision Making*, section 12.2).

    The first-order model of the return is maximised in a ball of parameters,

    .. math::
        \max_d g^T d \quad \text{subject to} \quad \tfrac12 \|d\|^2 \le \epsilon, \qquad
        \theta \leftarrow \theta + \sqrt{2 \epsilon / g^T g} \; g.
    """
    step = solvers.Step(solvers.Euclidean(), solvers.Boundary(settings.epsilon))
    return compose(settings, policy, objectives.Score(), apart(settings, policy, step))
