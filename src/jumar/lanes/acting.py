"""The programs that act for lanes: the same computation for each lane, however many there are and wherever it is.

The shape of a batch moves the last bits of a product. So a program takes :data:`WIDTH` places, of which the first few are
lanes, and goes through these in a loop whose body is the policy for a single observation. There is one program for any number
of lanes, and the body never knows how many there are or in which place a lane lies.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jumar.policies.exploration import Acted, Acting, Behaviour

WIDTH = 16
"""Places in a program; more lanes are acted for by several calls."""


class LaneActor:
    """Acts for up to :data:`WIDTH` lanes. Its programs run on the processor, also where JAX has a GPU.

    Args:
        behaviour: what acts.
        n_steps: how many steps random numbers are drawn for at once.
    """

    def __init__(self, behaviour: Behaviour, n_steps: int) -> None:
        self._behaviour, self._n_steps = behaviour, n_steps
        self._device = jax.local_devices(backend="cpu")[0]
        self._draw, self._act = jax.jit(self._draw_all), jax.jit(self._act_all)
        self._scalar = jax.tree.map(lambda x: np.ndim(x) == 0, behaviour.initial_carry(1))

    def hold(self, acting: Any) -> Any:
        """Return arrays on the processor's device."""
        return jax.device_put(acting, self._device)

    def noise(self, key: np.ndarray, lanes: Sequence[int]) -> Any:
        """Return the random numbers of a rollout, arrays ``[WIDTH, T, ...]``; each lane's depend on the key and its index."""
        padded = np.zeros(WIDTH, np.uint32)
        padded[: len(lanes)] = lanes
        with jax.default_device(self._device):
            return self._draw(key, padded, np.int32(len(lanes)))

    def act(
        self,
        acting: Acting,
        observations: Any,
        carry: Any,
        start: np.ndarray,
        masks: np.ndarray | None,
        noise: Any,
        t: int,
        n: int,
    ) -> Acted:
        """Return what ``n`` lanes are to do at step ``t`` of a rollout; all arrays are ``[WIDTH, ...]``."""
        with jax.default_device(self._device):
            return self._act(acting, observations, carry, start, masks, noise, np.int32(t), np.int32(n))

    def places(self, carry: Any) -> Any:
        """Return a carry of L lanes, as rollouts have it, as ``[WIDTH, ...]``: one for each place."""

        def placed(x: Any, scalar: bool) -> np.ndarray:
            x = np.asarray(x)
            if scalar:
                return np.full(WIDTH, x)
            return np.concatenate([x, np.zeros((WIDTH - len(x), *x.shape[1:]), x.dtype)])[:, None]

        return jax.tree.map(placed, carry, self._scalar)

    def lanes_of(self, carry: Any, n: int) -> Any:
        """Return the carry of ``n`` places as rollouts have it, on the host."""
        return jax.tree.map(lambda x, scalar: np.asarray(x)[0] if scalar else np.asarray(x)[:n, 0], carry, self._scalar)

    def _draw_all(self, key: Array, lanes: Array, n: Array) -> Any:
        def one(lane: Array) -> Any:
            keys = jax.random.split(jax.random.fold_in(key, lane), self._n_steps)
            return self._behaviour.rollout_noise(keys, 1)

        return _in_places(lambda i: one(lanes[i]), n)

    def _act_all(
        self,
        acting: Acting,
        observations: Any,
        carry: Any,
        start: Array,
        masks: Any,
        noise: Any,
        t: Array,
        n: Array,
    ) -> Acted:
        def one(i: Array) -> Acted:
            observation, begins, mask = jax.tree.map(
                lambda x: jax.lax.dynamic_slice_in_dim(x, i, 1), (observations, start, masks)
            )
            own, drawn = jax.tree.map(lambda x: x[i], (carry, noise))
            drawn = jax.tree.map(lambda x: x[t], drawn)
            kept, given, remembered = self._behaviour.act(acting, observation, own, begins, mask, drawn)
            return Acted(kept[0], given[0], remembered)

        return _in_places(one, n)


def _in_places(one: Any, n: Array) -> Any:
    """Return what a function makes of each of the first ``n`` places, arrays ``[WIDTH, ...]``; zeros in the others."""
    shapes = jax.eval_shape(one, jax.ShapeDtypeStruct((), jnp.int32))
    empty = jax.tree.map(lambda x: jnp.zeros((WIDTH, *x.shape), x.dtype), shapes)

    def put(i: Array, made: Any) -> Any:
        return jax.tree.map(lambda all, x: jax.lax.dynamic_update_index_in_dim(all, x, i, 0), made, one(i))

    return jax.lax.fori_loop(0, n, put, empty)
