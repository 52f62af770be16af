"""Who is asked again and when: the supervision of runners that are only in a script, by a clock that it moves."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from jumar.errors import UsageError
from jumar.lanes.lane import NotDeterministic
from jumar.lanes.records import Beat, Failed, Gave, Opened, Rows
from jumar.lanes.supervisor import Event, Lost, NoRunners, Part, Patience, Ready, Supervisor

PATIENCE = Patience(start=30.0, silence=10.0, floor=2.0, most_failures=3, most_losses=2)

Answering = Callable[[int, Part, int], Sequence[tuple[float, Any]]]
"""What a runner does about a part: (runner, part, how often it was asked for anything) to (seconds from now, what is heard)."""


def rows(part: Part, salt: str = "") -> Rows:
    """Return the answer to a part, which only says what was seen."""
    lanes = tuple(
        Opened(lane, 0, 0, np.zeros(0), True, b"", f"{part.number} {lane}{salt}".encode(), Gave())
        for lane in part.lanes
    )
    return Rows({}, np.zeros(len(part.lanes), bool), (), lanes)


def at_once(runner: int, part: Part, times: int) -> Sequence[tuple[float, Any]]:
    return [(1.0, rows(part))]


@dataclass
class Script:
    """A transport whose runners do what is written; it waits by moving the clock."""

    answering: Answering = at_once
    starting: Callable[[int, int], tuple[float, Any]] = lambda runner, times: (0.5, Ready(f"node{runner}"))
    time: float = 0.0
    asked: list[tuple[float, int, Part, frozenset[int]]] = field(default_factory=list)
    started: list[tuple[float, int]] = field(default_factory=list)
    ended: list[tuple[float, int]] = field(default_factory=list)
    _queue: list[tuple[float, int, Event]] = field(default_factory=list)
    _count: int = 0

    def _later(self, runner: int, when: float, what: Any) -> None:
        self._count += 1
        heapq.heappush(self._queue, (self.time + when, self._count, Event(runner, what)))

    def start(self, runner: int) -> None:
        self.started.append((self.time, runner))
        self._later(runner, *self.starting(runner, sum(r == runner for _, r in self.started)))

    def ask(self, runner: int, part: Part, known: frozenset[int]) -> None:
        self.asked.append((self.time, runner, part, known))
        for when, what in self.answering(runner, part, sum(r == runner for _, r, *_ in self.asked)):
            self._later(runner, when, what)

    def end(self, runner: int) -> None:
        self.ended.append((self.time, runner))
        self._queue = [item for item in self._queue if item[2].runner != runner]
        heapq.heapify(self._queue)

    def events(self, timeout: float) -> Sequence[Event]:
        if not self._queue or self._queue[0][0] > self.time + timeout:
            self.time += timeout
            return []
        self.time, _, event = heapq.heappop(self._queue)
        if isinstance(event.what, Lost):  # nothing is heard of the dead
            self._queue = [item for item in self._queue if item[2].runner != event.runner]
            heapq.heapify(self._queue)
        return [event]

    def now(self) -> float:
        return self.time


def supervised(script: Script, runners: int, patience: Patience = PATIENCE) -> tuple[Supervisor, list[str]]:
    said: list[str] = []
    supervisor = Supervisor(script, runners, "walk", said.append, patience)
    supervisor.begin()
    return supervisor, said


LANES = [(0, 1), (2, 3), (4,)]


def runners_of(script: Script, number: int) -> list[tuple[int, int]]:
    """Return who was asked for which part of a request, in the order of time."""
    return [(runner, part.place) for _, runner, part, _ in script.asked if part.number == number]


def test_each_runner_has_its_own_lanes_and_need_not_be_told_of_them_again() -> None:
    script = Script()
    supervisor, said = supervised(script, 3)
    for number in range(3):
        answers = supervisor.answer(number, LANES)
        assert [tuple(lane.lane for lane in answer.lanes) for answer in answers if isinstance(answer, Rows)] == LANES
        assert runners_of(script, number) == [(0, 0), (1, 1), (2, 2)]
    known = [known for _, _, part, known in script.asked if part.place == 0]
    assert known == [frozenset(), frozenset({0, 1}), frozenset({0, 1})]
    assert not said
    assert not script.ended


def test_answers_come_in_the_order_of_the_lanes_whatever_that_of_arrival() -> None:
    script = Script(lambda runner, part, times: [(3.0 - runner, rows(part))])
    supervisor, _ = supervised(script, 3)
    answers = supervisor.answer(0, LANES)
    assert [answer.lanes[0].lane for answer in answers if isinstance(answer, Rows)] == [0, 2, 4]


def test_the_part_of_a_lost_runner_is_done_by_whoever_is_free_first() -> None:
    def dies_once(runner: int, part: Part, times: int) -> Sequence[tuple[float, Any]]:
        return [(0.2, Lost("killed"))] if (runner, times) == (1, 2) else [(1.0, rows(part))]

    script = Script(dies_once, starting=lambda runner, times: (0.5 if times == 1 else 4.0, Ready("here")))
    supervisor, said = supervised(script, 3)
    for number in range(2):
        assert len(supervisor.answer(number, LANES)) == 3
    # Runner 1 begins anew at once, but 0 has done its own part before that is ready.
    assert runners_of(script, 1) == [(0, 0), (1, 1), (2, 2), (0, 1)]
    assert script.asked[-1][3] == frozenset(), "the lanes are told of with all that is needed to rebuild them"
    assert said == ["runner 1 on here was lost: killed. It is made anew."]
    began = script.time
    supervisor.answer(2, LANES)
    assert script.time - began < 4.0, "nobody waits for the new runner"
    while script.time < began + 10.0:
        supervisor.answer(script_number(script) + 1, LANES)
    last = script_number(script)
    assert runners_of(script, last) == [(0, 0), (1, 1), (2, 2)], "it has its own lanes again"


def script_number(script: Script) -> int:
    return max(part.number for *_, part, _ in script.asked)


def test_one_that_takes_three_times_as_long_has_its_part_asked_of_another_and_the_first_answer_counts() -> None:
    def slow(runner: int, part: Part, times: int) -> Sequence[tuple[float, Any]]:
        stalls = (runner, times) == (2, 3)
        return [*((t, Beat(1)) for t in range(1, 20) if stalls), (20.0 if stalls else 2.0, rows(part))]

    script = Script(slow)
    supervisor, said = supervised(script, 3)
    began = 0.0
    for number in range(3):
        began = script.time
        supervisor.answer(number, LANES)
    assert runners_of(script, 2) == [(0, 0), (1, 1), (2, 2), (0, 2)]
    asked_at = script.asked[-1][0]
    assert 6.0 < asked_at - began < 6.5, "three times the median of 2 s"
    assert script.time - began < 8.5 + 0.5
    assert not said, "it is late, and not lost"
    # It is still at it: the others do its part, and it is not asked for anything.
    supervisor.answer(3, LANES)
    assert all(runner != 2 for runner, _ in runners_of(script, 3))
    # Its late answer is the same, and it goes on with its own lanes, of which it has to be told.
    while script.time < 40.0:
        supervisor.answer(script_number(script) + 1, LANES)
    assert runners_of(script, script_number(script)) == [(0, 0), (1, 1), (2, 2)]


def test_a_late_answer_that_differs_ends_training_and_names_the_environment() -> None:
    def differs(runner: int, part: Part, times: int) -> Sequence[tuple[float, Any]]:
        late = (runner, times) == (0, 2)
        return [*((t, Beat(1)) for t in range(1, 9) if late), (9.0 if late else 1.0, rows(part, "!" if late else ""))]

    script = Script(differs)
    supervisor, _ = supervised(script, 2)
    supervisor.answer(0, LANES[:2])

    def go_on() -> None:
        for number in range(1, 20):
            supervisor.answer(number, LANES[:2])

    with pytest.raises(
        NotDeterministic, match=r"environment 0 of walk is not deterministic: two runners that did the same"
    ):
        go_on()


def test_one_that_takes_no_step_is_ended_after_its_deadline_and_signs_of_life_move_that() -> None:
    def hangs(runner: int, part: Part, times: int) -> Sequence[tuple[float, Any]]:
        if (runner, times) == (0, 1):
            return [(4.0, Beat(3)), (9.0, Beat(2))]  # and nothing after that
        return [(1.0, rows(part))]

    script = Script(hangs)
    supervisor, said = supervised(script, 1)
    began = script.time
    supervisor.answer(0, [(0,)])
    ((ended, runner),) = script.ended
    assert runner == 0
    assert 19.0 < ended - began < 19.5
    assert said == ["runner 0 on node0 was lost: it took no step for 10 s and was ended. It is made anew."]
    assert script.time - ended < 2.0


def test_one_that_does_not_start_is_lost_and_pauses_grow() -> None:
    script = Script(
        lambda runner, part, times: [(0.1, Lost("killed"))] if runner == 0 else [(1.0, rows(part))],
        starting=lambda runner, times: (0.5, Ready("n")) if runner or times == 1 else (0.1, Lost("no room")),
    )
    supervisor, said = supervised(script, 2, Patience(most_failures=6))
    for number in range(60):
        supervisor.answer(number, LANES[:2])
    times = [time for time, runner in script.started if runner == 0]
    gaps = [round(after - before) for before, after in itertools.pairwise(times[1:])]
    assert gaps == [1, 2, 4, 8]
    assert said[-1] == "runner 0 on n was lost: no room. It is given up."
    assert len(said) == 6


def test_an_answer_in_between_makes_all_failures_forgotten() -> None:
    def dies(runner: int, part: Part, times: int) -> Sequence[tuple[float, Any]]:
        return [(0.1, Lost("killed"))] if runner == 0 and times % 2 else [(1.0, rows(part))]

    script = Script(dies)
    supervisor, said = supervised(script, 2)
    for number in range(40):
        supervisor.answer(number, LANES[:2])
    assert len(said) > 2 * PATIENCE.most_failures
    assert all(words.endswith("made anew.") for words in said)


def test_training_ends_where_no_runner_is_left() -> None:
    alive = {"now": True}
    script = Script(
        lambda runner, part, times: [(1.0, rows(part))] if alive["now"] else [(0.1, Lost("killed"))],
        starting=lambda runner, times: (0.1, Ready("n") if alive["now"] else Lost("the node is gone")),
    )
    supervisor, _ = supervised(script, 2, Patience(most_failures=3, most_losses=100))
    supervisor.answer(0, LANES[:2])
    alive["now"] = False
    with pytest.raises(NoRunners, match=r"no runner is left, the last one was lost: the node is gone\."):
        supervisor.answer(1, LANES[:2])


def test_a_part_that_ends_all_that_try_it_is_named() -> None:
    def deadly(runner: int, part: Part, times: int) -> Sequence[tuple[float, Any]]:
        return [(0.1, Lost("its process ended"))] if part.number == 1 and part.place == 1 else [(1.0, rows(part))]

    supervisor, _ = supervised(Script(deadly), 3)
    supervisor.answer(0, LANES)
    with pytest.raises(NoRunners, match=r"2 runners in a row were lost while they stepped environments 2 to 3 of walk"):
        supervisor.answer(1, LANES)


def test_a_failure_of_the_environment_is_an_answer() -> None:
    failed = Failed(3, 2, "EnvironmentFault", "it raised")
    script = Script(lambda runner, part, times: [(1.0, failed if part.place == 1 else rows(part))])
    supervisor, said = supervised(script, 3)
    assert supervisor.answer(0, LANES)[1] is failed
    assert not said
    supervisor.answer(0, LANES)
    assert [known for _, runner, _, known in script.asked if runner == 1] == [frozenset(), frozenset()]


@pytest.mark.parametrize(
    ("lost", "kind", "words"),
    [
        (
            Lost("node n cannot take part: numpy is 1 there", unfit=True),
            UsageError,
            "^node n cannot take part: numpy is 1 there.$",
        ),
        (Lost("its process ended"), NoRunners, "^a runner could not start: its process ended.$"),
    ],
)
def test_a_runner_that_cannot_start_at_the_beginning_is_refused(lost: Lost, kind: type[Exception], words: str) -> None:
    script = Script(starting=lambda runner, times: (0.5, lost if runner == 1 else Ready("n")))
    with pytest.raises(kind, match=words):
        supervised(script, 2)


def test_a_runner_that_never_starts_is_waited_for_no_longer_than_it_may_take() -> None:
    script = Script(starting=lambda runner, times: (1e9 if runner else 0.5, Ready("n")))
    with pytest.raises(NoRunners, match="a runner could not start: it did not start within 30 s"):
        supervised(script, 2)
    assert 30.0 < script.time < 31.0


def test_the_time_between_two_requests_is_not_the_runners() -> None:
    """A straggler that answered while the learner learnt is alive, and one that starts slowly may start in pieces."""
    script = Script(lambda runner, part, times: [(8.0 if (runner, part.number) == (1, 3) else 0.5, rows(part))])
    supervisor, said = supervised(script, 3)
    for number in range(4):
        supervisor.answer(number, LANES)
    script.time += 10 * PATIENCE.silence
    supervisor.answer(4, LANES)
    assert said == []

    script = Script(
        lambda runner, part, times: [(0.2, Lost("killed"))] if (runner, part.number) == (1, 1) else [(1.0, rows(part))],
        starting=lambda runner, times: (0.5 if times == 1 else 12.0, Ready("n")),
    )
    supervisor, said = supervised(script, 3)
    for number in range(20):
        supervisor.answer(number, LANES)
        script.time += 2 * PATIENCE.start
    assert said == ["runner 1 on n was lost: killed. It is made anew."]
    assert supervisor.all_at_work
