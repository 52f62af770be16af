"""Iterations that are compiled programs: environments written in JAX, and the base of all that needs no host."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jumar.algorithms.update import Update
from jumar.collecting.faults import CostWatch, Faults, check_faults, faults_of
from jumar.collecting.info_means import InfoMeans, no_sums, sums_of
from jumar.collecting.runner import REPORT, Collector, Held, Iterated, outcome_of, told_of
from jumar.collecting.stopping import Abandoned, Pace, never
from jumar.envs.compiled import CompiledEnvironment, jit_for, reset_batch, step_batch
from jumar.policies.exploration import Acting
from jumar.policies.observations import finite
from jumar.solvers.problem import Diagnostics
from jumar.trajectory import Trajectory


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
            report = over_seeds(report, (learner, made, 0, learner), (learner, 0, 0, 0), n_seeds)
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
        faults = self._cost_watch.without(faults, self._name, self._rows)
        check_faults(faults, self._name, self._rows, self._update.policy.encoder.own_name)
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
        learner, record, outcome, faults = self._compiled_report(learner, made, keys, held.learner)
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
        self, learner: Any, made: Any, keys: Array, before: Any
    ) -> tuple[Any, Diagnostics, tuple[Array | None, ...], Faults]:
        update = self._update
        learner, record = update.report(learner, made, jax.random.fold_in(keys[-1], REPORT))
        happened = update.happened(made)
        faults = faults_of(update, happened, before, learner)
        return learner, record, outcome_of(happened, self._cost_watch.strict), faults

    def _iterate_once(
        self, learner: Any, collector: Collector, keys: Array, remaining: Array
    ) -> tuple[Any, Collector, Diagnostics, tuple[Array | None, ...], Faults]:
        """Do an iteration of one round whose steps nothing remembers."""
        state = (learner, self._update.begin(), collector)
        learned, made, collector = self._round(state, (), keys[0], remaining[0])
        learner, record, outcome, faults = self._report_of(learned, made, keys, learner)
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
