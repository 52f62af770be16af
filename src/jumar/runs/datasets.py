"""Data sets: stored transitions that off-policy methods learn from, in a file that executes nothing.

A data set is a safetensors file with the arrays ``observations``, ``actions``, ``rewards``, ``next_observations``,
``terminated`` and ``truncated``, ``[N, ...]`` each, and both spaces as JSON in its metadata. Where observations are a Dict or
a Tuple, there is an array for each part, ``observations/KEY``. Rows that follow each other in an episode lie one after another.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import Space, spaces

from jumar.errors import DamagedFile, UsageError
from jumar.fields import DamagedEntry
from jumar.policies.actions import narrow_dtype
from jumar.runs.entries import temporary_beside
from jumar.runs.files import flush_folder, naming, read_bytes, sha256, unpack_arrays, write_all, write_atomically
from jumar.runs.rows import Column, header, order, stored
from jumar.spaces import check_spaces, describe_space, nested, space_from_json, space_to_json

OBSERVATIONS, SUCCESSORS = "observations", "next_observations"
PLAIN = {"rewards": "f", "terminated": "b", "truncated": "b"}
"""The other arrays, and the kinds of their numbers."""
Put = Callable[[str, int, np.ndarray], None]
"""(array, first row, rows) -> writes them."""
SPACES = ("observation_space", "action_space")
LARGEST_HEADER = 2**24


@dataclass(frozen=True, eq=False)
class Dataset:
    """Transitions ``[N, ...]``; see the module's text.

    Attributes:
        observations: in the structure of the space, a Tuple being a dictionary of its indexes.
        actions: in the environment's units, ``[N, *shape]``.
        rewards: float32 ``[N]``.
        successors: what followed each step, the true last observation where an episode ended.
        terminated: boolean ``[N]``.
        truncated: boolean ``[N]``.
        spaces: of observations and actions.
    """

    observations: Any
    actions: np.ndarray
    rewards: np.ndarray
    successors: Any
    terminated: np.ndarray
    truncated: np.ndarray
    spaces: tuple[Space, Space]

    def __len__(self) -> int:
        """Return the number of transitions."""
        return len(self.rewards)


def parts(space: Space, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Space]]:
    """Yield the plain spaces of a space and where they are in it."""
    if isinstance(space, spaces.Dict):
        for key, part in space.spaces.items():
            yield from parts(part, (*path, key))
    elif isinstance(space, spaces.Tuple):
        for index, part in enumerate(space.spaces):
            yield from parts(part, (*path, index))
    else:
        yield path, space


def named(name: str, place: tuple[Any, ...]) -> str:
    """Return the name of the array of a part: ``observations/KEY``."""
    return "/".join([name, *map(str, place)])


def write_dataset(path: str | Path, data: Dataset) -> None:
    """Write a data set; a reader finds the old file or the new one.

    Raises:
        UsageError: there is nothing in it.
        OSError: the disk refuses.
    """
    import safetensors.numpy

    if len(data) == 0:
        raise UsageError(f"there are no transitions to write to {path}.")
    arrays = {"actions": data.actions, "rewards": data.rewards}
    arrays |= {"terminated": data.terminated, "truncated": data.truncated}
    for name, tree in ((OBSERVATIONS, data.observations), (SUCCESSORS, data.successors)):
        for place, _ in parts(data.spaces[0]):
            arrays[named(name, place)] = _picked(tree, place)
    metadata = _said_of(data.spaces)
    whole = {name: np.ascontiguousarray(arrays[name]) for name in sorted(arrays)}
    write_atomically(path, safetensors.numpy.save(whole, metadata=metadata))


@contextlib.contextmanager
def dataset_file(path: str | Path, n: int, spaces: tuple[Space, Space]) -> Iterator[Put]:
    """Write a data set of ``n`` transitions piece by piece; a reader finds the old file or, after the block, the new one.

    The block is given a function that writes the rows of an array from a row on: ``put("rewards", 10, rewards)``. It must
    write all rows of :func:`columns`.

    Raises:
        OSError: the disk refuses. The old file is unharmed, and nothing half is left.
    """
    path, made = Path(path), columns(spaces)
    beginning = header(made, n, _said_of(spaces))
    places, end = {}, len(beginning)
    for name in order(made):
        places[name], end = end, end + n * made[name].row_bytes
    temporary = temporary_beside(path)
    with naming(path):
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        try:
            write_all(descriptor, beginning)

            def put(name: str, first: int, rows: np.ndarray) -> None:
                column = made[name]
                data = np.ascontiguousarray(rows, column.dtype)
                assert data.shape[1:] == column.shape, (name, data.shape)
                os.lseek(descriptor, places[name] + first * column.row_bytes, os.SEEK_SET)
                write_all(descriptor, data.reshape(-1).view(np.uint8).data)

            try:
                yield put
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
        flush_folder(path.parent)


def columns(spaces: tuple[Space, Space]) -> dict[str, Column]:
    """Return the type and the shape of a row of each array of a data set of some spaces."""
    observation, action = spaces
    made = {name: Column(np.dtype("float32" if kind == "f" else bool), ()) for name, kind in PLAIN.items()}
    made["actions"] = _column(action)
    for name in (OBSERVATIONS, SUCCESSORS):
        made |= {named(name, place): _column(space) for place, space in parts(observation)}
    return made


def _column(space: Space) -> Column:
    return Column(stored(np.dtype(space.dtype)), tuple(space.shape or ()))


def _said_of(spaces: tuple[Space, Space]) -> dict[str, str]:
    """Return what the metadata of a data set says of its spaces."""
    return {name: json.dumps(space_to_json(space), sort_keys=True) for name, space in zip(SPACES, spaces, strict=True)}


def read_dataset(path: str | Path) -> tuple[Dataset, str]:
    """Read a data set; return it and the SHA-256 of its file.

    Raises:
        UsageError: it is not there, or is a folder.
        DamagedFile: it is no data set, is damaged, or holds what is no experience; the message says what and where.
    """
    path = Path(path)
    if not path.exists():
        raise UsageError(f"there is no data set {path}; --save-dataset writes one.")
    if path.is_dir():
        raise UsageError(f"{path} is a folder; a data set is a file, which --save-dataset writes.")
    data = read_bytes(path, "data set")
    arrays = unpack_arrays(data, path)
    found = _spaces_in(data, path)
    check_spaces(*found, f"the data set {path}")
    return check_arrays(arrays, found, path), sha256(data)


def _spaces_in(data: bytes, path: Path) -> tuple[Space, Space]:
    length = int.from_bytes(data[:8], "little")
    try:
        metadata = json.loads(data[8 : 8 + min(length, LARGEST_HEADER)]).get("__metadata__") or {}
        observation, action = (space_from_json(json.loads(metadata[name])) for name in SPACES)
    except (KeyError, ValueError, TypeError, RecursionError, AttributeError, DamagedEntry) as error:
        said = f"no {error}" if isinstance(error, KeyError) else str(error) or "no description of them"
        raise DamagedFile(f"{path} does not say which spaces its transitions are of ({said}); write it anew.") from None
    return observation, action


def check_arrays(arrays: Mapping[str, np.ndarray], found: tuple[Space, Space], path: Path) -> Dataset:
    """Return the data set of arrays that were read, if they are sound.

    Args:
        arrays: by the names that they have in the file.
        found: the spaces of observations and actions.
        path: of the file, for messages.

    Raises:
        DamagedFile: they do not fit the spaces, or hold what is no experience.
    """
    observation_space, action_space = found
    leaves = dict(parts(observation_space))
    expected = {named(name, place) for name in (OBSERVATIONS, SUCCESSORS) for place in leaves}
    expected |= {"actions", *PLAIN}
    if missing := sorted(expected - set(arrays)):
        raise DamagedFile(f"{path} has no array {missing[0]}; a data set has {', '.join(sorted(expected))}.")
    if extra := sorted(set(arrays) - expected):
        raise DamagedFile(f"{path} has an array {extra[0]:.100}, which a data set of these spaces does not.")
    n = len(arrays["rewards"]) if arrays["rewards"].ndim else 0
    if n == 0:
        raise DamagedFile(f"{path} holds no transitions.")
    for name, kind in PLAIN.items():
        _check_array(arrays[name], (n,), kind, name, path)
    trees: dict[str, Any] = {}
    for name in (OBSERVATIONS, SUCCESSORS):
        read = []
        for place, space in leaves.items():
            array = arrays[named(name, place)]
            _check_array(array, (n, *(space.shape or ())), _kind(space), named(name, place), path)
            read.append((place, _narrowed(array, space, named(name, place), path)))
        trees[name] = nested(read)
    actions = arrays["actions"]
    _check_array(actions, (n, *(action_space.shape or ())), _kind(action_space), "actions", path)
    _check_actions(actions, action_space, path)
    with np.errstate(over="ignore"):
        rewards = arrays["rewards"].astype(np.float32)
    if not np.all(np.isfinite(rewards)):
        raise DamagedFile(f"rewards in {path} are too large for single precision.")
    truncated = arrays["truncated"] & ~arrays["terminated"]
    return Dataset(trees[OBSERVATIONS], actions, rewards, trees[SUCCESSORS], arrays["terminated"], truncated, found)


def _narrowed(array: np.ndarray, space: Space, name: str, path: Path) -> np.ndarray:
    """Return an array of observations in the type that learning takes. Raises ``DamagedFile`` if that cannot hold it."""
    with np.errstate(over="ignore"):
        narrow = array.astype(narrow_dtype(array.dtype), copy=False)
    if narrow.dtype.kind == "f":
        if not np.all(np.isfinite(narrow)):
            raise DamagedFile(f"{name} in {path} is too large for single precision.")
        return narrow
    lowest, highest = _whole_range(space)
    if len(array) and not np.all((array >= lowest) & (array <= highest)):
        raise DamagedFile(f"{name} in {path} is not in its space, {describe_space(space)}.")
    return narrow


def _whole_range(space: Space) -> tuple[Any, Any]:
    """Return the least and the largest whole number that each entry of a space can have; of a Box, that its 32 bits hold.

    The bounds of a Box are not checked: many environments overstep them, in training too.
    """
    if isinstance(space, spaces.Discrete):
        return int(space.start), int(space.start) + int(space.n) - 1
    if isinstance(space, spaces.MultiDiscrete):
        return space.start, space.start + space.nvec - 1
    if isinstance(space, spaces.Box):
        limits = np.iinfo(narrow_dtype(space.dtype))
        return limits.min, limits.max
    return 0, 1


def _check_array(array: np.ndarray, shape: tuple[int, ...], kind: str, name: str, path: Path) -> None:
    if array.shape != shape or (array.dtype.kind not in kind):
        kinds = {"f": "floating-point numbers", "b": "booleans", "iub": "integers"}
        raise DamagedFile(
            f"{name} in {path} is {array.dtype}{list(array.shape)}; {kinds[kind]} of shape {list(shape)} are right."
        )
    if array.dtype.kind == "f":
        wrong = np.argwhere(~np.isfinite(array))
        if len(wrong):
            value = array[tuple(wrong[0])]
            raise DamagedFile(f"{name} in {path} is {value} in row {int(wrong[0][0])}; all numbers must be finite.")


def _check_actions(actions: np.ndarray, space: Space, path: Path) -> None:
    if isinstance(space, spaces.Box):
        inside = (actions >= space.low) & (actions <= space.high)
    elif isinstance(space, spaces.Discrete):
        inside = (actions >= space.start) & (actions < space.start + space.n)
    else:
        return
    outside = np.argwhere(~inside)
    if len(outside):
        row = int(outside[0][0])
        raise DamagedFile(
            f"the action {actions[row].tolist()} in row {row} of {path} is not in the action space, "
            f"{describe_space(space)}."
        )


def _kind(space: Space) -> str:
    return "f" if isinstance(space, spaces.Box) and np.dtype(space.dtype).kind == "f" else "iub"


def _picked(tree: Any, place: tuple[Any, ...]) -> np.ndarray:
    for step in place:
        tree = tree[step]
    return np.asarray(tree)
