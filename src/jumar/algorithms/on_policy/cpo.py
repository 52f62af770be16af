"""CPO: surrogate . mean KL and a cost limit . backtracking around the step within both."""

from __future__ import annotations

import dataclasses

from jumar import solvers
from jumar.algorithms.on_policy.costs import CostLimit
from jumar.algorithms.on_policy.parts import DIVERGENCES, apart, compose, estimator, plain_value_loss
from jumar.algorithms.on_policy.trpo import TRPOSettings, geometry_of, line_search
from jumar.algorithms.on_policy.update import OnPolicy
from jumar.critics.state_values import CriticPair
from jumar.errors import UsageError
from jumar.policies.policy import Policy
from jumar.settings import setting
from jumar.solvers import objectives


@dataclasses.dataclass(frozen=True, kw_only=True)
class CPOSettings(TRPOSettings):
    """Settings of CPO."""

    cost_limit: float = setting(25.0, "largest mean cost of an episode, undiscounted", at_least=0)
    cost_margin_rate: float = setting(
        0.0,
        "rate at which a margin below cost_limit is learnt: each episode adds this share of what it costs beyond the limit; "
        "0: no margin",
        unit="per episode",
        at_least=0,
    )
    cost_gamma: float | None = setting(None, "discount of costs; none: gamma", at_least=0, at_most=1)
    cost_gae_lambda: float | None = setting(
        None, "lambda of generalized advantage estimation for costs; none: gae_lambda", at_least=0, at_most=1
    )


def cpo(settings: CPOSettings, policy: Policy) -> OnPolicy:
    r"""Constrained policy optimization (Achiam et al. 2017) as a choice of parts.

    .. math::
        \max_\theta E[w A] \quad \text{subject to} \quad J_C + m + H \, E[w A^C] \le d, \quad
        E[KL(\pi_{old} \| \pi_\theta)] \le \delta, \quad w = \pi_\theta(a|s) / \pi_{old}(a|s),

    with :math:`J_C` the mean cost and ``H`` the mean length of recent episodes, ``m`` a margin
    (:class:`jumar.algorithms.on_policy.costs.CostLimit`), and :math:`A^C` centred advantages of costs.
    The step solves the problem to first order, to second in the divergence
    (:func:`jumar.solvers.dual.constrained_optimum`); a line search shortens it until the divergence and the cost keep their
    bounds and the surrogate has grown, or, beyond the limit, the cost has fallen. A critic of costs is fitted together with
    that of rewards.

    Raises:
        UsageError: there is a price on costs too, or the critic is one of actions.
    """
    if settings.advantage == "q":
        raise UsageError(
            "advantage=q values actions by rewards alone, and cpo needs advantages of costs too; choose gae, to-go or return."
        )
    if settings.cost_coef > 0.0:
        raise UsageError(
            f"cost_coef={settings.cost_coef:g} is a price on costs, and cpo has a limit, cost_limit; choose trpo for a price."
        )
    costs = dataclasses.replace(
        settings,
        gamma=settings.gamma if settings.cost_gamma is None else settings.cost_gamma,
        gae_lambda=settings.gae_lambda if settings.cost_gae_lambda is None else settings.cost_gae_lambda,
    )
    step = solvers.DualStep(geometry_of(settings, policy), settings.target_kl)
    search = line_search(settings, step, solvers.WithinLimit())
    rewards_alone = compose(
        settings,
        policy,
        objectives.Surrogate(),
        apart(settings, policy, search),
        divergence=DIVERGENCES[settings.divergence],
    )
    pair = CriticPair(rewards_alone.critic, rewards_alone.critic)
    limit = CostLimit(
        pair, estimator(costs), plain_value_loss(settings), settings.cost_limit, settings.cost_margin_rate
    )
    return dataclasses.replace(rewards_alone, critic=pair, costs=limit)
