"""Jumar's compiled CartPole with random actions and nothing else; the last line of the output is a JSON object."""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

import jax
import jax.numpy as jnp

from jumar.envs.classic_control import CartPole
from jumar.envs.compiled import reset_batch, step_batch


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n-envs", type=int, required=True)
    parser.add_argument("--n-steps", type=int, required=True, help="steps of each environment in one program")
    parser.add_argument("--total-timesteps", type=int, required=True, help="steps over all environments")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    env, n_envs = CartPole(), arguments.n_envs

    def row(states: Any, key: jax.Array) -> tuple[Any, Any]:
        act_key, env_key = jax.random.split(key)
        actions = jax.random.bernoulli(act_key, shape=(n_envs,)).astype(jnp.int32)
        states, taken = step_batch(env, env.params, env_key, states, actions)
        return states, taken  # all of it leaves the scan, so that none of the work can be left out

    @jax.jit
    def rollout(states: Any, key: jax.Array) -> tuple[Any, Any]:
        return jax.lax.scan(row, states, jax.random.split(key, arguments.n_steps))

    key = jax.random.PRNGKey(arguments.seed)
    states, _ = reset_batch(env, env.params, key, n_envs)
    states, _ = jax.block_until_ready(rollout(states, key))  # compiles it
    rollouts = -(-arguments.total_timesteps // (n_envs * arguments.n_steps))
    start = time.perf_counter()
    for index in range(rollouts):
        states, _ = jax.block_until_ready(rollout(states, jax.random.fold_in(key, index)))
    seconds = time.perf_counter() - start
    return {
        "total_timesteps": (rollouts + 1) * n_envs * arguments.n_steps,
        "steps_per_second": rollouts * n_envs * arguments.n_steps / seconds,
    }


if __name__ == "__main__":
    print(json.dumps(measure(read_arguments())))
