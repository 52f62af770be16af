"""What is said of lanes between the learner and those that step them: plain data that can be sent to another process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np

from jumar.envs.host import HostStep
from jumar.envs.step_costs import Cost
from jumar.policies.exploration import Behaviour

SEED_LIMIT = 2**31 - 1


class Barrier(NamedTuple):
    """A moment at which all environments are made anew."""

    number: int
    """How many there were before it in this process."""
    seed: int
    """The run's."""
    step: int
    """The environment step at which it is."""


def episode_seed(barrier: Barrier, lane: int, episode: int) -> int:
    """Return the seed of a lane's episode, counted from the barrier: a number in [0, 2^31 - 1) that depends on them alone."""
    words = np.random.SeedSequence([barrier.seed, barrier.step, lane, episode]).generate_state(1)
    return int(words[0]) % SEED_LIMIT


class Gave(NamedTuple):
    """What a lane's environment has given since the barrier: from then on it counts as given in every step."""

    masks: bool = False
    costs: bool = False


class LaneRecord(NamedTuple):
    """Where a lane is between two requests: all that is needed to rebuild it."""

    lane: int
    at: int
    """The number of the request that comes next."""
    episode: int = 0
    """Of the open episode, counted from the barrier."""
    steps: int = 0
    """Taken since the barrier."""
    actions: tuple[np.ndarray, ...] | None = ()
    """What the environment was given in the open episode, arrays ``[k, ...]``; ``None`` for who holds the lane already."""
    digest: bytes = b""
    """SHA-256 of what the open episode has shown so far; empty where it has not begun."""
    gave: Gave = Gave()


class Request(NamedTuple):
    """What some lanes are to do: act for a number of steps."""

    number: int
    barrier: Barrier
    lanes: tuple[LaneRecord, ...]
    carry: Any
    """What the behaviour remembers, arrays ``[L, ...]`` for L lanes (scalars are shared)."""
    start: np.ndarray
    """Whether an episode begins in each lane, bool ``[L]``."""
    key: np.ndarray
    """The rollout's, uint32 ``[2]``; each lane folds its index in."""
    steps: int | None = None
    """Act for no more than so many of the steps."""


class Opened(NamedTuple):
    """A lane after a request."""

    lane: int
    episode: int
    steps: int
    actions: np.ndarray
    """What the environment was given in the open episode since the request, or since the episode began, ``[k, ...]``."""
    goes_on: bool
    """Whether the open episode is the one from before the request."""
    digest: bytes
    """SHA-256 of what the open episode has shown."""
    rows: bytes
    """SHA-256 of all that the lane did and saw in answer to the request."""
    gave: Gave


class Rows(NamedTuple):
    """The answer to a request: what L lanes saw."""

    fields: dict[str, Any]
    """Of a trajectory, arrays ``[T, L, ...]``."""
    start: np.ndarray
    """Whether the next row begins an episode, bool ``[L]``."""
    carry: Any
    lanes: tuple[Opened, ...]
    steps: tuple[HostStep, ...] = ()
    """What the environments returned, T steps of L lanes, where that is kept."""
    infos: np.ndarray | None = None
    """The logged entries of ``info``, ``[T, K, L]``."""
    info_numbers: tuple[str, ...] = ()
    info_complaints: tuple[tuple[str, str], ...] = ()
    complaints: tuple[Complaint, ...] = ()
    """The first cost of each lane that is no number."""


class Complaint(NamedTuple):
    """A sentence on a step of a lane."""

    step: int
    """Counted from the request."""
    lane: int
    words: str


class Failed(NamedTuple):
    """The answer to a request in which an environment failed, as it will wherever it is stepped."""

    step: int
    """Counted from the request; -1 where a lane could not be made or rebuilt."""
    lane: int
    kind: str
    """The name of the error's class, of :mod:`jumar.errors`."""
    words: str
    traceback: str = ""
    complaints: tuple[Complaint, ...] = ()


class Beat(NamedTuple):
    """A sign of life while a request is answered."""

    steps: int
    """How many steps were taken since the last one."""


Answer = Rows | Failed


@dataclass(frozen=True)
class LaneMaking:
    """What is needed to step lanes.

    Attributes:
        make: makes one environment.
        name: what to call it.
        behaviour: what acts.
        n_steps: for how many steps a request is.
        cost: what a step costs.
        log: entries of ``info`` that are kept as numbers.
        keeps_steps: whether what the environments return is wanted as they return it.
        keeps_infos: whether their whole infos are.
    """

    make: Callable[[], gym.Env]
    name: str
    behaviour: Behaviour
    n_steps: int
    cost: Cost
    log: Sequence[str] = ()
    keeps_steps: bool = False
    keeps_infos: bool = False
