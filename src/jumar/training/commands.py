"""The jobs behind the commands: train, resume and evaluate a run directory."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jumar.algorithms.off_policy.settings import ReplaySettings
from jumar.console.reporter import Reporter
from jumar.console.signals import StopFlag, Stopped, stop_on_signals
from jumar.envs.host import Warn
from jumar.envs.registry import TypedWrapper, is_unprepared_game
from jumar.envs.sources import FromId, NoEnvironment, Source
from jumar.errors import JumarError, UsageError, explain_system_error
from jumar.lanes.crew import Spread, check_has_lanes, spread_over
from jumar.runs import logs
from jumar.runs.checkpoints import Checkpoint, CheckpointStore
from jumar.runs.run_directory import RunDirectory
from jumar.runs.segments import Segment
from jumar.text import counted, repeat_words
from jumar.training.assembly import make_evaluator
from jumar.training.collected import ENTRY, Kept, forget_unnamed
from jumar.training.data import StartData, start_data
from jumar.training.keeper import Files, write_configs
from jumar.training.loop import run_loop
from jumar.training.plan import Plan, check_count, check_seed
from jumar.training.remembered import discard_unnamed
from jumar.training.request import TrainRequest
from jumar.training.resolve import AS_IT_IS, Making, make_plan, typed_code, with_checkpoints, with_environment
from jumar.training.restore import (
    check_same_spaces,
    lanes,
    newest_checkpoint,
    policy_folder,
    read_policy,
    refuse_part_of_many,
    refuse_several_seeds,
    refuse_without_checkpoint,
    restore,
)
from jumar.training.training import Training
from jumar.training.warm_start import WarmStart, read_warm_start
from jumar.xla.compiler import prepare_compiler


def train(request: TrainRequest, reporter: Reporter) -> dict[str, Any]:
    """Train as requested, into a new run directory; return the summary that ``--json`` prints.

    Raises:
        UsageError: something in the request is wrong; nothing was written.
        Stopped: a signal came; everything is saved.
        JumarError: training could not go on; the last good state is saved.
    """
    prepare_compiler(reporter.warn, request.n_seeds)
    plan, start, data = settle(request, reporter)
    check_saving(plan, request.save_dataset)
    spread = spread_over(request.runners, request.address)
    source = _source(plan, data.data.spaces if data else None)
    _tell_of_runners(spread, reporter)
    with ExitStack() as stack:
        stop = stack.enter_context(stop_on_signals(reporter.warn))
        training = Training(plan, source, reporter, start, spread)
        stack.callback(training.close)
        training.plan = plan = with_checkpoints(plan, request.checkpoint_every, training, reporter)
        if data is not None:
            training.begin_with_data(data)
            assert training.buffer is not None
            held = min(training.slots, training.buffer.replay.slots) * plan.settings.n_envs
            reporter.note(f"{counted(held, 'transition')} of {data.origin.path} are in the replay buffer")
        if start is not None:
            for words in start.warnings:
                reporter.warn(words)
            left_out = training.critic_left_out
            (reporter.note if left_out is None else reporter.warn)(start.words(left_out))
        run = RunDirectory.create(request.run_dir, plan.algorithm, request.env or "data", plan.seed)
        stack.enter_context(run.lock())
        write_configs(run, plan)
        kept = None if request.save_dataset is None else Kept(training.slots, [])
        files = _open_files(stack, run, training, reporter, None, kept=kept)
        _announce(reporter, plan, run, None)
        for words in training.notes():
            reporter.note(words)
        files.checkpoint(training)
        training.restart()
        return _run(training, files, run, reporter, stop, request.save_dataset)


class Settled(NamedTuple):
    """A plan, and what its run begins with."""

    plan: Plan
    start: WarmStart | None
    data: StartData | None


def settle(request: TrainRequest, reporter: Reporter) -> Settled:
    """Return the plan of what was requested; what it begins with is read, and nothing is written.

    Raises:
        UsageError: something in the request is wrong.
        DamagedFile: what it begins with is damaged.
    """
    own = typed_code(request.encoder)
    start = None if request.init_from is None else read_warm_start(request.init_from, own)
    data = start_data(request.dataset, request.prefill)
    return Settled(make_plan(request, reporter, start, data, own), start, data)


def resume(
    run_path: Path,
    total_timesteps: int | None,
    env: str | None,
    reporter: Reporter,
    wrappers: Sequence[TypedWrapper] = (),
    save_dataset: Path | None = None,
    encoder: str | None = None,
    runners: int | None = None,
    address: str | None = None,
) -> dict[str, Any]:
    """Go on from the newest sound checkpoint, to the same total or to a new one; return the summary.

    ``runners`` and ``address`` say who steps the lanes of a run that has lanes; neither changes its result.

    Raises:
        UsageError: there is no run, it cannot be resumed, it has no lanes for runners, or it needs ``--env``, ``--wrapper`` or
            ``--encoder`` repeated.
        DamagedFile: no checkpoint is sound.
    """
    run = RunDirectory.open(run_path)
    refuse_part_of_many(run)
    saved = run.read_config()
    kept = Plan.from_json(saved, run.config).with_own(typed_code(encoder))
    plan = with_environment(kept, env, wrappers)
    spread = spread_over(runners, address)
    check_has_lanes(plan.lanes, runners, str(run))
    check_saving(plan, save_dataset)
    prepare_compiler(reporter.warn, plan.n_seeds)
    with ExitStack() as stack:
        stop = stack.enter_context(stop_on_signals(reporter.warn))
        stack.enter_context(run.lock())
        checkpoint = newest_checkpoint(run, kept)
        if checkpoint is None and plan.init_from is not None:
            raise UsageError(
                f"{run} was stopped before it saved what it began with; begin anew with --init-from {plan.init_from.path}."
            )
        if checkpoint is None and plan.data is not None:
            option = "--dataset" if plan.data.alone else "--prefill"
            raise UsageError(
                f"{run} was stopped before it saved what it began with; begin anew with {option} {plan.data.path}."
            )
        if checkpoint is None:
            refuse_without_checkpoint(run, plan)
        start = checkpoint.step if checkpoint else 0
        for words in [*(checkpoint.warnings if checkpoint else ()), *kept.differences_in_versions(saved, run.config)]:
            reporter.warn(words)
        if total_timesteps is not None and total_timesteps != plan.total_timesteps:
            if total_timesteps < start:
                raise UsageError(f"total_timesteps={total_timesteps}, but {run} has already trained for {start} steps.")
            plan = plan.with_total(total_timesteps)
            reporter.note(f"the new total is {total_timesteps} steps; schedules are anchored to it")
        stopped_by = checkpoint.record["stopped_by"] if checkpoint else None
        if stopped_by is not None and total_timesteps is not None and total_timesteps > start:
            if (value := getattr(plan, stopped_by)) is not None:
                reporter.note(
                    f"{stopped_by}={value:g} stopped the run after {start} steps; as a total is given, training goes on "
                    "without it"
                )
            plan = plan.without_rule(stopped_by)
        source = _source(plan, checkpoint.record["spaces"] if checkpoint else None)
        _tell_of_runners(spread, reporter)
        training = Training(plan, source, reporter, spread=spread)
        stack.callback(training.close)
        if checkpoint:
            for words in restore(training, checkpoint, run):
                reporter.warn(words)
            _check_logs(run, plan, checkpoint, reporter)
        try:
            if total_timesteps is not None:
                write_configs(run, plan, before=kept)
            elif not all(lane.config.exists() for lane in lanes(run, plan)):
                write_configs(run, plan)  # the command was killed before it had written those of all seeds
            _cut_back(run, plan, start)
        except OSError as error:
            raise JumarError(f"the run cannot go on in {run}: {explain_system_error(error)}") from error
        segments = checkpoint.record.get("segments") if checkpoint else None
        kept = checkpoint.record.get(ENTRY) if checkpoint else None
        if kept is None and save_dataset is not None:
            kept = Kept(_oldest(training, reporter), [])
        if kept is not None and save_dataset is None:
            reporter.note("the run keeps its steps for a data set; --save-dataset FILE writes it")
        files = _open_files(stack, run, training, reporter, start, segments or (), kept)
        files.take_back_best(training)
        if training.steps >= plan.total_timesteps or training.stopped_by is not None:
            reporter.note(f"{run} is finished: it has trained for {training.steps} steps{_why_stopped(training)}")
            files.policies(training)
            _save_dataset(training, files, save_dataset, reporter)
            _require_saved(files, run)
            return _summary(training, run)
        _announce(reporter, plan, run, start)
        if not checkpoint:
            files.checkpoint(training)
        training.saved_at = start
        training.restart()
        return _run(training, files, run, reporter, stop, save_dataset)


def evaluate(
    run_path: Path,
    episodes: int,
    seed: int,
    stochastic: bool,
    best: bool,
    env: str | None,
    warn: Warn,
    wrappers: Sequence[TypedWrapper] = (),
    encoder: str | None = None,
    making: Making = AS_IT_IS,
) -> dict[str, Any]:
    """Run episodes of a run's policy in fresh environments; the run is not changed. Return the numbers to print.

    ``warn`` hears of episodes that were cut before they ended. ``making`` is how the environment is made of a run that learnt
    without one.

    Raises:
        UsageError: no run or policy is there, or it needs ``--env``, ``--wrapper`` or ``--encoder`` repeated.
        DamagedFile: a file is damaged, or the environment's spaces are not those that the policy was trained in.
    """
    prepare_compiler(lambda words: None)
    check_count("episodes", episodes, 1)
    check_seed(seed, episodes)
    run = RunDirectory.open(run_path)
    refuse_several_seeds(run, "evaluate")
    plan = with_environment(Plan.from_json(run.read_config(), run.config), env, wrappers, making)
    policy, parameters, moments, spaces = read_policy(policy_folder(run, best), typed_code(encoder))
    if plan.environment is None:
        raise UsageError(f"{run} learnt from stored transitions without an environment; evaluate it with --env ENV.")
    if plan.offline and is_unprepared_game(plan.environment):
        warn(f"{plan.environment.full_name} is not prepared as an Atari game is; --atari does that.")
    source = FromId(plan.environment, plan.cost)
    check_same_spaces(source, spaces)
    evaluator = make_evaluator(source, policy, plan.workers, not stochastic, tell=warn)
    result = evaluator(parameters, moments, episodes, seed)
    if complaint := result.complaint(source.time_limit_remedy):
        warn(complaint)
    return {"run_dir": str(run), **result.summary()}


def _check_logs(run: RunDirectory, plan: Plan, checkpoint: Checkpoint, reporter: Reporter) -> None:
    """Say which logs are not what they were at the checkpoint; they are kept as they are, and training needs none.

    What ``Agent.save`` made has no logs.
    """
    for one, saved in zip(lanes(run, plan), checkpoint.record.get("logs", ()), strict=False):
        for path in (one.metrics, one.evaluations):
            if not logs.is_as_digested(path, saved[path.name]):
                reporter.warn(
                    f"{path} was changed or cut after the run wrote it; what is in it is not to be relied on."
                )


def _cut_back(run: RunDirectory, plan: Plan, step: int) -> None:
    """Drop what came after the step that a run goes on from: it will be repeated."""
    checkpoints = CheckpointStore(run.checkpoints)
    checkpoints.discard_after(step)
    discard_unnamed(run.replay, checkpoints)
    forget_unnamed(run.collected, checkpoints)
    for one in lanes(run, plan):
        logs.cut(one.metrics, step)
        logs.cut(one.evaluations, step)


def _open_files(
    stack: ExitStack,
    run: RunDirectory,
    training: Training,
    reporter: Reporter,
    resumed_at: int | None,
    segments: Sequence[Segment] = (),
    kept: Kept | None = None,
) -> Files:
    files = Files(run, training, reporter, resumed_at, segments, kept)
    stack.callback(files.close)
    return files


def _announce(reporter: Reporter, plan: Plan, run: RunDirectory, start_step: int | None) -> None:
    info: dict[str, Any] = {
        "algorithm": plan.algorithm,
        "env": plan.environment_name,
        "backend": plan.backend,
        "seed": plan.seed,
        "n_envs": plan.settings.n_envs,
        "total_timesteps": plan.whole_iterations,
        "enough_timesteps": plan.total_timesteps,
        "run_dir": str(run),
        "device": jax.devices()[0].platform,
        "n_seeds": plan.n_seeds,
    }
    reporter.started(info if start_step is None else {**info, "start_step": start_step})


def _run(
    training: Training,
    files: Files,
    run: RunDirectory,
    reporter: Reporter,
    stop: StopFlag,
    save_dataset: Path | None = None,
) -> dict[str, Any]:
    try:
        run_loop(training, files, reporter, stop)
    except Stopped as stopped:
        _save_dataset_of_part(training, files, save_dataset, reporter)
        files.close()
        again = "" if save_dataset is None else f" --save-dataset {shlex.quote(str(save_dataset))}"
        raise Stopped(stopped.signal_number, _stopped_words(training, files, run, again)) from None
    except JumarError:
        _save_dataset_of_part(training, files, save_dataset, reporter)
        raise
    _save_dataset(training, files, save_dataset, reporter)
    _require_saved(files, run)
    summary = _summary(training, run)
    reporter.finished(summary)
    return summary


def _source(plan: Plan, spaces: tuple[Any, Any] | None) -> Source:
    """Return where a run's environments come from; ``spaces`` are those of a run that has none."""
    if plan.environment is not None:
        return FromId(plan.environment, plan.cost)
    assert spaces is not None, "a run without an environment begins with a data set"
    return NoEnvironment((spaces[0], spaces[1]))


def _tell_of_runners(spread: Spread, reporter: Reporter) -> None:
    if spread.runners:
        where = "on this machine" if spread.address is None else f"on the Ray at {spread.address}"
        reporter.note(f"{counted(spread.runners, 'runner')} {where} step the environments")


def check_saving(plan: Plan, path: Path | None) -> None:
    """Refuse to write a data set of a run that has none, or to a file that cannot be written. Raises ``UsageError``."""
    if path is None:
        return
    if not isinstance(plan.settings, ReplaySettings):
        raise UsageError(
            f"--save-dataset needs a method with a replay buffer, and {plan.algorithm} has none; dpg, ddpg, td3, sql and sac "
            "do."
        )
    if plan.offline:
        raise UsageError(
            "--save-dataset writes what a run collects, and with --dataset no environment is stepped; leave it out."
        )
    if plan.n_seeds is not None:
        raise UsageError(f"--save-dataset writes the steps of one seed, and n_seeds={plan.n_seeds}; train one.")
    if path.is_dir():
        raise UsageError(f"--save-dataset {path} is a folder; give the path of a file.")
    if not path.absolute().parent.is_dir():
        raise UsageError(f"--save-dataset {path}: there is no folder {path.absolute().parent}; make it first.")


def _oldest(training: Training, reporter: Reporter) -> int:
    """Return the first slot that can still be kept for a data set in a run that kept none so far."""
    assert training.buffer is not None, "check_saving refused methods without one"
    forgotten = max(0, training.slots - training.buffer.replay.slots)
    if forgotten:
        reporter.warn(
            f"the run was begun without --save-dataset, and its replay buffer has forgotten the oldest "
            f"{counted(forgotten * training.plan.settings.n_envs, 'step')}: the data set begins after them."
        )
    return forgotten


def _save_dataset(training: Training, files: Files, path: Path | None, reporter: Reporter) -> None:
    """Write the steps that were kept, if that was asked for; the run itself is saved already.

    Raises:
        JumarError: it cannot be written.
    """
    if path is None:
        return
    assert files.collection is not None, "steps are kept where a data set is asked for"
    try:
        n = files.collection.write_dataset(path, training.held.memory, training.slots, training.spaces)
    except OSError as error:
        raise JumarError(f"the data set cannot be written to {path}: {explain_system_error(error)}") from error
    reporter.note(f"{counted(n, 'transition')} are written to {path}")


def _save_dataset_of_part(training: Training, files: Files, path: Path | None, reporter: Reporter) -> None:
    """Write the steps so far of a run that ends before its time; what is in the way is only told of."""
    try:
        _save_dataset(training, files, path, reporter)
    except JumarError as error:
        reporter.warn(str(error))


def _require_saved(files: Files, run: RunDirectory) -> None:
    """Close the files. Raises ``JumarError`` if something could not be saved, and names it."""
    files.close()
    if files.unsaved:
        raise JumarError(f"training is done, but {' and '.join(files.unsaved)} could not be saved in {run}.")


def _stopped_words(training: Training, files: Files, run: RunDirectory, more: str = "") -> str:
    again = more + repeat_words(
        training.plan.repeat_env, training.plan.repeat_wrappers, training.plan.own_names.encoder
    )
    words = f"stopped after {training.steps} steps; "
    if files.unsaved:
        words += f"{' and '.join(files.unsaved)} could not be saved in {run}. "
    elif training.saved_at == training.steps or training.saved_at is None:
        words += f"everything is saved in {run}. "
    else:
        words += f"the policy is saved in {run}. "
    if training.saved_at is None:
        return words
    again_from = (
        f" from step {training.saved_at}, the last checkpoint (--checkpoint-every says how often there is one),"
    )
    whence = "" if training.saved_at == training.steps else again_from
    return words + f"Go on{whence} with: jumar resume {run}{again}"


def _summary(training: Training, run: RunDirectory) -> dict[str, Any]:
    """Return what ``--json`` prints."""
    plan = training.plan
    each = [
        {
            "run_dir": str(one),
            "seed": seed,
            "ep_rew_mean": training.episodes[i].mean_return,
            "last_eval_mean": training.last_evaluation[i],
            "last_eval_cut_episodes": training.last_cut[i],
            **_known(ep_cost_mean=training.episodes[i].mean_cost),
        }
        for i, (one, seed) in enumerate(zip(lanes(run, plan), plan.seeds, strict=True))
    ]
    summary = {
        "run_dir": str(run),
        "repeat_env": plan.repeat_env,
        "repeat_wrappers": plan.repeat_wrappers,
        "repeat_encoder": plan.own_names.encoder,
        "algorithm": plan.algorithm,
        "env": plan.environment_name,
        "backend": plan.backend,
        "preset": plan.preset,
        "seed": plan.seed,
        "total_timesteps": training.steps,
        "planned_timesteps": plan.whole_iterations,
        "stopped_by": training.stopped_by,
        "wall_time_s": training.elapsed,
        "steps_per_second": training.steps_per_second,
        "compile_time_s": training.stopwatch.compiling,
        "ep_rew_mean": _mean([lane["ep_rew_mean"] for lane in each]),
        "last_eval_mean": _mean([lane["last_eval_mean"] for lane in each]),
        "last_eval_cut_episodes": sum(training.last_cut),
        **_known(ep_cost_mean=_mean([lane.get("ep_cost_mean") for lane in each])),
    }
    return summary if plan.n_seeds is None else {**summary, "runs": each}


def _why_stopped(training: Training) -> str:
    """Return what stopped a run before its total, as the end of a sentence; nothing where nothing did."""
    if training.stopped_by is None:
        return ""
    value = getattr(training.plan, training.stopped_by)
    return f" and was stopped by {training.stopped_by}={value:g}; to go on all the same, give --total-timesteps"


def _known(**values: Any) -> dict[str, Any]:
    """Return the values that are not ``None``."""
    return {name: x for name, x in values.items() if x is not None}


def _mean(values: list[Any]) -> float | None:
    known = [x for x in values if x is not None]
    return float(np.mean(known)) if known else None
