"""``python -m jumar.drills.struck FOLDER``: each operation on files of each kind of save fails once, in three ways.

A kill with the loss of what was not flushed, an error of this one operation, and a disk that is full from there on. Prints a
line of JSON for each. It is a process of its own because the operations are replaced in the whole process.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jumar.drills.disk_faults import each_fault
from jumar.errors import JumarError, UsageError
from jumar.fields import mapping
from jumar.runs.checkpoints import CheckpointStore
from jumar.runs.files import read_json, write_json
from jumar.runs.policy_files import read_policy_files, write_policy_files
from jumar.runs.segments import SegmentStore

KIND = "run configuration"
OLD, NEW = 1.0, 2.0


class Save(NamedTuple):
    """A kind of save: how it is written, and what a reader finds."""

    write: Callable[[Path, float], None]
    read: Callable[[Path], Any]


def _arrays(value: float) -> dict[str, np.ndarray]:
    return {"w": np.full(40, value, np.float32)}


def _checkpoint(folder: Path, value: float) -> None:
    CheckpointStore(folder / "checkpoints").save(int(64 * value), _arrays(value), {"value": value})


def _same_checkpoint(folder: Path, value: float) -> None:
    CheckpointStore(folder / "checkpoints").save(64, _arrays(value), {"value": value})


def _newest(folder: Path) -> Any:
    found = CheckpointStore(folder / "checkpoints").newest(lambda step: mapping)
    return found.record["value"], float(found.arrays["w"][0])


def _policy(folder: Path, value: float) -> None:
    write_policy_files(folder, _arrays(value), {"value": value})


def _read_policy(folder: Path) -> Any:
    arrays, description = read_policy_files(folder)
    return description["value"], float(arrays["w"][0])


def _config(folder: Path, value: float) -> None:
    write_json(folder / "config.json", KIND, {"value": value})


def _read_config(folder: Path) -> Any:
    value = read_json(folder / "config.json", KIND)["value"]
    return value, value


def _segment(folder: Path, value: float) -> None:
    SegmentStore(folder / "replay").append(0, 4, {"rows": np.full((4, 3), value, np.float32)})


def _read_segment(folder: Path) -> Any:
    """Return what the segments of the folder are; each one that has its name must be whole."""
    found = []
    for path in sorted((folder / "replay").glob("[0-9]*.safetensors")):
        if hashlib.sha256(path.read_bytes()).hexdigest()[:16] != path.stem.rpartition("-")[2]:
            return "half"
        found.append(float(np.frombuffer(path.read_bytes()[-4:], np.float32)[0]))
    return (max(found),) * 2 if found else None


SAVES: Mapping[str, Save] = {
    "checkpoint": Save(_checkpoint, _newest),
    "checkpoint replaced": Save(_same_checkpoint, _newest),
    "policy": Save(_policy, _read_policy),
    "config.json": Save(_config, _read_config),
    "segment": Save(_segment, _read_segment),
}


def _seen(read: Callable[[Path], Any], folder: Path) -> Any:
    try:
        return read(folder)
    except UsageError:
        return None  # there is none
    except JumarError as error:
        return str(error)


def strike(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield for each fault of each kind of save what it was, and what was lost if something was."""
    for name, save in SAVES.items():
        base = folder / name.replace(" ", "-")
        base.mkdir()

        def prepare(place: Path, save: Save = save) -> None:
            save.write(place, OLD)

        def act(place: Path, save: Save = save) -> None:
            save.write(place, NEW)

        def observe(place: Path, save: Save = save) -> Any:
            return _seen(save.read, place)

        for struck in each_fault(base, prepare, act, observe):
            lost = None
            if struck.seen not in ((OLD, OLD), (NEW, NEW)):
                lost = f"a reader finds neither the old one nor the new one, but {struck.seen!r}"
            elif not struck.repaired:
                lost = "saving once more does not mend it"
            yield {"try": f"{name}, {struck.mode} at operation {struck.at}", "lost": lost}


def main() -> None:
    """Print a line for each fault."""
    for each in strike(Path(sys.argv[1])):
        print(json.dumps(each), flush=True)


if __name__ == "__main__":
    main()
