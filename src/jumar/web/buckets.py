r"""The numbers of a log over steps in bounded memory.

Lines are put into buckets of :math:`k` lines each, :math:`k` a power of two that doubles when there are more than
``capacity`` buckets. Of each name a bucket keeps how many numbers there were, their sum, the least and the greatest. With
:math:`k = 1` nothing is lost.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jumar.runs.logs import LARGEST, finite

CAPACITY = 512
FIRST_ROOM = 64
"""Buckets that there is memory for at first: most of many runs are short."""
MOST_NAMES = 200
"""How many different numbers are followed; a run of Jumar's has some forty."""
LONGEST_NAME = 120


@dataclass(frozen=True)
class Points:
    """A curve, all ``[points]``; NaN where nothing is known."""

    x: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray

    @property
    def known(self) -> bool:
        """Whether there is any number at all."""
        return not bool(np.isnan(self.mean).all())

    def within(self, low: np.ndarray, high: np.ndarray) -> Points:
        """Return the same curve between other bounds."""
        return Points(self.x, self.mean, low, high)

    def first(self, number: int) -> Points:
        """Return the first so many points."""
        return Points(*(part[:number] for part in (self.x, self.mean, self.low, self.high)))


@dataclass
class _Column:
    count: np.ndarray
    total: np.ndarray
    low: np.ndarray
    high: np.ndarray

    @classmethod
    def empty(cls, capacity: int) -> _Column:
        nothing = np.zeros(capacity)
        return cls(nothing, nothing.copy(), np.full(capacity, np.inf), np.full(capacity, -np.inf))

    def merged(self) -> _Column:
        """Return neighbours put together, two by two."""
        return _Column(
            self.count.reshape(-1, 2).sum(axis=1),
            self.total.reshape(-1, 2).sum(axis=1),
            self.low.reshape(-1, 2).min(axis=1),
            self.high.reshape(-1, 2).max(axis=1),
        )

    def grow(self, room: int) -> None:
        """Make room for more buckets, which hold nothing."""
        more = _Column.empty(room - len(self.count))
        self.count, self.total = np.append(self.count, more.count), np.append(self.total, more.total)
        self.low, self.high = np.append(self.low, more.low), np.append(self.high, more.high)

    def put(self, other: _Column) -> None:
        """Take another's numbers in its first places, and forget the rest."""
        n = len(other.count)
        for mine, its, nothing in (
            (self.count, other.count, 0.0),
            (self.total, other.total, 0.0),
            (self.low, other.low, np.inf),
            (self.high, other.high, -np.inf),
        ):
            mine[:n], mine[n:] = its, nothing


class Buckets:
    """Numbers by name, over steps that rise from line to line."""

    def __init__(self, step: str, capacity: int = CAPACITY) -> None:
        """Hold nothing yet.

        Args:
            step: the name of the number that the others are over.
            capacity: how many buckets there may be, even.
        """
        self._step, self.capacity = step, capacity
        self.per_bucket = 1
        """Lines in a bucket."""
        self.lines = 0
        """Lines taken in."""
        self.passed_over = 0
        """Lines without a step, or whose step is not beyond the one before."""
        self.last: dict[str, float] = {}
        """The last number of each name."""
        self.left_out: set[str] = set()
        """Names beyond those that are followed; some of them, where they are many."""
        self._room = min(FIRST_ROOM, capacity)
        self._x = np.zeros(self._room)
        self._columns: dict[str, _Column] = {}

    @property
    def names(self) -> list[str]:
        """The names that had a number, in the order in which they came."""
        return list(self._columns)

    @property
    def steps(self) -> float:
        """The last step; 0 before the first line."""
        return self.last.get(self._step, 0.0)

    def add(self, rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        """Take lines in, and return those that count."""
        kept, steps, before = [], [], self.last.get(self._step, -math.inf)
        for row in rows:
            step = finite(row.get(self._step))
            if step is not None and step > before:
                kept.append(row)
                steps.append(step)
                before = step
        self.passed_over += len(rows) - len(kept)
        for start in range(0, len(kept), self.capacity):
            self._take(kept[start : start + self.capacity], steps[start : start + self.capacity])
        return kept

    def _take(self, rows: Sequence[Mapping[str, Any]], steps: Sequence[float]) -> None:
        while self.lines + len(rows) > self.capacity * self.per_bucket:
            self._merge()
        self._make_room(-(-(self.lines + len(rows)) // self.per_bucket))
        places = (self.lines + np.arange(len(rows))) // self.per_bucket
        self._x[places] = steps  # of equal places the last counts
        self.lines += len(rows)
        for name in _names(rows):
            values = _numbers([row.get(name) for row in rows])
            known = np.flatnonzero(~np.isnan(values))
            if not known.size or (column := self._column(name)) is None:
                continue
            at, values = places[known], values[known]
            np.add.at(column.count, at, 1.0)
            np.add.at(column.total, at, values)
            np.minimum.at(column.low, at, values)
            np.maximum.at(column.high, at, values)
            self.last[name] = float(values[-1])

    def _column(self, name: str) -> _Column | None:
        if name not in self._columns:
            if name != self._step and (len(self._columns) >= MOST_NAMES or len(name) > LONGEST_NAME):
                if len(self.left_out) < MOST_NAMES:
                    self.left_out.add(name[:LONGEST_NAME])
                return None
            self._columns[name] = _Column.empty(self._room)
        return self._columns[name]

    def _make_room(self, buckets: int) -> None:
        if buckets > self._room:
            self._room = min(self.capacity, max(buckets, 2 * self._room))
            self._x = np.append(self._x, np.zeros(self._room - len(self._x)))
            for column in self._columns.values():
                column.grow(self._room)

    def _merge(self) -> None:
        self._make_room(self.capacity)
        filled = self._filled
        half = self.capacity // 2
        ends = np.minimum(np.arange(half) * 2 + 1, max(filled - 1, 0))
        self._x[:half] = self._x[ends]
        for column in self._columns.values():
            column.put(column.merged())
        self.per_bucket *= 2

    @property
    def _filled(self) -> int:
        return -(-self.lines // self.per_bucket)

    def points(self, name: str, most: int = CAPACITY, lines: int | None = None) -> Points:
        """Return the curve of a number: means, and the least and the greatest of the lines that a point stands for.

        Args:
            name: of the number.
            most: how many points there are at most.
            lines: how many lines each point but the last stands for, a multiple of ``per_bucket``; instead of ``most``.
        """
        n = self._filled
        column = self._columns.get(name) or _Column.empty(n)
        x, parts = self._x[:n], [part[:n] for part in (column.count, column.total, column.low, column.high)]
        group = lines // self.per_bucket if lines is not None else -(-n // most) if n else 1
        if group > 1:
            starts = np.arange(0, n, group)
            x = x[np.minimum(starts + group, n) - 1]
            ways = (np.add, np.add, np.minimum, np.maximum)
            parts = [way.reduceat(part, starts) for way, part in zip(ways, parts, strict=True)]
        count, total, low, high = parts
        nothing = count == 0
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            mean = np.where(nothing, np.nan, total / np.where(nothing, 1.0, count))
        low, high = np.where(nothing, np.nan, low), np.where(nothing, np.nan, high)
        return Points(x.copy(), np.clip(mean, low, high), low, high)

    def merged_lines(self, name: str, most: int = CAPACITY) -> int:
        """Return how many lines a point of :meth:`points` stands for; 1 where nothing is merged."""
        return self.per_bucket * (-(-self._filled // most) if self._filled else 1)


def _names(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the names of all rows, in the order in which they come; usually all rows have the same."""
    first = rows[0].keys()
    others = (row for row in rows if row.keys() != first)
    return list(dict.fromkeys([*first, *(name for row in others for name in row)]))


PLAIN = {float, int, type(None)}


def _numbers(values: Sequence[Any]) -> np.ndarray:
    """Return what JSON gave as an array; NaN for what is no number that can be drawn."""
    try:
        numbers = np.array(values, np.float64) if set(map(type, values)) <= PLAIN else None
    except OverflowError:
        numbers = None
    if numbers is None:
        numbers = np.array([finite(value) for value in values], np.float64)
    numbers[~(np.abs(numbers) <= LARGEST)] = np.nan
    return numbers
