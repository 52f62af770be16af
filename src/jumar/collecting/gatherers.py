"""Gathering a rollout from environments on the host.

- :class:`StepLoop`: a loop in Python around a compiled policy; it takes any environment.
- :class:`PoolScan`: EnvPool's own XLA calls inside one compiled scan, policy included; no Python between two steps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces
from jax import Array

from jumar.collecting.info_means import InfoMeans, sums_of
from jumar.envs.boundary import is_number
from jumar.envs.host import HostEnvironments, HostStep
from jumar.envs.pool import EnvPoolEnvironments
from jumar.envs.step_costs import Cost
from jumar.policies.actions import narrow_dtype
from jumar.policies.exploration import Acted, Acting, Behaviour
from jumar.policies.observations import finite

SEED_LIMIT = 2**31 - 1
FEWEST_STEPS = 4
"""With fewer steps at a time a scan is no faster than a loop in Python, and only takes longer to compile."""

Gathered = tuple[dict[str, Any], Any, Any]


class Gatherer(Protocol):
    """Lets a behaviour act for a fixed number of steps in all environments."""

    steps: Sequence[HostStep]
    """What environments returned in the last rollout, as they returned it, where that is kept."""

    def gather(self, acting: Acting, carry: Any, start: Any, key: Array) -> Gathered:
        """Return the steps as fields of a trajectory, the next row's ``episode_start``, and the behaviour's carry.

        Raises:
            EnvironmentFault: an environment failed.
        """
        ...

    def close(self) -> None:
        """Close the environments."""
        ...


class LanesGatherer(Gatherer, Protocol):
    """Lets a behaviour act in environments that each act alone, wherever they are (:mod:`jumar.lanes`)."""

    n_envs: int
    environments: HostEnvironments
    """One environment that is never stepped: its name, and how it rewards goals."""

    def restart(self, seed: int, step: int) -> None:
        """Begin anew in all environments, from seeds derived from (seed, step)."""
        ...


class Row(NamedTuple):
    """What a policy saw and did in one step of N environments, and what came of it."""

    observations: Any
    action_masks: np.ndarray | None
    actions: Any
    step: HostStep


class StepLoop:
    """Steps any host environments from Python.

    Between two steps only what the next one needs is computed; noise is drawn before the first step, and arrays are put
    together after the last. Around a slow environment all code has been out of the processor's caches since the step
    before, and runs at a third of its speed.
    """

    def __init__(
        self,
        behaviour: Behaviour,
        n_steps: int,
        complain: Callable[[str], None] = lambda words: None,
        info: InfoMeans | None = None,
    ) -> None:
        self._info = info or InfoMeans()
        self._behaviour, self._n_steps, self._complain = behaviour, n_steps, complain
        self._environments: HostEnvironments | None = None
        self._observations: Any = None
        self._masks: np.ndarray | None = None
        self.stepping = 0.0
        """Seconds that environments have taken to step, since somebody set it to 0."""
        self.keeps_steps = False
        self.steps: Sequence[HostStep] = ()
        self._noise = jax.jit(self._noise_once, static_argnums=1)
        self._act, self._first = jax.jit(self._act_once), jax.jit(self.first_of)

    def begin(self, environments: HostEnvironments, observations: Any, masks: np.ndarray | None) -> None:
        """Take over environments that were just reset."""
        self._environments, self._observations, self._masks = environments, narrow(observations), masks

    @property
    def seen(self) -> tuple[Any, np.ndarray | None]:
        """The observations to act on next, and their masks."""
        return self._observations, self._masks

    def first(self, acting: Acting, carry: Any, start: Any, key: Array) -> Acted:
        """Return the actions of the first row of :meth:`gather`."""
        return self._first(acting, *self.seen, carry, start, key)

    def gather(self, acting: Acting, carry: Any, start: Any, key: Array, acted: Acted | None = None) -> Gathered:
        """Act, step and remember, row by row; then write all down. ``acted`` has the first row's actions, if they are known."""
        environments = self._environments
        assert environments is not None
        noise: Any = ()
        if acted is None or self._n_steps > 1:
            noise = jax.device_get(self._noise(key, environments.n_envs))
        rows: list[Row] = []
        first = start
        for t in range(self._n_steps):
            observations, masks = self._observations, self._masks
            if t > 0 or acted is None:
                now = noise[t] if isinstance(noise, np.ndarray) else jax.tree.map(lambda x, t=t: x[t], noise)
                acted = self._act(acting, observations, carry, start, masks, now)
            assert acted is not None
            actions, valid_actions, carry = acted
            given = np.asarray(valid_actions)
            began = perf_counter()
            step = environments.step(given)
            self.stepping += perf_counter() - began
            if step.complaint is not None:
                self._complain(step.complaint)
            if step.infos is not None:
                self._info.add_step(step)
            rows.append(Row(observations, masks, actions, step))
            self._observations, self._masks = narrow(step.observations), step.action_masks
            if self._behaviour.recurrent:  # no other one looks at it
                start = over_after(step)
        if self.keeps_steps:
            self.steps = [row.step for row in rows]
        return written_down(rows, first), over_after(rows[-1].step), carry

    def close(self) -> None:
        """Close the environments."""
        if self._environments is not None:
            self._environments.close()
            self._environments = None

    def _noise_once(self, key: Array, n_envs: int) -> Any:
        return self._behaviour.rollout_noise(jax.random.split(key, self._n_steps), n_envs)

    def first_of(self, acting: Acting, observations: Any, masks: Any, carry: Any, start: Array, key: Array) -> Acted:
        """Return what :meth:`first` does, as a function of the observations that programs can be made of."""
        noise = jax.tree.map(lambda x: x[0], self._noise_once(key, len(start)))
        return self._act_once(acting, observations, carry, start, masks, noise)

    def _act_once(self, acting: Acting, observations: Any, carry: Any, start: Array, mask: Any, noise: Any) -> Acted:
        return self._behaviour.act(acting, observations, carry, start, mask, noise)


class PoolScan:
    """Steps an EnvPool inside one compiled scan.

    The pool's address is part of the compiled program, so every new pool costs one compilation of the scan. EnvPool's
    arrays are in double precision where its environments' are, so the scan runs in JAX's 64-bit mode; the policy
    computes in single precision all the same.
    """

    def __init__(self, behaviour: Behaviour, n_steps: int, info: InfoMeans | None = None) -> None:
        self._info = info or InfoMeans()
        self._behaviour, self._n_steps = behaviour, n_steps
        self.steps: Sequence[HostStep] = ()
        self._pool: EnvPoolEnvironments | None = None
        self._state: Any = None
        self._scan: Any = None

    @staticmethod
    def of(
        environments: HostEnvironments, behaviour: Behaviour, n_steps: int, info: InfoMeans | None = None
    ) -> PoolScan | None:
        """Return a scan for these environments, or ``None`` where EnvPool's XLA calls do not serve them.

        They serve plain Box observations without action masks, where JAX runs on the processor.
        """
        if not isinstance(environments, EnvPoolEnvironments) or not environments.compilable:
            return None
        if jax.default_backend() != "cpu" or n_steps < FEWEST_STEPS:
            return None
        return PoolScan(behaviour, n_steps, info) if isinstance(environments.observation_space, spaces.Box) else None

    def begin(self, environments: HostEnvironments, observations: Any, masks: np.ndarray | None) -> None:
        """Take over the pool, and prepare the program that belongs to it."""
        assert isinstance(environments, EnvPoolEnvironments)
        self._pool = environments
        numbers = (key for key, value in environments.last_info.items() if is_number(key, value, axes=1))
        self._info.numbers.update(dict.fromkeys(numbers))
        with jax.enable_x64(True):
            handle, step = environments.xla()
            self._state = jnp.asarray(handle), jnp.asarray(observations), jnp.zeros(environments.n_envs, bool)
        self._scan = jax.jit(lambda *arguments: self._gather_once(step, environments.cost, *arguments))

    def gather(self, acting: Acting, carry: Any, start: Any, key: Array) -> Gathered:
        """Run the scan once."""
        with jax.enable_x64(True):
            self._state, gathered, start, carry, *logged = self._scan(acting, self._state, carry, start, key)
        for sums in logged:
            self._info.add_sums(sums)
        return {**gathered, "action_masks": None, "successor_masks": None}, start, carry

    def close(self) -> None:
        """Close the pool."""
        if self._pool is not None:
            jax.block_until_ready(self._state)
            self._pool.close()
            self._pool = self._state = self._scan = None

    def _gather_once(
        self, step: Any, cost: Cost, acting: Acting, state: Any, carry: Any, start: Array, key: Array
    ) -> tuple[Any, ...]:
        behaviour, keys = self._behaviour, self._info.keys

        def row(state: Any, noise: Array) -> tuple[Any, dict[str, Any]]:
            handle, raw, carry, start, over = state
            observations = raw.astype(narrow_dtype(raw.dtype))
            actions, valid_actions, carry = behaviour.act(acting, finite(observations), carry, start, None, noise)
            handle, (raw, rewards, terminated, truncated, info) = step(handle, valid_actions)
            ended = terminated | truncated
            taken = {
                "observations": observations,
                "actions": actions,
                "rewards": rewards.astype(jnp.float32),
                "terminated": terminated,
                "truncated": truncated & ~terminated,
                "valid": ~over,
                "episode_start": start,
                "infos": {key: info[key] for key in keys if key in info and jnp.ndim(info[key]) == 1},
                "costs": cost(info[cost.entry], jnp).astype(jnp.float32) if cost.entry in info else None,
            }
            return (handle, raw, carry, ended | over, ended), taken

        handle, raw, over = state
        first = (handle, raw, carry, start, over)
        noise = behaviour.rollout_noise(jax.random.split(key, self._n_steps), len(over))
        (handle, raw, carry, start, over), rows = jax.lax.scan(row, first, noise)
        last = raw.astype(rows["observations"].dtype)[None]
        # In NEXT_STEP mode the next row's observation is the true successor, also where the episode ended.
        rows["successors"] = jnp.concatenate([rows["observations"][1:], last])
        infos = rows.pop("infos")
        logged = (sums_of(infos, keys, rows["valid"]),) if keys else ()
        return (handle, raw, over), rows, start, carry, *logged


def over_after(step: HostStep) -> np.ndarray:
    """Return where the next row begins an episode.

    A NEXT_STEP environment shows the old last observation once more after an end, in a row that is no experience; the
    new episode begins after that row.
    """
    return step.terminated | step.truncated | ~step.valid


def written_down(rows: list[Row], first: Any) -> dict[str, Any]:
    """Return the rows of a rollout as fields of a trajectory, arrays ``[T, N, ...]``; ``first`` is its first start."""
    steps = [row.step for row in rows]
    return {
        "observations": joined([row.observations for row in rows]),
        "actions": joined([np.asarray(row.actions) for row in rows]),
        "rewards": joined([step.rewards for step in steps]).astype(np.float32),
        "terminated": joined([step.terminated for step in steps]),
        "truncated": joined([step.truncated for step in steps]),
        "successors": joined([narrow(step.successors) for step in steps]),
        "valid": joined([step.valid for step in steps]),
        "episode_start": joined([np.asarray(first), *(over_after(step) for step in steps[:-1])]),
        "action_masks": joined([row.action_masks for row in rows], before=True),
        "successor_masks": joined([masks_of_successors(step) for step in steps], before=True),
        "costs": joined([None if step.costs is None else step.costs.astype(np.float32) for step in steps]),
    }


def masks_of_successors(step: HostStep) -> np.ndarray | None:
    """Return which actions a step's successors allow: all where the episode ended, and the next mask is of another one."""
    return None if step.action_masks is None else step.action_masks | over_after(step)[:, None]


def joined(rows: list[Any], before: bool | float = 0.0) -> Any:
    """Return rows ``[N, ...]`` of a field as one array ``[T, N, ...]``, for each leaf of a tree.

    A field that comes late has the value ``before`` in the rows that lack it; one that no row has is ``None``.
    """
    first = next((row for row in rows if row is not None), None)
    if first is None:
        return None
    if rows[0] is None:
        neutral = jax.tree.map(lambda x: np.full_like(x, before), first)
        rows = [neutral if row is None else row for row in rows]
    if isinstance(first, np.ndarray):  # a walk over each row's tree would take longer than all else here
        return _stacked(rows)
    fields = zip(*(jax.tree.leaves(row) for row in rows), strict=True)
    return jax.tree.unflatten(jax.tree.structure(first), [_stacked(parts) for parts in fields])


def _stacked(parts: Sequence[np.ndarray]) -> np.ndarray:
    # np.stack takes ten times as long for small arrays.
    return np.concatenate(parts).reshape(len(parts), *parts[0].shape)


def narrow(observations: Any) -> Any:
    """Return observations with 64-bit numbers narrowed to 32 bits: what the policy sees and what is stored."""
    if type(observations) is np.ndarray:
        return observations.astype(narrow_dtype(observations.dtype), copy=False)
    return jax.tree.map(lambda x: x.astype(narrow_dtype(x.dtype), copy=False), observations)


def environment_seeds(seed: int, step: int, n: int) -> list[int]:
    """Return ``n`` seeds that depend on (seed, step) alone, each in [0, 2^31 - 1)."""
    return [int(s) for s in np.random.SeedSequence([seed, step]).generate_state(n) % SEED_LIMIT]
