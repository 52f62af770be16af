"""Solvers: ways to solve an update's problem, put together from frozen parts.

A *climber* (``Ascent``, ``Epochs``) goes up one objective; a *solver* (``Joint``) says what of a problem is climbed.
"""

from jumar.solvers.ascent import Ascent, Optimiser
from jumar.solvers.epochs import Epochs
from jumar.solvers.joint import Climber, Joint, Solver

__all__ = ["Ascent", "Climber", "Epochs", "Joint", "Optimiser", "Solver"]
