"""What runs in a runner's process. It is sent there as code, by value: nothing is taken from a Jumar that is installed there
before the two are known to be the same.

So this module imports only the standard library, and all else inside of functions.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import importlib.util
import os
import platform
import sys
from pathlib import Path
from typing import Any

PACKAGES = ("jumar", "jax", "jaxlib", "numpy", "gymnasium")
"""Whose versions must be the same."""
INSTRUCTIONS = (
    ("AMX_FP16", "amx_fp16"),
    ("AMX", "amx_tile"),
    ("AVX512_BF16", "avx512_bf16"),
    ("AVX512_VNNI", "avx512_vnni"),
    ("AVX512", "avx512f"),
    ("AVX2", "avx2"),
    ("AVX", "avx"),
    ("SSE4_2", "sse4_2"),
)
"""XLA's names of what processors can do, the most first, and what Linux calls it."""


def look(search_path: tuple[str, ...] = ()) -> dict[str, str | None]:
    """Return what must be the same in all processes, for the arithmetic to be: versions, code and instructions.

    ``search_path``: places of modules in the process that asks, which are searched here too, after the own ones.
    """
    sys.path += [place for place in search_path if place not in sys.path]
    found: dict[str, str | None] = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    spec = importlib.util.find_spec("jumar")
    places = list(spec.submodule_search_locations or ()) if spec is not None else []
    found["code"] = _digest_of(Path(places[0])) if places else None
    found["processor"] = platform.machine()
    found["instructions"] = _instructions()
    return found


def _digest_of(package: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        digest.update(str(path.relative_to(package)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def _instructions() -> str | None:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return None
    flags = next((set(line.split(":", 1)[1].split()) for line in lines if line.startswith("flags")), set())
    return next((name for name, flag in INSTRUCTIONS if flag in flags), None)


class RunnerProcess:
    """A runner: it holds lanes and answers requests, in the main thread of a process of its own."""

    def __init__(self) -> None:
        self.executor: Any = None

    def look(self, search_path: tuple[str, ...]) -> dict[str, str | None]:
        """Return what must be the same everywhere, and where this is: the node, and the process on it."""
        ray = importlib.import_module("ray")
        return {"node": ray.util.get_node_ip_address(), "pid": str(os.getpid()), **look(search_path)}

    def begin(self, making: bytes, variables: dict[str, str], options: dict[str, Any]) -> str | None:
        """Prepare for requests; return what is in the way, as a sentence.

        Args:
            making: a pickled :class:`jumar.lanes.records.LaneMaking`.
            variables: of the environment, among them what XLA reads.
            options: of JAX.
        """
        os.environ.update(variables)
        import jax

        for name, value in options.items():
            jax.config.update(name, value)
        from jumar.lanes.serving import open_executor

        opened = open_executor(making)
        if isinstance(opened, str):
            return opened
        self.executor = opened
        return None

    def canary(self, acting: Any) -> bytes:
        """Return the digest of some steps of a lane that no run has."""
        return self.executor.canary(acting)

    def answer(self, acting: Any, request: Any) -> Any:
        """Yield signs of life, and at last the answer to a request."""
        answer = yield from self.executor.answering(acting, request)
        yield answer

    def end(self) -> None:
        """Close all environments."""
        if self.executor is not None:
            self.executor.close()
