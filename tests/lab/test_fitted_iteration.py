"""Fitted and conservative policy iteration: by hand, by their bounds, and in the process in which fitting loses."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import processes
import pytest
from jax import Array
from processes import HORIZON, HORIZONS

from jumar.errors import UsageError
from jumar.lab import tabular
from jumar.lab.conservative_iteration import (
    conservative_policy_iteration,
    conservative_step,
    guaranteed_gain,
    mixture,
)
from jumar.lab.dynamic_programming import exact, greedy_improvement, policy_iteration, training_weights
from jumar.lab.fitted_iteration import (
    FORK,
    FORK_FEATURES,
    FORK_POLICY,
    FittedStep,
    degradation_bound,
    fitted_step,
    least_squares,
    with_errors,
    worst_advantage,
)
from jumar.lab.tabular import TabularMDP
from jumar.policies.distributions import Categorical

pytestmark = pytest.mark.usefixtures("double_precision")

BLURRED = least_squares(FORK_FEATURES)
RANDOM_FEATURES = jax.random.normal(jax.random.PRNGKey(11), (processes.STATES, processes.ACTIONS, 3))
COARSE = least_squares(RANDOM_FEATURES)

conservative = jax.jit(conservative_step)
improved = jax.jit(greedy_improvement, static_argnums=2)
iterated = jax.jit(conservative_policy_iteration, static_argnums=(2, 3, 4))


# -- fitted iteration -------------------------------------------------------------------------------------------------


@jax.jit
def fitting(mdp: TabularMDP, policy: Categorical) -> tuple[Array, Array]:
    weights = training_weights(mdp, policy)
    return BLURRED(tabular.action_values(mdp, policy), weights), weights


def test_a_fitted_step_at_the_fork_by_hand() -> None:
    """J = .95 (1/2) + .05 (6 - 5) before, and 6 - 10 after; the worst is to run in the marsh: -10 against -5."""
    found = jax.jit(fitted_step, static_argnums=2)(FORK, FORK_POLICY, BLURRED)
    np.testing.assert_allclose(found.performance, [0.525, -4.0], rtol=1e-12)
    np.testing.assert_allclose(found.worst_advantage, -5.0, rtol=1e-12)
    np.testing.assert_allclose(found.bound, 0.525 - 2 * 5.0, rtol=1e-12)
    np.testing.assert_allclose(found.visits, [[[1, 0, 0], [0, 0.95, 0.05]], [[1, 0, 0], [0, 0, 1]]], atol=1e-12)
    np.testing.assert_allclose(found.shift, 0.95 / 2, rtol=1e-12)
    np.testing.assert_array_equal(found.new.mode()[:, 0][0], 1)
    np.testing.assert_array_equal(found.new.mode()[1], [0, 0, 0])
    # What is fitted: exact at the fork in the first step, and the mean of road and marsh in the second.
    fitted, weights = fitting(FORK, FORK_POLICY)
    np.testing.assert_allclose(fitted[0], [[0.5, 1.0], [0, 0], [0, 0]], atol=1e-12)
    np.testing.assert_allclose(fitted[1], [[0, 0], [0.45, 0], [0.45, 0]], atol=1e-12)
    np.testing.assert_allclose(weights[1] * 2, [[0, 0], [0.475, 0.475], [0.025, 0.025]], atol=1e-12)


def test_with_exact_values_the_same_step_finds_the_optimum() -> None:
    _, values = jax.jit(policy_iteration, static_argnums=2)(FORK, FORK_POLICY, 3)
    np.testing.assert_allclose(values[:, 0, 0], [0.525, 6.0, 6.0], rtol=1e-12)
    np.testing.assert_allclose(values[-1], [[6, 2, 0], [6, 1, 0]], atol=1e-12)


class Step(NamedTuple):
    step: FittedStep
    bound: Array
    new_values: Array
    values: Array
    weights: Array
    fitted: Array


@jax.jit
def coarse_step(mdp: TabularMDP, policy: Categorical) -> Step:
    found = fitted_step(mdp, policy, COARSE)
    values, weights = tabular.action_values(mdp, policy), training_weights(mdp, policy)
    return Step(
        found,
        degradation_bound(mdp, policy, found.new),
        tabular.state_values(mdp, found.new),
        values,
        weights,
        COARSE(values, weights),
    )


@pytest.mark.parametrize("horizon", HORIZONS.values(), ids=HORIZONS)
def test_what_a_fitted_step_loses_is_bounded_in_every_state(horizon: int | None) -> None:
    lost = 0
    for seed in range(8):
        mdp, policy = processes.process(horizon, seed), processes.random_policy(seed)
        found = coarse_step(mdp, policy)
        assert np.all(found.new_values >= found.bound - 1e-12)
        first = np.reshape(found.bound, (-1, processes.STATES))[0]
        np.testing.assert_allclose(found.step.bound, np.asarray(mdp.initial) @ first, rtol=1e-12)
        lost += int(found.step.performance[1] < found.step.performance[0])
        assert -2.0 * np.max(np.abs(np.asarray(found.fitted) - found.values)) <= found.step.worst_advantage
    assert lost > 0, "no step lost, so that nothing was tested"


@pytest.mark.parametrize("horizon", HORIZONS.values(), ids=HORIZONS)
def test_least_squares_solves_its_normal_equations(horizon: int | None) -> None:
    found = coarse_step(processes.process(horizon), processes.random_policy(4))
    weights = np.asarray(found.weights)
    residuals = weights * (np.asarray(found.fitted) - found.values)
    np.testing.assert_allclose(np.einsum("...sa,sad->...d", residuals, RANDOM_FEATURES), 0.0, atol=1e-13)
    assert np.max(np.abs(residuals)) > 1e-3
    np.testing.assert_allclose(weights.sum(), 1.0, rtol=1e-12)


@jax.jit
def misled(mdp: TabularMDP, policy: Categorical) -> dict[str, Array]:
    new = greedy_improvement(mdp, policy, with_errors(np.array([[0.0, 2.0]])))
    return {
        "worst": worst_advantage(mdp, policy, new),
        "before": tabular.performance(mdp, policy),
        "after": tabular.performance(mdp, new),
        "bound": jnp.ravel(degradation_bound(mdp, policy, new))[0],
    }


def test_the_bound_is_reached_where_the_worst_action_is_taken_for_ever() -> None:
    """One state, actions worth 1 and 0: always the first one, then always the second, by an error of 2."""
    tables = ([[[1.0], [1.0]]], [[1.0, 0.0]], [1.0])
    policy = Categorical(jnp.array([[0.0, -1e9]]))
    for mdp, steps in ((TabularMDP.of(*tables, 0.75), 4.0), (TabularMDP.of(*tables, 1.0, 3), 3.0)):
        expected = {"worst": -1.0, "before": steps, "after": 0.0, "bound": 0.0}
        found = misled(mdp, policy)
        for name, number in expected.items():
            np.testing.assert_allclose(found[name], number, atol=1e-12, err_msg=name)


# -- conservative iteration -------------------------------------------------------------------------------------------


def test_a_conservative_step_at_the_fork_by_hand() -> None:
    """L = .475 + .95 (1/2) - .05 (5) = .7 and epsilon = 5, so the gain is .7 alpha - 10 alpha^2: best at .035."""
    target = improved(FORK, FORK_POLICY, BLURRED)
    alpha, gain = conservative(FORK, FORK_POLICY, target)
    np.testing.assert_allclose([alpha, gain], [0.035, 0.01225], rtol=1e-9)
    np.testing.assert_allclose(jax.jit(guaranteed_gain)(FORK, FORK_POLICY, target, 0.02), 0.01, rtol=1e-9)
    probs = mixture(FORK_POLICY, target, 0.2).probs
    np.testing.assert_allclose(probs[0, 0], [0.76, 0.24], rtol=1e-12)
    np.testing.assert_allclose(probs[1, 1:], [[0.6, 0.4], [0.6, 0.4]], rtol=1e-12)


def test_conservative_iteration_with_the_same_fit_never_loses_at_the_fork_and_finds_the_optimum() -> None:
    """The data move with the policy: as the marsh is visited more, the fit learns what it is like."""
    found = iterated(FORK, FORK_POLICY, 300, BLURRED)
    np.testing.assert_allclose(found.performance[0], 0.525)
    np.testing.assert_allclose(found.performance[-1], 6.0, rtol=1e-6)
    assert np.all(np.diff(found.performance) >= found.gains - 1e-12)
    assert found.steps[0] == pytest.approx(0.035)
    assert found.steps[-1] == 0.0  # it has stopped
    stopped = int(np.argmin(found.steps))
    np.testing.assert_array_equal(found.steps[stopped:], 0.0)
    np.testing.assert_array_equal(found.performance[stopped:], found.performance[-1])


@jax.jit
def mixed(mdp: TabularMDP, policy: Categorical, target: Categorical, alphas: Array) -> tuple[Array, ...]:
    worth = jax.lax.map(lambda alpha: tabular.performance(mdp, mixture(policy, target, alpha)), alphas)
    bounds = jax.vmap(lambda alpha: guaranteed_gain(mdp, policy, target, alpha))(alphas)
    return (worth - tabular.performance(mdp, policy), bounds, *conservative_step(mdp, policy, target))


ALPHAS = np.concatenate([[0.0], np.geomspace(1e-6, 1.0, 60)])


@pytest.mark.parametrize("horizon", HORIZONS.values(), ids=HORIZONS)
def test_a_mixture_gains_what_is_guaranteed_and_the_step_guarantees_most(horizon: int | None) -> None:
    for seed in range(4):
        mdp, policy = processes.process(horizon, seed), processes.random_policy(seed)
        target = tabular.over_time(mdp, Categorical(policy.logits + processes.random_policy(seed + 30, 3.0).logits))
        gains, bounds, alpha, best = mixed(mdp, policy, target, ALPHAS)
        assert np.all(bounds <= gains + 1e-12)
        np.testing.assert_allclose(gains[0], 0.0, atol=1e-12)
        np.testing.assert_allclose(bounds[1], gains[1], rtol=1e-3)  # the surrogate's slope is that of J
        assert np.max(bounds) <= best + 1e-15
        assert (alpha > 0.0) == (best > 0.0) == (gains[1] > 0.0)


def described(mdp: TabularMDP, policy: Categorical, target: Categorical) -> tuple[Array, Array]:
    return tabular.expected_advantages(mdp, policy, target), tabular.state_distribution(mdp, policy)


@pytest.mark.parametrize("seed", range(3))
def test_the_best_step_without_a_horizon_in_closed_form(seed: int) -> None:
    mdp, policy = processes.process(None, seed), processes.random_policy(seed)
    target = improved(mdp, policy)
    gained, states = jax.jit(described)(mdp, policy, target)
    advantage, epsilon = float(states @ gained), np.max(np.abs(gained))
    step = (1.0 - mdp.gamma) / mdp.gamma * (1.0 / np.sqrt(1.0 - advantage / (2.0 * epsilon)) - 1.0)
    alpha, gain = conservative(mdp, policy, target)
    np.testing.assert_allclose(alpha, step, rtol=1e-7)
    printed = step / (1.0 - mdp.gamma)
    printed *= advantage - 2.0 * step * mdp.gamma * epsilon / (1.0 - mdp.gamma * (1.0 - step))
    np.testing.assert_allclose(gain, printed, rtol=1e-10)


def test_without_a_later_there_is_no_risk_and_the_step_is_whole() -> None:
    policy = processes.random_policy(5)
    for mdp in (processes.process(1), replace(processes.process(None), gamma=0.0)):
        alpha, gain = conservative(mdp, policy, improved(mdp, policy))
        np.testing.assert_allclose(alpha, 1.0, rtol=1e-12)
        assert gain > 0.0
    mdp = processes.process(None)
    alpha, gain = conservative(mdp, policy, policy)
    assert (alpha, gain) == (0.0, 0.0)


def test_it_stops_where_too_little_is_guaranteed() -> None:
    mdp, policy = processes.process(None), processes.random_policy(6)
    free = iterated(mdp, policy, 12, exact, 0.0)
    assert np.all(free.gains > 0.0)
    assert np.all(np.diff(free.performance) >= free.gains)
    least = 1.001 * float(free.gains[4])
    bound = iterated(mdp, policy, 12, exact, least)
    np.testing.assert_allclose(bound.performance[:5], free.performance[:5], rtol=1e-12)
    np.testing.assert_array_equal(bound.steps[4:], 0.0)
    np.testing.assert_array_equal(bound.performance[5:], bound.performance[4])


def test_what_cannot_be_done_is_refused() -> None:
    policy = processes.random_policy(0)
    with pytest.raises(UsageError, match="n=0 must be at least 1"):
        conservative_policy_iteration(processes.process(None), policy, 0)
    with pytest.raises(UsageError, match=r"least_gain=-1.0 must be at least 0"):
        conservative_policy_iteration(processes.process(None), policy, 1, least_gain=-1.0)
    with pytest.raises(UsageError, match=r"features of shape \(3, 2\) must have the shape"):
        least_squares(np.zeros((3, 2)))
    with pytest.raises(UsageError, match="does not fit the process"):
        conservative_policy_iteration(processes.process(HORIZON), Categorical(jnp.zeros((4, 2))), 1)
