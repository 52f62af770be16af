"""EnvPool as a vector environment of Stable-Baselines3, so that both sides step the same simulator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import envpool
import numpy as np
from stable_baselines3.common.vec_env import VecEnv  # pyright: ignore[reportMissingImports]


class PoolVecEnv(VecEnv):  # type: ignore[misc]
    """``n_envs`` environments of one EnvPool id.

    EnvPool resets in a step of its own: the step after an end ignores the action and returns the first observation of the
    new episode. Stable-Baselines3 wants that observation at once. So the environments that ended are stepped once more,
    by themselves.
    """

    def __init__(self, name: str, n_envs: int, seed: int) -> None:
        self.pool: Any = envpool.make_gymnasium(name, num_envs=n_envs, seed=seed)
        super().__init__(n_envs, self.pool.observation_space, self.pool.action_space)
        self.returns, self.lengths = np.zeros(n_envs), np.zeros(n_envs, int)

    def reset(self) -> np.ndarray:
        """Return the first observations."""
        observations, _ = self.pool.reset()
        return observations

    def step_async(self, actions: np.ndarray) -> None:
        """Remember the actions."""
        self.actions = actions

    def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        """Take the step, and one more in the environments that ended."""
        observations, rewards, terminated, truncated, _ = self.pool.step(self.actions)
        ended = terminated | truncated
        self.returns += rewards
        self.lengths += 1
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        if ended.any():
            rows = np.flatnonzero(ended)
            fresh, *_ = self.pool.step(self.actions[rows], rows.astype(np.int32))
            last, observations = observations, observations.copy()
            observations[rows] = fresh
            for row in rows:
                infos[row] = {
                    "terminal_observation": last[row],
                    "TimeLimit.truncated": bool(truncated[row] and not terminated[row]),
                    "episode": {"r": float(self.returns[row]), "l": int(self.lengths[row]), "t": 0.0},
                }
            self.returns[rows], self.lengths[rows] = 0.0, 0
        return observations, rewards.astype(np.float32), ended, infos

    def close(self) -> None:
        """Close the pool."""
        self.pool.close()

    # What follows is asked of every vector environment and of no use here.

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """Return an attribute of each environment."""
        return [getattr(self, attr_name, None)] * self.num_envs

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Refuse."""
        raise NotImplementedError

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        """Refuse."""
        raise NotImplementedError

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        """Return that none is."""
        return [False] * self.num_envs

    def seed(self, seed: int | None = None) -> Sequence[int | None]:
        """Return the seeds; the pool has its own."""
        return [seed] * self.num_envs
