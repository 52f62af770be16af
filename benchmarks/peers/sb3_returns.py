"""Stable-Baselines3's PPO, evaluated while it trains; the last line of the output is a JSON object.

Run by ``returns.py`` with the interpreter of an environment that has ``sb3.txt``. ``evaluations`` are the mean returns of
deterministic episodes with raw rewards, one each time ``--eval-every`` steps more were taken.
"""

from __future__ import annotations

import argparse
import json
from importlib.metadata import version
from typing import Any


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--env", required=True, help="a Gymnasium id")
    for name in ("--n-envs", "--n-steps", "--total-timesteps", "--eval-every", "--eval-episodes", "--seed"):
        parser.add_argument(name, type=int, required=True)
    return parser.parse_args()


def train(arguments: argparse.Namespace) -> dict[str, Any]:
    import torch  # pyright: ignore[reportMissingImports]
    from stable_baselines3 import PPO  # pyright: ignore[reportMissingImports]
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
    agent = PPO(
        "MlpPolicy",
        make_vec_env(arguments.env, arguments.n_envs, arguments.seed),
        n_steps=arguments.n_steps,
        seed=arguments.seed,
        device="cpu",
    )
    agent.learn(arguments.total_timesteps, callback=judge)
    judge.after_update(agent)
    names = ("stable-baselines3", "torch", "gymnasium", "mujoco", "numpy")
    return {"evaluations": judge.evaluations, "versions": {name: version(name) for name in names}}


if __name__ == "__main__":
    print(json.dumps(train(read_arguments())))
