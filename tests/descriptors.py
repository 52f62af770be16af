"""The descriptors of this process."""

from __future__ import annotations

import os
from pathlib import Path


def descriptor_of(path: Path) -> int:
    """Return the descriptor of a file that this process has open; ``ValueError`` if there is not one."""
    [found] = [int(name) for name in os.listdir("/proc/self/fd") if _target(name) == os.path.realpath(path)]
    return found


def _target(name: str) -> str | None:
    try:
        return os.readlink(f"/proc/self/fd/{name}")
    except FileNotFoundError:  # that of the listing itself
        return None
