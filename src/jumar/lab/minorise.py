r"""Minorise and maximise: each policy is the best of a lower bound of the gain on the one before, so that J never falls.

.. math::
    \pi_{k+1} = \arg\max_{\pi} \; L_{\pi_k}(\pi) - c(\pi_k, \pi), \qquad J(\pi_{k+1}) - J(\pi_k) \ge
    L_{\pi_k}(\pi_{k+1}) - c(\pi_k, \pi_{k+1}) \ge 0

The last inequality holds because :math:`\pi_k` itself is a candidate, for which both terms are 0. The penalty c is

- ``max``: :math:`C \max_s KL`, C as in :func:`~jumar.lab.improvement.max_kl_constant`;
- ``mean``: :math:`C \sqrt{E_{s \sim d} KL}`, C as in :func:`~jumar.lab.improvement.mean_kl_constant`: it is that of the
  candidate and so vanishes with its change. With a constant in its place the root is steeper at 0 than L where
  :math:`C \ge \sqrt2 \, \sigma`, :math:`\sigma^2 = \sum_{s,a} \rho(s)^2 \pi(a|s) A(s, a)^2 / d(s)`, and the old policy is the
  best (:func:`root_penalised`).

All maximisations are those of :mod:`jumar.lab.trust_regions`, over all probabilities of a tabular policy.

Sources: Schulman et al. 2015, *Trust Region Policy Optimization*, algorithm 1; Achiam et al. 2017, *Constrained Policy
Optimization*, corollaries 1 to 3; Hunter and Lange 2004, *A Tutorial on MM Algorithms*.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from jumar.errors import UsageError
from jumar.lab.improvement import Sums, sums_of_discounts
from jumar.lab.tabular import TabularMDP
from jumar.lab.trust_regions import OldPolicy, Optimum, Tilts, falling, old_policy, penalised_tilt
from jumar.policies.distributions import Categorical

PENALTIES = ("max", "mean")


class Iterates(NamedTuple):
    """The policies of an ascent and what they are worth, NumPy arrays."""

    log_probs: np.ndarray
    """``[n + 1, S, A]``, beginning with the policy that was given."""
    performance: np.ndarray
    """J, ``[n + 1]``; it never falls."""
    guaranteed: np.ndarray
    """The largest lower bound of each step's gain, ``[n]``; at least 0."""
    gained: np.ndarray
    """What each step gains, ``[n]``; at least what is guaranteed."""
    divergences: np.ndarray
    """The divergence of each step in nats, the largest or the mean, ``[n]``."""


def minorise_maximise(
    mdp: TabularMDP, policy: Categorical, n: int, penalty: str = "max", reverse: bool = False
) -> Iterates:
    r"""Return ``n`` steps of minorising and maximising.

    Args:
        mdp: the process; for ``mean`` without a horizon.
        policy: the first one, all of whose probabilities are above 0.
        n: how many steps, at least 1.
        penalty: ``max`` or ``mean``.
        reverse: whether divergences are :math:`KL(\pi' \| \pi)`. Both bounds hold for them too.

    Raises:
        UsageError: a number or a name is out of range, the discount is 0 or there is one step only (the surrogate is then the
            gain, and no penalty is needed), or a probability is 0.
    """
    if n < 1:
        raise UsageError(f"n={n} must be at least 1.")
    if penalty not in PENALTIES:
        raise UsageError(f"penalty={penalty!r} is unknown; it must be one of {', '.join(PENALTIES)}.")
    sums = _sums(mdp)
    steps: list[Optimum] = []
    olds = [old_policy(mdp, policy)]
    guaranteed: list[float] = []
    for _ in range(n):
        best, bound = (_max_step if penalty == "max" else _mean_step)(mdp, olds[-1], sums, reverse)
        steps.append(best)
        guaranteed.append(bound)
        olds.append(old_policy(mdp, best.policy))
    worth = np.array([old.performance for old in olds])
    return Iterates(
        log_probs=np.stack([old.log_probs for old in olds]),
        performance=worth,
        guaranteed=np.array(guaranteed),
        gained=np.diff(worth),
        divergences=np.array([step.divergence for step in steps]),
    )


def root_penalised(mdp: TabularMDP, old: Categorical, constant: float, reverse: bool = False) -> Optimum:
    r"""Return :math:`\arg\max_{\pi'} L_\pi(\pi') - C \sqrt{E_{s \sim d_\pi} KL}` for a constant C.

    Where C is too large, the old policy is the best; its divergence is 0, and its multiplier is given as infinite.

    Raises:
        UsageError: the constant is not above 0, or a probability is 0.
    """
    if not constant > 0.0:
        raise UsageError(f"constant={constant} must be above 0.")
    tilts = Tilts.of(old_policy(mdp, old), mdp, "mean", reverse)

    def score(x: np.ndarray) -> np.ndarray:
        return tilts.surrogate(x) - constant * np.sqrt(tilts.divergence(x))

    multipliers = np.asarray(_zoomed(lambda x: score(tilts.at(x[:, None])), tilts))
    x = tilts.at(multipliers)
    if not score(x) > 0.0:
        return _unmoved(tilts)
    return tilts.optimum(x, float(np.exp(multipliers)))


def bound_maximum(mdp: TabularMDP, old: Categorical, reverse: bool = False) -> Optimum:
    r"""Return the policy with the largest :func:`~jumar.lab.improvement.mean_kl_bound`.

    Its constant has the factor :math:`\epsilon = \max_s E_{a \sim \pi'} A(s, a)` of the candidate itself. With a bound e on
    it, a state whose expected advantage would be larger stops at e; the others have a common multiplier. So the answer is
    found among two numbers, e and the multiplier, on grids that are refined around the best.

    Raises:
        UsageError: the process has a horizon, its discount is 0, or a probability is 0.
    """
    return _mean_step(mdp, old_policy(mdp, old), _sums(mdp), reverse)[0]


def _sums(mdp: TabularMDP) -> Sums:
    sums = sums_of_discounts(mdp)
    if not sums.elapsed > 0.0:
        raise UsageError(
            f"gamma={mdp.gamma} and horizon={mdp.horizon}: no step follows that counts, and the bound has no penalty; the "
            "greedy policy is the best."
        )
    return sums


def _max_step(mdp: TabularMDP, old: OldPolicy, sums: Sums, reverse: bool) -> tuple[Optimum, float]:
    tilts = Tilts.of(old, mdp, "max", reverse)
    constant = 4.0 * float(sums.elapsed) * float(np.max(np.abs(old.advantages)))
    if not np.any(tilts.gaps):
        return _unmoved(tilts), 0.0
    best = penalised_tilt(tilts, constant)
    return best, best.surrogate - constant * best.divergence


def _mean_step(mdp: TabularMDP, old: OldPolicy, sums: Sums, reverse: bool) -> tuple[Optimum, float]:
    if mdp.horizon is not None:
        raise UsageError(f"horizon={mdp.horizon}: this maximum is found for processes without a horizon; leave it out.")
    tilts = Tilts.of(old, mdp, "mean", reverse)
    constant = np.sqrt(2.0) * float(sums.later) * float(sums.every)
    probs, advantages = np.exp(old.log_probs), np.where(old.visits[:, None] > 0.0, old.advantages, 0.0)
    most = advantages.max()
    if not most > 0.0:
        return _unmoved(tilts), 0.0

    def expected(x: np.ndarray) -> np.ndarray:
        return np.sum(advantages * probs * np.expm1(tilts.changes(x)), -1)

    def score(x: np.ndarray) -> np.ndarray:
        return tilts.surrogate(x) - constant * expected(x).max(-1) * np.sqrt(tilts.divergence(x))

    def stopped(multipliers: np.ndarray, shares: np.ndarray) -> np.ndarray:
        aims = most * np.exp(shares)[:, None]
        low, high = (np.full((len(shares), len(probs)), bound) for bound in tilts.range)
        at_most = falling(lambda x: expected(x) - aims, low, high)
        return np.maximum(tilts.at(multipliers[:, None])[:, None], at_most)

    middle, share = np.log(tilts.gaps.max()), 0.0
    widths = (25.0, 25.0)
    x = np.full(len(probs), tilts.range[1])
    for _ in range(14):
        us = middle + widths[0] * np.linspace(-1.0, 1.0, 31)
        vs = np.minimum(share + widths[1] * np.linspace(-1.0, 1.0, 31), 0.0)
        every = stopped(us, vs)
        i, j = np.unravel_index(np.argmax(score(every)), (len(us), len(vs)))
        x, middle, share = every[i, j], us[i], vs[j]
        widths = (widths[0] / 5.0, widths[1] / 5.0)
    bound = float(score(x))
    if not bound > 0.0:
        return _unmoved(tilts), 0.0
    return tilts.optimum(x, float(np.exp(middle))), bound


def _zoomed(score: Callable[[np.ndarray], np.ndarray], tilts: Tilts) -> float:
    """Return the logarithm of the multiplier with the largest score, on grids that are refined around the best."""
    largest = tilts.gaps.max()
    middle, width = np.log(largest) if largest > 0.0 else 0.0, 30.0
    for _ in range(16):
        points = middle + width * np.linspace(-1.0, 1.0, 121)
        middle, width = points[np.argmax(score(points))], width / 10.0
    return float(middle)


def _unmoved(tilts: Tilts) -> Optimum:
    return Optimum(Categorical(tilts.log_probs), 0.0, 0.0, float("inf"))  # type: ignore[arg-type]
