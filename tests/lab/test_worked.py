"""The numbers of the textbooks' worked examples, and where the printed ones are not those of their data."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jumar.lab import gradients, worked
from jumar.lab.rollouts import sampled_gradient
from jumar.lab.worked import EXAMPLE_12_1, EXERCISE_12_2, EXERCISE_12_3, PRINTED_12_1, TrustRegionNumbers
from jumar.solvers.fisher import scores, step_fisher, trajectory_fisher

pytestmark = pytest.mark.usefixtures("double_precision")

THETA = EXAMPLE_12_1.theta


@functools.cache
def update() -> TrustRegionNumbers:
    return jax.jit(worked.trust_region_update)(EXAMPLE_12_1)


def example_scores(actions: np.ndarray) -> jax.Array:
    rows = jnp.asarray(actions)
    return scores(lambda theta: worked.gaussian(theta, rows).log_prob(rows[..., None]), jnp.asarray(THETA))


def test_example_12_1_with_the_fisher_matrix_that_its_data_have() -> None:
    found = update()
    np.testing.assert_allclose(found.fisher, [[2.0302, 1.0198], [1.0198, 29.5286]], atol=5e-5)
    np.testing.assert_allclose(found.fishers[1], [[0.012, -0.838], [-0.838, 57.012]], atol=5e-4)
    np.testing.assert_allclose(jnp.linalg.inv(found.fisher), [[0.501249, -0.017311], [-0.017311, 0.034463]], atol=1e-6)
    np.testing.assert_allclose(found.gradient, [2.0302, 1.0198], atol=5e-5)
    np.testing.assert_allclose(found.direction, [1.0, 0.0], atol=1e-12)
    np.testing.assert_allclose(found.theta, [0.313864, 1.0], atol=1e-6)
    np.testing.assert_allclose(found.objective_before, 1.484667, atol=1e-6)
    np.testing.assert_allclose(found.objective, 2.109559, atol=1e-6)
    np.testing.assert_allclose(found.divergence, 0.049255, atol=1e-6)


def test_the_book_prints_the_same_but_for_three_entries_of_its_matrices() -> None:
    found = update()
    wrong = {
        name: [tuple(map(int, at)) for at in np.argwhere(np.abs(printed - getattr(found, name)) > 6e-4)]
        for name, printed in PRINTED_12_1._asdict().items()
    }
    found_wrong = {name: places for name, places in wrong.items() if places}
    assert found_wrong == {"fishers": [(1, 1, 1)], "fisher": [(1, 0), (1, 1)]}


def test_the_gradient_is_the_first_column_of_the_fisher_matrix_because_returns_are_first_scores() -> None:
    found = update()
    sums = example_scores(np.asarray(EXAMPLE_12_1.actions)).sum(1)
    np.testing.assert_allclose(sums, [[2.012, 1.430242], [-0.111, 7.550609]], atol=1e-6)
    np.testing.assert_allclose(worked.rollouts(EXAMPLE_12_1).returns(1.0)[:, 0], sums[:, 0], rtol=1e-12)
    np.testing.assert_allclose(found.gradient, found.fisher[:, 0], rtol=1e-12)


def test_the_step_keeps_the_bound_per_step_and_breaks_it_per_trajectory() -> None:
    found = update()
    assert found.divergence <= EXAMPLE_12_1.epsilon
    np.testing.assert_allclose(3.0 * found.divergence, 0.1478, atol=5e-5)


def test_a_discount_gives_other_numbers_than_those_printed() -> None:
    discounted = EXAMPLE_12_1._replace(gamma=0.9)
    new = update().theta
    np.testing.assert_allclose(worked.surrogate_objective(discounted, jnp.asarray(THETA)), 1.128955, atol=1e-6)
    np.testing.assert_allclose(worked.surrogate_objective(discounted, new), 1.660510, atol=1e-6)
    np.testing.assert_allclose(worked.surrogate_divergence(discounted, new), 0.044494, atol=1e-6)


def test_the_fisher_matrix_per_step_of_the_same_data() -> None:
    each = example_scores(np.asarray(EXAMPLE_12_1.actions))
    expected = [[7.490426, 3.955867], [3.955867, 22.896317]]  # a sum over the three steps, a mean over the two rollouts
    np.testing.assert_allclose(3.0 * step_fisher(each, jnp.ones((2, 3))), expected, atol=1e-6)


def test_exercise_12_1_the_surrogate_begins_with_the_gradient_of_the_reward_to_go_over_the_depth() -> None:
    each = example_scores(np.asarray(EXAMPLE_12_1.actions))
    to_go = sampled_gradient(each, worked.rollouts(EXAMPLE_12_1).reward_to_go(1.0), jnp.ones(3))
    slope = jax.grad(lambda new: worked.surrogate_objective(EXAMPLE_12_1, new))(jnp.asarray(THETA))
    np.testing.assert_allclose(to_go, [4.760329, 6.948054], atol=1e-6)
    np.testing.assert_allclose(slope, [1.586776, 2.316018], atol=1e-6)
    np.testing.assert_allclose(3.0 * slope, to_go, rtol=1e-12)


def test_exercise_12_2_from_the_numbers_that_it_prints() -> None:
    fisher, gradient = jnp.asarray(EXERCISE_12_2.fisher), jnp.asarray(EXERCISE_12_2.gradient)
    columns = jnp.stack([gradients.solve(fisher, column) for column in jnp.eye(2)], 1)
    np.testing.assert_allclose(columns, [[2.941, -0.008], [-0.008, 0.008]], atol=6e-4)
    np.testing.assert_allclose(gradients.solve(fisher, gradient), [1.0, 0.0], atol=1e-12)
    new = THETA + gradients.natural_step(fisher, gradient, EXERCISE_12_2.epsilon)
    np.testing.assert_allclose(new, [0.766, 1.0], atol=5e-4)
    np.testing.assert_allclose(worked.surrogate_divergence(EXAMPLE_12_1, new), 0.2934, atol=2e-4)  # above epsilon


def test_the_numbers_of_exercise_12_2_are_those_of_a_draft_of_the_example() -> None:
    draft = np.array([[-0.532, -0.597, 1.947], [-0.263, -2.212, 2.364]])
    each = example_scores(draft) * jnp.array([1.0, 2.0])
    fisher = trajectory_fisher(each, jnp.ones((2, 3)))
    np.testing.assert_allclose(fisher, [[0.340723, 0.331820], [0.331820, 118.114577]], atol=1e-6)
    np.testing.assert_allclose(EXERCISE_12_2.fisher, fisher, atol=5e-4)
    returns = worked.rollouts(EXAMPLE_12_1._replace(actions=draft)).returns(1.0)
    gradient = sampled_gradient(each, returns, jnp.ones(3))
    np.testing.assert_allclose(gradient, [0.340723, 0.331820], atol=1e-6)
    np.testing.assert_allclose(gradients.natural_step(fisher, gradient, 0.1), [0.766151, 0.0], atol=1e-6)


def test_exercise_12_3() -> None:
    np.testing.assert_allclose(worked.divergences(EXERCISE_12_3), [0.456435, 0.028300], atol=1e-6)
    np.testing.assert_allclose(worked.mean_divergence(EXERCISE_12_3), 0.285181, atol=1e-6)


def test_exercise_12_3_in_the_other_direction_is_near_and_not_the_same() -> None:
    reverse = EXERCISE_12_3._replace(old=EXERCISE_12_3.new, new=EXERCISE_12_3.old)
    np.testing.assert_allclose(worked.mean_divergence(reverse), 0.286052, atol=1e-6)


@pytest.mark.parametrize(("theta", "gradient", "fisher"), [(0.0, 24.75, 0.25), (5.0, 0.658158, 0.006648)])
def test_the_natural_gradient_of_a_bernoulli_policy_is_the_same_everywhere(
    theta: float, gradient: float, fisher: float
) -> None:
    """Far out the gradient vanishes, 99 does not; a step to a divergence grows there without bound."""
    at = jnp.array([theta])
    problem, family = worked.BERNOULLI, worked.bernoulli
    np.testing.assert_allclose(gradients.policy_gradient(problem, family, at), [gradient], atol=1e-6)
    exact = gradients.step_fisher(family, at, jnp.ones(1))
    np.testing.assert_allclose(exact, [[fisher]], atol=1e-6)
    np.testing.assert_allclose(gradients.natural_gradient(problem, family, at), [99.0], rtol=1e-12)
    step = gradients.natural_step(exact, gradients.policy_gradient(problem, family, at), 0.01)
    np.testing.assert_allclose(step, [np.sqrt(0.02 / fisher)], rtol=1e-4)
