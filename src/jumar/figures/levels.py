"""Curves of one level around a point of a plane."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


def ellipse(fisher: np.ndarray, delta: float, n: int = 200) -> np.ndarray:
    r"""Return points ``[n, 2]`` with :math:`\frac12 x^T F x = \delta`, the first one again at the end."""
    angles = np.linspace(0.0, 2.0 * np.pi, n)
    circle = np.stack([np.cos(angles), np.sin(angles)])
    return np.linalg.solve(np.linalg.cholesky(fisher).T, np.sqrt(2.0 * delta) * circle).T


def edge(function: Callable[[np.ndarray], np.ndarray], centre: np.ndarray, level: float, reach: float) -> np.ndarray:
    """Return where a function of points ``[n, 2]`` first exceeds a level on 181 rays from a centre, ``[181, 2]``.

    The first ray comes again as the last. Where the level is not exceeded within ``reach``, the point there is returned.
    """
    angles = np.linspace(0.0, 2.0 * np.pi, 181)
    radii = np.linspace(0.0, reach, 1001)
    ways = np.stack([np.cos(angles), np.sin(angles)], -1)
    values = function((centre + radii[:, None, None] * ways).reshape(-1, 2)).reshape(len(radii), len(angles))
    beyond = ~(values[1:] <= level)
    first = np.where(beyond.any(0), beyond.argmax(0), len(radii) - 2)
    rays = np.arange(len(angles))
    low, high = values[first, rays], values[first + 1, rays]
    share = np.where(beyond.any(0) & np.isfinite(high), (level - low) / np.maximum(high - low, 1e-300), 1.0)
    return centre + (radii[first] + np.clip(share, 0.0, 1.0) * radii[1])[:, None] * ways
