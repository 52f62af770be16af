"""A small search for a preset: trains candidates over seeds and ranks them.

    .venv/bin/python benchmarks/search.py candidates.json --seeds 100,101 --out found.json

``candidates.json`` holds the environment, the steps and the candidates' settings::

    {"env": "Pendulum-v1", "total_timesteps": 200000,
     "candidates": {"a": {"gamma": 0.9}, "b": {"gamma": 0.9, "n_envs": 16, "n_steps": 64}}}

Use seeds that the returns table does not use (it starts at 0), so that a preset is not chosen by the runs that judge it.
Every training is a process on one processor of its own.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from harness import Failed, say
from trainings import Job, Run, in_parallel, jumar_command, seeds

from jumar.report.statistics import bootstrap_interval, interquartile_mean
from jumar.training.compiler import count_processors


def parse(words: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("candidates", type=Path, help="the file with the candidates")
    parser.add_argument("--seeds", type=seeds, default=[100, 101], help="seeds: 100,101 or a number (default: 100,101)")
    parser.add_argument(
        "--jobs", type=int, default=count_processors(), help="trainings at a time (default: processors)"
    )
    parser.add_argument("--out", type=Path, help="a file for every single score, as JSON")
    return parser.parse_args(words)


def ranking(found: dict[str, dict[int, Run]]) -> list[tuple[str, float, float, float]]:
    """Return (name, IQM, low, high) of every candidate, the best first."""
    rows = []
    for name, runs in found.items():
        scores = np.asarray([run.score for run in runs.values()])
        rows.append((name, interquartile_mean(scores), *bootstrap_interval(scores)))
    return sorted(rows, key=lambda row: -row[1])


def main(words: list[str] | None = None) -> int:
    """Train all candidates over all seeds; print the ranking."""
    arguments = parse(words)
    asked: dict[str, Any] = json.loads(arguments.candidates.read_text())
    env, steps = asked["env"], int(asked["total_timesteps"])
    jobs = [
        Job(name, env, steps, seed, jumar_command("ppo", env, "none", settings))
        for seed in arguments.seeds
        for name, settings in asked["candidates"].items()
    ]
    found: dict[str, dict[int, Run]] = {}
    failures: list[str] = []

    def done(job: Job, outcome: Run | Failed) -> None:
        if isinstance(outcome, Failed):
            failures.append(f"{job.name}: {outcome}")
            say(f"{job.name}, seed {job.seed}: failed: {outcome}")
            return
        found.setdefault(job.name, {})[job.seed] = outcome
        say(f"{job.name}, seed {job.seed}: {outcome.score:,.1f}, {outcome.wall_time_s / 60:.1f} min")
        if arguments.out:
            scores = {name: {seed: run.score for seed, run in runs.items()} for name, runs in found.items()}
            arguments.out.write_text(json.dumps({**asked, "scores": scores}, indent=1) + "\n")

    try:
        in_parallel(jobs, arguments.jobs, done)
    except KeyboardInterrupt:
        return 130
    for name, mean, low, high in ranking(found):
        print(f"{name:<20} {mean:>12,.1f}   [{low:,.1f}, {high:,.1f}]   {asked['candidates'][name]}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
