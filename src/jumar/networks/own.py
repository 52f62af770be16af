"""Networks of the user's own that encode observations, in the place of what joins vector and images.

Such an *encoder* maps one observation to a vector. It is one of

- an object, or a class that is called without arguments, with ``init(key) -> parameters`` and
  ``apply(parameters, observation) -> vector``;
- a pair ``(init, apply)`` of such functions;
- a function ``key -> module``, where the module is a pytree that is called with an observation: an Equinox module.

The observation has the structure of the observation space, a Dict as a dictionary and a Tuple as a tuple, in the form that
Jumar's own networks take it: numbers are float32 (normalised with ``normalize_observations``), Discrete and MultiDiscrete
entries one-hot, bits 0 and 1, images and planes ``[height, width, channels]``, images as bytes. Parts that the network does
not see are not there.
"""

from __future__ import annotations

import contextlib
import inspect
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jumar.errors import UsageError
from jumar.spaces import nested, with_tuples

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
            UsageError: it is not an encoder, it raises, it cannot be compiled, its parameters are not floating-point arrays
                or have the same name in files, or it returns something else than a vector of finite numbers.
        """
        make, call = _functions(given)
        what = f"encoder {given.name}"
        example = _in_structure(
            [(part, jnp.zeros(part.shape, jnp.float32 if part.image is None else part.dtype)) for part in parts]
        )
        with _blamed(f"{what} fails to draw parameters from a key"):
            parameters = _checked(what, make(jax.random.PRNGKey(0)))
        with _blamed(f"{what} fails on {_shapes(example)}"):
            found = jnp.asarray(call(parameters, example))
        if found.ndim != 1 or found.size < 1 or not jnp.issubdtype(found.dtype, jnp.floating):
            raise UsageError(
                f"{what} returns an array of shape {list(found.shape)} and type {found.dtype} for one observation; it must "
                "return one vector of floating-point numbers."
            )
        if not np.isfinite(np.asarray(found)).all():
            raise UsageError(f"{what} returns {np.asarray(found)[~np.isfinite(found)][0]} for an observation of zeros.")
        _check_compiled(what, make, call, example, found)
        return cls(given.name, parts, found.size, make, call)

    def init(self, key: Array) -> Parameters:
        """Draw parameters, float32."""
        return _single_precision(self.make(key))

    def apply(self, parameters: Parameters, features: dict[str, Array]) -> Array:
        """Return the vectors of encoded observations, ``[..., outputs]``."""
        found = [(part, part.of(features)) for part in self.parts]
        first, x = found[0]
        batch = x.shape[: x.ndim - len(first.shape)]
        flat = _in_structure([(part, x.reshape(-1, *part.shape)) for part, x in found])
        outputs = jax.vmap(lambda one: self.call(parameters, one))(flat)
        return outputs.astype(jnp.float32).reshape(*batch, self.outputs)


def _in_structure(found: list[tuple[Part, Array]]) -> Any:
    """Return the parts of an observation in the structure of the space."""
    return with_tuples(nested([(part.path, x) for part, x in found]))


def _single_precision(parameters: Parameters) -> Parameters:
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), parameters)


@contextlib.contextmanager
def _blamed(sentence: str) -> Iterator[None]:
    """Raise a ``UsageError`` that begins with a sentence for whatever the user's code raises, ``SystemExit`` included."""
    try:
        yield
    except UsageError:
        raise
    except (Exception, SystemExit) as error:
        first = (str(error).strip().splitlines() or [""])[0]
        raise UsageError(f"{sentence}: {type(error).__name__}: {first}") from error


def _checked(what: str, parameters: Parameters) -> Parameters:
    """Return parameters in single precision. Raises ``UsageError`` if they are no arrays of numbers with names of their own."""
    names: set[str] = set()
    for path, leaf in jax.tree_util.tree_leaves_with_path(parameters):
        if not jnp.issubdtype(jnp.asarray(leaf).dtype, jnp.floating):
            raise UsageError(
                f"{what} has a parameter of type {jnp.asarray(leaf).dtype}; all must be floating-point arrays."
            )
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        if name in names:
            raise UsageError(f"{what} has two parameters that files call {name!r}; use keys without a slash.")
        names.add(name)
    return _single_precision(parameters)


def _check_compiled(
    what: str,
    make: Callable[[Array], Parameters],
    call: Callable[[Parameters, Any], Array],
    example: Any,
    found: Array,
) -> None:
    """Refuse functions that cannot be compiled and mapped over a batch, or that are others then. Nothing is computed."""

    def outputs(key: Array, batch: Any) -> Array:
        parameters = _single_precision(make(key))
        return jax.vmap(lambda one: jnp.asarray(call(parameters, one)))(batch)

    batch = jax.tree.map(lambda x: jax.ShapeDtypeStruct((2, *x.shape), x.dtype), example)
    with _blamed(
        f"{what} cannot be compiled for a batch of observations; take JAX's operations in the place of NumPy's, and "
        "jnp.where in the place of branches that depend on values"
    ):
        compiled = jax.eval_shape(outputs, jax.random.PRNGKey(0), batch)
    if compiled.shape != (2, *found.shape) or compiled.dtype != found.dtype:
        raise UsageError(
            f"{what} returns an array of shape {list(found.shape)} and type {found.dtype} for one observation, but of shape "
            f"{list(compiled.shape[1:])} and type {compiled.dtype} where it is compiled; it must return the same."
        )


def _functions(given: OwnEncoder) -> tuple[Callable[[Array], Parameters], Callable[[Parameters, Any], Array]]:
    """Return what draws parameters and what computes with them."""
    name, encoder = given.name, given.encoder
    if inspect.isclass(encoder) and hasattr(encoder, "init") and hasattr(encoder, "apply"):
        with _blamed(f"encoder {name} cannot be made without arguments"):
            encoder = encoder()
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
    with _blamed(f"encoder {name} does not make a module of a key"):
        module = make(jax.random.PRNGKey(0))
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
    if not isinstance(example, (dict, tuple)):
        return f"an observation of shape {list(example.shape)}"
    shapes = jax.tree.map(lambda x: list(x.shape), example)
    return f"an observation of shapes {shapes}"
