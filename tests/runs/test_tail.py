"""Logs that grow are read once, cut and replaced ones anew."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from jumar.errors import DamagedFile
from jumar.runs import tail
from jumar.runs.tail import Tail


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
