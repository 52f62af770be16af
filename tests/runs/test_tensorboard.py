"""Event files, read back by the rules of TensorBoard: records with checksums, names in order, restarts that purge."""

from __future__ import annotations

import math
import struct
import threading
from pathlib import Path
from typing import Any

import pytest
from tensorboardX.proto.event_pb2 import Event, SessionLog  # type: ignore[attr-defined]

from jumar.drills.disk_faults import faults
from jumar.runs import tensorboard
from jumar.runs.tensorboard import ScalarWriter


def crc32c(data: bytes) -> int:
    """The Castagnoli checksum bit by bit, from its polynomial."""
    remainder = 0xFFFFFFFF
    for byte in data:
        remainder ^= byte
        for _ in range(8):
            remainder = remainder >> 1 ^ (0x82F63B78 if remainder & 1 else 0)
    return remainder ^ 0xFFFFFFFF


def masked(data: bytes) -> int:
    checksum = crc32c(data)
    return ((checksum >> 15 | checksum << 17 & 0xFFFFFFFF) + 0xA282EAD8) % 2**32


def records(path: Path) -> list[bytes]:
    data, found = path.read_bytes(), []
    while data:
        length, length_checksum = struct.unpack("<QI", data[:12])
        record, checksum = data[12 : 12 + length], struct.unpack("<I", data[12 + length : 16 + length])[0]
        assert length_checksum == masked(data[:8])
        assert checksum == masked(record)
        found.append(record)
        data = data[16 + length :]
    return found


def events(path: Path) -> list[Any]:
    return [Event.FromString(record) for record in records(path)]


def shown(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard shows: files in the order of names; a session start drops what is at its step or after it."""
    scalars: dict[str, list[tuple[int, float]]] = {}
    for path in sorted(folder.iterdir()):
        assert "tfevents" in path.name
        for event in events(path):
            if event.session_log.status == SessionLog.START:
                scalars = {tag: [point for point in points if point[0] < event.step] for tag, points in scalars.items()}
            for value in event.summary.value:
                scalars.setdefault(value.tag, []).append((event.step, value.simple_value))
    return scalars


def test_checksum_of_the_standard() -> None:
    assert crc32c(b"123456789") == 0xE3069283  # RFC 3720's check value of CRC-32C


def test_scalars_come_back(tmp_path: Path) -> None:
    writer = ScalarWriter(tmp_path / "tensorboard", pytest.fail)
    writer.write(
        2048, {"train/entropy": 0.5, "eval/mean_reward": None, "rollout/ep_rew_mean": math.nan}, wall_time=12.5
    )
    (path,) = (tmp_path / "tensorboard").iterdir()
    version, event = events(path)  # before it is closed, too
    assert version.file_version == "brain.Event:2"
    assert (event.step, event.wall_time) == (2048, 12.5)
    assert [value.tag for value in event.summary.value] == ["train/entropy", "rollout/ep_rew_mean"]
    assert event.summary.value[0].simple_value == 0.5
    assert math.isnan(event.summary.value[1].simple_value)
    assert writer.close() == 0


def test_a_resumed_run_replaces_what_came_after_its_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The second file comes within the same second, the third after the clock went back.
    for now, resume_step, value in ((1000.0, None, 1.0), (1000.5, 20, 2.0), (7.0, 30, 3.0)):
        monkeypatch.setattr(tensorboard.time, "time", lambda now=now: now)
        writer = ScalarWriter(tmp_path, pytest.fail, resume_step)
        for step in (10, 20, 30, 40):
            if step > (resume_step or 0):
                writer.write(step, {"a": value})
        assert writer.close() == 0
    assert len(list(tmp_path.iterdir())) == 3
    assert shown(tmp_path) == {"a": [(10, 1.0), (20, 1.0), (30, 2.0), (40, 3.0)]}


def test_a_full_disk_delays_events_and_raises_nothing(tmp_path: Path) -> None:
    warnings: list[str] = []
    writer = ScalarWriter(tmp_path, warnings.append)
    with faults("full", 1):
        for step in range(100):  # more than any queue would take
            writer.write(step, {"a": 1.0})
    assert len(warnings) == 1
    writer.write(100, {"a": 1.0})
    assert writer.close() == 0
    assert [step for step, _ in shown(tmp_path)["a"]] == list(range(101))


def test_no_thread_is_started(tmp_path: Path) -> None:
    before = threading.active_count()
    writer = ScalarWriter(tmp_path, pytest.fail)
    writer.write(1, {"a": 1.0})
    assert threading.active_count() == before
    writer.close()
