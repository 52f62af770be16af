"""Gymnasium's classic control tasks as compiled environments, step for step equal to Gymnasium's.

Equations, constants, reward, initial states, bounds and time limits are those of
``gymnasium.envs.classic_control``; the tests compare over random rollouts. The arithmetic follows the state's dtype:
``reset`` gives float32, a state cast to float64 is stepped in float64. ``params`` holds every physical constant, so
that each can be randomised. States end in ``time``, the number of steps taken in the episode.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from jumar.envs.compiled import CompiledEnvironment
from jumar.errors import UsageError

Params = TypeVar("Params")
State = TypeVar("State")
Step = tuple[State, jax.Array, jax.Array, jax.Array, jax.Array, dict[str, Any]]


def _in_dtype_of(reference: jax.Array, params: Params) -> Params:
    # Parameters given as double-precision arrays must not change the state's type.
    return jax.tree.map(lambda value: jnp.asarray(value, reference.dtype), params)


def _stacked(*values: jax.Array) -> jax.Array:
    return jnp.stack(values).astype(jnp.float32)


def _start() -> jax.Array:
    return jnp.zeros((), jnp.int32)


def _check_settings(env: Any) -> None:
    for field in dataclasses.fields(env):
        value = getattr(env, field.name)
        is_flag = isinstance(value, (bool, np.bool_))
        if field.type == "bool":
            good, right = is_flag, "true or false"
        elif field.type == "int":
            good, right = isinstance(value, int) and not is_flag and value >= 1, "a whole number of at least 1"
        else:
            good, right = isinstance(value, (int, float)) and not is_flag and math.isfinite(value), "a finite number"
        if not good:
            raise UsageError(f"{type(env).__name__}: {field.name}={value!r} must be {right}.")


class CartPoleParams(NamedTuple):
    """Constants of the cart-pole: SI units and radians."""

    gravity: float = 9.8
    masscart: float = 1.0
    masspole: float = 0.1
    length: float = 0.5  # half of the pole's
    force_mag: float = 10.0
    tau: float = 0.02  # seconds per step
    theta_threshold: float = 12 * 2 * math.pi / 360
    x_threshold: float = 2.4


class CartPoleState(NamedTuple):
    """Cart position and velocity, pole angle (0 is upright) and angular velocity."""

    x: jax.Array
    x_dot: jax.Array
    theta: jax.Array
    theta_dot: jax.Array
    time: jax.Array


@dataclass(frozen=True)
class CartPole:
    """CartPole-v1: keep a pole upright by pushing its cart left (0) or right (1).

    Euler steps of Barto, Sutton and Anderson (1983) as corrected by Florian (2007). Observation: the state. Reward 1
    per step, or with ``sutton_barto_reward`` 0, and -1 on falling. Terminates beyond 12 degrees or 2.4 m.
    """

    sutton_barto_reward: bool = False
    max_episode_steps: int = 500

    def __post_init__(self) -> None:
        _check_settings(self)

    @property
    def observation_space(self) -> spaces.Box:
        """(4,): x, x_dot, theta, theta_dot; bounds twice the thresholds."""
        limits = CartPoleParams()
        high = np.array([limits.x_threshold * 2, np.inf, limits.theta_threshold * 2, np.inf], np.float32)
        return spaces.Box(-high, high, dtype=np.float32)

    @property
    def action_space(self) -> spaces.Discrete:
        """0: push left; 1: push right."""
        return spaces.Discrete(2)

    @property
    def params(self) -> CartPoleParams:
        """Gymnasium's constants."""
        return CartPoleParams()

    def reset(self, key: jax.Array, params: CartPoleParams) -> tuple[CartPoleState, jax.Array]:
        """Draw all four from U(-0.05, 0.05)."""
        start = jax.random.uniform(key, (4,), jnp.float32, -0.05, 0.05)
        return CartPoleState(start[0], start[1], start[2], start[3], _start()), start

    def step(
        self, key: jax.Array, state: CartPoleState, action: jax.Array, params: CartPoleParams
    ) -> Step[CartPoleState]:
        """Take one Euler step of ``tau`` seconds."""
        x, x_dot, theta, theta_dot, time = state
        p = _in_dtype_of(x, params)
        total_mass, polemass_length = p.masspole + p.masscart, p.masspole * p.length
        force = jnp.where(action == 1, p.force_mag, -p.force_mag)
        cos, sin = jnp.cos(theta), jnp.sin(theta)
        push = (force + polemass_length * theta_dot**2 * sin) / total_mass
        theta_acc = (p.gravity * sin - cos * push) / (p.length * (4.0 / 3.0 - p.masspole * cos**2 / total_mass))
        x_acc = push - polemass_length * theta_acc * cos / total_mass
        new = CartPoleState(
            x=x + p.tau * x_dot,
            x_dot=x_dot + p.tau * x_acc,
            theta=theta + p.tau * theta_dot,
            theta_dot=theta_dot + p.tau * theta_acc,
            time=time + 1,
        )
        terminated = (jnp.abs(new.x) > p.x_threshold) | (jnp.abs(new.theta) > p.theta_threshold)
        if self.sutton_barto_reward:
            reward = -terminated.astype(x.dtype)
        else:
            reward = jnp.ones((), x.dtype)
        return new, _stacked(*new[:4]), reward, terminated, new.time >= self.max_episode_steps, {}


class AcrobotParams(NamedTuple):
    """Constants of the acrobot: SI units and radians."""

    gravity: float = 9.8
    link_length_1: float = 1.0
    link_mass_1: float = 1.0
    link_mass_2: float = 1.0
    link_com_1: float = 0.5  # from the joint to the centre of mass
    link_com_2: float = 0.5
    link_inertia: float = 1.0  # of both links
    max_velocity_1: float = 4 * math.pi
    max_velocity_2: float = 9 * math.pi
    torque: float = 1.0
    dt: float = 0.2  # seconds per step


class AcrobotState(NamedTuple):
    """Angle of the first link (0 hangs down), of the second relative to it, and their velocities."""

    theta1: jax.Array
    theta2: jax.Array
    theta1_dot: jax.Array
    theta2_dot: jax.Array
    time: jax.Array


@dataclass(frozen=True)
class Acrobot:
    """Acrobot-v1: swing the tip of a two-link pendulum above a line by torque at the middle joint.

    The equations of Sutton and Barto's book (Gymnasium's default), one fourth-order Runge-Kutta step of 0.2 s.
    Reward -1 per step, 0 on reaching the line: -cos(theta1) - cos(theta1 + theta2) > 1.
    """

    max_episode_steps: int = 500

    def __post_init__(self) -> None:
        _check_settings(self)

    @property
    def observation_space(self) -> spaces.Box:
        """(6,): cosine and sine of theta1, of theta2, and both velocities."""
        limits = AcrobotParams()
        high = np.array([1.0, 1.0, 1.0, 1.0, limits.max_velocity_1, limits.max_velocity_2], np.float32)
        return spaces.Box(-high, high, dtype=np.float32)

    @property
    def action_space(self) -> spaces.Discrete:
        """Torque -1, 0 or +1 N m."""
        return spaces.Discrete(3)

    @property
    def params(self) -> AcrobotParams:
        """Gymnasium's constants."""
        return AcrobotParams()

    def reset(self, key: jax.Array, params: AcrobotParams) -> tuple[AcrobotState, jax.Array]:
        """Draw all four from U(-0.1, 0.1)."""
        start = jax.random.uniform(key, (4,), jnp.float32, -0.1, 0.1)
        state = AcrobotState(start[0], start[1], start[2], start[3], _start())
        return state, _acrobot_observation(state)

    def step(self, key: jax.Array, state: AcrobotState, action: jax.Array, params: AcrobotParams) -> Step[AcrobotState]:
        """Take one Runge-Kutta step of ``dt`` seconds."""
        p = _in_dtype_of(state.theta1, params)
        torque = p.torque * (action - 1).astype(state.theta1.dtype)
        y = _runge_kutta_4(lambda y: _acrobot_derivative(y, torque, p), state[:4], p.dt)
        theta1, theta2, theta1_dot, theta2_dot = y
        new = AcrobotState(
            theta1=_wrap(theta1),
            theta2=_wrap(theta2),
            theta1_dot=jnp.clip(theta1_dot, -p.max_velocity_1, p.max_velocity_1),
            theta2_dot=jnp.clip(theta2_dot, -p.max_velocity_2, p.max_velocity_2),
            time=state.time + 1,
        )
        terminated = -jnp.cos(new.theta1) - jnp.cos(new.theta2 + new.theta1) > 1.0
        reward = terminated.astype(theta1.dtype) - 1.0
        return new, _acrobot_observation(new), reward, terminated, new.time >= self.max_episode_steps, {}


def _acrobot_observation(state: AcrobotState) -> jax.Array:
    theta1, theta2, theta1_dot, theta2_dot, _ = state
    return _stacked(jnp.cos(theta1), jnp.sin(theta1), jnp.cos(theta2), jnp.sin(theta2), theta1_dot, theta2_dot)


_Point = tuple[jax.Array, ...]
"""The coordinates of a system, each by itself. XLA computes every entry of a stacked array from the beginning: four stages of
it take ten times as long to compile, and twice as long to run."""


def _acrobot_derivative(y: _Point, torque: jax.Array, p: AcrobotParams) -> _Point:
    """Return d(theta1, theta2, theta1_dot, theta2_dot)/dt (Sutton and Barto's book, not the 1996 paper)."""
    theta1, theta2, theta1_dot, theta2_dot = y
    m1, m2, l1, lc1, lc2 = p.link_mass_1, p.link_mass_2, p.link_length_1, p.link_com_1, p.link_com_2
    inertia = p.link_inertia
    d1 = m1 * lc1**2 + m2 * (l1**2 + lc2**2 + 2 * l1 * lc2 * jnp.cos(theta2)) + 2 * inertia
    d2 = m2 * (lc2**2 + l1 * lc2 * jnp.cos(theta2)) + inertia
    coupling = m2 * l1 * lc2 * jnp.sin(theta2)
    phi2 = m2 * lc2 * p.gravity * jnp.cos(theta1 + theta2 - math.pi / 2)
    phi1 = (
        -coupling * theta2_dot**2
        - 2 * coupling * theta2_dot * theta1_dot
        + (m1 * lc1 + m2 * l1) * p.gravity * jnp.cos(theta1 - math.pi / 2)
        + phi2
    )
    theta2_acc = (torque + d2 / d1 * phi1 - coupling * theta1_dot**2 - phi2) / (m2 * lc2**2 + inertia - d2**2 / d1)
    theta1_acc = -(d2 * theta2_acc + phi1) / d1
    return theta1_dot, theta2_dot, theta1_acc, theta2_acc


def _runge_kutta_4(derivative: Callable[[_Point], _Point], y: _Point, dt: jax.Array | float) -> _Point:
    """Return y(t + dt) by the classic fourth-order Runge-Kutta step."""

    def along(slopes: _Point, time: jax.Array | float) -> _Point:
        return tuple(x + time * slope for x, slope in zip(y, slopes, strict=True))

    k1 = derivative(y)
    k2 = derivative(along(k1, dt / 2))
    k3 = derivative(along(k2, dt / 2))
    k4 = derivative(along(k3, dt))
    return along(tuple(a + 2 * b + 2 * c + d for a, b, c, d in zip(k1, k2, k3, k4, strict=True)), dt / 6)


def _wrap(angle: jax.Array) -> jax.Array:
    """Return the angle in [-pi, pi], moved by the fewest whole turns; both ends stay as they are."""
    turns_over = jnp.maximum(jnp.ceil((angle - math.pi) / (2 * math.pi)), 0)
    turns_under = jnp.maximum(jnp.ceil((-math.pi - angle) / (2 * math.pi)), 0)
    return angle - (turns_over - turns_under) * (2 * math.pi)


class MountainCarParams(NamedTuple):
    """Constants of the mountain car: the track's length units, per step."""

    min_position: float = -1.2
    max_position: float = 0.6
    max_speed: float = 0.07
    goal_position: float = 0.5
    goal_velocity: float = 0.0
    force: float = 0.001
    gravity: float = 0.0025


class MountainCarState(NamedTuple):
    """Position on the track and velocity."""

    position: jax.Array
    velocity: jax.Array
    time: jax.Array


def _mountain_car_space() -> spaces.Box:
    limits = MountainCarParams()
    low = np.array([limits.min_position, -limits.max_speed], np.float32)
    high = np.array([limits.max_position, limits.max_speed], np.float32)
    return spaces.Box(low, high, dtype=np.float32)


def _mountain_car_reset(key: jax.Array) -> tuple[MountainCarState, jax.Array]:
    position = jax.random.uniform(key, (), jnp.float32, -0.6, -0.4)
    velocity = jnp.zeros((), jnp.float32)
    return MountainCarState(position, velocity, _start()), _stacked(position, velocity)


def _mountain_car_move(state: MountainCarState, push: jax.Array, p: MountainCarParams) -> MountainCarState:
    velocity = state.velocity + push - p.gravity * jnp.cos(3 * state.position)
    velocity = jnp.clip(velocity, -p.max_speed, p.max_speed)
    position = jnp.clip(state.position + velocity, p.min_position, p.max_position)
    stopped = (position == p.min_position) & (velocity < 0)  # the wall on the left
    return MountainCarState(position, jnp.where(stopped, jnp.zeros_like(velocity), velocity), state.time + 1)


def _mountain_car_arrived(state: MountainCarState, p: MountainCarParams) -> jax.Array:
    return (state.position >= p.goal_position) & (state.velocity >= p.goal_velocity)


@dataclass(frozen=True)
class MountainCar:
    """MountainCar-v0: drive an underpowered car out of a valley by swinging (Moore, 1990).

    Action 0 pushes left, 1 not at all, 2 right. Reward -1 per step until the car is at the goal with at least
    ``goal_velocity``.
    """

    goal_velocity: float = 0.0
    max_episode_steps: int = 200

    def __post_init__(self) -> None:
        _check_settings(self)

    @property
    def observation_space(self) -> spaces.Box:
        """(2,): position and velocity."""
        return _mountain_car_space()

    @property
    def action_space(self) -> spaces.Discrete:
        """0: push left; 1: nothing; 2: push right."""
        return spaces.Discrete(3)

    @property
    def params(self) -> MountainCarParams:
        """Gymnasium's constants, with this ``goal_velocity``."""
        return MountainCarParams(goal_velocity=float(self.goal_velocity))

    def reset(self, key: jax.Array, params: MountainCarParams) -> tuple[MountainCarState, jax.Array]:
        """Draw the position from U(-0.6, -0.4), at rest."""
        return _mountain_car_reset(key)

    def step(
        self, key: jax.Array, state: MountainCarState, action: jax.Array, params: MountainCarParams
    ) -> Step[MountainCarState]:
        """Move for one step."""
        p = _in_dtype_of(state.position, params)
        push = (action - 1).astype(state.position.dtype) * p.force
        new = _mountain_car_move(state, push, p)
        reward = jnp.full((), -1.0, state.position.dtype)
        truncated = new.time >= self.max_episode_steps
        return new, _stacked(*new[:2]), reward, _mountain_car_arrived(new, p), truncated, {}


@dataclass(frozen=True)
class MountainCarContinuous:
    """MountainCarContinuous-v0: the mountain car with a force in [-1, 1] (times 0.0015).

    The force is clipped to that range, the reward charges the action as given: -0.1 action^2, +100 at the goal (0.45).
    """

    goal_velocity: float = 0.0
    max_episode_steps: int = 999

    def __post_init__(self) -> None:
        _check_settings(self)

    @property
    def observation_space(self) -> spaces.Box:
        """(2,): position and velocity."""
        return _mountain_car_space()

    @property
    def action_space(self) -> spaces.Box:
        """(1,): the force, in [-1, 1]."""
        return spaces.Box(-1.0, 1.0, (1,), np.float32)

    @property
    def params(self) -> MountainCarParams:
        """Gymnasium's constants, with this ``goal_velocity``."""
        return MountainCarParams(goal_position=0.45, goal_velocity=float(self.goal_velocity), force=0.0015)

    def reset(self, key: jax.Array, params: MountainCarParams) -> tuple[MountainCarState, jax.Array]:
        """Draw the position from U(-0.6, -0.4), at rest."""
        return _mountain_car_reset(key)

    def step(
        self, key: jax.Array, state: MountainCarState, action: jax.Array, params: MountainCarParams
    ) -> Step[MountainCarState]:
        """Move for one step."""
        p = _in_dtype_of(state.position, params)
        force = action[0].astype(state.position.dtype)
        new = _mountain_car_move(state, jnp.clip(force, -1.0, 1.0) * p.force, p)
        terminated = _mountain_car_arrived(new, p)
        reward = 100.0 * terminated.astype(force.dtype) - 0.1 * force**2
        return new, _stacked(*new[:2]), reward, terminated, new.time >= self.max_episode_steps, {}


class PendulumParams(NamedTuple):
    """Constants of the pendulum: SI units and radians."""

    g: float = 10.0
    m: float = 1.0
    l: float = 1.0  # noqa: E741  (Gymnasium's name for the length)
    dt: float = 0.05  # seconds per step
    max_speed: float = 8.0
    max_torque: float = 2.0


class PendulumState(NamedTuple):
    """Angle (0 is upright, not wrapped) and angular velocity."""

    theta: jax.Array
    theta_dot: jax.Array
    time: jax.Array


@dataclass(frozen=True)
class Pendulum:
    """Pendulum-v1: swing a pendulum up and hold it, by a torque too small to lift it.

    Reward -(theta^2 + 0.1 theta_dot^2 + 0.001 torque^2), of the state before the step, with theta in [-pi, pi) and the
    clipped torque. Semi-implicit Euler. Never terminates.
    """

    g: float = 10.0
    max_episode_steps: int = 200

    def __post_init__(self) -> None:
        _check_settings(self)

    @property
    def observation_space(self) -> spaces.Box:
        """(3,): cosine and sine of theta, and theta_dot."""
        high = np.array([1.0, 1.0, PendulumParams().max_speed], np.float32)
        return spaces.Box(-high, high, dtype=np.float32)

    @property
    def action_space(self) -> spaces.Box:
        """(1,): the torque in N m, in [-2, 2]."""
        return spaces.Box(-2.0, 2.0, (1,), np.float32)

    @property
    def params(self) -> PendulumParams:
        """Gymnasium's constants, with this ``g``."""
        return PendulumParams(g=float(self.g))

    def reset(self, key: jax.Array, params: PendulumParams) -> tuple[PendulumState, jax.Array]:
        """Draw theta from U(-pi, pi) and theta_dot from U(-1, 1)."""
        unit = jax.random.uniform(key, (2,), jnp.float32, -1.0, 1.0)
        state = PendulumState(math.pi * unit[0], unit[1], _start())
        return state, _pendulum_observation(state)

    def step(
        self, key: jax.Array, state: PendulumState, action: jax.Array, params: PendulumParams
    ) -> Step[PendulumState]:
        """Take one semi-implicit Euler step of ``dt`` seconds."""
        theta, theta_dot, time = state
        p = _in_dtype_of(theta, params)
        torque = jnp.clip(action[0].astype(theta.dtype), -p.max_torque, p.max_torque)
        angle = (theta + math.pi) % (2 * math.pi) - math.pi
        reward = -(angle**2 + 0.1 * theta_dot**2 + 0.001 * torque**2)
        acceleration = 3 * p.g / (2 * p.l) * jnp.sin(theta) + 3 / (p.m * p.l**2) * torque
        theta_dot = jnp.clip(theta_dot + acceleration * p.dt, -p.max_speed, p.max_speed)
        new = PendulumState(theta + theta_dot * p.dt, theta_dot, time + 1)
        terminated = jnp.zeros((), jnp.bool_)
        return new, _pendulum_observation(new), reward, terminated, new.time >= self.max_episode_steps, {}


def _pendulum_observation(state: PendulumState) -> jax.Array:
    return _stacked(jnp.cos(state.theta), jnp.sin(state.theta), state.theta_dot)


ENVIRONMENTS: dict[str, Callable[..., CompiledEnvironment]] = {
    "CartPole-v1": CartPole,
    "Acrobot-v1": Acrobot,
    "MountainCar-v0": MountainCar,
    "MountainCarContinuous-v0": MountainCarContinuous,
    "Pendulum-v1": Pendulum,
}
"""Jumar's own compiled environments, by Gymnasium's id."""
