r"""The best policy in a trust region, and under a penalty, exactly: all probabilities of a tabular policy are free.

The surrogate is linear in the new policy, :math:`L(\pi') = \sum_{s,a} G(s, a) \pi'(a|s)` with
:math:`G(s, a) = \sum_t \rho_t(s) A_t(s, a)` of the old policy. It is made as large as possible under one of three constraints

.. math::
    \sum_s w(s) \, KL(\pi(\cdot|s) \| \pi'(\cdot|s)) \le \delta, \qquad \max_s KL(\pi(\cdot|s) \| \pi'(\cdot|s)) \le \delta,

where w is the state distribution :math:`d_\pi` (``mean``), or the undiscounted visits :math:`\sum_t P(s_t = s)`, with which
the sum is the divergence between the distributions of whole trajectories (``trajectory``); the second is ``max``.

*Derivation.* With the multipliers :math:`\lambda` of the constraint and :math:`\mu_s` of :math:`\sum_a \pi'(a|s) = 1`, the
derivative of the Lagrangian with respect to :math:`\pi'(a|s)` is :math:`G(s, a) + \lambda w(s) \pi(a|s) / \pi'(a|s) - \mu_s`,
and it is 0 where

.. math::
    \pi'(a|s) = \frac{\lambda \, \pi(a|s)}{\nu_s - B(s, a)}, \qquad B = G / w, \quad \nu_s = \mu_s / w(s) > \max_a B(s, a).

With :math:`\nu_s = \max_a B + c_s`, :math:`c_s > 0`, normalising gives
:math:`1 / \lambda = \sum_a \pi(a|s) / (c_s + \max B - B(s, a))`, which grows from 0 without bound as c falls: for each
:math:`\lambda` there is one :math:`c_s`. The divergence falls as :math:`\lambda` grows, so that a bisection finds the
:math:`\lambda` of a given :math:`\delta`; and L is concave in :math:`\delta`, with the slope :math:`\lambda`. The penalised
:math:`L - \beta \sum_s w(s) KL` is largest at :math:`\lambda = \beta`.

Under the largest divergence the states are independent, each with a multiplier :math:`\lambda_s` of its own (and
:math:`B = G`), and the slope in :math:`\delta` is :math:`\sum_s \lambda_s`. So :math:`L - \beta \max_s KL` is largest where
:math:`\sum_s \lambda_s = \beta`.

With ``reverse`` the divergence is :math:`KL(\pi' \| \pi)`. Then the stationary policies are
:math:`\pi'(a|s) \propto \pi(a|s) e^{B(s, a) / \lambda}`, and the rest is the same, but that the divergence is bounded by
:math:`-\log \pi(a^*|s)`: from there on the constraint does not bind, the policy is greedy and :math:`\lambda = 0`.

States that the old policy never visits keep their decisions. Functions here take numbers and return NumPy arrays; they cannot
be traced.

Sources: Schulman et al. 2015, *Trust Region Policy Optimization*; course notes *Policy Gradients*, definitions 4.6.2 and
4.6.7; for the tilted form Peters, Mülling and Altün 2010, *Relative Entropy Policy Search*.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jumar.errors import UsageError
from jumar.lab.arguments import check_positive
from jumar.lab.precision import in_double
from jumar.lab.tabular import TabularMDP, action_values, advantages, occupancies, performance, visitation
from jumar.lab.trajectories import horizon_of
from jumar.policies.distributions import Categorical

DIVERGENCES = ("mean", "max", "trajectory")


class Optimum(NamedTuple):
    """The policy that is best, and what it is worth."""

    policy: Categorical
    """Logits ``[S, A]``, log-probabilities in double precision."""
    surrogate: float
    """L, in units of J."""
    divergence: float
    """What is constrained or penalised, in nats."""
    multiplier: float
    r""":math:`\lambda`, the slope of the best L in the divergence; 0 where the constraint does not bind."""


def trust_region(
    mdp: TabularMDP, old: Categorical, delta: float, divergence: str = "mean", reverse: bool = False
) -> Optimum:
    r"""Return :math:`\arg\max_{\pi'} L_\pi(\pi')` with a divergence of at most ``delta`` nats.

    Args:
        mdp: the process.
        old: :math:`\pi`, all of whose probabilities are above 0.
        delta: the largest divergence, above 0.
        divergence: ``mean``, ``max``, or ``trajectory``, which needs a horizon.
        reverse: whether it is :math:`KL(\pi' \| \pi)`; not for trajectories, as the states then depend on the new policy.

    Raises:
        UsageError: ``delta`` is not above 0, the divergence is unknown or none of this process, or a probability is 0.
    """
    check_positive("delta", delta)
    tilts = Tilts.of(old_policy(mdp, old), mdp, divergence, reverse)
    if divergence == "max":
        at = tilts.within(delta)
        return tilts.optimum(at, float(np.sum(tilts.multipliers(at))))
    multiplier = falling(lambda x: tilts.divergence(tilts.at(x)) - delta, *tilts.range)
    if tilts.divergence(tilts.at(tilts.range[0])) <= delta:
        return tilts.optimum(tilts.at(tilts.range[0]), 0.0)
    return tilts.optimum(tilts.at(multiplier), float(np.exp(multiplier)))


def penalised(
    mdp: TabularMDP, old: Categorical, beta: float, divergence: str = "mean", reverse: bool = False
) -> Optimum:
    r"""Return :math:`\arg\max_{\pi'} L_\pi(\pi') - \beta \, KL`, with any of the divergences of :func:`trust_region`.

    It is the answer of the trust region whose multiplier is ``beta``.

    Raises:
        UsageError: ``beta`` is not above 0, the divergence is unknown or none of this process, or a probability is 0.
    """
    check_positive("beta", beta)
    tilts = Tilts.of(old_policy(mdp, old), mdp, divergence, reverse)
    return penalised_tilt(tilts, beta)


def penalised_tilt(tilts: Tilts, beta: float) -> Optimum:
    r"""Return the answer of :func:`penalised` among policies that are given; ``beta`` is above 0."""
    if tilts.weights is not None:
        return tilts.optimum(tilts.at(np.log(beta)), beta)
    if not np.any(tilts.gaps):
        return tilts.optimum(tilts.within(1.0), beta)
    size = falling(lambda x: np.sum(tilts.multipliers(tilts.within(float(np.exp(x))))) - beta, -80.0, 7.0)
    return tilts.optimum(tilts.within(float(np.exp(size))), beta)


# -- the old policy -----------------------------------------------------------------------------------------------------


class OldPolicy(NamedTuple):
    """What of the old policy a trust region depends on, NumPy arrays of double precision."""

    log_probs: np.ndarray
    """``[S, A]``."""
    visits: np.ndarray
    r""":math:`\rho(s)`, ``[S]``, or with a horizon ``[H, S]``."""
    advantages: np.ndarray
    """A, ``[S, A]``, or with a horizon ``[H, S, A]``; 0 where it is only a rounding error of the values."""
    performance: float
    """J."""

    @property
    def gains(self) -> np.ndarray:
        r""":math:`G(s, a) = \sum_t \rho_t(s) A_t(s, a)`, ``[S, A]``."""
        each = self.visits[..., None] * self.advantages
        return each.reshape(-1, *each.shape[-2:]).sum(0)

    @property
    def distribution(self) -> np.ndarray:
        """The normalised discounted visits d, ``[S]``."""
        return self.visits.reshape(-1, self.visits.shape[-1]).sum(0) / self.visits.sum()


def old_policy(mdp: TabularMDP, policy: Categorical) -> OldPolicy:
    """Return what of a policy a trust region depends on.

    Raises:
        UsageError: a probability is 0 (or not a number), or the policy depends on time.
    """
    if policy.logits.ndim != 2:
        raise UsageError(f"logits of shape {policy.logits.shape} depend on time; a trust region is for logits [S, A].")
    log_probs, visits, values, advantage, worth = _old_policy(mdp, policy)
    if not np.all(np.exp(log_probs) > 0.0):
        state, action = np.argwhere(~(np.exp(np.asarray(log_probs)) > 0.0))[0]
        raise UsageError(
            f"the old policy takes action {action} in state {state} with probability {np.exp(log_probs[state, action])}; "
            "all must be above 0, or divergences are not finite."
        )
    real = np.abs(advantage) > 1e-13 * np.max(np.abs(values))
    return OldPolicy(np.asarray(log_probs), np.asarray(visits), np.where(real, advantage, 0.0), float(worth))


@in_double
@jax.jit
def _old_policy(mdp: TabularMDP, policy: Categorical) -> tuple[jax.Array, ...]:
    policy = Categorical(jnp.asarray(policy.logits))
    values = action_values(mdp, policy), advantages(mdp, policy)
    return policy.log_probs, visitation(mdp, policy), *values, performance(mdp, policy)


# -- policies that can be best ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tilts:
    r"""The policies that solve the problem for some multiplier: one number x of each state says which.

    Forward, :math:`x = \log c`; in reverse :math:`x = \log \lambda`. The larger x, the nearer to the old policy. Arrays of x
    may have leading axes, ``[..., S]``.
    """

    log_probs: np.ndarray
    """Of the old policy, ``[S, A]``."""
    gains: np.ndarray
    """G, ``[S, A]``."""
    gaps: np.ndarray
    r""":math:`\max_a B - B(s, a)`, ``[S, A]``."""
    weights: np.ndarray | None
    """w, ``[S]``; ``None``: the largest divergence is meant."""
    reverse: bool

    @classmethod
    def of(cls, old: OldPolicy, mdp: TabularMDP, divergence: str, reverse: bool) -> Tilts:
        """Return the policies for a divergence.

        Raises:
            UsageError: the divergence is unknown or none of this process.
        """
        if divergence == "mean":
            weights = old.distribution
        elif divergence == "trajectory":
            if reverse:
                raise UsageError(
                    "reverse=True: the states of KL(new || old) of trajectories are those of the new policy, and L is not "
                    "maximised in closed form; use divergence='mean' or reverse=False."
                )
            horizon_of(mdp)
            weights = np.asarray(occupancies(mdp, Categorical(old.log_probs), horizon_of(mdp))).sum(0)  # type: ignore[arg-type]
        elif divergence == "max":
            weights = None
        else:
            raise UsageError(f"divergence={divergence!r} is unknown; it must be one of {', '.join(DIVERGENCES)}.")
        scale = np.ones(len(old.log_probs)) if weights is None else weights
        tilt = np.where(scale[:, None] > 0.0, old.gains / np.where(scale > 0.0, scale, 1.0)[:, None], 0.0)
        return cls(old.log_probs, old.gains, tilt.max(-1, keepdims=True) - tilt, weights, reverse)

    @property
    def range(self) -> tuple[float, float]:
        """The logarithms of multipliers between which the answer is looked for."""
        largest = np.max(self.gaps)
        low, high = (-40.0, 60.0) if self.reverse else (-600.0, 60.0)
        middle = np.log(largest) if largest > 0.0 else 0.0
        return middle + low, middle + high

    def changes(self, x: np.ndarray) -> np.ndarray:
        r"""Return :math:`\log \pi' - \log \pi`, ``[..., S, A]``."""
        x = np.broadcast_to(x, np.broadcast_shapes(np.shape(x), self.gaps.shape[:1]))
        if self.reverse:
            unscaled = -self.gaps / np.exp(x)[..., None]
        else:
            with np.errstate(divide="ignore"):
                unscaled = -np.logaddexp(x[..., None], np.log(self.gaps))
        largest = unscaled.max(-1, keepdims=True)
        total = np.sum(np.exp(self.log_probs + unscaled - largest), -1, keepdims=True)
        return unscaled - largest - np.log(total)

    def multipliers(self, x: np.ndarray) -> np.ndarray:
        r"""Return :math:`\lambda_s`, ``[..., S]``; 0 where all actions are equally good, or a state is at its greedy policy."""
        if self.reverse:
            own = np.exp(x)
        else:
            # At the best action, pi' / pi = lambda / c.
            own = np.exp(x + self.changes(x).max(-1))
        return np.where((self.gaps.max(-1) > 0.0) & (x > self.range[0]), own, 0.0)

    def at(self, multiplier: np.ndarray | float) -> np.ndarray:
        r"""Return x for one multiplier, given as its logarithm: a number, or ``[..., 1]``; ``[..., S]``."""
        aim = np.broadcast_to(multiplier, np.broadcast_shapes(np.shape(multiplier), self.gaps.shape[:1]))
        if self.reverse:
            return np.maximum(aim, self.range[0])
        # lambda is at least c, and at most c over the probability of the best action.
        nearest = np.log(np.sum(np.exp(self.log_probs) * (self.gaps == 0.0), -1))
        return falling(lambda x: aim - x - self.changes(x).max(-1), aim + nearest, aim)

    def within(self, delta: float) -> np.ndarray:
        """Return x where the divergence of each state is ``delta``, or as large as it can be, ``[S]``."""
        low, high = (np.full(len(self.gaps), bound) for bound in self.range)
        x = falling(lambda x: self.divergences(self.changes(x)) - delta, low, high)
        return np.where(self.divergences(self.changes(low)) > delta, x, low)

    def divergences(self, changes: np.ndarray) -> np.ndarray:
        """Return the divergence of each state, ``[..., S]``, without the cancellation of near policies."""
        # With z = log pi' - log pi, sum pi e^z = 1, so both sums below are the divergences themselves.
        ratio = np.expm1(changes)
        terms = changes * (1.0 + ratio) - ratio if self.reverse else ratio - changes
        return np.sum(np.exp(self.log_probs) * terms, -1)

    def divergence(self, x: np.ndarray) -> np.ndarray:
        """Return the divergence that is constrained, ``[...]``."""
        each = self.divergences(self.changes(x))
        return each.max(-1) if self.weights is None else each @ self.weights

    def surrogate(self, x: np.ndarray) -> np.ndarray:
        """Return L, ``[...]``."""
        # As G has the mean 0 under the old policy, the change alone counts.
        return np.sum(self.gains * np.exp(self.log_probs) * np.expm1(self.changes(x)), (-1, -2))

    def optimum(self, x: np.ndarray, multiplier: float) -> Optimum:
        """Return one of the policies, ``x`` ``[S]``, with what it is worth."""
        policy = Categorical(self.log_probs + self.changes(x))  # type: ignore[arg-type]
        return Optimum(policy, float(self.surrogate(x)), float(self.divergence(x)), multiplier)


def falling(
    function: Callable[[np.ndarray], np.ndarray], low: np.ndarray | float, high: np.ndarray | float
) -> np.ndarray:
    """Return where a function that falls from above 0 to below is 0, by 64 bisections; elementwise."""
    low, high = np.asarray(low, float), np.asarray(high, float)
    for _ in range(64):
        middle = 0.5 * (low + high)
        above = function(middle) > 0.0
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    return 0.5 * (low + high)
