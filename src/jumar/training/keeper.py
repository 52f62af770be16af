"""Keeping what a run makes in its run directory. A full disk is reported and survived."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax

from jumar.console.reporter import Reporter
from jumar.errors import DamagedFile
from jumar.policies.policy import PolicySettings
from jumar.report import learning_curve
from jumar.runs import logs
from jumar.runs.checkpoints import CheckpointStore
from jumar.runs.entries import make_folder
from jumar.runs.files import tree_to_arrays, write_atomically
from jumar.runs.policy_files import remove_policy_files, write_policy_files
from jumar.runs.run_directory import CONFIG_TOML, RunDirectory
from jumar.runs.segments import Segment
from jumar.runs.tensorboard import ScalarWriter
from jumar.spaces import space_to_json
from jumar.text import counted
from jumar.training.collected import ENTRY, Collection, Kept
from jumar.training.config_file import text_of_run, values_of
from jumar.training.machine import describe_machine
from jumar.training.plan import Plan
from jumar.training.remembered import BufferFiles
from jumar.training.training import Metrics, Training


def describe_policy(training: Training, lane: int) -> dict[str, Any]:
    """Return what ``policy.json`` says: enough to act, without the rest of the run."""
    plan = training.plan
    return {
        "algorithm": plan.algorithm,
        "environment": plan.environment_name,
        "seed": plan.seeds[lane],
        "step": training.steps,
        "policy": PolicySettings.of(plan.settings).to_json(),
        "observation_space": space_to_json(training.spaces[0]),
        "action_space": space_to_json(training.spaces[1]),
        "features": plan.own_names.features,
        "encoder": plan.own_names.encoder,
    }


def policy_arrays(snapshot: tuple[Any, Any]) -> dict[str, Any]:
    """Return (policy parameters, observation moments) as named arrays."""
    parameters, moments = jax.device_get(snapshot)
    return tree_to_arrays({"parameters": parameters, "observation_moments": moments})


def save_lane(folder: Path, training: Training, lane: int) -> None:
    """Write one seed's policy, as it is now, to ``policy.safetensors`` and ``policy.json`` in ``folder``."""
    write_policy_files(folder, policy_arrays(training.snapshot(lane)), describe_policy(training, lane))


def save_best(folder: Path, training: Training, lane: int) -> None:
    """Write the policy of one seed's best evaluation to its folder, which is made if need be."""
    make_folder(folder)
    description = {**describe_policy(training, lane), "step": training.best_steps[lane]}
    write_policy_files(folder, policy_arrays(training.best_policies[lane]), description)


def write_configs(
    run: RunDirectory, plan: Plan, kind: str = "run", before: Plan | None = None, from_python: bool = False
) -> None:
    """Write ``config.json`` and ``config.toml``, and those of each seed of a run of several.

    Args:
        run: where to.
        plan: what they say.
        kind: who keeps the directory; only runs have a ``config.toml``.
        before: what the plan was, where a later command changes it.
        from_python: whether ``learn`` trains the run.

    Raises:
        OSError: they cannot be written.
    """
    machine = describe_machine()
    _write_config(run, plan, kind, machine, before, from_python)
    if plan.n_seeds is not None:
        for seed in plan.seeds:
            one = run.seed(seed)
            make_folder(one.path)
            _write_config(one, replace(plan, seed=seed, n_seeds=None), "seed", machine, before, from_python)


def _write_config(
    run: RunDirectory, plan: Plan, kind: str, machine: dict[str, Any], before: Plan | None, from_python: bool
) -> None:
    run.write_config({"kind": kind, "machine": machine, **plan.to_json()})
    changed = before is None or values_of(before) != values_of(plan)
    if kind not in ("run", "seed") or not changed:
        return
    if (text := text_of_run(run, plan, kind, before, from_python)) is not None:
        write_atomically(run.path / CONFIG_TOML, text.encode("utf-8"))


def save_state(
    store: CheckpointStore, buffer: BufferFiles | None, training: Training, state: Any, record: dict[str, Any]
) -> None:
    """Save a checkpoint: first what is new in the replay buffer, then the rest, which names it.

    Args:
        store: where to.
        buffer: where the replay buffer is kept; ``None``: it is left out, if there is one.
        training: whose.
        state: its state on the host.
        record: its record.

    Raises:
        OSError, DamagedFile: it cannot be written; the checkpoints before it are unharmed.
    """
    if training.buffer is None:
        store.save(training.steps, state, record)
    elif buffer is None:
        store.save(training.steps, state, {**record, "segments": None})
    else:
        segments = buffer.write(training.held.memory, training.slots)
        store.save(training.steps, state, {**record, "segments": [segment.to_json() for segment in segments]})
        buffer.saved(segments, store)


BEST = "the best policy"
STEPS = "the steps for a data set"


def digest_logs(runs: Sequence[RunDirectory]) -> list[dict[str, Any]]:
    """Return the digests of each seed's logs, as they are now."""
    return [{path.name: logs.digest(path) for path in (run.metrics, run.evaluations)} for run in runs]


class LaneFiles:
    """The files of one seed."""

    def __init__(self, run: RunDirectory, resumed_at: int | None, warn: Callable[[str], None]) -> None:
        self.run = run
        self.metrics = logs.JsonLines(run.metrics, warn)
        self.evaluations = logs.JsonLines(run.evaluations, warn)
        self.scalars = ScalarWriter(run.tensorboard, warn, resumed_at)
        self._files = {run.metrics: self.metrics, run.evaluations: self.evaluations, run.tensorboard: self.scalars}

    def sync(self) -> None:
        """Flush everything to the disk."""
        for file in self._files.values():
            file.sync()

    def close(self) -> dict[Path, int]:
        """Close everything; return how many entries of which file could not be written, where any could not."""
        lost = {path: file.close() for path, file in self._files.items()}
        return {path: count for path, count in lost.items() if count}


class Files:
    """The keeper of a run directory.

    Args:
        run: the run directory; with several seeds each has its own inside of it.
        training: the run that is kept.
        reporter: whom to tell that something could not be saved.
        resumed_at: the step that a resumed run goes on from.
        segments: the segments of the replay buffer that its checkpoint names.
        kept: what its checkpoint says of the steps that are kept for a data set; ``None``: none are kept.
    """

    def __init__(
        self,
        run: RunDirectory,
        training: Training,
        reporter: Reporter,
        resumed_at: int | None = None,
        segments: Sequence[Segment] = (),
        kept: Kept | None = None,
    ) -> None:
        plan = training.plan
        self._run, self._plan, self._reporter = run, plan, reporter
        self._store = CheckpointStore(run.checkpoints)
        self._buffer = training.buffer and BufferFiles(run.replay, training.buffer, list(segments))
        self.collection = None
        if kept is not None and training.buffer is not None:
            self.collection = Collection(run.collected, training.buffer, kept)
        self.runs = [run] if plan.n_seeds is None else [run.seed(seed) for seed in plan.seeds]
        self._lanes = [LaneFiles(one, resumed_at, reporter.warn) for one in self.runs]
        self.unsaved: list[str] = []
        """What could not be saved the last time it was tried."""

    def iteration(self, lane: int, metrics: Metrics) -> None:
        """Log an iteration of one seed."""
        self._lanes[lane].metrics.append(metrics)
        self._lanes[lane].scalars.write(int(metrics["time/total_timesteps"] or 0), metrics)

    def evaluation(self, training: Training, lane: int, record: dict[str, Any], is_best: bool) -> None:
        """Log an evaluation, and keep its policy if it is the best yet."""
        self._lanes[lane].evaluations.append(record)
        if is_best:
            self._try(BEST, lambda: save_best(self.runs[lane].best, training, lane))

    def take_back_best(self, training: Training) -> None:
        """Put ``best/`` back to what it was at the step that a resumed run goes on from."""
        for lane, run in enumerate(self.runs):
            if training.best[lane] is not None:
                self._try(BEST, lambda lane=lane, run=run: save_best(run.best, training, lane))
            else:
                self._try(BEST, lambda run=run: remove_policy_files(run.best))

    def checkpoint(self, training: Training) -> None:
        """Save the state."""
        self._check_there(training)
        for lane in self._lanes:
            lane.sync()
        if BEST in self.unsaved:
            self.take_back_best(training)
        state = jax.device_get(training.state)
        record = {**training.record, "logs": digest_logs(self.runs)}
        if (collection := self.collection) is not None:
            if not self._try(STEPS, lambda: collection.write(training.held.memory, training.slots)):
                return  # a checkpoint must name all steps so far
            record[ENTRY] = collection.record
        if self._try("the checkpoint", lambda: save_state(self._store, self._buffer, training, state, record)):
            if collection is not None:
                collection.saved(self._store)
            training.saved_at = training.steps
            self._reporter.checkpoint(training.steps)

    def make_room(self, training: Training) -> None:
        """Keep what the next iteration may overwrite in the replay buffer, where all steps are kept."""
        if (collection := self.collection) is not None:
            self._try(STEPS, lambda: collection.make_room(training.held.memory, training.slots))

    def policies(self, training: Training) -> None:
        """Save the policy of each seed, and draw its learning curve."""
        self._check_there(training)
        for i, run in enumerate(self.runs):
            self._try("the policy", lambda i=i, run=run: save_lane(run.policy, training, i))
            self._try("the learning curve", lambda run=run: self._draw(run))

    def close(self) -> None:
        """Close all files; what of the logs was lost to a full disk, say, is told and counts as unsaved."""
        for lane in self._lanes:
            for path, count in lane.close().items():
                self.unsaved.append(str(path.relative_to(self._run.path)))
                self._reporter.warn(f"{counted(count, 'record')} of {path} could not be written and are lost.")

    def _check_there(self, training: Training) -> None:
        """Write the configuration anew if somebody has removed the run directory, so that what follows is of use."""
        if not self._run.config.exists():
            self._reporter.warn(f"{self._run} was removed while the run was writing to it; what it held is lost.")
            self._run.path.mkdir(parents=True, exist_ok=True)
            self._try("config.json", lambda: write_configs(self._run, training.plan))

    def _draw(self, run: RunDirectory) -> None:
        title = f"{self._plan.algorithm} on {self._plan.environment_name}"
        learning_curve.learning_curve(run.learning_curve, logs.read(run.metrics), logs.read(run.evaluations), title)

    def _try(self, what: str, save: Callable[[], None]) -> bool:
        """Save something; where the disk refuses, say so and go on."""
        try:
            save()
        except (OSError, DamagedFile) as error:
            if what not in self.unsaved:
                self.unsaved.append(what)
                reason = (error.strerror if isinstance(error, OSError) else None) or error
                self._reporter.warn(f"{what} could not be saved ({reason}); training goes on.")
            return False
        if what in self.unsaved:
            self.unsaved.remove(what)
            self._reporter.note(f"{what} could be saved again")
        return True


class Nothing:
    """The keeper of a run that keeps nothing: ``learn`` without a run directory."""

    def iteration(self, lane: int, metrics: Metrics) -> None:
        """Keep nothing."""

    def evaluation(self, training: Training, lane: int, record: dict[str, Any], is_best: bool) -> None:
        """Keep nothing."""

    def checkpoint(self, training: Training) -> None:
        """Keep nothing."""

    def policies(self, training: Training) -> None:
        """Keep nothing."""

    def make_room(self, training: Training) -> None:
        """Keep nothing."""
