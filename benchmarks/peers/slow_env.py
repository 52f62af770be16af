"""An environment in pure Python whose step keeps the processor busy for a millisecond: ``slow_env:Slow-v0``."""

from __future__ import annotations

import time
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

STEP_S = 1e-3
EPISODE = 500


class Slow(gym.Env[np.ndarray, int]):
    """A walk that the actions push; it ends after 500 steps."""

    def __init__(self) -> None:
        self.observation_space = spaces.Box(-np.inf, np.inf, (4,), np.float32)
        self.action_space = spaces.Discrete(2)  # type: ignore[assignment]
        self._state = np.zeros(4, np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin at a random place."""
        super().reset(seed=seed)
        self._state = self.np_random.standard_normal(4).astype(np.float32)
        return self._state, {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Keep the processor busy, and move."""
        end = time.perf_counter() + STEP_S
        self._state = np.roll(self._state, 1) + np.float32(0.1 * (2 * action - 1))
        while time.perf_counter() < end:
            pass
        return self._state, float(-abs(self._state[0])), False, False, {}


gym.register("Slow-v0", entry_point="slow_env:Slow", max_episode_steps=EPISODE)
