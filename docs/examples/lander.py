"""A lander on one axis: a compiled environment, pure functions of JAX arrays."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces


class Params(NamedTuple):
    """What a user may want to change or randomise."""

    gravity: float = 1.6
    thrust: float = 3.0
    time_limit: int = 200


class State(NamedTuple):
    """Height in metres, speed in metres per second (up is positive), and steps taken."""

    height: jax.Array
    speed: jax.Array
    time: jax.Array


class Lander:
    """Touch the ground slowly: the reward is minus the speed at landing, and a little less for every step."""

    observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)

    def __init__(self, gravity: float = 1.6) -> None:
        self.params = Params(gravity=gravity)
        self.max_episode_steps = self.params.time_limit

    def reset(self, key: jax.Array, params: Params) -> tuple[State, jax.Array]:
        """Begin at rest between 8 and 12 metres."""
        height = jax.random.uniform(key, (), jnp.float32, 8.0, 12.0)
        state = State(height, jnp.zeros((), jnp.float32), jnp.zeros((), jnp.int32))
        return state, self._observe(state)

    def step(
        self, key: jax.Array, state: State, action: jax.Array, params: Params
    ) -> tuple[State, jax.Array, jax.Array, jax.Array, jax.Array, dict[str, jax.Array]]:
        """Fly for a tenth of a second; an action of -1 is no thrust, 1 is full thrust."""
        push = params.thrust * 0.5 * (action[0] + 1.0)
        speed = state.speed + 0.1 * (push - params.gravity)
        height = state.height + 0.1 * speed
        state = State(height, speed, state.time + 1)
        landed = height <= 0.0
        reward = -0.05 - jnp.where(landed, jnp.abs(speed), 0.0)
        return state, self._observe(state), reward, landed, state.time >= params.time_limit, {}

    def _observe(self, state: State) -> jax.Array:
        return jnp.stack([state.height, state.speed])
