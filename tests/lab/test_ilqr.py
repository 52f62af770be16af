"""Iterative LQR: one iteration on a linear-quadratic problem, and a pendulum that must swing before it can stand."""

from __future__ import annotations

import functools

import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array

from jumar.errors import UsageError
from jumar.lab import ilqr, riccati
from jumar.lab.linear_quadratic import LinearQuadratic, double_integrator, reward

pytestmark = pytest.mark.usefixtures("double_precision")


def without_noise(place: LinearQuadratic) -> ilqr.Problem:
    def dynamics(state: Array, action: Array) -> Array:
        return jnp.asarray(place.dynamics) @ state + jnp.asarray(place.control) @ action

    return ilqr.Problem(
        dynamics,
        lambda state, action: -reward(place, state, action),
        lambda state: state @ jnp.asarray(place.final_cost) @ state,
        place.gamma,
    )


def test_on_a_linear_quadratic_problem_one_iteration_finds_riccatis_gains() -> None:
    place = double_integrator(horizon=12)
    exact = riccati.optimum(place)
    start, first = np.array([1.0, -0.4]), np.random.default_rng(0).standard_normal((12, 1))
    found = ilqr.plan(without_noise(place), start, first)
    assert (found.iterations, found.converged) == (1, True)
    np.testing.assert_allclose(found.gains, exact.policy.gain, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(found.cost, start @ exact.curvature[0] @ start, rtol=1e-10)
    feedback = np.einsum("tmn,tn->tm", exact.policy.gain, found.states[:-1])
    np.testing.assert_allclose(found.actions, feedback, rtol=1e-8, atol=1e-12)


@functools.cache
def swing() -> tuple[ilqr.Problem, np.ndarray, ilqr.Plan]:
    problem, start, first = ilqr.pendulum_swing_up()
    return problem, start, ilqr.plan(problem, start, first)


def test_a_pendulum_swings_up_with_a_torque_that_cannot_lift_it() -> None:
    _, start, found = swing()
    assert found.converged
    np.testing.assert_allclose([np.cos(found.states[-1, 0]), found.states[-1, 1]], [1.0, 0.0], atol=5e-3)
    # At the limit of 2 alone it would come to rest at sin = 2 / 5; so it swings first to one side, then to the other.
    torque = 2.0 * np.tanh(found.actions[:, 0])
    assert torque.min() < -1.9
    assert torque.max() > 1.9
    aside = found.states[:, 0] - start[0]
    assert min(-aside.min(), aside.max()) > 0.3


def test_no_small_change_of_a_plan_is_better() -> None:
    problem, start, found = swing()
    ways = 1e-3 * np.random.default_rng(1).standard_normal((5, *found.actions.shape))
    for way in ways:
        actions = found.actions + way
        assert ilqr.total_cost(problem, ilqr.roll_out(problem, jnp.asarray(start), actions), actions) > found.cost


def test_its_feedback_holds_against_a_disturbance() -> None:
    """Pushed at the beginning, the plan's gains bring the pendulum nearer to upright than its actions alone."""
    problem, start, found = swing()
    state = pushed = start + np.array([0.02, 0.0])
    blind = np.asarray(ilqr.roll_out(problem, jnp.asarray(pushed), found.actions))[-1]
    for planned, action, gain in zip(found.states[:-1], found.actions, found.gains, strict=True):
        state = np.asarray(problem.dynamics(jnp.asarray(state), jnp.asarray(action + gain @ (state - planned))))
    assert 1.0 - np.cos(state[0]) < 0.2 * (1.0 - np.cos(blind[0]))


def test_a_pendulum_that_hangs_still_is_left_by_no_step() -> None:
    problem, start, first = ilqr.pendulum_swing_up()
    found = ilqr.plan(problem, start, 0.0 * first)
    assert found.iterations == 0
    np.testing.assert_array_equal(found.actions, 0.0 * first)


def test_what_makes_no_sense_is_refused() -> None:
    problem, start, first = ilqr.pendulum_swing_up()
    with pytest.raises(UsageError, match="iterations=0 must be at least 1"):
        ilqr.plan(problem, start, first, iterations=0)
    with pytest.raises(UsageError, match="cost is not finite"):
        ilqr.plan(problem, start, np.nan * first)
