"""Run directories that no training made: a sound configuration, and logs that say what a test wants."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from jumar.console.reporter import Silent
from jumar.runs.run_directory import RunDirectory
from jumar.training.plan import Plan
from jumar.training.request import TrainRequest
from jumar.training.resolve import make_plan

TOTAL = 10_000


@functools.cache
def plan_of(algorithm: str = "ppo", env: str = "jax/CartPole-v1", **settings: Any) -> Plan:
    wishes = TrainRequest(
        algorithm=algorithm,
        env=env,
        total_timesteps=TOTAL,
        eval_every=1000,
        preset="none",
        settings=settings,
    )
    return make_plan(wishes, Silent(sys.stderr))


def metrics_line(step: int, **more: Any) -> dict[str, Any]:
    return {
        "time/total_timesteps": step,
        "time/steps_per_second": 1000.0,
        "time/elapsed": step / 1000,
        "rollout/ep_rew_mean": step / 100,
        "rollout/ep_len_mean": step / 100,
        "train/mean_kl": 0.01,
        "train/entropy": 0.6,
        "train/clip_fraction": 0.1,
        "train/explained_variance": 0.5,
        **more,
    }


def evaluation_line(step: int, mean: float) -> dict[str, Any]:
    returns = [mean - 1.0, mean + 1.0]
    return {
        "step": step,
        "mean_return": mean,
        "std_return": 1.0,
        "returns": returns,
        "lengths": [10, 20],
        "cut_episodes": 0,
    }


def make_run(
    path: Path,
    *,
    plan: Plan | None = None,
    seed: int = 0,
    steps: Iterable[int] = range(1000, TOTAL + 1, 1000),
    evaluations: Mapping[int, float] | None = None,
    more: Mapping[str, Any] | None = None,
) -> RunDirectory:
    """Make a run; ``more`` goes into every line of its metrics."""
    path.mkdir(parents=True)
    run = RunDirectory(path)
    run.write_config(replace(plan or plan_of(), seed=seed).to_json())
    append(run.metrics, [metrics_line(step, **(more or {})) for step in steps])
    found = {1000: 10.0, TOTAL: 100.0} if evaluations is None else evaluations
    append(run.evaluations, [evaluation_line(step, mean) for step, mean in found.items()])
    return run


def append(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    with path.open("a") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
