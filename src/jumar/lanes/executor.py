"""Stepping lanes in this process: the whole of what a runner does, wherever it is."""

from __future__ import annotations

import hashlib
import time
import traceback
from collections.abc import Generator, Sequence
from typing import Any

import jax
import numpy as np

from jumar.collecting.gatherers import Row, narrow, over_after, written_down
from jumar.envs.host import Warn
from jumar.errors import JumarError
from jumar.lanes.acting import WIDTH, LaneActor
from jumar.lanes.lane import Lane
from jumar.lanes.records import Answer, Barrier, Beat, Complaint, Failed, LaneMaking, LaneRecord, Request, Rows
from jumar.lanes.sides import first_of, side_by_side

BEAT = 1.0
"""Seconds between two signs of life."""
STALE = 4
"""After so many requests without it, a lane is let go of."""

CANARY = Barrier(-2, 0, 0)
"""The barrier of a lane that is only tried."""
CANARY_STEPS = 20
"""How many steps it is tried for."""

Answering = Generator[Beat, None, Answer]
"""Yields signs of life, and returns the answer."""


class LaneExecutor:
    """Holds lanes and acts in them.

    Args:
        making: what is needed for it.
        warn: hears of a step that does not return.
        passed_on: exceptions that are not taken for the environment's own.
    """

    def __init__(
        self,
        making: LaneMaking,
        warn: Warn | None = None,
        passed_on: tuple[type[BaseException], ...] = (KeyboardInterrupt,),
    ) -> None:
        self._making, self._warn, self._passed_on = making, warn, passed_on
        self._actor = LaneActor(making.behaviour, making.n_steps)
        self._lanes: dict[int, Lane] = {}
        self._beaten, self._steps = time.monotonic(), 0

    def answer(self, acting: Any, request: Request) -> Answer:
        """Do what a request asks for, and return the answer."""
        answering = self.answering(acting, request)
        while True:
            try:
                next(answering)
            except StopIteration as end:
                return end.value

    def answering(self, acting: Any, request: Request) -> Answering:
        """Do what a request asks for, with signs of life in between."""
        self._beaten, self._steps = time.monotonic(), 0
        self._let_go(request)
        lanes: list[Lane] = []
        for record in request.lanes:
            try:
                lane = yield from self._lane(record, request)
            except JumarError as error:
                return _failed(-1, record.lane, error)
            lanes.append(lane)
            yield from self._beat()
        acting = self._actor.hold(acting)
        parts: list[Rows] = []
        failures: list[Failed] = []
        for first in range(0, len(lanes), WIDTH):
            some = slice(first, first + WIDTH)
            carry = _of_lanes(request.carry, some)
            answer = yield from self._act(acting, lanes[some], carry, request.start[some], request)
            if isinstance(answer, Failed):
                failures.append(answer)
            else:
                parts.append(answer)
        return first_of(failures) if failures else side_by_side(parts)

    def try_environment(self) -> None:
        """Make an environment, and close it.

        Raises:
            JumarError: it cannot be made.
        """
        Lane(self._making, 0, CANARY, None, self._passed_on).close()

    def canary(self, acting: Any) -> bytes:
        """Return the digest of some steps of a lane that no run has; it begins with the barrier that no run has.

        Another process that computes as this one does returns the same, and so does this one when it is asked again.
        """
        making, digest = self._making, hashlib.sha256()
        carry, start = jax.device_get(making.behaviour.initial_carry(1)), np.ones(1, bool)
        record: LaneRecord = LaneRecord(0, 0)
        for number in range(-(-CANARY_STEPS // making.n_steps)):
            key = np.array([0, number], np.uint32)
            left = CANARY_STEPS - number * making.n_steps
            answer = self.answer(acting, Request(number, CANARY, (record,), carry, start, key, left))
            if isinstance(answer, Failed):  # as it will in training, which says it better
                digest.update(answer.words.encode())
                break
            (opened,), carry, start = answer.lanes, answer.carry, answer.start
            digest.update(opened.rows)
            record = LaneRecord(0, number + 1, actions=None)
        self.close()
        return digest.digest()

    def close(self) -> None:
        """Close all environments."""
        for lane in self._lanes.values():
            lane.close()
        self._lanes = {}

    def _let_go(self, request: Request) -> None:
        """Close the lanes of an earlier barrier, and those that others have long gone on with."""
        for index, lane in list(self._lanes.items()):
            if lane.barrier != request.barrier or lane.at < request.number - STALE:
                self._lanes.pop(index).close()

    def _lane(self, record: LaneRecord, request: Request) -> Generator[Beat, None, Lane]:
        """Return a lane that is where its record says."""
        lane = self._lanes.get(record.lane)
        if lane is not None and lane.at == record.at:
            lane.begin()
            return lane
        assert record.actions is not None, f"lane {record.lane} was taken to be here"
        if lane is None:
            lane = Lane(self._making, record.lane, request.barrier, self._warn, self._passed_on)
        # Until it is whole, a lane is nobody's.
        self._lanes.pop(record.lane, None)
        try:
            for _ in lane.put(record):
                yield from self._beat()
        except BaseException:
            lane.close()
            raise
        self._lanes[record.lane] = lane
        return lane

    def _act(
        self, acting: Any, lanes: Sequence[Lane], carry: Any, start: np.ndarray, request: Request
    ) -> Generator[Beat, None, Answer]:
        """Act in some lanes, step by step in all of them."""
        n, actor, making = len(lanes), self._actor, self._making
        noise = actor.noise(request.key, [lane.index for lane in lanes])
        places = Places(lanes)
        first, now = start, _padded(start)
        carry = actor.places(carry)
        rows: list[list[Row]] = [[] for _ in lanes]
        complaints: dict[int, Complaint] = {}
        steps = making.n_steps if request.steps is None else min(request.steps, making.n_steps)
        for t in range(steps):
            observations, masks = places.fill()
            kept, given, carry = actor.act(acting, observations, carry, now, masks, noise, t, n)
            kept, given = np.asarray(kept), np.asarray(given)
            now = np.zeros(WIDTH, bool)
            for i, lane in enumerate(lanes):
                seen, mask = places.seen(i)
                try:
                    step = lane.step(given[i : i + 1])
                except JumarError as error:
                    return _failed(t, lane.index, error, tuple(complaints.values()))
                if step.complaint is not None:
                    complaints.setdefault(i, Complaint(t, lane.index, step.complaint))
                rows[i].append(Row(seen, mask, kept[i : i + 1], step))
                now[i] = over_after(step)[0]
                self._steps += 1
                yield from self._beat()
        for lane in lanes:
            lane.at = request.number + 1
        return self._written_down(lanes, rows, first, now[:n], actor.lanes_of(carry, n), tuple(complaints.values()))

    def _written_down(
        self,
        lanes: Sequence[Lane],
        rows: list[list[Row]],
        first: np.ndarray,
        start: np.ndarray,
        carry: Any,
        complaints: tuple[Complaint, ...],
    ) -> Rows:
        making = self._making
        parts = []
        for i, lane in enumerate(lanes):
            own = [row.step for row in rows[i]]
            parts.append(
                Rows(
                    written_down(rows[i], first[i : i + 1]),
                    start[i : i + 1],
                    (),
                    (lane.opened(),),
                    tuple(own) if making.keeps_steps else (),
                    np.stack([step.infos for step in own if step.infos is not None]) if making.log else None,
                    tuple(dict.fromkeys(name for step in own for name in step.info_numbers)),
                    tuple(item for step in own for item in (step.info_complaints or {}).items()),
                )
            )
        return side_by_side(parts)._replace(carry=carry, complaints=complaints)

    def _beat(self) -> Generator[Beat, None, None]:
        """Yield a sign of life, if it is time for one."""
        now = time.monotonic()
        if now - self._beaten >= BEAT:
            yield Beat(self._steps)
            self._beaten, self._steps = now, 0


class Places:
    """The observations that lanes are to act on, in the places of a program."""

    def __init__(self, lanes: Sequence[Lane]) -> None:
        self._lanes = lanes
        self._seen: list[Any] = []

    def fill(self) -> tuple[Any, np.ndarray | None]:
        """Return the present observations and masks, ``[WIDTH, ...]``."""
        self._seen = [narrow(lane.observations) for lane in self._lanes]
        masks = [lane.masks for lane in self._lanes]
        given = next((mask for mask in masks if mask is not None), None)
        together = None
        if given is not None:
            together = _padded(np.concatenate([np.ones_like(given) if mask is None else mask for mask in masks]), True)
        return jax.tree.map(lambda *x: _padded(np.concatenate(x)), *self._seen), together

    def seen(self, i: int) -> tuple[Any, np.ndarray | None]:
        """Return what a lane acted on, a batch of one."""
        return self._seen[i], self._lanes[i].masks


def _padded(rows: np.ndarray, fill: bool | float = 0) -> np.ndarray:
    """Return ``[n, ...]`` as ``[WIDTH, ...]``."""
    padded = np.full((WIDTH, *rows.shape[1:]), fill, rows.dtype)
    padded[: len(rows)] = rows
    return padded


def _of_lanes(carry: Any, some: slice) -> Any:
    """Return the carry of some lanes; what is one number for all stays."""
    return jax.tree.map(lambda x: x[some] if np.ndim(x) else x, carry)


def _failed(step: int, lane: int, error: JumarError, complaints: tuple[Complaint, ...] = ()) -> Failed:
    return Failed(step, lane, type(error).__name__, str(error), traceback.format_exc(), complaints)
