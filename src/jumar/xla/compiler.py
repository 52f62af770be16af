"""Preparing XLA, the compiler behind JAX: what it prints, how it compiles for processors, what it keeps.

All of this is the process's own: it holds for everything that JAX compiles in it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

from jumar.xla.cache import enable_compile_cache

TUNING = {
    "xla_cpu_use_multi_output_fusion": "true",
    "xla_cpu_small_while_loop_byte_threshold": "1000000",
}
"""Options of XLA's processor backend; other backends, and versions that do not know them, pass over them.

By default XLA hands the many small steps of a minibatch back and forth between threads, which costs more than they do.
With these options it fuses across several outputs, compiles small loops as a whole, and stays on one thread for them.
"""


def prepare_compiler(warn: Callable[[str], None], n_seeds: int | None = None) -> Path | None:
    """Do all that is below, before JAX compiles anything; see :func:`~jumar.xla.cache.enable_compile_cache`."""
    quiet_compiler()
    tune_compiler()
    compute_where_called()
    multiply_in_single_precision()
    if n_seeds is not None:
        divide_processors(n_seeds)
    return enable_compile_cache(warn)


def compute_where_called() -> None:
    """Let processors compute a program in the thread that calls it, rather than hand it to another and wait.

    Every call of Jumar's waits for its result, and a sleeping thread takes longer to wake than a small policy takes to
    act. It has no effect once JAX has begun to compute.
    """
    import jax

    with contextlib.suppress(AttributeError):  # the option is not in every version
        jax.config.update("jax_cpu_enable_async_dispatch", False)


def multiply_in_single_precision() -> None:
    """Let GPUs multiply matrices in the precision that they are in, unless the user chose another.

    By default they round the factors to ten bits of mantissa or so (TF32): errors of 1e-3 in targets of critics and in
    Fisher-vector products, for a speed that policies of usual size cannot turn to account. Processors never round.
    """
    import jax

    if getattr(jax.config, "jax_default_matmul_precision", None) is None:
        jax.config.update("jax_default_matmul_precision", "float32")


def processors() -> list[int]:
    """Return the processors that this process may run on, by their numbers."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))


def count_processors() -> int:
    """Return how many processors this process may run on."""
    return len(processors())


def divide_processors(parts: int) -> None:
    """Let JAX see the processors as up to so many devices, so that a program can be spread over them.

    It has no effect once JAX has begun to compute, or where the user says how many there are.
    """
    import jax

    flags = os.environ.get("XLA_FLAGS", "")
    if getattr(jax.config, "jax_num_cpu_devices", -1) > 0 or "host_platform_device_count" in flags:
        return
    devices = max(n for n in range(1, count_processors() + 1) if parts % n == 0)
    with contextlib.suppress(RuntimeError):  # JAX has begun
        jax.config.update("jax_num_cpu_devices", devices)


def tune_compiler() -> None:
    """Add :data:`TUNING` to the environment variable ``XLA_FLAGS``, unless it has such options already.

    XLA reads the variable when it first compiles something, and never again.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if "xla_backend_extra_options" not in flags:
        options = ",".join(f"{name}={value}" for name, value in TUNING.items())
        os.environ["XLA_FLAGS"] = f"{flags} --xla_backend_extra_options={options}".strip()


def quiet_compiler() -> None:
    """Keep XLA from printing on standard error; it has an effect only before JAX is first imported.

    On some processors XLA reports an error for every program that it loads from the cache, because it takes its own
    tuning flags (``+prefer-no-gather``) for features that the machine lacks; the program runs all the same
    (jax issue 38445). What is a real error to the caller is raised, too. ``TF_CPP_MIN_LOG_LEVEL``, if set, stays.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
