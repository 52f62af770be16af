"""Logs that a full disk cannot break: records are appended whole or not at all, and wait in memory if need be."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jumar.errors import DamagedFile
from jumar.runs.entries import OpenFile, make_folder, open_plain
from jumar.runs.files import CANNOT_FLUSH, PathLike, plain, write_all, write_atomically

LONGEST_LINE = 2**16
"""Bytes at the end of a log in which its last line is looked for at first."""
MOST_LOOKED_AT = 2**25
LARGEST = 1e300
"""Numbers beyond it count as missing: sums and ranges of them would overflow."""
Warn = Callable[[str], None]
"""Takes one sentence for the user."""


class AppendOnly:
    """A file that grows by whole records, and never raises for what the disk does.

    When a record cannot be written, its written part is cut off again, the user is warned (once per file), and it
    waits in memory until a later ``append`` or ``close`` can write it. A file that something else in this process has
    closed is opened again.
    """

    def __init__(self, path: PathLike, warn: Warn, record_end: bytes | None = None, *, inside: bool = False) -> None:
        """Open nothing yet.

        Args:
            path: the file.
            warn: whom to tell.
            record_end: ends each record; after the last one, a file found at ``path`` is cut.
            inside: whether the file's folder is itself an entry of a run directory, and so may be no link.
        """
        self.path = Path(path)
        self._warn = warn
        self._inside = inside
        self._record_end = record_end
        self._waiting: deque[bytes] = deque()
        self._opened: OpenFile | None = None
        self._size = 0
        self._has_partial = False
        self._unflushed = self._dropped = 0
        self._warned = False

    @property
    def waiting(self) -> int:
        """How many records are not in the file yet."""
        return len(self._waiting)

    def append(self, record: bytes) -> None:
        """Write ``record`` after those that still wait."""
        self._waiting.append(record)
        self._write_waiting()

    def sync(self) -> None:
        """Flush what is written to the disk, so that a power loss does not take it."""
        if self._opened is not None:
            try:
                os.fsync(self._open())
            except (OSError, DamagedFile) as error:
                if isinstance(error, DamagedFile) or error.errno not in CANNOT_FLUSH:
                    # The system may have dropped what it could not write, and will not say so again.
                    self._dropped += self._unflushed
            self._unflushed = 0

    def close(self) -> int:
        """Try once more to write what waits, flush and close the file; return how many records were lost."""
        if self._waiting:
            self._write_waiting()
        self.sync()
        if self._opened is not None:
            with contextlib.suppress(OSError):
                self._opened.close()
            self._opened = None
        lost = len(self._waiting) + self._dropped
        self._waiting.clear()
        self._dropped = 0
        return lost

    def _write_waiting(self) -> None:
        try:
            descriptor = self._open()
            while self._waiting:
                self._cut_partial(descriptor)
                self._has_partial = True
                write_all(descriptor, self._waiting[0])
                self._has_partial = False
                self._size += len(self._waiting.popleft())
                self._unflushed += 1
        except (OSError, DamagedFile) as error:
            if self._opened is not None and not self._opened.gone:
                with contextlib.suppress(OSError):
                    self._cut_partial(self._opened.number)
            reason = error.strerror if isinstance(error, OSError) else error
            self._warn_once(
                f"{self.path} cannot be written ({reason}); training goes on, and what is missing there "
                "is written as soon as that works again."
            )

    def _open(self) -> int:
        if self._opened is None:
            self._opened = self._open_file()
            self._size = os.fstat(self._opened.number).st_size
            if self._record_end is not None:
                whole = _whole_length(os.pread(self._opened.number, self._size, 0), self._record_end)
                self._has_partial = whole != self._size
                self._size = whole
        elif self._opened.gone:
            self._opened = self._open_file()
            self._warn_once(
                f"{self.path} was closed by something else in this process, such as the environment, and is opened again."
            )
        return self._opened.number

    def _open_file(self) -> OpenFile:
        if self._inside:
            make_folder(self.path.parent)
        else:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        return OpenFile(open_plain(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND))

    def _warn_once(self, text: str) -> None:
        if not self._warned:
            self._warned = True
            self._warn(text)

    def _cut_partial(self, descriptor: int) -> None:
        if self._has_partial:
            os.ftruncate(descriptor, self._size)
            self._has_partial = False


class JsonLines:
    """A log with one JSON object per line; NaN and the infinities become ``null``."""

    def __init__(self, path: PathLike, warn: Warn) -> None:
        self._file = AppendOnly(path, warn, record_end=b"\n")

    def append(self, entry: Mapping[str, Any]) -> None:
        """Write ``entry`` as one line. Raises nothing for the disk, and ``TypeError`` for what is not data."""
        self._file.append(_line(entry))

    def sync(self) -> None:
        """Flush the lines to the disk, so that a power loss does not take them."""
        self._file.sync()

    def close(self) -> int:
        """Close the file and return how many lines could not be written."""
        return self._file.close()


def read(path: PathLike) -> list[dict[str, Any]]:
    """Return the entries of a log, oldest first; none if there is no file.

    What is no JSON object is passed over: a half last line, which a killed process leaves, or a foreign line.

    Raises:
        DamagedFile: a link or something else than a plain file is there (so of all functions here that read).
    """
    return [entry for line in _lines(path) if (entry := _entry(line)) is not None]


def read_whole(path: PathLike) -> list[dict[str, Any]]:
    """Return the entries of a log that nobody writes any more, oldest first; none if there is no file.

    Raises:
        DamagedFile: a line is neither a whole JSON object nor empty.
    """
    entries = []
    for number, line in enumerate(_lines(path), start=1):
        if (entry := _entry(line)) is not None:
            entries.append(entry)
        elif line.strip():
            raise DamagedFile(f"{path} is damaged: line {number} is no whole JSON object.")
    return entries


def read_last(path: PathLike) -> dict[str, Any]:
    """Return the last whole entry of a log, without reading the whole of it; an empty one if there is none."""
    try:
        with os.fdopen(open_plain(path), "rb") as file:
            size, window = os.fstat(file.fileno()).st_size, LONGEST_LINE
            while True:
                file.seek(max(0, size - window))
                lines = file.read(window).splitlines(keepends=True)
                found = next((entry for line in reversed(lines) if (entry := _entry(line)) is not None), None)
                if found is not None or window >= min(size, MOST_LOOKED_AT):
                    return found or {}
                window *= 8  # an evaluation of many episodes is a long line
    except OSError:
        return {}


def digest(path: PathLike) -> dict[str, Any]:
    """Return the length of a log in bytes and its SHA-256, as a checkpoint keeps them; a log that is not there is empty.

    The SHA-256 is ``None`` where the log cannot be read: that is no reason to keep no checkpoint.
    """
    try:
        length = os.lstat(path).st_size
    except FileNotFoundError:
        length = 0
    return {"bytes": length, "sha256": _sha256_of_first(path, length)}


def is_as_digested(path: PathLike, saved: Mapping[str, Any]) -> bool:
    """Whether a log still begins with what :func:`digest` described; it may have grown since."""
    return saved["sha256"] is not None and _sha256_of_first(path, saved["bytes"]) == saved["sha256"]


def _sha256_of_first(path: PathLike, length: int) -> str | None:
    """Return the SHA-256 of a log's first bytes, read piece by piece; ``None`` if it has fewer or cannot be read."""
    hasher, left = hashlib.sha256(), length
    if length:
        try:
            with os.fdopen(open_plain(path), "rb") as file:
                while left and (piece := file.read(min(left, 2**20))):
                    hasher.update(piece)
                    left -= len(piece)
        except (OSError, DamagedFile):
            return None
    return None if left else hasher.hexdigest()


def cut(path: PathLike, step: int, key: str = "time/total_timesteps") -> None:
    """Keep only the lines whose ``key`` is at most ``step``, in place, all or nothing; a half last line goes too.

    Raises:
        OSError: the file cannot be read or written; it is unharmed.
        DamagedFile: a link, something else than a plain file, or a file with a second name is there.
    """
    lines = _lines(path)
    kept = [line for line in lines if _is_up_to(_entry(line), step, key)]
    if kept == lines:
        return
    data = b"".join(kept)
    if lines[: len(kept)] == kept:
        # The usual case needs no space, so that a run can go on even from a full disk.
        descriptor = open_plain(path, os.O_WRONLY)
        try:
            os.ftruncate(descriptor, len(data))
        finally:
            os.close(descriptor)
    else:
        write_atomically(path, data)


def _line(entry: Mapping[str, Any]) -> bytes:
    text = json.dumps(plain(entry, lambda value: None), separators=(", ", ": "), allow_nan=False)
    return text.encode("ascii") + b"\n"


def _lines(path: PathLike) -> list[bytes]:
    try:
        with os.fdopen(open_plain(path), "rb") as file:
            data = file.read()
    except FileNotFoundError:
        return []
    return data.splitlines(keepends=True)


def _entry(line: bytes) -> dict[str, Any] | None:
    """Return the JSON object that is the whole of ``line``; ``None`` if it is none or has no end."""
    return entry_of(line) if line.endswith(b"\n") else None


def entry_of(line: bytes) -> dict[str, Any] | None:
    """Return the JSON object that is the whole of a line, with or without its end; ``None`` if it is none."""
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return entry if isinstance(entry, dict) else None


def finite(value: Any) -> float | None:
    """Return what JSON gave as a number if it is one that can be drawn, else ``None``."""
    if type(value) is float:
        return value if -LARGEST <= value <= LARGEST else None
    if type(value) is int:
        try:
            number = float(value)
        except OverflowError:
            return None
        return number if -LARGEST <= number <= LARGEST else None
    return None


def _is_up_to(entry: dict[str, Any] | None, step: int, key: str) -> bool:
    value = None if entry is None else entry.get(key)
    return isinstance(value, (int, float)) and value <= step


def _whole_length(data: bytes, record_end: bytes) -> int:
    """Return the length of ``data`` up to the end of its last whole record."""
    last = data.rfind(record_end)
    return 0 if last < 0 else last + len(record_end)
