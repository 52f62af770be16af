"""Natural actor-critic: the critic's weights are the natural gradient, exactly, and in the limit of many samples."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import processes
import pytest
from jax import Array
from processes import ACTIONS, GAMMA, HORIZON, HORIZONS, STATES

from jumar.errors import UsageError
from jumar.lab import compatible, gradients, tabular
from jumar.lab.families import Family
from jumar.lab.rollouts import discounts
from jumar.solvers.fisher import scores

pytestmark = pytest.mark.usefixtures("double_precision")


@functools.cache
def program(name: str, horizon: int | None) -> tuple[Array, ...]:
    """Return w, the natural gradient, the policy gradient, that of the critic's advantages, and the sum of visits."""
    mdp = processes.process(horizon)
    family, size = processes.families(mdp)[name]

    @jax.jit
    def quantities(flat: Array) -> tuple[Array, ...]:
        visits, weights = tabular.visitation(mdp, family(flat)), compatible.compatible_weights(mdp, family, flat)
        critic = compatible.compatible_advantages(family, flat, weights)
        projected = jax.grad(lambda x: jnp.sum(visits[..., None] * family(x).probs * critic))(flat)
        natural, gradient = gradients.natural_gradient(mdp, family, flat), gradients.policy_gradient(mdp, family, flat)
        return weights, natural, gradient, projected, jnp.sum(visits)

    return quantities(jnp.asarray(processes.parameters(size), float))


@pytest.mark.parametrize("horizon", HORIZONS.values(), ids=HORIZONS)
@pytest.mark.parametrize("name", ["softmax", "linear", "network"])
def test_the_weights_are_the_natural_gradient(name: str, horizon: int | None) -> None:
    weights, natural, gradient, projected, visits = program(name, horizon)
    np.testing.assert_allclose(weights * visits, natural, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(projected, gradient, rtol=1e-8, atol=1e-11)
    assert np.linalg.norm(natural) > 0.1
    if horizon is None:
        np.testing.assert_allclose(visits, 1.0 / (1.0 - GAMMA), rtol=1e-10)


def test_the_critic_s_advantages_have_the_mean_0_and_are_exact_for_a_tabular_softmax() -> None:
    mdp = processes.process(None)
    family, size = processes.families(mdp)["softmax"]
    flat = jnp.asarray(processes.parameters(size), float)
    weights, *_ = program("softmax", None)
    critic = np.asarray(compatible.compatible_advantages(family, flat, weights))
    np.testing.assert_allclose(np.sum(critic * np.asarray(family(flat).probs), -1), 0.0, atol=1e-12)
    np.testing.assert_allclose(critic, tabular.advantages(mdp, family(flat)), atol=1e-10)
    family, size = processes.families(mdp)["linear"]
    few = compatible.compatible_advantages(
        family, jnp.asarray(processes.parameters(size), float), program("linear", None)[0]
    )
    assert np.abs(few - critic).max() > 0.05  # five features cannot have all advantages


def transitions(family: Family, flat: Array) -> tuple[np.ndarray, ...]:
    """Return all (s, a, s') of the endless process: scores, indicators of s and of s', rewards and exact weights."""
    mdp = processes.process(None)
    states, actions, successors = (x.ravel() for x in np.indices((STATES, ACTIONS, STATES)))
    each = np.asarray(scores(lambda x: family(x).log_probs, flat))[states, actions]
    visits, probs = np.asarray(tabular.visitation(mdp, family(flat))), np.asarray(family(flat).probs)
    weights = visits[states] * probs[states, actions] * np.asarray(mdp.transitions)[states, actions, successors]
    return each, np.eye(STATES)[states], np.eye(STATES)[successors], np.asarray(mdp.rewards)[states, actions], weights


@pytest.mark.parametrize("name", ["softmax", "linear"])
def test_temporal_differences_with_exact_weights_have_the_exact_critic(name: str) -> None:
    mdp = processes.process(None)
    family, size = processes.families(mdp)[name]
    flat = jnp.asarray(processes.parameters(size), float)
    each, features, following, rewards, weights = map(jnp.asarray, transitions(family, flat))
    w, v = compatible.lstd_q(each, features, following, rewards, GAMMA, weights)
    np.testing.assert_allclose(w, program(name, None)[0], rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(v, tabular.state_values(mdp, family(flat)), rtol=1e-8)


def test_sampled_weights_converge_to_the_exact_ones_with_the_root_of_their_number() -> None:
    mdp = processes.process(HORIZON)
    family, size = processes.families(mdp)["linear"]
    flat = jnp.asarray(processes.parameters(size), float)
    table = np.asarray(scores(lambda x: family(x).log_probs, flat))
    exact, values = np.asarray(program("linear", HORIZON)[0]), np.asarray(tabular.state_values(mdp, family(flat)))
    n = 40_000
    drawn = tabular.draw(mdp, family(flat), jax.random.PRNGKey(0), n, HORIZON)
    states, actions = np.asarray(drawn.states), np.asarray(drawn.actions)
    signals = np.asarray(drawn.reward_to_go(GAMMA)) - values[np.arange(HORIZON), states]
    each, steps = table[states, actions], np.asarray(discounts(GAMMA, HORIZON))

    def error(count: int) -> float:
        """The root of the mean squared error over groups of so many trajectories."""
        few = [
            compatible.sampled_compatible_weights(
                *map(jnp.asarray, (each[i : i + count], signals[i : i + count], steps))
            )
            for i in range(0, 16 * count, count)
        ]
        return float(np.sqrt(np.mean(np.sum(np.square(np.asarray(few) - exact), -1))))

    many, fewer = error(2_500), error(625)
    assert many < 0.1 * np.linalg.norm(exact)
    assert np.log(fewer / many) / np.log(4.0) == pytest.approx(0.5, abs=0.15)


def test_sampled_temporal_differences_come_near_without_any_return() -> None:
    mdp = processes.process(None)
    family, size = processes.families(mdp)["linear"]
    flat = jnp.asarray(processes.parameters(size), float)
    table, length = np.asarray(scores(lambda x: family(x).log_probs, flat)), 30
    drawn = tabular.draw(mdp, family(flat), jax.random.PRNGKey(1), 4_000, length + 1)
    states, actions = np.asarray(drawn.states), np.asarray(drawn.actions)[:, :-1]
    now, following = states[:, :-1], states[:, 1:]
    weights = np.broadcast_to(np.asarray(discounts(GAMMA, length)), now.shape)
    rows = table[now, actions].reshape(-1, size)
    w, v = compatible.lstd_q(
        jnp.asarray(rows),
        jnp.asarray(np.eye(STATES)[now.ravel()]),
        jnp.asarray(np.eye(STATES)[following.ravel()]),
        jnp.asarray(np.asarray(drawn.rewards)[:, :-1].ravel()),
        GAMMA,
        jnp.asarray(weights.ravel()),
    )
    exact = np.asarray(program("linear", None)[0])
    assert np.linalg.norm(w - exact) < 0.1 * np.linalg.norm(exact)
    np.testing.assert_allclose(v, tabular.state_values(mdp, family(flat)), atol=0.1)


def test_shapes_that_do_not_fit_are_named() -> None:
    with pytest.raises(
        UsageError, match=r"scores \(3, 2\), features \(4, 1\) and \(4, 1\) and rewards \(4,\) do not fit"
    ):
        compatible.lstd_q(jnp.zeros((3, 2)), jnp.zeros((4, 1)), jnp.zeros((4, 1)), jnp.zeros(4), 0.9)
