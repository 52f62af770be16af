"""Schedules of settings."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jumar
from jumar.errors import UsageError
from jumar.schedules import FORMS, Constant, Exponential, InverseSqrt, Linear, Schedule, schedule


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (3e-4, Constant(3e-4)),
        (1, Constant(1.0)),
        ("3e-4", Constant(3e-4)),
        ("linear:3e-4", Linear(3e-4)),
        ("exponential:3e-4:3e-6", Exponential(3e-4, 3e-6)),
        ("inverse_sqrt:0.1:0.01", InverseSqrt(0.1, 0.01)),
        (Exponential(0.2, 0.1), Exponential(0.2, 0.1)),
        (InverseSqrt(0.2, 0.1), InverseSqrt(0.2, 0.1)),
        (Linear(0.2), Linear(0.2)),
        (Constant(0.2), Constant(0.2)),
    ],
)
def test_numbers_texts_and_schedules_are_taken(given: float | str | Schedule, expected: Schedule) -> None:
    result = schedule(given)
    assert result == expected
    assert type(result) is type(expected)
    assert schedule(str(result)) == result, "its text makes it again"


def test_a_function_is_refused_with_what_to_write_instead() -> None:
    with pytest.raises(
        UsageError, match=r"learning_rate=.*is a function.*write \"linear:1e-3\" or jumar\.schedules\.Linear"
    ):
        jumar.PPO("jax/CartPole-v1", learning_rate=lambda remaining: 1e-3 * remaining)


@pytest.mark.parametrize(
    "given",
    [
        "",
        "linear:",
        "linear",
        "linear:fast",
        "linear:1:2",
        "cosine:3e-4",
        "linear:linear:1",
        "3e-4:linear",
        "exponential:1",
        "exponential:1:",
        "exponential:1:slow",
        "exponential:1:0.1:0.01",
        "inverse_sqrt:1",
        "inverse_sqrt",
    ],
)
def test_other_texts_are_refused(given: str) -> None:
    with pytest.raises(ValueError, match="could not convert"):
        schedule(given)


def test_numbers_inside_a_schedule_become_plain_ones() -> None:
    assert type(schedule(Constant(np.float32(0.5))).value) is float  # type: ignore[arg-type]
    assert schedule(Linear("0.5")) == Linear(0.5)  # type: ignore[arg-type]
    made = schedule(Exponential(np.float32(0.5), np.float64(0.25)))  # type: ignore[arg-type]
    assert str(made) == "exponential:0.5:0.25"


@pytest.mark.parametrize("kind", [Exponential, InverseSqrt])
@pytest.mark.parametrize("given", [(0.0, 0.1), (0.1, 0.0), (0.1, -0.1), (float("nan"), 0.1)])
def test_a_decay_by_factors_has_no_zero_in_it(kind: Any, given: tuple[float, float]) -> None:
    with pytest.raises(UsageError, match="is out of range: its numbers must be above 0"):
        kind(*given)


def test_the_forms_of_all_texts_are_known() -> None:
    assert FORMS == "linear:X, exponential:X:Y, inverse_sqrt:X:Y"


def test_constant_stays_and_linear_falls_to_zero() -> None:
    for remaining, expected in ((1.0, 0.2), (0.25, 0.05), (0.0, 0.0)):
        assert Constant(0.2)(remaining) == 0.2
        assert Linear(0.2)(remaining) == pytest.approx(expected)


def test_an_exponential_multiplies_by_the_same_factor_every_iteration() -> None:
    """From 0.8 to 0.1 in three iterations: half each time."""
    values = [Exponential(0.8, 0.1)(1.0 - t / 3) for t in range(4)]
    assert values == pytest.approx([0.8, 0.4, 0.2, 0.1])


@pytest.mark.parametrize("iterations", [1, 8, 1000])
def test_an_inverse_square_root_is_that_of_time(iterations: int) -> None:
    """With the end of N iterations at 1 / sqrt(N + 1) of the start, iteration t has 1 / sqrt(t), from t = 1 on."""
    falling = InverseSqrt(0.3, 0.3 / np.sqrt(iterations + 1))
    for t in range(1, iterations + 1):
        assert falling(1.0 - (t - 1) / iterations) == pytest.approx(0.3 / np.sqrt(t))


def test_a_schedule_that_ends_where_it_starts_is_constant() -> None:
    for kind in (Exponential, InverseSqrt):
        assert [kind(0.2, 0.2)(p) for p in (1.0, 0.3, 0.0)] == pytest.approx([0.2] * 3)


def test_schedules_of_an_array_are_float32_arrays() -> None:
    with jax.enable_x64(True):
        remaining = jnp.float32(0.5)
        cases = ((Constant(0.25), 0.25), (Linear(0.25), 0.125), (Exponential(1.0, 0.25), 0.5))
        for part, value in (*cases, (InverseSqrt(1.0, 0.5), 2.5**-0.5)):
            assert float(part(remaining)) == pytest.approx(value)
            assert part(remaining).dtype == jnp.float32
