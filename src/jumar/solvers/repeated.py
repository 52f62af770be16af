"""Repeated climbs: several in a row, each on the batch as the last one's parameters estimate it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jumar.solvers.joint import Climber
from jumar.solvers.problem import Climb, Diagnostics, Parameters


@dataclass(frozen=True)
class Repeated:
    """``times`` climbs of a climber, each from where the last ended, advantages and targets estimated anew for each."""

    climber: Climber
    times: int

    def init(self, parameters: Parameters) -> Any:
        """Return the climber's state."""
        return self.climber.init(parameters)

    def climb(
        self, climb: Climb, parameters: Parameters, state: Any, remaining: Array, key: Array
    ) -> tuple[Parameters, Any, Diagnostics]:
        """Climb; the record holds means over the climbs."""

        def once(carry: tuple[Parameters, Any], key: Array) -> tuple[tuple[Parameters, Any], Diagnostics]:
            parameters, state, about = self.climber.climb(climb, *carry, remaining, key)
            return (parameters, state), about

        (parameters, state), about = jax.lax.scan(once, (parameters, state), jax.random.split(key, self.times))
        return parameters, state, jax.tree.map(lambda x: jnp.mean(x, 0), about)
