"""What runs there are in a folder, and how far each is. Nothing is changed, and no link inside of the folder is followed."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from jumar.errors import DamagedFile, JumarError, NewerFile, UsageError
from jumar.fields import mapping, optional, reading, record, text, whole
from jumar.runs import logs
from jumar.runs.at_work import with_parent
from jumar.runs.checkpoints import LARGEST_STEP, CheckpointStore
from jumar.runs.ended import ended_by
from jumar.runs.run_directory import CONFIG, LOCK, METRICS, RunDirectory

STEPS = "time/total_timesteps"
RETURN = "rollout/ep_rew_mean"
BESIDE = frozenset({METRICS, LOCK, "checkpoints", "policy.json", "replay"})
"""What a folder with a ``config.json`` has where that is a run's, even if it is damaged."""
State = Literal["finished", "running", "stopped", "not begun", "saved", "damaged"]


@dataclass(frozen=True)
class FoundRun:
    """A run that was found.

    Attributes:
        path: its directory.
        state: ``finished``: it has reached its total, or a rule stopped it. ``running``: a process works on it. ``stopped``:
            it can be resumed. ``not begun``: it has not taken a step, and has no checkpoint. ``saved``: ``Agent.save`` made it.
            ``damaged``: ``why`` says what is wrong.
        changed: when it was last written to, in seconds since 1970.
        algorithm: its method.
        env: its environment with the backend.
        seed: its seed, or the first of several.
        n_seeds: how many it trains in one program; ``None``: one.
        steps: environment steps so far.
        total_timesteps: how many it is to take.
        ep_rew_mean: last mean return in training, the mean over seeds; ``None`` where no episode has ended.
        last_eval_mean: mean return of the last evaluation, the mean over seeds; ``None`` where there was none.
        stopped_by: the rule that stopped it before its total.
        why: what is wrong, where it is damaged.
    """

    path: Path
    state: State
    changed: float
    algorithm: str | None = None
    env: str | None = None
    seed: int | None = None
    n_seeds: int | None = None
    steps: int | None = None
    total_timesteps: int | None = None
    ep_rew_mean: float | None = None
    last_eval_mean: float | None = None
    stopped_by: str | None = None
    why: str | None = None

    @property
    def date(self) -> datetime:
        """When it was last written to, in local time."""
        return datetime.fromtimestamp(self.changed).astimezone()

    def to_json(self) -> dict[str, Any]:
        """Return it as ``jumar list runs --json`` prints it."""
        return {
            "run_dir": str(self.path),
            "algorithm": self.algorithm,
            "env": self.env,
            "seed": self.seed,
            "n_seeds": self.n_seeds,
            "steps": self.steps,
            "total_timesteps": self.total_timesteps,
            "ep_rew_mean": self.ep_rew_mean,
            "last_eval_mean": self.last_eval_mean,
            "state": self.state,
            "stopped_by": self.stopped_by,
            "why": self.why,
            "date": self.date.isoformat(timespec="seconds"),
        }


def find_runs(place: Path) -> list[FoundRun]:
    """Return the runs at and below a folder, those last written to first.

    Raises:
        UsageError: there is no such folder, or it cannot be read.
    """
    try:
        with os.scandir(place):
            pass
    except OSError as error:
        raise UsageError(f"there is no folder of runs at {place} ({error.strerror}).") from None
    found = [run for folder, names in _folders(place) if (run := look(folder, names)) is not None]
    return sorted(found, key=lambda run: (-run.changed, str(run.path)))


def _folders(place: Path) -> Iterator[tuple[Path, Sequence[str]]]:
    """Yield every folder that has a ``config.json``, with its names; what lies in a run is not looked at."""
    for folder, below, files in os.walk(place):
        below.sort()
        if CONFIG in files or CONFIG in below:
            names = (*files, *below)
            if _is_run(names):
                below.clear()
            yield Path(folder), names


def _is_run(names: Sequence[str]) -> bool:
    return not BESIDE.isdisjoint(names)


def look(folder: Path, names: Sequence[str]) -> FoundRun | None:
    """Return the run in a folder with a ``config.json``, of which these are the names; ``None`` if it is not Jumar's."""
    run = RunDirectory(folder)
    changed = max(map(_modified, (run.config, run.metrics, run.evaluations)))
    try:
        config = _read_config(run)
    except DamagedFile as error:
        if not _is_run(names):
            return None  # many programs have a file of that name
        newer = "it was written by a newer Jumar." if isinstance(error, NewerFile) else str(error)
        return FoundRun(folder, "damaged", changed, why=newer)
    try:
        run.check_entries()
        return _look_inside(run, config, changed)
    except JumarError as error:
        return FoundRun(folder, "damaged", changed, **_known(config), why=str(error))


def _read_config(run: RunDirectory) -> dict[str, Any]:
    data = run.read_config()
    with reading(run.config):
        return _READ({"kind": "run", **data})


_READ = record(
    kind=text(),
    algorithm=text(),
    environment=optional(mapping),
    environment_name=text(),
    seed=whole(0, 2**31),
    n_seeds=optional(whole(1, 2**31)),
    total_timesteps=whole(0, 10**15),
)


def _known(config: Mapping[str, Any]) -> dict[str, Any]:
    environment = config["environment"] or {}
    parts = [environment.get(name) for name in ("backend", "name")]
    name = config["environment_name"]
    if all(isinstance(part, str) for part in parts):
        module = environment.get("module")
        name = f"{parts[0]}/" + (f"{module}:" if isinstance(module, str) else "") + str(parts[1])
    return {
        "algorithm": config["algorithm"],
        "env": name,
        "seed": config["seed"],
        "n_seeds": config["n_seeds"],
        "total_timesteps": config["total_timesteps"],
    }


def _look_inside(run: RunDirectory, config: Mapping[str, Any], changed: float) -> FoundRun:
    """Return what a run has reached. Raises ``DamagedFile``."""
    several, total = config["n_seeds"], config["total_timesteps"]
    # As many as there are: what a file says of their number may be any number.
    lanes = (
        [run] if several is None else [run.seed(seed) for seed in run.seeds() if 0 <= seed - config["seed"] < several]
    )
    trained = [logs.read_last(lane.metrics) for lane in lanes]
    evaluated = [logs.read_last(lane.evaluations) for lane in lanes]
    checkpoints = CheckpointStore(run.checkpoints).steps()
    steps = [logs.finite(entry.get(STEPS)) or 0.0 for entry in trained]
    logged = [int(number) for number in steps if 0.0 < number <= LARGEST_STEP]
    known = {
        **_known(config),
        "steps": max([*logged, *checkpoints[-1:], 0]),
        "ep_rew_mean": _mean(entry.get(RETURN) for entry in trained),
        "last_eval_mean": _mean(entry.get("mean_return") for entry in evaluated),
    }
    changed = max(changed, *(_modified(lane.metrics) for lane in lanes), 0.0)
    saved = bool(lanes) and all((lane.path / "policy.json").exists() for lane in lanes)
    if any(place.locked() for place in with_parent(run)):
        return FoundRun(run.path, "running", changed, **known)
    if config["kind"] not in ("run", "seed"):
        return FoundRun(run.path, "saved", changed, **known)
    if config["kind"] == "seed":  # its checkpoints are those of all seeds together
        state = "finished" if saved and known["steps"] >= total else "stopped"
        return FoundRun(run.path, state, changed, **known)
    if not checkpoints:
        begun = saved or bool(logged)
        why = f"{run.checkpoints} has no checkpoint, so the run cannot be resumed." if begun else None
        return FoundRun(run.path, "damaged" if begun else "not begun", changed, **known, why=why)
    if saved and checkpoints[-1] >= total:
        return FoundRun(run.path, "finished", changed, **known)
    rule = ended_by(run) if saved else None
    return FoundRun(run.path, "stopped" if rule is None else "finished", changed, **known, stopped_by=rule)


def _modified(path: Path) -> float:
    try:
        return os.lstat(path).st_mtime
    except OSError:
        return 0.0


def _mean(values: Iterator[Any]) -> float | None:
    known = [number for value in values if (number := logs.finite(value)) is not None]
    return math.fsum(known) / len(known) if known else None
