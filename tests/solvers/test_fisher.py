"""Fisher matrices and conjugate gradients, against explicit matrices, worked examples and Monte Carlo."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array

from jumar.policies.distributions import Bernoulli, Categorical, DiagGaussian, Distribution, MultiCategorical
from jumar.solvers.fisher import (
    Solution,
    boundary_length,
    conjugate_gradient,
    damped,
    dense,
    fisher_form,
    fisher_product,
    scores,
    step_fisher,
    step_fisher_product,
    trajectory_fisher,
    trajectory_fisher_product,
)

KEY = jax.random.PRNGKey(3)
ROWS, WIDTH = 7, 3


@pytest.fixture(autouse=True)
def double_precision() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


def features() -> Array:
    return jnp.asarray(np.random.default_rng(1).standard_normal((ROWS, WIDTH)))


def categorical(flat: Array) -> Categorical:
    return Categorical(jnp.tanh(features() @ flat.reshape(WIDTH, 4)))


def several(flat: Array) -> MultiCategorical:
    return MultiCategorical(jnp.tanh(features() @ flat.reshape(WIDTH, 6)).reshape(ROWS, 2, 3))


def bits(flat: Array) -> Bernoulli:
    return Bernoulli(jnp.tanh(features() @ flat.reshape(WIDTH, 4)))


def gaussian(flat: Array) -> DiagGaussian:
    mean = jnp.tanh(features() @ flat[:6].reshape(WIDTH, 2))
    return DiagGaussian(mean, jnp.broadcast_to(flat[6:], mean.shape))


POLICIES: dict[str, tuple[Callable[[Array], Any], int]] = {
    "categorical": (categorical, 12),
    "multi_categorical": (several, 18),
    "bernoulli": (bits, 12),
    "gaussian": (gaussian, 8),
}
WEIGHTS = np.array([1.0, 1.0, 0.0, 2.0, 0.5, 1.0, 1.0])


def mean_kl(policy: Callable[[Array], Distribution], old: Array, new: Array) -> Array:
    return jnp.sum(WEIGHTS * policy(old).kl(policy(new))) / WEIGHTS.sum()


@pytest.mark.parametrize("kind", POLICIES)
def test_the_fisher_vector_product_is_the_hessian_of_the_mean_divergence(kind: str) -> None:
    policy, d = POLICIES[kind]
    flat = 0.5 * jax.random.normal(KEY, (d,))
    vector = jax.random.normal(jax.random.PRNGKey(5), (d,))

    @jax.jit
    def products(flat: Array, vector: Array) -> tuple[Array, ...]:
        product = fisher_product(policy, flat, jnp.asarray(WEIGHTS))
        form = fisher_form(policy, flat, vector, jnp.asarray(WEIGHTS))
        return product(vector), dense(product, flat), form, damped(product, 0.3)(vector)

    matrix = np.asarray(jax.jit(jax.hessian(lambda new: mean_kl(policy, flat, new)))(flat))
    of_vector, whole, form, with_damping = products(flat, vector)
    expected = matrix @ np.asarray(vector)
    np.testing.assert_allclose(of_vector, expected, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(whole, matrix, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(form, vector @ expected, rtol=1e-10)
    np.testing.assert_allclose(with_damping, expected + 0.3 * vector, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kind", POLICIES)
def test_the_mean_outer_product_of_scores_is_the_same_matrix_within_its_standard_error(kind: str) -> None:
    policy, d = POLICIES[kind]
    flat = 0.5 * jax.random.normal(KEY, (d,))
    exact = jax.jit(lambda flat: dense(fisher_product(policy, flat, jnp.asarray(WEIGHTS)), flat))(flat)

    @jax.jit
    def sampled(key: Array) -> Array:
        actions = jax.lax.stop_gradient(policy(flat)).sample(key)
        return step_fisher(scores(lambda x: policy(x).log_prob(actions), flat), jnp.asarray(WEIGHTS))

    n = 32_000
    estimates = np.asarray(jax.vmap(sampled)(jax.random.split(jax.random.PRNGKey(1), n)))
    standard_error = estimates.std(0) / np.sqrt(n)
    np.testing.assert_array_less(np.abs(estimates.mean(0) - exact), 5.0 * standard_error + 1e-12)
    assert np.linalg.norm(standard_error) < 0.02 * np.linalg.norm(exact)


def test_curvature_does_not_change_with_a_factor_of_all_weights() -> None:
    policy, d = POLICIES["categorical"]
    flat, weights = jnp.linspace(-1.0, 1.0, d), jnp.asarray(WEIGHTS)
    vector, rows = jnp.ones(d), jnp.outer(weights, jnp.arange(d))
    for curved in (
        lambda weights: fisher_product(policy, flat, weights)(vector),
        lambda weights: fisher_form(policy, flat, vector, weights),
        lambda weights: step_fisher(rows, weights),
    ):
        np.testing.assert_allclose(curved(weights * 2.0**-100), curved(weights), rtol=1e-12)


def test_no_weight_gives_no_curvature() -> None:
    policy, d = POLICIES["categorical"]
    flat = jnp.ones(d)
    assert not np.any(fisher_product(policy, flat, jnp.zeros(ROWS))(flat))
    assert not np.any(step_fisher(jnp.ones((ROWS, d)), jnp.zeros(ROWS)))


# -- conjugate gradients ----------------------------------------------------------------------------------------------


def system(d: int) -> tuple[Array, Array]:
    rng = np.random.default_rng(2)
    root = rng.standard_normal((d, d))
    return jnp.asarray(root @ root.T + 0.1 * np.eye(d)), jnp.asarray(rng.standard_normal(d))


def solved(product: Callable[[Array], Array], b: Array, iterations: int, tolerance: float = 1e-10) -> Solution:
    return jax.jit(lambda b: conjugate_gradient(product, b, iterations, tolerance))(b)


def test_as_many_iterations_as_unknowns_solve_the_system() -> None:
    matrix, b = system(12)
    found = solved(lambda v: matrix @ v, b, 24, tolerance=1e-12)
    np.testing.assert_allclose(found.x, np.linalg.solve(matrix, b), rtol=1e-8)
    assert found.residual <= 1e-12
    assert 12 <= found.iterations <= 24
    assert not found.blocked


def test_the_residual_reported_is_the_residual() -> None:
    matrix, b = system(12)
    for iterations in (0, 1, 3, 6):
        found = solved(lambda v: matrix @ v, b, iterations)
        assert found.iterations == iterations
        expected = np.linalg.norm(b - matrix @ found.x) / np.linalg.norm(b)
        np.testing.assert_allclose(found.residual, expected, rtol=1e-10)
        assert b @ found.x >= 0.0


def test_a_loose_tolerance_ends_early() -> None:
    matrix, b = system(12)
    found = solved(lambda v: matrix @ v, b, 100, tolerance=0.1)
    assert found.residual <= 0.1
    assert found.iterations < 12


def test_rounding_errors_of_float32_cost_no_iterations() -> None:
    """What k iterations gain is the most in the span of b, A b, ..., A^(k-1) b, found here from an exact basis of it."""
    spectrum = np.concatenate([np.geomspace(1e-4, 1e-2, 180), np.geomspace(1.0, 100.0, 20)])
    b = np.random.default_rng(3).standard_normal(200)
    narrow = jnp.asarray(spectrum, jnp.float32)
    basis = np.zeros((200, 0))
    for iterations in range(1, 31):
        column = b if iterations == 1 else spectrum * basis[:, -1]
        for _ in range(2):
            column = column - basis @ (basis.T @ column)
        basis = np.column_stack([basis, column / np.linalg.norm(column)])
        if iterations % 10 == 0:
            image = basis.T @ b
            most = image @ np.linalg.solve(basis.T @ (spectrum[:, None] * basis), image)
            found = solved(lambda v: narrow * v, jnp.asarray(b, jnp.float32), iterations)
            np.testing.assert_allclose(b @ np.asarray(found.x, np.float64), most, rtol=1e-3)


@pytest.mark.parametrize("eigenvalues", [(1.0, -1.0, 2.0), (0.0, 0.0, 0.0), (np.nan, 1.0, 1.0)])
def test_a_direction_without_positive_curvature_is_not_taken(eigenvalues: tuple[float, ...]) -> None:
    spectrum = jnp.asarray(eigenvalues)
    found = solved(lambda v: spectrum * v, jnp.array([0.1, 1.0, 0.1]), 10)
    assert found.blocked
    assert np.isfinite(found.x).all()
    assert np.isfinite(found.residual)


def test_no_gradient_gives_no_step() -> None:
    found = solved(lambda v: v, jnp.zeros(4), 10)
    assert not np.any(found.x)
    assert (found.residual, found.iterations, bool(found.blocked)) == (0.0, 0, False)


def test_a_singular_fisher_matrix_is_solved_where_it_can_be_and_damping_bounds_the_rest() -> None:
    """A tabular softmax does not feel a constant added to its logits; a gradient never points along it."""
    flat = jnp.array([0.3, -0.2, 0.5])
    product = fisher_product(lambda x: Categorical(x[None]), flat, jnp.ones(1))
    assert np.linalg.matrix_rank(np.asarray(dense(product, flat))) == 2
    gradient = product(jnp.array([1.0, 2.0, -1.0]))
    found = solved(product, gradient, 10)
    np.testing.assert_allclose(product(found.x), gradient, atol=1e-12)
    off = solved(damped(product, 0.1), jnp.ones(3), 10)
    np.testing.assert_allclose(off.x, np.full(3, 10.0), rtol=1e-10)


# -- lengths ----------------------------------------------------------------------------------------------------------


def test_a_step_to_the_boundary_has_the_divergence_asked_for_to_second_order() -> None:
    policy, d = POLICIES["gaussian"]
    flat = 0.5 * jax.random.normal(KEY, (d,))
    product = fisher_product(policy, flat, jnp.asarray(WEIGHTS))
    direction = solved(product, jax.random.normal(jax.random.PRNGKey(9), (d,)), 30).x
    gaps = []
    for delta in (1e-3, 1e-5):
        step = boundary_length(direction @ product(direction), delta) * direction
        gaps.append(abs(float(mean_kl(policy, flat, flat + step)) / delta - 1.0))
    assert np.log(gaps[0] / gaps[1]) / np.log(100.0) >= 0.45


def test_a_linear_gaussian_mean_with_a_fixed_deviation_reaches_the_boundary_exactly() -> None:
    x = features()

    def policy(flat: Array) -> DiagGaussian:
        mean = x @ flat.reshape(WIDTH, 2)
        return DiagGaussian(mean, jnp.full_like(mean, 0.4))

    flat, direction = jnp.ones(6), jnp.arange(6.0) - 2.0
    product = fisher_product(policy, flat, jnp.asarray(WEIGHTS))
    step = boundary_length(direction @ product(direction), 0.7) * direction
    np.testing.assert_allclose(mean_kl(policy, flat, flat + step), 0.7, rtol=1e-12)


@pytest.mark.parametrize("bend", [0.0, -1.0, np.nan])
def test_there_is_no_length_where_there_is_no_curvature(bend: float) -> None:
    assert boundary_length(jnp.asarray(bend), 0.1) == 0.0


def test_products_of_sampled_matrices_are_those_of_the_matrices() -> None:
    policy, d = POLICIES["gaussian"]
    flat = jnp.asarray(np.random.default_rng(4).standard_normal(d))
    actions = policy(flat).sample(KEY)

    def log_prob(flat: Array) -> Array:
        return policy(flat).log_prob(actions)

    each, weights = jax.jit(partial(scores, log_prob))(flat), jnp.asarray([1.0, 0.5, 2.0, 0.0, 1.0, 1.0, 0.0])
    by_step = jax.jit(lambda flat: dense(step_fisher_product(log_prob, flat, weights), flat))(flat)
    np.testing.assert_allclose(by_step, step_fisher(each, weights), atol=1e-12)
    # Rows 0 to 2 are a trajectory, 3 to 5 another, and row 6, which weighs nothing, is none.
    trajectory = jnp.asarray([0, 0, 0, 1, 1, 1, 2], jnp.int32)

    @jax.jit
    def whole(flat: Array, weights: Array) -> Array:
        return dense(trajectory_fisher_product(log_prob, flat, weights, trajectory, 7), flat)

    by_trajectory = whole(flat, weights)
    expected = trajectory_fisher(each[:6].reshape(2, 3, d), weights[:6].reshape(2, 3))
    np.testing.assert_allclose(by_trajectory, expected, atol=1e-12)
    assert not np.any(whole(flat, jnp.zeros(7)))
