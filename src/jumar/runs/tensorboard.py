"""Scalars for TensorBoard, written at once and by this thread: a full disk can neither block nor stop training."""

from __future__ import annotations

import struct
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jumar.runs.files import PathLike
from jumar.runs.logs import AppendOnly, Warn

FILE_VERSION = "brain.Event:2"
NAME_START = "events.out.tfevents."


class ScalarWriter:
    """One event file in ``folder``, of scalars by tag and step.

    TensorBoard reads the files of a folder in the order of their names, so a resumed run's file sorts behind those
    that are there. It begins with a session start at the first step after ``resume_step``, at which TensorBoard drops
    what the earlier files have from that step on.
    """

    def __init__(self, folder: PathLike, warn: Warn, resume_step: int | None = None) -> None:
        """Open nothing yet; ``resume_step`` is the step that a resumed run starts from."""
        self._file = AppendOnly(_next_file(Path(folder)), warn, inside=True)
        self._append(file_version=FILE_VERSION)
        if resume_step is not None:
            self._append(session_log={"status": "START"}, step=resume_step + 1)

    def write(self, step: int, scalars: Mapping[str, float | None], wall_time: float | None = None) -> None:
        """Write the scalars of one step; ``None`` is left out. ``wall_time`` is in seconds since 1970 (default: now).

        Raises nothing for the disk.
        """
        values = [{"tag": tag, "simple_value": float(value)} for tag, value in scalars.items() if value is not None]
        self._append(wall_time, step=step, summary={"value": values})

    def sync(self) -> None:
        """Flush the file to the disk."""
        self._file.sync()

    def close(self) -> int:
        """Close the file and return how many events could not be written."""
        return self._file.close()

    def _append(self, wall_time: float | None = None, **content: Any) -> None:
        from tensorboardX.proto.event_pb2 import Event  # type: ignore[attr-defined]

        event = Event(wall_time=time.time() if wall_time is None else wall_time, **content)
        self._file.append(_framed(event.SerializeToString()))


def _framed(data: bytes) -> bytes:
    """Return ``data`` as one TFRecord: its length, the length's checksum, ``data``, its checksum; little-endian."""
    length = struct.pack("<Q", len(data))
    return length + struct.pack("<I", _masked_checksum(length)) + data + struct.pack("<I", _masked_checksum(data))


def _masked_checksum(data: bytes) -> int:
    """Return the CRC-32C of ``data``, rotated right by 15 bits and shifted by a constant, as TFRecord wants it."""
    from tensorboardX.crc32c import crc32c

    checksum = crc32c(data) & 0xFFFFFFFF
    return ((checksum >> 15 | checksum << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _next_file(folder: Path) -> Path:
    """Return a new name that sorts behind the event files in ``folder``, even if the clock went back."""
    stamps = [path.name.removeprefix(NAME_START).split(".")[0] for path in folder.glob(NAME_START + "*")]
    newest = max((int(stamp) for stamp in stamps if stamp.isascii() and stamp.isdigit()), default=0)
    return folder / f"{NAME_START}{max(int(time.time()), newest + 1):010d}.jumar"
