"""Epochs of minibatches: several passes of an optimiser over the same experience, in a new order each time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.flatten_util import ravel_pytree

from jumar.solvers.ascent import Optimiser, flat_objective
from jumar.solvers.problem import Climb, Diagnostics, Parameters
from jumar.trajectory import Batch, weighted_mean

PACKED_ROWS = 2**16
"""Up to how many rows a shuffle sorts one word a row: at least 16 of its bits are random then."""


@dataclass(frozen=True)
class Epochs:
    """``n_epochs`` passes of minibatch steps.

    Each pass shuffles the rows and walks through all of them once. With ``target_kl`` a pass stops *before* the step
    whose minibatch shows a sampled KL (the objective's diagnostic ``approx_kl``) above ``1.5 * target_kl``, and all
    later passes are left out too.
    """

    optimiser: Optimiser
    n_epochs: int
    n_minibatches: int
    """Into how many minibatches the rows are divided; it must divide their number."""
    target_kl: float | None = None
    recompute: bool = False
    """Estimate advantages and value targets anew with the current critic before every pass."""

    def init(self, parameters: Parameters) -> Any:
        """Return the optimiser's state."""
        return self.optimiser.init(ravel_pytree(parameters)[0])

    def climb(
        self, climb: Climb, parameters: Parameters, state: Any, remaining: Array, key: Array
    ) -> tuple[Parameters, Any, Diagnostics]:
        """Take all passes; the record holds means over the minibatches, ``approx_kl`` those of the last pass."""
        flat, unravel = ravel_pytree(parameters)
        gradient_of = flat_objective(climb, unravel)
        first = climb.estimate(parameters)

        def step(carry: tuple[Array, Any], minibatch: Batch) -> tuple[tuple[Array, Any], Diagnostics]:
            flat, state = carry
            (_, diagnostics), gradient = gradient_of(flat, minibatch)
            one = jnp.ones((), jnp.float32)
            diagnostics = {**diagnostics, "grad_norm": jnp.linalg.norm(gradient), "seen": one, "taken": one}
            if self.target_kl is None:
                return self.optimiser.ascend(flat, gradient, state, remaining), diagnostics
            stop = diagnostics["approx_kl"] > 1.5 * self.target_kl
            carry = jax.lax.cond(
                stop, lambda: (flat, state), lambda: self.optimiser.ascend(flat, gradient, state, remaining)
            )
            return carry, {**diagnostics, "taken": 1.0 - stop.astype(jnp.float32)}

        def guarded(carry: tuple[Any, Array], minibatch: Batch) -> tuple[tuple[Any, Array], Diagnostics]:
            inner, running = carry
            shapes = jax.eval_shape(step, inner, minibatch)[1]
            nothing = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
            inner, diagnostics = jax.lax.cond(running, lambda: step(inner, minibatch), lambda: (inner, nothing))
            return (inner, running & (diagnostics["taken"] > 0.0)), diagnostics

        def epoch(carry: tuple[Any, Array], key: Array) -> tuple[tuple[Any, Array], Diagnostics]:
            inner, running = carry
            batch = climb.estimate(unravel(inner[0]))._replace(values=first.values) if self.recompute else first
            minibatches = jax.vmap(climb.prepare)(split(batch, key, self.n_minibatches))
            if self.target_kl is not None:
                return jax.lax.scan(guarded, carry, minibatches)
            inner, diagnostics = jax.lax.scan(step, inner, minibatches)
            return (inner, running), diagnostics

        start = ((flat, state), jnp.ones((), bool))
        ((flat, state), _), diagnostics = jax.lax.scan(epoch, start, jax.random.split(key, self.n_epochs))
        return unravel(flat), state, summarise(diagnostics)


def split(batch: Batch, key: Array, n_minibatches: int) -> Batch:
    """Shuffle the rows of a batch and divide them: every array gets a new leading axis ``n_minibatches``."""
    rows = batch.weights.shape[0]
    order = random_order(key, rows)
    return jax.tree.map(lambda x: x[order].reshape(n_minibatches, rows // n_minibatches, *x.shape[1:]), batch)


def random_order(key: Array, rows: int) -> Array:
    """Return the numbers below ``rows`` in a random order, int32.

    Up to :data:`PACKED_ROWS` rows, each number stands in the low bits of a 32-bit word whose other bits are random, and
    one sort of the words orders them: sorting words alone is several times faster than sorting pairs. A random mask
    flips the numbers' bits first, so that two rows whose random bits are equal may come in either order.
    """
    bits = jax.random.bits(key, (rows + 1,))
    if rows > PACKED_ROWS:
        return jax.lax.sort((bits[1:], jnp.arange(rows, dtype=jnp.int32)), num_keys=1)[1]
    low = jnp.uint32(2 ** (rows - 1).bit_length() - 1)
    flips = bits[0] & low
    words = (bits[1:] & ~low) | (jnp.arange(rows, dtype=jnp.uint32) ^ flips)
    return ((jax.lax.sort(words, is_stable=False) & low) ^ flips).astype(jnp.int32)


def summarise(diagnostics: Diagnostics) -> Diagnostics:
    """Average ``[epochs, minibatches]`` diagnostics over the minibatches seen; ``approx_kl`` over the last pass only.

    The minibatch that stopped an update was seen, so it counts, though no step was taken on it.
    """
    seen, taken = diagnostics.pop("seen"), diagnostics.pop("taken")
    record = {name: weighted_mean(x, seen) for name, x in diagnostics.items()}
    if "approx_kl" in diagnostics:
        last = jnp.max(jnp.where(jnp.any(seen > 0.0, axis=1), jnp.arange(seen.shape[0]), 0))
        record["approx_kl"] = weighted_mean(diagnostics["approx_kl"][last], seen[last])
    return {**record, "gradient_steps": jnp.sum(taken), "stopped_early": jnp.max(seen - taken)}
