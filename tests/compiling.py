"""Compiling, and counting what is compiled."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jax


def compiled_as_ever(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile without the older emitters of ``conftest.QUICK``.

    They abort where two argmaxes of one shape are taken in one program, as of drawn and of most likely actions: XLA fuses the
    two, and they cannot.
    """
    older = "xla_cpu_use_fusion_emitters=false" in os.environ.get("XLA_FLAGS", "")
    return jax.jit(function, compiler_options={"xla_cpu_use_fusion_emitters": True} if older else None)


_seen: list[str] = []


def _hear(event: str, duration_secs: float, **_: str | int) -> None:
    if event == "/jax/core/compile/backend_compile_duration":
        _seen.append(event)


jax.monitoring.register_event_duration_secs_listener(_hear)


@contextmanager
def nothing_compiled() -> Iterator[None]:
    """Fail if anything at all is compiled (or loaded from the compile cache) within the block."""
    before = len(_seen)
    yield
    assert len(_seen) == before, f"{len(_seen) - before} programs were compiled"
