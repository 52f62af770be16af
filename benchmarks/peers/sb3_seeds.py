"""Stable-Baselines3's PPO with its defaults, trained and then evaluated; the last line of the output is a JSON object.

Run by ``seeds.py`` with the interpreter of an environment that has ``sb3.txt``. ``training`` is the mean return of the
last 100 episodes of the training (``rollout/ep_rew_mean``), ``evaluations`` the return of each of ``--episodes``
deterministic episodes of the final policy, episode i reset with the seed ``--evaluation-seed`` + i.
"""

from __future__ import annotations

import argparse
import json
from importlib.metadata import version
from typing import Any


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--env", required=True, help="a Gymnasium id")
    for name in ("--n-envs", "--n-steps", "--total-timesteps", "--seed", "--episodes", "--evaluation-seed"):
        parser.add_argument(name, type=int, required=True)
    return parser.parse_args()


def train(arguments: argparse.Namespace) -> dict[str, Any]:
    import gymnasium
    import torch  # pyright: ignore[reportMissingImports]
    from stable_baselines3 import PPO  # pyright: ignore[reportMissingImports]
    from stable_baselines3.common.env_util import make_vec_env  # pyright: ignore[reportMissingImports]

    torch.set_num_threads(1)
    envs = make_vec_env(arguments.env, arguments.n_envs, arguments.seed)
    agent = PPO("MlpPolicy", envs, n_steps=arguments.n_steps, seed=arguments.seed, device="cpu")
    agent.learn(arguments.total_timesteps)
    last = [episode["r"] for episode in agent.ep_info_buffer]
    env = gymnasium.make(arguments.env)
    evaluations = [episode(agent, env, arguments.evaluation_seed + i) for i in range(arguments.episodes)]
    names = ("stable-baselines3", "torch", "gymnasium", "box2d", "mujoco", "numpy")
    return {
        "training": sum(last) / len(last),
        "evaluations": evaluations,
        "total_timesteps": agent.num_timesteps,
        "versions": {name: version(name) for name in names},
    }


def episode(agent: Any, env: Any, seed: int) -> float:
    """Return the return of one deterministic episode."""
    (observation, _), over, total = env.reset(seed=seed), False, 0.0
    while not over:
        action, _ = agent.predict(observation, deterministic=True)
        observation, reward, terminated, truncated, _ = env.step(action)
        over, total = terminated or truncated, total + float(reward)
    return total


if __name__ == "__main__":
    print(json.dumps(train(read_arguments())))
