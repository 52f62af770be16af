"""The best step of a given size: against dense grids of two parameters, and its limits, the gradient and the natural step."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import processes
import pytest
from jax import Array
from processes import ACTIONS, STATES

from jumar.errors import UsageError
from jumar.lab import gradients, improvement, steepest, tabular
from jumar.lab.arguments import ArrayLike
from jumar.lab.families import linear_softmax
from jumar.lab.steepest import Ascent
from jumar.policies.distributions import Categorical

pytestmark = pytest.mark.usefixtures("double_precision")

MDP = processes.process(None)
FAMILY = linear_softmax(np.random.default_rng(0).standard_normal((STATES, ACTIONS, 2)))
FLAT = np.array([0.3, -0.5])
KEY = jax.random.PRNGKey(0)


@jax.jit
@jax.vmap
def measured(step: Array) -> tuple[Array, Array]:
    old, new = FAMILY(jnp.asarray(FLAT)), FAMILY(jnp.asarray(FLAT) + step)
    return tabular.performance(MDP, new) - tabular.performance(MDP, old), improvement.mean_kl(MDP, old, new)


def cosine(one: ArrayLike, other: ArrayLike) -> float:
    return float(np.dot(one, other) / np.linalg.norm(one) / np.linalg.norm(other))


def grid(size: float) -> np.ndarray:
    line = np.linspace(-size, size, 301)
    return np.stack(np.meshgrid(line, line), -1).reshape(-1, 2)


@pytest.mark.parametrize("radius", [0.3, 3.0])
def test_no_step_of_the_ball_gains_more(radius: float) -> None:
    found = steepest.best_in_ball(MDP, FAMILY, FLAT, radius, KEY)
    steps = grid(radius)
    gains = np.asarray(measured(jnp.asarray(steps))[0])
    best = gains[np.linalg.norm(steps, axis=1) <= radius].max()
    assert best <= found.gain <= best + 0.01 * abs(best)
    check(found)
    assert found.distance == pytest.approx(np.linalg.norm(found.step))
    assert found.distance <= radius * (1.0 + 1e-9)


@pytest.mark.parametrize("delta", [0.01, 0.5])
def test_no_step_of_the_divergence_gains_more(delta: float) -> None:
    found = steepest.best_in_divergence(MDP, FAMILY, FLAT, delta, KEY)
    steps = grid(6.0 if delta > 0.1 else 0.6)
    gains, divergences = (np.asarray(x) for x in measured(jnp.asarray(steps)))
    inside = divergences <= delta
    assert 1_000 < inside.sum() < 0.9 * len(steps)  # the grid holds the region
    best = gains[inside].max()
    assert best <= found.gain <= best + 0.01 * abs(best)
    check(found)
    assert found.distance <= delta * (1.0 + 1e-9)


def check(found: Ascent) -> None:
    gain, _ = measured(jnp.asarray(found.step)[None])
    np.testing.assert_allclose(gain[0], found.gain, rtol=1e-9)


def test_short_steps_are_those_of_the_gradient_and_of_the_natural_gradient() -> None:
    """The angle to the linearised step falls with its size, so that one less its cosine falls with the square."""
    flat = jnp.asarray(FLAT)
    policy = FAMILY(flat)
    gradient = gradients.policy_gradient(MDP, FAMILY, flat)
    fisher = gradients.step_fisher(FAMILY, flat, tabular.state_distribution(MDP, policy))
    angles, natural_angles = [], []
    for size in (1e-1, 1e-2):
        step = steepest.best_in_ball(MDP, FAMILY, FLAT, size, KEY, starts=1).step
        angles.append(1.0 - cosine(step, gradient))
        natural = gradients.natural_step(fisher, gradient, 0.5 * size**2)
        step = steepest.best_in_divergence(MDP, FAMILY, FLAT, 0.5 * size**2, KEY, starts=1).step
        natural_angles.append(1.0 - cosine(step, natural))
        assert np.linalg.norm(step - natural) < 2.0 * size * np.linalg.norm(natural)
    for found in (angles, natural_angles):
        assert found[1] < 1e-3
        assert np.log10(found[0] / found[1]) == pytest.approx(2.0, abs=0.3)
    assert 1.0 - cosine(gradient, natural) > 1e-3  # they are not the same


def test_an_optimum_inside_is_found() -> None:
    """Action 1 leads to state 1, and action 0 from there to state 0, which pays: a policy that sees no state must mix them."""
    moves = [[1.0, 0.0], [0.0, 1.0]]
    mdp = tabular.TabularMDP.of([moves, moves], [[0.0, 0.0], [1.0, 0.0]], [0.5, 0.5], 0.9)

    def family(flat: Array) -> Categorical:
        return Categorical(jnp.broadcast_to(jnp.stack([jnp.zeros(()), flat[0]]), (2, 2)))

    # P(s_t = 1) is 1/2 at first and p from then on: J = (1 - p) (1/2 + 9 p), largest at p = 17/36.
    start = 1.5
    for radius in (2.0, 6.0):
        found = steepest.best_in_ball(mdp, family, np.array([start]), radius, KEY)
        np.testing.assert_allclose(start + found.step[0], np.log(17.0 / 19.0), rtol=1e-5)
        p = 1.0 / (1.0 + np.exp(-start))
        np.testing.assert_allclose(found.gain, (19 / 36) * (1 / 2 + 17 / 4) - (1 - p) * (1 / 2 + 9 * p), rtol=1e-9)
    # One that does not reach so far ends at the boundary.
    assert steepest.best_in_ball(mdp, family, np.array([start]), 1.0, KEY).step[0] == pytest.approx(-1.0)


def test_mistakes_are_named() -> None:
    with pytest.raises(UsageError, match="radius=0 must be above 0"):
        steepest.best_in_ball(MDP, FAMILY, FLAT, 0, KEY)
    with pytest.raises(UsageError, match=r"delta=-1\.0 must be above 0"):
        steepest.best_in_divergence(MDP, FAMILY, FLAT, -1.0, KEY)
    with pytest.raises(UsageError, match="starts=0 must be at least 1"):
        steepest.best_in_ball(MDP, FAMILY, FLAT, 1.0, KEY, starts=0)

    def constant(flat: Array) -> Categorical:
        return Categorical(jnp.zeros((STATES, ACTIONS)) + 0.0 * flat[0])

    with pytest.raises(UsageError, match="the Fisher matrix is 0"):
        steepest.best_in_divergence(MDP, constant, FLAT, 0.1, KEY)
