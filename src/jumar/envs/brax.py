"""Brax environments as compiled environments (``brax/NAME``)."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from jumar.envs.compiled import CompiledEnvironment, like, strong
from jumar.envs.compiled_check import check_compiled_environment
from jumar.envs.user_code import construct, import_optional
from jumar.errors import UsageError, unknown

PyTree = Any

ALIASES = {"max_episode_steps": "episode_length", "time_limit": "episode_length"}
"""What other libraries call an argument, and its name in Brax: for error messages only."""

_COMMON_ARGUMENTS = ("episode_length", "backend", "n_frames", "debug")


NAMES = (
    "ant",
    "halfcheetah",
    "hopper",
    "humanoid",
    "humanoidstandup",
    "inverted_double_pendulum",
    "inverted_pendulum",
    "pusher",
    "reacher",
    "swimmer",
    "walker2d",
)
"""What is registered, written down so that listing it does not import the package, which takes seconds."""


class BraxState(NamedTuple):
    """Brax's own state and the number of steps taken in the episode."""

    inner: PyTree
    time: jax.Array


@dataclass(frozen=True, eq=False)
class BraxEnvironment:
    """A Brax environment without Brax's wrappers: every reset is a real one, never a cached first state.

    Brax's ``done`` is ``terminated``; ``truncated`` comes after ``episode_length`` steps. Actions lie in [-1, 1], as
    Brax's environments expect. Brax's metrics, such as ``x_velocity``, are the ``info``. There are no parameters: Brax
    keeps its physical system inside the environment.
    """

    env: Any
    observation_space: spaces.Box
    action_space: spaces.Box
    episode_length: int = 1000
    params: PyTree = ()

    @property
    def max_episode_steps(self) -> int:
        """The time limit in steps."""
        return self.episode_length

    def reset(self, key: jax.Array, params: PyTree) -> tuple[BraxState, jax.Array]:
        """Draw an initial state."""
        inner = strong(self.env.reset(key))
        return BraxState(inner, jnp.zeros((), jnp.int32)), inner.obs.astype(jnp.float32)

    def step(
        self, key: jax.Array, state: BraxState, action: jax.Array, params: PyTree
    ) -> tuple[BraxState, jax.Array, jax.Array, jax.Array, jax.Array, dict[str, Any]]:
        """Take one step; Brax's steps draw nothing, so ``key`` is not used."""
        # Some of Brax's steps write into the dicts of the state they are given: give them a copy.
        given = jax.tree.map(lambda leaf: leaf, state.inner)
        inner = like(state.inner, self.env.step(given, action))
        time = state.time + 1
        terminated = inner.done > 0.5  # Brax's flags are floats
        truncated = time >= self.episode_length
        observation = inner.obs.astype(jnp.float32)
        reward, info = inner.reward.astype(jnp.float32), dict(inner.metrics)
        return BraxState(inner, time), observation, reward, terminated, truncated, info


def make_brax(name: str, kwargs: Mapping[str, Any] | None = None) -> CompiledEnvironment:
    """Make the Brax environment called ``name``, for example ``"ant"``.

    Args:
        name: Brax's own name.
        kwargs: ``episode_length`` (steps; 1000), and arguments of the environment's constructor, such as ``backend``:
            ``generalized`` (the default of Brax's environments), ``spring``, ``positional`` or ``mjx``.

    Raises:
        UsageError: Brax is not installed, the name or an argument is unknown, or the environment cannot be used.
    """
    envs = import_optional("brax.envs", "brax")
    known = [known for known in envs._envs if known != "fast"]  # "fast" only serves Brax's own tests
    if name not in known:
        raise unknown("brax environment", name, known)
    where = f"brax/{name}"
    arguments = dict(kwargs or {})
    _check_arguments(envs._envs[name], where, arguments)
    episode_length = arguments.pop("episode_length", 1000)
    if not isinstance(episode_length, int) or isinstance(episode_length, bool) or episode_length < 1:
        raise UsageError(f"episode_length={episode_length!r} must be a whole number of at least 1.")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Brax System")  # that Brax is no longer maintained
        env = construct(lambda **rest: envs.get_environment(name, **rest), where, arguments)
    observation = jax.eval_shape(env.reset, jax.ShapeDtypeStruct((2,), jnp.uint32)).obs
    made = BraxEnvironment(
        env,
        spaces.Box(-np.inf, np.inf, observation.shape, np.float32),
        spaces.Box(-1.0, 1.0, (env.action_size,), np.float32),
        episode_length,
    )
    check_compiled_environment(made, where)
    return made


def _check_arguments(constructor: Any, where: str, arguments: Mapping[str, Any]) -> None:
    # Brax passes on what it does not know, and the error then names a class the user never heard of.
    own = inspect.signature(constructor).parameters
    known = [*(name for name, parameter in own.items() if parameter.kind != parameter.VAR_KEYWORD), *_COMMON_ARGUMENTS]
    for argument in arguments:
        if argument not in known:
            raise unknown(f"argument of environment {where}", argument, dict.fromkeys(known), ALIASES)
