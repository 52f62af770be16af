r"""The simple regulator: one number, to be brought to 0 and kept there, with everything in closed form.

.. math::
    s_0 \sim N(0.3, 0.1^2), \quad s' \sim N(s + a, 0.1^2), \quad r(s, a) = -s^2, \quad
    a \sim N(\theta_1 s, \sigma^2), \; \sigma = |\theta_2| + 10^{-5}

The best parameters are :math:`\theta_1 = -1` and :math:`\theta_2 \to 0`. With the noise's deviation :math:`\omega`, the second
moment :math:`q_t = E[s_t^2]` obeys :math:`q_{t+1} = (1 + \theta_1)^2 q_t + \sigma^2 + \omega^2`; all else follows from it.

Source: Kochenderfer, Wheeler and Wray, *Algorithms for Decision Making*, appendix F.5, and its authors' published code, which
also keeps states in [-10, 10]; here they are free.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces
from jax import Array

from jumar.lab.precision import in_double
from jumar.lab.rollouts import Rollouts, discounts
from jumar.policies.distributions import DiagGaussian

OPTIMUM = (-1.0, 0.0)
"""The best parameters."""

LEAST_STD = 1e-5
"""What is added to the deviation of the policy, so that it is never 0."""


@partial(
    jax.tree_util.register_dataclass,
    data_fields=("initial_mean", "initial_std", "noise_std", "gamma"),
    meta_fields=("depth",),
)
@dataclass(frozen=True)
class Regulator:
    """The problem's numbers; a pytree of them. The defaults are the book's."""

    initial_mean: float = 0.3
    initial_std: float = 0.1
    noise_std: float = 0.1
    gamma: float = 1.0
    """Discount."""
    depth: int = 10
    """How many steps there are."""


@in_double
def policy(theta: Array, states: Array) -> DiagGaussian:
    """Return the action distributions at states ``[...]``; actions are ``[..., 1]``; ``theta`` is ``[2]``."""
    mean = (theta[0] * states)[..., None]
    return DiagGaussian(mean, jnp.full_like(mean, jnp.log(standard_deviation(theta))))


@in_double
def standard_deviation(theta: Array) -> Array:
    r"""Return :math:`\sigma = |\theta_2| + 10^{-5}`."""
    return jnp.abs(theta[1]) + LEAST_STD


@in_double
def log_prob(theta: Array, states: Array, actions: Array) -> Array:
    r"""Return :math:`\log \pi(a|s)` of states and actions ``[...]``."""
    return policy(theta, states).log_prob(actions[..., None])


# -- exactly ----------------------------------------------------------------------------------------------------------


@in_double
def second_moments(problem: Regulator, theta: Array) -> Array:
    r"""Return :math:`q_t = E[s_t^2]`, ``[depth]``."""
    spread = jnp.square(standard_deviation(theta)) + problem.noise_std**2
    start = jnp.full_like(spread, problem.initial_mean**2 + problem.initial_std**2)

    def after(now: Array, _: None) -> tuple[Array, Array]:
        return jnp.square(1.0 + theta[0]) * now + spread, now

    return jax.lax.scan(after, start, None, length=problem.depth)[1]


@in_double
def performance(problem: Regulator, theta: Array) -> Array:
    r"""Return :math:`J = -\sum_t \gamma^t q_t`, a scalar."""
    return -discounts(problem.gamma, problem.depth) @ second_moments(problem, theta)


@in_double
def policy_gradient(problem: Regulator, theta: Array) -> Array:
    r"""Return :math:`\nabla J`, ``[2]``."""
    return jax.grad(lambda theta: performance(problem, theta))(theta)


@in_double
def action_slopes(problem: Regulator, gain: Array) -> Array:
    r"""Return :math:`c_t` of :math:`\nabla_a Q_t(s, a)|_{a = \theta_1 s} = c_t s` for the deterministic policy, ``[depth]``.

    But for constants the state is worth :math:`V_t(s) = -p_t s^2` with :math:`p_t = 1 + \gamma (1 + \theta_1)^2 p_{t+1}`, and
    the action :math:`Q_t(s, a) = -s^2 - \gamma p_{t+1} (s + a)^2`, so that :math:`c_t = -2 \gamma p_{t+1} (1 + \theta_1)`.
    """

    def before(later: Array, _: None) -> tuple[Array, Array]:
        return 1.0 + problem.gamma * jnp.square(1.0 + gain) * later, later

    _, later = jax.lax.scan(before, jnp.zeros_like(gain), None, length=problem.depth, reverse=True)
    return -2.0 * problem.gamma * later * (1.0 + gain)


@in_double
def deterministic_policy_gradient(problem: Regulator, gain: Array) -> Array:
    r"""Return the gradient of the deterministic policy :math:`\mu(s) = \theta_1 s`, a scalar.

    .. math:: \sum_t \gamma^t E\big[\nabla_{\theta_1} \mu(s_t) \, \nabla_a Q_t(s_t, a)|_{a = \mu(s_t)}\big]

    It is the derivative of :func:`performance` where the policy's deviation is 0.

    Source: Silver et al. 2014, *Deterministic Policy Gradient Algorithms*, theorem 1.
    """
    spread = problem.noise_std**2
    start = jnp.full_like(gain, problem.initial_mean**2 + problem.initial_std**2)

    def after(now: Array, _: None) -> tuple[Array, Array]:
        return jnp.square(1.0 + gain) * now + spread, now

    moments = jax.lax.scan(after, start, None, length=problem.depth)[1]
    return discounts(problem.gamma, problem.depth) @ (action_slopes(problem, gain) * moments)


@in_double
def trajectory_fisher(problem: Regulator, theta: Array) -> Array:
    r"""Return :math:`\sum_t diag(q_t, 2) / \sigma^2`, ``[2, 2]``: the Fisher matrix of whole trajectories."""
    moments = second_moments(problem, theta)
    return jnp.diag(jnp.stack([jnp.sum(moments), 2.0 * moments.size])) / jnp.square(standard_deviation(theta))


@in_double
def step_fisher(problem: Regulator, theta: Array) -> Array:
    """Return the Fisher matrix of one decision, its mean over the steps, ``[2, 2]``."""
    return trajectory_fisher(problem, theta) / problem.depth


@in_double
def natural_gradient(problem: Regulator, theta: Array) -> Array:
    r"""Return :math:`F^{-1} \nabla J` with the Fisher matrix of whole trajectories, ``[2]``."""
    return policy_gradient(problem, theta) / jnp.diag(trajectory_fisher(problem, theta))


@in_double
def mean_kl(problem: Regulator, old: Array, new: Array) -> Array:
    r"""Return the mean over the steps of :math:`E[KL(\pi(\cdot|s_t) \| \pi'(\cdot|s_t))]`, with the states of the old policy.

    .. math:: \log \frac{\sigma'}{\sigma} + \frac{\sigma^2 + \bar q \, (\theta_1 - \theta'_1)^2}{2 \sigma'^2} - \frac12

    ``depth`` times that is the divergence between the distributions of trajectories.
    """
    # The divergence is linear in the squared state: where the state is the root of its second moment, it is the mean.
    typical = jnp.sqrt(jnp.mean(second_moments(problem, old)))
    return policy(old, typical).kl(policy(new, typical))


# -- experience -------------------------------------------------------------------------------------------------------


@in_double
def draw(problem: Regulator, theta: Array, key: Array, n: int) -> Rollouts:
    """Draw ``n`` trajectories of ``depth`` steps."""
    first, later = jax.random.split(key)
    start = problem.initial_mean + problem.initial_std * jax.random.normal(first, (n,))

    def step(state: Array, noise: Array) -> tuple[Array, tuple[Array, Array]]:
        action = policy(theta, state).outcome(noise[0, :, None])[:, 0]
        return state + action + problem.noise_std * noise[1], (state, action)

    _, (states, actions) = jax.lax.scan(step, start, jax.random.normal(later, (problem.depth, 2, n)))
    return Rollouts(states.T, actions.T, -jnp.square(states.T))


class RegulatorState(NamedTuple):
    """Where an episode is."""

    state: Array
    time: Array


@dataclass(frozen=True)
class RegulatorEnvironment:
    """The regulator as a compiled environment, for any agent: ``jax/jumar.lab.regulator:RegulatorEnvironment``.

    Observation and action are one number each. An episode terminates after ``depth`` steps.
    """

    depth: int = 10

    @property
    def observation_space(self) -> spaces.Box:
        """(1,): the state."""
        return spaces.Box(-np.inf, np.inf, (1,), np.float32)

    @property
    def action_space(self) -> spaces.Box:
        """(1,): what is added to the state."""
        return spaces.Box(-np.inf, np.inf, (1,), np.float32)

    @property
    def params(self) -> Regulator:
        """The problem's numbers."""
        return Regulator(depth=self.depth)

    def reset(self, key: Array, params: Regulator) -> tuple[RegulatorState, Array]:
        """Draw the first state."""
        state = jnp.asarray(params.initial_mean + params.initial_std * jax.random.normal(key, (1,)), jnp.float32)
        return RegulatorState(state, jnp.zeros((), jnp.int32)), state

    def step(
        self, key: Array, state: RegulatorState, action: Array, params: Regulator
    ) -> tuple[RegulatorState, Array, Array, Array, Array, dict[str, Any]]:
        """Add the action and noise."""
        noise = params.noise_std * jax.random.normal(key, (1,))
        successor = jnp.asarray(state.state + action + noise, jnp.float32)
        time = state.time + 1
        reward = -jnp.square(state.state[0])
        return RegulatorState(successor, time), successor, reward, time >= self.depth, jnp.zeros((), bool), {}
