"""A graph of operators as plain data, and the ONNX model that is made of it.

The names and the meaning of operators and attributes are ONNX's: https://onnx.ai/onnx/operators/. The package ``onnx`` is
needed by :func:`to_model` alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

OPSET = 17
"""The version of ONNX's operators: of 2022, so that programs of all kinds have it."""
IR_VERSION = 8
"""The version of ONNX's file format that came with :data:`OPSET`."""
BATCH = "batch"
"""The name of the first dimension of all inputs and outputs, whose length is free: the number of observations."""
FLOAT = np.dtype(np.float32)


class Value(NamedTuple):
    """An input or an output of a graph."""

    name: str
    dtype: np.dtype
    shape: tuple[int, ...]
    """Of one row, without the batch dimension in front."""
    meaning: str
    """What it is, in words."""

    def words(self) -> str:
        """Say its type and shape: ``float32 [batch, 4]``."""
        return f"{self.dtype} [{', '.join([BATCH, *map(str, self.shape)])}]"


class Node(NamedTuple):
    """One operator at work."""

    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]


@dataclass
class Graph:
    """A graph that is being put together, from its inputs on. Values are known by their names.

    Args:
        reserved: names that outputs will have.
    """

    reserved: Sequence[str] = ()
    inputs: list[Value] = field(default_factory=list)
    outputs: list[Value] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)
    constants: dict[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._taken = set(self.reserved)
        self._scalars: dict[float, str] = {}

    def input(self, value: Value) -> str:
        """Add an input, and return its name. Inputs come first: their names are the only ones that are not chosen here.

        Raises:
            ValueError: the name is taken.
        """
        if value.name in self._taken:
            raise ValueError(f"the graph has a value {value.name!r} already")
        self._taken.add(value.name)
        self.inputs.append(value)
        return value.name

    def output(self, value: Value, source: str) -> None:
        """Add an output under one of the reserved names, which is the value ``source``."""
        self.outputs.append(value)
        self.nodes.append(Node("Identity", (source,), (value.name,), {}))

    def constant(self, name: str, array: Any, dtype: Any = FLOAT) -> str:
        """Add an array under a name like the one given, and return the name."""
        name = self._fresh(name)
        self.constants[name] = np.asarray(array, dtype, order="C")
        return name

    def scalar(self, value: float) -> str:
        """Return the name of a float32 constant, which is added once."""
        if value not in self._scalars:
            self._scalars[value] = self.constant(f"constant_{value:g}", value)
        return self._scalars[value]

    def integers(self, *values: int) -> str:
        """Add a vector of int64, such as shapes and axes are."""
        return self.constant("integers", values, np.int64)

    def add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Add an operator with one output, and return the output's name. A NumPy dtype is an attribute, too."""
        return self._node(operator, inputs, 1, attributes)[0]

    def cast(self, x: str, dtype: Any) -> str:
        """Add a change of type."""
        return self.add("Cast", x, to=np.dtype(dtype))

    def reshape(self, x: str, shape: tuple[int, ...]) -> str:
        """Add a change of the shape of each row."""
        return self.add("Reshape", x, self.integers(0, *shape))  # 0 stands for the length that is there

    def divide(self, x: str, parts: int, width: int) -> tuple[str, ...]:
        """Add a division of ``[batch, parts * width]`` into so many parts."""
        return self._node("Split", (x, self.integers(*[width] * parts)), parts, {"axis": 1})

    def _node(self, operator: str, inputs: tuple[str, ...], outputs: int, attributes: Any) -> tuple[str, ...]:
        names = tuple(self._fresh(operator.lower()) for _ in range(outputs))
        self.nodes.append(Node(operator, inputs, names, attributes))
        return names

    def _fresh(self, like: str) -> str:
        """Return a name that no value has yet."""
        name, number = like, 1
        while name in self._taken:
            number += 1
            name = f"{like}_{number}"
        self._taken.add(name)
        return name


def to_model(graph: Graph, description: str, metadata: Mapping[str, str], version: str) -> Any:
    """Return an ``onnx.ModelProto`` of the graph.

    Args:
        graph: the graph.
        description: what the model is, in words.
        metadata: what is kept in the model beside the graph, by name.
        version: Jumar's.
    """
    from onnx import helper, numpy_helper

    nodes = [
        helper.make_node(node.operator, node.inputs, node.outputs, **_attributes(node.attributes))
        for node in graph.nodes
    ]
    constants = [numpy_helper.from_array(array, name) for name, array in graph.constants.items()]
    model = helper.make_model(
        helper.make_graph(nodes, "policy", _tensors(graph.inputs), _tensors(graph.outputs), constants),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="jumar",
        producer_version=version,
        doc_string=description,
    )
    helper.set_model_props(model, dict(metadata))
    return model


def _attributes(attributes: Mapping[str, Any]) -> dict[str, Any]:
    from onnx import helper

    return {
        name: helper.np_dtype_to_tensor_dtype(x) if isinstance(x, np.dtype) else x for name, x in attributes.items()
    }


def _tensors(values: Sequence[Value]) -> list[Any]:
    from onnx import helper

    return [
        helper.make_tensor_value_info(
            value.name, helper.np_dtype_to_tensor_dtype(value.dtype), [BATCH, *value.shape], value.meaning
        )
        for value in values
    ]
