"""Comparison of an exported policy with the original, on observations of all kinds."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple, Protocol

import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from jumar.export.graph import Graph
from jumar.export.policies import MEMORY_IN, MEMORY_OUT, STARTS, named_leaves
from jumar.networks.layers import LSTM
from jumar.policies.actions import ActionCodec, narrow_dtype
from jumar.policies.distributions import (
    FORBIDDEN,
    Bernoulli,
    Categorical,
    DiagGaussian,
    MultiCategorical,
    SquashedGaussian,
)
from jumar.policies.observations import MASK_KEY
from jumar.policies.policy import Policy

OBSERVATIONS = 16
"""How many observations an export is compared on."""
TOLERANCE = 1e-5
"""The largest difference that is rounding: some 100 units in the last place of single precision."""
FAR = 1e4
"""Bounds beyond this are no bounds that an observation comes near to."""
REACH = 10.0
"""How far numbers without bounds are drawn."""


class Acting(Protocol):
    """A policy that acts: :class:`jumar.agents.actor.Actor`."""

    policy: Policy
    parameters: Any
    moments: Any
    observation_space: gym.Space[Any]
    action_space: gym.Space[Any]
    algorithm: str | None
    environment: str | None

    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = True,
        action_masks: Any = None,
    ) -> tuple[np.ndarray, Any]:
        """Return actions and the next state."""
        ...


class Question(NamedTuple):
    """What a policy is asked, a row for each observation."""

    observation: Any
    """In the structure of the space, with a mask in it where the space has one."""
    mask: np.ndarray | None
    """One that comes beside the observation, bool ``[N, mask_size]``."""
    episode_start: np.ndarray
    memory: tuple[np.ndarray, ...]
    """``h``, then ``c``; empty where there is none."""


def question(actor: Acting, action_mask: bool, n: int = OBSERVATIONS, seed: int = 0) -> Question:
    """Return observations, masks, memories and starts of episodes that vary.

    The first row has the least value of everything, the second the largest, the others are drawn uniformly between these.
    Where there is no bound that is near, one :data:`REACH` is taken. Every other row of numbers that are normalised is drawn
    about their running mean instead, with three times their running deviation.
    """
    random = np.random.default_rng(seed)
    policy = actor.policy
    centre = _centres(policy, actor.moments) if policy.encoder.normalise else {}
    observation = _drawn(random, actor.observation_space, (), n, centre)
    sizes = policy.actions.mask_segments if policy.actions.mask_size is not None else ()
    allowed = _masks(random, sizes, n)
    beside = None
    if policy.encoder.mask_axes:
        space: Any = actor.observation_space
        part = space[MASK_KEY]
        observation[MASK_KEY] = allowed.reshape(n, *part.shape).astype(part.dtype)
    elif action_mask:
        beside = allowed
    starts = random.random(n) < 0.25
    core = policy.torso.core
    memory: tuple[np.ndarray, ...] = ()
    if core is not None:
        memory = (random.uniform(-1.0, 1.0, (n, core.outputs)).astype(np.float32),)
        if isinstance(core, LSTM):
            memory = (*memory, random.standard_normal((n, core.outputs)).astype(np.float32))
    return Question(observation, beside, starts, memory)


def _masks(random: np.random.Generator, sizes: tuple[int, ...], n: int) -> np.ndarray:
    """Return masks that allow something in every choice."""
    parts = []
    for size in sizes:
        part = random.random((n, size)) < 0.5
        part[np.arange(n), random.integers(size, size=n)] = True
        parts.append(part)
    return np.concatenate(parts, axis=1) if parts else np.zeros((n, 0), bool)


def _centres(policy: Policy, moments: Any) -> dict[tuple[str | int, ...], tuple[np.ndarray, np.ndarray]]:
    """Return the mean and the deviation that the normaliser has of each part of an observation."""
    found, column = {}, 0
    for leaf in policy.encoder.leaves:
        if leaf.kind == "numbers":
            here = slice(column, column + leaf.width)
            mean, deviation = np.asarray(moments.mean)[here], np.sqrt(np.asarray(moments.variance)[here])
            found[leaf.path] = tuple((x / leaf.scale).reshape(leaf.shape) for x in (mean, deviation))
        column += leaf.width
    return found


def _drawn(
    random: np.random.Generator, space: gym.Space[Any], path: tuple[str | int, ...], n: int, centres: Mapping[Any, Any]
) -> Any:
    """Return ``n`` rows of a space."""
    if isinstance(space, spaces.Dict):
        return {key: _drawn(random, part, (*path, key), n, centres) for key, part in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(_drawn(random, part, (*path, i), n, centres) for i, part in enumerate(space.spaces))
    if isinstance(space, spaces.Box):
        return _drawn_numbers(random, space, n, centres.get(path))
    if isinstance(space, spaces.MultiBinary):
        low, high = np.zeros(space.shape, np.int64), np.ones(space.shape, np.int64)
    else:
        assert isinstance(space, (spaces.Discrete, spaces.MultiDiscrete)), space
        many = space.n if isinstance(space, spaces.Discrete) else space.nvec
        low = np.asarray(space.start, np.int64)
        high = low + np.asarray(many, np.int64) - 1
    rows = random.integers(low, high, size=(n, *low.shape), endpoint=True)
    rows[0], rows[1] = low, high
    return rows.astype(space.dtype)


def _drawn_numbers(random: np.random.Generator, space: spaces.Box, n: int, centre: Any) -> np.ndarray:
    shape = (n, *space.shape)
    low, high = (np.asarray(bound, np.float64) for bound in (space.low, space.high))
    below, above = low >= -FAR, high <= FAR
    least = np.where(below, low, np.where(above, high - REACH, -REACH))
    most = np.where(above, high, np.where(below, low + REACH, REACH))
    rows = random.uniform(least, most, shape)
    if centre is not None:
        mean, deviation = centre
        rows[3::2] = (mean + 3.0 * deviation * random.standard_normal(shape))[3::2]
    rows[0], rows[1] = least, most
    rows = np.clip(rows if space.dtype.kind == "f" else np.round(rows), low, high)
    return rows.astype(space.dtype)


# -- comparison -------------------------------------------------------------------------------------------------------


def largest_error(model: bytes, graph: Graph, actor: Acting, asked: Question) -> float:
    """Return the largest difference between what an ONNX file and a policy answer, by :func:`difference`.

    Onnxruntime is asked for all rows at once, and for the first alone.

    Args:
        model: the file.
        graph: of which it was made.
        actor: the original.
        asked: the question.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    inputs = named_inputs(actor.policy, asked)
    names = [value.name for value in graph.outputs]
    with jax.default_matmul_precision("float32"):  # what accelerators round by default is no error of the file
        expected = original(actor, asked)
    errors = []
    for rows in (slice(None), slice(1)):
        found = map(np.asarray, session.run(names, {name: x[rows] for name, x in inputs.items()}))
        right = {name: x[rows] for name, x in expected.items()}
        errors += [difference(name, x, right, actor.policy.actions) for name, x in zip(names, found, strict=True)]
    return float(np.max(errors))  # NaN, if one of them is


def named_inputs(policy: Policy, asked: Question) -> dict[str, np.ndarray]:
    """Return the inputs of an exported policy, by name."""
    inputs = {name: leaf.pick(asked.observation) for leaf, name in named_leaves(policy.encoder)}
    if policy.encoder.mask_axes:
        inputs[MASK_KEY] = asked.observation[MASK_KEY]
    elif asked.mask is not None:
        inputs[MASK_KEY] = asked.mask
    if asked.memory:
        inputs[STARTS] = asked.episode_start
    return inputs | dict(zip(MEMORY_IN, asked.memory, strict=False))


def original(actor: Acting, asked: Question) -> dict[str, np.ndarray]:
    """Return what a policy answers, by the names of an exported one's outputs: ``predict``, and its distribution."""
    policy = actor.policy
    core, lstm = policy.torso.core, isinstance(policy.torso.core, LSTM)
    carry = policy.initial_carry(len(asked.episode_start))
    if core is not None:
        memory = tuple(map(jnp.asarray, asked.memory))
        carry = carry._replace(core=memory[::-1] if lstm else memory[0])
    action, after = actor.predict(asked.observation, carry, asked.episode_start, action_masks=asked.mask)
    answers = {"action": action}
    if core is not None:
        answers |= dict(zip(MEMORY_OUT, after.core[::-1] if lstm else (after.core,), strict=False))
    observation = jax.tree.map(lambda x: x.astype(narrow_dtype(x.dtype)), asked.observation)
    answers |= _distribution(
        policy, actor.parameters, actor.moments, observation, carry.core, asked.episode_start, asked.mask
    )
    return {name: np.asarray(x) for name, x in answers.items()}


@partial(jax.jit, static_argnums=0)
def _distribution(
    policy: Policy, parameters: Any, moments: Any, observation: Any, core: Any, start: Any, mask: Any
) -> dict[str, jax.Array]:
    """Return the parameters of the distribution that actions are drawn from, by the names of outputs."""
    features = policy.encoder.encode_to_act(observation, moments)
    found, _ = policy.distribution(parameters, features, core, start, policy.encoder.mask(observation, mask))
    if isinstance(found, SquashedGaussian):
        found = found.normal
    if isinstance(found, DiagGaussian):
        return {"mean": found.mean, "log_std": found.log_std}
    if isinstance(found, MultiCategorical):
        rows = [found.logits[..., i, :n] for i, n in enumerate(policy.actions.choices)]
        return {"logits": jnp.concatenate(rows, axis=-1)}
    return {"logits": found.logits} if isinstance(found, (Categorical, Bernoulli)) else {}


def difference(name: str, found: np.ndarray, expected: Mapping[str, np.ndarray], codec: ActionCodec) -> float:
    """Return how far an output is from the original's.

    Of numbers it is the largest difference, in units of the largest number that is expected, if that is above 1. Of choices
    it is 0 where they are the same, else how far the logits of the two are apart, in such units: two may be equally good.

    Args:
        name: the output's.
        found: what it is.
        expected: what all outputs should be.
        codec: that of the action space.
    """
    right = expected[name]
    if (found.shape, found.dtype) != (right.shape, right.dtype):
        return np.inf
    if name == "action" and codec.kind != "box":
        return _difference_of_choices(found, right, expected["logits"], codec)
    forbidden = np.abs(right) >= -FORBIDDEN if name == "logits" else np.zeros(right.shape, bool)
    if not np.array_equal(found[forbidden], right[forbidden]):
        return np.inf
    wide = np.where(forbidden, 0.0, right.astype(np.float64))
    # Two numbers that differ by rounding may also be rounded to two neighbours in half precision.
    unit = max(1.0, 2.0 * float(np.finfo(right.dtype).eps) / TOLERANCE) if right.dtype.kind == "f" else 1.0
    apart = np.max(np.abs(np.where(forbidden, 0.0, found.astype(np.float64)) - wide), initial=0.0)
    return float(apart / (unit * _scale(wide)))


def _scale(values: np.ndarray) -> float:
    return max(1.0, float(np.max(np.abs(values), initial=0.0)))


def _difference_of_choices(found: np.ndarray, right: np.ndarray, logits: np.ndarray, codec: ActionCodec) -> float:
    found, right = (np.asarray(x, np.int64).reshape(len(right), -1) for x in (found, right))
    place, column = np.nonzero(found != right)
    if not place.size:
        return 0.0
    if codec.kind == "multi_binary":
        apart = np.abs(logits[place, column])
    else:
        start, sizes = (np.asarray(x)[column] for x in (codec.start, codec.choices))
        first = np.cumsum((0, *codec.choices[:-1]))[column]
        one, other = (x[place, column] - start for x in (found, right))
        if np.any((one < 0) | (one >= sizes)):
            return np.inf
        apart = np.abs(logits[place, first + one] - logits[place, first + other])
    return float(np.max(apart) / _scale(logits[np.abs(logits) < -FORBIDDEN]))
