"""Runs that are trained beside their place, where a file system has no locks, and renamed into it."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from test_attempts import run_directory

from jumar.errors import DamagedFile
from jumar.studies import beside


def steps(run: Path) -> int:
    return json.loads((run / "metrics.jsonl").read_text())["time/total_timesteps"]


def test_an_attempt_goes_on_with_a_copy(tmp_path: Path) -> None:
    run, place = run_directory(tmp_path / "run", 100), tmp_path / "0.run"
    (run / ".lock").touch()
    beside.begin(run, place)
    assert (steps(place), (place / ".lock").exists()) == (100, False)
    (place / "metrics.jsonl").write_text('{"time/total_timesteps": 200}\n')
    beside.begin(run, place)  # it is there already
    assert (steps(run), steps(place)) == (100, 200)
    beside.begin(tmp_path / "nothing", tmp_path / "1.run")
    assert not (tmp_path / "1.run").exists()


@pytest.mark.parametrize(("there", "made", "kept"), [(None, 50, 50), (100, 200, 200), (200, 100, 200), (200, 200, 200)])
def test_what_has_come_further_takes_the_place(there: int | None, made: int, kept: int, tmp_path: Path) -> None:
    run, place = tmp_path / "runs" / "run", run_directory(tmp_path / "0.run", made)
    if there is not None:
        run_directory(run, there)
    beside.put_in_place(place, run)
    assert steps(run) == kept
    assert sorted(os.listdir(tmp_path)) == ["runs"]
    beside.put_in_place(place, run)  # once more, as after a crash
    assert steps(run) == kept


def test_where_a_run_can_go_on_from_counts_before_what_it_has_logged(tmp_path: Path) -> None:
    """Logs of host environments run far ahead of the checkpoints, to which a resumed run goes back."""
    run, place = run_directory(tmp_path / "run", 190), run_directory(tmp_path / "0.run", 180)
    (run / "checkpoints" / f"{100:012d}").mkdir(parents=True)
    (place / "checkpoints" / f"{150:012d}").mkdir(parents=True)
    beside.put_in_place(place, run)
    assert os.listdir(run / "checkpoints") == [f"{150:012d}"]
    assert steps(run) == 180


def test_a_kill_while_an_attempt_is_removed_leaves_the_run_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, place = tmp_path / "run", run_directory(tmp_path / "0.run", 100)
    removed = shutil.rmtree

    def killed(path: Path, ignore_errors: bool = False) -> None:
        if (Path(path) / "config.json").exists():
            (Path(path) / "config.json").unlink()
            raise KeyboardInterrupt
        removed(path, ignore_errors=ignore_errors)

    monkeypatch.setattr(beside.shutil, "rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        beside.put_in_place(place, run)
    monkeypatch.undo()
    beside.put_in_place(place, run)
    assert (run / "config.json").exists()


def test_seeds_of_one_program_are_moved_together(tmp_path: Path) -> None:
    for seed in (0, 1):
        run_directory(tmp_path / "0.run" / f"seed_{seed}", 100)
        run_directory(tmp_path / "run" / f"seed_{seed}", 50)
    assert [beside.trained(tmp_path / name) for name in ("0.run", "run", "none")] == [100, 50, -1]
    beside.put_in_place(tmp_path / "0.run", tmp_path / "run")
    assert [steps(tmp_path / "run" / f"seed_{seed}") for seed in (0, 1)] == [100, 100]


def test_a_crash_between_the_two_renames_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, place = run_directory(tmp_path / "run", 100), run_directory(tmp_path / "0.run", 200)
    renamed = os.rename

    def only_once(source: Path, target: Path) -> None:
        if target == run:
            raise OSError("the machine dies here")
        renamed(source, target)

    monkeypatch.setattr(beside.os, "rename", only_once)
    with pytest.raises(OSError, match="dies here"):
        beside.put_in_place(place, run)
    monkeypatch.undo()
    assert steps(place) == 200
    beside.put_in_place(place, run)
    assert steps(run) == 200


def test_an_attempt_that_was_thought_dead_changes_nothing_in_the_run(tmp_path: Path) -> None:
    place = run_directory(tmp_path / "0.run", 100)
    with (place / "metrics.jsonl").open("a") as log:
        beside.put_in_place(place, tmp_path / "run")
        log.write('{"time/total_timesteps": 101}\n')
    assert steps(tmp_path / "run") == 100


def test_links_are_not_followed(tmp_path: Path) -> None:
    place = run_directory(tmp_path / "0.run", 100)
    (tmp_path / "secret").write_text("hush")
    (place / "evaluations.jsonl").symlink_to(tmp_path / "secret")
    with pytest.raises(DamagedFile, match="is a link"):
        beside.put_in_place(place, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    shutil.rmtree(place)


def test_words_name_the_other_place() -> None:
    words = ["train", "--seed=0", "--run-dir=c/x", "--", "ppo", "E"]
    assert beside.redirected(words, "c/x", Path("/a/0.run"))[2] == "--run-dir=/a/0.run"
    assert beside.redirected(["resume", "--quiet", "--", "c/x"], "c/x", Path("/a/0.run"))[-1] == "/a/0.run"
