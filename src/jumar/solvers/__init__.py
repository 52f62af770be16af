"""Solvers: ways to solve an update's problem, put together from frozen parts.

A *climber* (``Ascent``, ``Epochs``, ``Repeated``) goes up one objective of any parameters. A *policy solver* moves the policy
alone: by a *geometry* and a *length* (``Step``, ``LineSearch``), within a limit on a cost (``DualStep``), or as a climber
does (``Climbing``). A *solver* (``Joint``, ``SideBySide``, ``Separate``, ``Independent``, ``PolicyAlone``) says what of a
problem is climbed by whom.
"""

from jumar.solvers.ascent import Ascent, Optimiser, clip_gradient, scale_gradient
from jumar.solvers.average import AverageTrustRegion
from jumar.solvers.dual import DualStep, WithinLimit
from jumar.solvers.epochs import Epochs
from jumar.solvers.joint import Climber, Joint, Solver
from jumar.solvers.kronecker import Kronecker
from jumar.solvers.momentum import Momentum
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
    Shorter,
    Step,
    Top,
)
from jumar.solvers.penalty import Penalty
from jumar.solvers.regression import Regression
from jumar.solvers.repeated import Repeated
from jumar.solvers.sampled import MeanOverTrajectories, StepFisher, TrajectoryFisher
from jumar.solvers.separate import Apart, Climbing, Independent, PolicyAlone, Separate, SideBySide
from jumar.solvers.trust_region import Acceptance, Better, Both, LineSearch, Within

__all__ = [
    "Acceptance",
    "Apart",
    "Ascent",
    "AverageTrustRegion",
    "Better",
    "Both",
    "Boundary",
    "Climber",
    "Climbing",
    "ConjugateGradient",
    "Dense",
    "DualStep",
    "Epochs",
    "Euclidean",
    "Geometry",
    "Independent",
    "Joint",
    "Kronecker",
    "Length",
    "LineSearch",
    "LinearSolver",
    "MeanKL",
    "MeanOverTrajectories",
    "Momentum",
    "Optimiser",
    "Penalty",
    "PolicyAlone",
    "PolicySolver",
    "Rate",
    "Regression",
    "Repeated",
    "Separate",
    "Shorter",
    "SideBySide",
    "Solver",
    "Step",
    "StepFisher",
    "Top",
    "TrajectoryFisher",
    "Within",
    "WithinLimit",
    "clip_gradient",
    "scale_gradient",
]
