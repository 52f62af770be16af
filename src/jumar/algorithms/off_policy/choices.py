"""Choices: which actions a policy chooses where critics judge it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax import Array

from jumar.policies.policy import Policy
from jumar.solvers.problem import Parameters

Features = dict[str, Array]


class Chosen(NamedTuple):
    """Actions that a policy chooses, in units of half of their range."""

    actions: Array
    """``[B, d]``."""
    log_probs: Array
    """log pi of them in the environment's units, ``[B]``; 0 where the policy is deterministic."""


class Choice(Protocol):
    """A part that says which actions a policy chooses, as a function that gradients pass through."""

    @property
    def follows(self) -> bool:
        """Whether it is the target policy that chooses, which follows the policy slowly."""
        ...

    def noise(self, key: Array, shape: tuple[int, int]) -> Array:
        """Draw what is random in the choice of ``shape`` ``(B, d)``."""
        ...

    def __call__(self, policy: Policy, parameters: Parameters, features: Features, noise: Array) -> Chosen:
        """Return the actions at encoded observations ``[B]``."""
        ...


@dataclass(frozen=True)
class Drawn:
    r"""The choice that draws from the policy as it is: :math:`a = \tanh(\mu + \sigma \epsilon)`, with its log-probability."""

    follows = False

    def noise(self, key: Array, shape: tuple[int, int]) -> Array:
        r"""Draw :math:`\epsilon`."""
        return jax.random.normal(key, shape, jnp.float32)

    def __call__(self, policy: Policy, parameters: Parameters, features: Features, noise: Array) -> Chosen:
        """Return the actions drawn."""
        distribution: Any = policy.at(parameters, features)
        own = distribution.outcome(noise)
        return Chosen(policy.actions.to_unit(own, jnp), distribution.log_prob(own))


@dataclass(frozen=True)
class Mode:
    r"""The choice of what the policy does where nothing is drawn, of the policy itself or of the one that follows it.

    With ``noise_scale`` it is smoothed: :math:`clip(\mu(s) + clip(\sigma \epsilon, -c, c), -1, 1)`.

    Source: Fujimoto, van Hoof and Meger 2018, *Addressing Function Approximation Error in Actor-Critic Methods*, section 5.3.
    """

    follows: bool = False
    noise_scale: float = 0.0
    r""":math:`\sigma`, in units of half of the actions' range."""
    noise_clip: float = 0.0
    """c, in the same units."""

    def noise(self, key: Array, shape: tuple[int, int]) -> Array:
        r"""Draw :math:`\epsilon`."""
        return jax.random.normal(key, shape, jnp.float32) if self.noise_scale > 0.0 else jnp.zeros(shape, jnp.float32)

    def __call__(self, policy: Policy, parameters: Parameters, features: Features, noise: Array) -> Chosen:
        """Return the actions; a deterministic policy has no density, and its log-probabilities are 0."""
        actions = policy.actions.to_unit(policy.at(parameters, features).mode(), jnp)
        if self.noise_scale > 0.0:
            moved = actions + jnp.clip(self.noise_scale * noise, -self.noise_clip, self.noise_clip)
            actions = jnp.clip(moved, -1.0, 1.0)
        return Chosen(actions, jnp.zeros(actions.shape[:-1], jnp.float32))
