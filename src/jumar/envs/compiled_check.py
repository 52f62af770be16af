"""Whether an environment keeps the convention of compiled ones (:mod:`jumar.envs.compiled`); nothing is computed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from jumar.envs.compiled import CompiledEnvironment, PyTree, strong, traced
from jumar.envs.user_code import construct, import_user_module
from jumar.errors import UnsupportedEnvironment, UsageError, unknown
from jumar.policies.actions import narrow_dtype

_LEAF_SPACES = (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)


def check_compiled_environment(env: Any, name: str) -> None:
    """Refuse an environment that does not keep the convention, before anything is compiled.

    ``reset`` and ``step`` are traced with abstract arrays: nothing is computed.

    Raises:
        UnsupportedEnvironment: something is missing, does not fit its space, has the wrong type, or ``reset`` or ``step``
            raises (then with the file and line in the user's code).
    """
    for attribute in ("reset", "step", "observation_space", "action_space", "params"):
        if not hasattr(env, attribute):
            raise UnsupportedEnvironment(
                f"environment {name} has no {attribute!r}; a compiled environment has reset, step, observation_space, "
                "action_space and params."
            )
    _check_space(env.observation_space, f"environment {name}: observation_space", composite=True)
    _check_space(env.action_space, f"environment {name}: action_space", composite=False)
    _check_params(env.params, name)
    key = jax.ShapeDtypeStruct((2,), jnp.uint32)
    state, observation = traced(name, "reset", lambda key, params: _two(name, env.reset(key, params)), key, env.params)
    _check_observation(env.observation_space, observation, f"environment {name}: reset returns an observation")
    action = jax.ShapeDtypeStruct(env.action_space.shape, narrow_dtype(env.action_space.dtype))

    def step(*arguments: Any) -> tuple[Any, ...]:
        return _six(name, env.step(*arguments))

    next_state, observation, reward, terminated, truncated, cost = traced(
        name, "step", step, key, state, action, env.params
    )
    _check_same_state(name, state, next_state)
    _check_observation(env.observation_space, observation, f"environment {name}: step returns an observation")
    _check_outcome(name, reward, terminated, truncated, cost)


def _two(name: str, result: Any) -> tuple[PyTree, PyTree]:
    if not isinstance(result, tuple) or len(result) != 2:
        raise UnsupportedEnvironment(
            f"environment {name}: reset returns {_shown(result)}; it must return (state, observation)."
        )
    return strong(result[0]), result[1]


def _six(name: str, result: Any) -> tuple[Any, ...]:
    if not isinstance(result, tuple) or len(result) != 6:
        raise UnsupportedEnvironment(
            f"environment {name}: step returns {_shown(result)}; "
            "it must return (state, observation, reward, terminated, truncated, info)."
        )
    *outcome, info = result
    if not isinstance(info, Mapping):
        raise UnsupportedEnvironment(f"environment {name}: step returns as info {_shown(info)}; it must be a dict.")
    return (*outcome, info.get("cost"))


def _shown(value: Any) -> str:
    return f"a tuple of {len(value)}" if isinstance(value, tuple) else f"a {type(value).__name__}"


def _check_space(space: Any, where: str, composite: bool) -> None:
    if composite and isinstance(space, (spaces.Dict, spaces.Tuple)):
        parts = space.spaces.items() if isinstance(space, spaces.Dict) else enumerate(space.spaces)
        for name, part in parts:
            _check_space(part, f"{where}[{name!r}]", composite)
    elif not isinstance(space, _LEAF_SPACES):
        allowed = "Box, Discrete, MultiDiscrete or MultiBinary" + (", or a Dict or Tuple of these" if composite else "")
        raise UnsupportedEnvironment(f"{where} is {space!r}; it must be a Gymnasium {allowed}.")


def _check_params(params: PyTree, name: str) -> None:
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        if not isinstance(leaf, (bool, int, float, complex, np.generic, np.ndarray, jax.Array)):
            at = jax.tree_util.keystr(path)
            raise UnsupportedEnvironment(
                f"environment {name}: params{at} is {leaf!r}; params hold numbers and arrays only."
            )


def _check_observation(space: spaces.Space, observation: PyTree, where: str) -> None:
    if isinstance(space, spaces.Dict):
        if not isinstance(observation, Mapping) or set(observation) != set(space.spaces):
            given = sorted(map(str, observation)) if isinstance(observation, Mapping) else _shown(observation)
            raise UnsupportedEnvironment(f"{where} with {given}; its space is a Dict with {sorted(space.spaces)}.")
        for name, part in space.spaces.items():
            _check_observation(part, observation[name], f"{where}[{name!r}]")
    elif isinstance(space, spaces.Tuple):
        if not isinstance(observation, (tuple, list)) or len(observation) != len(space.spaces):
            raise UnsupportedEnvironment(
                f"{where} that is {_shown(observation)}; its space is a Tuple of {len(space.spaces)}."
            )
        for i, part in enumerate(space.spaces):
            _check_observation(part, observation[i], f"{where}[{i}]")
    else:
        _check_array(space, observation, where)


def _check_array(space: spaces.Space, observation: Any, where: str) -> None:
    if not hasattr(observation, "shape"):
        raise UnsupportedEnvironment(f"{where} that is {_shown(observation)}; its space is {space}.")
    if tuple(observation.shape) != space.shape:
        raise UnsupportedEnvironment(
            f"{where} of shape {tuple(observation.shape)}; its space has shape {space.shape}: {space}."
        )
    # Flags and whole numbers are one kind: a MultiBinary observation may be boolean.
    given_real = jnp.issubdtype(observation.dtype, jnp.floating)
    space_real = np.issubdtype(np.dtype(space.dtype), np.floating)
    if given_real != space_real:
        raise UnsupportedEnvironment(
            f"{where} of dtype {observation.dtype}; its space has dtype {space.dtype}: {space}."
        )


_KEPT = [np.dtype(name) for name in ("bool", *(f"{sign}int{n}" for sign in ("", "u") for n in (8, 16, 32, 64)))]
_KEPT += [np.dtype(name) for name in ("float16", "float32", "float64")]


def _check_same_state(name: str, before: PyTree, after: PyTree) -> None:
    if jax.tree.structure(before) != jax.tree.structure(after):
        raise UnsupportedEnvironment(
            f"environment {name}: reset returns a state of structure {jax.tree.structure(before)}, step one of "
            f"{jax.tree.structure(after)}; they must be the same."
        )
    for (path, old), new in zip(jax.tree_util.tree_leaves_with_path(before), jax.tree.leaves(after), strict=True):
        if old.dtype not in _KEPT:
            raise UnsupportedEnvironment(
                f"environment {name}: state{jax.tree_util.keystr(path)} is of dtype {old.dtype}, which no checkpoint can keep; "
                "use plain numbers (of a random key, jax.random.key_data)."
            )
        if (old.shape, old.dtype) != (new.shape, new.dtype):
            raise UnsupportedEnvironment(
                f"environment {name}: state{jax.tree_util.keystr(path)} is {old.dtype}{list(old.shape)} after reset "
                f"and {new.dtype}{list(new.shape)} after step; it must stay the same."
            )


def _check_outcome(name: str, reward: Any, terminated: Any, truncated: Any, cost: Any) -> None:
    if not _is_array(reward) or reward.shape != () or not _is_real(reward):
        raise UnsupportedEnvironment(
            f"environment {name}: step returns as reward {_described(reward)}; it must be a real scalar."
        )
    for which, flag in (("terminated", terminated), ("truncated", truncated)):
        if not _is_array(flag) or flag.shape != () or flag.dtype != jnp.bool_:
            raise UnsupportedEnvironment(
                f"environment {name}: step returns as {which} {_described(flag)}; it must be a boolean scalar."
            )
    if cost is not None and (not _is_array(cost) or len(cost.shape) > 1 or not _is_real(cost)):
        raise UnsupportedEnvironment(
            f"environment {name}: step returns as info['cost'] {_described(cost)}; "
            "it must be a real scalar or a vector of them."
        )


def _is_array(value: Any) -> bool:
    return hasattr(value, "shape") and hasattr(value, "dtype")


def _is_real(value: Any) -> bool:
    return jnp.issubdtype(value.dtype, jnp.floating) or jnp.issubdtype(value.dtype, jnp.integer)


def _described(value: Any) -> str:
    return f"an array {value.dtype}{list(value.shape)}" if _is_array(value) else _shown(value)


def load_user_environment(name: str, kwargs: Mapping[str, Any]) -> CompiledEnvironment:
    """Load a user's own compiled environment and check it.

    Args:
        name: ``module:Name``. The module must be importable; ``Name`` is an environment, or a class or function that
            makes one.
        kwargs: arguments for that class or function.

    Raises:
        UsageError: no such module or name, or an argument that it does not take.
        UnsupportedEnvironment: the user's code raises (with its file and line), or the check fails.
    """
    module_name, colon, attribute = name.partition(":")
    if not colon or not module_name or not attribute:
        raise UsageError(f"environment {name!r} must be given as module:Name.")
    module = import_user_module(module_name, name)
    if not hasattr(module, attribute):
        public = [known for known in vars(module) if not known.startswith("_")]
        raise unknown(f"environment in module {module_name}", attribute, public)
    found = getattr(module, attribute)
    is_maker = isinstance(found, type) or (callable(found) and not hasattr(found, "reset"))
    if kwargs and not is_maker:
        raise UsageError(f"environment {name} is an object already made; it takes no arguments ({', '.join(kwargs)}).")
    env: Any = construct(found, name, kwargs) if is_maker else found
    check_compiled_environment(env, name)
    return env
