"""Experience: which rollouts an update learns from, the one just made alone or some before it too.

``T`` steps of ``N`` environments are ``[T, N]`` arrays, so K rollouts are one of ``[T, K N]``: no estimator and no solver
sees the difference.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax import Array

from jumar.critics.state_values import TIME, Critic
from jumar.estimators.advantages import Estimates, ages
from jumar.estimators.importance import effective_sample_size
from jumar.policies.moments import RunningMoments
from jumar.policies.observations import Encoder
from jumar.policies.policy import Policy
from jumar.solvers.problem import Diagnostics
from jumar.trajectory import Batch, Trajectory, masks_after


class Rollout(NamedTuple):
    """A trajectory, and what went before it."""

    trajectory: Trajectory
    ages: Array
    """Steps so far of the episode that each environment's first row goes on with, ``[N]`` int32."""


class Experience(Protocol):
    """A part that says which rollouts are learnt from."""

    def init(self, policy: Policy, critic: Critic, n_envs: int) -> Any:
        """Return its state before any rollout."""
        ...

    def add(self, state: Any, new: Rollout, policy: Policy) -> tuple[Rollout, Any]:
        """Return what is learnt from after a new rollout, and the state with it.

        The first is ``[T, M]``, the ``N`` environments of the new rollout being the first of the ``M``.
        """
        ...

    def diagnose(self, estimates: Estimates, weights: Array) -> Diagnostics:
        """Return scalars worth knowing of what is learnt from; ``weights`` are those of its rows, ``[T, M]``."""
        ...


@dataclass(frozen=True)
class Latest:
    """The part that learns from the new rollout alone, and keeps nothing."""

    def init(self, policy: Policy, critic: Critic, n_envs: int) -> tuple[()]:
        """Return no state."""
        return ()

    def add(self, state: tuple[()], new: Rollout, policy: Policy) -> tuple[Rollout, tuple[()]]:
        """Return the new rollout."""
        return new, state

    def diagnose(self, estimates: Estimates, weights: Array) -> Diagnostics:
        """Return nothing."""
        return {}


@dataclass(frozen=True)
class Recent:
    """The part that learns from the last ``n_rollouts`` rollouts of ``n_steps`` steps, the new one among them.

    They are kept as they were made: raw observations and rewards, which the normalisers of the day scale, the
    log-probabilities of the policies that acted, and the memories with which recurrent policies began (the stored state of
    Kapturowski et al. 2019, *Recurrent Experience Replay in Distributed Reinforcement Learning*). Costs and the noise of
    gSDE are not kept. Until there are so many rollouts, the missing ones are rows that are no experience.
    """

    n_rollouts: int
    n_steps: int

    def init(self, policy: Policy, critic: Critic, n_envs: int) -> Rollout:
        """Return rollouts that are no experience, the arrays of :class:`Rollout` with a leading axis of rollouts."""
        blank = self._blank(policy, critic, n_envs)
        return jax.tree.map(lambda x: jnp.broadcast_to(x, (self.n_rollouts, *x.shape)), blank)

    def add(self, state: Rollout, new: Rollout, policy: Policy) -> tuple[Rollout, Rollout]:
        """Return the rollouts side by side, the newest first, and the state with the new one in it."""
        state = pushed(state, kept(new, policy))
        return side_by_side(state), state

    def diagnose(self, estimates: Estimates, weights: Array) -> Diagnostics:
        """Return the effective sample size, as a share of the rows that count."""
        importance = jnp.broadcast_to(estimates.importance, weights.shape)
        return {"effective_sample_size": effective_sample_size(importance, weights * estimates.weights)}

    def _blank(self, policy: Policy, critic: Critic, n_envs: int) -> Rollout:
        rows = self.n_steps, n_envs
        zeros, never = jnp.zeros(rows, jnp.float32), jnp.zeros(rows, bool)
        mask_size = policy.actions.mask_size
        trajectory = Trajectory(
            observations=policy.encoder.blank(rows),
            actions=jnp.asarray(policy.actions.blank(rows)),
            rewards=zeros,
            terminated=never,
            truncated=never,
            successors=policy.encoder.blank(rows),
            valid=never,
            episode_start=never,
            log_probs=zeros,
            action_masks=None if mask_size is None else jnp.ones((*rows, mask_size), bool),
            successor_masks=None if mask_size is None else jnp.ones((*rows, mask_size), bool),
            costs=None,
            carry=policy.initial_carry(n_envs)._replace(exploration=()),
            critic_carry=critic.initial_carry(n_envs),
        )
        return Rollout(trajectory, jnp.zeros((n_envs,), jnp.int32))


class View(NamedTuple):
    """A rollout as networks see it, ``[N, T, ...]``."""

    features: Any
    successors: Any
    action_masks: Array | None
    successor_masks: Array | None
    """Which actions the successors allow; where nothing is known of one, all."""
    ages: Array
    """How old each row's episode is, ``[T, N]``."""
    ages_after: Array
    """How old the open episodes are after the last row, ``[N]``."""

    @classmethod
    def of(cls, rollout: Rollout, encoder: Encoder, moments: RunningMoments, with_time: bool = False) -> View:
        """Encode and normalise all observations once, and lay them out as sequences.

        ``with_time`` puts the steps since the episode began among the features: at successors it is one more.
        """
        trajectory = rollout.trajectory
        features, successors = (
            by_environment(encoder.encode(x, moments)) for x in (trajectory.observations, trajectory.successors)
        )
        masks, next_masks = masks_of(trajectory, encoder)
        age, after = ages(rollout.ages, trajectory.ended, trajectory.valid)
        if with_time:
            features, successors = {**features, TIME: age.T}, {**successors, TIME: age.T + 1}
        return cls(features, successors, by_environment(masks), by_environment(next_masks), age, after)

    def rows(self, trajectory: Trajectory) -> Batch:
        """Return the sequences as a batch, of which advantages and values are not known yet."""
        unknown = jnp.zeros_like(trajectory.rewards.T)
        return Batch(
            features=self.features,
            actions=by_environment(trajectory.actions),
            log_probs=trajectory.log_probs.T,
            advantages=unknown,
            returns=unknown,
            values=unknown,
            weights=trajectory.weights.T,
            action_masks=self.action_masks,
            episode_start=trajectory.episode_start.T,
            # gSDE's noise has no part in a distribution, and no axis over sequences in all of its arrays.
            carry=trajectory.carry._replace(exploration=()),
            critic_carry=trajectory.critic_carry,
        )


def by_environment(tree: Any) -> Any:
    """Turn ``[T, N, ...]`` arrays to ``[N, T, ...]``, or back."""
    return jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), tree)


def masks_of(trajectory: Trajectory, encoder: Encoder) -> tuple[Array | None, Array | None]:
    """Return which actions the observations allow and which their successors, ``[T, N, n]``; ``None`` without masks.

    Those of a successor are in it, or beside it; where they are neither, they are those of the next row.
    """
    masks = encoder.mask(trajectory.observations, trajectory.action_masks)
    if masks is None:
        return None, None
    given = trajectory.successor_masks
    if given is None and trajectory.action_masks is not None:
        return masks, masks_after(masks, trajectory.ended)
    return masks, encoder.mask(trajectory.successors, given)


def kept(rollout: Rollout, policy: Policy) -> Rollout:
    """Return a rollout as it is kept: every action space that can have masks has some."""
    trajectory, encoder = rollout.trajectory, policy.encoder
    masks = next_masks = None
    if (size := policy.actions.mask_size) is not None:
        every = jnp.ones((*trajectory.rewards.shape, size), bool)
        masks, next_masks = (every if x is None else x for x in masks_of(trajectory, encoder))
    return rollout._replace(
        trajectory=trajectory._replace(
            observations=encoder.keep(trajectory.observations),
            successors=encoder.keep(trajectory.successors),
            action_masks=masks,
            successor_masks=next_masks,
            costs=None,
            carry=trajectory.carry._replace(exploration=()),
        )
    )


def pushed(state: Any, new: Any) -> Any:
    """Return a pytree of arrays with a leading axis of rollouts, the new one first and the oldest left out."""
    return jax.tree.map(lambda old, x: jnp.concatenate([x[None].astype(old.dtype), old[:-1]]), state, new)


def side_by_side(rollouts: Rollout) -> Rollout:
    """Return K rollouts, arrays with a leading axis K, as one of K times as many environments."""

    def rows(x: Array) -> Array:
        by_time = jnp.swapaxes(x, 0, 1)
        return by_time.reshape(by_time.shape[0], -1, *x.shape[3:])

    def environments(x: Array) -> Array:
        return x.reshape(-1, *x.shape[2:])

    trajectory = rollouts.trajectory
    beginnings = trajectory.carry, trajectory.critic_carry, rollouts.ages
    carry, critic_carry, first_ages = jax.tree.map(environments, beginnings)
    joined = jax.tree.map(rows, trajectory._replace(carry=(), critic_carry=()))
    return Rollout(joined._replace(carry=carry, critic_carry=critic_carry), first_ages)
