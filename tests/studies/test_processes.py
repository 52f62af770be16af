"""Jobs as processes: how they are divided among processors, how they end, and that none is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from jumar.console.signals import StopFlag
from jumar.studies import claims, processes
from jumar.studies.cells import Job, cells_of
from jumar.studies.compare_request import CompareRequest
from jumar.studies.executor import Failure
from jumar.studies.methods import Method
from jumar.studies.processes import Processes, shares
from jumar.studies.work import work_off


def test_processors_are_divided_among_the_processes() -> None:
    assert shares([0, 1, 2, 3], 2) == [(0, 2), (1, 3)]
    assert shares([0, 1, 2], 2) == [(0, 2), (1,)]
    assert shares([4, 5], 5) == [(4,), (5,), (4,), (5,), (4,)]


def test_jobs_may_have_a_fixed_number_of_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (processes, claims):
        monkeypatch.setattr(module, "processors", lambda: [8000, 8001, 8002, 8003, 8004])  # nobody else claims them
    assert Processes(2).shares(2, even=False) == [(8000, 8001), (8002, 8003)]
    assert Processes(2).shares(3, even=False) == [(8000, 8001), (8002, 8003), (8004, 8000)]
    assert Processes(9).shares(1, even=False) == [(8000, 8001, 8002, 8003, 8004)]
    assert [Processes(each).room for each in (None, 1, 2, 9)] == [5, 5, 2, 1]


def jobs(folder: Path, number: int) -> list[Job]:
    wishes = CompareRequest(methods=(Method("ppo", "ppo"),), envs=("jax/CartPole-v1",))
    [cell] = [cell.within(folder) for cell in cells_of(wishes)]
    return [Job(cell, (seed,)) for seed in range(number)]


class Notes:
    """A watcher that writes down what it hears."""

    def __init__(self, on_account: Callable[[Job, Failure | None], Sequence[Job]] | None = None) -> None:
        self.outcomes: dict[tuple[int, ...], Failure | None] = {}
        self.most = 0
        self._on_account = on_account

    def running(self, jobs: Sequence[Job]) -> None:
        self.most = max(self.most, len(jobs))

    def ended(self, job: Job, failure: Failure | None) -> Sequence[Job]:
        self.outcomes[job.seeds] = failure
        return self._on_account(job, failure) if self._on_account else ()


@pytest.fixture
def child(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a job's words be a Python program."""

    def popen(words: list[str], **options: Any) -> Any:
        assert words[:4] == [sys.executable, "-P", "-m", "jumar.cli.leashed"]
        return real([sys.executable, "-c", words[5]], **options)

    real = subprocess.Popen
    monkeypatch.setattr(processes.subprocess, "Popen", popen)


@pytest.mark.usefixtures("child")
def test_all_jobs_are_done_so_many_at_a_time(tmp_path: Path) -> None:
    notes, every = Notes(), jobs(tmp_path, 5)
    work_off(every, lambda job: ["pass"], tmp_path / "logs", 2, notes, StopFlag())
    assert notes.outcomes == dict.fromkeys(job.seeds for job in every)
    assert notes.most <= 2


@pytest.mark.parametrize(("even", "sizes"), [(False, {1, 2}), (True, {1})])
def test_jobs_have_as_many_processors_each_where_it_matters(
    even: bool, sizes: set[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = []

    def popen(words: list[str], **options: Any) -> Any:
        given.append(len(words[4].split(",")))
        return real([sys.executable, "-c", "pass"], **options)

    real = subprocess.Popen
    monkeypatch.setattr(processes.subprocess, "Popen", popen)
    monkeypatch.setattr(processes, "processors", lambda: [0, 1, 2])
    work_off(jobs(tmp_path, 2), lambda job: [], tmp_path / "logs", 2, Notes(), StopFlag(), even=even)
    assert set(given) == sizes


@pytest.mark.usefixtures("child")
@pytest.mark.parametrize("code", [130, 143, -9, 3])
def test_what_a_signal_ended_is_told_apart(code: int, tmp_path: Path) -> None:
    notes, every = Notes(), jobs(tmp_path, 1)
    program = f"import os; os.kill(os.getpid(), {-code})" if code < 0 else f"exit({code})"
    work_off(every, lambda job: [program], tmp_path / "logs", 1, notes, StopFlag())
    failure = notes.outcomes[every[0].seeds]
    assert failure is not None
    assert failure.interrupted == (code != 3)


@pytest.mark.usefixtures("child")
@pytest.mark.parametrize(
    ("program", "failure"),
    [
        ('print(\'{"error": "the rope is too short."}\'); exit(1)', Failure("the rope is too short.")),
        ('print(\'{"error": "no such rope."}\'); exit(2)', Failure("no such rope.", refused=True)),
        ("raise SystemExit('torn')", Failure("it ended with exit code 1: torn")),
        ("exit(3)", Failure("it ended with exit code 3.")),
        ("import os; os.kill(os.getpid(), 9)", Failure("it was ended by SIGKILL.")),
    ],
)
def test_a_failure_is_told_in_words_and_spoils_nothing_else(program: str, failure: Failure, tmp_path: Path) -> None:
    notes, [bad, good] = Notes(), jobs(tmp_path, 2)
    work_off([bad, good], lambda job: [program if job is bad else "pass"], tmp_path / "logs", 1, notes, StopFlag())
    assert notes.outcomes == {bad.seeds: failure, good.seeds: None}


@pytest.mark.usefixtures("child")
def test_what_is_to_be_done_on_account_of_a_job_is_done(tmp_path: Path) -> None:
    first, *others = jobs(tmp_path, 3)
    notes = Notes(lambda job, failure: others if job is first else ())
    work_off([first], lambda job: ["pass"], tmp_path / "logs", 2, notes, StopFlag())
    assert set(notes.outcomes) == {job.seeds for job in (first, *others)}


@pytest.mark.usefixtures("child")
def test_a_stop_is_passed_on_and_begins_nothing_new(tmp_path: Path) -> None:
    stop, every = StopFlag(), jobs(tmp_path, 3)
    waiting = f"import sys, pathlib; pathlib.Path(r'{tmp_path}/up').touch(); sys.stdin.read(); exit(143)"

    class Stopping(Notes):
        def running(self, jobs: Sequence[Job]) -> None:
            if (tmp_path / "up").exists():
                stop.signal = signal.SIGINT

    notes = Stopping()
    work_off(every, lambda job: [waiting], tmp_path / "logs", 1, notes, stop)
    assert notes.outcomes == {}  # none has failed: they were stopped


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="processors cannot be chosen here")
def test_a_leashed_command_runs_on_its_processors_and_stops_with_whoever_holds_the_leash() -> None:
    one = sorted(os.sched_getaffinity(0))[-1]
    program = (
        f"import sys, os, time; sys.argv[1:] = ['{one}', 'evaluate', 'x']; import jumar.cli;"
        "jumar.cli.main = lambda words: (print(words, os.sched_getaffinity(0), flush=True), time.sleep(60));"
        "from jumar.cli.leashed import main; main()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stdout.readline().strip() == f"['evaluate', 'x'] {{{one}}}"
    process.stdin.close()
    assert process.wait(30) == -signal.SIGTERM
    process.stdout.close()
