"""What the operating system says of this process: processors, memory, limits. Files are read, and nothing is started."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

MOST = 2**60
"""A limit of this many bytes, or of none, is no limit; control groups of version 1 have such a number by default."""


@dataclass(frozen=True)
class Limits:
    """What a process's control groups allow it; ``None`` where there is no limit."""

    processors: float | None
    """Processor seconds per second."""
    memory: int | None
    """Bytes."""
    memory_left: int | None
    """Bytes of it that are not in use."""


def control_group_limits(root: Path = Path("/")) -> Limits:
    """Return the strictest limits of the control groups that this process is in, of version 1 or 2.

    ``root`` is where the files of the system are, for tests.
    """
    processors, memory, left = [], [], []
    for folder in _folders(root, "cpu"):
        quota, period = _version_2(folder) or (
            _number(folder / "cpu.cfs_quota_us"),
            _number(folder / "cpu.cfs_period_us"),
        )
        if quota is not None and period and quota > 0:
            processors.append(quota / period)
    for folder in _folders(root, "memory"):
        for limit_name, used_name in (
            ("memory.max", "memory.current"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes"),
        ):
            limit, used = _number(folder / limit_name), _number(folder / used_name)
            if limit is not None and 0 < limit < MOST:
                memory.append(limit)
                left += [max(0, limit - used)] if used is not None else []
    return Limits(min(processors, default=None), min(memory, default=None), min(left, default=None))


def _folders(root: Path, controller: str) -> Iterator[Path]:
    """Yield the folders of the groups of this process that a controller limits, from the innermost to the outermost."""
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        mount = root / "sys/fs/cgroup"
        if controllers:
            if controller not in controllers.split(","):
                continue
            mount = mount / controller
        inner = mount / path.lstrip("/")
        # In a container the path may be that of the host, and the mount the group itself.
        for folder in (inner, *inner.parents):
            if folder.is_dir() and folder.is_relative_to(mount):
                yield folder


def _version_2(folder: Path) -> tuple[int | None, int | None] | None:
    """Return quota and period of ``cpu.max``; ``None`` where there is no such file."""
    words = _read(folder / "cpu.max").split()
    if len(words) != 2:
        return None
    return (int(words[0]) if words[0].isdigit() else None), (int(words[1]) if words[1].isdigit() else None)


def memory_information(root: Path = Path("/")) -> dict[str, int]:
    """Return ``/proc/meminfo``: bytes by name; an empty dictionary where there is none."""
    found = re.findall(r"^(\w+):\s+(\d+) kB$", _read(root / "proc/meminfo"), re.MULTILINE)
    return {name: int(kilobytes) * 1024 for name, kilobytes in found}


@dataclass(frozen=True)
class Requirement:
    """A package that Jumar needs, or one of its extras does."""

    name: str
    least: str
    """The oldest version that will do; empty: any."""
    extra: str | None


def requirements(lines: Iterable[str]) -> list[Requirement]:
    """Read requirements as a package's metadata has them: ``mujoco>=3.1; extra == 'mujoco'``."""
    found = []
    for line in lines:
        match = re.match(r"([A-Za-z0-9._-]+)(?:\[[^\]]*\])?\s*(?:>=\s*([0-9][^;,\s]*))?", line)
        extra = re.search(r"extra\s*==\s*['\"]([^'\"]+)['\"]", line)
        if match:
            found.append(Requirement(match[1], match[2] or "", extra[1] if extra else None))
    return found


def is_older(version: str, least: str) -> bool:
    """Whether a version is older than another, by their leading numbers: ``0.9.1`` is older than ``0.10``."""
    return _numbers(version) < _numbers(least) if least else False


def _numbers(version: str) -> tuple[int, ...]:
    numbers = [int(part) for part in re.findall(r"\d+", re.match(r"[0-9.]*", version)[0])]  # type: ignore[index]
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def _number(path: Path) -> int | None:
    text = _read(path).strip()
    return int(text) if re.fullmatch(r"-?\d{1,30}", text) else None


def free_bytes(path: Path) -> tuple[int, int | None]:
    """Return the bytes, and the number of files, that this user may still add to a file system; ``None``: it counts no files.

    Raises:
        OSError: the path is not there, or cannot be asked.
    """
    status = os.statvfs(path)
    return status.f_bavail * status.f_frsize, status.f_favail if status.f_files else None
