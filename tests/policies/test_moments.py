"""Running moments against numpy over all rows at once."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jumar.policies.moments import RunningMoments

ROWS = np.random.default_rng(0).normal([1.0, -20.0, 0.0], [0.1, 5.0, 300.0], (60, 3)).astype(np.float32)


update = jax.jit(RunningMoments.updated)


def learned(batches: list[np.ndarray]) -> RunningMoments:
    moments = RunningMoments.zero(batches[0].shape[1:])
    for batch in batches:
        moments = update(moments, batch, np.ones(len(batch), np.float32))
    return moments


def test_moments_of_four_numbers() -> None:
    moments = learned([np.array([1.0, 2.0], np.float32), np.array([3.0, 6.0], np.float32)])
    assert (float(moments.rows), float(moments.mean), float(moments.variance)) == (4.0, 3.0, 3.5)


@given(st.lists(st.integers(0, 60), max_size=6))
@settings(max_examples=30, deadline=None)
def test_any_split_into_batches_gives_numpys_mean_and_variance(cuts: list[int]) -> None:
    moments, row = RunningMoments.zero((3,)), np.arange(60)
    for first, last in itertools.pairwise([0, *sorted(cuts), 60]):
        # The rows of the other batches have weight 0: one shape, so one compilation.
        moments = update(moments, ROWS, np.float32((first <= row) & (row < last)))
    exact = ROWS.astype(np.float64)
    assert float(moments.rows) == 60.0
    np.testing.assert_allclose(moments.mean, exact.mean(0), rtol=1e-5)
    np.testing.assert_allclose(moments.variance, exact.var(0), rtol=1e-5)


def test_rows_of_weight_zero_are_left_out_whatever_they_hold() -> None:
    keep = np.random.default_rng(1).random((12, 5)) < 0.6
    rows = ROWS.reshape(12, 5, 3).copy()
    kept = rows[keep].astype(np.float64)
    rows[~keep] = np.nan
    moments = update(RunningMoments.zero((3,)), rows, np.float32(keep))
    assert float(moments.rows) == keep.sum()
    np.testing.assert_allclose(moments.mean, kept.mean(0), rtol=1e-5)
    np.testing.assert_allclose(moments.variance, kept.var(0), rtol=1e-5)


def test_weights_count_as_that_many_rows() -> None:
    moments = update(RunningMoments.zero(()), np.array([1.0, 4.0], np.float32), np.array([0.5, 0.25], np.float32))
    assert (float(moments.rows), float(moments.mean), float(moments.variance)) == (0.75, 2.0, 2.0)


def test_no_rows_change_nothing() -> None:
    before = learned([ROWS])
    after = update(before, ROWS * np.nan, np.zeros(60, np.float32))
    for old, new in zip(before, after, strict=True):
        np.testing.assert_array_equal(old, new)


def test_large_mean_keeps_a_small_deviation_in_float32() -> None:
    rows = (1e4 + np.random.default_rng(2).standard_normal((50, 256))).astype(np.float32)
    moments = learned(list(rows))
    assert float(moments.mean) == pytest.approx(rows.astype(np.float64).mean(), rel=1e-6)
    assert float(moments.variance) == pytest.approx(rows.astype(np.float64).var(), rel=1e-3)


def test_a_variance_does_not_drift_under_single_rows_after_many() -> None:
    many, rows = 7e6, jax.random.normal(jax.random.PRNGKey(0), (300_000,))
    start = RunningMoments(jnp.float32(many), jnp.float32(0.0), jnp.float32(1.0))
    one = jnp.ones((1,))
    moments, _ = jax.lax.scan(lambda moments, row: (moments.updated(row[None], one), None), start, rows)
    assert float(moments.rows) == 7.3e6
    exact = (many + np.sum(np.asarray(rows, np.float64) ** 2)) / float(moments.rows)
    assert float(moments.variance) == pytest.approx(exact, abs=1e-3)


@pytest.mark.parametrize("constant", [0.1, 1234.567, 1e5 + 0.1, -1e6 + 0.3])
def test_a_constant_is_normalised_to_zero_whatever_its_size(constant: float) -> None:
    # The float32 mean of equal numbers is not their value; divided by its own size, that error would be +-1.
    rows = np.full((2048, 1), constant, np.float32)
    for moments in (learned([rows]), learned([rows, rows, rows[:7]])):
        assert float(moments.variance[0]) == 0.0
        assert float(moments.normalise(jnp.asarray(rows), 10.0)[0, 0]) == 0.0


def test_normalise_centres_scales_and_clips() -> None:
    moments = RunningMoments(jnp.float32(9.0), jnp.array([2.0, 0.0]), jnp.array([4.0, 0.0]))
    result = moments.normalise(jnp.array([[3.0, 0.0], [102.0, 1.0], [-98.0, -1e-5]]), clip=5.0)
    np.testing.assert_allclose(result, [[0.5, 0.0], [5.0, 5.0], [-5.0, -0.1]], rtol=1e-5)


def test_before_any_row_normalising_changes_nothing() -> None:
    np.testing.assert_allclose(RunningMoments.zero((2,)).normalise(jnp.array([1.5, -3.0]), 10.0), [1.5, -3.0])
