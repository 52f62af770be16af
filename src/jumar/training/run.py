"""The jobs behind the commands: train, resume and evaluate a run directory."""

from __future__ import annotations

import math
import os
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jumar.algorithms.registry import algorithm
from jumar.envs.registry import EnvironmentId, resolve
from jumar.errors import DamagedFile, JumarError, UsageError
from jumar.policies import Policy, PolicySettings, make_policy
from jumar.spaces import require_same_spaces, space_from_json
from jumar.training import logs
from jumar.training.cache import enable_compile_cache
from jumar.training.checkpoints import Checkpoint, CheckpointStore
from jumar.training.files import arrays_to_tree
from jumar.training.keeper import Files, write_configs
from jumar.training.loop import Training, make_evaluator
from jumar.training.loop import run as run_loop
from jumar.training.plan import Plan, check_seed
from jumar.training.policy_files import load_policy
from jumar.training.progress import Reporter
from jumar.training.request import TrainRequest
from jumar.training.run_directory import RunDirectory
from jumar.training.signals import StopFlag, Stopped, stop_on_signals
from jumar.training.sources import FromId, Source

SLOW_STEP = 300e-6
"""Seconds: where a Gymnasium environment's step takes longer, worker processes are worth their overhead."""
EVALUATIONS = 10
"""How many evaluations a run has unless told."""
MOST_SEEDS = 10_000
"""How many seeds may share a program."""
CHECKPOINTS = 10
"""How many checkpoints a run has unless told."""


def train(request: TrainRequest, reporter: Reporter) -> dict[str, Any]:
    """Train as requested, into a new run directory; return the summary that ``--json`` prints.

    Raises:
        UsageError: something in the request is wrong; nothing was written.
        Stopped: a signal came; everything is saved.
        JumarError: training could not go on; the last good state is saved.
    """
    enable_compile_cache(reporter.warn)
    plan = make_plan(request, reporter)
    assert plan.environment is not None
    source = FromId(plan.environment)
    with ExitStack() as stack:
        stop = stack.enter_context(stop_on_signals(reporter.note))
        training = Training(plan, source, reporter)
        stack.callback(training.close)
        training.plan = plan = _with_checkpoints(plan, request.checkpoint_every, training, reporter)
        run = RunDirectory.create(request.run_dir, plan.algorithm, request.env, plan.seed)
        stack.enter_context(run.lock())
        write_configs(run, plan)
        files = _open_files(stack, run, training, reporter, None)
        _announce(reporter, plan, run, None)
        files.checkpoint(training)
        training.restart()
        return _run(training, files, run, reporter, stop)


def resume(run_path: Path, total_timesteps: int | None, env: str | None, reporter: Reporter) -> dict[str, Any]:
    """Go on from the newest sound checkpoint, to the same total or to a new one; return the summary.

    Raises:
        UsageError: there is no run, it cannot be resumed, or it needs ``--env`` repeated.
        DamagedFile: no checkpoint is sound.
    """
    enable_compile_cache(reporter.warn)
    run = RunDirectory.open(run_path)
    refuse_part_of_many(run)
    saved = run.read_config()
    plan = with_environment(Plan.from_json(saved), env)
    with ExitStack() as stack:
        stop = stack.enter_context(stop_on_signals(reporter.note))
        stack.enter_context(run.lock())
        checkpoint = _newest(run)
        start = checkpoint.step if checkpoint else 0
        for words in [*(checkpoint.warnings if checkpoint else ()), *plan.differences_in_versions(saved)]:
            reporter.warn(words)
        if total_timesteps is not None and total_timesteps != plan.total_timesteps:
            if total_timesteps < start:
                raise UsageError(f"total_timesteps={total_timesteps}, but {run} has already trained for {start} steps.")
            plan = plan.with_total(total_timesteps)
            reporter.note(f"the new total is {total_timesteps} steps; schedules are anchored to it")
        assert plan.environment is not None
        training = Training(plan, FromId(plan.environment), reporter)
        stack.callback(training.close)
        if checkpoint:
            restore(training, checkpoint, run)
            _check_logs(run, plan, checkpoint, reporter)
        try:
            if total_timesteps is not None:
                write_configs(run, plan)
            _cut_back(run, plan, start)
        except OSError as error:
            raise JumarError(f"{run} cannot be written ({error.strerror}), so the run cannot go on there.") from error
        files = _open_files(stack, run, training, reporter, start)
        files.take_back_best(training)
        if training.steps >= plan.total_timesteps:
            reporter.note(f"{run} is finished: it has trained for {training.steps} steps")
            files.policies(training)
            return _summary(training, run)
        _announce(reporter, plan, run, start)
        if not checkpoint:
            files.checkpoint(training)
        training.saved_at = start
        training.restart()
        return _run(training, files, run, reporter, stop)


def _newest(run: RunDirectory) -> Checkpoint | None:
    """Return the newest sound checkpoint, ``None`` for a run that was killed before it had any."""
    store = CheckpointStore(run.checkpoints)
    return store.newest() if store.steps() else None


def evaluate(run_path: Path, episodes: int, seed: int, stochastic: bool, best: bool, env: str | None) -> dict[str, Any]:
    """Run episodes of a run's policy in fresh environments; the run is not changed. Return the numbers to print.

    Raises:
        UsageError: no run or policy is there, or it needs ``--env`` repeated.
        DamagedFile: a file is damaged, or the environment's spaces are not those that the policy was trained in.
    """
    enable_compile_cache(lambda words: None)
    if episodes < 1:
        raise UsageError(f"episodes={episodes} is out of range: it must be at least 1.")
    check_seed(seed, episodes)
    run = RunDirectory.open(run_path)
    if run.seeds():
        raise UsageError(f"{run} holds several seeds; evaluate one of them, such as {run.seed(run.seeds()[0])}.")
    plan = with_environment(Plan.from_json(run.read_config()), env)
    folder = run.best if best else run.policy
    if not (folder / "policy.json").exists():
        other = "" if best or not (run.best / "policy.json").exists() else ", or use its best one so far with --best"
        what = "best policy: it was never evaluated" if best else f"final policy: go on with jumar resume {run}{other}"
        raise UsageError(f"{run} has no {what}.")
    policy, parameters, moments, spaces = read_policy(folder)
    assert plan.environment is not None
    source = FromId(plan.environment)
    check_same_spaces(source, spaces)
    evaluator = make_evaluator(source, policy, plan.workers, not stochastic)
    return {"run_dir": str(run), **evaluator(parameters, moments, episodes, seed).summary()}


def read_policy(folder: Path) -> tuple[Policy, Any, Any, tuple[Any, Any]]:
    """Return a saved policy, its parameters, its observation moments, and its (observation, action) spaces.

    Raises:
        UsageError: there is none.
        DamagedFile: it is damaged or foreign.
    """
    arrays, description = load_policy(folder)
    try:
        spaces = space_from_json(description["observation_space"]), space_from_json(description["action_space"])
        policy = make_policy(*spaces, PolicySettings.make(description["policy"]))
    except (KeyError, TypeError, UsageError) as error:
        raise DamagedFile(f"{folder / 'policy.json'} does not describe a policy of this version: {error}.") from None
    template = {
        "parameters": jax.eval_shape(policy.init, jax.random.PRNGKey(0)),
        "observation_moments": jax.eval_shape(policy.encoder.initial_moments),
    }
    tree = arrays_to_tree(template, arrays, folder / "policy.safetensors")
    return policy, tree["parameters"], tree["observation_moments"], spaces


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


def make_plan(request: TrainRequest, reporter: Reporter) -> Plan:
    """Resolve a request: every setting gets its value.

    Raises:
        UsageError: something in it is unknown or out of range.
    """
    chosen = algorithm(request.algorithm)
    if request.preset not in (None, "none"):
        raise UsageError(f"unknown preset {request.preset!r}: there are no presets yet; use --preset none.")
    check_seed(request.seed, request.n_seeds)
    for name in ("total_timesteps", "eval_episodes", "n_seeds"):
        if (value := getattr(request, name)) is not None and value < 1:
            raise UsageError(f"{name}={value} is out of range: it must be at least 1.")
    if request.total_timesteps >= 10**12:
        raise UsageError(f"total_timesteps={request.total_timesteps} is out of range: it must be below 10^12.")
    if (request.n_seeds or 0) > MOST_SEEDS:
        raise UsageError(f"n_seeds={request.n_seeds} is out of range: it must be at most {MOST_SEEDS}.")
    for name in ("eval_every", "checkpoint_every", "workers"):
        if (value := getattr(request, name)) is not None and value < 0:
            raise UsageError(f"{name}={value} is out of range: it must be at least 0.")
    given = request.settings if request.n_envs is None else {**request.settings, "n_envs": request.n_envs}
    settings = chosen.settings.make(given)
    wrappers = tuple((name, dict(kwargs)) for name, kwargs in request.wrappers)
    environment = resolve(request.env, request.env_kwargs, request.frame_stack, wrappers, request.workers or 0)
    if environment.compiled and request.workers:
        raise UsageError(f"workers={request.workers}, but {request.env} is compiled and is not stepped by processes.")
    if environment.full_name != environment.text:
        reporter.note(f"environment: {environment.full_name}")
    eval_every = request.eval_every
    return Plan(
        algorithm=chosen.name,
        settings=settings,
        environment=environment,
        environment_name=environment.name,
        seed=request.seed,
        total_timesteps=request.total_timesteps,
        eval_every=max(1, request.total_timesteps // EVALUATIONS) if eval_every is None else eval_every,
        eval_episodes=request.eval_episodes,
        checkpoint_every=request.checkpoint_every or 0,
        n_seeds=request.n_seeds,
        workers=request.workers
        if request.workers is not None
        else choose_workers(environment, settings.n_envs, reporter),
        preset=None,
    )


def choose_workers(environment: EnvironmentId, n_envs: int, reporter: Reporter) -> int:
    """Return how many worker processes to step with: 0 unless a Gymnasium environment's step is slow.

    Workers change no result, only the time that it takes.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if environment.backend != "gymnasium" or n_envs < 2 or cores < 2:
        return 0
    environments = FromId(environment).make_host(1, 0, reporter.warn)
    try:
        space = environments.action_space
        space.seed(0)
        environments.reset([0])
        times = []
        for _ in range(20):
            start = time.perf_counter()
            environments.step(np.asarray(space.sample())[None])
            times.append(time.perf_counter() - start)
    except JumarError:
        return 0  # a random action may not be allowed here; if something is wrong, training will say it
    finally:
        environments.close()
    return min(cores, n_envs) if sorted(times)[len(times) // 2] > SLOW_STEP else 0


def _with_checkpoints(plan: Plan, asked: int | None, training: Training, reporter: Reporter) -> Plan:
    """Settle how often to save. Host environments begin anew at a checkpoint, which must not come too often."""
    per_env = training.episode_limit if training.runner.restartable else None
    comfortable = 10 * (per_env or 0) * plan.settings.n_envs
    if asked is None:
        every = max(math.ceil(plan.total_timesteps / CHECKPOINTS), comfortable)
        return replace(plan, checkpoint_every=every if every < plan.total_timesteps else 0)
    if 0 < asked < comfortable:
        reporter.warn(
            f"--checkpoint-every {asked} is under ten episode limits ({comfortable} steps with {plan.settings.n_envs} "
            "environments): episodes that it cuts short do not count in the training return."
        )
    return replace(plan, checkpoint_every=asked)


def with_environment(plan: Plan, env: str | None) -> Plan:
    """Return the plan with the environment that the user repeated, which must be the same one."""
    if plan.environment is None:
        raise UsageError(
            f"the run trained in a live object ({plan.environment_name}), which no file can bring back; load it from Python "
            "with jumar.load(path, env=...)."
        )
    if env is None:
        return plan
    saved = plan.environment
    typed = resolve(env, dict(saved.kwargs), saved.frame_stack, [(n, dict(s)) for n, s in saved.wrappers], plan.workers)
    if (typed.backend, typed.module, typed.name) != (saved.backend, saved.module, saved.name):
        raise UsageError(f"--env {env} is not the environment of this run, which is {saved.full_name}.")
    return replace(plan, environment=typed)


def refuse_part_of_many(run: RunDirectory) -> None:
    """Raise a ``UsageError`` for one seed of a run of several: the state of all is kept together, in the run."""
    parent = run.path.resolve().parent
    if not run.checkpoints.exists() and (parent / "config.json").exists():
        raise UsageError(f"{run} is one seed of a run of several; resume the whole run: jumar resume {parent}.")


def restore(training: Training, checkpoint: Checkpoint, run: RunDirectory) -> None:
    """Put a training back to a checkpoint.

    Raises:
        UsageError: the environment's spaces have changed since.
        DamagedFile: the checkpoint does not hold what the run's plan asks for.
    """
    saved = [space_from_json(space) for space in checkpoint.record["spaces"]]
    require_same_spaces(training.spaces, (saved[0], saved[1]), training.source.name)
    state = arrays_to_tree(jax.device_get(training.state), checkpoint.arrays, run.checkpoints)
    training.restore(state, checkpoint.record)


def lanes(run: RunDirectory, plan: Plan) -> list[RunDirectory]:
    """Return the run directory of each seed: the run itself where there is only one."""
    return [run] if plan.n_seeds is None else [run.seed(seed) for seed in plan.seeds]


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
    CheckpointStore(run.checkpoints).discard_after(step)
    for one in lanes(run, plan):
        logs.cut(one.metrics, step)
        logs.cut(one.evaluations, step)


def _open_files(
    stack: ExitStack, run: RunDirectory, training: Training, reporter: Reporter, resumed_at: int | None
) -> Files:
    files = Files(run, training, reporter, resumed_at)
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
        "run_dir": str(run),
        "device": jax.devices()[0].platform,
        "n_seeds": plan.n_seeds,
    }
    reporter.started(info if start_step is None else {**info, "start_step": start_step})


def _run(training: Training, files: Files, run: RunDirectory, reporter: Reporter, stop: StopFlag) -> dict[str, Any]:
    try:
        run_loop(training, files, reporter, stop)
    except Stopped as stopped:
        raise Stopped(stopped.signal_number, _stopped_words(training, files, run)) from None
    if files.unsaved:
        raise JumarError(f"training is done, but {' and '.join(files.unsaved)} could not be saved in {run}.")
    summary = _summary(training, run)
    reporter.finished(summary)
    return summary


def _stopped_words(training: Training, files: Files, run: RunDirectory) -> str:
    again = f" --env {training.plan.repeat_env}" if training.plan.repeat_env else ""
    words = f"stopped after {training.steps} steps; "
    if files.unsaved:
        words += f"{' and '.join(files.unsaved)} could not be saved in {run}. "
    else:
        words += f"everything is saved in {run}. "
    if training.saved_at is None:
        return words
    whence = "" if training.saved_at == training.steps else f" from step {training.saved_at}, the last checkpoint,"
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
        }
        for i, (one, seed) in enumerate(zip(lanes(run, plan), plan.seeds, strict=True))
    ]
    summary = {
        "run_dir": str(run),
        "repeat_env": plan.repeat_env,
        "algorithm": plan.algorithm,
        "env": plan.environment_name,
        "backend": plan.backend,
        "seed": plan.seed,
        "total_timesteps": training.steps,
        "wall_time_s": training.elapsed,
        "steps_per_second": training.steps_per_second,
        "compile_time_s": training.stopwatch.compiling,
        "ep_rew_mean": _mean([lane["ep_rew_mean"] for lane in each]),
        "last_eval_mean": _mean([lane["last_eval_mean"] for lane in each]),
    }
    return summary if plan.n_seeds is None else {**summary, "runs": each}


def _mean(values: list[Any]) -> float | None:
    known = [x for x in values if x is not None]
    return float(np.mean(known)) if known else None
