"""The replay buffer of an off-policy run, kept as append-only segments that its checkpoints name.

The buffer is a ring of *slots*. A slot is what one step of all environments gives: ``n_envs`` rows. Slots are numbered
from 0 in the order of writing, and slot ``s`` lies at index ``s mod capacity`` of the ring: the buffer holds the newest
``capacity`` slots.

At each checkpoint, the slots written since the one before are appended to ``RUN/replay/`` as one more file, a
*segment*. No segment is changed later, so the cost of a checkpoint is that of the new rows, not that of the buffer.
The record of a checkpoint lists the segments that it needs:

    segments = needed([*segments, store.append(first, slots, arrays)], capacity)
    checkpoints.save(step, state, {"segments": [segment.to_json() for segment in segments], ...})
    store.discard(every segment that one of the remaining checkpoints lists)

In this order, a process may die at any moment. A segment that no checkpoint names is harmless: it is removed by the next
``discard``, and a resumed run writes its slots again. The name of a segment contains its digest, so another segment of the
same slots never takes the place of one that an older checkpoint needs.

A segment is a safetensors file. Arrays of ``N`` slots have a leading axis of ``N n_envs`` rows, slot by slot. A reader
knows the size of the file and all bytes of its header beforehand.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jumar.errors import DamagedFile, UsageError
from jumar.fields import DamagedEntry, record, several, text, whole
from jumar.runs.entries import PathLike, is_folder, name_of_temporary, open_plain, temporary_beside
from jumar.runs.files import Buffer, flush_folder, naming, write_pieces_flushed
from jumar.runs.rows import Column, DigestedFile, Rows, encode, header, order, parts_of, stored

NAME = re.compile(r"[0-9]{12}-[0-9]{12}-[0-9a-f]{16}\.safetensors")
"""The file names of segments: the first slot, the number of slots, and the beginning of the SHA-256."""

LARGEST_SLOT = 10**12 - 1
"""The number of a slot has up to twelve digits in a name."""

MOST_SEGMENTS = 50_000
"""How many segments a checkpoint may list: they take 12 MB of its description, of which 16 MiB can be read."""


@dataclass(frozen=True)
class Segment:
    """A segment, as a checkpoint names it.

    Attributes:
        first: the number of its first slot.
        slots: how many slots it holds.
        sha256: the SHA-256 of its file, in hexadecimal.
    """

    first: int
    slots: int
    sha256: str

    @property
    def end(self) -> int:
        """The number of the slot after its last one."""
        return self.first + self.slots

    @property
    def name(self) -> str:
        """The name of its file."""
        return f"{self.first:012d}-{self.slots:012d}-{self.sha256[:16]}.safetensors"

    def to_json(self) -> dict[str, Any]:
        """Return it as data for JSON, which ``read_segment`` reads."""
        return {"name": self.name, **asdict(self)}


_READ_SEGMENT = record(
    name=text(NAME.pattern, "the name of a segment"),
    first=whole(0, LARGEST_SLOT),
    slots=whole(1, LARGEST_SLOT),
    sha256=text("[0-9a-f]{64}", "a SHA-256 in hexadecimal"),
)


def read_segment(value: Any) -> Segment:
    """Read what ``Segment.to_json`` made: a reader of :mod:`jumar.fields`. Raises ``DamagedEntry``."""
    found = _READ_SEGMENT(value)
    name = found.pop("name")
    segment = Segment(**found)
    if segment.name != name:
        raise DamagedEntry.wrong(name, segment.name).inside("name")
    return segment


read_segments = several(read_segment, most=MOST_SEGMENTS)
"""A reader of the list of a checkpoint's segments."""


def needed(segments: Sequence[Segment], capacity: int) -> list[Segment]:
    """Return the segments that hold rows of the newest ``capacity`` slots: what a checkpoint has to list.

    Args:
        segments: those listed by the checkpoint before and the new one, oldest first.
        capacity: the slots of the buffer.

    Raises:
        ValueError: they leave out a slot that is needed, or do not follow each other.
        UsageError: they are more than ``MOST_SEGMENTS``.
    """
    if not segments:
        return []
    total = segments[-1].end
    found = [segment for segment in segments if segment.end > total - capacity]
    if fault := _fault(found, total, capacity):
        raise ValueError(f"these segments are no replay buffer: {fault}")
    if len(found) > MOST_SEGMENTS:
        raise UsageError(
            f"the replay buffer is saved in {len(found):,} pieces, and at most {MOST_SEGMENTS:,} can be read back: save "
            "checkpoints less often, or take a smaller buffer."
        )
    return found


def ring_rows(ring: np.ndarray, capacity: int, first: int, slots: int) -> tuple[np.ndarray, ...]:
    """Return the rows of some slots of a ring, oldest first, as views: one, or two where the slots wrap around.

    They are what ``SegmentStore.append`` takes, and where to put what ``SegmentStore.read`` returns:

    >>> ring = np.zeros((4, 1))
    >>> end = 0
    >>> for view in ring_rows(ring, capacity=4, first=3, slots=3):
    ...     view[...] = np.array([[3.0], [4.0], [5.0]])[end : (end := end + len(view))]
    >>> ring[:, 0].tolist()
    [4.0, 5.0, 0.0, 3.0]

    Args:
        ring: ``[capacity n_envs, ...]``; the rows of slot ``s`` begin at ``(s mod capacity) n_envs``.
        capacity: the slots of the ring.
        first: the number of the first slot.
        slots: how many slots, at most ``capacity``.

    Raises:
        ValueError: the ring has not the same number of rows for each slot, or has fewer slots than asked for.
    """
    if capacity < 1 or len(ring) % capacity:
        raise ValueError(f"a ring of {len(ring)} rows does not have {capacity} slots of equal size")
    if first < 0 or not 0 <= slots <= capacity:
        raise ValueError(f"{slots} slots from {first} on are not in a ring of {capacity} slots")
    n_envs = len(ring) // capacity
    begin = first % capacity
    before_the_end = min(slots, capacity - begin)
    parts = (begin, begin + before_the_end), (0, slots - before_the_end)
    return tuple(ring[start * n_envs : stop * n_envs] for start, stop in parts if stop > start)


class SegmentStore:
    """The segments of one run, in ``folder``.

    Reading changes nothing. Only one process may append or discard at a time. No link is followed, neither of a segment nor
    of the folder.
    """

    def __init__(self, folder: PathLike) -> None:
        self.folder = Path(folder)

    def append(self, first: int, slots: int, arrays: Mapping[str, Rows]) -> Segment:
        """Write some slots as a new segment, flush it to the disk and return it.

        It is digested while it is written to a temporary file, which is then renamed. The same slots with the same values
        make the same file, which is replaced. Another thread must not change the arrays meanwhile.

        Args:
            first: the number of the first slot.
            slots: how many slots. Rows that were overwritten since the last checkpoint cannot be appended: these are at
                most as many slots as the buffer has.
            arrays: ``[slots n_envs, ...]`` by name, each as one array or as several that follow each other, such as
                ``ring_rows`` returns.

        Raises:
            OSError: it cannot be written (a full disk, say); the other segments are unharmed, and nothing half is left.
            DamagedFile: a link or a file is in the place of the folder.
            ValueError: the numbers of slots do not fit the name or the rows; or as ``encode`` says.
        """
        if first < 0 or slots < 1 or first + slots - 1 > LARGEST_SLOT:
            raise ValueError(f"{slots} slots from {first} on cannot be a segment")
        for name, rows in arrays.items():
            if (found := sum(map(len, parts_of(rows)))) % slots:
                raise ValueError(f"{found} rows of {name!r} are not {slots} slots of equal size")
        pieces = encode(arrays)
        if not is_folder(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            flush_folder(self.folder.parent)
        # The digest is known when all is written; a temporary name needs the form alone.
        temporary = temporary_beside(self.folder / Segment(first, slots, "0" * 64).name)
        digest = hashlib.sha256()
        try:
            with naming(self.folder):
                write_pieces_flushed(temporary, _digested(pieces, digest))
            segment = Segment(first, slots, digest.hexdigest())
            os.replace(temporary, self.folder / segment.name)
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
        flush_folder(self.folder)
        return segment

    def read(
        self, segments: Sequence[Segment], total: int, capacity: int, n_envs: int, columns: Mapping[str, Column]
    ) -> dict[str, np.ndarray]:
        """Return the rows of the newest ``min(total, capacity)`` slots, oldest first: ``[slots n_envs, ...]`` by name.

        The list and the kind, the size and the header of every file are checked before memory is taken and rows are read;
        all digests are checked before anything is returned. At most twice the size of the buffer is read.

        Args:
            segments: those that a checkpoint lists (``needed``), oldest first. Of the first one, only the newest slots may
                be needed.
            total: how many slots had been written then.
            capacity: the slots of the buffer.
            n_envs: the rows of a slot.
            columns: the type and the shape of a row of each array.

        Raises:
            DamagedFile: the segments are not those of such a buffer; or a file is missing, is a link or no plain file, was
                changed or cut short, or holds other arrays. The message says which and why.
            ValueError: a type is none of ``TYPES``.
        """
        if fault := _fault(segments, total, capacity):
            raise DamagedFile(f"a checkpoint does not name the segments in {self.folder} that it needs: {fault}.")
        expected = [_Expected.of(segment, n_envs, columns) for segment in segments]
        if expected:
            is_folder(self.folder)  # refuses a link
        for each in expected:
            with self._opened(each):
                pass
        kept = min(total, capacity)
        arrays = {name: np.empty((kept * n_envs, *shape), stored(dtype)) for name, (dtype, shape) in columns.items()}
        for each in expected:
            # Below zero where the segment begins with rows that are too old.
            start = (each.segment.first - (total - kept)) * n_envs
            with self._opened(each) as file:
                for name in order(columns):
                    file.skip(max(0, -start) * columns[name].row_bytes)
                    file.read_into(arrays[name][max(0, start) : start + each.rows])
                file.check_digest(each.segment.sha256)
        return arrays

    def discard(self, keep: Iterable[Segment]) -> None:
        """Remove the segments that are not among ``keep``, and what killed processes left under temporary names.

        Everything else in the folder stays. A file that cannot be removed stays too, for the next time.

        Args:
            keep: the segments of all checkpoints that remain, not of the newest alone: if that one is damaged, the run goes
                on from an older one.

        Raises:
            DamagedFile: a link or a file is in the place of the folder.
            OSError: the folder cannot be read.
        """
        if not is_folder(self.folder):
            return
        kept = {segment.name for segment in keep}
        with os.scandir(self.folder) as entries:
            doomed = [
                entry.path
                for entry in entries
                if NAME.fullmatch(name_of_temporary(entry.name) or entry.name)
                and entry.name not in kept
                and entry.is_file(follow_symlinks=False)
            ]
        for path in doomed:
            with contextlib.suppress(OSError):
                os.unlink(path)

    @contextlib.contextmanager
    def _opened(self, expected: _Expected) -> Iterator[DigestedFile]:
        """Open the file of a segment at its first row, after checking its kind, its size and its header."""
        path = self.folder / expected.segment.name
        try:
            with os.fdopen(open_plain(path), "rb", buffering=0) as opened:
                size = os.fstat(opened.fileno()).st_size
                if size != expected.size:
                    raise DamagedFile(
                        f"{path} is damaged or foreign: it has {size} bytes, but {expected.rows} rows of "
                        f"{expected.described} take {expected.size}. Restore a copy."
                    )
                file = DigestedFile(opened, path)
                if file.read(len(expected.header)) != expected.header:
                    raise DamagedFile(
                        f"{path} does not hold {expected.rows} rows of {expected.described}, as it should; restore a copy."
                    )
                yield file
        except (FileNotFoundError, NotADirectoryError):
            raise DamagedFile(f"{path} is missing; a part of the replay buffer is expected there.") from None
        except OSError as error:
            raise DamagedFile(f"{path} cannot be read ({error.strerror}).") from None


class _Expected(NamedTuple):
    """What the file of a segment has to be."""

    segment: Segment
    rows: int
    header: bytes
    size: int
    described: str

    @staticmethod
    def of(segment: Segment, n_envs: int, columns: Mapping[str, Column]) -> _Expected:
        rows = segment.slots * n_envs
        beginning = header(columns, rows)
        size = len(beginning) + rows * sum(column.row_bytes for column in columns.values())
        described = ", ".join(f"{name} {column}" for name, column in columns.items())
        return _Expected(segment, rows, beginning, size, described)


def _fault(segments: Sequence[Segment], total: int, capacity: int) -> str | None:
    """Return why these segments are not exactly those of the newest ``capacity`` of ``total`` slots; ``None`` if they are."""
    start = max(0, total - capacity)
    needs = f"slots {start} to {total - 1} are needed" if total else "no slot is needed"
    if not segments:
        return f"there is none, but {needs}" if total else None
    if not segments[0].first <= start < segments[0].end:
        return f"the first, {segments[0].name}, does not hold slot {start}, but {needs}"
    end = segments[0].first
    for segment in segments:
        if segment.first != end:
            return f"{segment.name} begins with slot {segment.first}, but slot {end} is next"
        if segment.slots > capacity:
            return f"{segment.name} has {segment.slots} slots, but the buffer has {capacity}"
        end = segment.end
    return f"the last, {segments[-1].name}, ends with slot {end - 1}, but {needs}" if end != total else None


def _digested(pieces: Iterable[Buffer], digest: hashlib._Hash) -> Iterator[Buffer]:
    """Pass the pieces on, each one digested first."""
    for piece in pieces:
        digest.update(piece)
        yield piece
