r"""What a new policy gains on an old one in a tabular process, and what can be known of it from the old one alone.

The gain is exactly :math:`J(\pi') - J(\pi) = \sum_s \rho_{\pi'}(s) \sum_a \pi'(a|s) A_\pi(s, a)`, with the visits of the *new*
policy. The surrogate has the visits of the old one in their place. Divergences bound what that changes.

Sources: Kakade and Langford 2002, *Approximately Optimal Approximate Reinforcement Learning*; Schulman et al. 2015, *Trust
Region Policy Optimization*; Achiam et al. 2017, *Constrained Policy Optimization*.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from jumar.errors import UsageError
from jumar.lab.precision import in_double
from jumar.lab.rollouts import discounts
from jumar.lab.tabular import TabularMDP, advantages, expected_advantages, visitation
from jumar.policies.distributions import Categorical


@in_double
def performance_difference(mdp: TabularMDP, old: Categorical, new: Categorical) -> Array:
    r"""Return :math:`J(\pi') - J(\pi) = E_{\tau \sim \pi'}[\sum_t \gamma^t A_\pi(s_t, a_t)]` by the lemma of that name.

    Source: Kakade and Langford 2002, lemma 6.1.
    """
    return jnp.sum(visitation(mdp, new) * expected_advantages(mdp, old, new))


@in_double
def surrogate(mdp: TabularMDP, old: Categorical, new: Categorical) -> Array:
    r"""Return :math:`L_\pi(\pi') = \sum_s \rho_\pi(s) \sum_a \pi'(a|s) A_\pi(s, a)`; 0 where the policies are the same.

    Its gradient there is that of J. Source: Schulman et al. 2015, equation 3, without the constant :math:`J(\pi)`.
    """
    return jnp.sum(visitation(mdp, old) * expected_advantages(mdp, old, new))


@in_double
def mean_kl(mdp: TabularMDP, old: Categorical, new: Categorical, reverse: bool = False) -> Array:
    r"""Return :math:`E_{s \sim d_\pi}[KL(\pi(\cdot|s) \| \pi'(\cdot|s))]`, with the states of the old policy.

    With ``reverse`` it is the mean of :math:`KL(\pi' \| \pi)`, still over the states of the old policy. The two agree to
    second order in the change of the policy.
    """
    visits = visitation(mdp, old)
    return jnp.sum(visits * (new.kl(old) if reverse else old.kl(new))) / jnp.sum(visits)


@in_double
def max_kl(old: Categorical, new: Categorical) -> Array:
    r"""Return :math:`\max_s KL(\pi(\cdot|s) \| \pi'(\cdot|s))` over all states, visited or not.

    With the arguments exchanged it is the largest :math:`KL(\pi' \| \pi)`.
    """
    return jnp.max(old.kl(new))


@in_double
def max_kl_constant(mdp: TabularMDP, old: Categorical) -> Array:
    r"""Return the constant C of :func:`max_kl_bound`, in units of J a nat.

    :math:`C = 4 \epsilon \sum_t t \gamma^t` with :math:`\epsilon = \max |A_\pi|` over all states, actions and, with a
    horizon, the steps :math:`t < H`. Without a horizon it is :math:`4 \epsilon \gamma / (1 - \gamma)^2`; with one and without
    a discount, :math:`2 \epsilon H (H - 1)`.

    Raises:
        UsageError: gamma is 1 and there is no horizon.

    Source: Schulman et al. 2015, theorem 1. With a horizon: t steps after a policy began to differ, the states differ by at
    most 2 t max TV.
    """
    return 4.0 * sums_of_discounts(mdp).elapsed * jnp.max(jnp.abs(advantages(mdp, old)))


@in_double
def mean_kl_constant(mdp: TabularMDP, old: Categorical, new: Categorical) -> Array:
    r"""Return the constant C of :func:`mean_kl_bound`, in units of J by the root of a nat.

    :math:`C = \sqrt2 \epsilon \, (\sum_{t \ge 1} \gamma^t) (\sum_t \gamma^t)` with
    :math:`\epsilon = \max |E_{a \sim \pi'} A_\pi(s, a)|` over all states and, with a horizon, the steps :math:`t < H`.
    Without a horizon it is :math:`\sqrt2 \gamma \epsilon / (1 - \gamma)^2`; with one and without a discount,
    :math:`\sqrt2 \epsilon H (H - 1)`.

    Raises:
        UsageError: gamma is 1 and there is no horizon.

    Source: Achiam et al. 2017, corollaries 1 and 3.
    """
    sums = sums_of_discounts(mdp)
    return math.sqrt(2.0) * sums.later * sums.every * jnp.max(jnp.abs(expected_advantages(mdp, old, new)))


@in_double
def max_kl_bound(mdp: TabularMDP, old: Categorical, new: Categorical) -> Array:
    r"""Return the lower bound :math:`L_\pi(\pi') - C \max_s KL(\pi \| \pi')` of :math:`J(\pi') - J(\pi)`.

    C is :func:`max_kl_constant`: :math:`4 \epsilon \gamma / (1 - \gamma)^2` without a horizon.

    Raises:
        UsageError: gamma is 1 and there is no horizon.

    Source: Schulman et al. 2015, theorem 1.
    """
    return surrogate(mdp, old, new) - max_kl_constant(mdp, old) * max_kl(old, new)


@in_double
def mean_kl_bound(mdp: TabularMDP, old: Categorical, new: Categorical, reverse: bool = False) -> Array:
    r"""Return the lower bound :math:`L_\pi(\pi') - C \sqrt{E_{s \sim d_\pi} KL(\pi \| \pi')}` of :math:`J(\pi') - J(\pi)`.

    C is :func:`mean_kl_constant`: :math:`\sqrt2 \gamma \epsilon / (1 - \gamma)^2` without a horizon. With ``reverse`` the
    divergence is :math:`KL(\pi' \| \pi)`; the bound holds for both, as total variation is symmetric.

    Raises:
        UsageError: gamma is 1 and there is no horizon.

    Source: Achiam et al. 2017, corollaries 1 and 3.
    """
    return surrogate(mdp, old, new) - mean_kl_constant(mdp, old, new) * jnp.sqrt(mean_kl(mdp, old, new, reverse))


class Sums(NamedTuple):
    """Sums over the steps of a process, scalars."""

    every: Array | float
    r""":math:`\sum_t \gamma^t`, :math:`1 / (1 - \gamma)` without a horizon."""
    later: Array | float
    r""":math:`\sum_{t \ge 1} \gamma^t`, :math:`\gamma / (1 - \gamma)` without a horizon."""
    elapsed: Array | float
    r""":math:`\sum_t t \gamma^t`, :math:`\gamma / (1 - \gamma)^2` without a horizon."""


@in_double
def sums_of_discounts(mdp: TabularMDP) -> Sums:
    """Return the sums of discounts that the constants of bounds are made of.

    Raises:
        UsageError: gamma is 1 and there is no horizon.
    """
    if mdp.horizon is not None:
        weights = discounts(mdp.gamma, mdp.horizon)
        return Sums(weights.sum(), weights[1:].sum(), (weights * np.arange(mdp.horizon)).sum())
    gamma = mdp.gamma
    if not isinstance(gamma, Array) and gamma >= 1.0:
        raise UsageError(f"gamma={gamma} must be below 1 in a process without a horizon: there the bound is infinite.")
    return Sums(1.0 / (1.0 - gamma), gamma / (1.0 - gamma), gamma / (1.0 - gamma) ** 2)
