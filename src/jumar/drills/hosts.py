"""Network namespaces as hosts: several on one machine, on a bridge of their own, that can be cut off and slowed down.

    with Hosts(3) as hosts:
        learner = hosts.command(0, ["python", "-m", "jumar", ...])
        hosts.cut(2)
        hosts.heal(2)

The network of the machine itself is not touched: the bridge lies in a namespace of its own. It takes root, and Linux with
``ip`` (and ``tc`` to slow a host down).
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
from collections.abc import Sequence
from types import TracebackType

from jumar.drills.machine import called
from jumar.drills.registry import Unable

NETWORK = "10.213.77"
"""The first three numbers of the hosts' addresses; nobody outside of the namespaces sees them."""
MOST = 200


class Hosts:
    """So many hosts, ``0`` to ``count - 1``, that reach each other. Leaving the block ends what runs on them, and them."""

    def __init__(self, count: int) -> None:
        """Make nothing yet.

        Args:
            count: how many, at most ``MOST``.
        """
        if not 1 <= count <= MOST:
            raise ValueError(f"{count} hosts: 1 to {MOST} can be made")
        self.count = count
        self._mark = secrets.token_hex(3)
        self._middle = f"jumar-{self._mark}"

    def __enter__(self) -> Hosts:
        """Make the hosts.

        Raises:
            Unable: the system does not allow it; the message says why.
        """
        if why := unavailable():
            raise Unable(why)
        try:
            self._do("ip", "netns", "add", self._middle)
            self._inside(self._middle, "ip", "link", "add", "bridge", "type", "bridge")
            self._inside(self._middle, "ip", "link", "set", "bridge", "up")
            for host in range(self.count):
                self._make(host)
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._remove()

    def name(self, host: int) -> str:
        """Return the name of a host's namespace."""
        if not 0 <= host < self.count:
            raise ValueError(f"host {host}: there are {self.count}")
        return f"{self._middle}-{host}"

    def address(self, host: int) -> str:
        """Return a host's address."""
        self.name(host)
        return f"{NETWORK}.{host + 1}"

    def command(self, host: int, words: Sequence[str]) -> list[str]:
        """Return the command that runs another one on a host."""
        return ["ip", "netns", "exec", self.name(host), *words]

    def cut(self, host: int) -> None:
        """Cut a host off from all others."""
        self._inside(self._middle, "ip", "link", "set", self._port(host), "down")

    def heal(self, host: int) -> None:
        """Connect a host again, in both directions and at full speed."""
        self._inside(self._middle, "ip", "link", "set", self._port(host), "up")
        self._inside(self.name(host), "ip", "route", "replace", f"{NETWORK}.0/24", "dev", "eth0")
        for other in self._others(host):
            called("ip", "-n", self.name(other), "route", "del", "blackhole", f"{self.address(host)}/32")
        called("ip", "netns", "exec", self.name(host), "tc", "qdisc", "del", "dev", "eth0", "root")

    def silence(self, host: int) -> None:
        """Lose all that a host sends; what is sent to it still arrives: a cut in one direction."""
        self._inside(self.name(host), "ip", "route", "replace", "blackhole", f"{NETWORK}.0/24")

    def deafen(self, host: int) -> None:
        """Lose all that is sent to a host; what it sends still arrives."""
        for other in self._others(host):
            self._inside(self.name(other), "ip", "route", "replace", "blackhole", f"{self.address(host)}/32")

    def slow(self, host: int, milliseconds: float) -> None:
        """Delay all that a host sends."""
        self._inside(
            self.name(host), "tc", "qdisc", "replace", "dev", "eth0", "root", "netem", "delay", f"{milliseconds:g}ms"
        )

    def _make(self, host: int) -> None:
        name, port = self.name(host), self._port(host)
        self._do("ip", "netns", "add", name)
        self._do("ip", "-n", self._middle, "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", name)
        self._inside(self._middle, "ip", "link", "set", port, "master", "bridge")
        self._inside(self._middle, "ip", "link", "set", port, "up")
        self._inside(name, "ip", "address", "add", f"{self.address(host)}/24", "dev", "eth0")
        for device in ("lo", "eth0"):
            self._inside(name, "ip", "link", "set", device, "up")

    def _port(self, host: int) -> str:
        return f"port{host}"

    def _others(self, host: int) -> list[int]:
        return [other for other in range(self.count) if other != host]

    def _inside(self, place: str, *words: str) -> None:
        self._do("ip", "netns", "exec", place, *words)

    @staticmethod
    def _do(*words: str) -> None:
        if (why := called(*words)) is not None:
            raise Unable(f"no hosts can be made here: `{' '.join(words)}` says {why!r}.")

    def processes(self, host: int) -> list[int]:
        """Return the processes that run on a host."""
        try:
            said = subprocess.run(
                ["ip", "netns", "pids", self.name(host)], capture_output=True, text=True, check=False, timeout=60
            ).stdout
        except (OSError, subprocess.TimeoutExpired):
            return []
        return [int(word) for word in said.split()]

    def _remove(self) -> None:
        for host in range(self.count):
            for process in self.processes(host):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
        for name in [*(f"{self._middle}-{host}" for host in range(self.count)), self._middle]:
            called("ip", "netns", "del", name)


def unavailable() -> str | None:
    """Return why hosts cannot be made here, in a sentence; ``None`` if nothing is known to be in the way."""
    if shutil.which("ip") is None:
        return "hosts are network namespaces, which need the program `ip` (iproute2)."
    if os.geteuid() != 0:
        return "hosts are network namespaces, which only root may make."
    return None
