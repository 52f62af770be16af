"""Gymnasium environments that go wrong in a chosen way, at a chosen step."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from gymnasium import spaces

VARIABLE = "JUMAR_DRILL"
"""The environment variable that says how :class:`Drilled` goes wrong: ``FAULT:STEP``. Without it, all is well."""


class Walk(gym.Env):
    """A counter with noise from its own generator: observation [step of the episode, noise, last action].

    It terminates at step ``ends``, truncates at step ``limit`` (both may be the same), and pays its noise.
    """

    observation_space = spaces.Box(-np.inf, np.inf, (3,), np.float32)
    action_space: spaces.Space = spaces.Discrete(3, start=-1)

    def __init__(self, ends: int = 5, limit: int = 1000) -> None:
        self.ends, self.limit = ends, limit
        self.total = 0
        self.buffer = np.zeros(3, np.float32)  # returned and overwritten, as careless environments do

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode."""
        super().reset(seed=seed)
        self.time = 0
        return self.observe(0), {}

    def observe(self, action: Any) -> Any:
        """Return the observation after an action."""
        self.buffer[:] = self.time, self.np_random.normal(), action
        return self.buffer

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Do an action."""
        assert self.action_space.contains(action)
        self.time += 1
        self.total += 1
        observation = self.observe(action)
        return observation, float(self.buffer[1]), self.time == self.ends, self.time == self.limit, {}


def _raise(kind: type[BaseException], *words: str) -> Callable[[], None]:
    def act() -> None:
        raise kind(*words)

    return act


ACTS: Mapping[str, Callable[[], object]] = {
    "raise": _raise(ValueError, "boom"),
    "generator exit": _raise(GeneratorExit),
    "interrupt": _raise(KeyboardInterrupt),
    "hang": lambda: time.sleep(600),
    "exit": lambda: os._exit(7),
    "exit zero": lambda: os._exit(0),
    "crash": lambda: ctypes.string_at(0),
    "abort": os.abort,
    "killed": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "close": lambda: os.closerange(3, 100),
}
"""What a fault does before the step returns anything."""
OBSERVATIONS: Mapping[str, Any] = {
    "nan": np.array([1, np.nan, 0], np.float32),
    "shape": np.zeros(5, np.float32),
    "scalar": np.float32(1),
    "text": "left",
}
REWARDS: Mapping[str, Any] = {"inf reward": np.inf, "no reward": None, "text reward": "1", "list reward": [1.0]}
INFOS: Mapping[str, Any] = {"bad cost": {"cost": np.nan}, "no mask": {"action_mask": np.zeros(3, bool)}, "info": [1]}


class Faulty(Walk):
    """A :class:`Walk` that goes wrong at step ``at``, counted over all episodes."""

    def __init__(self, fault: str, at: int = 3, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.fault, self.at = fault, at

    def step(self, action: Any) -> Any:
        """Do an action, or go wrong."""
        observation, reward, terminated, truncated, info = super().step(action)
        if not self.goes_wrong():
            return observation, reward, terminated, truncated, info
        if self.fault in ACTS:
            ACTS[self.fault]()
        if self.fault == "four values":
            return observation, reward, terminated, info
        observation = OBSERVATIONS.get(self.fault, observation)
        return observation, REWARDS.get(self.fault, reward), terminated, truncated, INFOS.get(self.fault, info)

    def goes_wrong(self) -> bool:
        """Whether this is the step."""
        return self.total == self.at


class Drilled(Faulty):
    """A :class:`Faulty` of which ``JUMAR_DRILL`` says how it goes wrong, such as ``raise:120``, so that it can be mended.

    Steps are those of all copies in a process, since environments may be made anew in the course of a run.
    """

    steps: ClassVar[int] = 0

    def __init__(self) -> None:
        fault, _, at = os.environ.get(VARIABLE, "none:-1").partition(":")
        super().__init__(fault, int(at))

    def goes_wrong(self) -> bool:
        """Whether this is the step."""
        Drilled.steps += 1
        return Drilled.steps == self.at


gym.register("Drilled-v0", "jumar.drills.faulty:Drilled")
