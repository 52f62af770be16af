"""Who steps which lanes, who is asked again, and when a runner is given up: no Ray and no clock but the one that is passed.

Every request can be repeated, so every fault becomes asking again. A runner that is lost is made anew, and meanwhile another
does its part. One that takes much longer than the others has its part asked of another as well: the first answer counts, and a
late one must be the same.
"""

from __future__ import annotations

import statistics
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple, Protocol

from jumar.errors import TrainingFailed, UsageError
from jumar.lanes.lane import not_deterministic
from jumar.lanes.records import Beat, Failed, Rows


@dataclass(frozen=True)
class Patience:
    """How long runners are waited for, in seconds, and how often they are made anew."""

    start: float = 180.0
    """A runner that has not started after so long is given up: it imports packages, and makes an environment."""
    silence: float = 60.0
    """One that has taken no step for so long hangs, and is ended."""
    ratio: float = 3.0
    """Another is asked as well where a part takes so many times the median of the last ones, ..."""
    floor: float = 2.0
    """... and at least so long."""
    longest_pause: float = 60.0
    """Before a runner is made anew; pauses double from one second on, and the first time there is none."""
    most_failures: int = 8
    """A runner that is lost so often without an answer in between is not made anew."""
    most_losses: int = 5
    """If so many runners are lost over one and the same part, training ends: it is the part."""

    def pause(self, failures: int) -> float:
        """Return how long to wait after so many failures in a row."""
        return 0.0 if failures <= 1 else min(2.0 ** (failures - 2), self.longest_pause)


PATIENCE = Patience()


class Ready(NamedTuple):
    """A runner has started."""

    where: str
    """The node."""


class Lost(NamedTuple):
    """A runner has ended, or could not start."""

    why: str
    unfit: bool = False
    """Whether it could not start because of where it is, or of what was asked for."""


class Event(NamedTuple):
    """What was heard of a runner."""

    runner: int
    what: Ready | Lost | Beat | Rows | Failed


class Transport(Protocol):
    """How runners are reached."""

    def start(self, runner: int) -> None:
        """Begin to make a runner; an event says when it is ready."""
        ...

    def ask(self, runner: int, part: Part, known: frozenset[int]) -> None:
        """Ask a runner for a part of a request; ``known`` are the lanes of which it knows where they are."""
        ...

    def end(self, runner: int) -> None:
        """End a runner at once. Nothing is heard of it any more."""
        ...

    def events(self, timeout: float) -> Sequence[Event]:
        """Return what was heard; wait for so many seconds at most if that is nothing."""
        ...

    def now(self) -> float:
        """Return the time, in seconds."""
        ...


class Part(NamedTuple):
    """A part of a request: lanes that go together."""

    number: int
    """The request's."""
    place: int
    """The part's, among those of the request."""
    lanes: tuple[int, ...]


class NoRunners(TrainingFailed):
    """No runner is left that could step the environments."""


class State(Enum):
    """What a runner is doing."""

    STARTING = "starting"
    IDLE = "idle"
    BUSY = "busy"
    DOWN = "down"
    GIVEN_UP = "given up"


@dataclass
class _Runner:
    state: State = State.DOWN
    until: float = 0.0
    """When it is made anew, if it is down."""
    heard: float = 0.0
    """When it was last known to get on."""
    asked: float = 0.0
    part: Part | None = None
    failures: int = 0
    why: str = ""
    where: str = ""
    holds: dict[int, int] = field(default_factory=dict)
    """The request that comes next in each lane that it holds."""


MEDIAN_OF = 32
"""Of how many parts the median is taken."""
REMEMBERED = 8
"""For how many requests a late answer can still be compared."""


class Supervisor:
    """Has runners answer requests, whatever becomes of them.

    Args:
        transport: how they are reached.
        n_runners: how many there are to be.
        name: the environment's, for messages.
        warn: hears of runners that are lost.
        patience: how long they are waited for.
    """

    def __init__(
        self,
        transport: Transport,
        n_runners: int,
        name: str,
        warn: Callable[[str], None],
        patience: Patience = PATIENCE,
    ) -> None:
        self._transport, self._name, self._warn, self._patience = transport, name, warn, patience
        self._runners = [_Runner() for _ in range(n_runners)]
        self._took: deque[float] = deque(maxlen=MEDIAN_OF)
        self._accepted: dict[int, dict[int, bytes]] = {}
        self._answers: dict[int, Rows | Failed] = {}
        self._parts: Sequence[Part] = ()
        self._losses: Counter[int] = Counter()
        self._answered: float | None = None
        """When the last request was answered."""

    def begin(self) -> None:
        """Start all runners, and wait until each has started.

        Raises:
            UsageError: one of them cannot, as it is where it is.
            NoRunners: one of them ended.
        """
        now = self._transport.now()
        for i in range(len(self._runners)):
            self._start(i, now)
        while any(runner.state is State.STARTING for runner in self._runners):
            for event in self._transport.events(TICK):
                if isinstance(event.what, Lost):
                    raise _unstarted(event.what)
                self._take(event)
            now = self._transport.now()
            if any(r.state is State.STARTING and now - r.heard > self._patience.start for r in self._runners):
                raise _unstarted(Lost(f"it did not start within {self._patience.start:g} s"))

    @property
    def all_at_work(self) -> bool:
        """Whether every runner has started, and none is being made anew."""
        return all(runner.state in (State.IDLE, State.BUSY) for runner in self._runners)

    def answer(self, number: int, lanes: Sequence[tuple[int, ...]]) -> list[Rows | Failed]:
        """Have a request answered, in parts of these lanes; return the answers in their order.

        Raises:
            NoRunners: none is left, or a part ends all that try it.
            NotDeterministic: two answers to the same differ.
        """
        self._catch_up()
        self._parts = [Part(number, place, each) for place, each in enumerate(lanes)]
        self._answers, self._losses = {}, Counter()
        self._accepted = {key: value for key, value in self._accepted.items() if key > number - REMEMBERED}
        self._accepted[number] = {}
        while len(self._answers) < len(self._parts):
            self._look_at_clocks()
            self._assign()
            self._listen()
        self._answered = self._transport.now()
        return [self._answers[part.place] for part in self._parts]

    def _catch_up(self) -> None:
        """Take in what happened between two requests, when nobody listened: that time is not the runners'."""
        away = 0.0 if self._answered is None else self._transport.now() - self._answered
        while events := self._transport.events(0.0):
            for event in events:
                self._take(event)
        for runner in self._runners:
            if runner.state in (State.BUSY, State.STARTING):
                runner.heard = min(runner.heard + away, self._transport.now())

    # -- who is asked ------------------------------------------------------------------------------------------------------

    def _assign(self) -> None:
        """Ask runners that have nothing to do."""
        waiting = [part for part in self._parts if part.place not in self._answers and not self._asked(part)]
        n = len(self._runners)
        for part in waiting:  # each of its own runner, which holds the lanes, where that can be
            if self._runners[part.place % n].state is State.IDLE:
                self._ask(part.place % n, part)
        for part in [*waiting, *self._late()]:
            asked = self._asked(part)
            if len(asked) > 1 or (part in waiting and asked):
                continue
            idle = [i for i, runner in enumerate(self._runners) if runner.state is State.IDLE]
            if idle:
                self._ask(idle[0], part)

    def _late(self) -> list[Part]:
        """Return the parts that take much longer than others did."""
        if not self._took:
            return []
        limit = max(self._patience.floor, self._patience.ratio * statistics.median(self._took))
        now = self._transport.now()
        return [
            part
            for part in self._parts
            if part.place not in self._answers
            and (asked := self._asked(part))
            and now - min(self._runners[i].asked for i in asked) > limit
        ]

    def _asked(self, part: Part) -> list[int]:
        """Return the runners that have been asked for a part and have not answered."""
        return [i for i, runner in enumerate(self._runners) if runner.state is State.BUSY and runner.part == part]

    def _ask(self, i: int, part: Part) -> None:
        runner, now = self._runners[i], self._transport.now()
        known = frozenset(lane for lane in part.lanes if runner.holds.get(lane) == part.number)
        runner.state, runner.part, runner.asked, runner.heard = State.BUSY, part, now, now
        for lane in part.lanes:  # until it has answered, they are somewhere in between
            runner.holds.pop(lane, None)
        self._transport.ask(i, part, known)

    # -- what is heard -----------------------------------------------------------------------------------------------------

    def _listen(self) -> None:
        """Take in what is heard until the next moment at which something is to be done."""
        for event in self._transport.events(self._until_next()):
            self._take(event)

    def _until_next(self) -> float:
        return TICK if any(runner.state is not State.IDLE for runner in self._runners) else 0.0

    def _take(self, event: Event) -> None:
        runner, what = self._runners[event.runner], event.what
        runner.heard = self._transport.now()
        if isinstance(what, Ready):
            runner.state, runner.where = State.IDLE, what.where
        elif isinstance(what, Lost):
            self._lose(event.runner, what.why)
        elif not isinstance(what, Beat):
            self._take_answer(runner, what)

    def _take_answer(self, runner: _Runner, answer: Rows | Failed) -> None:
        part = runner.part
        assert part is not None
        runner.state, runner.part, runner.failures = State.IDLE, None, 0
        current = part in self._parts
        if isinstance(answer, Rows):
            runner.holds |= dict.fromkeys(part.lanes, part.number + 1)
            self._compare(part, answer)
        if current and part.place not in self._answers:
            self._took.append(runner.heard - runner.asked)
            self._answers[part.place] = answer

    def _compare(self, part: Part, rows: Rows) -> None:
        """Hold an answer against an earlier one to the same."""
        accepted = self._accepted.get(part.number)
        if accepted is None:
            return
        for lane in rows.lanes:
            if accepted.setdefault(lane.lane, lane.rows) != lane.rows:
                raise not_deterministic(self._name, lane.lane, "two runners that did the same saw something else")

    # -- losing and making anew ------------------------------------------------------------------------------------------------

    def _look_at_clocks(self) -> None:
        """End runners that hang, and make those anew whose pause is over."""
        now, patience = self._transport.now(), self._patience
        for i, runner in enumerate(self._runners):
            if runner.state is State.STARTING and now - runner.heard > patience.start:
                self._transport.end(i)
                self._lose(i, f"it did not start within {patience.start:g} s")
            elif runner.state is State.BUSY and now - runner.heard > patience.silence:
                self._transport.end(i)
                self._lose(i, f"it took no step for {patience.silence:g} s and was ended")
            elif runner.state is State.DOWN and now >= runner.until:
                self._start(i, now)

    def _start(self, i: int, now: float) -> None:
        self._runners[i].state, self._runners[i].heard = State.STARTING, now
        self._transport.start(i)

    def _lose(self, i: int, why: str) -> None:
        runner, part = self._runners[i], self._runners[i].part
        runner.failures += 1
        runner.part, runner.why = None, why
        runner.holds = {}
        given_up = runner.failures >= self._patience.most_failures
        runner.state = State.GIVEN_UP if given_up else State.DOWN
        runner.until = self._transport.now() + self._patience.pause(runner.failures)
        where = f" on {runner.where}" if runner.where else ""
        self._warn(f"runner {i}{where} was lost: {why}. " + ("It is given up." if given_up else "It is made anew."))
        if part is not None and part in self._parts and part.place not in self._answers:
            self._losses[part.place] += 1
            if self._losses[part.place] >= self._patience.most_losses:
                raise NoRunners(
                    f"{self._losses[part.place]} runners in a row were lost while they stepped {_words(part.lanes)} of "
                    f"{self._name}: {why}."
                )
        if all(each.state is State.GIVEN_UP for each in self._runners):
            raise NoRunners(f"no runner is left, the last one was lost: {why}.")


def _unstarted(lost: Lost) -> UsageError | NoRunners:
    return UsageError(f"{lost.why}.") if lost.unfit else NoRunners(f"a runner could not start: {lost.why}.")


TICK = 0.25
"""Seconds after which the clocks are looked at, at the latest."""


def _words(lanes: Sequence[int]) -> str:
    return f"environment {lanes[0]}" if len(lanes) == 1 else f"environments {lanes[0]} to {lanes[-1]}"
