"""Neural networks: frozen descriptions with ``init(key) -> parameters`` and ``apply(parameters, input) -> output``.

Parameters are nested dictionaries of float32 arrays; leading axes of inputs are free.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jumar.networks import convolutions
from jumar.networks.own import OwnNetwork
from jumar.networks.taps import Tapped

Parameters = dict[str, Any]

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "tanh": jnp.tanh,
    "relu": jax.nn.relu,
    "elu": jax.nn.elu,
    "silu": jax.nn.silu,
    "gelu": jax.nn.gelu,
}


def orthogonal(key: Array, shape: tuple[int, int], scale: float) -> Array:
    """Return a float32 matrix with orthonormal rows or columns (whichever are fewer), times ``scale``.

    Mapped over keys it makes one matrix after the other: XLA's processor backend comes to a standstill over several
    decompositions of many stacked matrices at once.

    Source: Saxe et al. 2014; the field uses scale sqrt(2) for hidden layers, 0.01 for policy heads and 1 for values.
    """

    @jax.custom_batching.sequential_vmap
    def draw(key: Array) -> Array:
        return jax.nn.initializers.orthogonal()(key, shape, jnp.float32)

    return scale * draw(key)


def uniform_fan_in(key: Array, shape: tuple[int, int], scale: float) -> Array:
    """Return a float32 matrix drawn from U(-s, s), ``s = scale / sqrt(inputs)``: torch's default."""
    bound = scale / math.sqrt(shape[0])
    return jax.random.uniform(key, shape, jnp.float32, -bound, bound)


Initialiser = Callable[[Array, tuple[int, int], float], Array]


@dataclass(frozen=True)
class Linear:
    """An affine map ``x W + b``, or a linear one ``x W``; ``W`` is ``[inputs, outputs]``, ``b`` starts at 0."""

    inputs: int
    outputs: int
    scale: float = math.sqrt(2.0)
    initialiser: Initialiser = orthogonal
    bias: bool = True
    """Whether there is a ``b``."""

    def init(self, key: Array) -> Parameters:
        """Draw parameters."""
        kernel = self.initialiser(key, (self.inputs, self.outputs), self.scale)
        return {"kernel": kernel, "bias": jnp.zeros((self.outputs,), jnp.float32)} if self.bias else {"kernel": kernel}

    def apply(self, parameters: Parameters, inputs: Array) -> Array:
        """Map ``[..., inputs]`` to ``[..., outputs]``."""
        mapped = inputs @ parameters["kernel"]
        return mapped + parameters["bias"] if self.bias else mapped


@dataclass(frozen=True)
class MLP:
    """Hidden layers of the given ``sizes``, each followed by the activation; without sizes it is the identity."""

    inputs: int
    sizes: tuple[int, ...]
    activation: str = "tanh"
    initialiser: Initialiser = orthogonal

    @property
    def outputs(self) -> int:
        """The width of the last layer."""
        return self.sizes[-1] if self.sizes else self.inputs

    @property
    def layers(self) -> tuple[Linear, ...]:
        """The affine maps in order."""
        widths = (self.inputs, *self.sizes)
        gain = math.sqrt(2.0) if self.initialiser is orthogonal else 1.0
        return tuple(Linear(a, b, gain, self.initialiser) for a, b in itertools.pairwise(widths))

    def init(self, key: Array) -> Parameters:
        """Draw parameters."""
        keys = jax.random.split(key, max(len(self.layers), 1))
        return {f"layer_{i}": layer.init(keys[i]) for i, layer in enumerate(self.layers)}

    def apply(self, parameters: Parameters, inputs: Array) -> Array:
        """Map ``[..., inputs]`` to ``[..., outputs]``."""
        activation = ACTIVATIONS[self.activation]
        for i, layer in enumerate(self.layers):
            inputs = activation(layer.apply(parameters[f"layer_{i}"], inputs))
        return inputs


def convolve(images: Array, kernel: Array | Tapped, stride: int, padding: str) -> Array:
    """Return :func:`jumar.networks.convolutions.convolve` of images and a kernel; a tapped kernel measures what it sees."""
    if isinstance(kernel, Tapped):
        return kernel.convolve(images, stride, padding)
    return convolutions.convolve(images, kernel, stride, padding)


class Image(NamedTuple):
    """The shape and the kind of an image among the observations."""

    height: int
    width: int
    channels: int
    is_bytes: bool = True
    """Whether it is of bytes, to be divided by 255; other planes are taken as they are."""


class Convolution(NamedTuple):
    """One layer of an :class:`Architecture`."""

    size: int
    """The kernel's height and width."""
    stride: int
    filters: int


@dataclass(frozen=True)
class Architecture:
    """Convolutions and a dense layer, all with ReLU."""

    convolutions: tuple[Convolution, ...]
    padding: str
    """``"VALID"`` or ``"SAME"``."""
    outputs: int
    """Units of the dense layer."""


NATURE = Architecture((Convolution(8, 4, 32), Convolution(4, 2, 64), Convolution(3, 1, 64)), "VALID", 512)
"""For images whose sides are at least 36. Source: Mnih et al. 2015."""
SMALL = Architecture((Convolution(3, 1, 32), Convolution(3, 2, 64), Convolution(3, 1, 64)), "SAME", 512)
"""For smaller images of bytes, on which the kernels of :data:`NATURE` do not fit."""
PLANES = Architecture((Convolution(3, 1, 16),), "VALID", 128)
"""For smaller planes that are not bytes, such as those of a grid world. Source: Young and Tian 2019, *MinAtar*."""


def architecture_of(image: Image) -> Architecture:
    """Return the network that an image gets."""
    if min(image.height, image.width) >= 36:
        return NATURE
    return SMALL if image.is_bytes else PLANES


AT_ONCE = 256
"""How many images go through a :class:`CNN` at a time: what a layer keeps of them then stays some 100 MB."""


@dataclass(frozen=True)
class CNN:
    """A convolutional network for images ``[..., height, width, channels]``. Bytes are divided by 255."""

    image: Image
    architecture: Architecture

    @property
    def outputs(self) -> int:
        """The length of what it makes of an image."""
        return self.architecture.outputs

    @property
    def flat_size(self) -> int:
        """The number of values after the last convolution."""
        height, width, filters, _ = self.image
        for size, stride, filters in self.architecture.convolutions:  # noqa: B007 (the last number of filters is used)
            pad = size - 1 if self.architecture.padding == "SAME" else 0
            height, width = ((side + pad - size) // stride + 1 for side in (height, width))
        return height * width * filters

    def init(self, key: Array) -> Parameters:
        """Draw parameters."""
        layers = self.architecture.convolutions
        keys = jax.random.split(key, len(layers) + 1)
        parameters: Parameters = {}
        channels = self.image.channels
        for i, (size, _, filters) in enumerate(layers):
            flat = orthogonal(keys[i], (size * size * channels, filters), math.sqrt(2.0))
            parameters[f"convolution_{i}"] = {
                "kernel": flat.reshape(size, size, channels, filters),
                "bias": jnp.zeros((filters,), jnp.float32),
            }
            channels = filters
        parameters["dense"] = Linear(self.flat_size, self.outputs).init(keys[-1])
        return parameters

    def apply(self, parameters: Parameters, images: Array) -> Array:
        """Map ``[..., height, width, channels]`` to ``[..., outputs]``, at most :data:`AT_ONCE` images at a time."""
        batch = images.shape[:-3]
        rows = images.reshape(-1, *images.shape[-3:])
        if len(rows) <= AT_ONCE:
            return self._apply(parameters, rows).reshape(*batch, self.outputs)
        whole = len(rows) // AT_ONCE * AT_ONCE
        pieces = rows[:whole].reshape(-1, AT_ONCE, *rows.shape[1:])
        outputs = jax.lax.map(functools.partial(self._apply, parameters), pieces).reshape(whole, self.outputs)
        if whole < len(rows):
            outputs = jnp.concatenate([outputs, self._apply(parameters, rows[whole:])])
        return outputs.reshape(*batch, self.outputs)

    def _apply(self, parameters: Parameters, images: Array) -> Array:
        x = images.astype(jnp.float32)
        x = x / 255.0 if self.image.is_bytes else x
        for i, (_, stride, _) in enumerate(self.architecture.convolutions):
            layer = parameters[f"convolution_{i}"]
            x = jax.nn.relu(convolve(x, layer["kernel"], stride, self.architecture.padding) + layer["bias"])
        x = x.reshape(x.shape[0], -1)
        return jax.nn.relu(Linear(self.flat_size, self.outputs).apply(parameters["dense"], x))


@dataclass(frozen=True)
class GRU:
    r"""A gated recurrent unit (Cho et al. 2014).

    :math:`r = \sigma(x W_r + h U_r)`, :math:`z = \sigma(x W_z + h U_z)`, :math:`n = \tanh(x W_n + r \odot h U_n)`,
    :math:`h' = (1 - z) \odot n + z \odot h`, each with a bias. The carry is ``h``.
    """

    inputs: int
    outputs: int

    def init(self, key: Array) -> Parameters:
        """Draw parameters."""
        first, second = jax.random.split(key)
        return {
            "input": Linear(self.inputs, 3 * self.outputs, 1.0).init(first),
            "hidden": Linear(self.outputs, 3 * self.outputs, 1.0).init(second),
        }

    def initial_carry(self, batch: tuple[int, ...]) -> Array:
        """Return the empty memory, ``[*batch, outputs]``."""
        return jnp.zeros((*batch, self.outputs), jnp.float32)

    def apply(self, parameters: Parameters, carry: Array, inputs: Array) -> tuple[Array, Array]:
        """Take one step; return the new carry and the output."""
        input_part = Linear(self.inputs, 3 * self.outputs).apply(parameters["input"], inputs)
        hidden_part = Linear(self.outputs, 3 * self.outputs).apply(parameters["hidden"], carry)
        x_r, x_z, x_n = jnp.split(input_part, 3, axis=-1)
        h_r, h_z, h_n = jnp.split(hidden_part, 3, axis=-1)
        update = jax.nn.sigmoid(x_z + h_z)
        proposal = jnp.tanh(x_n + jax.nn.sigmoid(x_r + h_r) * h_n)
        memory = (1.0 - update) * proposal + update * carry
        return memory, memory


@dataclass(frozen=True)
class LSTM:
    r"""A long short-term memory (Hochreiter and Schmidhuber 1997, with a forget gate whose bias starts at 1).

    :math:`c' = f \odot c + i \odot \tanh(g)`, :math:`h' = o \odot \tanh(c')`; the carry is ``(c, h)``.
    """

    inputs: int
    outputs: int

    def init(self, key: Array) -> Parameters:
        """Draw parameters."""
        first, second = jax.random.split(key)
        return {
            "input": Linear(self.inputs, 4 * self.outputs, 1.0).init(first),
            "hidden": Linear(self.outputs, 4 * self.outputs, 1.0).init(second),
        }

    def initial_carry(self, batch: tuple[int, ...]) -> tuple[Array, Array]:
        """Return the empty memory, twice ``[*batch, outputs]``."""
        zeros = jnp.zeros((*batch, self.outputs), jnp.float32)
        return zeros, zeros

    def apply(
        self, parameters: Parameters, carry: tuple[Array, Array], inputs: Array
    ) -> tuple[tuple[Array, Array], Array]:
        """Take one step; return the new carry and the output."""
        cell, hidden = carry
        gates = Linear(self.inputs, 4 * self.outputs).apply(parameters["input"], inputs)
        gates = gates + Linear(self.outputs, 4 * self.outputs).apply(parameters["hidden"], hidden)
        enter, forget, candidate, leave = jnp.split(gates, 4, axis=-1)
        cell = jax.nn.sigmoid(forget + 1.0) * cell + jax.nn.sigmoid(enter) * jnp.tanh(candidate)
        hidden = jax.nn.sigmoid(leave) * jnp.tanh(cell)
        return (cell, hidden), hidden


RECURRENT_CORES: dict[str, type[GRU] | type[LSTM]] = {"gru": GRU, "lstm": LSTM}


@dataclass(frozen=True)
class Seen:
    """Which parts of encoded observations a network sees."""

    ranges: tuple[tuple[int, int], ...]
    """The columns of the vector, from the first of each to before the second, in order."""
    images: tuple[int, ...]
    """The numbers of the images."""

    @property
    def width(self) -> int:
        """How many columns there are."""
        return sum(end - begin for begin, end in self.ranges)

    def of(self, vector: Array) -> Array:
        """Return the columns of ``[..., n]``."""
        parts = [vector[..., begin:end] for begin, end in self.ranges]
        return parts[0] if len(parts) == 1 else jnp.concatenate(parts, axis=-1)


@dataclass(frozen=True)
class Torso:
    """From encoded observations to a latent vector: CNNs for images, then an optional recurrent core, then an MLP.

    ``images`` describes each image among the features; ``vector`` is the length of the rest. The policy and the critic
    each have a torso. The critic's may leave the convolutional networks to the policy's (``embeds`` false): it then takes
    features that the policy's torso has embedded.
    """

    vector: int
    images: tuple[Image, ...]
    sizes: tuple[int, ...]
    activation: str
    recurrent: str | None
    recurrent_size: int
    initialiser: Initialiser = orthogonal
    embeds: bool = True
    """Whether the torso has convolutional networks of its own, where there are images."""
    seen: Seen | None = None
    """Which parts of the features it takes; ``None``: all. ``vector`` and ``images`` are those alone."""
    own: OwnNetwork | None = None
    """The user's network that stands in the place of convolutional networks and of joining; there are no ``images`` then."""

    @property
    def places(self) -> tuple[int, ...]:
        """The number that each image has among the features."""
        return tuple(range(len(self.images))) if self.seen is None else self.seen.images

    @property
    def cnns(self) -> tuple[CNN, ...]:
        """One network for each image."""
        return tuple(CNN(image, architecture_of(image)) for image in self.images)

    @property
    def joined(self) -> int:
        """The length of the vector and the images' outputs together, or of what the user's network makes of all."""
        if self.own is not None:
            return self.own.outputs
        return self.vector + sum(cnn.outputs for cnn in self.cnns)

    @property
    def core(self) -> GRU | LSTM | None:
        """The recurrent core, if there is one."""
        return RECURRENT_CORES[self.recurrent](self.joined, self.recurrent_size) if self.recurrent else None

    @property
    def mlp(self) -> MLP:
        """The layers after the core."""
        return MLP(self.core.outputs if self.core else self.joined, self.sizes, self.activation, self.initialiser)

    @property
    def outputs(self) -> int:
        """The length of the latent vector."""
        return self.mlp.outputs

    def init(self, key: Array) -> Parameters:
        """Draw parameters."""
        keys = jax.random.split(key, len(self.cnns) + 2)
        parameters: Parameters = {}
        if self.embeds:
            numbered = enumerate(zip(self.places, self.cnns, strict=True))
            parameters = {f"image_{place}": cnn.init(keys[i + 2]) for i, (place, cnn) in numbered}
        if self.own is not None:
            parameters["encoder"] = self.own.init(jax.random.fold_in(key, 0))
        if self.core:
            parameters["core"] = self.core.init(keys[1])
        return {**parameters, "mlp": self.mlp.init(keys[0])}

    def initial_carry(self, batch: tuple[int, ...]) -> Any:
        """Return the empty memory; ``()`` without a recurrent core."""
        return self.core.initial_carry(batch) if self.core else ()

    def apply(
        self, parameters: Parameters, features: Parameters, carry: Any, episode_start: Array
    ) -> tuple[Array, Any]:
        """Take one step: features ``[...]`` to the latent vector ``[..., outputs]``, and the new carry.

        Where ``episode_start`` is true the memory is cleared before the step.
        """
        inputs = self._join(parameters, features)
        if self.core:
            carry = clear_where(episode_start, carry)
            carry, inputs = self.core.apply(parameters["core"], carry, inputs)
        return self.mlp.apply(parameters["mlp"], inputs), carry

    def unroll(
        self, parameters: Parameters, features: Parameters, carry: Any, episode_start: Array
    ) -> tuple[Array, Any]:
        """Take all steps of sequences ``[R, T, ...]``; return latents ``[R, T, outputs]`` and all carries.

        Without a recurrent core all steps are computed at once and the carries are empty.
        """
        inputs = self._join(parameters, features)
        core = self.core
        if core is None:
            return self.mlp.apply(parameters["mlp"], inputs), ()

        def step(memory: Any, row: tuple[Array, Array]) -> tuple[Any, tuple[Array, Any]]:
            memory, output = core.apply(parameters["core"], clear_where(row[1], memory), row[0])
            return memory, (output, memory)

        by_time = (jnp.swapaxes(inputs, 0, 1), jnp.swapaxes(episode_start, 0, 1))
        _, (outputs, carries) = jax.lax.scan(step, carry, by_time)
        latent = self.mlp.apply(parameters["mlp"], jnp.swapaxes(outputs, 0, 1))
        return latent, jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), carries)

    def embed(self, parameters: Parameters, features: Parameters) -> Parameters:
        """Return the features with each image ``image_i`` replaced by what its network makes of it, ``embedded_i``.

        Features that are embedded already stay as they are.
        """
        numbered = zip(self.places, self.cnns, strict=True)
        images = {f"image_{i}": cnn for i, cnn in numbered if f"image_{i}" in features}
        others = {name: x for name, x in features.items() if name not in images}
        embedded = {
            name.replace("image", "embedded"): cnn.apply(parameters[name], features[name])
            for name, cnn in images.items()
        }
        return {**others, **embedded}

    def embed_sequences(
        self, parameters: Parameters, features: Parameters, successors: Parameters
    ) -> tuple[Parameters, Parameters]:
        """Return the features of observations and of their successors, ``[N, T, ...]``, with all images embedded.

        A successor that is the next row's observation is not embedded a second time; where it is another, because an
        episode ended, it is, a few at a time. No derivatives backward can be taken of the successors' embeddings. The
        user's network takes images as they are.
        """
        if self.own is not None:
            return features, successors
        embedded = self.embed(parameters, features)
        others = {name: x for name, x in successors.items() if not name.startswith("image_")}
        for i, cnn in zip(self.places, self.cnns, strict=True):
            if (name := f"image_{i}") in features:
                apply = functools.partial(cnn.apply, parameters[name])
                others[f"embedded_{i}"] = of_successors(
                    apply, features[name], embedded[f"embedded_{i}"], successors[name]
                )
        return embedded, others

    def _join(self, parameters: Parameters, features: Parameters) -> Array:
        if self.own is not None:
            return self.own.apply(parameters["encoder"], features)
        features = self.embed(parameters, features)
        parts = []
        if self.vector:
            parts = [features["vector"] if self.seen is None else self.seen.of(features["vector"])]
        parts += [features[f"embedded_{i}"] for i in self.places]
        return parts[0] if len(parts) == 1 else jnp.concatenate(parts, axis=-1)


AT_A_TIME = 8
"""How many successors that were not seen before are embedded at a time."""


def of_successors(apply: Callable[[Array], Array], seen: Array, outputs: Array, successors: Array) -> Array:
    """Return a network's outputs for successors, given those for the observations ``seen``; all are ``[N, T, ...]``.

    The network is evaluated at the last row's successors, and at those that differ from the next row's observation.
    """
    n, length, *shape = successors.shape
    last = apply(successors[:, -1])
    following = jnp.concatenate([outputs[:, 1:], last[:, None]], axis=1)
    other = jnp.any(seen[:, 1:] != successors[:, :-1], axis=tuple(range(2, seen.ndim)))
    other = jnp.concatenate([other, jnp.zeros((n, 1), bool)], axis=1).reshape(-1)
    order = jnp.argsort(~other, stable=True)  # those that differ come first
    order = jnp.concatenate([order, jnp.full((AT_A_TIME,), n * length, order.dtype)])
    rows = successors.reshape(n * length, *shape)

    def some(state: tuple[Array, Array]) -> tuple[Array, Array]:
        first, results = state
        chosen = jax.lax.dynamic_slice(order, (first,), (AT_A_TIME,))
        fresh = apply(rows.at[chosen].get(mode="clip"))
        return first + AT_A_TIME, results.at[chosen].set(fresh, mode="drop")

    start = jnp.zeros((), order.dtype), following.reshape(n * length, -1)
    _, results = jax.lax.while_loop(lambda state: state[0] < jnp.sum(other), some, start)
    return results.reshape(n, length, -1)


def clear_where(episode_start: Array, carry: Any) -> Any:
    """Return the carry with the memory of every entry cleared whose episode starts."""
    return jax.tree.map(lambda x: jnp.where(episode_start[..., None], 0.0, x), carry)
