"""The returns that PPO reaches, over seeds, beside the returns aimed at and beside Stable-Baselines3's.

    .venv/bin/python benchmarks/returns.py            # all tasks; what is in results/returns.json already is not repeated
    .venv/bin/python benchmarks/returns.py --only pendulum hopper --sides preset

Every training is a process on one processor of its own; ``--jobs`` run at a time. Each is kept as soon as it ends, so that
a stopped command goes on where it was. ``--presets`` writes what the presets reached into the library's data.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from harness import HERE, PEERS, Failed, Peers, say
from speed import machine, terminate, versions
from trainings import COUNTED, EPISODES, Job, Run, in_parallel, jumar_command

from jumar.report.statistics import bootstrap_interval, interquartile_mean
from jumar.training.compiler import count_processors

RESULTS = HERE / "results"
PRESETS = HERE.parent / "src" / "jumar" / "presets" / "ppo.json"
DEFAULTS = {"n_envs": 8, "n_steps": 256}
"""Stable-Baselines3's defaults, spread over eight environments: rollouts of 2,048 steps, as with one."""
SIDES = {"preset": "Jumar, preset", "defaults": "Jumar, no preset", "sb3": "Stable-Baselines3"}


@dataclass(frozen=True)
class Task:
    """An environment, how long to train, over how many seeds, and the return that is aimed at."""

    env: str
    total_timesteps: int
    seeds: int
    aim: float
    with_defaults: bool = False
    """Whether to train with Stable-Baselines3's defaults too, in both libraries."""

    @property
    def sides(self) -> list[str]:
        """The names of the sides that this task has."""
        return list(SIDES) if self.with_defaults else ["preset"]


TASKS = {
    "cartpole": Task("CartPole-v1", 100_000, 10, 475),
    "pendulum": Task("Pendulum-v1", 200_000, 5, -200),
    "acrobot": Task("Acrobot-v1", 200_000, 5, -90),
    "mountaincar": Task("MountainCarContinuous-v0", 200_000, 5, 88),
    "halfcheetah": Task("HalfCheetah-v5", 1_000_000, 5, 5_000, with_defaults=True),
    "hopper": Task("Hopper-v5", 1_000_000, 5, 2_400, with_defaults=True),
    "walker2d": Task("Walker2d-v5", 1_000_000, 5, 3_400, with_defaults=True),
    "swimmer": Task("Swimmer-v5", 1_000_000, 5, 200),
    "ant": Task("Ant-v5", 1_000_000, 5, 1_500),
    "doublependulum": Task("InvertedDoublePendulum-v5", 1_000_000, 5, 8_500),
}


def job_of(task: Task, side: str, seed: int, peers: Peers) -> Job:
    """Return the training of one side in a task.

    Raises:
        Failed: the peer could not be installed.
    """
    if side == "sb3":
        command = (str(peers.interpreter("sb3")), str(PEERS / "sb3_returns.py"), "--env", task.env)
        command += tuple(f"--{name.replace('_', '-')}={value}" for name, value in DEFAULTS.items())
    else:
        none = side == "defaults"
        command = jumar_command(task.env, "none" if none else None, DEFAULTS if none else {})
    return Job(side, task.env, task.total_timesteps, seed, command)


class Results:
    """What has been measured: runs by task and side, in one file that is the old or the new one, never half."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tasks: dict[str, dict[str, dict[int, Run]]] = {}
        self.about: dict[str, Any] = {}
        path = folder / "returns.json"
        if path.exists():
            data = json.loads(path.read_text())
            self.about = data["about"]
            for task, sides in data["tasks"].items():
                self.tasks[task] = {side: {row["seed"]: Run(**row) for row in rows} for side, rows in sides.items()}

    def runs(self, task: str, side: str) -> dict[int, Run]:
        """Return the runs of one side in a task, by seed."""
        return self.tasks.setdefault(task, {}).setdefault(side, {})

    def to_json(self) -> str:
        """Return everything as JSON, tasks and seeds in order."""
        tasks = {
            name: {
                side: [asdict(runs[seed]) for seed in sorted(runs)] for side, runs in self.tasks[name].items() if runs
            }
            for name in TASKS
            if any(self.tasks.get(name, {}).values())
        }
        return json.dumps({"about": self.about, "tasks": tasks}, indent=1) + "\n"

    def write(self) -> None:
        """Write ``returns.json`` and ``returns.md``."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for name, text in (("returns.json", self.to_json()), ("returns.md", page(self))):
            temporary = self.folder / f".{name}.tmp"
            temporary.write_text(text, encoding="utf-8")
            os.replace(temporary, self.folder / name)


@dataclass(frozen=True)
class Summary:
    """The scores of one side in a task."""

    mean: float
    low: float
    high: float
    lowest: float
    """The lowest score of a seed."""
    lowest_last: float
    """The lowest last evaluation of a seed."""
    minutes: float
    """Median wall time of a run."""
    seeds: int


def summarise(runs: dict[int, Run]) -> Summary:
    """Return the interquartile mean over seeds with its 95 % bootstrap interval, and the worst seed."""
    scores = np.asarray([runs[seed].score for seed in sorted(runs)])
    interval = bootstrap_interval(scores)
    return Summary(
        interquartile_mean(scores),
        interval.low,
        interval.high,
        float(scores.min()),
        min(run.evaluations[-1] for run in runs.values()),
        float(np.median([run.wall_time_s for run in runs.values()])) / 60.0,
        len(runs),
    )


def page(results: Results) -> str:
    """Return the table."""
    lines = [
        "# Returns",
        "",
        f"{results.about.get('date', '')}. {results.about.get('machine', '')}.",
        "",
        f"Score of a run: mean of its last {COUNTED} evaluations, {EPISODES} deterministic episodes each with raw rewards, "
        "taken every 20,000 steps (every 2 % of shorter runs). IQM over seeds, with a 95 % bootstrap interval.",
        "",
        "| task | steps | side | seeds | IQM | 95 % interval | worst seed | worst last evaluation | aim | minutes a run |",
        "| --- | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, task in TASKS.items():
        for side in task.sides:
            runs = results.tasks.get(name, {}).get(side, {})
            if not runs:
                continue
            s = summarise(runs)
            aim = f"{task.aim:,.0f}" if side == "preset" else ""
            cells = [task.env, f"{task.total_timesteps:,}", SIDES[side], str(s.seeds), f"{s.mean:,.1f}"]
            cells += [f"{s.low:,.1f} to {s.high:,.1f}", f"{s.lowest:,.1f}", f"{s.lowest_last:,.1f}", aim]
            lines.append(f"| {' | '.join([*cells, f'{s.minutes:.1f}'])} |")
    return "\n".join(lines) + "\n"


def write_presets(results: Results, path: Path = PRESETS) -> None:
    """Write what the presets reached beside their settings."""
    presets = json.loads(path.read_text())
    for name, task in TASKS.items():
        runs = results.tasks.get(name, {}).get("preset", {})
        if runs and task.env in presets:
            s = summarise(runs)
            presets[task.env]["reached"] = {
                "return": round(s.mean, 1),
                "low": round(s.low, 1),
                "high": round(s.high, 1),
                "seeds": s.seeds,
                "total_timesteps": task.total_timesteps,
            }
    path.write_text(json.dumps(presets, indent=2) + "\n")


def parse(words: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--only", nargs="+", metavar="TASK", choices=tuple(TASKS), default=list(TASKS), help="these alone"
    )
    parser.add_argument("--sides", nargs="+", choices=tuple(SIDES), default=list(SIDES), help="these alone")
    parser.add_argument("--again", action="store_true", help="repeat what was measured already")
    parser.add_argument(
        "--jobs", type=int, default=count_processors(), help="trainings at a time (default: processors)"
    )
    parser.add_argument("--out", type=Path, default=RESULTS, help="where to write (default: results)")
    parser.add_argument("--presets", action="store_true", help="write what the presets reached into the library's data")
    arguments = parser.parse_args(words)
    if arguments.jobs < 1:
        parser.error(f"--jobs {arguments.jobs}: it must be at least 1")
    return arguments


def main(words: list[str] | None = None) -> int:
    """Train what is missing; return 1 if anything failed, 130 or 143 if it was stopped."""
    arguments = parse(words)
    signal.signal(signal.SIGTERM, terminate)
    results = Results(arguments.out)
    peers, jobs, failures = Peers(say), [], []
    for name in arguments.only:
        for side in TASKS[name].sides:
            if side not in arguments.sides:
                continue
            have = results.runs(name, side)
            if arguments.again:
                have.clear()
            try:
                missing = [seed for seed in range(TASKS[name].seeds) if seed not in have]
                jobs += [(name, job_of(TASKS[name], side, seed, peers)) for seed in missing]
            except Failed as failure:
                failures.append(str(failure))
                say(f"{name}, {SIDES[side]}: failed: {failure}")
    say(f"{len(jobs)} trainings, {arguments.jobs} at a time")
    names = {job: name for name, job in jobs}
    about = {
        "date": _today(),
        "machine": f"{machine()['processor']}, {machine()['cores']} cores",
        "versions": versions(),
    }

    def done(job: Job, outcome: Run | Failed) -> None:
        label = f"{names[job]}, {SIDES[job.name]}, seed {job.seed}"
        if isinstance(outcome, Failed):
            failures.append(f"{label}: {outcome}")
            say(f"{label}: failed: {outcome}")
            return
        results.runs(names[job], job.name)[job.seed] = outcome
        results.about = about
        results.write()
        say(f"{label}: {outcome.score:,.1f} (last {outcome.evaluations[-1]:,.1f}), {outcome.wall_time_s / 60:.1f} min")

    try:
        in_parallel([job for _, job in jobs], arguments.jobs, done)
    except (KeyboardInterrupt, SystemExit) as stop:
        return 130 if isinstance(stop, KeyboardInterrupt) else 143
    results.write()
    if arguments.presets:
        write_presets(results)
    say(f"written: {arguments.out / 'returns.json'} and returns.md")
    return 1 if failures else 0


def _today() -> str:
    from datetime import UTC, datetime

    return datetime.now(UTC).strftime("%Y-%m-%d")


if __name__ == "__main__":
    sys.exit(main())
