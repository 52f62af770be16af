"""What the system lets drills do: small disks, immutable files, processes without a network."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from jumar.drills.registry import Unable


def called(*words: str | Path) -> str | None:
    """Run a program of the system; return why it failed, in a line, or ``None``."""
    try:
        done = subprocess.run(
            list(map(str, words)), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=60
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    if done.returncode == 0:
        return None
    said = (done.stderr or done.stdout).strip().splitlines()
    return said[0] if said else f"{words[0]} ended with {done.returncode}"


@contextlib.contextmanager
def small_disk(place: Path, size: str) -> Iterator[Path]:
    """Within the block, a disk of a size, such as ``400k``, is mounted at ``place``, which is made.

    Raises:
        Unable: file systems cannot be mounted here.
    """
    place.mkdir()
    if (why := called("mount", "-t", "tmpfs", "-o", f"size={size},mode=700", "tmpfs", place)) is not None:
        raise Unable(f"no file system can be mounted here ({why}).")
    try:
        yield place
    finally:
        called("umount", "--lazy", place)


def change_disk(place: Path, options: str) -> None:
    """Mount a small disk anew with other options, such as ``size=100m`` or ``ro``. Raises ``Unable``."""
    if (why := called("mount", "-o", f"remount,{options}", place)) is not None:
        raise Unable(f"a file system cannot be mounted anew here ({why}).")


@contextlib.contextmanager
def immutable(path: Path) -> Iterator[None]:
    """Within the block, a file or folder cannot be changed, not even by root.

    Raises:
        Unable: the file system or the system does not have that.
    """
    if (why := called("chattr", "+i", path)) is not None:
        raise Unable(f"no file can be made immutable here ({why}).")
    try:
        yield
    finally:
        called("chattr", "-i", path)


def without_network(words: Sequence[str]) -> list[str]:
    """Return a command that runs another one where there is no network, not even to this machine itself.

    Raises:
        Unable: the system does not allow that.
    """
    for how in (["unshare", "--net"], ["unshare", "--user", "--map-root-user", "--net"]):
        if shutil.which("unshare") and called(*how, "true") is None:
            return [*how, *words]
    raise Unable("no process can be started without a network here (unshare --net).")


def snapshot(folder: Path) -> dict[str, object]:
    """Return what lies in a folder: of each entry its kind and, of files and links, the content. No link is followed."""
    found: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        content: object = status.st_mode & 0o170000
        if path.is_symlink():
            content = os.readlink(path)
        elif path.is_file():
            content = path.read_bytes()
        found[str(path.relative_to(folder))] = content
    return found
