"""The training loop: iterate, and at steps that the plan names evaluate and save."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jumar.algorithms.on_policy import Learner, OnPolicy
from jumar.algorithms.registry import algorithm
from jumar.critics import make_critic
from jumar.envs.host import HostEnvironments, Warn
from jumar.errors import TrainingFailed, UsageError
from jumar.policies import Policy, make_policy
from jumar.spaces import check_spaces, space_to_json
from jumar.training.evaluation import LANES, LONGEST, Abandoned, Evaluator, compiled_evaluator, host_evaluator, never
from jumar.training.gathering import SEED_LIMIT
from jumar.training.metrics import EpisodeState, EpisodeStatistics, Health
from jumar.training.plan import Plan
from jumar.training.progress import Reporter
from jumar.training.rollouts import CompiledRunner, HostRunner, Outcome, Runner
from jumar.training.signals import StopFlag, Stopped
from jumar.training.sources import Source
from jumar.training.timing import Stopwatch

Metrics = dict[str, float | None]
Spaces = tuple[gym.Space[Any], gym.Space[Any]]
Callback = Callable[[Metrics], bool | None]

EVALUATION = 2**32 - 1
"""Stands in the place of the step in the seed of evaluations, so that no training environment shares it."""


class State(NamedTuple):
    """Everything that a checkpoint keeps in arrays; with several seeds the learner and collector have a leading axis."""

    learner: Learner
    collector: Any
    episodes: list[EpisodeState]
    """An entry per seed."""
    best: list[Any]
    """The policy of the best evaluation of each seed (before the first one: the policy that the run began with)."""


class Keeper(Protocol):
    """Keeps what a run makes. Nothing here raises for a full disk."""

    def iteration(self, lane: int, metrics: Metrics) -> None:
        """Log an iteration of one seed."""
        ...

    def evaluation(self, training: Training, lane: int, record: dict[str, Any], is_best: bool) -> None:
        """Log an evaluation of one seed, and keep its policy if it is the best yet."""
        ...

    def checkpoint(self, training: Training) -> None:
        """Save the state."""
        ...

    def policies(self, training: Training) -> None:
        """Save the policies."""
        ...


class Training:
    """A run under way.

    Args:
        plan: what to do.
        source: where the environments come from.
        reporter: whom to tell.
    """

    def __init__(self, plan: Plan, source: Source, reporter: Reporter) -> None:
        self.plan, self.source, self.reporter = plan, source, reporter
        self.steps = 0
        self.iterations = 0
        self._began = time.perf_counter()
        self.best: list[float | None] = [None] * len(plan.seeds)
        self.best_steps = [0] * len(plan.seeds)
        self.saved_at: int | None = None
        """The step of the newest checkpoint, from which a resumed run goes on."""
        self.last_evaluation: list[float | None] = [None] * len(plan.seeds)
        self.stopwatch = Stopwatch()
        self._steps_here = 0
        self._health = [Health() for _ in plan.seeds]
        self.update, self.runner, self.spaces, self.episode_limit = _build(plan, source, self._warn)
        self._keys = jnp.stack([jax.random.PRNGKey(seed) for seed in plan.seeds])
        self._evaluator: Evaluator | None = None
        self.episodes = [EpisodeStatistics(plan.settings.n_envs) for _ in plan.seeds]
        with self.stopwatch.running():
            self.learner, self.collector = self._first_state()
        self.best_policies = [jax.device_get(self.snapshot(lane)) for lane in range(len(plan.seeds))]

    @property
    def elapsed(self) -> float:
        """Seconds that the run has taken so far, evaluations and compilation included, and interruptions not."""
        return time.perf_counter() - self._began

    @property
    def policy(self) -> Policy:
        """The policy that is trained."""
        return self.update.policy

    @property
    def state(self) -> State:
        """What a checkpoint keeps. The state of host environments cannot be kept: a restart stands for it."""
        collector = () if self.runner.restartable else self.collector
        return State(self.learner, collector, [lane.state for lane in self.episodes], self.best_policies)

    @property
    def record(self) -> dict[str, Any]:
        """What a checkpoint keeps beside the arrays, as JSON-ready data."""
        return {
            "steps": self.steps,
            "iterations": self.iterations,
            "elapsed": self.elapsed,
            "best": self.best,
            "best_steps": self.best_steps,
            "last_evaluation": self.last_evaluation,
            "spaces": [space_to_json(space) for space in self.spaces],
        }

    def restore(self, state: State, record: dict[str, Any]) -> None:
        """Go back to a saved state; host environments begin anew, as they did when it was saved."""
        self.steps, self.iterations = record["steps"], record["iterations"]
        self._began = time.perf_counter() - record["elapsed"]
        self.best, self.best_steps = list(record["best"]), list(record["best_steps"])
        self.best_policies = list(state.best)
        self.last_evaluation = list(record["last_evaluation"])
        self.learner = state.learner
        if not self.runner.restartable:
            self.collector = state.collector
        for lane, episodes in zip(self.episodes, state.episodes, strict=True):
            lane.state = EpisodeState(*(np.array(x) for x in episodes))

    def restart(self) -> None:
        """Begin anew in host environments, from seeds derived from (seed, step); compiled ones go on as they are."""
        if self.runner.restartable:
            self.learner, self.collector = self.runner.restart(self.learner, self.collector, self.plan.seed, self.steps)
            for lane in self.episodes:
                lane.restart()

    def snapshot(self, lane: int) -> tuple[Any, Any]:
        """Return (policy parameters, observation moments) of one seed: all that acting needs."""
        snapshot = self.learner.parameters["policy"], self.learner.observation_moments
        return snapshot if self.plan.n_seeds is None else jax.tree.map(lambda x: x[lane], snapshot)

    def iterate(self) -> list[Metrics]:
        """Collect one rollout and learn from it; return the metrics of each seed.

        Raises:
            EnvironmentFault: an environment failed.
            TrainingFailed: the update made something that is no number. In both cases the state is as it was before.
        """
        plan = self.plan
        remaining = plan.remaining(self.steps)
        keys = jax.vmap(jax.random.fold_in, (0, None))(self._keys, np.uint32(self.iterations + 1))
        with self.stopwatch.running():
            learner, collector, record, outcome = self.runner.iterate(
                self.learner, self.collector, keys if plan.n_seeds else keys[0], remaining
            )
        records, outcomes = self._by_lane(record, outcome)
        for lane, one in enumerate(records):
            self._check_finite(lane, one)
        self.learner, self.collector = learner, collector
        taken = int(outcomes[0].valid.sum())
        self.steps += taken
        self._steps_here += taken * len(outcomes)
        self.iterations += 1
        lanes = enumerate(zip(records, outcomes, strict=True))
        return [self._metrics(i, record, one, remaining) for i, (record, one) in lanes]

    @property
    def steps_per_second(self) -> float | None:
        """Steps of all seeds per second in this process, compilation and evaluation left out."""
        return self._steps_here / self.stopwatch.working if self._steps_here else None

    def evaluate(self, lane: int, episodes: int, stop: Callable[[], Any] = never) -> dict[str, Any]:
        """Run deterministic episodes of one seed's policy in separate environments; training does not notice.

        Raises:
            Abandoned: ``stop`` said so.
        """
        if self._evaluator is None:
            self._evaluator = make_evaluator(self.source, self.policy, self.plan.workers, warn=self._warn)
        seed = evaluation_seed(self.plan.seeds[lane])
        result = self._evaluator(*self.snapshot(lane), episodes, seed, stop)
        summary = result.summary()
        if result.cut:
            self._warn(f"{result.cut} episodes of the evaluation had not ended after {LONGEST:,} steps, and were cut.")
        return {
            "time/total_timesteps": self.steps,
            "step": self.steps,
            "mean_return": summary["mean_return"],
            "std_return": summary["std_return"],
            "returns": summary["returns"],
            "lengths": [int(x) for x in result.lengths],
            "cut_episodes": result.cut,
        }

    def close(self) -> None:
        """Release the environments."""
        self.runner.close()

    def _warn(self, words: str) -> None:
        self.reporter.warn(words)

    def _first_state(self) -> tuple[Learner, Any]:
        def first(key: Array) -> Learner:
            return self.update.init(jax.random.fold_in(key, 0), self.plan.settings.n_envs)

        if self.plan.n_seeds is None:
            key = self._keys[0]
            return jax.jit(first)(key), self.runner.init(jax.random.fold_in(key, 2**31))
        keys = jax.vmap(jax.random.fold_in, (0, None))(self._keys, 2**31)
        return jax.jit(jax.vmap(first))(self._keys), self.runner.init(keys)

    def _by_lane(self, record: dict[str, Any], outcome: Outcome) -> tuple[list[dict[str, Any]], list[Outcome]]:
        if self.plan.n_seeds is None:
            return [record], [outcome]
        lanes = range(self.plan.n_seeds)
        return [jax.tree.map(lambda x, i=i: x[i], record) for i in lanes], [
            Outcome(*(x[i] for x in outcome)) for i in lanes
        ]

    def _check_finite(self, lane: int, record: dict[str, Any]) -> None:
        if bool(record["finite"]):
            return
        which = f" of seed {self.plan.seeds[lane]}" if self.plan.n_seeds else ""
        raise TrainingFailed(
            f"the update after step {self.steps}{which} made parameters that are NaN or infinite (gradient norm "
            f"{float(record['grad_norm']):.3g}); try a lower learning_rate. The last good state is kept."
        )

    def _metrics(self, lane: int, record: dict[str, Any], outcome: Outcome, remaining: float) -> Metrics:
        statistics = self.episodes[lane]
        statistics.add(outcome.rewards, outcome.terminated | outcome.truncated, outcome.valid)
        metrics: Metrics = {
            "time/total_timesteps": self.steps,
            "time/steps_per_second": self.steps_per_second,
            "time/elapsed": self.elapsed,
            "rollout/ep_rew_mean": statistics.mean_return,
            "rollout/ep_len_mean": statistics.mean_length,
        }
        metrics |= {f"train/{name}": float(x) for name, x in record.items() if name != "finite"}
        for name in ("learning_rate", "clip_range"):
            schedule = getattr(self.plan.settings, name, None)
            if schedule is not None:
                metrics[f"train/{name}"] = float(schedule(remaining))
        return metrics

    def health(self, lane: int, metrics: Metrics) -> list[str]:
        """Return what is off, in words."""
        which = f"seed {self.plan.seeds[lane]}: " if self.plan.n_seeds else ""
        return [which + words for words in self._health[lane].check(metrics)]


def run(
    training: Training,
    keeper: Keeper,
    reporter: Reporter,
    stop: StopFlag | None = None,
    callback: Callback | None = None,
) -> None:
    """Train until the plan's total, a signal, or a callback that returns ``False``.

    Raises:
        Stopped: a signal came; the iteration was finished and everything saved before.
        Exception: training cannot go on, or the callback raised; the last good state was saved before.
    """
    plan = training.plan
    try:
        while training.steps < plan.total_timesteps:
            if stop:
                _save_where_it_stopped(training, keeper)
                raise Stopped(stop.signal or 0)
            before = training.steps
            all_metrics = training.iterate()
            last = training.steps >= plan.total_timesteps
            if plan.eval_every and (last or _due(plan.eval_every, before, training.steps)):
                _evaluate(training, keeper, reporter, all_metrics, stop)
            wanted = _tell(training, keeper, reporter, all_metrics, callback)
            if last or _due(plan.checkpoint_every, before, training.steps):
                keeper.checkpoint(training)
                if not last:
                    training.restart()
            if not wanted:
                _save_where_it_stopped(training, keeper)
                return
    except Abandoned:
        # The evaluation belongs to the iteration before it: a resumed run repeats both, from the last checkpoint.
        keeper.policies(training)
        raise Stopped(stop.signal or 0 if stop else 0) from None
    except (Exception, KeyboardInterrupt):
        _save_where_it_stopped(training, keeper)
        raise
    keeper.policies(training)


def _tell(
    training: Training, keeper: Keeper, reporter: Reporter, all_metrics: list[Metrics], callback: Callback | None
) -> bool:
    """Log an iteration, show it, and ask the callback whether to go on."""
    for lane, metrics in enumerate(all_metrics):
        keeper.iteration(lane, metrics)
        for words in training.health(lane, metrics):
            reporter.warn(words)
    shown = mean_metrics(all_metrics)
    reporter.iteration({name: x for name, x in shown.items() if x is not None})
    return callback is None or callback(shown) is not False


def _evaluate(
    training: Training, keeper: Keeper, reporter: Reporter, all_metrics: list[Metrics], stop: StopFlag | None
) -> None:
    lanes = range(len(all_metrics))
    records = [training.evaluate(lane, training.plan.eval_episodes, lambda: stop) for lane in lanes]
    for lane, metrics in enumerate(all_metrics):
        record = records[lane]
        mean, best = record["mean_return"], training.best[lane]
        is_best = best is None or mean > best
        if is_best:
            training.best[lane], training.best_steps[lane] = mean, training.steps
            training.best_policies[lane] = jax.device_get(training.snapshot(lane))
        training.last_evaluation[lane] = mean
        metrics["eval/mean_reward"] = mean
        keeper.evaluation(training, lane, record, is_best)
    everything = {**records[0], "returns": [x for record in records for x in record["returns"]]}
    everything["mean_return"] = float(np.mean(everything["returns"]))
    everything["std_return"] = float(np.std(everything["returns"]))
    reporter.evaluation(everything)


def _save_where_it_stopped(training: Training, keeper: Keeper) -> None:
    """Save the policy; and the state, where it can be gone on from exactly."""
    if not training.runner.restartable:
        keeper.checkpoint(training)
    keeper.policies(training)


def _due(every: int, before: int, after: int) -> bool:
    return every > 0 and after // every > before // every


def mean_metrics(all_metrics: list[Metrics]) -> Metrics:
    """Return the mean over seeds of each metric (that of the only seed, as a rule)."""
    if len(all_metrics) == 1:
        return all_metrics[0]
    names = all_metrics[0]
    columns = {name: [x for metrics in all_metrics if (x := metrics.get(name)) is not None] for name in names}
    return {name: float(np.mean(column)) if column else None for name, column in columns.items()}


def evaluation_seed(seed: int) -> int:
    """Return the seed of a run's evaluation episodes; it leaves room for a million of them."""
    return int(np.random.SeedSequence([seed, EVALUATION]).generate_state(1)[0]) % (SEED_LIMIT - 1_000_000)


def make_evaluator(
    source: Source, policy: Policy, workers: int, deterministic: bool = True, warn: Warn | None = None
) -> Evaluator:
    """Return an evaluator in fresh environments of a source."""
    if source.compiled:
        return compiled_evaluator(policy, source.make_compiled(), source.name, deterministic)
    lanes = LANES if source.rebuildable else 1
    return host_evaluator(policy, lambda n: source.make_host(n, min(workers, n), warn), deterministic, lanes)


def _build(plan: Plan, source: Source, warn: Warn) -> tuple[OnPolicy, Runner, Spaces, int | None]:
    """Put together the update and the runner that a plan asks for; return the spaces and the host's time limit too."""
    settings = plan.settings
    if source.compiled:
        env = source.make_compiled()
        spaces = env.observation_space, env.action_space
        update = make_update(plan, source, spaces)
        runner = CompiledRunner(update, env, source.name, settings.n_envs, settings.n_steps, plan.n_seeds)
        return update, runner, spaces, None
    if plan.n_seeds is not None:
        raise UsageError(f"n_seeds={plan.n_seeds} needs a compiled environment, and {source.name} is none.")
    environments = source.make_host(settings.n_envs, plan.workers, warn)
    if environments.n_envs != settings.n_envs:
        raise UsageError(f"n_envs={settings.n_envs}, but {source.name} holds {environments.n_envs} environments.")
    spaces = environments.observation_space, environments.action_space
    try:
        update = make_update(plan, source, spaces)
    except Exception:
        environments.close()
        raise
    runner = HostRunner(update, _once(environments, source, plan, warn), settings.n_steps)
    return update, runner, spaces, environments.episode_limit


def make_update(plan: Plan, source: Source, spaces: Spaces) -> OnPolicy:
    """Put together the algorithm that a plan asks for, for the spaces of an environment."""
    check_spaces(*spaces, source.name)
    policy = make_policy(*spaces, plan.settings)
    return algorithm(plan.algorithm).make(plan.settings, policy, make_critic(policy.encoder, plan.settings))


def _once(first: HostEnvironments, source: Source, plan: Plan, warn: Warn) -> Callable[[], HostEnvironments]:
    """Return a maker of environments that hands out the ones already made first."""
    waiting = [first]

    def make() -> HostEnvironments:
        if waiting:
            return waiting.pop()
        return source.make_host(plan.settings.n_envs, plan.workers, warn)

    return make
