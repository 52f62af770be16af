"""Logs on a disk that fails: whole lines, nothing raised, nothing lost that memory can keep."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from descriptors import descriptor_of

from jumar.drills.disk_faults import faults
from jumar.errors import DamagedFile
from jumar.runs import logs
from jumar.runs.logs import JsonLines

STEP = "time/total_timesteps"


def written(path: Path, *entries: dict[str, Any]) -> None:
    log = JsonLines(path, pytest.fail)
    for entry in entries:
        log.append(entry)
    assert log.close() == 0


def test_one_line_per_entry_readable_at_once(tmp_path: Path) -> None:
    log = JsonLines(tmp_path / "new/metrics.jsonl", pytest.fail)
    log.append({STEP: 1, "a": 0.5, "text": "line\nbreak é"})
    log.append({STEP: 2, "a": float("nan"), "b": [float("inf"), 1]})
    text = (tmp_path / "new/metrics.jsonl").read_text()
    assert text == (
        '{"time/total_timesteps": 1, "a": 0.5, "text": "line\\nbreak \\u00e9"}\n'
        '{"time/total_timesteps": 2, "a": null, "b": [null, 1]}\n'
    )
    assert log.close() == 0
    assert logs.read(tmp_path / "new/metrics.jsonl")[1] == {STEP: 2, "a": None, "b": [None, 1]}


def test_appending_goes_on_after_a_half_line(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text('{"a": 1}\n{"a": 2')
    assert logs.read(path) == [{"a": 1}]
    written(path, {"a": 3})
    assert path.read_text() == '{"a": 1}\n{"a": 3}\n'


def test_a_full_disk_delays_lines_and_raises_nothing(tmp_path: Path) -> None:
    path, warnings = tmp_path / "log", []
    log = JsonLines(path, warnings.append)
    log.append({"a": 1})
    with faults("full", 1):
        log.append({"a": 2})
        assert path.read_text() == '{"a": 1}\n'  # the half of the second line was cut off
        log.append({"a": 3})
    assert [(str(path) in text, "No space left" in text) for text in warnings] == [(True, True)]
    log.append({"a": 4})
    assert log.close() == 0
    assert [entry["a"] for entry in logs.read(path)] == [1, 2, 3, 4]
    assert len(warnings) == 1


def test_lines_are_whole_after_any_single_fault(tmp_path: Path) -> None:
    for mode in ("error", "full"):
        for at in range(1, 8):
            path = tmp_path / f"{mode}-{at}"
            log = JsonLines(path, lambda text: None)
            with faults(mode, at):
                for number in range(6):
                    log.append({"a": number})
                    data = path.read_bytes() if path.exists() else b""
                    assert logs.read(path) == [json.loads(line) for line in data.splitlines()]
            assert log.close() == 0
            assert [entry["a"] for entry in logs.read(path)] == [0, 1, 2, 3, 4, 5]


def test_what_could_not_be_cut_off_is_cut_off_later(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log = JsonLines(path, lambda text: None)
    log.append({"a": 1})
    with pytest.MonkeyPatch.context() as patch, faults("full", 1):
        patch.setattr(os, "ftruncate", lambda *args: os.write(-1, b""))
        log.append({"a": 2})
    assert not path.read_bytes().endswith(b"\n")
    log.append({"a": 3})
    assert log.close() == 0
    assert path.read_text() == '{"a": 1}\n{"a": 2}\n{"a": 3}\n'


def test_lines_lost_for_good_are_counted(tmp_path: Path) -> None:
    log = JsonLines(tmp_path / "log", lambda text: None)
    log.append({"a": 1})
    with faults("full", 1):
        log.append({"a": 2})
        log.append({"a": 3})
        assert log.close() == 2
    assert logs.read(tmp_path / "log") == [{"a": 1}]


def test_lines_that_a_flush_could_not_write_count_as_lost(tmp_path: Path) -> None:
    log = JsonLines(tmp_path / "log", pytest.fail)
    log.append({"a": 1})
    log.sync()
    log.append({"a": 2})
    log.append({"a": 3})
    with faults("error", 1):
        log.sync()
    log.append({"a": 4})
    assert log.close() == 2  # the second and the third


def test_a_log_that_something_else_closed_is_opened_again_and_no_other_file_is_written(tmp_path: Path) -> None:
    path, foreign, warnings = tmp_path / "log", tmp_path / "foreign", []
    log = JsonLines(path, warnings.append)
    log.append({"a": 0})
    opened = descriptor_of(path)
    os.close(opened)
    assert os.open(foreign, os.O_RDWR | os.O_CREAT) == opened  # the lowest free number
    log.append({"a": 1})
    os.close(descriptor_of(path))
    log.sync()
    os.close(descriptor_of(path))
    log.append({"a": 2})
    os.close(descriptor_of(path))
    assert log.close() == 0
    os.close(opened)  # it is open still
    assert [entry["a"] for entry in logs.read(path)] == [0, 1, 2]
    assert foreign.read_bytes() == b""
    assert warnings == [
        f"{path} was closed by something else in this process, such as the environment, and is opened again."
    ]


def test_limits_of_the_kernel(tmp_path: Path) -> None:
    """A real fault: a file that may not grow, whose last line is written by half."""
    program = f"""
import os, resource
from jumar.runs.logs import JsonLines
resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))
log = JsonLines({str(tmp_path / "log")!r}, print)
for number in range(10):
    log.append({{"number": number, "padding": "xxxxxxxxxx"}})
print(os.path.getsize({str(tmp_path / "log")!r}))
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
print(log.close())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    said, size, kept = done.stdout.splitlines()
    assert said.startswith(f"{tmp_path / 'log'} cannot be written (File too large)")
    line = '{"number": 0, "padding": "xxxxxxxxxx"}\n'
    assert (size, kept) == (str(2 * len(line)), "0")  # a third one would have reached byte 117
    assert [entry["number"] for entry in logs.read(tmp_path / "log")] == list(range(10))


def test_what_is_no_data_is_refused(tmp_path: Path) -> None:
    log = JsonLines(tmp_path / "log", pytest.fail)
    with pytest.raises(TypeError, match="not data"):
        log.append({"a": object()})
    log.append({"a": 1})
    assert log.close() == 0
    assert logs.read(tmp_path / "log") == [{"a": 1}]


def test_reading_passes_over_what_is_no_entry(tmp_path: Path) -> None:
    path = tmp_path / "log"
    assert logs.read(path) == []
    path.write_bytes(b'{"a": 1}\n[1]\n\xff\n' + b"[" * 100_000 + b'\n\n{"a": 2}\n{"a": 3}')
    assert logs.read(path) == [{"a": 1}, {"a": 2}]


@pytest.mark.parametrize(
    ("step", "kept"), [(0, []), (10, [10]), (25, [10, 20]), (30, [10, 20, 30]), (99, [10, 20, 30])]
)
def test_cutting_keeps_the_lines_up_to_a_step(tmp_path: Path, step: int, kept: list[int]) -> None:
    path = tmp_path / "log"
    written(path, {STEP: 10}, {STEP: 20}, {STEP: 30})
    with path.open("ab") as file:
        file.write(b'{"time/total_timesteps": 5')
    with faults("full", 1):  # needs no space
        logs.cut(path, step)
    assert [entry[STEP] for entry in logs.read(path)] == kept
    assert path.read_bytes() == b"".join(b'{"time/total_timesteps": %d}\n' % number for number in kept)


def test_cutting_by_another_key_and_in_any_order(tmp_path: Path) -> None:
    path = tmp_path / "log"
    written(path, {"step": 10}, {"step": 50}, {"step": 20}, {"other": 1}, {"step": None})
    logs.cut(path, 20, key="step")
    assert logs.read(path) == [{"step": 10}, {"step": 20}]
    logs.cut(tmp_path / "none", 5)
    assert not (tmp_path / "none").exists()


def test_cutting_is_all_or_nothing_when_it_rewrites(tmp_path: Path) -> None:
    path = tmp_path / "log"
    written(path, {STEP: 10}, {STEP: 50}, {STEP: 20})
    whole = path.read_bytes()
    with faults("full", 1), pytest.raises(OSError, match="No space left"):
        logs.cut(path, 20)
    assert path.read_bytes() == whole


def test_every_changed_byte_of_a_digested_log_is_noticed_and_growth_is_not(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"a": 1}\n{"a": 2}\n')
    saved, whole = logs.digest(path), path.read_bytes()
    path.write_bytes(whole + b'{"a": 3}\n')
    assert logs.is_as_digested(path, saved)
    for i in range(len(whole)):
        path.write_bytes(whole[:i] + bytes([whole[i] ^ 1]) + whole[i + 1 :])
        assert not logs.is_as_digested(path, saved)
    path.write_bytes(whole[:-1])
    assert not logs.is_as_digested(path, saved)
    path.unlink()
    assert not logs.is_as_digested(path, saved)
    assert logs.is_as_digested(path, logs.digest(path))


def test_the_last_entry_is_found_without_the_others(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    assert logs.read_last(path) == {}
    path.write_bytes(b"")
    assert logs.read_last(path) == {}
    path.write_bytes(b'{"a": 1}\n' * 20_000 + b'{"a": 2}\n{"a": 3')
    assert logs.read_last(path) == {"a": 2}
    long = {"mean_return": 1.5, "returns": [123.45678901234567] * 40_000}
    path.write_bytes(b'{"a": 1}\n' * 20_000 + json.dumps(long).encode() + b'\n{"a": 3')
    assert logs.read_last(path) == long


LINKS = {
    "link": lambda place, outside: place.symlink_to(outside / "file"),
    "link to nothing": lambda place, outside: place.symlink_to(outside / "new"),
    "hard link": lambda place, outside: os.link(outside / "file", place),
    "folder": lambda place, outside: place.mkdir(),
    "pipe": lambda place, outside: os.mkfifo(place),
    "device": lambda place, outside: place.symlink_to("/dev/zero"),
}


@pytest.mark.parametrize("kind", LINKS)
def test_what_is_no_plain_file_is_neither_read_nor_written(kind: str, tmp_path: Path) -> None:
    outside, path, said = tmp_path / "outside", tmp_path / "log", []
    outside.mkdir()
    (outside / "file").write_text('{"time/total_timesteps": 9}\n')
    LINKS[kind](path, outside)
    log = JsonLines(path, said.append)
    log.append({STEP: 1})
    assert log.close() == 1
    assert len(said) == 1
    assert f"{path} is a " in said[0]
    reading = () if kind == "hard link" else (logs.read, logs.read_whole, logs.read_last)
    for look in (*reading, lambda path: logs.cut(path, 0)):
        with pytest.raises(DamagedFile, match=f"{path} is a "):
            look(path)
    logs.digest(path)  # raises nothing
    assert [entry.name for entry in outside.iterdir()] == ["file"]
    assert (outside / "file").read_text() == '{"time/total_timesteps": 9}\n'
