"""Optimal policies: by hand, against all deterministic policies, and by the laws of policy iteration."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import processes
import pytest
from jax import Array
from processes import HORIZON, HORIZONS

from jumar.errors import UsageError
from jumar.lab import tabular
from jumar.lab.dynamic_programming import (
    discounted_steps,
    greedy,
    greedy_improvement,
    optimal_action_values,
    optimal_policy,
    optimal_values,
    policy_iteration,
    suboptimality_bound,
)
from jumar.lab.tabular import TabularMDP
from jumar.policies.distributions import Categorical

pytestmark = pytest.mark.usefixtures("double_precision")


@jax.jit
def optimum(mdp: TabularMDP) -> tuple[Categorical, Array]:
    return optimal_policy(mdp), optimal_action_values(mdp)


@jax.jit
def iterated(mdp: TabularMDP, policy: Categorical) -> tuple[Categorical, Array]:
    return policy_iteration(mdp, policy, 8)


@jax.jit
def judged(mdp: TabularMDP, policy: Categorical) -> dict[str, Array]:
    return {
        "values": tabular.state_values(mdp, policy),
        "advantages": tabular.advantages(mdp, policy),
        "worth": tabular.performance(mdp, policy),
        "lacks at most": suboptimality_bound(mdp, policy),
    }


def test_a_choice_between_now_and_later_by_hand() -> None:
    """State 0: 1 now and the end, or nothing and then 3. With gamma 1/2 later is worth 1.5; with gamma 1/4, 0.75."""
    tables = (
        [[[0, 0, 1], [0, 1, 0]], [[0, 0, 1], [0, 0, 1]], [[0, 0, 1], [0, 0, 1]]],
        [[1, 0], [3, 3], [0, 0]],
        [1, 0, 0],
    )
    patient, hasty = (TabularMDP.of(*tables, gamma) for gamma in (0.5, 0.25))
    policy, values = optimum(patient)
    np.testing.assert_allclose(values, [[1.0, 1.5], [3.0, 3.0], [0.0, 0.0]], atol=1e-12)
    np.testing.assert_array_equal(policy.probs, [[0, 1], [1, 0], [1, 0]])  # of equals the first
    policy, values = optimum(hasty)
    np.testing.assert_allclose(values[0], [1.0, 0.75], rtol=1e-12)
    np.testing.assert_array_equal(policy.probs[0], [1, 0])
    # With one step there is no later.
    policy, values = optimum(TabularMDP.of(*tables, 1.0, horizon=2))
    np.testing.assert_allclose(values[:, 0], [[1.0, 3.0], [1.0, 0.0]])
    np.testing.assert_array_equal(policy.probs[:, 0], [[0, 1], [1, 0]])


def test_the_greedy_policy_takes_the_first_of_what_is_equal_but_for_rounding() -> None:
    policy = greedy(jnp.array([[1.0, 1.0 + 1e-15, 0.0], [1.0, 1.0 + 1e-6, 0.0], [0.0, 0.0, 0.0]]))
    np.testing.assert_array_equal(policy.probs, [[1, 0, 0], [0, 1, 0], [1, 0, 0]])
    np.testing.assert_array_equal(policy.entropy(), [0.0, 0.0, 0.0])


@pytest.mark.parametrize("seed", range(3))
def test_no_deterministic_policy_is_worth_more_in_any_state(seed: int) -> None:
    mdp = processes.process(None, seed)
    tables = np.array(list(itertools.product(range(mdp.n_actions), repeat=mdp.n_states)))
    moves = np.asarray(mdp.transitions)[np.arange(mdp.n_states), tables]
    rewards = np.asarray(mdp.rewards)[np.arange(mdp.n_states), tables]
    values = np.linalg.solve(np.eye(mdp.n_states) - mdp.gamma * moves, rewards[..., None])[..., 0]
    best, q = optimum(mdp)
    np.testing.assert_allclose(q.max(-1), values.max(0), rtol=1e-10)
    np.testing.assert_array_equal(best.mode(), tables[values.sum(-1).argmax()])


@pytest.mark.parametrize("horizon", HORIZONS.values(), ids=HORIZONS)
def test_no_advantage_of_an_optimal_policy_is_above_0(horizon: int | None) -> None:
    mdp = processes.process(horizon, 1)
    best, q = optimum(mdp)
    found = judged(mdp, best)
    np.testing.assert_allclose(found["values"], q.max(-1), rtol=1e-10)
    np.testing.assert_allclose(np.max(found["advantages"]), 0.0, atol=1e-10)
    np.testing.assert_allclose(found["lacks at most"], 0.0, atol=1e-8)
    other = judged(mdp, processes.random_policy(1))
    assert np.max(other["advantages"]) > 0.1
    lacks = np.max(q.max(-1) - other["values"], -1)
    assert np.all(lacks > 0.0)
    assert np.all(lacks <= other["lacks at most"])


@pytest.mark.parametrize("horizon", HORIZONS.values(), ids=HORIZONS)
def test_policy_iteration_never_loses_and_ends_at_the_optimum(horizon: int | None) -> None:
    mdp = processes.process(horizon, 2)
    last, values = iterated(mdp, processes.random_policy(3))
    _, q = optimum(mdp)
    assert np.all(np.diff(values, axis=0) >= -1e-12)
    np.testing.assert_allclose(values[0], judged(mdp, processes.random_policy(3))["values"], rtol=1e-12)
    assert np.all(values[1].max(-1) > values[0].max(-1) + 0.01)
    np.testing.assert_allclose(values[-1], q.max(-1), rtol=1e-10)
    np.testing.assert_array_equal(last.mode(), q.argmax(-1))


def test_a_policy_for_a_horizon_is_better_than_any_that_does_not_see_the_time() -> None:
    mdp = processes.process(HORIZON, 2)
    best, q = optimum(mdp)
    assert best.logits.shape == (HORIZON, mdp.n_states, mdp.n_actions)
    tables = np.array(list(itertools.product(range(mdp.n_actions), repeat=mdp.n_states)))
    steady = [_worth(mdp, table) for table in tables]
    assert judged(mdp, best)["worth"] > max(steady) + 1e-3
    np.testing.assert_allclose(judged(mdp, best)["worth"], np.asarray(mdp.initial) @ q[0].max(-1), rtol=1e-12)


def _worth(mdp: TabularMDP, actions: np.ndarray) -> float:
    """J of a deterministic policy, step by step."""
    move, reward = (np.asarray(table)[np.arange(mdp.n_states), actions] for table in (mdp.transitions, mdp.rewards))
    states, worth = np.asarray(mdp.initial), 0.0
    for step in range(HORIZON):
        worth += float(mdp.gamma**step * states @ reward)
        states = states @ move
    return worth


def test_outside_of_a_compiled_function_the_same_is_computed_in_double_precision() -> None:
    mdp = processes.process(None, 1)
    _, q = optimum(mdp)
    given = []

    def fit(values: Array, weights: Array) -> Array:
        given.extend([values.dtype, weights.dtype, (values * weights).dtype])
        return values

    with jax.enable_x64(False):
        values, policy = optimal_values(mdp), optimal_policy(mdp)
        improved = greedy_improvement(mdp, policy, fit)
    assert values.dtype == np.float64
    assert given == [np.float64] * 3
    np.testing.assert_allclose(values, q.max(-1), rtol=1e-12)
    np.testing.assert_array_equal(improved.logits, policy.logits)


def test_the_discounts_of_the_steps_left() -> None:
    np.testing.assert_allclose(discounted_steps(processes.process(None)), 5.0)
    tables = ([[[1.0]]], [[1.0]], [1.0])
    np.testing.assert_allclose(discounted_steps(TabularMDP.of(*tables, 0.9, 3)), [2.71, 1.9, 1.0])
    np.testing.assert_allclose(discounted_steps(TabularMDP.of(*tables, 1.0, 3)), [3.0, 2.0, 1.0])


def test_what_cannot_be_iterated_is_refused() -> None:
    mdp = processes.process(None)
    with pytest.raises(UsageError, match="n=0 must be at least 1"):
        policy_iteration(mdp, processes.random_policy(0), 0)
    with pytest.raises(UsageError, match=r"shape \(2, 2\) does not fit the process; it must be \(4, 3\)"):
        policy_iteration(mdp, Categorical(jnp.zeros((2, 2))), 1)
