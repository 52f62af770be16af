"""Run directories as runs to compare."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from jumar.errors import DamagedFile, JumarError, UsageError
from jumar.fields import reading, record, several, text
from jumar.report.comparison import DIAGNOSTICS, ENDED, ENDED_COST, STEPS, Run
from jumar.runs import logs
from jumar.runs.ended import ended_by
from jumar.runs.files import read_json
from jumar.runs.run_directory import CONFIG, RunDirectory
from jumar.studies.cells import (
    RUNS,
    Cell,
    beside_defaults,
    folder_of,
    is_finished,
    protocol_of,
    task_of,
    told,
    trained_steps,
)
from jumar.text import typed
from jumar.training.events import RULES
from jumar.training.plan import Plan

RECORDED = (STEPS, "time/elapsed", ENDED, ENDED_COST, *DIAGNOSTICS)
STATE = "comparison.json"
STATE_KIND = "comparison"


def read_run(directory: RunDirectory, method: str, plan: Plan, seed: int, ended: int | None = None) -> Run:
    """Return a finished run; one that was never evaluated, or whose evaluations are damaged or end early, has failed.

    Args:
        directory: where it is.
        method: what it is an example of.
        plan: its plan.
        seed: its seed.
        ended: the step at which a rule ended it, if one did.
    """
    try:
        steps, returns = _evaluations(directory)
        metrics = logs.read(directory.metrics)
        record = {
            name: _column(metrics, name, directory.metrics)
            for name in RECORDED
            if any(row.get(name) is not None for row in metrics)
        }
    except DamagedFile as error:
        return failed(method, plan, seed, str(error), directory.path)
    if not returns.size:
        return failed(method, plan, seed, "it was never evaluated.", directory.path)
    total = plan.total_timesteps if ended is None else ended
    if steps[-1] < total - plan.eval_every:
        why = f"{directory.evaluations} is damaged: it ends at step {steps[-1]:,.0f} of {total:,}."
        return failed(method, plan, seed, why, directory.path)
    return replace(_bare(method, plan, seed, directory.path), steps=steps, returns=returns, record=record, ended=ended)


def _column(rows: Sequence[Mapping[str, Any]], name: str, path: Path) -> np.ndarray:
    """Return the numbers of one name, NaN where there is none.

    Raises:
        DamagedFile: one is something else than a number.
    """
    found = [(row.get(name), logs.finite(row.get(name))) for row in rows]
    if any(number is None and value is not None for value, number in found):
        raise DamagedFile(f"{path} is damaged.")
    return np.array([np.nan if number is None else number for _, number in found], np.float64)


def _evaluations(directory: RunDirectory) -> tuple[np.ndarray, np.ndarray]:
    """Return steps and mean return of a run's evaluations.

    Raises:
        DamagedFile: one of them is cut, or has no number.
    """
    rows = logs.read_whole(directory.evaluations)
    for name in ("step", "mean_return"):
        for value in (row.get(name) for row in rows):
            if logs.finite(value) is None:
                words = f"a {name.replace('_', ' ')} is {value!r:.40}"
                raise DamagedFile(f"{directory.evaluations} is damaged: {words}.")
    steps, returns = np.array([(row["step"], row["mean_return"]) for row in rows], np.float64).reshape(-1, 2).T
    return steps, returns


def failed(method: str, plan: Plan, seed: int, why: str, path: Path) -> Run:
    """Return a run that does not count."""
    return replace(_bare(method, plan, seed, path), failure=why)


def waiting(method: str, plan: Plan, seed: int, path: Path) -> Run:
    """Return a run that is not trained yet."""
    return replace(_bare(method, plan, seed, path), waiting=True)


def _bare(method: str, plan: Plan, seed: int, path: Path) -> Run:
    nothing, told = np.zeros(0), beside_defaults(plan)
    return Run(method, task_of(plan), seed, nothing, nothing, path=str(path), told=told, protocol=protocol_of(plan))


@dataclass(frozen=True)
class Earlier:
    """A run directory that was found, and what its plan says."""

    directory: RunDirectory
    plan: Plan
    name: str
    """What its comparison called its method, or its algorithm's name."""

    @property
    def task(self) -> str:
        """What its environment is called."""
        return task_of(self.plan)

    def read(self, method: str) -> Run:
        """Read the run; one that is not finished has failed. One that a rule of its own ended is finished."""
        if is_finished(self.directory, self.plan.total_timesteps):
            return read_run(self.directory, method, self.plan, self.plan.seed)
        steps = trained_steps(self.directory)
        if steps and ended_by(self.directory) in RULES and is_finished(self.directory, steps):
            return read_run(self.directory, method, self.plan, self.plan.seed, steps)
        why = f"it stopped after {steps:,} of {self.plan.total_timesteps:,} steps."
        return failed(method, self.plan, self.plan.seed, why, self.directory.path)


def read_earlier(
    places: Sequence[Path], cells: Sequence[Cell] = (), warn: Callable[[str], None] = lambda words: None
) -> list[Run]:
    """Return all runs in some directories: run directories, comparisons, or folders that hold some.

    A method has the name that its comparison gave it, or else its algorithm's. Where runs of one name on one task differ in
    anything that they were told, that follows. Of runs that are told the same, seed included, the first finished one counts.

    Args:
        places: the directories.
        cells: what is compared beside them, which keeps its names, and whose own runs are left out here.
        warn: is told of what cannot be read.

    Raises:
        UsageError: a directory is not there, or holds no run.
    """
    found: list[Earlier] = []
    for place in places:
        here = list(find_runs(place, warn))
        if not here:
            wrong = f"{place} holds no run" if place.exists() else f"there is no directory {place}"
            raise UsageError(f"{wrong}; give run directories, or a folder that holds some.")
        found += here
    own = [cell.folder.resolve() for cell in cells]
    others = [one for one in found if not any(folder in one.directory.path.resolve().parents for folder in own)]
    return _first_of_each(zip(others, _Names(others, cells).of_each(), strict=True), warn)


def _first_of_each(named: Iterable[tuple[Earlier, str]], warn: Callable[[str], None]) -> list[Run]:
    runs: dict[tuple[str, str, int], Run] = {}
    repeated = 0
    for one, name in named:
        run = one.read(name)
        known = runs.setdefault((run.method, run.env, run.seed), run)
        if known is run or known.path == run.path:
            continue
        if known.failure is not None:
            runs[run.method, run.env, run.seed] = run
        elif run.failure is None:
            repeated += 1
    if repeated:
        warn(f"{repeated} of the earlier runs repeat another one, seed and settings, and do not count.")
    return list(runs.values())


def names_of(found: Sequence[Earlier]) -> list[str]:
    """Return what the method of each run is called: its algorithm, with what tells it apart from others of that name."""
    return _Names(found, ()).of_each()


def find_runs(place: Path, warn: Callable[[str], None]) -> Iterator[Earlier]:
    """Yield the runs at and below a place, in the order of their paths; ``warn`` is told of what cannot be read."""
    names = _comparison_names(place)
    for folder, below, files in os.walk(place):
        below.sort()
        if STATE in files:
            names |= _comparison_names(Path(folder))
        if CONFIG not in files:
            continue
        directory = RunDirectory(Path(folder))
        try:
            plan = Plan.from_json(RunDirectory.open(folder).read_config(), directory.config)
        except JumarError as error:
            warn(f"{directory} is left out: {error}")
            continue
        if plan.n_seeds is None:
            below.clear()
            yield Earlier(directory, plan, _name_in(names, Path(folder)) or plan.algorithm)


def _comparison_names(place: Path) -> dict[Path, str]:
    """Return the names of the methods of a comparison, by the folders that they have in it."""
    try:
        return {place / RUNS / folder_of(name): name for name in read_methods_of(place)}
    except DamagedFile:
        return {}


def read_methods_of(out: Path) -> list[str]:
    """Return what the methods of a comparison are called. Raises ``DamagedFile``."""
    with reading(out / STATE):
        return _READ_STATE(read_json(out / STATE, STATE_KIND))["methods"]


_READ_STATE = record(methods=several(text()))


def _name_in(names: Mapping[Path, str], folder: Path) -> str | None:
    return next((names[parent] for parent in (folder, *folder.parents) if parent in names), None)


@dataclass
class _Names:
    """Names that tell apart what was told different things."""

    found: Sequence[Earlier]
    cells: Sequence[Cell]
    _variants: dict[tuple[str, str], list[dict[str, Any]]] = field(default_factory=dict)

    def of_each(self) -> list[str]:
        """Return the name of each run's method."""
        for cell in self.cells:
            self._known(cell.method.name, cell.task).append(told(cell.plan))
        for one in self.found:
            known = self._known(one.name, one.task)
            if told(one.plan) not in known:
                known.append(told(one.plan))
        return [self._name(one) for one in self.found]

    def _known(self, name: str, task: str) -> list[dict[str, Any]]:
        return self._variants.setdefault((name, task), [])

    def _name(self, one: Earlier) -> str:
        mine, variants = told(one.plan), self._known(one.name, one.task)
        if any(
            cell.method.name == one.name and told(cell.plan) == mine and cell.task == one.task for cell in self.cells
        ):
            return one.name
        differing = [key for key, value in mine.items() if any(other.get(key) != value for other in variants)]
        words = ",".join(f"{key}={typed(mine[key])}" for key in differing)
        return one.name + ("," if words and ":" in one.name else ":" if words else "") + words
