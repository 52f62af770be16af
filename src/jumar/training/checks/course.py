"""What happens in an environment under random actions."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
from gymnasium import spaces

from jumar.envs import batches
from jumar.envs.host import HostEnvironments, HostStep
from jumar.errors import EnvironmentFault
from jumar.policies.observations import MASK_KEY

SECONDS = 10.0
"""After so many seconds random actions end, however few they were."""
TIMED_RESETS = 3


def draw(space: Any, mask: np.ndarray | None, random: np.random.Generator) -> np.ndarray:
    """Return a random action of a space, ``[...]``; one that the flat mask allows, if there is one."""
    segments = batches.mask_segments(space)
    if not segments:
        return _draw_from_box(space, random)
    allowed = np.ones(sum(segments), bool) if mask is None else np.asarray(mask, bool).ravel()
    ends = np.cumsum(segments)
    choices = [int(random.choice(np.flatnonzero(part))) for part in np.split(allowed, ends[:-1])]
    if isinstance(space, spaces.Discrete):
        return np.asarray(choices[0] + int(space.start), space.dtype)
    start = getattr(space, "start", None)
    shaped = np.reshape(choices, space.shape)
    return np.asarray(shaped if start is None else shaped + start, space.dtype)


def _draw_from_box(space: spaces.Box, random: np.random.Generator) -> np.ndarray:
    """Uniform where both bounds are finite; else normal around 0, or around the one that is."""
    low, high = space.low.astype(np.float64), space.high.astype(np.float64)
    finite = np.isfinite(low) & np.isfinite(high)
    share = random.random(space.shape)  # of the way from one to the other, as their difference may overflow
    uniform = np.where(finite, low, 0.0) * (1.0 - share) + np.where(finite, high, 1.0) * share
    action = np.where(finite, uniform, np.clip(random.normal(size=space.shape), low, high))
    return (np.round(action) if space.dtype.kind != "f" else action).astype(space.dtype)


def mask_of(
    environments: HostEnvironments, observation: Any, masks: np.ndarray | None, row: int = 0
) -> np.ndarray | None:
    """Return the mask of an environment: the one given, or the entry of the observation; ``None`` without any.

    Raises:
        EnvironmentFault: it allows nothing, or has not the length of the action space's masks.
    """
    if masks is not None:
        return masks[row]
    segments = batches.mask_segments(environments.action_space)
    if not segments or not isinstance(observation, dict) or MASK_KEY not in observation:
        return None
    try:
        return batches.read_mask(segments, observation[MASK_KEY][row])
    except batches.Misfit as misfit:
        raise EnvironmentFault(
            f"environment {row} of {environments.name} showed an action mask that {misfit}."
        ) from misfit


def parts(batch: Any, path: str = "") -> Iterator[tuple[str, np.ndarray]]:
    """Yield the arrays of the first row of a batch, each with its place."""
    if isinstance(batch, dict):
        for key, part in batch.items():
            yield from parts(part, f"{path}[{key!r}]")
    elif isinstance(batch, tuple):
        for i, part in enumerate(batch):
            yield from parts(part, f"{path}[{i}]")
    else:
        yield path, np.asarray(batch[0])


class Range:
    """The values that a part of the observation took."""

    def __init__(self, first: np.ndarray) -> None:
        self.low, self.high, self.last = first.copy(), first.copy(), first.copy()
        self.moved = False
        """Whether it ever changed from one step of an episode to the next."""

    def add(self, value: np.ndarray, same_episode: bool) -> None:
        """Take in one more value."""
        np.minimum(self.low, value, out=self.low)
        np.maximum(self.high, value, out=self.high)
        self.moved |= same_episode and not np.array_equal(value, self.last)
        self.last = value.copy()

    @property
    def constant(self) -> np.ndarray:
        """Which entries always had the same value, boolean like the part."""
        return self.low == self.high

    @property
    def largest(self) -> float:
        """The largest magnitude."""
        return float(max(np.abs(self.low).max(initial=0.0), np.abs(self.high).max(initial=0.0)))


class Course:
    """What was seen; it can be looked at although the environment failed in the midst of it."""

    def __init__(self) -> None:
        self.ranges: dict[str, Range] = {}
        self.rewards: list[float] = []
        self.costs: list[float] = []
        self.returns: list[float] = []
        self.lengths: list[int] = []
        self.terminations = 0
        self.truncations = 0
        self.allowed: list[float] = []
        """The share of actions that each mask allowed."""
        self.step_times: list[float] = []
        """Seconds of steps that ended no episode."""
        self.reset_times: list[float] = []
        self.complaint: str | None = None
        """What was wrong with a cost that counts as none."""
        self._return, self._length = 0.0, 0

    def play(self, environments: HostEnvironments, steps: int, seed: int, seconds: float = SECONDS) -> None:
        """Act at random in one environment for so many steps, or so many seconds.

        Raises:
            EnvironmentFault: it failed.
        """
        random = np.random.default_rng(seed)
        observation, masks = environments.reset([seed])
        self._see(observation, False)
        began = time.perf_counter()
        for i in range(steps):
            action = draw(environments.action_space, self._mask(environments, observation, masks), random)
            start = time.perf_counter()
            step = environments.step(action[None])
            taken = time.perf_counter() - start
            self._take(step, taken if i else None)
            if i == 0:
                began = time.perf_counter()  # a compiled environment was compiled in the first step
            observation, masks = step.observations, step.action_masks
            if time.perf_counter() - began > seconds:
                break

    def time_resets(self, environments: HostEnvironments, seed: int) -> None:
        """Measure a few resets."""
        for i in range(TIMED_RESETS):
            start = time.perf_counter()
            environments.reset([seed + i])
            self.reset_times.append(time.perf_counter() - start)

    def _mask(self, environments: HostEnvironments, observation: Any, masks: np.ndarray | None) -> np.ndarray | None:
        mask = mask_of(environments, observation, masks)
        if mask is not None:
            self.allowed.append(float(mask.mean()))
        return mask

    def _see(self, observation: Any, same_episode: bool) -> None:
        for place, value in parts(observation):
            if place in self.ranges:
                self.ranges[place].add(value, same_episode)
            else:
                self.ranges[place] = Range(value)

    def _take(self, step: HostStep, seconds: float | None) -> None:
        terminated, truncated = bool(step.terminated[0]), bool(step.truncated[0])
        ended = terminated or truncated
        if step.valid[0]:
            reward = float(step.rewards[0])
            self.rewards.append(reward)
            self._return += reward
            self._length += 1
            self._see(step.successors, True)
            if step.costs is not None and np.ndim(step.costs[0]) == 0:
                self.costs.append(float(step.costs[0]))
        self.complaint = self.complaint or step.complaint
        if ended:
            self.returns.append(self._return)
            self.lengths.append(self._length)
            self.terminations += terminated
            self.truncations += truncated
            self._return, self._length = 0.0, 0
        elif seconds is not None and step.valid[0]:
            self.step_times.append(seconds)
        if ended or not step.valid[0]:
            self._see(step.observations, False)

    @property
    def step_seconds(self) -> float | None:
        """The median time of a step."""
        return float(np.median(self.step_times)) if self.step_times else None

    @property
    def reset_seconds(self) -> float | None:
        """The median time of a reset."""
        return float(np.median(self.reset_times)) if self.reset_times else None
