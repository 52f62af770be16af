"""The returns of the whole family: every algorithm that Jumar has, on two small tasks, over seeds.

    .venv/bin/python benchmarks/family.py     # all of it; what is in results/family.json already is not repeated
    .venv/bin/python benchmarks/family.py --only cartpole --algorithms trpo npg

``family.json`` has the tasks, and the settings that an algorithm is given there; one that it does not name is trained
with its defaults. Every training is a process on one processor of its own, and is kept as soon as it ends.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import HERE, say
from speed import terminate
from tables import PROTOCOL, Results, circumstances, fill, summarise
from trainings import Job, jumar_command

from jumar.algorithms.registry import ALGORITHMS
from jumar.errors import UsageError
from jumar.training.assembly import assemble
from jumar.training.compiler import count_processors
from jumar.training.planning import make_plan
from jumar.training.progress import Silent
from jumar.training.request import TrainRequest
from jumar.training.sources import FromId

RESULTS = HERE / "results"
SETTINGS = HERE / "family.json"


@dataclass(frozen=True)
class Task:
    """A compiled environment, how long to train, over how many seeds, and what each algorithm is told there."""

    env: str
    total_timesteps: int
    seeds: int
    settings: dict[str, dict[str, Any]]

    def settings_of(self, algorithm: str) -> dict[str, Any]:
        """Return an algorithm's settings; empty where it has its defaults."""
        return self.settings.get(algorithm, {})

    def job(self, algorithm: str, seed: int) -> Job:
        """Return one training."""
        command = jumar_command(algorithm, self.env, "none", self.settings_of(algorithm))
        return Job(algorithm, self.env, self.total_timesteps, seed, command)


def read_tasks(path: Path = SETTINGS) -> dict[str, Task]:
    """Read the tasks by name."""
    return {name: Task(**task) for name, task in json.loads(path.read_text()).items()}


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


def page(results: Results, tasks: dict[str, Task]) -> str:
    """Return the table."""
    about = results.about
    lines = [
        "# Returns of the whole family",
        "",
        f"{about.get('date', '')}. {about.get('machine', '')}. `{about.get('command', '')}`",
        "",
        f"{PROTOCOL} Settings that are not named are the algorithm's defaults.",
        "",
        "| task | steps | algorithm | seeds | IQM | 95 % interval | worst seed | minutes a run | settings |",
        "| --- | ---: | --- | ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    for name, task in tasks.items():
        for algorithm in sorted(results.tasks.get(name, {})):
            runs = results.runs(name, algorithm)
            if not runs:
                continue
            s = summarise(runs)
            cells = [task.env, f"{task.total_timesteps:,}", algorithm, str(s.seeds), f"{s.mean:,.1f}"]
            cells += [f"{s.low:,.1f} to {s.high:,.1f}", f"{s.lowest:,.1f}", f"{s.minutes:.1f}"]
            cells.append(words_of(results.settings.get(name, {}).get(algorithm, {})))
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def words_of(settings: dict[str, Any]) -> str:
    """Return settings as they stand in the table."""
    return ", ".join(f"`{name}` {json.dumps(value).strip(chr(34))}" for name, value in settings.items()) or "defaults"


def parse(tasks: dict[str, Task], words: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="TASK", choices=tuple(tasks), default=list(tasks), help="these")
    parser.add_argument(
        "--algorithms", nargs="+", metavar="NAME", choices=tuple(ALGORITHMS), default=list(ALGORITHMS), help="these"
    )
    parser.add_argument("--again", action="store_true", help="repeat what was measured already")
    parser.add_argument(
        "--jobs", type=int, default=count_processors(), help="trainings at a time (default: processors)"
    )
    parser.add_argument("--out", type=Path, default=RESULTS, help="where to write (default: results)")
    arguments = parser.parse_args(words)
    if arguments.jobs < 1:
        parser.error(f"--jobs {arguments.jobs}: it must be at least 1")
    return arguments


def missing(results: Results, tasks: dict[str, Task], arguments: argparse.Namespace) -> list[tuple[str, Job]]:
    """Return the trainings that are not in the results with the settings of today, seed by seed."""
    jobs = []
    for name in arguments.only:
        task = tasks[name]
        for algorithm in sorted(arguments.algorithms):
            why = refusal(algorithm, task.env)
            if why is not None:
                say(f"{name}, {algorithm}: left out: {why}")
                continue
            have = results.runs_with(task.settings_of(algorithm), name, algorithm)
            if arguments.again:
                have.clear()
            jobs += [(name, task.job(algorithm, seed)) for seed in range(task.seeds) if seed not in have]
    return jobs


def main(words: list[str] | None = None) -> int:
    """Train what is missing; return 1 if anything failed, 130 or 143 if it was stopped."""
    tasks = read_tasks()
    arguments = parse(tasks, words)
    signal.signal(signal.SIGTERM, terminate)
    results = Results(arguments.out / "family.json", tuple(tasks))
    given = sys.argv[1:] if words is None else words
    about = {**circumstances(), "command": " ".join((".venv/bin/python benchmarks/family.py", *given))}
    try:
        failures = fill(
            results, missing(results, tasks, arguments), arguments.jobs, about, lambda results: page(results, tasks)
        )
    except (KeyboardInterrupt, SystemExit) as stop:
        return 130 if isinstance(stop, KeyboardInterrupt) else 143
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
