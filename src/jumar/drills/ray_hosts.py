"""A Ray cluster whose machines are network namespaces (:mod:`jumar.drills.hosts`), each with a Ray of its own.

    with RayHosts(2, folder) as cluster:
        words = cluster.command(["python", "-m", "jumar", "train", ..., "--address", cluster.address])
        cluster.hosts.cut(1)

Host 0 is the head, which steps nothing; the others have two processors each, as Ray counts them.
"""

from __future__ import annotations

import secrets
import shutil
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from jumar.drills.full_store import HELD
from jumar.drills.hosts import Hosts
from jumar.drills.processes import Running, wait_until
from jumar.drills.registry import Unable

PORT = 6379
PROCESSORS = 2
"""Of each node but the head."""
JOINED = "Ray runtime started"
"""What `ray start` says once its node is there."""


class RayHosts:
    """A head and so many nodes, each on a host of its own. Leaving the block ends all that runs on them.

    Args:
        nodes: how many there are beside the head.
        folder: where what Ray says is kept.
        store: bytes of the object store of each; ``None``: as many as Ray takes by itself.
    """

    def __init__(self, nodes: int, folder: Path, store: int | None = None) -> None:
        self.hosts = Hosts(nodes + 1)
        self.environment = {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "RAY_USAGE_STATS_ENABLED": "0",
        }
        self._folder, self._store, self._stack = folder, store, ExitStack()

    @property
    def address(self) -> str:
        """Where the head is."""
        return f"{self.hosts.address(0)}:{PORT}"

    def __enter__(self) -> RayHosts:
        """Start all of it.

        Raises:
            Unable: the system does not allow hosts, or Ray does not start on them.
        """
        with ExitStack() as stack:
            self._stack = stack
            # In a folder with a short name: Ray's sockets lie there, whose paths the system limits.
            place = tempfile.mkdtemp(prefix="jumar-ray-")
            stack.callback(shutil.rmtree, place, ignore_errors=True)
            stack.enter_context(self.hosts)
            self._start(
                0, ["--head", f"--port={PORT}", "--num-cpus=0", "--include-dashboard=false", f"--temp-dir={place}"]
            )
            for node in range(1, self.hosts.count):
                self._start(node, [f"--address={self.address}", f"--num-cpus={PROCESSORS}"])
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def command(self, words: Sequence[str]) -> list[str]:
        """Return the command that runs another one beside the head."""
        return self.hosts.command(0, words)

    def fill(self, host: int, size: int) -> None:
        """Have another program keep ``size`` bytes in a host's object store until the block is left."""
        words = [sys.executable, "-m", "jumar.drills.full_store", self.address, str(size)]
        if (wrong := self._run(host, words, f"fill-{host}", HELD)) is not None:
            raise RuntimeError(f"the object store of host {host} could not be filled: {wrong}")

    def _start(self, host: int, how: Sequence[str]) -> None:
        # Ray's own command, as its package has it: the program of that name need not be on the path.
        words = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--disable-usage-stats"]
        words += [f"--node-ip-address={self.hosts.address(host)}", *how]
        words += [f"--object-store-memory={self._store}"] if self._store else []
        if (wrong := self._run(host, words, f"ray-{host}", JOINED)) is not None:
            raise Unable(f"Ray does not start on a host of its own: {wrong}")

    def _run(self, host: int, words: Sequence[str], name: str, until: str) -> str | None:
        """Run a program on a host until the block is left; return its last words if it does not come to say ``until``."""
        running = Running(self.hosts.command(host, words), self._folder, self.environment, name)
        self._stack.enter_context(running)
        said = self._folder / f"{name}.out"
        if wait_until(lambda: until in said.read_text("utf-8", "replace"), running, seconds=120.0):
            return None
        return running.wait(0.0).last_words
