"""Environments for tests of lanes; they are registered, so that other processes can make them by their names."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces


class Walk(gym.Env):
    """A noisy walk whose steps and ends come from its own generator; everything that it shows depends on the actions too."""

    observation_space: spaces.Space = spaces.Box(-np.inf, np.inf, (3,), np.float64)
    action_space: spaces.Space = spaces.Box(-1.0, 1.0, (2,), np.float32)

    def __init__(self, ends: float = 0.1) -> None:
        self.ends = ends

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.place, self.time = self.np_random.normal(size=2), 0
        return self.seen(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.time += 1
        self.place = 0.9 * self.place + 0.3 * np.asarray(action) + 0.1 * self.np_random.normal(size=2)
        over = bool(self.np_random.random() < self.ends)
        return self.seen(), -float(np.square(self.place).sum()), over, self.time == 40, {}

    def seen(self) -> Any:
        return np.array([*self.place, self.time / 40])


class Chooser(Walk):
    """A :class:`Walk` with two choices of three, some forbidden; masks and costs come from an episode's fourth step on."""

    action_space = spaces.MultiDiscrete([3, 3])

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        observation, reward, over, cut, _ = super().step(np.asarray(action) - 1.0)
        mask = np.repeat([True, self.place[0] > 0, True], 2)
        info = {"cost": float(self.place[1] > 0), "action_mask": mask, "height": float(self.place[1])}
        return observation, reward, over, cut, info if self.time >= 4 else {}


class Wide(Walk):
    """A :class:`Walk` with actions of 64 bits."""

    action_space = spaces.Box(-1.0, 1.0, (2,), np.float64)


class Clocked(Walk):
    """A :class:`Walk` that is seeded by the clock from some step of its life on."""

    def __init__(self, after: int = 0) -> None:
        super().__init__(ends=0.0)
        self.after, self.steps = after, 0

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        if self.steps == self.after:
            self.np_random = np.random.default_rng(time.time_ns())
        self.steps += 1
        return super().step(action)


class Remembering(Walk):
    """A :class:`Walk` that goes on in an episode where the one before it ended."""

    place = np.zeros(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        before = self.place
        super().reset(seed=seed)
        self.place = self.place + before
        return self.seen(), {}


class Raising(Walk):
    """A :class:`Walk` that raises at some step of an episode."""

    def __init__(self, at: int) -> None:
        super().__init__(ends=0.0)
        self.at = at

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        if self.time + 1 == self.at:
            raise ValueError(f"no step {self.at}")
        return super().step(action)


class Trapped(Walk):
    """A :class:`Walk` that does something bad to its process, once: the first that steps it when a file is there.

    The file's content says what: ``kill``, ``exit``, ``hang`` or ``stop``; it is removed by whoever does it.
    """

    def __init__(self, trap: str = "", at: int = 20) -> None:
        super().__init__(ends=0.02)
        self.trap, self.at = Path(trap), at

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        if self.trap.name and self.time == self.at and (fault := self._fault()):
            if fault == "hang":
                time.sleep(3600)
            os.kill(os.getpid(), {"kill": 9, "stop": 19}[fault])
        return super().step(action)

    def _fault(self) -> str:
        try:
            taken = self.trap.with_suffix(f".{os.getpid()}")
            self.trap.rename(taken)
        except FileNotFoundError:
            return ""
        return taken.read_text()


for _name, _kind in {"Walk": Walk, "Chooser": Chooser, "Clocked": Clocked, "Trapped": Trapped}.items():
    gym.register(f"Lane{_name}-v0", entry_point=_kind)
