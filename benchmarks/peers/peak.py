"""The fastest rate at which XLA multiplies square matrices on this machine."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

Program = Callable[[], Any]


def peak_flops() -> float:
    """Return the best rate of a square product in float32, of several sizes, on as many threads as XLA takes."""
    best = 0.0
    for n in (64, 128, 256, 512, 1024):
        x = jnp.full((n, n), 1.0 / n, jnp.float32)
        repeats = max(1, int(2e8 / (2 * n**3)))
        chain = jax.jit(lambda x, repeats=repeats: jax.lax.fori_loop(0, repeats, lambda _, y: y @ x, x))
        best = max(best, 2 * n**3 * repeats / min(seconds(lambda chain=chain, x=x: chain(x)) for _ in range(5)))
    return best


def seconds(program: Program) -> float:
    """Return how long a program takes to its very end."""
    start = time.perf_counter()
    jax.block_until_ready(program())
    return time.perf_counter() - start
