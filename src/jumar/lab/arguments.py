"""What functions of the lab are given, and how it is checked."""

from __future__ import annotations

import numpy as np
from jax import Array
from jax.core import Tracer

from jumar.errors import UsageError

ArrayLike = Array | np.ndarray
"""An array of JAX or of NumPy."""


def check_positive(name: str, value: float | Array) -> None:
    """Refuse a number that is not above 0.

    Inside of ``jax.jit`` a number may be an argument of the program, and not known yet; it is then accepted.

    Raises:
        UsageError: it is 0, below 0 or NaN.
    """
    if not isinstance(value, Tracer) and not value > 0.0:
        raise UsageError(f"{name}={value} must be above 0.")
