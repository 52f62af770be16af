"""Goal-conditioned environments that are learnt in seconds, or not at all without hindsight."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces


class BitFlipping(gym.Env[Any, Any]):
    """Flip one of n bits at a time until they are those that are desired; the reward is -1 until then.

    Source: Andrychowicz et al. 2017, *Hindsight Experience Replay*, section 3.1.
    """

    def __init__(self, n_bits: int = 8) -> None:
        bits = spaces.MultiBinary(n_bits)
        self.observation_space = spaces.Dict(observation=bits, achieved_goal=bits, desired_goal=bits)
        self.action_space = spaces.Discrete(n_bits)
        self._n = n_bits

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self._state, self._goal = (self.np_random.integers(0, 2, self._n).astype(np.int8) for _ in range(2))
        self._steps = 0
        return self._seen(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self._state = self._state.copy()
        self._state[int(action)] ^= 1
        self._steps += 1
        reward = float(self.compute_reward(self._state, self._goal, {}))
        return self._seen(), reward, reward == 0.0, self._steps >= self._n, {"is_success": reward == 0.0}

    def compute_reward(self, achieved_goal: np.ndarray, desired_goal: np.ndarray, info: Any) -> np.ndarray:
        return -np.any(achieved_goal != desired_goal, axis=-1).astype(np.float32)

    def _seen(self) -> dict[str, np.ndarray]:
        return {"observation": self._state, "achieved_goal": self._state, "desired_goal": self._goal}


class Reach(gym.Env[Any, Any]):
    """A point in [-1, 1]^2 moves by a tenth of its action; the reward is -1 while it is further than 0.1 from the goal.

    The episode ends by a time limit alone, or, with ``ends``, at the goal. With ``toll`` actions have a price, which
    ``compute_reward`` knows from ``info["toll"]`` alone.
    """

    def __init__(self, limit: int = 20, ends: bool = False, toll: float = 0.0) -> None:
        place = spaces.Box(-1.0, 1.0, (2,), np.float64)
        self.observation_space = spaces.Dict(observation=place, achieved_goal=place, desired_goal=place)
        self.action_space = spaces.Box(-1.0, 1.0, (2,), np.float32)
        self._limit, self._ends, self._toll = limit, ends, toll

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self._place, self._goal = self.np_random.uniform(-1.0, 1.0, 2), self.np_random.uniform(-1.0, 1.0, 2)
        self._steps = 0
        return self._seen(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self._place = np.clip(self._place + 0.1 * np.asarray(action, np.float64), -1.0, 1.0)
        self._steps += 1
        info = {"toll": self._toll * float(np.abs(action).sum())}
        reward = float(self.compute_reward(self._place[None], self._goal[None], [info])[0])
        near = bool(np.linalg.norm(self._place - self._goal) <= 0.1)
        return (
            self._seen(),
            reward,
            self._ends and near,
            self._steps >= self._limit,
            {**info, "is_success": float(near)},
        )

    def compute_reward(self, achieved_goal: np.ndarray, desired_goal: np.ndarray, info: Any) -> np.ndarray:
        tolls = np.array([each.get("toll", 0.0) for each in info])
        return -(np.linalg.norm(achieved_goal - desired_goal, axis=-1) > 0.1).astype(np.float64) - tolls

    def _seen(self) -> dict[str, np.ndarray]:
        return {"observation": self._place, "achieved_goal": self._place, "desired_goal": self._goal}


gym.register("Reach-v0", "goals:Reach")
