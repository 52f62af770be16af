"""The job behind ``jumar check``: what is wrong or slow with an environment, and what a training would make of it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jumar.algorithms.registry import ALGORITHMS
from jumar.envs import pool
from jumar.envs.compiled import CompiledEnvironment, jit_for, reset_batch, step_batch
from jumar.envs.gymnasium_factory import GymnasiumFactory
from jumar.envs.host import HostEnvironments, SerialEnvironments, Warn, words_on_mask, words_on_text
from jumar.envs.registry import EnvironmentId, TypedWrapper, resolve
from jumar.envs.sources import FromId
from jumar.errors import EnvironmentFault, UnsupportedEnvironment, UsageError
from jumar.policies.policy import make_policy
from jumar.spaces import check_spaces
from jumar.text import counted
from jumar.training.checks.course import Course, draw
from jumar.training.checks.findings import Findings
from jumar.training.checks.goal_rewards import check_goal_rewards
from jumar.training.checks.looks import (
    look_at_episodes,
    look_at_info,
    look_at_observations,
    look_at_rewards,
    look_at_spaces,
)
from jumar.training.checks.replays import STEPS as REPLAYED
from jumar.training.checks.replays import check_replays
from jumar.training.checks.watched import Notes, SteppedFromPython, watched
from jumar.training.data import check_data
from jumar.training.plan import check_count, check_seed
from jumar.training.resolve import SLOW_STEP
from jumar.xla.compiler import count_processors, prepare_compiler

STEPS = 1000
"""How many random actions are taken unless told."""
MILLION = 1_000_000
REPLAY_SECONDS, FEWEST_REPLAYED = 4.0, 10
"""A replay of a slow environment takes about so many seconds, and at least so many steps."""
COPIES = 64
"""How many copies of a compiled environment are timed."""
TIMED = 100
"""How many steps of each."""
LONG_RESETS = 0.3
"""The share of the time from which resets are worth a word."""
USUAL = 8
"""Environments side by side that suit most host environments."""


class Bench:
    """One environment, made in the ways that the checks need."""

    def __init__(self, id: EnvironmentId, warn: Warn) -> None:
        self.source, self.id, self._warn = FromId(id), id, warn
        self.notes = Notes() if id.backend == "gymnasium" and not id.atari else None
        self.compiled: CompiledEnvironment | None = self.source.make_compiled() if id.compiled else None

    def make(self, n: int) -> HostEnvironments:
        """Make so many environments that are stepped from Python."""
        if self.compiled is not None:
            return SteppedFromPython(self.compiled, n, self.id.full_name)
        if self.notes is None or n > 1:
            return self.source.make_host(n, 0, self._warn)
        settings = dict(self.id.kwargs), self.id.wrappers, self.id.frame_stack
        factory = GymnasiumFactory(self.id.name, *settings)
        return SerialEnvironments([watched(factory, self.notes)], self.id.text, warn=self._warn)

    def numbers(self, environments: HostEnvironments) -> list[str]:
        """Return the entries of ``info`` that are one number, as far as they were seen."""
        if self.notes is not None:
            return sorted(self.notes.numbers)
        if isinstance(environments, SteppedFromPython):
            return environments.numbers
        infos = getattr(environments, "last_info", {})
        return sorted(
            key for key, value in infos.items() if np.ndim(value) == 1 and np.asarray(value).dtype.kind in "fiub"
        )


def check(
    env: str,
    *,
    kwargs: Mapping[str, Any] | None = None,
    frame_stack: int | None = None,
    wrappers: Sequence[TypedWrapper] = (),
    atari: bool = False,
    seed: int = 0,
    steps: int = STEPS,
    warn: Warn | None = None,
) -> dict[str, Any]:
    """Look at an environment; return what was found, which ``--json`` prints.

    Raises:
        UsageError: there is no such environment, or it does not take what it is given.
    """
    check_count("steps", steps, 1)
    check_seed(seed)
    prepare_compiler(lambda words: None)
    id = resolve(env, kwargs, frame_stack, wrappers, atari_games=atari)
    findings, course = Findings(), Course()
    numbers: dict[str, Any] = {"digest": None, "workers": 0, "algorithms": []}
    spaces: tuple[Any, Any] | None = None
    try:
        bench = Bench(id, warn or (lambda words: None))
        environments = bench.make(1)
    except (EnvironmentFault, UnsupportedEnvironment) as error:
        findings.prevent(str(error))
    else:
        try:
            spaces = environments.observation_space, environments.action_space
            _look(findings, course, bench, environments, seed, steps, numbers)
        finally:
            environments.close()
    if spaces is not None and not findings.prevents:
        numbers["algorithms"] = _fitting(findings, spaces, bool(course.costs))
    return {
        "env": env,
        "name": id.full_name,
        "can_train": not findings.prevents,
        "what": findings.what,
        "wrong": findings.wrong,
        "prevents": findings.prevents,
        "slow": findings.slow,
        "right": findings.right,
        "episodes": len(course.returns),
        "mean_return": float(np.mean(course.returns)) if course.returns else None,
        "mean_length": float(np.mean(course.lengths)) if course.lengths else None,
        "step_seconds": course.step_seconds,
        "reset_seconds": course.reset_seconds,
        **numbers,
    }


def _look(
    findings: Findings,
    course: Course,
    bench: Bench,
    environments: HostEnvironments,
    seed: int,
    steps: int,
    numbers: dict[str, Any],
) -> None:
    """Look at an environment that could be made."""
    spaces = environments.observation_space, environments.action_space
    try:
        check_spaces(*spaces, bench.source.name)
    except UsageError as error:
        findings.prevent(str(error))
        return
    look_at_spaces(findings, *spaces)
    if words := words_on_text(environments):
        findings.what.append(words)
    if words := words_on_mask(environments):
        findings.suspect(words)
    if findings.prevents:
        return
    try:
        course.play(environments, steps, seed)
        if bench.id.backend != "envpool":  # whose reset makes a new pool
            course.time_resets(environments, seed + steps)
    except EnvironmentFault as fault:
        findings.prevent(str(fault))
        return  # too little was seen to judge the rest by
    look_at_observations(findings, course, bench.notes)
    look_at_rewards(findings, course)
    look_at_episodes(findings, course, environments.episode_limit, bench.source.time_limit_remedy, bench.notes)
    look_at_info(findings, bench.numbers(environments))
    try:
        check_goal_rewards(findings, environments, seed)
        independent = bench.compiled is not None
        affordable = max(FEWEST_REPLAYED, int(REPLAY_SECONDS / (course.step_seconds or 1e-6)))
        repeated = min(steps, REPLAYED, affordable)
        numbers["digest"] = check_replays(findings, bench.make, seed, repeated, independent)
    except EnvironmentFault as fault:
        findings.prevent(str(fault))
        return
    numbers["workers"] = _look_at_speed(findings, course, bench)


def _look_at_speed(findings: Findings, course: Course, bench: Bench) -> int:
    """Say how fast it is and what training would make of it; return the number of worker processes."""
    if bench.compiled is not None:
        per_second = _compiled_speed(bench.compiled)
        findings.slow.append(
            f"{COPIES} copies in one program take {per_second:,.0f} steps a second; a million steps take at least "
            f"{_duration(MILLION / per_second)}, beside what learning takes."
        )
        findings.right.append(f"Many copies side by side, since they are one program: --n-envs {COPIES} or so.")
        return 0
    cores = count_processors()
    side = USUAL if bench.id.backend == "envpool" else 1
    step = _pool_seconds(bench, side) if side > 1 else course.step_seconds
    if step is None:
        return 0
    slow = bench.id.backend == "gymnasium" and step > SLOW_STEP
    workers = min(cores, USUAL) if slow and cores > 1 else 0
    resets = f", a reset {_duration(course.reset_seconds)}" if course.reset_seconds is not None else ""
    where = f"each of {side} side by side" if side > 1 else "of one environment in this process"
    findings.slow.append(f"A step takes {_duration(step)}{resets} (medians, {where}).")
    findings.slow.append(
        f"A million steps take at least {_duration(MILLION * step / max(workers, 1))}"
        + (f" with {workers} worker processes" if workers else "")
        + ", beside what learning takes."
    )
    _look_at_resets(findings, course, step)
    n_envs = -(-USUAL // cores) * cores
    if workers:
        findings.right.append(
            f"Worker processes: --n-envs {n_envs}; jumar train then takes --workers {min(cores, n_envs)} itself."
        )
    else:
        findings.right.append(f"--n-envs {n_envs}, and no worker processes: they would cost more than they save.")
    plain = not bench.id.wrappers and bench.id.frame_stack is None and bench.id.module is None
    if bench.id.backend == "gymnasium" and plain and pool.available(bench.id.name):
        findings.right.append(f"EnvPool has it too, and steps it in compiled code: envpool/{bench.id.name}.")
    return workers


def _look_at_resets(findings: Findings, course: Course, step: float) -> None:
    if course.reset_seconds is None or not course.lengths:
        return
    share = course.reset_seconds / (course.reset_seconds + float(np.mean(course.lengths)) * step)
    if share > LONG_RESETS:
        findings.slow.append(f"Resets take {share:.0%} of the time of random episodes.")
        findings.right.append("Do once in the constructor what a reset need not do again, such as loading files.")


def _pool_seconds(bench: Bench, n: int) -> float | None:
    """Return the median time of a step of EnvPool with ``n`` environments, per environment; ``None`` if it fails."""
    environments = bench.make(n)
    try:
        random, space = np.random.default_rng(0), environments.action_space
        environments.reset(list(range(n)))
        times = []
        for _ in range(TIMED):
            actions = np.stack([draw(space, None, random) for _ in range(n)])
            start = time.perf_counter()
            environments.step(actions)
            times.append((time.perf_counter() - start) / n)
    except EnvironmentFault:  # a random action may not be allowed here
        return None
    finally:
        environments.close()
    return float(np.median(times))


def _compiled_speed(env: CompiledEnvironment) -> float:
    """Return the steps a second of many copies in one program."""
    action = np.asarray(env.action_space.sample())

    @jit_for(env)
    def run(key: jax.Array) -> Any:
        states, _ = reset_batch(env, env.params, key, COPIES)
        actions = jnp.broadcast_to(jnp.asarray(action), (COPIES, *action.shape))

        def one(states: Any, key: jax.Array) -> tuple[Any, Any]:
            states, step = step_batch(env, env.params, key, states, actions)
            return states, (step.rewards, step.observations)

        return jax.lax.scan(one, states, jax.random.split(key, TIMED))

    jax.block_until_ready(run(jax.random.PRNGKey(0)))
    start = time.perf_counter()
    jax.block_until_ready(run(jax.random.PRNGKey(1)))
    return COPIES * TIMED / (time.perf_counter() - start)


def _fitting(findings: Findings, spaces: tuple[Any, Any], costs: bool) -> list[str]:
    """Return the methods that can be trained in these spaces, and say which and why others cannot."""
    fit, others = [], {}
    for name, chosen in ALGORITHMS.items():
        try:
            settings = chosen.make_settings({})
            check_data(chosen, settings, None)
            update = chosen.make(settings, make_policy(*spaces, settings))
        except UsageError as error:
            others[name] = str(error)
            continue
        if update.needs_cost and not costs:
            others[name] = f"{name} needs a cost for each step, and random actions gave no info['cost']."
        else:
            fit.append(name)
    findings.what.append(f"Methods that fit, with their own settings: {', '.join(fit)}." if fit else "No method fits.")
    for reason in dict.fromkeys(others.values()):
        findings.what.append(f"Not {', '.join(name for name, words in others.items() if words == reason)}: {reason}")
    if not fit:
        findings.prevent("No method can be trained in these spaces.")
    return fit


def _duration(seconds: float | None) -> str:
    """Return a time in its own unit, as ``0.034 ms`` or ``3.4 min``."""
    if seconds is None:
        return "an unknown time"
    unit, size = next(
        ((unit, size) for unit, size in (("h", 3600.0), ("min", 60.0), ("s", 1.0)) if seconds >= size), ("ms", 1e-3)
    )
    return f"{seconds / size:.2g} {unit}" if seconds < size * 100 else f"{seconds / size:,.0f} {unit}"


GROUPS: Sequence[tuple[str, str]] = (
    ("what", "What it is"),
    ("wrong", "What is wrong"),
    ("slow", "How fast it is"),
    ("right", "What would be right"),
)


def words(report: Mapping[str, Any]) -> str:
    """Return a report as a person reads it."""
    lines = [f"{report['env']} is {report['name']}" if report["env"] != report["name"] else report["name"]]
    for key, title in GROUPS:
        entries = [*report[key]] or (["Nothing was found."] if key == "wrong" else [])
        if entries:
            lines += ["", title, *(f"- {entry}" for entry in entries)]
    verdict = "It can be trained in." if report["can_train"] else "It cannot be trained in."
    many = len(report["wrong"])
    extra = (
        f" {counted(many, 'thing')} above {'is' if many == 1 else 'are'} worth a look."
        if many and report["can_train"]
        else ""
    )
    return "\n".join([*lines, "", verdict + extra])
