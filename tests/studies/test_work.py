"""Jobs that are lost with the machine that did them are given again, within a budget."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from test_processes import Notes, jobs

from jumar.console.signals import StopFlag
from jumar.studies.cells import Job
from jumar.studies.executor import Failure, Words
from jumar.studies.work import GIVEN_AGAIN, work_off

LOST = Failure("its node died.", lost=True)


class Lossy:
    """An executor whose tasks are over at once, and end as they are told to, or take a stop to end."""

    pause = 0.0
    outlives = False
    room = 1

    def __init__(self, *endings: Failure | Callable[[Path], Failure | None] | None) -> None:
        self.endings = list(endings)
        self.started: list[tuple[str, tuple[str, ...]]] = []
        self.closed = 0

    def shares(self, parts: int, *, even: bool) -> list[tuple[int, ...]]:
        return [(0, 1)] * parts

    def start(self, name: str, words: Words, run: Path, log: Path, processors: tuple[int, ...]) -> Ended:
        self.started.append((name, tuple(words())))
        ending = self.endings.pop(0)
        return Ended(self, ending(run) if callable(ending) else ending)


@dataclasses.dataclass
class Ended:
    executor: Lossy
    ending: Failure | None

    def over(self) -> bool:
        return True

    def failure(self) -> Failure | None:
        return self.ending

    def let_go(self) -> None:
        raise AssertionError("it is over")

    def close(self) -> None:
        self.executor.closed += 1


def worked_off(executor: Lossy, every: Sequence[Job], tmp_path: Path) -> tuple[Notes, list[str]]:
    notes, warnings = Notes(), list[str]()
    told = {"executor": executor, "warn": warnings.append}
    work_off(every, lambda job: [f"seed {job.seeds[0]}"], tmp_path / "logs", 1, notes, StopFlag(), **told)
    return notes, warnings


def test_a_lost_job_is_given_again_and_others_go_on(tmp_path: Path) -> None:
    first, second = every = jobs(tmp_path, 2)
    executor = Lossy(LOST, None, None)
    notes, warnings = worked_off(executor, every, tmp_path)
    assert [words for _, words in executor.started] == [("seed 0",), ("seed 1",), ("seed 0",)]
    assert notes.outcomes == {first.seeds: None, second.seeds: None}
    assert warnings == ["ppo on jax/CartPole-v1, seed 0: its node died. It is given again."]
    assert executor.closed == 3


def test_a_job_that_is_lost_without_end_fails_in_the_end(tmp_path: Path) -> None:
    [job] = jobs(tmp_path, 1)
    executor = Lossy(*[LOST] * 10)
    notes, warnings = worked_off(executor, [job], tmp_path)
    assert notes.outcomes == {job.seeds: LOST}
    assert len(executor.started) == len(warnings) + 1 == GIVEN_AGAIN + 1


def test_a_job_that_comes_further_each_time_is_given_again_as_often_as_it_takes(tmp_path: Path) -> None:
    [job] = jobs(tmp_path, 1)

    def reaching(steps: int) -> Callable[[Path], Failure | None]:
        def lost(run: Path) -> Failure | None:
            run.mkdir(parents=True, exist_ok=True)
            (run / "metrics.jsonl").write_text(json.dumps({"time/total_timesteps": steps}) + "\n")
            return LOST

        return lost

    executor = Lossy(*[reaching(100 * (i + 1)) for i in range(4 * GIVEN_AGAIN)], None)
    notes, _ = worked_off(executor, [job], tmp_path)
    assert notes.outcomes == {job.seeds: None}


def test_nothing_is_given_again_after_a_stop(tmp_path: Path) -> None:
    [job] = jobs(tmp_path, 1)
    stop, notes = StopFlag(), Notes()

    class Stopping(Lossy):
        def start(self, name: str, words: Words, run: Path, log: Path, processors: tuple[int, ...]) -> Ended:
            stop.signal = 15
            return Late(self, LOST)

    class Late(Ended):
        let_gone = False

        def over(self) -> bool:
            return self.let_gone

        def let_go(self) -> None:
            self.let_gone = True

    executor = Stopping()
    work_off([job], lambda job: [], tmp_path / "logs", 1, notes, stop, executor=executor)
    assert (notes.outcomes, executor.closed) == ({}, 1)


def test_an_error_closes_what_is_under_way(tmp_path: Path) -> None:
    first, second = jobs(tmp_path, 2)
    executor = Lossy(None)  # there is no second ending
    with pytest.raises(IndexError):
        work_off([first, second], lambda job: [], tmp_path / "logs", 2, Notes(), StopFlag(), executor=executor)
    assert executor.closed == 1
