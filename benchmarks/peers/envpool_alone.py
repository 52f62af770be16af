"""EnvPool stepping environments with random actions and nothing else; the last line of the output is a JSON object.

Either a loop in Python, or EnvPool's XLA calls inside one compiled scan. Rows in which an environment was only reset
do not count as steps.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

import envpool
import jax
import jax.numpy as jnp
import numpy as np

ROWS = 1024
"""Rows of drawn actions, which are used again and again, so that drawing them takes no time."""


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--env", required=True, help="an id of EnvPool with Box actions")
    parser.add_argument("--n-envs", type=int, required=True)
    parser.add_argument("--total-timesteps", type=int, required=True, help="steps over all environments")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--way", choices=("loop", "scan"), default="loop")
    return parser.parse_args()


def draw_actions(space: Any, n_envs: int, seed: int) -> np.ndarray:
    shape = (ROWS, n_envs, *space.shape)
    return np.random.default_rng(seed).uniform(space.low, space.high, shape).astype(space.dtype)


def loop(pool: Any, actions: np.ndarray) -> Callable[[], int]:
    """Return a function that takes ``ROWS`` steps of every environment and says how many were experience."""

    def run() -> int:
        ends = 0
        for row in actions:
            _, _, terminated, truncated, _ = pool.step(row)
            ends += int(np.count_nonzero(terminated | truncated))
        return actions.shape[0] * actions.shape[1] - ends

    return run


def scan(pool: Any, actions: np.ndarray) -> Callable[[], int]:
    """Return the same as ``loop``, as one compiled program."""
    handle, _, _, step = pool.xla()
    rows = jnp.asarray(actions)
    state = jnp.asarray(handle)

    def row(handle: Any, action: Any) -> tuple[Any, Any]:
        handle, (_, _, terminated, truncated, _) = step(handle, action)
        return handle, jnp.sum(terminated | truncated)

    program = jax.jit(lambda handle: jax.lax.scan(row, handle, rows))

    def run() -> int:
        nonlocal state
        state, ends = program(state)
        return actions.shape[0] * actions.shape[1] - int(ends.sum())

    return run


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    pool = envpool.make_gymnasium(arguments.env, num_envs=arguments.n_envs, seed=arguments.seed)
    pool.reset()
    run = {"loop": loop, "scan": scan}[arguments.way](
        pool, draw_actions(pool.action_space, arguments.n_envs, arguments.seed)
    )
    warm_up = run()  # compiles the scan
    timed, start = 0, time.perf_counter()
    while timed < arguments.total_timesteps:
        timed += run()
    seconds = time.perf_counter() - start
    return {"total_timesteps": warm_up + timed, "steps_per_second": timed / seconds}


if __name__ == "__main__":
    # EnvPool's arrays of MuJoCo environments are in double precision.
    with jax.enable_x64(True):
        print(json.dumps(measure(read_arguments())))
