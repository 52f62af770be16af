"""How work on environments is given up half-way, and how soon."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Abandoned(Exception):
    """An iteration or an evaluation was given up because somebody asked the run to stop."""


def never() -> bool:
    """Return ``False``: nobody asks to stop."""
    return False


class Pace:
    """How many rounds are done at once, so that it takes half a second and a stop is noticed soon.

    It begins with one, which compiles, and grows from there.
    """

    AIM_S = 0.5
    GROWTH = 8

    def __init__(self) -> None:
        self._rounds = 1

    @contextmanager
    def of(self, left: int) -> Iterator[int]:
        """Yield how many of the rounds that are left to do now, and take the time of the block that does them."""
        now = min(self._rounds, left)
        begin = time.perf_counter()
        yield now
        took = max(time.perf_counter() - begin, 1e-9)
        fitting = int(now * self.AIM_S / took)
        # Few rounds that were left say nothing against more.
        if now == self._rounds or fitting < self._rounds:
            self._rounds = max(1, min(fitting, now * self.GROWTH))
