"""What a runner is: it collects experience and learns from it, one iteration at a time, on one kind of environment.

This is the seam between the loop and the backends. A runner takes a learner, lets its behaviour act for ``n_steps`` steps of
``n_envs`` environments, updates it, does both again for as many rounds as an iteration has, and hands back what happened. The
loop knows nothing else of environments.

- :class:`jumar.collecting.programs.CompiledRunner`: rollout and update are one compiled program, mapped over seeds if there are
  several; so is learning without an environment (:mod:`jumar.collecting.stored`).
- :class:`jumar.collecting.host.HostRunner`: a rollout gathered on the host, then a compiled update.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import jax.numpy as jnp
import numpy as np
from jax import Array

from jumar.collecting.stopping import never
from jumar.experience.replay import ABSENT
from jumar.trajectory import Trajectory

REPORT = 2**32 - 1
"""Makes another key of a round's: that of an iteration's report."""


class Outcome(NamedTuple):
    """What one iteration saw, ``[T, N]`` arrays on the host (``[K, T, N]`` for K seeds)."""

    rewards: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    valid: np.ndarray
    costs: np.ndarray | None
    """Where the environment gives any; with a further axis where it gives several."""
    logged: np.ndarray | None = None
    """Sums of the entries of ``info`` that are logged (:mod:`jumar.collecting.info_means`), ``[3, K]``, if any are."""


class Held(NamedTuple):
    """What training holds on to between iterations."""

    learner: Any
    memory: Any
    """What is remembered of steps beside the learner."""
    collector: Any


class Iterated(NamedTuple):
    """What an iteration returns."""

    held: Held
    record: dict[str, np.ndarray]
    """The flight record."""
    outcome: Outcome


class Runner(Protocol):
    """One kind of environment, ready to be iterated."""

    has_barriers: bool
    """Whether a scheduled checkpoint is a barrier, at which environments begin anew: their state cannot be saved."""

    @property
    def spent(self) -> Mapping[str, float]:
        """Seconds of the last iteration by what they went into, compilation left out.

        ``environment``, ``policy``, ``update``; ``rollout`` is the first two and ``learning`` the last two, where they are
        one program. Empty where all three are.
        """
        ...

    def init(self, key: Array) -> Any:
        """Return the collector's first state: what of the environments can be saved, as a pytree."""
        ...

    def memory(self) -> Any:
        """Return what is remembered before any step."""
        ...

    def cut(self, held: Held) -> Held:
        """Return what a barrier's checkpoint keeps: the episodes under way are cut in the memory, which is used up."""
        ...

    def restart(self, held: Held, seed: int, step: int) -> Held:
        """Begin anew in all environments, from seeds derived from (seed, step) alone; what was not cut yet is."""
        ...

    def iterate(self, held: Held, keys: Array, remaining: np.ndarray, stop: Callable[[], bool] = never) -> Iterated:
        """Collect and learn for an iteration.

        Args:
            held: what there is; its memory is used up, but that of what is returned serves its learner as well.
            keys: one for each round, ``[rounds, 2]``; ``[K, rounds, 2]`` for K seeds.
            remaining: the share of training that is left at each round, ``[rounds]``.
            stop: is asked about every second where an iteration has several rounds.

        Raises:
            Abandoned: ``stop`` said so; all that was given is still good, but environments on the host have gone on.
            EnvironmentFault: an environment raised or gave what is no experience; all that was given is still good.
        """
        ...

    def close(self) -> None:
        """Release the environments."""
        ...


class Collector(NamedTuple):
    """Where a rollout begins."""

    environments: Any
    """The environments' own state; ``()`` where it cannot be had."""
    observations: Any
    episode_start: Any
    carry: Any
    logged: Any = ()
    """Sums of the entries of ``info`` that are logged, since the iteration began."""
    episodes: Any = ()
    """The steps of episodes that are relabelled when they end, where that is done."""


def outcome_of(trajectory: Trajectory, strict: bool) -> tuple[Array | None, ...]:
    """Return what the loop's statistics need of a rollout: the fields of an :class:`Outcome`.

    Unless ``strict``, a cost that is not finite counts as none.
    """
    costs = trajectory.costs
    if costs is not None and not strict:
        costs = jnp.where(jnp.isfinite(costs), costs, 0.0)
    return trajectory.rewards, trajectory.terminated, trajectory.truncated, trajectory.valid, costs


def told_of(rewards: Any, terminated: Any, truncated: Any, valid: Any, costs: Any) -> Outcome:
    """Return an outcome on the host; costs that no step came with are none."""
    if costs is not None and np.any(absent := costs == ABSENT):
        costs = None if np.all(absent) else np.where(absent, 0.0, costs)
    return Outcome(rewards, terminated, truncated, valid, costs)
