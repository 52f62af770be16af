"""The rows of a run as a tracker takes them: the numbers of an iteration, with those of the evaluation after it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from jumar.runs.logs import entry_of, finite
from jumar.runs.run_directory import RunDirectory
from jumar.runs.tail import Tail

STEPS = "time/total_timesteps"
LARGEST_STEP = 2**53
MOST_NAMES = 200
"""How many different numbers are sent; a run of Jumar's has some forty."""
LONGEST_NAME = 120


class Row(NamedTuple):
    """What is known of a step."""

    step: int
    numbers: dict[str, float]


class Rows:
    """The rows of a run's logs that were not read yet, in the order of their steps.

    Where resuming cuts the logs back, they are read from their beginning again: who has taken a step passes over it.

    Attributes:
        left_out: names that are not sent, some of them where they are many.
    """

    def __init__(self, run: RunDirectory) -> None:
        self._metrics, self._evaluations = Tail(run.metrics), Tail(run.evaluations)
        self._names: set[str] = set()
        self.left_out: set[str] = set()
        self._evaluated: dict[int, dict[str, float]] = {}
        self._last_evaluated = -1

    def read(self) -> tuple[list[Row], bool]:
        """Return more rows, and whether there may be more to read at once.

        Raises:
            DamagedFile: something else than a plain file is in the place of a log.
            OSError: a log cannot be read.
        """
        news = self._metrics.read()
        if news.anew:  # then so may the evaluations be
            self._last_evaluated = -1
        rows: list[Row] = []
        for line in news.lines:
            entry = entry_of(line) or {}
            step = _step(entry.get(STEPS))
            if step is not None and (not rows or step > rows[-1].step):
                rows.append(Row(step, self._sent(entry)))
        if rows:
            # An evaluation is written before the line of its iteration, so it is there by now.
            self._read_evaluations(rows[-1].step)
            for step, numbers in rows:
                numbers.update(self._sent(self._evaluated.pop(step, {})))
            self._evaluated = {step: x for step, x in self._evaluated.items() if step > rows[-1].step}
        return rows, news.more

    def _read_evaluations(self, until: int) -> None:
        more = True
        while more and self._last_evaluated < until:
            news = self._evaluations.read()
            if news.anew:
                self._evaluated, self._last_evaluated = {}, -1
            for line in news.lines:
                entry = entry_of(line) or {}
                step = _step(entry.get("step"))
                if step is not None and step > self._last_evaluated:
                    self._evaluated[step] = evaluated(entry)
                    self._last_evaluated = step
            more = news.more

    def _sent(self, entry: Mapping[str, Any]) -> dict[str, float]:
        found = {}
        for name, value in entry.items():
            number = finite(value)
            if number is None:
                continue
            if name in self._names or self._is_new(name):
                found[name] = number
            elif len(self.left_out) < MOST_NAMES:
                self.left_out.add(name[:LONGEST_NAME])
        return found

    def _is_new(self, name: str) -> bool:
        """Take a name that may be sent. Names that trackers keep for themselves have no slash."""
        group, slash, rest = name.partition("/")
        fits = bool(group and slash and rest) and not group.startswith("_") and name.isprintable()
        if not fits or len(name) > LONGEST_NAME or len(self._names) >= MOST_NAMES:
            return False
        self._names.add(name)
        return True


def evaluated(entry: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers of a line of ``evaluations.jsonl``, under the names of Stable-Baselines3 where it has them."""
    returns, lengths = _list(entry.get("returns")), _list(entry.get("lengths"))
    found = {
        "eval/mean_reward": finite(entry.get("mean_return")),
        "eval/std_reward": finite(entry.get("std_return")),
        "eval/min_reward": min(returns, default=None),
        "eval/max_reward": max(returns, default=None),
        "eval/mean_ep_length": sum(lengths) / len(lengths) if lengths else None,
        "eval/mean_cost": finite(entry.get("mean_cost")),
        "eval/cut_episodes": finite(entry.get("cut_episodes")),
    }
    return {name: x for name, x in found.items() if x is not None}


def _list(values: Any) -> list[float]:
    known = [finite(value) for value in values] if isinstance(values, list) else []
    return [x for x in known if x is not None]


def _step(value: Any) -> int | None:
    """Return a step of a log; ``None`` for what is none."""
    number = finite(value)
    return int(number) if number is not None and number.is_integer() and 0 <= number <= LARGEST_STEP else None
