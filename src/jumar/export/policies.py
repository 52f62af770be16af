"""Policies as graphs: all that lies between an observation, as the environment gives it, and an action that it takes.

What :meth:`jumar.policies.policy.Policy.act` and :meth:`jumar.policies.actions.ActionCodec.to_environment` compute,
operator by operator: encoding and normalising of observations, networks, memory, masks, the distribution's mode, and
squashing, clipping and scaling into the action space.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np

from jumar.errors import UsageError
from jumar.export import networks
from jumar.export.graph import FLOAT, Graph, Value
from jumar.networks.layers import GRU, Parameters, Torso
from jumar.policies.actions import ActionCodec, bounds_inside, narrow_dtype
from jumar.policies.distributions import FORBIDDEN
from jumar.policies.features import FeatureTorso, name_of
from jumar.policies.heads import (
    LOG_STD_BOUNDS,
    LOG_STD_REACH,
    LOWEST_LOG_STD,
    BernoulliHead,
    CategoricalHead,
    ClampedDeviation,
    DeterministicHead,
    FixedDeviation,
    FreeDeviation,
    GaussianHead,
    MultiCategoricalHead,
    SamplerHead,
    StateDependentNoiseHead,
    StateDeviation,
)
from jumar.policies.moments import EPSILON, RunningMoments
from jumar.policies.observations import MASK_KEY, Encoder, Leaf
from jumar.policies.policy import Policy
from jumar.spaces import describe_space

OBSERVATION = "observation"
"""The name of an observation that has no parts, and the first part of names where the parts' own are no good."""
STARTS = "episode_start"
MEMORY_IN, MEMORY_OUT = ("h_in", "c_in"), ("h_out", "c_out")
"""The names of a recurrent core's memory: the hidden vector, and the cell of an LSTM."""
OUTPUTS = ("action", *MEMORY_OUT, "logits", "mean", "log_std")
"""The names that outputs may have, in their order."""
_OWN_INPUTS = (MASK_KEY, STARTS, *MEMORY_IN)
"""The names of inputs that are no observations."""


HEADS = (
    CategoricalHead,
    MultiCategoricalHead,
    BernoulliHead,
    GaussianHead,
    DeterministicHead,
    SamplerHead,
    StateDependentNoiseHead,
)
"""The heads that there are operators for: all of them but that of features of the user's."""


class Mode(NamedTuple):
    """What a head makes of the latent vector."""

    action: str
    """The policy's own action, before it is one of the environment's: float ``[batch, n]``, or int64 ``[batch, k]``."""
    parameters: dict[str, str]
    """Those of the distribution, by the names of outputs."""
    size: int
    """How many numbers each of these is."""


def policy_graph(
    policy: Policy,
    parameters: Parameters,
    moments: RunningMoments,
    spaces: tuple[gym.Space[Any], gym.Space[Any]],
    action_mask: bool = False,
) -> Graph:
    """Return the graph of a policy's deterministic actions.

    Inputs: the parts of an observation that the policy sees, each in the dtype of its space; ``action_mask``, if there is one;
    of a recurrent policy ``episode_start``, which clears the memory, and the memory ``h_in`` (and ``c_in``). Outputs:
    ``action``, the new memory ``h_out`` (and ``c_out``), and the parameters of the distribution, if it has some: ``logits``
    (of forbidden actions -1e9), or ``mean`` and ``log_std`` (of a squashed Gaussian those of the normal before tanh).

    Args:
        policy: what it is made of.
        parameters: its parameters, NumPy arrays.
        moments: its observation normaliser, NumPy arrays.
        spaces: what it acts on, and its action space.
        action_mask: whether masks of actions are an input where the observation carries none.

    Raises:
        UsageError: the policy is made of code of the user's, the action space has no masks, or names of the observation's parts
            cannot be told apart.
    """
    torso = own_torso(policy)
    observation_space, action_space = spaces
    encoder, codec = policy.encoder, policy.actions
    if action_mask and codec.mask_size is None:
        raise UsageError(f"an action space {describe_space(action_space)} has no action masks; leave action_mask out.")
    graph = Graph(OUTPUTS)
    features = {leaf: _input(graph, name, leaf, observation_space) for leaf, name in named_leaves(encoder)}
    mask = _mask(graph, encoder, codec, observation_space, action_mask)
    memory = _memory(graph, torso)
    joined = _join(graph, encoder, torso, parameters["torso"], features, moments)
    joined, carry = _remember(graph, torso, parameters["torso"], joined, memory)
    latent = networks.mlp(graph, torso.mlp, parameters["torso"]["mlp"], joined)
    mode = _mode(graph, policy.head, parameters["head"], latent, mask)
    _outputs(graph, codec, action_space, mode, carry, torso.recurrent_size)
    return graph


def own_torso(policy: Policy) -> Torso:
    """Return the policy's torso. Raises ``UsageError`` where code of the user's is a part of it."""
    torso = policy.torso
    if isinstance(torso, FeatureTorso):
        raise own_code("features", name_of(torso.features))
    if torso.own is not None:
        raise own_code("an encoder", torso.own.name)
    return torso


def own_code(what: str, name: str | None) -> UsageError:
    """Return the error for a policy that code of the user's is a part of."""
    return UsageError(
        f"the policy has {what} of your own ({name}), and only networks of Jumar's can be exported; act with jumar.load_policy."
    )


# -- inputs -----------------------------------------------------------------------------------------------------------


def named_leaves(encoder: Encoder) -> list[tuple[Leaf, str]]:
    """Return the leaves that the policy acts on, each with the name of its input.

    A part of a Dict has its own name, joined by ``/`` to those around it. Where one of these is no good (empty, that of another
    input or of an output, or a number, as in a Tuple), all begin with ``observation/``.

    Raises:
        UsageError: names cannot be told apart, or are no text that can be written.
    """
    leaves = encoder.acting_leaves
    names = ["/".join(map(str, leaf.path)) for leaf in leaves]
    if not leaves[0].path:
        names = [OBSERVATION]
    elif isinstance(leaves[0].path[0], int) or any(not name or name in (*OUTPUTS, *_OWN_INPUTS) for name in names):
        names = [f"{OBSERVATION}/{name}" for name in names]
    for name, number in Counter(names).items():
        if number > 1:
            raise UsageError(f"two parts of the observation are both called {name!r} as inputs; rename one of them.")
        try:
            name.encode()
        except UnicodeEncodeError:
            raise UsageError(
                f"the part {name!r} of the observation has a name that is no Unicode; rename it."
            ) from None
    return list(zip(leaves, names, strict=True))


def _input(graph: Graph, name: str, leaf: Leaf, space: gym.Space[Any]) -> str:
    part: Any = leaf.pick(space)
    return graph.input(Value(name, np.dtype(part.dtype), leaf.shape, f"observation: {describe_space(part)}"))


def _mask(graph: Graph, encoder: Encoder, codec: ActionCodec, space: Any, asked: bool) -> str | None:
    """Add the input of action masks, if there is one; return the mask, bool ``[batch, mask_size]``."""
    size = codec.mask_size
    if size is None or not (asked or encoder.mask_axes):
        return None
    per = "two per bit: whether 0 and whether 1 is" if codec.kind == "multi_binary" else "one per choice: whether it is"
    meaning = f"{per} allowed"
    if not encoder.mask_axes:
        return graph.input(Value(MASK_KEY, np.dtype(bool), (size,), meaning))
    part: Any = space[MASK_KEY]
    mask = graph.input(Value(MASK_KEY, np.dtype(part.dtype), tuple(part.shape), meaning))
    return graph.cast(mask if len(part.shape) == 1 else graph.reshape(mask, (size,)), bool)


def _memory(graph: Graph, torso: Torso) -> list[str]:
    """Add the inputs of a recurrent core, and return its memory, cleared where an episode starts: ``h``, then ``c``."""
    core = torso.core
    if core is None:
        return []
    starts = graph.input(Value(STARTS, np.dtype(bool), (), "whether an episode begins with the observation"))
    memory = []
    for name, after in list(zip(MEMORY_IN, MEMORY_OUT, strict=True))[: 1 if isinstance(core, GRU) else 2]:
        meaning = f"the memory: {after} of the step before, at first zeros"
        memory.append(graph.input(Value(name, FLOAT, (core.outputs,), meaning)))
    column = graph.add("Unsqueeze", starts, graph.integers(1))
    return [graph.add("Where", column, graph.scalar(0.0), x) for x in memory]


# -- from observations to the latent vector ---------------------------------------------------------------------------


def _join(
    graph: Graph,
    encoder: Encoder,
    torso: Torso,
    parameters: Parameters,
    inputs: dict[Leaf, str],
    moments: RunningMoments,
) -> str:
    """Add the encoding of observations: what goes to the recurrent core or the hidden layers."""
    parts = [_encode(graph, leaf, x) for leaf, x in inputs.items() if leaf.width]
    joined = [_normalise(graph, encoder, _together(graph, parts), moments)] if parts else []
    images = [(leaf, x) for leaf, x in inputs.items() if leaf.convolved]
    for place, network, (leaf, x) in zip(torso.places, torso.cnns, images, strict=True):
        name = f"image_{place}"
        joined.append(networks.cnn(graph, name, network, parameters[name], x, leaf.channels_first))
    return _together(graph, joined)


def _together(graph: Graph, parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else graph.add("Concat", *parts, axis=1)


def _encode(graph: Graph, leaf: Leaf, x: str) -> str:
    """Add the encoding of one part: ``[batch, width]``."""
    entries = len(leaf.choices) or leaf.width
    if leaf.shape != (entries,):
        x = graph.reshape(x, (entries,))
    if leaf.kind != "one_hot":
        x = graph.cast(x, FLOAT)
        return x if leaf.scale == 1.0 else graph.add("Mul", x, graph.scalar(leaf.scale))
    # Each choice is compared with the values that it can take: a value that is none of them is encoded as zeros.
    x = graph.cast(x, np.int64)
    columns = np.repeat(np.arange(entries), leaf.choices)
    values = np.concatenate([start + np.arange(n) for n, start in zip(leaf.choices, leaf.start, strict=True)])
    if entries > 1:
        x = graph.add("Gather", x, graph.constant("columns", columns, np.int64), axis=1)
    return graph.cast(graph.add("Equal", x, graph.constant("choices", values, np.int64)), FLOAT)


def _normalise(graph: Graph, encoder: Encoder, vector: str, moments: RunningMoments) -> str:
    r"""Add :math:`clip((x - \bar x) / \sqrt{s^2 + \epsilon}, \pm c)` for the entries that are numbers."""
    acting = encoder.acting_leaves
    seen = np.concatenate([np.full(leaf.width, leaf in acting) for leaf in encoder.leaves])
    numbers = encoder.is_number[seen]
    if not (encoder.normalise and numbers.any()):
        return vector
    variance = np.asarray(moments.variance)[seen] + FLOAT.type(EPSILON)
    mean = np.where(numbers, np.asarray(moments.mean)[seen], 0.0)
    scale = np.where(numbers, 1.0 / np.sqrt(variance.astype(np.float64)), 1.0)
    bound = np.where(numbers, encoder.clip, np.inf)
    vector = graph.add("Sub", vector, graph.constant("normaliser.mean", mean))
    vector = graph.add("Mul", vector, graph.constant("normaliser.scale", scale))
    return _between(graph, vector, -bound, bound, "normaliser")


def _between(graph: Graph, x: str, low: np.ndarray, high: np.ndarray, name: str) -> str:
    """Add clipping to bounds of each entry, where there are any."""
    if np.isfinite(low).any():
        x = graph.add("Max", x, graph.constant(f"{name}.low", low))
    return graph.add("Min", x, graph.constant(f"{name}.high", high)) if np.isfinite(high).any() else x


def _remember(
    graph: Graph, torso: Torso, parameters: Parameters, x: str, memory: list[str]
) -> tuple[str, dict[str, str]]:
    """Add the recurrent core, if there is one; return what goes on, and the new memory by the names of outputs."""
    core = torso.core
    if core is None:
        return x, {}
    if isinstance(core, GRU):
        hidden = networks.gru(graph, core, parameters["core"], x, memory[0])
        return hidden, dict(zip(MEMORY_OUT, (hidden,), strict=False))
    cell, hidden = networks.lstm(graph, core, parameters["core"], x, memory[1], memory[0])
    return hidden, dict(zip(MEMORY_OUT, (hidden, cell), strict=True))


# -- from the latent vector to actions --------------------------------------------------------------------------------


def _mode(graph: Graph, head: Any, parameters: Parameters, latent: str, mask: str | None) -> Mode:
    """Add the head: the parameters of the distribution and its mode."""
    assert isinstance(head, HEADS), head
    size = head.linear.outputs
    if isinstance(head, (CategoricalHead, MultiCategoricalHead, BernoulliHead)):
        logits = networks.linear(graph, "logits", head.linear, parameters["logits"], latent)
        if isinstance(head, BernoulliHead):
            return _bits(graph, logits, mask, size)
        if mask is not None:
            logits = graph.add("Where", mask, logits, graph.scalar(FORBIDDEN))
        if isinstance(head, CategoricalHead):
            return Mode(graph.add("ArgMax", logits, axis=1, keepdims=1), {"logits": logits}, size)
        return Mode(_likeliest(graph, logits, head.choices), {"logits": logits}, size)
    if isinstance(head, SamplerHead):
        return Mode(_of_no_noise(graph, head, parameters, latent), {}, size)
    mean = networks.linear(graph, "mean", head.linear, parameters["mean"], latent)
    if isinstance(head, DeterministicHead):
        return Mode(mean, {}, size)
    if isinstance(head, GaussianHead):
        return Mode(mean, {"mean": mean, "log_std": _log_std(graph, head, parameters, latent, mean)}, size)
    if head.clip_mean is not None:
        mean = graph.add("Clip", mean, graph.scalar(-head.clip_mean), graph.scalar(head.clip_mean))
    variances = graph.constant("log_std.variances", np.exp(2.0 * np.asarray(parameters["log_std"])))
    variance = graph.add("MatMul", graph.add("Mul", latent, latent), variances)
    log_std = graph.add("Mul", graph.add("Log", graph.add("Add", variance, graph.scalar(1e-6))), graph.scalar(0.5))
    return Mode(mean, {"mean": mean, "log_std": log_std}, size)


def _bits(graph: Graph, logits: str, mask: str | None, size: int) -> Mode:
    if mask is not None:
        pairs = graph.reshape(mask, (size, 2))
        zero, one = (graph.add("Gather", pairs, graph.constant("bit", bit, np.int64), axis=2) for bit in (0, 1))
        logits = graph.add("Where", one, logits, graph.scalar(FORBIDDEN))
        logits = graph.add("Where", zero, logits, graph.scalar(-FORBIDDEN))
    return Mode(graph.cast(graph.add("Greater", logits, graph.scalar(0.0)), np.int64), {"logits": logits}, size)


def _likeliest(graph: Graph, logits: str, choices: tuple[int, ...]) -> str:
    """Add the likeliest of each of several choices: the logits are laid side by side, shorter choices filled up."""
    ends, widest = np.cumsum(choices), max(choices)
    places = np.full((len(choices), widest), sum(choices))  # the one after all logits
    for row, n, end in zip(places, choices, ends, strict=True):
        row[:n] = np.arange(end - n, end)
    filled = graph.add("Pad", logits, graph.integers(0, 0, 0, 1), graph.scalar(FORBIDDEN))
    table = graph.add("Gather", filled, graph.constant("places", places, np.int64), axis=1)
    return graph.add("ArgMax", table, axis=2, keepdims=0)


def _of_no_noise(graph: Graph, head: SamplerHead, parameters: Parameters, latent: str) -> str:
    """Add what a sampler makes of the noise 0."""
    hidden, output = (head.parts[name] for name in ("hidden", "output"))
    x = networks.linear(graph, "sampler.hidden", hidden, parameters["hidden"], latent)
    return networks.linear(graph, "sampler.output", output, parameters["output"], graph.add("Relu", x))


def _log_std(graph: Graph, head: GaussianHead, parameters: Parameters, latent: str, mean: str) -> str:
    deviation = head.deviation
    if isinstance(deviation, (FreeDeviation, FixedDeviation)):
        same = np.full((head.linear.outputs,), deviation.value) if isinstance(deviation, FixedDeviation) else None
        values = np.maximum(parameters["log_std"], LOWEST_LOG_STD) if same is None else same
        return graph.add("Expand", graph.constant("log_std.values", values), graph.add("Shape", mean))
    assert isinstance(deviation, StateDeviation | ClampedDeviation), deviation
    raw = networks.linear(graph, "log_std", deviation.linear, parameters["log_std"], latent)
    first = graph.scalar(deviation.log_std_init)
    if isinstance(deviation, ClampedDeviation):
        return graph.add("Clip", graph.add("Add", raw, first), *map(graph.scalar, LOG_STD_BOUNDS))
    reach = graph.scalar(LOG_STD_REACH)
    return graph.add("Add", first, graph.add("Mul", reach, graph.add("Tanh", graph.add("Div", raw, reach))))


def _to_environment(graph: Graph, codec: ActionCodec, action: str) -> str:
    """Add what makes a valid action of the policy's own, in the dtype and shape of the space."""
    dtype = np.dtype(codec.dtype)
    if codec.kind == "box":
        if codec.squash:
            half_range = graph.constant("action.half_range", codec.half_range)
            action = graph.add("Mul", graph.add("Tanh", action), half_range)
            action = graph.add("Add", action, graph.constant("action.middle", codec.middle))
            action = action if dtype.kind == "f" else graph.add("Round", action)
        action = _between(graph, action, *bounds_inside(codec.low, codec.high, FLOAT), "action")
        action = _whole(graph, action, dtype) if dtype.kind in "iu" else action
    elif any(codec.start):
        action = graph.add("Add", action, graph.integers(*codec.start))
    action = graph.cast(action, dtype)
    return action if codec.shape == (codec.size,) else graph.reshape(action, codec.shape)


def _whole(graph: Graph, x: str, dtype: np.dtype) -> str:
    """Add the cut of numbers to integers, which are not beyond those of 32 bits (JAX has no others)."""
    limits = np.iinfo(narrow_dtype(dtype))
    low, high = (graph.constant("integer", limit, np.int64) for limit in (limits.min, limits.max))
    within = graph.add("Clip", x, graph.scalar(-(2.0**62)), graph.scalar(2.0**62))
    return graph.add("Clip", graph.cast(within, np.int64), low, high)


def _outputs(
    graph: Graph, codec: ActionCodec, space: gym.Space[Any], mode: Mode, carry: dict[str, str], width: int
) -> None:
    words = f"the deterministic action: {describe_space(space)}"
    action = Value("action", np.dtype(codec.dtype), codec.shape, words)
    graph.output(action, _to_environment(graph, codec, mode.action))
    for before, (name, value) in zip(MEMORY_IN, carry.items(), strict=False):
        graph.output(Value(name, FLOAT, (width,), f"the memory: {before} of the next step"), value)
    for name, value in mode.parameters.items():
        graph.output(Value(name, FLOAT, (mode.size,), _MEANINGS[name].format(_BEFORE[codec.squash])), value)


_MEANINGS = {
    "logits": "logits of the choices; of those that a mask forbids -1e9 (of a bit that must be 1, 1e9)",
    "mean": "mean of the Gaussian that actions are drawn from in training{}",
    "log_std": "log standard deviation of that Gaussian{}",
}
_BEFORE = {False: "", True: ", before tanh"}
