"""Collecting experience and learning from it: one iteration, on each kind of environment.

This is the seam between the loop and the backends. A runner takes a learner, lets its behaviour act for ``n_steps`` steps of
``n_envs`` environments, updates it, does both again for as many rounds as an iteration has, and hands back what happened. The
loop knows nothing else of environments.

- :class:`CompiledRunner`: rollout and update are one compiled program, mapped over seeds if there are several; so is learning
  without an environment (:mod:`jumar.collecting.stored`).
- :class:`HostRunner`: a rollout gathered on the host, then a compiled update.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jumar.algorithms.update import Update
from jumar.collecting.gatherers import Gatherer, LanesGatherer, PoolScan, StepLoop, environment_seeds
from jumar.collecting.info_means import InfoMeans, no_sums, sums_of
from jumar.collecting.relabelling import Episodes, Relabelling, steps_of, trajectory_fields
from jumar.collecting.stopping import Abandoned, Pace, never
from jumar.envs.compiled import CompiledEnvironment, jit_for, reset_batch, step_batch
from jumar.envs.goals import Goals
from jumar.envs.host import HostEnvironments, HostStep
from jumar.errors import EnvironmentFault
from jumar.experience.replay import ABSENT
from jumar.policies.exploration import Acted, Acting
from jumar.policies.observations import finite
from jumar.solvers.problem import Diagnostics
from jumar.trajectory import Trajectory
from jumar.xla.timing import Laps


class Outcome(NamedTuple):
    """What one iteration saw, ``[T, N]`` arrays on the host (``[K, T, N]`` for K seeds)."""

    rewards: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    valid: np.ndarray
    costs: np.ndarray | None
    """Where the environment gives any; with a further axis where it gives several."""
    logged: np.ndarray | None = None
    """Sums of the entries of ``info`` that are logged (:mod:`jumar.collecting.info_means`), ``[3, K]``, if any are."""


class Held(NamedTuple):
    """What training holds on to between iterations."""

    learner: Any
    memory: Any
    """What is remembered of steps beside the learner."""
    collector: Any


class Iterated(NamedTuple):
    """What an iteration returns."""

    held: Held
    record: dict[str, np.ndarray]
    """The flight record."""
    outcome: Outcome


class Runner(Protocol):
    """One kind of environment, ready to be iterated."""

    has_barriers: bool
    """Whether a scheduled checkpoint is a barrier, at which environments begin anew: their state cannot be saved."""

    @property
    def spent(self) -> Mapping[str, float]:
        """Seconds of the last iteration by what they went into, compilation left out.

        ``environment``, ``policy``, ``update``; ``rollout`` is the first two and ``learning`` the last two, where they are
        one program. Empty where all three are.
        """
        ...

    def init(self, key: Array) -> Any:
        """Return the collector's first state: what of the environments can be saved, as a pytree."""
        ...

    def memory(self) -> Any:
        """Return what is remembered before any step."""
        ...

    def cut(self, held: Held) -> Held:
        """Return what a barrier's checkpoint keeps: the episodes under way are cut in the memory, which is used up."""
        ...

    def restart(self, held: Held, seed: int, step: int) -> Held:
        """Begin anew in all environments, from seeds derived from (seed, step) alone; what was not cut yet is."""
        ...

    def iterate(self, held: Held, keys: Array, remaining: np.ndarray, stop: Callable[[], bool] = never) -> Iterated:
        """Collect and learn for an iteration.

        Args:
            held: what there is; its memory is used up, but that of what is returned serves its learner as well.
            keys: one for each round, ``[rounds, 2]``; ``[K, rounds, 2]`` for K seeds.
            remaining: the share of training that is left at each round, ``[rounds]``.
            stop: is asked about every second where an iteration has several rounds.

        Raises:
            Abandoned: ``stop`` said so; all that was given is still good, but environments on the host have gone on.
            EnvironmentFault: an environment raised or gave what is no experience; all that was given is still good.
        """
        ...

    def close(self) -> None:
        """Release the environments."""
        ...


class Collector(NamedTuple):
    """Where a rollout begins."""

    environments: Any
    """The environments' own state; ``()`` where it cannot be had."""
    observations: Any
    episode_start: Any
    carry: Any
    logged: Any = ()
    """Sums of the entries of ``info`` that are logged, since the iteration began."""
    episodes: Any = ()
    """The steps of episodes that are relabelled when they end, where that is done."""


def outcome_of(trajectory: Trajectory, strict: bool) -> tuple[Array | None, ...]:
    """Return what the loop's statistics need of a rollout: the fields of an :class:`Outcome`.

    Unless ``strict``, a cost that is not finite counts as none.
    """
    costs = trajectory.costs
    if costs is not None and not strict:
        costs = jnp.where(jnp.isfinite(costs), costs, 0.0)
    return trajectory.rewards, trajectory.terminated, trajectory.truncated, trajectory.valid, costs


def told_of(rewards: Any, terminated: Any, truncated: Any, valid: Any, costs: Any) -> Outcome:
    """Return an outcome on the host; costs that no step came with are none."""
    if costs is not None and np.any(absent := costs == ABSENT):
        costs = None if np.all(absent) else np.where(absent, 0.0, costs)
    return Outcome(rewards, terminated, truncated, valid, costs)


class Faults(NamedTuple):
    """The first thing in each row that is no number, ``[T, N]`` each: 0 where all is well, else NaN or infinite."""

    observations: Array
    rewards: Array
    costs: Array
    masks: Array


class CostWatch:
    """What becomes of costs that are no finite numbers.

    Methods that use costs, and runs with a cost of the user's choice (``required``), refuse them. For any other run
    ``info["cost"]`` may mean something else: they count as no cost, and ``warn`` hears of it once.
    """

    def __init__(self, update: Update, required: bool = False, warn: Callable[[str], None] | None = None) -> None:
        self.strict = update.needs_cost or required
        self._warn = warn

    def complain(self, sentence: str) -> None:
        """Refuse a bad cost, or say so once.

        Raises:
            EnvironmentFault: costs are needed.
        """
        if self.strict:
            raise EnvironmentFault(sentence)
        if self._warn is not None:
            self._warn(f"{sentence} It is taken for no cost, as no costs are needed here.")
            self._warn = None

    def without(self, faults: Faults, name: str, rows: int) -> Faults:
        """Return the faults of a rollout without those of costs, if they are forgiven."""
        if self.strict or not np.any(faults.costs != 0.0):
            return faults
        none: Any = np.zeros_like(faults.costs)
        costs = first_fault(Faults(none, none, faults.costs, none), name, rows)
        self.complain(f"{costs}.")
        return faults._replace(costs=none)


class ProgramRunner:
    """Base of the runners whose iterations are compiled programs, mapped over seeds if there are several.

    Args:
        update: the algorithm.
        name: what to call the environment in errors.
        n_envs: how many copies of it.
        n_seeds: ``None`` for one run; K to map the whole program over K seeds, every array with a leading axis K but for
            those that the update says all seeds share, and to spread it over JAX's devices.
        cost_watch: what becomes of costs that are no numbers.
        info: the entries of ``info`` that are logged.
        jit: compiles the programs that collect.
    """

    has_barriers = False
    spent: Mapping[str, float] = MappingProxyType({})

    def __init__(
        self,
        update: Update,
        name: str,
        n_envs: int,
        n_seeds: int | None,
        cost_watch: CostWatch | None = None,
        info: InfoMeans | None = None,
        jit: Callable[..., Any] = jax.jit,
    ) -> None:
        self._update, self._name, self._info = update, name, info or InfoMeans()
        self._cost_watch = cost_watch or CostWatch(update)
        self._n_envs, self._n_seeds = n_envs, n_seeds
        self._rows = 0
        init, iterate, store = self._init, self._iterate_once, update.store
        begin, rounds, report = self._begin, self._rounds_of, self._report_of
        if n_seeds is not None:
            learner, made = update.mapped
            state = (learner, made, 0)
            init = over_seeds(init, (0,), 0, n_seeds)
            iterate = over_seeds(iterate, (learner, 0, 0, None), (learner, 0, 0, 0, 0), n_seeds)
            begin = over_seeds(begin, (learner, 0), state, n_seeds)
            rounds = over_seeds(rounds, (state, 0, 0, None, None, None), state, n_seeds)
            report = over_seeds(report, (learner, made, 0), (learner, 0, 0, 0), n_seeds)
            store = over_seeds(store, (0, made, learner), 0, n_seeds)
        self._compiled_init, self._compiled_iterate, self._compiled_begin = map(jit, (init, iterate, begin))
        self._compiled_report = jax.jit(report)
        self._compiled_rounds = jit(rounds, donate_argnums=0)
        self._pace = Pace()
        self._store = jax.jit(store, donate_argnums=0)

    def init(self, key: Array) -> Collector:
        """Reset all environments."""
        return self._compiled_init(key)

    def memory(self) -> Any:
        """Return what is remembered before any step."""
        memory, k = self._update.memory(), self._n_seeds
        return memory if k is None else jax.tree.map(lambda x: jnp.broadcast_to(x, (k, *x.shape)), memory)

    def cut(self, held: Held) -> Held:
        """Change nothing: episodes go on."""
        return held

    def restart(self, held: Held, seed: int, step: int) -> Held:
        """Change nothing: the environments' state is in the checkpoint."""
        return held

    def iterate(self, held: Held, keys: Array, remaining: np.ndarray, stop: Callable[[], bool] = never) -> Iterated:
        """Run the compiled program, many rounds at once, then write down what is to be remembered."""
        # Where steps are remembered, rounds are done in one way however many an iteration has: its length changes no result.
        if keys.shape[-2] == 1 and held.memory == ():
            learner, collector, *told = self._compiled_iterate(held.learner, held.collector, keys, remaining)
            made = ()
        else:
            learner, collector, made, *told = self._iterate_often(held, keys, remaining, stop)
        record, outcome, faults = jax.device_get(told)
        check_faults(self._cost_watch.without(faults, self._name, self._rows), self._name, self._rows)
        self._rows += outcome[0].shape[-2]
        memory = held.memory if held.memory == () else self._store(held.memory, made, held.learner)
        collector, logged = self._take_logged(collector)
        return Iterated(Held(learner, memory, collector), record, told_of(*outcome)._replace(logged=logged))

    def _take_logged(self, collector: Collector) -> tuple[Collector, np.ndarray | None]:
        """Return the collector without what was logged in the iteration, and that."""
        if not self._info.keys:
            return collector, None
        self._info.begin()
        self._info.add_sums(jax.device_get(collector.logged))
        return collector._replace(logged=jnp.zeros_like(collector.logged)), self._info.end()

    def close(self) -> None:
        """Release nothing: there is nothing to release."""

    def _init(self, key: Array) -> Collector:
        raise NotImplementedError

    def _iterate_often(
        self, held: Held, keys: Array, remaining: np.ndarray, stop: Callable[[], bool]
    ) -> tuple[Any, Collector, Any, Diagnostics, tuple[Array | None, ...], Faults]:
        """Do an iteration in programs of many rounds each, between which it can be given up."""
        state = self._compiled_begin(held.learner, held.collector)
        done, rounds = 0, len(remaining)
        if rounds == 1:
            # A single key would be a constant of the loop, and what is drawn from it be compiled in another way.
            keys, remaining = jnp.repeat(keys, 2, axis=-2), np.repeat(remaining, 2)
        while done < rounds:
            if stop():
                raise Abandoned
            with self._pace.of(rounds - done) as some:
                until = np.int32(done + some)
                state = self._compiled_rounds(state, held.memory, keys, remaining, np.int32(done), until)
                jax.block_until_ready(state)
            done += some
        learner, made, collector = state
        learner, record, outcome, faults = self._compiled_report(learner, made, keys)
        return learner, collector, made, record, outcome, faults

    def _begin(self, learner: Any, collector: Collector) -> tuple[Any, Any, Collector]:
        """Return with what the first round begins, in arrays of its own, which are used up."""
        learner, collector = jax.tree.map(jnp.copy, (learner, collector))
        return learner, self._update.begin(), collector

    def _rounds_of(
        self,
        state: tuple[Any, Any, Collector],
        memory: Any,
        keys: Array,
        remaining: Array,
        first: Array,
        until: Array,
    ) -> tuple[Any, Any, Collector]:
        """Do the rounds from ``first`` until before ``until``."""

        def one(i: Array, state: tuple[Any, Any, Collector]) -> tuple[Any, Any, Collector]:
            return self._round(state, memory, keys[i], remaining[i])

        return jax.lax.fori_loop(first, until, one, state)

    def _round(
        self, state: tuple[Any, Any, Collector], memory: Any, key: Array, remaining: Array
    ) -> tuple[Any, Any, Collector]:
        raise NotImplementedError

    def _report_of(
        self, learner: Any, made: Any, keys: Array
    ) -> tuple[Any, Diagnostics, tuple[Array | None, ...], Faults]:
        update = self._update
        learner, record = update.report(learner, made, jax.random.fold_in(keys[-1], REPORT))
        happened = update.happened(made)
        return learner, record, outcome_of(happened, self._cost_watch.strict), faults_of(update, happened)

    def _iterate_once(
        self, learner: Any, collector: Collector, keys: Array, remaining: Array
    ) -> tuple[Any, Collector, Diagnostics, tuple[Array | None, ...], Faults]:
        """Do an iteration of one round whose steps nothing remembers."""
        state = (learner, self._update.begin(), collector)
        learner, made, collector = self._round(state, (), keys[0], remaining[0])
        learner, record, outcome, faults = self._report_of(learner, made, keys)
        return learner, collector, record, outcome, faults


class CompiledRunner(ProgramRunner):
    """Runs environments written in JAX: steps and updates are one compiled program.

    Args:
        update: the algorithm.
        env: the environment.
        name: what to call it in errors.
        n_envs: how many copies.
        n_steps: steps of each per round.
        n_seeds: as for :class:`ProgramRunner`.
        cost_watch: what becomes of costs that are no numbers.
        info: the entries of ``info`` that are logged.
    """

    def __init__(
        self,
        update: Update,
        env: CompiledEnvironment,
        name: str,
        n_envs: int,
        n_steps: int,
        n_seeds: int | None,
        cost_watch: CostWatch | None = None,
        info: InfoMeans | None = None,
    ) -> None:
        self._env, self._n_steps = env, n_steps
        super().__init__(update, name, n_envs, n_seeds, cost_watch, info, jit_for(env))

    def _init(self, key: Array) -> Collector:
        states, observations = reset_batch(self._env, self._env.params, key, self._n_envs)
        n = self._n_envs
        carry = self._update.behaviour.initial_carry(n)
        return Collector(states, observations, jnp.ones((n,), bool), carry, no_sums(self._info.keys))

    def _round(
        self, state: tuple[Any, Any, Collector], memory: Any, key: Array, remaining: Array
    ) -> tuple[Any, Any, Collector]:
        learner, made, collector = state
        collect_key, update_key = jax.random.split(key)
        collector, trajectory = self._collect(self._update.acting(learner, remaining), collector, collect_key)
        learner, made = self._update.update(learner, made, memory, trajectory, remaining, update_key)
        return learner, made, collector

    def _collect(self, acting: Acting, collector: Collector, key: Array) -> tuple[Collector, Trajectory]:
        behaviour, env, keys = self._update.behaviour, self._env, self._info.keys
        carry = behaviour.begin_rollout(collector.carry)

        def step(
            state: tuple[Any, Any, Array, Any], random: tuple[Array, Array]
        ) -> tuple[tuple[Any, Any, Array, Any], tuple[Any, ...]]:
            states, observations, start, carry = state
            noise, env_key = random
            acted = behaviour.act(acting, finite(observations), carry, start, None, noise)
            states, taken = step_batch(env, env.params, env_key, states, acted.given, keys)
            ended = taken.terminated | taken.truncated
            row = (observations, acted.kept, start, taken._replace(observations=None))
            return (states, taken.observations, ended, acted.carry), row

        first = (collector.environments, collector.observations, collector.episode_start, carry)
        act_key, env_key = jax.random.split(key)
        noise = behaviour.rollout_noise(jax.random.split(act_key, self._n_steps), self._n_envs)
        random = noise, jax.random.split(env_key, self._n_steps)
        last, (observations, actions, starts, taken) = jax.lax.scan(step, first, random)
        trajectory = Trajectory(
            observations=observations,
            actions=actions,
            rewards=taken.rewards,
            terminated=taken.terminated,
            truncated=taken.truncated,
            successors=taken.successors,
            valid=jnp.ones_like(taken.terminated),
            episode_start=starts,
            log_probs=jnp.zeros_like(taken.rewards),
            action_masks=None,
            costs=taken.costs,
            carry=carry,
            critic_carry=(),
        )
        logged = collector.logged
        if keys:
            logged = logged + sums_of(dict(taken.infos), keys, trajectory.valid)
        return Collector(*last, logged), trajectory


REPORT = 2**32 - 1
"""Makes another key of a round's: that of an iteration's report."""


def over_seeds(
    function: Callable[..., Any], in_axes: tuple[Any, ...], out_axes: Any, n_seeds: int
) -> Callable[..., Any]:
    """Return the function mapped over a leading axis of seeds, which is divided evenly among JAX's devices.

    As many devices take part as divide the seeds. No seed has to do with another, so nothing passes between devices.

    Args:
        function: of arrays without the axis.
        in_axes: a tree for each argument: 0 where arrays have the axis, ``None`` where all seeds share them.
        out_axes: the same for the result.
        n_seeds: its length.
    """
    mapped = jax.vmap(function, in_axes=in_axes, out_axes=out_axes)
    devices = jax.devices()
    n = max(k for k in range(1, len(devices) + 1) if n_seeds % k == 0)
    if n == 1:
        return mapped
    mesh = jax.sharding.Mesh(np.asarray(devices[:n]), ("seeds",))
    each, all_alike = jax.sharding.PartitionSpec("seeds"), jax.sharding.PartitionSpec()

    def specs(axes: Any) -> Any:
        return jax.tree.map(lambda axis: all_alike if axis is None else each, axes, is_leaf=lambda axis: axis is None)

    return jax.shard_map(mapped, mesh=mesh, in_specs=specs(in_axes), out_specs=specs(out_axes), check_vma=False)


def check_faults(faults: Faults, name: str, rows: int) -> None:
    """Raise an ``EnvironmentFault`` for the first fault in time; ``rows`` steps were taken before these.

    For several seeds the arrays have a leading axis, and the environment's index counts within its seed.
    """
    found = first_fault(faults, name, rows)
    if found is not None:
        raise EnvironmentFault(f"{found}; nothing was learnt from it.")


def first_fault(faults: Faults, name: str, rows: int) -> str | None:
    """Say what the first fault in time is; ``None`` where all is well. See :func:`check_faults`."""
    found = [
        (int(place[-2]), int(place[-1]), what, marks[tuple(place)])
        for what, marks in zip(("an observation", "a reward", "a cost", ""), faults, strict=True)
        for place in np.argwhere(marks != 0.0)
    ]
    if not found:
        return None
    step, index, what, value = min(found, key=lambda fault: fault[:2])
    words = f"returned {what} that is {value}" if what else "allowed no action"
    return f"environment {index} of {name} {words} at step {rows + step + 1}"


def faults_of(update: Update, trajectory: Trajectory) -> Faults:
    """Mark the rows in which something is not finite."""

    def offence(x: Array) -> Array:
        flat = x.reshape(*trajectory.rewards.shape, -1)
        return jnp.sum(jnp.where(jnp.isfinite(flat), 0.0, flat).astype(jnp.float32), axis=-1)

    leaves = jax.tree.leaves((trajectory.observations, trajectory.successors))
    floats = [x for x in leaves if jnp.issubdtype(x.dtype, jnp.floating)]
    zeros = jnp.zeros(trajectory.rewards.shape, jnp.float32)
    mask = update.policy.encoder.mask(trajectory.observations, trajectory.action_masks)
    stuck = zeros if mask is None else 1.0 - update.policy.actions.leaves_a_choice(mask, jnp).astype(jnp.float32)
    none_allowed = stuck * trajectory.weights  # no action is taken in a row that is no experience
    costs = zeros if trajectory.costs is None else jnp.where(trajectory.valid, offence(trajectory.costs), 0.0)
    return Faults(sum((offence(x) for x in floats), zeros), offence(trajectory.rewards), costs, none_allowed)


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
        held = held._replace(memory=self._cut(held.memory, held.learner))
        if self._relabelling is None or held.collector.episodes == ():
            return held
        episodes, chunks = self._relabelling.cut(held.collector.episodes, self._rewards_of)
        memory, learner = held.memory, held.learner
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
        if once:
            learner, collector, made, told = self._iterate_once(held, pairs[0], remaining[0])
        else:
            learner, collector, made, told = self._iterate_often(held, keys, pairs, remaining, stop)
        outcome, faults, record = jax.device_get(told)
        self._count_last_lap(once)
        check_faults(self._cost_watch.without(faults, self._name, self._rows), self._name, self._rows)
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
        learner, record, outcome, faults = self._report(learner, made, keys[-1])
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
        learner, made = update.update(learner, update.begin(), memory, trajectory_of(gathered), remaining, key)
        learner, record = update.report(learner, made, jax.random.fold_in(key, REPORT))
        happened = update.happened(made)
        outcome = outcome_of(happened, self._cost_watch.strict)
        return learner, record, made if memory != () else (), outcome, faults_of(update, happened)

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
        self, learner: Any, made: Any, key: Array
    ) -> tuple[Any, Diagnostics, tuple[Array | None, ...], Faults]:
        learner, record = self._update.report(learner, made, jax.random.fold_in(key, REPORT))
        happened = self._update.happened(made)
        return learner, record, outcome_of(happened, self._cost_watch.strict), faults_of(self._update, happened)


def trajectory_of(gathered: dict[str, Any]) -> Trajectory:
    """Return gathered fields as a trajectory whose log-probabilities are not known yet."""
    return Trajectory(**gathered, log_probs=jnp.zeros(gathered["rewards"].shape, jnp.float32))
