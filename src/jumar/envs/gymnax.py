"""Gymnax environments as compiled environments (``gymnax/NAME``)."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from jumar.envs.compiled import CompiledEnvironment, canonical_observation, like, strong
from jumar.envs.compiled_check import check_compiled_environment
from jumar.envs.user_code import construct, import_optional
from jumar.errors import UsageError, unknown

PyTree = Any

ALIASES = {"max_episode_steps": "max_steps_in_episode", "episode_length": "max_steps_in_episode"}
"""What other libraries call an argument, and its name in gymnax: for error messages only."""


NAMES = (
    "CartPole-v1",
    "Pendulum-v1",
    "Acrobot-v1",
    "MountainCar-v0",
    "MountainCarContinuous-v0",
    "Asterix-MinAtar",
    "Breakout-MinAtar",
    "Freeway-MinAtar",
    "Seaquest-MinAtar",
    "SpaceInvaders-MinAtar",
    "Catch-bsuite",
    "DeepSea-bsuite",
    "MemoryChain-bsuite",
    "UmbrellaChain-bsuite",
    "DiscountingChain-bsuite",
    "MNISTBandit-bsuite",
    "SimpleBandit-bsuite",
    "FourRooms-misc",
    "MetaMaze-misc",
    "PointRobot-misc",
    "BernoulliBandit-misc",
    "GaussianBandit-misc",
    "Reacher-misc",
    "Swimmer-misc",
    "Pong-misc",
    "FrozenLake-misc",
)
"""What is registered, written down so that listing it does not import the package, which takes seconds."""


NO_MULTI_OUTPUT_FUSION = {"xla_disable_hlo_passes": "cpu_multi_output_fusion"}
"""XLA aborts the process where it fuses a step of MinAtar's Breakout or Freeway with a reset (its issue 47367)."""


@dataclass(frozen=True, eq=False)
class GymnaxEnvironment:
    """A gymnax environment without gymnax's own autoreset; its time limit is a truncation.

    ``params`` are gymnax's own, so that they can be randomised.
    """

    env: Any
    params: PyTree
    observation_space: spaces.Space
    action_space: spaces.Space

    @property
    def compiler_options(self) -> Mapping[str, Any] | None:
        """The options of XLA that programs need which step the environment."""
        return NO_MULTI_OUTPUT_FUSION if self.env.name.endswith("-MinAtar") else None

    @property
    def max_episode_steps(self) -> int | None:
        """The time limit in steps, where the environment has one."""
        return getattr(self.params, "max_steps_in_episode", None)

    def reset(self, key: jax.Array, params: PyTree) -> tuple[PyTree, PyTree]:
        """Draw an initial state."""
        observation, state = self.env.reset_env(key, params)
        return strong(state), canonical_observation(self.observation_space, observation)

    def step(
        self, key: jax.Array, state: PyTree, action: jax.Array, params: PyTree
    ) -> tuple[PyTree, PyTree, jax.Array, jax.Array, jax.Array, dict[str, Any]]:
        """Take one step, by gymnax's ``step_env``: its ``step`` would reset and keep the successor to itself."""
        observation, new_state, reward, terminated, _ = self.env.step_env(key, state, action, params)
        truncated = self.env.is_truncated(new_state, params)
        return (
            like(state, new_state),
            canonical_observation(self.observation_space, observation),
            jnp.asarray(reward, jnp.float32).reshape(()),
            jnp.asarray(terminated, jnp.bool_).reshape(()),
            jnp.asarray(truncated, jnp.bool_).reshape(()),
            {},
        )


def make_gymnax(name: str, kwargs: Mapping[str, Any] | None = None) -> CompiledEnvironment:
    """Make the gymnax environment called ``name``, for example ``"Catch-bsuite"``.

    Args:
        name: gymnax's own id.
        kwargs: arguments of the environment's constructor or fields of its params (``max_steps_in_episode=...``).

    Raises:
        UsageError: gymnax is not installed, the name or an argument is unknown, or the environment cannot be used.
    """
    gymnax = import_optional("gymnax", "gymnax")
    if name not in gymnax.registered_envs:
        raise unknown("gymnax environment", name, gymnax.registered_envs)
    where = f"gymnax/{name}"
    registry = import_optional("gymnax.registration", "gymnax")
    for_constructor, for_params = _sort_arguments(registry, name, kwargs or {})
    env, params = construct(lambda **arguments: gymnax.make(name, **arguments), where, for_constructor)
    if not hasattr(env, "is_truncated"):
        raise UsageError("the installed gymnax is too old to tell time limits apart; pip install 'jumar[gymnax]'")
    fields = [field.name for field in dataclasses.fields(params)]
    for argument in for_params:
        if argument not in fields:
            raise unknown(f"argument of environment {where}", argument, fields, ALIASES)
    params = params.replace(**for_params)
    made = GymnaxEnvironment(
        env,
        params,
        gymnasium_space(env.observation_space(params)),
        gymnasium_space(env.action_space(params)),
    )
    check_compiled_environment(made, where)
    return made


def _sort_arguments(registry: Any, name: str, kwargs: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Split the user's arguments into the constructor's and those for the params."""
    accepted = inspect.signature(registry._registry[name]).parameters
    for_constructor = {argument: value for argument, value in kwargs.items() if argument in accepted}
    return for_constructor, {argument: value for argument, value in kwargs.items() if argument not in accepted}


def gymnasium_space(space: Any) -> spaces.Space:
    """Return the Gymnasium space equal to a gymnax one.

    Raises:
        UsageError: there is none.
    """
    kind = type(space).__name__
    if kind == "Discrete":
        return spaces.Discrete(int(space.n))
    if kind == "Box":
        shape, dtype = tuple(space.shape), np.dtype(space.dtype)
        low, high = (_bound(bound, shape, dtype) for bound in (space.low, space.high))
        return spaces.Box(low, high, shape, dtype.type)
    if kind == "Dict":
        return spaces.Dict({name: gymnasium_space(part) for name, part in space.spaces.items()})
    if kind == "Tuple":
        return spaces.Tuple([gymnasium_space(part) for part in space.spaces])
    raise UsageError(f"the gymnax space {space!r} has no counterpart in Gymnasium.")


def _bound(bound: Any, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    bound = np.broadcast_to(np.asarray(bound, dtype), shape)
    if dtype.kind != "f":
        return bound
    # Gymnax writes the largest float where it means "no bound".
    return np.where(np.abs(bound) >= np.finfo(dtype).max, np.copysign(np.inf, bound), bound).astype(dtype)
