r"""Linear-quadratic regulation: linear dynamics with Gaussian noise, quadratic rewards, linear-Gaussian policies; exactly.

.. math::
    s' = A s + B a + w, \; w \sim N(0, W), \qquad r(s, a) = -(s^T Q s + a^T R a), \qquad a \sim N(K s + k, \Sigma)

With a horizon H there are H decisions, and the state after the last of them is worth :math:`-s^T Q_H s`. Without one the
process goes on for ever, and the discount is below 1. Values are quadratic,

.. math:: V(s) = -(s^T P s + 2 p^T s + c),

and the best policy is linear without offset and noise. Here are the problem, policies, drawn trajectories and an environment.
What a policy is worth and its gradients are in :mod:`jumar.lab.quadratic_values`, the best policy in :mod:`jumar.lab.riccati`;
:mod:`jumar.lab.ilqr` plans where the dynamics are not linear. The simple regulator of :mod:`jumar.lab.regulator` is the case
:math:`A = B = Q = 1, R = 0` (:func:`of_regulator`).

Source: Anderson and Moore 1990, *Optimal Control: Linear Quadratic Methods*.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces
from jax import Array

from jumar.errors import UsageError
from jumar.lab.arguments import ArrayLike
from jumar.lab.precision import in_double
from jumar.lab.regulator import Regulator, standard_deviation
from jumar.lab.rollouts import Rollouts
from jumar.policies.distributions import DiagGaussian


@partial(
    jax.tree_util.register_dataclass,
    data_fields=("dynamics", "control", "state_cost", "action_cost", "noise", "mean", "spread", "gamma", "final_cost"),
    meta_fields=("horizon",),
)
@dataclass(frozen=True, eq=False)
class LinearQuadratic:
    """A linear-quadratic problem with states of ``n`` numbers and actions of ``m``; a pytree of its numbers.

    The constructor takes anything; :meth:`of` checks.
    """

    dynamics: ArrayLike
    """A, ``[n, n]``."""
    control: ArrayLike
    """B, ``[n, m]``."""
    state_cost: ArrayLike
    """Q, ``[n, n]``, symmetric and positive semidefinite."""
    action_cost: ArrayLike
    """R, ``[m, m]``, symmetric and positive semidefinite."""
    noise: ArrayLike
    """W, the covariance of the noise, ``[n, n]``."""
    mean: ArrayLike
    """The mean of the first state, ``[n]``."""
    spread: ArrayLike
    """The covariance of the first state, ``[n, n]``."""
    gamma: float
    """Discount in [0, 1]; below 1 without a horizon."""
    final_cost: ArrayLike
    """Q_H, ``[n, n]``, of the state after the last step; unused without a horizon."""
    horizon: int | None = None
    """How many decisions there are; None: without end."""

    @classmethod
    def of(
        cls,
        dynamics: Any,
        control: Any,
        state_cost: Any,
        action_cost: Any,
        noise: Any,
        mean: Any,
        spread: Any,
        gamma: float,
        horizon: int | None = None,
        final_cost: Any = None,
    ) -> LinearQuadratic:
        """Return the problem of these matrices (lists will do), if they are one; without ``final_cost`` it is 0.

        Raises:
            UsageError: shapes do not fit, a matrix is not symmetric and positive semidefinite, or the discount or the horizon
                is out of range.
        """
        control, mean = np.asarray(control, np.float64), np.asarray(mean, np.float64)
        if control.ndim != 2 or mean.shape != control.shape[:1]:
            raise UsageError(f"control is {control.shape} and mean {mean.shape}; they must be [n, m] and [n].")
        if not (np.isfinite(control).all() and np.isfinite(mean).all()):
            raise UsageError("control and mean must have finite entries.")
        n, m = control.shape
        zeros = np.zeros((n, n)) if final_cost is None else final_cost
        matrices = {
            "dynamics": (dynamics, n),
            "state_cost": (state_cost, n),
            "action_cost": (action_cost, m),
            "noise": (noise, n),
            "spread": (spread, n),
            "final_cost": (zeros, n),
        }
        checked = {name: _checked(name, value, size) for name, (value, size) in matrices.items()}
        if horizon is not None and (not isinstance(horizon, int) or horizon < 1):
            raise UsageError(
                f"horizon={horizon} must be a whole number of at least 1, or None for a process without end."
            )
        if not 0.0 <= gamma <= 1.0 or (horizon is None and gamma == 1.0):
            raise UsageError(f"gamma={gamma} must be in [0, 1], and below 1 without a horizon.")
        return cls(control=control, mean=mean, gamma=gamma, horizon=horizon, **checked)

    @property
    def n(self) -> int:
        """How many numbers a state has."""
        return self.control.shape[0]

    @property
    def m(self) -> int:
        """How many numbers an action has."""
        return self.control.shape[1]


def _checked(name: str, value: Any, size: int) -> np.ndarray:
    matrix = np.asarray(value, np.float64)
    if matrix.shape != (size, size):
        raise UsageError(f"{name} has the shape {matrix.shape}, and must have {(size, size)}.")
    if not np.isfinite(matrix).all():
        raise UsageError(f"{name} must have finite entries.")
    if name == "dynamics":
        return matrix
    if not np.allclose(matrix, matrix.T, rtol=0.0, atol=1e-12 * max(1.0, float(np.abs(matrix).max()))):
        raise UsageError(f"{name} must be symmetric.")
    least = float(np.linalg.eigvalsh(matrix).min())
    if least < -1e-9 * max(1.0, float(np.abs(matrix).max())):
        raise UsageError(f"{name} has the eigenvalue {least:.3g}, and must have none below 0.")
    return matrix


def double_integrator(gamma: float = 0.95, horizon: int | None = 30, step: float = 0.2) -> LinearQuadratic:
    """Return a mass on a line, to be brought to 0 and to rest: states are (place, speed), actions are accelerations."""
    return LinearQuadratic.of(
        dynamics=[[1.0, step], [0.0, 1.0]],
        control=[[0.5 * step**2], [step]],
        state_cost=[[1.0, 0.0], [0.0, 0.1]],
        action_cost=[[0.1]],
        noise=np.diag([1e-4, 1e-3]),
        mean=[1.0, 0.0],
        spread=np.diag([0.04, 0.04]),
        gamma=gamma,
        horizon=horizon,
    )


class LinearPolicy(NamedTuple):
    r"""The policy :math:`a \sim N(K s + k, \Sigma)`; with a leading axis ``[H]`` of all three it changes with time."""

    gain: Array
    """K, ``[m, n]`` or ``[H, m, n]``."""
    offset: Array
    """k, ``[m]`` or ``[H, m]``."""
    covariance: Array
    r""":math:`\Sigma`, ``[m, m]`` or ``[H, m, m]``."""

    @property
    def changes(self) -> bool:
        """Whether it changes with time."""
        return self.gain.ndim == 3

    @in_double
    def distribution(self, states: Array) -> DiagGaussian:
        """Return the action distributions at states ``[..., n]``, for a policy that does not change and a diagonal Sigma."""
        mean = states @ self.gain.T + self.offset
        return DiagGaussian(mean, jnp.broadcast_to(0.5 * jnp.log(jnp.diagonal(self.covariance)), mean.shape))


@in_double
def linear_policy(problem: LinearQuadratic, gain: Any, std: float = 0.0) -> LinearPolicy:
    r"""Return the policy with this gain ``[m, n]`` or ``[H, m, n]``, no offset, and :math:`\Sigma = std^2 I`."""
    gain = jnp.asarray(gain, float)
    lead = gain.shape[:-2]
    covariance = jnp.broadcast_to(std**2 * jnp.eye(problem.m), (*lead, problem.m, problem.m))
    return LinearPolicy(gain, jnp.zeros((*lead, problem.m)), covariance)


@in_double
def of_regulator(problem: Regulator) -> LinearQuadratic:
    """Return the simple regulator as a linear-quadratic problem; its depth is the horizon."""
    one, zero = jnp.ones((1, 1)), jnp.zeros((1, 1))
    mean = jnp.full((1,), problem.initial_mean)
    noise, spread = problem.noise_std**2 * one, problem.initial_std**2 * one
    return LinearQuadratic(one, one, one, zero, noise, mean, spread, problem.gamma, zero, problem.depth)


@in_double
def regulator_policy(theta: Array) -> LinearPolicy:
    r"""Return the regulator's policy :math:`N(\theta_1 s, \sigma^2)` as a linear one."""
    return LinearPolicy(
        jnp.reshape(theta[0], (1, 1)), jnp.zeros(1), jnp.reshape(jnp.square(standard_deviation(theta)), (1, 1))
    )


# -- experience --------------------------------------------------------------------------------------------------------


@in_double
def draw(problem: LinearQuadratic, policy: LinearPolicy, key: Array, n: int, length: int | None = None) -> Rollouts:
    """Draw N = ``n`` trajectories of the horizon's length, or of ``length`` steps.

    States are ``[N, T, n]`` and actions ``[N, T, m]``; the final cost is no reward of any step.

    Raises:
        UsageError: there is neither a horizon nor a ``length``.
    """
    steps = problem.horizon if length is None else length
    if steps is None:
        raise UsageError("length=None: a process without end needs the length of its trajectories.")
    first, later, choices = jax.random.split(key, 3)
    start = jnp.asarray(problem.mean) + jax.random.normal(first, (n, problem.n)) @ _root(problem.spread).T
    noises = jax.random.normal(later, (steps, n, problem.n)) @ _root(problem.noise).T
    lead = (steps,)
    gains, offsets, roots = (
        jnp.broadcast_to(x, lead + x.shape[x.ndim - k :])
        for x, k in ((policy.gain, 2), (policy.offset, 1), (_root(policy.covariance), 2))
    )
    drawn = jnp.einsum("tni,tji->tnj", jax.random.normal(choices, (steps, n, problem.m)), roots)

    def step(state: Array, now: tuple[Array, ...]) -> tuple[Array, tuple[Array, Array, Array]]:
        gain, offset, drawn, noise = now
        action = state @ gain.T + offset + drawn
        successor = state @ jnp.asarray(problem.dynamics).T + action @ jnp.asarray(problem.control).T + noise
        return successor, (state, action, reward(problem, state, action))

    _, (states, actions, rewards) = jax.lax.scan(step, start, (gains, offsets, drawn, noises))
    return Rollouts(jnp.swapaxes(states, 0, 1), jnp.swapaxes(actions, 0, 1), rewards.T)


def reward(problem: LinearQuadratic, states: Array, actions: Array) -> Array:
    r"""Return :math:`-(s^T Q s + a^T R a)` of states ``[..., n]`` and actions ``[..., m]``."""
    by_state = jnp.einsum("...i,ij,...j->...", states, jnp.asarray(problem.state_cost, states.dtype), states)
    by_action = jnp.einsum("...i,ij,...j->...", actions, jnp.asarray(problem.action_cost, actions.dtype), actions)
    return -(by_state + by_action)


def _root(covariance: ArrayLike) -> Array:
    """Return L with L L' the covariance, which may be singular."""
    values, vectors = jnp.linalg.eigh(jnp.asarray(covariance))
    return vectors * jnp.sqrt(jnp.maximum(values, 0.0))[..., None, :]


# -- as an environment -------------------------------------------------------------------------------------------------


class LinearQuadraticState(NamedTuple):
    """Where an episode is."""

    state: Array
    time: Array


@dataclass(frozen=True, eq=False)
class LinearQuadraticEnvironment:
    """A linear-quadratic problem as a compiled environment: ``jax/jumar.lab.linear_quadratic:LinearQuadraticEnvironment``.

    By default it is the :func:`double_integrator`. Observations are states, ``(n,)``, and actions ``(m,)``. An episode of a
    problem with a horizon terminates there, and the final cost is a part of its last reward, so that returns are J. One without
    is cut after ``time_limit`` steps, so that the value of the last state still counts. ``params`` is the problem.

    Raises:
        UsageError: the problem has no end and there is no ``time_limit``, or one below 1.
    """

    problem: LinearQuadratic = field(default_factory=double_integrator)
    time_limit: int | None = None

    def __post_init__(self) -> None:
        if self.problem.horizon is None and self.time_limit is None:
            raise UsageError("time_limit=None, but the problem has no end of its own; give a number of at least 1.")
        if self.time_limit is not None and self.time_limit < 1:
            raise UsageError(f"time_limit={self.time_limit} must be at least 1.")

    @property
    def observation_space(self) -> spaces.Box:
        """(n,): the state."""
        return spaces.Box(-np.inf, np.inf, (self.problem.n,), np.float32)

    @property
    def action_space(self) -> spaces.Box:
        """(m,): the action."""
        return spaces.Box(-np.inf, np.inf, (self.problem.m,), np.float32)

    @property
    def params(self) -> LinearQuadratic:
        """The problem."""
        return self.problem

    def reset(self, key: Array, params: LinearQuadratic) -> tuple[LinearQuadraticState, Array]:
        """Draw the first state."""
        state = jnp.asarray(params.mean) + _root(params.spread) @ jax.random.normal(key, (self.problem.n,))
        state = jnp.asarray(state, jnp.float32)
        return LinearQuadraticState(state, jnp.zeros((), jnp.int32)), state

    def step(
        self, key: Array, state: LinearQuadraticState, action: Array, params: LinearQuadratic
    ) -> tuple[LinearQuadraticState, Array, Array, Array, Array, dict[str, Any]]:
        """Move by the dynamics, and add noise."""
        noise = _root(params.noise) @ jax.random.normal(key, (self.problem.n,))
        successor = jnp.asarray(params.dynamics) @ state.state + jnp.asarray(params.control) @ action + noise
        successor, time = jnp.asarray(successor, jnp.float32), state.time + 1
        never = jnp.zeros((), bool)
        terminated = never if self.problem.horizon is None else time >= self.problem.horizon
        truncated = never if self.time_limit is None else time >= self.time_limit
        gained = reward(params, state.state, action)
        # J discounts the final cost once more than the last reward.
        last = params.gamma * successor @ jnp.asarray(params.final_cost) @ successor
        gained = jnp.asarray(gained - jnp.where(terminated, last, 0.0), jnp.float32)
        return LinearQuadraticState(successor, time), successor, gained, terminated, truncated, {}
