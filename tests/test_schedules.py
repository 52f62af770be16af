"""Schedules of settings."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jumar.schedules import Constant, Linear, Schedule, schedule


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (3e-4, Constant(3e-4)),
        (1, Constant(1.0)),
        ("3e-4", Constant(3e-4)),
        ("linear:3e-4", Linear(3e-4)),
        (Linear(0.2), Linear(0.2)),
        (Constant(0.2), Constant(0.2)),
    ],
)
def test_numbers_texts_and_schedules_are_taken(given: float | str | Schedule, expected: Schedule) -> None:
    result = schedule(given)
    assert result == expected
    assert type(result) is type(expected)
    assert schedule(str(result)) == result, "its text makes it again"


@pytest.mark.parametrize(
    "given", ["", "linear:", "linear", "linear:fast", "cosine:3e-4", "linear:linear:1", "3e-4:linear"]
)
def test_other_texts_are_refused(given: str) -> None:
    with pytest.raises(ValueError, match="could not convert"):
        schedule(given)


def test_numbers_inside_a_schedule_become_plain_ones() -> None:
    assert type(schedule(Constant(np.float32(0.5))).value) is float  # type: ignore[arg-type]
    assert schedule(Linear("0.5")) == Linear(0.5)  # type: ignore[arg-type]


def test_constant_stays_and_linear_falls_to_zero() -> None:
    for remaining, expected in ((1.0, 0.2), (0.25, 0.05), (0.0, 0.0)):
        assert Constant(0.2)(remaining) == 0.2
        assert Linear(0.2)(remaining) == pytest.approx(expected)


def test_schedules_of_an_array_are_float32_arrays() -> None:
    with jax.enable_x64(True):
        remaining = jnp.float32(0.5)
        for part, value in ((Constant(0.25), 0.25), (Linear(0.25), 0.125)):
            assert float(part(remaining)) == value
            assert part(remaining).dtype == jnp.float32
