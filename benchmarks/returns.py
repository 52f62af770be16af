"""The returns that every algorithm reaches, over seeds, beside those aimed at and beside Stable-Baselines3's.

    .venv/bin/python benchmarks/returns.py            # all tasks; what is in results/returns.json already is not repeated
    .venv/bin/python benchmarks/returns.py --only pendulum hopper --sides trpo npg

Every algorithm has its preset, or its defaults where it has none. Every training is a process on one processor of its
own; ``--jobs`` run at a time. Each is kept as soon as it ends, so that a stopped command goes on where it was; runs with
other settings than today's are repeated. ``--presets`` writes what the presets reached into the library's data.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness import HERE, PEERS, Failed, Peers, say
from speed import terminate
from tables import PRESETS, PROTOCOL, Results, Summary, circumstances, fill, summarise, write_reached
from trainings import EPISODES, Job, jumar_command

from jumar.algorithms.registry import ALGORITHMS
from jumar.console.reporter import Silent
from jumar.envs.sources import FromId
from jumar.errors import UsageError
from jumar.presets import Reached, presets
from jumar.training.assembly import assemble
from jumar.training.request import TrainRequest
from jumar.training.resolve import make_plan
from jumar.xla.compiler import count_processors

RESULTS = HERE / "results"
DEFAULTS = {"n_envs": 8, "n_steps": 256}
"""Stable-Baselines3's defaults, spread over eight environments: rollouts of 2,048 steps, as with one."""


@dataclass(frozen=True)
class Variant:
    """A side that is no algorithm with its preset."""

    title: str
    algorithm: str
    settings: Mapping[str, Any]
    """By the names that are Jumar's and Stable-Baselines3's."""
    peer: bool = False
    """Whether Stable-Baselines3 trains it."""


CHEETAH = {"net_arch": [256, 256], "learning_starts": 10_000}
"""What off-policy methods are told in HalfCheetah, beside their defaults."""
MEMORYLESS = {"n_envs": 16, "n_steps": 64, "batch_size": 256, "learning_rate": 1e-3}
"""The preset of MemoryChain without its recurrent core."""
VARIANTS = {
    "defaults": Variant("ppo, no preset", "ppo", DEFAULTS),
    "sb3": Variant("Stable-Baselines3's PPO", "ppo", DEFAULTS, peer=True),
    "sac-plain": Variant("sac, no preset", "sac", CHEETAH),
    "sb3-sac": Variant("Stable-Baselines3's SAC", "sac", CHEETAH, peer=True),
    "td3-plain": Variant("td3, no preset", "td3", {**CHEETAH, "action_noise": "normal:0.1"}),
    "sb3-td3": Variant("Stable-Baselines3's TD3", "td3", {**CHEETAH, "action_noise": "normal:0.1"}, peer=True),
    "crossq": Variant(
        "sac with CrossQ's settings",
        "sac",
        {**CHEETAH, "critic_batch_norm": True, "target_network": False, "policy_delay": 3, "learning_rate": 1e-3},
    ),
    "sac-her": Variant(
        "sac in hindsight",
        "sac",
        {
            "goal_selection_strategy": "future",
            "gamma": 0.95,
            "learning_rate": 1e-3,
            "learning_starts": 1_000,
            "net_arch": [64, 64],
            "normalize_observations": True,
        },
    ),
    "droq": Variant(
        "sac with DroQ's settings, 4 updates a step",
        "sac",
        {**CHEETAH, "critic_dropout": 0.01, "critic_layer_norm": True, "gradient_steps": 4},
    ),
    "memoryless": Variant("ppo without a memory", "ppo", MEMORYLESS),
}
SIDES = (*ALGORITHMS, *VARIANTS)


@dataclass(frozen=True)
class Task:
    """An environment, how long to train, over how many seeds, and the returns that are aimed at."""

    env: str
    total_timesteps: int
    seeds: int
    aims: Mapping[str, float] = field(default_factory=dict)
    """By algorithm."""
    everyone: bool = False
    """Whether every algorithm is trained that learns from rollouts, with its defaults where it has no preset."""
    only: tuple[str, ...] = ()
    """The algorithms and variants that are trained, whether they have presets or not; none: see ``everyone``."""
    with_defaults: bool = False
    """Whether to train with Stable-Baselines3's defaults too, in both libraries."""
    options: tuple[str, ...] = ()
    """Of ``jumar train``, beside the settings."""
    evaluations: int | None = None
    """How many evaluations a run has, where that is not the protocol's: of episodes that take long, fewer."""
    episodes: int = EPISODES
    """Of an evaluation: where returns are a matter of luck, more."""

    @property
    def name(self) -> str:
        """The environment's bare id, which is the preset's name."""
        return self.env.rpartition("/")[2]

    @property
    def sides(self) -> list[str]:
        """The names of the sides that this task has."""
        if self.only:
            return list(self.only)
        rollouts = [name for name in ALGORITHMS if not remembers_steps(name)]
        with_preset = [name for name in rollouts if self.name in presets(name) and not limits_costs(name)]
        algorithms = rollouts if self.everyone else with_preset
        return [*algorithms, *(("defaults", "sb3") if self.with_defaults else ())]

    def settings_of(self, side: str) -> dict[str, Any]:
        """Return what a side is told; an algorithm's preset, empty where it has its defaults."""
        if side in VARIANTS:
            return dict(VARIANTS[side].settings)
        preset = presets(side).get(self.name)
        return dict(preset.settings) if preset else {}


TASKS = {
    "cartpole": Task("jax/CartPole-v1", 100_000, 10, {"ppo": 475, "reinforce": 450, "a2c": 475}, everyone=True),
    "pendulum": Task("jax/Pendulum-v1", 200_000, 5, {"ppo": -200}, everyone=True),
    "pendulum-20k": Task(
        "jax/Pendulum-v1", 20_000, 5, {"ddpg": -180, "td3": -180, "sac": -180}, only=("ddpg", "td3", "sac")
    ),
    "cartpole-critics": Task("jax/CartPole-v1", 100_000, 5, {"sac": 475, "sql": 450}, only=("sac", "sql")),
    "pendulum-50k": Task("jax/Pendulum-v1", 50_000, 5, {"sql": -250, "dpg": -250}, only=("sql", "dpg")),
    "halfcheetah-100k": Task(
        "gymnasium/HalfCheetah-v5", 100_000, 3, only=("sac-plain", "sb3-sac", "td3-plain", "sb3-td3")
    ),
    "halfcheetah-50k": Task("gymnasium/HalfCheetah-v5", 50_000, 2, only=("sac-plain", "crossq", "droq")),
    "fetchreach": Task("envpool/FetchReach-v4", 10_000, 5, only=("sac-her",)),
    "acrobot": Task("jax/Acrobot-v1", 200_000, 5, {"ppo": -90}, everyone=True),
    "mountaincar": Task("jax/MountainCar-v0", 200_000, 5, everyone=True),
    "mountaincar-continuous": Task("jax/MountainCarContinuous-v0", 200_000, 5, {"ppo": 88}, everyone=True),
    "mountaincar-continuous-50k": Task("jax/MountainCarContinuous-v0", 50_000, 5, {"sac": 90}, only=("sac",)),
    "halfcheetah": Task(
        "HalfCheetah-v5",
        1_000_000,
        5,
        {"ppo": 5_000, "trpo": 3_500, "npg": 3_400, "acktr": 1_800},
        with_defaults=True,
    ),
    "hopper": Task(
        "Hopper-v5", 1_000_000, 5, {"ppo": 2_400, "trpo": 2_800, "npg": 1_900, "acktr": 2_400}, with_defaults=True
    ),
    "walker2d": Task("Walker2d-v5", 1_000_000, 5, {"ppo": 3_400, "trpo": 3_500, "npg": 2_500}, with_defaults=True),
    "swimmer": Task("Swimmer-v5", 1_000_000, 5, {"ppo": 200, "trpo": 300}),
    "ant": Task("Ant-v5", 1_000_000, 5, {"ppo": 1_500, "trpo": 2_500, "npg": 2_300}),
    "doublependulum": Task("InvertedDoublePendulum-v5", 1_000_000, 5, {"ppo": 8_500}),
    "lunarlander": Task("envpool/LunarLander-v3", 1_000_000, 5, {"ppo": 200}, only=("ppo",)),
    "lunarlander-continuous": Task("envpool/LunarLanderContinuous-v3", 1_000_000, 5, {"ppo": 200}, only=("ppo",)),
    "lunarlander-continuous-200k": Task("envpool/LunarLanderContinuous-v3", 200_000, 5, {"sac": 200}, only=("sac",)),
    "bipedalwalker": Task("envpool/BipedalWalker-v3", 2_000_000, 5, {"ppo": 250}, only=("ppo",)),
    "bipedalwalker-300k": Task("envpool/BipedalWalker-v3", 300_000, 5, {"sac": 250}, only=("sac",)),
    "frozenlake": Task("envpool/FrozenLake-v1", 100_000, 5, {"ppo": 0.7}, only=("ppo",), episodes=100),
    "frozenlake-25k": Task("envpool/FrozenLake-v1", 25_000, 5, {"sac": 0.7}, only=("sac",), episodes=100),
    "taxi": Task("envpool/Taxi-v3", 250_000, 5, {"ppo": 8}, only=("ppo",), episodes=50),
    "taxi-40k": Task("envpool/Taxi-v3", 40_000, 5, {"sql": 8}, only=("sql",), episodes=50),
    "minigrid-empty": Task("envpool/MiniGrid-Empty-8x8-v0", 50_000, 5, {"ppo": 0.9}, only=("ppo",)),
    "minigrid-doorkey": Task("envpool/MiniGrid-DoorKey-5x5-v0", 100_000, 5, {"ppo": 0.9}, only=("ppo",)),
    **{
        f"{game.lower()}-minatar{suffix}": Task(f"gymnax/{game}-MinAtar", total, 5, only=(side,))
        for game in ("Breakout", "Asterix", "Freeway", "SpaceInvaders")
        for suffix, total, side in (("", 1_000_000, "ppo"), ("-100k", 100_000, "sac"))
    },
    "memory": Task("gymnax/MemoryChain-bsuite", 50_000, 5, {"ppo": 1}, only=("ppo", "memoryless"), episodes=100),
    "pong": Task("envpool/Pong-v5", 2_000_000, 1, only=("ppo",), options=("--atari",), evaluations=50),
    "breakout": Task("envpool/Breakout-v5", 2_000_000, 1, only=("ppo",), options=("--atari",), evaluations=50),
    "go1": Task("envpool/Go1JoystickFlatTerrain-v1", 20_000_000, 1, only=("ppo",), evaluations=50),
}


def remembers_steps(algorithm: str) -> bool:
    """Return whether an algorithm learns from a replay buffer of steps: an update for each is too slow for long tasks."""
    return "learning_starts" in ALGORITHMS[algorithm].setting_names


def limits_costs(algorithm: str) -> bool:
    """Return whether an algorithm is for environments with costs, which no task has."""
    return "cost_limit" in ALGORITHMS[algorithm].setting_names


def job_of(task: Task, side: str, seed: int, peers: Peers) -> Job:
    """Return the training of one side in a task.

    Raises:
        Failed: the peer could not be installed.
    """
    if side not in VARIANTS:
        command = jumar_command(side, task.env, None, {}, task.options)
    elif (variant := VARIANTS[side]).peer:
        command = (str(peers.interpreter("sb3")), str(PEERS / "sb3_returns.py"), "--algorithm", variant.algorithm)
        command += ("--env", task.name, "--settings", json.dumps(variant.settings))
    else:
        command = jumar_command(variant.algorithm, task.env, "none", variant.settings, task.options)
    return Job(side, task.env, task.total_timesteps, seed, command, task.evaluations, task.episodes)


def refusal(algorithm: str, env: str) -> str | None:
    """Return why an algorithm cannot be trained in an environment whatever its settings; ``None`` where it can."""
    reporter = Silent(sys.stderr)
    try:
        plan = make_plan(TrainRequest(algorithm=algorithm, env=env, total_timesteps=1, preset="none"), reporter)
        assert plan.environment is not None
        assemble(plan, FromId(plan.environment), reporter.warn)
    except UsageError as error:
        return str(error)
    return None


def results_in(folder: Path) -> Results:
    """Return what a folder has of the table."""
    return Results(folder / "returns.json", tuple(TASKS))


def page(results: Results) -> str:
    """Return the tables."""
    summaries = {
        (name, side): summarise(runs)
        for name, task in TASKS.items()
        for side in task.sides
        if (runs := results.tasks.get(name, {}).get(side))
    }
    lines = [
        "# Returns",
        "",
        f"{results.about.get('date', '')}. {results.about.get('machine', '')}. `.venv/bin/python benchmarks/returns.py`",
        "",
        PROTOCOL,
        "",
        *overview(summaries),
        "",
        "| task | steps | algorithm | seeds | IQM | 95 % interval | worst seed | worst last evaluation | aim | minutes a run |",
        "| --- | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for (name, side), s in summaries.items():
        task = TASKS[name]
        aim = f"{task.aims[side]:,.0f}" if side in task.aims else ""
        title = VARIANTS[side].title if side in VARIANTS else side
        cells = [task.name, f"{task.total_timesteps:,}", title, str(s.seeds), f"{s.mean:,.1f}"]
        cells += [
            f"{s.low:,.1f} to {s.high:,.1f}" if s.seeds > 1 else "",
            f"{s.lowest:,.1f}",
            f"{s.lowest_last:,.1f}",
            aim,
        ]
        lines.append(f"| {' | '.join([*cells, f'{s.minutes:.1f}'])} |")
    return "\n".join(lines) + "\n"


def overview(summaries: Mapping[tuple[str, str], Summary]) -> list[str]:
    """Return the table of algorithms against the tasks that everyone is trained on."""
    names = [name for name, task in TASKS.items() if task.everyone and any(name == at for at, _ in summaries)]
    lines = [
        f"| algorithm | {' | '.join(f'{TASKS[name].name}, {TASKS[name].total_timesteps:,} steps' for name in names)} |",
        f"| --- | {' | '.join('---:' for _ in names)} |",
    ]
    for side in ALGORITHMS:
        cells = [summaries.get((name, side)) for name in names]
        if any(cells):
            shown = (f"{s.mean:,.0f} [{s.low:,.0f}, {s.high:,.0f}]" if s else "" for s in cells)
            lines.append(f"| {side} | {' | '.join(shown)} |")
    return lines if names else []


def write_presets(results: Results, folder: Path = PRESETS) -> None:
    """Write what the presets reached beside their settings, for runs that had the settings of today."""
    for algorithm in ALGORITHMS:
        found = {}
        for name, task in TASKS.items():
            if runs := results.tasks.get(name, {}).get(algorithm):
                s = summarise(runs)
                mean, low, high = (round(x, 1) for x in (s.mean, s.low, s.high))
                reached = Reached(mean, low, high, seeds=s.seeds, total_timesteps=task.total_timesteps)
                found[task.name] = results.settings.get(name, {}).get(algorithm, {}), reached
        write_reached(folder, algorithm, found)


def parse(words: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--only", nargs="+", metavar="TASK", choices=tuple(TASKS), default=list(TASKS), help="these alone"
    )
    parser.add_argument(
        "--sides",
        nargs="+",
        metavar="SIDE",
        choices=SIDES,
        default=list(SIDES),
        help="these alone: algorithms, or variants: " + ", ".join(VARIANTS),
    )
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


def missing(results: Results, arguments: argparse.Namespace, peers: Peers) -> tuple[list[tuple[str, Job]], list[str]]:
    """Return the trainings that are not in the results with the settings of today, and a line for each that cannot be."""
    jobs, failures = [], []
    for name in arguments.only:
        task = TASKS[name]
        for side in task.sides:
            if side not in arguments.sides:
                continue
            why = refusal(side, task.env) if task.everyone else None
            if why is not None:
                say(f"{name}, {side}: left out: {why}")
                continue
            have = results.runs_with(task.settings_of(side), name, side)
            if arguments.again:
                have.clear()
            try:
                jobs += [(name, job_of(task, side, seed, peers)) for seed in range(task.seeds) if seed not in have]
            except Failed as failure:
                failures.append(str(failure))
                say(f"{name}, {VARIANTS[side].title}: failed: {failure}")
    return jobs, failures


def main(words: list[str] | None = None) -> int:
    """Train what is missing; return 1 if anything failed, 130 or 143 if it was stopped."""
    arguments = parse(words)
    signal.signal(signal.SIGTERM, terminate)
    results = results_in(arguments.out)
    jobs, failures = missing(results, arguments, Peers(say))
    try:
        failures += fill(results, jobs, arguments.jobs, circumstances(), page)
    except (KeyboardInterrupt, SystemExit) as stop:
        return 130 if isinstance(stop, KeyboardInterrupt) else 143
    if arguments.presets:
        write_presets(results)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
