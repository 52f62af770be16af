"""A workshop with two machines: a Gymnasium environment with Dict observations and an action mask."""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

SPEEDS = 3


class Workshop(gym.Env[dict[str, Any], np.ndarray]):
    """Choose the speed of two machines; a hot machine may only be switched off.

    A machine earns its speed (0, 1 or 2) and warms up by it; when off it cools down. One that overheats ends the
    episode with a loss. The shift has no end of its own: the time limit is the one given to ``register``.
    """

    def __init__(self, hot: float = 0.8) -> None:
        self.hot = hot
        self.observation_space = spaces.Dict(
            {
                "heat": spaces.Box(0.0, 1.0, (2,), np.float32),
                "busy": spaces.MultiBinary(2),
                "action_mask": spaces.MultiBinary(2 * SPEEDS),
            }
        )
        self.action_space = spaces.MultiDiscrete([SPEEDS, SPEEDS])

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[dict[str, Any], dict]:
        """Begin with two machines that are switched off."""
        super().reset(seed=seed)
        self.heat = self.np_random.uniform(0.0, 0.5, 2)
        self.busy = np.zeros(2, np.int8)
        return self._observe(), {}

    def step(self, action: np.ndarray) -> tuple[dict[str, Any], float, bool, bool, dict]:
        """Run both machines for a while."""
        speeds = np.asarray(action)
        self.busy = (speeds > 0).astype(np.int8)
        self.heat = self.heat + 0.1 * speeds - 0.2 * (speeds == 0) + self.np_random.normal(0.0, 0.02, 2)
        self.heat = np.maximum(self.heat, 0.0)
        broken = bool(np.any(self.heat > 1.0))
        reward = float(speeds.sum()) - 20.0 * broken
        return self._observe(), reward, broken, False, {}

    def _observe(self) -> dict[str, Any]:
        allowed = np.ones((2, SPEEDS), np.int8)
        allowed[self.heat > self.hot, 1:] = 0
        heat = np.clip(self.heat, 0.0, 1.0).astype(np.float32)
        return {"heat": heat, "busy": self.busy, "action_mask": allowed.reshape(-1)}


gym.register("Workshop-v0", entry_point="workshop:Workshop", max_episode_steps=100)
