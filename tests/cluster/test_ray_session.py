"""A Ray for the time of a command, and clusters that are not joined."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jumar.cluster import ray_session
from jumar.cluster.ray_session import is_loopback, open_session
from jumar.errors import UsageError

PORTS = [
    "--include-dashboard=false",
    "--node-manager-port=0",
    "--object-manager-port=0",
    "--min-worker-port=0",
    "--max-worker-port=0",
]


def refusal(address: str) -> str:
    with pytest.raises(UsageError) as refused:
        open_session(address, 2, "runners=2")
    return str(refused.value)


def test_loopback_is_what_only_this_machine_reaches() -> None:
    assert all(map(is_loopback, ["127.0.0.1", "127.9.9.9", "localhost", "::1", "[::1]"]))
    assert not any(map(is_loopback, ["10.0.0.5", "0.0.0.0", "head", "::", "128.0.0.1"]))


@pytest.mark.parametrize(
    "address", ["", "head", "head:", ":6379", "head:0", "head:66000", "ray://head:10001", "head:6379x"]
)
def test_what_is_no_address_is_refused(address: str) -> None:
    assert "is not HOST:PORT; write, say, 10.0.0.5:6379." in refusal(address)


def test_where_ray_is_not_installed_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match=r"runners=2 needs Ray, which is not installed: pip install 'jumar\[ray\]'\."):
        open_session(None, 2, "runners=2")


def test_a_cluster_beyond_loopback_is_joined_with_a_token_only(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray")
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    said = refusal("192.0.2.7:6379")
    assert "Ray at 192.0.2.7:6379 is not joined without a token" in said
    assert "set RAY_AUTH_MODE=token here and where each node is started" in said


def test_an_address_where_nothing_answers_is_refused_at_once() -> None:
    pytest.importorskip("ray")
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port = listening.getsockname()[1]
    said = refusal(f"127.0.0.1:{port}")
    assert said.startswith(
        f"nothing answers at 127.0.0.1:{port} (Connection refused); start Ray there (`ray start --head"
    )


@pytest.mark.slow
def test_what_answers_and_is_no_ray_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray")
    monkeypatch.setattr(ray_session, "PROBE_TIMEOUT", 15.0)
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        port = listening.getsockname()[1]
        assert f"Ray at 127.0.0.1:{port} does not answer as it should" in refusal(f"127.0.0.1:{port}")


@pytest.mark.slow
def test_a_local_ray_is_for_this_process_alone_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray")
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    before, environment = signal.getsignal(signal.SIGTERM), dict(os.environ)
    with open_session(None, 1, "runners=1") as session:
        assert session.started
        assert signal.getsignal(signal.SIGTERM) is before
        (node,) = session.ray.nodes()
        assert node["NodeManagerAddress"] == "127.0.0.1"
        assert session.ray.get(session.ray.remote(lambda: 6 * 7).remote()) == 42
        with open_session(None, 5, "runners=5") as inner:
            assert not inner.started
        assert session.ray.is_initialized()
        assert os.environ["RAY_AUTH_TOKEN"]
    assert not session.ray.is_initialized()
    assert {**os.environ} == environment
    assert not (tmp_path / ".ray").exists(), "the token is in no file"


@pytest.mark.slow
def test_a_cluster_lets_in_who_has_its_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray")
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
    monkeypatch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # or Ray takes 127.0.0.1 for an address of the network
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ray = str(Path(sys.executable).with_name("ray"))
    start = [
        ray,
        "start",
        "--head",
        "--node-ip-address=127.0.0.1",
        f"--port={port}",
        "--num-cpus=2",
        "--include-dashboard=false",
    ]
    process = subprocess.Popen([*start, "--block", *PORTS], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        address = f"127.0.0.1:{port}"
        for _ in range(120):
            with socket.socket() as trying:
                trying.settimeout(1.0)
                if trying.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.5)
        with open_session(address, 2, "runners=2") as session:
            assert session.ray.cluster_resources()["CPU"] == 2
        monkeypatch.setenv("RAY_AUTH_TOKEN", "0" * 64)
        assert f"Ray at {address} refuses the token" in refusal(address)
        monkeypatch.delenv("RAY_AUTH_TOKEN")
        monkeypatch.setenv("HOME", str(tmp_path))
        assert f"Ray at {address} is to be given a token, and there is none here" in refusal(address)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)
