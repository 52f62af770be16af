"""rejax's SAC and TD3 on gymnax's environments, one compiled program; the last line of the output is a JSON object.

Run by ``speed.py`` with the interpreter of an environment that has ``rejax.txt``. A first program takes
``--learning-starts`` steps and some rounds with updates; what is timed is a second, which goes on from there and evaluates
nothing. With ``--n-seeds`` both are mapped over seeds, and steps count over all of them.
"""

from __future__ import annotations

import argparse
import json
import time
from importlib.metadata import version
from typing import Any

FIRST_ROUNDS = 20
"""Rounds with updates before those that are timed."""
ROUNDS_TOGETHER = {"sac": 1, "td3": 2}
"""Rounds that rejax does in one: TD3's policy moves at the end of two."""


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--algorithm", choices=tuple(ROUNDS_TOGETHER), required=True)
    parser.add_argument("--env", required=True, help="a gymnax id")
    parser.add_argument("--net-arch", required=True, help="units of the hidden layers: 256,256")
    parser.add_argument("--train-freq", type=int, required=True, help="steps of all environments in a round")
    for name in ("--n-envs", "--learning-starts", "--batch-size", "--gradient-steps", "--buffer-size"):
        parser.add_argument(name, type=int, required=True)
    parser.add_argument(
        "--total-timesteps", type=int, required=True, help="steps to time, over all environments and seeds"
    )
    parser.add_argument("--n-seeds", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.train_freq != arguments.n_envs:
        parser.error("rejax has one step of each environment in a round: --train-freq must be --n-envs")
    return arguments


def make(arguments: argparse.Namespace) -> Any:
    """Return the algorithm: ReLU networks of the same sizes as the other sides'."""
    import rejax  # pyright: ignore[reportMissingImports]
    from flax import linen as nn  # pyright: ignore[reportMissingImports]

    layers = tuple(int(units) for units in arguments.net_arch.split(","))
    kind = getattr(rejax, arguments.algorithm.upper())
    own = {"sac": {"hidden_layer_sizes": layers}, "td3": {}}[arguments.algorithm]
    algorithm = kind.create(
        env=arguments.env,
        num_envs=arguments.n_envs,
        num_epochs=arguments.gradient_steps,
        buffer_size=arguments.buffer_size,
        fill_buffer=arguments.learning_starts,
        batch_size=arguments.batch_size,
        learning_rate=3e-4,
        gamma=0.99,
        polyak=0.995,
        skip_initial_evaluation=True,
        **own,
    ).replace(eval_callback=lambda algorithm, state, key: ())
    if arguments.algorithm == "td3":  # takes the sizes of its layers from nobody
        wide = {"hidden_layer_sizes": layers, "activation": nn.relu}
        return algorithm.replace(actor=algorithm.actor.clone(**wide), critic=algorithm.critic.clone(**wide))
    return algorithm


def rounds(arguments: argparse.Namespace) -> tuple[int, int]:
    """Return how many rounds come first, and how many are timed: whole ones of rejax."""
    together = ROUNDS_TOGETHER[arguments.algorithm]
    first = -(-arguments.learning_starts // arguments.train_freq) + FIRST_ROUNDS
    timed = arguments.total_timesteps // (arguments.train_freq * arguments.n_seeds)
    return -(-first // together) * together, max(1, timed // together) * together


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    import jax  # pyright: ignore[reportMissingImports]

    algorithm = make(arguments)
    first, timed = (count * arguments.train_freq for count in rounds(arguments))

    def program(steps: int) -> Any:
        of_length = algorithm.replace(total_timesteps=steps, eval_freq=steps)

        def train(state: Any) -> Any:
            return of_length.train(train_state=state)[0]

        return jax.jit(jax.vmap(train) if arguments.n_seeds > 1 else train)

    keys = jax.random.split(jax.random.PRNGKey(arguments.seed), arguments.n_seeds)
    init = jax.vmap(algorithm.init_state) if arguments.n_seeds > 1 else (lambda keys: algorithm.init_state(keys[0]))
    # init_state makes a class of its own at every call, and a program takes no other than the one it was compiled for.
    state = jax.block_until_ready(program(first)(init(keys)))
    start = time.perf_counter()
    compiled = program(timed).lower(state).compile()
    compiling = time.perf_counter() - start
    start = time.perf_counter()
    jax.block_until_ready(compiled(state))
    seconds = time.perf_counter() - start
    return {
        "total_timesteps": (first + timed) * arguments.n_seeds,
        "steps_per_second": timed * arguments.n_seeds / seconds,
        "compile_time_s": compiling,
        "versions": {name: version(name) for name in ("rejax", "jax", "jaxlib", "gymnax", "flax", "numpy")},
    }


if __name__ == "__main__":
    print(json.dumps(measure(read_arguments())))
