"""The trust region around an average policy: gradients bent row by row, as the projection by hand has it."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jumar.policies.distributions import Categorical, DiagGaussian
from jumar.schedules import Constant
from jumar.solvers import Ascent, AverageTrustRegion, Joint, Optimiser
from jumar.solvers.problem import Problem
from jumar.trajectory import Batch, weighted_mean

N = 6
WEIGHTS = np.array([1.0, 2.0, 0.0, 1.0, 0.5, 1.0], np.float32)


def problem(kind: str, slopes: Any) -> tuple[Problem, Any]:
    """Return the problem of climbing ``slopes`` in the distributions' own parameters, and some parameters to begin with."""
    rng = np.random.default_rng(1)
    zeros = jnp.zeros(N)
    batch = Batch({}, zeros, zeros, zeros, zeros, zeros, jnp.asarray(WEIGHTS), None, zeros.astype(bool), (), ())
    make: Any = Categorical if kind == "categorical" else DiagGaussian
    arrays = [jnp.asarray(rng.normal(size=(N, 3)), jnp.float32) for _ in make._fields]
    policy = dict(zip(make._fields, arrays, strict=True))

    def gain(distribution: Any, batch: Batch) -> Any:
        rows = jnp.sum(jnp.stack([jnp.sum(slope * x, -1) for slope, x in zip(slopes, distribution, strict=True)]), 0)
        value = weighted_mean(rows, batch.weights)
        return value, {"objective": value}

    def no_loss(critic: Any, batch: Batch) -> Any:
        return jnp.zeros(()), {}

    made = Problem(gain, no_loss, lambda parameters, batch: make(**parameters), lambda parameters: batch)
    return made, {"policy": policy, "critic": {}}


@pytest.mark.parametrize("kind", ["categorical", "gaussian"])
def test_gradients_are_projected_row_by_row(kind: str) -> None:
    rng = np.random.default_rng(3)
    count = 1 if kind == "categorical" else 2
    slopes = jnp.asarray(3.0 * rng.normal(size=(count, N, 3)), jnp.float32)
    climb, parameters = problem(kind, slopes)
    delta = 0.3
    part = AverageTrustRegion(Joint(Ascent(Optimiser(Constant(1.0), optax.identity())), 0.5), delta, 0.75)
    state = part.init(parameters)
    average = jax.tree.map(lambda x: x + rng.normal(size=x.shape).astype(np.float32), parameters["policy"])
    new, after, record = part.solve(
        climb, parameters, {**state, "average": average}, jnp.ones(()), jax.random.PRNGKey(0)
    )

    make: Any = Categorical if kind == "categorical" else DiagGaussian
    here, around = make(**parameters["policy"]), make(**average)
    outwards = np.stack(jax.grad(lambda x: jnp.sum(around.kl(x)))(here))
    bent = 0
    for row in range(N):
        g, k = np.asarray(slopes[:, row]).ravel(), outwards[:, row].ravel()
        excess = max(0.0, (k @ g - delta) / (k @ k))
        z = (g - excess * k) * WEIGHTS[row] / WEIGHTS.sum()
        bent += WEIGHTS[row] * (excess > 0.0)
        step = np.concatenate(
            [np.asarray(new["policy"][name] - parameters["policy"][name])[row] for name in make._fields]
        )
        np.testing.assert_allclose(step, z, atol=1e-5)
    assert 0.0 < bent < WEIGHTS.sum()
    assert record["projected"] == pytest.approx(bent / WEIGHTS.sum())
    divergences = np.asarray(around.kl(here))
    assert record["average_kl"] == pytest.approx(np.sum(divergences * WEIGHTS) / WEIGHTS.sum(), rel=1e-5)
    assert record["objective"] == pytest.approx(float(climb.gain(here, climb.estimate(parameters))[0]), rel=1e-5)
    for name in make._fields:
        expected = 0.75 * average[name] + 0.25 * new["policy"][name]
        np.testing.assert_allclose(after["average"][name], expected, rtol=1e-6)


def test_where_the_policy_is_its_own_average_nothing_is_bent() -> None:
    slopes = 100.0 * jnp.ones((1, N, 3)) * jnp.arange(3)
    climb, parameters = problem("categorical", slopes)
    part = AverageTrustRegion(Joint(Ascent(Optimiser(Constant(1.0), optax.identity())), 0.5), 0.1, 0.9)
    new, _, record = part.solve(climb, parameters, part.init(parameters), jnp.ones(()), jax.random.PRNGKey(0))
    assert record["average_kl"] == pytest.approx(0.0, abs=1e-6)
    step = new["policy"]["logits"] - parameters["policy"]["logits"]
    np.testing.assert_allclose(step, slopes[0] * (WEIGHTS / WEIGHTS.sum())[:, None], rtol=1e-3)
