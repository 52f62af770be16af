r"""Valuations: from a critic's outputs to the values of states and of actions that advantages are made from.

A critic of states values :math:`V(s)` itself. One of actions values :math:`Q(s, a)`, and states through the policy,
:math:`V(s) = \sum_a \pi(a|s) Q(s, a)`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import jax.numpy as jnp
from jax import Array

from jumar.critics.state_values import Critic
from jumar.experience.rollouts import View
from jumar.policies.distributions import Categorical
from jumar.policies.policy import Policy
from jumar.solvers.problem import Parameters
from jumar.trajectory import Batch, Trajectory, of_actions


class Valued(NamedTuple):
    """What a critic says of sequences, ``[N, T]`` each."""

    values: Array
    """V of the observations."""
    successor_values: Array
    """V of the true successors."""
    action_values: Array | None = None
    """Q of the observations and the actions taken, where the critic is one of actions."""

    @property
    def fitted(self) -> Array:
        """What :meth:`jumar.critics.state_values.Critic.evaluate` says of the same rows, and value targets are for."""
        return self.values if self.action_values is None else self.action_values


class Valuation(Protocol):
    """A part that values a rollout."""

    def __call__(
        self, policy: Policy, critic: Critic, parameters: Parameters, rows: Batch, view: View, trajectory: Trajectory
    ) -> tuple[Valued, Any]:
        """Return the values, and the critic's carry after the last row.

        Args:
            policy: the policy.
            critic: the critic.
            parameters: the joint ones.
            rows: the rollout as sequences ``[N, T]``.
            view: the same rollout with its successors.
            trajectory: the rollout itself.
        """
        ...


@dataclass(frozen=True)
class StateValues:
    """The valuation by a critic of states."""

    def __call__(
        self, policy: Policy, critic: Critic, parameters: Parameters, rows: Batch, view: View, trajectory: Trajectory
    ) -> tuple[Valued, Any]:
        """Return the critic's values; the policy has no part in them."""
        values, successor_values, carry = critic.values(
            parameters["critic"], view.features, view.successors, trajectory.critic_carry, rows.episode_start
        )
        return Valued(values, successor_values), carry


@dataclass(frozen=True)
class ActionValues:
    r"""The valuation by a critic of actions, for a Discrete space: :math:`V(s) = \sum_a \pi(a|s) Q(s, a)`."""

    def __call__(
        self, policy: Policy, critic: Critic, parameters: Parameters, rows: Batch, view: View, trajectory: Trajectory
    ) -> tuple[Valued, Any]:
        """Return the values of states under the policy, and of the actions taken."""
        here, there = policy.evaluate_both(parameters["policy"], rows, view.successors, view.successor_masks)
        assert isinstance(here, Categorical)
        assert isinstance(there, Categorical)
        q, next_q, carry = critic.values(
            parameters["critic"], view.features, view.successors, trajectory.critic_carry, rows.episode_start
        )
        values, successor_values = (jnp.sum(at.probs * x, axis=-1) for at, x in ((here, q), (there, next_q)))
        return Valued(values, successor_values, of_actions(q, rows.actions)), carry
