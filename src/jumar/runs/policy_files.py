"""The two files of a policy, ``policy.safetensors`` and ``policy.json``, which change together or not at all.

Two files cannot be renamed at once. So the new arrays are first written beside the old ones, as
``policy.safetensors.new``; then ``policy.json``, which has their SHA-256, is renamed into place: from that moment the
pair is the new one. Last, the arrays are renamed over the old ones. A reader that finds arrays that are not those of
``policy.json`` takes the ones beside them.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

import numpy as np

from jumar.errors import DamagedFile, UsageError
from jumar.fields import reading, record
from jumar.runs.files import (
    LARGEST_JSON,
    PathLike,
    arrays_named,
    decode_json,
    flush_folder,
    pack_arrays,
    read_bytes,
    read_json,
    sha256,
    unpack_arrays,
    write_atomically,
    write_json,
)

ARRAYS = "policy.safetensors"
DESCRIPTION = "policy.json"
WAITING = "policy.safetensors.new"
FILES = (ARRAYS, DESCRIPTION, WAITING)
KIND = "policy"
READS = 5
"""How often a reader tries again while a writer changes the pair under it."""


def write_policy_files(folder: PathLike, arrays: dict[str, np.ndarray], description: dict[str, Any]) -> None:
    """Write a policy to ``folder`` (made if need be); at any kill a reader gets the old pair or the new one.

    The bytes of ``policy.safetensors`` depend only on the arrays.

    Raises:
        OSError: it cannot be written; the old pair is unharmed, or the new one is complete.
        ValueError: ``description`` has an entry with a reserved name (``jumar.runs.files.RESERVED``).
        TypeError: ``description`` holds what is not data.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    # Arrays that wait from a save that was cut short may be the only ones that policy.json knows.
    repair_policy_files(folder)
    data = pack_arrays(arrays)
    write_atomically(folder / WAITING, data)
    write_json(folder / DESCRIPTION, KIND, description, {ARRAYS: sha256(data)})
    os.replace(folder / WAITING, folder / ARRAYS)
    flush_folder(folder)


def remove_policy_files(folder: PathLike) -> None:
    """Remove a policy, and its folder if nothing else is in it. Raises ``OSError``."""
    folder = Path(folder)
    for name in (DESCRIPTION, WAITING, ARRAYS):  # in this order: a half removed policy is none
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            os.unlink(folder / name)
    with contextlib.suppress(OSError):
        os.rmdir(folder)


def repair_policy_files(folder: PathLike) -> None:
    """Complete or undo a ``write_policy_files`` that was cut short, so that only the pair is left. Raises ``OSError``.

    A policy that is damaged is left as it is.
    """
    folder = Path(folder)
    if not os.path.lexists(folder / WAITING):
        return
    try:
        expected = _array_digest(read_json(folder / DESCRIPTION, KIND), folder / DESCRIPTION)
        waiting = sha256(read_bytes(folder / WAITING, "array file"))
    except DamagedFile:
        return
    if waiting == expected:
        os.replace(folder / WAITING, folder / ARRAYS)
    else:
        os.unlink(folder / WAITING)
    flush_folder(folder)


def has_policy(folder: PathLike) -> bool:
    """Whether there is a policy in ``folder``, sound or not."""
    return os.path.lexists(Path(folder) / DESCRIPTION)


def read_policy_files(folder: PathLike) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return the arrays and the description that ``write_policy_files`` wrote to ``folder``. The folder is not changed.

    Raises:
        UsageError: there is no policy in ``folder``.
        DamagedFile: one of the files is damaged or foreign, or the two do not belong together.
    """
    folder = Path(folder)
    if not has_policy(folder):
        raise UsageError(f"there is no policy in {folder}: it has no {DESCRIPTION}.")
    for _ in range(READS):
        text = read_bytes(folder / DESCRIPTION, KIND, LARGEST_JSON)
        description = decode_json(text, folder / DESCRIPTION, KIND)
        data = _matching_arrays(folder, _array_digest(description, folder / DESCRIPTION))
        if data is not None:
            del description["arrays"]
            return unpack_arrays(data, folder / ARRAYS), description
        if read_bytes(folder / DESCRIPTION, KIND, LARGEST_JSON) == text:
            break  # no writer is at work: the files do not fit
    if not os.path.lexists(folder / ARRAYS):
        raise DamagedFile(f"{folder / ARRAYS} is missing, and {DESCRIPTION} beside it is not enough. Restore a copy.")
    raise DamagedFile(f"{folder / ARRAYS} is damaged, or not the one that {DESCRIPTION} describes. Restore a copy.")


def _matching_arrays(folder: Path, digest: str) -> bytes | None:
    # In this order and once more: a writer may move the waiting arrays into place between the first two looks.
    for name in (ARRAYS, WAITING, ARRAYS):
        if os.path.lexists(folder / name):
            try:
                data = read_bytes(folder / name, "array file")
            except DamagedFile:
                continue
            if sha256(data) == digest:
                return data
    return None


def _array_digest(description: dict[str, Any], path: Path) -> str:
    with reading(path):
        return record(arrays=arrays_named(ARRAYS))(description)["arrays"][ARRAYS]
