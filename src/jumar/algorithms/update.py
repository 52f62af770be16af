"""What learning changes, and what runners know of the algorithm that changes it.

A runner lets a policy act and hands over what happened; what an update makes of it, and what it remembers from one rollout
to the next, is the update's own business.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax import Array

from jumar.policies.moments import RunningMoments
from jumar.policies.observations import Encoder
from jumar.policies.policy import Policy
from jumar.solvers.problem import Diagnostics, Parameters
from jumar.trajectory import Trajectory


class Learner(NamedTuple):
    """All that learning changes: one pytree."""

    parameters: Parameters
    """``{"policy": ..., "critic": ...}``."""
    solver: Any
    """The solver's own state."""
    observation_moments: RunningMoments
    """The observation normaliser, which belongs to the policy."""
    reward_scale: Any
    """The state of what transforms rewards."""
    ages: Array
    """Steps so far of the episode that is open in each environment, ``[N]`` int32."""
    experience: Any
    """What is kept of earlier rollouts."""
    costs: Any
    """The state of what becomes of costs."""
    critic_carry: Any
    """The critic's memory of the episode that is open in each environment, leading axis ``[N]``; empty without one."""


class Update(Protocol):
    """What runners need of an algorithm."""

    @property
    def policy(self) -> Policy:
        """What acts."""
        ...

    @property
    def needs_cost(self) -> bool:
        """Whether each step must come with one cost."""
        ...

    def init(self, key: Array, n_envs: int) -> Learner:
        """Draw a learner's first state."""
        ...

    def begin_with(self, learner: Learner, parameters: Parameters) -> Learner:
        """Return a first learner with other parameters in its place, and a solver that begins with them."""
        ...

    def restart(self, learner: Learner) -> Learner:
        """Return the learner with all episodes begun anew (the environments were rebuilt)."""
        ...

    def update(
        self, learner: Learner, trajectory: Trajectory, remaining: Array, key: Array
    ) -> tuple[Learner, Diagnostics]:
        """Improve the learner with one rollout that its policy made; return it and the flight record.

        Args:
            learner: whose policy acted.
            trajectory: what happened. Log-probabilities and the critic's carry are filled in here.
            remaining: the share of training that is left, for schedules.
            key: for everything random.

        Returns:
            the new learner, and scalars by the names of the metrics without their ``train/``. ``finite`` among them says
            whether the learner is made of numbers.
        """
        ...


def moments_after(moments: RunningMoments, trajectory: Trajectory, encoder: Encoder) -> RunningMoments:
    """Return the moments of observations after a rollout, where they are normalised."""
    if not (encoder.normalise and encoder.vector_size):
        return moments
    return moments.updated(encoder.vector(trajectory.observations), trajectory.weights)


def all_finite(tree: Any) -> Array:
    """Whether no floating-point number in a pytree is NaN or infinite."""
    floats = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.floating)]
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(x)) for x in floats]))
