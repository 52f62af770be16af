"""Gymnasium environments that draw or write, for tests; ``pictured:Lamp-v0`` and its like."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

SIDE = 48
"""Pixels of a picture."""


class Lamp(gym.Env):
    """A walk whose picture has the brightness ``50 + step`` everywhere; it pays what its own generator draws."""

    metadata = {"render_modes": ["rgb_array", "human"], "render_fps": 12}  # noqa: RUF012  (Gymnasium's own form)
    observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self, render_mode: str | None = None, length: int = 6, fault: str = "") -> None:
        self.render_mode, self.length, self.fault = render_mode, length, fault

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.time = 0
        return self.observe(), {}

    def observe(self) -> np.ndarray:
        return np.array([self.time, self.np_random.normal()], np.float32)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.time += 1
        reward = float(self.np_random.normal()) + int(action)
        return self.observe(), reward, self.time == self.length, False, {}

    def render(self) -> Any:
        if self.fault == "crash" and self.time == 2:
            os.kill(os.getpid(), signal.SIGSEGV)
        if self.fault == "hang" and self.time == 2:
            time.sleep(600)
        if self.fault == "raise":
            raise RuntimeError("no light")
        if self.fault == "list":
            return [np.zeros((SIDE, SIDE, 3), np.uint8)]
        if self.fault == "float":
            return np.zeros((SIDE, SIDE, 3))
        if self.fault == "package":
            raise gym.error.DependencyNotInstalled("pygame is not installed")
        return np.full((SIDE, SIDE, 3), 50 + self.time, np.uint8)


class Letters(Lamp):
    """The same walk, which writes its step."""

    metadata = {"render_modes": ["ansi"], "render_fps": 4}  # noqa: RUF012

    def render(self) -> Any:
        return f"step \x1b[41m{self.time}\x1b[0m\x1b]0;title\x07\n"


class Blind(Lamp):
    """The same walk without pictures."""

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012

    def __init__(self, length: int = 6) -> None:
        super().__init__(length=length)


for kind in (Lamp, Letters, Blind):
    gym.register(f"{kind.__name__}-v0", f"pictured:{kind.__name__}", max_episode_steps=100)
