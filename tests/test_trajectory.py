"""Weighted means and the normalisation of advantages."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from jumar.trajectory import counted_row, standardise, weighted_mean


def test_weighted_mean_literals() -> None:
    assert float(weighted_mean(jnp.array([1.0, 2.0, 50.0]), jnp.array([3.0, 1.0, 0.0]))) == 1.25
    assert float(weighted_mean(jnp.array([[1.0, 3.0], [5.0, 9.0]]), jnp.array([[1.0, 0.0], [1.0, 0.0]]))) == 3.0
    assert float(weighted_mean(jnp.array([4.0, 8.0]), jnp.array([0.125, 0.125]))) == 6.0


def test_means_do_not_change_with_a_factor_of_all_weights() -> None:
    values, weights = jnp.array([1.0, 4.0, 2.0]), jnp.array([1.0, 0.5, 0.0])
    assert weighted_mean(values, weights * 2.0**-100) == weighted_mean(values, weights) == 2.0


def test_weighted_mean_without_any_weight_is_zero() -> None:
    assert float(weighted_mean(jnp.array([4.0, 8.0]), jnp.zeros(2))) == 0.0


def test_counted_row_is_never_one_of_weight_zero() -> None:
    rows = jnp.arange(12.0).reshape(2, 3, 2)
    np.testing.assert_array_equal(counted_row(rows, jnp.array([[0.0, 0.0, 0.0], [0.0, 1.0, 1.0]])), [8.0, 9.0])


def test_standardise_has_mean_zero_and_sample_deviation_one() -> None:
    result = standardise(jnp.array([1.0, 2.0, 3.0, 6.0]), jnp.ones(4))
    np.testing.assert_allclose(result, np.array([-2, -1, 0, 3]) / np.sqrt(14 / 3), rtol=1e-6)


def test_standardise_looks_only_at_rows_with_weight() -> None:
    values = np.random.default_rng(0).normal(5.0, 3.0, (4, 6)).astype(np.float32)
    keep = np.random.default_rng(1).random((4, 6)) < 0.5
    values[~keep] = 1e6
    result = np.asarray(standardise(jnp.asarray(values), jnp.float32(keep)))[keep]
    np.testing.assert_allclose(result, (values[keep] - values[keep].mean()) / values[keep].std(ddof=1), rtol=1e-4)


def test_standardise_of_a_distributions_weights_is_that_distributions() -> None:
    # The exact lab's weights are probabilities: their sum is 1, and the deviation is the distribution's.
    values, weights = np.array([1.0, 2.0, 4.0]), np.array([0.5, 0.25, 0.25])
    mean = values @ weights
    expected = (values - mean) / np.sqrt(weights @ (values - mean) ** 2)
    np.testing.assert_allclose(standardise(jnp.float32(values), jnp.float32(weights)), expected, rtol=1e-5)


@pytest.mark.parametrize("value", [3.0, 1e5 + 0.1, -1234.567])
@pytest.mark.parametrize("size", [2, 5, 7, 64])
def test_standardise_of_a_constant_is_exactly_zero(value: float, size: int) -> None:
    np.testing.assert_array_equal(standardise(jnp.full(size, value, jnp.float32), jnp.ones(size)), np.zeros(size))


def test_standardise_leaves_a_single_row_as_it_is() -> None:
    # Stable-Baselines3's rule: centred, it would be 0 and teach nothing.
    np.testing.assert_array_equal(standardise(jnp.array([3.5]), jnp.ones(1)), [3.5])
    np.testing.assert_array_equal(standardise(jnp.array([-1.0, 3.5, 2.0]), jnp.array([0.0, 1.0, 0.0]))[1], 3.5)


def test_standardise_of_a_constant_beside_other_rows_of_weight_zero_is_exactly_zero() -> None:
    values, weights = jnp.array([-7.0, 1e5 + 0.1, 1e5 + 0.1, 1e5 + 0.1, 3.0]), jnp.array([0.0, 1.0, 1.0, 1.0, 0.0])
    np.testing.assert_array_equal(standardise(values, weights)[1:4], np.zeros(3))


def test_standardise_is_the_same_after_any_shift_and_scaling() -> None:
    values = jnp.float32(np.random.default_rng(2).standard_normal(32))
    np.testing.assert_allclose(
        standardise(4.0 * values + 64.0, jnp.ones(32)), standardise(values, jnp.ones(32)), atol=1e-4
    )


def test_standardise_without_any_weight_is_finite() -> None:
    assert bool(jnp.isfinite(standardise(jnp.array([1.0, 2.0]), jnp.zeros(2))).all())
