"""Arrays of rows as safetensors files, written and read piece by piece: large ones are neither copied nor parsed.

All arrays of a file have the same number of rows, ``[R, ...]``. The header depends on names, types, shapes and ``R``
alone. So a reader that knows what to expect compares it byte by byte, and never parses what a file says.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jumar.errors import DamagedFile
from jumar.runs.files import Buffer

PIECE = 2**20
"""Bytes that are digested and written, or read and digested, at a time: few enough to stay in a processor's cache."""

TYPES = {"b1": "BOOL", "u1": "U8", "i1": "I8", "f2": "F16", "f4": "F32", "f8": "F64"}
TYPES |= {f"{kind}{size}": f"{kind.upper()}{8 * size}" for kind in "ui" for size in (2, 4, 8)}
"""What safetensors calls the types of NumPy, by their kind and size."""

Rows = np.ndarray | Sequence[np.ndarray]
"""One array of rows, or several that follow each other, ``[R, ...]`` each."""


class Column(NamedTuple):
    """The type and the shape of one row of an array: ``Column(np.dtype("uint8"), (84, 84, 4))``."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return self.dtype.itemsize * math.prod(self.shape)

    def __str__(self) -> str:
        return f"{self.dtype}{list(self.shape)}"


def encode(arrays: Mapping[str, Rows]) -> Iterator[Buffer]:
    """Return the bytes of a safetensors file of some arrays, piece by piece.

    Little is copied: the pieces are views of the arrays, and copies of about ``PIECE`` bytes where an array does not lie
    in memory as it does in the file. The bytes depend on names, shapes, types and values alone.

    Args:
        arrays: ``[R, ...]`` by name, each as one array or as several that follow each other.

    Raises:
        ValueError: there is none, a name is reserved, a type is none of ``TYPES``, an array has no rows or not as many as
            the others, or its parts differ.
    """
    parts = {name: parts_of(rows) for name, rows in arrays.items()}
    columns = {name: _column(name, each) for name, each in parts.items()}
    counts = {name: sum(map(len, each)) for name, each in parts.items()}
    if len(set(counts.values())) != 1 or 0 in counts.values():
        raise ValueError(f"a file of rows has arrays of the same number of rows, and at least one; not {counts}")
    beginning = header(columns, next(iter(counts.values())))
    return chain([beginning], (piece for name in order(columns) for piece in _pieces(parts[name], columns[name])))


def header(columns: Mapping[str, Column], rows: int, metadata: Mapping[str, str] | None = None) -> bytes:
    """Return the beginning of a safetensors file of arrays of so many rows, and of texts by name beside them.

    Raises:
        ValueError: a name is reserved, or a type is none of ``TYPES``.
    """
    entries: dict[str, Any] = {} if metadata is None else {"__metadata__": dict(metadata)}
    end = 0
    for name in order(columns):
        dtype, shape = columns[name]
        known = TYPES.get(f"{dtype.kind}{dtype.itemsize}")
        if name == "__metadata__" or known is None:
            raise ValueError(f"a file of rows cannot hold the array {name!r} of type {dtype}")
        start, end = end, end + rows * columns[name].row_bytes
        entries[name] = {"dtype": known, "shape": [rows, *shape], "data_offsets": [start, end]}
    described = json.dumps(entries, separators=(",", ":"), ensure_ascii=True).encode("ascii")
    described += b" " * (-len(described) % 8)
    return len(described).to_bytes(8, "little") + described


class DigestedFile:
    """A file that is read from its beginning, and digested meanwhile."""

    def __init__(self, file: io.FileIO, path: Path) -> None:
        self._file, self._path = file, path
        self._digest = hashlib.sha256()

    def read(self, size: int) -> bytes:
        """Return the next ``size`` bytes. Raises as ``read_into``."""
        found = np.empty(size, np.uint8)
        self.read_into(found)
        return found.tobytes()

    def skip(self, size: int) -> None:
        """Pass over the next ``size`` bytes. Raises as ``read_into``."""
        unwanted = np.empty(min(size, PIECE), np.uint8)
        for start in range(0, size, PIECE):
            self.read_into(unwanted[: size - start])

    def read_into(self, array: np.ndarray) -> None:
        """Fill an array with the next bytes. Raises ``OSError``, and ``DamagedFile`` where the file ends before."""
        rest = _bytes(array)
        while rest:
            if not (count := self._file.readinto(rest[:PIECE])):
                raise DamagedFile(f"{self._path} was cut short while it was read; restore a copy.")
            self._digest.update(rest[:count])
            rest = rest[count:]

    def check_digest(self, sha256: str) -> None:
        """Raise ``DamagedFile`` unless what was read has this SHA-256."""
        if self._digest.hexdigest() != sha256:
            raise DamagedFile(
                f"{self._path} was changed after Jumar wrote it: it does not match its digest. Restore a copy."
            )


def order(columns: Mapping[str, Column]) -> list[str]:
    """Return the names in the order of the file: wide types first, so that every array is aligned."""
    return sorted(columns, key=lambda name: (-columns[name].dtype.itemsize, name))


def parts_of(rows: Rows) -> tuple[np.ndarray, ...]:
    """Return the parts of an array of rows: itself, where it is one array."""
    return (rows,) if isinstance(rows, np.ndarray) else tuple(rows)


def stored(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the type as it is in a file: little-endian."""
    return dtype.newbyteorder("<")


def _column(name: str, parts: tuple[np.ndarray, ...]) -> Column:
    """Return the type and the shape of the rows of an array."""
    found = {Column(stored(part.dtype), part.shape[1:]) for part in parts}
    if len(found) != 1:
        raise ValueError(f"the parts of the array {name!r} differ: {', '.join(map(str, found)) or 'there is none'}")
    return found.pop()


def _pieces(parts: tuple[np.ndarray, ...], column: Column) -> Iterator[memoryview]:
    """Yield the bytes of an array, some rows at a time."""
    at_a_time = max(1, PIECE // max(1, column.row_bytes))
    for part in parts:
        for start in range(0, len(part), at_a_time):
            yield _bytes(np.ascontiguousarray(part[start : start + at_a_time], column.dtype))


def _bytes(array: np.ndarray) -> memoryview:
    """Return the memory of a contiguous array. A cast of its own memory view would refuse one without elements."""
    return array.reshape(-1).view(np.uint8).data
