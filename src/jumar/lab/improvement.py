r"""What a new policy gains on an old one in a tabular process, and what can be known of it from the old one alone.

The gain is exactly :math:`J(\pi') - J(\pi) = \sum_s \rho_{\pi'}(s) \sum_a \pi'(a|s) A_\pi(s, a)`, with the visits of the *new*
policy. The surrogate has the visits of the old one in their place. Divergences bound what that changes.

Sources: Kakade and Langford 2002, *Approximately Optimal Approximate Reinforcement Learning*; Schulman et al. 2015, *Trust
Region Policy Optimization*; Achiam et al. 2017, *Constrained Policy Optimization*.
"""

from __future__ import annotations

import math

import jax.numpy as jnp
from jax import Array

from jumar.lab.precision import in_double
from jumar.lab.tabular import TabularMDP, advantages, visitation
from jumar.policies.distributions import Categorical


@in_double
def performance_difference(mdp: TabularMDP, old: Categorical, new: Categorical) -> Array:
    r"""Return :math:`J(\pi') - J(\pi) = E_{\tau \sim \pi'}[\sum_t \gamma^t A_\pi(s_t, a_t)]` by the lemma of that name.

    Source: Kakade and Langford 2002, lemma 6.1.
    """
    return jnp.sum(visitation(mdp, new) * _gained(mdp, old, new))


@in_double
def surrogate(mdp: TabularMDP, old: Categorical, new: Categorical) -> Array:
    r"""Return :math:`L_\pi(\pi') = \sum_s \rho_\pi(s) \sum_a \pi'(a|s) A_\pi(s, a)`; 0 where the policies are the same.

    Its gradient there is that of J. Source: Schulman et al. 2015, equation 3, without the constant :math:`J(\pi)`.
    """
    return jnp.sum(visitation(mdp, old) * _gained(mdp, old, new))


@in_double
def mean_kl(mdp: TabularMDP, old: Categorical, new: Categorical) -> Array:
    r"""Return :math:`E_{s \sim d_\pi}[KL(\pi(\cdot|s) \| \pi'(\cdot|s))]`, with the states of the old policy."""
    visits = visitation(mdp, old)
    return jnp.sum(visits * old.kl(new)) / jnp.sum(visits)


@in_double
def max_kl(old: Categorical, new: Categorical) -> Array:
    r"""Return :math:`\max_s KL(\pi(\cdot|s) \| \pi'(\cdot|s))` over all states, visited or not."""
    return jnp.max(old.kl(new))


@in_double
def max_kl_bound(mdp: TabularMDP, old: Categorical, new: Categorical) -> Array:
    r"""Return the lower bound :math:`L_\pi(\pi') - C \max_s KL(\pi \| \pi')` of :math:`J(\pi') - J(\pi)`.

    :math:`C = 4 \epsilon \gamma / (1 - \gamma)^2` and :math:`\epsilon = \max_{s,a} |A_\pi(s, a)|`. The discount must be below
    1.

    Source: Schulman et al. 2015, theorem 1.
    """
    epsilon = jnp.max(jnp.abs(advantages(mdp, old)))
    penalty = 4.0 * epsilon * mdp.gamma / (1.0 - mdp.gamma) ** 2
    return surrogate(mdp, old, new) - penalty * max_kl(old, new)


@in_double
def mean_kl_bound(mdp: TabularMDP, old: Categorical, new: Categorical) -> Array:
    r"""Return the lower bound :math:`L_\pi(\pi') - C \sqrt{E_{s \sim d_\pi} KL(\pi \| \pi')}` of :math:`J(\pi') - J(\pi)`.

    :math:`C = \sqrt2 \gamma \epsilon / (1 - \gamma)^2` and :math:`\epsilon = \max_s |E_{a \sim \pi'} A_\pi(s, a)|`. The
    discount must be below 1.

    Source: Achiam et al. 2017, corollaries 1 and 3.
    """
    epsilon = jnp.max(jnp.abs(_gained(mdp, old, new)))
    penalty = math.sqrt(2.0) * mdp.gamma * epsilon / (1.0 - mdp.gamma) ** 2
    return surrogate(mdp, old, new) - penalty * jnp.sqrt(mean_kl(mdp, old, new))


def _gained(mdp: TabularMDP, old: Categorical, new: Categorical) -> Array:
    r"""Return :math:`\sum_a \pi'(a|s) A_\pi(s, a)`, ``[S]`` or ``[H, S]``."""
    return jnp.sum(new.probs * advantages(mdp, old), -1)
