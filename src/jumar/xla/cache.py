"""The compile cache: programs compiled once are loaded by the next run, from the user's private cache folder.

What lies there is machine code that will be run, so it is never part of a run directory, and the folder is used only
when nobody else can write to it.
"""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import stat
import time
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

SWITCH_OFF = "JUMAR_NO_COMPILE_CACHE"
LARGEST_CACHE = 2 * 2**30
"""Bytes; beyond it, what was not used for longest is removed. A run compiles some tens of MiB."""

CHECKED = ".checked"
"""An empty file. Its time of change says up to when the entries in its folder are known to be whole."""

MARGIN = 10
"""Seconds by which that is put back, for entries that are being written meanwhile and for coarse clocks of file systems."""


def enable_compile_cache(warn: Callable[[str], None]) -> Path | None:
    """Let JAX keep compiled programs in ``$XDG_CACHE_HOME/jumar/xla`` (or ``~/.cache/jumar/xla``); return that folder.

    ``None`` is returned, and nothing is changed, when the environment has ``JUMAR_NO_COMPILE_CACHE=1``, when the user
    gave JAX a cache folder of their own (``JAX_COMPILATION_CACHE_DIR``), and, after a call of ``warn``, when the folder
    is not safe (a link, another user's, writable by others, or in a folder whose content others could exchange) or cannot be
    made. Call it before JAX compiles anything.
    """
    if os.environ.get(SWITCH_OFF, "0") not in ("", "0") or os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        return None
    import jax

    if getattr(jax.config, "jax_compilation_cache_dir", None):
        return None
    try:
        folder = _private_folder(_made(_cache_home()) / "jumar" / "xla")
        _tidy(folder)
    except OSError as error:
        warn(f"compiled programs are not kept for the next run: {_reason(error)}.")
        return None
    # JAX does without an entry that it cannot read or write, and says so once for every program.
    warnings.filterwarnings("ignore", message="Error (reading|writing) persistent compilation cache entry")
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    return folder


def _cache_home() -> Path:
    home = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG base directory specification: a relative path is to be ignored.
    return Path(home) if os.path.isabs(home) else Path(os.path.expanduser("~")) / ".cache"


def _made(home: Path) -> Path:
    """Make the cache home if need be, and return where it really is. Raises ``OSError`` if others could exchange it.

    Whoever can write to a folder can rename what is in it and put something else in its place, unless the folder is sticky
    (as ``/tmp`` is) and the entry is not theirs. So no folder on the way may be another user's, or writable by others.
    """
    home.mkdir(parents=True, exist_ok=True)
    home = home.resolve()
    # Where the system's files are shown as a nameless user's (in some containers), that user owns the root.
    trusted = (os.geteuid(), 0, os.stat("/").st_uid)
    for place in (home, *home.parents):
        status = place.stat()
        if status.st_uid not in trusted:
            raise PermissionError(f"{place} belongs to another user, who could exchange what is in it")
        if _can_be_changed_by_others(status):
            raise PermissionError(
                f"{place} can be written by others, who could exchange what is in it; `chmod go-w {place}` prevents that"
            )
    return home


def _can_be_changed_by_others(status: os.stat_result) -> bool:
    if status.st_mode & stat.S_ISVTX:
        return False
    by_group = status.st_mode & stat.S_IWGRP and not _is_of_one(status.st_gid)
    return bool(status.st_mode & stat.S_IWOTH or by_group)


def _is_of_one(group: int) -> bool:
    """Whether nobody but this user is in a group: many systems give each user one, and let it write to all that is theirs."""
    try:
        name = pwd.getpwuid(os.geteuid()).pw_name
        members = set(grp.getgrgid(group).gr_mem)
        others = [user.pw_name for user in pwd.getpwall() if user.pw_gid == group and user.pw_name != name]
    except KeyError:
        return False
    return members <= {name} and not others


def _private_folder(folder: Path) -> Path:
    """Make ``folder`` if need be, and return it if only this user can put anything there. Raises ``OSError``."""
    for place in (folder.parent, folder):
        with contextlib.suppress(FileExistsError):
            place.mkdir(mode=0o700)
        status = place.lstat()
        if not stat.S_ISDIR(status.st_mode):
            raise PermissionError(f"{place} is a link or a file, not a folder")
        if status.st_uid != os.geteuid():
            raise PermissionError(f"{place} belongs to another user")
        if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise PermissionError(f"{place} can be written by others; `chmod 700 {place}` makes it private")
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        raise PermissionError(f"{folder} cannot be written")
    return folder


def _reason(error: OSError) -> str:
    if error.strerror is None:
        return str(error)
    return f"{error.filename} cannot be made or read ({error.strerror})"


def _tidy(folder: Path) -> None:
    """Remove entries that a killed process left half written, and the longest unused ones of a cache too large.

    JAX writes entries in place and never writes over one: half an entry would stay, and be compiled anew, for ever.
    """
    started = time.time()
    checked = folder / CHECKED
    checked_until = checked.stat().st_mtime if checked.exists() else 0.0
    entries: list[tuple[float, int, Path]] = []
    for path in folder.glob("*-cache"):
        with contextlib.suppress(FileNotFoundError):  # another process may be tidying, too
            status = path.lstat()
            if status.st_mtime >= checked_until and not _is_whole(path):
                path.unlink()
            else:
                entries.append((max(status.st_atime, status.st_mtime), status.st_size, path))
    excess = sum(size for _, size, _ in entries) - LARGEST_CACHE
    for _, size, path in sorted(entries):
        if excess <= 0:
            break
        path.unlink(missing_ok=True)
        excess -= size
    checked.touch()
    os.utime(checked, (started - MARGIN, started - MARGIN))


def _is_whole(path: Path) -> bool:
    """Return whether a cache entry can be unpacked; of a format that is not known here, only whether it is not empty.

    JAX compresses entries by zlib, or by zstandard where that is installed.
    """
    data = path.read_bytes()
    if data[:1] != b"\x78":
        return bool(data)
    unpacker = zlib.decompressobj()
    try:
        unpacker.decompress(data)
    except zlib.error:
        return False
    return unpacker.eof
