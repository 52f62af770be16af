"""Geometries of the Fisher matrix as it is sampled: by the actions that were taken, per step or per trajectory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jumar.solvers.fisher import step_fisher_product, trajectory_fisher_product
from jumar.solvers.natural import Direction, LinearSolver, Unravel, solved
from jumar.solvers.problem import Parameters, Problem
from jumar.trajectory import Batch


@dataclass(frozen=True)
class StepFisher:
    r"""The mean over steps of :math:`s s^T`, ``s`` the score of the action taken.

    An unbiased estimate of what :class:`MeanKL` has in closed form, of rank at most the number of rows.
    """

    system: LinearSolver
    damping: float = 0.0

    def init(self, parameters: Parameters) -> Any:
        """Return nothing: the curvature is measured anew every time."""
        return ()

    def direction(
        self, problem: Problem, flat: Array, unravel: Unravel, batch: Batch, gradient: Array, state: Any, key: Array
    ) -> Direction:
        """Solve for the natural gradient."""
        product = step_fisher_product(log_prob_of(problem, unravel, batch), flat, batch.weights)
        return solved(self.system, product, self.damping, gradient)


@dataclass(frozen=True)
class TrajectoryFisher:
    r"""The mean over trajectories of :math:`S S^T`, ``S`` the sum of a trajectory's scores.

    With it :math:`\frac12 d^T F d` is the divergence of whole trajectories, the sum over their steps. So all rows that count
    have a score in it, and the same weight, also where means over states are discounted. A trajectory is what the batch has
    of an episode.

    Source: Kochenderfer, Wheeler and Wray, *Algorithms for Decision Making*, equation 12.9 and algorithm 12.4.
    """

    system: LinearSolver
    n_envs: int
    """How many environments the batch's rows are of."""
    damping: float = 0.0

    def init(self, parameters: Parameters) -> Any:
        """Return nothing: the curvature is measured anew every time."""
        return ()

    def direction(
        self, problem: Problem, flat: Array, unravel: Unravel, batch: Batch, gradient: Array, state: Any, key: Array
    ) -> Direction:
        """Solve for the natural gradient."""
        trajectory = trajectory_of_rows(batch, self.n_envs)
        counted = (batch.weights > 0.0).astype(batch.weights.dtype)
        product = trajectory_fisher_product(
            log_prob_of(problem, unravel, batch), flat, counted, trajectory, trajectory.size
        )
        return solved(self.system, product, self.damping, gradient)


@dataclass(frozen=True)
class MeanOverTrajectories:
    r"""The mean :math:`\frac1M \sum_m \sum_{i \in m} x_i` over trajectories of the sums over their steps.

    Of divergences at the rows it is that of whole trajectories. All rows that count have the same weight in it, also where
    means over states are discounted. A trajectory is what the batch has of an episode; M counts those with rows that count.
    """

    n_envs: int
    """How many environments the batch's rows are of."""

    def __call__(self, rows: Array, batch: Batch) -> Array:
        """Return the mean."""
        counted = batch.weights > 0.0
        index = trajectory_of_rows(batch, self.n_envs).reshape(-1)
        rows_of_each = jax.ops.segment_sum(counted.reshape(-1).astype(rows.dtype), index, index.size)
        return jnp.sum(jnp.where(counted, rows, 0.0)) / jnp.maximum(jnp.sum(rows_of_each > 0.0), 1)


def trajectory_of_rows(batch: Batch, n_envs: int) -> Array:
    """Return which trajectory each row of a whole batch belongs to: int32 numbers of the shape of its weights."""
    # The rows of an environment lie together, in the order of time.
    starts = batch.episode_start.reshape(n_envs, -1).at[:, 0].set(True)
    return (jnp.cumsum(starts.reshape(-1)) - 1).reshape(batch.weights.shape)


def log_prob_of(problem: Problem, unravel: Unravel, batch: Batch) -> Callable[[Array], Array]:
    """Return the log-probabilities of the actions taken at all rows, a function of flat parameters."""
    return lambda flat: problem.distribution(unravel(flat), batch).log_prob(batch.actions)
