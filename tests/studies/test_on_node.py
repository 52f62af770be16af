"""What a machine does of a job that another one has written down: does it, refuses it, lets it go, and says how it ended."""

from __future__ import annotations

import fcntl
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_attempts import run_directory

from jumar.cluster import versions as cluster_versions
from jumar.runs.run_directory import is_locked
from jumar.studies import on_node, processes
from jumar.studies.attempts import Files
from jumar.studies.executor import Failure
from jumar.studies.given import GivenJobs
from jumar.studies.on_node import carry_out


@pytest.fixture(autouse=True)
def child(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a job's words be a Python program and its arguments."""

    def popen(words: list[str], **options: Any) -> Any:
        assert words[:4] == [sys.executable, "-P", "-m", "jumar.cli.leashed"]
        return real([sys.executable, "-c", *words[5:]], **options)

    real = subprocess.Popen
    monkeypatch.setattr(processes.subprocess, "Popen", popen)
    monkeypatch.setattr(on_node, "PAUSE", 0.02)
    monkeypatch.setattr(on_node, "LOOK_AT_LEASH", 0.05)


@pytest.fixture
def locked() -> Iterator[None]:
    """Hold the lock of the study ``c``, as whoever gives its jobs does."""
    Path("c").mkdir()
    with Path("c/.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def written(*words: str) -> Files:
    """Write down a job of the study ``c``; its run directory is ``c/runs/x``."""
    jobs = GivenJobs(Path("c"))
    return jobs.write(jobs.place(), "x", words, Path("c/runs/x"), Path("c/logs/x.log"), 1)


def did(files: Files) -> Failure | None:
    """Do the job; return how it ended, which is also written down."""
    failure = carry_out(files.place, files.index)
    assert files.read_ending() == (True, failure)
    return failure


@pytest.mark.usefixtures("locked")
def test_a_job_is_done_where_it_was_given_with_its_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XLA_FLAGS", "--theirs")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    files = written(
        "import os, sys; print(os.getcwd(), os.environ['XLA_FLAGS'], os.environ.get('OMP_NUM_THREADS'), file=sys.stderr)"
    )
    here = Path.cwd()
    monkeypatch.chdir("/")
    monkeypatch.setenv("XLA_FLAGS", "--ours")
    monkeypatch.setenv("OMP_NUM_THREADS", "7")  # as Ray sets it
    assert did(files) is None
    assert (here / "c/logs/x.log").read_text().split() == [str(here), "--theirs", "None"]


@pytest.mark.usefixtures("locked")
def test_a_failure_is_told_in_the_jobs_own_words() -> None:
    assert did(written('print(\'{"error": "no such rope."}\'); exit(2)')) == Failure("no such rope.", refused=True)
    failure = did(written("raise SystemExit('torn')"))
    assert failure == Failure("it ended with exit code 1: torn")
    assert failure is not None
    assert not failure.lost


@pytest.mark.usefixtures("locked")
@pytest.mark.parametrize("told", ["nobody", "whoever gave it", "the machine"])
def test_an_ending_by_a_signal_is_lost_unless_it_was_asked_for(told: str) -> None:
    files = written(
        "import sys; sys.stdin.read(); exit(143)" if told != "nobody" else "import os; os.kill(os.getpid(), 15)"
    )
    if told == "whoever gave it":
        threading.Timer(0.2, files.let_go).start()
    failure = carry_out(files.place, files.index, lambda: told == "the machine")
    assert failure is not None
    assert (failure.interrupted, failure.lost) == (True, told != "whoever gave it")


def test_other_versions_are_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    files = written("pass")
    monkeypatch.setattr(on_node, "versions", lambda: {**cluster_versions.versions(), "jax": "0.1"})
    failure = did(files)
    assert failure is not None
    assert failure.refused
    assert " has jax 0.1 instead of " in failure.words


def test_a_folder_that_is_not_shared_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failure = carry_out(tmp_path / "nowhere", 0)
    assert failure is not None
    assert failure.refused
    assert (
        f"does not see {tmp_path / 'nowhere'}; comparisons and sweeps over several machines need one file system"
        in failure.words
    )
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path / "there")
    files = written("pass")
    monkeypatch.chdir(tmp_path)
    files.place.rename(tmp_path / "place")
    (tmp_path / "there").rename(tmp_path / "gone")
    failure = did(Files(tmp_path / "place", 0))
    assert failure is not None
    assert f"there is no folder {tmp_path / 'there'}" in failure.words


TRAIN = """
import json, pathlib, sys
run = pathlib.Path(sys.argv[1].removeprefix('--run-dir='))
before = len((run / 'metrics.jsonl').read_text()) if run.exists() else 0
run.mkdir(parents=True, exist_ok=True)
(run / 'config.json').write_text('{}')
(run / 'metrics.jsonl').write_text(json.dumps({'time/total_timesteps': 500, 'before': before, 'run': str(run)}) + chr(10))
"""


def trained() -> dict[str, Any]:
    return json.loads(Path("c/runs/x/metrics.jsonl").read_text())


@pytest.mark.usefixtures("locked")
def test_where_the_lock_of_the_study_is_seen_runs_are_trained_in_place() -> None:
    files = written(TRAIN, "--run-dir=c/runs/x")
    assert did(files) is None
    assert trained()["run"] == "c/runs/x"


def test_where_no_lock_is_seen_runs_are_trained_beside_and_moved() -> None:
    run_directory(Path("c/runs/x"), 100)
    files = written(TRAIN, "--run-dir=c/runs/x")
    assert did(files) is None
    assert trained() == {"time/total_timesteps": 500, "before": 30, "run": str(files.run)}
    assert not files.run.exists()


@pytest.mark.usefixtures("locked")
def test_an_attempt_that_still_saves_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    run_directory(Path("c/runs/x"), 100)
    monkeypatch.setattr(on_node, "LOOK_AT_LEASH", 0.05)
    files = written(TRAIN, "--run-dir=c/runs/x")
    began = time.monotonic()
    with Path("c/runs/x/.lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        threading.Timer(0.5, fcntl.flock, (other, fcntl.LOCK_UN)).start()
        assert did(files) is None
    assert time.monotonic() - began >= 0.5
    assert trained()["time/total_timesteps"] == 500


@pytest.mark.usefixtures("locked")
def test_a_run_that_another_attempt_still_works_on_is_given_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_node, "SAVING", 0.0)
    run_directory(Path("c/runs/x"), 100)
    files = written('print(\'{"error": "the folder c/runs/x is in use by process 1"}\'); exit(2)')
    with Path("c/runs/x/.lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        failure = did(files)
    assert failure is not None
    assert (failure.lost, failure.refused) == (True, False)


def test_locks_are_seen_without_taking_them(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    assert not is_locked(path)
    path.touch()
    assert not is_locked(path)
    with path.open("w") as holder:
        fcntl.flock(holder, fcntl.LOCK_EX)
        assert is_locked(path)
    assert not is_locked(path)
