r"""Optimal policies and values of a tabular process, and policy iteration: exact, or with fitted action values.

Without a horizon the optimal policy does not depend on time, ``[S, A]``; with one it does, ``[H, S, A]``. A policy is optimal
if and only if none of its advantages is above 0, in any state and at any time.

Sources: Howard 1960, *Dynamic Programming and Markov Processes*; Puterman 1994, *Markov Decision Processes*, chapters 4 and 6.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from jumar.errors import UsageError
from jumar.lab.precision import in_double
from jumar.lab.tabular import TabularMDP, action_values, advantages, over_time, state_values, visitation
from jumar.policies.distributions import FORBIDDEN, Categorical

MOST_ROUNDS = 1000
"""The most rounds of policy iteration towards an optimum. It takes some ten, but in single precision it might never settle."""

Fit = Callable[[Array, Array], Array]
"""A policy's exact action values and how often the data have each pair of state and action -> fitted action values.

All three are ``[S, A]``, or ``[H, S, A]`` with a horizon.
"""


def exact(values: Array, weights: Array) -> Array:
    """Return the values as they are: a :data:`Fit` without an error."""
    return values


# -- one step ---------------------------------------------------------------------------------------------------------


@in_double
def greedy(values: Array) -> Categorical:
    r"""Return the policy :math:`\pi(s) = \arg\max_a Q(s, a)` of action values ``[..., S, A]``; it is deterministic.

    Of actions that are equally good, up to rounding, it takes the first one. So it does not depend on the last bits of the
    values, in which a symmetric problem is not symmetric.
    """
    values = jnp.asarray(values, float)
    best = jnp.max(values, -1, keepdims=True)
    return _always(jnp.argmax(values >= best - _rounding(values), -1), values)


@in_double
def greedy_improvement(mdp: TabularMDP, policy: Categorical, fit: Fit = exact) -> Categorical:
    """Return the greedy policy of the policy's action values, or of what is fitted to them.

    Without a ``fit`` it is worth at least as much as the policy in every state and at every time (the policy improvement
    theorem). With one it may be worth less: see :mod:`jumar.lab.fitted_iteration`.
    """
    return greedy(fit(action_values(mdp, policy), training_weights(mdp, policy)))


@in_double
def training_weights(mdp: TabularMDP, policy: Categorical) -> Array:
    r"""Return :math:`d(s) \pi(a|s)`, ``[S, A]`` or ``[H, S, A]``: the share of each pair in the policy's own data."""
    weights = visitation(mdp, policy)[..., None] * policy.probs
    return weights / jnp.sum(weights)


# -- many steps -------------------------------------------------------------------------------------------------------


def policy_iteration(mdp: TabularMDP, policy: Categorical, n: int, fit: Fit = exact) -> tuple[Categorical, Array]:
    """Return the policy after ``n`` greedy improvements, and V of each policy on the way, the first one's first.

    V is ``[n, S]``, or ``[n, H, S]`` with a horizon. Without a ``fit`` no value ever falls, and after finitely many rounds
    the policy is optimal. With a ``fit`` it is fitted policy iteration.

    Raises:
        UsageError: ``n`` is below 1, or the policy's shape is not that of the process.
    """
    if n < 1:
        raise UsageError(f"n={n} must be at least 1: the number of improvements.")
    return _policy_iteration(mdp, policy, n, fit)


@in_double
def _policy_iteration(mdp: TabularMDP, policy: Categorical, n: int, fit: Fit) -> tuple[Categorical, Array]:
    def improved(policy: Categorical, _: None) -> tuple[Categorical, Array]:
        return greedy_improvement(mdp, policy, fit), state_values(mdp, policy)

    start = Categorical(jnp.asarray(over_time(mdp, policy).logits, float))
    return jax.lax.scan(improved, start, None, length=n)


# -- the optimum ------------------------------------------------------------------------------------------------------


@in_double
def optimal_action_values(mdp: TabularMDP) -> Array:
    r"""Return :math:`Q^*`, ``[S, A]`` or ``[H, S, A]``.

    .. math:: Q^*(s, a) = r(s, a) + \gamma \sum_{s'} P(s'|s, a) \max_{a'} Q^*(s', a')

    With a horizon by backward induction. Without one by policy iteration, which ends with the exact values of an optimal
    policy; an action is given up only for one that is better by more than rounding, so that it does end.
    """
    rewards = jnp.asarray(mdp.rewards, float)
    if mdp.horizon is None:
        return _by_policy_iteration(mdp, rewards)

    def before(later: Array, _: None) -> tuple[Array, Array]:
        now = rewards + mdp.gamma * jnp.asarray(mdp.transitions) @ later
        return jnp.max(now, -1), now

    return jax.lax.scan(before, jnp.zeros(mdp.n_states), None, length=mdp.horizon, reverse=True)[1]


def _by_policy_iteration(mdp: TabularMDP, rewards: Array) -> Array:
    def improved(state: tuple[Array, Array, Array, Array]) -> tuple[Array, Array, Array, Array]:
        actions, _, _, rounds = state
        values = action_values(mdp, _always(actions, rewards))
        kept = jnp.take_along_axis(values, actions[:, None], -1)[:, 0]
        better = jnp.max(values, -1) > kept + _rounding(values)
        return jnp.where(better, jnp.argmax(values, -1), actions), values, jnp.any(better), rounds + 1

    def goes_on(state: tuple[Array, Array, Array, Array]) -> Array:
        return state[2] & (state[3] < MOST_ROUNDS)

    start = (jnp.argmax(rewards, -1), rewards, jnp.ones((), bool), jnp.zeros((), int))
    return jax.lax.while_loop(goes_on, improved, start)[1]


def optimal_values(mdp: TabularMDP) -> Array:
    r"""Return :math:`V^*(s) = \max_a Q^*(s, a)`, ``[S]`` or ``[H, S]``: no policy is worth more, in any state."""
    return optimal_action_values(mdp).max(-1)


def optimal_policy(mdp: TabularMDP) -> Categorical:
    """Return an optimal policy, logits ``[S, A]`` or ``[H, S, A]``: of equally good actions it takes the first one."""
    return greedy(optimal_action_values(mdp))


@in_double
def suboptimality_bound(mdp: TabularMDP, policy: Categorical) -> Array:
    r"""Return an upper bound of what the policy lacks, :math:`V^*(s) - V_\pi(s)`, a scalar, or ``[H]`` with a horizon.

    It is :math:`\max_{s, a} A_\pi(s, a)` times :func:`discounted_steps`, by the performance difference lemma, and 0 if and
    only if the policy is optimal.
    """
    return discounted_steps(mdp) * jnp.max(advantages(mdp, policy))


@in_double
def discounted_steps(mdp: TabularMDP) -> Array:
    r"""Return the sum of the discounts of all steps that are left.

    Without a horizon it is :math:`1 / (1 - \gamma)`. With one it is :math:`\sum_{k < H - h} \gamma^k` at the steps h, ``[H]``,
    at most H.
    """
    if mdp.horizon is None:
        return 1.0 / (1.0 - jnp.asarray(mdp.gamma, float))
    return jnp.cumsum(jnp.power(jnp.asarray(mdp.gamma, float), jnp.arange(mdp.horizon)))[::-1]


def _always(actions: Array, like: Array) -> Categorical:
    """Return the policy that takes the actions ``[...]``; its logits have the shape and type of ``like``."""
    chosen = jnp.arange(like.shape[-1]) == actions[..., None]
    return Categorical(jnp.where(chosen, jnp.zeros((), like.dtype), FORBIDDEN))


def _rounding(values: Array) -> Array:
    """Return how far apart action values may be that are equal but for rounding."""
    return jnp.finfo(values.dtype).eps ** 0.75 * jnp.max(jnp.abs(values))
