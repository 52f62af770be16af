"""The slow environment stepped by one process with random actions and nothing else; prints a JSON object."""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

import gymnasium as gym


def measure(total_timesteps: int) -> dict[str, Any]:
    env = gym.make("slow_env:Slow-v0")
    env.action_space.seed(0)
    env.reset(seed=0)
    start = time.perf_counter()
    for _ in range(total_timesteps):
        _, _, terminated, truncated, _ = env.step(env.action_space.sample())
        if terminated or truncated:
            env.reset()
    return {"total_timesteps": total_timesteps, "steps_per_second": total_timesteps / (time.perf_counter() - start)}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--total-timesteps", type=int, required=True)
    print(json.dumps(measure(parser.parse_args().total_timesteps)))
