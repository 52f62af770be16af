"""Encoding of observations: every kind of space, which parts are normalised, and action masks."""

from __future__ import annotations

from typing import Any, cast

import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector.utils import batch_space

from jumar.errors import UsageError
from jumar.networks.layers import Image
from jumar.policies.moments import RunningMoments
from jumar.policies.observations import Encoder, finite, is_image

FLAGS = spaces.Box(np.zeros((10, 10, 4)), np.ones((10, 10, 4)), dtype=cast("Any", np.bool_))
BYTES = np.random.default_rng(0).integers(0, 256, (10, 12, 3), np.uint8)


def encoded(space: gym.Space[Any], observation: Any) -> dict[str, Any]:
    encoder = Encoder.of(space, normalise=False)
    return encoder.encode(observation, encoder.initial_moments())


@pytest.mark.parametrize(
    ("space", "observation", "expected"),
    [
        (spaces.Box(-9, 9, (3,)), np.array([1.0, -2.0, 3.5], np.float32), [1.0, -2.0, 3.5]),
        (spaces.Box(-9, 9, ()), np.array(4.0, np.float32), [4.0]),
        (spaces.Box(-9, 9, (2, 2), np.float64), np.array([[1.0, 2.0], [3.0, 4.0]]), [1.0, 2.0, 3.0, 4.0]),
        (spaces.Box(0, 9, (2,), np.uint8), np.array([7, 9], np.uint8), [7.0, 9.0]),
        (spaces.Discrete(3), np.int64(2), [0, 0, 1]),
        (spaces.Discrete(3, start=-1), np.int64(-1), [1, 0, 0]),
        (spaces.Discrete(3, start=5), np.int64(6), [0, 1, 0]),
        (spaces.MultiDiscrete([2, 3]), np.array([1, 0]), [0, 1, 1, 0, 0]),
        (spaces.MultiDiscrete([2, 3], start=[10, -1]), np.array([10, 1]), [1, 0, 0, 0, 1]),
        (spaces.MultiDiscrete(np.array([[2, 2], [2, 2]])), np.array([[1, 0], [0, 1]]), [0, 1, 1, 0, 1, 0, 0, 1]),
        (spaces.MultiBinary(3), np.array([1, 0, 1], np.int8), [1, 0, 1]),
        (spaces.MultiBinary((2, 2)), np.array([[1, 0], [0, 1]], np.int8), [1, 0, 0, 1]),
        (
            spaces.Dict({"b": spaces.Discrete(2), "a": spaces.Box(-9, 9, (2,))}),
            {"a": np.array([5.0, 6.0], np.float32), "b": np.int64(1)},
            [5, 6, 0, 1],
        ),
        (
            spaces.Tuple((spaces.MultiBinary(1), spaces.Box(-9, 9, (1,)))),
            (np.array([1], np.int8), np.array([7.0], np.float32)),
            [1, 7],
        ),
        (
            spaces.Dict({"x": spaces.Tuple((spaces.Discrete(2), spaces.Dict({"y": spaces.Box(-9, 9, (1,))})))}),
            {"x": (np.int64(0), {"y": np.array([3.0], np.float32)})},
            [1, 0, 3],
        ),
    ],
    ids=str,
)
def test_every_kind_of_space_becomes_a_vector(space: gym.Space[Any], observation: Any, expected: list[float]) -> None:
    features = encoded(space, observation)
    assert set(features) == {"vector"}
    assert features["vector"].dtype == jnp.float32
    np.testing.assert_array_equal(features["vector"], expected)
    assert Encoder.of(space, normalise=False).vector_size == len(expected)
    # Any batch axes in front give the same, row by row.
    batch = jax.tree.map(lambda x: np.broadcast_to(x, (4, 2, *np.shape(x))), observation)
    np.testing.assert_array_equal(encoded(space, batch)["vector"], np.broadcast_to(expected, (4, 2, len(expected))))


def test_images_stay_bytes_with_their_channels_last() -> None:
    space = spaces.Box(0, 255, (10, 12, 3), np.uint8)
    assert Encoder.of(space, normalise=True).images == (Image(10, 12, 3),)
    result = encoded(space, BYTES)
    assert set(result) == {"image_0"}
    assert result["image_0"].dtype == jnp.uint8
    np.testing.assert_array_equal(result["image_0"], BYTES)


def test_channels_in_front_are_moved_to_the_end() -> None:
    space = spaces.Box(0, 255, (3, 10, 12), np.uint8)
    assert Encoder.of(space, normalise=True).images == (Image(10, 12, 3),)
    np.testing.assert_array_equal(encoded(space, np.moveaxis(BYTES, -1, 0))["image_0"], BYTES)
    batch = np.broadcast_to(np.moveaxis(BYTES, -1, 0), (4, 2, 3, 10, 12))
    np.testing.assert_array_equal(encoded(space, batch)["image_0"], np.broadcast_to(BYTES, (4, 2, 10, 12, 3)))


def test_images_and_numbers_side_by_side() -> None:
    image = spaces.Box(0, 255, (10, 12, 3), np.uint8)
    space = spaces.Dict({"left": image, "speed": spaces.Box(-9, 9, (2,)), "right": image})
    observation = {"left": BYTES, "right": BYTES[::-1], "speed": np.array([1.0, 2.0], np.float32)}
    result = encoded(space, observation)
    assert set(result) == {"image_0", "image_1", "vector"}
    order = list(space.spaces)
    for i, side in enumerate(name for name in order if name != "speed"):
        np.testing.assert_array_equal(result[f"image_{i}"], observation[side])
    np.testing.assert_array_equal(result["vector"], [1.0, 2.0])


@pytest.mark.parametrize(
    ("space", "image", "stored"),
    [
        (spaces.Box(0, 1, (10, 12, 3), np.float32), Image(10, 12, 3, False), jnp.float32),
        (spaces.Box(0, 254, (10, 12, 3), np.uint8), Image(10, 12, 3, False), jnp.uint8),
        (FLAGS, Image(10, 10, 4, False), jnp.uint8),
        (spaces.Box(-9, 9, (2, 5, 7), np.int64), Image(5, 7, 2, False), jnp.float32),
    ],
    ids=str,
)
def test_other_boxes_with_three_axes_are_planes(space: spaces.Box, image: Image, stored: Any) -> None:
    encoder = Encoder.of(space, normalise=True)
    assert not is_image(space)
    assert (encoder.images, encoder.vector_size, encoder.leaves[0].dtype) == ((image,), 0, stored)
    space.seed(0)
    sample = space.sample()
    expected = np.moveaxis(sample, 0, -1) if image.channels == 2 else sample
    np.testing.assert_array_equal(encoded(space, sample)["image_0"], expected)
    assert encoder.blank((2,)).dtype == encoder.keep(sample).dtype == stored


@pytest.mark.parametrize(
    "space",
    [spaces.Box(0, 255, (10, 12), np.uint8), spaces.Box(0, 1, (12, 4, 6)), spaces.Box(0, 1, (3, 4, 4))],
    ids=str,
)
def test_boxes_with_other_axes_or_small_planes_are_numbers(space: spaces.Box) -> None:
    assert not is_image(space)
    assert Encoder.of(space, normalise=False).vector_size == np.prod(space.shape)


def test_images_and_planes_can_be_flattened() -> None:
    space = spaces.Tuple([spaces.Box(0, 255, (10, 12, 3), np.uint8), spaces.Box(0, 1, (5, 5, 2))])
    encoder = Encoder.of(space, normalise=False, flatten=True)
    assert (encoder.images, encoder.vector_size) == ((), 360 + 50)
    planes = np.random.default_rng(1).random((5, 5, 2)).astype(np.float32)
    vector = encoder.encode((BYTES, planes), encoder.initial_moments())["vector"]
    np.testing.assert_allclose(vector, np.concatenate([BYTES.ravel() / 255, planes.ravel()]), rtol=1e-6)
    assert encoder.keep((BYTES, planes))[0].dtype == jnp.uint8, "bytes stay bytes in a store"


def test_what_becomes_of_each_part_is_said_in_words() -> None:
    space = spaces.Dict(
        {
            "camera": spaces.Box(0, 255, (10, 12, 3), np.uint8),
            "grid": spaces.Box(0, 1, (5, 6, 1)),
            "map": spaces.Box(0, 255, (10, 12), np.uint8),
            "place": spaces.Discrete(4),
            "speed": spaces.Box(-9, 9, ()),
        }
    )
    assert (
        [leaf.describe() for leaf in Encoder.of(space, normalise=False).leaves]
        == [
            "observation['camera']: an image of 10 x 12 with 3 channels, through a convolutional network",
            "observation['grid']: planes of 5 x 6 with 1 channel, through a convolutional network",
            "observation['map']: a vector of 120 numbers, flattened from 10 x 12",
            "observation['place']: one of 4, one-hot",
            "observation['speed']: a number",
        ]
        == Encoder.of(space, normalise=False).notes()
    )
    assert not Encoder.of(spaces.Box(-9, 9, (17,)), normalise=False).notes()


MIXED = spaces.Dict({"number": spaces.Box(-9, 9, (2,)), "place": spaces.Discrete(2), "switch": spaces.MultiBinary(1)})
MIXED_OBSERVATION = {
    "number": np.array([3.0, 90.0], np.float32),
    "place": np.int64(1),
    "switch": np.array([1], np.int8),
}


def test_only_numbers_are_normalised() -> None:
    encoder = Encoder.of(MIXED, normalise=True, clip=5.0)
    np.testing.assert_array_equal(encoder.is_number, [True, True, False, False, False])
    moments = RunningMoments(jnp.float32(10.0), jnp.full(5, 1.0), jnp.full(5, 4.0))
    result = encoder.encode(MIXED_OBSERVATION, moments)["vector"]
    np.testing.assert_allclose(result, [1.0, 5.0, 0.0, 1.0, 1.0], rtol=1e-6)
    np.testing.assert_array_equal(encoder.vector(MIXED_OBSERVATION), [3.0, 90.0, 0.0, 1.0, 1.0])


def test_nothing_is_normalised_unless_asked() -> None:
    moments = RunningMoments(jnp.float32(10.0), jnp.full(5, 1.0), jnp.full(5, 4.0))
    result = Encoder.of(MIXED, normalise=False).encode(MIXED_OBSERVATION, moments)["vector"]
    np.testing.assert_array_equal(result, [3.0, 90.0, 0.0, 1.0, 1.0])


def test_moments_have_one_entry_for_each_of_the_vectors() -> None:
    assert Encoder.of(MIXED, normalise=True).initial_moments().mean.shape == (5,)
    assert Encoder.of(spaces.Box(0, 255, (10, 12, 3), np.uint8), normalise=True).initial_moments().mean.shape == (0,)


MASKED = spaces.Dict({"action_mask": spaces.MultiBinary(3), "place": spaces.Discrete(2)})
MASKED_OBSERVATION = {"action_mask": np.array([1, 0, 1], np.int8), "place": np.int64(1)}


def test_an_action_mask_in_the_observation_is_taken_out_of_it() -> None:
    encoder = Encoder.of(MASKED, normalise=True, mask_size=3)
    np.testing.assert_array_equal(encoder.vector(MASKED_OBSERVATION), [0, 1])
    mask = encoder.mask(MASKED_OBSERVATION, None)
    assert mask is not None
    assert mask.dtype == bool
    np.testing.assert_array_equal(mask, [True, False, True])


def test_a_mask_with_the_shape_of_the_choices_is_flattened() -> None:
    space = spaces.Dict({"action_mask": spaces.MultiBinary((2, 2)), "place": spaces.Discrete(2)})
    encoder = Encoder.of(space, normalise=True, mask_size=4)
    assert encoder.vector_size == 2
    masks = np.array([[[1, 0], [0, 1]], [[1, 1], [0, 1]], [[0, 1], [1, 0]]], np.int8)
    result = encoder.mask({"action_mask": masks, "place": np.zeros(3, int)}, None)
    np.testing.assert_array_equal(np.asarray(result), masks.reshape(3, 4).astype(bool))


def test_a_mask_given_beside_the_observation_comes_first() -> None:
    mask = Encoder.of(MASKED, normalise=True, mask_size=3).mask(MASKED_OBSERVATION, jnp.array([0, 1, 1]))
    assert mask is not None
    np.testing.assert_array_equal(mask, [False, True, True])


def test_without_masks_there_is_none() -> None:
    assert Encoder.of(MIXED, normalise=True, mask_size=3).mask(MIXED_OBSERVATION, None) is None


def test_a_mask_of_another_length_is_refused_in_words() -> None:
    with pytest.raises(UsageError, match="action_mask has 3 entries; the action space needs 4"):
        Encoder.of(MASKED, normalise=True, mask_size=4)
    with pytest.raises(
        UsageError, match=r"action_mask has 6 entries; the action space needs 3.* A frame stack stacks masks too"
    ):
        Encoder.of(batch_space(MASKED, 2), normalise=True, mask_size=3)


def test_where_actions_have_no_masks_the_entry_is_an_observation_like_any_other() -> None:
    encoder = Encoder.of(MASKED, normalise=True, mask_size=None)
    np.testing.assert_array_equal(encoder.vector(MASKED_OBSERVATION), [1, 0, 1, 0, 1])
    assert encoder.mask(MASKED_OBSERVATION, None) is None


def test_a_mask_deeper_down_is_an_observation_like_any_other() -> None:
    inner: dict[str, gym.Space[Any]] = {"inner": spaces.Dict({"action_mask": spaces.MultiBinary(2)})}
    assert Encoder.of(spaces.Dict(inner), normalise=False, mask_size=3).vector_size == 2
    both = spaces.Dict({"action_mask": spaces.MultiBinary(3), **inner})
    assert Encoder.of(both, normalise=False, mask_size=3).vector_size == 2


def test_other_spaces_have_no_encoding() -> None:
    with pytest.raises(TypeError, match="no encoding for the space"):
        Encoder.of(spaces.Text(3), normalise=False)


def test_features_are_float32_with_64_bit_mode_on() -> None:
    encoder = Encoder.of(MIXED, normalise=True)
    observation = {**MIXED_OBSERVATION, "number": np.array([3.0, 90.0])}
    with jax.enable_x64(True):
        features = jax.eval_shape(encoder.encode, observation, encoder.initial_moments())
    assert features["vector"].dtype == jnp.float32


def test_what_is_no_number_is_hidden_from_a_policy_that_cannot_be_stopped() -> None:
    seen = finite({"a": jnp.array([1.0, jnp.nan, -jnp.inf]), "b": jnp.array([2, 3], jnp.int32)})
    np.testing.assert_array_equal(seen["a"], [1.0, 0.0, 0.0])
    np.testing.assert_array_equal(seen["b"], [2, 3])
