"""SAC of Stable-Baselines3 or SBX that trains until it is ended; each evaluation is a line of the output, a JSON object.

Run by ``minutes.py`` with the interpreter of an environment that has ``sb3.txt`` or ``sbx.txt``. The first line has the
``versions``. ``mean_return`` is that of deterministic episodes with raw rewards.
"""

from __future__ import annotations

import argparse
import json
from importlib.metadata import version
from typing import Any

PACKAGES = {
    "sb3": ("stable-baselines3", "torch", "gymnasium", "mujoco", "numpy"),
    "sbx": ("sbx-rl", "stable-baselines3", "jax", "jaxlib", "flax", "gymnasium", "mujoco", "numpy"),
}
FOREVER = 1_000_000_000


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--library", choices=tuple(PACKAGES), required=True)
    parser.add_argument("--env", required=True, help="a Gymnasium id")
    parser.add_argument("--net-arch", required=True, help="units of the hidden layers: 256,256")
    for name in ("--learning-starts", "--eval-every", "--eval-episodes", "--seed", "--threads"):
        parser.add_argument(name, type=int, required=True)
    return parser.parse_args()


def train(arguments: argparse.Namespace) -> None:
    import torch  # pyright: ignore[reportMissingImports]
    from stable_baselines3.common.callbacks import BaseCallback  # pyright: ignore[reportMissingImports]
    from stable_baselines3.common.env_util import make_vec_env  # pyright: ignore[reportMissingImports]
    from stable_baselines3.common.evaluation import evaluate_policy  # pyright: ignore[reportMissingImports]

    if arguments.library == "sbx":
        from sbx import SAC  # pyright: ignore[reportMissingImports]
    else:
        from stable_baselines3 import SAC  # pyright: ignore[reportMissingImports]

    torch.set_num_threads(arguments.threads)
    judged_in = make_vec_env(arguments.env, arguments.eval_episodes, arguments.seed + 1_000_000)

    class Judge(BaseCallback):  # type: ignore[misc]
        """Evaluates every ``eval_every`` steps."""

        def _on_step(self) -> bool:
            if self.num_timesteps % arguments.eval_every == 0:
                mean, _ = evaluate_policy(
                    self.model, judged_in, arguments.eval_episodes, deterministic=True, warn=False
                )
                tell({"time/total_timesteps": self.num_timesteps, "mean_return": float(mean)})
            return True

    agent = SAC(
        "MlpPolicy",
        make_vec_env(arguments.env, 1, arguments.seed),
        learning_starts=arguments.learning_starts,
        policy_kwargs={"net_arch": [int(units) for units in arguments.net_arch.split(",")]},
        seed=arguments.seed,
        device="cpu",
    )
    tell({"versions": {name: version(name) for name in PACKAGES[arguments.library]}})
    agent.learn(FOREVER, callback=Judge())


def tell(what: dict[str, Any]) -> None:
    print(json.dumps(what), flush=True)


if __name__ == "__main__":
    train(read_arguments())
