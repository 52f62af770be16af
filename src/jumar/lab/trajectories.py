r"""Distributions of whole trajectories of a tabular process: likelihoods, divergences, ratios, and their enumeration.

A trajectory of T steps is :math:`s_0, a_0, \dots, s_{T-1}, a_{T-1}`, with the probability

.. math::
    p(\tau) = P(s_0) \prod_{t < T} \pi(a_t|s_t) \prod_{t < T - 1} P(s_{t+1}|s_t, a_t).

In the ratio of two policies' probabilities of it the transitions cancel, so that divergences of trajectories are sums of
divergences of decisions.

Sources: course notes *Policy Gradients*, equation 4.2 and definitions 4.6.1 to 4.6.4; lecture notes *Advanced Policy
Optimization* (ratios of state distributions); Kochenderfer, Wheeler and Wray, *Algorithms for Decision Making*, equation
12.7.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer

from jumar.errors import UsageError
from jumar.lab.arguments import ArrayLike
from jumar.lab.families import Family
from jumar.lab.precision import in_double
from jumar.lab.rollouts import Rollouts
from jumar.lab.tabular import TabularMDP, advantages, occupancies, visitation
from jumar.policies.distributions import Categorical
from jumar.text import counted

MOST = 500_000
"""The most trajectories that :func:`every_trajectory` makes."""


# -- likelihoods --------------------------------------------------------------------------------------------------------


@in_double
def log_likelihood(mdp: TabularMDP, policy: Categorical, states: ArrayLike, actions: ArrayLike) -> Array:
    r"""Return :math:`\log p(\tau)` of trajectories ``[..., T]``, ``[...]``; it is :math:`-\infty` for what cannot happen.

    Its gradient in the parameters of the policy is the sum of the scores.

    Raises:
        UsageError: the shapes of states and actions differ.

    Source: course notes *Policy Gradients*, equation 4.2.
    """
    states, actions = jnp.asarray(states), jnp.asarray(actions)
    _check_shapes(states, actions)
    begun = jnp.log(jnp.asarray(mdp.initial))[states[..., 0]]
    moved = jnp.log(jnp.asarray(mdp.transitions))[states[..., :-1], actions[..., :-1], states[..., 1:]]
    return begun + jnp.sum(moved, -1) + jnp.sum(_taken(policy.log_probs, states, actions), -1)


@in_double
def log_ratios(policy: Categorical, other: Categorical, states: ArrayLike, actions: ArrayLike) -> Array:
    r"""Return :math:`\log \pi(a|s) - \log \mu(a|s)` of each step, in the shape of ``states``; ``other`` is :math:`\mu`.

    Their sums over a trajectory are the logarithms of its importance weight. The sums of :math:`\log \pi_k - \log \pi` are
    what one set of notes constrains in place of the divergence of trajectories: their mean under :math:`\pi_k` is that
    divergence (:func:`trajectory_kl`), but the sum of few trajectories can be negative.

    Raises:
        UsageError: the shapes of states and actions differ.

    Source: course notes *Policy Gradients*, definitions 4.6.3 and 4.6.4.
    """
    states, actions = jnp.asarray(states), jnp.asarray(actions)
    _check_shapes(states, actions)
    return _taken(policy.log_probs, states, actions) - _taken(other.log_probs, states, actions)


def _taken(table: Array, states: Array, actions: Array) -> Array:
    """Return the entries of a table ``[S, A]``, or of one for each step, ``[H, S, A]``, at states and actions ``[..., T]``."""
    if table.ndim == 2:
        return table[states, actions]
    if states.shape[-1] > len(table):
        raise UsageError(
            f"trajectories of {states.shape[-1]} steps are longer than a policy of {counted(len(table), 'step')}."
        )
    return table[jnp.arange(states.shape[-1]), states, actions]


def _check_shapes(states: Array, actions: Array) -> None:
    if states.shape != actions.shape or states.ndim == 0:
        raise UsageError(f"states of shape {states.shape} and actions of shape {actions.shape} must both be [..., T].")


@in_double
def sampled_kl(old: Categorical, new: Categorical, states: ArrayLike, actions: ArrayLike) -> Array:
    r"""Return :math:`\sum_t \log \pi(a_t|s_t) - \log \pi'(a_t|s_t)` of trajectories ``[..., T]`` of the old policy, ``[...]``.

    The mean over M trajectories is an unbiased estimate of the undiscounted :func:`trajectory_kl`. It can be negative, also
    where the policies are far apart, and so cannot serve alone as a constraint. The notes print the sum over the
    trajectories, which is M times as large.

    Raises:
        UsageError: the shapes of states and actions differ.

    Source: course notes *Policy Gradients*, definition 4.6.4.
    """
    return jnp.sum(log_ratios(old, new, states, actions), -1)


@in_double
def trajectory_kl(
    mdp: TabularMDP, old: Categorical, new: Categorical, discounted: bool = False, reverse: bool = False
) -> Array:
    r"""Return :math:`KL(p_\pi(\tau) \| p_{\pi'}(\tau)) = \sum_t E_{s_t \sim \pi}[KL(\pi \| \pi')[s_t]]`, in nats.

    Args:
        mdp: the process; trajectories have its horizon as their length.
        old: :math:`\pi`.
        new: :math:`\pi'`.
        discounted: whether step t has the weight :math:`\gamma^t`. That is the divergence of the trajectories of a process that
            ends after each step with the probability :math:`1 - \gamma`. A process without a horizon needs it, as the
            divergence of endless trajectories is infinite.
        reverse: whether it is :math:`KL(p_{\pi'} \| p_\pi)`, whose states are those of the new policy.

    Raises:
        UsageError: the process has no horizon, and ``discounted`` is false.

    Source: course notes *Policy Gradients*, definition 4.6.2; Kochenderfer, Wheeler and Wray, *Algorithms for Decision Making*,
    equation 12.7.
    """
    first, second = (new, old) if reverse else (old, new)
    return jnp.sum(trajectory_weights(mdp, first, discounted) * first.kl(second))


@in_double
def trajectory_weights(mdp: TabularMDP, policy: Categorical, discounted: bool = False) -> Array:
    r"""Return the expected visits of a trajectory, :math:`P(s_t = s)` or :math:`\gamma^t P(s_t = s)`, ``[H, S]``.

    Without a horizon they are :math:`\sum_t \gamma^t P(s_t = s)`, ``[S]``.

    Raises:
        UsageError: the process has no horizon, and ``discounted`` is false.
    """
    if discounted:
        return visitation(mdp, policy)
    return occupancies(mdp, policy, horizon_of(mdp))


# -- ratios of visits ---------------------------------------------------------------------------------------------------


@in_double
def occupancy_ratio(mdp: TabularMDP, new: Categorical, old: Categorical) -> Array:
    r"""Return :math:`d_{\pi'}(s) / d_\pi(s)`, ``[S]``, or with a horizon :math:`P'(s_t = s) / P(s_t = s)`, ``[H, S]``.

    It turns expectations over the states of the old policy into those over the states of the new one. Where neither visits a
    state it is 0.

    Raises:
        UsageError: the new policy visits a state that the old one never visits, where the ratio is infinite.

    Source: lecture notes *Advanced Policy Optimization*.
    """
    above, below = (
        visitation(mdp, policy) if mdp.horizon is None else occupancies(mdp, policy, mdp.horizon)
        for policy in (new, old)
    )
    visited = below > 0.0
    uncovered = ~visited & (above > 0.0)
    if not isinstance(uncovered, Tracer) and np.any(uncovered):
        state = int(np.argwhere(np.asarray(uncovered))[0, -1])
        raise UsageError(
            f"state {state} is visited by the new policy and never by the old one: the ratio of their visits is infinite."
        )
    return jnp.where(visited, above / jnp.where(visited, below, 1.0), 0.0)


@in_double
def off_policy_gradient(
    mdp: TabularMDP, family: Family, flat: Array, behaviour: Categorical, correct_states: bool = True
) -> Array:
    r"""Return the policy gradient as an expectation over what another policy does, ``[d]``.

    .. math::
        \nabla J = \sum_t \gamma^t E_{s, a \sim \mu} \left[ \frac{d_\pi(s)}{d_\mu(s)} \frac{\pi(a|s)}{\mu(a|s)}
        \nabla \log \pi(a|s) A_\pi(s, a) \right]

    It equals :func:`~jumar.lab.gradients.policy_gradient`. Without ``correct_states`` the first ratio is left out, as
    off-policy actor-critic does: that is another vector, the gradient of the surrogate with the states of :math:`\mu`.

    Args:
        mdp: the process.
        family: of policies.
        flat: parameters ``[d]``.
        behaviour: :math:`\mu`, the policy that acts.
        correct_states: whether the ratio of states is a factor.

    Raises:
        UsageError: :math:`\mu` never visits a state that :math:`\pi` visits.

    Sources: lecture notes *Advanced Policy Optimization*; Degris, White and Sutton 2012, *Off-Policy Actor-Critic* (without the
    ratio of states).
    """
    policy = family(flat)
    visits = visitation(mdp, behaviour)
    if correct_states:
        visits = visits * occupancy_ratio(mdp, policy, behaviour)
    ratios = jnp.exp(policy.log_probs - behaviour.log_probs)
    signal = visits[..., None] * behaviour.probs * ratios * advantages(mdp, policy)
    return jax.grad(lambda flat: jnp.sum(signal * family(flat).log_probs))(flat)


# -- all trajectories ---------------------------------------------------------------------------------------------------


def every_trajectory(mdp: TabularMDP) -> Rollouts:
    """Return all trajectories of the process that some policy can have, arrays ``[N, H]``; states and actions are int32.

    With :func:`probabilities` expectations over them are sums. There are up to :math:`(S A)^H`, at most :data:`MOST`.

    Raises:
        UsageError: the process has no horizon, or there are too many trajectories.
    """
    horizon = horizon_of(mdp)
    initial, transitions = np.asarray(mdp.initial), np.asarray(mdp.transitions)
    choices = np.arange(mdp.n_actions)
    states = np.flatnonzero(initial > 0.0)[:, None]
    actions = np.empty((len(states), 0), int)
    for step in range(horizon):
        if step:
            rows, successors = np.nonzero(transitions[states[:, -1], actions[:, -1]] > 0.0)
            states, actions = np.column_stack([states[rows], successors]), actions[rows]
        if len(states) * mdp.n_actions > MOST:
            raise UsageError(
                f"horizon={horizon}: after {step + 1} steps there are {len(states) * mdp.n_actions} trajectories of "
                f"{mdp.n_states} states and {mdp.n_actions} actions; at most {MOST} can be enumerated."
            )
        actions = np.column_stack([np.repeat(actions, mdp.n_actions, 0), np.tile(choices, len(states))])
        states = np.repeat(states, mdp.n_actions, 0)
    rewards = np.asarray(mdp.rewards)[states, actions]
    return Rollouts(states.astype(np.int32), actions.astype(np.int32), rewards)  # type: ignore[arg-type]


@in_double
def probabilities(mdp: TabularMDP, policy: Categorical, rollouts: Rollouts) -> Array:
    r"""Return :math:`p(\tau)` of each trajectory, ``[N]``; over :func:`every_trajectory` they sum to 1."""
    return jnp.exp(log_likelihood(mdp, policy, rollouts.states, rollouts.actions))


def horizon_of(mdp: TabularMDP) -> int:
    """Return the horizon of a process that must have one.

    Raises:
        UsageError: it has none.
    """
    if mdp.horizon is None:
        raise UsageError("horizon=None: this is about whole trajectories; give the process a horizon of at least 1.")
    return mdp.horizon
