"""The replay buffer of a run: what its segments hold, what comes back, and what an agent keeps."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st

import jumar
from jumar.algorithms.registry import algorithm
from jumar.errors import DamagedFile
from jumar.fields import mapping
from jumar.policies.policy import make_policy
from jumar.runs.checkpoints import CheckpointStore
from jumar.runs.files import encode_json, pack_arrays, read_json, sha256
from jumar.runs.segments import SegmentStore, read_segments
from jumar.training import remembered
from jumar.training.remembered import Buffer, BufferFiles, discard_unnamed

SMALL: dict[str, Any] = {"n_envs": 2, "buffer_size": 14, "log_every": 6, "batch_size": 4, "net_arch": (4,)}
"""Seven slots, in a ring of ten places, to which three are written at once."""
ENV = {**SMALL, "buffer_size": 40, "learning_starts": 8}


@pytest.fixture(autouse=True, scope="module")
def _no_flushing() -> Iterator[None]:
    """Spare the disk."""
    with mock.patch.object(os, "fsync", return_value=None):
        yield


def make_buffer(n_seeds: int | None) -> Buffer:
    chosen = algorithm("sac")
    made = chosen.settings.make(SMALL)
    box = spaces.Box(-1.0, 1.0, (1,), np.float32)
    found = Buffer.of(chosen.make(made, make_policy(box, box, made)), n_seeds)
    assert found is not None
    return found


BUFFERS = {n: make_buffer(n) for n in (None, 3)}


def filled(buffer: Buffer, total: int, cuts: tuple[int, ...] = ()) -> dict[str, Any]:
    """Return the ring after so many slots of numbers of their own; slot ``cut - 1`` was changed later, at each cut."""
    replay, lanes = buffer.replay, buffer.n_seeds or 1
    ring = np.zeros((lanes, replay.places, replay.n_envs, replay.columns.width), np.float32)
    for slot in range(total):
        draw = np.random.default_rng((slot, slot + 1 in cuts))
        ring[:, slot % replay.places] = draw.normal(size=ring[:, 0].shape)
    ring = ring.reshape(lanes, -1, replay.columns.width)
    return {"rows": jax.numpy.asarray(ring if buffer.n_seeds else ring[0])}


def newest(buffer: Buffer, ring: dict[str, Any], total: int) -> bytes:
    """Return the slots that are drawn from, oldest first, by a way of their own."""
    replay = buffer.replay
    places = np.arange(max(0, total - replay.slots), total) % replay.places
    lanes = np.asarray(ring["rows"]).reshape(buffer.n_seeds or 1, replay.places, -1)
    return lanes[:, places].tobytes()


@pytest.mark.parametrize("n_seeds", [None, 3])
@settings(max_examples=25, deadline=None)
@given(counts=st.lists(st.integers(0, 12), min_size=1, max_size=6), most=st.integers(1, 4))
def test_the_newest_slots_come_back_bit_for_bit_whatever_was_saved_when(
    n_seeds: int | None, counts: list[int], most: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Each checkpoint cuts the newest slot first; a process that was resumed in between goes on with the list."""
    buffer, folder = BUFFERS[n_seeds], tmp_path_factory.mktemp("run")
    checkpoints = CheckpointStore(folder / "checkpoints")
    segments: list[Any] = []
    totals = np.cumsum(counts).tolist()
    with mock.patch.object(remembered, "MOST_LISTED", most):
        for i, total in enumerate(totals):
            files = BufferFiles(folder / "replay", buffer, segments)  # as after a resume
            ring = filled(buffer, total, tuple(totals[: i + 1]))
            segments = files.write(ring, total)
            assert len(segments) <= most + buffer.replay.slots
            checkpoints.save(i, {"x": np.zeros(1)}, {"segments": [each.to_json() for each in segments]})
            files.saved(segments, checkpoints)
    named = {each.name for found in checkpoints.records(mapping) for each in read_segments(found["segments"])}
    there = set(os.listdir(folder / "replay")) if totals[-1] else set()
    assert there == named, "what the three newest checkpoints name, and nothing else"
    replay, total = buffer.replay, totals[-1]
    store = SegmentStore(folder / "replay")
    rows = store.read(segments, total, replay.slots, replay.n_envs, buffer.columns)
    again = buffer.put(filled(buffer, 0), rows, total)
    assert newest(buffer, again, total) == newest(buffer, filled(buffer, total, tuple(totals)), total)


@pytest.mark.parametrize("n_seeds", [None, 3])
@pytest.mark.parametrize("first", [0, 4, 8])
def test_only_the_rows_of_the_slots_are_moved_from_an_accelerator(n_seeds: int | None, first: int) -> None:
    """From a ring that NumPy does not see come the rows that it sees elsewhere, by arrays that hold nothing else."""
    buffer = BUFFERS[n_seeds]
    replay, slots = buffer.replay, 5
    ring = filled(buffer, first + slots)
    seen = buffer.rows(ring, first, slots)
    moved: list[int] = []
    cut_out = remembered._cut_out

    def counted(*arguments: Any) -> Any:
        part = cut_out(*arguments)
        moved.append(part.size)
        return part

    unseen = mock.patch.object(remembered, "_is_seen", return_value=False)
    with unseen, mock.patch.object(remembered, "_cut_out", counted):
        found = buffer.rows(ring, first, slots)
    assert sum(moved) == (n_seeds or 1) * slots * replay.n_envs * replay.columns.width
    assert found.keys() == seen.keys()
    for name, parts in seen.items():
        np.testing.assert_array_equal(np.concatenate(found[name]), np.concatenate(parts))


def test_where_a_checkpoint_cannot_be_read_all_segments_stay(tmp_path: Path) -> None:
    buffer = BUFFERS[None]
    checkpoints = CheckpointStore(tmp_path / "checkpoints")
    files = BufferFiles(tmp_path / "replay", buffer, [])
    for total in (3, 6):
        segments = files.write(filled(buffer, total), total)
        checkpoints.save(total, {"x": np.zeros(1)}, {"segments": [each.to_json() for each in segments]})
    assert len(os.listdir(tmp_path / "replay")) == 2
    description = tmp_path / "checkpoints/000000000003/checkpoint.json"
    kept = description.read_bytes()
    checkpoints.discard_after(3)
    description.write_bytes(b"{}")
    discard_unnamed(tmp_path / "replay", checkpoints)
    assert len(os.listdir(tmp_path / "replay")) == 2
    description.write_bytes(kept)
    discard_unnamed(tmp_path / "replay", checkpoints)
    assert len(os.listdir(tmp_path / "replay")) == 1


def test_the_ring_is_not_copied_by_the_iteration_after_a_checkpoint(tmp_path: Path) -> None:
    """A view of the ring that lives on would make JAX copy it where it is donated."""
    buffer = BUFFERS[None]
    ring = jax.block_until_ready(filled(buffer, 5))
    BufferFiles(tmp_path / "replay", buffer, []).write(ring, 5)
    before = ring["rows"].unsafe_buffer_pointer()
    changed = jax.jit(lambda x: x.at[0].set(1.0), donate_argnums=0)(ring["rows"])
    assert ring["rows"].is_deleted()
    assert changed.unsafe_buffer_pointer() == before


# An agent of one's own


@pytest.fixture(scope="module")
def agent() -> jumar.SAC:
    return jumar.SAC("jax/Pendulum-v1", **ENV).learn(60)


@pytest.mark.parametrize("env", ["jax/Pendulum-v1", "gymnasium/Pendulum-v1"])
def test_a_loaded_agent_goes_on_with_its_buffer(env: str, tmp_path: Path) -> None:
    agent = jumar.SAC(env, **ENV).learn(60)
    agent.save(tmp_path / "agent")
    loaded = jumar.load(tmp_path / "agent")
    agent.learn(36)
    loaded.learn(36)
    for x, y in zip(*(jax.tree.leaves(each._training.learner.parameters) for each in (agent, loaded)), strict=True):
        np.testing.assert_array_equal(x, y)
    loaded.save(tmp_path / "agent")
    (only,) = os.listdir(tmp_path / "agent/replay")
    assert only.startswith("000000000028-000000000020-"), "slots 28 to 47 of 48"


def test_an_agent_without_its_buffer_goes_on_with_an_empty_one_and_says_so(agent: jumar.SAC, tmp_path: Path) -> None:
    agent.save(tmp_path / "agent")
    agent.save(tmp_path / "agent", replay_buffer=False)
    assert os.listdir(tmp_path / "agent/replay") == []
    with pytest.warns(UserWarning, match="was saved without its replay buffer; learning goes on with an empty one"):
        loaded = jumar.load(tmp_path / "agent")
    sizes: list[Any] = []
    loaded.learn(6, callback=lambda metrics: sizes.append(metrics["replay/size"]))
    assert sizes == [6.0]
    assert loaded.num_timesteps == 66


def test_an_agent_that_remembers_nothing_yet_has_nothing_to_warn_of(
    tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    jumar.SAC("jax/Pendulum-v1", **ENV).save(tmp_path / "agent")
    assert jumar.load(tmp_path / "agent").num_timesteps == 0
    assert not recwarn.list


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"slots": 31}, "does not name the segments in .* that it needs"),
        ({"slots": "many"}, "the entry record.slots is 'many', but must be a whole number"),
        ({"frames": 0}, "the entry record.frames is 0, but must be a whole number from 1"),
        ({"segments": []}, "does not name the segments .* that it needs: there is none, but slots 10 to 29"),
        ({"segments": 3}, "the entry record.segments is 3, but must be"),
        ({"segments": [{"name": "../x", "first": 0, "slots": 1, "sha256": "0" * 64}]}, "segments.0.name is '../x'"),
        ({"slots": 10**12 - 1}, "does not name the segments"),
        ({"spaces": [{"type": "Discrete", "n": 2}] * 2}, "spaces"),
        ({"collected": {"first": 0, "segments": []}}, "collected.end is 0, but must be 30, the number of slots so far"),
        ({"collected": {"first": 0, "segments": 3}}, "the entry record.collected.segments is 3, but must be"),
        ({"collected": {"first": 30, "segments": [], "x": 1}}, "record.collected"),
    ],
)
def test_a_forged_record_is_refused(change: dict[str, Any], said: str, agent: jumar.SAC, tmp_path: Path) -> None:
    path = saved(agent, tmp_path / "agent")
    data = read_json(path, "checkpoint")
    arrays = data.pop("arrays")
    data["record"].update(change)
    path.write_bytes(encode_json("checkpoint", data, arrays))
    with pytest.raises(DamagedFile, match=said):
        jumar.load(tmp_path / "agent")


def test_a_record_that_does_not_speak_of_frames_is_one_without_stacks(agent: jumar.SAC, tmp_path: Path) -> None:
    path = saved(agent, tmp_path / "agent")
    data = read_json(path, "checkpoint")
    arrays = data.pop("arrays")
    assert data["record"].pop("frames") == 1
    path.write_bytes(encode_json("checkpoint", data, arrays))
    assert jumar.load(tmp_path / "agent").num_timesteps == agent.num_timesteps


def test_a_forged_cursor_is_refused(agent: jumar.SAC, tmp_path: Path) -> None:
    path = saved(agent, tmp_path / "agent")
    data = read_json(path, "checkpoint")
    arrays = CheckpointStore(tmp_path / "agent/checkpoints").newest().arrays
    name = "learner/clock/cursor/place"
    place = 30 % agent._training.update.replay.places  # type: ignore[attr-defined]
    assert arrays[name] == place
    packed = pack_arrays({**arrays, name: np.array(10**6, np.int32)})
    (path.parent / "state.safetensors").write_bytes(packed)
    del data["arrays"]
    path.write_bytes(encode_json("checkpoint", data, {"state.safetensors": sha256(packed)}))
    with pytest.raises(
        DamagedFile, match=f"is at place 1000000 with 20 slots, but its checkpoint says place {place} with 20"
    ):
        jumar.load(tmp_path / "agent")


def saved(agent: jumar.SAC, folder: Path) -> Path:
    """Save an agent; return its ``checkpoint.json``."""
    agent.save(folder)
    (path,) = folder.glob("checkpoints/*/checkpoint.json")
    return path
