"""The scale of rewards against a plain loop."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array

from jumar.experience.rewards import RewardScale
from jumar.policies.moments import RunningMoments

ROWS = np.random.default_rng(0).normal([1.0, -20.0, 0.0], [0.1, 5.0, 300.0], (60, 3)).astype(np.float32)


def test_moments_stay_float32_with_64_bit_mode_on() -> None:
    def learn(moments: RunningMoments, scale: RewardScale, rows: Array, flags: Array) -> tuple:
        weights = jnp.ones(60, jnp.float32)
        return moments.updated(rows, weights), scale.updated(rows, flags, flags, 0.9), moments.normalise(rows, 10.0)

    with jax.enable_x64(True):
        result = jax.eval_shape(learn, RunningMoments.zero((3,)), RewardScale.zero(3), ROWS, ROWS > 0)
    assert {x.dtype for x in jax.tree.leaves(result)} == {jnp.dtype("float32")}


def column(values: list[float]) -> np.ndarray:
    return np.array(values, np.float32)[:, None]


learn_on = jax.jit(RewardScale.updated)


def learn(rewards: np.ndarray, ended: np.ndarray, valid: np.ndarray, gamma: float) -> RewardScale:
    return learn_on(RewardScale.zero(1), rewards, ended, valid, gamma)


def test_running_return_grows_and_is_cleared_after_the_end_of_an_episode() -> None:
    ended = np.array([False, True, False, False])[:, None]
    scale = learn(column([1, 2, 4, 8]), ended, np.ones((4, 1), bool), 0.5)
    # Returns 1, 2.5 (the end still counts its own reward), then anew 4, 10.
    assert float(scale.running_return[0]) == 10.0
    assert float(scale.moments.rows) == 4.0
    assert float(scale.moments.mean) == pytest.approx(4.375)
    assert float(scale.moments.variance) == pytest.approx(np.var([1, 2.5, 4, 10]), rel=1e-6)


def test_an_end_in_the_last_row_clears_the_return_for_the_next_rollout() -> None:
    ended = np.array([False, True])[:, None]
    scale = learn(column([1, 2]), ended, np.ones((2, 1), bool), 0.9)
    assert float(scale.running_return[0]) == 0.0


def test_running_return_goes_on_in_the_next_rollout() -> None:
    none, all_valid = np.zeros((2, 1), bool), np.ones((2, 1), bool)
    first = learn(column([1, 2]), none, all_valid, 0.5)
    second = learn_on(first, column([4, 8]), none, all_valid, 0.5)
    joined = learn(column([1, 2, 4, 8]), np.zeros((4, 1), bool), np.ones((4, 1), bool), 0.5)
    for one, other in zip(jax.tree.leaves(second), jax.tree.leaves(joined), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)
    assert float(first.restarted().running_return[0]) == 0.0
    assert float(first.restarted().moments.variance) == float(first.moments.variance)


def test_invalid_rows_leave_return_and_moments_alone() -> None:
    valid = np.array([True, False, True])[:, None]
    with_gap = learn(column([1, np.nan, 4]), np.zeros((3, 1), bool), valid, 0.5)
    without = learn(column([1, 4]), np.zeros((2, 1), bool), np.ones((2, 1), bool), 0.5)
    for one, other in zip(jax.tree.leaves(with_gap), jax.tree.leaves(without), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)


def test_environments_have_returns_of_their_own() -> None:
    rewards, ended = np.array([[1.0, 10.0], [1.0, 10.0]]), np.array([[True, False], [False, False]])
    scale = learn_on(RewardScale.zero(2), rewards, ended, np.ones((2, 2), bool), 0.5)
    np.testing.assert_allclose(scale.running_return, [1.0, 15.0])


def test_scaling_divides_by_the_deviation_and_keeps_the_mean() -> None:
    scale = RewardScale(jnp.zeros(1), RunningMoments(jnp.float32(5.0), jnp.float32(100.0), jnp.float32(4.0)))
    np.testing.assert_allclose(scale.scale(jnp.array([3.0, -1.0, 90.0, -90.0]), 10.0), [1.5, -0.5, 10.0, -10.0])
