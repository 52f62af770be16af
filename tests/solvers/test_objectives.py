"""Objectives and losses: literal numbers, where gradients vanish, and what they share at the old policy."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array

from jumar.policies.distributions import Categorical
from jumar.schedules import Constant, Linear
from jumar.solvers import objectives

RATIOS = np.array([0.2, 0.5, 0.79, 0.81, 1.0, 1.19, 1.21, 2.0, 5.0], np.float32)


def gradient(objective: Callable[[Array, Array, Array], Array], log_probs: np.ndarray, advantages: np.ndarray) -> Array:
    """Return the derivative of each row by its own log-probability; the old log-probabilities are 0."""
    return jax.jit(jax.vmap(jax.grad(lambda x, a: objective(x, jnp.zeros(()), a))))(log_probs, advantages)


def test_clipped_surrogate_literals() -> None:
    ratios, advantages = jnp.array([1.5, 1.5, 0.5, 0.5, 1.1]), jnp.array([2.0, -2.0, 2.0, -2.0, 2.0])
    result = objectives.clipped_surrogate(jnp.log(ratios), jnp.zeros(5), advantages, 0.2)
    np.testing.assert_allclose(result, [2.4, -3.0, 1.0, -1.6, 2.2], rtol=1e-6)


@pytest.mark.parametrize("advantage", [2.0, -2.0])
def test_clipped_gradient_is_zero_exactly_where_the_ratio_has_left_the_range_on_the_good_side(advantage: float) -> None:
    # Document 000, algorithm 12.6 (its prose has the two cases inverted): A > 0 and w > 1 + eps, or A < 0 and w < 1 - eps.
    result = gradient(
        lambda x, old, a: objectives.clipped_surrogate(x, old, a, 0.2),
        np.log(RATIOS),
        np.full_like(RATIOS, advantage),
    )
    clamped = RATIOS > 1.2 if advantage > 0 else RATIOS < 0.8
    assert clamped.any()
    np.testing.assert_array_equal(np.asarray(result)[clamped], 0.0)
    np.testing.assert_allclose(np.asarray(result)[~clamped], (RATIOS * advantage)[~clamped], rtol=1e-5)


def test_score_surrogate_and_clipped_gradients_agree_at_the_old_policy() -> None:
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        states, actions = jnp.asarray(rng.standard_normal((30, 4))), jnp.asarray(rng.integers(0, 3, 30))
        weights, advantages = jnp.asarray(rng.standard_normal((4, 3))), jnp.asarray(rng.standard_normal(30))

        @jax.jit
        def gradients(weights: Array) -> list[Array]:
            old = Categorical(states @ weights).log_prob(actions)
            parts = (objectives.Score(), objectives.Surrogate(), objectives.Clipped(Constant(0.2)))

            def mean(x: Array, part: objectives.PolicyObjective) -> Array:
                return part(Categorical(states @ x).log_prob(actions), old, advantages, jnp.ones(())).mean()

            return [jax.grad(mean)(weights, part) for part in parts]

        score, surrogate, clipped = gradients(weights)
        # By hand: (1/30) sum of s (one-hot(a) - pi)^T A.
        pi = np.asarray(jax.nn.softmax(states @ weights))
        by_hand = np.asarray(states).T @ ((np.eye(3)[np.asarray(actions)] - pi) * np.asarray(advantages)[:, None]) / 30
        np.testing.assert_allclose(score, by_hand, atol=1e-12)
        np.testing.assert_allclose(surrogate, score, atol=1e-12)
        np.testing.assert_allclose(clipped, score, atol=1e-12)


def test_surrogate_is_the_ratio_times_the_advantage() -> None:
    result = objectives.surrogate(
        jnp.log(jnp.array([0.6, 0.1])), jnp.log(jnp.array([0.3, 0.4])), jnp.array([3.0, -8.0])
    )
    np.testing.assert_allclose(result, [6.0, -2.0], rtol=1e-6)


def test_surrogate_objective_of_example_12_1() -> None:
    # Document 000, with gamma = 1: the mean over steps of ratio times reward-to-go, at theta and at theta'.
    actions = jnp.array([[-0.532, 0.597, 1.947], [-0.263, -2.212, 2.364]])
    rewards_to_go = jnp.cumsum(actions[:, ::-1], axis=1)[:, ::-1]

    def log_prob(mean: float) -> Array:
        return -0.5 * jnp.square(actions - mean)

    before = objectives.surrogate(log_prob(0.0), log_prob(0.0), rewards_to_go).mean()
    after = objectives.surrogate(log_prob(0.313864), log_prob(0.0), rewards_to_go).mean()
    assert float(before) == pytest.approx(1.484667, abs=1e-6)
    assert float(after) == pytest.approx(2.109559, abs=1e-5)


def test_value_clipping_takes_the_larger_loss() -> None:
    values, old, targets = jnp.array([2.0, 2.0, 0.1, -1.0]), jnp.zeros(4), jnp.array([3.0, 0.0, 1.0, 1.0])
    result = objectives.clipped_value_loss(values, old, targets, 0.5)
    # Clipped predictions 0.5, 0.5, 0.1, -0.5: losses (1, 6.25), (4, 0.25), (0.81, 0.81), (4, 2.25).
    np.testing.assert_allclose(result, [6.25, 4.0, 0.81, 4.0], rtol=1e-6)


def test_value_that_moved_away_from_its_target_keeps_its_gradient() -> None:
    slope = jax.grad(lambda v: objectives.clipped_value_loss(v, jnp.zeros(()), jnp.ones(()), 0.5))
    assert float(slope(-1.0)) == -4.0
    assert float(slope(0.9)) == 0.0, "near its target but too far from the old value: held"


def test_the_huber_loss_is_the_squared_error_up_to_delta_and_a_line_beyond() -> None:
    errors, targets = jnp.array([0.0, 0.5, -1.0, 3.0, -10.0]), jnp.full(5, 2.0)
    loss = objectives.huber_loss(errors + targets, targets, 1.0)
    np.testing.assert_allclose(loss, [0.0, 0.25, 1.0, 5.0, 19.0], rtol=1e-6)
    slopes = jax.vmap(jax.grad(lambda error: objectives.huber_loss(error, jnp.zeros(()), 1.0)))(errors)
    np.testing.assert_allclose(slopes, [0.0, 1.0, -2.0, 2.0, -2.0], rtol=1e-6)
    far = objectives.huber_loss(errors + targets, targets, 1e9)
    np.testing.assert_allclose(far, objectives.squared_error(errors + targets, targets), rtol=1e-6)


def test_value_clipping_takes_the_larger_huber_loss() -> None:
    values, old, targets = jnp.array([2.0, 2.0, 0.1, -1.0]), jnp.zeros(4), jnp.array([3.0, 0.0, 1.0, 1.0])
    # Clipped predictions 0.5, 0.5, 0.1, -0.5: losses of the errors (1, 2.5), (2, 0.5), (0.9, 0.9), (2, 1.5).
    part = objectives.ClippedHuber(Constant(0.5), 1.0)
    np.testing.assert_allclose(part(values, old, targets, jnp.ones(())), [4.0, 3.0, 0.81, 3.0], rtol=1e-6)
    wide = objectives.ClippedHuber(Constant(0.5), 100.0)(values, old, targets, jnp.ones(()))
    np.testing.assert_allclose(wide, objectives.clipped_value_loss(values, old, targets, 0.5), rtol=1e-6)


def test_squared_error_has_no_half() -> None:
    assert float(objectives.squared_error(jnp.float32(1.0), jnp.float32(4.0))) == 9.0


def test_sampled_kl_is_kl_old_new_in_expectation() -> None:
    with jax.enable_x64(True):
        old, new = jnp.log(jnp.array([0.1, 0.2, 0.3, 0.4])), jnp.log(jnp.array([0.4, 0.3, 0.2, 0.1]))
        skewed = jnp.log(jnp.array([0.7, 0.1, 0.1, 0.1]))
        assert float(jnp.exp(old) @ objectives.sampled_kl(new, old)) == pytest.approx(0.456435, abs=1e-6)
        forward = float(jnp.exp(old) @ objectives.sampled_kl(skewed, old))
        assert forward == pytest.approx(float(Categorical(old).kl(Categorical(skewed))), abs=1e-12)
        assert abs(forward - float(Categorical(skewed).kl(Categorical(old)))) > 0.01


def test_sampled_kl_is_never_negative() -> None:
    sizes = np.concatenate([np.geomspace(1e-12, 30, 20_000), np.linspace(0, 2, 20_000)])
    differences = np.concatenate([sizes, -sizes]).astype(np.float32)
    result = np.asarray(objectives.sampled_kl(jnp.asarray(differences), jnp.zeros(len(differences))))
    assert result.min() >= 0.0
    np.testing.assert_allclose(result[np.isclose(differences, 1.0, atol=1e-9)], np.e - 2, rtol=1e-6)


@pytest.mark.parametrize("difference", [np.inf, 1e30, 100.0, -100.0, -1e30, -np.inf])
def test_infinite_log_ratios_stay_finite(difference: float) -> None:
    x, old, a = jnp.float32(difference), jnp.zeros(()), jnp.float32(-3.0)
    functions = (
        objectives.surrogate,
        lambda x, old, a: objectives.clipped_surrogate(x, old, a, 0.2),
        lambda x, old, a: objectives.sampled_kl(x, old),
        lambda x, old, a: objectives.clip_fraction(x, old, 0.2),
    )
    for function in functions:
        assert bool(jnp.isfinite(function(x, old, a)))
        assert bool(jnp.isfinite(jax.grad(function)(x, old, a)))
    assert float(objectives.log_ratio(x, old)) == np.sign(difference) * 20.0


def test_clip_fraction_marks_ratios_outside_of_the_range() -> None:
    result = objectives.clip_fraction(jnp.log(jnp.asarray(RATIOS)), jnp.zeros(len(RATIOS)), 0.2)
    np.testing.assert_array_equal(result, [1, 1, 1, 0, 0, 0, 1, 1, 1])


def test_a_clip_range_on_a_schedule_shrinks_with_the_steps_left() -> None:
    part = objectives.Clipped(Linear(0.2))
    log_ratio, zero, one = jnp.log(jnp.array([1.15])), jnp.zeros(1), jnp.ones(1)
    np.testing.assert_allclose(part(log_ratio, zero, one, jnp.float32(1.0)), [1.15], rtol=1e-6)
    np.testing.assert_allclose(part(log_ratio, zero, one, jnp.float32(0.5)), [1.1], rtol=1e-6)
    assert part.diagnose(log_ratio, zero, jnp.float32(1.0))["clip_fraction"].tolist() == [0.0]
    assert part.diagnose(log_ratio, zero, jnp.float32(0.5))["clip_fraction"].tolist() == [1.0]


def test_a_clipped_objective_marks_the_rows_outside_of_its_range() -> None:
    log_ratios = jnp.log(jnp.array([2.0, 1.1, 1.0, 0.7]))
    part = objectives.Clipped(Constant(0.2))
    np.testing.assert_array_equal(part.diagnose(log_ratios, jnp.zeros(4), jnp.ones(()))["clip_fraction"], [1, 0, 0, 1])


def test_objectives_without_clipping_have_nothing_to_diagnose() -> None:
    for part in (objectives.Score(), objectives.Surrogate()):
        assert part.diagnose(jnp.zeros(1), jnp.zeros(1), jnp.ones(())) == {}
