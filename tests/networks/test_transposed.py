"""Turned kernels: the same numbers as plain ones, forward, backward and in Fisher-vector products, in float64."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array
from jax.flatten_util import ravel_pytree

from jumar.networks.layers import GRU, MLP, Linear
from jumar.networks.transposed import Turned, with_turned_kernels
from jumar.policies.distributions import Categorical
from jumar.solvers.fisher import dense, fisher_product

SEQUENCES, STEPS, WIDTH, CHOICES = 4, 5, 3, 6
RNG = np.random.default_rng(0)
ROWS = jnp.asarray(RNG.standard_normal((SEQUENCES, STEPS, WIDTH)))
KEYS = jax.random.split(jax.random.PRNGKey(0))


@pytest.fixture(autouse=True)
def double_precision() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


def feedforward(parameters: Any) -> Categorical:
    hidden = MLP(WIDTH, (5,)).apply(parameters["core"], ROWS)
    return Categorical(Linear(5, CHOICES).apply(parameters["head"], hidden))


def recurrent(parameters: Any) -> Categorical:
    core, start = GRU(WIDTH, 5), jnp.zeros((SEQUENCES, 5))
    _, hidden = jax.lax.scan(lambda h, x: core.apply(parameters["core"], h, x), start, jnp.swapaxes(ROWS, 0, 1))
    return Categorical(Linear(5, CHOICES).apply(parameters["head"], jnp.swapaxes(hidden, 0, 1)))


def parameters_of(core: Any) -> Any:
    drawn = {"core": core.init(KEYS[0]), "head": Linear(5, CHOICES, 1.0).init(KEYS[1])}
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), drawn)


POLICIES = [
    pytest.param(feedforward, MLP(WIDTH, (5,)), id="feedforward"),
    pytest.param(recurrent, GRU(WIDTH, 5), id="recurrent"),
]


@pytest.mark.parametrize(("policy", "core"), POLICIES)
def test_a_network_with_turned_kernels_has_the_same_outputs_and_derivatives_backward(
    policy: Callable[[Any], Categorical], core: Any
) -> None:
    parameters = parameters_of(core)
    plain, pull = jax.vjp(policy, parameters)
    turned, pull_turned = jax.vjp(lambda p: policy(with_turned_kernels(p)), parameters)
    np.testing.assert_array_equal(turned.logits, plain.logits)
    slopes = Categorical(jnp.asarray(RNG.standard_normal(plain.logits.shape)))
    for ours, theirs in zip(jax.tree.leaves(pull_turned(slopes)), jax.tree.leaves(pull(slopes)), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-14)


def test_the_slope_of_the_inputs_is_that_of_the_plain_product() -> None:
    kernel = jnp.asarray(RNG.standard_normal((WIDTH, CHOICES)))
    slopes = jnp.asarray(RNG.standard_normal((SEQUENCES, STEPS, CHOICES)))
    [of_inputs] = jax.vjp(lambda x: x @ Turned(kernel), ROWS)[1](slopes)
    np.testing.assert_allclose(of_inputs, np.einsum("tnm,km->tnk", slopes, kernel), rtol=1e-12)


@pytest.mark.parametrize(("policy", "core"), POLICIES)
def test_fisher_vector_products_with_turned_kernels_are_those_without(
    policy: Callable[[Any], Categorical], core: Any
) -> None:
    flat, unravel = ravel_pytree(parameters_of(core))
    weights = jnp.asarray(RNG.uniform(size=(SEQUENCES, STEPS)))

    def fisher(flat: Array, *backward: Callable[[Array], Categorical]) -> Array:
        return dense(fisher_product(lambda x: policy(unravel(x)), flat, weights, *backward), flat)

    plain = jax.jit(fisher)
    turned = jax.jit(lambda flat: fisher(flat, lambda x: policy(with_turned_kernels(unravel(x)))))
    matrix = plain(flat)
    assert np.linalg.matrix_rank(matrix) > 20
    np.testing.assert_allclose(turned(flat), matrix, rtol=1e-10, atol=1e-14)
    both = np.stack([flat, 2.0 * flat])  # several seeds are mapped
    np.testing.assert_allclose(jax.vmap(turned)(both), [matrix, plain(both[1])], rtol=1e-10, atol=1e-14)


def test_only_matrices_named_kernel_are_turned() -> None:
    images = jnp.ones((3, 3, 2, 4))
    parameters = {
        "layer": {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)},
        "conv": {"kernel": images},
        "table": jnp.ones((2, 2)),
    }
    turned = with_turned_kernels(parameters)
    assert isinstance(turned["layer"]["kernel"], Turned)
    assert turned["layer"]["bias"] is parameters["layer"]["bias"]
    assert turned["conv"]["kernel"] is images
    assert turned["table"] is parameters["table"]
