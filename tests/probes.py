"""Probe environments: tiny problems whose best policy and values are known by hand, compiled and for the host."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces
from jax import Array


class ProbeState(NamedTuple):
    time: Array
    observation: Array


def constant_observation(key: Array, time: Array) -> Array:
    return jnp.ones((1,), jnp.float32)


def random_sign(key: Array, time: Array) -> Array:
    return jnp.where(jax.random.bernoulli(key), 1.0, -1.0).astype(jnp.float32)[None]


def show_time(key: Array, time: Array) -> Array:
    return time.astype(jnp.float32)[None]


def nothing(observation: Array, action: Array, time: Array) -> dict[str, Array]:
    return {}


@dataclass(frozen=True, eq=False)
class Probe:
    """A compiled environment of ``length`` steps; ``reward`` and ``info`` are functions of (observation, action, time)."""

    reward: Callable[[Array, Array, Array], Array]
    observe: Callable[[Array, Array], Array] = constant_observation
    length: int = 1
    time_limit: bool = False
    action_space: spaces.Space = field(default_factory=lambda: spaces.Discrete(2))
    observation_space: spaces.Space = field(default_factory=lambda: spaces.Box(-10.0, 10.0, (1,), np.float32))
    params: tuple[()] = ()
    info: Callable[[Array, Array, Array], dict[str, Array]] = nothing

    def reset(self, key: Array, params: Any) -> tuple[ProbeState, Array]:
        time = jnp.zeros((), jnp.int32)
        observation = self.observe(key, time)
        return ProbeState(time, observation), observation

    def step(
        self, key: Array, state: ProbeState, action: Array, params: Any
    ) -> tuple[ProbeState, Array, Array, Array, Array, dict[str, Any]]:
        reward = self.reward(state.observation, action, state.time)
        info = self.info(state.observation, action, state.time)
        time = state.time + 1
        observation = self.observe(key, time)
        over, never = time >= self.length, jnp.zeros((), bool)
        terminated, truncated = (never, over) if self.time_limit else (over, never)
        return ProbeState(time, observation), observation, reward, terminated, truncated, info


def one(observation: Array, action: Array, time: Array) -> Array:
    return jnp.ones((), jnp.float32)


class Metronome(gym.Env[np.ndarray, Any]):
    """A host environment that takes no notice of actions: episodes of ``3, 5, 3, 5, ...`` steps, every second one cut.

    The observation is (episode, step in it) and the reward counts up over all steps, so every row is told apart.
    """

    observation_space = spaces.Box(-1e6, 1e6, (2,), np.float32)

    def __init__(self, action_space: spaces.Space | None = None) -> None:
        self.action_space = action_space or spaces.Discrete(2)
        self.taken: list[Any] = []
        self._episode, self._step, self._steps = -1, 0, 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        if seed is not None:
            self._episode, self._steps = -1, 0
        self._episode, self._step = self._episode + 1, 0
        return self._observation(), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.taken.append(np.array(action))
        self._step += 1
        self._steps += 1
        over = self._step == (3, 5)[self._episode % 2]
        cut = self._episode % 2 == 1
        return self._observation(), float(self._steps), over and not cut, over and cut, {}

    def _observation(self) -> np.ndarray:
        return np.array([self._episode, self._step], np.float32)


class Corridor(gym.Env[dict[str, Any], np.ndarray]):
    """A host environment with a Dict observation, a MultiDiscrete action and a mask: some choices are never allowed.

    The position is observed beside a goal; the first choice moves (left, stay, right), the second must be the bit
    shown. A forbidden choice raises.
    """

    observation_space = spaces.Dict(
        {"position": spaces.Box(0.0, 4.0, (1,), np.float32), "bit": spaces.Discrete(2), "goal": spaces.MultiBinary(2)}
    )
    action_space = spaces.MultiDiscrete([3, 2])

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[dict[str, Any], dict]:
        super().reset(seed=seed)
        self._position, self._time = int(self.np_random.integers(0, 3)), 0
        self._bit = int(self.np_random.integers(2))
        return self._observation(), {"action_mask": self._mask()}

    def step(self, action: np.ndarray) -> tuple[dict[str, Any], float, bool, bool, dict]:
        if not self._mask()[action[0]] or not self._mask()[3 + action[1]]:
            raise ValueError(f"the action {action} is forbidden at {self._position}")
        self._position += int(action[0]) - 1
        self._time += 1
        self._bit = int(self.np_random.integers(2))
        goal = self._position == 4
        return self._observation(), float(goal), goal, self._time == 12, {"action_mask": self._mask()}

    def _mask(self) -> np.ndarray:
        moves = [self._position > 0, True, self._position < 4]
        return np.array([*moves, self._bit == 0, self._bit == 1])

    def _observation(self) -> dict[str, Any]:
        position = np.array([self._position], np.float32)
        return {"position": position, "bit": self._bit, "goal": np.array([1, 0], np.int8)}
