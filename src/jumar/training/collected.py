"""All steps that a run collects, kept beside its replay buffer, and the data set that is made of them.

The buffer forgets its oldest steps; a data set is to have all. So a run of ``--save-dataset`` keeps its steps a second time, as
segments (:mod:`jumar.runs.segments`) in a folder of their own. Each checkpoint writes the slots since the one before and names
all segments, so a run that goes on from it goes on with exactly the steps that it had then. Between checkpoints rows are
taken out of the ring before they are overwritten.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from gymnasium import Space

from jumar.errors import JumarError
from jumar.experience.replay import Arrays
from jumar.fields import DamagedEntry, exact_record, mapping, whole
from jumar.runs.checkpoints import CheckpointStore
from jumar.runs.datasets import dataset_file
from jumar.runs.segments import LARGEST_SLOT, Segment, SegmentStore, read_segments
from jumar.training.data import dataset_arrays
from jumar.training.remembered import Buffer, discard_unnamed

MOST_LISTED = 1000
"""Where there are more segments than this, two neighbours are joined: the list in a checkpoint stays short."""
PIECE = 2**25
"""Bytes of rows that are taken from the ring before a segment is written, and that a data set is made of at a time."""
ENTRY = "collected"
"""The entry of a checkpoint's record that names the segments; ``None`` where nothing is kept."""

Host = dict[str, np.ndarray]


class Kept(NamedTuple):
    """What a checkpoint says of the steps that are kept."""

    first: int
    """The number of the first slot: 0, unless the run was asked for a data set later on."""
    segments: list[Segment]

    @property
    def end(self) -> int:
        """The number of the slot after the last one."""
        return self.segments[-1].end if self.segments else self.first


_READ = exact_record(first=whole(0, LARGEST_SLOT), segments=read_segments)


def read_kept(value: Any) -> Kept | None:
    """Read what ``Collection.record`` made, or ``None``: a reader of :mod:`jumar.fields`. Raises ``DamagedEntry``."""
    if value is None:
        return None
    kept = Kept(**_READ(value))
    end = kept.first
    for segment in kept.segments:
        if segment.first != end:
            raise DamagedEntry.wrong(segment.name, f"the one that begins with slot {end}").inside("segments")
        end = segment.end
    return kept


def check_end(kept: Kept | None, slots: int) -> None:
    """Refuse what a checkpoint keeps after ``slots`` slots if it ends elsewhere. Raises ``DamagedEntry``."""
    if kept is not None and kept.end != slots:
        raise DamagedEntry.wrong(kept.end, f"{slots}, the number of slots so far").inside("end").inside(ENTRY)


class Collection:
    """Keeps the steps of a run of one seed in a folder.

    Args:
        folder: where the segments are.
        buffer: the replay buffer that steps are taken from.
        kept: what the checkpoint says that the run goes on from; at the beginning nothing.
    """

    def __init__(self, folder: Path, buffer: Buffer, kept: Kept) -> None:
        assert buffer.n_seeds is None, "a data set has the steps of one seed"
        self._store, self._buffer = SegmentStore(folder), buffer
        self.first, self._segments = kept.first, list(kept.segments)
        self._pending: list[tuple[int, Host]] = []
        """What was taken from the ring and is in no segment yet: slots, and their rows."""

    @property
    def record(self) -> dict[str, Any]:
        """What a checkpoint says of it, as JSON-ready data."""
        return {"first": self.first, "segments": [segment.to_json() for segment in self._segments]}

    def make_room(self, ring: Arrays, total: int) -> None:
        """Take what the next iteration may overwrite, and write it down where it has become much.

        Args:
            ring: the ring.
            total: how many slots have been written to it so far.

        Raises:
            OSError, DamagedFile: it cannot be written; it stays in memory, for the next time.
        """
        replay = self._buffer.replay
        if total - self._taken + replay.room > replay.places:
            self._take(ring, total)
        if sum(x.nbytes for _, rows in self._pending for x in rows.values()) > PIECE:
            self._flush()

    def write(self, ring: Arrays, total: int) -> None:
        """Write down all slots so far. Raises as :meth:`make_room`."""
        self._take(ring, total)
        self._flush()

    def saved(self, checkpoints: CheckpointStore) -> None:
        """Take note that a checkpoint was saved, and remove the segments that none needs any more."""
        forget_unnamed(self._store.folder, checkpoints)

    def write_dataset(self, path: Path, ring: Arrays, total: int, spaces: tuple[Space, Space]) -> int:
        """Write all steps so far as a data set, those of each environment one after another; return how many there are.

        Rows that are no experience are left out. One segment is in memory at a time; nothing in the folder is changed.

        Raises:
            JumarError: there is no step.
            UsageError: there were masks of actions that are no part of the observations.
            DamagedFile: a segment is missing or damaged.
            OSError: the file cannot be written.
        """
        self._take(ring, total)
        n_envs = self._buffer.replay.n_envs
        counts = np.zeros(n_envs, np.int64)
        for valid, _ in self._arrays(spaces):
            counts += valid.sum(axis=0)
        if not counts.any():
            raise JumarError(f"there are no steps to write to {path} yet.")
        places = np.cumsum(counts) - counts
        with dataset_file(path, int(counts.sum()), spaces) as put:
            for valid, arrays in self._arrays(spaces):
                for i in range(n_envs):
                    for name, x in arrays.items():
                        put(name, int(places[i]), x[valid[:, i], i])
                places += valid.sum(axis=0)
        return int(counts.sum())

    @property
    def _written(self) -> int:
        """The number of the slot after those that are in segments."""
        return self._segments[-1].end if self._segments else self.first

    @property
    def _taken(self) -> int:
        return self._written + sum(slots for slots, _ in self._pending)

    def _take(self, ring: Arrays, total: int) -> None:
        if new := total - self._taken:
            rows = self._buffer.rows(ring, total - new, new)
            # Copies: the ring is written to anew.
            self._pending.append((new, {name: np.concatenate(parts) for name, parts in rows.items()}))

    def _flush(self) -> None:
        if not self._pending:
            return
        slots = sum(slots for slots, _ in self._pending)
        arrays = {name: tuple(rows[name] for _, rows in self._pending) for name in self._pending[0][1]}
        self._segments.append(self._store.append(self._written, slots, arrays))
        self._pending = []
        while len(self._segments) > MOST_LISTED:
            self._join()

    def _join(self) -> None:
        """Write the two neighbours as one that have the fewest slots together."""
        sizes = [a.slots + b.slots for a, b in zip(self._segments, self._segments[1:], strict=False)]
        i = int(np.argmin(sizes))
        found = [self._read(segment) for segment in self._segments[i : i + 2]]
        arrays = {name: tuple(rows[name] for rows in found) for name in found[0]}
        self._segments[i : i + 2] = [self._store.append(self._segments[i].first, sizes[i], arrays)]

    def _read(self, segment: Segment) -> Host:
        buffer = self._buffer
        return self._store.read([segment], segment.end, segment.slots, buffer.replay.n_envs, buffer.columns)

    def _pieces(self) -> Iterator[tuple[int, Host]]:
        """Yield all rows, some slots at a time."""
        replay = self._buffer.replay
        at_once = max(1, PIECE // (replay.n_envs * replay.row_bytes))
        readings: list[tuple[int, Callable[[], Host]]] = [(s.slots, partial(self._read, s)) for s in self._segments]
        readings += [(slots, partial(dict, rows)) for slots, rows in self._pending]
        for slots, read in readings:
            rows = read()
            for begin in range(0, slots, at_once):
                n = min(at_once, slots - begin)
                part = slice(begin * replay.n_envs, (begin + n) * replay.n_envs)
                yield n, {name: x[part] for name, x in rows.items()}

    def _arrays(self, spaces: tuple[Space, Space]) -> Iterator[tuple[np.ndarray, Host]]:
        """Yield which rows are experience, ``[slots, N]``, and the arrays of a data set, ``[slots, N, ...]``, in pieces."""
        replay = self._buffer.replay
        before, back = None, 0
        for n, rows in self._pieces():
            # A stack of frames goes on from those of the slots before.
            joined = rows if before is None else {name: np.concatenate([before[name], x]) for name, x in rows.items()}
            valid, arrays = dataset_arrays(replay, joined, back + n, spaces)
            yield valid[back:], {name: x[back:] for name, x in arrays.items()}
            back = min(back + n, replay.oldest)
            before = {name: x[len(x) - back * replay.n_envs :] for name, x in joined.items()} if back else None


def forget_unnamed(folder: Path, checkpoints: CheckpointStore) -> None:
    """Remove the segments of ``folder`` that no checkpoint names, as :func:`jumar.training.remembered.discard_unnamed` does."""

    def named(value: Any) -> dict[str, Any]:
        kept = read_kept(mapping(value).get(ENTRY))
        return {"segments": None if kept is None else kept.segments}

    discard_unnamed(folder, checkpoints, named)
