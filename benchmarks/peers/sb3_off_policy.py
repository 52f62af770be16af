"""SAC, TD3 and DDPG of Stable-Baselines3 or SBX, on Gymnasium's or EnvPool's environments; the last line is a JSON object.

Run by ``speed.py`` with the interpreter of an environment that has ``sb3.txt`` or ``sbx.txt``. What is timed is ``learn``,
after a first ``learn`` of ``--learning-starts`` steps and some updates: what is compiled is compiled then. The second
goes on where the first ended, so that every step that is timed has its updates. What is not given is the library's
default, ReLU, two critics of SAC and TD3 and one of DDPG among it.
"""

from __future__ import annotations

import argparse
import json
import time
from importlib.metadata import version
from typing import Any

PACKAGES = {
    "sb3": ("stable-baselines3", "torch", "gymnasium", "mujoco", "numpy"),
    "sbx": ("sbx-rl", "stable-baselines3", "jax", "jaxlib", "flax", "torch", "gymnasium", "mujoco", "numpy"),
}
FIRST_UPDATES = 20
"""Updates before those that are timed, in two rounds at least: SBX compiles one program of TD3 for odd rounds, one for even."""


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--library", choices=tuple(PACKAGES), required=True)
    parser.add_argument("--algorithm", choices=("sac", "td3", "ddpg"), required=True)
    parser.add_argument("--env", required=True, help="a Gymnasium id, or with --vector envpool one of EnvPool's")
    parser.add_argument("--vector", choices=("dummy", "subproc", "envpool"), default="dummy")
    parser.add_argument("--net-arch", required=True, help="units of the hidden layers: 256,256")
    parser.add_argument("--train-freq", type=int, required=True, help="steps of all environments in a round")
    for name in ("--n-envs", "--learning-starts", "--batch-size", "--gradient-steps", "--buffer-size"):
        parser.add_argument(name, type=int, required=True)
    parser.add_argument("--total-timesteps", type=int, required=True, help="steps to time, over all environments")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, help="threads of PyTorch")
    arguments = parser.parse_args()
    if arguments.train_freq % arguments.n_envs:
        parser.error(f"--train-freq {arguments.train_freq}: it is no multiple of --n-envs {arguments.n_envs}")
    return arguments


def settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the algorithm's settings; the peers' ``train_freq`` counts steps of each environment."""
    names = ("learning_starts", "batch_size", "gradient_steps", "buffer_size", "seed")
    return {
        **{name: getattr(arguments, name) for name in names},
        "train_freq": arguments.train_freq // arguments.n_envs,
        "policy_kwargs": {"net_arch": [int(units) for units in arguments.net_arch.split(",")]},
        "device": "cpu",
    }


def environments(arguments: argparse.Namespace) -> Any:
    from stable_baselines3.common.env_util import make_vec_env  # pyright: ignore[reportMissingImports]
    from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv  # pyright: ignore[reportMissingImports]

    if arguments.vector == "envpool":
        from sb3_pool import PoolVecEnv

        return PoolVecEnv(arguments.env, arguments.n_envs, arguments.seed)
    kind = {"dummy": DummyVecEnv, "subproc": SubprocVecEnv}[arguments.vector]
    return make_vec_env(arguments.env, arguments.n_envs, arguments.seed, vec_env_cls=kind)


def compile_times() -> list[float]:
    """Return a list to which JAX will add the seconds of every lowering and compilation."""
    import jax  # pyright: ignore[reportMissingImports]

    found: list[float] = []

    def hear(event: str, duration_secs: float, **_: str | int) -> None:
        if event.endswith(("jaxpr_to_mlir_module_duration", "backend_compile_duration")):
            found.append(duration_secs)

    jax.monitoring.register_event_duration_secs_listener(hear)
    return found


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    import torch  # pyright: ignore[reportMissingImports]

    if arguments.library == "sbx":
        import sbx as library  # pyright: ignore[reportMissingImports]
    else:
        import stable_baselines3 as library  # pyright: ignore[reportMissingImports]

    compiled = compile_times() if arguments.library == "sbx" else None
    torch.set_num_threads(arguments.threads)
    vector = environments(arguments)
    make = getattr(library, arguments.algorithm.upper())
    agent = make("MlpPolicy", vector, **settings(arguments))
    first_rounds = max(2, FIRST_UPDATES // arguments.gradient_steps)
    agent.learn(arguments.learning_starts + first_rounds * arguments.train_freq)
    warm_up, updates = agent.num_timesteps, agent._n_updates
    start = time.perf_counter()
    agent.learn(arguments.total_timesteps, reset_num_timesteps=False)
    seconds = time.perf_counter() - start
    timed, updates = agent.num_timesteps - warm_up, agent._n_updates - updates
    vector.close()
    if updates * arguments.train_freq != timed * arguments.gradient_steps:
        raise SystemExit(f"{updates} updates were made in {timed} steps")
    return {
        "total_timesteps": agent.num_timesteps,
        "steps_per_second": timed / seconds,
        "compile_time_s": None if compiled is None else sum(compiled),
        "versions": {name: version(name) for name in PACKAGES[arguments.library]},
    }


if __name__ == "__main__":  # the workers of SubprocVecEnv import this file
    print(json.dumps(measure(read_arguments())))
