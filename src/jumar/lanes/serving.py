"""The part of a runner's process that is Jumar's own code there: it makes the executor from what was sent."""

from __future__ import annotations

import os
from typing import Any

import cloudpickle

from jumar.envs.boundary import explain
from jumar.errors import JumarError
from jumar.lanes.executor import LaneExecutor
from jumar.lanes.records import LaneMaking
from jumar.xla.compiler import prepare_compiler

ONE_THREAD = {"NPROC": "1", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
"""Variables that keep XLA and libraries of linear algebra to one thread."""
OPTIONS = (
    "jax_enable_x64",
    "jax_default_matmul_precision",
    "jax_default_prng_impl",
    "jax_threefry_partitionable",
    "jax_numpy_dtype_promotion",
    "jax_disable_jit",
)
"""JAX's options that change results."""


def variables() -> dict[str, str]:
    """Return the variables that a runner's process needs, to compute as this one does."""
    sent = {"JAX_PLATFORMS": "cpu", "TF_CPP_MIN_LOG_LEVEL": "3", **ONE_THREAD}
    if (flags := os.environ.get("XLA_FLAGS")) is not None:
        sent["XLA_FLAGS"] = flags
    return sent


def options() -> dict[str, Any]:
    """Return JAX's options in this process."""
    import jax

    return {name: getattr(jax.config, name) for name in OPTIONS if hasattr(jax.config, name)}


def open_executor(making: bytes) -> LaneExecutor | str:
    """Return what answers requests, or what is in the way, as the end of a sentence."""
    prepare_compiler(lambda words: None)
    try:
        found: LaneMaking = cloudpickle.loads(making)
    except Exception as error:
        return f"what makes the environment cannot be read: {explain(error)}"
    executor = LaneExecutor(found, passed_on=())
    try:
        executor.try_environment()
    except JumarError as error:
        return str(error).removesuffix(".")
    return executor
