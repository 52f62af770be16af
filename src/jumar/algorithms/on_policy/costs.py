r"""Limits on costs: what a policy's episodes cost, and the constraint that an update keeps.

A constrained problem is

.. math::
    \max_\pi J(\pi) \quad \text{subject to} \quad J_C(\pi) \le d,

with :math:`J_C` the mean undiscounted cost of an episode and ``d`` the limit. An update knows :math:`J_C(\pi_{old})` from the
episodes that have ended, and what a new policy adds to it, to first order, from the advantages of costs: over an episode
of ``H`` steps on average,

.. math::
    J_C(\pi) \approx J_C(\pi_{old}) + H \, (C(\pi) - C(\pi_{old})), \qquad
    C(\pi) = E_t[\tfrac{\pi(a_t|s_t)}{\pi_{old}(a_t|s_t)} A^C_t],

the expectation being a mean over steps, as it is in the surrogate. So the excess per step that goes with ``C`` is
:math:`c = (J_C(\pi_{old}) + m - d) / H`, where the margin ``m`` is 0 unless it is learnt.

Sources: Achiam, Held, Tamar and Abbeel 2017, *Constrained Policy Optimization*, sections 4 to 6; the margin is that of the
code beside Ray, Achiam and Amodei 2019, *Benchmarking Safe Exploration in Deep Reinforcement Learning*, here by the episode.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import jax.numpy as jnp
from jax import Array

from jumar.critics.state_values import CriticPair
from jumar.errors import UsageError
from jumar.estimators.advantages import Estimator, Steps, ends_inside
from jumar.policies.distributions import Distribution
from jumar.solvers.objectives import ValueLoss, surrogate
from jumar.solvers.problem import Constraint, Diagnostics, Parameters, Problem
from jumar.trajectory import Batch, Trajectory, centred, explained_variance, weighted_mean

LARGEST_MARGIN = 4.0
"""How many times the limit a margin below it can be."""


class EpisodeCosts(NamedTuple):
    """What episodes cost, ``[N]`` each, float32 and undiscounted.

    Of each environment it has the episode under way, and those that ended in the last rollout in which any did: no more,
    so that the mean is that of the policy as it is now.
    """

    open_costs: Array
    """Cost so far of the episode under way."""
    open_lengths: Array
    """Its steps so far."""
    costs: Array
    """Sum of the costs of the episodes that ended."""
    lengths: Array
    """Sum of their lengths, in steps."""
    episodes: Array
    """Their number; 0 before the first."""

    @classmethod
    def none(cls, n_envs: int) -> EpisodeCosts:
        """Return the state before the first step."""
        zeros = jnp.zeros((n_envs,), jnp.float32)
        return cls(zeros, zeros, zeros, zeros, zeros)

    def restarted(self) -> EpisodeCosts:
        """Return the state with all episodes begun anew: those under way were cut, and do not count."""
        zeros = jnp.zeros_like(self.open_costs)
        return self._replace(open_costs=zeros, open_lengths=zeros)

    def followed(self, costs: Array, ended: Array, valid: Array) -> EpisodeCosts:
        """Return the state after a rollout of ``[T, N]`` arrays; rows that are not valid cost nothing."""
        finished = ends_inside(ended)  # whether the row is part of an episode that ended
        any_ended = jnp.any(ended, axis=0)

        def divided(quantity: Array, so_far: Array, before: Array) -> tuple[Array, Array]:
            """Return the sum over episodes that ended, and that of the one under way."""
            counted = jnp.where(valid, quantity, 0.0)
            inside = jnp.sum(jnp.where(finished, counted, 0.0), axis=0)
            after = jnp.sum(jnp.where(finished, 0.0, counted), axis=0)
            return jnp.where(any_ended, so_far + inside, before), jnp.where(any_ended, after, so_far + after)

        total_costs, open_costs = divided(costs, self.open_costs, self.costs)
        total_lengths, open_lengths = divided(jnp.ones_like(costs), self.open_lengths, self.lengths)
        number = jnp.sum(ended, axis=0, dtype=costs.dtype)
        episodes = jnp.where(any_ended, number, self.episodes)
        return EpisodeCosts(open_costs, open_lengths, total_costs, total_lengths, episodes)

    def mean_episode(self) -> tuple[Array, Array]:
        """Return the mean cost and the mean length of an episode.

        As long as none has ended, the episodes under way stand for them: what they cost so far is the least that they will.
        """
        known = jnp.sum(self.episodes) > 0.0
        count = jnp.where(known, jnp.sum(self.episodes), self.episodes.size)
        cost = jnp.where(known, jnp.sum(self.costs), jnp.sum(self.open_costs))
        length = jnp.where(known, jnp.sum(self.lengths), jnp.sum(self.open_lengths))
        return cost / count, jnp.maximum(length / count, 1.0)


class Costs(Protocol):
    """A part that says what becomes of the costs that come with rewards."""

    @property
    def needed(self) -> bool:
        """Whether there must be one cost a step."""
        ...

    def init(self, n_envs: int) -> Any:
        """Return the state of what is followed over rollouts."""
        ...

    def restart(self, state: Any) -> Any:
        """Return the state with all episodes begun anew."""
        ...

    def follow(self, state: Any, trajectory: Trajectory) -> Any:
        """Return the state after a rollout."""
        ...

    def penalised(self, trajectory: Trajectory) -> Trajectory:
        """Return the rollout with the rewards that are to be learnt from, before they are scaled."""
        ...

    def estimate(
        self, parameters: Parameters, batch: Batch, trajectory: Trajectory, successors: Any, steps: Steps, carry: Any
    ) -> tuple[Batch, Any]:
        """Return the batch with what is estimated of costs, and the critic's carry after the last row.

        Args:
            parameters: the critic's.
            batch: the whole batch as sequences ``[N, T]``.
            trajectory: the rollout.
            successors: encoded, ``[N, T, ...]``.
            steps: what the advantages of rewards were made from.
            carry: the critic's carry, after the last row as far as rewards are concerned.
        """
        ...

    def loss(self, parameters: Parameters, batch: Batch, remaining: Array) -> tuple[Array | float, Diagnostics]:
        """Return what is added to the critic's loss, and scalars worth knowing about it."""
        ...

    def constraint(self, state: Any) -> Constraint | None:
        """Return what an update's step must keep."""
        ...

    def record(self, state: Any, problem: Problem, old: Parameters, new: Parameters, batch: Batch) -> Diagnostics:
        """Return scalars about the whole update, given the joint parameters before and after it."""
        ...


@dataclass(frozen=True)
class CostsIgnored:
    """The part of methods that mind rewards alone."""

    needed = False

    def init(self, n_envs: int) -> tuple[()]:
        """Return nothing to follow."""
        return ()

    def restart(self, state: Any) -> Any:
        """Change nothing."""
        return state

    def follow(self, state: Any, trajectory: Trajectory) -> Any:
        """Change nothing."""
        return state

    def penalised(self, trajectory: Trajectory) -> Trajectory:
        """Change nothing."""
        return trajectory

    def estimate(
        self, parameters: Parameters, batch: Batch, trajectory: Trajectory, successors: Any, steps: Steps, carry: Any
    ) -> tuple[Batch, Any]:
        """Add nothing."""
        return batch, carry

    def loss(self, parameters: Parameters, batch: Batch, remaining: Array) -> tuple[Array | float, Diagnostics]:
        """Add nothing."""
        return 0.0, {}

    def constraint(self, state: Any) -> Constraint | None:
        """Return ``None``: nothing must be kept."""
        return None

    def record(self, state: Any, problem: Problem, old: Parameters, new: Parameters, batch: Batch) -> Diagnostics:
        """Tell nothing."""
        return {}


@dataclass(frozen=True)
class CostPenalty(CostsIgnored):
    r"""The part of methods that take costs off the rewards, :math:`r - \beta c`, at a fixed price :math:`\beta`.

    An optimum for a price keeps, as its limit, the cost that it has; but which price goes with which limit is not known.
    """

    coefficient: float
    r""":math:`\beta`, in units of reward per cost."""

    needed = True

    def penalised(self, trajectory: Trajectory) -> Trajectory:
        """Take the costs of all rows that count off their rewards.

        Raises:
            UsageError: the environment gives no cost, or several.
        """
        costs = jnp.where(trajectory.valid, one_cost(trajectory.costs), 0.0)
        return trajectory._replace(rewards=self.worth(trajectory.rewards, costs))

    def worth(self, rewards: Array, costs: Array) -> Array:
        r"""Return :math:`r - \beta c` for arrays of equal shape."""
        return rewards - self.coefficient * costs


class LimitState(NamedTuple):
    """What a limit goes by."""

    episodes: EpisodeCosts
    """What episodes cost."""
    margin: Array
    """How far below the limit the cost is to be, as learnt so far."""


@dataclass(frozen=True)
class CostLimit:
    r"""The part of methods that keep the mean cost of an episode below a limit.

    An update that is sure to lower the cost of its own rollout may not lower that of the next: the cost then stays above the
    limit, by as much as makes the updates' efforts meet what rewards ask for. A margin ends that. It grows as long as episodes
    cost too much, and shrinks while they cost less: with the costs :math:`C_i` of the episodes that end in a rollout,

    .. math::
        m \leftarrow \mathrm{clip}\Bigl(m + \rho \sum_i (C_i - d), \; 0, \; \kappa d\Bigr), \qquad \kappa = 4.

    A limit that is out of reach fills the margin no further than to its bound, which :math:`\kappa / \rho` episodes without
    costs unlearn. (So there is no margin below a limit of 0.) The costs themselves are not clipped: a few dear episodes among
    many cheap ones count in full in the mean, and so they do here.
    """

    critic: CriticPair
    """The critic of the update: its half for costs is used here."""
    estimator: Estimator
    """Makes the advantages and value targets of costs. The advantages are centred, never scaled: their size is the cost's."""
    value_loss: ValueLoss
    limit: float
    """The largest mean undiscounted cost of an episode."""
    margin_rate: float = 0.0
    r""":math:`\rho`, per episode; 0: there is no margin."""

    needed = True

    def init(self, n_envs: int) -> LimitState:
        """Return the state before the first step."""
        return LimitState(EpisodeCosts.none(n_envs), jnp.zeros((), jnp.float32))

    def restart(self, state: LimitState) -> LimitState:
        """Forget the episodes under way."""
        return state._replace(episodes=state.episodes.restarted())

    def follow(self, state: LimitState, trajectory: Trajectory) -> LimitState:
        """Count the rollout's costs, and learn the margin from the episodes that ended in it.

        Raises:
            UsageError: the environment gives no cost, or several.
        """
        ended = trajectory.ended & trajectory.valid
        episodes = state.episodes.followed(one_cost(trajectory.costs), ended, trajectory.valid)
        beyond = jnp.where(jnp.any(ended, axis=0), episodes.costs - self.limit * episodes.episodes, 0.0)
        margin = state.margin + self.margin_rate * jnp.sum(beyond)
        return LimitState(episodes, jnp.clip(margin, 0.0, LARGEST_MARGIN * self.limit))

    def penalised(self, trajectory: Trajectory) -> Trajectory:
        """Change nothing: costs are no rewards."""
        return trajectory

    def estimate(
        self, parameters: Parameters, batch: Batch, trajectory: Trajectory, successors: Any, steps: Steps, carry: Any
    ) -> tuple[Batch, Any]:
        """Add the advantages, targets and values of costs.

        Raises:
            UsageError: the environment gives no cost, or several.
        """
        costs = one_cost(trajectory.costs)
        values, successor_values, carry = self.critic.cost_values(
            parameters, batch.features, successors, carry, batch.episode_start
        )
        estimates = self.estimator(steps._replace(rewards=costs, values=values.T, successor_values=successor_values.T))
        batch = batch._replace(
            cost_advantages=centred(estimates.advantages.T, batch.weights),
            cost_returns=estimates.targets.T,
            cost_values=values,
        )
        return batch, carry

    def loss(self, parameters: Parameters, batch: Batch, remaining: Array) -> tuple[Array | float, Diagnostics]:
        """Return the mean value loss of costs."""
        values = self.critic.evaluate_costs(parameters, batch)
        rows = self.value_loss(values, batch.cost_values, batch.cost_returns, remaining)
        loss = weighted_mean(rows, batch.weights)
        return loss, {"cost_loss": loss}

    def constraint(self, state: LimitState) -> Constraint:
        """Return the constraint, in units of cost per step."""
        cost, length = state.episodes.mean_episode()
        return Constraint(cost_surrogate, (cost + state.margin - self.limit) / length)

    def record(
        self, state: LimitState, problem: Problem, old: Parameters, new: Parameters, batch: Batch
    ) -> Diagnostics:
        """Tell what an episode costs, by how much that is too much, and by how much the update is to change it."""
        cost, length = state.episodes.mean_episode()
        before, after = (cost_surrogate(problem.distribution(each["policy"], batch), batch) for each in (old, new))
        return {
            "cost_value": cost,
            "cost_excess": cost - self.limit,
            "cost_margin": state.margin,
            "cost_change": length * (after - before),
            "cost_explained_variance": explained_variance(batch.cost_values, batch.cost_returns, batch.weights),
        }


def cost_surrogate(distribution: Distribution, batch: Batch) -> Array:
    r"""Return :math:`C = E[\frac{\pi(a|s)}{\pi_{old}(a|s)} A^C]`, the mean over the rows of a batch, per step."""
    rows = surrogate(distribution.log_prob(batch.actions), batch.log_probs, batch.cost_advantages)
    return weighted_mean(rows, batch.weights)


def one_cost(costs: Array | None) -> Array:
    """Return costs ``[T, N]``.

    Raises:
        UsageError: there are none, or several a step.
    """
    check_one_cost(None if costs is None else costs.shape[2:])
    assert costs is not None
    return costs


def check_one_cost(shape: tuple[int, ...] | None) -> None:
    """Refuse what is not one cost a step; ``shape`` is that of a step's cost, ``None`` where there is none.

    Raises:
        UsageError: the message says what to do.
    """
    if shape is None:
        raise UsageError(
            "cpo and cost_coef need a cost per step: info['cost'] of the environment, or --cost velocity:V (in Python "
            "cost='velocity:V')."
        )
    if shape:
        raise UsageError(
            f"cpo and cost_coef take one cost per step, and info['cost'] is an array of shape {list(shape)}."
        )
