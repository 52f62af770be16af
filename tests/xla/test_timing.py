"""What the time of an iteration goes into."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest

from jumar.xla import timing
from jumar.xla.timing import Laps


def test_laps_add_up_to_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [10.0]
    monkeypatch.setattr(timing, "_working_time", lambda: now[0])
    laps = Laps()
    laps.begin()
    for seconds, name in ((3.0, "policy"), (4.0, "update"), (1.0, "policy")):
        now[0] += seconds
        laps.lap(name)
    laps.take("policy", "environment", 2.5)
    assert laps.seconds == {"policy": 1.5, "update": 4.0, "environment": 2.5}
    laps.take("policy", "environment", 9.0)  # clocks differ in the last digits
    assert laps.seconds == {"policy": 0.0, "update": 4.0, "environment": 4.0}
    laps.begin()
    assert laps.seconds == {}


def test_compilation_belongs_to_no_lap(monkeypatch: pytest.MonkeyPatch) -> None:
    passed = [100.0]
    monkeypatch.setattr(timing, "_clock", None)  # the process's own has heard of later times
    monkeypatch.setattr(timing.time, "perf_counter", lambda: passed[0])
    clock = timing.compile_clock()
    laps = Laps()
    laps.begin()
    before = clock.seconds
    passed[0] += 5.0
    clock._hear("/jax/core/compile/backend_compile_duration", 2.0)
    laps.lap("update")
    assert clock.seconds - before == pytest.approx(2.0)
    assert laps.seconds == pytest.approx({"update": 3.0})


def test_jax_says_when_it_compiles() -> None:
    clock = timing.compile_clock()
    before = clock.seconds
    jax.jit(lambda x: jnp.sin(x) * 0.12345)(1.0)
    assert clock.seconds > before
