"""Encoding of observations: from the structure of the observation space to what networks take.

Numbers (Box) are flattened, Discrete and MultiDiscrete become one-hot, MultiBinary becomes 0 and 1, and all of them
are joined into one ``vector``; images (Box of bytes with three axes) stay images. A Dict space with an entry
``action_mask`` carries the mask of allowed actions in it: it is taken out and is never seen by a network.
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

from jumar.errors import UsageError
from jumar.normalise import RunningMoments

MASK_KEY = "action_mask"


@dataclass(frozen=True)
class Leaf:
    """One plain space inside the observation space."""

    path: tuple[str | int, ...]
    kind: str
    """``numbers``, ``image``, ``one_hot`` or ``bits``."""
    shape: tuple[int, ...]
    choices: tuple[int, ...] = ()
    """For ``one_hot``: how many values each entry can take."""
    start: tuple[int, ...] = ()
    """For ``one_hot``: the smallest value of each entry."""
    channels_first: bool = False

    @property
    def width(self) -> int:
        """How many entries of the joined vector this leaf fills; 0 for an image."""
        if self.kind == "image":
            return 0
        return sum(self.choices) if self.kind == "one_hot" else math.prod(self.shape)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of an image."""
        a, b, c = self.shape
        return (b, c, a) if self.channels_first else (a, b, c)

    @property
    def dtype(self) -> Any:
        """The narrowest dtype that holds all that :meth:`encode` makes use of."""
        return {"numbers": jnp.float32, "image": jnp.uint8, "one_hot": jnp.int32, "bits": jnp.uint8}[self.kind]

    def pick(self, observation: Any) -> Any:
        """Return this leaf's part of an observation."""
        for step in self.path:
            observation = observation[step]
        return observation

    def encode(self, observation: Any) -> Array:
        """Encode this leaf's part: ``[..., width]``, or ``[..., height, width, channels]`` bytes for an image."""
        x = jnp.asarray(self.pick(observation))
        batch = x.shape[: x.ndim - len(self.shape)]
        if self.kind == "image":
            return jnp.moveaxis(x, -3, -1) if self.channels_first else x
        x = x.reshape(*batch, math.prod(self.shape))
        if self.kind != "one_hot":
            return x.astype(jnp.float32)
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

    @classmethod
    def of(cls, space: gym.Space[Any], *, normalise: bool, clip: float = 10.0, mask_size: int | None = None) -> Encoder:
        """Build the encoder of an observation space.

        ``mask_size`` is the length of the action space's masks. Where there is one, an entry ``action_mask`` of a Dict
        is the mask and must have that length; where there is none, it is an observation like any other.

        Raises:
            UsageError: the entry does not have the mask's length.
        """
        mask = space.spaces.get(MASK_KEY) if mask_size is not None and isinstance(space, spaces.Dict) else None
        shape = () if mask is None else mask.shape or ()
        if mask is not None and (found := math.prod(shape)) != mask_size:
            raise UsageError(
                f"the observation's {MASK_KEY} has {found} entries; the action space needs {mask_size}, one per choice "
                "(two per bit)."
            )
        return cls(tuple(_leaves(space, (), mask is not None)), len(shape), normalise, clip)

    @property
    def vector_size(self) -> int:
        """The length of the joined vector."""
        return sum(leaf.width for leaf in self.leaves)

    @property
    def image_shapes(self) -> tuple[tuple[int, int, int], ...]:
        """(height, width, channels) of each image."""
        return tuple(leaf.image_shape for leaf in self.leaves if leaf.kind == "image")

    @property
    def is_number(self) -> np.ndarray:
        """Which entries of the joined vector are numbers, to be normalised (one-hot entries and bits are not)."""
        flags = [np.full(leaf.width, leaf.kind == "numbers") for leaf in self.leaves if leaf.width]
        return np.concatenate(flags) if flags else np.zeros(0, bool)

    def initial_moments(self) -> RunningMoments:
        """Return the moments of the joined vector before any observation."""
        return RunningMoments.zero((self.vector_size,))

    def vector(self, observation: Any) -> Array:
        """Return the joined vector ``[..., vector_size]`` as it is, not normalised."""
        parts = [leaf.encode(observation) for leaf in self.leaves if leaf.width]
        return parts[0] if len(parts) == 1 else jnp.concatenate(parts, axis=-1)

    def encode(self, observation: Any, moments: RunningMoments) -> dict[str, Array]:
        """Return the features of an observation (or of any batch of them).

        ``vector`` is normalised by the moments given, which are left as they are: the caller decides when to update
        them, so that they can stay frozen from rollout through update.
        """
        features: dict[str, Array] = {}
        if self.vector_size:
            vector = self.vector(observation)
            if self.normalise:
                vector = jnp.where(self.is_number, moments.normalise(vector, self.clip), vector)
            features["vector"] = vector
        images = [leaf for leaf in self.leaves if leaf.kind == "image"]
        return features | {f"image_{i}": leaf.encode(observation) for i, leaf in enumerate(images)}

    def keep(self, observation: Any) -> Any:
        """Return what a store must keep of an observation (or of any batch of them) so that it encodes to the same.

        The structure is that of the observation, a tuple being a dictionary of its indexes; a mask in it is left out.
        """
        return _nested([(leaf.path, jnp.asarray(leaf.pick(observation)).astype(leaf.dtype)) for leaf in self.leaves])

    def blank(self, batch: tuple[int, ...]) -> Any:
        """Return what :meth:`keep` returns for a batch of observations, all of them 0."""
        return _nested([(leaf.path, jnp.zeros((*batch, *leaf.shape), leaf.dtype)) for leaf in self.leaves])

    def mask(self, observation: Any, action_masks: Array | None) -> Array | None:
        """Return the action mask: the one given, or the one in the observation, or ``None``."""
        if action_masks is not None:
            return jnp.asarray(action_masks).astype(bool)
        if not self.mask_axes:
            return None
        mask = jnp.asarray(observation[MASK_KEY])
        return mask.reshape(*mask.shape[: mask.ndim - self.mask_axes], -1).astype(bool)


def _nested(parts: list[tuple[tuple[str | int, ...], Array]]) -> Any:
    """Return a tree of dictionaries with an array at the end of each path; an empty path is the array alone."""
    tree: Any = {}
    for path, part in parts:
        if not path:
            return part
        place = tree
        for step in path[:-1]:
            place = place.setdefault(step, {})
        place[path[-1]] = part
    return tree


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


def _leaves(space: gym.Space[Any], path: tuple[str | int, ...], skip_mask: bool = False) -> list[Leaf]:
    if isinstance(space, spaces.Dict):
        parts = [(key, part) for key, part in space.spaces.items() if not (skip_mask and key == MASK_KEY)]
        return [leaf for key, part in parts for leaf in _leaves(part, (*path, key))]
    if isinstance(space, spaces.Tuple):
        return [leaf for i, part in enumerate(space.spaces) for leaf in _leaves(part, (*path, i))]
    if isinstance(space, spaces.Discrete):
        return [Leaf(path, "one_hot", (), (int(space.n),), (int(space.start),))]
    if isinstance(space, spaces.MultiDiscrete):
        choices = tuple(int(n) for n in space.nvec.ravel())
        return [Leaf(path, "one_hot", space.nvec.shape, choices, tuple(int(s) for s in space.start.ravel()))]
    if isinstance(space, spaces.MultiBinary):
        return [Leaf(path, "bits", tuple(space.shape))]
    if isinstance(space, spaces.Box):
        if is_image(space):
            # Channels come first where the first axis is the smallest, as in Stable-Baselines3.
            return [Leaf(path, "image", space.shape, channels_first=int(np.argmin(space.shape)) == 0)]
        return [Leaf(path, "numbers", space.shape)]
    raise TypeError(f"no encoding for the space {space!r}")
