"""Squashed Gaussians: densities in the units of the Box, entropies without a closed form, actions that stay inside."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.stats
from gymnasium import spaces
from jax.flatten_util import ravel_pytree
from probes import Probe
from updates import experience, first_learner, improve, make_update

import jumar
from jumar.algorithms.on_policy.ppo import PPOSettings
from jumar.errors import UsageError
from jumar.policies.actions import ActionCodec
from jumar.policies.distributions import DiagGaussian, SquashedGaussian, log_tanh_slope, mean_log_tanh_slope
from jumar.policies.policy import PolicySettings, make_policy
from jumar.solvers.fisher import dense, fisher_product

LOW, HIGH = np.array([-3.0, 0.0], np.float32), np.array([1.0, 10.0], np.float32)
LOPSIDED = spaces.Box(LOW, HIGH)
VECTOR = spaces.Box(-np.inf, np.inf, (3,))


def squashed(mean: Any, std: Any) -> SquashedGaussian:
    """Return the distribution over the lopsided box."""
    normal = DiagGaussian(jnp.asarray(mean, float), jnp.log(jnp.asarray(std, float)))
    return SquashedGaussian(normal, ActionCodec.of(LOPSIDED, squash=True).half_range)


def before_tanh(actions: np.ndarray) -> np.ndarray:
    """Return u of actions in the lopsided box."""
    return np.arctanh((actions - (LOW + HIGH) / 2.0) / ((HIGH - LOW) / 2.0))


# -- densities --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("mean", "std"), [((0.3, -0.8), (0.7, 1.1)), ((-1.5, 2.0), (0.2, 0.5))])
def test_the_density_integrates_to_one_over_the_box_in_its_own_units(mean: Any, std: Any) -> None:
    # Nodes that lie close where the density may change quickly, at the bounds; the rule knows only where they are.
    nodes = (LOW + HIGH) / 2.0 + (HIGH - LOW) / 2.0 * np.tanh(np.linspace(-9.0, 9.0, 500))[:, None]
    weights = np.gradient(nodes, axis=0)
    actions = np.stack(np.meshgrid(*nodes.T, indexing="ij"), axis=-1)
    with jax.enable_x64(True):
        densities = np.exp(squashed(mean, std).log_prob(jnp.asarray(before_tanh(actions))))
    np.testing.assert_allclose(weights[:, 0] @ densities @ weights[:, 1], 1.0, atol=2e-3)


def test_the_log_density_is_that_of_a_change_of_variables_by_hand() -> None:
    """At u = (0, 1): slopes h (1 - tanh^2 u) of 2 and 5 (1 - tanh^2 1) = 2.09987."""
    at = squashed((0.0, 1.0), (1.0, 0.5)).log_prob(jnp.array([0.0, 1.0]))
    by_hand = -np.log(2.0 * np.pi) - np.log(0.5) - np.log(2.0) - np.log(5.0 * (1.0 - np.tanh(1.0) ** 2))
    np.testing.assert_allclose(at, by_hand, rtol=1e-6)
    np.testing.assert_allclose(at, -2.5797530, rtol=1e-6)


@pytest.mark.parametrize("u", [-20.0, -9.5, -3.0, 0.0, 4.0, 9.5, 20.0])
def test_the_log_density_is_exact_and_finite_where_tanh_is_one_in_single_precision(u: float) -> None:
    exact = np.log(4.0) - 2.0 * np.logaddexp(u, -u)  # log of 4 / (e^u + e^-u)^2, in double precision
    at = squashed((0.0, 0.0), (1.0, 2.0)).log_prob(jnp.full(2, u, jnp.float32))
    normal = scipy.stats.norm.logpdf(u, 0.0, [1.0, 2.0]).sum()
    np.testing.assert_allclose(log_tanh_slope(jnp.float32(u)), exact, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(at, normal - 2.0 * exact - np.log(2.0) - np.log(5.0), rtol=1e-5)
    slope = jax.grad(lambda u: log_tanh_slope(u))(jnp.float32(u))
    np.testing.assert_allclose(slope, -2.0 * np.tanh(u), atol=1e-6)


@pytest.mark.parametrize("u", [-1e30, 1e30])
def test_no_action_however_far_makes_an_infinity(u: float) -> None:
    assert np.isfinite(log_tanh_slope(jnp.float32(u)))


# -- entropies --------------------------------------------------------------------------------------------------------

MEANS, STDS = (0.0, -0.6, 1.3, -8.0), (1e-3, 0.4, 1.0, 1.7, 3.0, 10.0, 150.0)


def quadrature(mean: float, std: float) -> float:
    """Return E[log(1 - tanh^2 u)] by adaptive quadrature."""

    def integrand(z: float) -> float:
        u = mean + std * z
        return (np.log(4.0) - 2.0 * np.logaddexp(u, -u)) * scipy.stats.norm.pdf(z)

    kink = [-mean / std] if abs(mean / std) < 12.0 else None
    return scipy.integrate.quad(integrand, -12.0, 12.0, points=kink, limit=500, epsabs=1e-9)[0]


def test_the_mean_slope_is_that_of_adaptive_quadrature_for_every_deviation() -> None:
    grid = np.array([(mean, std) for mean in MEANS for std in STDS])
    expected = [quadrature(*point) for point in grid]
    with jax.enable_x64(True):
        found = mean_log_tanh_slope(*jnp.asarray(grid).T)
    np.testing.assert_allclose(found, expected, atol=5e-5)
    single = mean_log_tanh_slope(*jnp.asarray(grid, jnp.float32).T)
    np.testing.assert_allclose(single, expected, rtol=2e-6, atol=5e-5)


def test_the_mean_slope_has_the_derivatives_of_the_integral() -> None:
    r"""In the mean :math:`-2 E[\tanh u]`, in the deviation :math:`-2 \sigma E[1 - \tanh^2 u]` (Price's theorem)."""
    points = jnp.array([(0.7, 0.5), (-0.3, 1.2), (2.0, 3.0), (0.0, 40.0), (-1e4, 0.1), (1e4, 100.0)])
    by_mean, by_std = jax.vmap(jax.grad(mean_log_tanh_slope, (0, 1)))(*points.T)
    for i, (mean, std) in enumerate(np.asarray(points, float)):
        z = np.linspace(-9.0, 9.0, 200_001)
        squash = np.tanh(mean + std * z)
        weights = scipy.stats.norm.pdf(z) * (z[1] - z[0])
        np.testing.assert_allclose(by_mean[i], -2.0 * weights @ squash, atol=1e-4)
        np.testing.assert_allclose(by_std[i], -2.0 * std * weights @ (1.0 - squash**2), atol=1e-4)


@pytest.mark.parametrize(("mean", "std"), [((0.3, -0.8), (0.7, 1.1)), ((-1.5, 2.0), (0.2, 2.5))])
def test_the_entropy_is_minus_the_mean_log_density_over_the_box(mean: Any, std: Any) -> None:
    z = np.linspace(-9.0, 9.0, 4001)
    weights = scipy.stats.norm.pdf(z) * (z[1] - z[0])
    with jax.enable_x64(True):
        at = squashed(mean, std)
        u = np.asarray(mean) + np.asarray(std) * z[:, None]  # both entries at once: the log density is a sum over them
        expected = -weights @ np.asarray(at.log_prob(jnp.asarray(u)))
        np.testing.assert_allclose(at.entropy(), expected, atol=1e-4)


def test_the_widest_entropy_is_nearly_that_of_a_uniform_action() -> None:
    """With deviation 0.87 the squashed normal is nearly flat: at most log 4 + log 10, the logarithms of the ranges."""
    best = squashed((0.0, 0.0), (0.8744, 0.8744)).entropy()
    assert np.log(40.0) - 0.02 < best < np.log(40.0)
    assert squashed((0.0, 0.0), (3.0, 3.0)).entropy() < best
    assert squashed((0.0, 0.0), (0.3, 0.3)).entropy() < best


# -- geometry ---------------------------------------------------------------------------------------------------------


def test_divergences_do_not_change_under_squashing() -> None:
    one, other = squashed((0.3, -0.8), (0.7, 1.1)), squashed((-0.2, 0.1), (0.5, 1.6))
    np.testing.assert_array_equal(one.kl(other), one.normal.kl(other.normal))
    actions = one.sample(jax.random.PRNGKey(0))
    difference = one.log_prob(actions) - other.log_prob(actions)
    np.testing.assert_allclose(difference, one.normal.log_prob(actions) - other.normal.log_prob(actions), atol=1e-5)


def test_the_divergence_is_that_of_the_densities_of_actions() -> None:
    one, other = squashed((0.3, -0.8), (0.7, 1.1)), squashed((-0.2, 0.1), (0.5, 1.6))
    grids = [low + (high - low) * (np.arange(2000) + 0.5) / 2000 for low, high in zip(LOW, HIGH, strict=True)]
    total = 0.0
    for i, grid in enumerate(grids):
        cell = grid[1] - grid[0]
        actions = np.tile((LOW + HIGH) / 2.0, (2000, 1)).astype(float)
        actions[:, i] = grid
        marginals = []
        for at in (one, other):
            single = SquashedGaussian(
                DiagGaussian(at.normal.mean[i : i + 1], at.normal.log_std[i : i + 1]), at.half_range[i : i + 1]
            )
            marginals.append(np.asarray(single.log_prob(jnp.asarray(before_tanh(actions)[:, i : i + 1])), float))
        total += cell * np.sum(np.exp(marginals[0]) * (marginals[0] - marginals[1]))
    np.testing.assert_allclose(one.kl(other), total, rtol=1e-3)


def test_the_fisher_matrix_is_the_second_derivative_of_the_divergence() -> None:
    with jax.enable_x64(True):
        first = squashed(np.array([[0.3, -0.8], [0.1, 0.2]]), np.array([[0.7, 1.1], [0.4, 2.0]])).normal
        flat, unravel = ravel_pytree(first)
        half_range = (2.0, 5.0)
        weights = jnp.ones(2)

        def at(x: jax.Array) -> SquashedGaussian:
            return SquashedGaussian(unravel(x), half_range)

        matrix = dense(fisher_product(at, flat, weights), flat)
        bend = jax.hessian(lambda x: jnp.mean(at(flat).kl(at(x))))(flat)
    np.testing.assert_allclose(matrix, bend, atol=1e-10)


# -- actions ----------------------------------------------------------------------------------------------------------

BOXES = {
    "lopsided": LOPSIDED,
    "bounds that single precision rounds outwards": spaces.Box(0.1, 0.4, (3,), np.float64),
    "narrow and far from 0": spaces.Box(np.float32(1000.1), np.float32(1000.7), (2,), np.float32),
    "matrix": spaces.Box(-0.3, 0.7, (2, 2), np.float32),
    "huge": spaces.Box(-3e38, 3e38, (1,), np.float32),
    "integers": spaces.Box(-3, 9, (2,), np.int32),
}


@pytest.mark.parametrize("name", BOXES)
def test_the_environment_gets_actions_inside_the_box_however_far_u_goes(name: str) -> None:
    space = BOXES[name]
    codec = ActionCodec.of(space, squash=True)
    u = np.concatenate([np.linspace(-20.0, 20.0, 401), [-1e30, 1e30, 1e-9]]).astype(np.float32)
    u = np.broadcast_to(u[:, None], (len(u), codec.size))
    for xp in (np, jnp):
        actions = np.asarray(codec.to_environment(xp.asarray(u), xp)).astype(space.dtype)
        assert all(space.contains(action) for action in actions)
    assert actions.shape == (len(u), *space.shape)


def test_the_environment_gets_the_squashed_action() -> None:
    codec = ActionCodec.of(LOPSIDED, squash=True)
    u = np.array([[0.0, 0.0], [0.5, -1.0], [-20.0, 20.0]], np.float32)
    by_hand = [[-1.0, 5.0], [-1.0 + 2.0 * np.tanh(0.5), 5.0 - 5.0 * np.tanh(1.0)], [-3.0, 10.0]]
    np.testing.assert_allclose(codec.to_environment(u), by_hand, rtol=1e-6)
    np.testing.assert_array_equal(ActionCodec.of(LOPSIDED).to_environment(u)[1], [0.5, 0.0])


@pytest.mark.parametrize(
    ("space", "said"),
    [
        (
            spaces.Box(-np.inf, np.inf, (2,)),
            r"squash needs finite bounds, and entry 0 of the action is in \[-inf, inf\]",
        ),
        (
            spaces.Box(np.array([-1, 0], np.float32), np.array([1, np.inf], np.float32)),
            r"entry 1 of the action is in \[0, inf\]",
        ),
        (spaces.Box(-np.inf, 1.0, (2, 3)), r"entry \(0, 0\) of the action is in \[-inf, 1\]"),
        (
            spaces.Box(np.array([-1, 0.5], np.float32), np.array([1, 0.5], np.float32)),
            r"a lower bound below the upper one .* entry 1 of the action is in \[0.5, 0.5\]",
        ),
        (spaces.Box(1.0, 1.0 + 1e-12, (1,), np.float64), "in single precision, and entry 0"),
        (spaces.Discrete(3), "squash needs a Box action space, and this one is one of 3"),
    ],
)
def test_bounds_that_nothing_can_be_squashed_into_are_refused_in_words(space: gym.Space[Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        make_policy(VECTOR, space, PPOSettings(squash=True))


# -- learning, and files ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "settings"),
    [("ppo", {"deviation": "state"}), ("trpo", {"use_sde": True, "net_arch": (4,)}), ("acktr", {"net_arch": ()})],
)
def test_methods_take_squashed_policies(name: str, settings: dict[str, Any]) -> None:
    update = make_update(spaces.Box(-1.0, 1.0, (3,)), LOPSIDED, name, squash=True, **settings)
    learner = first_learner(update)
    new, record = improve(update, learner, experience(update, learner))
    assert record["finite"]
    assert np.isfinite(record["entropy"])
    assert np.any(ravel_pytree(new.parameters)[0] != ravel_pytree(learner.parameters)[0])


def test_the_entropy_bonus_widens_a_narrow_squashed_policy() -> None:
    update = make_update(spaces.Box(-1.0, 1.0, (3,)), LOPSIDED, squash=True, ent_coef=1.0, log_std_init=-2.0)
    learner = first_learner(update)
    trajectory = experience(update, learner, rewards=jnp.zeros((8, 2)))
    new, _ = improve(update, learner, trajectory)
    assert np.all(new.parameters["policy"]["head"]["log_std"] > -2.0)


def target(observation: jax.Array, action: jax.Array, time: jax.Array) -> jax.Array:
    """Return a reward that is largest at (0.5, 2), off the middle of either range."""
    return -jnp.sum(jnp.square((action - jnp.array([0.5, 2.0])) / jnp.array([4.0, 10.0])))


def acts_alike(agent: Any, folder: Path) -> np.ndarray:
    """Save the agent, compare it with the policy read back, and return actions that were drawn."""
    agent.save(folder)
    alone = jumar.load_policy(folder)
    assert alone.policy == agent.actor().policy
    assert alone.policy.actions.squash
    observations = np.linspace(-1.0, 1.0, 64, dtype=np.float32)[:, None]
    drawn = np.zeros(0)
    for deterministic in (True, False):
        drawn, loaded = (x.predict(observations, deterministic=deterministic)[0] for x in (agent.actor(), alone))
        np.testing.assert_array_equal(drawn, loaded)
        assert all(LOPSIDED.contains(action) for action in drawn)
    return drawn


def test_a_squashed_policy_learns_a_target_between_lopsided_bounds_and_is_saved(tmp_path: Path) -> None:
    agent = jumar.PPO(
        Probe(target, action_space=LOPSIDED),
        n_envs=16,
        n_steps=16,
        batch_size=128,
        n_epochs=4,
        net_arch=(),
        squash=True,
        learning_rate=0.02,
        log_std_init=-1.0,
    )
    agent.learn(16 * 16 * 40)
    np.testing.assert_allclose(agent.predict(np.ones(1, np.float32))[0], [0.5, 2.0], atol=0.6)
    acts_alike(agent, tmp_path / "agent")


def test_a_squashed_policy_with_noise_by_state_is_saved_and_is_not_cut_at_the_bounds(tmp_path: Path) -> None:
    settings = {"n_envs": 2, "n_steps": 4, "net_arch": (4,), "log_std_init": 2.0}
    agent = jumar.A2C(Probe(target, action_space=LOPSIDED), squash=True, use_sde=True, **settings)
    drawn = acts_alike(agent, tmp_path / "agent")
    assert len(np.unique(drawn)) > 100


# -- deviations within bounds -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("raw", "kept"), [(-50.0, -20.0), (-1.5, -1.5), (0.5, 0.5), (30.0, 2.0)])
def test_a_clamped_deviation_stays_within_its_bounds_and_its_density_is_exact(raw: float, kept: float) -> None:
    """At actions many deviations out, where tanh is 1 in single precision, log pi is that of double precision."""
    policy = make_policy(VECTOR, LOPSIDED, PolicySettings(squash=True, deviation="clamped", net_arch=()))
    parameters = jax.tree.map(jnp.zeros_like, policy.init(jax.random.PRNGKey(0)))
    parameters["head"]["log_std"]["bias"] = jnp.full(2, raw)
    distribution: Any = policy.at(parameters, policy.encoder.encode(jnp.ones((1, 3)), policy.encoder.initial_moments()))
    for noise in (-4.0, 0.3, 4.0):
        own = distribution.outcome(jnp.full((1, 2), noise))
        u = np.exp(kept) * noise
        slope = np.log(4.0) - 2.0 * np.logaddexp(u, -u)
        exact = 2.0 * (-0.5 * noise**2 - kept - 0.5 * np.log(2.0 * np.pi) - slope) - np.log(2.0 * 5.0)
        np.testing.assert_allclose(own, u, rtol=1e-5)
        np.testing.assert_allclose(distribution.log_prob(own), [exact], rtol=1e-5, atol=1e-4)
