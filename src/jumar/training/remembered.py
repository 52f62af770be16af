"""The replay buffer of a run and the segments that keep it: which rows of the ring are new, and how they are put back.

A buffer of ``slots`` slots lies in a ring that has room for a block more (:mod:`jumar.experience.replay`): slot ``s``, as
:mod:`jumar.runs.segments` counts them, lies at place ``s mod places``. What is drawn from are the newest ``slots`` slots, and
these are what is kept. Where several seeds share a program, each array of the ring has a leading axis of seeds; a segment
then holds the array ``rows`` of seed number 2 as ``2/rows``, and so on.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import Array

from jumar.algorithms.off_policy.update import Learner, OffPolicy
from jumar.algorithms.update import Update
from jumar.errors import DamagedFile
from jumar.experience.replay import Arrays, Cursor, Replay
from jumar.fields import Reader, optional, record
from jumar.runs.checkpoints import CheckpointStore
from jumar.runs.rows import Column
from jumar.runs.segments import Segment, SegmentStore, needed, read_segments, ring_rows

MOST_LISTED = 1000
"""Where a checkpoint would list more segments than this, the whole buffer is written anew as one: lists stay short."""


@dataclass(frozen=True)
class Buffer:
    """What the ring of a run is like.

    Attributes:
        replay: the memory of one seed.
        n_seeds: ``None`` for one run; K where the arrays have a leading axis of K seeds.
    """

    replay: Replay
    n_seeds: int | None

    @classmethod
    def of(cls, update: Update, n_seeds: int | None) -> Buffer | None:
        """Return that of a method; ``None`` where it remembers nothing beside its learner."""
        return cls(update.replay, n_seeds) if isinstance(update, OffPolicy) else None

    @property
    def bytes(self) -> int:
        """The memory that the ring takes, in bytes."""
        replay = self.replay
        return (self.n_seeds or 1) * replay.places * replay.n_envs * replay.row_bytes

    @property
    def columns(self) -> dict[str, Column]:
        """The arrays of a segment: the type and the shape of a row of each."""
        arrays = jax.eval_shape(partial(self.replay.empty, 1))
        return {
            prefix + name: Column(np.dtype(x.dtype), tuple(x.shape[1:]))
            for prefix in self._prefixes
            for name, x in arrays.items()
        }

    def cursor(self, total: int) -> Cursor:
        """Return the cursor after so many slots."""
        place, filled = total % self.replay.places, min(total, self.replay.slots)
        return Cursor(np.int32(place), np.int32(filled))  # type: ignore[arg-type]

    def written_since(self, before: Learner, after: Learner) -> int:
        """Return how many slots an iteration wrote, between two learners: fewer than there are places."""
        return (int(after.clock.cursor.place) - int(before.clock.cursor.place)) % self.replay.places

    def forgotten(self, learner: Learner) -> Learner:
        """Return the learner of an empty buffer."""
        cursor = jax.tree.map(lambda x: jax.numpy.asarray(x), self.cursor(0))
        return learner._replace(clock=learner.clock._replace(cursor=cursor))

    def rows(self, ring: Arrays, first: int, slots: int) -> dict[str, tuple[np.ndarray, ...]]:
        """Return the rows of some slots by the names in a segment, oldest first, as views of the ring where it can be seen.

        From the memory of an accelerator only these rows are moved. Let go of them before the ring is donated: JAX would have
        to copy it.
        """
        found = {}
        for name, x in ring.items():
            if _is_seen(x):
                whole = np.asarray(x)
                for lane, prefix in enumerate(self._prefixes):
                    one = whole if self.n_seeds is None else whole[lane]
                    found[prefix + name] = ring_rows(one, self.replay.places, first, slots)
            else:
                moved = [np.asarray(part) for part in self._parts(x, first, slots)]
                for lane, prefix in enumerate(self._prefixes):
                    found[prefix + name] = tuple(moved if self.n_seeds is None else (part[lane] for part in moved))
        return found

    def _parts(self, whole: Array, first: int, slots: int) -> list[Array]:
        """Return the rows of some slots, oldest first, as new arrays where the ring is: one, or two where they wrap around."""
        replay = self.replay
        begin = first % replay.places
        before_the_end = min(slots, replay.places - begin)
        stretches = (begin, before_the_end), (0, slots - before_the_end)
        n, axis = replay.n_envs, 0 if self.n_seeds is None else 1
        return [_cut_out(whole, start * n, count * n, axis) for start, count in stretches if count]

    def put(self, ring: Arrays, rows: Mapping[str, np.ndarray], total: int) -> Arrays:
        """Return the ring with the newest rows in their places; ``ring`` is donated.

        Args:
            ring: a ring, whose other rows stay.
            rows: what ``SegmentStore.read`` returns: the newest slots, oldest first.
            total: how many slots had been written when they were saved.
        """
        replay = self.replay
        kept = min(total, replay.slots)
        begin = (total - kept) % replay.places
        before_the_end = min(kept, replay.places - begin)
        made = {}
        for name, whole in ring.items():
            for lane, prefix in enumerate(self._prefixes):
                lanes = () if self.n_seeds is None else (lane,)
                array = rows[prefix + name]
                for place, part in (
                    (begin, array[: before_the_end * replay.n_envs]),
                    (0, array[before_the_end * replay.n_envs :]),
                ):
                    if len(part):
                        start = (*lanes, place * replay.n_envs, *(0 for _ in part.shape[1:]))
                        whole = _put(whole, part.reshape(*(1 for _ in lanes), *part.shape), start)
            made[name] = whole
        return made

    @property
    def _prefixes(self) -> list[str]:
        return [""] if self.n_seeds is None else [f"{lane}/" for lane in range(self.n_seeds)]


def _is_seen(x: Array) -> bool:
    """Whether NumPy sees an array where it lies, in the memory of this machine's processors."""
    return all(device.platform == "cpu" for device in x.devices())


@partial(jax.jit, static_argnums=(2, 3))
def _cut_out(whole: Array, start: int, size: int, axis: int) -> Array:
    return jax.lax.dynamic_slice_in_dim(whole, start, size, axis)


@partial(jax.jit, donate_argnums=0)
def _put(whole: Array, part: Array, start: tuple[int, ...]) -> Array:
    return jax.lax.dynamic_update_slice(whole, part, start)


class BufferFiles:
    """Keeps the buffer of a run in a folder: each checkpoint writes the slots that are new, and names all that it needs.

    Args:
        folder: where the segments are.
        buffer: what the ring is like.
        segments: those of the checkpoint that a resumed run goes on from.
    """

    def __init__(self, folder: Path, buffer: Buffer, segments: list[Segment]) -> None:
        self._store, self._buffer, self._segments = SegmentStore(folder), buffer, segments

    def write(self, ring: Arrays, total: int) -> list[Segment]:
        """Write the slots that no segment of the last checkpoint has; return the segments that this one needs.

        Args:
            ring: the ring.
            total: how many slots have been written to it so far.

        Raises:
            OSError, DamagedFile: as ``SegmentStore.append``.
        """
        slots = self._buffer.replay.slots
        known = [] if len(self._segments) >= MOST_LISTED else self._segments
        new = min(total - (known[-1].end if known else 0), slots)
        if new == 0:
            return known
        rows = self._buffer.rows(ring, total - new, new)
        return needed([*known, self._store.append(total - new, new, rows)], slots)

    def saved(self, segments: list[Segment], checkpoints: CheckpointStore) -> None:
        """Take note that a checkpoint with these segments was saved, and remove those that none needs any more."""
        self._segments = segments
        discard_unnamed(self._store.folder, checkpoints)


_NAMED = record(segments=optional(read_segments))


def discard_unnamed(folder: Path, checkpoints: CheckpointStore, read: Reader[dict[str, Any]] = _NAMED) -> None:
    """Remove the segments that no checkpoint names. Where one cannot be read, all stay: it may be mended.

    Args:
        folder: where the segments are.
        checkpoints: all that there are.
        read: reads of a checkpoint's record which it names, as ``segments``; by default those of the replay buffer.
    """
    with contextlib.suppress(OSError, DamagedFile):
        records = checkpoints.records(read)
        SegmentStore(folder).discard([segment for each in records for segment in each["segments"] or ()])
