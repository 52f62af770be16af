"""Spaces: which are supported, and that they survive being written down, exactly."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from gymnasium import Space, spaces
from hypothesis import given, settings
from hypothesis import strategies as st

from jumar.errors import DamagedFile, UsageError
from jumar.spaces import (
    check_spaces,
    describe_space,
    require_interchangeable_spaces,
    same_space,
    space_from_json,
    space_to_json,
    without_text,
)

INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")


@st.composite
def boxes(draw: st.DrawFn) -> spaces.Box:
    dtype = np.dtype(draw(st.sampled_from(("float16", "float32", "float64", *INTEGERS))))
    shape = tuple(draw(st.lists(st.integers(1, 3), max_size=3)))
    size = int(np.prod(shape))
    if dtype.kind == "f":
        numbers = st.floats(allow_nan=False, width=dtype.itemsize * 8)  # type: ignore[arg-type]
    else:
        numbers = st.integers(int(np.iinfo(dtype).min), int(np.iinfo(dtype).max))
    pairs = [sorted(draw(st.tuples(numbers, numbers))) for _ in range(size)]
    if draw(st.booleans()):
        pairs = [pairs[0]] * size
    low, high = (np.array([pair[side] for pair in pairs], dtype).reshape(shape) for side in (0, 1))
    return spaces.Box(low, high, shape=shape, dtype=dtype.type)


plain_spaces = st.one_of(
    boxes(),
    st.builds(lambda n, start: spaces.Discrete(n, start=start), st.integers(1, 2**22), st.integers(-(2**40), 2**40)),
    st.builds(
        lambda pairs: spaces.MultiDiscrete([n for n, _ in pairs], start=[start for _, start in pairs]),
        st.lists(st.tuples(st.integers(1, 9), st.integers(-9, 9)), min_size=1, max_size=4),
    ),
    st.builds(spaces.MultiBinary, st.one_of(st.integers(1, 9), st.lists(st.integers(1, 3), min_size=2, max_size=3))),
)
all_spaces = st.recursive(
    plain_spaces,
    lambda children: st.one_of(
        st.lists(children, min_size=1, max_size=3).map(spaces.Tuple),
        st.lists(st.tuples(st.text(max_size=5), children), min_size=1, max_size=3, unique_by=lambda pair: pair[0]).map(
            spaces.Dict
        ),
    ),
    max_leaves=6,
)


def leaves(space: Space) -> list[Space]:
    if isinstance(space, spaces.Dict):
        return [leaf for child in space.spaces.values() for leaf in leaves(child)]
    if isinstance(space, spaces.Tuple):
        return [leaf for child in space.spaces for leaf in leaves(child)]
    return [space]


@settings(deadline=None, max_examples=150)
@given(all_spaces)
def test_written_and_read_back_it_is_the_same_space_bit_for_bit(space: Space) -> None:
    data = space_to_json(space)
    back = space_from_json(json.loads(json.dumps(data, allow_nan=False)))
    assert same_space(space, back)
    assert space_to_json(back) == data
    for old, new in zip(leaves(space), leaves(back), strict=True):
        assert type(old) is type(new)
        assert (old.shape, old.dtype) == (new.shape, new.dtype)
        if isinstance(old, spaces.Box) and isinstance(new, spaces.Box):
            assert old.low.tobytes() == new.low.tobytes()
            assert old.high.tobytes() == new.high.tobytes()
            assert np.array_equal(old.bounded_below, new.bounded_below)
            assert np.array_equal(old.bounded_above, new.bounded_above)


def test_keys_of_a_dict_keep_their_order() -> None:
    space = spaces.Dict([("z", spaces.Discrete(2)), ("a", spaces.Discrete(3))])
    back = space_from_json(space_to_json(space))
    assert isinstance(back, spaces.Dict)
    assert list(back.spaces) == ["z", "a"]
    assert same_space(space, spaces.Dict([("a", spaces.Discrete(3)), ("z", spaces.Discrete(2))]))


def test_infinite_bounds_of_integers_survive() -> None:
    space = spaces.Box(-np.inf, np.inf, (2,), np.int32)
    assert space_to_json(space)["low"] == "-inf"
    back = space_from_json(space_to_json(space))
    assert isinstance(back, spaces.Box)
    assert not back.is_bounded("below")
    assert back.low.tolist() == [-(2**31)] * 2


def test_a_large_image_is_short() -> None:
    assert len(json.dumps(space_to_json(spaces.Box(0, 255, (210, 160, 3), np.uint8)))) < 120


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (spaces.Box(0, 1, (2,)), spaces.Box(0, 1 + 1e-6, (2,))),
        (spaces.Box(0, 1, (2,), np.float32), spaces.Box(0, 1, (2,), np.float64)),
        (spaces.Discrete(3), spaces.Discrete(3, start=1)),
        (spaces.Discrete(3), spaces.MultiDiscrete([3])),
        (spaces.Dict(a=spaces.Discrete(3)), spaces.Dict(b=spaces.Discrete(3))),
        (spaces.Tuple([spaces.Discrete(3)]), spaces.Tuple([spaces.Discrete(3)] * 2)),
    ],
)
def test_different_spaces_are_not_the_same(first: Space, second: Space) -> None:
    assert same_space(first, first)
    assert not same_space(first, second)


BOX = {"type": "Box", "dtype": "float32", "shape": [2], "low": 0.0, "high": 1.0}


@pytest.mark.parametrize(
    "data",
    [
        None,
        [],
        {},
        {"type": "Graph"},
        {"type": ["Box"]},
        {**BOX, "more": 1},
        {**BOX, "dtype": "object"},
        {**BOX, "dtype": "f4,f4"},
        {**BOX, "shape": [-1]},
        {**BOX, "shape": [2.0]},
        {**BOX, "shape": [10**6, 10**6]},
        {**BOX, "low": "nan"},
        {**BOX, "low": float("nan")},
        {**BOX, "low": 2.0},
        {**BOX, "low": [0.0]},
        {**BOX, "low": [0.0, [0.0]]},
        {**BOX, "low": 1e39, "high": "inf"},
        {**BOX, "low": [1e39, 0.0], "high": "inf"},
        {**BOX, "dtype": "int8", "high": 300},
        {**BOX, "dtype": "int8", "high": [1, 300]},
        {**BOX, "dtype": "int8", "high": [1, 1.5]},
        {"type": "Discrete", "dtype": "int64", "n": 0, "start": 0},
        {"type": "Discrete", "dtype": "int64", "n": 2.5, "start": 0},
        {"type": "Discrete", "dtype": "float32", "n": 2, "start": 0},
        {"type": "MultiDiscrete", "dtype": "int64", "nvec": [2, 0], "start": [0, 0]},
        {"type": "MultiDiscrete", "dtype": "int64", "nvec": [2, 2], "start": [0]},
        {"type": "MultiDiscrete", "dtype": "int8", "nvec": [999], "start": [0]},
        {"type": "MultiBinary", "shape": "3"},
        {"type": "MultiBinary", "shape": [1] * 100},
        {"type": "Discrete", "dtype": "int64", "n": 10**9, "start": 0},
        {"type": "Discrete", "dtype": "int64", "n": 10**30, "start": 0},
        {"type": "MultiDiscrete", "dtype": "int64", "nvec": [10**7] * 4, "start": [0] * 4},
        {"type": "Tuple", "spaces": [{**BOX, "shape": [2**24]}] * 3},
        {"type": "Tuple", "spaces": [{"type": "Tuple", "spaces": []}] * 10_001},
        {"type": "Tuple", "spaces": {"a": BOX}},
        {"type": "Dict", "spaces": [["a", BOX], ["a", BOX]]},
        {"type": "Dict", "spaces": [[1, BOX]]},
    ],
)
def test_malformed_descriptions_are_refused(data: Any) -> None:
    with pytest.raises(DamagedFile, match="space"):
        space_from_json(data)


def test_bottomless_nesting_is_refused() -> None:
    data: dict[str, Any] = BOX
    for _ in range(500):
        data = {"type": "Tuple", "spaces": [data]}
    with pytest.raises(DamagedFile, match="deep"):
        space_from_json(data)


@pytest.mark.parametrize(
    ("observation", "action", "words"),
    [
        (spaces.Text(5), spaces.Discrete(2), "observation space of X is Text"),
        (spaces.Dict(a=spaces.Tuple([spaces.Text(5)])), spaces.Discrete(2), "at 'a' at 0 is Text"),
        (spaces.Dict(), spaces.Discrete(2), "an empty Dict"),
        (spaces.Box(0, 1, (0,)), spaces.Discrete(2), "no elements"),
        (spaces.Discrete(3, start=2**40), spaces.Discrete(2), "whose values do not fit in 32 bits; count from 0"),
        (spaces.Discrete(2), spaces.MultiDiscrete([2, 2], start=[0, 2**31 - 1]), "action .* do not fit in 32 bits"),
        (spaces.Discrete(2), spaces.Dict(a=spaces.Discrete(2)), "action space of X is Dict.* supported are Box, Disc"),
        (
            spaces.Dict(a=spaces.Discrete(2**24), b=spaces.MultiDiscrete([2**24, 1])),
            spaces.Discrete(2),
            "observation space of X has 33,554,433 elements; at most 33,554,432 are supported",
        ),
    ],
)
def test_unsupported_spaces_are_named(observation: Space, action: Space, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        check_spaces(observation, action, "X")


def test_text_is_left_out_of_observations() -> None:
    box, text = spaces.Box(0, 1, (2,)), spaces.Text(5)
    whole = spaces.Dict(a=spaces.Tuple([text, box, spaces.Dict(x=text)]), b=spaces.Tuple([text]), c=spaces.Discrete(3))
    left, where = without_text(whole)
    assert left == spaces.Dict(a=spaces.Tuple([box]), c=spaces.Discrete(3))
    assert where == ("['a'][0]", "['a'][2]", "['b']")
    for same in (box, spaces.Dict(a=box), text, spaces.Dict(a=spaces.Tuple([text])), spaces.Dict()):
        assert without_text(same) == (same, ())


def test_supported_spaces_pass() -> None:
    nested = spaces.Dict(a=spaces.Tuple([spaces.MultiBinary(2), spaces.Dict(b=spaces.MultiDiscrete([2]))]))
    for action in (spaces.Box(-1, 1), spaces.Discrete(2), spaces.MultiDiscrete([2, 3]), spaces.MultiBinary(2)):
        check_spaces(nested, action)


@pytest.mark.parametrize(
    ("space", "words"),
    [
        (spaces.Box(-1, 1, (6,)), "6 numbers in [-1, 1]"),
        (spaces.Box(-np.inf, np.inf, (17,)), "17 numbers"),
        (spaces.Box(np.zeros(2), np.arange(1.0, 3), dtype=np.float64), "2 numbers, bounded unevenly"),
        (spaces.Box(0, 255, (84, 84, 4), np.uint8), "image 84 x 84 x 4"),
        (spaces.Discrete(4), "one of 4"),
        (spaces.Discrete(4, start=-1), "one of 4 from -1"),
        (spaces.MultiDiscrete([3, 2]), "2 choices of 3 x 2"),
        (spaces.MultiBinary(8), "8 switches"),
        (spaces.Dict(a=spaces.Discrete(2), b=spaces.Tuple([spaces.Discrete(3)])), "{a: one of 2, b: (one of 3)}"),
    ],
)
def test_spaces_in_words(space: Space, words: str) -> None:
    assert describe_space(space) == words


def test_two_simulators_of_a_task_may_differ_in_width_and_in_bounds_of_observations() -> None:
    def pair(width: type, bound: float, torque: float = 1.0, n: int = 3) -> tuple[Space, Space]:
        seen = spaces.Dict({"at": spaces.Box(-bound, bound, (n,), width), "room": spaces.Discrete(4)})
        return seen, spaces.Box(-torque, torque, (2,), width)

    require_interchangeable_spaces(pair(np.float32, 5.0), pair(np.float64, np.inf), "Twin-v0")
    with pytest.raises(UsageError, match=r"the action space of Twin-v0 is 2 numbers in \[-2, 2\]"):
        require_interchangeable_spaces(pair(np.float32, 5.0, 2.0), pair(np.float64, 5.0), "Twin-v0")
    with pytest.raises(UsageError, match="the observation space of Twin-v0"):
        require_interchangeable_spaces(pair(np.float32, 5.0, n=4), pair(np.float64, 5.0), "Twin-v0")
    two = spaces.Discrete(2)
    with pytest.raises(UsageError, match="the action space"):
        require_interchangeable_spaces((two, two), (two, spaces.Discrete(2, start=1)), "T")
