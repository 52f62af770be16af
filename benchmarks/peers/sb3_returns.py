"""An algorithm of Stable-Baselines3, evaluated while it trains; the last line of the output is a JSON object.

Run by ``returns.py`` with the interpreter of an environment that has ``sb3.txt``. ``evaluations`` are the mean returns of
deterministic episodes with raw rewards, one each time ``--eval-every`` steps more were taken.
"""

from __future__ import annotations

import argparse
import json
from importlib.metadata import version
from typing import Any

import numpy as np


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--algorithm", choices=("ppo", "sac", "td3"), required=True)
    parser.add_argument("--env", required=True, help="a Gymnasium id")
    parser.add_argument("--settings", type=json.loads, required=True, help="a JSON object of what is no default")
    for name in ("--total-timesteps", "--eval-every", "--eval-episodes", "--seed"):
        parser.add_argument(name, type=int, required=True)
    return parser.parse_args()


def translated(settings: dict[str, Any], action_space: Any) -> dict[str, Any]:
    """Return settings in Stable-Baselines3's words."""
    from stable_baselines3.common.noise import NormalActionNoise  # pyright: ignore[reportMissingImports]

    if "net_arch" in settings:
        settings["policy_kwargs"] = {"net_arch": settings.pop("net_arch")}
    if "action_noise" in settings:
        kind, deviation = settings["action_noise"].split(":")
        assert kind == "normal"
        size = action_space.shape
        settings["action_noise"] = NormalActionNoise(np.zeros(size), np.full(size, float(deviation)))
    return settings


def train(arguments: argparse.Namespace) -> dict[str, Any]:
    import torch  # pyright: ignore[reportMissingImports]
    from stable_baselines3 import PPO, SAC, TD3  # pyright: ignore[reportMissingImports]
    from stable_baselines3.common.callbacks import BaseCallback  # pyright: ignore[reportMissingImports]
    from stable_baselines3.common.env_util import make_vec_env  # pyright: ignore[reportMissingImports]
    from stable_baselines3.common.evaluation import evaluate_policy  # pyright: ignore[reportMissingImports]

    torch.set_num_threads(1)
    lanes = min(10, arguments.eval_episodes)
    judged_in = make_vec_env(arguments.env, lanes, arguments.seed + 1_000_000)

    class Judge(BaseCallback):  # type: ignore[misc]
        """Evaluates at the first rollout's end after every ``eval_every`` steps."""

        def __init__(self) -> None:
            super().__init__()
            self.evaluations: list[float] = []
            self.due = arguments.eval_every

        def _on_step(self) -> bool:
            return True

        def after_update(self, model: Any) -> None:
            while model.num_timesteps >= self.due:
                mean, _ = evaluate_policy(model, judged_in, arguments.eval_episodes, deterministic=True, warn=False)
                self.evaluations.append(float(mean))
                while self.due <= model.num_timesteps:
                    self.due += arguments.eval_every

        def _on_rollout_start(self) -> None:
            self.after_update(self.model)

    judge = Judge()
    settings = dict(arguments.settings)
    made_in = make_vec_env(arguments.env, settings.pop("n_envs", 1), arguments.seed)
    method = {"ppo": PPO, "sac": SAC, "td3": TD3}[arguments.algorithm]
    agent = method(
        "MlpPolicy", made_in, seed=arguments.seed, device="cpu", **translated(settings, made_in.action_space)
    )
    agent.learn(arguments.total_timesteps, callback=judge)
    judge.after_update(agent)
    names = ("stable-baselines3", "torch", "gymnasium", "mujoco", "numpy")
    return {"evaluations": judge.evaluations, "versions": {name: version(name) for name in names}}


if __name__ == "__main__":
    print(json.dumps(train(read_arguments())))
