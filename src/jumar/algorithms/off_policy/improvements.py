"""How a policy improves by critics of its actions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax import Array

from jumar.algorithms.off_policy.state_values import FixedCritics, StateValue, Valued
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


class Given(NamedTuple):
    """What an improvement is made by, beside the parameters."""

    policy: Policy
    optimiser: Optimiser
    """What makes steps of gradients."""
    critics: FixedCritics
    """The critics, ready to be asked at the rows' states."""
    rows: Rows
    """What was done there."""
    alpha: Array
    """The temperature."""
    remaining: Array
    """The share of training that is left, for schedules."""
    noise_key: Array
    """For the value's noise."""
    critics_key: Array
    """For drawing critics."""

    def valued(self, value: StateValue, parameters: Parameters) -> Valued:
        """Return what the states are worth under a policy; the noise is the same in every call."""
        noise = value.noise(self.noise_key, self.critics.states.action_shape)
        return value(self.policy, parameters, self.critics, self.alpha, noise, self.critics_key)

    def mean(self, x: Array) -> Array:
        """Return the mean of ``[B]`` over the rows that count."""
        return weighted_mean(x, self.rows.weights)

    def distance(self, mode: Array) -> Array:
        r"""Return :math:`\frac1d \|a - a'\|^2` between the rows' actions and others of the environment, ``[B]``."""
        return jnp.mean(jnp.square(self.policy.actions.to_unit(mode, jnp) - self.rows.actions), axis=-1)

    def climbed(
        self, objective: Callable[[Parameters], tuple[Array, Array]], parameters: Parameters, state: Any
    ) -> Improved:
        r"""Return the policy after a step up an objective, which also says the mean of :math:`\log \pi`."""
        (gain, log_prob), gradient = jax.value_and_grad(objective, has_aux=True)(parameters)
        parameters, state = self.optimiser.ascend(parameters, gradient, state, self.remaining)
        return Improved(parameters, state, gain, log_prob, norm(gradient))


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

    def __call__(self, parameters: Parameters, state: Any, given: Given) -> Improved:
        """Return the policy's parameters after a step.

        Args:
            parameters: the policy's.
            state: the optimiser's.
            given: all else.
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

    def __call__(self, parameters: Parameters, state: Any, given: Given) -> Improved:
        """Return the policy after a gradient step."""

        def objective(parameters: Parameters) -> tuple[Array, Array]:
            valued = given.valued(self.value, parameters)
            gain = given.mean(valued.values)
            if self.bc_coef > 0.0:
                size = jax.lax.stop_gradient(given.mean(jnp.abs(valued.values)))
                mode = given.policy.at(parameters, given.critics.states.features).mode()
                gain = gain / jnp.maximum(size, 1e-8) - self.bc_coef * given.mean(given.distance(mode))
            return gain, given.mean(valued.log_probs)

        return given.climbed(objective, parameters, state)


@dataclass(frozen=True)
class Mirroring:
    r"""The part by which the policy is the first critic's own, :math:`\pi(a|s) \propto e^{Q_1(s, a) / \alpha}`.

    It is for Discrete actions. The policy's network is a copy of the critic's whose last map is divided by the temperature;
    nothing is learnt.
    """

    critic: Ensemble
    """Without layers between the affine maps that the policy does not have."""
    value: StateValue

    def __call__(self, parameters: Parameters, state: Any, given: Given) -> Improved:
        """Return the critic's policy."""
        valued, critics = given.valued(self.value, parameters), given.critics.parameters
        *hidden, last = self.critic.one(critics, 0)
        torso = {name: x for name, x in critics["torso"].items() if name != "mlp"}
        torso["mlp"] = {f"layer_{i}": layer for i, layer in enumerate(hidden)}
        parameters = {"torso": torso, "head": {"logits": jax.tree.map(lambda x: x / given.alpha, last)}}
        gain, log_prob = (given.mean(x) for x in valued)
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

    def __call__(self, parameters: Parameters, state: Any, given: Given) -> Improved:
        """Return the policy after a gradient step."""

        def objective(parameters: Parameters) -> tuple[Array, Array]:
            states = given.critics.states
            distribution: Any = given.policy.at(parameters, states.features, states.masks)
            if given.policy.actions.kind == "discrete":
                log_probs = jnp.sum(jnp.where(given.rows.actions > 0.0, distribution.log_probs, 0.0), axis=-1)
                return given.mean(log_probs), -given.mean(distribution.entropy())
            return -given.mean(given.distance(distribution.mode())), jnp.zeros((), jnp.float32)

        return given.climbed(objective, parameters, state)


def norm(tree: Any) -> Array:
    """Return the Euclidean norm of all numbers of a pytree together."""
    return jnp.sqrt(sum(jnp.sum(jnp.square(x)) for x in jax.tree.leaves(tree)))
