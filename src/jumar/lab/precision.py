"""Double precision for functions of the lab, whatever precision JAX is in.

An exact value is to be exact, and with JAX as it starts it would be so to seven digits. So the lab's functions enter
``jax.enable_x64(True)`` by themselves, and need nothing from who calls them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

P = ParamSpec("P")
R = TypeVar("R")


def in_double(function: Callable[P, R]) -> Callable[P, R]:
    """Return the function, made to compute in double precision.

    Its floating-point arrays, also those in pytrees, are float64 inside. Where JAX is in single precision, results are NumPy
    arrays: JAX's own of float64 would lose their precision in the next operation.

    Inside of a transformation (``jax.grad``, ``jax.vmap``, ``jax.jit``) it has the precision that JAX is in, as the arguments
    have lost theirs already, and derivatives are taken outside. Put ``in_double`` around the transformed function.

    Example:
        >>> worth = lambda flat: tabular.performance(mdp, family(flat))
        >>> in_double(jax.grad(worth))(np.zeros(15))
    """

    @functools.wraps(function)
    def computed(*args: P.args, **kwargs: P.kwargs) -> R:
        single = jax.dtypes.canonicalize_dtype(np.float64) != np.float64
        if single and any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves((args, kwargs))):
            return function(*args, **kwargs)
        with jax.enable_x64(True):
            args, kwargs = jax.tree.map(_doubled, (args, kwargs))
            result = function(*args, **kwargs)
        return jax.tree.map(_kept, result) if single else result

    return computed


def compiled_in_double(function: Callable[..., R]) -> Callable[..., R]:
    """Return the function compiled as one program that computes in double precision (:func:`in_double`).

    Called from Python, the lab's functions compile operation after operation; as one program they cost a fraction of that.
    Its arguments may be arrays of NumPy.
    """
    return in_double(jax.jit(function))


def _doubled(leaf: Any) -> Any:
    """Return a floating-point array as one of float64, and anything else as it is."""
    if isinstance(leaf, (np.ndarray, np.generic, jax.Array)) and jnp.issubdtype(leaf.dtype, jnp.floating):
        return jnp.asarray(leaf, jnp.float64)
    return leaf


def _kept(leaf: Any) -> Any:
    """Return an array as NumPy's, unless it is a part of a transformation."""
    return np.asarray(leaf) if isinstance(leaf, jax.Array) and not isinstance(leaf, Tracer) else leaf
