"""Checkpoints: one folder per step, complete or not there, and the way back to the newest sound one.

``checkpoints/000000012288/`` holds ``state.safetensors`` (the arrays) and ``checkpoint.json`` (the step, the record
and the SHA-256 of the arrays). A folder is written under another name, flushed and renamed. A killed process may leave
folders under such other names; they are never read as checkpoints, and the next one that saves removes them.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from jumar.errors import DamagedFile, NewerFile, UsageError
from jumar.fields import DamagedEntry, Reader, mapping, reading, whole
from jumar.fields import record as record_of
from jumar.runs.entries import PathLike, is_folder, name_of_temporary, temporary_beside
from jumar.runs.files import (
    arrays_named,
    encode_json,
    flush_folder,
    pack_arrays,
    read_bytes,
    read_json,
    sha256,
    tree_to_arrays,
    unpack_arrays,
    write_flushed,
)

STATE = "state.safetensors"
DESCRIPTION = "checkpoint.json"
KIND = "checkpoint"
FILES = (STATE, DESCRIPTION)
LARGEST_STEP = 10**12 - 1
"""A folder's name has twelve digits."""
STEP_NAME = re.compile(r"[0-9]{12}")
SET_ASIDE = ".set-aside"
"""Ends the name of a checkpoint that is about to be replaced by another of the same step."""
FOLDER_NAME = re.compile(STEP_NAME.pattern + rf"({re.escape(SET_ASIDE)})?")


@dataclass(frozen=True)
class Checkpoint:
    """A sound checkpoint, as read.

    Attributes:
        step: environment steps taken when it was saved.
        arrays: the state's arrays by name; ``jumar.runs.files.arrays_to_tree`` makes the state of them.
        record: what was read of the plain data saved with it.
        warnings: a sentence for each newer checkpoint that is damaged and was passed over.
    """

    step: int
    arrays: dict[str, np.ndarray]
    record: dict[str, Any]
    warnings: list[str] = field(default_factory=list)


class CheckpointStore:
    """The checkpoints of one run, in ``folder``; of those saved, the newest ``keep`` stay.

    Reading changes nothing, so that a run can be looked at while it trains. Only one process may save at a time.
    """

    def __init__(self, folder: PathLike, keep: int = 3) -> None:
        if keep < 1:
            raise ValueError(f"keep={keep}: at least one checkpoint must stay")
        self.folder = Path(folder)
        self.keep = keep
        self._tidy = False

    def steps(self) -> list[int]:
        """Return the steps of all checkpoints, sound or not, oldest first."""
        return sorted(self._folders())

    def save(self, step: int, tree: Any, record: dict[str, Any]) -> None:
        """Write the checkpoint of ``step``, flush it to the disk, and only then drop the oldest beyond ``keep``.

        A checkpoint of the same step is replaced. ``tree`` is a pytree of arrays, ``record`` data for JSON.

        Raises:
            OSError: it cannot be written (a full disk, say); the checkpoints before it are unharmed.
            DamagedFile: a link or a file is in the place of their folder.
            ValueError, TypeError: ``tree`` or ``record`` cannot be kept (``tree_to_arrays``, ``write_json``).
        """
        if not 0 <= step <= LARGEST_STEP:
            raise ValueError(f"step={step}: a checkpoint's step has up to 12 digits and is not negative")
        data = pack_arrays(tree_to_arrays(tree))
        description = encode_json(KIND, {"step": step, "record": record}, {STATE: sha256(data)})
        if not is_folder(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            flush_folder(self.folder.parent)
        self._remove_leftovers()
        place = self._folder(step)
        temporary = temporary_beside(place)
        try:
            os.mkdir(temporary)
            write_flushed(temporary / STATE, data)
            write_flushed(temporary / DESCRIPTION, description)
            flush_folder(temporary)
            self._put_in_place(temporary, place)
        except OSError:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        self._drop_oldest(step)

    def newest(self, record_reader: Callable[[int], Reader[dict[str, Any]]] = lambda step: mapping) -> Checkpoint:
        """Return the newest sound checkpoint, with a warning for every newer one that is damaged.

        Args:
            record_reader: gives a reader of :mod:`jumar.fields` for the record of a step; what that refuses is damaged.

        Raises:
            UsageError: there is no checkpoint.
            NewerFile: the newest sound one is from a newer version of Jumar.
            DamagedFile: there are some, and all are damaged; the message says which and why.
        """
        folders = self._folders()
        if not folders:
            raise UsageError(f"there is no checkpoint in {self.folder}; nothing can be resumed from it.")
        damaged: dict[int, DamagedFile] = {}
        for step in sorted(folders, reverse=True):
            try:
                arrays, record = _read(folders[step], step, record_reader(step))
            except NewerFile:
                raise  # it is not damaged, and going on from an older one would replace it
            except DamagedFile as error:
                damaged[step] = error
            else:
                warnings = [f"the checkpoint of step {newer} was passed over: {damaged[newer]}" for newer in damaged]
                return Checkpoint(step, arrays, record, warnings)
        raise DamagedFile(f"no checkpoint is sound. {' '.join(map(str, damaged.values()))}")

    def sound(
        self, record_reader: Callable[[int], Reader[dict[str, Any]]], warn: Callable[[str], None]
    ) -> list[Checkpoint]:
        """Return all sound checkpoints, oldest first; ``warn`` hears of each that is damaged.

        ``record_reader`` is that of :meth:`newest`.

        Raises:
            UsageError: there is no checkpoint.
            NewerFile: one is from a newer version of Jumar.
            DamagedFile: there are some, and all are damaged.
        """
        folders = self._folders()
        if not folders:
            raise UsageError(f"there is no checkpoint in {self.folder}.")
        found, faults = [], []
        for step, folder in sorted(folders.items()):
            try:
                found.append(Checkpoint(step, *_read(folder, step, record_reader(step))))
            except NewerFile:
                raise
            except DamagedFile as error:
                faults.append(f"the checkpoint of step {step} was passed over: {error}")
        if not found:
            raise DamagedFile(f"no checkpoint is sound. {' '.join(faults)}")
        for words in faults:
            warn(words)
        return found

    def records(self, reader: Reader[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return what a reader of :mod:`jumar.fields` makes of the record of each checkpoint, oldest first.

        The arrays are not looked at.

        Raises:
            DamagedFile: one cannot be read.
        """
        found = []
        for _, folder in sorted(self._folders().items()):
            description = read_json(folder / DESCRIPTION, KIND)
            with reading(folder / DESCRIPTION):
                found.append(record_of(record=reader)(description)["record"])
        return found

    def discard_after(self, step: int) -> None:
        """Remove the checkpoints newer than ``step``, where a run goes on that had got further. Raises ``OSError``."""
        for newer, folder in self._folders().items():
            if newer > step:
                self._remove(folder)

    def _folders(self) -> dict[int, Path]:
        """Return the folder of each step. A link is none: it could lead out of the run directory."""
        if not is_folder(self.folder):
            return {}
        found = {entry.name: Path(entry) for entry in os.scandir(self.folder) if entry.is_dir(follow_symlinks=False)}
        # Set aside and not replaced: the process was killed between the two renames.
        aside = {name.removesuffix(SET_ASIDE): found[name] for name in found if name.endswith(SET_ASIDE)}
        return {int(name): folder for name, folder in (aside | found).items() if STEP_NAME.fullmatch(name)}

    def _folder(self, step: int) -> Path:
        return self.folder / f"{step:012d}"

    def _put_in_place(self, temporary: Path, place: Path) -> None:
        """Rename ``temporary`` to ``place``; what is there is set aside first, where a reader finds it meanwhile."""
        aside = place.with_name(place.name + SET_ASIDE)
        if os.path.lexists(place):
            self._remove(aside)
            os.replace(place, aside)
        os.replace(temporary, place)
        flush_folder(self.folder)
        with contextlib.suppress(OSError):
            self._remove(aside)

    def _drop_oldest(self, saved: int) -> None:
        others = [step for step in self.steps() if step != saved]
        for step in others[: max(0, len(others) - (self.keep - 1))]:
            # The new checkpoint is safe already; one too many is no reason to fail.
            with contextlib.suppress(OSError):
                self._remove(self._folders()[step])

    def _remove(self, path: Path) -> None:
        """Remove a file, a link or a folder. A folder is renamed first: half of one must not pass for a checkpoint."""
        if path.is_dir() and not path.is_symlink():
            doomed = path
            if name_of_temporary(path.name) is None:
                doomed = temporary_beside(path)
                os.replace(path, doomed)
            shutil.rmtree(doomed, ignore_errors=True)
        elif os.path.lexists(path):
            os.unlink(path)

    def _remove_leftovers(self) -> None:
        """Once per store: bring back what was set aside and not replaced, and remove what a killed process left."""
        if self._tidy:
            return
        for step, folder in self._folders().items():
            if folder.name.endswith(SET_ASIDE):
                os.replace(folder, self._folder(step))
        for entry in list(self.folder.iterdir()):
            if _is_leftover(entry.name):
                with contextlib.suppress(OSError):
                    self._remove(entry)
        self._tidy = True


def _is_leftover(name: str) -> bool:
    """Whether a folder of that name is one that Jumar wrote to, set aside, or was about to remove."""
    meant = name_of_temporary(name)
    return bool(FOLDER_NAME.fullmatch(meant if meant is not None else name)) and not STEP_NAME.fullmatch(name)


def _read(folder: Path, step: int, read_record: Reader[dict[str, Any]]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return the arrays and the record in ``folder``. Raises ``DamagedFile``."""
    description = read_json(folder / DESCRIPTION, KIND)
    with reading(folder / DESCRIPTION):
        if (found := record_of(step=whole(0, LARGEST_STEP))(description)["step"]) != step:
            raise DamagedEntry.wrong(found, f"{step}, as the folder is named").inside("step")
        known = record_of(record=read_record, arrays=arrays_named(STATE))(description)
    data = read_bytes(folder / STATE, "state file")
    if sha256(data) != known["arrays"][STATE]:
        raise DamagedFile(f"{folder / STATE} was changed or cut short after Jumar wrote it.")
    return unpack_arrays(data, folder / STATE), known["record"]
