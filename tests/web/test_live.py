"""The page that is served: who may see it, what is asked for, and what becomes of runs that change meanwhile."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from made_runs import TOTAL, append, evaluation_line, make_run, metrics_line, plan_of

from jumar import cli
from jumar.errors import UsageError
from jumar.web import gathering as gathering_module
from jumar.web import server as server_module
from jumar.web.gathering import Gathering
from jumar.web.page import policy
from jumar.web.server import Server


@pytest.fixture(autouse=True)
def _looks_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "BETWEEN_LOOKS", 0.0)
    monkeypatch.setattr(gathering_module, "BETWEEN_SCANS", 0.0)


Ask = Callable[..., tuple[http.client.HTTPResponse, bytes]]


class Browser:
    """Asks a server as a browser would."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.home = "/" + server.url.split("/", 3)[3]
        self.version, self.shape = 0, ""

    def ask(self, path: str, method: str = "GET", **headers: str) -> tuple[http.client.HTTPResponse, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=20)
        connection.putrequest(method, path, skip_host="Host" in headers)
        for name, value in headers.items():
            if value:
                connection.putheader(name, value)
        connection.endheaders()
        response = connection.getresponse()
        content = response.read()
        connection.close()
        return response, content

    def update(self) -> dict[str, Any] | None:
        response, content = self.ask(f"{self.home}data?have={self.version}&shape={self.shape}")
        if response.status == 204:
            return None
        assert response.status == 200
        found = json.loads(content)
        self.version, self.shape = found["version"], found["shape"]
        return found


@pytest.fixture
def serve() -> Iterator[Callable[..., Browser]]:
    servers = []

    def begin(*places: Path) -> Browser:
        server = Server(Gathering(places, waits=True)).__enter__()
        servers.append(server)
        return Browser(server)

    yield begin
    for server in servers:
        server.__exit__()


def test_the_page_is_there_for_who_knows_the_address(serve: Callable[..., Browser], tmp_path: Path) -> None:
    browser = serve(make_run(tmp_path / "run").path)
    response, content = browser.ask(browser.home)
    assert response.status == 200
    assert b'<body class="live">' in content
    assert b"connect-src" in content
    assert response.getheader("Content-Security-Policy") == policy(live=True) + "; frame-ancestors 'none'"
    for name, value in server_module.HEADERS.items():
        assert response.getheader(name) == value
    assert "Python" not in (response.getheader("Server") or "")
    head, nothing = browser.ask(browser.home, "HEAD")
    assert (head.status, nothing) == (200, b"")
    assert int(head.getheader("Content-Length") or 0) > 10_000
    named, _ = browser.ask(browser.home, Host=f"localhost:{browser.server.port}")
    assert named.status == 200


def test_nobody_else_gets_anything(serve: Callable[..., Browser], tmp_path: Path) -> None:
    browser = serve(make_run(tmp_path / "run").path)
    port, home = browser.server.port, browser.home
    for path in ("/", "/data", f"{home[:-2]}/", home[:-1], "/x" + home, f"{home}../config.json", f"{home}config.json",
                 f"{home}%2e%2e/config.json", f"{home}//etc/passwd", "//127.0.0.1" + home, f"http://127.0.0.1:{port}{home}",
                 "/%ff/", f"{home}data/x"):  # fmt: skip
        response, content = browser.ask(path)
        assert (path, response.status) == (path, 404)
        assert b"<" not in content
    for host in (
        "evil.example",
        f"evil.example:{port}",
        "127.0.0.1",
        f"127.0.0.1:{port + 1}",
        f"127.0.0.1.evil:{port}",
        "",
    ):
        response, _ = browser.ask(home, Host=host)
        assert (host, response.status) == (host, 403)
    for method in ("POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE"):
        response, _ = browser.ask(home, method)
        assert (response.status, response.getheader("Allow")) == (405, "GET, HEAD")
    response, content = browser.ask(home, "BREW")
    assert response.status == 501
    assert response.getheader("X-Content-Type-Options") == "nosniff"


@pytest.mark.parametrize("garbage", [b"\x00\x01\n\n", b"GET\n\n", b"GET / HTTP/9.9\r\n\r\n", b"G" * 70_000 + b"\n\n"])
def test_garbage_ends_no_server(serve: Callable[..., Browser], tmp_path: Path, garbage: bytes) -> None:
    browser = serve(make_run(tmp_path / "run").path)
    with socket.create_connection(("127.0.0.1", browser.server.port), timeout=20) as client:
        client.sendall(garbage)
        client.shutdown(socket.SHUT_WR)
        answer = client.recv(100)
    assert answer.startswith((b"HTTP/1.0 4", b"HTTP/1.0 5")) or not answer
    assert browser.ask(browser.home)[0].status == 200


def test_only_what_changed_is_sent_again(serve: Callable[..., Browser], tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", steps=(1000,), evaluations={})
    browser = serve(run.path)
    first = browser.update()
    assert first is not None
    assert {"top", "returns", "health"} <= set(first["sections"])
    assert browser.update() is None
    append(run.metrics, [metrics_line(2000)])
    second = browser.update()
    assert second is not None
    assert second["shape"] == first["shape"]
    assert "top" in second["sections"]
    assert not {"settings", "machine", "videos"} & set(second["sections"])
    assert second["data"]["steps"] == [[1000, 2000]]
    append(run.evaluations, [evaluation_line(2000, 50.0)])
    third = browser.update()
    assert third is not None
    assert third["shape"] != first["shape"]  # one more curve
    assert {"returns", "record", "evaluations"} <= set(third["sections"])
    response, content = browser.ask(f"{browser.home}data?have=x&shape=" + "9" * 500)
    assert response.status == 200
    assert json.loads(content)["version"] == browser.version


def test_runs_that_are_resumed_end_or_appear_are_followed(serve: Callable[..., Browser], tmp_path: Path) -> None:
    run = make_run(tmp_path / "runs" / "a", steps=(1000, 2000, 3000))
    browser = serve(tmp_path / "runs", tmp_path / "later")
    first = browser.update()
    assert first is not None
    assert "There is no run at" in first["sections"]["notes"]
    assert "stopped, 30 %" in first["sections"]["top"]
    lines = run.metrics.read_bytes().splitlines(keepends=True)
    with run.metrics.open("r+b") as file:  # what a resumed run does
        file.truncate(len(lines[0]))
    append(run.metrics, [metrics_line(1500), metrics_line(TOTAL)])
    second = browser.update()
    assert second is not None
    assert second["data"]["steps"][0] == [1000, 1500, TOTAL]
    assert "finished" in second["sections"]["top"]
    run.write_config(replace(plan_of(), total_timesteps=2 * TOTAL).to_json())  # it goes on to a new total
    third = browser.update()
    assert third is not None
    assert "stopped, 50 %" in third["sections"]["top"]
    make_run(tmp_path / "runs" / "b", seed=1)
    make_run(tmp_path / "later", seed=2)
    fourth = browser.update()
    assert fourth is not None
    assert "3 runs" in fourth["title"]
    assert "There is no run at" not in fourth["sections"]["notes"]
    run.config.unlink()
    run.metrics.write_bytes(b"\x00" * 100 + b"\n{}\n")
    last = browser.update()
    assert last is not None
    assert "2 runs" in last["title"]


def test_a_place_without_a_run_is_waited_for(serve: Callable[..., Browser], tmp_path: Path) -> None:
    browser = serve(tmp_path / "run")
    response, content = browser.ask(browser.home)
    assert response.status == 200
    assert b"as soon as it appears" in content
    make_run(tmp_path / "run", steps=(1000,))
    update = browser.update()
    assert update is not None
    assert update["title"] == "ppo on jax/CartPole-v1, seed 0"
    assert "chart-" in update["sections"]["returns"]


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(UsageError, match=f"port {port} is taken"):
            Server(Gathering([run.path]), port)


def test_the_command_prints_the_address_serves_and_ends_by_ctrl_c(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(tmp_path / "run")
    seen = []

    def interrupted(seconds: float) -> None:
        line = capsys.readouterr().out.splitlines()[-1]
        address = json.loads(line)
        connection = http.client.HTTPConnection("127.0.0.1", address["port"], timeout=20)
        connection.request("GET", "/" + address["url"].split("/", 3)[3])
        seen.append(connection.getresponse().status)
        connection.close()
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(server_module, "pause", interrupted)
    assert cli.main(["live", str(run.path), "--json"]) == 130
    assert seen == [200]
    assert "no longer served" in json.loads(capsys.readouterr().out)["error"]
    assert cli.main(["live", str(run.path), "--port", "70000"]) == 2
    assert "at most 65535" in capsys.readouterr().err
