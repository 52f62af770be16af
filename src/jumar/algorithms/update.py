"""What learning changes, and what runners know of the algorithm that changes it.

A runner lets a policy act and hands over what happened; what an update makes of it, and what it remembers from one rollout
to the next, is the update's own business.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol, Self

import jax
import jax.numpy as jnp
from jax import Array

from jumar.algorithms.on_policy.symptoms import symptoms
from jumar.experience.hindsight import Hindsight
from jumar.policies.exploration import Acting, Behaviour, Drawing
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
    """What runners need of an algorithm.

    An iteration is some rounds, and each round a few steps in all environments and what is learnt from them:
    ``begin``, then ``update`` once a round, then ``report`` and ``store``.
    """

    @property
    def policy(self) -> Policy:
        """What is trained."""
        ...

    @property
    def behaviour(self) -> Behaviour:
        """What acts."""
        ...

    @property
    def needs_cost(self) -> bool:
        """Whether each step must come with one cost."""
        ...

    @property
    def apart(self) -> bool:
        """Whether policy and critic can be updated independently, in two programs (:mod:`jumar.collecting.halves`)."""
        ...

    @property
    def counts_episodes(self) -> bool:
        """Whether a round ends with an episode, so that it has as many steps as that."""
        ...

    @property
    def hindsight(self) -> Hindsight | None:
        """What rows are to be relabelled with other goals and inserted beside the steps; ``None``: none."""
        ...

    @property
    def mapped(self) -> tuple[Any, Any]:
        """Which parts of a learner, and of what an iteration makes, differ between seeds that share a program.

        They are prefixes of these trees: 0 for such parts, and ``None`` for those that all seeds share.
        """
        ...

    def among_resets(self) -> Update:
        """Return the method for environments that reset themselves in steps of their own, whose rows are no experience."""
        ...

    def among_frames(self, frames: int) -> Update:
        """Return the method for environments whose images are their last ``frames`` frames, stacked; 1: they are not.

        Raises:
            UsageError: what it remembers of steps has no room for a stack.
        """
        ...

    def init(self, key: Array, n_envs: int) -> Any:
        """Draw a learner's first state; it has ``parameters``, ``solver``, ``observation_moments`` and ``reward_scale``."""
        ...

    def begin_with(self, learner: Any, parameters: Parameters) -> Any:
        """Return a first learner with other parameters in its place, and optimisers that begin with them."""
        ...

    def restart(self, learner: Any) -> Any:
        """Return the learner with all episodes begun anew (the environments were rebuilt)."""
        ...

    def acting(self, learner: Any, remaining: Array) -> Acting:
        """Return what the behaviour acts by."""
        ...

    def memory(self) -> Any:
        """Return what is remembered of steps before any of them, beside the learner; it may be large."""
        ...

    def cut(self, memory: Any, learner: Any) -> Any:
        """Return the memory after the episodes under way were cut; compiled with ``memory`` donated."""
        ...

    def begin(self) -> Any:
        """Return what an iteration has made before its first round."""
        ...

    def update(
        self, learner: Any, made: Any, memory: Any, trajectory: Trajectory, remaining: Array, key: Array
    ) -> tuple[Any, Any]:
        """Learn from a round of steps that the behaviour made.

        Args:
            learner: whose policy acted.
            made: what the iteration has made so far.
            memory: what is remembered from before the iteration; it is only read.
            trajectory: what happened, ``[T, N]``. Log-probabilities and the critic's carry are not filled in.
            remaining: the share of training that is left, for schedules.
            key: for everything random.

        Returns:
            the new learner, and what the iteration has made with this round.
        """
        ...

    def happened(self, made: Any) -> Trajectory:
        """Return all steps of an iteration, ``[T, N]``; those behind the last one are not valid."""
        ...

    def report(self, learner: Any, made: Any, key: Array) -> tuple[Any, Diagnostics]:
        """Return the learner after an iteration, and the flight record: scalars by the names of the metrics.

        Those without a slash come under ``train/``. ``finite`` says whether the learner is made of numbers; NaN stands for what
        means nothing this time.
        """
        ...

    def symptoms(self, metrics: Mapping[str, float | None]) -> dict[str, str]:
        """Return for every trouble that the method knows a sentence if an iteration's metrics show it, else an empty text."""
        ...

    def store(self, memory: Any, made: Any, learner: Any) -> Any:
        """Return the memory with an iteration's steps in it; compiled with ``memory`` donated.

        ``learner`` is the one from before the iteration. It can go on with the new memory as with the old one.
        """
        ...

    def insert(self, made: Any, trajectory: Trajectory, slots: Array) -> Any:
        """Return what the iteration has made with relabelled rows among it, where there is ``hindsight``.

        Args:
            made: what it has made so far, which is used up.
            trajectory: the rows, ``[C, N]``.
            slots: how many of their C slots count, int32.
        """
        ...

    def keep(self, memory: Any, made: Any, learner: Any) -> tuple[Any, Any]:
        """Return the memory with rows that were inserted between iterations, and the learner that knows of them."""
        ...


class Rolled(NamedTuple):
    """What an iteration of one rollout makes."""

    trajectory: Trajectory
    record: Diagnostics


class RolloutUpdate:
    """Base of the updates whose iterations are one round: a rollout that they learn from once."""

    policy: Policy
    mapped = (0, 0)
    counts_episodes = False
    hindsight = None

    @property
    def apart(self) -> bool:
        """False: policy and critic are updated together."""
        return False

    def among_resets(self) -> Self:
        """Return the method itself: rows of a rollout have weights."""
        return self

    def among_frames(self, frames: int) -> Self:
        """Return the method itself: rollouts are kept whole."""
        return self

    @property
    def behaviour(self) -> Behaviour:
        """The policy's own draws."""
        return Drawing(self.policy)

    def learn(
        self, learner: Learner, trajectory: Trajectory, remaining: Array, key: Array
    ) -> tuple[Learner, Diagnostics]:
        """Improve the learner with one rollout that its policy made; return it and the flight record."""
        raise NotImplementedError

    def acting(self, learner: Learner, remaining: Array) -> Acting:
        """Return the policy's parameters and its normaliser."""
        return Acting(learner.parameters["policy"], learner.observation_moments)

    def memory(self) -> tuple[()]:
        """Return nothing: what is kept of rollouts is the learner's."""
        return ()

    def cut(self, memory: tuple[()], learner: Learner) -> tuple[()]:
        """Return nothing."""
        return memory

    def begin(self) -> tuple[()]:
        """Return nothing."""
        return ()

    def update(
        self, learner: Learner, made: Any, memory: Any, trajectory: Trajectory, remaining: Array, key: Array
    ) -> tuple[Learner, Rolled]:
        """Learn from the rollout."""
        learner, record = self.learn(learner, trajectory, remaining, key)
        return learner, Rolled(trajectory, record)

    def happened(self, made: Rolled) -> Trajectory:
        """Return the rollout."""
        return made.trajectory

    def report(self, learner: Learner, made: Rolled, key: Array) -> tuple[Learner, Diagnostics]:
        """Return the learner as it is, and the flight record."""
        return learner, made.record

    def symptoms(self, metrics: Mapping[str, float | None]) -> dict[str, str]:
        """Return what the flight record of an update from rollouts shows."""
        return symptoms(metrics)

    def store(self, memory: tuple[()], made: Rolled, learner: Learner) -> tuple[()]:
        """Return nothing."""
        return memory

    def insert(self, made: Any, trajectory: Trajectory, slots: Array) -> Any:
        """Return what was made: nothing is relabelled."""
        return made

    def keep(self, memory: tuple[()], made: Any, learner: Learner) -> tuple[tuple[()], Learner]:
        """Return what there is."""
        return memory, learner


def moments_after(moments: RunningMoments, trajectory: Trajectory, encoder: Encoder) -> RunningMoments:
    """Return the moments of observations after a rollout, where they are normalised."""
    if not (encoder.normalise and encoder.vector_size):
        return moments
    return moments.updated(encoder.vector(trajectory.observations), trajectory.weights)


def all_finite(tree: Any) -> Array:
    """Whether no floating-point number in a pytree is NaN or infinite."""
    floats = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.floating)]
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(x)) for x in floats]))
