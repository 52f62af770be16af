"""Data sets in Minari's format: read with h5py, which the extra ``minari`` installs.

A Minari data set is a folder with ``data/metadata.json``, which says of which spaces it is, and ``data/main_data.hdf5`` with a
group ``episode_I`` for each episode of T steps: ``observations`` ``[T + 1, ...]``, ``actions`` ``[T, ...]``, ``rewards``,
``terminations`` and ``truncations`` ``[T]``; a Dict or a Tuple is a group of its parts. Minari itself is not used: it would
make the environment that a file names, and follow where its links lead. Of the file only what lies in it, plainly, is read.
https://minari.farama.org/content/dataset_standards/
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import Space, spaces

from jumar.errors import DamagedFile, UsageError
from jumar.fields import DamagedEntry
from jumar.runs.datasets import OBSERVATIONS, SPACES, SUCCESSORS, Dataset, check_arrays, named, parts
from jumar.runs.entries import open_plain
from jumar.runs.files import LARGEST_JSON, read_bytes
from jumar.spaces import check_spaces, space_from_json

METADATA, MAIN = "metadata.json", "main_data.hdf5"
EPISODE = re.compile(r"episode_(0|[1-9][0-9]{0,9})")
INSTALL = "reading Minari's data sets needs h5py; install it with: pip install 'jumar[minari]'"
_PLAIN = (("rewards", "rewards"), ("terminations", "terminated"), ("truncations", "truncated"))
"""Minari's names, and those of a data set."""


def read_minari(path: str | Path) -> tuple[Dataset, str]:
    """Read the Minari data set in a folder, or in its ``data``; return it and the SHA-256 of its HDF5 file.

    Raises:
        UsageError: there is none in the folder, or h5py is not installed.
        DamagedFile: it is damaged, leads outside of its file, or holds what is no experience; the message says what and where.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise UsageError(f"there is no folder {path} with a data set of Minari's.")
    if (folder / "data" / METADATA).exists():
        folder = folder / "data"
    if not (folder / METADATA).exists():
        raise UsageError(
            f"{path} is a folder without Minari's {METADATA}; a data set is a file that --save-dataset writes, or the "
            "folder of one of Minari's."
        )
    try:
        import h5py
    except ImportError:
        raise UsageError(f"{path}: {INSTALL}.") from None
    found = _spaces(folder / METADATA)
    main = folder / MAIN
    try:
        descriptor = open_plain(main)
    except OSError as error:
        raise DamagedFile(f"{main} cannot be read ({error.strerror}).") from None
    with open(descriptor, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        file.seek(0)
        try:
            with h5py.File(file, "r") as content:
                arrays = _Reader(main, os.fstat(descriptor).st_size, found).arrays(content)
        except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
            raise DamagedFile(f"{main} is no sound HDF5 file: {error}.") from None
    return check_arrays(arrays, found, main), digest


class _Reader:
    """Reads the episodes of one file.

    Args:
        path: of the file, for messages.
        size: its bytes; more is never read, whatever its links say.
        found: the spaces of observations and actions.
    """

    def __init__(self, path: Path, size: int, found: tuple[Space, Space]) -> None:
        self.path = path
        self.left = size
        self.spaces = found

    def arrays(self, content: Any) -> dict[str, np.ndarray]:
        """Return the arrays of a data set. Raises ``DamagedFile``."""
        names = [name for name in content if EPISODE.fullmatch(name)]
        if not names:
            raise DamagedFile(f"{self.path} holds no episodes.")
        episodes = [self._episode(content, name) for name in sorted(names, key=lambda name: int(name[8:]))]
        return {name: np.concatenate([episode[name] for episode in episodes]) for name in episodes[0]}

    def _episode(self, content: Any, name: str) -> dict[str, np.ndarray]:
        group = self._child(content, name)
        actions = self._array(group, "actions", self.spaces[1])
        arrays, n = {"actions": actions}, len(actions)
        for theirs, ours in _PLAIN:
            arrays[ours] = self._array(group, theirs)
        arrays["rewards"] = arrays["rewards"].astype(np.float64, copy=False)
        for place, space in parts(self.spaces[0]):
            keys = [key if isinstance(key, str) else f"_index_{key}" for key in place]
            holder, *rest = [OBSERVATIONS, *keys]
            within = group
            for key in rest:
                within, holder = self._child(within, holder), key
            rows = self._array(within, holder, space)
            if len(rows) != n + 1:
                raise DamagedFile(
                    f"{within.name}/{holder} in {self.path} has {len(rows)} rows; {n} steps have {n + 1} observations."
                )
            arrays[named(OBSERVATIONS, place)], arrays[named(SUCCESSORS, place)] = rows[:-1], rows[1:]
        for label, array in arrays.items():
            if len(array) != n:
                raise DamagedFile(f"{label} of {group.name} in {self.path} has {len(array)} rows, and its actions {n}.")
        return arrays

    def _child(self, group: Any, name: str) -> Any:
        """Return what lies under a name in a group, where it truly lies there."""
        import h5py

        if not isinstance(group, h5py.Group):
            raise DamagedFile(f"{group.name} in {self.path} is no group, as its space has it.")
        link = group.get(name, getlink=True)
        if link is None:
            raise DamagedFile(f"{group.name} in {self.path} has no {name}.")
        if not isinstance(link, h5py.HardLink):
            raise DamagedFile(f"{name} of {group.name} in {self.path} is a link to elsewhere; it is not followed.")
        return group[name]

    def _array(self, group: Any, name: str, space: Space | None = None) -> np.ndarray:
        import h5py

        found = self._child(group, name)
        where = f"{found.name} in {self.path}"
        if not isinstance(found, h5py.Dataset):
            raise DamagedFile(f"{where} is no array, as its space has it.")
        if found.is_virtual or found.external:
            raise DamagedFile(f"{where} lies in other files; only what is in the file itself is read.")
        if found.id.get_create_plist().get_nfilters():
            raise DamagedFile(f"{where} is packed by a filter; write it anew without one.")
        if found.dtype.kind not in "fiub":
            words = "; Minari writes images as JPEG unless jpeg_encoding=False" if _is_image(space) else ""
            raise DamagedFile(f"{where} is of the type {found.dtype}, which is no number{words}.")
        if found.ndim == 0:
            raise DamagedFile(f"{where} is one value, not a row for each step.")
        if _is_image(space) and found.ndim == 2:
            raise DamagedFile(f"{where} holds images as JPEG, which loses; write them with jpeg_encoding=False.")
        if (shape := (space.shape or ()) if space else ()) != found.shape[1:]:
            raise DamagedFile(f"a row of {where} is of shape {list(found.shape[1:])}; {list(shape)} is its space's.")
        self.left -= found.nbytes
        if found.id.get_storage_size() < found.nbytes or self.left < 0:
            raise DamagedFile(f"{where} is said to be larger than what there is of it; the file is cut off or forged.")
        return found[()]


def _is_image(space: Space | None) -> bool:
    return isinstance(space, spaces.Box) and space.dtype == np.uint8 and len(space.shape) == 3


def _spaces(path: Path) -> tuple[Space, Space]:
    """Return the spaces that the metadata describe; the environment that they may name is never made."""
    try:
        metadata = json.loads(read_bytes(path, "description of a data set", LARGEST_JSON))
    except (ValueError, RecursionError):
        raise DamagedFile(f"{path} is no JSON.") from None
    if not isinstance(metadata, Mapping):
        raise DamagedFile(f"{path} does not describe a data set.")
    if (kind := metadata.get("data_format", "hdf5")) != "hdf5":
        shown = f"{kind!r:.60}" if isinstance(kind, str) else f"of a {type(kind).__name__}"
        raise UsageError(f"{path} is of a data set in the format {shown}; only hdf5 is read.")
    try:
        observation, action = (space_from_json(_ours(json.loads(metadata[name]))) for name in SPACES)
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError, DamagedEntry) as error:
        said = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise DamagedFile(f"{path} does not say which spaces its transitions are of ({said}).") from None
    check_spaces(observation, action, f"the data set {path.parent}")
    return observation, action


def _ours(data: Any) -> dict[str, Any]:
    """Return Minari's description of a space in the words of :func:`jumar.spaces.space_to_json`."""
    match kind := data.get("type"):
        case "Dict":
            return {"type": kind, "spaces": [[key, _ours(part)] for key, part in data["subspaces"].items()]}
        case "Tuple":
            return {"type": kind, "spaces": [_ours(part) for part in data["subspaces"]]}
        case "Box":
            return {**data, "low": _bounds(data["low"]), "high": _bounds(data["high"])}
        case "MultiDiscrete":
            return {"start": np.zeros_like(data["nvec"]).tolist(), **data}
        case "MultiBinary":
            n = data["n"]
            return {"type": kind, "shape": n if isinstance(n, list) else [n]}
        case _:
            return dict(data)


def _bounds(value: Any) -> Any:
    """Return bounds whose infinities are words."""
    if isinstance(value, list):
        return [_bounds(part) for part in value]
    if isinstance(value, float) and abs(value) == float("inf"):
        return "inf" if value > 0 else "-inf"
    return value
