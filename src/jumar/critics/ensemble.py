r"""Ensembles of action-value functions :math:`Q_k(s, a)`, which take actions as an input."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jax import Array

from jumar.critics.encodings import Encoding, Number
from jumar.networks.layers import ACTIVATIONS, Initialiser, Linear, Parameters, Torso, orthogonal


class ActionValues(Protocol):
    """What an off-policy update needs of its critics."""

    @property
    def n(self) -> int:
        """How many there are."""
        ...

    def init(self, key: Array) -> Parameters:
        """Draw parameters."""
        ...

    def initial_statistics(self, policy: Parameters) -> Any:
        """Return the state beside the parameters that no gradient moves (running means, say); ``()`` without any.

        ``policy`` are the parameters of the policy whose actions are judged.
        """
        ...

    def with_policy(self, statistics: Any, policy: Parameters) -> Any:
        """Return the statistics once the policy has changed."""
        ...

    @property
    def encoding(self) -> Encoding:
        """How values are written in outputs."""
        ...

    def outputs(
        self, parameters: Parameters, statistics: Any, features: Parameters, actions: Array, key: Array, training: bool
    ) -> tuple[Array, Any]:
        """Return what all critics say, ``[n, ..., m]`` by their encoding, and the statistics after it.

        Args:
            parameters: those of :meth:`init`.
            statistics: those of :meth:`initial_statistics`, or what a call returned.
            features: encoded observations, leading axes ``[...]``.
            actions: ``[..., d]``, as :meth:`jumar.policies.actions.ActionCodec.unit_of` has them: those of a Box in units of
                half of their range, in which the bounds are -1 and 1, and a number for each of Discrete ones. There may be
                more leading axes than features have.
            key: for critics with randomness of their own.
            training: whether the critics are being fitted to these rows.
        """
        ...

    def outputs_of_all(
        self, parameters: Parameters, statistics: Any, features: Parameters, key: Array, training: bool
    ) -> tuple[Array, Any]:
        """Return what all critics say of all Discrete actions, ``[n, ..., actions, m]``, and the statistics after it."""
        ...

    def apply(
        self, parameters: Parameters, statistics: Any, features: Parameters, actions: Array, key: Array, training: bool
    ) -> tuple[Array, Any]:
        """Return Q of all critics, ``[n, ...]``, and the statistics after it; see :meth:`outputs`."""
        ...

    def of_all(
        self, parameters: Parameters, statistics: Any, features: Parameters, key: Array, training: bool
    ) -> tuple[Array, Any]:
        """Return Q of all critics and of all Discrete actions, ``[n, ..., actions]``, and the statistics after it."""
        ...


class ReadOff:
    """Base of critics: their values are read off their outputs."""

    def apply(
        self: ActionValues,
        parameters: Parameters,
        statistics: Any,
        features: Parameters,
        actions: Array,
        key: Array,
        training: bool,
    ) -> tuple[Array, Any]:
        """Return Q of all critics, ``[n, ...]``, and the statistics after it."""
        outputs, statistics = self.outputs(parameters, statistics, features, actions, key, training)
        return self.encoding.value(outputs), statistics

    def of_all(
        self: ActionValues, parameters: Parameters, statistics: Any, features: Parameters, key: Array, training: bool
    ) -> tuple[Array, Any]:
        """Return Q of all critics and of all Discrete actions, ``[n, ..., actions]``, and the statistics after it."""
        outputs, statistics = self.outputs_of_all(parameters, statistics, features, key, training)
        return self.encoding.value(outputs), statistics


@dataclass(frozen=True)
class Layers:
    """What lies between a critic's affine maps: dropout, layer normalisation, the activation, batch normalisation."""

    activation: str
    dropout: float = 0.0
    r"""The share of outputs of each affine map that are 0, the others :math:`1 / (1 - p)` times as large; with every call."""
    layer_norm: bool = False
    """Whether outputs are standardised over the layer before the activation (Ba, Kiros and Hinton 2016), then scaled."""
    batch_norm: bool = False
    """Whether they are standardised over the batch after it (Ioffe and Szegedy 2015), then scaled; so are the inputs."""

    EPSILON = 1e-6
    BATCH_EPSILON = 1e-3
    MOMENTUM = 0.99
    """The share of running moments that stays with each batch."""

    def init(self, width: int) -> Parameters:
        """Return the parameters of one layer of that width."""
        names = ["layer_norm"] * self.layer_norm + ["batch_norm"] * self.batch_norm
        return {name: {"scale": jnp.ones((width,)), "bias": jnp.zeros((width,))} for name in names}

    def moments(self, width: int) -> Any:
        """Return the running moments of one layer before any batch."""
        return (jnp.zeros((width,)), jnp.ones((width,))) if self.batch_norm else ()

    def apply(self, parameters: Parameters, moments: Any, x: Array, key: Array, training: bool) -> tuple[Array, Any]:
        """Return what becomes of the outputs ``[..., width]`` of an affine map, and the running moments after it."""
        if self.dropout > 0.0:
            kept = jax.random.bernoulli(key, 1.0 - self.dropout, x.shape)
            x = jnp.where(kept, x / (1.0 - self.dropout), 0.0)
        if self.layer_norm:
            variance = jnp.var(x, axis=-1, keepdims=True)
            x = (x - jnp.mean(x, axis=-1, keepdims=True)) * jax.lax.rsqrt(variance + self.EPSILON)
            x = x * parameters["layer_norm"]["scale"] + parameters["layer_norm"]["bias"]
        x = ACTIVATIONS[self.activation](x)
        if self.batch_norm:
            x, moments = self.standardised(moments, x, training)
            x = x * parameters["batch_norm"]["scale"] + parameters["batch_norm"]["bias"]
        return x, moments

    def standardised(self, moments: Any, x: Array, training: bool) -> tuple[Array, Any]:
        """Return ``[..., width]`` less its mean over its deviation, those of the batch in training, else the running ones."""
        if training:
            axes = tuple(range(x.ndim - 1))
            mean, variance = jnp.mean(x, axis=axes), jnp.var(x, axis=axes)
            moments = jax.tree.map(
                lambda old, new: self.MOMENTUM * old + (1.0 - self.MOMENTUM) * jax.lax.stop_gradient(new),
                moments,
                (mean, variance),
            )
        else:
            mean, variance = moments
        return (x - mean) * jax.lax.rsqrt(variance + self.BATCH_EPSILON), moments


@dataclass(frozen=True)
class Ensemble(ReadOff):
    r"""``n`` networks over the joined vector of an observation and an action, or with an output for each Discrete action.

    Images go through one convolutional network for all of them. The first affine maps lie side by side, in one product of
    ``[inputs, n * width]``: for two critics on a processor that is a sixth faster than two products, while the later ones
    are faster apart.

    Sources of what can lie between the affine maps: layer normalisation with dropout, Hiraoka et al. 2022, *Dropout
    Q-Functions for Doubly Efficient Reinforcement Learning*; batch normalisation, Bhatt et al. 2024, *CrossQ: Batch
    Normalization in Deep Reinforcement Learning for Greater Sample Efficiency and Simplicity*.
    """

    torso: Torso
    """Joins the vector and the images; it has no layers after them."""
    action_size: int
    """The length of an action among the inputs; 0 where actions are outputs."""
    sizes: tuple[int, ...]
    between: Layers
    n: int
    initialiser: Initialiser = orthogonal
    choices: int = 0
    """How many Discrete actions are outputs; 0 where actions are inputs."""
    encoding: Encoding = Number()

    @property
    def inputs(self) -> int:
        """The length of the joined vector."""
        return self.torso.joined + self.action_size

    def _affine(self) -> tuple[Linear, ...]:
        """Return the affine maps of one critic in order."""
        gain = math.sqrt(2.0) if self.initialiser is orthogonal else 1.0
        widths = (self.inputs, *self.sizes, (self.choices or 1) * self.encoding.size)
        gains = [gain] * len(self.sizes) + [1.0]
        return tuple(Linear(a, b, g, self.initialiser) for a, b, g in zip(widths, widths[1:], gains, strict=False))

    def init(self, key: Array) -> Parameters:
        """Draw parameters; each critic's own are drawn apart.

        ``first`` has the first affine maps side by side, ``critic_k`` the others of critic ``k`` and what is between.
        """
        first, *others = self._affine()
        torso_key, key = jax.random.split(key)
        parameters: Parameters = {"torso": self.torso.init(torso_key)}
        beginnings = []
        for k, one in enumerate(jax.random.split(key, self.n)):
            keys = jax.random.split(one, 1 + len(others))
            beginnings.append(first.init(keys[0]))
            own = {f"layer_{i + 1}": layer.init(keys[i + 1]) for i, layer in enumerate(others)}
            between = {f"between_{i}": made for i, size in enumerate(self.sizes) if (made := self.between.init(size))}
            parameters[f"critic_{k}"] = {**own, **between}
        return {**parameters, "first": jax.tree.map(lambda *x: jnp.concatenate(x, axis=-1), *beginnings)}

    def with_policy(self, statistics: Any, policy: Parameters) -> Any:
        """Return the statistics as they are: the policy does not matter."""
        return statistics

    def initial_statistics(self, policy: Parameters) -> Any:
        """Return the running moments of batch normalisation, those of the inputs and of each critic's layers; or nothing."""
        if not self.between.batch_norm:
            return ()
        layers = tuple(self.between.moments(size) for size in self.sizes)
        return self.between.moments(self.inputs), tuple(layers for _ in range(self.n))

    def outputs(
        self, parameters: Parameters, statistics: Any, features: Parameters, actions: Array, key: Array, training: bool
    ) -> tuple[Array, Any]:
        """Return what all critics say, ``[n, ..., m]``, and the statistics after it."""
        if self.choices:
            of_all, statistics = self.outputs_of_all(parameters, statistics, features, key, training)
            return jnp.sum(of_all * actions[..., None], axis=-2), statistics
        joined = self._joined(parameters, features)
        joined = jnp.broadcast_to(joined, (*actions.shape[:-1], joined.shape[-1]))
        return self._outputs(parameters, statistics, jnp.concatenate([joined, actions], axis=-1), key, training)

    def outputs_of_all(
        self, parameters: Parameters, statistics: Any, features: Parameters, key: Array, training: bool
    ) -> tuple[Array, Any]:
        """Return what all critics say of all Discrete actions, ``[n, ..., actions, m]``, and the statistics after it."""
        outputs, statistics = self._outputs(parameters, statistics, self._joined(parameters, features), key, training)
        return outputs.reshape(*outputs.shape[:-1], self.choices, self.encoding.size), statistics

    def one(self, parameters: Parameters, k: int) -> list[Parameters]:
        """Return the parameters of a critic's affine maps in order."""
        first, *others = self._affine()
        place = slice(k * first.outputs, (k + 1) * first.outputs)
        beginning = jax.tree.map(lambda x: x[..., place], parameters["first"])
        return [beginning, *(parameters[f"critic_{k}"][f"layer_{i + 1}"] for i in range(len(others)))]

    def _joined(self, parameters: Parameters, features: Parameters) -> Array:
        return self.torso.apply(parameters["torso"], features, (), jnp.zeros((), bool))[0]

    def _outputs(
        self, parameters: Parameters, statistics: Any, inputs: Array, key: Array, training: bool
    ) -> tuple[Array, Any]:
        """Return the outputs of all critics, ``[n, ..., outputs]``, and the statistics after it."""
        between = self.between
        of_inputs, of_layers = statistics if between.batch_norm else ((), (((),) * len(self.sizes),) * self.n)
        if between.batch_norm:
            inputs, of_inputs = between.standardised(of_inputs, inputs, training)
        first, *others = self._affine()
        outputs = inputs @ parameters["first"]["kernel"] + parameters["first"]["bias"]
        values, after = [], []
        for k in range(self.n):
            own, moments = parameters[f"critic_{k}"], []
            x = outputs[..., k * first.outputs : (k + 1) * first.outputs]
            for i, layer in enumerate(others):
                place = jax.random.fold_in(key, k * len(others) + i) if between.dropout > 0.0 else key
                x, moment = between.apply(own.get(f"between_{i}", {}), of_layers[k][i], x, place, training)
                moments.append(moment)
                x = layer.apply(own[f"layer_{i + 1}"], x)
            values.append(x)
            after.append(tuple(moments))
        return jnp.stack(values), (of_inputs, tuple(after)) if between.batch_norm else statistics


@dataclass(frozen=True)
class NoActionValues(ReadOff):
    """The part for methods without critics: it says 0 of everything."""

    n = 1
    encoding = Number()

    def init(self, key: Array) -> Parameters:
        """Return no parameters."""
        return {}

    def initial_statistics(self, policy: Parameters) -> tuple[()]:
        """Return no state."""
        return ()

    def with_policy(self, statistics: Any, policy: Parameters) -> Any:
        """Return no state."""
        return statistics

    def outputs(
        self, parameters: Parameters, statistics: Any, features: Parameters, actions: Array, key: Array, training: bool
    ) -> tuple[Array, Any]:
        """Return zeros ``[1, ..., 1]``."""
        return jnp.zeros((1, *actions.shape[:-1], 1), jnp.float32), statistics

    def outputs_of_all(
        self, parameters: Parameters, statistics: Any, features: Parameters, key: Array, training: bool
    ) -> tuple[Array, Any]:
        """Refuse: nobody asks."""
        raise NotImplementedError("there are no critics")


class Reduction(Protocol):
    """A part that makes one value of those of all critics."""

    def __call__(self, values: Array, key: Array) -> Array:
        """Return ``[...]`` of ``[n, ...]``."""
        ...


@dataclass(frozen=True)
class First:
    """The part that takes the first critic's value."""

    def __call__(self, values: Array, key: Array) -> Array:
        """Return the value of critic 0."""
        return values[0]


@dataclass(frozen=True)
class Mean:
    """The part that takes the mean of all."""

    def __call__(self, values: Array, key: Array) -> Array:
        """Return the mean."""
        return jnp.mean(values, axis=0)


@dataclass(frozen=True)
class Least:
    r"""The part that takes the least value, :math:`\min_{k \in M} Q_k`, of all critics or of a random subset of them.

    Sources: Fujimoto, van Hoof and Meger 2018, *Addressing Function Approximation Error in Actor-Critic Methods*; the subset is
    that of Chen, Wang, Zhou and Ross 2021, *Randomized Ensembled Double Q-Learning*.
    """

    subset: int | None = None
    """The size of M, drawn anew for each batch; ``None``: all critics."""

    def __call__(self, values: Array, key: Array) -> Array:
        """Return the least value."""
        n = values.shape[0]
        if self.subset is None or self.subset >= n:
            return jnp.min(values, axis=0)
        chosen = jax.random.permutation(key, n)[: self.subset]
        return jnp.min(values[chosen], axis=0)
