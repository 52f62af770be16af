"""How long XLA took to compile, so that it can be told apart from the time that training takes."""

from __future__ import annotations

import threading
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
    """Tells for how many seconds so far this process was tracing, lowering or compiling (or loading from the cache).

    Traces are nested, and threads may compile at once; a second counts once all the same.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self._stretches: list[tuple[float, float]] = []
        self._lock = threading.Lock()
        jax.monitoring.register_event_duration_secs_listener(self._hear)

    def _hear(self, event: str, duration_secs: float, **_: str | int) -> None:
        if event not in _COMPILING:
            return
        with self._lock:
            end = time.perf_counter()
            start = end - duration_secs
            while self._stretches and self._stretches[-1][1] >= start:  # events come in the order of their ends
                before, after = self._stretches.pop()
                self.seconds -= after - before
                start = min(start, before)
            self._stretches.append((start, end))
            self.seconds += end - start


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
            compiling = min(clock.seconds - compiled, elapsed)
            self.compiling += compiling
            self.working += elapsed - compiling


class Laps:
    """Measures what the time of an iteration goes into, compilation left out.

    Attributes:
        seconds: by what they went into, since ``begin``.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._mark = 0.0

    def begin(self) -> None:
        """Forget what was measured, and measure from now on."""
        self.seconds, self._mark = {}, _working_time()

    def lap(self, name: str) -> None:
        """Say what the time since the last lap went into."""
        now = _working_time()
        self.seconds[name] = self.seconds.get(name, 0.0) + max(now - self._mark, 0.0)
        self._mark = now

    def take(self, name: str, part: str, seconds: float) -> None:
        """Say that so much of ``name``, or all of it if it is less, went into a part of it."""
        taken = min(seconds, self.seconds[name])
        self.seconds[name] -= taken
        self.seconds[part] = self.seconds.get(part, 0.0) + taken


def _working_time() -> float:
    return time.perf_counter() - compile_clock().seconds
