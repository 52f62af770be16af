"""Tables of returns: what was measured, by task and side, the files that it is kept in, and the numbers of a row."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from harness import HERE, Failed, say
from speed import machine, versions
from trainings import EPISODES, Job, Run, in_parallel, train

from jumar.presets import Reached
from jumar.report.statistics import bootstrap_interval, interquartile_mean
from jumar.runs.files import write_atomically
from jumar.studies.compare_request import COUNTED

PRESETS = HERE.parent / "src" / "jumar" / "presets"
PROTOCOL = (
    f"Score of a run: mean of its last {COUNTED} evaluations, {EPISODES} deterministic episodes each with raw rewards, "
    "taken every 20,000 steps (every 2 % of shorter runs). IQM over seeds, with a 95 % bootstrap interval, which a single seed "
    "has not."
)


class Results:
    """What has been measured: runs by task and side, in one file that is the old or the new one, never half."""

    def __init__(self, path: Path, tasks: Sequence[str]) -> None:
        """Read the file, if it is there; ``tasks`` are kept, in this order."""
        self.path, self._order = path, tuple(tasks)
        self.tasks: dict[str, dict[str, dict[int, Run]]] = {}
        self.settings: dict[str, dict[str, dict[str, Any]]] = {}
        """What the runs were told beside the protocol, where the table says so."""
        self.about: dict[str, Any] = {}
        if path.exists():
            data = json.loads(path.read_text())
            self.about, self.settings = data["about"], data.get("settings", {})
            for task, sides in data["tasks"].items():
                self.tasks[task] = {side: {row["seed"]: Run(**row) for row in rows} for side, rows in sides.items()}

    def runs(self, task: str, side: str) -> dict[int, Run]:
        """Return the runs of one side in a task, by seed."""
        return self.tasks.setdefault(task, {}).setdefault(side, {})

    def runs_with(self, settings: dict[str, Any], task: str, side: str) -> dict[int, Run]:
        """Return the runs of one side in a task with these settings; those with others are forgotten."""
        known = self.settings.setdefault(task, {})
        if known.get(side) != settings:
            self.runs(task, side).clear()
            known[side] = settings
        return self.runs(task, side)

    def to_json(self) -> str:
        """Return everything as JSON, tasks and seeds in order."""
        measured = {
            name: {side: runs for side, runs in self.tasks[name].items() if runs}
            for name in self._order
            if any(self.tasks.get(name, {}).values())
        }
        tasks = {
            name: {side: [asdict(runs[seed]) for seed in sorted(runs)] for side, runs in sides.items()}
            for name, sides in measured.items()
        }
        told = {
            name: {side: self.settings[name][side] for side in sides}
            for name, sides in measured.items()
            if name in self.settings
        }
        data = {"about": self.about, **({"settings": told} if told else {}), "tasks": tasks}
        return lists_in_lines(json.dumps(data, indent=1)) + "\n"

    def write(self, page: str) -> None:
        """Write the file, and the page beside it."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        for path, text in ((self.path, self.to_json()), (self.path.with_suffix(".md"), page)):
            write_atomically(path, text.encode())


def lists_in_lines(text: str) -> str:
    """Return indented JSON with every list of plain values in one line."""
    return re.sub(r"\[\n([^\[\]{}]*)\]", lambda found: f"[{' '.join(found[1].split())}]", text)


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


def circumstances() -> dict[str, Any]:
    """Describe when and on what something is measured."""
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "machine": f"{machine()['processor']}, {machine()['cores']} cores",
        "versions": versions(),
    }


def fill(
    results: Results,
    jobs: Sequence[tuple[str, Job]],
    processes: int,
    about: dict[str, Any],
    page: Callable[[Results], str],
) -> list[str]:
    """Train all jobs, each with the name of its task, and write the files after each; return a line for each failure."""
    say(f"{len(jobs)} trainings, {processes} at a time")
    tasks, failures = {job: task for task, job in jobs}, []

    def done(job: Job, outcome: Run | Failed) -> None:
        label = f"{tasks[job]}, {job.name}, seed {job.seed}"
        if isinstance(outcome, Failed):
            failures.append(f"{label}: {outcome}")
            say(f"{label}: failed: {outcome}")
            return
        results.runs(tasks[job], job.name)[job.seed] = outcome
        results.about = about
        results.write(page(results))
        say(f"{label}: {outcome.score:,.1f} (last {outcome.evaluations[-1]:,.1f}), {outcome.wall_time_s / 60:.1f} min")

    in_parallel([job for _, job in jobs], processes, train, done)
    results.write(page(results))
    say(f"written: {results.path} and {results.path.with_suffix('.md').name}")
    return failures


def write_reached(folder: Path, algorithm: str, found: Mapping[str, tuple[Mapping[str, Any], Reached]]) -> None:
    """Write what an algorithm's presets reached beside their settings, for those that still have the settings of the runs.

    Args:
        folder: where the presets are.
        algorithm: whose they are.
        found: by environment the settings of the runs, and what they reached.
    """
    path = folder / f"{algorithm}.json"
    if not path.is_file():
        return
    known = json.loads(path.read_text())
    for env, (settings, reached) in found.items():
        if env in known and known[env]["settings"] == settings:
            known[env]["reached"] = reached.to_json()
    write_atomically(path, (json.dumps(known, indent=2) + "\n").encode())
