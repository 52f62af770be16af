"""The regulator's closed forms: against drawn trajectories and finite differences; and what the book's figure says."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array

from jumar.lab import regulator
from jumar.lab.regulator import OPTIMUM, Regulator
from jumar.lab.rollouts import Rollouts, discounts, sampled_gradient
from jumar.solvers import fisher

pytestmark = pytest.mark.usefixtures("double_precision")

PROBLEM = Regulator(gamma=0.9)
THETAS = {"near": (-0.7, 0.2), "far": (0.1, 0.4), "negative": (-1.5, -0.3)}
N, GROUPS = 20_000, 50


class Exact(NamedTuple):
    moments: Array
    worth: Array
    gradient: Array
    step_fisher: Array
    trajectory_fisher: Array
    natural: Array


@jax.jit
def quantities(problem: Regulator, theta: Array) -> Exact:
    return Exact(
        regulator.second_moments(problem, theta),
        regulator.performance(problem, theta),
        regulator.policy_gradient(problem, theta),
        regulator.step_fisher(problem, theta),
        regulator.trajectory_fisher(problem, theta),
        regulator.natural_gradient(problem, theta),
    )


@jax.jit
def drawn(theta: Array) -> tuple[Rollouts, Array]:
    """Return trajectories and their scores."""
    rollouts = regulator.draw(PROBLEM, theta, jax.random.PRNGKey(1), N)
    return rollouts, fisher.scores(lambda x: regulator.log_prob(x, rollouts.states, rollouts.actions), theta)


@functools.cache
def example(name: str) -> tuple[Array, Rollouts, Array, Exact]:
    theta = jnp.array(THETAS[name])
    return theta, *drawn(theta), quantities(PROBLEM, theta)


def in_groups(rows: Array) -> Array:
    """Return ``[GROUPS, N / GROUPS, ...]``: the spread of the groups' means is the standard error."""
    return rows.reshape(GROUPS, -1, *rows.shape[1:])


def test_two_steps_by_hand() -> None:
    """At the optimum the second state is noise alone; with theta_1 = 0 it is the first with noise of both kinds."""
    two = replace(PROBLEM, depth=2)
    np.testing.assert_allclose(quantities(two, jnp.array(OPTIMUM)).worth, -(0.1 + 0.9 * 0.01), rtol=1e-8)
    still = jnp.array([0.0, 0.2 - 1e-5])
    found = quantities(two, still)
    np.testing.assert_allclose(found.worth, -(0.1 + 0.9 * (0.1 + 0.04 + 0.01)), rtol=1e-12)
    np.testing.assert_allclose(found.trajectory_fisher, np.diag([(0.1 + 0.15) / 0.04, 2 * 2 / 0.04]), rtol=1e-12)


def test_scores_are_those_of_the_book() -> None:
    theta, states, actions = jnp.array([-0.4, 0.3]), jnp.array([0.5]), jnp.array([0.1])
    sigma, off = 0.3 + 1e-5, 0.1 + 0.2
    found = fisher.scores(lambda x: regulator.log_prob(x, states, actions), theta)
    np.testing.assert_allclose(found, [[off * 0.5 / sigma**2, (off**2 - sigma**2) / sigma**3]], rtol=1e-10)


@pytest.mark.parametrize("name", THETAS)
def test_drawn_trajectories_have_the_moments_and_the_worth_of_the_closed_form(name: str) -> None:
    _, rollouts, _, exact = example(name)
    assert rollouts.states.shape == rollouts.actions.shape == (N, PROBLEM.depth)
    squares = np.square(rollouts.states)
    np.testing.assert_array_equal(rollouts.rewards, -squares)
    np.testing.assert_array_less(np.abs(squares.mean(0) - exact.moments), 5.0 * squares.std(0) / np.sqrt(N))
    returns = np.asarray(rollouts.returns(PROBLEM.gamma)[:, 0])
    assert abs(returns.mean() - exact.worth) < 5.0 * returns.std() / np.sqrt(N)


@pytest.mark.parametrize("name", THETAS)
def test_the_gradient_is_the_finite_difference_and_what_is_sampled(name: str) -> None:
    theta, rollouts, scores, exact = example(name)
    h = 1e-6
    ups, downs = (
        np.array([quantities(PROBLEM, theta + way).worth for way in sign * h * np.eye(2)]) for sign in (1, -1)
    )
    np.testing.assert_allclose(exact.gradient, (ups - downs) / (2.0 * h), rtol=1e-6, atol=1e-9)

    weights = discounts(PROBLEM.gamma, PROBLEM.depth)
    to_go = rollouts.reward_to_go(PROBLEM.gamma)
    estimate = jax.vmap(lambda scores, signals: sampled_gradient(scores, signals, weights))
    each = np.asarray(estimate(in_groups(scores), in_groups(to_go)))
    np.testing.assert_array_less(np.abs(each.mean(0) - exact.gradient), 5.0 * each.std(0) / np.sqrt(GROUPS))


@pytest.mark.parametrize("name", THETAS)
def test_the_fisher_matrix_is_that_of_the_drawn_states_and_what_is_sampled(name: str) -> None:
    theta, rollouts, scores, exact = example(name)
    sigma = regulator.standard_deviation(theta)
    product = fisher.fisher_product(
        lambda x: regulator.policy(x, rollouts.states), theta, jnp.ones(rollouts.states.shape)
    )
    given_the_states = np.diag([np.mean(np.square(rollouts.states)), 2.0]) / sigma**2
    np.testing.assert_allclose(fisher.dense(product, theta), given_the_states, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(exact.step_fisher, given_the_states, rtol=0.05, atol=1e-12)

    groups = in_groups(scores), in_groups(jnp.ones(scores.shape[:2]))
    for sampled, matrix in (
        (fisher.step_fisher, exact.step_fisher),
        (fisher.trajectory_fisher, exact.trajectory_fisher),
    ):
        each = np.asarray(jax.vmap(sampled)(*groups))
        np.testing.assert_array_less(np.abs(each.mean(0) - matrix), 5.0 * each.std(0) / np.sqrt(GROUPS))


@pytest.mark.parametrize("name", THETAS)
def test_the_natural_gradient_solves_with_the_fisher_matrix_of_trajectories(name: str) -> None:
    *_, exact = example(name)
    np.testing.assert_allclose(exact.natural, np.linalg.solve(exact.trajectory_fisher, exact.gradient), rtol=1e-9)


@jax.jit
def divergence(old: Array, new: Array) -> Array:
    return regulator.mean_kl(PROBLEM, old, new)


@jax.jit
def bend(theta: Array) -> Array:
    return jax.hessian(lambda new: regulator.mean_kl(PROBLEM, theta, new))(theta)


@pytest.mark.parametrize("name", THETAS)
def test_the_mean_divergence_is_that_of_the_drawn_states_and_bends_as_the_fisher_matrix_says(name: str) -> None:
    theta, rollouts, _, exact = example(name)
    other = theta + jnp.array([0.2, -0.05])
    rows = np.asarray(regulator.policy(theta, rollouts.states).kl(regulator.policy(other, rollouts.states))).mean(1)
    assert abs(rows.mean() - divergence(theta, other)) < 5.0 * rows.std() / np.sqrt(N)
    np.testing.assert_allclose(bend(theta), exact.step_fisher, rtol=1e-9, atol=1e-12)


def test_the_optimum_is_one() -> None:
    best = quantities(PROBLEM, jnp.array(OPTIMUM))
    for way in np.random.default_rng(0).standard_normal((20, 2)):
        assert quantities(PROBLEM, jnp.array(OPTIMUM) + 0.1 * way).worth < best.worth
    np.testing.assert_allclose(best.gradient[0], 0.0, atol=1e-12)


def test_figure_12_2_the_natural_gradient_points_to_the_optimum_and_the_true_one_to_less_noise() -> None:
    def facts(theta: Array) -> tuple[Array, Array, Array]:
        ahead = jnp.array(OPTIMUM) - theta
        true, natural = regulator.policy_gradient(PROBLEM, theta), regulator.natural_gradient(PROBLEM, theta)
        units = [x / jnp.linalg.norm(x) for x in (true, natural, ahead)]
        return units[1] @ units[2], units[0] @ units[2], -units[0][1]

    places = jnp.array([(a, b) for a in (-2.0, -1.5, -1.0, -0.5, 0.0) for b in (0.05, 0.1, 0.2, 0.3, 0.4)])
    natural, true, to_less_noise = map(np.asarray, jax.jit(jax.vmap(facts))(places))
    np.testing.assert_allclose([natural.min(), natural.mean(), natural.max()], [0.962, 0.992, 1.0], atol=5e-4)
    np.testing.assert_allclose([true.min(), true.mean(), true.max()], [0.395, 0.790, 1.0], atol=5e-4)
    np.testing.assert_allclose(to_less_noise.mean(), 0.818, atol=5e-4)
    assert (natural >= true - 1e-12).all()
