r"""Stein variational gradients, by which a sampler learns a density that is known but for its factor.

Particles :math:`u_j` that move along

.. math::
    \phi(u_j) = \frac1I \sum_i \big[\kappa(u_i, u_j) \nabla_{u_i} \log p(u_i) + \nabla_{u_i} \kappa(u_i, u_j)\big]

decrease the divergence of their density from p the fastest, among all directions that the kernel knows: the first part
draws them to where p is large, the second keeps them apart.

Source: Liu and Wang 2016, *Stein Variational Gradient Descent: A General Purpose Bayesian Inference Algorithm*.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jumar.algorithms.off_policy.state_values import Critics, Valued
from jumar.critics.ensemble import Reduction
from jumar.policies.distributions import log_tanh_slope
from jumar.policies.policy import Policy
from jumar.solvers.problem import Parameters

NARROWEST = 1e-3
"""A kernel is at least so wide."""


def stein_direction(particles: Array, scores: Array, moved: Array) -> Array:
    r"""Return :math:`\phi(u_j)` at ``moved`` ``[J, ..., d]``, by ``particles`` ``[I, ..., d]`` and their ``scores``.

    The kernel is :math:`e^{-\|u_i - u_j\|^2 / h}` with h the median of the squared distances over :math:`\log(I + 1)`, apart
    for each of the batch axes ``...``.

    Args:
        particles: those that push.
        scores: :math:`\nabla \log p` at them.
        moved: those that are pushed.
    """
    apart = particles[:, None] - moved[None]
    squared = jnp.sum(jnp.square(apart), axis=-1)
    batch = squared.shape[2:]
    median = jnp.median(squared.reshape(-1, *batch), axis=0)
    width = jnp.maximum(median / math.log(particles.shape[0] + 1.0), NARROWEST)
    kernel = jnp.exp(-squared / width)[..., None]
    pushes = kernel * (scores[:, None] - 2.0 * apart / width[..., None])
    return jnp.mean(pushes, axis=0)


@dataclass(frozen=True)
class Stein:
    r"""The part by which a sampler climbs towards the density :math:`\pi(a|s) \propto e^{\min_k Q_k(s, a) / \alpha}`.

    The particles are what the sampler draws before tanh, where they are not bounded and no mass is lost at the bounds. There
    the density is :math:`p(u) \propto e^{Q(s, \tanh u) / \alpha} \prod_i (1 - \tanh^2 u_i)`, the second factor that of the
    change of variables. Half of the particles push the other half; the gradient of what is returned is that of
    :math:`\frac1J \sum_j \phi(u_j) \cdot u_j` with :math:`\phi` held fixed.

    Source: Haarnoja, Tang, Abbeel and Levine 2017, *Reinforcement Learning with Deep Energy-Based Policies*, section 3.3.
    """

    reduction: Reduction
    n_particles: int
    follows = False

    def noise(self, key: Array, shape: tuple[int, int]) -> Array:
        """Draw what the sampler's particles are made from, ``[particles, B, d]``."""
        return jax.random.normal(key, (self.n_particles, *shape), jnp.float32)

    def __call__(
        self, policy: Policy, parameters: Parameters, critics: Critics, alpha: Array, noise: Array, key: Array
    ) -> Valued:
        """Return the mean value of the particles that push, whose gradient in the parameters is Stein's direction."""
        distribution: Any = policy.at(parameters, critics.states.features)
        drawn = distribution.outcome(noise)
        half = self.n_particles // 2
        particles, moved = jax.lax.stop_gradient(drawn[:half]), drawn[half:]

        def log_density(u: Array) -> tuple[Array, Array]:
            values = self.reduction(critics.of(policy.actions.to_unit(u, jnp)), key)
            return jnp.sum(values / alpha) + jnp.sum(log_tanh_slope(u)), values

        scores, values = jax.grad(log_density, has_aux=True)(particles)
        direction = stein_direction(particles, scores, jax.lax.stop_gradient(moved))
        climbed = jnp.mean(jnp.sum(jax.lax.stop_gradient(direction) * moved, axis=-1), axis=0)
        mean = jax.lax.stop_gradient(jnp.mean(values, axis=0))
        return Valued(mean + climbed - jax.lax.stop_gradient(climbed), jnp.full_like(mean, jnp.nan))
