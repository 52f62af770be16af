"""Numbers that say how far two results are apart."""

from __future__ import annotations

from typing import Any

import numpy as np


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
