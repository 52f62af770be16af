"""Whether a process works on a run, seen from outside."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

import pytest

from jumar.runs.at_work import is_at_work
from jumar.runs.run_directory import RunDirectory


def made(path: Path) -> RunDirectory:
    path.mkdir(parents=True)
    run = RunDirectory(path)
    run.metrics.write_text("{}\n")
    return run


def test_the_lock_says_who_is_at_work_and_stays_as_it_is(tmp_path: Path) -> None:
    run = made(tmp_path / "run")
    assert not is_at_work(run)  # it was never locked
    assert os.listdir(run.path) == ["metrics.jsonl"]
    with run.lock():
        before = (run.path / ".lock").read_bytes()
        assert is_at_work(run)
        assert (run.path / ".lock").read_bytes() == before
    assert not is_at_work(run)
    with run.lock():  # to look left no lock
        pass


def test_the_run_of_several_seeds_is_locked_for_all_of_them(tmp_path: Path) -> None:
    several = made(tmp_path / "five")
    one = made(several.seed(3).path)
    with several.lock():
        assert is_at_work(one)
    assert not is_at_work(one)


def test_without_locks_a_fresh_log_is_that_of_a_run_under_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = made(tmp_path / "run")
    with run.lock():
        pass

    def refuse(*words: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    assert run.locked() is None
    written = os.stat(run.metrics).st_mtime
    assert is_at_work(run, now=written + 30)
    assert not is_at_work(run, now=written + 90)
    run.metrics.unlink()
    assert not is_at_work(run, now=written + 30)
