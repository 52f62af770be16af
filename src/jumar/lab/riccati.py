r"""The best policy of a linear-quadratic problem, by the Riccati equation.

Source: Anderson and Moore 1990, *Optimal Control: Linear Quadratic Methods*.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.core import Tracer

from jumar.errors import UsageError
from jumar.lab.linear_quadratic import LinearPolicy, LinearQuadratic, linear_policy
from jumar.lab.precision import in_double


class Optimum(NamedTuple):
    """The best policy of a problem, and what it is worth."""

    policy: LinearPolicy
    """Linear, without offset and noise; with a horizon it changes with time."""
    curvature: Array
    """P, of :math:`V(s) = -(s^T P s + c)`: ``[n, n]``, or with a horizon ``[H + 1, n, n]``, the last one being Q_H."""
    constant: Array
    """c: a scalar, or with a horizon ``[H + 1]``."""


@in_double
def optimum(problem: LinearQuadratic) -> Optimum:
    r"""Return the solution of the Riccati equation.

    .. math::
        K = -\gamma (R + \gamma B^T P' B)^+ B^T P' A, \qquad
        P = Q + K^T R K + \gamma (A + B K)^T P' (A + B K), \qquad c = \gamma (\mathrm{tr}(P' W) + c')

    With a horizon P' is that of the next step; without one it is P itself, to which the recursion from 0 converges. Where an
    action changes nothing, it is 0 (the pseudo-inverse).

    Raises:
        UsageError: there is no horizon, and no policy brings the state to 0 fast enough for its discounted cost to be finite.
    """
    start = jnp.asarray(problem.final_cost) if problem.horizon is not None else jnp.zeros((problem.n, problem.n))
    if problem.horizon is not None:
        _, (gains, curvatures) = jax.lax.scan(
            lambda later, _: _riccati_step(problem, later), start, None, length=problem.horizon, reverse=True
        )
        curvatures = jnp.concatenate([curvatures, start[None]])

        def before(later: Array, curvature: Array) -> tuple[Array, Array]:
            now = problem.gamma * (jnp.trace(curvature @ jnp.asarray(problem.noise)) + later)
            return now, now

        _, constants = jax.lax.scan(before, jnp.zeros(()), curvatures[1:], reverse=True)
        return Optimum(linear_policy(problem, gains), curvatures, jnp.concatenate([constants, jnp.zeros(1)]))
    curvature = _riccati_limit(problem, start)
    gain = _greedy_gain(problem, curvature)
    constant = problem.gamma * jnp.trace(curvature @ jnp.asarray(problem.noise)) / (1.0 - problem.gamma)
    return Optimum(linear_policy(problem, gain), curvature, constant)


def _greedy_gain(problem: LinearQuadratic, later: Array) -> Array:
    control, curvature = jnp.asarray(problem.control), problem.gamma * later
    bend = jnp.asarray(problem.action_cost) + control.T @ curvature @ control
    return -jnp.linalg.pinv(bend, hermitian=True) @ control.T @ curvature @ jnp.asarray(problem.dynamics)


def _riccati_step(problem: LinearQuadratic, later: Array) -> tuple[Array, tuple[Array, Array]]:
    gain = _greedy_gain(problem, later)
    closed = jnp.asarray(problem.dynamics) + jnp.asarray(problem.control) @ gain
    now = (
        jnp.asarray(problem.state_cost)
        + gain.T @ jnp.asarray(problem.action_cost) @ gain
        + problem.gamma * closed.T @ later @ closed
    )
    return now, (gain, now)


MOST_STEPS = 100_000
"""How many steps of the Riccati recursion are tried for a process without end."""
IMPROVEMENTS = 50
"""How many policy iterations follow where that was not enough; each doubles the digits that are right."""
DOUBLINGS = 64


@jax.jit
def _riccati_iterated(problem: LinearQuadratic, start: Array) -> tuple[Array, Array]:
    def unfinished(state: tuple[Array, Array, Array]) -> Array:
        steps, now, before = state
        return (steps < 2) | (_moved(now, before) & (steps < MOST_STEPS) & jnp.all(jnp.isfinite(now)))

    def step(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        steps, now, _ = state
        return steps + 1, _riccati_step(problem, now)[0], now

    _, now, before = jax.lax.while_loop(unfinished, step, (jnp.zeros((), jnp.int32), start, start))
    now = jax.lax.cond(_moved(now, before), lambda: _policy_iteration(problem, now), lambda: now)
    return now, jnp.all(jnp.isfinite(now))


def _moved(now: Array, before: Array) -> Array:
    return jnp.max(jnp.abs(now - before)) > 1e-13 * jnp.max(jnp.abs(now))


def _policy_iteration(problem: LinearQuadratic, curvature: Array) -> Array:
    """Return P from one that is near: gains are evaluated in whole, which takes no more steps with a discount near 1.

    It is not finite where a gain's discounted cost is not.

    Source: Hewer 1971, *An Iterative Technique for the Computation of the Steady State Gains for the Discrete Optimal
    Regulator*.
    """

    def unfinished(state: tuple[Array, Array, Array]) -> Array:
        rounds, now, before = state
        return (rounds < 1) | (_moved(now, before) & (rounds < IMPROVEMENTS) & jnp.all(jnp.isfinite(now)))

    def improved(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        rounds, now, _ = state
        return rounds + 1, _cost_of(problem, _greedy_gain(problem, now)), now

    return jax.lax.while_loop(unfinished, improved, (jnp.zeros((), jnp.int32), curvature, curvature))[1]


def _cost_of(problem: LinearQuadratic, gain: Array) -> Array:
    r"""Return the curvature :math:`\sum_t \gamma^t (M^T)^t (Q + K^T R K) M^t` of a gain's cost, :math:`M = A + B K`.

    The sum is doubled in each step: of twice as many terms it is :math:`S + (M^T)^n S M^n`.
    """
    closed = jnp.sqrt(problem.gamma) * (jnp.asarray(problem.dynamics) + jnp.asarray(problem.control) @ gain)
    first = jnp.asarray(problem.state_cost) + gain.T @ jnp.asarray(problem.action_cost) @ gain

    def doubled(_: Array, state: tuple[Array, Array]) -> tuple[Array, Array]:
        total, power = state
        return total + power.T @ total @ power, power @ power

    return jax.lax.fori_loop(0, DOUBLINGS, doubled, (first, closed))[0]


def _riccati_limit(problem: LinearQuadratic, start: Array) -> Array:
    curvature, converged = _riccati_iterated(problem, start)
    if not isinstance(converged, Tracer) and not converged:
        raise UsageError(
            f"gamma={problem.gamma}: no policy keeps the discounted cost finite, as control cannot bring a growing state back; "
            "a smaller gamma or a horizon would."
        )
    return curvature
