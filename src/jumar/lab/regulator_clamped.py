r"""The clamped surrogate objectives of the simple regulator, exactly: to ten digits, by quadrature.

With the ratio :math:`w` and what judges an action, :math:`X`, the clamped objective is the surrogate minus

.. math:: \sum_t \gamma^t E_{s_t, a_t \sim \pi}\big[(w - 1 - \epsilon)_+ X_+ + (1 - \epsilon - w)_+ X_-\big] \ge 0.

The state is normal. Given the state, so is the action, :math:`\log w` is quadratic in it, and X is too. So the expectation over
actions is a sum of moments of two truncated normals, in closed form. What is left is an integral over the state. It is taken
between the states at which a region of actions begins or ends, as the integrand is smooth between them, by the tanh-sinh rule,
which stays accurate where the integrand behaves like a square root at an end. The result can be differentiated once; second
derivatives would lack what the moving ends of the regions add.

Source: Takahasi and Mori 1974, *Double Exponential Formulas for Numerical Integration*.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.lax import stop_gradient

from jumar.lab.precision import in_double
from jumar.lab.regulator import Regulator, second_moments, standard_deviation
from jumar.lab.regulator_improvement import surrogate, surrogate_objective, value_coefficients
from jumar.lab.rollouts import discounts

REACH = 10.0
"""How many deviations of the state to either side are integrated over: beyond is less than 1e-22."""
FAR = 1e8
"""A number of deviations that stands for infinity."""
PLACES = 400
"""At how many states a change of sign is looked for."""


@in_double
def clamped_surrogate(problem: Regulator, old: Array, new: Array, epsilon: float | Array) -> Array:
    r"""Return :math:`\sum_t \gamma^t E[\min(w A_t, clip(w, 1 - \epsilon, 1 + \epsilon) A_t)]` with the exact advantages.

    Source: Kochenderfer, Wheeler and Wray, *Algorithms for Decision Making*, equation 12.22, as a sum over the steps.
    """
    return surrogate(problem, old, new) - _clamped_away(problem, old, new, epsilon, by_advantages=True)


@in_double
def clamped_surrogate_objective(problem: Regulator, old: Array, new: Array, epsilon: float | Array) -> Array:
    r"""Return :math:`\sum_t \gamma^t E[\min(w G_t, clip(w, 1 - \epsilon, 1 + \epsilon) G_t)]` with the reward-to-go G.

    Here the reward-to-go is never positive, so that its place can be taken by its expectation :math:`Q_t(s, a)`. Divided by
    ``depth`` it is the expectation of what Algorithm 12.6 climbs.

    Source: Kochenderfer, Wheeler and Wray, *Algorithms for Decision Making*, algorithm 12.6.
    """
    return surrogate_objective(problem, old, new) - _clamped_away(problem, old, new, epsilon, by_advantages=False)


class _Ratio(NamedTuple):
    r"""The ratio at states ``[n]``, as a function of :math:`z = (a - \theta_1 s) / \sigma`.

    The new policy's :math:`z' = (a - \theta'_1 s) / \sigma'` is :math:`\rho z + \delta`, and
    :math:`\log w = \log \rho + \frac12 (z^2 - z'^2)`.
    """

    rho: Array
    delta: Array

    def log(self, z: Array) -> Array:
        return jnp.log(self.rho) + 0.5 * (jnp.square(z) - jnp.square(self.rho * z + self.delta))

    def places(self, bound: Array) -> Array:
        """Return the two z at which it is ``bound``, ``[2, n]``; 0 where there is none."""
        a, b = 0.5 * (1.0 - jnp.square(self.rho)), -self.rho * self.delta
        c = jnp.log(self.rho / bound) - 0.5 * jnp.square(self.delta)
        root = jnp.sqrt(jnp.maximum(jnp.square(self.delta) - 4.0 * a * jnp.log(self.rho / bound), 0.0))
        q = -0.5 * (b + jnp.where(b < 0.0, -root, root))  # without cancellation
        found = jnp.stack(jnp.broadcast_arrays(q / a, c / q))
        return jnp.clip(jnp.nan_to_num(found, nan=0.0, posinf=FAR, neginf=-FAR), -FAR, FAR)


def _clamped_away(problem: Regulator, old: Array, new: Array, epsilon: float | Array, by_advantages: bool) -> Array:
    """Return what clamping takes off the surrogate."""
    values = value_coefficients(problem, old)
    means = problem.initial_mean * jnp.power(1.0 + old[0], jnp.arange(problem.depth))
    spreads = jnp.sqrt(second_moments(problem, old) - jnp.square(means))

    def of_step(curvature: Array, constant: Array, mean: Array, spread: Array) -> Array:
        nodes, weights = _nodes(_state_bounds(old, new, epsilon, by_advantages), mean, spread)
        judged = _judged(problem, old, curvature, constant, by_advantages)
        return weights @ _given_states(old, new, epsilon, by_advantages, nodes, judged(nodes))

    each = jax.vmap(of_step)(values.curvature[1:], values.constant[1:], means, spreads)
    return discounts(problem.gamma, problem.depth) @ each


def _judged(
    problem: Regulator, old: Array, curvature: Array, constant: Array, by_advantages: bool
) -> Callable[[Array], Array]:
    """Return the function from states ``[n]`` to the coefficients of X in z, ``[3, n]``, lowest power first."""
    sigma, worth = standard_deviation(old), problem.gamma * curvature

    def coefficients(states: Array) -> Array:
        ahead = (1.0 + old[0]) * states
        value = -jnp.square(states) - worth * (jnp.square(ahead) + problem.noise_std**2) - problem.gamma * constant
        first = jnp.broadcast_to(worth * jnp.square(sigma), states.shape) if by_advantages else value
        return jnp.stack([first, -2.0 * worth * ahead * sigma, jnp.broadcast_to(-worth * sigma**2, states.shape)])

    return coefficients


def _given_states(
    old: Array, new: Array, epsilon: float | Array, by_advantages: bool, states: Array, judged: Array
) -> Array:
    """Return the expectation over the actions at states ``[n]``."""
    ratio, total = _ratio(old, new, states), jnp.zeros_like(states)
    for sign in (1.0, -1.0):
        bound = jnp.asarray(1.0 + sign * epsilon)
        places = jnp.concatenate([ratio.places(bound), *([_zero_advantage(old, states)] if by_advantages else [])])
        # Where a region ends the integrand is 0: the ends' own derivatives have no part in that of the integral.
        edges = stop_gradient(jnp.sort(jnp.pad(places, ((1, 1), (0, 0)), constant_values=((-FAR, FAR), (0, 0))), 0))
        low, high = edges[:-1], edges[1:]
        inside = 0.5 * (low + high)
        x = judged[0] + inside * (judged[1] + inside * judged[2])
        counted = stop_gradient((sign * (ratio.log(inside) - jnp.log(bound)) > 0.0) & (sign * x > 0.0))
        by_new = _moments(
            judged, 1.0 / ratio.rho, -ratio.delta / ratio.rho, *(ratio.rho * z + ratio.delta for z in (low, high))
        )
        by_old = _moments(judged, jnp.ones(()), jnp.zeros(()), low, high)
        # sign^2 (w - bound) X: both factors have the sign in the region.
        total += jnp.sum(jnp.where(counted, by_new - bound * by_old, 0.0), 0)
    return total


def _moments(polynomial: Array, scale: Array, shift: Array, low: Array, high: Array) -> Array:
    r"""Return :math:`\int_{low}^{high} X(scale \, x + shift) \, \phi(x) \, dx`, :math:`\phi` the standard normal density."""
    at_low, at_high = (jnp.exp(-0.5 * jnp.square(x)) / math.sqrt(2.0 * math.pi) for x in (low, high))
    zeroth = 0.5 * (jax.lax.erf(high / math.sqrt(2.0)) - jax.lax.erf(low / math.sqrt(2.0)))
    first = at_low - at_high
    second = zeroth + low * at_low - high * at_high
    along = scale * first + shift * zeroth
    square = scale**2 * second + 2.0 * scale * shift * first + shift**2 * zeroth
    return polynomial[0] * zeroth + polynomial[1] * along + polynomial[2] * square


def _ratio(old: Array, new: Array, states: Array) -> _Ratio:
    sigma = standard_deviation(new)
    return _Ratio(standard_deviation(old) / sigma, (old[0] - new[0]) * states / sigma)


def _zero_advantage(old: Array, states: Array) -> Array:
    """Return the two z at which the advantage is 0, ``[2, n]``: it is positive between them."""
    half = (1.0 + old[0]) * states / standard_deviation(old)
    root = jnp.sqrt(jnp.square(half) + 1.0)
    lower = -(jnp.abs(half) + root)
    return jnp.stack([jnp.where(half > 0.0, lower, 1.0 / lower), jnp.where(half > 0.0, -1.0 / lower, -lower)])


# -- the integral over the state ---------------------------------------------------------------------------------------


def _state_bounds(
    old: Array, new: Array, epsilon: float | Array, by_advantages: bool
) -> Callable[[Array, Array], Array]:
    """Return the function from the ends of a range to the states in it at which the regions of actions change, and 0."""

    def bounds(low: Array, high: Array) -> Array:
        ratio = _ratio(old, new, jnp.ones(()))
        found = [jnp.zeros((1,))]
        for bound in (1.0 - epsilon, 1.0 + epsilon):
            # The ratio just reaches the bound at one action.
            square = 2.0 * (1.0 - jnp.square(ratio.rho)) * jnp.log(ratio.rho / bound) / jnp.square(ratio.delta)
            place = jnp.sqrt(jnp.where(square > 0.0, square, 0.0))
            found += [place[None], -place[None]]
            if by_advantages:
                found += [_crossings(old, new, bound, branch, low, high) for branch in (0, 1)]
        return jnp.nan_to_num(jnp.concatenate(found), nan=0.0, posinf=0.0, neginf=0.0)

    return bounds


def _crossings(old: Array, new: Array, bound: float | Array, branch: int, low: Array, high: Array) -> Array:
    """Return the two states at which the ratio is ``bound`` where the advantage is 0; 0 where there are fewer."""

    def above(states: Array) -> Array:
        return _ratio(old, new, states).log(_zero_advantage(old, states)[branch]) > jnp.log(bound)

    places = low + (high - low) * jnp.linspace(0.0, 1.0, PLACES)
    signs = above(places)
    first = jnp.nonzero(signs[1:] != signs[:-1], size=2, fill_value=PLACES)[0]
    left, right = places[first], places[jnp.minimum(first + 1, PLACES - 1)]

    def halve(_: int, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        left, right = ends
        middle = 0.5 * (left + right)
        before = above(middle) == above(left)
        return jnp.where(before, middle, left), jnp.where(before, right, middle)

    left, right = jax.lax.fori_loop(0, 50, halve, (left, right))
    return jnp.where(first < PLACES, 0.5 * (left + right), 0.0)


def _nodes(bounds: Callable[[Array, Array], Array], mean: Array, spread: Array) -> tuple[Array, Array]:
    """Return states ``[n]`` and weights ``[n]``: a sum is the expectation over the state, of mean and deviation as given."""
    low, high = mean - REACH * spread, mean + REACH * spread
    ends = stop_gradient(jnp.sort(jnp.concatenate([jnp.clip(bounds(low, high), low, high), jnp.stack([low, high])])))
    middle, half = 0.5 * (ends[1:] + ends[:-1]), 0.5 * (ends[1:] - ends[:-1])
    nodes = (middle[:, None] + half[:, None] * _PLACES).reshape(-1)
    density = jnp.exp(-0.5 * jnp.square((nodes - mean) / spread)) / (spread * math.sqrt(2.0 * math.pi))
    return nodes, (half[:, None] * _WEIGHTS).reshape(-1) * density


_STEPS = np.arange(-52, 53) / 16.0
_PLACES = np.tanh(0.5 * math.pi * np.sinh(_STEPS))
_WEIGHTS = 0.5 * math.pi * np.cosh(_STEPS) / np.square(np.cosh(0.5 * math.pi * np.sinh(_STEPS))) / 16.0
