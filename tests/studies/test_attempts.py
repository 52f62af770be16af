"""What is written down for other machines: jobs, leashes, endings, and what an earlier process has left."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from jumar.cluster.versions import other_versions, versions
from jumar.errors import DamagedFile, UsageError
from jumar.runs.entries import check_entries
from jumar.studies import attempts, beside
from jumar.studies.attempts import ATTEMPTS, Assignment, Files, environment, new_place
from jumar.studies.executor import Failure
from jumar.studies.given import GivenJobs


def assignment(**changes: object) -> Assignment:
    told: dict[str, object] = {
        "name": "a_job", "words": ("train", "--run-dir=c/runs/x\x1b", "ppo", "E"), "run": "c/runs/x", "log": "c/logs/a.log",
        "folder": "/nowhere", "lock": "c/.lock", "processors": 2, "environment": {"XLA_FLAGS": "--x"}, "versions": {"jax": "1"},
    }  # fmt: skip
    return Assignment(**{**told, **changes})  # type: ignore[arg-type]


def test_a_job_is_read_as_it_was_written(tmp_path: Path) -> None:
    files = Files(new_place(tmp_path), 3)
    files.write(assignment())
    assert Assignment.read(files.job) == assignment()
    assert not files.told_to_stop()
    before = files.leash.stat().st_ino
    files.let_go()
    assert files.told_to_stop()
    assert files.leash.stat().st_ino == before  # the same file: a new one could be hidden for a minute
    files.leash.unlink()
    assert not files.told_to_stop()


@pytest.mark.parametrize("failure", [None, Failure("the rope is too short.", refused=True, lost=True)])
def test_an_ending_is_read_as_it_was_written(failure: Failure | None, tmp_path: Path) -> None:
    files = Files(new_place(tmp_path), 0)
    assert files.read_ending() == (False, None)
    files.write_ending(failure)
    ended, read = files.read_ending()
    assert (ended, read) == (True, failure)
    assert read is None or (read.lost, read.interrupted) == (True, False)


@pytest.mark.parametrize(
    ("entry", "value"), [("words", "rm"), ("words", [1]), ("processors", 0), ("environment", {"A": 1})]
)
def test_a_job_that_says_something_else_is_refused(entry: str, value: object, tmp_path: Path) -> None:
    files = Files(new_place(tmp_path), 0)
    attempts.write_json(files.job, attempts.JOB_KIND, {**assignment().to_json(), entry: value})
    with pytest.raises(DamagedFile, match=f"is damaged: the entry {entry}"):
        Assignment.read(files.job)
    files.job.write_text(json.dumps(assignment().to_json()))
    with pytest.raises(DamagedFile):
        Assignment.read(files.job)


def test_no_entry_of_the_folder_may_lead_elsewhere(tmp_path: Path) -> None:
    place = new_place(tmp_path / ATTEMPTS)
    (place / "0.leash").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DamagedFile, match="is a link"):
        check_entries(tmp_path / ATTEMPTS, attempts.LAYOUT, writing=True)
    with pytest.raises(DamagedFile, match="is a link"):
        Files(place, 0).let_go()
    assert not (tmp_path / "elsewhere").exists()


def test_variables_that_decide_results_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XLA_FLAGS", "--one")
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.setenv("A_SECRET", "hush")
    told = environment()
    assert (told["XLA_FLAGS"], told["OMP_NUM_THREADS"]) == ("--one", "3")
    assert not {"A_SECRET", "HOME", "PATH"} & set(told)


def test_versions_are_compared_in_words() -> None:
    assert {"python", "jumar", "jax", "jaxlib", "numpy"} <= set(versions())
    assert other_versions(versions(), versions()) is None
    here = {"jax": "0.10.2", "numpy": "2.4"}
    assert other_versions(here, {"jax": "0.10.1"}) == "jax 0.10.1 instead of 0.10.2, numpy missing instead of 2.4"
    assert other_versions(here, {**here, "optax": "1"}) == "optax 1 instead of none"


def given(out: Path, number: int = 1) -> tuple[GivenJobs, list[Files]]:
    """Return a study's jobs, so many of them given."""
    jobs = GivenJobs(out)
    names = [out / "runs" / f"seed_{seed}" for seed in range(number)]
    written = [jobs.write(jobs.place(), run.name, ["list"], run, out / "a.log", 1) for run in names]
    return jobs, written


def run_directory(path: Path, steps: int) -> Path:
    """Make what looks like a run that has trained so far."""
    path.mkdir(parents=True)
    (path / "config.json").write_text("{}")
    (path / "metrics.jsonl").write_text(json.dumps({"time/total_timesteps": steps}) + "\n")
    return path


def test_what_an_earlier_process_has_left_is_found_and_brought_home(tmp_path: Path) -> None:
    out = tmp_path / "c"
    earlier, [first, second] = given(out, 2)
    assert list(earlier.leftovers()) == []  # its own
    run_directory(first.run, 300)
    (out / ATTEMPTS / "not a token").mkdir()
    (out / ATTEMPTS / "not a token" / "0.job.json").write_text("{}")
    later = GivenJobs(out)
    left = list(later.leftovers())
    assert [(files.place, files.index) for files in left] == [(files.place, files.index) for files in (first, second)]
    for files in left:
        later.bring_home(files)
    assert (out / "runs/seed_0/metrics.jsonl").exists()
    assert not (out / "runs/seed_1").exists()
    later.remove_empty()
    (out / ATTEMPTS / "not a token" / "0.job.json").unlink()
    later.remove_empty()
    assert os.listdir(out / ATTEMPTS) == ["not a token"]


@pytest.mark.parametrize("typed", ["c", "../w/c", "link/c"])
def test_it_is_brought_home_however_the_folder_is_typed(
    typed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "w").mkdir()
    monkeypatch.chdir(tmp_path / "w")
    Path("link").symlink_to(".")
    jobs = GivenJobs(Path("c"))
    files = jobs.write(jobs.place(), "x", ["list"], Path("c/runs/seed_0"), Path("x.log"), 1)
    run_directory(files.run, 300)
    GivenJobs(Path(typed)).bring_home(files)
    assert Path("c/runs/seed_0/metrics.jsonl").exists()


def test_on_a_full_disk_what_was_trained_stays_for_the_next_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(source: Path, target: Path, **options: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))

    said: list[str] = []
    jobs, run = GivenJobs(tmp_path / "c", said.append), tmp_path / "c" / "runs" / "seed_0"
    files = jobs.write(jobs.place(), "x", ["list"], run, tmp_path / "x.log", 1)
    run_directory(files.run, 300)
    monkeypatch.setattr(beside.shutil, "copytree", full)
    jobs.tidy(files, run)
    assert "No space left on device" in said[0]
    later = GivenJobs(tmp_path / "c")
    with pytest.raises(UsageError, match=r"cannot be put in the place of .*No space left on device.*free some space"):
        later.bring_home(files)
    monkeypatch.undo()
    assert list(later.leftovers()) == [files]
    later.bring_home(files)
    assert (run / "metrics.jsonl").exists()
    assert list(later.leftovers()) == []


def test_nothing_is_brought_to_a_place_outside_of_the_study(tmp_path: Path) -> None:
    jobs = GivenJobs(tmp_path / "c")
    files = jobs.write(jobs.place(), "x", ["list"], tmp_path / "c" / ".." / "victim", tmp_path / "a.log", 1)
    run_directory(files.run, 300)
    GivenJobs(tmp_path / "c").bring_home(files)
    assert not (tmp_path / "victim").exists()
    assert files.run.exists()
