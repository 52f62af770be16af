"""Reading back what a run directory keeps: its policy, its newest checkpoint, its seeds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from gymnasium import Space

from jumar.algorithms.off_policy.settings import ReplaySettings
from jumar.algorithms.registry import algorithm
from jumar.envs.registry import MOST_FRAMES
from jumar.envs.sources import Source
from jumar.errors import DamagedFile, UsageError
from jumar.experience.replay import Cursor
from jumar.fields import (
    DamagedEntry,
    Reader,
    choice,
    exact_record,
    flag,
    made_by,
    mapping,
    number,
    optional,
    reading,
    record,
    several,
    text,
    whole,
)
from jumar.policies.own_code import NO_CODE, OwnCode, OwnNames
from jumar.policies.policy import Policy, PolicySettings, make_policy
from jumar.runs.checkpoints import LARGEST_STEP, STATE, Checkpoint, CheckpointStore
from jumar.runs.files import arrays_to_tree
from jumar.runs.policy_files import ARRAYS, DESCRIPTION, has_policy, read_policy_files
from jumar.runs.run_directory import CONFIG, EVALUATIONS, METRICS, RunDirectory
from jumar.runs.segments import LARGEST_SLOT, SegmentStore, read_segments
from jumar.spaces import check_spaces, require_same_spaces, space_from_json
from jumar.text import counted
from jumar.training.collected import ENTRY, check_end, read_kept
from jumar.training.events import MOST_EVALUATIONS, RULES
from jumar.training.plan import Identity, Plan
from jumar.training.remembered import Buffer
from jumar.training.training import Training

MOST_NAMED = 4
"""How many files a message names."""
LARGEST_ITERATION = 2**32 - 2
"""Random keys are derived from the iteration's number and one as 32 bits."""
LONGEST_TIME = 1e10
"""Seconds; three centuries."""


def refuse_several_seeds(run: RunDirectory, verb: str) -> None:
    """Raise a ``UsageError`` for a run of several seeds, of which ``verb`` (``evaluate``) takes one."""
    if seeds := run.seeds():
        raise UsageError(f"{run} holds several seeds; {verb} one of them, such as {run.seed(seeds[0])}.")


def policy_folder(run: RunDirectory, best: bool) -> Path:
    """Return where a run's final policy is, or its best one.

    Raises:
        UsageError: there is none; the message says what else there is.
    """
    folder = run.best if best else run.policy
    if has_policy(folder):
        return folder
    other = "" if best or not has_policy(run.best) else ", or use its best one so far with --best"
    what = "best policy: it was never evaluated" if best else f"final policy: go on with jumar resume {run}{other}"
    raise UsageError(f"{run} has no {what}.")


class SavedPolicy(NamedTuple):
    """What ``policy.json`` says, and the arrays beside it."""

    settings: PolicySettings
    policy: Policy
    spaces: tuple[Space, Space]
    """Of observations and actions."""
    step: int
    """Environment steps that it was trained for."""
    arrays: dict[str, np.ndarray]
    algorithm: str | None
    """The name of the method, where the file says it."""
    environment: str | None
    """The name of the environment, where the file says it."""


def read_saved_policy(folder: Path, own: OwnCode = NO_CODE) -> SavedPolicy:
    """Return a saved policy; its arrays are not looked at yet.

    Args:
        folder: where it is.
        own: the user's code that it is made of.

    Raises:
        UsageError: there is none, or the user's code is missing or does not fit.
        DamagedFile: it is damaged or foreign.
    """
    arrays, description = read_policy_files(folder)
    path = folder / DESCRIPTION
    with reading(path):
        found = _READ_POLICY({"encoder": None, **description})
    own.check(OwnNames(found["features"], found["encoder"]), f"the policy in {folder}")
    spaces = found["observation_space"], found["action_space"]
    try:
        check_spaces(*spaces, "the policy")
        policy = make_policy(*spaces, found["policy"]) if own == NO_CODE else None
    except (UsageError, ValueError, TypeError) as error:
        raise DamagedFile(f"{path} does not describe a policy of this version of Jumar: {error}") from None
    # With code of the user's, what does not fit is the caller's.
    policy = policy or make_policy(*spaces, found["policy"], own)
    names = (x if isinstance(x := description.get(key), str) else None for key in ("algorithm", "environment"))
    return SavedPolicy(found["policy"], policy, spaces, found["step"], arrays, *names)


def read_own_names(folder: Path) -> OwnNames:
    """Return what the user's code is called that a saved policy is made of. Raises as :func:`read_saved_policy`."""
    _, description = read_policy_files(folder)
    with reading(folder / DESCRIPTION):
        found = record(features=optional(text()), encoder=optional(text()))({"encoder": None, **description})
    return OwnNames(found["features"], found["encoder"])


def read_policy(folder: Path, own: OwnCode = NO_CODE) -> tuple[Policy, Any, Any, tuple[Space, Space]]:
    """Return a saved policy, its parameters, its observation moments, and its (observation, action) spaces.

    It takes and raises what :func:`read_saved_policy` does.
    """
    saved = read_saved_policy(folder, own)
    return saved.policy, *parameters_of(saved, folder), saved.spaces


def parameters_of(saved: SavedPolicy, folder: Path) -> tuple[Any, Any]:
    """Return the parameters and the observation moments of a saved policy, which was read from ``folder``.

    Raises:
        DamagedFile: the arrays are not those of such a policy.
    """
    return _as_tree(saved.policy, saved.arrays, folder / ARRAYS)


def _as_tree(policy: Policy, arrays: dict[str, np.ndarray], path: Path) -> tuple[Any, Any]:
    """Return the parameters and the observation moments that the named arrays are. Raises ``DamagedFile``."""
    template = {
        "parameters": jax.eval_shape(policy.init, jax.random.PRNGKey(0)),
        "observation_moments": jax.eval_shape(policy.encoder.initial_moments),
    }
    tree = arrays_to_tree(template, arrays, path)
    return tree["parameters"], tree["observation_moments"]


LEARNER = "learner/"
"""Begins the names of a learner's arrays in a checkpoint."""


class CheckpointPolicy(NamedTuple):
    """The policy as it was when a checkpoint was saved."""

    step: int
    policy: Policy
    parameters: Any
    moments: Any
    spaces: tuple[Space, Space]


def checkpoint_policies(
    run: RunDirectory, plan: Plan, lane: int | None, warn: Callable[[str], None]
) -> list[CheckpointPolicy]:
    """Return the policy of each sound checkpoint, oldest first; ``warn`` hears of those that are damaged.

    Args:
        run: where the checkpoints are.
        plan: the run's, with the user's code that its policy is made of.
        lane: which seed of a run of several; ``None`` for a run of one.
        warn: takes a sentence.

    Raises:
        UsageError: there is no checkpoint.
        DamagedFile: none is sound, or one does not hold a policy of the run's plan.
    """
    checkpoints = CheckpointStore(run.checkpoints).sound(record_reader(plan), warn)
    return [_policy_of(checkpoint, run, plan, lane) for checkpoint in checkpoints]


def _policy_of(checkpoint: Checkpoint, run: RunDirectory, plan: Plan, lane: int | None) -> CheckpointPolicy:
    path = run.checkpoints / f"{checkpoint.step:012d}" / STATE
    observations, actions = checkpoint.record["spaces"]
    try:
        check_spaces(observations, actions, "the policy")
        policy = make_policy(observations, actions, PolicySettings.of(plan.settings), plan.own)
    except (UsageError, ValueError, TypeError) as error:
        raise DamagedFile(f"{path} does not hold a policy of this version of Jumar: {error}") from None
    names = {f"{LEARNER}parameters/policy": "parameters", f"{LEARNER}observation_moments": "observation_moments"}
    arrays = {}
    for name, array in checkpoint.arrays.items():
        for begin, ours in names.items():
            if name == begin or name.startswith(f"{begin}/"):
                if lane is not None and not (array.ndim and lane < len(array)):
                    raise DamagedFile(f"{path} does not hold the policies of {len(plan.seeds)} seeds; restore a copy.")
                arrays[ours + name.removeprefix(begin)] = array if lane is None else array[lane]
    parameters, moments = _as_tree(policy, arrays, path)
    return CheckpointPolicy(checkpoint.step, policy, parameters, moments, (observations, actions))


_READ_POLICY = record(
    step=whole(0, LARGEST_STEP),
    policy=made_by(PolicySettings.make, mapping),
    features=optional(text()),
    encoder=optional(text()),
    observation_space=space_from_json,
    action_space=space_from_json,
)


def check_same_spaces(source: Source, saved: tuple[Any, Any]) -> None:
    """Refuse an environment whose spaces are not those that a policy was trained in.

    Raises:
        UsageError: they differ; both are shown.
    """
    if source.compiled:
        env = source.make_compiled()
        spaces = env.observation_space, env.action_space
    else:
        environments = source.make_host(1, 0)
        spaces = environments.observation_space, environments.action_space
        environments.close()
    require_same_spaces(spaces, saved, source.name)


def newest_checkpoint(run: RunDirectory, plan: Plan, with_buffer: bool = True) -> Checkpoint | None:
    """Return the newest sound checkpoint of the run's plan, ``None`` for a run that was killed before it had any.

    Args:
        run: where it is.
        plan: the run's.
        with_buffer: whether the replay buffer is read too, if there is one; a checkpoint without a sound one is damaged.

    Raises:
        DamagedFile: none is sound, or none is of this plan.
    """
    store = CheckpointStore(run.checkpoints)
    return store.newest(record_reader(plan, run.replay if with_buffer else None)) if store.steps() else None


def record_reader(plan: Plan, replay: Path | None = None) -> Callable[[int], Reader[dict[str, Any]]]:
    """Return, for each step, a reader of the record of a plan's checkpoint.

    That is what ``Training.record`` gives, the logs' digests, and of a method with a replay buffer the ``segments`` that hold
    it, ``None`` where it was not saved, and as ``collected`` the steps that are kept for a data set. The spaces are read as
    spaces. What is of another run is refused.

    Args:
        plan: the run's.
        replay: the folder of the segments; the rows that they hold come as the entry ``buffer``. ``None``: they are not read.
    """
    lanes = len(plan.seeds)
    steps = whole(0, LARGEST_STEP)
    returns = several(optional(number()), lanes, lanes)
    log = exact_record(bytes=whole(0, 2**63 - 1), sha256=optional(text("[0-9a-f]{64}", "a SHA-256 in hexadecimal")))
    readers: dict[str, Reader[Any]] = {
        "run": _same_run(plan.identity),
        "iterations": whole(0, LARGEST_ITERATION),
        "elapsed": number(0.0, LONGEST_TIME),
        "best": returns,
        "best_steps": several(steps, lanes, lanes),
        "best_comparable": several(flag, lanes, lanes),
        "last_cut": several(steps, lanes, lanes),
        "last_evaluation": returns,
        "spaces": several(space_from_json, 2, 2),
        "stopped_by": optional(choice(*RULES)),
        "waiting": optional(_READ_WAITING),
    }
    remembers = isinstance(plan.settings, ReplaySettings)
    if remembers:
        readers |= {
            "slots": whole(0, LARGEST_SLOT),
            "frames": whole(1, MOST_FRAMES),
            "segments": optional(read_segments),
            ENTRY: read_kept,
        }
    logs = several(record(**{METRICS: log, EVALUATIONS: log}), lanes, lanes)

    def of_step(step: int) -> Reader[dict[str, Any]]:
        def read(value: Any) -> dict[str, Any]:
            # What ``Agent.save`` made has no logs.
            with_logs = {"logs": logs} if isinstance(value, dict) and "logs" in value else {}
            known = {**_LATER, **value} if isinstance(value, dict) else value
            found = record(**readers, steps=whole(step, step), **with_logs)(known)
            if remembers:
                check_end(found[ENTRY], found["slots"])
            return {**found, "buffer": _rows_of(plan, found, replay)} if remembers and replay is not None else found

        return read

    return of_step


_LATER = {"stopped_by": None, "waiting": None, "frames": 1, ENTRY: None}
"""What checkpoints of earlier versions do not speak of."""


_READ_WAITING = exact_record(best=optional(number()), comparable=flag, evaluations=whole(0, MOST_EVALUATIONS))
"""How long ``stop_without_gain`` has waited."""


def _rows_of(plan: Plan, found: dict[str, Any], folder: Path) -> dict[str, np.ndarray] | None:
    """Return the rows that a checkpoint's segments hold; ``None`` where the buffer was not saved. Raises ``DamagedFile``."""
    if found["segments"] is None:
        return None
    try:
        observations, actions = found["spaces"]
        check_spaces(observations, actions, "the run")
        policy = make_policy(observations, actions, PolicySettings.of(plan.settings), plan.own)
        update = algorithm(plan.algorithm).make(plan.settings, policy).among_frames(found["frames"])
        buffer = Buffer.of(update, plan.n_seeds)
    except (UsageError, ValueError, TypeError) as error:
        raise DamagedEntry(f"has spaces that no method of this name trains in: {error}").inside("spaces") from None
    assert buffer is not None
    replay = buffer.replay
    return SegmentStore(folder).read(found["segments"], found["slots"], replay.slots, replay.n_envs, buffer.columns)


def _same_run(expected: Identity) -> Reader[Identity]:
    def read(value: Any) -> Identity:
        found = Identity.from_json(value)
        if (words := found.difference(expected)) is not None:
            raise DamagedEntry(f"is that of another run than {CONFIG} describes: {words}")
        return found

    return read


def refuse_without_checkpoint(run: RunDirectory, plan: Plan) -> None:
    """Refuse a run that has trained and has no checkpoint: to begin anew would destroy what it has reached.

    A run that was killed before its first checkpoint has logged nothing and has no policy; it begins at step 0.

    Raises:
        DamagedFile: there are policies or logs; they are named, and what to do.
    """
    found = []
    for one in lanes(run, plan):
        logged = [path for path in (one.metrics, one.evaluations) if path.exists() and path.stat().st_size]
        found += [*logged, *(folder / DESCRIPTION for folder in (one.policy, one.best) if has_policy(folder))]
    if found:
        names = ", ".join(str(path.relative_to(run.path)) for path in found[:MOST_NAMED])
        raise DamagedFile(
            f"{run.checkpoints} holds no checkpoint, but the run has trained: there are {names}"
            + (f" and {len(found) - MOST_NAMED} more" if len(found) > MOST_NAMED else "")
            + ". Restore a copy of checkpoints; to begin anew instead, train into another directory, or move these files away "
            "and resume."
        )


def restore(training: Training, checkpoint: Checkpoint, run: RunDirectory) -> list[str]:
    """Put a training back to a checkpoint; return what is to be warned of.

    The checkpoint lets go of the rows of a replay buffer, which may be large. Where they were not saved, training goes on with
    an empty buffer, and that is warned of.

    Raises:
        UsageError: the environment's spaces have changed since, or how many frames it stacks.
        DamagedFile: the checkpoint does not hold what the run's plan asks for.
    """
    observations, actions = checkpoint.record["spaces"]
    require_same_spaces(training.spaces, (observations, actions), training.source.name)
    path = run.checkpoints / f"{checkpoint.step:012d}" / STATE
    state = arrays_to_tree(jax.device_get(training.state), checkpoint.arrays, path)
    buffer, memory, saved, warnings = training.buffer, None, checkpoint.record, []
    if buffer is not None:
        if saved["frames"] != buffer.replay.frames:
            raise UsageError(
                f"{training.source.name} stacks {counted(buffer.replay.frames, 'frame')} in an observation, but the replay "
                f"buffer of {run} is one of stacks of {saved['frames']}; resume it in the environment that it was trained in."
            )
        _check_cursor(state.learner.clock.cursor, buffer.cursor(saved["slots"]), path)
        rows = saved.pop("buffer")
        if rows is None and saved["slots"] > 0:
            saved = {**saved, "slots": 0}
            state = state._replace(learner=buffer.forgotten(state.learner))
            warnings.append(f"{run} was saved without its replay buffer; learning goes on with an empty one.")
        elif rows is not None:
            memory = buffer.put(training.held.memory, rows, saved["slots"])
    training.restore(state, saved, memory)
    return warnings


def _check_cursor(found: Cursor, expected: Cursor, path: Path) -> None:
    """Refuse a learner whose cursor is not where so many slots lead to. Raises ``DamagedFile``."""
    here, there = (tuple(int(x) for x in cursor) for cursor in (found, expected))
    if here != there:
        raise DamagedFile(
            f"the replay buffer of the learner in {path} is at place {here[0]} with {here[1]} slots, but its checkpoint says "
            f"place {there[0]} with {there[1]}; restore a copy."
        )


def refuse_part_of_many(run: RunDirectory) -> None:
    """Raise a ``UsageError`` for one seed of a run of several: the state of all is kept together, in the run."""
    parent = run.path.resolve().parent
    if not run.checkpoints.exists() and (parent / "config.json").exists():
        raise UsageError(f"{run} is one seed of a run of several; resume the whole run: jumar resume {parent}.")


def lanes(run: RunDirectory, plan: Plan) -> list[RunDirectory]:
    """Return the run directory of each seed: the run itself where there is only one."""
    return [run] if plan.n_seeds is None else [run.seed(seed) for seed in plan.seeds]
