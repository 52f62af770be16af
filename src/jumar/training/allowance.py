"""How much memory a replay buffer takes, and whether the machine has it."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import jax

from jumar.errors import UsageError
from jumar.training.remembered import Buffer

SHARE = 0.75
"""How much of the memory that is available a replay buffer may take. The rest is for networks, environments and other
programs."""
CGROUP = Path("/sys/fs/cgroup")
"""Where Linux tells a container's own limit."""
MEMINFO = Path("/proc/meminfo")


def check_allowance(buffer: Buffer, available: int | None) -> None:
    """Refuse a replay buffer that takes more than ``SHARE`` of the memory that is available.

    Args:
        buffer: what it is like.
        available: bytes; ``None`` where nobody knows.

    Raises:
        UsageError: it takes more; the message says which ``buffer_size`` fits.
    """
    if available is None or buffer.bytes <= SHARE * available:
        return
    replay, seeds = buffer.replay, buffer.n_seeds or 1
    spare = replay.room if replay.relabelled else 2 * replay.block - 1
    rows = int(SHARE * available / (seeds * replay.row_bytes)) - spare * replay.n_envs
    fits = _rounded_down(rows)
    remedy = f"buffer_size={fits} fits" if fits > 0 else "make n_envs, n_seeds or log_every smaller"
    raise UsageError(
        f"buffer_size={replay.slots * replay.n_envs} takes {in_bytes(buffer.bytes)} of memory"
        f"{f' for {seeds} seeds' if seeds > 1 else ''}, and of the {in_bytes(available)} that are available a replay buffer "
        f"may take {in_bytes(int(SHARE * available))}; {remedy}."
    )


def available_memory() -> int | None:
    """Return the bytes that arrays can still take where JAX computes; ``None`` where nobody knows.

    On an accelerator that is its own memory, else what the system says is available, or what a container's limit leaves.
    """
    device = jax.devices()[0]
    if device.platform != "cpu":
        known = device.memory_stats() or {}
        return known["bytes_limit"] - known.get("bytes_in_use", 0) if "bytes_limit" in known else None
    found = [x for x in (_of_the_system(), _left_in_the_container()) if x is not None]
    return min(found, default=None)


def _of_the_system() -> int | None:
    """Return the available memory, or where the system does not tell that, all of it."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in MEMINFO.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return 1024 * int(line.split()[1])
    with contextlib.suppress(OSError, ValueError):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return None


def _left_in_the_container() -> int | None:
    """Return what the limit of the control group leaves; files that are only cached count as free."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        limit, used = (int((CGROUP / name).read_text()) for name in ("memory.max", "memory.current"))
        lines = (line.split() for line in (CGROUP / "memory.stat").read_text().splitlines())
        cached = sum(int(count) for name, count in lines if name in ("inactive_file", "active_file"))
        return max(0, limit - used + cached)
    return None


def in_bytes(count: int) -> str:
    """Return a number of bytes as ``172 MB`` or ``1.4 GB``."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:,.{1 if count < 10 * size else 0}f} {unit}"
    return f"{count} bytes"


def _rounded_down(number: int) -> int:
    """Return the number with two digits that are not zero."""
    if number < 100:
        return max(0, number)
    unit = 10 ** (len(str(number)) - 2)
    return number // unit * unit
