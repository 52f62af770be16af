"""A run under way: its state, one iteration of it, and an evaluation of it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jumar.collecting.evaluation import Evaluator, longest_in_training
from jumar.collecting.gatherers import SEED_LIMIT
from jumar.collecting.info_means import InfoMeans, mean_of, no_sums
from jumar.collecting.runner import Held, Outcome
from jumar.collecting.stopping import never
from jumar.console.reporter import Reporter
from jumar.envs.sources import Source
from jumar.errors import JumarError, TrainingFailed
from jumar.lanes.crew import HERE, Spread
from jumar.policies.policy import Policy
from jumar.spaces import space_to_json
from jumar.training.allowance import in_bytes
from jumar.training.assembly import assemble, make_evaluator
from jumar.training.events import Record, Rule, StopAtReturn, StopWithoutGain, Waiting
from jumar.training.metrics import EpisodeState, EpisodeStatistics, Health
from jumar.training.plan import Plan
from jumar.training.remembered import Buffer
from jumar.xla.timing import Stopwatch

if TYPE_CHECKING:
    from jumar.training.data import StartData
    from jumar.training.warm_start import WarmStart

Metrics = dict[str, float | None]

EVALUATION = 2**32 - 1
"""Stands in the place of the step in the seed of evaluations, so that no training environment shares it."""


class State(NamedTuple):
    """Everything that a checkpoint keeps in arrays, the replay buffer apart.

    With several seeds the learner and the collector have a leading axis.
    """

    learner: Any
    collector: Any
    episodes: list[EpisodeState]
    """An entry per seed."""
    best: list[Any]
    """The policy of the best evaluation of each seed (before the first one: the policy that the run began with)."""


class Training:
    """A run under way.

    Args:
        plan: what to do.
        source: where the environments come from.
        reporter: whom to tell.
        start: what to begin with, where it is not a policy drawn at random.
        spread: who steps lanes, where the plan asks for them.

    Raises:
        UsageError: the plan does not fit the environment, the environment not what is begun with, or the replay buffer not into
            the memory.
    """

    def __init__(
        self,
        plan: Plan,
        source: Source,
        reporter: Reporter,
        start: WarmStart | None = None,
        spread: Spread = HERE,
    ) -> None:
        self.plan, self.source, self.reporter, self._spread = plan, source, reporter, spread
        self.steps = 0
        self.iterations = 0
        self._began = time.perf_counter()
        self.best: list[float | None] = [None] * len(plan.seeds)
        self.best_steps = [0] * len(plan.seeds)
        self.saved_at: int | None = None
        """The step of the newest checkpoint, from which a resumed run goes on."""
        self.critic_left_out: str | None = None
        """Why the critic is new although the policy is not; ``None`` where both are the same."""
        self.last_evaluation: list[float | None] = [None] * len(plan.seeds)
        self.last_cut = [0] * len(plan.seeds)
        """How many episodes of each seed's last evaluation were cut before they ended."""
        self.best_comparable = [True] * len(plan.seeds)
        """Whether the best evaluation of each seed can be compared with one of whole episodes; see ``standing``."""
        self.stopped_by: str | None = None
        """The rule that stopped training before the total, if one did."""
        self._told_of_cuts = False
        self.stopwatch = Stopwatch()
        self._steps_here = 0
        self.info = InfoMeans(plan.log_info, source.name, self._warn)
        """The entries of ``info`` that are logged."""
        self.update, self.runner, self.spaces, self.episode_limit = assemble(
            plan, source, self._warn, start.spaces if start else None, self.info, spread
        )
        self.rules: list[Rule] = []
        self.begin_rules()
        self._health = [Health(self.update.symptoms) for _ in plan.seeds]
        self.buffer = Buffer.of(self.update, plan.n_seeds)
        """What the replay buffer is like; ``None`` where there is none."""
        self.slots = 0
        """How many slots were ever written to it: steps of all environments."""
        self._round_keys = jax.jit(jax.vmap(jax.vmap(jax.random.fold_in, (None, 0)), (0, None)))
        self._keys = jnp.stack([jax.random.PRNGKey(seed) for seed in plan.seeds])
        self._evaluator: Evaluator | None = None
        self.episodes = [EpisodeStatistics(plan.settings.n_envs) for _ in plan.seeds]
        with self.stopwatch.running():
            self.held = self._first_state()
            if start is not None:
                learner, self.critic_left_out = start.begin(self.update, self.learner, plan.n_seeds is not None)
                self.held = self.held._replace(learner=learner)
        self.best_policies = [jax.device_get(self.snapshot(lane)) for lane in range(len(plan.seeds))]

    @property
    def elapsed(self) -> float:
        """Seconds that the run has taken so far, evaluations and compilation included, and interruptions not."""
        return time.perf_counter() - self._began

    @property
    def learner(self) -> Any:
        """All that learning changes."""
        return self.held.learner

    @property
    def collector(self) -> Any:
        """Where the environments are."""
        return self.held.collector

    @property
    def policy(self) -> Policy:
        """The policy that is trained."""
        return self.update.policy

    @property
    def state(self) -> State:
        """What a checkpoint keeps. The state of host environments cannot be kept: a restart stands for it."""
        # What is logged does not outlive an iteration.
        collector = () if self.runner.has_barriers else self.collector._replace(logged=())
        return State(self.learner, collector, [lane.state for lane in self.episodes], self.best_policies)

    @property
    def record(self) -> dict[str, Any]:
        """What a checkpoint keeps beside the arrays, as JSON-ready data."""
        return {
            "run": self.plan.identity.to_json(),
            "steps": self.steps,
            "iterations": self.iterations,
            "elapsed": self.elapsed,
            "best": self.best,
            "best_steps": self.best_steps,
            "best_comparable": self.best_comparable,
            "last_evaluation": self.last_evaluation,
            "last_cut": self.last_cut,
            "stopped_by": self.stopped_by,
            "waiting": next((dict(r.waiting._asdict()) for r in self.rules if isinstance(r, StopWithoutGain)), None),
            "spaces": [space_to_json(space) for space in self.spaces],
            **({} if self.buffer is None else {"slots": self.slots, "frames": self.buffer.replay.frames}),
        }

    def restore(self, state: State, record: dict[str, Any], memory: Any = None) -> None:
        """Go back to a saved state and its record, as ``jumar.training.restore.record_reader`` reads it.

        Host environments begin anew, as they did when it was saved. ``memory`` is what was remembered then; by default what
        is held.
        """
        self.steps, self.iterations = record["steps"], record["iterations"]
        self._began = time.perf_counter() - record["elapsed"]
        self.best, self.best_steps = list(record["best"]), list(record["best_steps"])
        self.best_policies = list(state.best)
        self.last_evaluation = list(record["last_evaluation"])
        self.best_comparable = list(record["best_comparable"])
        self.last_cut = list(record["last_cut"])
        self.begin_rules()
        stopped_by = record["stopped_by"]
        self.stopped_by = stopped_by if any(rule.name == stopped_by for rule in self.rules) else None
        for rule in self.rules:
            if isinstance(rule, StopWithoutGain) and record["waiting"] is not None:
                rule.waiting = Waiting(**record["waiting"])
        collector = self.collector
        if not self.runner.has_barriers:
            collector = state.collector._replace(logged=collector.logged)
        self.held = Held(state.learner, self.held.memory if memory is None else memory, collector)
        self.slots = record.get("slots", 0)
        for lane, episodes in zip(self.episodes, state.episodes, strict=True):
            lane.state = EpisodeState(*(np.array(x) for x in episodes))

    def begin_with_data(self, data: StartData) -> None:
        """Put stored transitions into the replay buffer before any step; those that do not fit are warned of.

        Raises:
            UsageError: they are of other spaces than the environment's, or do not fit into the buffer.
        """
        learner, memory, self.slots = data.begin(
            self.update, self.buffer, self.learner, self.held.memory, self.spaces, self.source.name
        )
        assert self.buffer is not None
        if words := data.left_out(self.buffer.replay):
            self._warn(words)
        self.held = self.held._replace(learner=learner, memory=memory)
        self.best_policies = [jax.device_get(self.snapshot(lane)) for lane in range(len(self.plan.seeds))]

    def cut(self) -> None:
        """Cut the episodes under way in what is remembered, before a checkpoint at which host environments begin anew.

        So the checkpoint keeps their last steps as they are drawn from then on, in a resumed run as in one never stopped.
        """
        self._count_written(self.runner.cut(self.held))

    def _count_written(self, held: Held) -> None:
        """Hold what a barrier made of what was held, and count the slots that it wrote to the replay buffer."""
        if self.buffer is not None:
            self.slots += self.buffer.written_since(self.held.learner, held.learner)
        self.held = held

    def relabel_open_episodes(self) -> None:
        """Put what is to be relabelled of the episodes under way into the replay buffer, if the environments still answer.

        Training begins anew in them: an agent that is saved now is as one that goes on.
        """
        if self.update.hindsight is not None:
            with contextlib.suppress(JumarError):
                self.cut()

    def log(self, keys: tuple[str, ...]) -> None:
        """Log these entries of ``info`` from now on. Host environments must be begun anew."""
        if keys == self.plan.log_info:
            return
        plan, info = replace(self.plan, log_info=keys), InfoMeans(keys, self.source.name, self._warn)
        self.runner.close()
        self.update, self.runner, *_ = assemble(
            plan, self.source, self._warn, self.spaces, info, self._spread, allocated=True
        )
        self.plan, self.info = plan, info
        if not self.runner.has_barriers:
            sums = no_sums(keys)
            if keys and self.plan.n_seeds is not None:
                sums = jnp.broadcast_to(sums, (self.plan.n_seeds, *sums.shape))
            self.held = self.held._replace(collector=self.collector._replace(logged=sums))

    def begin_rules(self) -> None:
        """Make the rules of the plan that may stop training, from their beginning."""
        plan, self.stopped_by = self.plan, None
        self.rules = [] if plan.stop_at_return is None else [StopAtReturn(plan.stop_at_return)]
        self.rules += [] if plan.stop_without_gain is None else [StopWithoutGain(plan.stop_without_gain)]

    def judge(self, record: Record, last: bool = False) -> str | None:
        """Show an evaluation of all seeds to the rules; return in words why one of them stops training, if one does.

        After the last iteration none does: the run is complete, but it may be given a larger total.
        """
        stopping = [rule for rule in self.rules if not rule.evaluation(record)]  # all of them see it
        if last or not stopping:
            return None
        self.stopped_by = stopping[0].name
        return stopping[0].words(record)

    def restart(self) -> None:
        """Begin anew in host environments, from seeds derived from (seed, step); compiled ones go on as they are."""
        if self.runner.has_barriers:
            self._count_written(self.runner.restart(self.held, self.plan.seed, self.steps))
            for lane in self.episodes:
                lane.restart()

    def snapshot(self, lane: int) -> tuple[Any, Any]:
        """Return (policy parameters, observation moments) of one seed: all that acting needs."""
        snapshot = self.learner.parameters["policy"], self.learner.observation_moments
        return snapshot if self.plan.n_seeds is None else jax.tree.map(lambda x: x[lane], snapshot)

    def iterate(self, stop: Callable[[], bool] = never) -> list[Metrics]:
        """Collect and learn for an iteration; return the metrics of each seed.

        Raises:
            Abandoned: ``stop`` said so between two rounds. Host environments must be begun anew, or closed.
            EnvironmentFault: an environment failed.
            TrainingFailed: the update made something that is no number. In all cases the state is as it was before.
        """
        plan = self.plan
        rounds, rows = plan.settings.rounds, plan.settings.rows_per_round * plan.settings.n_envs
        remaining = np.array([plan.remaining(self.steps + i * rows) for i in range(rounds)], np.float32)
        numbers = np.arange(self.iterations * rounds + 1, (self.iterations + 1) * rounds + 1, dtype=np.uint32)
        keys = self._round_keys(self._keys, numbers)
        with self.stopwatch.running():
            held, record, outcome = self.runner.iterate(self.held, keys if plan.n_seeds else keys[0], remaining, stop)
        # The memory of before was used up. The learner of before goes on with this one as with the old one.
        self.held = self.held._replace(memory=held.memory)
        records, outcomes = self._by_lane(record, outcome)
        for lane, one in enumerate(records):
            self._check_finite(lane, one)
        if self.buffer is not None:
            self.slots += self.buffer.written_since(self.held.learner, held.learner)
        self.held = held
        taken = int(outcomes[0].valid.sum())
        self.steps += taken
        self._steps_here += taken * len(outcomes)
        self.iterations += 1
        lanes = enumerate(zip(records, outcomes, strict=True))
        return [self._metrics(i, record, one, remaining[0]) for i, (record, one) in lanes]

    @property
    def steps_per_second(self) -> float | None:
        """Steps of all seeds per second in this process, compilation and evaluation left out."""
        return self._steps_here / self.stopwatch.working if self._steps_here else None

    def evaluate(self, lane: int, episodes: int, stop: Callable[[], Any] = never) -> dict[str, Any]:
        """Run deterministic episodes of one seed's policy in separate environments; training does not notice.

        Where the environment states no time limit, they are cut after ``longest_in_training`` steps; that is warned of once.

        Raises:
            Abandoned: ``stop`` said so.
        """
        if self._evaluator is None:
            self._evaluator = make_evaluator(self.source, self.policy, self.plan.workers, warn=self._warn)
        seed = evaluation_seed(self.plan.seeds[lane])
        result = self._evaluator(*self.snapshot(lane), episodes, seed, stop, self._longest_episode(lane, episodes))
        summary = result.summary()
        if not self._told_of_cuts and (complaint := result.complaint(self.source.time_limit_remedy)):
            self._told_of_cuts = True
            self._warn(complaint)
        cut_returns = [float(x) for x in result.returns[result.cut]]
        return {
            "time/total_timesteps": self.steps,
            "step": self.steps,
            "mean_return": summary["mean_return"],
            "std_return": summary["std_return"],
            "returns": summary["returns"],
            "lengths": [int(x) for x in result.lengths],
            "cut_episodes": summary["cut_episodes"],
            **({"cut_returns": cut_returns} if cut_returns else {}),
            **{name: summary[name] for name in ("mean_cost", "costs") if name in summary},
        }

    def notes(self) -> list[str]:
        """Return what is worth a line before training begins."""
        buffer = [] if self.buffer is None else [f"the replay buffer takes {in_bytes(self.buffer.bytes)} of memory"]
        return [*self.policy.encoder.notes(), *buffer]

    def close(self) -> None:
        """Release the environments."""
        self.runner.close()

    def _longest_episode(self, lane: int, episodes: int) -> int:
        settings = self.plan.settings
        between = max(self.plan.eval_every, settings.steps_per_iteration)
        return longest_in_training(episodes, between, self.episodes[lane].state.lengths, self.episode_limit)

    def _warn(self, words: str) -> None:
        self.reporter.warn(words)

    def _first_state(self) -> Held:
        def first(key: Array) -> Any:
            return self.update.init(jax.random.fold_in(key, 0), self.plan.settings.n_envs)

        if self.plan.n_seeds is None:
            key = self._keys[0]
            learner, collector = jax.jit(first)(key), self.runner.init(jax.random.fold_in(key, 2**31))
            return Held(learner, self.runner.memory(), collector)
        keys = jax.vmap(jax.random.fold_in, (0, None))(self._keys, 2**31)
        learners = jax.jit(jax.vmap(first, out_axes=self.update.mapped[0]))(self._keys)
        return Held(learners, self.runner.memory(), self.runner.init(keys))

    def _by_lane(self, record: dict[str, Any], outcome: Outcome) -> tuple[list[dict[str, Any]], list[Outcome]]:
        if self.plan.n_seeds is None:
            return [record], [outcome]
        lanes = range(self.plan.n_seeds)
        return [jax.tree.map(lambda x, i=i: x[i], record) for i in lanes], [
            jax.tree.map(lambda x, i=i: x[i], outcome) for i in lanes
        ]

    def _check_finite(self, lane: int, record: dict[str, Any]) -> None:
        if bool(record["finite"]):
            return
        which = f" of seed {self.plan.seeds[lane]}" if self.plan.n_seeds else ""
        own = self.policy.encoder.own_name
        derivatives = f", or look for derivatives of encoder {own} that are not finite" if own else ""
        raise TrainingFailed(
            f"the update after step {self.steps}{which} made parameters that are NaN or infinite (gradient norm "
            f"{float(record['grad_norm']):.3g}); try a lower learning_rate{derivatives}. The last good state is kept."
        )

    def _metrics(self, lane: int, record: dict[str, Any], outcome: Outcome, remaining: float) -> Metrics:
        statistics = self.episodes[lane]
        ended = statistics.add(outcome.rewards, outcome.terminated | outcome.truncated, outcome.valid, outcome.costs)
        metrics: Metrics = {
            "time/total_timesteps": self.steps,
            "time/steps_per_second": self.steps_per_second,
            "time/elapsed": self.elapsed,
            **shares_of(self.runner.spent),
            "rollout/ep_rew_mean": statistics.mean_return,
            "rollout/ep_len_mean": statistics.mean_length,
            "rollout/episodes": ended.episodes,
        }
        if outcome.costs is not None:
            metrics |= {"rollout/ep_cost_mean": statistics.mean_cost, "rollout/episode_cost": ended.mean_cost}
        if outcome.logged is not None:
            metrics |= {f"info/{key}": mean_of(outcome.logged[:, i]) for i, key in enumerate(self.plan.log_info)}
        known = {name: float(x) for name, x in record.items() if name != "finite" and not np.isnan(x)}
        metrics |= {name if "/" in name else f"train/{name}": x for name, x in known.items()}
        for name in ("learning_rate", "clip_range"):
            schedule = getattr(self.plan.settings, name, None)
            if schedule is not None:
                metrics[f"train/{name}"] = float(schedule(remaining))
        return metrics

    def health(self, lane: int, metrics: Metrics) -> list[str]:
        """Return what is off, in words."""
        which = f"seed {self.plan.seeds[lane]}: " if self.plan.n_seeds else ""
        return [which + words for words in self._health[lane].check(metrics)]


def shares_of(spent: Mapping[str, float]) -> Metrics:
    """Return what an iteration's time went into, as shares by the names of ``metrics.jsonl``; nothing if it is not known."""
    total = sum(spent.values())
    return {f"time/{name}_share": seconds / total for name, seconds in spent.items()} if total > 0.0 else {}


def evaluation_seed(seed: int) -> int:
    """Return the seed of a run's evaluation episodes; it leaves room for a million of them."""
    return int(np.random.SeedSequence([seed, EVALUATION]).generate_state(1)[0]) % (SEED_LIMIT - 1_000_000)
