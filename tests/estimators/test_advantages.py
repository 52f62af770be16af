"""Returns and advantages: hand-computed rows, plain loops over the definitions, and identities between estimators."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jumar.estimators.advantages import (
    GAE,
    DiscountedStates,
    Finished,
    FullReturn,
    LimitsAsEnds,
    NStep,
    RewardToGo,
    Steps,
    TimeBaseline,
    ages,
    discounted_returns,
    full_returns,
    gae,
    means_by_age,
    n_step_returns,
)

advantages_of = jax.jit(gae)
to_go = jax.jit(discounted_returns)
n_step = jax.jit(n_step_returns, static_argnums=5)
whole = jax.jit(full_returns)


def column(*values: float) -> Any:
    return np.array(values, np.float32)[:, None]


def flags(*values: int) -> Any:
    return np.array(values, bool)[:, None]


# Three rows: rewards 1, 2, 3; V = 10, 20, 30; V of the true successors 21, 31, 40; gamma 0.5, lambda 0.5.
REWARDS, VALUES, SUCCESSORS = column(1, 2, 3), column(10, 20, 30), column(21, 31, 40)
NEVER = flags(0, 0, 0)

# -- literals ---------------------------------------------------------------------------------------------------------


def three_rows(terminated: np.ndarray, truncated: np.ndarray) -> np.ndarray:
    return np.asarray(advantages_of(REWARDS, VALUES, SUCCESSORS, terminated, truncated, 0.5, 0.5))[:, 0]


def test_gae_of_three_rows_that_go_on() -> None:
    # deltas 1.5, -2.5, -7; A = delta + A'/4
    np.testing.assert_allclose(three_rows(NEVER, NEVER), [1.5 + (-2.5 - 1.75) / 4, -4.25, -7.0])


def test_gae_of_three_rows_with_a_termination_in_the_middle() -> None:
    # The middle row is worth its reward alone: delta = 2 - 20 = -18, and nothing comes from the row after it.
    np.testing.assert_allclose(three_rows(flags(0, 1, 0), NEVER), [1.5 - 4.5, -18.0, -7.0])


def test_gae_of_three_rows_with_a_time_limit_in_the_middle() -> None:
    # The middle row bootstraps with V of its own successor: delta = -2.5, and nothing comes from the row after it.
    np.testing.assert_allclose(three_rows(NEVER, flags(0, 1, 0)), [1.5 - 0.625, -2.5, -7.0])


def test_termination_wins_over_a_time_limit_in_the_same_row() -> None:
    np.testing.assert_allclose(three_rows(flags(0, 1, 0), flags(0, 1, 0)), three_rows(flags(0, 1, 0), NEVER))


@pytest.mark.parametrize("part", [GAE(0.5, 0.5), NStep(0.5, 2), RewardToGo(0.5)], ids=lambda part: type(part).__name__)
def test_a_time_limit_that_counts_as_an_end_is_worth_what_a_termination_is(part: Any) -> None:
    limit = LimitsAsEnds(part)(Steps.on_policy(REWARDS, VALUES, SUCCESSORS, NEVER, flags(0, 1, 0)))
    for one, other in zip(
        limit, part(Steps.on_policy(REWARDS, VALUES, SUCCESSORS, flags(0, 1, 0), NEVER)), strict=True
    ):
        np.testing.assert_array_equal(one, other)
    assert not np.array_equal(limit[0], part(Steps.on_policy(REWARDS, VALUES, SUCCESSORS, NEVER, flags(0, 1, 0)))[0])


@pytest.mark.parametrize(
    ("terminated", "truncated", "expected"),
    [
        ((0, 0, 0), (0, 0, 0), [1 + (2 + 23 / 2) / 2, 2 + 23 / 2, 3 + 20]),
        ((0, 1, 0), (0, 0, 0), [1 + 2 / 2, 2, 3 + 20]),
        ((0, 0, 0), (0, 1, 0), [1 + (2 + 31 / 2) / 2, 2 + 31 / 2, 3 + 20]),
        ((0, 0, 1), (1, 0, 0), [1 + 21 / 2, 2 + 3 / 2, 3]),
        ((0, 0, 1), (0, 0, 1), [1 + (2 + 3 / 2) / 2, 2 + 3 / 2, 3]),
    ],
)
def test_discounted_returns_of_three_rows(terminated: Any, truncated: Any, expected: list[float]) -> None:
    result = to_go(REWARDS, SUCCESSORS, flags(*terminated), flags(*truncated), 0.5)
    np.testing.assert_allclose(result[:, 0], expected)


@pytest.mark.parametrize(
    ("n", "terminated", "truncated", "expected"),
    [
        (1, (0, 0, 0), (0, 0, 0), [1 + 21 / 2, 2 + 31 / 2, 3 + 40 / 2]),
        (2, (0, 0, 0), (0, 0, 0), [1 + 2 / 2 + 31 / 4, 2 + 3 / 2 + 40 / 4, 3 + 40 / 2]),
        (2, (0, 1, 0), (0, 0, 0), [1 + 2 / 2, 2, 3 + 40 / 2]),
        (2, (0, 0, 0), (1, 0, 0), [1 + 21 / 2, 2 + 3 / 2 + 40 / 4, 3 + 40 / 2]),
    ],
)
def test_n_step_returns_of_three_rows(n: int, terminated: Any, truncated: Any, expected: list[float]) -> None:
    result = n_step(REWARDS, SUCCESSORS, flags(*terminated), flags(*truncated), 0.5, n)
    np.testing.assert_allclose(result[:, 0], expected)


def test_full_returns_give_every_row_of_an_episode_the_same_number() -> None:
    rewards = column(1, 2, 4, 8, 16)
    result = whole(rewards, flags(0, 1, 0, 0, 0), flags(0, 0, 0, 1, 0), 0.5)
    np.testing.assert_allclose(result[:, 0], [2, 2, 8, 8, 16])


def test_full_returns_begin_anew_after_a_row_that_is_no_experience() -> None:
    # The third row is the reset step of a NEXT_STEP environment: the next episode begins only after it.
    rewards, starts = column(1, 2, 0, 8, 16), flags(1, 0, 0, 1, 0)
    result = whole(rewards, flags(0, 1, 0, 0, 0), NEVER[:1].repeat(5, axis=0), 0.5, starts)
    np.testing.assert_allclose(result[[0, 1, 3, 4], 0], [2, 2, 16, 16])


def test_n_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="n=0 is out of range"):
        n_step(REWARDS, SUCCESSORS, NEVER, NEVER, 0.5, 0)


# -- plain loops over the definitions ---------------------------------------------------------------------------------

LENGTH = 8
numbers = st.floats(-10, 10, width=32)
rows_of = partial(st.lists, min_size=LENGTH, max_size=LENGTH)
random_rows = st.tuples(
    rows_of(numbers), rows_of(numbers), rows_of(numbers), rows_of(st.booleans()), rows_of(st.booleans())
)
discounts = st.sampled_from([0.0, 0.5, 0.9, 0.99, 1.0])


def arrays(rows: Any) -> list[np.ndarray]:
    """Return rewards, values, successor values, terminated and truncated of two environments: one a mirror image."""
    columns = [np.array(x, bool if isinstance(x[0], bool) else np.float32)[:, None] for x in rows]
    return [np.concatenate([x, x[::-1]], axis=1) for x in columns]


def last_row(ended: np.ndarray, t: int) -> int:
    """Return the last row of the batch that belongs to the same episode as row ``t``."""
    while t < LENGTH - 1 and not ended[t]:
        t += 1
    return t


def looped(function: Any, *columns: np.ndarray) -> np.ndarray:
    """Apply a function of (t, columns of one environment) to every row."""
    both = [[function(t, *(x[:, i] for x in columns)) for t in range(LENGTH)] for i in range(2)]
    return np.array(both).T


@given(random_rows, discounts, discounts)
@settings(max_examples=40, deadline=None)
def test_gae_is_the_decayed_sum_of_deltas_to_the_end_of_the_episode(rows: Any, gamma: float, lam: float) -> None:
    rewards, values, successors, terminated, truncated = arrays(rows)

    def one(t: int, r: Any, v: Any, after: Any, dead: Any, cut: Any) -> float:
        delta = r + gamma * np.where(dead, 0, after) - v
        return sum((gamma * lam) ** (k - t) * delta[k] for k in range(t, last_row(dead | cut, t) + 1))

    result = advantages_of(rewards, values, successors, terminated, truncated, gamma, lam)
    expected = looped(one, rewards, values, successors, terminated, truncated)
    np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-3)


@given(random_rows, discounts, st.sampled_from([1, 2, 3, LENGTH + 5]))
@settings(max_examples=40, deadline=None)
def test_n_step_returns_are_their_definition(rows: Any, gamma: float, n: int) -> None:
    rewards, _, successors, terminated, truncated = arrays(rows)

    def one(t: int, r: Any, after: Any, dead: Any, cut: Any) -> float:
        last = min(t + n - 1, last_row(dead | cut, t))
        total = sum(gamma ** (k - t) * r[k] for k in range(t, last + 1))
        return total + (0.0 if dead[last] else gamma ** (last - t + 1) * after[last])

    result = n_step(rewards, successors, terminated, truncated, gamma, n)
    np.testing.assert_allclose(result, looped(one, rewards, successors, terminated, truncated), rtol=1e-4, atol=1e-3)
    if n > LENGTH:
        np.testing.assert_allclose(
            result, to_go(rewards, successors, terminated, truncated, gamma), rtol=1e-4, atol=1e-3
        )


@given(random_rows, discounts)
@settings(max_examples=40, deadline=None)
def test_full_returns_are_their_definition(rows: Any, gamma: float) -> None:
    rewards, _, _, terminated, truncated = arrays(rows)

    def one(t: int, r: Any, ended: Any) -> float:
        first = t
        while first > 0 and not ended[first - 1]:
            first -= 1
        return sum(gamma ** (k - first) * r[k] for k in range(first, last_row(ended, t) + 1))

    expected = looped(one, rewards, terminated | truncated)
    np.testing.assert_allclose(whole(rewards, terminated, truncated, gamma), expected, rtol=1e-4, atol=1e-3)


# -- identities -------------------------------------------------------------------------------------------------------


@pytest.fixture
def rollout() -> list[np.ndarray]:
    """Rewards, values, successor values, terminated and truncated of 12 steps of 3 environments."""
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal((12, 3)).astype(np.float32) for _ in range(3)]
    return [*arrays, rng.random((12, 3)) < 0.15, rng.random((12, 3)) < 0.15]


def test_lambda_zero_is_the_one_step_advantage(rollout: list[np.ndarray]) -> None:
    rewards, values, successors, terminated, _ = rollout
    one_step = rewards + 0.9 * np.where(terminated, 0, successors) - values
    np.testing.assert_allclose(advantages_of(*rollout, 0.9, 0.0), one_step, atol=1e-5)


def test_lambda_one_is_the_return_minus_the_value() -> None:
    # Within an episode the values telescope only if V of the successor is V of the next row.
    rng = np.random.default_rng(1)
    rewards, values = (rng.standard_normal((12, 3)).astype(np.float32) for _ in range(2))
    terminated, truncated = rng.random((12, 3)) < 0.15, rng.random((12, 3)) < 0.15
    following = np.concatenate([values[1:], rng.standard_normal((1, 3)).astype(np.float32)])
    successors = np.where(terminated | truncated, rng.standard_normal((12, 3)).astype(np.float32), following)
    returns = to_go(rewards, successors, terminated, truncated, 0.9)
    result = advantages_of(rewards, values, successors, terminated, truncated, 0.9, 1.0)
    np.testing.assert_allclose(result, returns - values, atol=1e-5)


def test_lambda_mixes_the_n_step_returns_geometrically() -> None:
    rng = np.random.default_rng(2)
    rewards, values = (rng.standard_normal((5, 1)).astype(np.float32) for _ in range(2))
    successors = np.concatenate([values[1:], column(0.7)])
    never = np.zeros((5, 1), bool)
    lam, n_steps = 0.8, [n_step(rewards, successors, never, never, 0.9, n)[0, 0] for n in range(1, 6)]
    mixture = (1 - lam) * sum(lam**i * n_steps[i] for i in range(4)) + lam**4 * n_steps[4]
    result = advantages_of(rewards, values, successors, never, never, 0.9, lam)[0, 0]
    assert float(result) == pytest.approx(float(mixture - values[0, 0]), abs=1e-5)


def test_a_rollout_split_at_the_end_of_an_episode_equals_the_joined_one(rollout: list[np.ndarray]) -> None:
    joined = [x.copy() for x in rollout]
    joined[3][6], joined[4][6] = [True, False, True], [False, True, False]
    parts = [advantages_of(*(x[part] for x in joined), 0.9, 0.8) for part in (slice(0, 7), slice(7, 12))]
    np.testing.assert_allclose(advantages_of(*joined, 0.9, 0.8), np.concatenate(parts), atol=1e-6)


def test_a_rollout_cut_by_the_batch_equals_one_cut_by_a_time_limit(rollout: list[np.ndarray]) -> None:
    limited = [x.copy() for x in rollout]
    limited[4][6] = True
    for function in (lambda x: advantages_of(*x, 0.9, 0.8), lambda x: to_go(x[0], *x[2:], 0.9)):
        parts = [function([x[part] for x in rollout]) for part in (slice(0, 7), slice(7, 12))]
        np.testing.assert_allclose(function(limited), np.concatenate(parts), atol=1e-6)


def test_a_rollout_split_anywhere_equals_the_joined_one_given_the_lambda_value_at_the_cut() -> None:
    # The value at the cut that carries everything after it is V + lambda A.
    rng = np.random.default_rng(3)
    rewards, values = (rng.standard_normal((10, 2)).astype(np.float32) for _ in range(2))
    successors = np.concatenate([values[1:], rng.standard_normal((1, 2)).astype(np.float32)])
    never = np.zeros((10, 2), bool)
    joined = advantages_of(rewards, values, successors, never, never, 0.9, 0.8)
    first_successors = successors[:4].copy()
    first_successors[3] += 0.8 * np.asarray(joined)[4]
    first = advantages_of(rewards[:4], values[:4], first_successors, never[:4], never[:4], 0.9, 0.8)
    np.testing.assert_allclose(first, joined[:4], atol=1e-5)


def test_constant_reward_under_a_time_limit_is_worth_one_over_one_minus_gamma(rollout: list[np.ndarray]) -> None:
    gamma, value = 0.9, 10.0
    ones, never, truncated = np.ones((12, 3), np.float32), np.zeros((12, 3), bool), rollout[4]
    assert truncated.any()
    for lam in (0.0, 0.8, 1.0):
        result = advantages_of(ones, value * ones, value * ones, never, truncated, gamma, lam)
        np.testing.assert_allclose(result, 0.0, atol=1e-5)
    np.testing.assert_allclose(to_go(ones, value * ones, never, truncated, gamma), value, atol=1e-5)
    np.testing.assert_allclose(n_step(ones, value * ones, never, truncated, gamma, 3), value, atol=1e-5)


@pytest.mark.parametrize("kind", ["terminated", "truncated"])
def test_nothing_flows_back_over_the_end_of_an_episode(kind: str) -> None:
    # d A_t / d r_u is (gamma lambda)^(u - t) inside an episode and exactly 0 across its end.
    ended = jnp.array([0, 0, 1, 0, 1, 0], bool)[:, None]
    never = jnp.zeros((6, 1), bool)
    terminated, truncated = (ended, never) if kind == "terminated" else (never, ended)
    zeros = jnp.zeros((6, 1), jnp.float32)

    def by_rewards(function: Any) -> np.ndarray:
        return np.asarray(jax.jit(jax.jacobian(function))(zeros))[:, 0, :, 0]

    expected = np.zeros((6, 6))
    for rows in ([0, 1, 2], [3, 4], [5]):
        for t in rows:
            for u in rows:
                expected[t, u] = 0.72 ** (u - t) if u >= t else 0.0
    jacobian = by_rewards(lambda r: gae(r, zeros, zeros, terminated, truncated, 0.9, 0.8))
    np.testing.assert_allclose(jacobian, expected, atol=1e-6)
    jacobian = by_rewards(lambda r: discounted_returns(r, zeros, terminated, truncated, 0.72))
    np.testing.assert_allclose(jacobian, expected, atol=1e-6)
    jacobian = by_rewards(lambda r: n_step_returns(r, zeros, terminated, truncated, 0.72, 9))
    np.testing.assert_allclose(jacobian, expected, atol=1e-6)


def test_parts_return_advantages_and_targets_that_differ_by_the_values(rollout: list[np.ndarray]) -> None:
    rewards, values, successors, terminated, truncated = rollout
    targets = {
        GAE(0.9, 0.8): advantages_of(*rollout, 0.9, 0.8) + values,
        NStep(0.9, 3): n_step(rewards, successors, terminated, truncated, 0.9, 3),
        RewardToGo(0.9): to_go(rewards, successors, terminated, truncated, 0.9),
    }
    for part, target in targets.items():
        advantages, returns, weights, _ = jax.jit(part.__call__)(Steps.on_policy(*map(jnp.asarray, rollout)))
        assert np.all(np.asarray(weights) == 1.0)
        np.testing.assert_allclose(returns, target, atol=1e-5)
        np.testing.assert_allclose(advantages, target - values, atol=1e-5)


def test_estimates_stay_float32_with_64_bit_mode_on(rollout: list[np.ndarray]) -> None:
    with jax.enable_x64(True):
        results = [
            jax.eval_shape(part.__call__, Steps.on_policy(*map(jnp.asarray, rollout)))
            for part in (
                GAE(0.9, 0.8),
                NStep(0.9, 3),
                RewardToGo(0.9),
                FullReturn(0.9),
                DiscountedStates(GAE(0.9, 0.8), 0.9),
            )
        ]
    assert {x.dtype for x in jax.tree.leaves(results)} == {jnp.dtype("float32")}


# -- whole episodes, and the weights of rows ---------------------------------------------------------------------------


def test_ages_count_the_steps_of_experience_since_the_episode_began() -> None:
    # Environment 0 goes on from 3 steps before, ends, and has a reset row; environment 1 ends with its last row.
    ended = jnp.array([[0, 0], [1, 0], [0, 1], [0, 0], [0, 1]], bool)
    valid = jnp.array([[1, 1], [1, 1], [0, 1], [1, 1], [1, 1]], bool)
    age, after = jax.jit(ages)(jnp.array([3, 0], jnp.int32), ended, valid)
    np.testing.assert_array_equal(age.T, [[3, 4, 0, 0, 1], [0, 1, 2, 0, 1]])
    np.testing.assert_array_equal(after, [2, 0])


def test_ages_of_a_rollout_in_two_halves_are_those_of_the_joined_one() -> None:
    rng = np.random.default_rng(0)
    ended, valid = jnp.asarray(rng.random((40, 5)) < 0.2), jnp.asarray(rng.random((40, 5)) < 0.9)
    nothing = jnp.zeros(5, jnp.int32)
    joined, last = ages(nothing, ended, valid)
    first, between = ages(nothing, ended[:17], valid[:17])
    second, end = ages(between, ended[17:], valid[17:])
    np.testing.assert_array_equal(joined, jnp.concatenate([first, second]))
    np.testing.assert_array_equal(last, end)


EPISODES = Steps(
    rewards=jnp.array([[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]]).T,
    values=jnp.full((6, 1), 0.5),
    successor_values=jnp.full((6, 1), 10.0),
    terminated=jnp.array([[0, 1, 0, 0, 0, 0]], bool).T,
    truncated=jnp.array([[0, 0, 0, 1, 0, 0]], bool).T,
    age=jnp.array([[2, 3, 0, 1, 0, 1]], jnp.int32).T,
    log_ratios=jnp.zeros((6, 1)),
    weights=jnp.ones((6, 1)),
)
"""The end of an episode that began before, a whole one that a time limit cut, and the beginning of one; gamma 0.5."""


def test_the_full_return_is_that_of_whole_episodes_alone() -> None:
    estimates = FullReturn(0.5)(EPISODES)
    # 3 + 0.5 (4 + 0.5 * 10), in both rows of the episode in the middle.
    np.testing.assert_allclose(estimates.advantages[2:4, 0], [7.5 - 0.5, 7.5 - 0.5])
    np.testing.assert_allclose(estimates.targets[2:4, 0], [7.5, 9.0])
    np.testing.assert_array_equal(estimates.weights[:, 0], [0, 0, 1, 1, 0, 0])


def test_rows_of_an_unfinished_episode_do_not_count_without_a_critic() -> None:
    plain, finished = RewardToGo(0.5)(EPISODES), Finished(RewardToGo(0.5))(EPISODES)
    np.testing.assert_array_equal(finished.advantages, plain.advantages)
    np.testing.assert_array_equal(finished.weights[:, 0], [1, 1, 1, 1, 0, 0])


def test_states_are_weighted_by_the_discount_of_their_time() -> None:
    estimates = DiscountedStates(Finished(GAE(0.5, 0.9)), 0.5)(EPISODES)
    np.testing.assert_array_equal(estimates.weights[:, 0], [0.25, 0.125, 1.0, 0.5, 0.0, 0.0])
    blind = DiscountedStates(GAE(0.5, 0.9), 0.0)(EPISODES).weights[:, 0]
    np.testing.assert_allclose(blind, [0, 0, 1, 0, 1, 0], atol=1e-30)


def test_a_row_that_counts_can_be_told_from_one_that_does_not_however_late_it_is() -> None:
    late = EPISODES._replace(age=EPISODES.age.at[2:].add(100_000))
    weights = np.asarray(DiscountedStates(Finished(GAE(0.5, 0.9)), 0.5)(late).weights)
    np.testing.assert_array_equal(weights > 0.0, np.asarray(Finished(GAE(0.5, 0.9))(late).weights) > 0.0)
    np.testing.assert_allclose(weights[:, 0], [1.0, 0.5, 0.0, 0.0, 0.0, 0.0], atol=1e-30)


def test_rows_that_are_all_late_weigh_what_they_would_early() -> None:
    """No mean changes with a factor of all weights, but sums of weights as small as 0.5^10,000 would all be 0."""
    estimator = DiscountedStates(Finished(GAE(0.5, 0.9)), 0.5)
    late = estimator(EPISODES._replace(age=EPISODES.age + 10_000))
    np.testing.assert_array_equal(late.weights, estimator(EPISODES).weights)


# -- a baseline for each time step -------------------------------------------------------------------------------------


def test_the_baseline_of_a_time_step_is_the_mean_of_the_rows_that_have_its_age() -> None:
    age = jnp.array([[0, 1, 2, 0, 1], [7, 8, 0, 1, 2]], jnp.int32).T
    values = jnp.array([[1.0, 2.0, 3.0, 5.0, 8.0], [0.5, 0.25, 6.0, 2.0, 100.0]]).T
    weights = jnp.array([[1.0, 1.0, 1.0, 1.0, 0.5], [1.0, 0.0, 1.0, 1.0, 0.0]]).T
    means = jax.jit(means_by_age)(values, age, weights)
    # Age 0: 1, 5, 6. Age 1: 2 and 2, and 8 with half a weight. Age 2: 3, as 100 does not count. 7 is alone, and 8 counts not.
    np.testing.assert_allclose(means.T, [[4, 3.2, 3, 4, 3.2], [0.5, 0, 4, 3.2, 3]], rtol=1e-6)


def test_a_baseline_of_time_leaves_each_time_step_the_mean_0_and_a_single_row_nothing() -> None:
    estimates = TimeBaseline(Finished(RewardToGo(0.5)))(EPISODES._replace(values=jnp.zeros((6, 1))))
    # The episodes that end begin at ages 2 and 0: every age is there once. The last one is unfinished, and has no weight.
    np.testing.assert_allclose(estimates.advantages[:4, 0], 0.0, atol=1e-6)
    np.testing.assert_array_equal(estimates.weights[:, 0], [1, 1, 1, 1, 0, 0])
    pair = jax.tree.map(lambda x: jnp.concatenate([x, x], 1), EPISODES)
    pair = pair._replace(rewards=pair.rewards.at[:, 1].add(1.0), values=jnp.zeros((6, 2)))
    plain = Finished(RewardToGo(0.5))(pair)
    both = TimeBaseline(Finished(RewardToGo(0.5)))(pair)
    np.testing.assert_allclose(both.advantages[:4].sum(1), 0.0, atol=1e-6)
    halves = (plain.advantages[:4, 1] - plain.advantages[:4, 0]) / 2.0
    np.testing.assert_allclose(both.advantages[:4, 1], halves, rtol=1e-6)
    np.testing.assert_array_equal(both.targets, plain.targets)
