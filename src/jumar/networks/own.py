"""Networks of the user's own that encode observations, in the place of what joins vector and images.

Such an *encoder* maps one observation to a vector. It is one of

- an object, or a class that is called without arguments, with ``init(key) -> parameters`` and
  ``apply(parameters, observation) -> vector``;
- a pair ``(init, apply)`` of such functions;
- a function ``key -> module``, where the module is a pytree that is called with an observation: an Equinox module.

The observation has the structure of the observation space, in the form that Jumar's own networks take it: numbers are float32
(normalised with ``normalize_observations``), Discrete and MultiDiscrete entries one-hot, bits 0 and 1, images and planes
``[height, width, channels]``, images as bytes. Parts that the network does not see are not there.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jumar.errors import UsageError
from jumar.spaces import nested

Parameters = Any


@dataclass(frozen=True)
class OwnEncoder:
    """An encoder, and what files keep of it: how it is called. ``module:Name`` where it was typed."""

    name: str
    encoder: Any


@dataclass(frozen=True)
class Part:
    """A plain space inside the observation: where it lies among the features."""

    path: tuple[str | int, ...]
    shape: tuple[int, ...]
    begin: int
    """The first of its columns of the vector; an image has none."""
    image: int | None
    """The number of the image, if it is one."""
    dtype: Any
    """The type of an image."""

    def of(self, features: dict[str, Array]) -> Array:
        """Return the part of features ``[..., ]``."""
        if self.image is not None:
            return features[f"image_{self.image}"]
        columns = features["vector"][..., self.begin : self.begin + math.prod(self.shape)]
        return columns.reshape(*columns.shape[:-1], *self.shape)


@dataclass(frozen=True)
class OwnNetwork:
    """An encoder for the parts of an observation; made by :meth:`of`."""

    name: str
    parts: tuple[Part, ...]
    outputs: int
    """The length of the vector that it returns."""
    make: Callable[[Array], Parameters]
    call: Callable[[Parameters, Any], Array]

    @classmethod
    def of(cls, given: OwnEncoder, parts: tuple[Part, ...]) -> OwnNetwork:
        """Return the network, which is called once to see what it returns.

        Raises:
            UsageError: it is not an encoder, it raises, its parameters are not floating-point arrays, or it
                returns something else than a vector of finite numbers.
        """
        make, call = _functions(given)
        what = f"encoder {given.name}"
        zeros = [jnp.zeros(part.shape, jnp.float32 if part.image is None else part.dtype) for part in parts]
        example = nested([(part.path, x) for part, x in zip(parts, zeros, strict=True)])
        try:
            parameters = make(jax.random.PRNGKey(0))
            leaves = jax.tree.leaves(parameters)
            bad = next((x for x in leaves if not jnp.issubdtype(jnp.asarray(x).dtype, jnp.floating)), None)
            found = jnp.asarray(call(parameters, example))
        except UsageError:
            raise
        except Exception as error:
            first = (str(error).strip().splitlines() or [""])[0]
            raise UsageError(f"{what} fails on {_shapes(example)}: {type(error).__name__}: {first}") from error
        if bad is not None:
            raise UsageError(
                f"{what} has a parameter of type {jnp.asarray(bad).dtype}; all must be floating-point arrays."
            )
        if found.ndim != 1 or found.size < 1 or not jnp.issubdtype(found.dtype, jnp.floating):
            raise UsageError(
                f"{what} returns an array of shape {list(found.shape)} and type {found.dtype} for one observation; it must "
                "return one vector of floating-point numbers."
            )
        if not np.isfinite(np.asarray(found)).all():
            raise UsageError(f"{what} returns {np.asarray(found)[~np.isfinite(found)][0]} for an observation of zeros.")
        return cls(given.name, parts, found.size, make, call)

    def init(self, key: Array) -> Parameters:
        """Draw parameters, float32."""
        return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), self.make(key))

    def apply(self, parameters: Parameters, features: dict[str, Array]) -> Array:
        """Return the vectors of encoded observations, ``[..., outputs]``."""
        found = [(part, part.of(features)) for part in self.parts]
        first, x = found[0]
        batch = x.shape[: x.ndim - len(first.shape)]
        flat = nested([(part.path, x.reshape(-1, *part.shape)) for part, x in found])
        outputs = jax.vmap(lambda one: self.call(parameters, one))(flat)
        return outputs.astype(jnp.float32).reshape(*batch, self.outputs)


def _functions(given: OwnEncoder) -> tuple[Callable[[Array], Parameters], Callable[[Parameters, Any], Array]]:
    """Return what draws parameters and what computes with them."""
    name, encoder = given.name, given.encoder
    if inspect.isclass(encoder) and hasattr(encoder, "init") and hasattr(encoder, "apply"):
        try:
            encoder = encoder()
        except TypeError as error:
            raise UsageError(f"encoder {name} cannot be made without arguments: {error}") from error
    if hasattr(encoder, "init") != hasattr(encoder, "apply") and not isinstance(encoder, tuple):
        there, missing = ("init", "apply") if hasattr(encoder, "init") else ("apply", "init")
        raise UsageError(
            f"encoder {name} has {there}, but no {missing}; it must have init(key) and apply(parameters, observation)."
        )
    pair = encoder if isinstance(encoder, tuple) else (getattr(encoder, "init", None), getattr(encoder, "apply", None))
    if len(pair) == 2 and all(map(callable, pair)):
        return pair  # type: ignore[return-value]
    if callable(encoder):
        return _of_module(name, encoder)
    if isinstance(encoder, str):
        raise UsageError(f"encoder={encoder!r} is a text; from Python pass the object itself, not its name.")
    raise UsageError(
        f"encoder {name} is of type {type(encoder).__name__}; it must have init(key) and apply(parameters, observation), "
        "be a pair of these functions, or a function of a key that returns a module."
    )


def _of_module(name: str, make: Callable[[Array], Any]) -> tuple[Callable[[Array], Parameters], Callable[..., Array]]:
    """Return the two functions of a module whose arrays are its parameters; all else in it never changes."""
    try:
        module = make(jax.random.PRNGKey(0))
    except Exception as error:
        raise UsageError(f"encoder {name} does not make a module of a key: {type(error).__name__}: {error}") from error
    if not callable(module):
        raise UsageError(
            f"encoder {name} returned an object of type {type(module).__name__} for a key; it must return a module that can be "
            "called."
        )
    leaves, structure = jax.tree.flatten(module)
    is_array = [isinstance(x, (jax.Array, np.ndarray)) for x in leaves]

    def init(key: Array) -> Parameters:
        drawn = jax.tree.leaves(make(key))
        return {f"array_{i}": x for i, (x, kept) in enumerate(zip(drawn, is_array, strict=True)) if kept}

    def apply(parameters: Parameters, observation: Any) -> Array:
        whole = [parameters[f"array_{i}"] if kept else leaves[i] for i, kept in enumerate(is_array)]
        return jax.tree.unflatten(structure, whole)(observation)

    return init, apply


def _shapes(example: Any) -> str:
    if not isinstance(example, dict):
        return f"an observation of shape {list(example.shape)}"
    shapes = jax.tree.map(lambda x: list(x.shape), example)
    return f"an observation of shapes {shapes}"
