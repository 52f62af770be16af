"""Batches of observations and actions: arrays with a leading axis over environments, in the structure of a space.

A batch of a plain space is one array ``[N, *shape]`` of the space's dtype, of a Dict space a dict of batches, of a
Tuple space a tuple of batches. Everything that enters one is checked against the space, so that nothing is broadcast,
cut or wrapped around in silence.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from gymnasium import Space, spaces

from jumar.spaces import is_text

Batch = Any
"""An array, or a dict or tuple of batches."""

LARGEST_SINGLE = float(np.finfo(np.float32).max)
FEW = 64
"""Up to so many numbers, a list is faster looked through than an array."""


class Misfit(Exception):
    """A value that does not fit its space; ``row`` is the environment it came from, where that is known."""

    def __init__(self, sentence: str, row: int | None = None) -> None:
        super().__init__(sentence)
        self.row = row


def empty(space: Space, n: int) -> Batch:
    """Return an uninitialised batch of ``n`` rows."""
    if isinstance(space, spaces.Dict):
        return {key: empty(child, n) for key, child in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(empty(child, n) for child in space.spaces)
    return np.empty((n, *_shape(space)), dtype=space.dtype)


def copy(batch: Batch) -> Batch:
    """Return a batch with arrays of its own."""
    if isinstance(batch, dict):
        return {key: copy(child) for key, child in batch.items()}
    if isinstance(batch, tuple):
        return tuple(copy(child) for child in batch)
    return batch.copy()


def concatenate(parts: Sequence[Batch]) -> Batch:
    """Join batches of the same structure along the axis over environments."""
    if isinstance(parts[0], dict):
        return {key: concatenate([part[key] for part in parts]) for key in parts[0]}
    if isinstance(parts[0], tuple):
        return tuple(concatenate(children) for children in zip(*parts, strict=True))
    return np.concatenate(parts)


def drop_text(space: Space, value: Any) -> Any:
    """Return an observation, or a batch of them, without the parts that are text in ``space``, its whole space.

    What does not fit the space is returned as it is: writing it into a batch will say what is wrong.
    """
    if isinstance(space, spaces.Dict) and isinstance(value, Mapping):
        parts = space.spaces
        return {
            key: drop_text(parts[key], part) if key in parts else part
            for key, part in value.items()
            if key not in parts or not is_text(parts[key])
        }
    if isinstance(space, spaces.Tuple) and isinstance(value, (tuple, list)) and len(value) == len(space.spaces):
        return tuple(
            drop_text(child, part) for child, part in zip(space.spaces, value, strict=True) if not is_text(child)
        )
    return value


def write_row(space: Space, batch: Batch, row: int, value: Any, path: str = "") -> None:
    """Copy one environment's ``value`` into ``batch[row]``.

    Raises:
        Misfit: where structure, shape or dtype do not fit the space.
    """
    for key, child in _children(space, value, path):
        write_row(child, batch[key], row, value[key], f"{path}[{key!r}]")
    if not isinstance(space, (spaces.Dict, spaces.Tuple)):
        batch[row] = _fitting(value, _shape(space), space, path)


def from_vector(space: Space, n: int, value: Any, path: str = "") -> Batch:
    """Return a new batch of ``n`` rows with what a vector environment returned.

    Raises:
        Misfit: where structure, shape or dtype do not fit the space.
    """
    children = _children(space, value, path)
    if isinstance(space, spaces.Dict):
        return {key: from_vector(child, n, value[key], f"{path}[{key!r}]") for key, child in children}
    if isinstance(space, spaces.Tuple):
        return tuple(from_vector(child, n, value[key], f"{path}[{key!r}]") for key, child in children)
    return np.array(_fitting(value, (n, *_shape(space)), space, path), dtype=space.dtype)


def check_values(space: Space, batch: Batch, path: str = "") -> None:
    """Refuse NaN and infinity, whole numbers outside of what the space counts, and what 32 bits do not hold.

    The bounds of a Box are not checked: many environments overstep them, and no policy relies on them. But policies see 64-bit
    numbers narrowed to 32 bits, where 3,000,000,000 would become -1,294,967,296, and 1e39 infinite.

    Raises:
        Misfit: with the row of the first bad value.
    """
    if isinstance(space, spaces.Dict):
        for key, child in space.spaces.items():
            check_values(child, batch[key], f"{path}[{key!r}]")
    elif isinstance(space, spaces.Tuple):
        for index, child in enumerate(space.spaces):
            check_values(child, batch[index], f"{path}[{index!r}]")
    elif isinstance(space, spaces.Box):
        _check_box(space.dtype, batch, path)
    else:
        low, high = _range(space)
        if not _all_within(batch, low, high):
            _report((batch < low) | (batch >= high), batch, path, f"in {space}")


def _check_box(dtype: np.dtype, batch: np.ndarray, path: str) -> None:
    if dtype.kind == "f":
        most = LARGEST_SINGLE if dtype.itemsize > 4 else math.inf
        if not all_finite(batch, most):
            _report(~np.isfinite(batch), batch, path, "finite")
            _report(np.abs(batch) > most, batch, path, f"within ±{most:.3g}, as policies see 32 bits; scale it")
    elif dtype.kind in "iu" and dtype.itemsize > 4:
        limits = np.iinfo(np.int32 if dtype.kind == "i" else np.uint32)
        low, high = int(limits.min), int(limits.max)
        if not _all_within(batch, low, high + 1):
            words = f"within {low:,} to {high:,}, as policies see 32 bits; scale it, or make it a float"
            _report((batch < low) | (batch > high), batch, path, words)


def prepare_actions(space: Space, actions: Any, n: int) -> np.ndarray:
    """Return actions as the environments take them: a new array ``[n, ...]`` of the space's dtype.

    Raises:
        Misfit: where an action has the wrong shape, is not finite, or is no choice of the space.
    """
    actions = np.asarray(actions)
    if actions.shape != (n, *_shape(space)):
        raise Misfit(f"actions of shape {actions.shape} instead of {(n, *_shape(space))}")
    if isinstance(space, spaces.Box):
        return _prepare_box(space, actions)
    if actions.dtype.kind not in "iub":
        raise Misfit(f"actions of dtype {actions.dtype} instead of whole numbers")
    low, high = _range(space)
    if not _all_within(actions, low, high):
        _report((actions < low) | (actions >= high), actions, "", f"in {space}")
    return actions.astype(space.dtype)


def _all_within(array: np.ndarray, low: Any, high: Any) -> bool:
    """Return whether ``low <= array < high`` everywhere."""
    if isinstance(low, int) and array.size <= FEW:
        values = array.ravel().tolist()
        return not values or (low <= min(values) and max(values) < high)
    return bool(((array >= low) & (array < high)).all())


def all_finite(array: np.ndarray, most: float = math.inf) -> bool:
    """Return whether no number is NaN or infinite, nor larger in magnitude than ``most``.

    The sum of squares is one call where the plain test takes three; only when it is too large is the plain test needed.
    """
    squares = np.vdot(array, array)
    if math.isfinite(squares) and squares <= most * most:
        return True
    return bool((np.isfinite(array) & (np.abs(array) <= most)).all())


def _prepare_box(space: spaces.Box, actions: np.ndarray) -> np.ndarray:
    if not all_finite(actions):
        _report(~np.isfinite(actions), actions, "", "finite")
    prepared = actions.astype(space.dtype)
    if prepared.dtype != actions.dtype:
        # What was clipped in single precision may lie a rounding error outside of bounds in double precision.
        np.minimum(np.maximum(prepared, space.low, out=prepared), space.high, out=prepared)
    return prepared


def _shape(space: Space) -> tuple[int, ...]:
    return space.shape or ()


def _range(space: Space) -> tuple[Any, Any]:
    """Return the lowest value and one more than the highest, elementwise, as plain integers (no wrap-around)."""
    if isinstance(space, spaces.Discrete):
        return int(space.start), int(space.start) + int(space.n)
    if isinstance(space, spaces.MultiDiscrete):
        start = space.start.astype(np.int64)
        return start, start + space.nvec.astype(np.int64)
    return 0, 2


def _report(bad: np.ndarray, batch: np.ndarray, path: str, wanted: str) -> None:
    """Raise a ``Misfit`` for the first bad number; return if there is none."""
    if not bad.any():
        return
    row, *index = (int(i) for i in np.argwhere(bad)[0])
    element = path + (f"[{', '.join(map(str, index))}]" if index else "")
    value = batch[(row, *index)]
    raise Misfit(f"{element or 'it'} is {value}, which is not {wanted}", row)


def _children(space: Space, value: Any, path: str) -> list[tuple[Any, Space]]:
    """Return the keys and parts of a nested space, once ``value`` is found to have the same ones."""
    if isinstance(space, spaces.Dict):
        if not isinstance(value, Mapping) or value.keys() != space.spaces.keys():
            found = f"the keys {sorted(map(str, value))}" if isinstance(value, Mapping) else _type(value)
            raise Misfit(f"{path or 'it'} is {found} instead of a dict with the keys {sorted(space.spaces)}")
        return list(space.spaces.items())
    if isinstance(space, spaces.Tuple):
        if not isinstance(value, (tuple, list)) or len(value) != len(space.spaces):
            found = f"{len(value)} parts" if isinstance(value, (tuple, list)) else _type(value)
            raise Misfit(f"{path or 'it'} is {found} instead of a tuple of {len(space.spaces)} parts")
        return list(enumerate(space.spaces))
    return []


def _type(value: Any) -> str:
    return f"{type(value).__name__} {value!r:.60}"


def _fitting(value: Any, shape: tuple[int, ...], space: Space, path: str) -> np.ndarray:
    """Return ``value`` as an array that can be copied into the space's dtype without a loss that matters."""
    try:
        array = np.asarray(value)
    except ValueError as error:  # lists of uneven lengths
        raise Misfit(f"{path or 'it'} is {_type(value)}, which is no array ({error})") from error
    if array.shape != shape:
        raise Misfit(f"{path or 'it'} has shape {array.shape} where its space has {shape}")
    dtype = space.dtype
    assert dtype is not None
    if array.dtype == dtype:
        return array
    if array.dtype.kind not in "fiub":
        raise Misfit(f"{path or 'it'} is {_type(value)}, not numbers")
    if dtype.kind == "f":
        with np.errstate(over="ignore"):  # what becomes infinite is reported by check_values
            return array.astype(dtype)
    with np.errstate(invalid="ignore"):
        exact = array.astype(dtype)
    if not np.array_equal(exact, array):
        raise Misfit(f"{path or 'it'} is {value!r:.60} of dtype {array.dtype}, which does not fit its space's {dtype}")
    return exact


# --- action masks --------------------------------------------------------------------------------------------------


def mask_segments(space: Space) -> tuple[int, ...]:
    """Return how many choices each factor of an action space has: the segments of its masks.

    Discrete: ``(n,)``; MultiDiscrete: its ``nvec``; MultiBinary: a pair (off, on) per switch, as in sb3-contrib;
    Box: none.
    """
    if isinstance(space, spaces.Discrete):
        return (int(space.n),)
    if isinstance(space, spaces.MultiDiscrete):
        return tuple(int(n) for n in space.nvec.flat)
    if isinstance(space, spaces.MultiBinary):
        return (2,) * int(np.prod(space.shape))
    return ()


def read_mask(segments: tuple[int, ...], mask: Any) -> np.ndarray:
    """Return an action mask as one boolean row ``[M]``, true where the action is allowed.

    ``mask`` is one array of all ``M`` flags, or Gymnasium's tuple of one array for each factor.

    Raises:
        Misfit: where the length is wrong, an entry is no flag, or a factor has no allowed choice left.
    """
    parts = mask if isinstance(mask, (tuple, list)) and any(np.ndim(part) for part in mask) else (mask,)
    row = np.concatenate([np.ravel(np.asarray(part)) for part in parts])
    if row.size != sum(segments):
        raise Misfit(f"has {row.size} entries where the action space has {sum(segments)} choices")
    check_flags(row)
    row = row.astype(bool)
    begin = 0
    for length in segments:
        if not row[begin : begin + length].any():
            raise Misfit("allows no action at all")
        begin += length
    return row


def check_flags(masks: np.ndarray) -> None:
    """Refuse action masks with entries that are neither true nor false, 1 nor 0.

    Raises:
        Misfit: with the index of the first such entry along the leading axis as its row.
    """
    if masks.dtype.kind == "b":
        return
    if masks.dtype.kind not in "iuf":
        raise Misfit(f"has entries of dtype {masks.dtype}; they must be boolean, or 0 and 1")
    strangers = (masks != 0) & (masks != 1)
    if strangers.any():
        raise Misfit(
            f"has the entry {masks[strangers][0]}; it must be boolean, or 0 and 1", int(np.argwhere(strangers)[0][0])
        )
