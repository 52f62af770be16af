"""From what the user asked for to a plan in which everything is settled."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from jumar import presets
from jumar.algorithms.registry import Algorithm, algorithm
from jumar.console.reporter import Reporter
from jumar.envs.gymnasium_factory import import_module
from jumar.envs.registry import EnvironmentId, TypedWrapper, parse_wrapper, resolve
from jumar.envs.sources import NO_ENVIRONMENT, FromId
from jumar.envs.step_costs import parse_cost
from jumar.errors import JumarError, UnsupportedEnvironment, UsageError, unknown
from jumar.networks.own import OwnEncoder
from jumar.policies.own_code import NO_CODE, OwnCode
from jumar.presets import Preset
from jumar.text import repeat_words
from jumar.training.config_file import choose_preset
from jumar.training.data import StartData, check_data
from jumar.training.events import read_keys
from jumar.training.plan import MOST_RUNNERS, MOST_STEPS, Plan, check_count, check_n_seeds, check_seed
from jumar.training.request import TrainRequest
from jumar.training.training import Training
from jumar.training.warm_start import WarmStart
from jumar.xla.compiler import count_processors

SLOW_STEP = 300e-6
"""Seconds: where a Gymnasium environment's step takes longer, worker processes are worth their overhead."""
EVALUATIONS = 10
"""How many evaluations a run has unless told."""
CHECKPOINTS = 10
"""How many checkpoints a run has unless told."""


def make_plan(
    request: TrainRequest,
    reporter: Reporter,
    start: WarmStart | None = None,
    data: StartData | None = None,
    own: OwnCode = NO_CODE,
) -> Plan:
    """Resolve a request: every setting gets its value.

    Args:
        request: what was asked for.
        reporter: whom to tell what was chosen.
        start: what ``request.init_from`` holds.
        data: the data set.
        own: what ``request.encoder`` names.

    Raises:
        UsageError: something in it is unknown or out of range.
    """
    chosen = algorithm(request.algorithm)
    check_n_seeds(request.n_seeds)
    check_seed(request.seed, request.n_seeds)
    check_count("total_timesteps", request.total_timesteps, 1, MOST_STEPS)
    check_count("eval_episodes", request.eval_episodes, 1)
    for name in ("eval_every", "checkpoint_every", "workers"):
        if (value := getattr(request, name)) is not None:
            check_count(name, value, 0)
    if request.runners is not None:
        check_count("runners", request.runners, 0, MOST_RUNNERS)
    environment = _environment_of(request, reporter, data)
    name = environment.name if environment else ""
    given = request.settings if request.n_envs is None else {**request.settings, "n_envs": request.n_envs}
    if start is not None:
        given = start.completed(given, chosen.settings)
    preset = preset_for(chosen, environment, request.preset)
    if data is not None:
        given = data.completed(given, chosen)
    settings = chosen.make_settings(presets.merged(preset, given))
    check_data(chosen, settings, data)
    if preset:
        reporter.note(f"preset: {preset}")
    eval_every = request.eval_every if environment else 0
    if eval_every is None:
        eval_every = max(1, request.total_timesteps // EVALUATIONS)
    workers = request.workers
    if workers is None:
        workers = choose_workers(environment, settings.n_envs, reporter) if environment else 0
    return Plan(
        cost=parse_cost(request.cost),
        algorithm=chosen.name,
        settings=settings,
        environment=environment,
        environment_name=name or NO_ENVIRONMENT,
        seed=request.seed,
        total_timesteps=request.total_timesteps,
        eval_every=eval_every,
        eval_episodes=request.eval_episodes,
        checkpoint_every=request.checkpoint_every or 0,
        n_seeds=request.n_seeds,
        workers=workers,
        preset=preset.name if preset else None,
        own_names=own.names,
        own=own,
        init_from=start.origin if start else None,
        data=data.origin if data else None,
        stop_at_return=request.stop_at_return,
        stop_without_gain=request.stop_without_gain,
        log_info=read_keys(request.log_info),
        lanes=request.runners is not None,
    )


def preset_for(chosen: Algorithm, environment: EnvironmentId | None, asked: Any) -> Preset | None:
    """Return the preset of an algorithm in an environment, or the one asked for; see :func:`choose_preset`."""
    if environment is None:
        return choose_preset(chosen, "", asked)
    wrapped = bool(environment.wrappers)
    return choose_preset(chosen, environment.name, asked, atari=environment.atari, wrapped=wrapped)


def _environment_of(request: TrainRequest, reporter: Reporter, data: StartData | None) -> EnvironmentId | None:
    """Return the environment that was asked for; ``None`` where a data set is learnt from without one.

    Raises:
        UsageError: there is none, or something about it is wrong.
    """
    if request.env is None:
        if data is None or not data.origin.alone:
            raise UsageError(f"an environment is missing; write, say, jumar train {request.algorithm} CartPole-v1.")
        if request.eval_every:
            raise UsageError(f"eval_every={request.eval_every} needs an environment; give one, or leave it out.")
        return None
    wrappers = tuple((name, dict(kwargs)) for name, kwargs in request.wrappers)
    processes = (request.workers or 0) if request.runners is None else 1
    environment = resolve(request.env, request.env_kwargs, request.frame_stack, wrappers, processes, request.atari)
    if environment.compiled and request.workers:
        raise UsageError(f"workers={request.workers}, but {request.env} is compiled and is not stepped by processes.")
    if environment.full_name != environment.text:
        reporter.note(f"environment: {environment.full_name}")
    return environment


def choose_workers(environment: EnvironmentId, n_envs: int, reporter: Reporter) -> int:
    """Return how many worker processes to step with: 0 unless a Gymnasium environment's step is slow.

    Slow is a lower quartile of 20 steps above ``SLOW_STEP``: what else runs on the machine only ever makes steps longer.
    Workers change no result, only the time that it takes.
    """
    cores = count_processors()
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
    return min(cores, n_envs) if sorted(times)[len(times) // 4] > SLOW_STEP else 0


def with_checkpoints(plan: Plan, asked: int | None, training: Training, reporter: Reporter) -> Plan:
    """Settle how often to save. Host environments begin anew at a checkpoint, which must not come too often."""
    per_env = training.episode_limit if training.runner.has_barriers else None
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


@dataclass(frozen=True)
class Making:
    """How an environment is made that a run did not have, as typed beside ``--env``."""

    kwargs: Mapping[str, Any] = field(default_factory=dict)
    frame_stack: int | None = None
    atari: bool = False

    @property
    def options(self) -> list[str]:
        """The options that were typed."""
        given = {"--env-kwargs": self.kwargs, "--frame-stack": self.frame_stack, "--atari": self.atari}
        return [option for option, value in given.items() if value]


AS_IT_IS = Making()


def with_environment(
    plan: Plan, env: str | None, wrappers: Sequence[TypedWrapper] = (), making: Making = AS_IT_IS
) -> Plan:
    """Return the plan with the environment and the wrappers of their own that the user repeated; both must be the same.

    Arguments of the environment and of wrappers are remembered, and need not be repeated. A run that learnt without an
    environment gets the one that was typed, made as ``making`` says.

    Raises:
        UsageError: something else was typed, or not everything that is code of the user's own.
    """
    if plan.environment is None and plan.offline:
        if env is None and making.options:
            raise UsageError(f"{making.options[0]} says how an environment is made; give --env ENV with it.")
        # It learnt without one; any of these spaces evaluates it.
        around = [(name, dict(settings)) for name, settings in map(_typed, wrappers)]
        found = env and resolve(env, making.kwargs, making.frame_stack, around, plan.workers, making.atari)
        return replace(plan, environment=found or None)
    if making.options:
        raise UsageError(
            f"{making.options[0]} is for runs that learnt from stored transitions without an environment; that of this run, "
            f"{plan.environment_name}, is made as in training. Leave it out."
        )
    if plan.environment is None:
        raise UsageError(
            f"the run trained in a live object ({plan.environment_name}), which no file can bring back; load it from Python "
            "with jumar.load(path, env=...)."
        )
    saved = plan.environment
    _check_wrappers_repeated(saved, wrappers, env)
    if env is None:
        own_wrappers_alone = saved.module is None and saved.own_wrappers
        return replace(plan, environment=replace(saved, typed=True)) if own_wrappers_alone else plan
    around = [(name, dict(settings)) for name, settings in saved.wrappers]
    processes = plan.workers or int(plan.lanes)
    try:
        typed = resolve(env, dict(saved.kwargs), saved.frame_stack, around, processes, saved.atari)
    except UsageError as error:
        own = saved.own_name or saved.full_name
        if env == own or isinstance(error, UnsupportedEnvironment):
            raise
        raise UsageError(f"{error} This run's environment is {own}.") from None
    if (typed.backend, typed.module, typed.name) != (saved.backend, saved.module, saved.name):
        raise UsageError(f"--env {env} is not the environment of this run, which is {saved.full_name}.")
    return replace(plan, environment=typed)


def typed_code(encoder: str | None) -> OwnCode:
    """Return the code that was typed as ``module:Name``, which is imported.

    Raises:
        UsageError: there is no such module or name.
    """
    if encoder is None:
        return NO_CODE
    module, colon, name = encoder.partition(":")
    if not (module and colon and name):
        raise UsageError(f"--encoder {encoder} must be written as module:Name.")
    found = import_module(module, f"--encoder {encoder}")
    if not hasattr(found, name):
        raise unknown(f"name in module {module}", name, [known for known in vars(found) if not known.startswith("_")])
    return OwnCode(encoder=OwnEncoder(encoder, getattr(found, name)))


def _typed(wrapper: TypedWrapper) -> Any:
    return parse_wrapper(wrapper) if isinstance(wrapper, str) else wrapper


def _check_wrappers_repeated(saved: EnvironmentId, wrappers: Sequence[TypedWrapper], env: str | None) -> None:
    """Refuse wrappers that are not the run's, and a run whose own wrappers were not all typed again."""
    known = {name: dict(settings) for name, settings in saved.wrappers}
    typed = [_typed(wrapper) for wrapper in wrappers]
    for name, settings in typed:
        if name not in known:
            raise UsageError(
                f"--wrapper {name} is not a wrapper of this run, which has {', '.join(known) if known else 'none'}."
            )
        if settings and dict(settings) != known[name]:
            shown = ", ".join(f"{key}={value}" for key, value in known[name].items()) or "no settings"
            raise UsageError(
                f"--wrapper {name} has other settings than in this run, which has {shown}; leave them out."
            )
    if not set(saved.own_wrappers) <= {name for name, _ in typed} and not (saved.module and env is None):
        raise UsageError(
            f"the wrapper {saved.own_wrappers[0]} is code of your own, and nothing named by a file is imported; repeat"
            f"{repeat_words(saved.own_name, saved.own_wrappers)} to allow it."
        )
