"""What was off in a run and when, in the words of its method."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from jumar.algorithms.off_policy import symptoms as off_policy
from jumar.algorithms.off_policy.settings import ReplaySettings
from jumar.algorithms.on_policy import symptoms as on_policy
from jumar.runs.logs import finite
from jumar.training.metrics import Health, Metrics
from jumar.training.plan import Plan
from jumar.web.buckets import PLAIN

Symptoms = Callable[[Metrics], dict[str, str]]


def symptoms_of(plan: Plan) -> Symptoms:
    """Return what a run's method knows of troubles, as its training does."""
    settings = plan.settings
    if not isinstance(settings, ReplaySettings):
        return on_policy.symptoms
    remembered = max(1, settings.buffer_size // settings.n_envs) * settings.n_envs
    limit = settings.critic_limit if settings.critic_bins else math.inf
    return partial(off_policy.symptoms, remembered=remembered, learning_starts=settings.learning_starts, limit=limit)


@dataclass
class Complaint:
    """Something that was off for many iterations in a row, once or several times."""

    words: str
    """As of the last iteration that showed it."""
    first: int
    """The step of the first iteration that showed it."""
    last: int
    """The step of the last one."""
    iterations: int
    lasting: bool = True
    """Whether the last iteration of the log shows it."""


class Complaints:
    """Follows a flight record; a trouble counts once so many iterations in a row show it as training waits for."""

    def __init__(self, symptoms: Symptoms, step: str) -> None:
        self._symptoms, self._step = symptoms, step
        self._streaks: dict[str, int] = {}
        self._began: dict[str, int] = {}
        self._found: dict[str, Complaint] = {}
        self.known = 0
        """How many troubles the method knows."""

    @property
    def found(self) -> list[Complaint]:
        """What was found, in the order in which it began."""
        return list(self._found.values())

    def add(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Take iterations in."""
        for row in rows:
            sound = set(map(type, row.values())) <= PLAIN
            metrics = row if sound else {name: finite(value) for name, value in row.items()}
            shown = self._symptoms(metrics)
            self.known = len(shown)
            for name, words in shown.items():
                if words or self._streaks.get(name):
                    self._take(name, words, int(metrics.get(self._step) or 0))

    def _take(self, name: str, words: str, step: int) -> None:
        known = self._found.get(name)
        if not words:
            self._streaks[name] = 0
            if known is not None:
                known.lasting = False
            return
        streak = self._streaks[name] = self._streaks.get(name, 0) + 1
        if streak == 1:
            self._began[name] = step
        if streak < Health.PATIENCE:
            return
        if known is None:
            known = self._found[name] = Complaint(words, self._began[name], step, 0)
        known.words, known.last, known.lasting = words, step, True
        known.iterations += Health.PATIENCE if streak == Health.PATIENCE else 1
