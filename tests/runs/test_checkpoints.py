"""Checkpoints: whole or not there, the newest sound one, and nothing outside of their folder."""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jumar.drills.disk_faults import MODES, Killed, after_every_fault, faults
from jumar.errors import DamagedFile, UsageError
from jumar.fields import record, whole
from jumar.runs import files
from jumar.runs.checkpoints import CheckpointStore
from jumar.runs.files import arrays_to_tree


def state(value: float) -> dict[str, Any]:
    return {"w": np.full(40, value), "key": np.array([0, 7], dtype=np.uint32)}


def store_with(folder: Path, *steps: int, keep: int = 3) -> CheckpointStore:
    store = CheckpointStore(folder / "checkpoints", keep)
    for step in steps:
        store.save(step, state(step), {"step_was": step})
    return store


def saving(*steps: int) -> Callable[[Path], None]:
    def save(folder: Path) -> None:
        store_with(folder, *steps)

    return save


def newest_value(folder: Path) -> tuple[int, float] | None:
    """Return the step and the value of the newest checkpoint of a store, as a new process would find it."""
    try:
        found = CheckpointStore(folder / "checkpoints").newest()
    except UsageError:
        return None
    assert found.warnings == []
    tree = arrays_to_tree(state(0), found.arrays)
    assert tree["w"].tolist() == [tree["w"][0]] * 40
    return found.step, float(tree["w"][0])


def test_newest_comes_back_with_its_record_and_the_last_three_stay(tmp_path: Path) -> None:
    store = store_with(tmp_path, 0, 2048, 4096, 6144)
    assert store.steps() == [2048, 4096, 6144]
    assert sorted(os.listdir(store.folder)) == ["000000002048", "000000004096", "000000006144"]
    found = store.newest()
    assert (found.step, found.record, found.warnings) == (6144, {"step_was": 6144}, [])
    assert found.arrays["w"].tolist() == [6144.0] * 40
    assert found.arrays["key"].dtype == np.uint32


def test_checkpoint_is_old_or_new_at_every_fault(tmp_path: Path) -> None:
    seen = after_every_fault(
        tmp_path,
        prepare=saving(1, 2, 3),
        act=saving(4),
        observe=newest_value,
    )
    for mode in MODES:
        assert set(seen[mode]) == {(3, 3.0), (4, 4.0)}


def test_replacing_a_checkpoint_is_old_or_new_at_every_fault(tmp_path: Path) -> None:
    def replace(folder: Path) -> None:
        CheckpointStore(folder / "checkpoints").save(2, state(20), {})

    seen = after_every_fault(tmp_path, saving(1, 2), replace, newest_value)
    for mode in MODES:
        assert set(seen[mode]) == {(2, 2.0), (2, 20.0)}


def test_first_checkpoint_is_none_or_whole_at_every_fault(tmp_path: Path) -> None:
    seen = after_every_fault(tmp_path, lambda folder: None, saving(0), newest_value)
    for mode in MODES:
        assert set(seen[mode]) == {None, (0, 0.0)}


def test_next_save_removes_what_a_killed_one_left(tmp_path: Path) -> None:
    with faults() as counted:
        store_with(tmp_path / "whole", 1)
        before = counted.count
        store_with(tmp_path / "whole", 1)
    for at in range(1, counted.count - before + 1):
        folder = tmp_path / str(at)
        store_with(folder, 1)
        with faults("kill", at), suppress(Killed):
            store_with(folder, 1)
        store_with(folder, 2)
        assert sorted(os.listdir(folder / "checkpoints")) == ["000000000001", "000000000002"]


def test_what_could_not_be_removed_does_not_block_the_next_replacement(tmp_path: Path) -> None:
    store = store_with(tmp_path, 1)
    shutil.copytree(store.folder / "000000000001", store.folder / "000000000001.set-aside")
    store.save(1, state(10), {})
    assert newest_value(tmp_path) == (1, 10.0)
    assert os.listdir(store.folder) == ["000000000001"]


def test_a_full_disk_takes_no_checkpoint_and_leaves_nothing(tmp_path: Path) -> None:
    store = store_with(tmp_path, 1, 2, 3)
    with faults("full", 3), pytest.raises(OSError, match="No space left"):
        store.save(4, state(4), {})
    assert sorted(os.listdir(store.folder)) == ["000000000001", "000000000002", "000000000003"]
    store.save(4, state(4), {})
    assert store.steps() == [2, 3, 4]


def test_a_limit_on_file_size_takes_no_checkpoint(tmp_path: Path) -> None:
    """The same with a real fault: the kernel refuses to let a file grow."""
    program = f"""
import resource
import numpy as np
from jumar.runs.checkpoints import CheckpointStore
resource.setrlimit(resource.RLIMIT_FSIZE, (16_384, 16_384))
store = CheckpointStore({str(tmp_path / "checkpoints")!r})
store.save(1, {{"w": np.zeros(10)}}, {{}})
try:
    store.save(2, {{"w": np.zeros(10_000)}}, {{}})
except OSError as error:
    print(error.strerror, store.newest().step)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "File too large 1\n"
    assert os.listdir(tmp_path / "checkpoints") == ["000000000001"]


def test_every_changed_byte_of_a_checkpoint_is_noticed(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    store.save(5, {"w": np.arange(3, dtype=np.float32)}, {"best": 1.5})
    for name in ("checkpoint.json", "state.safetensors"):
        path = tmp_path / "000000000005" / name
        whole = path.read_bytes()
        for offset in range(len(whole)):
            path.write_bytes(whole[:offset] + bytes([whole[offset] ^ 1]) + whole[offset + 1 :])
            with pytest.raises(DamagedFile, match=name.replace(".", r"\.")):
                store.newest()
        path.write_bytes(whole)
    assert store.newest().record == {"best": 1.5}


def test_damaged_newest_falls_back_and_says_so(tmp_path: Path) -> None:
    store = store_with(tmp_path, 1, 2, 3)
    (store.folder / "000000000003/state.safetensors").write_bytes(pickle.dumps("in disguise"))
    (store.folder / "000000000002/checkpoint.json").unlink()
    found = store.newest()
    assert found.step == 1
    assert len(found.warnings) == 2
    assert "checkpoint of step 3 was passed over: " in found.warnings[0]
    assert "state.safetensors was changed or cut short" in found.warnings[0]
    assert "checkpoint.json is missing" in found.warnings[1]
    assert store.steps() == [1, 2, 3]


def test_all_sound_ones_come_oldest_first_and_damaged_ones_are_named(tmp_path: Path) -> None:
    store = store_with(tmp_path, 1, 2, 3)
    said: list[str] = []
    reader = record(step_was=whole(0, 10))
    found = store.sound(lambda step: reader, said.append)
    assert [(one.step, one.arrays["w"][0], one.record) for one in found] == [(i, i, {"step_was": i}) for i in (1, 2, 3)]
    assert said == []
    (tmp_path / "checkpoints" / f"{2:012d}" / "state.safetensors").write_bytes(b"")
    assert [one.step for one in store.sound(lambda step: reader, said.append)] == [1, 3]
    assert len(said) == 1
    assert said[0].startswith("the checkpoint of step 2 was passed over: ")
    for step in (1, 3):
        (tmp_path / "checkpoints" / f"{step:012d}" / "checkpoint.json").write_text("{}")
    with pytest.raises(DamagedFile, match="no checkpoint is sound"):
        store.sound(lambda step: reader, said.append)
    with pytest.raises(UsageError, match="there is no checkpoint"):
        CheckpointStore(tmp_path / "none").sound(lambda step: reader, said.append)


def test_nothing_sound_and_nothing_at_all(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no checkpoint in"):
        CheckpointStore(tmp_path / "none").newest()
    store = store_with(tmp_path, 1, 2)
    for step in (1, 2):
        (store.folder / f"{step:012d}/state.safetensors").write_bytes(b"")
    with pytest.raises(DamagedFile, match=r"no checkpoint is sound\. .*0002/state.* .*0001/state"):
        store.newest()


def test_a_checkpoint_moved_to_another_step_is_refused(tmp_path: Path) -> None:
    store = store_with(tmp_path, 1)
    shutil.copytree(store.folder / "000000000001", store.folder / "000000000009")
    found = store.newest()
    assert found.step == 1
    assert "the entry step is 1, but must be 9, as the folder is named" in found.warnings[0]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"record": [1]}, "the entry record is"),
        ({"record": {"step_was": -1}}, "the entry record.step_was is -1, but must be a whole number from 0 to 9"),
        ({"record": {}}, "the entry record.step_was is missing"),
        ({"step": "3"}, "the entry step is '3', but must be a whole number from 0 to 999999999999"),
        ({"arrays": {}}, "the entry arrays.state.safetensors is missing"),
        ({"arrays": None}, "the entry arrays is missing"),
        ({"arrays": {"state.safetensors": 3}}, "the entry arrays.state.safetensors is 3, but must be a SHA-256"),
    ],
)
def test_a_forged_description_is_passed_over(change: dict[str, Any], said: str, tmp_path: Path) -> None:
    store = store_with(tmp_path, 1)
    store.save(3, state(3), {"step_was": 3})
    path = store.folder / "000000000003" / "checkpoint.json"
    description = files.read_json(path, "checkpoint") | change
    path.write_bytes(files.encode_json("checkpoint", description, description.pop("arrays")))
    found = store.newest(lambda step: record(step_was=whole(0, 9)))
    assert (found.step, found.record) == (1, {"step_was": 1})
    assert f"passed over: {path} is damaged: {said}" in found.warnings[0]


def test_links_and_odd_names_lead_nowhere(tmp_path: Path) -> None:
    outside = store_with(tmp_path / "outside", 7, 8).folder
    store = store_with(tmp_path / "run", 1)
    (store.folder / "000000000007").symlink_to(outside / "000000000007")
    (store.folder / "000000000006").write_bytes(b"a file")
    for odd in ("5", "0000000000099", "00000000000x", "٠٠٠٠٠٠٠٠٠٠٠٩", "notes"):
        shutil.copytree(outside / "000000000008", store.folder / odd)
    shutil.copytree(outside / "000000000008", store.folder / "000000000008")
    state_file = store.folder / "000000000008/state.safetensors"
    state_file.unlink()
    state_file.symlink_to(outside / "000000000008/state.safetensors")
    assert store.steps() == [1, 8]
    assert store.newest().step == 1
    assert "state.safetensors is a link" in store.newest().warnings[0]
    store.discard_after(1)
    (store.folder / ".link.tmp").symlink_to(outside)
    (store.folder / ".000000000003.0123abcd.tmp").symlink_to(outside)
    store_with(tmp_path / "run", 2)
    assert os.path.lexists(store.folder / ".link.tmp")  # no name of Jumar's
    assert not os.path.lexists(store.folder / ".000000000003.0123abcd.tmp")
    assert CheckpointStore(outside).newest().step == 8
    assert CheckpointStore(outside).steps() == [7, 8]


def test_discarding_is_all_or_nothing_at_every_fault(tmp_path: Path) -> None:
    def discard(folder: Path) -> None:
        CheckpointStore(folder / "checkpoints").discard_after(1)

    seen = after_every_fault(tmp_path, saving(1, 2), discard, newest_value)
    assert set(seen["kill"]) == {(2, 2.0), (1, 1.0)}


def test_the_one_just_saved_stays_even_behind_newer_ones(tmp_path: Path) -> None:
    store = store_with(tmp_path, 10, 20, 30)
    store.save(5, state(5), {})
    assert store.steps() == [5, 20, 30]


def test_reading_changes_nothing_while_another_process_saves(tmp_path: Path) -> None:
    store = store_with(tmp_path, 1)
    (store.folder / ".000000000002.0123abcd.tmp").mkdir()
    before = sorted(os.listdir(store.folder))
    CheckpointStore(store.folder).newest()
    assert sorted(os.listdir(store.folder)) == before


@pytest.mark.parametrize("step", [-1, 10**12])
def test_steps_that_do_not_fit_the_name(tmp_path: Path, step: int) -> None:
    with pytest.raises(ValueError, match="up to 12 digits"):
        CheckpointStore(tmp_path).save(step, state(0), {})
