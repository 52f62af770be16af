"""Gathering a rollout from environments on the host.

- :class:`StepLoop`: a loop in Python around a compiled policy; it takes any environment.
- :class:`PoolScan`: EnvPool's own XLA calls inside one compiled scan, policy included; no Python between two steps.
"""

from __future__ import annotations

from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces
from jax import Array

from jumar.actions import narrow_dtype
from jumar.envs.host import HostEnvironments
from jumar.envs.pool import EnvPoolEnvironments
from jumar.normalise import RunningMoments
from jumar.observations import finite
from jumar.policies import Carry, Policy

SEED_LIMIT = 2**31 - 1

Gathered = tuple[dict[str, Any], Any, Carry]


class Gatherer(Protocol):
    """Lets a policy act for a fixed number of steps in all environments."""

    def begin(self, environments: HostEnvironments, observations: Any, masks: np.ndarray | None) -> None:
        """Take over environments that were just reset, with what the reset returned."""
        ...

    def gather(self, parameters: Any, moments: RunningMoments, carry: Carry, start: Any, key: Array) -> Gathered:
        """Return the rollout as fields of a trajectory, the next row's ``episode_start``, and the policy's carry.

        Raises:
            EnvironmentFault: an environment failed.
        """
        ...

    def close(self) -> None:
        """Close the environments."""
        ...


class StepLoop:
    """Steps any host environments from Python."""

    def __init__(self, policy: Policy, n_steps: int) -> None:
        self._policy, self._n_steps = policy, n_steps
        self._environments: HostEnvironments | None = None
        self._observations: Any = None
        self._masks: np.ndarray | None = None
        self._act = jax.jit(self._act_once)

    def begin(self, environments: HostEnvironments, observations: Any, masks: np.ndarray | None) -> None:
        """Take over environments that were just reset."""
        self._environments, self._observations, self._masks = environments, narrow(observations), masks

    def gather(self, parameters: Any, moments: RunningMoments, carry: Carry, start: Any, key: Array) -> Gathered:
        """Act, step and write down, row by row."""
        environments, rows = self._environments, Rows(self._n_steps)
        assert environments is not None
        for t in range(self._n_steps):
            observations, masks = self._observations, self._masks
            actions, valid_actions, carry = self._act(
                parameters, moments, observations, carry, start, masks, key, np.uint32(t)
            )
            step = environments.step(np.asarray(valid_actions))
            successors = narrow(step.successors)
            rows.put(
                t,
                observations=observations,
                actions=np.asarray(actions),
                rewards=step.rewards.astype(np.float32),
                terminated=step.terminated,
                truncated=step.truncated,
                successors=successors,
                valid=step.valid,
                episode_start=start,
                action_masks=masks,
                costs=None if step.costs is None else step.costs.astype(np.float32),
            )
            same = step.successors is step.observations
            self._observations = successors if same else narrow(step.observations)
            self._masks = step.action_masks
            # A NEXT_STEP environment shows the old last observation once more after an end, in a row that is no
            # experience; the new episode begins after that row.
            start = step.terminated | step.truncated | ~step.valid
        return rows.arrays, start, carry

    def close(self) -> None:
        """Close the environments."""
        if self._environments is not None:
            self._environments.close()
            self._environments = None

    def _act_once(
        self,
        parameters: Any,
        moments: Any,
        observations: Any,
        carry: Carry,
        start: Array,
        mask: Any,
        key: Array,
        t: Array,
    ) -> tuple[Array, Array, Carry]:
        policy = self._policy
        actions, carry = policy.act(parameters, moments, observations, carry, start, mask, jax.random.fold_in(key, t))
        return actions, policy.actions.to_environment(actions, jnp), carry


class PoolScan:
    """Steps an EnvPool inside one compiled scan.

    The pool's address is part of the compiled program, so every new pool costs one compilation of the scan. EnvPool's
    arrays are in double precision where its environments' are, so the scan runs in JAX's 64-bit mode; the policy
    computes in single precision all the same.
    """

    def __init__(self, policy: Policy, n_steps: int) -> None:
        self._policy, self._n_steps = policy, n_steps
        self._pool: EnvPoolEnvironments | None = None
        self._state: Any = None
        self._scan: Any = None

    @staticmethod
    def of(environments: HostEnvironments, policy: Policy, n_steps: int) -> PoolScan | None:
        """Return a scan for these environments, or ``None`` where EnvPool's XLA calls do not serve them.

        They serve plain Box observations without action masks, where JAX runs on the processor.
        """
        if not isinstance(environments, EnvPoolEnvironments) or not environments.compilable:
            return None
        if jax.default_backend() != "cpu":
            return None
        return PoolScan(policy, n_steps) if isinstance(environments.observation_space, spaces.Box) else None

    def begin(self, environments: HostEnvironments, observations: Any, masks: np.ndarray | None) -> None:
        """Take over the pool, and prepare the program that belongs to it."""
        assert isinstance(environments, EnvPoolEnvironments)
        self._pool = environments
        with jax.enable_x64(True):
            handle, step = environments.xla()
            self._state = jnp.asarray(handle), jnp.asarray(observations), jnp.zeros(environments.n_envs, bool)
        self._scan = jax.jit(lambda *arguments: self._gather_once(step, *arguments))

    def gather(self, parameters: Any, moments: RunningMoments, carry: Carry, start: Any, key: Array) -> Gathered:
        """Run the scan once."""
        with jax.enable_x64(True):
            self._state, gathered, start, carry = self._scan(parameters, moments, self._state, carry, start, key)
        return {**gathered, "action_masks": None, "costs": None}, start, carry

    def close(self) -> None:
        """Close the pool."""
        if self._pool is not None:
            jax.block_until_ready(self._state)
            self._pool.close()
            self._pool = self._state = self._scan = None

    def _gather_once(
        self, step: Any, parameters: Any, moments: Any, state: Any, carry: Carry, start: Array, key: Array
    ) -> tuple[Any, dict[str, Any], Array, Carry]:
        policy = self._policy

        def row(state: Any, key: Array) -> tuple[Any, dict[str, Any]]:
            handle, raw, carry, start, over = state
            observations = raw.astype(narrow_dtype(raw.dtype))
            actions, carry = policy.act(parameters, moments, finite(observations), carry, start, None, key)
            handle, (raw, rewards, terminated, truncated, _) = step(handle, policy.actions.to_environment(actions, jnp))
            ended = terminated | truncated
            taken = {
                "observations": observations,
                "actions": actions,
                "rewards": rewards.astype(jnp.float32),
                "terminated": terminated,
                "truncated": truncated & ~terminated,
                "valid": ~over,
                "episode_start": start,
            }
            return (handle, raw, carry, ended | over, ended), taken

        handle, raw, over = state
        first = (handle, raw, carry, start, over)
        (handle, raw, carry, start, over), rows = jax.lax.scan(row, first, jax.random.split(key, self._n_steps))
        last = raw.astype(rows["observations"].dtype)[None]
        # In NEXT_STEP mode the next row's observation is the true successor, also where the episode ended.
        rows["successors"] = jnp.concatenate([rows["observations"][1:], last])
        return (handle, raw, over), rows, start, carry


NEUTRAL = {"action_masks": True, "costs": 0.0}
"""What a field means in the rows before the environment first gave it."""


class Rows:
    """The arrays of a rollout, filled row by row; shapes and dtypes are those of a field's first row."""

    def __init__(self, length: int) -> None:
        self._length = length
        self.arrays: dict[str, Any] = {}

    def put(self, t: int, **row: Any) -> None:
        """Copy row ``t`` into the arrays."""
        for name, value in row.items():
            if self.arrays.get(name) is None:
                self.arrays[name] = self._begin(name, t, value)
            if type(value) is np.ndarray:  # a walk over a tree of one leaf would take longer than all else here
                self.arrays[name][t] = value
            else:
                for target, source in zip(jax.tree.leaves(self.arrays[name]), jax.tree.leaves(value), strict=True):
                    target[t] = source

    def _begin(self, name: str, t: int, value: Any) -> Any:
        """Return the arrays of a field that row ``t`` is the first to have; ``None`` where it has none either."""

        def allocate(x: np.ndarray) -> np.ndarray:
            array = np.empty((self._length, *x.shape), x.dtype)
            array[:t] = NEUTRAL.get(name, 0)
            return array

        return jax.tree.map(allocate, value)


def narrow(observations: Any) -> Any:
    """Return observations with 64-bit numbers narrowed to 32 bits: what the policy sees and what is stored."""
    if type(observations) is np.ndarray:
        return observations.astype(narrow_dtype(observations.dtype), copy=False)
    return jax.tree.map(lambda x: x.astype(narrow_dtype(x.dtype), copy=False), observations)


def environment_seeds(seed: int, step: int, n: int) -> list[int]:
    """Return ``n`` seeds that depend on (seed, step) alone, each in [0, 2^31 - 1)."""
    return [int(s) for s in np.random.SeedSequence([seed, step]).generate_state(n) % SEED_LIMIT]
