"""Collecting experience and learning from it: one iteration, on each kind of environment.

This is the seam between the loop and the backends. A runner takes a learner, lets its policy act for ``n_steps`` steps
of ``n_envs`` environments, updates it, and hands back what happened. The loop knows nothing else of environments.

- :class:`CompiledRunner`: rollout and update are one compiled program, mapped over seeds if there are several.
- :class:`HostRunner`: a rollout gathered on the host, then a compiled update.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jumar.algorithms.update import Learner, Update
from jumar.collecting.gatherers import Gatherer, PoolScan, StepLoop, environment_seeds
from jumar.envs.compiled import CompiledEnvironment, reset_batch, step_batch
from jumar.envs.host import HostEnvironments
from jumar.errors import EnvironmentFault
from jumar.policies.observations import finite
from jumar.solvers.problem import Diagnostics
from jumar.trajectory import Trajectory


class Outcome(NamedTuple):
    """What one iteration saw, ``[T, N]`` arrays on the host (``[K, T, N]`` for K seeds)."""

    rewards: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    valid: np.ndarray
    costs: np.ndarray | None
    """Where the environment gives any; with a further axis where it gives several."""


class Runner(Protocol):
    """One kind of environment, ready to be iterated."""

    has_barriers: bool
    """Whether a scheduled checkpoint is a barrier, at which environments begin anew: their state cannot be saved."""

    def init(self, key: Array) -> Any:
        """Return the collector's first state: what of the environments can be saved, as a pytree."""
        ...

    def restart(self, learner: Learner, collector: Any, seed: int, step: int) -> tuple[Learner, Any]:
        """Begin anew in all environments, from seeds derived from (seed, step) alone."""
        ...

    def iterate(
        self, learner: Learner, collector: Any, key: Array, remaining: float
    ) -> tuple[Learner, Any, dict[str, np.ndarray], Outcome]:
        """Collect one rollout and learn from it; return the learner, collector state, flight record and outcome.

        Raises:
            EnvironmentFault: an environment raised or gave what is no experience; the learner given is still good.
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


def outcome_of(trajectory: Trajectory, strict: bool) -> tuple[Array | None, ...]:
    """Return what the loop's statistics need of a rollout: the fields of an :class:`Outcome`.

    Unless ``strict``, a cost that is not finite counts as none.
    """
    costs = trajectory.costs
    if costs is not None and not strict:
        costs = jnp.where(jnp.isfinite(costs), costs, 0.0)
    return trajectory.rewards, trajectory.terminated, trajectory.truncated, trajectory.valid, costs


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


class CompiledRunner:
    """Runs environments written in JAX: rollout and update in one compiled program.

    Args:
        update: the algorithm.
        env: the environment.
        name: what to call it in errors.
        n_envs: how many copies.
        n_steps: steps of each per iteration.
        n_seeds: ``None`` for one run; K to map the whole program over K seeds, every array with a leading axis K, and
            to spread it over JAX's devices.
        cost_watch: what becomes of costs that are no numbers.
    """

    has_barriers = False

    def __init__(
        self,
        update: Update,
        env: CompiledEnvironment,
        name: str,
        n_envs: int,
        n_steps: int,
        n_seeds: int | None,
        cost_watch: CostWatch | None = None,
    ) -> None:
        self._update, self._env, self._name = update, env, name
        self._cost_watch = cost_watch or CostWatch(update)
        self._n_envs, self._n_steps = n_envs, n_steps
        self._rows = 0
        init, iterate = self._init, self._iterate
        if n_seeds is not None:
            init, iterate = over_seeds(init, (0,), n_seeds), over_seeds(iterate, (0, 0, 0, None), n_seeds)
        self._compiled_init, self._compiled_iterate = jax.jit(init), jax.jit(iterate)

    def init(self, key: Array) -> Collector:
        """Reset all environments."""
        return self._compiled_init(key)

    def restart(self, learner: Learner, collector: Any, seed: int, step: int) -> tuple[Learner, Any]:
        """Change nothing: the environments' state is in the checkpoint."""
        return learner, collector

    def iterate(
        self, learner: Learner, collector: Any, key: Array, remaining: float
    ) -> tuple[Learner, Any, dict[str, np.ndarray], Outcome]:
        """Run the compiled program once."""
        learner, collector, record, outcome, faults = self._compiled_iterate(
            learner, collector, key, np.float32(remaining)
        )
        outcome, faults, record = jax.device_get((outcome, faults, record))
        check_faults(self._cost_watch.without(faults, self._name, self._rows), self._name, self._rows)
        self._rows += self._n_steps
        return learner, collector, record, Outcome(*outcome)

    def close(self) -> None:
        """Release nothing: there is nothing to release."""

    def _init(self, key: Array) -> Collector:
        states, observations = reset_batch(self._env, self._env.params, key, self._n_envs)
        update, n = self._update, self._n_envs
        return Collector(
            states,
            observations,
            jnp.ones((n,), bool),
            update.policy.initial_carry(n),
        )

    def _iterate(
        self, learner: Learner, collector: Collector, key: Array, remaining: Array
    ) -> tuple[Learner, Collector, Diagnostics, tuple[Array | None, ...], Faults]:
        collect_key, update_key = jax.random.split(key)
        collector, trajectory = self._collect(learner, collector, collect_key)
        learner, record = self._update.update(learner, trajectory, remaining, update_key)
        outcome = outcome_of(trajectory, self._cost_watch.strict)
        faults = faults_of(self._update, trajectory)
        return learner, collector, record, outcome, faults

    def _collect(self, learner: Learner, collector: Collector, key: Array) -> tuple[Collector, Trajectory]:
        policy, env = self._update.policy, self._env
        parameters, moments = learner.parameters["policy"], learner.observation_moments
        carry = policy.begin_rollout(collector.carry)

        def step(
            state: tuple[Any, Any, Array, Any], random: tuple[Array, Array]
        ) -> tuple[tuple[Any, Any, Array, Any], tuple[Any, ...]]:
            states, observations, start, carry = state
            noise, env_key = random
            actions, carry = policy.act(parameters, moments, finite(observations), carry, start, None, noise)
            states, taken = step_batch(env, env.params, env_key, states, policy.actions.to_environment(actions, jnp))
            ended = taken.terminated | taken.truncated
            row = (observations, actions, start, taken._replace(observations=None))
            return (states, taken.observations, ended, carry), row

        first = (collector.environments, collector.observations, collector.episode_start, carry)
        act_key, env_key = jax.random.split(key)
        noise = policy.rollout_noise(jax.random.split(act_key, self._n_steps), self._n_envs)
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
        return Collector(*last), trajectory


def over_seeds(function: Callable[..., Any], in_axes: tuple[int | None, ...], n_seeds: int) -> Callable[..., Any]:
    """Return the function mapped over a leading axis of seeds, which is divided evenly among JAX's devices.

    As many devices take part as divide the seeds. No seed has to do with another, so nothing passes between devices.

    Args:
        function: of arrays without the axis.
        in_axes: 0 for an argument that has the axis, ``None`` for one that all seeds share.
        n_seeds: its length.
    """
    mapped = jax.vmap(function, in_axes=in_axes)
    devices = jax.devices()
    n = max(k for k in range(1, len(devices) + 1) if n_seeds % k == 0)
    if n == 1:
        return mapped
    mesh = jax.sharding.Mesh(np.asarray(devices[:n]), ("seeds",))
    each, all_alike = jax.sharding.PartitionSpec("seeds"), jax.sharding.PartitionSpec()
    specs = tuple(all_alike if axis is None else each for axis in in_axes)
    return jax.shard_map(mapped, mesh=mesh, in_specs=specs, out_specs=each, check_vma=False)


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
    """

    has_barriers = True

    def __init__(
        self,
        update: Update,
        make: Callable[[], HostEnvironments],
        n_steps: int,
        cost_watch: CostWatch | None = None,
        compiled: Callable[[Callable[..., Any]], Callable[..., Any]] = jax.jit,
    ) -> None:
        self._update, self._make, self._n_steps = update, make, n_steps
        self._cost_watch = cost_watch or CostWatch(update)
        self._gatherer: Gatherer | None = None
        self._name = ""
        self._rows = 0
        self._step_loop = StepLoop(update.policy, n_steps, self._cost_watch.complain)
        self._learn = compiled(self._learn_once)

    def init(self, key: Array) -> Collector:
        """Return the state of no environments; ``restart`` begins with some."""
        return Collector((), (), np.ones((0,), bool), ())

    def restart(self, learner: Learner, collector: Any, seed: int, step: int) -> tuple[Learner, Any]:
        """Rebuild the environments and reset them; open episodes are cut, which the last row has bootstrapped for."""
        self.close()
        environments = self._make()
        n = environments.n_envs
        try:
            observations, masks = environments.reset(environment_seeds(seed, step, n))
        except BaseException:
            environments.close()
            raise
        self._gatherer = PoolScan.of(environments, self._update.policy, self._n_steps) or self._step_loop
        self._gatherer.begin(environments, observations, masks)
        self._name, self._rows = environments.name, 0
        collector = Collector((), (), np.ones((n,), bool), self._update.policy.initial_carry(n))
        return self._update.restart(learner), collector

    def iterate(
        self, learner: Learner, collector: Any, key: Array, remaining: float
    ) -> tuple[Learner, Any, dict[str, np.ndarray], Outcome]:
        """Gather a rollout, then learn from it."""
        assert self._gatherer is not None, "restart comes before iterate"
        collect_key, update_key = jax.random.split(key)
        carry = self._update.policy.begin_rollout(collector.carry)
        parameters, moments = learner.parameters["policy"], learner.observation_moments
        gathered, start, last_carry = self._gatherer.gather(
            parameters, moments, carry, collector.episode_start, collect_key
        )
        gathered = {**gathered, "carry": carry, "critic_carry": ()}
        learned = self._learn(learner, gathered, np.float32(remaining), update_key)
        learner, record, outcome, faults = learned
        outcome, faults, record = jax.device_get((outcome, faults, record))
        check_faults(self._cost_watch.without(faults, self._name, self._rows), self._name, self._rows)
        self._rows += self._n_steps
        return learner, Collector((), (), start, last_carry), record, Outcome(*outcome)

    def close(self) -> None:
        """Close the environments."""
        if self._gatherer is not None:
            self._gatherer.close()
            self._gatherer = None

    def _learn_once(
        self, learner: Learner, gathered: dict[str, Any], remaining: Array, key: Array
    ) -> tuple[Learner, Diagnostics, tuple[Array | None, ...], Faults]:
        trajectory = Trajectory(**gathered, log_probs=jnp.zeros(gathered["rewards"].shape, jnp.float32))
        learner, record = self._update.update(learner, trajectory, remaining, key)
        outcome = outcome_of(trajectory, self._cost_watch.strict)
        return learner, record, outcome, faults_of(self._update, trajectory)
