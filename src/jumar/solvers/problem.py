"""What a solver is given: something to climb, and a measure of how far that moves the policy.

    maximise  L(theta)   while   D(theta_old, theta)  stays small

A :class:`Climb` is the bare thing: one objective of any parameters. A :class:`Problem` is an update's: the policy's
objective, the critic's loss, and the divergence between policies, kept apart, because methods treat them apart. A
trust region bounds the policy alone; plain minibatches may climb both at once (:meth:`Problem.joint`).

Solvers know nothing of policies, critics or algorithms: they see functions of (parameters, batch).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from jax import Array

from jumar.policies.distributions import Distribution
from jumar.solvers.objectives import log_ratio, sampled_kl
from jumar.trajectory import Batch, weighted_mean

Parameters = Any
Diagnostics = dict[str, Array]
Objective = Callable[[Parameters, Batch], tuple[Array, Diagnostics]]
"""(parameters, batch) -> the number to maximise, and scalars worth knowing about it."""
Divergence = Callable[[Any, Any, Batch], Array]
"""(old distributions, new distributions, batch) -> how far apart they are at each row."""


def kl(old: Distribution, new: Distribution, batch: Batch) -> Array:
    """Return KL(old || new) at each row, exactly: the divergence of the whole family."""
    return old.kl(new)


def kl_of_actions(old: Distribution, new: Distribution, batch: Batch) -> Array:
    """Return the estimate of KL(old || new) from the one action of each row: :func:`jumar.solvers.objectives.sampled_kl`.

    The mean of ``log(old / new)`` alone, as it is often printed, may be negative in a sample, and bounds nothing then.
    """
    return sampled_kl(new.log_prob(batch.actions), batch.log_probs)


def reverse_kl(old: Distribution, new: Distribution, batch: Batch) -> Array:
    """Return KL(new || old) at each row, exactly; to second order in a step it is :func:`kl`."""
    return new.kl(old)


def log_ratio_of_actions(old: Distribution, new: Distribution, batch: Batch) -> Array:
    r"""Return :math:`\log \pi_{old}(a|s) - \log \pi(a|s)` of the one action of each row, clamped to ±20.

    Its expectation is KL(old || new), but its mean over a sample may be negative, and falls without bound along the sum of the
    sample's scores: small numbers of it say nothing.

    Source: course notes *Policy Gradients*, definitions 4.6.4 and 4.6.7.
    """
    return -log_ratio(new.log_prob(batch.actions), batch.log_probs)


Mean = Callable[[Array, Batch], Array]
"""(numbers of all rows, batch) -> their mean: over steps, or over trajectories of the sums over their steps."""


def mean_over_steps(rows: Array, batch: Batch) -> Array:
    """Return the weighted mean over the rows."""
    return weighted_mean(rows, batch.weights)


def unprepared(batch: Batch) -> Batch:
    """Return the minibatch as it is."""
    return batch


def unembedded(parameters: Parameters, batch: Batch) -> Batch:
    """Return the rows as they are: policy and critic share nothing."""
    return batch


@dataclass(frozen=True)
class Climb:
    """One objective of one pytree of parameters."""

    objective: Objective
    estimate: Callable[[Parameters], Batch]
    """The whole batch, its advantages and value targets estimated with the critic of these parameters."""
    prepare: Callable[[Batch], Batch] = unprepared
    """What is done to a minibatch before the objective sees it; no parameters have a part in it."""


@dataclass(frozen=True)
class Constraint:
    r"""A cost that a step must not raise beyond a limit: :math:`c + C(\theta') - C(\theta) \le 0`."""

    cost: Callable[[Any, Batch], Array]
    """C, a function of the action distributions at all rows: the mean over the rows of ratio times cost advantage."""
    excess: Array
    """c: how far the policy before the update is beyond the limit, in the unit of ``cost``; negative within it."""


@dataclass(frozen=True)
class Problem:
    """One update's problem; the joint parameters are ``{"policy": ..., "critic": ...}``."""

    gain: Callable[[Any, Batch], tuple[Array, Diagnostics]]
    """L, a function of the action distributions at all rows: the surrogate with what is added to it (an entropy bonus).

    What a penalty or another objective adds is added here, where the network has been evaluated once.
    """
    critic_loss: Objective
    """What the critic makes small, a function of the critic's parameters."""
    distribution: Callable[[Parameters, Batch], Distribution]
    """The action distributions at all rows, a function of the policy's parameters."""
    estimate: Callable[[Parameters], Batch]
    """The whole batch, estimated with the critic of these joint parameters."""
    prepare: Callable[[Batch], Batch] = unprepared
    """What is done to a minibatch before the objective and the loss see it: scaling its advantages, say."""
    divergence: Divergence = kl
    constraint: Constraint | None = None
    """What a step must keep beside the divergence, for solvers that mind it."""
    embed: Callable[[Parameters, Batch], Batch] = unembedded
    """The rows with what policy and critic share of their networks evaluated, a function of the policy's parameters."""
    backward: Callable[[Parameters, Batch], Distribution] | None = None
    """The action distributions in a form that has derivatives backward alone, cheap where many are taken
    (``jumar.networks.transposed``)."""

    def backward_form(self, parameters: Parameters, batch: Batch) -> Distribution:
        """Return the action distributions to take derivatives backward of, in the cheaper form where there is one."""
        return (self.backward or self.distribution)(parameters, batch)

    def policy_objective(self, parameters: Parameters, batch: Batch) -> tuple[Array, Diagnostics]:
        """Return L and scalars worth knowing about it, a function of the policy's parameters."""
        return self.gain(self.distribution(parameters, batch), batch)

    def joint(self, vf_coef: float) -> Climb:
        """Return the climb of both at once: the policy's objective minus ``vf_coef`` times the critic's loss."""

        def objective(parameters: Parameters, batch: Batch) -> tuple[Array, Diagnostics]:
            batch = self.embed(parameters["policy"], batch)
            gain, about_policy = self.policy_objective(parameters["policy"], batch)
            loss, about_critic = self.critic_loss(parameters["critic"], batch)
            return gain - vf_coef * loss, {**about_policy, **about_critic}

        return Climb(objective, self.estimate, self.prepare)

    def distance(self, old: Parameters, new: Parameters, batch: Batch) -> tuple[Array, Array]:
        """Return D between two policies' parameters: its mean over the rows, and the largest of them."""
        rows = self.divergence(self.distribution(old, batch), self.distribution(new, batch), batch)
        return weighted_mean(rows, batch.weights), jnp.max(jnp.where(batch.weights > 0, rows, 0.0))
