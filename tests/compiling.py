"""Counting what is compiled."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import jax

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
