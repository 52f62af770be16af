"""What is known of a new policy of the regulator from the old one: by hand, by finite differences, and by drawn rollouts."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array

from jumar.lab import regulator, regulator_improvement
from jumar.lab.regulator import Regulator
from jumar.lab.rollouts import Rollouts, discounts

pytestmark = pytest.mark.usefixtures("double_precision")

PROBLEM = Regulator(gamma=0.9)
OLD, NEW = np.array([-0.7, 0.2]), np.array([-0.5, 0.25])
N = 100_000


class Exact(NamedTuple):
    worth: Array
    new_worth: Array
    gradient: Array
    surrogate: Array
    slope: Array
    objective: Array
    objective_here: Array
    trajectory_kl: Array
    discounted_kl: Array
    constraint: Array


@jax.jit
def quantities(problem: Regulator, old: Array, new: Array) -> Exact:
    return Exact(
        regulator.performance(problem, old),
        regulator.performance(problem, new),
        regulator.policy_gradient(problem, old),
        regulator_improvement.surrogate(problem, old, new),
        regulator_improvement.surrogate_gradient(problem, old, new),
        regulator_improvement.surrogate_objective(problem, old, new),
        regulator_improvement.surrogate_objective(problem, old, old),
        regulator_improvement.trajectory_kl(problem, old, new),
        regulator_improvement.discounted_kl(problem, old, new),
        regulator_improvement.surrogate_constraint(problem, old, new),
    )


class Drawn(NamedTuple):
    rollouts: Rollouts
    ratio: Array
    to_go: Array
    values: Array
    action_values: Array
    advantages: Array
    kl: Array
    log_ratio_of_trajectories: Array


@functools.cache
def drawn() -> Drawn:
    @jax.jit
    def draw(key: Array, old: Array, new: Array) -> Drawn:
        rollouts = regulator.draw(PROBLEM, old, key, N)
        states, actions = rollouts.states, rollouts.actions
        log_probs, new_log_probs = (regulator.log_prob(theta, states, actions) for theta in (old, new))
        return Drawn(
            rollouts,
            jnp.exp(new_log_probs - log_probs),
            rollouts.reward_to_go(PROBLEM.gamma),
            regulator_improvement.state_values(PROBLEM, old, states),
            regulator_improvement.action_values(PROBLEM, old, states, actions),
            regulator_improvement.advantages(PROBLEM, old, states, actions),
            regulator.policy(old, states).kl(regulator.policy(new, states)),
            jnp.sum(log_probs - new_log_probs, 1),
        )

    return jax.tree.map(np.asarray, draw(jax.random.PRNGKey(3), OLD, NEW))


def assert_mean(rows: Array | np.ndarray, expected: Array) -> None:
    """The mean over the trajectories is within five standard errors of what is expected."""
    rows = np.asarray(rows)
    assert abs(rows.mean() - expected) < 5.0 * rows.std() / np.sqrt(len(rows))


def test_two_steps_by_hand() -> None:
    """q = (0.1, 0.15) with theta_1 = 0 and sigma = 0.2; only the first action counts, and p_1 = 1."""
    two, old, new = replace(PROBLEM, depth=2), np.array([0.0, 0.2 - 1e-5]), np.array([-0.5, 0.1 - 1e-5])
    found = quantities(two, old, new)
    np.testing.assert_allclose(found.surrogate, -0.9 * (0.1 * (0.25 - 1.0) + 0.01 - 0.04), rtol=1e-12)
    # V_0 = -s^2 - 0.9 (s^2 + 0.04 + 0.01), V_1 = -s^2
    here = -0.1 - 0.9 * (0.1 + 0.05) - 0.9 * 0.15
    np.testing.assert_allclose([found.objective_here, found.objective], [here, here + found.surrogate], rtol=1e-12)
    kl = [np.log(0.5) + (0.04 + q * 0.25) / 0.02 - 0.5 for q in (0.1, 0.15)]
    np.testing.assert_allclose(found.trajectory_kl, sum(kl), rtol=1e-12)
    np.testing.assert_allclose(found.discounted_kl, kl[0] + 0.9 * kl[1], rtol=1e-12)
    np.testing.assert_allclose(found.constraint, (kl[0] + 0.9 * kl[1]) / 2.0, rtol=1e-12)


def test_the_surrogate_begins_at_0_with_the_gradient_of_the_performance() -> None:
    same = quantities(PROBLEM, OLD, OLD)
    assert same.surrogate == same.discounted_kl == same.trajectory_kl == 0.0
    np.testing.assert_allclose(same.slope, same.gradient, rtol=1e-11)


def test_the_surrogate_misses_the_gain_to_second_order() -> None:
    way = NEW - OLD

    def missed(step: float) -> float:
        found = quantities(PROBLEM, OLD, OLD + step * way)
        return float(found.new_worth - found.worth - found.surrogate)

    np.testing.assert_allclose(missed(0.01) / missed(0.005), 4.0, rtol=0.02)


def test_drawn_rollouts_have_the_values_of_the_closed_form() -> None:
    found = drawn()
    for moment in (np.ones(N), found.rollouts.states[:, 3], found.rollouts.states[:, 3] ** 2):
        assert_mean((found.to_go[:, 3] - found.values[:, 3]) * moment, jnp.zeros(()))
    late = np.asarray(found.rollouts.actions)[:, 3] > 0.0
    assert_mean((found.to_go[:, 3] - found.action_values[:, 3]) * late, jnp.zeros(()))
    np.testing.assert_allclose(found.advantages, found.action_values - found.values, atol=1e-13)


def test_drawn_rollouts_have_the_surrogate_and_the_divergences_of_the_closed_form() -> None:
    found, exact = drawn(), quantities(PROBLEM, OLD, NEW)
    weights = np.asarray(discounts(PROBLEM.gamma, PROBLEM.depth))
    assert_mean((found.ratio * found.advantages) @ weights, exact.surrogate)
    assert_mean((found.ratio * found.to_go) @ weights, exact.objective)
    assert_mean(found.kl.sum(1), exact.trajectory_kl)
    assert_mean(found.log_ratio_of_trajectories, exact.trajectory_kl)
    assert_mean(found.kl @ weights, exact.discounted_kl)
    assert_mean((found.kl * weights).mean(1), exact.constraint)
