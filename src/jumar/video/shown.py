"""What films and windows are told alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jumar.envs.registry import TypedWrapper
from jumar.errors import UsageError
from jumar.training.plan import MOST_EPISODES, check_count, check_seed
from jumar.training.resolve import AS_IT_IS, Making
from jumar.video.frames import LARGEST_SIDE, SMALLEST_SIDE, Size

FASTEST = 240.0
"""Frames per second; no display shows more."""


@dataclass(frozen=True, kw_only=True)
class Shown:
    """What is shown of a run: whose policy, in which environment, how large and how fast.

    Attributes:
        run: the run directory.
        best: the policy of the best evaluation instead of the final one.
        episodes: how many; ``None`` for no end.
        seed: episode i is seeded with ``seed + i``.
        stochastic: whether actions are sampled.
        rate: frames per second; ``None`` for the environment's own.
        size: width and height of the picture in pixels; ``None`` for the environment's own.
        env: the environment once more, where it is the user's own code.
        wrappers: wrappers once more, where they are.
        encoder: the encoder once more, where it is.
        making: how the environment is made of a run that learnt without one.

    Raises:
        UsageError: a number is out of its range.
    """

    run: Path
    best: bool = False
    episodes: int | None = None
    seed: int = 0
    stochastic: bool = False
    rate: float | None = None
    size: Size | None = None
    env: str | None = None
    wrappers: Sequence[TypedWrapper] = ()
    encoder: str | None = None
    making: Making = AS_IT_IS

    def __post_init__(self) -> None:
        if self.episodes is not None:
            check_count("episodes", self.episodes, 1, MOST_EPISODES)
        check_seed(self.seed, self.episodes)
        if self.rate is not None and not 0.1 <= self.rate <= FASTEST:
            raise UsageError(f"fps={self.rate:g} is out of range: it must be at least 0.1 and at most {FASTEST:g}.")
        if self.size is not None and not all(SMALLEST_SIDE <= side <= LARGEST_SIDE for side in self.size):
            raise UsageError(
                f"size={self.size[0]}x{self.size[1]} is out of range: width and height must be at least {SMALLEST_SIDE} and at "
                f"most {LARGEST_SIDE}."
            )
