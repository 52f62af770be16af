"""Neural networks: frozen descriptions with ``init(key) -> parameters`` and ``apply(parameters, input) -> output``.

Parameters are nested dictionaries of float32 arrays; leading axes of inputs are free.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jumar.taps import Tapped

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

    Source: Saxe et al. 2014; the field uses scale sqrt(2) for hidden layers, 0.01 for policy heads and 1 for values.
    """
    return scale * jax.nn.initializers.orthogonal()(key, shape, jnp.float32)


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
    """Return the convolution of images ``[N, height, width, channels]`` with a kernel; a tapped one measures it."""
    if isinstance(kernel, Tapped):
        return kernel.convolve(images, stride, padding)
    return jax.lax.conv_general_dilated(
        images, kernel, (stride, stride), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


@dataclass(frozen=True)
class CNN:
    """The convolutional network of Mnih et al. 2015 for images ``[..., height, width, channels]`` of bytes.

    Three convolutions (32 of 8x8 with stride 4, 64 of 4x4 with stride 2, 64 of 3x3), then 512 units, all with ReLU.
    Images under 36 pixels use 3x3 kernels with strides 1, 2 and 1 instead. Bytes are divided by 255.
    """

    height: int
    width: int
    channels: int
    outputs: int = 512

    @property
    def convolutions(self) -> tuple[tuple[int, int, int], ...]:
        """Kernel size, stride and number of filters of each convolution."""
        if min(self.height, self.width) >= 36:
            return (8, 4, 32), (4, 2, 64), (3, 1, 64)
        return (3, 1, 32), (3, 2, 64), (3, 1, 64)

    @property
    def flat_size(self) -> int:
        """The number of values after the last convolution."""
        height, width, filters = self.height, self.width, self.channels
        for kernel, stride, filters in self.convolutions:  # noqa: B007 (the last number of filters is used)
            pad = kernel - 1 if self._padding == "SAME" else 0
            height, width = ((side + pad - kernel) // stride + 1 for side in (height, width))
        return height * width * filters

    @property
    def _padding(self) -> str:
        return "VALID" if min(self.height, self.width) >= 36 else "SAME"

    def init(self, key: Array) -> Parameters:
        """Draw parameters."""
        keys = jax.random.split(key, 4)
        parameters: Parameters = {}
        channels = self.channels
        for i, (kernel, _, filters) in enumerate(self.convolutions):
            flat = orthogonal(keys[i], (kernel * kernel * channels, filters), math.sqrt(2.0))
            parameters[f"convolution_{i}"] = {
                "kernel": flat.reshape(kernel, kernel, channels, filters),
                "bias": jnp.zeros((filters,), jnp.float32),
            }
            channels = filters
        parameters["dense"] = Linear(self.flat_size, self.outputs).init(keys[3])
        return parameters

    def apply(self, parameters: Parameters, images: Array) -> Array:
        """Map ``[..., height, width, channels]`` bytes to ``[..., outputs]``."""
        batch = images.shape[:-3]
        x = images.reshape(-1, *images.shape[-3:]).astype(jnp.float32) / 255.0
        for i, (_, stride, _) in enumerate(self.convolutions):
            layer = parameters[f"convolution_{i}"]
            x = jax.nn.relu(convolve(x, layer["kernel"], stride, self._padding) + layer["bias"])
        x = x.reshape(x.shape[0], -1)
        x = jax.nn.relu(Linear(self.flat_size, self.outputs).apply(parameters["dense"], x))
        return x.reshape(*batch, self.outputs)


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
class Torso:
    """From encoded observations to a latent vector: CNNs for images, then an optional recurrent core, then an MLP.

    ``images`` are (height, width, channels) of each image among the features; ``vector`` is the length of the rest.
    The policy and the critic each have a torso of their own: nothing is shared.
    """

    vector: int
    images: tuple[tuple[int, int, int], ...]
    sizes: tuple[int, ...]
    activation: str
    recurrent: str | None
    recurrent_size: int
    initialiser: Initialiser = orthogonal

    @property
    def cnns(self) -> tuple[CNN, ...]:
        """One network for each image."""
        return tuple(CNN(*shape) for shape in self.images)

    @property
    def joined(self) -> int:
        """The length of the vector and the images' outputs together."""
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
        parameters: Parameters = {f"image_{i}": cnn.init(keys[i + 2]) for i, cnn in enumerate(self.cnns)}
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

    def _join(self, parameters: Parameters, features: Parameters) -> Array:
        parts = [features["vector"]] if self.vector else []
        parts += [cnn.apply(parameters[f"image_{i}"], features[f"image_{i}"]) for i, cnn in enumerate(self.cnns)]
        return parts[0] if len(parts) == 1 else jnp.concatenate(parts, axis=-1)


def clear_where(episode_start: Array, carry: Any) -> Any:
    """Return the carry with the memory of every entry cleared whose episode starts."""
    return jax.tree.map(lambda x: jnp.where(episode_start[..., None], 0.0, x), carry)
