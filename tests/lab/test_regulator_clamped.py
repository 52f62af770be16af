"""The clamped objectives of the regulator: against sums over a fine grid, finite differences, and their limits."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array

from jumar.lab import regulator_clamped, regulator_improvement
from jumar.lab.regulator import Regulator

pytestmark = pytest.mark.usefixtures("double_precision")

PROBLEM = Regulator(gamma=0.9, depth=2)
PAIRS = {
    "more noise": ((-0.7, 0.2), (-0.5, 0.25)),
    "less noise": ((-0.7, 0.2), (-0.9, 0.1)),
    "another gain alone": ((-0.7, 0.2), (-0.5, 0.2)),
    "another noise alone": ((-0.7, 0.2), (-0.7, 0.15)),
    "from the best gain": ((-1.0, 0.2), (-0.6, 0.25)),
    "from afar": ((0.1, 0.4), (-0.3, 0.6)),
}


class Both(NamedTuple):
    advantages: Array
    returns: Array


def both(old: Array, new: Array) -> Both:
    return Both(
        regulator_clamped.clamped_surrogate(PROBLEM, old, new, 0.2),
        regulator_clamped.clamped_surrogate_objective(PROBLEM, old, new, 0.2),
    )


objectives = jax.jit(both)


@jax.jit
def slopes(old: Array, new: Array) -> Both:
    return jax.jacrev(lambda new: both(old, new))(new)


@jax.jit
def unclamped(old: Array, new: Array) -> Both:
    return Both(
        regulator_improvement.surrogate(PROBLEM, old, new),
        regulator_improvement.surrogate_objective(PROBLEM, old, new),
    )


def pair(name: str) -> tuple[Array, Array]:
    old, new = PAIRS[name]
    return jnp.array(old), jnp.array(new)


def by_grid(old: np.ndarray, new: np.ndarray, epsilon: float) -> tuple[float, float]:
    """Two steps: V_1 = -s^2 and Q_0 = -s^2 - 0.9 ((s + a)^2 + 0.01), the last action being worth nothing."""
    s, z = 0.3 + 0.1 * np.linspace(-8.0, 8.0, 2001)[:, None], np.linspace(-9.0, 9.0, 4001)[None]
    sigma, new_sigma = old[1] + 1e-5, new[1] + 1e-5
    ahead = (1.0 + old[0]) * s
    w = sigma / new_sigma * np.exp(0.5 * z**2 - 0.5 * (((old[0] - new[0]) * s + sigma * z) / new_sigma) ** 2)
    density = np.exp(-0.5 * ((s - 0.3) / 0.1) ** 2 - 0.5 * z**2) / (2.0 * np.pi * 0.1)
    element = (s[1, 0] - s[0, 0]) * (z[0, 1] - z[0, 0])
    judged = -0.9 * ((ahead + sigma * z) ** 2 - ahead**2 - sigma**2), -(s**2) - 0.9 * ((ahead + sigma * z) ** 2 + 0.01)

    def lost(x: np.ndarray) -> float:
        return float(
            np.sum(density * (w * x - np.minimum(w * x, np.clip(w, 1.0 - epsilon, 1.0 + epsilon) * x))) * element
        )

    return lost(judged[0]), lost(judged[1])


def last_step(old: np.ndarray, new: np.ndarray, epsilon: float) -> float:
    """What the last step adds to the loss of the returns: there Q = -s^2, whatever the action."""
    mean, variance = 0.3 * (1.0 + old[0]), 0.01 * (1.0 + old[0]) ** 2 + (old[1] + 1e-5) ** 2 + 0.01
    s, z = mean + np.sqrt(variance) * np.linspace(-8.0, 8.0, 2001)[:, None], np.linspace(-9.0, 9.0, 4001)[None]
    sigma, new_sigma = old[1] + 1e-5, new[1] + 1e-5
    w = sigma / new_sigma * np.exp(0.5 * z**2 - 0.5 * (((old[0] - new[0]) * s + sigma * z) / new_sigma) ** 2)
    density = np.exp(-0.5 * (s - mean) ** 2 / variance - 0.5 * z**2) / (2.0 * np.pi * np.sqrt(variance))
    element = (s[1, 0] - s[0, 0]) * (z[0, 1] - z[0, 0])
    return 0.9 * float(np.sum(density * np.maximum(1.0 - epsilon - w, 0.0) * s**2) * element)


@pytest.mark.parametrize("name", PAIRS)
def test_clamping_takes_off_what_a_sum_over_a_grid_says(name: str) -> None:
    old, new = pair(name)
    whole, clamped = unclamped(old, new), objectives(old, new)
    advantages, returns = by_grid(np.asarray(old), np.asarray(new), 0.2)
    np.testing.assert_allclose(whole.advantages - clamped.advantages, advantages, rtol=2e-6, atol=1e-9)
    lost = returns + last_step(np.asarray(old), np.asarray(new), 0.2)
    np.testing.assert_allclose(whole.returns - clamped.returns, lost, rtol=2e-6, atol=1e-9)


@pytest.mark.parametrize("name", ["less noise", "another gain alone", "from the best gain", "from afar"])
def test_the_gradients_are_the_finite_differences(name: str) -> None:
    old, new = pair(name)
    found, h = slopes(old, new), 1e-5
    ups, downs = ([objectives(old, new + sign * h * way) for way in np.eye(2)] for sign in (1, -1))
    for one in range(2):
        differences = [(up[one] - down[one]) / (2.0 * h) for up, down in zip(ups, downs, strict=True)]
        np.testing.assert_allclose(found[one], differences, rtol=1e-5, atol=1e-7)


def test_at_the_old_policy_nothing_is_clamped() -> None:
    old, _ = pair("less noise")
    np.testing.assert_allclose(objectives(old, old), unclamped(old, old), rtol=1e-12, atol=1e-14)
    found = slopes(old, old)
    np.testing.assert_allclose(found.advantages, found.returns, rtol=1e-10)


def test_twice_as_many_nodes_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    olds, news = (jnp.array(x) for x in zip(*PAIRS.values(), strict=True))
    before = jax.jit(jax.vmap(both))(olds, news)
    steps = np.arange(-104, 105) / 32.0
    monkeypatch.setattr(regulator_clamped, "_PLACES", np.tanh(0.5 * np.pi * np.sinh(steps)))
    weights = 0.5 * np.pi * np.cosh(steps) / np.square(np.cosh(0.5 * np.pi * np.sinh(steps))) / 32.0
    monkeypatch.setattr(regulator_clamped, "_WEIGHTS", weights)
    np.testing.assert_allclose(
        jax.jit(jax.vmap(lambda old, new: both(old, new)))(olds, news), before, rtol=0.0, atol=1e-10
    )
