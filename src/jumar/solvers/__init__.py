"""Solvers: ways to climb a problem's objective. Each is a frozen part with ``init`` and ``solve``."""

from jumar.solvers.ascent import Ascent, Optimiser
from jumar.solvers.epochs import Epochs

__all__ = ["Ascent", "Epochs", "Optimiser"]
