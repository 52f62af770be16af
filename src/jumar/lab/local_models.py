r"""What an update of the book knows of a problem near the parameters :math:`\theta`: sampled from rollouts, or exactly.

A :class:`LocalModel` has the gradient of U, the Fisher matrix of trajectories, the surrogate objective
:math:`f(\theta, \cdot)`, the surrogate constraint :math:`g(\theta, \cdot)`, and the clamped objective. It comes from

- :class:`Sampled`: rollouts of a :class:`Process`, by the shipped estimators and objectives;
- :class:`ExactRegulator`: the closed forms of the simple regulator, their expectations
  (:class:`~jumar.lab.exact_tabular.ExactTabular` for tabular processes);
- or functions of your own, by :class:`Known`.

All means are the book's: over rollouts and over the ``d`` steps of a rollout, with the step ``k`` weighted by
:math:`\gamma^{k-1}`. So gradients of U are sums over steps, and objectives and constraints are those sums divided by ``d``.

Source: Kochenderfer, Wheeler and Wray, *Algorithms for Decision Making*, chapter 12.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import jax.numpy as jnp
from jax import Array

from jumar.errors import UsageError
from jumar.lab import regulator, regulator_improvement, tabular
from jumar.lab.families import Family
from jumar.lab.precision import in_double
from jumar.lab.regulator import Regulator
from jumar.lab.regulator_clamped import clamped_surrogate, clamped_surrogate_objective
from jumar.lab.rollouts import Rollouts, discounts, sampled_gradient
from jumar.policies.distributions import Categorical, Distribution
from jumar.solvers.fisher import scores, trajectory_fisher
from jumar.solvers.objectives import clipped_surrogate, surrogate


class Process(Protocol):
    """A problem with its family of policies, as the book's algorithms are given them: rollouts, likelihoods, divergences."""

    @property
    def gamma(self) -> float:
        """The discount."""
        ...

    def draw(self, theta: Array, key: Array, n: int) -> Rollouts:
        """Draw ``n`` trajectories of the policy ``theta``."""
        ...

    def distribution(self, theta: Array, states: Array) -> Distribution:
        """Return the action distributions at states ``[...]``."""
        ...

    def log_prob(self, theta: Array, states: Array, actions: Array) -> Array:
        r"""Return :math:`\log \pi_\theta(a|s)` of states and actions ``[...]``."""
        ...

    def state_values(self, theta: Array, states: Array) -> Array:
        """Return the exact values of the states ``[N, T]``, where the process knows them."""
        ...


@dataclass(frozen=True)
class RegulatorProcess:
    """The simple regulator (:mod:`jumar.lab.regulator`) as a :class:`Process`; ``theta`` is the book's, ``[2]``."""

    problem: Regulator = Regulator()

    @property
    def gamma(self) -> float:
        """The discount."""
        return self.problem.gamma

    def draw(self, theta: Array, key: Array, n: int) -> Rollouts:
        """Draw ``n`` trajectories."""
        return regulator.draw(self.problem, theta, key, n)

    def distribution(self, theta: Array, states: Array) -> Distribution:
        """Return the action distributions at states ``[...]``."""
        return regulator.policy(theta, states)

    def log_prob(self, theta: Array, states: Array, actions: Array) -> Array:
        r"""Return :math:`\log \pi_\theta(a|s)`."""
        return regulator.log_prob(theta, states, actions)

    def state_values(self, theta: Array, states: Array) -> Array:
        """Return the exact values."""
        return regulator_improvement.state_values(self.problem, theta, states)


@dataclass(frozen=True, eq=False)
class TabularProcess:
    """A tabular process with a horizon, and a family of policies in it, as a :class:`Process`.

    Raises:
        UsageError: the process has no horizon.
    """

    mdp: tabular.TabularMDP
    family: Family

    def __post_init__(self) -> None:
        if self.mdp.horizon is None:
            raise UsageError(
                "horizon=None: rollouts need a process with a horizon, as of TabularMDP.of(..., horizon=10)."
            )

    @property
    def gamma(self) -> float:
        """The discount."""
        return self.mdp.gamma

    def draw(self, theta: Array, key: Array, n: int) -> Rollouts:
        """Draw ``n`` trajectories of the horizon's length."""
        return tabular.draw(self.mdp, self.family(theta), key, n, self.mdp.horizon or 0)

    def distribution(self, theta: Array, states: Array) -> Categorical:
        """Return the action distributions at states ``[...]``."""
        return Categorical(self.family(theta).logits[states])

    def log_prob(self, theta: Array, states: Array, actions: Array) -> Array:
        r"""Return :math:`\log \pi_\theta(a|s)`."""
        return self.distribution(theta, states).log_prob(actions)

    def state_values(self, theta: Array, states: Array) -> Array:
        """Return the exact values."""
        values = tabular.state_values(self.mdp, self.family(theta))
        return values[jnp.arange(states.shape[-1]), states]


# -- what judges an action ---------------------------------------------------------------------------------------------

Signal = Callable[[Process, Array, Rollouts], Array]
"""(process, parameters, rollouts) -> what each action is judged by, ``[N, T]``, with the weight of its step in it."""


def whole_return(process: Process, theta: Array, rollouts: Rollouts) -> Array:
    r"""Return :math:`R(\tau) = \sum_k \gamma^{k-1} r_k` at each step: what Algorithms 12.3 to 12.5 take the gradient with."""
    return rollouts.returns(process.gamma)


def reward_to_go(process: Process, theta: Array, rollouts: Rollouts) -> Array:
    r"""Return :math:`\sum_{l \ge k} \gamma^{l-1} r_l` at each step: what Algorithms 12.5 and 12.6 have in their objectives."""
    return _weights(process, rollouts) * rollouts.reward_to_go(process.gamma)


def above_the_mean(process: Process, theta: Array, rollouts: Rollouts) -> Array:
    r"""Return :func:`reward_to_go` minus its mean over the rollouts at the same step: a baseline for each time step.

    Each trajectory has a part in its own baseline, so estimates with it are a factor ``1 - 1/m`` too small.
    """
    to_go = reward_to_go(process, theta, rollouts)
    return to_go - jnp.mean(to_go, 0)


def advantage(process: Process, theta: Array, rollouts: Rollouts) -> Array:
    r"""Return :math:`\gamma^{k-1} (G_k - V_k(s_k))` with the exact values: the advantages of equation 12.22, sampled."""
    values = process.state_values(theta, rollouts.states)
    return _weights(process, rollouts) * (rollouts.reward_to_go(process.gamma) - values)


def _weights(process: Process, rollouts: Rollouts) -> Array:
    return discounts(process.gamma, rollouts.rewards.shape[1])


# -- models ------------------------------------------------------------------------------------------------------------


class LocalModel(NamedTuple):
    r"""What is known of a problem near :math:`\theta`; the functions take the new parameters :math:`\theta'` ``[d]``."""

    gradient: Array
    r""":math:`\nabla U(\theta)`, ``[d]``."""
    fisher: Array
    """The Fisher matrix of whole trajectories, ``[d, d]``."""
    objective: Callable[[Array], Array]
    r""":math:`f(\theta, \theta')`, the surrogate objective of Algorithm 12.5."""
    constraint: Callable[[Array], Array]
    r""":math:`g(\theta, \theta')`, the surrogate constraint of Algorithm 12.5."""
    clamped: Callable[[Array, float], Array]
    r"""The clamped objective of :math:`\theta'` and of :math:`\epsilon`, whose gradient is that of Algorithm 12.6."""

    def penalised(self, new: Array, beta: float) -> Array:
        r"""Return :math:`f - \beta g`, the objective with the constraint as a penalty (equation 12.24)."""
        return self.objective(new) - beta * self.constraint(new)


class Model(Protocol):
    """Something that makes a :class:`LocalModel`."""

    def at(self, theta: Array, key: Array) -> LocalModel:
        """Return what is known near ``theta`` ``[d]``; the key is for what is drawn."""
        ...


@dataclass(frozen=True)
class Sampled:
    r"""The book's estimates from ``m`` rollouts; each call draws new ones.

    Raises:
        UsageError: ``m`` is below 1.
    """

    process: Process
    m: int
    """How many rollouts."""
    signal: Signal = whole_return
    """What the gradient of U judges actions by."""
    judged_by: Signal = reward_to_go
    """What the surrogate objectives judge actions by."""

    def __post_init__(self) -> None:
        if self.m < 1:
            raise UsageError(f"m={self.m} must be at least 1: there must be rollouts to estimate from.")

    def at(self, theta: Array, key: Array) -> LocalModel:
        """Draw the rollouts and estimate from them."""
        return self.of_rollouts(theta, self.process.draw(theta, key, self.m))

    @in_double
    def of_rollouts(self, theta: Array, rollouts: Rollouts) -> LocalModel:
        """Return what rollouts of the policy ``theta`` say; they may be any, not only those that :meth:`at` draws."""
        process, states, actions = self.process, rollouts.states, rollouts.actions
        each = scores(lambda theta: process.log_prob(theta, states, actions), theta)
        ones = jnp.ones(states.shape)
        old_log_probs, judged = process.log_prob(theta, states, actions), self.judged_by(process, theta, rollouts)
        weights = _weights(process, rollouts)

        def objective(new: Array) -> Array:
            return jnp.mean(surrogate(process.log_prob(new, states, actions), old_log_probs, judged))

        def clamped(new: Array, epsilon: float) -> Array:
            return jnp.mean(clipped_surrogate(process.log_prob(new, states, actions), old_log_probs, judged, epsilon))

        def constraint(new: Array) -> Array:
            rows = process.distribution(theta, states).kl(process.distribution(new, states))
            return jnp.mean(weights * rows)

        return LocalModel(
            gradient=sampled_gradient(each, self.signal(process, theta, rollouts), ones),
            fisher=trajectory_fisher(each, ones),
            objective=in_double(objective),
            constraint=in_double(constraint),
            clamped=in_double(clamped),
        )


@dataclass(frozen=True)
class ExactRegulator:
    r"""The simple regulator exactly: each function is the expectation of what :class:`Sampled` estimates from rollouts."""

    problem: Regulator = Regulator()
    by_advantages: bool = False
    """Whether the clamped objective judges actions by their advantages (equation 12.22), not by the reward-to-go."""

    @in_double
    def at(self, theta: Array, key: Array) -> LocalModel:
        """Return the closed forms; the key is not used."""
        problem = self.problem

        def objective(new: Array) -> Array:
            return regulator_improvement.surrogate_objective(problem, theta, new) / problem.depth

        def clamped(new: Array, epsilon: float) -> Array:
            which = clamped_surrogate if self.by_advantages else clamped_surrogate_objective
            return which(problem, theta, new, epsilon) / problem.depth

        return LocalModel(
            gradient=regulator.policy_gradient(problem, theta),
            fisher=regulator.trajectory_fisher(problem, theta),
            objective=in_double(objective),
            constraint=in_double(lambda new: regulator_improvement.surrogate_constraint(problem, theta, new)),
            clamped=in_double(clamped),
        )


@dataclass(frozen=True)
class Known:
    """A model of functions of your own: an exact gradient, say, or an estimator that :class:`Sampled` has not.

    What an update does not use need not be given: Algorithms 12.1 and 12.3 use the gradient alone. An update that lacks
    something says so when it is made.

    Example:
        >>> exact = Known(lambda theta, key: regulator.policy_gradient(problem, theta))
    """

    gradient: Callable[[Array, Array], Array]
    """(theta, key) -> the gradient of U."""
    fisher: Callable[[Array, Array], Array] | None = None
    """(theta, key) -> the Fisher matrix."""
    objective: Callable[[Array, Array], Array] | None = None
    """(theta, new theta) -> the surrogate objective."""
    constraint: Callable[[Array, Array], Array] | None = None
    """(theta, new theta) -> the surrogate constraint."""
    clamped: Callable[[Array, Array, float], Array] | None = None
    """(theta, new theta, epsilon) -> the clamped objective."""

    @in_double
    def at(self, theta: Array, key: Array) -> LocalModel:
        """Return what the functions say, and NaN for what is not given."""
        objective, constraint, clamped = self.objective, self.constraint, self.clamped
        unknown = jnp.full((), jnp.nan, theta.dtype)
        return LocalModel(
            gradient=self.gradient(theta, key),
            fisher=jnp.full((theta.size, theta.size), jnp.nan) if self.fisher is None else self.fisher(theta, key),
            objective=in_double(lambda new: unknown if objective is None else objective(theta, new)),
            constraint=in_double(lambda new: unknown if constraint is None else constraint(theta, new)),
            clamped=in_double(lambda new, epsilon: unknown if clamped is None else clamped(theta, new, epsilon)),
        )


def check_known(model: Model, *names: str) -> None:
    """Raise a ``UsageError`` if the model is :class:`Known` and lacks one of these functions."""
    missing = [name for name in names if isinstance(model, Known) and getattr(model, name) is None]
    if missing:
        raise UsageError(f"the model has no {missing[0]}, which this update needs: give Known(..., {missing[0]}=...).")
