"""Solvers: ways to solve an update's problem, put together from frozen parts.

A *climber* (``Ascent``, ``Epochs``, ``Repeated``) goes up one objective of any parameters. A *policy solver* moves the policy
alone: by a *geometry* and a *length* (``Step``, ``LineSearch``), or as a climber does (``Climbing``). A *solver* (``Joint``,
``Separate``, ``Independent``, ``PolicyAlone``) says what of a problem is climbed by whom.
"""

from jumar.solvers.ascent import Ascent, Optimiser
from jumar.solvers.average import AverageTrustRegion
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
from jumar.solvers.repeated import Repeated
from jumar.solvers.sampled import StepFisher, TrajectoryFisher
from jumar.solvers.separate import Climbing, Independent, PolicyAlone, Separate
from jumar.solvers.trust_region import LineSearch

__all__ = [
    "Ascent",
    "AverageTrustRegion",
    "Boundary",
    "Climber",
    "Climbing",
    "ConjugateGradient",
    "Dense",
    "Epochs",
    "Euclidean",
    "Geometry",
    "Independent",
    "Joint",
    "Length",
    "LineSearch",
    "LinearSolver",
    "MeanKL",
    "Optimiser",
    "Penalty",
    "PolicyAlone",
    "PolicySolver",
    "Rate",
    "Repeated",
    "Separate",
    "Solver",
    "Step",
    "StepFisher",
    "TrajectoryFisher",
]
