r"""The best step of a given size, not linearised: in parameters, and in distributions.

.. math::
    \arg\max_{\|d\| \le r} J(\theta + d) \qquad \text{and} \qquad
    \arg\max_{KL(\pi_\theta \| \pi_{\theta + d}) \le \delta} J(\theta + d)

For small r the first is a step along the gradient; for small :math:`\delta` the second is the natural step. For others they
are found numerically, for families with few parameters.

Source: the definition of steepest ascent; Amari 1998, *Natural Gradient Works Efficiently in Learning*, section 2.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jumar.errors import UsageError
from jumar.lab.arguments import ArrayLike
from jumar.lab.families import Family
from jumar.lab.gradients import step_fisher
from jumar.lab.precision import in_double
from jumar.lab.tabular import TabularMDP, performance, state_distribution

Slope = Callable[[np.ndarray], tuple[float, np.ndarray]]
"""A step ``[d]`` -> a number and its gradient ``[d]``."""


class Ascent(NamedTuple):
    """A step and what it gains."""

    step: np.ndarray
    """``[d]``."""
    gain: float
    r""":math:`J(\theta + d) - J(\theta)`."""
    distance: float
    r""":math:`\|d\|`, or the divergence in nats."""


@in_double
def best_in_ball(
    mdp: TabularMDP, family: Family, flat: ArrayLike, radius: float, key: Array, starts: int = 6
) -> Ascent:
    r"""Return :math:`\arg\max_{\|d\| \le r} J(\theta + d)`.

    Args:
        mdp: the process.
        family: of policies with few parameters.
        flat: :math:`\theta`, ``[d]``.
        radius: r, above 0.
        key: of the starts.
        starts: from how many steps it is looked for: one along the gradient, the others drawn. More of them find the global
            maximum where J has several.

    Raises:
        UsageError: the radius is not above 0, or ``starts`` is below 1.
    """
    _check(radius, starts, "radius")
    flat = np.asarray(flat, float)

    def half_square(step: np.ndarray) -> tuple[float, np.ndarray]:
        return 0.5 * float(step @ step), step

    best = _best(_gain(mdp, family, flat), half_square, 0.5 * radius**2, np.eye(flat.size), key, starts)
    return best._replace(distance=float(np.linalg.norm(best.step)))


@in_double
def best_in_divergence(
    mdp: TabularMDP, family: Family, flat: ArrayLike, delta: float, key: Array, starts: int = 6
) -> Ascent:
    r"""Return :math:`\arg\max_d J(\theta + d)` with :math:`E_{s \sim d_\pi} KL(\pi_\theta \| \pi_{\theta + d}) \le \delta`.

    Args:
        mdp: the process.
        family: of policies with few parameters.
        flat: :math:`\theta`, ``[d]``.
        delta: the largest mean divergence in nats, above 0.
        key: of the starts.
        starts: from how many steps it is looked for: one along the natural gradient, the others drawn.

    Raises:
        UsageError: ``delta`` is not above 0, ``starts`` is below 1, or the Fisher matrix is 0.
    """
    _check(delta, starts, "delta")
    flat = np.asarray(flat, float)
    old = family(jnp.asarray(flat))
    states = state_distribution(mdp, old)
    fisher = np.asarray(step_fisher(family, jnp.asarray(flat), states))
    if not np.any(fisher):
        raise UsageError("the Fisher matrix is 0: no parameter changes the policy, and no step has a divergence.")

    def divergence(step: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = _divergence(family, flat, states, flat + step)
        return float(value), np.asarray(gradient)

    # A little of the identity, as the matrix may be singular.
    rounded = fisher + 1e-6 * np.trace(fisher) / flat.size * np.eye(flat.size)
    return _best(_gain(mdp, family, flat), divergence, delta, np.linalg.inv(rounded), key, starts)


# The family is static, so that the programs are compiled once for each family and not at each call.
@partial(jax.jit, static_argnames="family")
def _worth(mdp: TabularMDP, family: Family, flat: ArrayLike) -> tuple[Array, Array]:
    return jax.value_and_grad(lambda flat: performance(mdp, family(flat)))(jnp.asarray(flat))


@partial(jax.jit, static_argnames="family")
def _divergence(family: Family, old: ArrayLike, states: ArrayLike, new: ArrayLike) -> tuple[Array, Array]:
    def mean(new: Array) -> Array:
        return jnp.sum(jnp.asarray(states) * family(jnp.asarray(old)).kl(family(new)))

    return jax.value_and_grad(mean)(jnp.asarray(new))


def _gain(mdp: TabularMDP, family: Family, flat: np.ndarray) -> Slope:
    before = float(_worth(mdp, family, flat)[0])

    def gain(step: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = _worth(mdp, family, flat + step)
        return float(value) - before, np.asarray(gradient)

    return gain


def _best(gain: Slope, distance: Slope, most: float, metric: np.ndarray, key: Array, starts: int) -> Ascent:
    _, gradient = gain(np.zeros(len(metric)))
    drawn = np.asarray(jax.random.normal(key, (starts, len(metric))), float)
    ways = [metric @ gradient, *(drawn[1:] @ np.linalg.cholesky(metric).T)]
    found = [_climbed(gain, distance, most, metric, way) for way in ways]
    return max(found, key=lambda ascent: ascent.gain)


def _climbed(gain: Slope, distance: Slope, most: float, metric: np.ndarray, way: np.ndarray) -> Ascent:
    r"""Climb from a point of the boundary by BFGS, on what a step gains once it is drawn back to the region.

    A step that is too long is shortened until it is at the boundary. There the gradient of the gain without its part along
    the step is :math:`h = \nabla J - \mu \nabla c`, :math:`\mu = \nabla J^T d / \nabla c^T d`: it is 0 where :math:`\mu` is
    the multiplier.
    """

    def free(step: np.ndarray, slope: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        used, normal = distance(step)
        outwards = float(slope @ step)
        if used < most * (1.0 - 1e-6) or outwards <= 0.0:
            return slope, None
        return slope - outwards / float(normal @ step) * normal, normal

    step, inverse, length = _drawn_back(distance, most, way, grow=True), metric, 1.0
    value, slope = gain(step)
    uphill, normal = free(step, slope)
    for _ in range(200):
        direction = inverse @ uphill
        if normal is not None:
            # Not into the region, where h is no gradient. A part along the step changes nothing: it is drawn back.
            direction = direction + max(0.0, -float(normal @ direction) / float(normal @ step)) * step
        rise = float(uphill @ direction)
        for _ in range(50):
            candidate = _drawn_back(distance, most, step + length * direction)
            better, slope = gain(candidate)
            if better >= value + 1e-4 * length * rise:
                break
            length *= 0.5
        else:
            if inverse is metric:
                break
            inverse, length = metric, 1.0
            continue
        moved, (next_uphill, normal) = candidate - step, free(candidate, slope)
        if np.linalg.norm(moved) <= 1e-9 * np.linalg.norm(step):
            break
        inverse, length = _bfgs(inverse, moved, uphill - next_uphill), min(1.0, 4.0 * length)
        step, value, uphill = candidate, better, next_uphill
    return Ascent(step, value, distance(step)[0])


def _bfgs(inverse: np.ndarray, moved: np.ndarray, change: np.ndarray) -> np.ndarray:
    """Return the inverse curvature after a step; Nocedal and Wright 2006, *Numerical Optimization*, equation 6.17."""
    bend = float(moved @ change)
    if not bend > 1e-12 * float(np.linalg.norm(moved) * np.linalg.norm(change)):
        return inverse
    sheared = np.eye(len(moved)) - np.outer(moved, change) / bend
    return sheared @ inverse @ sheared.T + np.outer(moved, moved) / bend


def _drawn_back(distance: Slope, most: float, step: np.ndarray, grow: bool = False) -> np.ndarray:
    """Return the step, or where it is too long (or has to grow) what of it ends at the boundary."""
    long = 1.0
    if not np.any(step):
        return step
    while grow and distance(long * step)[0] < most and long < 1e6:
        long *= 2.0
    if distance(long * step)[0] <= most:
        return step
    # Newton's steps, and bisections where they leave the interval.
    short, at = 0.0, long
    for _ in range(60):
        used, normal = distance(at * step)
        short, long = (at, long) if used <= most else (short, at)
        if most * (1.0 - 1e-12) <= used <= most:
            break
        ahead = float(normal @ step)
        at = at - (used - most * (1.0 - 5e-13)) / ahead if ahead > 0.0 else long
        at = at if short < at < long else 0.5 * (short + long)
    return short * step


def _check(size: float, starts: int, name: str) -> None:
    if not size > 0.0:
        raise UsageError(f"{name}={size} must be above 0.")
    if starts < 1:
        raise UsageError(f"starts={starts} must be at least 1.")
