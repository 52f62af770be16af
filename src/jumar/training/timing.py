"""How long XLA took to compile, so that it can be told apart from the time that training takes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import jax

_COMPILING = (
    "/jax/core/compile/jaxpr_trace_duration",
    "/jax/core/compile/jaxpr_to_mlir_module_duration",
    "/jax/core/compile/backend_compile_duration",
)


class CompileClock:
    """Adds up the seconds that this process spends tracing, lowering and compiling (or loading from the cache)."""

    def __init__(self) -> None:
        self.seconds = 0.0
        jax.monitoring.register_event_duration_secs_listener(self._hear)

    def _hear(self, event: str, duration_secs: float, **_: str | int) -> None:
        if event in _COMPILING:
            self.seconds += duration_secs


_clock: CompileClock | None = None


def compile_clock() -> CompileClock:
    """Return the one clock of this process."""
    global _clock
    _clock = _clock or CompileClock()
    return _clock


class Stopwatch:
    """Measures a block of work, and how much of it went into compiling."""

    def __init__(self) -> None:
        self.working = 0.0
        self.compiling = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Add the time of the block."""
        clock = compile_clock()
        start, compiled = time.perf_counter(), clock.seconds
        try:
            yield
        finally:
            elapsed = time.perf_counter() - start
            # Nested traces are reported twice, so compilation can seem to take longer than everything.
            compiling = min(clock.seconds - compiled, elapsed)
            self.compiling += compiling
            self.working += elapsed - compiling
