"""A careless way to save is found out, and namespaces are hosts that can be cut off."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from jumar.drills import struck
from jumar.drills.hosts import Hosts, unavailable
from jumar.drills.processes import Running, run, wait_until
from jumar.drills.registry import Unable


def test_no_save_of_jumars_loses_anything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # spares the disk; faults keep an account of their own
    found = list(struck.strike(tmp_path))
    assert len(found) > 100
    assert [each for each in found if each["lost"] is not None] == []


def test_a_careless_save_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(folder: Path, value: float) -> None:
        descriptor = os.open(folder / "x", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.write(descriptor, json.dumps([value] * 2).encode())
        os.close(descriptor)

    def read(folder: Path) -> Any:
        try:
            return tuple(json.loads((folder / "x").read_bytes()))
        except ValueError:
            return "half"

    monkeypatch.setattr(struck, "SAVES", {"careless": struck.Save(write, read)})
    lost = [each for each in struck.strike(tmp_path) if each["lost"] is not None]
    assert {each["try"] for each in lost} >= {"careless, kill at operation 2", "careless, full at operation 2"}
    assert "a reader finds neither the old one nor the new one, but 'half'" in str(lost[0]["lost"])


LISTENER = "import socket; s = socket.create_server(('', 4000)); print('ready', flush=True)\nwhile True: s.accept()"
CALL = "import socket, sys; socket.create_connection((sys.argv[1], 4000), timeout=1.0)"


def reaches(hosts: Hosts, one: int, other: int, folder: Path) -> bool:
    words = hosts.command(one, [sys.executable, "-S", "-c", CALL, hosts.address(other)])
    return run(words, folder).code == 0


@pytest.mark.skipif(unavailable() is not None, reason="network namespaces are root's")
def test_hosts_reach_each_other_unless_they_are_cut_off(tmp_path: Path) -> None:
    try:
        with Hosts(3) as hosts, Running(hosts.command(0, [sys.executable, "-S", "-c", LISTENER]), tmp_path) as listener:
            assert wait_until(lambda: (tmp_path / "command.out").read_text() == "ready\n", listener, 60.0)
            assert reaches(hosts, 1, 0, tmp_path)
            assert reaches(hosts, 2, 0, tmp_path)
            hosts.cut(1)
            assert not reaches(hosts, 1, 0, tmp_path)
            assert reaches(hosts, 2, 0, tmp_path)
            hosts.heal(1)
            assert eventually_reaches(hosts, 1, 0, tmp_path)
            for one_way in (hosts.silence, hosts.deafen):
                one_way(1)
                assert not reaches(hosts, 1, 0, tmp_path)
                assert reaches(hosts, 2, 0, tmp_path)
                hosts.heal(1)
                assert eventually_reaches(hosts, 1, 0, tmp_path)
            name = hosts.name(0)
            assert hosts.processes(0) == [listener.process.pid]
    except Unable as why:
        pytest.skip(str(why))
    assert run(["ip", "netns", "list"], tmp_path).output.find(name) < 0


def eventually_reaches(hosts: Hosts, one: int, other: int, folder: Path) -> bool:
    for _ in range(20):
        if reaches(hosts, one, other, folder):
            return True
        time.sleep(0.2)
    return False


def test_hosts_are_numbered() -> None:
    with pytest.raises(ValueError, match="0 hosts: 1 to 200 can be made"):
        Hosts(0)
    with pytest.raises(ValueError, match="host 2: there are 2"):
        Hosts(2).address(2)
    assert Hosts(2).address(1) == "10.213.77.2"
