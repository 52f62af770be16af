"""Objectives: the names of :mod:`jumar.solvers.objectives`."""

from jumar.solvers.objectives import *  # noqa: F403
