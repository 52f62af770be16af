"""Environments that are looked at: Gymnasium's with their own values kept, and compiled ones stepped like the others."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from jumar.envs.boundary import Boundary
from jumar.envs.compiled import CompiledEnvironment, reset_batch, stated_limit, step_batch, traced_info
from jumar.envs.host import HostStep

MOST_OUTSIDE = 5
"""How many places outside of bounds are taken down."""


class Watched(gym.Wrapper):
    """Takes down what Jumar forgives: other dtypes, values outside of bounds, and which entries ``info`` has.

    The values themselves go through as they are, malformed ones too.
    """

    def __init__(self, env: gym.Env, notes: Notes) -> None:
        super().__init__(env)
        self._notes = notes

    def reset(self, **keywords: Any) -> Any:
        """Reset, and look."""
        result = self.env.reset(**keywords)
        if isinstance(result, (tuple, list)) and len(result) == 2:
            self._notes.look(self.env.observation_space, result[0], 0)
        return result

    def step(self, action: Any) -> Any:
        """Step, and look."""
        result = self.env.step(action)
        self._notes.steps += 1
        if isinstance(result, (tuple, list)) and len(result) == 5:
            self._notes.look(self.env.observation_space, result[0], self._notes.steps)
            self._notes.look_at_info(result[4])
            self._notes.both_ends += bool(np.all(result[2])) and bool(np.all(result[3]))
        return result


class Notes:
    """What was taken down of one environment."""

    def __init__(self) -> None:
        self.steps = 0
        self.both_ends = 0
        """How many steps both terminated and truncated an episode."""
        self.dtypes: dict[str, str] = {}
        """By place: the dtype that was returned in the place of the space's."""
        self.outside: dict[str, str] = {}
        """By place: where and how far outside of the bounds a value was, the first time."""
        self.numbers: set[str] = set()
        """Entries of ``info`` that are one number."""

    def look(self, space: Any, value: Any, step: int, path: str = "") -> None:
        """Look at an observation, or a part of it; what does not fit its space at all is passed over."""
        if isinstance(space, spaces.Dict) and isinstance(value, Mapping):
            for key, part in space.spaces.items():
                self.look(part, value.get(key), step, f"{path}[{key!r}]")
        elif isinstance(space, spaces.Tuple) and isinstance(value, (tuple, list)):
            for i, (part, inner) in enumerate(zip(space.spaces, value, strict=False)):
                self.look(part, inner, step, f"{path}[{i}]")
        elif isinstance(space, spaces.Box) and isinstance(value, (np.ndarray, np.generic)):
            self._look_at_box(space, np.asarray(value), step, path)

    def _look_at_box(self, space: spaces.Box, value: np.ndarray, step: int, path: str) -> None:
        if value.dtype != space.dtype:
            self.dtypes.setdefault(path, str(value.dtype))
        if value.shape != space.shape or value.dtype.kind not in "fiub" or len(self.outside) >= MOST_OUTSIDE:
            return
        outside = (value < space.low) | (value > space.high)
        if path not in self.outside and outside.any():
            place = tuple(int(i) for i in np.argwhere(outside)[0])
            entry = path + (f"[{', '.join(map(str, place))}]" if place else "")
            low, high = float(space.low[place]), float(space.high[place])
            when = f"step {step}" if step else "the first reset"
            self.outside[path] = (
                f"observation{entry} was {float(value[place]):g} at {when}, outside of [{low:g}, {high:g}]"
            )

    def look_at_info(self, info: Any) -> None:
        """Take down which entries are one number."""
        for key, value in info.items() if isinstance(info, dict) else ():
            number = isinstance(value, (int, float, np.generic, np.ndarray)) and np.ndim(value) == 0
            if isinstance(key, str) and number and np.asarray(value).dtype.kind in "fiub":
                self.numbers.add(key)


def watched(make: Callable[[], Any], notes: Notes) -> Callable[[], Any]:
    """Return a maker of environments that are watched; anything that is not an environment is returned unchanged."""

    def made() -> Any:
        env = make()
        return Watched(env, notes) if isinstance(env, gym.Env) else env

    return made


class SteppedFromPython:
    """Copies of a compiled environment, stepped one call at a time: a :class:`jumar.envs.host.HostEnvironments`."""

    resets_take_steps = False
    never_costs = False
    frames = 1
    left_out: tuple[str, ...] = ()
    hides_mask = False

    def __init__(self, env: CompiledEnvironment, n_envs: int, name: str) -> None:
        self.n_envs, self.name = n_envs, name
        self.observation_space, self.action_space = env.observation_space, env.action_space
        self.episode_limit = stated_limit(env)
        self.numbers = sorted(entry for entry, shape in traced_info(env, name).items() if shape == ())
        """Entries of ``info`` that are one number."""
        self._progress = [-1, 0]
        self._boundary = Boundary(name, n_envs, env.observation_space, env.action_space, self._progress)
        self._reset = jax.jit(lambda key: reset_batch(env, env.params, key, n_envs))
        self._step = jax.jit(partial(step_batch, env, env.params))
        self._states: Any = None
        self._key: Any = None

    def reset(self, seeds: Sequence[int]) -> tuple[Any, np.ndarray | None]:
        """Reset all copies, from the first of the seeds."""
        self._progress[1] = 0
        self._key = jax.random.PRNGKey(seeds[0])
        self._states, observations = self._reset(self._key)
        return self._boundary.observations_from_vector(jax.device_get(observations)), None

    def step(self, actions: Any) -> HostStep:
        """Step all copies."""
        self._progress[1] += 1
        prepared = jnp.asarray(self._boundary.prepare_actions(actions))
        key = jax.random.fold_in(self._key, self._progress[1])
        self._states, step = self._step(key, self._states, prepared)
        told = jax.device_get(step)
        observations = self._boundary.observations_from_vector(told.observations)
        return HostStep(
            observations,
            self._boundary.read_rewards(told.rewards),
            told.terminated,
            told.truncated,
            self._boundary.observations_from_vector(told.successors),
            np.ones(self.n_envs, bool),
            None,
            told.costs,
        )

    @property
    def rewards_goals(self) -> bool:
        """False: goals are relabelled in host environments alone."""
        return False

    def rewards_of(self, goals: Any) -> Any:
        """Refuse: nothing is known of goals."""
        raise NotImplementedError

    def keep_infos(self, wanted: bool) -> None:
        """Keep none."""

    def close(self) -> None:
        """Release nothing."""
