"""Ray for the time of a command: a local one that is started and ended with it, or a cluster that is joined.

A local Ray listens on the loopback address alone, has a token of its own, and no dashboard. A cluster that listens beyond
loopback is joined only if it demands a token: whoever reaches a Ray without one can run any code on it (CVE-2023-48022).
"""

from __future__ import annotations

import contextlib
import importlib
import ipaddress
import json
import logging
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from jumar.errors import UsageError

CONNECT_TIMEOUT = 5.0
"""Seconds in which the other end must take a connection."""
PROBE_TIMEOUT = 60.0
"""Seconds in which a cluster must answer a first question; importing Ray on a busy machine takes long."""
LONGEST_WORDS = 300
"""Characters of an error of Ray's that are repeated."""
MODE, TOKEN, TOKEN_FILE = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"
TOKENS = (
    f"set {MODE}=token here and where each node is started, and give all of them the same token "
    "(`ray get-auth-token --generate` makes one in ~/.ray/auth_token)"
)
"""What makes a cluster safe to join."""


@dataclass
class RaySession:
    """A connection to Ray; it is a context manager, which closes it.

    Attributes:
        ray: the package.
        address: of the cluster that was joined; ``None`` for a local Ray.
        started: whether the connection was made here, and ends with :meth:`close`.
    """

    ray: Any
    address: str | None
    started: bool
    _variables: contextlib.ExitStack = field(default_factory=contextlib.ExitStack, repr=False)

    def __enter__(self) -> RaySession:
        """Return itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Close it."""
        self.close()

    def close(self) -> None:
        """End the local Ray with all its processes, or leave the cluster; a second call does nothing."""
        if self.started:
            self.started = False
            self.ray.shutdown()
            self._variables.close()


def open_session(address: str | None, processors: int, asked_by: str) -> RaySession:
    """Start a local Ray, or join the cluster at ``address``; where this process has a Ray already, that is used.

    The handlers of signals are as before: Ray would replace that of SIGTERM.

    Args:
        address: ``HOST:PORT`` of the head; ``None``: a local Ray.
        processors: how many actors or tasks of one processor a local Ray has room for.
        asked_by: the option or argument that needs Ray, for messages.

    Raises:
        UsageError: Ray is not installed; the address is malformed, nothing answers there, it is another version, the token is
            missing or wrong, or none is asked for where there should be.
    """
    place = None if address is None else _host_and_port(address)
    ray = load_ray(asked_by)
    if ray.is_initialized():
        return RaySession(ray, address, started=False)
    with contextlib.ExitStack() as stack:
        stack.enter_context(_as_before("PYTHONBREAKPOINT"))  # Ray sets its own debugger
        stack.enter_context(_variable("RAY_USAGE_STATS_ENABLED", "0"))
        if place is None:
            _start(ray, processors, stack)
        else:
            _join(ray, *place, stack)
        return RaySession(ray, address, started=True, _variables=stack.pop_all())


def load_ray(asked_by: str) -> Any:
    """Return the package. Raises ``UsageError`` where it is not installed."""
    try:
        return importlib.import_module("ray")
    except ModuleNotFoundError as error:
        if error.name != "ray":
            raise
        raise UsageError(f"{asked_by} needs Ray, which is not installed: pip install 'jumar[ray]'.") from error


def is_loopback(host: str) -> bool:
    """Whether a host, a name or an address, is this machine as only itself can reach it."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def _host_and_port(address: str) -> tuple[str, int]:
    host, colon, port = address.rpartition(":")
    if not (colon and host and port.isdecimal() and 0 < int(port) < 2**16) or "/" in host:
        raise UsageError(f"the address {address!r} is not HOST:PORT; write, say, 10.0.0.5:6379.")
    return host.strip("[]"), int(port)


# --- a local Ray ------------------------------------------------------------------------------------------------------


def _start(ray: Any, processors: int, stack: contextlib.ExitStack) -> None:
    """Start a Ray that only this process and those that it starts can use."""
    mode = os.environ.get(MODE) or "token"
    stack.enter_context(_variable(MODE, mode))
    if mode.lower() == "token" and not (os.environ.get(TOKEN) or os.environ.get(TOKEN_FILE)):
        stack.enter_context(_variable(TOKEN, secrets.token_hex(32)))  # else Ray would write one to the home folder
    with _signals_as_before(), _loopback(ray), _quiet():
        _forget_token()
        stack.enter_context(_no_prints(ray))
        ray.init(
            address="local",
            num_cpus=max(1, processors),
            num_gpus=0,
            include_dashboard=False,
            _node_ip_address="127.0.0.1",
            log_to_driver=False,
            logging_level=logging.ERROR,
        )


@contextlib.contextmanager
def _loopback(ray: Any) -> Iterator[None]:
    """Keep Ray from taking the address of a network card for that of this machine, as it does where it is 127.0.0.1."""
    constants = ray._private.ray_constants
    before = getattr(constants, "ENABLE_RAY_CLUSTER", None)
    constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        constants.ENABLE_RAY_CLUSTER = before


def _forget_token() -> None:
    """Let Ray read again whether there is a token, and which: it remembers both from before."""
    with contextlib.suppress(ImportError, AttributeError):
        inside = importlib.import_module("ray._raylet")
        inside.Config.initialize("")
        inside.AuthenticationTokenLoader.instance().reset_cache()


@contextlib.contextmanager
def _no_prints(ray: Any) -> Iterator[None]:
    """Keep Ray from printing on standard output that a process has ended: who uses it says so."""
    worker = ray._private.worker
    before = getattr(worker, "print_to_stdstream", None)
    worker.print_to_stdstream = lambda *arguments, **keywords: None
    try:
        yield
    finally:
        worker.print_to_stdstream = before


@contextlib.contextmanager
def _variable(name: str, value: str) -> Iterator[None]:
    """Set a variable of the environment; afterwards it is as before."""
    with _as_before(name):
        os.environ[name] = value
        yield


@contextlib.contextmanager
def _as_before(name: str) -> Iterator[None]:
    """Let a variable of the environment be as before, afterwards."""
    before = os.environ.get(name)
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = before


@contextlib.contextmanager
def _signals_as_before() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL if handler is None else handler)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


# --- a cluster --------------------------------------------------------------------------------------------------------


def _join(ray: Any, host: str, port: int, stack: contextlib.ExitStack) -> None:
    """Join a cluster after asking, in another process, whether it can be joined: Ray may end a process that it fails in."""
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    with_token = os.environ.get(MODE, "").lower() == "token"
    if not with_token and not is_loopback(host):
        raise UsageError(
            f"Ray at {address} is not joined without a token, as anybody who reaches it could use it: {TOKENS}."
        )
    if with_token and not _has_token():
        raise UsageError(f"Ray at {address} is to be given a token, and there is none here: {TOKENS}.")
    _check_listens(host, port, address)
    _check_answer(_probe(address, {}), address)
    if with_token and not is_loopback(host) and "error" not in _probe(address, {MODE: "disabled"}):
        raise UsageError(f"Ray at {address} asks for no token, so anybody who reaches it can use it: {TOKENS}.")
    with _signals_as_before(), _loopback(ray) if is_loopback(host) else contextlib.nullcontext(), _quiet():
        _forget_token()
        stack.enter_context(_no_prints(ray))
        try:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        except (RuntimeError, ValueError, OSError, ray.exceptions.RayError) as error:
            raise UsageError(f"Ray at {address} cannot be joined: {_first_words(str(error))}") from error
    places = {node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]}
    if not with_token and not all(map(is_loopback, places)):
        ray.shutdown()
        raise UsageError(
            f"Ray at {address} has nodes at {', '.join(sorted(places))} and asks for no token, so anybody who reaches them "
            f"can use it: {TOKENS}."
        )


def _has_token() -> bool:
    """Whether there is a token in one of the places where Ray looks for it."""
    return bool(
        os.environ.get(TOKEN) or os.environ.get(TOKEN_FILE) or os.path.exists(os.path.expanduser("~/.ray/auth_token"))
    )


def _check_listens(host: str, port: int, address: str) -> None:
    try:
        socket.create_connection((host, port), CONNECT_TIMEOUT).close()
    except OSError as error:
        reason = error.strerror or str(error)
        raise UsageError(
            f"nothing answers at {address} ({reason}); start Ray there (`ray start --head --port={port}`), or open the port in "
            "the firewall."
        ) from error


def _probe(address: str, variables: dict[str, str]) -> dict[str, Any]:
    """Return what ``jumar.cluster.probe`` finds out about a cluster, in another process; ``error`` says why nothing."""
    command = [sys.executable, "-P", "-m", "jumar.cluster.probe", address]
    package = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    path = os.pathsep.join([package, *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path, **variables}
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=PROBE_TIMEOUT, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired:
        return {"error": f"it did not answer within {PROBE_TIMEOUT:g} s"}
    try:
        return json.loads(done.stdout.splitlines()[-1])
    except (ValueError, IndexError):
        return {"error": (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]}


def _check_answer(found: dict[str, Any], address: str) -> None:
    """Refuse a cluster by its answer. Raises ``UsageError``."""
    if "error" in found:
        words = _first_words(found["error"])
        if "token" in words.lower() or "auth" in words.lower():
            raise UsageError(f"Ray at {address} refuses the token: {words} To be let in, {TOKENS}.")
        raise UsageError(f"Ray at {address} does not answer as it should: {words}")
    for what in ("ray", "python"):
        here, there = found[what]
        if there is not None and here != there:
            name = "Ray" if what == "ray" else "Python"
            raise UsageError(
                f"Ray at {address} runs with {name} {there}, and here is {here}; install the same on all nodes."
            )


def _first_words(text: str) -> str:
    """Return an error of Ray's as one short sentence."""
    words = " ".join(text.split())
    return words if len(words) <= LONGEST_WORDS else words[: LONGEST_WORDS - 3] + "..."
