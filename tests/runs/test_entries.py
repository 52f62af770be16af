"""The entries of a run directory, which may come from anybody: no link is followed, and nothing foreign is touched."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from jumar.drills.hostile import FILES, FOLDERS, KINDS, make_outside, plant, to_nothing
from jumar.errors import DamagedFile, UsageError
from jumar.runs.entries import is_folder, make_folder, open_plain
from jumar.runs.run_directory import RunDirectory


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    return make_outside(tmp_path / "outside")


def made_run(path: Path) -> RunDirectory:
    path.mkdir()
    run = RunDirectory(path)
    run.write_config({})
    return run


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", [*FILES, *FOLDERS])
def test_no_entry_of_a_run_may_lead_elsewhere(name: str, kind: str, tmp_path: Path, outside: Path) -> None:
    run = made_run(tmp_path / "run")
    plant(run.path, name, kind, outside)
    before = sorted(run.path.rglob("*"))
    noun = "plain file" if name in FILES else "folder"
    for use in (lambda: RunDirectory.open(run.path), lambda: run.lock().__enter__()):
        with pytest.raises(DamagedFile, match=rf"{name} is a (link|pipe), but must be a {noun}"):
            use()
    assert sorted(run.path.rglob("*")) == before
    assert sorted(os.listdir(outside)) == [".policy.json.0123abcd.tmp", "precious"]
    assert (outside / "precious").read_text() == "mine"


def test_the_run_itself_may_be_reached_through_a_link_and_foreign_entries_are_nobodys_business(
    tmp_path: Path, outside: Path
) -> None:
    run = made_run(tmp_path / "run")
    foreign = ["notes", "data", ".note.tmp", ".policy.json.tmp", ".notes.0123abcd.tmp"]
    (run.path / "notes").write_text("mine")
    (run.path / "data").symlink_to(outside)
    for name in foreign[2:]:
        (run.path / name).write_text("mine")
    (run.path / ".policy.json.0123abcd.tmp").write_text("half")
    (run.path / "seed_3" / "best").mkdir(parents=True)
    (run.path / "seed_3" / "best" / ".policy.safetensors.new.0123abcd.tmp").write_text("half")
    (tmp_path / "link").symlink_to(run.path)
    with RunDirectory.open(tmp_path / "link").lock():
        assert sorted(os.listdir(run.path)) == sorted([*foreign, "config.json", ".lock", "seed_3"])
        assert os.listdir(run.path / "seed_3" / "best") == []
    assert len(os.listdir(outside)) == 2


@pytest.mark.parametrize("name", ["metrics.jsonl", "evaluations.jsonl", ".lock", "seed_3/metrics.jsonl"])
def test_what_is_written_in_place_may_have_no_second_name(name: str, tmp_path: Path, outside: Path) -> None:
    run = made_run(tmp_path / "run")
    (run.path / "seed_3").mkdir()
    os.link(outside / "precious", run.path / name)
    RunDirectory.open(run.path)  # to read it harms nobody
    with pytest.raises(DamagedFile, match=rf"{name} is a file with a second name \(a hard link\)"), run.lock():
        pytest.fail("locked")
    assert (outside / "precious").read_text() == "mine"


def test_a_folder_in_the_place_of_a_file_and_the_other_way_round(tmp_path: Path) -> None:
    run = made_run(tmp_path / "run")
    run.metrics.mkdir()
    with pytest.raises(DamagedFile, match=r"metrics\.jsonl is a folder, but must be a plain file: move it away\."):
        RunDirectory.open(run.path)
    run.metrics.rmdir()
    run.tensorboard.write_text("")
    with pytest.raises(DamagedFile, match=r"tensorboard is a file, but must be a folder: move it away\."):
        RunDirectory.open(run.path)


def test_a_folder_is_made_only_where_nothing_else_is(tmp_path: Path, outside: Path) -> None:
    make_folder(tmp_path / "a" / "b")
    make_folder(tmp_path / "a" / "b")
    assert is_folder(tmp_path / "a" / "b")
    assert not is_folder(tmp_path / "none")
    (tmp_path / "link").symlink_to(outside)
    for place in (tmp_path / "link", outside / "precious"):
        with pytest.raises(DamagedFile, match="but must be a folder"):
            make_folder(place)


def test_opening_for_writing_creates_nothing_behind_a_link(tmp_path: Path, outside: Path) -> None:
    to_nothing(tmp_path / "link", outside)
    with pytest.raises(DamagedFile, match="link is a link"):
        open_plain(tmp_path / "link", os.O_WRONLY | os.O_CREAT)
    with pytest.raises(FileNotFoundError):
        open_plain(tmp_path / "none")
    os.close(open_plain(tmp_path / "new", os.O_WRONLY | os.O_CREAT))
    assert (tmp_path / "new").read_bytes() == b""
    assert not (outside / "new").exists()


def test_a_directory_that_is_not_there_cannot_be_locked(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="none cannot be read"), RunDirectory(tmp_path / "none").lock():
        pytest.fail("locked")
