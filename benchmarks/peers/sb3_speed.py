"""Stable-Baselines3's or sb3-contrib's algorithms on Gymnasium's or EnvPool's environments; the last line is a JSON object.

Run by ``speed.py`` with the interpreter of an environment that has ``sb3.txt``. What is timed is ``learn``, after a
first ``learn`` of one rollout. Options beside those below are settings of the algorithm, whole numbers all of them:
``--n-epochs 10`` becomes ``n_epochs=10``.
"""

from __future__ import annotations

import argparse
import json
import time
from importlib.metadata import version
from typing import Any

PACKAGES = ("stable-baselines3", "sb3-contrib", "torch", "gymnasium", "mujoco", "numpy")


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--algorithm", choices=("ppo", "trpo", "recurrent-ppo"), required=True)
    parser.add_argument("--env", required=True, help="a Gymnasium id")
    parser.add_argument("--total-timesteps", type=int, required=True, help="steps to time, over all environments")
    for name in ("--n-envs", "--n-steps"):
        parser.add_argument(name, type=int, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--vector", choices=("dummy", "subproc", "envpool"), default="dummy", help="kind of vector environment"
    )
    parser.add_argument("--policy", default="MlpPolicy", help="the peer's name of the policy")
    parser.add_argument("--threads", type=int, default=1, help="threads of PyTorch")
    arguments, rest = parser.parse_known_args()
    names, numbers = rest[::2], rest[1::2]
    arguments.settings = {
        name.removeprefix("--").replace("-", "_"): int(number) for name, number in zip(names, numbers, strict=True)
    }
    return arguments


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    import sb3_contrib  # pyright: ignore[reportMissingImports]
    import stable_baselines3  # pyright: ignore[reportMissingImports]
    import torch  # pyright: ignore[reportMissingImports]
    from stable_baselines3.common.env_util import make_vec_env  # pyright: ignore[reportMissingImports]
    from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv  # pyright: ignore[reportMissingImports]

    torch.set_num_threads(arguments.threads)
    if arguments.vector == "envpool":
        from sb3_pool import PoolVecEnv

        environments = PoolVecEnv(arguments.env, arguments.n_envs, arguments.seed)
    else:
        kind = {"dummy": DummyVecEnv, "subproc": SubprocVecEnv}[arguments.vector]
        environments = make_vec_env(arguments.env, arguments.n_envs, arguments.seed, vec_env_cls=kind)
    algorithms = {"ppo": stable_baselines3.PPO, "trpo": sb3_contrib.TRPO, "recurrent-ppo": sb3_contrib.RecurrentPPO}
    make = algorithms[arguments.algorithm]
    # Everything that is not given is the peer's default, and Jumar's: two tanh layers of 64 for each of actor and
    # critic among it.
    agent = make(
        arguments.policy,
        environments,
        n_steps=arguments.n_steps,
        seed=arguments.seed,
        device="cpu",
        **arguments.settings,
    )
    agent.learn(arguments.n_envs * arguments.n_steps)
    warm_up = agent.num_timesteps
    start = time.perf_counter()
    agent.learn(arguments.total_timesteps)
    seconds = time.perf_counter() - start
    timed = agent.num_timesteps
    environments.close()
    return {
        "total_timesteps": warm_up + timed,
        "steps_per_second": timed / seconds,
        "versions": {name: version(name) for name in PACKAGES},
    }


if __name__ == "__main__":  # the workers of SubprocVecEnv import this file
    print(json.dumps(measure(read_arguments())))
