"""Momentum: a policy moves by the running mean of its steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from jax import Array
from jax.flatten_util import ravel_pytree

from jumar.solvers.natural import PolicyMove, PolicySolver, Unravel
from jumar.solvers.problem import Parameters, Problem
from jumar.trajectory import Batch


@dataclass(frozen=True)
class Momentum:
    r"""Momentum around any step ``d`` of the policy.

    .. math::
        v \leftarrow \mu v + (1 - \mu) d, \qquad \theta \leftarrow \theta + v

    Steps that stay in a trust region, an ellipsoid, have means that do, as far as the ellipsoid stays what it was.
    """

    step: PolicySolver
    momentum: float
    r"""The :math:`\mu`, in [0, 1)."""

    def init(self, parameters: Parameters) -> Any:
        """Return the state of the solver inside, and no velocity."""
        return {"step": self.step.init(parameters), "velocity": jnp.zeros_like(ravel_pytree(parameters)[0])}

    def move(
        self, problem: Problem, flat: Array, unravel: Unravel, batch: Batch, state: Any, remaining: Array, key: Array
    ) -> PolicyMove:
        """Take the mean of this step and those before."""
        moved = self.step.move(problem, flat, unravel, batch, state["step"], remaining, key)
        velocity = self.momentum * state["velocity"] + (1.0 - self.momentum) * (moved.flat - flat)
        about = {**moved.about, "velocity_norm": jnp.linalg.norm(velocity)}
        return PolicyMove(flat + velocity, {"step": moved.state, "velocity": velocity}, about)
