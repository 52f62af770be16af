"""Compiled environments: the convention, batched stepping with autoreset, and frame stacking.

A compiled environment is a pair of pure functions of arrays with spaces and parameters beside them, so that rollout
and update become one program. It steps one copy, knows nothing of batches and never resets itself: ``reset_batch`` and
``step_batch`` do both, in the way that every collector of Jumar expects.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from jumar.envs.step_costs import Cost, lacking
from jumar.envs.user_code import user_code_error
from jumar.errors import UnsupportedEnvironment, UsageError
from jumar.policies.actions import narrow_dtype

PyTree = Any


class CompiledEnvironment(Protocol):
    """What a compiled environment has, a user's own included; nothing else is asked of it.

    Both functions must be pure and traceable. The environment does not reset itself. Its time limit, where it has one,
    is its own and reported as ``truncated``; it may be stated as ``max_episode_steps`` beside. Arguments are passed by
    position.
    """

    @property
    def observation_space(self) -> spaces.Space:
        """Box, Discrete, MultiDiscrete, MultiBinary, or a Dict or Tuple of these."""
        ...

    @property
    def action_space(self) -> spaces.Space:
        """Box, Discrete, MultiDiscrete or MultiBinary."""
        ...

    @property
    def params(self) -> PyTree:
        """The default parameters: a pytree of numbers and arrays, which may be randomised."""
        ...

    def reset(self, key: jax.Array, params: PyTree, /) -> tuple[PyTree, PyTree]:
        """Draw an initial state; return ``(state, observation)``."""
        ...

    def step(
        self, key: jax.Array, state: PyTree, action: jax.Array, params: PyTree, /
    ) -> tuple[PyTree, PyTree, jax.Array, jax.Array, jax.Array, Mapping[str, Any]]:
        """Take one step; return ``(state, observation, reward, terminated, truncated, info)``.

        ``reward`` is a real scalar, ``terminated`` and ``truncated`` are boolean scalars. ``info["cost"]``, if there,
        is a scalar or a vector of costs for constrained methods; the rest of ``info`` is not read.
        """
        ...


class CompiledStep(NamedTuple):
    """What one step of N environments gave; every array has the leading axis N.

    Attributes:
        observations: what to act on next; where the episode ended, the first observation of the next one.
        rewards: (N,) float32.
        terminated: (N,) bool; the episode ended for good: do not bootstrap.
        truncated: (N,) bool; the episode was cut: bootstrap with the value of ``successors``. Never true together with
            ``terminated``, which wins.
        successors: the observations that the actions led to, also where the episode ended.
        costs: (N,) or (N, costs) float32 from ``info["cost"]``, or None where the environment gives none.
        infos: those entries of ``info`` that were asked for, are there and are numbers, (N,) each; ``()`` if none was.
    """

    observations: PyTree
    rewards: jax.Array
    terminated: jax.Array
    truncated: jax.Array
    successors: PyTree
    costs: jax.Array | None
    infos: Mapping[str, jax.Array] | tuple[()] = ()


def reset_batch(env: CompiledEnvironment, params: PyTree, key: jax.Array, n: int) -> tuple[PyTree, PyTree]:
    """Reset ``n`` copies of ``env``; return ``(states, observations)`` with leading axis n.

    Environment i's state depends on ``key`` and ``i`` alone, not on ``n``.
    """

    def reset_one(key: jax.Array) -> tuple[PyTree, PyTree]:
        return _reset(env, key, params)

    return jax.vmap(reset_one)(_keys(key, n))


def step_batch(
    env: CompiledEnvironment,
    params: PyTree,
    key: jax.Array,
    states: PyTree,
    actions: jax.Array,
    log: tuple[str, ...] = (),
) -> tuple[PyTree, CompiledStep]:
    """Step N copies of ``env`` and reset, at once, those whose episode ended.

    Pure, so that it can be compiled, scanned, and mapped once more over seeds. The outcome for environment i depends on
    ``key``, ``i``, its state and its action alone. Each reset draws a new initial state from that key.

    Args:
        env: the environment.
        params: its parameters, shared by all copies.
        key: a key for this step; a used one must not be given again.
        states: from ``reset_batch`` or the step before.
        actions: (N, ...) actions in the space's shape; they are passed on as they are, so clip before where needed.
        log: entries of ``info`` that are returned.

    Returns:
        The states to go on from, and what the step gave.
    """

    def step_one(key: jax.Array, state: PyTree, action: jax.Array) -> tuple[PyTree, CompiledStep]:
        step_key, reset_key = jax.random.split(key)
        state, successor, reward, terminated, truncated, info = env.step(step_key, state, action, params)
        successor = canonical_observation(env.observation_space, successor)
        terminated, truncated = jnp.asarray(terminated), jnp.asarray(truncated)
        ended = terminated | truncated
        fresh = _reset(env, reset_key, params)
        state, observation = jax.tree.map(lambda new, old: jnp.where(ended, new, old), fresh, (state, successor))
        costs = jnp.asarray(info["cost"], jnp.float32) if numeric_shape(info.get("cost")) is not None else None
        rewards = jnp.asarray(reward, jnp.float32)
        infos = {entry: jnp.asarray(info[entry]) for entry in log if numeric_shape(info.get(entry)) == ()}
        step = CompiledStep(observation, rewards, terminated, truncated & ~terminated, successor, costs, infos or ())
        return state, step

    # The number of actions counts the copies: a state may be empty.
    return jax.vmap(step_one)(_keys(key, actions.shape[0]), states, actions)


def canonical_observation(space: spaces.Space, observation: PyTree) -> PyTree:
    """Return the observation as plain dicts and tuples of arrays in the space's dtypes, 64 bits narrowed to 32.

    So a policy sees the same types whether or not JAX's 64-bit mode is on.
    """
    if isinstance(space, spaces.Dict):
        return {name: canonical_observation(part, observation[name]) for name, part in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(canonical_observation(part, observation[i]) for i, part in enumerate(space.spaces))
    return jnp.asarray(observation, narrow_dtype(space.dtype))


def strong(tree: PyTree) -> PyTree:
    """Return ``tree`` with Python numbers and weakly typed arrays made arrays of a fixed type.

    A loop's carry then has the same type from the start as after a step, and a compiled step is compiled once.
    """

    def fix(leaf: Any) -> jax.Array:
        leaf = jnp.asarray(leaf)
        return jax.lax.convert_element_type(leaf, leaf.dtype) if leaf.weak_type else leaf

    return jax.tree.map(fix, tree)


def like(reference: PyTree, tree: PyTree) -> PyTree:
    """Return ``tree`` with the dtypes of ``reference``: for adapters of environments whose ``step`` is careless."""
    return jax.tree.map(lambda old, new: jnp.asarray(new, old.dtype), reference, tree)


def _reset(env: CompiledEnvironment, key: jax.Array, params: PyTree) -> tuple[PyTree, PyTree]:
    state, observation = env.reset(key, params)
    return strong(state), canonical_observation(env.observation_space, observation)


def _keys(key: jax.Array, n: int) -> jax.Array:
    # Folding the index in, unlike splitting into n, keeps environment i's key whatever n is.
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, jnp.arange(n, dtype=jnp.uint32))


class FrameStackState(NamedTuple):
    """The wrapped environment's state and the last frames, oldest first."""

    inner: PyTree
    frames: jax.Array


def stated_limit(env: CompiledEnvironment) -> int | None:
    """Return the time limit in steps that an environment states as ``max_episode_steps``, if it does."""
    limit = getattr(env, "max_episode_steps", None)
    return limit if isinstance(limit, int) and not isinstance(limit, bool) else None


def jit_for(env: CompiledEnvironment) -> Callable[..., Any]:
    """Return ``jax.jit`` for programs that step an environment, with the options of XLA that it states.

    An environment states them as ``compiler_options``, by their names; hardly any needs one.
    """
    options = getattr(env, "compiler_options", None)
    return partial(jax.jit, compiler_options=dict(options)) if options else jax.jit


def stacked_frames(env: CompiledEnvironment) -> int:
    """Return how many frames an environment stacks along the first axis of its observations; 1 where it stacks none."""
    while isinstance(env, Costed):
        env = env.env
    return env.n_frames if isinstance(env, FrameStack) else 1


@dataclass(frozen=True)
class Wrapped:
    """Base of compiled environments around another one: actions, parameters and time limit are the wrapped one's."""

    env: CompiledEnvironment

    @property
    def max_episode_steps(self) -> int | None:
        """The wrapped environment's time limit in steps, if it states one."""
        return stated_limit(self.env)

    @property
    def compiler_options(self) -> Mapping[str, Any] | None:
        """The options of XLA that the wrapped environment states."""
        return getattr(self.env, "compiler_options", None)

    @property
    def action_space(self) -> spaces.Space:
        """The wrapped environment's."""
        return self.env.action_space

    @property
    def params(self) -> PyTree:
        """The wrapped environment's."""
        return self.env.params


@dataclass(frozen=True)
class FrameStack(Wrapped):
    """The last ``n_frames`` observations of a compiled environment, stacked on a new leading axis, oldest first.

    As Gymnasium's ``FrameStackObservation``: a reset fills the stack with the first observation.

    Raises:
        UsageError: ``n_frames`` is not a whole number of at least 1, or the observation space is not a Box.
    """

    n_frames: int

    def __post_init__(self) -> None:
        if not isinstance(self.n_frames, int) or isinstance(self.n_frames, bool) or self.n_frames < 1:
            raise UsageError(f"frame_stack={self.n_frames!r} must be a whole number of at least 1.")
        if not isinstance(self.env.observation_space, spaces.Box):
            raise UsageError(f"frames can be stacked for Box observations only, not for {self.env.observation_space}.")

    @property
    def observation_space(self) -> spaces.Box:
        """The wrapped space with a leading axis of length ``n_frames``."""
        box = self._box
        low, high = (np.repeat(bound[None], self.n_frames, axis=0) for bound in (box.low, box.high))
        return spaces.Box(low, high, dtype=box.dtype.type)

    def reset(self, key: jax.Array, params: PyTree) -> tuple[FrameStackState, jax.Array]:
        """Reset, and fill the stack with the first observation."""
        inner, observation = self.env.reset(key, params)
        frame = canonical_observation(self._box, observation)
        frames = jnp.repeat(frame[None], self.n_frames, axis=0)
        return FrameStackState(inner, frames), frames

    def step(
        self, key: jax.Array, state: FrameStackState, action: jax.Array, params: PyTree
    ) -> tuple[FrameStackState, jax.Array, jax.Array, jax.Array, jax.Array, Mapping[str, Any]]:
        """Step, drop the oldest frame and add the newest."""
        inner, observation, reward, terminated, truncated, info = self.env.step(key, state.inner, action, params)
        frame = canonical_observation(self._box, observation)
        frames = jnp.concatenate([state.frames[1:], frame[None]])
        return FrameStackState(inner, frames), frames, reward, terminated, truncated, info

    @property
    def _box(self) -> spaces.Box:
        assert isinstance(self.env.observation_space, spaces.Box)
        return self.env.observation_space


@dataclass(frozen=True)
class Costed(Wrapped):
    """A compiled environment whose steps cost what ``cost`` makes of the wrapped one's ``info``.

    Raises:
        UsageError: its ``info`` does not have the entry that the cost is made of.
    """

    cost: Cost
    name: str

    def __post_init__(self) -> None:
        if traced_info(self.env, self.name).get(self.cost.entry) is None:
            raise lacking(self.cost.entry, self.name)

    @property
    def observation_space(self) -> spaces.Space:
        """The wrapped environment's."""
        return self.env.observation_space

    def reset(self, key: jax.Array, params: PyTree) -> tuple[PyTree, PyTree]:
        """Reset the wrapped environment."""
        return self.env.reset(key, params)

    def step(
        self, key: jax.Array, state: PyTree, action: jax.Array, params: PyTree
    ) -> tuple[PyTree, PyTree, jax.Array, jax.Array, jax.Array, Mapping[str, Any]]:
        """Step the wrapped environment and add up what that costs."""
        *outcome, info = self.env.step(key, state, action, params)
        state, observation, reward, terminated, truncated = outcome
        value = jnp.asarray(info[self.cost.entry])
        return state, observation, reward, terminated, truncated, {**info, "cost": self.cost(value, jnp)}


def numeric_shape(value: Any) -> tuple[int, ...] | None:
    """Return the shape of an entry of ``info``; ``None`` where it is no array of real numbers, but a text or a dict, say."""
    try:
        array = jnp.asarray(value) if value is not None else None
    except (TypeError, ValueError):
        return None
    if array is None or not any(jnp.issubdtype(array.dtype, kind) for kind in (jnp.floating, jnp.integer, jnp.bool_)):
        return None
    return array.shape


def traced_info(env: CompiledEnvironment, name: str) -> dict[str, tuple[int, ...] | None]:
    """Return the entries of ``info`` that a step gives, and their :func:`numeric_shape`; nothing is computed.

    Raises:
        UnsupportedEnvironment: ``reset`` or ``step`` raises.
    """
    found: dict[str, tuple[int, ...] | None] = {}

    def step(key: jax.Array, action: jax.Array, params: PyTree) -> None:
        state, _ = env.reset(key, params)
        *_, info = env.step(key, state, action, params)
        found.update({entry: numeric_shape(value) for entry, value in info.items()})

    action = jax.ShapeDtypeStruct(env.action_space.shape or (), narrow_dtype(env.action_space.dtype))
    traced(name, "step", step, jax.ShapeDtypeStruct((2,), jnp.uint32), action, env.params)
    return found


def traced(name: str, method: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """Return what a function of the user's would, in abstract arrays; nothing is computed.

    Raises:
        UnsupportedEnvironment: it raises; with the file and line.
    """
    try:
        return jax.eval_shape(function, *arguments)
    except UsageError:
        raise
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        found = user_code_error(f"environment {name}: {method} raises", error)
        if isinstance(error, jax.errors.TracerBoolConversionError):
            found = UnsupportedEnvironment(
                f"{found}; use jnp.where in place of if, and & and | in place of and and or."
            )
        raise found from error
