"""Convolutions as products, beside XLA's own: values and derivatives."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array

from jumar.networks.convolutions import convolve, patches, space_to_depth

RNG = np.random.default_rng(0)


def xla(images: Array, kernel: Array, stride: int, padding: str) -> Array:
    return jax.lax.conv_general_dilated(
        images, kernel, (stride, stride), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


@pytest.mark.parametrize(
    ("height", "width", "size", "stride"),
    [(12, 16, 8, 4), (13, 18, 4, 2), (9, 5, 3, 1), (7, 6, 3, 2), (5, 5, 1, 1), (9, 8, 2, 4)],
    ids=str,
)
@pytest.mark.parametrize("padding", ["VALID", "SAME"])
def test_products_are_the_convolution_with_its_derivatives(
    height: int, width: int, size: int, stride: int, padding: str
) -> None:
    images = jnp.asarray(RNG.standard_normal((2, height, width, 3)), jnp.float32)
    kernel = jnp.asarray(RNG.standard_normal((size, size, 3, 4)) / size, jnp.float32)

    @jax.jit
    def both(images: Array, kernel: Array) -> list[tuple[Array, tuple[Array, Array]]]:
        results = []
        for function in (xla, convolve):
            outputs, back = jax.vjp(lambda x, w, f=function: f(x, w, stride, padding), images, kernel)
            results.append((outputs, back(jnp.cos(outputs))))
        return results

    (expected, gradients), (found, ours) = both(images, kernel)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    for one, other in zip(gradients, ours, strict=True):
        np.testing.assert_allclose(other, one, atol=1e-4)
    seen = patches(images, (size, size), stride, padding)
    np.testing.assert_allclose(seen @ kernel.reshape(-1, 4), expected, atol=1e-5)


def test_blocks_of_pixels_become_channels_row_by_row() -> None:
    image = np.arange(16.0).reshape(1, 4, 4, 1)
    np.testing.assert_array_equal(
        space_to_depth(jnp.asarray(image), 2)[0], [[[0, 1, 4, 5], [2, 3, 6, 7]], [[8, 9, 12, 13], [10, 11, 14, 15]]]
    )
