"""Logs that grow are read once, cut and replaced ones anew, and their numbers fit into bounded memory."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jumar.errors import DamagedFile
from jumar.runs.logs import finite
from jumar.web import tail
from jumar.web.buckets import MOST_NAMES, Buckets
from jumar.web.tail import Tail


def test_only_what_was_appended_is_read_and_a_half_line_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "log"
    follower = Tail(log)
    assert follower.read().lines == []
    log.write_bytes(b"one\ntwo\nthr")
    assert follower.read().lines == [b"one", b"two"]
    assert follower.read().lines == []
    read: list[int] = []
    pread = os.pread
    monkeypatch.setattr(os, "pread", lambda fd, size, at: read.append(at) or pread(fd, size, at))
    with log.open("ab") as file:
        file.write(b"ee\nfour\n")
    news = follower.read()
    assert (news.lines, news.anew) == ([b"three", b"four"], False)
    assert read == [0, 8]  # the bytes before the place reached, which are compared, and what is new


@pytest.mark.parametrize("after", [b"one\n", b"one\nTWO\nthree\nfour\n", b""])
def test_a_log_that_was_cut_back_is_read_anew(tmp_path: Path, after: bytes) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"one\ntwo\n")
    follower = Tail(log)
    follower.read()
    os.truncate(log, 4)
    with log.open("r+b") as file:
        file.truncate(len(after))
        file.write(after)
    news = follower.read()
    assert (news.lines, news.anew) == (after.splitlines(), True)


def test_a_log_that_was_replaced_or_removed_is_read_anew(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"one\n")
    follower = Tail(log)
    follower.read()
    (tmp_path / "other").write_bytes(b"one\ntwo\n")
    os.replace(tmp_path / "other", log)
    news = follower.read()
    assert (news.lines, news.anew) == ([b"one", b"two"], True)
    log.unlink()
    assert follower.read().anew
    assert not follower.read().anew


def test_a_line_that_is_too_long_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tail, "PIECE", 8)
    log = tmp_path / "log"
    log.write_bytes(b"a\n" + b"x" * 30 + b"\nb\n")
    follower, lines = Tail(log), []
    while True:
        news = follower.read()
        lines += news.lines
        if not news.more:
            break
    assert lines == [b"a", b"b"]


def test_links_and_pipes_are_refused(tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(b"secret\n")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "pipe"):
        with pytest.raises(DamagedFile, match=name):
            Tail(tmp_path / name).read()


def rows_of(values: list[float | None]) -> list[dict[str, float | None]]:
    return [{"step": i + 1, "y": value} for i, value in enumerate(values)]


@settings(deadline=None)
@given(
    st.lists(st.none() | st.floats(-1e6, 1e6), max_size=100),
    st.integers(1, 7),
    st.integers(1, 9),
    st.sampled_from([2, 8, 128]),
)
def test_buckets_keep_what_a_whole_log_has(
    values: list[float | None], at_a_time: int, most: int, capacity: int
) -> None:
    buckets, rows = Buckets("step", capacity=capacity), rows_of(values)
    for start in range(0, len(rows), at_a_time):
        buckets.add(rows[start : start + at_a_time])
    points = buckets.points("y", most)
    assert len(points.x) <= most
    known = [value for value in values if value is not None]
    if not known:
        assert not points.known
        return
    width = buckets.merged_lines("y", most)
    parts = [[v for v in values[i : i + width] if v is not None] for i in range(0, len(values), width)]
    assert len(points.x) == len(parts)
    for i, part in enumerate(parts):
        assert points.x[i] == min((i + 1) * width, len(values))
        if part:
            np.testing.assert_allclose(points.mean[i], np.mean(part), rtol=1e-9, atol=1e-6)
            assert (points.low[i], points.high[i]) == (min(part), max(part))
        else:
            assert np.isnan(points.mean[i])


def test_foreign_lines_neither_break_nor_swell_the_buckets() -> None:
    buckets = Buckets("step")
    lines = ['{"step": 1, "y": 1e400, "z": "2", "w": [1], "b": true}', '{"step": NaN, "y": 1}', '{"step": 1, "y": 5}']
    lines += ['{"step": 2, "y": 1' + "0" * 400 + "}", '{"step": 3, "y": 1e299}', '{"step": "4", "y": 1}', '{"y": 1}']
    buckets.add([json.loads(line) for line in lines])
    assert (buckets.names, buckets.lines, buckets.passed_over) == (["step", "y"], 3, 4)
    assert buckets.last["y"] == 1e299
    buckets.add([{"step": 5, **{f"n{i}": 1.0 for i in range(1000)}, "x" * 500: 1.0}])
    assert len(buckets.names) == MOST_NAMES
    assert buckets.left_out


@pytest.mark.parametrize("value", [True, "1", None, [1], float("nan"), float("inf"), 10**400, 1e305])
def test_what_is_no_number_that_can_be_drawn_is_none(value: object) -> None:
    assert finite(value) is None
