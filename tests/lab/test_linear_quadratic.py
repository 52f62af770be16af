"""Linear-quadratic regulation: by hand, by differentiation, by drawn trajectories, and its case, the simple regulator."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array

from jumar.envs.compiled import reset_batch, step_batch
from jumar.envs.compiled_check import check_compiled_environment
from jumar.errors import UsageError
from jumar.lab import linear_quadratic, quadratic_values, regulator, riccati
from jumar.lab.iterated_ascent import ascend
from jumar.lab.linear_quadratic import LinearPolicy, LinearQuadratic, LinearQuadraticEnvironment, double_integrator
from jumar.lab.local_models import Known
from jumar.lab.regulator import Regulator
from jumar.lab.textbook import PolicyGradientUpdate

pytestmark = pytest.mark.usefixtures("double_precision")

HORIZONS = {"endless": None, "six steps": 6}


def problem(horizon: int | None) -> LinearQuadratic:
    """Two numbers and two controls, nothing of it diagonal."""
    return LinearQuadratic.of(
        dynamics=[[1.1, 0.3], [-0.1, 0.9]],
        control=[[0.2, 0.0], [0.1, 1.0]],
        state_cost=[[2.0, 0.5], [0.5, 1.0]],
        action_cost=[[1.0, 0.2], [0.2, 0.5]],
        noise=[[0.02, 0.01], [0.01, 0.05]],
        mean=[1.0, -0.5],
        spread=[[0.3, 0.1], [0.1, 0.2]],
        gamma=0.9,
        horizon=horizon,
        final_cost=None if horizon is None else [[3.0, 0.0], [0.0, 1.0]],
    )


def policy(gain: Any = ((-0.8, -0.3), (0.1, -0.6))) -> LinearPolicy:
    return LinearPolicy(jnp.array(gain), jnp.array([0.2, -0.1]), jnp.array([[0.3, 0.1], [0.1, 0.4]]))


class Facts(NamedTuple):
    values: quadratic_values.QuadraticValues
    worth: Array
    gradient: LinearPolicy
    differentiated: LinearPolicy
    natural: LinearPolicy
    moments: Array
    error: Array


@jax.jit
def facts(problem: LinearQuadratic, policy: LinearPolicy) -> Facts:
    return Facts(
        quadratic_values.values(problem, policy),
        quadratic_values.performance(problem, policy),
        quadratic_values.policy_gradient(problem, policy),
        jax.grad(lambda policy: quadratic_values.performance(problem, policy))(policy),
        quadratic_values.natural_gradient(problem, policy),
        quadratic_values.discounted_moments(problem, policy),
        quadratic_values.step_error(problem, policy),
    )


@functools.cache
def known(name: str) -> Facts:
    return jax.tree.map(np.asarray, facts(problem(HORIZONS[name]), policy()))


best = jax.jit(riccati.optimum)


def test_one_number_by_hand() -> None:
    """A = B = Q = R = 1 and gamma = 1/2: P = 1 + P/2 - (P/2)^2 / (1 + P/2), which is P^2 = 2."""
    one = LinearQuadratic.of([[1]], [[1]], [[1]], [[1]], [[0.04]], [2], [[0.25]], gamma=0.5)
    found = best(one)
    np.testing.assert_allclose(found.curvature, [[np.sqrt(2.0)]], rtol=1e-12)
    np.testing.assert_allclose(found.policy.gain, [[-np.sqrt(0.5) / (1.0 + np.sqrt(0.5))]], rtol=1e-12)
    np.testing.assert_allclose(found.constant, np.sqrt(2.0) * 0.04, rtol=1e-12)  # gamma P W / (1 - gamma)
    still = LinearPolicy(jnp.array([[-0.5]]), jnp.array([0.3]), jnp.array([[0.09]]))
    exact = facts(one, still)
    p = 1.25 / (1.0 - 0.5 * 0.25)
    # slope: p = R K k + gamma M (P k + p), constant: R (k^2 + Sigma) + gamma (P (k^2 + Sigma + W) + 2 p k + c)
    slope = (-0.15 + 0.5 * 0.5 * p * 0.3) / (1.0 - 0.25)
    constant = (0.18 + 0.5 * (p * (0.09 + 0.09 + 0.04) + 2.0 * slope * 0.3)) / 0.5
    np.testing.assert_allclose([exact.values.curvature[0, 0], exact.values.slope[0]], [p, slope], rtol=1e-12)
    np.testing.assert_allclose(exact.values.constant, constant, rtol=1e-12)
    np.testing.assert_allclose(exact.worth, -(p * 4.25 + 2.0 * slope * 2.0 + constant), rtol=1e-12)


@pytest.mark.parametrize("name", HORIZONS)
def test_gradients_are_the_derivatives_of_the_performance(name: str) -> None:
    found = known(name)
    for closed, differentiated in zip(found.gradient, found.differentiated, strict=True):
        np.testing.assert_allclose(closed, differentiated, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("name", HORIZONS)
def test_values_are_those_of_bellmans_equation_and_of_drawn_trajectories(name: str) -> None:
    found, place, n = known(name), problem(HORIZONS[name]), 10_000
    length = HORIZONS[name] or 100  # 0.9^100 is 3e-5
    draw = jax.jit(lambda key: linear_quadratic.draw(place, policy(), key, n, length))
    states, actions, rewards = map(np.asarray, draw(jax.random.PRNGKey(0)))
    discounts = 0.9 ** np.arange(length)
    returns = rewards @ discounts
    if HORIZONS[name]:  # the state after the last decision, but for its noise, whose mean square is known
        after = states[:, -1] @ np.asarray(place.dynamics).T + actions[:, -1] @ np.asarray(place.control).T
        final = np.asarray(place.final_cost)
        returns -= 0.9**length * (np.einsum("ni,ij,nj->n", after, final, after) + np.sum(final * place.noise))
    assert abs(returns.mean() - found.worth) < 5.0 * returns.std() / np.sqrt(n)
    for moment in (states[:, 0, 0], states[:, 0, 1] ** 2):
        first = jax.tree.map(lambda x: x[0], found.values) if HORIZONS[name] else found.values
        off = (returns - np.asarray(first.at(jnp.asarray(states[:, 0])))) * moment
        assert abs(off.mean()) < 5.0 * off.std() / np.sqrt(n)
    seconds = np.einsum("nti,ntj,t->nij", states, states, discounts)
    exact = found.moments if HORIZONS[name] is None else found.moments.sum(0)
    np.testing.assert_array_less(np.abs(seconds.mean(0) - exact[:2, :2]), 2e-3 + 5.0 * seconds.std(0) / np.sqrt(n))
    np.testing.assert_allclose(exact[2, 2], 10.0 if HORIZONS[name] is None else discounts.sum(), rtol=1e-10)


def test_the_natural_gradient_of_a_process_without_end_is_minus_twice_sigma_times_the_error() -> None:
    found = known("endless")
    joint = np.concatenate([found.natural.gain, found.natural.offset[:, None]], 1)
    np.testing.assert_allclose(joint, -2.0 * np.asarray(policy().covariance) @ found.error, rtol=1e-8)
    # and it solves with the Fisher matrix of the policy's log-likelihood, moments (x) Sigma^-1
    fisher = np.kron(np.linalg.inv(policy().covariance), found.moments)
    gradient = np.concatenate([found.gradient.gain, found.gradient.offset[:, None]], 1)
    np.testing.assert_allclose(fisher @ joint.reshape(-1), gradient.reshape(-1), rtol=1e-8)


@pytest.mark.parametrize("name", HORIZONS)
def test_at_the_best_policy_the_gradients_and_the_error_are_0_and_its_worth_is_riccatis(name: str) -> None:
    place = problem(HORIZONS[name])
    found = best(place)
    exact = facts(place, found.policy)
    for part in (exact.gradient.gain, exact.gradient.offset, exact.error):
        np.testing.assert_allclose(part, 0.0, atol=1e-9)
    np.testing.assert_allclose(exact.values.curvature, found.curvature, rtol=1e-9, atol=1e-10)
    np.testing.assert_allclose(exact.values.constant, found.constant, rtol=1e-9, atol=1e-10)
    assert exact.worth > known(name).worth
    if HORIZONS[name]:
        np.testing.assert_array_equal(found.curvature[-1], place.final_cost)


def test_a_long_horizon_begins_as_no_horizon() -> None:
    far, endless = best(problem(200)), best(problem(None))
    np.testing.assert_allclose(far.policy.gain[0], endless.policy.gain, rtol=1e-9)
    np.testing.assert_allclose(far.curvature[0], endless.curvature, rtol=1e-9)
    np.testing.assert_allclose(far.constant[0], endless.constant, rtol=1e-7)


def test_the_simple_regulator_is_a_case_of_it() -> None:
    book = Regulator(gamma=0.9)
    theta = jnp.array([-0.7, -0.25])

    @jax.jit
    def of_the_book(theta: Array) -> tuple[Array, ...]:
        return (
            regulator.performance(book, theta),
            regulator.policy_gradient(book, theta),
            regulator.natural_gradient(replace(book, gamma=1.0), theta),
        )

    worth, gradient, natural = of_the_book(theta)
    same = linear_quadratic.of_regulator(book)
    found = facts(same, linear_quadratic.regulator_policy(theta))
    np.testing.assert_allclose(found.worth, worth, rtol=1e-12)
    sigma = 0.25 + 1e-5  # d Sigma / d theta_2 = 2 sigma sign(theta_2)
    np.testing.assert_allclose(
        [found.gradient.gain[0, 0], -2.0 * sigma * found.gradient.covariance[0, 0]], gradient, rtol=1e-10
    )
    # Without a discount its Fisher matrix is that of trajectories; the offset is no parameter of the book's.
    undiscounted = facts(replace(same, gamma=1.0), linear_quadratic.regulator_policy(theta))
    alone = sigma**2 * undiscounted.gradient.gain[0, 0] / np.asarray(undiscounted.moments).sum(0)[0, 0]
    np.testing.assert_allclose(alone, natural[0], rtol=1e-10)
    gains = np.asarray(best(same).policy.gain).reshape(-1)
    np.testing.assert_allclose(gains, [*[-1.0] * 9, 0.0], atol=1e-12)  # the last action changes nothing


@pytest.mark.parametrize("natural", [False, True], ids=["plain", "natural"])
def test_exact_gradient_ascent_finds_riccatis_gain(natural: bool) -> None:
    """Fazel et al.: although J is not concave in the gain, gradient methods converge to its maximum."""
    place = problem(None)
    which = quadratic_values.natural_gradient if natural else quadratic_values.policy_gradient

    def gradient(flat: Array, key: Array) -> Array:
        return which(place, LinearPolicy(flat.reshape(2, 2), jnp.zeros(2), 0.01 * jnp.eye(2))).gain.reshape(-1)

    update = PolicyGradientUpdate(Known(gradient), 3.0 if natural else 0.03)
    start = np.asarray(policy().gain).reshape(-1)
    path = ascend(update, start, jax.random.PRNGKey(0), 1000, tolerance=1e-12)
    assert path.converged
    np.testing.assert_allclose(path.thetas[-1].reshape(2, 2), best(place).policy.gain, atol=1e-8)


@pytest.mark.parametrize("gamma", [0.9995, 0.999999])
def test_a_discount_near_one_has_a_solution(gamma: float) -> None:
    """P = q / (1 - gamma) of a state that nothing moves, after far more steps than the recursion takes."""
    still = LinearQuadratic.of([[1.0]], [[0.0]], [[2.0]], [[1.0]], [[0.0]], [1.0], [[0.0]], gamma)
    np.testing.assert_allclose(riccati.optimum(still).curvature, [[2.0 / (1.0 - gamma)]], rtol=1e-8)
    growing = replace(still, dynamics=np.array([[1.001]]))
    with pytest.raises(UsageError, match="no policy keeps the discounted cost finite"):
        riccati.optimum(growing)


def test_matrices_that_are_none_are_refused() -> None:
    good: dict[str, Any] = {
        "dynamics": [[1.0]],
        "control": [[1.0]],
        "state_cost": [[1.0]],
        "action_cost": [[1.0]],
        "noise": [[0.0]],
        "mean": [0.0],
        "spread": [[0.0]],
        "gamma": 0.9,
    }
    for change, words in (
        ({"control": [1.0]}, r"control is \(1,\) and mean \(1,\)"),
        ({"dynamics": [[1.0, 0.0]]}, r"dynamics has the shape \(1, 2\), and must have \(1, 1\)"),
        ({"noise": [[-0.5]]}, "noise has the eigenvalue -0.5"),
        ({"state_cost": [[np.nan]]}, "state_cost must have finite entries"),
        ({"gamma": 1.0}, "gamma=1.0 must be in"),
        ({"gamma": 1.0, "horizon": 0}, "horizon=0 must be a whole number of at least 1"),
        (
            {
                "control": [[1.0], [0.0]],
                "mean": [0.0, 0.0],
                "dynamics": np.eye(2),
                "state_cost": [[1.0, 1.0], [0.0, 1.0]],
            },
            "state_cost must be symmetric",
        ),
    ):
        with pytest.raises(UsageError, match=words):
            LinearQuadratic.of(**{**good, **change})
    runaway = LinearQuadratic.of(**{**good, "dynamics": [[2.0]], "control": [[0.0]]})
    with pytest.raises(UsageError, match=r"gamma=0\.9: no policy keeps the discounted cost finite"):
        riccati.optimum(runaway)
    away = LinearPolicy(jnp.eye(2), jnp.zeros(2), jnp.eye(2))
    with pytest.raises(UsageError, match=r"eigenvalue of A \+ B K is 1\.\d+, and must be below 1"):
        quadratic_values.performance(problem(None), away)
    with pytest.raises(UsageError, match="length=None"):
        linear_quadratic.draw(problem(None), policy(), jax.random.PRNGKey(0), 2)
    with pytest.raises(UsageError, match="time_limit=None, but the problem has no end of its own"):
        LinearQuadraticEnvironment(problem(None))


@pytest.mark.parametrize("name", HORIZONS)
def test_it_is_an_environment_with_its_own_worth(name: str) -> None:
    n, steps = 4000, 6
    env = LinearQuadraticEnvironment(problem(HORIZONS[name]), None if HORIZONS[name] else steps)
    check_compiled_environment(env, "linear-quadratic")
    roots = np.linalg.cholesky(np.asarray(policy().covariance))

    @jax.jit
    def play(key: Array) -> tuple[Array, ...]:
        states, observations = reset_batch(env, env.params, key, n)

        def step(now: tuple, key: Array) -> tuple:
            states, observations = now
            noise = jax.random.normal(jax.random.fold_in(key, 1), (n, 2)) @ roots.T
            actions = observations @ policy().gain.T + policy().offset + noise
            states, after = step_batch(env, env.params, key, states, jnp.asarray(actions, jnp.float32))
            return (states, after.observations), (after.rewards, after.terminated, after.truncated)

        return jax.lax.scan(step, (states, observations), jax.random.split(key, steps))[1]

    rewards, terminated, truncated = map(np.asarray, play(jax.random.PRNGKey(2)))
    ended, other = (terminated, truncated) if HORIZONS[name] else (truncated, terminated)
    np.testing.assert_array_equal(ended, np.broadcast_to(np.arange(1, steps + 1)[:, None] == steps, ended.shape))
    assert not other.any()
    returns = 0.9 ** np.arange(steps) @ rewards
    expected = known("six steps").worth
    if not HORIZONS[name]:
        expected = facts(replace(problem(steps), final_cost=np.zeros((2, 2))), policy()).worth
    assert abs(returns.mean() - expected) < 5.0 * returns.std() / np.sqrt(n)


def test_the_default_environment_is_the_double_integrator() -> None:
    env = LinearQuadraticEnvironment()
    assert (env.observation_space.shape, env.action_space.shape) == ((2,), (1,))
    assert env.params.horizon == double_integrator().horizon
