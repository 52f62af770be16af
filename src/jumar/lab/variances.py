r"""Exact variances of estimators in tabular processes with a horizon: importance sampling and policy gradients.

What is estimated from one trajectory is a random number or vector; from N independent ones the variance is an N-th of what
is returned here.

- Importance sampling (:func:`importance_moments`, :func:`weight_variance`): by a dynamic programme on second moments, so that
  the horizon may be long.
- Policy gradients (:func:`gradient_moments`, :func:`estimator_moments`): by enumerating all trajectories
  (:func:`~jumar.lab.trajectories.every_trajectory`), each of which goes through Jumar's own estimators. So the process must be
  small and the horizon short.

Sources: Precup, Sutton and Singh 2000, *Eligibility Traces for Off-Policy Policy Evaluation*; Greensmith, Bartlett and Baxter
2004, *Variance Reduction Techniques for Gradient Estimates in Reinforcement Learning*; course notes *Policy Gradients*,
section 4.4.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jumar.errors import UsageError
from jumar.estimators.advantages import DiscountedStates, Estimator, ExpectedSarsa, FullReturn, RewardToGo, Steps
from jumar.lab.arguments import ArrayLike
from jumar.lab.families import Family
from jumar.lab.precision import in_double
from jumar.lab.rollouts import Rollouts, sampled_gradient
from jumar.lab.tabular import TabularMDP, action_values, over_time, state_values
from jumar.lab.trajectories import every_trajectory, horizon_of, probabilities
from jumar.policies.distributions import Categorical
from jumar.solvers.fisher import scores

SIGNALS = ("return", "to-go", "action-values")
BASELINES = ("none", "time", "value", "optimal")


class Moments(NamedTuple):
    """Mean and variance of an estimate from one trajectory: scalars, or of a vector ``[d]`` and its covariance ``[d, d]``."""

    mean: ArrayLike
    variance: ArrayLike

    @property
    def total(self) -> float:
        """The trace of the covariance: the expected squared distance from the mean."""
        return float(np.trace(np.atleast_2d(np.asarray(self.variance))))


# -- importance sampling ------------------------------------------------------------------------------------------------


@in_double
def importance_moments(mdp: TabularMDP, old: Categorical, new: Categorical, per_step: bool = True) -> Moments:
    r"""Return mean and variance of the estimate of :math:`J(\pi')` from one trajectory of the old policy :math:`\pi`.

    With :math:`\rho_t = \pi'(a_t|s_t) / \pi(a_t|s_t)` the estimate is

    - per step: :math:`\sum_t \gamma^t r_t \prod_{i \le t} \rho_i`;
    - by whole trajectories (``per_step`` false): :math:`\prod_i \rho_i \sum_t \gamma^t r_t`.

    Both means are :math:`J(\pi')`. The variance is found by going backwards over second moments. Per step, with
    :math:`X_t = \rho_t (r_t + \gamma X_{t+1})`,

    .. math::
        E[X_t^2|s] = \sum_a \frac{\pi'(a|s)^2}{\pi(a|s)} \Bigl( r^2 + 2 \gamma r \sum_{s'} P(s'|s, a) V_{\pi'}(s') + \gamma^2
        \sum_{s'} P(s'|s, a) E[X_{t+1}^2|s'] \Bigr);

    by whole trajectories 1 and :math:`V_{\pi'}` give way to the moments :math:`E[W^2|s']` and :math:`E[W^2 G|s']` of the
    later weight W and reward-to-go G. With two equal policies both are the variance of the return.

    Raises:
        UsageError: the process has no horizon.

    Source: Precup, Sutton and Singh 2000; course notes *Policy Gradients*, definition 4.6.3.
    """
    horizon_of(mdp)
    rewards, squares = jnp.asarray(mdp.rewards), _second_moments(mdp, old, new)
    values = state_values(mdp, new)
    following = jnp.concatenate([values[1:], jnp.zeros_like(values[:1])])

    def before(later: tuple[Array, Array, Array], now: tuple[Array, Array]) -> tuple[tuple[Array, Array, Array], None]:
        value, squares = now
        weight, first, second = (jnp.asarray(mdp.transitions) @ x for x in later)
        weight, first = (jnp.ones_like(weight), jnp.asarray(mdp.transitions) @ value) if per_step else (weight, first)
        terms = (
            weight,
            rewards * weight + mdp.gamma * first,
            rewards**2 * weight + 2.0 * mdp.gamma * rewards * first + mdp.gamma**2 * second,
        )
        weight, first, second = (jnp.sum(squares * x, -1) for x in terms)
        return (weight, first, second), None

    nothing = jnp.zeros(mdp.n_states)
    after = nothing + 1.0, nothing, nothing
    (_, _, second), _ = jax.lax.scan(before, after, (following, squares), reverse=True)
    mean = jnp.asarray(mdp.initial) @ values[0]
    return Moments(mean, jnp.asarray(mdp.initial) @ second - mean**2)


@in_double
def weight_variance(mdp: TabularMDP, old: Categorical, new: Categorical) -> Array:
    r"""Return the variance of :math:`\prod_{i \le t} \rho_i` under the old policy for each step, ``[H]``.

    The mean is 1. The last is the :math:`\chi^2` divergence between the trajectories of the two policies. It grows
    exponentially with the number of steps.

    Raises:
        UsageError: the process has no horizon.
    """
    horizon_of(mdp)

    def after(now: Array, squares: Array) -> tuple[Array, Array]:
        weighted = now[:, None] * squares
        return jnp.einsum("sa,sap->p", weighted, mdp.transitions), jnp.sum(weighted)

    return jax.lax.scan(after, jnp.asarray(mdp.initial), _second_moments(mdp, old, new))[1] - 1.0


def _second_moments(mdp: TabularMDP, old: Categorical, new: Categorical) -> Array:
    r"""Return :math:`\pi(a|s) \rho^2 = \pi'(a|s)^2 / \pi(a|s)`, ``[H, S, A]``."""
    old, new = over_time(mdp, old), over_time(mdp, new)
    return new.probs * jnp.exp(new.log_probs - old.log_probs)


# -- policy gradients ---------------------------------------------------------------------------------------------------


def gradient_moments(
    mdp: TabularMDP, family: Family, flat: ArrayLike, signal: str = "to-go", baseline: str = "none"
) -> Moments:
    r"""Return the mean ``[d]`` and the covariance ``[d, d]`` of the gradient :math:`\sum_t w_t \nabla \log \pi (x_t - b_t)`.

    The mean is :math:`\nabla J` for each signal and baseline.

    Args:
        mdp: a small process with a short horizon.
        family: of policies.
        flat: parameters ``[d]``.
        signal: x, ``return`` (the whole return, :math:`w_t = 1`), ``to-go`` (the reward-to-go, :math:`w_t = \gamma^t`) or
            ``action-values`` (the exact :math:`Q_t(s_t, a_t)`, :math:`w_t = \gamma^t`).
        baseline: b, ``none``; ``time``: the exact mean of x at each step; ``value``: the exact :math:`V_t(s_t)`, with which
            action values become advantages; or ``optimal``: of all functions of step and state the one with the smallest total
            variance (:func:`optimal_baseline`).

    Raises:
        UsageError: the signal or the baseline is unknown, the process has no horizon or too many trajectories.

    Source: course notes *Policy Gradients*, section 4.4; Greensmith, Bartlett and Baxter 2004.
    """
    made_by = estimator_of(mdp, signal)
    if baseline not in BASELINES:
        raise UsageError(f"baseline={baseline!r} is unknown; it must be one of {', '.join(BASELINES)}.")
    nothing = np.zeros((horizon_of(mdp), mdp.n_states))
    values: ArrayLike = nothing
    if baseline == "time":
        values = nothing + _mean_signals(mdp, family, flat, made_by)[:, None]
    elif baseline == "value":
        values = state_values(mdp, _policy_and_scores(family, flat)[0])
    elif baseline == "optimal":
        values = optimal_baseline(mdp, family, flat, made_by)
    return estimator_moments(mdp, family, flat, made_by, values)


def estimator_of(mdp: TabularMDP, signal: str) -> Estimator:
    """Return Jumar's estimator of a signal, with the weights under which its gradient is that of J.

    Raises:
        UsageError: the signal is unknown.
    """
    if signal == "return":
        return FullReturn(mdp.gamma)
    if signal == "to-go":
        return DiscountedStates(RewardToGo(mdp.gamma), mdp.gamma)
    if signal == "action-values":
        return DiscountedStates(ExpectedSarsa(mdp.gamma), mdp.gamma)
    raise UsageError(f"signal={signal!r} is unknown; it must be one of {', '.join(SIGNALS)}.")


def estimator_moments(
    mdp: TabularMDP, family: Family, flat: ArrayLike, estimator: Estimator, values: ArrayLike
) -> Moments:
    r"""Return the mean ``[d]`` and the covariance ``[d, d]`` of one trajectory's gradient with any of Jumar's estimators.

    Args:
        mdp: a small process with a short horizon.
        family: of policies.
        flat: parameters ``[d]``.
        estimator: makes advantages and weights, ``DiscountedStates(GAE(gamma, 0.9), gamma)`` say.
        values: what it takes for V, ``[H, S]``: the baseline. The action values that it is given are the exact ones.

    Raises:
        UsageError: the process has no horizon or too many trajectories.
    """
    of = _everything(mdp, family, flat, values)
    each = of.gradients(estimator)
    mean = of.probs @ each
    centred = each - mean
    return Moments(mean, (of.probs[:, None] * centred).T @ centred)


def optimal_baseline(mdp: TabularMDP, family: Family, flat: ArrayLike, estimator: Estimator) -> np.ndarray:
    r"""Return the baseline :math:`b_t(s)`, ``[H, S]``, for which the total variance of the gradient is smallest.

    With the gradient without a baseline, :math:`y = \sum_k w_k \nabla \log \pi_k x_k`, it is

    .. math::
        b_t(s) = \frac{E[w_t \nabla \log \pi_t^T y \,|\, s_t = s]}{E[w_t^2 \|\nabla \log \pi_t\|^2 \,|\, s_t = s]},

    as scores at different steps are uncorrelated, so that each :math:`b_t(s)` can be chosen by itself. y has the terms of all
    steps in it: with :math:`w_t \nabla \log \pi_t x_t` in its place (the form that is often given) the variance is a little
    larger. It is 0 where the state is never visited at that step, or no score there differs from 0.

    Args:
        mdp: a small process with a short horizon.
        family: of policies.
        flat: parameters ``[d]``.
        estimator: one whose advantage is a signal minus the value.

    Raises:
        UsageError: the process has no horizon or too many trajectories.

    Source: the least squares of :math:`y` on the scores; Greensmith, Bartlett and Baxter 2004.
    """
    of = _everything(mdp, family, flat, np.zeros((horizon_of(mdp), mdp.n_states)))
    scored = np.asarray(of.estimates(estimator)[1]).T[..., None] * of.scores
    along = np.einsum("ntd,nd->nt", scored, of.gradients(estimator))
    above, below = (of.sum_by_state(mdp, x) for x in (along, np.square(scored).sum(-1)))
    return np.where(below > 0.0, above / np.where(below > 0.0, below, 1.0), 0.0)


class _Everything(NamedTuple):
    """All trajectories of a process under a policy."""

    probs: np.ndarray
    """``[N]``."""
    rollouts: Rollouts
    steps: Steps
    """``[T, N]``."""
    scores: np.ndarray
    """``[N, T, d]``."""

    def estimates(self, estimator: Estimator) -> tuple[Any, Any]:
        """Return the advantages and the weights, ``[T, N]``."""
        return _estimates(estimator, self.steps)

    def gradients(self, estimator: Estimator) -> np.ndarray:
        """Return the gradient of each trajectory, ``[N, d]``."""
        advantages, weights = self.estimates(estimator)
        return np.asarray(_gradients(self.scores, advantages.T, weights.T))

    def sum_by_state(self, mdp: TabularMDP, rows: np.ndarray) -> np.ndarray:
        """Return the expectation of rows ``[N, T]`` where each state is visited, ``[T, S]``."""
        steps, states = rows.shape[1], np.asarray(self.rollouts.states)
        index = np.arange(steps) * mdp.n_states + states
        sums = np.bincount(index.ravel(), (self.probs[:, None] * rows).ravel(), steps * mdp.n_states)
        return sums.reshape(steps, mdp.n_states)


def _everything(mdp: TabularMDP, family: Family, flat: ArrayLike, values: ArrayLike) -> _Everything:
    rollouts = every_trajectory(mdp)
    states, actions = np.asarray(rollouts.states), np.asarray(rollouts.actions)
    policy, table = _policy_and_scores(family, flat)
    time = np.arange(states.shape[1])
    q = np.asarray(action_values(mdp, policy))[time, states, actions]
    steps = _steps(np.asarray(rollouts.rewards), np.asarray(values)[time, states], q)
    return _Everything(
        np.asarray(probabilities(mdp, policy, rollouts)), rollouts, steps, np.asarray(table)[states, actions]
    )


@in_double
def _policy_and_scores(family: Family, flat: ArrayLike) -> tuple[Categorical, Array]:
    flat = jnp.asarray(flat)
    return family(flat), scores(lambda x: family(x).log_probs, flat)


@in_double
def _steps(rewards: ArrayLike, values: ArrayLike, action_values: ArrayLike) -> Steps:
    """Return whole trajectories ``[N, T]``, whose last step terminates, as an estimator takes them."""
    rewards, values, action_values = (jnp.asarray(x).T for x in (rewards, values, action_values))
    successors = jnp.concatenate([values[1:], jnp.zeros_like(values[:1])])
    ended = jnp.zeros(rewards.shape, bool)
    steps = Steps.on_policy(rewards, values, successors, ended.at[-1].set(True), ended)
    return steps._replace(action_values=action_values)


@in_double
def _estimates(estimator: Estimator, steps: Steps) -> tuple[Array, Array]:
    estimates = estimator(steps)
    return estimates.advantages, estimates.weights


@in_double
def _gradients(scores: ArrayLike, signals: Array, weights: Array) -> Array:
    return jax.vmap(lambda *one: sampled_gradient(*(x[None] for x in one)))(jnp.asarray(scores), signals, weights)


def _mean_signals(mdp: TabularMDP, family: Family, flat: ArrayLike, estimator: Estimator) -> np.ndarray:
    of = _everything(mdp, family, flat, np.zeros((horizon_of(mdp), mdp.n_states)))
    return np.asarray(of.estimates(estimator)[0]) @ of.probs
