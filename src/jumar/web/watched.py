"""A run as it is looked at again and again: its logs are read on from where they were read before."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from jumar.errors import DamagedFile
from jumar.runs.at_work import is_at_work
from jumar.runs.ended import ended_by
from jumar.runs.logs import entry_of, finite
from jumar.runs.run_directory import RunDirectory
from jumar.runs.standing import Standing, standing
from jumar.runs.tail import Tail
from jumar.training.events import RULES
from jumar.training.plan import Plan
from jumar.web.buckets import Buckets
from jumar.web.health import Complaints, symptoms_of

STEPS = "time/total_timesteps"
EVALUATIONS = 2048
"""How many evaluations of a run are kept each by itself."""


class WatchedRun:
    """A run directory, its plan and what its logs say.

    Attributes:
        directory: where it is.
        plan: what it was to do.
        config: what ``config.json`` says beside that.
        method: what it is called among others.
        task: what its environment is called.
        metrics: the flight record, by iteration.
        evaluations: by evaluation: ``mean std least greatest episodes length cut cost``.
        complaints: what was off.
        best: the step and the mean return of the best evaluation, as ``best/`` counts.
        trouble: why a log cannot be read, if so.
        state: ``finished``, ``under way``, ``stopped`` or ``not begun``: what it looks like from outside.
        stopped_by: the rule that ended it before its total.
    """

    def __init__(self, directory: RunDirectory, plan: Plan, config: Mapping[str, Any], method: str, task: str) -> None:
        self.directory, self.method, self.task = directory, method, task
        self._metrics_log, self._evaluations_log = Tail(directory.metrics), Tail(directory.evaluations)
        self.trouble: str | None = None
        self.state, self.stopped_by = "not begun", None
        self.set_plan(plan, config)
        self._forget_metrics()
        self._forget_evaluations()

    def set_plan(self, plan: Plan, config: Mapping[str, Any]) -> None:
        """Take the plan of a run that goes on to another total."""
        self.plan, self.config = plan, config

    def _forget_metrics(self) -> None:
        self.metrics = Buckets(STEPS)
        self.complaints = Complaints(symptoms_of(self.plan), STEPS)

    def _forget_evaluations(self) -> None:
        self.evaluations = Buckets("step", EVALUATIONS)
        self.best: tuple[int, float] | None = None
        self._best_standing: Standing | None = None

    def look(self) -> bool:
        """Read what the logs have more than before; return whether anything is new, the state too."""
        before, self.trouble = (self.trouble, self.state, self.stopped_by), None
        try:
            changed = self._follow(self._metrics_log, self._forget_metrics, self._add_metrics)
            changed |= self._follow(self._evaluations_log, self._forget_evaluations, self._add_evaluations)
        except DamagedFile as error:
            self.trouble = str(error)
            changed = False
        except OSError as error:
            self.trouble = f"{error.filename or self.directory} cannot be read ({error.strerror})."
            changed = False
        self.state, self.stopped_by = self._state_now()
        return changed or (self.trouble, self.state, self.stopped_by) != before

    @staticmethod
    def _follow(log: Tail, forget: Callable[[], None], add: Callable[[list[dict[str, Any]]], None]) -> bool:
        changed = False
        while True:
            news = log.read()
            if news.anew:
                forget()
            rows = [row for line in news.lines if (row := entry_of(line)) is not None]
            add(rows)
            changed |= bool(rows) or news.anew
            if not news.more:
                return changed

    def _add_metrics(self, rows: Sequence[Mapping[str, Any]]) -> None:
        self.complaints.add(self.metrics.add(rows))

    def _add_evaluations(self, rows: Sequence[Mapping[str, Any]]) -> None:
        known = [flat for row in rows if (flat := evaluation(row)) is not None]
        for row in self.evaluations.add(known):
            here = standing({"mean_return": row["mean"], "cut_returns": row["cut_returns"]})
            if self._best_standing is None or here > self._best_standing:
                self.best, self._best_standing = (int(row["step"]), row["mean"]), here

    @property
    def steps(self) -> int:
        """Environment steps so far."""
        return int(self.metrics.steps)

    @property
    def share(self) -> float:
        """How much of the run is done, at most 1."""
        return min(1.0, self.steps / self.plan.total_timesteps)

    def _state_now(self) -> tuple[str, str | None]:
        if is_at_work(self.directory):
            return "under way", None
        if self.steps >= self.plan.total_timesteps:
            return "finished", None
        if (rule := self._ended_by()) is not None:
            return "finished", rule
        return ("stopped" if self.steps else "not begun"), None

    def _ended_by(self) -> str | None:
        rules = {name: getattr(self.plan, name) for name in RULES if getattr(self.plan, name) is not None}
        name = ended_by(self.directory) if rules else None
        return f"{name}={rules[name]:g}" if name in rules else None

    @property
    def words(self) -> str:
        """What it is, for people."""
        return f"{self.method} on {self.task}, seed {self.plan.seed}"


def evaluation(row: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the numbers of a line of ``evaluations.jsonl``; ``None`` if it has no step or no mean return."""
    step, mean = finite(row.get("step")), finite(row.get("mean_return"))
    if step is None or mean is None:
        return None
    returns, lengths = _numbers(row.get("returns")), _numbers(row.get("lengths"))
    found: dict[str, Any] = {
        "step": step,
        "mean": mean,
        "std": finite(row.get("std_return")),
        "cost": finite(row.get("mean_cost")),
        "cut": finite(row.get("cut_episodes")),
        "cut_returns": tuple(_numbers(row.get("cut_returns"))),
    }
    if returns.size:
        found |= {"least": float(returns.min()), "greatest": float(returns.max()), "episodes": float(returns.size)}
    if lengths.size:
        found["length"] = float(lengths.mean())
    return found


def _numbers(values: Any) -> np.ndarray:
    known = (finite(value) for value in values) if isinstance(values, list) else ()
    return np.array([value for value in known if value is not None], np.float64)


def shown_seconds(run: WatchedRun) -> float:
    """Return the seconds that a run has taken, as logged; NaN where it says nothing."""
    return run.metrics.last.get("time/elapsed", math.nan)
