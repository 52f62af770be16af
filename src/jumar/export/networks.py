"""Networks as operators: each function adds what a part of :mod:`jumar.networks.layers` computes, with its parameters.

Values are ``[batch, width]``, images ``[batch, height, width, channels]`` unless said otherwise. Parameters are NumPy arrays.
"""

from __future__ import annotations

import math

import jax
import numpy as np

from jumar.export.graph import FLOAT, Graph
from jumar.networks.layers import CNN, GRU, LSTM, MLP, Linear, Parameters


def linear(graph: Graph, name: str, layer: Linear, parameters: Parameters, x: str) -> str:
    """Add an affine map, or a linear one; ``name`` is what its constants are called."""
    parts = ("kernel", "bias") if layer.bias else ("kernel",)
    return graph.add("Gemm", x, *[graph.constant(f"{name}.{part}", parameters[part]) for part in parts])


def activate(graph: Graph, activation: str, x: str) -> str:
    """Add one of :data:`jumar.networks.layers.ACTIVATIONS`."""
    if activation in ("tanh", "relu", "elu"):
        return graph.add(activation.capitalize(), x)
    if activation == "silu":
        return graph.add("Mul", x, graph.add("Sigmoid", x))
    assert activation == "gelu", activation
    return _gelu(graph, x)


def _gelu(graph: Graph, x: str) -> str:
    r"""Add :math:`\frac x2 (1 + \tanh(\sqrt{2 / \pi} (x + 0.044715 x^3)))`, the form that ``jax.nn.gelu`` has."""
    cube = graph.add("Mul", x, graph.add("Mul", x, x))
    inner = graph.add("Add", x, graph.add("Mul", cube, graph.scalar(0.044715)))
    slope = graph.add("Tanh", graph.add("Mul", inner, graph.scalar(math.sqrt(2.0 / math.pi))))
    return graph.add("Mul", x, graph.add("Mul", graph.add("Add", slope, graph.scalar(1.0)), graph.scalar(0.5)))


def mlp(graph: Graph, layers: MLP, parameters: Parameters, x: str) -> str:
    """Add hidden layers, each with its activation."""
    for i, layer in enumerate(layers.layers):
        name = f"layer_{i}"
        x = activate(graph, layers.activation, linear(graph, name, layer, parameters[name], x))
    return x


def cnn(graph: Graph, name: str, network: CNN, parameters: Parameters, images: str, channels_first: bool) -> str:
    """Add a convolutional network.

    ONNX's convolutions have the channels first, ``[batch, channels, height, width]``. Images that do so themselves
    (``channels_first``) are taken as they are.
    """
    x = graph.cast(images, FLOAT)
    if network.image.is_bytes:
        x = graph.add("Div", x, graph.scalar(255.0))
    if not channels_first:
        x = graph.add("Transpose", x, perm=[0, 3, 1, 2])
    sides = (network.image.height, network.image.width)
    for i, (size, stride, _) in enumerate(network.architecture.convolutions):
        layer = parameters[f"convolution_{i}"]
        kernel = graph.constant(f"{name}.convolution_{i}.kernel", np.transpose(layer["kernel"], (3, 2, 0, 1)))
        bias = graph.constant(f"{name}.convolution_{i}.bias", layer["bias"])
        margins = jax.lax.padtype_to_pads(sides, (size, size), (stride, stride), network.architecture.padding)
        pads = [*(int(before) for before, _ in margins), *(int(after) for _, after in margins)]
        x = graph.add("Relu", graph.add("Conv", x, kernel, bias, strides=[stride, stride], pads=pads))
        sides = tuple((side + sum(margin) - size) // stride + 1 for side, margin in zip(sides, margins, strict=True))
    # The rows of the dense layer's kernel are in the order height, width, filters.
    flat = graph.reshape(graph.add("Transpose", x, perm=[0, 2, 3, 1]), (network.flat_size,))
    dense = Linear(network.flat_size, network.outputs)
    return graph.add("Relu", linear(graph, f"{name}.dense", dense, parameters["dense"], flat))


def gru(graph: Graph, core: GRU, parameters: Parameters, x: str, memory: str) -> str:
    """Add a step of a gated recurrent unit, and return the new memory, which is also its output."""
    x_r, x_z, x_n = graph.divide(_gates(graph, core, 3, "input", parameters, x), 3, core.outputs)
    h_r, h_z, h_n = graph.divide(_gates(graph, core, 3, "hidden", parameters, memory), 3, core.outputs)
    update = graph.add("Sigmoid", graph.add("Add", x_z, h_z))
    reset = graph.add("Sigmoid", graph.add("Add", x_r, h_r))
    proposal = graph.add("Tanh", graph.add("Add", x_n, graph.add("Mul", reset, h_n)))
    fresh = graph.add("Mul", graph.add("Sub", graph.scalar(1.0), update), proposal)
    return graph.add("Add", fresh, graph.add("Mul", update, memory))


def lstm(graph: Graph, core: LSTM, parameters: Parameters, x: str, cell: str, hidden: str) -> tuple[str, str]:
    """Add a step of a long short-term memory, and return the new cell and the new hidden vector, which is its output."""
    gates = graph.add(
        "Add", _gates(graph, core, 4, "input", parameters, x), _gates(graph, core, 4, "hidden", parameters, hidden)
    )
    enter, forget, candidate, leave = graph.divide(gates, 4, core.outputs)
    kept = graph.add("Sigmoid", graph.add("Add", forget, graph.scalar(1.0)))
    new = graph.add("Mul", graph.add("Sigmoid", enter), graph.add("Tanh", candidate))
    cell = graph.add("Add", graph.add("Mul", kept, cell), new)
    return cell, graph.add("Mul", graph.add("Sigmoid", leave), graph.add("Tanh", cell))


def _gates(graph: Graph, core: GRU | LSTM, number: int, of: str, parameters: Parameters, x: str) -> str:
    layer = Linear(core.inputs if of == "input" else core.outputs, number * core.outputs)
    return linear(graph, f"core.{of}", layer, parameters[of], x)
