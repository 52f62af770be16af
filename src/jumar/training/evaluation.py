"""Evaluation: whole episodes of a policy in fresh environments.

Episode ``i`` is seeded ``seed + i``, and its actions come from a program for a single observation. So its return
depends on the policy and on its seed alone, never on how many episodes run side by side.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jumar.envs.compiled import CompiledEnvironment, reset_batch, step_batch
from jumar.envs.host import HostEnvironments
from jumar.errors import EnvironmentFault
from jumar.normalise import RunningMoments
from jumar.policies import Policy
from jumar.training.rollouts import narrow

LONGEST = 100_000
"""An episode of an environment without an end of its own is cut here, in steps."""


class Episodes(NamedTuple):
    """What an evaluation saw, an entry per episode."""

    returns: np.ndarray
    """Undiscounted sums of raw rewards, float64."""
    lengths: np.ndarray
    """Steps, int64."""

    def summary(self) -> dict[str, Any]:
        """Return the numbers that ``jumar evaluate --json`` prints."""
        return {
            "mean_return": float(self.returns.mean()),
            "std_return": float(self.returns.std()),
            "min_return": float(self.returns.min()),
            "max_return": float(self.returns.max()),
            "mean_length": float(self.lengths.mean()),
            "episodes": len(self.returns),
            "returns": [float(x) for x in self.returns],
        }


class Evaluator(NamedTuple):
    """A way to run episodes; made once, so that it is compiled once."""

    run: Callable[[Any, RunningMoments, int, int], Episodes]
    """(policy parameters, observation moments, number of episodes, seed) -> episodes."""


def single_actor(policy: Policy, deterministic: bool) -> Callable[..., tuple[Array, Any]]:
    """Return the compiled function that acts for one environment.

    It takes (parameters, moments, observation, carry, episode_start, mask, key, t), all of a batch of one, and returns
    a valid action and the carry.
    """

    def act(
        parameters: Any,
        moments: RunningMoments,
        observation: Any,
        carry: Any,
        start: Array,
        mask: Any,
        key: Array,
        t: Array,
    ) -> tuple[Array, Any]:
        if deterministic:
            action, carry = policy.act_greedily(parameters, moments, observation, carry, start, mask)
        else:
            action, carry = policy.act(parameters, moments, observation, carry, start, mask, jax.random.fold_in(key, t))
        return policy.actions.to_environment(action, jnp), carry

    return act


def compiled_evaluator(policy: Policy, env: CompiledEnvironment, name: str, deterministic: bool = True) -> Evaluator:
    """Return an evaluator for a compiled environment: each episode is one call of one compiled loop."""
    act = single_actor(policy, deterministic)

    def episode(parameters: Any, moments: RunningMoments, key: Array) -> tuple[Array, Array]:
        reset_key, env_key, act_key = jax.random.split(key, 3)
        states, observations = reset_batch(env, env.params, reset_key, 1)
        start = (states, observations, policy.initial_carry(1), jnp.zeros((), jnp.float32), jnp.zeros((), jnp.int32))

        def step(state: tuple[Any, ...]) -> tuple[Any, ...]:
            states, observations, carry, total, t, _ = state
            action, carry = act(parameters, moments, observations, carry, (t == 0)[None], None, act_key, t)
            states, taken = step_batch(env, env.params, jax.random.fold_in(env_key, t), states, action)
            done = (taken.terminated | taken.truncated)[0]
            return states, taken.observations, carry, total + taken.rewards[0], t + 1, done

        state = jax.lax.while_loop(
            lambda state: ~state[-1] & (state[-2] < LONGEST), step, (*start, jnp.zeros((), bool))
        )
        return state[-3], state[-2]

    run_one = jax.jit(episode)

    def run(parameters: Any, moments: RunningMoments, episodes: int, seed: int) -> Episodes:
        results = [run_one(parameters, moments, jax.random.PRNGKey(seed + i)) for i in range(episodes)]
        returns, lengths = (np.array(x) for x in zip(*jax.device_get(results), strict=True))
        _check_returns(returns, name)
        return Episodes(returns.astype(np.float64), lengths.astype(np.int64))

    return Evaluator(run)


def host_evaluator(
    policy: Policy, make: Callable[[int], HostEnvironments], lanes: int, deterministic: bool = True
) -> Evaluator:
    """Return an evaluator for environments stepped from Python.

    Args:
        policy: the policy.
        make: makes so many environments.
        lanes: how many episodes run side by side at most.
        deterministic: take the most likely action, else draw one.
    """
    act = jax.jit(single_actor(policy, deterministic))

    def run(parameters: Any, moments: RunningMoments, episodes: int, seed: int) -> Episodes:
        returns, lengths = np.zeros(episodes), np.zeros(episodes, np.int64)
        for first in range(0, episodes, lanes):
            group = range(first, min(first + lanes, episodes))
            environments = make(len(group))
            try:
                results = _run_group(act, policy, parameters, moments, environments, group, seed)
            finally:
                environments.close()
            for i, (total, length) in zip(group, results, strict=True):
                returns[i], lengths[i] = total, length
        return Episodes(returns, lengths)

    return Evaluator(run)


def _run_group(
    act: Callable[..., tuple[Array, Any]],
    policy: Policy,
    parameters: Any,
    moments: RunningMoments,
    environments: HostEnvironments,
    group: range,
    seed: int,
) -> list[tuple[float, int]]:
    """Run one episode in each environment, side by side; return (return, length) of each."""
    n = len(group)
    observations, masks = environments.reset([seed + i for i in group])
    keys = [jax.random.PRNGKey(seed + i) for i in group]
    carries = [policy.initial_carry(1) for _ in group]
    totals, lengths, running = np.zeros(n), np.zeros(n, np.int64), np.ones(n, bool)
    actions: list[np.ndarray] = [np.zeros((), np.float32)] * n
    for t in range(LONGEST):
        observations = narrow(observations)
        start = np.array([t == 0])
        for k in np.flatnonzero(running):
            one = jax.tree.map(lambda x, k=k: x[k : k + 1], (observations, masks))
            action, carries[k] = act(parameters, moments, one[0], carries[k], start, one[1], keys[k], np.uint32(t))
            actions[k] = np.asarray(action)[0]
        step = environments.step(np.stack(actions))
        totals += np.where(running, step.rewards, 0.0)
        lengths += running
        running &= ~(step.terminated | step.truncated)
        if not running.any():
            break
        observations, masks = step.observations, step.action_masks
    return list(zip(totals.tolist(), lengths.tolist(), strict=True))


def _check_returns(returns: np.ndarray, name: str) -> None:
    if not np.isfinite(returns).all():
        i = int(np.argmin(np.isfinite(returns)))
        raise EnvironmentFault(f"episode {i} of the evaluation in {name} had a return that is {returns[i]}.")
