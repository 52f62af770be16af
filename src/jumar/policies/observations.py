"""Encoding of observations: from the structure of the observation space to what networks take.

Numbers (Box) are flattened, Discrete and MultiDiscrete become one-hot, MultiBinary becomes 0 and 1, and all of them
are joined into one ``vector``. A Box with three axes stays as it is, for a convolutional network: an image if it is of
bytes from 0 to 255, else planes. A Dict space with an entry ``action_mask`` carries the mask of allowed actions in it: it
is taken out and is never seen by a network.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces
from jax import Array

from jumar.errors import UsageError, unknown
from jumar.networks.layers import Image, Seen
from jumar.networks.own import OwnEncoder, Part
from jumar.policies.moments import RunningMoments
from jumar.spaces import describe_space, nested

MASK_KEY = "action_mask"

SMALLEST_PLANE = 5
"""Entries on each side of a plane, for which convolutions are worth while: on fewer, a kernel of 3 x 3 sees nearly all."""


@dataclass(frozen=True)
class Leaf:
    """One plain space inside the observation space."""

    path: tuple[str | int, ...]
    kind: str
    """``numbers``, ``image``, ``planes``, ``one_hot`` or ``bits``."""
    shape: tuple[int, ...]
    choices: tuple[int, ...] = ()
    """For ``one_hot``: how many values each entry can take."""
    start: tuple[int, ...] = ()
    """For ``one_hot``: the smallest value of each entry."""
    channels_first: bool = False
    """For images and planes: whether the first axis is that of the channels."""
    dtype: Any = jnp.float32
    """The narrowest dtype that holds all that :meth:`encode` makes use of."""
    scale: float = 1.0
    """For ``numbers``: what they are multiplied by."""

    @property
    def convolved(self) -> bool:
        """Whether the leaf goes to a convolutional network and not into the joined vector."""
        return self.kind in ("image", "planes")

    @property
    def width(self) -> int:
        """How many entries of the joined vector this leaf fills."""
        if self.convolved:
            return 0
        return sum(self.choices) if self.kind == "one_hot" else math.prod(self.shape)

    @property
    def image(self) -> Image:
        """The shape and kind of what goes to a convolutional network."""
        a, b, c = self.shape
        height, width, channels = (b, c, a) if self.channels_first else (a, b, c)
        return Image(height, width, channels, self.kind == "image")

    def describe(self) -> str:
        """Say in words what becomes of this leaf."""
        name = "".join(f"[{step!r}]" for step in self.path)
        return f"observation{name}: {self._described()}"

    def _described(self) -> str:
        if self.convolved:
            image = self.image
            size = f"{image.height} x {image.width} with {image.channels} channel{'s' * (image.channels != 1)}"
            return f"{'an image' if image.is_bytes else 'planes'} of {size}, through a convolutional network"
        if self.kind != "one_hot":
            words = "a number" if self.width == 1 else f"a vector of {self.width} {self.kind}"
            return words if len(self.shape) < 2 else f"{words}, flattened from {' x '.join(map(str, self.shape))}"
        return f"one of {self.width}, one-hot" if len(self.choices) == 1 else f"{len(self.choices)} choices, one-hot"

    def pick(self, observation: Any) -> Any:
        """Return this leaf's part of an observation."""
        for step in self.path:
            observation = observation[step]
        return observation

    @property
    def counted(self) -> bool:
        """Whether the leaf is of choices or bits, whole numbers of which the space has some and no others."""
        return self.kind in ("one_hot", "bits")

    def outside(self, observation: Any) -> Array:
        """Return which entries of a :attr:`counted` part the space does not have, boolean in the part's shape."""
        x = jnp.asarray(self.pick(observation))
        if self.kind == "bits":
            return (x != 0) & (x != 1)
        low = np.reshape(self.start, self.shape).astype(np.int32)
        high = (low + (np.reshape(self.choices, self.shape) - 1)).astype(np.int32)
        return (x < low) | (x > high)

    def encode(self, observation: Any) -> Array:
        """Encode this leaf's part: ``[..., width]``, or ``[..., height, width, channels]`` if it is convolved."""
        x = jnp.asarray(self.pick(observation))
        batch = x.shape[: x.ndim - len(self.shape)]
        if self.convolved:
            return jnp.moveaxis(x, -3, -1) if self.channels_first else x
        x = x.reshape(*batch, math.prod(self.shape))
        if self.kind != "one_hot":
            return x.astype(jnp.float32) * self.scale if self.scale != 1.0 else x.astype(jnp.float32)
        parts = [
            jax.nn.one_hot(x[..., i] - start, n, dtype=jnp.float32)
            for i, (n, start) in enumerate(zip(self.choices, self.start, strict=True))
        ]
        return jnp.concatenate(parts, axis=-1)


@dataclass(frozen=True)
class Encoder:
    """Encodes and normalises observations of one space."""

    leaves: tuple[Leaf, ...]
    mask_axes: int
    """The axes of the action mask that the observation carries; 0 where it carries none."""
    normalise: bool
    """Whether the numbers in it are normalised by running moments."""
    clip: float
    acting: tuple[str, ...] | None = None
    """The parts of a Dict that are there when the policy acts; ``None``: all that are encoded."""
    own: OwnEncoder | None = None
    """The user's network that goes on from here, in policy and critic each with parameters of its own."""

    @classmethod
    def of(
        cls,
        space: gym.Space[Any],
        *,
        normalise: bool,
        clip: float = 10.0,
        mask_size: int | None = None,
        flatten: bool = False,
        acting: tuple[str, ...] | None = None,
        judging: tuple[str, ...] | None = None,
        own: OwnEncoder | None = None,
    ) -> Encoder:
        """Build the encoder of an observation space.

        ``acting`` are the parts of a Dict that the policy sees, ``judging`` those that the critic does; ``None``: all. What
        neither sees is left out. ``own`` is a network of the user's that encodes further.

        ``flatten`` joins images (divided by 255) and planes to the vector too, so that nothing is convolved.

        ``mask_size`` is the length of the action space's masks. Where there is one, an entry ``action_mask`` of a Dict
        is the mask and must have that length; where there is none, it is an observation like any other.

        Raises:
            UsageError: the entry does not have the mask's length, or the observation does not have a part that is named.
        """
        mask = space.spaces.get(MASK_KEY) if mask_size is not None and isinstance(space, spaces.Dict) else None
        shape = () if mask is None else mask.shape or ()
        if mask is not None and (found := math.prod(shape)) != mask_size:
            several = mask_size and found and found % mask_size == 0
            stacked = " A frame stack stacks masks too: leave it out, or stack the other parts alone in a wrapper of your own."
            raise UsageError(
                f"the observation's {MASK_KEY} has {found} entries; the action space needs {mask_size}, one per choice "
                f"(two per bit).{stacked if several else ''}"
            )
        leaves = tuple(_leaves(space, (), mask is not None, flatten))
        for name, keys in (("policy_observations", acting), ("critic_observations", judging)):
            _check_parts(name, keys, space, mask is not None)
        if acting is not None and judging is not None:
            leaves = tuple(leaf for leaf in leaves if leaf.path[0] in (*acting, *judging))
        return cls(leaves, len(shape), normalise, clip, acting, own)

    @property
    def own_name(self) -> str | None:
        """What the user's network is called, if there is one."""
        return None if self.own is None else self.own.name

    @property
    def vector_size(self) -> int:
        """The length of the joined vector."""
        return sum(leaf.width for leaf in self.leaves)

    @property
    def images(self) -> tuple[Image, ...]:
        """What goes to convolutional networks, one for each."""
        return tuple(leaf.image for leaf in self.leaves if leaf.convolved)

    def parts(self, keys: tuple[str, ...] | None) -> tuple[Part, ...]:
        """Return where the parts of an observation lie among the features; ``keys`` are those of a Dict, ``None`` all."""
        made, column, image = [], 0, 0
        for leaf in self.leaves:
            if keys is None or leaf.path[0] in keys:
                shape = (leaf.width,) if leaf.kind == "one_hot" else leaf.shape
                if leaf.convolved:
                    shape = leaf.image.height, leaf.image.width, leaf.image.channels
                made.append(Part(leaf.path, shape, column, image if leaf.convolved else None, leaf.dtype))
            column, image = column + leaf.width, image + leaf.convolved
        return tuple(made)

    def seen(self, keys: tuple[str, ...] | None) -> Seen | None:
        """Return which parts of the features are those of some parts of a Dict observation; ``None`` where they are all."""
        if keys is None or all(leaf.path[0] in keys for leaf in self.leaves):
            return None
        ranges: list[tuple[int, int]] = []
        images, column, image = [], 0, 0
        for leaf in self.leaves:
            begin, end = column, column + leaf.width
            if leaf.path[0] in keys:
                if leaf.convolved:
                    images.append(image)
                elif ranges and ranges[-1][1] == begin:
                    ranges[-1] = ranges[-1][0], end
                else:
                    ranges.append((begin, end))
            column, image = end, image + leaf.convolved
        return Seen(tuple(ranges), tuple(images))

    @property
    def is_number(self) -> np.ndarray:
        """Which entries of the joined vector are numbers, to be normalised (one-hot entries and bits are not)."""
        flags = [np.full(leaf.width, leaf.kind == "numbers") for leaf in self.leaves if leaf.width]
        return np.concatenate(flags) if flags else np.zeros(0, bool)

    def notes(self) -> list[str]:
        """Say in words what becomes of each part of an observation; nothing of one that is a plain vector or a number."""
        if len(self.leaves) == 1 and self.leaves[0].kind == "numbers" and len(self.leaves[0].shape) < 2:
            return []
        acting = self.acting_leaves
        return [leaf.describe() + ("" if leaf in acting else ", which the critic alone sees") for leaf in self.leaves]

    @property
    def acting_leaves(self) -> tuple[Leaf, ...]:
        """The leaves that are there when the policy acts."""
        return tuple(leaf for leaf in self.leaves if self.acting is None or leaf.path[0] in self.acting)

    def acting_space(self, space: gym.Space[Any]) -> gym.Space[Any]:
        """Return what of the observation space the policy acts on, the mask of actions included."""
        if self.acting is None or not isinstance(space, spaces.Dict):
            return space
        kept = (*self.acting, MASK_KEY) if self.mask_axes else self.acting
        return spaces.Dict({key: part for key, part in space.spaces.items() if key in kept})

    def initial_moments(self) -> RunningMoments:
        """Return the moments of the joined vector before any observation."""
        return RunningMoments.zero((self.vector_size,))

    def vector(self, observation: Any) -> Array:
        """Return the joined vector ``[..., vector_size]`` as it is, not normalised."""
        parts = [leaf.encode(observation) for leaf in self.leaves if leaf.width]
        return parts[0] if len(parts) == 1 else jnp.concatenate(parts, axis=-1)

    def encode_to_act(self, observation: Any, moments: RunningMoments) -> dict[str, Array]:
        """Return the features of an observation of which only the parts that the policy sees need to be there.

        The others are 0, and images among them are missing.
        """
        return self.encode(observation, moments) if self.acting is None else self._encode_some(observation, moments)

    def _encode_some(self, observation: Any, moments: RunningMoments) -> dict[str, Array]:
        here = self.acting_leaves
        x = jnp.asarray(here[0].pick(observation))
        batch = x.shape[: x.ndim - len(here[0].shape)]

        def part(leaf: Leaf) -> Array:
            return leaf.encode(observation) if leaf in here else jnp.zeros((*batch, leaf.width), jnp.float32)

        features = {}
        if self.vector_size:
            vector = jnp.concatenate([part(leaf) for leaf in self.leaves if leaf.width], axis=-1)
            features["vector"] = self._normalised(vector, moments)
        images = [leaf for leaf in self.leaves if leaf.convolved]
        return features | {f"image_{i}": leaf.encode(observation) for i, leaf in enumerate(images) if leaf in here}

    def encode(self, observation: Any, moments: RunningMoments) -> dict[str, Array]:
        """Return the features of an observation (or of any batch of them).

        ``vector`` is normalised by the moments given, which are left as they are: the caller decides when to update
        them, so that they can stay frozen from rollout through update.
        """
        features: dict[str, Array] = {}
        if self.vector_size:
            features["vector"] = self._normalised(self.vector(observation), moments)
        images = [leaf for leaf in self.leaves if leaf.convolved]
        return features | {f"image_{i}": leaf.encode(observation) for i, leaf in enumerate(images)}

    def _normalised(self, vector: Array, moments: RunningMoments) -> Array:
        if not self.normalise:
            return vector
        return jnp.where(self.is_number, moments.normalise(vector, self.clip), vector)

    def keep(self, observation: Any) -> Any:
        """Return what a store must keep of an observation (or of any batch of them) so that it encodes to the same.

        The structure is that of the observation, a tuple being a dictionary of its indexes; a mask in it is left out.
        """
        return nested([(leaf.path, jnp.asarray(leaf.pick(observation)).astype(leaf.dtype)) for leaf in self.leaves])

    def blank(self, batch: tuple[int, ...]) -> Any:
        """Return what :meth:`keep` returns for a batch of observations, all of them 0."""
        return nested([(leaf.path, jnp.zeros((*batch, *leaf.shape), leaf.dtype)) for leaf in self.leaves])

    def mask(self, observation: Any, action_masks: Array | None) -> Array | None:
        """Return the action mask: the one given, or the one in the observation, or ``None``."""
        if action_masks is not None:
            return jnp.asarray(action_masks).astype(bool)
        if not self.mask_axes:
            return None
        mask = jnp.asarray(observation[MASK_KEY])
        return mask.reshape(*mask.shape[: mask.ndim - self.mask_axes], -1).astype(bool)


def _check_parts(name: str, keys: tuple[str, ...] | None, space: gym.Space[Any], has_mask: bool) -> None:
    """Refuse parts that an observation does not have. Raises ``UsageError``."""
    if keys is None:
        return
    if not isinstance(space, spaces.Dict):
        raise UsageError(
            f"{name} names parts of a Dict observation, and this one is {describe_space(space)}; leave it out."
        )
    known = [key for key in space.spaces if not (has_mask and key == MASK_KEY)]
    for key in keys:
        if key == MASK_KEY and has_mask:
            raise UsageError(
                f"{name} has {MASK_KEY}, which is the mask of actions and is always used as that; leave it out."
            )
        if key not in known:
            raise unknown("part of the observation", key, known)
    if not keys:
        raise UsageError(f"{name} is empty; it must name one or more of {', '.join(known)}.")


def finite(observation: Any) -> Any:
    """Return the observation with 0 for every NaN and infinity.

    A compiled rollout cannot stop at a bad value, which is named after it. Until then the policy must not see it.
    """
    return jax.tree.map(lambda x: jnp.where(jnp.isfinite(x), x, 0) if x.dtype.kind == "f" else x, observation)


def is_image(space: gym.Space[Any]) -> bool:
    """Whether a space is an image: a Box of bytes from 0 to 255 with three axes."""
    return (
        isinstance(space, spaces.Box)
        and len(space.shape) == 3
        and space.dtype == np.uint8
        and bool(np.all(space.low == 0))
        and bool(np.all(space.high == 255))
    )


def is_planes(space: gym.Space[Any]) -> bool:
    """Whether a space is a stack of planes: a Box with three axes that is no image, at least 5 by 5 on each plane."""
    return (
        isinstance(space, spaces.Box)
        and len(space.shape) == 3
        and not is_image(space)
        and min(np.delete(space.shape, _channel_axis(space))) >= SMALLEST_PLANE
    )


def _channel_axis(space: spaces.Box) -> int:
    """Channels come first where the first axis is the smallest, as in Stable-Baselines3, else last."""
    return 0 if int(np.argmin(space.shape)) == 0 else 2


def _leaves(space: gym.Space[Any], path: tuple[str | int, ...], skip_mask: bool, flatten: bool) -> list[Leaf]:
    if isinstance(space, spaces.Dict):
        parts = [(key, part) for key, part in space.spaces.items() if not (skip_mask and key == MASK_KEY)]
        return [leaf for key, part in parts for leaf in _leaves(part, (*path, key), False, flatten)]
    if isinstance(space, spaces.Tuple):
        return [leaf for i, part in enumerate(space.spaces) for leaf in _leaves(part, (*path, i), False, flatten)]
    if isinstance(space, spaces.Discrete):
        return [Leaf(path, "one_hot", (), (int(space.n),), (int(space.start),), dtype=jnp.int32)]
    if isinstance(space, spaces.MultiDiscrete):
        choices, start = (tuple(int(n) for n in part.ravel()) for part in (space.nvec, space.start))
        return [Leaf(path, "one_hot", space.nvec.shape, choices, start, dtype=jnp.int32)]
    if isinstance(space, spaces.MultiBinary):
        return [Leaf(path, "bits", tuple(space.shape), dtype=jnp.uint8)]
    if isinstance(space, spaces.Box):
        return [_box_leaf(space, path, flatten)]
    raise TypeError(f"no encoding for the space {space!r}")


def _box_leaf(space: spaces.Box, path: tuple[str | int, ...], flatten: bool) -> Leaf:
    kind = "image" if is_image(space) else "planes" if is_planes(space) else "numbers"
    dtype = jnp.uint8 if kind == "image" or (kind == "planes" and space.dtype in (np.uint8, np.bool_)) else jnp.float32
    if flatten:
        return Leaf(path, "numbers", space.shape, dtype=dtype, scale=1.0 / 255.0 if kind == "image" else 1.0)
    return Leaf(path, kind, space.shape, channels_first=kind != "numbers" and _channel_axis(space) == 0, dtype=dtype)
