"""The training runs of a comparison: where each is kept, which are done, and the commands of those that are missing."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from itertools import combinations, groupby
from pathlib import Path
from typing import Any

from jumar.algorithms.registry import BUILT_IN, algorithm
from jumar.console.reporter import Silent
from jumar.errors import DamagedFile, UsageError
from jumar.report.comparison import STEPS, Protocol
from jumar.runs import logs
from jumar.runs.run_directory import RunDirectory, fit_for_a_name
from jumar.studies.compare_request import CompareRequest
from jumar.studies.making import check_made, encoder_of, making_words, repeated_words
from jumar.studies.methods import Method
from jumar.text import typed
from jumar.training.plan import MOST_SEEDS, Plan
from jumar.training.request import TrainRequest
from jumar.training.resolve import make_plan, typed_code
from jumar.training.restore import read_saved_policy

RUNS = "runs"
LONGEST_NAME = 100


@dataclass(frozen=True)
class Cell:
    """A method in an environment."""

    method: Method
    env: str
    """As typed."""
    plan: Plan
    """That of its first seed."""
    folder: Path
    """Where its runs are."""

    @property
    def task(self) -> str:
        """What the environment is called in the comparison."""
        return task_of(self.plan)

    @property
    def compiled(self) -> bool:
        """Whether several seeds can share a program."""
        assert self.plan.environment is not None
        return self.plan.environment.compiled

    def within(self, out: Path) -> Cell:
        """Return the same with its folder in another one."""
        return replace(self, folder=out / self.folder)

    def runs_of(self, seed: int) -> Iterator[RunDirectory]:
        """Yield the places where a run of a seed may be, and is."""
        places = [self.folder / f"seed_{seed}", *sorted(self.folder.glob(f"seeds_*/seed_{seed}"))]
        return (run for run in map(RunDirectory, places) if run.config.exists())

    def run_of(self, seed: int) -> RunDirectory | None:
        """Return the finished run of a seed, if there is one."""
        return next((run for run in self.runs_of(seed) if is_finished(run, self.plan.total_timesteps)), None)

    def check_runs(self, seeds: Sequence[int]) -> None:
        """Refuse to go on where there are runs that were trained otherwise than is asked for now.

        Raises:
            UsageError: a run differs; the message says in what.
            DamagedFile: a run's configuration was changed.
        """
        for run in (run for seed in seeds for run in self.runs_of(seed)):
            try:
                kept = Plan.from_json(RunDirectory.open(run).read_config(), run.config)
                before, now = ({"env": task_of(plan), **told(plan)} for plan in (kept, self.plan))
            except DamagedFile as error:
                raise DamagedFile(f"{error} Where {run.path} is removed, it is trained again.") from None
            differing = next((name for name in now if before.get(name) != now[name]), None)
            if differing is not None:
                raise UsageError(
                    f"{run} was trained with {differing}={typed(before.get(differing))}, not {typed(now[differing])}; give "
                    "another folder with --out."
                )

    def jobs(self, seeds: Sequence[int]) -> list[Job]:
        """Return the jobs of the seeds that have no finished run: seeds in a row share a program, where that can be."""
        missing = [seed for seed in seeds if self.run_of(seed) is None]
        if not self.compiled:
            return [Job(self, (seed,)) for seed in missing]
        found = []
        for begun in self._begun():
            if set(begun) <= set(missing):
                found.append(Job(self, begun))
                missing = [seed for seed in missing if seed not in begun]
        chunks = groupby(enumerate(missing), lambda pair: pair[1] - pair[0])
        return found + [Job(self, tuple(seed for _, seed in chunk)) for _, chunk in chunks]

    def _begun(self) -> list[tuple[int, ...]]:
        """Return the seeds of programs that have begun, the largest first."""
        begun = [path.name for path in self.folder.glob("seeds_*") if RunDirectory(path).config.exists()]
        ends = [tuple(map(int, found.groups())) for name in begun if (found := SEVERAL.fullmatch(name))]
        several = [(first, last) for first, last in sorted(ends) if first < last < first + MOST_SEEDS]
        return sorted((tuple(range(first, last + 1)) for first, last in several), key=len, reverse=True)


SEVERAL = re.compile(r"seeds_([0-9]{1,10})-([0-9]{1,10})")
"""The name of a program's folder; those of its seeds may not be there yet."""


@dataclass(frozen=True)
class Job:
    """One ``jumar train`` command: a method in an environment, for a seed or for several in one program."""

    cell: Cell
    seeds: tuple[int, ...]

    @property
    def run(self) -> RunDirectory:
        """Where it trains."""
        first, last = self.seeds[0], self.seeds[-1]
        return RunDirectory(self.cell.folder / (f"seed_{first}" if first == last else f"seeds_{first}-{last}"))

    @property
    def words(self) -> str:
        """What it is, for people."""
        seeds = f"seed {self.seeds[0]}" if len(self.seeds) == 1 else f"seeds {self.seeds[0]} to {self.seeds[-1]}"
        return f"{self.cell.method.name} on {self.cell.task}, {seeds}"

    @property
    def run_dirs(self) -> list[RunDirectory]:
        """The run directory of each seed."""
        return [self.run] if len(self.seeds) == 1 else [self.run.seed(seed) for seed in self.seeds]

    @property
    def steps(self) -> int:
        """The environment steps that all seeds together have trained for so far, at most those that they are to."""
        return len(self.seeds) * min(trained_steps(self.run_dirs[0]), self.cell.plan.total_timesteps)

    @property
    def steps_asked(self) -> int:
        """The environment steps that all seeds together are to train for."""
        return len(self.seeds) * self.cell.plan.total_timesteps

    def parts(self) -> list[Job]:
        """Return a job for each seed; none where it has one seed only."""
        return [Job(self.cell, (seed,)) for seed in self.seeds] if len(self.seeds) > 1 else []

    def is_locked(self) -> bool:
        """Whether a process is at work in its run directory."""
        return bool(self.run.locked())

    def command(self, request: CompareRequest) -> list[str]:
        """Return the words after ``jumar``: those that begin the run, or those that go on with it.

        What a killed process left before it had anything to go on from is removed.
        """
        common = ["--quiet", "--json", "--"]
        if self.run.config.exists():
            return ["resume", *repeated_words(self.cell.plan, self.cell.env), *common, str(self.run)]
        if not self.is_locked():
            shutil.rmtree(self.run.path, ignore_errors=True)
        method = self.cell.method
        protocol: dict[str, Any] = {
            "total_timesteps": request.total_timesteps,
            "eval_every": request.steps_between,
            "eval_episodes": request.eval_episodes,
            "seed": self.seeds[0],
            "n_seeds": len(self.seeds) if len(self.seeds) > 1 else None,
            "cost": request.cost,
            "preset": method.preset or request.preset,
            "run_dir": self.run,
            "n_envs": request.n_envs,
        }
        options = {**{name: value for name, value in protocol.items() if value is not None}, **method.settings}
        words = [f"--{name.replace('_', '-')}={typed(value)}" for name, value in options.items()]
        return ["train", *words, *making_words(request, method), *common, method.algorithm, self.cell.env]


def cells_of(request: CompareRequest) -> list[Cell]:
    """Return every method in every environment, after checking that each pair is one that can be asked for.

    Their folders are within the comparison's, and nothing is made.

    Raises:
        UsageError: a setting, an environment or a preset is unknown or out of range, two pairs make one folder, or two methods
            are told the same everywhere.
    """
    folders: dict[Path, Cell] = {}
    cells = []
    for env in request.envs:
        for method in request.methods:
            plan = _plan(request, method, env)
            if method is request.methods[0]:
                check_made(request, plan)
            cell = Cell(method, env, plan, Path(RUNS) / folder_of(method.name) / folder_of(task_of(plan)))
            if (other := folders.setdefault(cell.folder, cell)) is not cell:
                raise UsageError(_same_folder(cell, other))
            cells.append(cell)
    for one, other in combinations(request.methods, 2):
        if [told(cell.plan) for cell in cells if cell.method is one] == [
            told(cell.plan) for cell in cells if cell.method is other
        ]:
            raise UsageError(f"{one.name} and {other.name} are told the same everywhere; leave one out.")
    return cells


def _same_folder(cell: Cell, other: Cell) -> str:
    if cell.method is other.method:
        return f"the environments {other.env} and {cell.env} are the same one; leave one out."
    return f"the methods {other.method.name} and {cell.method.name} would be kept in one folder; rename one."


def _plan(request: CompareRequest, method: Method, env: str) -> Plan:
    if method.algorithm not in BUILT_IN:
        algorithm(method.algorithm)  # an unknown one is refused there
        raise UsageError(
            f"{method.algorithm} was registered in this process, and no other one knows it; train it with its agent class "
            "(learn with run_dir), and compare its runs by CompareRequest(earlier=(Path(...), ...))."
        )
    wishes = TrainRequest(
        algorithm=method.algorithm,
        env=env,
        total_timesteps=request.total_timesteps,
        seed=request.seed,
        n_envs=None if "n_envs" in method.settings else request.n_envs,
        workers=0,
        env_kwargs=dict(request.env_kwargs),
        frame_stack=request.frame_stack,
        atari=request.atari,
        wrappers=request.wrappers,
        cost=request.cost,
        eval_every=request.steps_between,
        eval_episodes=request.eval_episodes,
        preset=method.preset or request.preset,
        encoder=encoder_of(request, method),
        settings=dict(method.settings),
    )
    try:
        return make_plan(wishes, Silent(sys.stderr), own=typed_code(wishes.encoder))
    except UsageError as error:
        raise UsageError(f"{method.name} on {env:.100}: {error}") from None


def task_of(plan: Plan) -> str:
    """Return what a run's environment is called: its full name, with what is around it and its arguments if there are any."""
    environment = plan.environment
    if environment is None:
        return plan.environment_name
    extras = [f"{key}={json.dumps(value)}" for key, value in environment.kwargs.items()]
    extras += [name + "".join(f" {key}={value}" for key, value in settings) for name, settings in environment.wrappers]
    extras += [f"frame_stack={environment.frame_stack}"] if environment.frame_stack else []
    extras += ["atari"] if environment.atari else []
    return environment.full_name + (f" ({', '.join(extras)})" if extras else "")


def told(plan: Plan) -> dict[str, Any]:
    """Return everything that makes a method what it is, beside its environment and its seed."""
    return {
        "algorithm": plan.algorithm,
        **plan.settings.to_json(),
        "total_timesteps": plan.total_timesteps,
        "eval_every": plan.eval_every,
        "eval_episodes": plan.eval_episodes,
        "cost": plan.cost.text,
        "encoder": plan.own_names.encoder,
    }


def beside_defaults(plan: Plan) -> dict[str, Any]:
    """Return a method's algorithm, its settings that are not the algorithm's defaults, and the user's cost and encoder."""
    defaults = {field.name: field.default for field in fields(plan.settings)}
    unusual = [name for name, default in defaults.items() if getattr(plan.settings, name) != default]
    cost = {"cost": plan.cost.text} if plan.cost.text is not None else {}
    encoder = {"encoder": plan.own_names.encoder} if plan.own_names.encoder is not None else {}
    settings = plan.settings.to_json()
    return {"algorithm": plan.algorithm, **{name: settings[name] for name in unusual}, **cost, **encoder}


def protocol_of(plan: Plan) -> Protocol | None:
    """Return how long a run is to be and how it is to be evaluated; ``None`` where it is not to be evaluated."""
    return Protocol(plan.total_timesteps, plan.eval_every, plan.eval_episodes) if plan.eval_every else None


def trained_steps(run: RunDirectory) -> int:
    """Return the environment steps of a run's last iteration that is logged with all that belongs to it."""
    return int(logs.finite(logs.read_last(run.metrics).get(STEPS)) or 0)


def is_finished(run: RunDirectory, total_timesteps: int) -> bool:
    """Whether a run has logged all of its iterations and evaluations, and saved its policy."""
    if trained_steps(run) < total_timesteps:
        return False
    try:
        return read_saved_policy(run.policy).step >= total_timesteps
    except (UsageError, DamagedFile):
        return False


def folder_of(name: str) -> str:
    """Return a name as that of a file: not too long, and hidden from nobody."""
    fit = fit_for_a_name(name)
    fit = "_" + fit if fit.startswith(".") else fit
    return fit if len(fit) <= LONGEST_NAME else f"{fit[:LONGEST_NAME]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
