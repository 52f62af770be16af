r"""Two-sided bounds of what a new policy gains, from total variation and from divergences, in a tabular process.

All have the form :math:`L_\pi(\pi') - c \le J(\pi') - J(\pi) \le L_\pi(\pi') + c`, with the surrogate L, whose states are
those of the old policy. They differ in the penalty ``c``: by how much the states of the two policies can differ, times what
the advantages of the old one can make of it. They hold without a horizon for :math:`\gamma < 1`, and with a horizon H for
:math:`\gamma \le 1`.

Sources: Schulman et al. 2015, *Trust Region Policy Optimization*; Achiam et al. 2017, *Constrained Policy Optimization*;
lecture notes *Advanced Policy Optimization* (the mismatch of distributions), whose bound is printed without the scale of the
rewards.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from jumar.lab.families import table
from jumar.lab.improvement import (
    max_kl,
    max_kl_constant,
    mean_kl,
    mean_kl_constant,
    sums_of_discounts,
    surrogate,
)
from jumar.lab.precision import in_double
from jumar.lab.rollouts import discounts
from jumar.lab.tabular import TabularMDP, expected_advantages, occupancies, visitation
from jumar.lab.trajectories import horizon_of
from jumar.policies.distributions import Categorical


class Bounds(NamedTuple):
    r"""A lower and an upper bound of :math:`J(\pi') - J(\pi)`, scalars in units of J."""

    lower: Array
    upper: Array


# -- total variation ----------------------------------------------------------------------------------------------------


@in_double
def total_variation(old: Categorical, new: Categorical) -> Array:
    r"""Return :math:`TV(s) = \frac12 \sum_a |\pi'(a|s) - \pi(a|s)|`, ``[S]``, in [0, 1]."""
    return 0.5 * jnp.sum(jnp.abs(new.probs - old.probs), -1)


@in_double
def mean_total_variation(mdp: TabularMDP, old: Categorical, new: Categorical) -> Array:
    r"""Return :math:`E_{s \sim d_\pi}[TV(s)]`, with the states of the old policy."""
    visits = visitation(mdp, old)
    return jnp.sum(visits * total_variation(old, new)) / jnp.sum(visits)


@in_double
def max_total_variation(old: Categorical, new: Categorical) -> Array:
    r"""Return :math:`\max_s TV(s)` over all states, visited or not."""
    return jnp.max(total_variation(old, new))


@in_double
def pinsker(kl: Array) -> Array:
    r"""Return :math:`\sqrt{KL / 2}`, which total variation is at most, of divergences in nats, elementwise.

    It holds for both directions of the divergence. Above 2 nats it says nothing, as total variation is at most 1.

    Source: Pinsker's inequality; Cover and Thomas 2006, *Elements of Information Theory*, lemma 11.6.1.
    """
    return jnp.sqrt(0.5 * jnp.asarray(kl))


# -- how far states move ------------------------------------------------------------------------------------------------


@in_double
def state_shift(mdp: TabularMDP, old: Categorical, new: Categorical, length: int) -> Array:
    r"""Return :math:`\sum_s |P'(s_t = s) - P(s_t = s)|` of the steps :math:`t < length`, ``[length]``, in [0, 2]."""
    return jnp.sum(jnp.abs(occupancies(mdp, new, length) - occupancies(mdp, old, length)), -1)


@in_double
def state_shift_bound(old: Categorical, new: Categorical, length: int) -> Array:
    r"""Return :math:`2 t \epsilon`, which :func:`state_shift` is at most, ``[length]``; :math:`\epsilon = \max_s TV(s)`.

    Source: lecture notes *Advanced Policy Optimization*; after Ross, Gordon and Bagnell 2011, *A Reduction of Imitation
    Learning and Structured Prediction to No-Regret Online Learning*.
    """
    return 2.0 * max_total_variation(old, new) * jnp.arange(length)


@in_double
def mismatch_bounds(mdp: TabularMDP, old: Categorical, new: Categorical) -> Bounds:
    r"""Return :math:`L_\pi(\pi') \pm \sum_t \gamma^t \, 2 t \epsilon \max_s |E_{a \sim \pi'} A_\pi(s, a)|`.

    :math:`\epsilon = \max_s TV(s)`, and the maximum is over all states and, with a horizon, steps. Without a discount the sum
    of :math:`2 t` over H steps is :math:`H (H - 1)`; without a horizon, :math:`\sum_t t \gamma^t = \gamma / (1 - \gamma)^2`.

    The notes print :math:`L - 2 \epsilon H^2` (:func:`printed_mismatch_bound`).

    Raises:
        UsageError: gamma is 1 and there is no horizon.

    Source: lecture notes *Advanced Policy Optimization*, in the form that has the units of J.
    """
    largest = jnp.max(jnp.abs(expected_advantages(mdp, old, new)))
    return _around(mdp, old, new, 2.0 * sums_of_discounts(mdp).elapsed * max_total_variation(old, new) * largest)


@in_double
def printed_mismatch_bound(mdp: TabularMDP, old: Categorical, new: Categorical) -> Array:
    r"""Return :math:`L_\pi(\pi') - 2 \epsilon H^2`: the bound as printed, which is wrong.

    :math:`\epsilon = \max_{s,a} |\pi'(a|s) - \pi(a|s)|`. It does not scale with the rewards, so that large rewards refute it
    (:func:`mismatch_example`). And probabilities of many actions can each differ by little while the total variation is 1.

    Raises:
        UsageError: the process has no horizon.
    """
    return surrogate(mdp, old, new) - 2.0 * jnp.max(jnp.abs(new.probs - old.probs)) * horizon_of(mdp) ** 2


def mismatch_example(scale: float = 100.0) -> tuple[TabularMDP, Categorical, Categorical]:
    r"""Return a process of 4 steps, an old and a new policy, that refute the printed bound where ``scale`` is above 86.3.

    It begins in state 0. There action 1 leads to state 1, which is never left, and where action 1 earns ``scale``; all else
    earns nothing. The old policy takes each action half of the time, and :math:`J(\pi) = \frac{17}{16}` scale. The new one
    goes to state 1 with 0.6, and takes action 1 there with 0.4 only: it moves to where it is worse. Worked out by hand:

    ===========================================  ==================
    :math:`J(\pi') - J(\pi)`                     -0.1121 scale
    :math:`L_\pi(\pi')`                          -0.0750 scale
    :func:`mismatch_bounds`, from below          -0.1950 scale
    :func:`printed_mismatch_bound`               -0.0750 scale - 3.2
    ===========================================  ==================
    """
    mdp = TabularMDP.of(
        transitions=[[[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [0.0, 1.0]]],
        rewards=[[0.0, 0.0], [0.0, scale]],
        initial=[1.0, 0.0],
        gamma=1.0,
        horizon=4,
    )
    return mdp, table(np.array([[0.5, 0.5], [0.5, 0.5]])), table(np.array([[0.4, 0.6], [0.6, 0.4]]))


# -- bounds of the gain -------------------------------------------------------------------------------------------------


@in_double
def max_kl_bounds(mdp: TabularMDP, old: Categorical, new: Categorical) -> Bounds:
    r"""Return :math:`L_\pi(\pi') \pm C \max_s KL(\pi \| \pi')`, C as in :func:`~jumar.lab.improvement.max_kl_constant`.

    Raises:
        UsageError: gamma is 1 and there is no horizon.

    Source: Schulman et al. 2015, theorem 1, whose proof bounds the size of the difference.
    """
    return _around(mdp, old, new, max_kl_constant(mdp, old) * max_kl(old, new))


@in_double
def max_tv_bounds(mdp: TabularMDP, old: Categorical, new: Categorical) -> Bounds:
    r"""Return :math:`L_\pi(\pi') \pm C (\max_s TV(s))^2` with the same C; at least as tight as :func:`max_kl_bounds`.

    Raises:
        UsageError: gamma is 1 and there is no horizon.

    Source: Schulman et al. 2015, theorem 1 before the step to the divergence (:math:`TV^2 \le KL`).
    """
    return _around(mdp, old, new, max_kl_constant(mdp, old) * jnp.square(max_total_variation(old, new)))


@in_double
def mean_kl_bounds(mdp: TabularMDP, old: Categorical, new: Categorical, reverse: bool = False) -> Bounds:
    r"""Return :math:`L_\pi(\pi') \pm C \sqrt{E_{s \sim d_\pi} KL}`, C as in :func:`~jumar.lab.improvement.mean_kl_constant`.

    The divergence is :math:`KL(\pi \| \pi')`, or with ``reverse`` :math:`KL(\pi' \| \pi)`.

    Raises:
        UsageError: gamma is 1 and there is no horizon.

    Source: Achiam et al. 2017, corollaries 1 to 3.
    """
    return _around(mdp, old, new, mean_kl_constant(mdp, old, new) * jnp.sqrt(mean_kl(mdp, old, new, reverse)))


@in_double
def mean_tv_bounds(mdp: TabularMDP, old: Categorical, new: Categorical) -> Bounds:
    r"""Return :math:`L_\pi(\pi') \pm 2 \epsilon \sum_k c_k E_{s_k \sim \pi}[TV(s_k)]`, no wider than :func:`mean_kl_bounds`.

    :math:`\epsilon = \max_s |E_{a \sim \pi'} A_\pi(s, a)|`, and :math:`c_k = \sum_{t > k} \gamma^t` is the weight of the
    steps that a decision at step k can still change. Without a horizon the penalty is
    :math:`\frac{2 \gamma \epsilon}{(1 - \gamma)^2} E_{s \sim d_\pi}[TV(s)]`.

    Raises:
        UsageError: gamma is 1 and there is no horizon.

    Source: Achiam et al. 2017, theorem 1.
    """
    largest = jnp.max(jnp.abs(expected_advantages(mdp, old, new)))
    if mdp.horizon is None:
        changed = sums_of_discounts(mdp).later * visitation(mdp, old)
    else:
        weights = discounts(mdp.gamma, mdp.horizon)
        later = jnp.cumsum(weights[::-1])[::-1] - weights
        changed = later @ occupancies(mdp, old, mdp.horizon)
    return _around(mdp, old, new, 2.0 * largest * jnp.sum(changed * total_variation(old, new)))


def _around(mdp: TabularMDP, old: Categorical, new: Categorical, penalty: Array) -> Bounds:
    promised = surrogate(mdp, old, new)
    return Bounds(promised - penalty, promised + penalty)
