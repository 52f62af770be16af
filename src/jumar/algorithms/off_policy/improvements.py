"""How a policy improves by critics of its actions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax import Array

from jumar.algorithms.off_policy.state_values import Judges, StateValue
from jumar.critics.ensemble import Ensemble
from jumar.policies.policy import Policy
from jumar.solvers.ascent import Optimiser
from jumar.solvers.problem import Parameters
from jumar.trajectory import weighted_mean


class Rows(NamedTuple):
    """What of the rows drawn an improvement sees, ``[B]``."""

    actions: Array
    """``[B, d]``, as critics see them."""
    weights: Array


class Improved(NamedTuple):
    """What an improvement of the policy made."""

    parameters: Parameters
    state: Any
    """The optimiser's."""
    gain: Array
    """The objective before it, a scalar."""
    log_prob: Array
    r"""The mean of :math:`\log \pi` before it."""
    grad_norm: Array


class Improvement(Protocol):
    """A part that improves the policy by the critics."""

    @property
    def value(self) -> StateValue:
        """What states are worth under the policy that is improved."""
        ...

    def __call__(
        self,
        policy: Policy,
        parameters: Parameters,
        state: Any,
        optimiser: Optimiser,
        judges: Judges,
        rows: Rows,
        alpha: Array,
        remaining: Array,
        keys: tuple[Array, Array],
    ) -> Improved:
        """Return the policy's parameters after a step.

        Args:
            policy: the policy.
            parameters: its parameters.
            state: the optimiser's state.
            optimiser: what makes steps of gradients.
            judges: the critics, ready to be asked at the rows' states.
            rows: what was done there.
            alpha: the temperature.
            remaining: the share of training that is left, for schedules.
            keys: for the value's noise and for drawing critics.
        """
        ...


@dataclass(frozen=True)
class Climbing:
    r"""The part by which the policy climbs what states are worth under it, :math:`J(\theta) = E_s[V_\theta(s)]`.

    With ``bc_coef`` it stays near the actions :math:`a` of the memory, as data made before need it:

    .. math::
        J(\theta) = \frac{E[V_\theta(s)]}{E|V_\theta(s)|} - c \, E\Big[\frac1d \|a_\theta(s) - a\|^2\Big],

    with the denominator held fixed and actions in units of half of their range.

    Source: Fujimoto and Gu 2021, *A Minimalist Approach to Offline Reinforcement Learning*; their lambda's 2.5 is c = 0.4.
    """

    value: StateValue
    bc_coef: float = 0.0
    """c; 0 does without."""

    def __call__(
        self,
        policy: Policy,
        parameters: Parameters,
        state: Any,
        optimiser: Optimiser,
        judges: Judges,
        rows: Rows,
        alpha: Array,
        remaining: Array,
        keys: tuple[Array, Array],
    ) -> Improved:
        """Return the policy after a gradient step."""
        noise = self.value.noise(keys[0], judges.states.action_shape)

        def objective(parameters: Parameters) -> tuple[Array, Array]:
            valued = self.value(policy, parameters, judges, alpha, noise, keys[1])
            gain = weighted_mean(valued.values, rows.weights)
            if self.bc_coef > 0.0:
                size = jax.lax.stop_gradient(weighted_mean(jnp.abs(valued.values), rows.weights))
                mode = policy.actions.to_unit(policy.at(parameters, judges.states.features).mode(), jnp)
                distance = jnp.mean(jnp.square(mode - rows.actions), axis=-1)
                gain = gain / jnp.maximum(size, 1e-8) - self.bc_coef * weighted_mean(distance, rows.weights)
            return gain, weighted_mean(valued.log_probs, rows.weights)

        (gain, log_prob), gradient = jax.value_and_grad(objective, has_aux=True)(parameters)
        parameters, state = optimiser.ascend(parameters, gradient, state, remaining)
        return Improved(parameters, state, gain, log_prob, norm(gradient))


@dataclass(frozen=True)
class Mirroring:
    r"""The part by which the policy is the first critic's own, :math:`\pi(a|s) \propto e^{Q_1(s, a) / \alpha}`.

    It is for Discrete actions. The policy's network is a copy of the critic's whose last map is divided by the temperature;
    nothing is learnt.
    """

    critic: Ensemble
    """Without layers between the affine maps that the policy does not have."""
    value: StateValue

    def __call__(
        self,
        policy: Policy,
        parameters: Parameters,
        state: Any,
        optimiser: Optimiser,
        judges: Judges,
        rows: Rows,
        alpha: Array,
        remaining: Array,
        keys: tuple[Array, Array],
    ) -> Improved:
        """Return the critic's policy."""
        noise = self.value.noise(keys[0], judges.states.action_shape)
        valued = self.value(policy, parameters, judges, alpha, noise, keys[1])
        *hidden, last = self.critic.one(judges.parameters, 0)
        torso = {name: x for name, x in judges.parameters["torso"].items() if name != "mlp"}
        torso["mlp"] = {f"layer_{i}": layer for i, layer in enumerate(hidden)}
        parameters = {"torso": torso, "head": {"logits": jax.tree.map(lambda x: x / alpha, last)}}
        gain, log_prob = (weighted_mean(x, rows.weights) for x in valued)
        # Copies: what is donated to a program must not be there twice.
        return Improved(jax.tree.map(jnp.copy, parameters), state, gain, log_prob, jnp.zeros((), jnp.float32))


@dataclass(frozen=True)
class Cloning:
    r"""The part by which the policy is fitted to the actions that were taken: it climbs :math:`E[\log \pi_\theta(a|s)]`.

    A deterministic policy in a Box goes down :math:`E[\frac1d \|\mu_\theta(s) - a\|^2]` instead, which is the same for a
    Gaussian of a fixed deviation around it.
    """

    value: StateValue
    """What states are worth for the flight record."""

    def __call__(
        self,
        policy: Policy,
        parameters: Parameters,
        state: Any,
        optimiser: Optimiser,
        judges: Judges,
        rows: Rows,
        alpha: Array,
        remaining: Array,
        keys: tuple[Array, Array],
    ) -> Improved:
        """Return the policy after a gradient step."""

        def objective(parameters: Parameters) -> tuple[Array, Array]:
            distribution: Any = policy.at(parameters, judges.states.features, judges.states.masks)
            if policy.actions.kind == "discrete":
                log_probs = jnp.sum(jnp.where(rows.actions > 0.0, distribution.log_probs, 0.0), axis=-1)
                return weighted_mean(log_probs, rows.weights), -weighted_mean(distribution.entropy(), rows.weights)
            mode = policy.actions.to_unit(distribution.mode(), jnp)
            distance = jnp.mean(jnp.square(mode - rows.actions), axis=-1)
            return -weighted_mean(distance, rows.weights), jnp.zeros((), jnp.float32)

        (gain, log_prob), gradient = jax.value_and_grad(objective, has_aux=True)(parameters)
        parameters, state = optimiser.ascend(parameters, gradient, state, remaining)
        return Improved(parameters, state, gain, log_prob, norm(gradient))


def norm(tree: Any) -> Array:
    """Return the Euclidean norm of all numbers of a pytree together."""
    return jnp.sqrt(sum(jnp.sum(jnp.square(x)) for x in jax.tree.leaves(tree)))
