"""Comparing: programs in double precision, and numbers that say how far two results are apart."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np


def in_double(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function of pytrees, compiled as a whole in double precision; its results are NumPy arrays.

    The functions of the lab compile operation after operation where they are called from Python; in one program they cost
    a fraction of that.
    """
    program = jax.jit(function)

    def run(*args: Any) -> Any:
        with jax.enable_x64(True):
            return jax.tree.map(np.asarray, program(*jax.tree.map(_doubled, args)))

    return run


def _doubled(leaf: Any) -> Any:
    array = np.asarray(leaf)
    return array.astype(np.float64) if np.issubdtype(array.dtype, np.floating) else leaf


def gap(found: Any, exact: Any) -> float:
    """Return the largest difference between entries of two arrays of one shape; NaN where one is NaN.

    Raises:
        ValueError: the shapes differ.
    """
    found, exact = _alike(found, exact)
    return float(np.max(np.abs(found - exact))) if found.size else 0.0


def relative_gap(found: Any, exact: Any) -> float:
    r"""Return :math:`\|x - y\| / \|y\|`, with ``y`` the exact one.

    Raises:
        ValueError: the shapes differ, or the exact one is 0, which would hide a result that is always 0.
    """
    found, exact = _alike(found, exact)
    size = float(np.linalg.norm(exact))
    if size == 0.0:
        raise ValueError("the exact result is 0, and says nothing relative to itself")
    return float(np.linalg.norm(found - exact)) / size


def _alike(found: Any, exact: Any) -> tuple[np.ndarray, np.ndarray]:
    found, exact = np.asarray(found, np.float64), np.asarray(exact, np.float64)
    if found.shape != exact.shape:
        raise ValueError(f"arrays of shapes {found.shape} and {exact.shape} are compared")
    return found, exact
