r"""Conservative policy iteration: a step towards a greedy policy so short that a gain is guaranteed.

A greedy policy :math:`\pi'` of approximate values may be worse than the policy it was made from
(:mod:`jumar.lab.fitted_iteration`). The mixture

.. math:: \pi_{new}(a|s) = (1 - \alpha) \pi(a|s) + \alpha \pi'(a|s)

visits nearly the states of :math:`\pi` where :math:`\alpha` is small. With :math:`\bar A(s) = \sum_a \pi'(a|s) A_\pi(s, a)`,
the surrogate :math:`L = \sum_s \rho_\pi(s) \bar A(s)` and :math:`\epsilon = \max_s |\bar A(s)|` it gains

.. math::
    J(\pi_{new}) - J(\pi) \ge \alpha L - 2 \alpha \epsilon \sum_t \gamma^t (1 - (1 - \alpha)^t),

as :math:`1 - (1 - \alpha)^t` is the probability that an action of :math:`\pi'` was taken before step t. Without a horizon the
right side is :math:`\frac{\alpha}{1 - \gamma} \big(\mathbb{A} - \frac{2 \alpha \gamma \epsilon}{1 - \gamma (1 - \alpha)}\big)`
with the policy advantage :math:`\mathbb{A} = (1 - \gamma) L`.

Source: Kakade and Langford 2002, *Approximately Optimal Approximate Reinforcement Learning*, theorem 4.1 and section 4.2. Its
values are :math:`1 - \gamma` times those here. Processes with a horizon are not in it; the proof is the same.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jumar.errors import UsageError
from jumar.lab.dynamic_programming import Fit, exact, greedy_improvement
from jumar.lab.improvement import surrogate
from jumar.lab.precision import in_double
from jumar.lab.rollouts import discounts
from jumar.lab.tabular import TabularMDP, expected_advantages, over_time, performance, state_values
from jumar.policies.distributions import FORBIDDEN, Categorical

HALVINGS = 60
"""How often the interval of steps is halved in the search for the best one: down to a double's precision near 1."""


@in_double
def mixture(policy: Categorical, target: Categorical, alpha: Array | float) -> Categorical:
    r"""Return :math:`(1 - \alpha) \pi + \alpha \pi'`; one of the two may depend on time, then the mixture does."""
    probs = (1.0 - alpha) * policy.probs + alpha * target.probs
    return Categorical(jnp.where(probs > 0.0, jnp.log(jnp.where(probs > 0.0, probs, 1.0)), FORBIDDEN))


@in_double
def guaranteed_gain(mdp: TabularMDP, policy: Categorical, target: Categorical, alpha: Array | float) -> Array:
    r"""Return the lower bound of :math:`J(\pi_{new}) - J(\pi)` of a mixture with :math:`\alpha` in [0, 1], a scalar."""
    return _gain(mdp, *_slopes(mdp, policy, target), jnp.asarray(alpha, float))


@in_double
def conservative_step(mdp: TabularMDP, policy: Categorical, target: Categorical) -> tuple[Array, Array]:
    r"""Return the :math:`\alpha` in [0, 1] that maximises the guaranteed gain, and that gain.

    Both are 0 where nothing is guaranteed, or less than rounding makes of the values.

    The gain is concave in :math:`\alpha`. Without a horizon the maximum is at

    .. math:: \alpha = \frac{1 - \gamma}{\gamma} \Big(\frac{1}{\sqrt{1 - \mathbb{A} / (2 \epsilon)}} - 1\Big),

    or at 1 if that is more. (The paper's own step, :math:`(1 - \gamma) \mathbb{A} / (4 R)` in its units, is shorter.)
    """
    slopes = _slopes(mdp, policy, target)
    rise = jax.grad(lambda alpha: _gain(mdp, *slopes, alpha))

    def halved(_: int, bounds: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bounds
        middle = 0.5 * (low + high)
        up = rise(middle) > 0.0
        return jnp.where(up, middle, low), jnp.where(up, high, middle)

    zero = jnp.zeros_like(slopes[0])
    alpha, _ = jax.lax.fori_loop(0, HALVINGS, halved, (zero, zero + 1.0))
    gain = _gain(mdp, *slopes, alpha)
    enough = gain > jnp.finfo(gain.dtype).eps * jnp.max(jnp.abs(state_values(mdp, policy)))
    return jnp.where(enough, alpha, 0.0), jnp.where(enough, gain, 0.0)


def _slopes(mdp: TabularMDP, policy: Categorical, target: Categorical) -> tuple[Array, Array]:
    r"""Return :math:`L` and :math:`\epsilon`."""
    return surrogate(mdp, policy, target), jnp.max(jnp.abs(expected_advantages(mdp, policy, target)))


def _gain(mdp: TabularMDP, promised: Array, epsilon: Array, alpha: Array) -> Array:
    if mdp.horizon is None:
        rest = 1.0 - mdp.gamma
        changed = mdp.gamma * alpha / (rest * (1.0 - mdp.gamma * (1.0 - alpha)))
    else:
        changed = discounts(mdp.gamma, mdp.horizon) @ (1.0 - jnp.power(1.0 - alpha, jnp.arange(mdp.horizon)))
    return alpha * (promised - 2.0 * epsilon * changed)


class ConservativeIteration(NamedTuple):
    """What ``n`` rounds of conservative policy iteration did."""

    policy: Categorical
    """The last policy."""
    performance: Array
    """J of each policy, the first one's first, ``[n + 1]``: it never falls."""
    steps: Array
    r""":math:`\alpha` of each round, ``[n]``; 0 from the round on in which no gain was guaranteed any more."""
    gains: Array
    """The guaranteed gain of each round, ``[n]``: what J rises by is at least as much."""


def conservative_policy_iteration(
    mdp: TabularMDP, policy: Categorical, n: int, fit: Fit = exact, least_gain: float = 0.0
) -> ConservativeIteration:
    """Mix the policy with the greedy one of its (fitted) action values, by the step that guarantees most, ``n`` times.

    It stops in the first round that does not guarantee more than ``least_gain``. A fit decides which policy is the target;
    what the step to it guarantees is computed exactly.

    Raises:
        UsageError: ``n`` is below 1, ``least_gain`` is below 0, or the policy's shape is not that of the process.
    """
    if n < 1:
        raise UsageError(f"n={n} must be at least 1: the number of rounds.")
    if not least_gain >= 0.0:
        raise UsageError(f"least_gain={least_gain} must be at least 0: the gain that a step must guarantee more than.")
    return _iterated(mdp, policy, n, fit, least_gain)


@in_double
def _iterated(mdp: TabularMDP, policy: Categorical, n: int, fit: Fit, least_gain: float) -> ConservativeIteration:
    def improved(policy: Categorical, _: None) -> tuple[Categorical, tuple[Array, Array, Array]]:
        target = greedy_improvement(mdp, policy, fit)
        alpha, gain = conservative_step(mdp, policy, target)
        enough = gain > least_gain
        alpha, gain = jnp.where(enough, alpha, 0.0), jnp.where(enough, gain, 0.0)
        mixed = mixture(policy, target, alpha)
        new = Categorical(jnp.where(enough, mixed.logits, policy.logits))
        return new, (performance(mdp, policy), alpha, gain)

    start = Categorical(jnp.asarray(over_time(mdp, policy).logits, float))
    last, (worth, steps, gains) = jax.lax.scan(improved, start, None, length=n)
    return ConservativeIteration(last, jnp.append(worth, performance(mdp, last)), steps, gains)
