"""Segments of a replay buffer: what comes back, at which fault, and what is refused or removed."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar
from unittest import mock

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from jumar.drills.disk_faults import MODES, Killed, after_every_fault, faults
from jumar.errors import DamagedFile, UsageError
from jumar.fields import DamagedEntry, made_by, mapping, record
from jumar.runs import segments as module
from jumar.runs.checkpoints import CheckpointStore
from jumar.runs.files import LARGEST_JSON, encode_json, read_json
from jumar.runs.rows import PIECE, Column, encode, header
from jumar.runs.segments import Segment, SegmentStore, needed, read_segments, ring_rows

T = TypeVar("T")

N_ENVS = 2
COLUMNS = {"rows": Column(np.dtype(np.float32), (3,)), "image_0": Column(np.dtype(np.uint8), (2, 2, 1))}


@pytest.fixture(autouse=True, scope="module")
def _no_flushing() -> Iterator[None]:
    """Spare the disk. ``faults`` keeps its own account of what was flushed."""
    with mock.patch.object(os, "fsync", return_value=None):
        yield


def rows_of(first: int, slots: int, salt: int = 0) -> dict[str, np.ndarray]:
    """Return the rows of some slots; each slot has its own."""
    found = [np.random.default_rng((slot, salt)).bytes(N_ENVS * 16) for slot in range(first, first + slots)]
    data = np.frombuffer(b"".join(found), np.uint8).reshape(slots * N_ENVS, 16)
    return {"rows": data[:, :12].copy().view(np.float32), "image_0": data[:, 12:].reshape(-1, 2, 2, 1).copy()}


def store_with(folder: Path, *ends: int) -> tuple[SegmentStore, list[Segment]]:
    """Return a store in ``folder``, with segments that end before these slots."""
    store = SegmentStore(folder / "replay")
    pairs = zip((0, *ends), ends, strict=False)
    return store, [store.append(first, end - first, rows_of(first, end - first)) for first, end in pairs]


def read(store: SegmentStore, segments: list[Segment], total: int, capacity: int = 100) -> dict[str, np.ndarray]:
    return store.read(segments, total, capacity, N_ENVS, COLUMNS)


def assert_same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert set(found) == set(expected)
    for name, array in expected.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
        assert found[name].tobytes() == array.tobytes()


# What comes back


def test_rows_come_back_bit_for_bit_oldest_first(tmp_path: Path) -> None:
    store, segments = store_with(tmp_path, 5, 6, 9)
    assert [(each.first, each.slots) for each in segments] == [(0, 5), (5, 1), (6, 3)]
    assert_same(read(SegmentStore(store.folder), segments, 9), rows_of(0, 9))
    assert sorted(os.listdir(store.folder)) == [each.name for each in segments]


def test_nan_payloads_and_negative_zeros_survive(tmp_path: Path) -> None:
    bits = np.array([0x7FC00001, 0xFF800001, 0x80000000, 0x00000001], np.uint32)
    store = SegmentStore(tmp_path)
    segment = store.append(0, 4, {"x": bits.view(np.float32)})
    found = store.read([segment], 4, 4, 1, {"x": Column(np.dtype(np.float32), ())})
    assert found["x"].view(np.uint32).tolist() == bits.tolist()


def test_a_segment_is_the_file_that_safetensors_reads(tmp_path: Path) -> None:
    store, (segment,) = store_with(tmp_path, 4)
    data = (store.folder / segment.name).read_bytes()
    assert segment == Segment(0, 4, hashlib.sha256(data).hexdigest())
    assert segment.name == f"000000000000-000000000004-{segment.sha256[:16]}.safetensors"
    assert_same(safetensors.numpy.load(data), rows_of(0, 4))


@pytest.mark.parametrize(
    "type_name", ["?", "u1", "i1", "u2", "i2", "f2", "u4", "i4", "f4", "u8", "i8", "f8", ">f4", ">i2"]
)
def test_every_type_is_as_safetensors_has_it(type_name: str) -> None:
    array = np.arange(6).reshape(3, 2).astype(type_name)
    arrays = {"a": array, "first": np.ones((3, 0), np.uint8)}
    found = safetensors.numpy.load(b"".join(encode(arrays)))
    assert found["a"].tolist() == array.tolist()
    assert found["a"].dtype == array.dtype.newbyteorder("=")
    assert found["first"].shape == (3, 0)


def test_large_arrays_are_written_in_pieces_that_are_no_copies() -> None:
    whole = np.arange(PIECE, dtype=np.float32).reshape(-1, 4)
    _, *pieces = encode({"x": whole})
    assert [len(piece) for piece in pieces] == [PIECE] * 4
    assert all(np.shares_memory(np.frombuffer(piece, np.uint8), whole) for piece in pieces)
    turned = np.asfortranarray(whole)
    assert b"".join(encode({"x": turned})) == b"".join(encode({"x": [whole[:7], whole[7:]]}))
    assert max(map(len, encode({"x": turned}))) == PIECE


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 7), st.lists(st.integers(1, 12), min_size=1, max_size=8))
def test_a_ring_comes_back_whatever_was_saved_when(
    tmp_path_factory: pytest.TempPathFactory, capacity: int, written: list[int]
) -> None:
    """Each checkpoint appends what was written since the last one, or what is left of it; the list has what is needed."""
    store = SegmentStore(tmp_path_factory.mktemp("replay"))
    ring = {name: np.zeros((capacity * N_ENVS, *c.shape), c.dtype) for name, c in COLUMNS.items()}
    segments: list[Segment] = []
    total = 0
    for count in written:
        for slot in range(total, total + count):
            for name, row in rows_of(slot, 1).items():
                ring_rows(ring[name], capacity, slot, 1)[0][...] = row
        total += count
        new = min(count, capacity)
        parts = {name: ring_rows(array, capacity, total - new, new) for name, array in ring.items()}
        segments = needed([*segments, store.append(total - new, new, parts)], capacity)
        store.discard(segments)
    assert sorted(os.listdir(store.folder)) == [each.name for each in segments]
    kept = min(total, capacity)
    found = read(store, segments, total, capacity)
    assert_same(found, rows_of(total - kept, kept))
    for name, array in found.items():
        end = 0
        for view in ring_rows(again := np.zeros_like(ring[name]), capacity, total - kept, kept):
            view[...] = array[end : (end := end + len(view))]
        assert again.tobytes() == ring[name].tobytes()


def test_nothing_written_is_no_rows(tmp_path: Path) -> None:
    assert needed([], 5) == []
    found = read(SegmentStore(tmp_path / "none"), [], 0)
    assert_same(found, rows_of(0, 1) | {name: array[:0] for name, array in rows_of(0, 1).items()})


def test_only_segments_with_rows_of_the_newest_slots_are_needed(tmp_path: Path) -> None:
    _, segments = store_with(tmp_path, 4, 8, 12)
    assert [needed(segments, capacity) for capacity in (12, 9, 8, 5, 4)] == [
        segments,
        segments,
        segments[1:],
        segments[1:],
        segments[2:],
    ]


def test_a_list_that_could_not_be_read_back_is_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    one, two, three = (Segment(2 * i, 2, "0" * 64) for i in range(3))
    with pytest.raises(ValueError, match="begins with slot 4, but slot 2 is next"):
        needed([one, three], 6)
    with pytest.raises(ValueError, match="has 2 slots, but the buffer has 1"):
        needed([one], 1)
    monkeypatch.setattr(module, "MOST_SEGMENTS", 2)
    with pytest.raises(UsageError, match="saved in 3 pieces, and at most 2 can be read back"):
        needed([one, two, three], 6)


def test_the_longest_list_fits_a_checkpoint() -> None:
    one = Segment(10**11, 10**11, "0" * 64)
    data = {"step": 1, "record": {"replay": [{"segments": [one.to_json()] * 1000}]}}
    assert len(encode_json("checkpoint", data)) * module.MOST_SEGMENTS / 1000 < LARGEST_JSON


# Faults


def save(folder: Path, end: int, salt: int = 0) -> None:
    """Do what a run does at a checkpoint, going on from the newest one."""
    store, checkpoints = SegmentStore(folder / "replay"), CheckpointStore(folder / "checkpoints", keep=2)
    segments, total = [], 0
    if checkpoints.steps():
        segments, total = listed(folder, checkpoints.newest().step), checkpoints.newest().step
    if end > total:
        segments = needed([*segments, store.append(total, end - total, rows_of(total, end - total, salt))], 6)
    checkpoints.save(end, {"x": np.zeros(1)}, {"segments": [each.to_json() for each in segments]})
    store.discard(each for step in checkpoints.steps() for each in listed(folder, step))


def listed(folder: Path, step: int) -> list[Segment]:
    description = read_json(folder / "checkpoints" / f"{step:012d}" / "checkpoint.json", "checkpoint")
    return read_segments(description["record"]["segments"])


def buffer_of(folder: Path) -> tuple[int, bytes] | None:
    """Return the newest checkpoint and its buffer, after checking that all checkpoints have theirs."""
    found = {}
    for step in CheckpointStore(folder / "checkpoints").steps():
        rows = read(SegmentStore(folder / "replay"), listed(folder, step), step, capacity=6)
        found = {"newest": (step, rows["rows"].tobytes() + rows["image_0"].tobytes())}
    return found.get("newest")


def bytes_of(first: int, slots: int) -> bytes:
    return b"".join(rows_of(first, slots)[name].tobytes() for name in ("rows", "image_0"))


def saving(*ends: int) -> Callable[[Path], None]:
    def save_all(folder: Path) -> None:
        for end in ends:
            save(folder, end)

    return save_all


def test_every_checkpoint_has_its_buffer_at_every_fault(tmp_path: Path) -> None:
    seen = after_every_fault(tmp_path, saving(4, 5), saving(8), buffer_of)
    for mode in MODES:
        assert set(seen[mode]) == {(5, bytes_of(0, 5)), (8, bytes_of(2, 6))}


def test_the_first_segment_is_none_or_whole_at_every_fault(tmp_path: Path) -> None:
    seen = after_every_fault(tmp_path, lambda folder: None, saving(3), buffer_of)
    for mode in MODES:
        assert set(seen[mode]) == {None, (3, bytes_of(0, 3))}


def test_what_a_killed_process_left_is_removed_at_the_next_checkpoint(tmp_path: Path) -> None:
    with faults() as counted:
        saving(4, 5)(tmp_path / "whole")
        before = counted.count
        save(tmp_path / "whole", 8)
    expected = sorted(os.listdir(tmp_path / "whole" / "replay"))
    for at in range(1, counted.count - before + 1):
        folder = tmp_path / str(at)
        saving(4, 5)(folder)
        with faults("kill", at), suppress(Killed):
            save(folder, 8)
        save(folder, 8)
        assert sorted(os.listdir(folder / "replay")) == expected


def test_other_rows_of_the_same_slots_harm_no_checkpoint(tmp_path: Path) -> None:
    """A run is saved over another one, and killed before its checkpoint."""
    save(tmp_path, 4)
    SegmentStore(tmp_path / "replay").append(0, 4, rows_of(0, 4, salt=1))
    assert buffer_of(tmp_path) == (4, bytes_of(0, 4))


def test_same_rows_again_mend_a_segment(tmp_path: Path) -> None:
    store, segments = store_with(tmp_path, 4)
    (store.folder / segments[0].name).write_bytes(b"damaged")
    assert store_with(tmp_path, 4)[1] == segments
    assert_same(read(store, segments, 4), rows_of(0, 4))


def test_an_older_checkpoint_goes_on_where_the_newest_is_damaged(tmp_path: Path) -> None:
    saving(4, 5, 8)(tmp_path)
    (tmp_path / "checkpoints/000000000008/checkpoint.json").write_bytes(b"")
    found = CheckpointStore(tmp_path / "checkpoints").newest()
    assert found.step == 5
    segments = read_segments(found.record["segments"])
    assert_same(read(SegmentStore(tmp_path / "replay"), segments, 5, capacity=6), rows_of(0, 5))


def test_a_checkpoint_whose_segment_is_damaged_is_passed_over(tmp_path: Path) -> None:
    saving(4, 5, 8)(tmp_path)
    store = SegmentStore(tmp_path / "replay")
    (store.folder / listed(tmp_path, 8)[-1].name).write_bytes(b"")

    def buffer(step: int) -> Callable[[Any], dict[str, Any]]:
        return record(segments=made_by(lambda segments: read(store, segments, step, capacity=6), read_segments))

    found = CheckpointStore(tmp_path / "checkpoints").newest(buffer)
    assert_same(found.record["segments"], rows_of(0, 5))
    assert f"step 8 was passed over: {store.folder}/000000000005-" in found.warnings[0]


def test_a_full_disk_leaves_nothing_half(tmp_path: Path) -> None:
    store, segments = store_with(tmp_path, 4)
    for at in range(1, 5):  # open, and the writes of the header and of both arrays
        with faults("full", at), pytest.raises(OSError, match="No space left") as error:
            store.append(4, 1, rows_of(4, 1))
        assert error.value.filename == str(store.folder)
        assert os.listdir(store.folder) == [segments[0].name]
    segments.append(store.append(4, 1, rows_of(4, 1)))
    assert_same(read(store, segments, 5), rows_of(0, 5))


def test_flushed_before_renamed(tmp_path: Path) -> None:
    store, _ = store_with(tmp_path, 4)
    with faults() as watched:
        store.append(4, 1, rows_of(4, 1))
    assert watched.names == ["open", "write", "write", "write", "fsync", "replace", "fsync"]


# Damage and forgeries


def damaged(store: SegmentStore, segments: list[Segment], total: int, said: str) -> None:
    with pytest.raises(DamagedFile, match=said) as error:
        read(store, segments, total)
    assert str(error.value).isprintable()


def test_every_changed_byte_is_noticed(tmp_path: Path) -> None:
    store, segments = store_with(tmp_path, 1)
    path = store.folder / segments[0].name
    whole = path.read_bytes()
    for offset in range(len(whole)):
        path.write_bytes(whole[:offset] + bytes([whole[offset] ^ 1]) + whole[offset + 1 :])
        damaged(store, segments, 1, f"{path} (was changed after|does not hold 2 rows of rows float32)")
    path.write_bytes(whole)
    assert_same(read(store, segments, 1), rows_of(0, 1))


def test_changed_rows_that_are_too_old_are_noticed_too(tmp_path: Path) -> None:
    store, segments = store_with(tmp_path, 4)
    path = store.folder / segments[0].name
    data = bytearray(path.read_bytes())
    data[-1 - 16 * N_ENVS] ^= 1
    path.write_bytes(data)
    longer = [*segments, store.append(4, 3, rows_of(4, 3))]
    with pytest.raises(DamagedFile, match="was changed after"):
        read(store, longer, 7, capacity=4)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda data: data[:-1], "it has 199 bytes, but 4 rows of rows float32\\[3\\], image_0 .* take 200"),
        (lambda data: data + bytes(16 * N_ENVS), "it has 232 bytes, but 4 rows"),
        (lambda data: b"", "it has 0 bytes"),
        (lambda data: b"\xff" * 8 + data[8:], "does not hold 4 rows of rows float32"),
        (lambda data: data.replace(b'"F32","shape":[4,3]', b'"I32","shape":[4,3]'), "does not hold 4 rows"),
        (lambda data: data.replace(b'"F32","shape":[4,3]', b'"F32","shape":[3,4]'), "does not hold 4 rows"),
        (lambda data: data.replace(b'"rows"', b'"cows"'), "does not hold 4 rows"),
        (lambda data: b"".join(encode({"rows": np.zeros((4, 4), np.float32)})), "it has 136 bytes"),
        (lambda data: safetensors.numpy.save({"rows": np.zeros((4, 3, 1), np.float32)}), "it has 120 bytes"),
    ],
)
def test_a_forged_file_with_its_right_digest_is_refused(
    change: Callable[[bytes], bytes], said: str, tmp_path: Path
) -> None:
    store, segments = store_with(tmp_path, 2)
    forged = change((store.folder / segments[0].name).read_bytes())
    segment = replace(segments[0], sha256=hashlib.sha256(forged).hexdigest())
    (store.folder / segment.name).write_bytes(forged)
    damaged(store, [segment], 2, f"{store.folder / segment.name} .*{said}")


def test_a_huge_file_is_refused_before_it_is_read_or_memory_is_taken(tmp_path: Path) -> None:
    """Of the forged files, one has another size, and one a right size and another header; both have holes alone."""
    program = f"""
import resource, sys
import numpy as np
from jumar.errors import DamagedFile
from jumar.runs.rows import Column
from jumar.runs.segments import Segment, SegmentStore
limit = 2**34
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
store = SegmentStore({str(tmp_path)!r})
for slots, size in ((1, 2**36), (2**30, 2**36 + 88)):
    segment = Segment(0, slots, "0" * 64)
    with open(store.folder / segment.name, "wb") as file:
        file.truncate(size)
    try:
        store.read([segment], slots, slots, 1, {{"rows": Column(np.dtype("f4"), (16,))}})
    except DamagedFile as error:
        print(error)
"""
    assert len(header({"rows": Column(np.dtype("f4"), (16,))}, 2**30)) == 88
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    first, second = done.stdout.splitlines()
    assert "it has 68719476736 bytes, but 1 rows" in first
    assert "does not hold 1073741824 rows of rows float32[16]" in second


def test_what_is_no_plain_file_is_refused(tmp_path: Path) -> None:
    store, segments = store_with(tmp_path, 2)
    path = store.folder / segments[0].name
    outside = path.rename(tmp_path / "outside")
    damaged(store, segments, 2, f"{path} is missing")
    path.symlink_to(outside)
    damaged(store, segments, 2, f"{path} is a link, but must be a plain file")
    path.unlink()
    path.mkdir()
    damaged(store, segments, 2, f"{path} is a folder")
    path.rmdir()
    os.mkfifo(path)
    damaged(store, segments, 2, f"{path} is a pipe")


def test_a_link_in_the_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    outside, segments = store_with(tmp_path / "outside", 2)
    (tmp_path / "replay").symlink_to(outside.folder)
    store = SegmentStore(tmp_path / "replay")
    for use in (lambda: read(store, segments, 2), lambda: store.discard([]), lambda: store.append(2, 1, rows_of(2, 1))):
        with pytest.raises(DamagedFile, match="replay is a link, but must be a folder"):
            use()
    assert os.listdir(outside.folder) == [segments[0].name]


@pytest.mark.parametrize(
    ("chosen", "total", "said"),
    [
        ([], 9, "there is none, but slots 3 to 8 are needed"),
        ([0, 2], 9, "begins with slot 6, but slot 4 is next"),
        ([1, 0, 2], 9, "the first, 000000000004-.*, does not hold slot 3"),
        ([0, 0, 1, 2], 9, "begins with slot 0, but slot 4 is next"),
        ([0, 1], 9, "the last, .*, ends with slot 5, but slots 3 to 8"),
        ([0, 1, 2], 8, "ends with slot 8, but slots 2 to 7 are needed"),
        ([0, 1, 2], 11, "the first, .*, does not hold slot 5, but slots 5 to 10"),
        ([0], 0, "ends with slot 3, but no slot is needed"),
        ([3], 20, "has 20 slots, but the buffer has 6"),
    ],
)
def test_segments_that_are_no_buffer_are_refused(chosen: list[int], total: int, said: str, tmp_path: Path) -> None:
    store, segments = store_with(tmp_path, 4, 6, 9)
    segments.append(store.append(0, 20, rows_of(0, 20)))
    with pytest.raises(DamagedFile, match=said):
        read(store, [segments[i] for i in chosen], total, capacity=6)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"name": "../../etc/passwd"}, "0.name is '../../etc/passwd', but must be the name of a segment"),
        ({"first": 1}, "0.name is '000000000000-.*, but must be 000000000001-000000000004-"),
        ({"first": -1}, "0.first is -1, but must be a whole number from 0 to"),
        ({"slots": 0}, "0.slots is 0, but must be a whole number from 1 to"),
        ({"slots": 10**300}, "0.slots is 1000"),
        ({"slots": True}, "0.slots is True"),
        ({"sha256": "x"}, "0.sha256 is 'x', but must be a SHA-256"),
        ({"sha256": None}, "0.sha256 is None"),
    ],
)
def test_a_forged_list_is_refused(change: dict[str, Any], said: str, tmp_path: Path) -> None:
    _, (segment,) = store_with(tmp_path, 4)
    data = segment.to_json()
    assert read_segments([data]) == [segment]
    with pytest.raises(DamagedEntry, match=said):
        read_segments([mapping(data) | change])
    with pytest.raises(DamagedEntry, match="is missing"):
        read_segments([{name: value for name, value in data.items() if name not in change}])


# Removing


def test_only_segments_that_nobody_names_and_leftovers_are_removed(tmp_path: Path) -> None:
    store, segments = store_with(tmp_path, 2, 4, 6)
    name = segments[0].name
    mine = ["notes", f".{name}.tmp", f"{name}.copy", ".other.0123abcd.tmp", f"x{name}", f"{name.upper()}"]
    for each in mine:
        (store.folder / each).write_bytes(b"mine")
    (store.folder / f".{name}.0123abcd.tmp").write_bytes(b"half")
    odd = Segment(7, 1, "1" * 64).name, Segment(7, 1, "2" * 64).name
    (tmp_path / "outside").write_bytes(b"outside")
    (store.folder / odd[0]).symlink_to(tmp_path / "outside")
    (store.folder / odd[1]).mkdir()
    store.discard(segments[1:])
    assert sorted(os.listdir(store.folder)) == sorted([*(each.name for each in segments[1:]), *mine, *odd])
    assert (tmp_path / "outside").read_bytes() == b"outside"
    SegmentStore(tmp_path / "none").discard([])
    assert not (tmp_path / "none").exists()


def test_what_cannot_be_removed_does_not_stop_training(tmp_path: Path) -> None:
    store, segments = store_with(tmp_path, 2, 4)
    with faults("error", 1):
        store.discard([])
    assert len(os.listdir(store.folder)) == 1
    store.discard([])
    assert os.listdir(store.folder) == []
    assert segments


# Mistakes of the caller


@pytest.mark.parametrize(
    ("first", "slots", "arrays", "said"),
    [
        (-1, 2, rows_of(0, 2), "2 slots from -1 on cannot be a segment"),
        (10**12 - 1, 2, rows_of(0, 2), "cannot be a segment"),
        (0, 0, rows_of(0, 2), "0 slots from 0 on"),
        (0, 3, rows_of(0, 2), "4 rows of 'rows' are not 3 slots of equal size"),
        (0, 2, {}, "the same number of rows"),
        (0, 2, {"a": np.zeros((0, 3))}, "at least one; not {'a': 0}"),
        (0, 2, {"a": np.zeros(2), "b": np.zeros(4)}, "not {'a': 2, 'b': 4}"),
        (0, 2, {"__metadata__": np.zeros(2)}, "cannot hold the array '__metadata__'"),
        (0, 2, {"a": np.zeros(2, complex)}, "cannot hold the array 'a' of type complex128"),
        (0, 2, {"a": np.array([{}, {}])}, "cannot hold the array 'a' of type object"),
        (0, 2, {"a": [np.zeros(1), np.zeros((1, 3))]}, r"parts of the array 'a' differ: float64\[.*float64\["),
    ],
)
def test_what_cannot_be_a_segment_is_refused_before_a_file_is_made(
    first: int, slots: int, arrays: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=said):
        SegmentStore(tmp_path / "replay").append(first, slots, arrays)
    assert os.listdir(tmp_path) == []


def test_slots_that_are_not_in_a_ring() -> None:
    with pytest.raises(ValueError, match="a ring of 5 rows does not have 2 slots"):
        ring_rows(np.zeros(5), 2, 0, 1)
    for first, slots in ((0, 3), (-1, 1), (0, -1)):
        with pytest.raises(ValueError, match="are not in a ring of 2 slots"):
            ring_rows(np.zeros(4), 2, first, slots)


def test_memory_for_large_segments_is_that_of_what_is_returned(tmp_path: Path) -> None:
    store = SegmentStore(tmp_path)
    rows = np.ones((2**14, 256), np.float32)  # 16 MiB
    _, peak = memory_of(lambda: store.append(0, 2**14, {"rows": [rows[2**13 :], rows[: 2**13]]}))
    assert peak < PIECE
    turned = np.asfortranarray(rows)
    segment, peak = memory_of(lambda: store.append(0, 2**14, {"rows": turned}))
    assert peak < 3 * PIECE
    found, peak = memory_of(lambda: store.read([segment], 2**14, 2**14, 1, {"rows": Column(rows.dtype, (256,))}))
    assert peak < found["rows"].nbytes + 3 * PIECE


def memory_of(act: Callable[[], T]) -> tuple[T, int]:
    """Return what ``act`` returns, and the bytes that it took at most."""
    tracemalloc.start()
    try:
        return act(), tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
