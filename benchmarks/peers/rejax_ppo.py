"""rejax's PPO on gymnax's CartPole, one compiled program; the last line of the output is a JSON object.

Run by ``speed.py`` with the interpreter of an environment that has ``rejax.txt``. What is timed is the compiled program of
the whole training; it evaluates nothing. With ``--n-seeds`` it is mapped over seeds, and steps count over all of them.
"""

from __future__ import annotations

import argparse
import json
import time
from importlib.metadata import version
from typing import Any


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--env", required=True, help="a gymnax id")
    parser.add_argument(
        "--total-timesteps", type=int, required=True, help="steps to time, over all environments and seeds"
    )
    for name in ("--n-envs", "--n-steps", "--n-epochs", "--batch-size"):
        parser.add_argument(name, type=int, required=True)
    parser.add_argument("--n-seeds", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    import jax  # pyright: ignore[reportMissingImports]
    from rejax import PPO  # pyright: ignore[reportMissingImports]

    rollout = arguments.n_envs * arguments.n_steps
    iterations = max(1, arguments.total_timesteps // (rollout * arguments.n_seeds))
    algorithm = PPO.create(
        env=arguments.env,
        total_timesteps=iterations * rollout,
        eval_freq=iterations * rollout,
        skip_initial_evaluation=True,
        num_envs=arguments.n_envs,
        num_steps=arguments.n_steps,
        num_epochs=arguments.n_epochs,
        num_minibatches=rollout // arguments.batch_size,
        learning_rate=3e-4,
        gamma=0.99,
        ent_coef=0.0,
        agent_kwargs={"hidden_layer_sizes": (64, 64), "activation": "tanh"},
    ).replace(eval_callback=lambda algorithm, state, key: ())
    keys = jax.random.split(jax.random.PRNGKey(arguments.seed), arguments.n_seeds)
    train = jax.vmap(algorithm.train) if arguments.n_seeds > 1 else (lambda keys: algorithm.train(keys[0]))
    start = time.perf_counter()
    program = jax.jit(train).lower(keys).compile()
    compiling = time.perf_counter() - start
    start = time.perf_counter()
    jax.block_until_ready(program(keys))
    seconds = time.perf_counter() - start
    timed = iterations * rollout * arguments.n_seeds
    return {
        "total_timesteps": timed,
        "steps_per_second": timed / seconds,
        "compile_time_s": compiling,
        "versions": {name: version(name) for name in ("rejax", "jax", "jaxlib", "gymnax", "flax", "numpy")},
    }


if __name__ == "__main__":
    print(json.dumps(measure(read_arguments())))
