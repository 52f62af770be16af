"""Networks that follow others slowly."""

from __future__ import annotations

from typing import Any

import jax
from jax import Array


def polyak(average: Any, parameters: Any, tau: float | Array) -> Any:
    r"""Return :math:`(1 - \tau) \bar\theta + \tau \theta` for each leaf of two pytrees; ``tau`` 1 copies.

    Source: Polyak and Juditsky 1992; as target networks Lillicrap et al. 2016, *Continuous control with deep reinforcement
    learning*, algorithm 1.
    """
    return jax.tree.map(lambda old, new: (1.0 - tau) * old + tau * new, average, parameters)
