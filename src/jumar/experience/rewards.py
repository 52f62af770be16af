"""The scaling of rewards by the spread of the discounted return."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax import Array

from jumar.policies.moments import RunningMoments
from jumar.trajectory import Trajectory


class RewardScale(NamedTuple):
    """The spread of the discounted return that the reward normaliser divides by."""

    running_return: Array
    """The discounted sum of rewards of the episode under way, ``[N]``."""
    moments: RunningMoments

    @classmethod
    def zero(cls, n_envs: int) -> RewardScale:
        """Return the scale before any reward."""
        return cls(jnp.zeros((n_envs,), jnp.float32), RunningMoments.zero(()))

    def restarted(self) -> RewardScale:
        """Return the scale with all episodes begun anew (the environments were rebuilt)."""
        return self._replace(running_return=jnp.zeros_like(self.running_return))

    def updated(self, rewards: Array, ended: Array, valid: Array, gamma: float) -> RewardScale:
        r"""Return the scale after a rollout.

        :math:`R_t = \gamma R_{t-1} + r_t`, cleared after *any* end of an episode, time limits included; its variance
        over all valid rows joins the moments.

        Args:
            rewards: ``[T, N]``.
            ended: ``[T, N]``, whether the episode ended with the row.
            valid: ``[T, N]``; other rows leave the running return as it is.
            gamma: the discount.
        """

        def step(running: Array, row: tuple[Array, Array, Array]) -> tuple[Array, Array]:
            reward, end, use = row
            running = jnp.where(use, gamma * running + reward, running)
            return jnp.where(end, 0.0, running), running

        running, returns = jax.lax.scan(step, self.running_return, (rewards, ended, valid))
        return RewardScale(running, self.moments.updated(returns, valid.astype(jnp.float32)))

    def scale(self, rewards: Array, clip: float, epsilon: float = 1e-8) -> Array:
        r"""Return :math:`clip(r / \sqrt{s^2 + \epsilon}, \pm clip)`; the mean is not taken away."""
        return jnp.clip(rewards * jax.lax.rsqrt(self.moments.variance + epsilon), -clip, clip)


class RewardTransform(Protocol):
    """A part that makes of raw rewards those that are learnt from."""

    def init(self, n_envs: int) -> Any:
        """Return its state before any reward."""
        ...

    def restart(self, state: Any) -> Any:
        """Return the state with all episodes begun anew (the environments were rebuilt)."""
        ...

    def learn(self, state: Any, trajectory: Trajectory) -> Any:
        """Return the state after a rollout."""
        ...

    def scale(self, state: Any, rewards: Array) -> Array:
        """Return raw rewards as they are learnt from."""
        ...


@dataclass(frozen=True)
class RawRewards:
    """The part that leaves rewards as they are."""

    def init(self, n_envs: int) -> tuple[()]:
        """Return no state."""
        return ()

    def restart(self, state: tuple[()]) -> tuple[()]:
        """Return no state."""
        return state

    def learn(self, state: tuple[()], trajectory: Trajectory) -> tuple[()]:
        """Return no state."""
        return state

    def scale(self, state: tuple[()], rewards: Array) -> Array:
        """Return the raw rewards."""
        return rewards


@dataclass(frozen=True)
class NormalisedRewards:
    """The part that divides rewards by the spread of the discounted return (:class:`RewardScale`), and clips them."""

    gamma: float
    clip: float

    def init(self, n_envs: int) -> RewardScale:
        """Return the scale before any reward."""
        return RewardScale.zero(n_envs)

    def restart(self, state: RewardScale) -> RewardScale:
        """Return the scale with all running returns at 0."""
        return state.restarted()

    def learn(self, state: RewardScale, trajectory: Trajectory) -> RewardScale:
        """Return the scale after a rollout, which is then scaled with it."""
        return state.updated(trajectory.rewards, trajectory.ended, trajectory.valid, self.gamma)

    def scale(self, state: RewardScale, rewards: Array) -> Array:
        """Return the rewards divided and clipped."""
        return state.scale(rewards, self.clip)
