"""Minari's data sets: read as their format has it, and what leads outside of the file, or is no experience, refused."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from jumar.errors import DamagedFile, UsageError
from jumar.runs.minari import read_minari

BOX = {"type": "Box", "dtype": "float32", "shape": [2], "low": [-float("inf")] * 2, "high": [float("inf"), 5.0]}
ACTION = {"type": "Box", "dtype": "float32", "shape": [1], "low": [-1.0], "high": [1.0]}
LENGTHS = (3, 11, 2)


def write(folder: Path, observation: Any = BOX, action: Any = ACTION, **more: Any) -> Path:
    """Write a data set of three episodes, numbers counting up; return its HDF5 file."""
    data = folder / "data"
    data.mkdir(parents=True)
    described = {"observation_space": json.dumps(observation), "action_space": json.dumps(action)}
    (data / "metadata.json").write_text(json.dumps({"data_format": "hdf5", **described, **more}))
    with h5py.File(data / "main_data.hdf5", "w") as file:
        for episode, n in enumerate(LENGTHS):
            group = file.create_group(f"episode_{episode}")
            count = 10 * episode + np.arange(n + 1, dtype=np.float64)
            if observation["type"] == "Dict":
                inside = group.create_group("observations")
                inside.create_dataset("goal", data=count.astype(np.int64) % 3, chunks=True)
                pair = inside.create_group("pair")
                pair.create_dataset("_index_0", data=count[:, None], chunks=True, maxshape=(None, 1))
            else:
                group.create_dataset("observations", data=np.stack([count, -count], axis=1), chunks=True)
            group.create_dataset("actions", data=np.full((n, 1), 0.1 * episode, np.float32))
            group.create_dataset("rewards", data=count[:n])
            group.create_dataset("terminations", data=np.arange(n) == (n - 1 if episode == 0 else -1))
            group.create_dataset("truncations", data=np.arange(n) == (n - 1 if episode == 1 else -1))
            group.create_group("infos").create_dataset("words", data=["x"] * (n + 1), dtype=h5py.string_dtype())
    return data / "main_data.hdf5"


@pytest.mark.parametrize("inner", ["", "data"])
def test_episodes_become_transitions_with_their_true_successors(inner: str, tmp_path: Path) -> None:
    write(tmp_path / "set")
    data, digest = read_minari(tmp_path / "set" / inner)
    counts = np.concatenate([10.0 * i + np.arange(n) for i, n in enumerate(LENGTHS)])
    assert len(data) == sum(LENGTHS)
    assert len(digest) == 64
    np.testing.assert_array_equal(data.observations, np.stack([counts, -counts], axis=1))
    np.testing.assert_array_equal(data.successors, np.stack([counts + 1, -counts - 1], axis=1))
    np.testing.assert_array_equal(data.rewards, counts)
    assert np.flatnonzero(data.terminated).tolist() == [2]
    assert np.flatnonzero(data.truncated).tolist() == [13]
    np.testing.assert_allclose(data.actions[-1], 0.2, rtol=1e-6)
    assert data.spaces[0].low.tolist() == [-np.inf, -np.inf]  # pyright: ignore[reportAttributeAccessIssue]


def test_parts_of_a_dict_are_read(tmp_path: Path) -> None:
    goal = {"type": "Discrete", "dtype": "int64", "n": 3, "start": 0}
    pair = {"type": "Tuple", "subspaces": [{**ACTION, "low": [-100.0], "high": [100.0]}]}
    write(tmp_path, {"type": "Dict", "subspaces": {"goal": goal, "pair": pair}})
    data, _ = read_minari(tmp_path)
    assert data.observations["goal"][:4].tolist() == [0, 1, 2, 1]
    assert data.successors["pair"][0][:3, 0].tolist() == [1.0, 2.0, 3.0]


def changed(name: str, value: Any) -> Callable[[h5py.File, Path], None]:
    """Return what puts another array in the place of one."""

    def change(file: h5py.File, _: Path) -> None:
        del file[name]
        file[name] = value

    return change


def external(file: h5py.File, folder: Path) -> None:
    with h5py.File(folder / "other.hdf5", "w") as other:
        other["rewards"] = np.zeros(11)
    del file["episode_1/rewards"]
    file["episode_1/rewards"] = h5py.ExternalLink(str(folder / "other.hdf5"), "rewards")


def soft(file: h5py.File, _: Path) -> None:
    del file["episode_1"]
    file["episode_1"] = h5py.SoftLink("/episode_0")


def virtual(file: h5py.File, folder: Path) -> None:
    layout = h5py.VirtualLayout((11,), np.float64)
    layout[:] = h5py.VirtualSource(str(folder / "other.hdf5"), "rewards", (11,))
    del file["episode_1/rewards"]
    file.create_virtual_dataset("episode_1/rewards", layout)


def outside(file: h5py.File, folder: Path) -> None:
    del file["episode_1/rewards"]
    raw = [(str(folder / "raw"), 0, 88)]
    file.create_dataset("episode_1/rewards", (11,), np.float64, external=raw)


def packed(file: h5py.File, _: Path) -> None:
    del file["episode_1/rewards"]
    file.create_dataset("episode_1/rewards", data=np.zeros(11), compression="gzip")


def huge(file: h5py.File, _: Path) -> None:
    del file["episode_1/rewards"]
    file.create_dataset("episode_1/rewards", (10**12,), np.float64, chunks=(1024,))


def repeated(file: h5py.File, _: Path) -> None:
    for index in range(3, 1000):
        file[f"episode_{index}"] = file["episode_1"]


def emptied(file: h5py.File, _: Path) -> None:
    for name in list(file):
        del file[name]


FAULTS: dict[str, tuple[Callable[[h5py.File, Path], None], str]] = {
    "external link": (external, "rewards of /episode_1 in .* is a link to elsewhere; it is not followed"),
    "soft link": (soft, "episode_1 of / in .* is a link to elsewhere"),
    "virtual": (virtual, "lies in other files; only what is in the file itself is read"),
    "external storage": (outside, "lies in other files"),
    "filter": (packed, "is packed by a filter; write it anew without one"),
    "huge": (huge, "is said to be larger than what there is of it"),
    "repeated links": (repeated, "is said to be larger than what there is of it"),
    "no episodes": (emptied, "holds no episodes"),
    "nan": (
        changed("episode_1/rewards", np.full(11, np.nan)),
        "rewards in .* is nan in row 3; all numbers must be finite",
    ),
    "short": (changed("episode_1/rewards", np.zeros(10)), "rewards of /episode_1 .* has 10 rows, and its actions 11"),
    "no last observation": (
        changed("episode_1/observations", np.zeros((11, 2))),
        "/episode_1/observations in .* has 11 rows; 11 steps have 12 observations",
    ),
    "shape": (changed("episode_1/observations", np.zeros((12, 3))), r"of shape \[3\]; \[2\] is its space's"),
    "outside of the space": (changed("episode_1/actions", np.full((11, 1), 2.0)), r"the action \[2.0\] in row 3"),
    "one value": (changed("episode_1/rewards", 1.0), "is one value, not a row for each step"),
    "text": (changed("episode_1/rewards", ["x"] * 11), "is of the type object, which is no number"),
}


@pytest.mark.parametrize("name", list(FAULTS))
def test_what_is_no_sound_data_set_is_refused(name: str, tmp_path: Path) -> None:
    change, message = FAULTS[name]
    with h5py.File(write(tmp_path / "set"), "a") as file:
        change(file, tmp_path)
    with pytest.raises(DamagedFile, match=message):
        read_minari(tmp_path / "set")


def test_a_part_that_is_of_another_kind_or_missing_is_refused(tmp_path: Path) -> None:
    with h5py.File(write(tmp_path / "set"), "a") as file:
        del file["episode_2/actions"]
        file.create_group("episode_2/actions")
    with pytest.raises(DamagedFile, match=r"/episode_2/actions in .* is no array"):
        read_minari(tmp_path / "set")
    with h5py.File(tmp_path / "set" / "data" / "main_data.hdf5", "a") as file:
        del file["episode_2/actions"]
    with pytest.raises(DamagedFile, match=r"/episode_2 in .* has no actions"):
        read_minari(tmp_path / "set")


def test_files_that_are_no_hdf5_are_refused(tmp_path: Path) -> None:
    main = write(tmp_path / "set")
    whole = main.read_bytes()
    for content in (b"", b"\x80\x04pickle", whole[: len(whole) // 2]):
        main.write_bytes(content)
        with pytest.raises(DamagedFile, match="is no sound HDF5 file"):
            read_minari(tmp_path / "set")
    main.unlink()
    with pytest.raises(DamagedFile, match="cannot be read"):
        read_minari(tmp_path / "set")
    os.mkfifo(main)
    with pytest.raises(DamagedFile, match="pipe"):
        read_minari(tmp_path / "set")


IMAGE = {"type": "Box", "dtype": "uint8", "shape": [4, 4, 3], "low": 0, "high": 255}


def test_images_as_jpeg_are_refused(tmp_path: Path) -> None:
    with h5py.File(write(tmp_path / "set", IMAGE), "a") as file:
        changed("episode_0/observations", np.zeros((4, 300), np.uint8))(file, tmp_path)
    with pytest.raises(DamagedFile, match="images as JPEG, which loses; write them with jpeg_encoding=False"):
        read_minari(tmp_path / "set")


@pytest.mark.parametrize(
    ("described", "message"),
    [
        ("[]", "does not describe a data set"),
        ("{", "is no JSON"),
        ("[" * 100_000, "is no JSON"),
        ('{"env_spec": "{}"}', r"does not say which spaces its transitions are of \(no 'observation_space'\)"),
        ('{"observation_space": 3}', "does not say which spaces"),
        ('{"observation_space": "{\\"type\\": \\"Text\\"}"}', "unknown type 'Text'"),
        ('{"observation_space": "[]"}', "does not say which spaces"),
    ],
)
def test_descriptions_that_say_nothing_are_refused(described: str, message: str, tmp_path: Path) -> None:
    main = write(tmp_path / "set")
    (main.parent / "metadata.json").write_text(described)
    with pytest.raises(DamagedFile, match=message):
        read_minari(tmp_path / "set")


def test_other_folders_and_formats_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"is a folder without Minari's metadata\.json"):
        read_minari(tmp_path)
    with pytest.raises(UsageError, match=r"there is no folder .*none with a data set"):
        read_minari(tmp_path / "none")
    write(tmp_path / "set", data_format="arrow")
    with pytest.raises(UsageError, match="in the format 'arrow'; only hdf5 is read"):
        read_minari(tmp_path / "set")


@pytest.mark.parametrize("kind", ["x" * 5000, {"spaces": {"spaces": {}}}, [1] * 5000, None, 3])
def test_a_format_that_is_none_is_told_in_few_words(kind: Any, tmp_path: Path) -> None:
    write(tmp_path, data_format=kind)
    with pytest.raises(UsageError, match=r"in the format .{1,70}; only hdf5 is read\.$"):
        read_minari(tmp_path)


def test_a_format_that_is_nested_deep_is_told_in_few_words(tmp_path: Path) -> None:
    write(tmp_path)
    deep = '{"data_format": ' + "[" * 900 + "]" * 900 + "}"
    (tmp_path / "data" / "metadata.json").write_text(deep)
    with pytest.raises(UsageError, match=r"in the format of a list; only hdf5 is read\.$"):
        read_minari(tmp_path)
