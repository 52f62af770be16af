r"""Iterative linear-quadratic regulation: plans for dynamics that are not linear, by Riccati recursions along trajectories.

Each iteration linearises the dynamics and takes the cost to second order along the trajectory that there is, solves that
linear-quadratic problem backward, and follows its policy forward. With :math:`Q_{aa}` regularised to :math:`Q_{aa} + \mu I`,

.. math:: a'_t = a_t + \alpha \, k_t + K_t (s'_t - s_t), \qquad k_t = -Q_{aa}^{-1} Q_a, \quad K_t = -Q_{aa}^{-1} Q_{as}.

The dynamics and costs are functions of single states and actions, which JAX differentiates. Costs are made small. On a
linear-quadratic problem the first iteration finds the optimum (:mod:`jumar.lab.riccati`).

Sources: Li and Todorov 2004, *Iterative Linear Quadratic Regulator Design for Nonlinear Biological Movement Systems*; Tassa,
Erez and Todorov 2012, *Synthesis and Stabilization of Complex Behaviors through Online Trajectory Optimization* (for the
regularisation and the line search).
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
from jumar.lab.precision import in_double
from jumar.lab.rollouts import discounts

Dynamics = Callable[[Array, Array], Array]
"""(state ``[n]``, action ``[m]``) -> the next state ``[n]``."""
Cost = Callable[[Array, Array], Array]
"""(state, action) -> what the step costs, a scalar."""
FinalCost = Callable[[Array], Array]
"""The last state -> what it costs, a scalar."""

FRACTIONS = 0.5 ** np.arange(11)
r"""The :math:`\alpha` that the line search tries."""
SUFFICIENT = 1e-4
"""Which part of the decrease that the quadratic model promises a step must have (Armijo's condition)."""
LEAST_DAMPING, MOST_DAMPING = 1e-6, 1e10
r"""Where :math:`\mu` begins once it is needed, and where the search is given up."""


class Problem(NamedTuple):
    """A problem of control without noise."""

    dynamics: Dynamics
    cost: Cost
    final_cost: FinalCost
    gamma: float = 1.0
    """Discount; the final cost has its power of the number of steps."""


class Plan(NamedTuple):
    """A trajectory with the feedback around it."""

    states: Array
    """``[T + 1, n]``."""
    actions: Array
    """``[T, m]``."""
    gains: Array
    """K, ``[T, m, n]``: what a state that is off the trajectory adds to the action."""
    cost: Array
    """The discounted cost of the trajectory."""
    iterations: Array
    """How many steps were taken, int32."""
    converged: Array
    """Whether it ended because no more decrease was to be expected, not because of the number of iterations."""


@in_double
def roll_out(problem: Problem, start: Array, actions: Array) -> Array:
    """Return the states ``[T + 1, n]`` that the actions ``[T, m]`` lead through."""

    def step(state: Array, action: Array) -> tuple[Array, Array]:
        return problem.dynamics(state, action), state

    last, states = jax.lax.scan(step, start, actions)
    return jnp.concatenate([states, last[None]])


@in_double
def total_cost(problem: Problem, states: Array, actions: Array) -> Array:
    r"""Return :math:`\sum_t \gamma^t c(s_t, a_t) + \gamma^T c_T(s_T)` of a trajectory."""
    weights = discounts(problem.gamma, len(actions) + 1)
    return weights[:-1] @ jax.vmap(problem.cost)(states[:-1], actions) + weights[-1] * problem.final_cost(states[-1])


def plan(
    problem: Problem,
    start: np.ndarray | Array,
    actions: np.ndarray | Array,
    iterations: int = 200,
    tolerance: float = 1e-9,
) -> Plan:
    r"""Return a plan from the state ``start`` ``[n]``, beginning with the ``actions`` ``[T, m]``.

    It ends when the quadratic model promises a decrease of less than ``tolerance`` times the cost (plus 1), when no step is
    accepted however large :math:`\mu` is, or after ``iterations``. No step leaves a trajectory along which every gradient is 0,
    such as a pendulum that hangs still: begin with other actions.

    Raises:
        UsageError: ``iterations`` is below 1, or the first trajectory's cost is not finite.
    """
    if iterations < 1:
        raise UsageError(f"iterations={iterations} must be at least 1.")
    found, finite = in_double(partial(_plan, problem, iterations))(np.asarray(start), np.asarray(actions), tolerance)
    if not finite:
        raise UsageError("the first trajectory's cost is not finite; begin with smaller actions.")
    return found


class Expansion(NamedTuple):
    """What a step costs to second order, and where it leads to first; all with a leading axis of time."""

    s: Array
    a: Array
    ss: Array
    as_: Array
    aa: Array
    by_state: Array
    by_action: Array


class Feedback(NamedTuple):
    """What a backward pass finds."""

    offsets: Array
    """k, ``[T, m]``."""
    gains: Array
    """K, ``[T, m, n]``."""
    slope: Array
    r""":math:`\sum_t k^T Q_a`, the decrease to first order in :math:`\alpha` (discounted)."""
    bend: Array
    r""":math:`\sum_t k^T Q_{aa} k`."""
    definite: Array
    """Whether every :math:`Q_{aa} + \\mu I` was positive definite."""


def _model(problem: Problem, states: Array, actions: Array) -> Expansion:
    def at(state: Array, action: Array) -> Expansion:
        by_state, by_action = jax.jacfwd(problem.dynamics, (0, 1))(state, action)
        s, a = jax.grad(problem.cost, (0, 1))(state, action)
        (ss, _), (as_, aa) = jax.hessian(problem.cost, (0, 1))(state, action)
        return Expansion(s, a, ss, as_, aa, by_state, by_action)

    return jax.vmap(at)(states, actions)


def _backward(problem: Problem, states: Array, actions: Array, damping: Array) -> Feedback:
    last = states[-1]
    end = jax.grad(problem.final_cost)(last), jax.hessian(problem.final_cost)(last)

    def before(later: tuple[Array, Array], now: Expansion) -> tuple[tuple[Array, Array], tuple[Array, ...]]:
        slope, bend = (problem.gamma * x for x in later)
        s, a = now.s + now.by_state.T @ slope, now.a + now.by_action.T @ slope
        ss = now.ss + now.by_state.T @ bend @ now.by_state
        as_ = now.as_ + now.by_action.T @ bend @ now.by_state
        aa = now.aa + now.by_action.T @ bend @ now.by_action
        values, vectors = jnp.linalg.eigh(aa + damping * jnp.eye(aa.shape[0]))
        definite = jnp.min(values) > 0.0
        inverse = (vectors / jnp.where(values > 0.0, values, 1.0)) @ vectors.T
        k, gain = -inverse @ a, -inverse @ as_
        bend = ss + gain.T @ aa @ gain + gain.T @ as_ + as_.T @ gain
        slope = s + gain.T @ (aa @ k + a) + as_.T @ k
        return (slope, 0.5 * (bend + bend.T)), (k, gain, k @ a, k @ aa @ k, definite)

    _, (k, gains, slopes, bends, definite) = jax.lax.scan(
        before, end, _model(problem, states[:-1], actions), reverse=True
    )
    weights = discounts(problem.gamma, len(actions))
    return Feedback(k, gains, weights @ slopes, weights @ bends, jnp.all(definite))


def _follow(
    problem: Problem, states: Array, actions: Array, feedback: Feedback, fraction: Array
) -> tuple[Array, Array]:
    """Return the states and actions of the policy with a fraction of its offsets."""

    def step(state: Array, now: tuple[Array, ...]) -> tuple[Array, tuple[Array, Array]]:
        before, action, offset, gain = now
        action = action + fraction * offset + gain @ (state - before)
        return problem.dynamics(state, action), (state, action)

    last, (found, taken) = jax.lax.scan(step, states[0], (states[:-1], actions, feedback.offsets, feedback.gains))
    return jnp.concatenate([found, last[None]]), taken


class _Search(NamedTuple):
    states: Array
    actions: Array
    gains: Array
    cost: Array
    damping: Array
    tries: Array
    taken: Array
    converged: Array


@partial(jax.jit, static_argnums=(0, 1))
def _plan(problem: Problem, iterations: int, start: Array, actions: Array, tolerance: Array) -> tuple[Plan, Array]:
    states = roll_out(problem, start, actions)
    cost, zero = total_cost(problem, states, actions), jnp.zeros((), jnp.int32)
    gains = jnp.zeros((*actions.shape, start.size))
    first = _Search(states, actions, gains, cost, jnp.zeros(()), zero, zero, jnp.zeros((), bool))

    def unfinished(now: _Search) -> Array:
        return ~now.converged & (now.tries < iterations) & (now.damping < MOST_DAMPING)

    def once(now: _Search) -> _Search:
        feedback = _backward(problem, now.states, now.actions, now.damping)
        promised = -(FRACTIONS * feedback.slope + 0.5 * FRACTIONS**2 * feedback.bend)
        found = jax.vmap(lambda x: _follow(problem, now.states, now.actions, feedback, x))(jnp.asarray(FRACTIONS))
        costs = jax.vmap(lambda states, actions: total_cost(problem, states, actions))(*found)
        good = feedback.definite & (now.cost - costs > SUFFICIENT * promised) & (promised > 0.0)  # False for NaN
        which, accepted = jnp.argmax(good), jnp.any(good)
        done = feedback.definite & (promised[0] <= tolerance * (1.0 + jnp.abs(now.cost)))
        accepted = accepted & ~done
        raised = jnp.maximum(4.0 * now.damping, LEAST_DAMPING)
        lowered = jnp.where(now.damping > LEAST_DAMPING, now.damping / 4.0, 0.0)
        return _Search(
            jnp.where(accepted, found[0][which], now.states),
            jnp.where(accepted, found[1][which], now.actions),
            # The feedback belongs to the trajectory that it was found along, which is the last one when it has converged.
            jnp.where(feedback.definite, feedback.gains, now.gains),
            jnp.where(accepted, costs[which], now.cost),
            jnp.where(accepted | done, lowered, raised),
            now.tries + 1,
            now.taken + accepted,
            done,
        )

    end = jax.lax.while_loop(unfinished, once, first)
    found = Plan(end.states, end.actions, end.gains, end.cost, end.taken, end.converged)
    return found, jnp.isfinite(cost)


# -- a worked case -----------------------------------------------------------------------------------------------------


def pendulum_swing_up(steps: int = 60) -> tuple[Problem, np.ndarray, np.ndarray]:
    r"""Return a pendulum to be swung up, its first state, and first actions ``[steps, 1]``.

    States are the angle from upright and its speed, and the dynamics those of Gymnasium's Pendulum (:math:`g = 10`, mass and
    length 1, steps of 0.05 s) with the torque :math:`2 \tanh a`, which is too weak to lift the pendulum at once. It begins
    hanging.
    """
    return Problem(_pendulum, _pendulum_cost, _upright_cost), np.array([np.pi, 0.0]), _first_push(steps)


def _pendulum(state: Array, action: Array) -> Array:
    angle, speed = state
    speed = speed + 0.05 * (15.0 * jnp.sin(angle) + 3.0 * 2.0 * jnp.tanh(action[0]))
    return jnp.stack([angle + 0.05 * speed, speed])


def _pendulum_cost(state: Array, action: Array) -> Array:
    return 0.05 * (1.0 - jnp.cos(state[0]) + 0.01 * state[1] ** 2 + 0.01 * action[0] ** 2)


def _upright_cost(state: Array) -> Array:
    return 50.0 * (1.0 - jnp.cos(state[0])) + 5.0 * state[1] ** 2


def _first_push(steps: int) -> np.ndarray:
    # Not 0, where the pendulum would hang still and every gradient be 0.
    return 0.1 * np.ones((steps, 1))
