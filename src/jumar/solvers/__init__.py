"""Solvers: ways to solve an update's problem, put together from frozen parts.

A *climber* (``Ascent``, ``Epochs``) goes up one objective of any parameters. A *policy solver* (``Step``, ``LineSearch``)
moves the policy alone, by a *geometry* and a *length*. A *solver* (``Joint``, ``Separate``) says what of a problem is
climbed by whom.
"""

from jumar.solvers.ascent import Ascent, Optimiser
from jumar.solvers.dual import DualStep, WithinLimit
from jumar.solvers.epochs import Epochs
from jumar.solvers.joint import Climber, Joint, Solver
from jumar.solvers.natural import (
    Boundary,
    ConjugateGradient,
    Dense,
    Euclidean,
    Geometry,
    Length,
    LinearSolver,
    MeanKL,
    PolicySolver,
    Rate,
    Step,
)
from jumar.solvers.penalty import Penalty
from jumar.solvers.separate import Separate
from jumar.solvers.trust_region import Acceptance, Better, LineSearch

__all__ = [
    "Acceptance",
    "Ascent",
    "Better",
    "Boundary",
    "Climber",
    "ConjugateGradient",
    "Dense",
    "DualStep",
    "Epochs",
    "Euclidean",
    "Geometry",
    "Joint",
    "Length",
    "LineSearch",
    "LinearSolver",
    "MeanKL",
    "Optimiser",
    "Penalty",
    "PolicySolver",
    "Rate",
    "Separate",
    "Solver",
    "Step",
    "WithinLimit",
]
