"""What lies in a run directory, looked at without following links: a foreign run must not lead anywhere else.

A run directory may come from somebody else. An entry that is a link would let Jumar read, write or remove what the link
names; a pipe would block it, a device has no end. So all entries with names that Jumar uses are checked before anything
is read or written (``check_entries``), and files are opened so that none of these is followed (``open_plain``), in case
an entry is replaced after the check. The directory itself may be reached through a link: that path is the user's.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from jumar.errors import DamagedFile

PathLike = str | os.PathLike[str]

KINDS = {
    stat.S_IFLNK: "a link",
    stat.S_IFDIR: "a folder",
    stat.S_IFREG: "a file",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFBLK: "a device",
    stat.S_IFCHR: "a device",
}
"""What an entry is, by the type in its mode."""

NOT_PLAIN = (errno.ELOOP, errno.EISDIR, errno.ENXIO, errno.ENODEV, errno.EOPNOTSUPP)
"""Errors of opening what is a link, a folder, a pipe or socket that nobody reads, or a device that is not there."""


@dataclass(frozen=True)
class Layout:
    """The names that Jumar uses in a folder; all other entries are the user's and are left alone.

    Attributes:
        files: regular expressions of the names of files.
        in_place: regular expressions of those among them that are written where they lie, not replaced by a new file.
        folders: regular expressions of the names of folders, with the layout of each.
    """

    files: tuple[str, ...] = ()
    in_place: tuple[str, ...] = ()
    folders: Mapping[str, Layout] = field(default_factory=dict)


def exactly(*names: str) -> tuple[str, ...]:
    """Return regular expressions that match these names alone."""
    return tuple(map(re.escape, names))


def check_entries(folder: PathLike, layout: Layout, *, writing: bool = False) -> None:
    """Refuse a folder where an entry of the layout is something else than a plain file or a folder, at any depth.

    Args:
        folder: where to look; it may be reached through links.
        layout: the names that Jumar uses there.
        writing: whether files will be written; those that are written in place may then have no second name (hard link).

    Raises:
        DamagedFile: an entry is a link, or of another kind than the layout has it; the message says how to mend it.
        OSError: a folder cannot be read.
    """
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if _is_among(layout.files, entry.name):
                _check_kind(entry, stat.S_IFREG)
                if writing and _is_among(layout.in_place, entry.name):
                    _check_single(entry.path, entry.stat(follow_symlinks=False))
            for name, inner in layout.folders.items():
                if re.fullmatch(name, entry.name):
                    _check_kind(entry, stat.S_IFDIR)
                    check_entries(entry.path, inner, writing=writing)


def remove_temporaries(folder: PathLike, layout: Layout) -> None:
    """Remove what a killed process left of the layout's files under their temporary names, at any depth.

    All other entries are somebody else's and stay; no link is followed. Nobody may be writing there.
    """
    try:
        with os.scandir(folder) as found:
            entries = list(found)
    except OSError:
        return
    for entry in entries:
        meant = name_of_temporary(entry.name)
        if meant is not None and _is_among(layout.files, meant):
            with contextlib.suppress(OSError):
                os.unlink(entry.path)
        elif entry.is_dir(follow_symlinks=False):
            for name, inner in layout.folders.items():
                if re.fullmatch(name, entry.name):
                    remove_temporaries(entry.path, inner)


def temporary_beside(path: Path) -> Path:
    """Return a new path in the same folder, ``.NAME.RANDOM.tmp``, to write to before it is renamed to ``path``."""
    # The random part keeps two writers of one path apart; a fixed name would let one rename the other's half file.
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")


def name_of_temporary(name: str) -> str | None:
    """Return the name that a path of ``temporary_beside`` is for; ``None`` for a name that it does not make."""
    match = re.fullmatch(r"\.(.+)\.[0-9a-f]{8}\.tmp", name, re.DOTALL)
    return match[1] if match else None


def is_folder(path: PathLike) -> bool:
    """Whether there is a folder at ``path``; ``False`` if there is nothing.

    Raises:
        DamagedFile: a link or a file is there.
    """
    try:
        kind = stat.S_IFMT(os.lstat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False
    if kind != stat.S_IFDIR:
        raise _wrong_kind(path, kind, stat.S_IFDIR)
    return True


def make_folder(path: PathLike) -> None:
    """Make a folder, and those above it, unless it is there. Raises ``DamagedFile`` as ``is_folder``, and ``OSError``."""
    if not is_folder(path):
        os.makedirs(path, exist_ok=True)


def open_plain(path: PathLike, flags: int = os.O_RDONLY) -> int:
    """Open a plain file; return its descriptor. ``flags`` are those of ``os.open``.

    A file that is opened for writing may have no second name (hard link): what is written would change that file too.

    Raises:
        DamagedFile: a link, a folder, a pipe, a socket or a device is there, or a file with a second name.
        OSError: it cannot be opened.
    """
    try:
        # Without O_NONBLOCK, opening a named pipe would wait for its other end for ever.
        descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    except OSError as error:
        kind = _kind(path)
        if error.errno in NOT_PLAIN and kind not in (None, stat.S_IFREG):
            raise _wrong_kind(path, kind, stat.S_IFREG) from None
        raise
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise _wrong_kind(path, stat.S_IFMT(status.st_mode), stat.S_IFREG)
        if flags & (os.O_WRONLY | os.O_RDWR):
            _check_single(path, status)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


class OpenFile:
    """A descriptor that stays open for long. Another part of this process may close it, such as an environment that closes
    all descriptors; its number may then stand for another file, which must be neither written nor closed.

    Attributes:
        number: the descriptor.
    """

    def __init__(self, number: int) -> None:
        """Take over an open descriptor. Raises ``OSError`` if it is none."""
        self.number = number
        self._identity = self._look()

    @property
    def gone(self) -> bool:
        """Whether something else has closed it."""
        try:
            return self._look() != self._identity
        except OSError:
            return True

    def close(self) -> None:
        """Close the descriptor. Raises ``OSError`` (``EBADF``) if something else has done so."""
        if self.gone:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        os.close(self.number)

    def _look(self) -> tuple[int, int]:
        status = os.fstat(self.number)
        return status.st_dev, status.st_ino


def _is_among(names: tuple[str, ...], name: str) -> bool:
    return any(re.fullmatch(each, name) for each in names)


def _check_single(path: PathLike, status: os.stat_result) -> None:
    if status.st_nlink > 1:
        raise DamagedFile(
            f"{path} is a file with a second name (a hard link), which writing to it would change too: put a copy of it in "
            "its place."
        )


def _check_kind(entry: os.DirEntry[str], expected: int) -> None:
    # Most file systems tell the kind with the name, and nothing more has to be asked.
    fits = entry.is_file if expected == stat.S_IFREG else entry.is_dir
    if not fits(follow_symlinks=False):
        raise _wrong_kind(entry.path, _kind(entry.path), expected)


def _kind(path: PathLike) -> int | None:
    try:
        return stat.S_IFMT(os.lstat(path).st_mode)
    except OSError:
        return None


def _wrong_kind(path: PathLike, found: int | None, expected: int) -> DamagedFile:
    noun = "plain file" if expected == stat.S_IFREG else "folder"
    remedy = "move it away."
    if found == stat.S_IFLNK:
        remedy = "links inside of a run directory are not followed. Put what it names in its place, or remove it."
    return DamagedFile(f"{Path(path)} is {KINDS.get(found or 0, 'missing')}, but must be a {noun}: {remedy}")
