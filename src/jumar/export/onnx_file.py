"""Writing a policy to an ONNX file that has been compared with the original."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jumar._version import __version__
from jumar.errors import JumarError, UsageError
from jumar.export.check import OBSERVATIONS, TOLERANCE, Acting, largest_error, question
from jumar.export.graph import BATCH, Graph, Value, to_model
from jumar.export.policies import own_torso, policy_graph
from jumar.export.target import check_target
from jumar.runs.files import pack_arrays, sha256, tree_to_arrays, write_atomically
from jumar.spaces import space_to_json

LARGEST = 2**31 - 2**20
"""Bytes of parameters: an ONNX file holds less than 2 GiB."""


class Exported(NamedTuple):
    """What was written."""

    file: Path
    format: str
    max_error: float
    """The largest difference from the original on some observations; see :func:`jumar.export.check.difference`."""
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]


def export_policy(
    actor: Acting,
    path: str | os.PathLike[str],
    format: str = "onnx",
    *,
    action_mask: bool = False,
) -> Exported:
    """Write a policy to an ONNX file, compared with the original before.

    Args:
        actor: the policy.
        path: the file, which must not exist and ends in ``.onnx``.
        format: ``onnx``, the only one.
        action_mask: whether masks of actions are an input where the observation carries none.

    Raises:
        UsageError: the format is unknown, a package is missing, the file cannot be made, or the policy cannot be exported.
        JumarError: the policy has parameters that are not finite, or what the file computes is not what the policy does.
        OSError: the disk refuses; there is no file then.
    """
    file = check_target(path, format)
    import onnx

    own_torso(actor.policy)
    parameters, moments = jax.device_get((actor.parameters, actor.moments))
    arrays = tree_to_arrays({"parameters": parameters, "observation_moments": moments})
    if bad := [name for name, x in arrays.items() if not _finite(x)]:
        raise JumarError(f"{bad[0]} of the policy is not finite; it cannot act, and is not exported.")
    if (size := sum(x.nbytes for x in arrays.values())) > LARGEST:
        raise UsageError(f"the policy has {size:,} bytes of parameters; an ONNX file holds at most {LARGEST:,}.")
    spaces = actor.observation_space, actor.action_space
    graph = policy_graph(actor.policy, parameters, moments, spaces, action_mask)
    digest = sha256(pack_arrays(arrays))
    names = {"algorithm": actor.algorithm, "environment": actor.environment}
    model = to_model(graph, _description(graph), _metadata(graph, spaces, digest, names), __version__)
    onnx.checker.check_model(model, full_check=True)
    data = model.SerializeToString(deterministic=True)
    error = largest_error(data, graph, actor, question(actor, action_mask))
    # NaN is too large as well.
    if not error <= TOLERANCE:
        raise JumarError(
            f"the exported policy is not the original: on {OBSERVATIONS} observations it differs by {error:.1e}, more than "
            f"the {TOLERANCE:.0e} that rounding explains. {file} is not written."
        )
    write_atomically(file, data)
    return Exported(file, format, error, tuple(graph.inputs), tuple(graph.outputs))


def _finite(array: Any) -> bool:
    return bool(np.isfinite(array).all())


def _description(graph: Graph) -> str:
    """Return what the model is, for people who open it."""
    lines = ["A policy trained by Jumar: from an observation of the environment to its deterministic action."]
    lines += [f"input {value.name}: {value.words()}, {value.meaning}" for value in graph.inputs]
    lines += [f"output {value.name}: {value.words()}, {value.meaning}" for value in graph.outputs]
    return "\n".join(lines)


def _metadata(graph: Graph, spaces: tuple[Any, Any], digest: str, names: Mapping[str, str | None]) -> dict[str, str]:
    """Return what is kept beside the graph. There is no date among it: the same policy is the same file."""
    return {
        **{name: text.encode("utf-8", "backslashreplace").decode() for name, text in names.items() if text},
        "observation_space": json.dumps(space_to_json(spaces[0])),
        "action_space": json.dumps(space_to_json(spaces[1])),
        "inputs": _shapes(graph.inputs),
        "outputs": _shapes(graph.outputs),
        "policy_sha256": digest,
        "jumar_version": __version__,
    }


def _shapes(values: list[Value]) -> str:
    return json.dumps({value.name: {"dtype": str(value.dtype), "shape": [BATCH, *value.shape]} for value in values})
