"""From a plan and a source to what they ask for: the update, the runner, the evaluator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import jax
import numpy as np

from jumar.algorithms.off_policy.update import OffPolicy
from jumar.algorithms.on_policy.costs import check_one_cost
from jumar.algorithms.registry import algorithm
from jumar.algorithms.update import Update
from jumar.collecting.evaluation import LANES, Evaluator, compiled_evaluator, host_evaluator
from jumar.collecting.faults import CostWatch
from jumar.collecting.halves import Halves
from jumar.collecting.host import HostRunner
from jumar.collecting.info_means import InfoMeans, not_numbers
from jumar.collecting.programs import CompiledRunner
from jumar.collecting.runner import Runner
from jumar.collecting.stored import StoredRunner
from jumar.envs.compiled import stacked_frames, stated_limit, traced_info
from jumar.envs.goals import check_goal_space
from jumar.envs.host import HostEnvironments, Warn, words_on_mask, words_on_text
from jumar.envs.sources import NoEnvironment, Source, for_evaluation
from jumar.errors import EnvironmentFault, UnsupportedEnvironment, UsageError
from jumar.experience.hindsight import DESIRED
from jumar.lanes.crew import HERE, Spread, make_crew
from jumar.lanes.gatherer import LaneGatherer
from jumar.lanes.records import LaneMaking
from jumar.policies.policy import Policy, PolicySettings, make_policy
from jumar.spaces import check_spaces, require_same_spaces
from jumar.training.allowance import available_memory, check_allowance
from jumar.training.plan import Plan
from jumar.training.remembered import Buffer

Spaces = tuple[gym.Space[Any], gym.Space[Any]]


def assemble(
    plan: Plan,
    source: Source,
    warn: Warn,
    trained: Spaces | None = None,
    info: InfoMeans | None = None,
    spread: Spread = HERE,
    *,
    allocated: bool = False,
) -> tuple[Update, Runner, Spaces, int | None]:
    """Put together the update and the runner that a plan asks for; return the spaces and the stated time limit too.

    ``trained`` are the spaces that the policy was trained in before, if it was, which the environment's must equal. ``info``
    adds up the entries of ``info`` that are logged. ``spread`` says who steps lanes, where the plan asks for them.
    ``allocated``: whether the memory for a replay buffer is taken already.
    """
    settings = plan.settings
    if plan.lanes:
        check_lanes(source, settings.n_envs, spread)
    if plan.offline:
        return _assemble_offline(plan, source, warn, allocated)
    if source.compiled:
        env = source.make_compiled()
        spaces = env.observation_space, env.action_space
        update = make_update(plan, source, spaces, trained, stacked_frames(env), allocated)
        if update.counts_episodes:
            raise UsageError(
                f"train_freq counts episodes, which needs a host environment, and {source.name} is compiled; count steps."
            )
        if update.hindsight is not None:
            raise UsageError(
                f"goal_selection_strategy needs an environment that is stepped on the host and has compute_reward, and "
                f"{source.name} is compiled; leave it out."
            )
        if update.needs_cost:
            check_one_cost(traced_info(env, source.name).get("cost"))
        watch = CostWatch(update, source.cost.required, warn)
        if plan.log_info:
            traced = traced_info(env, source.name)
            for words in not_numbers(traced, plan.log_info):
                warn(words)
            if info is not None:
                info.expect(traced)
        runner = CompiledRunner(
            update, env, source.name, settings.n_envs, settings.rows_per_round, plan.n_seeds, watch, info
        )
        return update, runner, spaces, stated_limit(env)
    if plan.n_seeds is not None:
        raise UsageError(f"n_seeds={plan.n_seeds} needs a compiled environment, and {source.name} is none.")
    check_cost(source, warn)
    environments = _make_host(source, plan, warn)
    if environments.n_envs != settings.n_envs and not plan.lanes:
        raise UsageError(f"n_envs={settings.n_envs}, but {source.name} holds {environments.n_envs} environments.")
    spaces = environments.observation_space, environments.action_space
    _tell_of_observations(environments, warn)
    try:
        update = make_update(plan, source, spaces, trained, environments.frames, allocated)
        if update.needs_cost and environments.never_costs:
            check_one_cost(None)
        if update.hindsight is not None:
            check_goals(environments, source)
            check_goals_seen(settings)
    except Exception:
        environments.close()
        raise
    if environments.resets_take_steps:
        update = update.among_resets()
    watch = CostWatch(update, source.cost.required, warn)
    compiled = Halves if update.apart else jax.jit
    make = _once(environments, source, plan, warn)
    lanes = None
    if plan.lanes:
        making = lane_making(plan, source, update, environments.name)
        lanes = LaneGatherer(
            lambda: make_crew(making, settings.n_envs, spread, warn), make, settings.n_envs, watch.complain, info
        )
    runner = HostRunner(update, make, settings.rows_per_round, watch, compiled, info, lanes)
    return update, runner, spaces, environments.episode_limit


def _assemble_offline(
    plan: Plan, source: Source, warn: Warn, allocated: bool
) -> tuple[Update, Runner, Spaces, int | None]:
    """Put together what learns from a data set; the environment is asked for its spaces alone."""
    limit = None
    if isinstance(source, NoEnvironment):
        spaces = source.spaces
    elif source.compiled:
        env = source.make_compiled()
        spaces, limit = (env.observation_space, env.action_space), stated_limit(env)
    else:
        environments = source.make_host(1, 0, warn)
        spaces, limit = (environments.observation_space, environments.action_space), environments.episode_limit
        _tell_of_observations(environments, warn)
        environments.close()
    update = make_update(plan, source, spaces, allocated=allocated)
    assert isinstance(update, OffPolicy)
    return update, StoredRunner(update, plan.n_seeds), spaces, limit


def check_goals(environments: HostEnvironments, source: Source) -> None:
    """Refuse environments that cannot be learnt from in hindsight.

    Raises:
        UnsupportedEnvironment: they have no goals, or how these are rewarded is not known.
    """
    check_goal_space(environments.observation_space, source.name)
    if environments.rewards_goals:
        return
    if source.backend == "envpool":
        raise UnsupportedEnvironment(
            f"goal_selection_strategy computes rewards of other goals, and how {source.name} rewards goals is not known here; "
            "use an environment that has compute_reward, such as those of Gymnasium-Robotics (pip install gymnasium-robotics)."
        )
    raise UnsupportedEnvironment(
        f"goal_selection_strategy computes rewards of other goals, and {source.name} has no method "
        "compute_reward(achieved_goal, desired_goal, info); give it one, or leave goal_selection_strategy out."
    )


def _tell_of_observations(environments: HostEnvironments, warn: Warn) -> None:
    for words in (words_on_text(environments), words_on_mask(environments)):
        if words is not None:
            warn(words)


def check_goals_seen(settings: PolicySettings) -> None:
    """Refuse networks that do not see the goals that are relabelled for them.

    Raises:
        UsageError: policy or critic does not see the desired goal.
    """
    for name in ("policy_observations", "critic_observations"):
        keys = getattr(settings, name)
        if keys is not None and DESIRED not in keys:
            raise UsageError(
                f"goal_selection_strategy relabels {DESIRED}, and {name}={','.join(keys)} leaves it out; add it, or leave "
                "goal_selection_strategy out."
            )


def check_cost(source: Source, warn: Warn) -> None:
    """Refuse host environments that do not give what the cost is made of, by a step in one of them.

    Where there is only a live object, its first step in training says the same.

    Raises:
        UsageError: they do not.
    """
    if not source.cost.required or not source.rebuildable:
        return
    environments = source.make_host(1, 0, warn)
    try:
        environments.reset([0])
        environments.action_space.seed(0)
        environments.step(np.asarray(environments.action_space.sample())[None])
    except EnvironmentFault:
        return  # a random action may not be allowed here; if something is wrong, training will say it
    finally:
        environments.close()


def make_update(
    plan: Plan, source: Source, spaces: Spaces, trained: Spaces | None = None, frames: int = 1, allocated: bool = False
) -> Update:
    """Put together the algorithm that a plan asks for, for the spaces of an environment; ``trained`` must be the same.

    ``frames`` is how many frames the environment stacks in an image. ``allocated``: whether the memory for a replay buffer is
    taken already.

    Raises:
        UsageError: it is not for these spaces, the user's code that its policy is made of is missing, or its replay buffer does
            not fit into the memory.
    """
    check_spaces(*spaces, source.name)
    if trained is not None:
        require_same_spaces(spaces, trained, source.name)
    plan.own.check(plan.own_names, "the run's policy")
    policy = make_policy(*spaces, plan.settings, plan.own)
    update = algorithm(plan.algorithm).make(plan.settings, policy)
    # Neither stored transitions nor relabelled ones follow each other, as stacks of frames do.
    if plan.data is None and update.hindsight is None:
        update = update.among_frames(frames)
    elif plan.data is not None and isinstance(update, OffPolicy):
        update = update.among_stored()
    if not allocated and (buffer := Buffer.of(update, plan.n_seeds)) is not None:
        check_allowance(buffer, available_memory())
    return update


def _once(first: HostEnvironments, source: Source, plan: Plan, warn: Warn) -> Callable[[], HostEnvironments]:
    """Return a maker of environments that hands out the ones already made first."""
    waiting = [first]

    def make() -> HostEnvironments:
        if waiting:
            return waiting.pop()
        return _make_host(source, plan, warn)

    return make


def _make_host(source: Source, plan: Plan, warn: Warn) -> HostEnvironments:
    """Make the environments of a run; of one with lanes, one that is never stepped."""
    n, workers = (1, 0) if plan.lanes else (plan.settings.n_envs, plan.workers)
    return source.make_host(n, workers, warn, plan.log_info)


def check_lanes(source: Source, n_envs: int, spread: Spread) -> None:
    """Refuse environments that cannot be lanes, and more runners than there are lanes.

    Raises:
        UsageError: the message says what would be right.
    """
    try:
        source.maker()
    except UsageError as error:
        raise UsageError(f"runners={spread.runners}, but {error}") from error
    if spread.runners > n_envs:
        raise UsageError(
            f"runners={spread.runners}, but there are only n_envs={n_envs} environments to be stepped; ask for as many runners "
            "at most, or for more environments."
        )


def lane_making(plan: Plan, source: Source, update: Update, name: str) -> LaneMaking:
    """Return what is needed to step lanes of an environment that is called ``name``."""
    hindsight = update.hindsight
    return LaneMaking(
        source.maker(),
        name,
        update.behaviour,
        plan.settings.rows_per_round,
        source.cost,
        plan.log_info,
        keeps_steps=hindsight is not None,
        keeps_infos=hindsight is not None and hindsight.with_infos,
    )


def make_evaluator(
    source: Source,
    policy: Policy,
    workers: int,
    deterministic: bool = True,
    warn: Warn | None = None,
    tell: Warn | None = None,
) -> Evaluator:
    """Return an evaluator in fresh environments of a source.

    ``warn`` hears of a step that does not return, and ``tell`` once of what is left out of observations.
    """
    source = for_evaluation(source)
    if source.compiled:
        return compiled_evaluator(policy, source.make_compiled(), source.name, deterministic)
    lanes = LANES if source.rebuildable else 1
    untold = [] if tell is None else [tell]

    def make(n: int) -> HostEnvironments:
        environments = source.make_host(n, min(workers, n), warn)
        if untold:
            _tell_of_observations(environments, untold.pop())
        return environments

    return host_evaluator(policy, make, deterministic, lanes)
