"""Kronecker-factored curvature, against sums of explicit per-row gradients and explicit matrices, in float64."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array

from jumar.networks.layers import GRU, MLP, Linear, convolve
from jumar.networks.taps import Factors, Tapped
from jumar.policies.distributions import Categorical
from jumar.solvers.kronecker_factors import (
    Division,
    damped_inverse,
    diagonal,
    is_layer,
    layer_of,
    matrix,
    measured_factors,
    no_factors,
    solve,
)

ROWS, WIDTH, CHOICES = 6, 3, 4
RNG = np.random.default_rng(0)
WEIGHTS = jnp.asarray(np.array([1.0, 0.0, 2.0, 0.5, 1.0, 0.0]), jnp.float32)


@pytest.fixture(autouse=True)
def double_precision() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


def wide(tree: Any) -> Any:
    """Return the tree in double precision."""
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), tree)


def with_one(rows: Array) -> np.ndarray:
    """Return rows ``[..., n]`` as ``[rows, n + 1]``, with a 1 at the end of each."""
    flat = np.asarray(rows).reshape(-1, rows.shape[-1])
    return np.concatenate([flat, np.ones((len(flat), 1))], axis=1)


def positive(size: int, seed: int) -> Array:
    root = np.random.default_rng(seed).standard_normal((size, size))
    return jnp.asarray(root @ root.T)


def measured(function: Callable[[Any], Array], parameters: Any, weights: Array) -> list[Factors]:
    """Return what one compiled program measures; to compile each operation by itself takes longer."""
    program = jax.jit(lambda parameters, weights: measured_factors(function, parameters, weights))
    return program(parameters, weights)


# -- what is measured -------------------------------------------------------------------------------------------------


def test_the_factors_of_a_network_are_the_sums_of_the_outer_products_of_its_rows() -> None:
    mlp, head = MLP(WIDTH, (5,)), Linear(5, CHOICES)
    weights = wide(WEIGHTS)
    x = jnp.asarray(RNG.standard_normal((ROWS, WIDTH)))
    actions = jnp.asarray(RNG.integers(0, CHOICES, ROWS))
    parameters = wide({"mlp": mlp.init(jax.random.PRNGKey(0)), "head": head.init(jax.random.PRNGKey(1))})

    def log_prob(parameters: Any) -> Array:
        return Categorical(head.apply(parameters["head"], mlp.apply(parameters["mlp"], x))).log_prob(actions)

    head_factors, mlp_factors = measured(lambda p: jnp.sum(jnp.sqrt(weights) * log_prob(p)), parameters, weights)

    first, second = parameters["mlp"]["layer_0"], parameters["head"]

    def one(row: Array, action: Array, at_first: Array, at_second: Array) -> Array:
        hidden = jnp.tanh(row @ first["kernel"] + first["bias"] + at_first)
        return Categorical(hidden @ second["kernel"] + second["bias"] + at_second).log_prob(action)

    hidden = mlp.apply(parameters["mlp"], x)
    slope = jax.jit(jax.grad(one, (2, 3)))
    slopes = [slope(x[i], actions[i], jnp.zeros(5), jnp.zeros(CHOICES)) for i in range(ROWS)]
    for factors, inputs, own in ((mlp_factors, x, 0), (head_factors, hidden, 1)):
        rows, gradients = with_one(inputs), np.stack([both[own] for both in slopes])
        shares = np.asarray(weights / weights.sum())[:, None]
        np.testing.assert_allclose(factors.inputs, (rows * shares).T @ rows, rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(factors.outputs, (gradients * shares).T @ gradients, rtol=1e-12, atol=1e-14)


def test_the_steps_of_a_recurrent_core_count_as_rows() -> None:
    """The inputs' factor is the mean over steps, the outputs' the sum over the steps of a sequence, for each decision."""
    sequences, steps, core = 2, 3, GRU(WIDTH, 4)
    x = jnp.asarray(RNG.standard_normal((sequences, steps, WIDTH)))
    target = jnp.asarray(RNG.standard_normal((sequences, steps, 4)))
    parameters, weights = wide(core.init(jax.random.PRNGKey(0))), jnp.ones((sequences, steps))
    start = jnp.zeros((sequences, 4))

    def scanned(parameters: Any) -> Array:
        rows = jnp.swapaxes(x, 0, 1)
        _, outputs = jax.lax.scan(lambda carry, row: core.apply(parameters, carry, row), start, rows)
        return jnp.sum(jnp.swapaxes(outputs, 0, 1) * target)

    def by_hand(moves: Array) -> tuple[Array, list[Array]]:
        """Add ``moves`` ``[steps, sequences, 12]`` to the outputs of the hidden layer; return its inputs too."""
        carry, total, seen = start, jnp.zeros(()), []
        for t in range(steps):
            seen.append(carry)
            bias = parameters["hidden"]["bias"] + moves[t]  # one for each sequence
            carry = jax.vmap(
                lambda bias, carry, row: core.apply(
                    {**parameters, "hidden": {**parameters["hidden"], "bias": bias}}, carry, row
                )[1]
            )(bias, carry, x[:, t])
            total += jnp.sum(carry * target[:, t])
        return total, seen

    moves = jnp.zeros((steps, sequences, 12))
    slopes = np.asarray(jax.jit(jax.grad(lambda moves: by_hand(moves)[0]))(moves)).reshape(-1, 12)
    inputs = with_one(jnp.stack(jax.jit(by_hand)(moves)[1]))
    hidden, _ = measured(scanned, parameters, weights)
    np.testing.assert_allclose(hidden.inputs, inputs.T @ inputs / 6.0, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(hidden.outputs, slopes.T @ slopes / 6.0, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(("stride", "padding"), [(1, "SAME"), (2, "VALID")])
def test_the_places_of_a_convolution_count_as_rows(stride: int, padding: str) -> None:
    images = jnp.asarray(RNG.standard_normal((2, 5, 5, 2)))
    layer = {"kernel": jnp.asarray(RNG.standard_normal((3, 3, 2, 4))), "bias": jnp.asarray(RNG.standard_normal(4))}
    weights = jnp.array([1.0, 3.0])

    def outputs(layer: Any) -> Array:
        return convolve(images, layer["kernel"], stride, padding) + layer["bias"]

    target = jnp.asarray(RNG.standard_normal(outputs(layer).shape))

    def likelihood(layer: Any) -> Array:
        """Linear in the outputs: their slope is the target, times the root of the weight."""
        return jnp.sum(jnp.tensordot(jnp.sqrt(weights), target * outputs(layer), 1))

    [factors] = measured(likelihood, layer, weights)
    assert jax.grad(likelihood)(layer)["kernel"].shape == (3, 3, 2, 4)
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0))) if padding == "SAME" else np.asarray(images)
    places = [(i, j) for i in range(0, padded.shape[1] - 2, stride) for j in range(0, padded.shape[2] - 2, stride)]
    sums = np.zeros((19, 19)), np.zeros((4, 4))
    for image, weight in enumerate(np.asarray(weights)):
        for i, j in places:
            patch = np.append(padded[image, i : i + 3, j : j + 3].ravel(), 1.0)
            slope = np.asarray(target[image, i // stride, j // stride])
            sums[0][:] += weight * np.outer(patch, patch) / (4.0 * len(places))
            sums[1][:] += weight * np.outer(slope, slope) / 4.0
    np.testing.assert_allclose(factors.inputs, sums[0], rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(factors.outputs, sums[1], rtol=1e-12, atol=1e-14)


def test_a_tapped_network_computes_the_same_and_has_the_same_gradient() -> None:
    mlp = MLP(WIDTH, (5, 4))
    parameters, x = wide(mlp.init(jax.random.PRNGKey(0))), jnp.asarray(RNG.standard_normal((ROWS, WIDTH)))

    def tapped(parameters: Any) -> Any:
        def with_tap(layer: Any) -> Any:
            kernel = layer["kernel"]
            return {**layer, "kernel": Tapped(kernel, Factors.zeros(kernel), jnp.ones(ROWS))}

        return jax.tree.map(with_tap, parameters, is_leaf=is_layer)

    def total(parameters: Any) -> Array:
        return jnp.sum(jnp.square(mlp.apply(parameters, x)))

    np.testing.assert_array_equal(mlp.apply(tapped(parameters), x), mlp.apply(parameters, x))
    plain, other = jax.grad(total)(parameters), jax.grad(lambda parameters: total(tapped(parameters)))(parameters)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-12), plain, other)


def test_no_rows_have_factors_of_zeros() -> None:
    layer = {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)}
    weights = jnp.zeros(4)
    [factors] = measured(lambda p: jnp.sum(weights[:, None] * (jnp.ones((4, 2)) @ p["kernel"])), layer, weights)
    assert not np.any(factors.inputs)
    assert not np.any(factors.outputs)


# -- products and inverses --------------------------------------------------------------------------------------------


def explicit(factors: Factors, damping: float) -> np.ndarray:
    """Return the damped Kronecker product ``[(n + 1) m, (n + 1) m]``, for matrices laid out by rows."""
    a, g = (np.asarray(x) for x in factors)
    pi = np.sqrt((np.trace(a) / len(a)) / (np.trace(g) / len(g)))
    root = np.sqrt(damping)
    return np.kron(a + pi * root * np.eye(len(a)), g + root / pi * np.eye(len(g)))


@pytest.mark.parametrize("damping", [0.0, 1e-3, 2.0])
def test_the_solution_is_that_of_the_explicit_kronecker_product(damping: float) -> None:
    factors = Factors(positive(4, 1), positive(3, 2))
    gradient = {"kernel": jnp.asarray(RNG.standard_normal((3, 3))), "bias": jnp.asarray(RNG.standard_normal(3))}
    expected = np.linalg.solve(explicit(factors, damping), np.asarray(matrix(gradient)).ravel())
    solved = solve(damped_inverse(factors, damping), gradient)
    np.testing.assert_allclose(np.asarray(matrix(solved)).ravel(), expected, rtol=1e-10, atol=1e-12)


def test_pi_makes_the_damping_independent_of_how_the_scale_falls_on_the_factors() -> None:
    factors = Factors(positive(4, 1), positive(3, 2))
    moved = Factors(1e3 * factors.inputs, 1e-3 * factors.outputs)
    gradient = {"kernel": jnp.asarray(RNG.standard_normal((3, 3))), "bias": jnp.asarray(RNG.standard_normal(3))}
    one, other = (matrix(solve(damped_inverse(x, 0.1), gradient)) for x in (factors, moved))
    np.testing.assert_allclose(one, other, rtol=1e-10)


def test_pi_is_that_of_the_paper() -> None:
    """Traces over sizes of 4 and 1: the factors are damped by 2 and 1/2 times the root of the damping."""
    factors = Factors(4.0 * jnp.eye(2), jnp.eye(3))
    inverse = damped_inverse(factors, 0.25)
    np.testing.assert_allclose(inverse.inputs, np.eye(2) / (4.0 + 2.0 * 0.5), rtol=1e-12)
    np.testing.assert_allclose(inverse.outputs, np.eye(3) / (1.0 + 0.5 / 2.0), rtol=1e-12)


@pytest.mark.parametrize("empty", [Factors(jnp.zeros((2, 2)), jnp.eye(3)), Factors(jnp.eye(2), jnp.zeros((3, 3)))])
def test_a_factor_of_zeros_shares_the_damping_evenly(empty: Factors) -> None:
    inverse = damped_inverse(empty, 0.25)
    for one, plain in zip(inverse, empty, strict=True):
        np.testing.assert_allclose(one, np.linalg.inv(np.asarray(plain) + 0.5 * np.eye(len(plain))), rtol=1e-6)


def test_the_diagonal_of_a_diagonal_matrix_is_exact_and_of_another_right_on_average() -> None:
    signs = jax.random.rademacher(jax.random.PRNGKey(0), (4000, 3), jnp.float64)
    entries = jnp.array([1.0, 2.0, 5.0])
    np.testing.assert_allclose(diagonal(lambda v: entries * v, signs[0]), entries)
    full = positive(3, 5)
    estimates = jax.vmap(lambda z: diagonal(lambda v: full @ v, z))(signs)
    np.testing.assert_allclose(jnp.mean(estimates, 0), jnp.diag(full), atol=0.2)


# -- layers and the rest ----------------------------------------------------------------------------------------------


def test_parameters_fall_into_layers_and_the_rest_and_are_joined_again() -> None:
    layer: Callable[[int], Any] = lambda n: {"kernel": jnp.full((n, 2), float(n)), "bias": jnp.arange(2.0)}  # noqa: E731
    parameters = {"a": layer(3), "b": {"log_std": jnp.arange(4.0), "c": layer(1)}, "d": {"weight": jnp.ones(2)}}
    division = Division.of(parameters)
    layers, rest = division.divide(parameters)
    assert [x["kernel"].shape for x in layers] == [(3, 2), (1, 2)]
    assert [x.shape for x in rest] == [(4,), (2,)]
    again = division.join(layers, rest)
    assert jax.tree.all(jax.tree.map(lambda x, y: bool(jnp.array_equal(x, y)), parameters, again))
    assert jax.tree.structure(again) == jax.tree.structure(parameters)


def test_a_layer_without_a_bias_has_no_one_among_its_inputs() -> None:
    layer = {"kernel": jnp.asarray(RNG.standard_normal((WIDTH, CHOICES)))}
    x, target = jnp.asarray(RNG.standard_normal((ROWS, WIDTH))), jnp.asarray(RNG.standard_normal((ROWS, CHOICES)))
    [factors] = measured(lambda layer: jnp.sum(target * (x @ layer["kernel"])), layer, jnp.ones(ROWS))
    np.testing.assert_allclose(factors.inputs, x.T @ x / ROWS, rtol=1e-12)
    np.testing.assert_allclose(factors.outputs, target.T @ target / ROWS, rtol=1e-12)
    assert [x.shape for x in factors] == [x.shape for x in no_factors(layer)]
    solved = solve(damped_inverse(factors, 0.1), layer)
    expected = np.linalg.solve(explicit(factors, 0.1), np.asarray(layer["kernel"]).ravel())
    np.testing.assert_allclose(np.asarray(solved["kernel"]).ravel(), expected, rtol=1e-10)


@pytest.mark.parametrize("shape", [(3, 2), (3, 3, 2, 5)])
def test_a_layer_is_a_matrix_with_the_bias_in_its_last_row(shape: tuple[int, ...]) -> None:
    layer = {"kernel": jnp.asarray(RNG.standard_normal(shape)), "bias": jnp.arange(float(shape[-1]))}
    as_matrix = matrix(layer)
    np.testing.assert_array_equal(as_matrix[-1], layer["bias"])
    again = layer_of(as_matrix, layer)
    np.testing.assert_array_equal(again["kernel"], layer["kernel"])
    np.testing.assert_array_equal(again["bias"], layer["bias"])


def test_inverses_are_the_same_mapped_over_seeds() -> None:
    rng = np.random.default_rng(5)
    halves = [jnp.asarray(rng.standard_normal((4, 66, 65)), jnp.float32) for _ in range(12)]
    stacked = [Factors(half.swapaxes(1, 2) @ half, half.swapaxes(1, 2) @ half) for half in halves]

    def inverses(factors: list[Factors]) -> list[Factors]:
        return [damped_inverse(x, 0.1) for x in factors]

    mapped = jax.jit(jax.vmap(inverses))(stacked)
    alone = jax.jit(inverses)(jax.tree.map(lambda x: x[2], stacked))
    for one, other in zip(mapped, alone, strict=True):
        np.testing.assert_allclose(one.inputs[2], other.inputs, atol=1e-5)
