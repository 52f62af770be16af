r"""Maximum entropy in a tabular process: what a policy is worth whose entropy counts, and the best one, exactly.

With the temperature :math:`\alpha`, a policy is worth

.. math::
    V(s) = \sum_a \pi(a|s) (Q(s, a) - \alpha \log \pi(a|s)), \qquad
    Q(s, a) = r(s, a) + \gamma \sum_{s'} P(s'|s, a) V(s').

The best policy is :math:`\pi(a|s) \propto e^{Q(s, a) / \alpha}` of its own values, for which
:math:`V(s) = \alpha \log \sum_a e^{Q(s, a) / \alpha}`. Processes have no horizon here.

Sources: Haarnoja, Tang, Abbeel and Levine 2017, *Reinforcement Learning with Deep Energy-Based Policies*; Haarnoja, Zhou,
Abbeel and Levine 2018, *Soft Actor-Critic: Off-Policy Maximum Entropy Deep Reinforcement Learning with a Stochastic Actor*,
lemmas 1 and 2.
"""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
from jax import Array

from jumar.errors import UsageError
from jumar.lab.precision import in_double
from jumar.lab.tabular import TabularMDP, state_values
from jumar.policies.distributions import Categorical


def soft_state_values(mdp: TabularMDP, policy: Categorical, alpha: float) -> Array:
    """Return V of a policy, ``[S]``: that of the process whose rewards have the bonus of its entropy.

    Raises:
        UsageError: the process has a horizon, or the temperature is negative.
    """
    _check(mdp, alpha)
    return _soft_state_values(mdp, policy, alpha)


def soft_action_values(mdp: TabularMDP, policy: Categorical, alpha: float) -> Array:
    """Return Q of a policy, ``[S, A]``; the entropy at the first state is not in it.

    Raises:
        UsageError: the process has a horizon, or the temperature is negative.
    """
    _check(mdp, alpha)
    return _backed_up(mdp, _soft_state_values(mdp, policy, alpha))


@in_double
def soft_improvement(values: Array, alpha: float) -> Categorical:
    r"""Return the policy :math:`\pi(a|s) \propto e^{Q(s, a) / \alpha}` of action values ``[S, A]``; ``alpha`` is above 0.

    Of all policies it is the one whose divergence from that density is smallest, and it is worth at least as much in every
    state as the policy whose values these are.
    """
    return Categorical(values / alpha)


def soft_policy_iteration(mdp: TabularMDP, policy: Categorical, alpha: float, n: int) -> tuple[Categorical, Array]:
    """Return the policy after ``n`` rounds of soft evaluation and improvement, and V of each policy on the way, ``[n, S]``.

    Raises:
        UsageError: the process has a horizon, or the temperature is not above 0.
    """
    _check(mdp, alpha, above=True)
    return _soft_policy_iteration(mdp, policy, alpha, n)


def soft_optimum(mdp: TabularMDP, alpha: float) -> tuple[Categorical, Array]:
    """Return the best policy and its action values ``[S, A]``, by soft value iteration until nothing changes.

    Raises:
        UsageError: the process has a horizon, or the temperature is not above 0.
    """
    _check(mdp, alpha, above=True)
    values = _soft_optimal_values(mdp, alpha)
    return soft_improvement(values, alpha), values


@in_double
def maximum_entropy_choice(scores: Array, weight: float) -> Array:
    r"""Return :math:`\arg\max_p \sum_i p_i c_i - \lambda \sum_i p_i \log p_i`, which is :math:`p_i \propto e^{c_i / \lambda}`.

    Args:
        scores: c, ``[n]``.
        weight: :math:`\lambda`, above 0.
    """
    return soft_improvement(jnp.asarray(scores), weight).probs


def _check(mdp: TabularMDP, alpha: float, above: bool = False) -> None:
    if mdp.horizon is not None:
        raise UsageError(f"horizon={mdp.horizon}: soft values are those of processes without a horizon; leave it out.")
    if not (alpha > 0.0 if above else alpha >= 0.0):
        raise UsageError(f"alpha={alpha} is no temperature; it must be {'above' if above else 'at least'} 0.")


@in_double
def _soft_state_values(mdp: TabularMDP, policy: Categorical, alpha: float) -> Array:
    surprise = jnp.where(policy.probs > 0.0, policy.log_probs, 0.0)
    return state_values(replace(mdp, rewards=jnp.asarray(mdp.rewards) - alpha * surprise), policy)


@in_double
def _backed_up(mdp: TabularMDP, values: Array) -> Array:
    return jnp.asarray(mdp.rewards) + mdp.gamma * jnp.asarray(mdp.transitions) @ values


@in_double
def _soft_policy_iteration(mdp: TabularMDP, policy: Categorical, alpha: float, n: int) -> tuple[Categorical, Array]:
    def improved(policy: Categorical, _: None) -> tuple[Categorical, Array]:
        values = _soft_state_values(mdp, policy, alpha)
        return soft_improvement(_backed_up(mdp, values), alpha), values

    return jax.lax.scan(improved, policy, None, length=n)


@in_double
def _soft_optimal_values(mdp: TabularMDP, alpha: float) -> Array:
    def backed_up(values: Array) -> Array:
        return _backed_up(mdp, alpha * jax.nn.logsumexp(values / alpha, axis=-1))

    def further(state: tuple[Array, Array]) -> tuple[Array, Array]:
        new = backed_up(state[0])
        return new, jnp.max(jnp.abs(new - state[0]))

    def changes(state: tuple[Array, Array]) -> Array:
        return state[1] > 1e-13 * jnp.maximum(1.0, jnp.max(jnp.abs(state[0])))

    start = jnp.asarray(mdp.rewards)
    return jax.lax.while_loop(changes, further, (start, jnp.full((), jnp.inf, start.dtype)))[0]
