"""Data sets: written and read back, and what is none is refused in words."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from gymnasium import spaces

from jumar.errors import DamagedFile, UsageError
from jumar.runs.datasets import Dataset, read_dataset, write_dataset

BOX = spaces.Box(-5.0, 5.0, (2,), np.float32)
ACTIONS = spaces.Box(-1.0, 1.0, (1,), np.float32)


def some_data(n: int = 6, space: Any = BOX, action_space: Any = ACTIONS) -> Dataset:
    space.seed(0)
    action_space.seed(0)

    def drawn() -> Any:
        samples = [space.sample() for _ in range(n)]
        if isinstance(space, spaces.Dict):
            return {key: np.stack([sample[key] for sample in samples]) for key in space.spaces}
        return np.stack([np.asarray(sample) for sample in samples])

    actions = np.stack([np.asarray(action_space.sample()) for _ in range(n)])
    flags = np.arange(n) % 3 == 2
    return Dataset(
        drawn(), actions, np.arange(n, dtype=np.float32), drawn(), flags, np.zeros(n, bool), (space, action_space)
    )


@pytest.mark.parametrize(
    ("space", "action_space"),
    [
        (BOX, ACTIONS),
        (spaces.Discrete(4), spaces.Discrete(3, start=2)),
        (spaces.Dict({"goal": spaces.Discrete(3), "view": spaces.Box(0, 255, (2, 3, 1), np.uint8)}), ACTIONS),
        (spaces.Box(-1.0, 1.0, (1,), np.float64), spaces.MultiBinary(2)),
    ],
    ids=["box", "discrete", "dict", "double"],
)
def test_a_data_set_comes_back(space: Any, action_space: Any, tmp_path: Path) -> None:
    data = some_data(space=space, action_space=action_space)
    write_dataset(tmp_path / "file", data)
    back, digest = read_dataset(tmp_path / "file")
    assert len(digest) == 64
    for name in ("actions", "rewards", "terminated", "truncated"):
        np.testing.assert_array_equal(getattr(back, name), getattr(data, name))
    for name in ("observations", "successors"):
        here, there = getattr(back, name), getattr(data, name)
        keys = list(there) if isinstance(there, dict) else [...]
        for key in keys:
            np.testing.assert_allclose(here[key], there[key], rtol=1e-6)
    assert back.spaces == data.spaces


def written(path: Path, without: str = "", metadata: Any = None, **changes: Any) -> Path:
    """Write a data set with other arrays in the place of some."""
    write_dataset(path, some_data())
    raw = path.read_bytes()
    arrays = safetensors.numpy.load(raw)
    if metadata is None:
        with safetensors.safe_open(path, "np") as file:
            metadata = file.metadata()
    arrays = {**arrays, **changes}
    arrays.pop(without, None)
    path.write_bytes(safetensors.numpy.save(arrays, metadata=metadata or None))
    return path


ROWS = np.zeros((6, 2), np.float32)
CASES: dict[str, tuple[dict[str, Any], str]] = {
    "missing array": ({"without": "rewards"}, "has no array rewards; a data set has actions, "),
    "extra array": ({"values": np.zeros(6)}, "has an array values, which a data set of these spaces does not"),
    "long extra array": ({"v" * 5000: np.zeros(6)}, "has an array v{100}, which"),
    "no rows": ({"rewards": np.zeros(0, np.float32)}, "holds no transitions"),
    "fewer rows": (
        {"terminated": np.zeros(5, bool)},
        r"terminated in .* is bool\[5\]; booleans of shape \[6\] are right",
    ),
    "numbers for flags": ({"terminated": np.zeros(6, np.float32)}, "terminated in .* booleans"),
    "another shape": (
        {"observations": np.zeros((6, 3), np.float32)},
        r"observations in .* of shape \[6, 2\] are right",
    ),
    "integers": ({"next_observations": np.zeros((6, 2), np.int64)}, "next_observations .* floating-point numbers"),
    "NaN": ({"observations": np.where(np.arange(6)[:, None] == 4, np.nan, ROWS)}, "observations in .* is nan in row 4"),
    "infinite reward": ({"rewards": np.full(6, np.inf, np.float32)}, "rewards in .* is inf in row 0"),
    "huge reward": ({"rewards": np.full(6, 1e300)}, "too large for single precision"),
    "huge observation": (
        {"observations": np.full((6, 2), 1e300)},
        "observations in .* is too large for single precision",
    ),
    "action outside": (
        {"actions": np.full((6, 1), 2.0, np.float32)},
        r"the action \[2.0\] in row 0 of .* is not in the",
    ),
    "no spaces": ({"metadata": {}}, "does not say which spaces"),
    "spaces that are none": (
        {"metadata": {"observation_space": "[1]", "action_space": "{}"}},
        "does not say which spaces",
    ),
}


@pytest.mark.parametrize("name", list(CASES))
def test_what_is_no_data_set_is_refused_in_words(name: str, tmp_path: Path) -> None:
    changes, said = CASES[name]
    with pytest.raises(DamagedFile, match=said):
        read_dataset(written(tmp_path / "file", **changes))


def test_files_that_are_something_else_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no data set"):
        read_dataset(tmp_path / "none")
    with pytest.raises(UsageError, match="is a folder"):
        read_dataset(tmp_path)
    (tmp_path / "pickle").write_bytes(pickle.dumps({"rewards": [1.0]}))
    write_dataset(tmp_path / "whole", some_data())
    (tmp_path / "half").write_bytes((tmp_path / "whole").read_bytes()[:-9])
    (tmp_path / "empty").write_bytes(b"")
    for name in ("pickle", "half", "empty"):
        with pytest.raises(DamagedFile, match="is not an array file"):
            read_dataset(tmp_path / name)
    with pytest.raises(UsageError, match="no transitions to write"):
        write_dataset(tmp_path / "nothing", replace(some_data(), rewards=np.zeros(0, np.float32)))


def test_whole_numbers_beyond_the_bounds_of_a_box_are_read_as_training_takes_them(tmp_path: Path) -> None:
    space, path = spaces.Box(0, 10, (1,), np.int64), tmp_path / "file"
    write_dataset(path, some_data(space=space))
    with safetensors.safe_open(path, "np") as file:
        metadata = file.metadata()
    arrays = safetensors.numpy.load(path.read_bytes())
    arrays["next_observations"] = np.full_like(arrays["next_observations"], 11)
    path.write_bytes(safetensors.numpy.save(arrays, metadata=metadata))
    assert (read_dataset(path)[0].successors == 11).all()


@pytest.mark.parametrize(
    ("space", "array"),
    [
        (spaces.Discrete(4, start=1), [1, 2, 3, 4, 4, 2**32 + 1]),
        (spaces.Discrete(4), [0, 0, -1, 0, 0, 0]),
        (spaces.MultiDiscrete([2, 3]), [[1, 2]] * 5 + [[1, 3]]),
        (spaces.MultiBinary(1), [[0], [1], [1], [0], [0], [2]]),
        (spaces.Box(0, 255, (1,), np.uint8), [[0]] * 5 + [[256]]),
    ],
    ids=str,
)
def test_whole_numbers_that_would_become_others_are_refused(space: Any, array: Any, tmp_path: Path) -> None:
    """Narrowed to 32 or 8 bits they would be numbers of the space, and a one-hot entry be none."""
    path = tmp_path / "file"
    write_dataset(path, some_data(space=space))
    with safetensors.safe_open(path, "np") as file:
        metadata = file.metadata()
    arrays = safetensors.numpy.load(path.read_bytes())
    arrays["next_observations"] = np.asarray(array, np.int64)
    path.write_bytes(safetensors.numpy.save(arrays, metadata=metadata))
    with pytest.raises(DamagedFile, match=r"next_observations in .* is not in its space"):
        read_dataset(path)
