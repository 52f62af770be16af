"""Gymnasium environments that can be stepped and are wrong all the same, each in one way."""

from __future__ import annotations

import time
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from gymnasium import spaces


class Unmade:
    """A compiled environment whose constructor raises."""

    def __init__(self, size: int = 1) -> None:
        raise RuntimeError("no board")


class Sound(gym.Env):
    """A walk on a line with noise: it ends at 3 or after at most 20 steps, and every step costs 1."""

    observation_space: spaces.Space = spaces.Box(-10.0, 10.0, (2,), np.float32)
    action_space: spaces.Space = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.place, self.noise, self.time = 0.0, float(self.np_random.uniform()), 0
        return self.observe(), {}

    def observe(self) -> Any:
        return np.array([self.place, self.noise], np.float32)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        self.time += 1
        self.place += 1.0 if np.sum(action) > 0.5 else -1.0
        self.noise = float(self.np_random.uniform())
        return self.observe(), self.reward(), abs(self.place) >= 3, self.time >= 20, {"place": self.place}

    def reward(self) -> float:
        return -1.0


class Unseeded(Sound):
    """Its noise is NumPy's own, which no seed of a reset sets."""

    def observe(self) -> Any:
        noise = self.noise if self.time < 2 else np.random.random()  # noqa: NPY002
        return np.array([self.place, noise], np.float32)


class Carried(Sound):
    """A reset does not reset a number, so the second time goes otherwise."""

    count = 0.0

    def reward(self) -> float:
        self.count += 0.001
        return self.count - 1.0


class Shared(Sound):
    """All environments of the process move one and the same place."""

    places: ClassVar = [0.0]

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        self.places[0] = 0.0
        return super().reset(seed=seed)

    def observe(self) -> Any:
        return np.array([self.places[0] / 100, self.noise], np.float32)

    def step(self, action: Any) -> Any:
        self.places[0] += 1.0 + float(np.sum(action))
        return super().step(action)


class Still(Sound):
    def observe(self) -> Any:
        return np.ones(2, np.float32)


class HalfStill(Sound):
    def observe(self) -> Any:
        return np.array([self.place, 0.5], np.float32)


class Deaf(Sound):
    """Actions change nothing."""

    def step(self, action: Any) -> Any:
        return super().step(self.time % 2)


class Outside(Sound):
    observation_space = spaces.Box(-1.0, 1.0, (2,), np.float32)


class Double(Sound):
    def observe(self) -> Any:
        return np.array([self.place, self.noise])


class Huge(Sound):
    def reward(self) -> float:
        return -1e5


class Nothing(Sound):
    def reward(self) -> float:
        return 0.0


class Endless(Sound):
    def step(self, action: Any) -> Any:
        observation, reward, _, _, info = super().step(action)
        return np.clip(observation, -10, 10), reward, False, False, info


class Clocked(Sound):
    """A time limit that is reported as a termination."""

    def step(self, action: Any) -> Any:
        observation, reward, *_, info = super().step(action)
        return observation, reward, self.time == 7, False, info


class Unbounded(Sound):
    action_space = spaces.Box(-np.inf, np.inf, (1,), np.float32)


class Lopsided(Sound):
    action_space = spaces.Box(0.0, 1.0, (1,), np.float32)


class Unkind(Sound):
    """Its reset cannot be given a seed."""

    def reset(self) -> Any:  # type: ignore[override]
        return super().reset()


class Alone(Sound):
    """Its reset returns no info."""

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        return super().reset(seed=seed)[0]


class Blocked(Sound):
    """Its mask, in the observation, allows nothing."""

    observation_space = spaces.Dict({"place": Sound.observation_space, "action_mask": spaces.MultiBinary(2)})

    def observe(self) -> Any:
        return {"place": super().observe(), "action_mask": np.zeros(2, np.int8)}


class Masked(Sound):
    """Sound, with a mask in its observation: a step to where the walk would end is forbidden, and raises."""

    observation_space = spaces.Dict(
        place=spaces.Box(-10.0, 10.0, (2,), np.float32), action_mask=spaces.Box(0, 1, (2,), np.int8)
    )

    def observe(self) -> Any:
        allowed = np.array([self.place > -2, self.place < 2], np.int8)
        return {"place": np.array([self.place, self.noise], np.float32), "action_mask": allowed}

    def step(self, action: Any) -> Any:
        assert self.observe()["action_mask"][int(action)], "a forbidden step"
        return super().step(action)


class Vast(Sound):
    """Sound, with the largest bounds of actions that there are."""

    action_space = spaces.Box(-np.finfo(np.float64).max, np.finfo(np.float64).max, (1,), np.float64)


class Slow(Sound):
    def step(self, action: Any) -> Any:
        time.sleep(0.002)
        return super().step(action)


for kind in (
    Sound,
    Unseeded,
    Carried,
    Shared,
    Still,
    HalfStill,
    Deaf,
    Outside,
    Double,
    Huge,
    Nothing,
    Endless,
    Clocked,
    Unbounded,
    Lopsided,
    Unkind,
    Alone,
    Blocked,
    Masked,
    Vast,
    Slow,
):
    gym.register(f"{kind.__name__}-v0", f"unsound:{kind.__name__}")
