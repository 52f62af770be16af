"""Iterations on environments that are stepped from Python, or by a library."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jumar.algorithms.update import Update
from jumar.collecting.faults import CostWatch, Faults, check_faults, encodings_of, faults_of, own_network
from jumar.collecting.gatherers import Gatherer, LanesGatherer, PoolScan, StepLoop, environment_seeds
from jumar.collecting.info_means import InfoMeans
from jumar.collecting.relabelling import Episodes, Relabelling, steps_of, trajectory_fields
from jumar.collecting.runner import REPORT, Collector, Held, Iterated, outcome_of, told_of
from jumar.collecting.stopping import Abandoned, never
from jumar.envs.goals import Goals
from jumar.envs.host import HostEnvironments, HostStep
from jumar.errors import EnvironmentFault
from jumar.policies.exploration import Acted
from jumar.solvers.problem import Diagnostics
from jumar.trajectory import Trajectory
from jumar.xla.timing import Laps


class HostRunner:
    """Runs environments that are stepped from Python, or by a library: gather on the host, learn in a compiled call.

    The state of such environments cannot be saved, so a restart rebuilds them (``make``) and resets them from derived
    seeds; a live object that cannot be rebuilt is only reset.

    Args:
        update: the algorithm.
        make: makes the environments.
        n_steps: steps of each per iteration.
        cost_watch: what becomes of costs that are no numbers.
        compiled: compiles the function that learns, as one program or as two at once
            (:class:`jumar.collecting.halves.Halves`).
        info: the entries of ``info`` that are logged.
        lanes: gathers in lanes (:mod:`jumar.lanes`), in the place of environments that are stepped together.
    """

    has_barriers = True

    def __init__(
        self,
        update: Update,
        make: Callable[[], HostEnvironments],
        n_steps: int,
        cost_watch: CostWatch | None = None,
        compiled: Callable[[Callable[..., Any]], Callable[..., Any]] = jax.jit,
        info: InfoMeans | None = None,
        lanes: LanesGatherer | None = None,
    ) -> None:
        self._info, self._lanes = info or InfoMeans(), lanes
        self._update, self._make, self._n_steps = update, make, n_steps
        self._cost_watch = cost_watch or CostWatch(update)
        self._gatherer: Gatherer | None = None
        self._name = ""
        self._rows = 0
        self._step_loop = StepLoop(update.behaviour, n_steps, self._cost_watch.complain, self._info)
        self._learn = compiled(self._learn_once)
        self._round, self._report = jax.jit(self._round_once, donate_argnums=(0, 1)), jax.jit(self._report_once)
        self._turn = jax.jit(self._turn_once, donate_argnums=(0, 1))
        self._begin = jax.jit(update.begin)  # what is donated must not be there twice
        self._copied = jax.jit(lambda tree: jax.tree.map(jnp.copy, tree))
        self._keys = jax.jit(jax.vmap(jax.random.split))
        self._store = jax.jit(update.store, donate_argnums=0)
        self._cut = jax.jit(update.cut, donate_argnums=0)
        self._insert = jax.jit(self._insert_once, donate_argnums=0)
        self._keep = jax.jit(update.keep, donate_argnums=0)
        self._relabelling: Relabelling | None = None
        self._environments: HostEnvironments | None = None
        self._laps = Laps()

    @property
    def spent(self) -> Mapping[str, float]:
        """Seconds of the last iteration by what they went into."""
        return self._laps.seconds

    def init(self, key: Array) -> Collector:
        """Return the state of no environments; ``restart`` begins with some."""
        return Collector((), (), np.ones((0,), bool), ())

    def memory(self) -> Any:
        """Return what is remembered before any step."""
        return self._update.memory()

    def cut(self, held: Held) -> Held:
        """Mark the newest steps in the memory as truncated where their episodes go on; a second time changes nothing.

        What is to be relabelled of these episodes is put into the memory.
        """
        if held.memory == ():
            return held
        episodes, chunks = held.collector.episodes, ()
        if self._relabelling is not None and episodes != ():
            # First, as this is code of the user's that may raise: the memory of before is used up by what comes next.
            episodes, chunks = self._relabelling.cut(episodes, self._rewards_of)
        memory, learner = self._cut(held.memory, held.learner), held.learner
        for rows, slots in chunks:
            made = self._insert(self._begin(), trajectory_fields(rows), slots)
            memory, learner = self._keep(memory, made, learner)
        return Held(learner, memory, held.collector._replace(episodes=episodes))

    def restart(self, held: Held, seed: int, step: int) -> Held:
        """Rebuild the environments and reset them; open episodes are cut, which their last rows have bootstrapped for."""
        environments, n = self._begin_anew(seed, step)
        behaviour = self._update.behaviour
        self._name, self._rows = environments.name, 0
        episodes: Any = ()
        if (hindsight := self._update.hindsight) is not None:
            environments.keep_infos(hindsight.with_infos)
            self._environments, self._step_loop.keeps_steps = environments, True
            self._relabelling, episodes = Relabelling(hindsight, n, self._name), Episodes.none(n)
        held = self.cut(held)
        collector = Collector((), (), np.ones((n,), bool), behaviour.initial_carry(n), episodes=episodes)
        return Held(self._update.restart(held.learner), held.memory, collector)

    def _begin_anew(self, seed: int, step: int) -> tuple[HostEnvironments, int]:
        """Make and reset environments; return them, or what stands for lanes, and how many there are."""
        if self._lanes is not None:
            self._lanes.restart(seed, step)
            self._gatherer = self._lanes
            return self._lanes.environments, self._lanes.n_envs
        self.close()
        environments = self._make()
        n = environments.n_envs
        try:
            observations, masks = environments.reset(environment_seeds(seed, step, n))
        except BaseException:
            environments.close()
            raise
        scan = PoolScan.of(environments, self._update.behaviour, self._n_steps, self._info)
        self._gatherer = scan or self._step_loop
        (scan or self._step_loop).begin(environments, observations, masks)
        return environments, n

    def iterate(self, held: Held, keys: Array, remaining: np.ndarray, stop: Callable[[], bool] = never) -> Iterated:
        """Gather and learn, round by round; then write down what is to be remembered."""
        assert self._gatherer is not None, "restart comes before iterate"
        self._info.begin()
        self._laps.begin()
        self._step_loop.stepping = 0.0
        pairs = np.asarray(self._keys(keys))
        # Where steps are remembered, rounds are done in one way however many an iteration has: its length changes no result.
        once = len(pairs) == 1 and held.memory == ()
        try:
            if once:
                learner, collector, made, told = self._iterate_once(held, pairs[0], remaining[0])
            else:
                learner, collector, made, told = self._iterate_often(held, keys, pairs, remaining, stop)
        except EnvironmentFault as fault:
            self._check_encoder(held.learner, fault)
            raise
        outcome, faults, record = jax.device_get(told)
        self._count_last_lap(once)
        faults = self._cost_watch.without(faults, self._name, self._rows)
        check_faults(faults, self._name, self._rows, self._update.policy.encoder.own_name)
        self._rows += outcome[0].shape[0]
        memory = held.memory if held.memory == () else self._store(held.memory, made, held.learner)
        logged = self._info.end() if self._info.keys else None
        return Iterated(Held(learner, memory, collector), record, told_of(*outcome)._replace(logged=logged))

    def close(self) -> None:
        """Close the environments."""
        for gatherer in (self._gatherer, self._lanes):
            if gatherer is not None:
                gatherer.close()
        self._gatherer = None

    def _check_encoder(self, learner: Any, fault: EnvironmentFault) -> None:
        """Say of a step that failed that its actions are of no numbers, where the user's encoder returned none."""
        network = own_network(self._update.policy)
        if network is None or self._gatherer is not self._step_loop:
            return
        observations = jax.tree.map(lambda x: x[None], self._step_loop.seen[0])
        marks = np.asarray(encodings_of(self._update, learner, observations))
        if marks.any():
            raise EnvironmentFault(f"{fault} Encoder {network.name} makes {marks[marks != 0.0][0]} of the observation.")

    def _iterate_once(self, held: Held, keys: np.ndarray, remaining: float) -> tuple[Any, Collector, Any, Any]:
        """Do an iteration of one round, in which all but the steps is one program."""
        learner, memory, collector = held
        gathered, collector = self._gather(learner, collector, keys[0], remaining)
        jax.block_until_ready(gathered)
        self._laps.lap("policy" if self._gatherer is self._step_loop else "rollout")
        learner, record, made, outcome, faults = self._learn(learner, gathered, memory, remaining, keys[1])
        return learner, collector, made, (outcome, faults, record)

    def _count_last_lap(self, once: bool) -> None:
        """Count what an iteration took, of one round or several, after the last lap."""
        stepped = self._gatherer is self._step_loop
        if once:
            self._laps.lap("update")
        elif stepped:
            self._laps.lap("learning")
        if stepped:
            self._laps.take("policy" if once else "learning", "environment", self._step_loop.stepping)

    def _iterate_often(
        self, held: Held, keys: Array, pairs: np.ndarray, remaining: np.ndarray, stop: Callable[[], bool]
    ) -> tuple[Any, Collector, Any, Any]:
        """Do an iteration of several rounds, between which it can be given up."""
        _, memory, collector = held
        learner, made = self._copied(held.learner), self._begin()  # used up round by round
        for pair, left in zip(pairs, remaining, strict=True):
            if stop():
                raise Abandoned
            gatherer, behaviour = self._gatherer, self._update.behaviour
            if not isinstance(gatherer, StepLoop):
                gathered, collector = self._gather(learner, collector, pair[0], left)
                if self._relabelling is not None:
                    assert gatherer is not None
                    made, episodes = self._relabelled(made, collector.episodes, gathered, gatherer.steps, pair[1])
                    collector = collector._replace(episodes=episodes)
                learner, made = self._round(learner, made, memory, gathered, left, pair[1])
                continue
            # Between two steps there is one program: it learns from the one and acts for the other.
            start, carry, acted = collector.episode_start, collector.carry, collector.environments
            acting = self._update.acting(learner, left)
            if acted == ():
                carry = behaviour.begin_rollout(carry)
                acted = gatherer.first(acting, carry, start, pair[0])
            gathered, start, carry = gatherer.gather(acting, carry, start, pair[0], acted)
            gathered = {**gathered, "carry": (), "critic_carry": ()}
            seen = *gatherer.seen, carry, start
            episodes = collector.episodes
            if self._relabelling is not None:
                made, episodes = self._relabelled(made, episodes, gathered, gatherer.steps, pair[1])
            learner, made, carry, acted = self._turn(learner, made, memory, gathered, left, pair[1], seen)
            collector = Collector(acted, (), start, carry, episodes=episodes)
        learner, record, outcome, faults = self._report(learner, made, keys[-1], held.learner)
        return learner, collector, made, (outcome, faults, record)

    def _relabelled(
        self, made: Any, episodes: Episodes, gathered: dict[str, Any], steps: Sequence[HostStep], key: np.ndarray
    ) -> tuple[Any, Episodes]:
        """Insert what can be relabelled after a round, before it is learnt from."""
        assert self._relabelling is not None
        assert self._update.hindsight is not None
        taken = steps_of(gathered, steps, self._update.hindsight.with_infos)
        episodes, chunks = self._relabelling.after(episodes, taken, key.tolist(), self._rewards_of)
        for rows, slots in chunks:
            made = self._insert(made, trajectory_fields(rows), slots)
        return made, episodes

    def _rewards_of(self, goals: Goals) -> Any:
        assert self._environments is not None
        return self._environments.rewards_of(goals)

    def _insert_once(self, made: Any, rows: dict[str, Any], slots: Array) -> Any:
        return self._update.insert(made, trajectory_of(rows), slots)

    def _gather(self, learner: Any, collector: Collector, key: Any, remaining: Any) -> tuple[dict[str, Any], Collector]:
        assert self._gatherer is not None
        update = self._update
        carry = update.behaviour.begin_rollout(collector.carry)
        acting = update.acting(learner, remaining)
        gathered, start, last_carry = self._gatherer.gather(acting, carry, collector.episode_start, key)
        gathered = {**gathered, "carry": carry, "critic_carry": ()}
        return gathered, Collector((), (), start, last_carry, episodes=collector.episodes)

    def _learn_once(
        self, learner: Any, gathered: dict[str, Any], memory: Any, remaining: Array, key: Array
    ) -> tuple[Any, Diagnostics, Any, tuple[Array | None, ...], Faults]:
        update = self._update
        before = learner
        learner, made = update.update(learner, update.begin(), memory, trajectory_of(gathered), remaining, key)
        learner, record = update.report(learner, made, jax.random.fold_in(key, REPORT))
        happened = update.happened(made)
        outcome, faults = outcome_of(happened, self._cost_watch.strict), faults_of(update, happened, before, learner)
        return learner, record, made if memory != () else (), outcome, faults

    def _round_once(
        self, learner: Any, made: Any, memory: Any, gathered: dict[str, Any], remaining: Array, key: Array
    ) -> tuple[Any, Any]:
        return self._update.update(learner, made, memory, trajectory_of(gathered), remaining, key)

    def _turn_once(
        self, learner: Any, made: Any, memory: Any, gathered: dict[str, Any], remaining: Array, key: Array, seen: Any
    ) -> tuple[Any, Any, Any, Acted]:
        """Learn from a round, and return the carry and the actions with which the next one begins."""
        learner, made = self._round_once(learner, made, memory, gathered, remaining, key)
        observations, masks, carry, start = seen
        carry = self._update.behaviour.begin_rollout(carry)
        acting = self._update.acting(learner, remaining)
        next_key = jax.random.fold_in(key, REPORT)
        return learner, made, carry, self._step_loop.first_of(acting, observations, masks, carry, start, next_key)

    def _report_once(
        self, learner: Any, made: Any, key: Array, before: Any
    ) -> tuple[Any, Diagnostics, tuple[Array | None, ...], Faults]:
        learner, record = self._update.report(learner, made, jax.random.fold_in(key, REPORT))
        happened = self._update.happened(made)
        faults = faults_of(self._update, happened, before, learner)
        return learner, record, outcome_of(happened, self._cost_watch.strict), faults


def trajectory_of(gathered: dict[str, Any]) -> Trajectory:
    """Return gathered fields as a trajectory whose log-probabilities are not known yet."""
    return Trajectory(**gathered, log_probs=jnp.zeros(gathered["rewards"].shape, jnp.float32))
