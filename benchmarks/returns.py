"""The returns that PPO reaches, over seeds, beside the returns aimed at and beside Stable-Baselines3's.

    .venv/bin/python benchmarks/returns.py            # all tasks; what is in results/returns.json already is not repeated
    .venv/bin/python benchmarks/returns.py --only pendulum hopper --sides preset

Every training is a process on one processor of its own; ``--jobs`` run at a time. Each is kept as soon as it ends, so that
a stopped command goes on where it was. ``--presets`` writes what the presets reached into the library's data.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

from harness import HERE, PEERS, Failed, Peers, say
from speed import terminate
from tables import PROTOCOL, Results, circumstances, fill, summarise
from trainings import Job, jumar_command

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
        command = jumar_command("ppo", task.env, "none" if none else None, DEFAULTS if none else {})
    return Job(side, task.env, task.total_timesteps, seed, command)


def results_in(folder: Path) -> Results:
    """Return what a folder has of the table."""
    return Results(folder / "returns.json", tuple(TASKS))


def page(results: Results) -> str:
    """Return the table."""
    lines = [
        "# Returns",
        "",
        f"{results.about.get('date', '')}. {results.about.get('machine', '')}.",
        "",
        PROTOCOL,
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
    results = results_in(arguments.out)
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
    try:
        failures += fill(results, jobs, arguments.jobs, circumstances(), page)
    except (KeyboardInterrupt, SystemExit) as stop:
        return 130 if isinstance(stop, KeyboardInterrupt) else 143
    if arguments.presets:
        write_presets(results)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
