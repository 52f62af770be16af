"""Curvature: the names of :mod:`jumar.solvers.fisher`."""

from jumar.solvers.fisher import *  # noqa: F403
