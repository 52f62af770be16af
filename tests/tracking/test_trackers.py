"""The trackers themselves: Trackio's database on this machine, and Weights & Biases offline."""

from __future__ import annotations

import json
import os
import sqlite3
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from made_runs import TOTAL, append, make_run, metrics_line

EVERY_STEP = list(range(1000, TOTAL + 1, 1000))
COMMAND = "import sys; from jumar.cli import main; sys.exit(main(sys.argv[1:]))"
DIES_SENDING = """
import os, sys
from jumar.tracking import {module}
send = {module}.{name}.send
def dying(self, step, numbers):
    if step > 4000:
        os._exit(9)
    send(self, step, numbers)
    self.settle()
{module}.{name}.send = dying
"""
pytestmark = pytest.mark.slow  # each is a process that imports a tracker


def follow(where: Path, *words: object, before: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a folder where trackers keep everything below it."""
    home = {name: str(where / "home") for name in ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME")}
    trackers = {"TRACKIO_DIR": str(where / "trackio"), "HF_HOME": str(where / "hf"), "HF_HUB_OFFLINE": "1"}
    trackers |= {"WANDB_DIR": str(where), "WANDB_MODE": "offline"}
    kept = {name: x for name, x in os.environ.items() if not name.startswith(("WANDB", "TRACKIO", "HF_", "JUMAR_TEST"))}
    return subprocess.run(
        [sys.executable, "-c", before + COMMAND, "follow", *map(str, words), "--json"],
        env={**kept, **home, **trackers, **environment},
        cwd=where,
        capture_output=True,
        text=True,
        timeout=120,
    )


def answer(done: subprocess.CompletedProcess[str], code: int = 0) -> dict[str, Any]:
    assert done.returncode == code, done.stdout + done.stderr
    return json.loads(done.stdout.splitlines()[-1])


# Trackio -------------------------------------------------------------------------------------------------------------


def in_database(where: Path, name: str, project: str = "jumar") -> list[tuple[int, dict[str, Any]]]:
    with sqlite3.connect(where / "trackio" / f"{project}.db") as database:
        rows = database.execute(
            "SELECT step, metrics FROM metrics WHERE run_name = ? ORDER BY rowid", (name,)
        ).fetchall()
    return [(step, json.loads(metrics)) for step, metrics in rows]


def test_trackios_database_has_every_row_once_whoever_was_killed_when(tmp_path: Path) -> None:
    pytest.importorskip("trackio")
    run = make_run(tmp_path / "runs" / "first")
    killed = follow(tmp_path, run, "--to", "trackio", before=DIES_SENDING.format(module="on_trackio", name="OnTrackio"))
    assert killed.returncode == 9, killed.stderr
    assert [step for step, _ in in_database(tmp_path, "first")] == [1000, 2000, 3000, 4000]
    told = answer(done := follow(tmp_path, run, "--to", "trackio"))
    assert "may be missing" not in done.stderr
    rows = in_database(tmp_path, "first")
    assert [step for step, _ in rows] == EVERY_STEP
    assert {**metrics_line(TOTAL), "eval/mean_reward": 100.0}.items() <= rows[-1][1].items()
    assert (told["rows"], told["step"], told["place"]) == (6, TOTAL, "See it by: trackio show --project jumar")
    append(run.metrics, [metrics_line(TOTAL + 1000)])
    assert answer(follow(tmp_path, run, "--to", "trackio"))["rows"] == 1
    assert [step for step, _ in in_database(tmp_path, "first")] == [*EVERY_STEP, TOTAL + 1000]


def test_trackio_tells_runs_apart_by_their_names(tmp_path: Path) -> None:
    pytest.importorskip("trackio")
    runs = [make_run(tmp_path / folder / "run") for folder in ("a", "b", "c")]
    assert answer(follow(tmp_path, runs[0], "--to", "trackio"))["name"] == "run"
    assert answer(follow(tmp_path, runs[1], "--to", "trackio"))["name"] == "run-2"
    told = answer(follow(tmp_path, runs[2], "--to", "trackio", "--name", "run"), code=2)
    assert "has a run called 'run' already; give another name by --name" in told["error"]
    assert [step for step, _ in in_database(tmp_path, "run")] == EVERY_STEP
    assert [step for step, _ in in_database(tmp_path, "run-2")] == EVERY_STEP


def test_what_trackio_refuses_is_told(tmp_path: Path) -> None:
    pytest.importorskip("trackio")
    run = make_run(tmp_path / "run")
    told = answer(follow(tmp_path, run, "--to", "trackio", "--project", "registry-mine"), code=2)
    assert "trackio refuses" in told["error"]
    # It would only warn, and drop what it cannot write.
    (tmp_path / "trackio").mkdir(exist_ok=True)
    broken = "from jumar.tracking import on_trackio; on_trackio.PATIENCE = 0.5\n"
    broken += "from trackio.sqlite_storage import SQLiteStorage\n"
    broken += "def full(*words, **more): raise OSError(28, 'No space left on device')\nSQLiteStorage.bulk_log = full\n"
    told = answer(follow(tmp_path, run, "--to", "trackio", before=broken), code=1)
    assert "trackio has not written down step 10,000" in told["error"]
    assert answer(follow(tmp_path, run, "--to", "trackio"))["rows"] == 10


# Weights & Biases ----------------------------------------------------------------------------------------------------


def records(file: Path) -> Iterator[bytes]:
    """Yield the records of a log in LevelDB's form: blocks of 32 KiB, pieces with CRC, length and type."""
    data, place, whole = file.read_bytes(), 7, b""  # after wandb's own header
    while place < len(data):
        left = 32_768 - place % 32_768
        if left < 7:
            place += left
            continue
        _, length, kind = struct.unpack_from("<IHB", data, place)
        whole += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # a whole one, or its end
            yield whole
            whole = b""


def offline(where: Path) -> tuple[list[tuple[int, dict[str, Any]]], dict[str, Any], set[str]]:
    """Return the rows in the files of all offline runs, their settings, and their ids."""
    from wandb.proto.wandb_internal_pb2 import Record  # pyright: ignore[reportAttributeAccessIssue]

    rows, settings, ids = [], {}, set()
    for file in sorted(where.glob("wandb/offline-run-*/*.wandb"), key=lambda file: file.stat().st_mtime_ns):
        for piece in records(file):
            record = Record.FromString(piece)
            if record.HasField("history"):
                numbers = {
                    each.key or "/".join(each.nested_key): json.loads(each.value_json) for each in record.history.item
                }
                rows.append((int(numbers["_step"]), numbers))
            if record.HasField("run"):
                ids.add(record.run.run_id)
                assert record.run.host == "jumar"  # not the name of this machine
                settings |= {each.key: json.loads(each.value_json) for each in record.run.config.update}
    return rows, settings, ids


def test_wandb_offline_has_every_row_once(tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    run = make_run(tmp_path / "first")
    told = answer(done := follow(tmp_path, run, "--to", "wandb"))
    assert told["place"].startswith(f"Send it by: wandb sync {tmp_path}/wandb/offline-run-")
    assert "wandb:" not in done.stderr
    rows, settings, ids = offline(tmp_path)
    assert [step for step, _ in rows] == EVERY_STEP
    assert {**metrics_line(TOTAL), "eval/mean_reward": 100.0}.items() <= rows[-1][1].items()
    assert (settings["algorithm"], settings["env"], settings["total_timesteps"]) == ("ppo", "jax/CartPole-v1", TOTAL)
    append(run.metrics, [metrics_line(TOTAL + 1000)])
    assert answer(follow(tmp_path, run, "--to", "wandb"))["rows"] == 1
    rows, _, again = offline(tmp_path)
    assert [step for step, _ in rows] == [*EVERY_STEP, TOTAL + 1000]
    assert ids == again
    assert len(ids) == 1
    sent = b"".join(file.read_bytes() for file in tmp_path.glob("wandb/offline-run-*/**/*") if file.suffix == ".wandb")
    assert str(tmp_path).encode() not in sent
    assert sys.executable.encode() not in sent


def test_wandb_that_was_killed_has_no_row_twice(tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    run = make_run(tmp_path / "first")
    killed = follow(tmp_path, run, "--to", "wandb", before=DIES_SENDING.format(module="on_wandb", name="OnWandb"))
    assert killed.returncode == 9, killed.stderr
    append(run.metrics, [metrics_line(TOTAL + 1000)])
    told = answer(done := follow(tmp_path, run, "--to", "wandb"))
    assert told["rows"] == 1
    assert "while it sent the steps from 0 to 10,000: some of them may be missing" in done.stderr
    steps = [step for step, _ in offline(tmp_path)[0]]
    assert steps[-1] == TOTAL + 1000
    assert len(set(steps)) == len(steps)


def test_wandb_without_a_login_is_told(tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    run = make_run(tmp_path / "run")
    told = answer(follow(tmp_path, run, "--to", "wandb", WANDB_MODE="online"), code=2)
    assert "wandb login" in told["error"]
    assert "WANDB_MODE=offline" in told["error"]
    told = answer(follow(tmp_path, run, "--to", "wandb", WANDB_MODE="disabled"), code=2)
    assert "WANDB_MODE is disabled" in told["error"]
    assert answer(follow(tmp_path, run, "--to", "wandb"))["rows"] == 10
