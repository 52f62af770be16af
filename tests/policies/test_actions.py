"""From a policy's actions to an environment's: clipping, integers, dtypes, and NumPy and JAX alike."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st

from jumar.policies.actions import ActionCodec, bounds_inside, narrow_dtype

BOTH = pytest.mark.parametrize("xp", [np, jnp], ids=["numpy", "jax"])


def taken(space: gym.Space[Any], actions: Any, xp: ModuleType, dtype: Any = np.float32) -> np.ndarray:
    """Return what the environment gets, in the space's own dtype, as whoever takes it from JAX widens it."""
    result = ActionCodec.of(space).to_environment(xp.asarray(np.array(actions, dtype)), xp)
    assert result.dtype == (space.dtype if xp is np else narrow_dtype(space.dtype))
    return np.asarray(result).astype(space.dtype)


@BOTH
def test_box_actions_are_clipped_to_each_bound_and_shaped(xp: ModuleType) -> None:
    space = spaces.Box(np.array([[-1, -2], [0, -5]], np.float32), np.array([[1, 2], [3, 5]], np.float32))
    result = taken(space, [[9, -9, -9, 0.5], [0.25, 1, 9, -9]], xp)
    np.testing.assert_array_equal(result, [[[1, -2], [0, 0.5]], [[0.25, 1], [3, -5]]])
    assert all(space.contains(row) for row in result)


@BOTH
def test_infinite_bounds_clip_nothing(xp: ModuleType) -> None:
    space = spaces.Box(np.array([-np.inf, -1], np.float32), np.array([2, np.inf], np.float32))
    np.testing.assert_array_equal(
        taken(space, [[-1e30, 1e30], [1e30, -1e30]], xp), np.array([[-1e30, 1e30], [2, -1]], np.float32)
    )


@BOTH
@pytest.mark.parametrize("bound", [0.1, 0.4, 0.7, 1.0, 1e-3, 1e300])
def test_clipped_actions_lie_inside_of_a_float64_box(xp: ModuleType, bound: float) -> None:
    # The float32 nearest to 0.4 is larger than 0.4.
    space = spaces.Box(-bound, bound, (2,), np.float64)
    result = taken(space, [3e38, -3e38], xp)
    assert space.contains(result)
    assert space.contains(taken(space, [min(bound, 3e38), -min(bound, 3e38)], xp))
    np.testing.assert_allclose(np.minimum(result, 3e38), np.clip([3e38, -3e38], -bound, bound), rtol=1e-6)


@BOTH
def test_a_box_of_integers_is_never_left_by_overflow(xp: ModuleType) -> None:
    # 2^31 - 1 is no float32, and the next one above it would wrap round to the lower bound.
    space = spaces.Box(-(2**31), 2**31 - 1, (2,), np.int32)
    result = taken(space, [1e20, -1e20], xp)
    assert result[0] > 2**31 - 2**8
    assert result[1] == -(2**31)
    small = spaces.Box(-2, 2, (3,), np.int8)
    np.testing.assert_array_equal(taken(small, [7.0, -7.0, 1.0], xp), [2, -2, 1])


@given(st.floats(-1e6, 1e6), st.floats(0, 1e6), st.floats(width=32, allow_nan=False))
@settings(max_examples=100, deadline=None)
def test_every_float64_box_contains_every_clipped_action(low: float, width: float, action: float) -> None:
    space = spaces.Box(low, low + width, (1,), np.float64)
    result = ActionCodec.of(space).to_environment(np.array([action], np.float32))
    assert space.contains(result)


def test_bounds_that_a_dtype_holds_are_kept_as_they_are() -> None:
    low, high = bounds_inside((-1.0, -np.inf, 0.25), (1.0, np.inf, 0.5), np.dtype("float32"))
    np.testing.assert_array_equal(low, np.array([-1, -np.inf, 0.25], np.float32))
    np.testing.assert_array_equal(high, np.array([1, np.inf, 0.5], np.float32))
    low, high = bounds_inside((0.1,), (0.4,), np.dtype("float32"))
    assert 0.1 <= float(low[0]) <= 0.1 + 1e-8
    assert 0.4 - 3e-8 <= float(high[0]) <= 0.4


@BOTH
def test_discrete_actions_get_the_start(xp: ModuleType) -> None:
    space = spaces.Discrete(4, start=-2)
    result = taken(space, [0, 1, 3], xp, np.int32)
    np.testing.assert_array_equal(result, [-2, -1, 1])
    assert result.shape == (3,)
    assert taken(space, 3, xp, np.int32) == 1


@BOTH
def test_multi_discrete_actions_get_their_starts_and_shape(xp: ModuleType) -> None:
    space = spaces.MultiDiscrete(np.array([[3, 2], [4, 5]]), start=np.array([[0, 10], [-3, 7]]))
    result = taken(space, [[2, 1, 3, 0], [0, 0, 0, 4]], xp, np.int32)
    np.testing.assert_array_equal(result, [[[2, 11], [0, 7]], [[0, 10], [-3, 11]]])
    assert all(space.contains(row) for row in result)


@BOTH
def test_bits_keep_their_values_and_get_the_spaces_dtype_and_shape(xp: ModuleType) -> None:
    space = spaces.MultiBinary((2, 2))
    result = taken(space, [[0, 1, 1, 0]], xp, np.int32)
    np.testing.assert_array_equal(result, [[[0, 1], [1, 0]]])
    assert space.contains(result[0])


@pytest.mark.parametrize(
    ("space", "size", "mask_size"),
    [
        (spaces.Box(-1, 1, (2, 3)), 6, None),
        (spaces.Discrete(5), 1, 5),
        (spaces.MultiDiscrete([3, 4]), 2, 7),
        (spaces.MultiBinary(4), 4, 8),
    ],
    ids=str,
)
def test_sizes_and_mask_sizes(space: gym.Space[Any], size: int, mask_size: int | None) -> None:
    codec = ActionCodec.of(space)
    assert (codec.size, codec.mask_size) == (size, mask_size)


@BOTH
def test_a_mask_leaves_a_choice_only_if_every_part_of_the_action_has_one(xp: ModuleType) -> None:
    def left(space: gym.Space[Any], masks: list[list[int]]) -> list[bool]:
        return np.asarray(ActionCodec.of(space).leaves_a_choice(xp.asarray(np.array(masks, bool)), xp)).tolist()

    assert left(spaces.Discrete(3), [[0, 0, 1], [0, 0, 0]]) == [True, False]
    choices = spaces.MultiDiscrete([2, 3])
    assert left(choices, [[1, 0, 0, 1, 0], [1, 1, 0, 0, 0], [0, 0, 1, 1, 1]]) == [True, False, False]
    assert left(spaces.MultiBinary(2), [[0, 1, 1, 0], [1, 1, 0, 0], [0, 0, 1, 1]]) == [True, False, False]


def test_other_spaces_have_no_policy() -> None:
    with pytest.raises(TypeError, match="no policy for the action space"):
        ActionCodec.of(spaces.Text(3))


def test_narrow_dtypes() -> None:
    names = {
        "float64": "float32",
        "int64": "int32",
        "uint64": "uint32",
        "float16": "float16",
        "uint8": "uint8",
        "bool": "bool",
    }
    assert {name: str(narrow_dtype(name)) for name in names} == names


def test_actions_stay_narrow_with_64_bit_mode_on() -> None:
    with jax.enable_x64(True):
        for space in (spaces.Box(-0.4, 0.4, (2,), np.float64), spaces.MultiDiscrete([3, 2]), spaces.Discrete(3)):
            codec = ActionCodec.of(space)
            actions = np.zeros(
                () if codec.kind == "discrete" else (2,), np.float32 if codec.kind == "box" else np.int32
            )
            result = jax.eval_shape(lambda x, codec=codec: codec.to_environment(x, jnp), actions)
            assert result.dtype == narrow_dtype(space.dtype)
