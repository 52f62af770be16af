"""Steps of the policy alone: directions, lengths and the line search, in float64 on problems of a dozen parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiling import stacked_decompositions
from jax import Array
from jax.flatten_util import ravel_pytree

from jumar.policies.distributions import Categorical, DiagGaussian, Distribution
from jumar.schedules import Constant
from jumar.solvers import (
    Both,
    Boundary,
    ConjugateGradient,
    Dense,
    Euclidean,
    LineSearch,
    MeanKL,
    MeanOverTrajectories,
    PolicySolver,
    Rate,
    Step,
    Within,
)
from jumar.solvers.natural import PolicyMove
from jumar.solvers.objectives import surrogate
from jumar.solvers.problem import Divergence, Parameters, Problem, kl, kl_of_actions, log_ratio_of_actions, reverse_kl
from jumar.trajectory import Batch, weighted_mean

ROWS, WIDTH, CHOICES = 40, 3, 4
ALL = jnp.float32(1.0)
KEY = jax.random.PRNGKey(0)


@pytest.fixture(autouse=True)
def double_precision() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


def softmax(parameters: Parameters, batch: Batch) -> Categorical:
    return Categorical(jnp.tanh(batch.features @ parameters["kernel"]) + parameters["bias"])


def gaussian(parameters: Parameters, batch: Batch) -> DiagGaussian:
    mean = batch.features @ parameters["kernel"]
    return DiagGaussian(mean, jnp.full_like(mean, -0.3))


def first(outputs: int = CHOICES) -> Parameters:
    rng = np.random.default_rng(1)
    return {
        "bias": jnp.asarray(0.3 * rng.standard_normal(outputs)),
        "kernel": jnp.asarray(0.5 * rng.standard_normal((WIDTH, outputs))),
    }


def experience(distribution: Callable[..., Distribution], parameters: Parameters) -> Batch:
    rng = np.random.default_rng(2)
    blank = jnp.zeros(ROWS)
    weights = jnp.asarray(np.where(np.arange(ROWS) % 7 == 3, 0.0, 1.0))
    features = jnp.asarray(rng.standard_normal((ROWS, WIDTH)))
    batch = Batch(features, blank, blank, blank, blank, blank, weights, None, blank.astype(bool), (), ())
    old = distribution(parameters, batch)
    actions = old.sample(jax.random.PRNGKey(0))
    advantages = jnp.asarray(rng.standard_normal(ROWS))
    return batch._replace(actions=actions, log_probs=old.log_prob(actions), advantages=advantages)


def problem_of(distribution: Callable[..., Distribution], batch: Batch) -> Problem:
    def gain(at: Any, batch: Batch) -> tuple[Array, dict[str, Array]]:
        log_probs = at.log_prob(batch.actions)
        return weighted_mean(surrogate(log_probs, batch.log_probs, batch.advantages), batch.weights), {}

    def no_loss(parameters: Parameters, batch: Batch) -> tuple[Array, dict[str, Array]]:
        return jnp.zeros(()), {}

    return Problem(gain, no_loss, distribution, lambda parameters: batch)


def moved(
    solver: PolicySolver,
    distribution: Callable[..., Distribution] = softmax,
    parameters: Parameters | None = None,
    **changes: Any,
) -> tuple[Array, dict[str, Array], Problem, Batch]:
    """Move once; return the change of the flat parameters, the record, and what it was done on."""
    parameters = first() if parameters is None else parameters
    batch = experience(distribution, parameters)._replace(**changes)
    problem = problem_of(distribution, batch)
    flat, about = _move(solver, distribution, parameters, batch)
    return flat - ravel_pytree(parameters)[0], about, problem, batch


@partial(jax.jit, static_argnums=(0, 1))
def _move(
    solver: PolicySolver, distribution: Callable[..., Distribution], parameters: Parameters, batch: Batch
) -> tuple[Array, dict[str, Array]]:
    flat, unravel = ravel_pytree(parameters)
    problem = problem_of(distribution, batch)
    result = solver.move(problem, flat, unravel, batch, solver.init(parameters), ALL, KEY)
    return result.flat, result.about


def gradient_of(problem: Problem, batch: Batch, parameters: Parameters) -> Array:
    return ravel_pytree(jax.jit(jax.grad(lambda p: problem.policy_objective(p, batch)[0]))(parameters))[0]


def distance(problem: Problem, batch: Batch, change: Array, parameters: Parameters | None = None) -> float:
    parameters = first() if parameters is None else parameters
    flat, unravel = ravel_pytree(parameters)
    return float(problem.distance(parameters, unravel(flat + change), batch)[0])


# -- directions and lengths -------------------------------------------------------------------------------------------


def test_a_restricted_step_goes_along_the_gradient_to_the_boundary_of_its_ball() -> None:
    change, about, problem, batch = moved(Step(Euclidean(), Boundary(0.02)))
    gradient = gradient_of(problem, batch, first())
    np.testing.assert_allclose(change, np.sqrt(0.04) * gradient / np.linalg.norm(gradient), rtol=1e-12)
    np.testing.assert_allclose(about["step_norm"], 0.2, rtol=1e-12)
    np.testing.assert_allclose(about["predicted_improvement"], gradient @ change, rtol=1e-12)
    np.testing.assert_allclose(about["grad_norm"], np.linalg.norm(gradient), rtol=1e-12)


def hessian_of_the_mean_kl(problem: Problem, batch: Batch, parameters: Parameters) -> Array:
    flat, unravel = ravel_pytree(parameters)
    return jax.jit(jax.hessian(lambda new: problem.distance(parameters, unravel(new), batch)[0]))(flat)


def test_what_counts_as_singular_follows_the_precision() -> None:
    """An eigenvalue of 1e-9 of the largest is rounding error in single precision and a curvature in double."""
    matrix = np.diag([1.0, 1e-9, 0.0])
    for dtype, wanted in ((jnp.float64, [1.0, 2e9, 0.0]), (jnp.float32, [1.0, 0.0, 0.0])):
        fisher = jnp.asarray(matrix, dtype)
        found = Dense().solve(lambda vector, fisher=fisher: fisher @ vector, jnp.array([1.0, 2.0, 0.0], dtype))
        np.testing.assert_allclose(found.x, wanted, rtol=1e-6)
    given = Dense(0.1).solve(lambda vector: jnp.diag(jnp.array([1.0, 0.05])) @ vector, jnp.ones(2))
    np.testing.assert_allclose(given.x, [1.0, 0.0])


@pytest.mark.parametrize("system", [Dense(), ConjugateGradient(200, 1e-13)])
def test_a_natural_step_solves_the_damped_system_and_is_scaled_by_the_undamped_matrix(system: Any) -> None:
    change, about, problem, batch = moved(Step(MeanKL(system, damping=0.1), Boundary(0.02)))
    gradient = gradient_of(problem, batch, first())
    fisher = hessian_of_the_mean_kl(problem, batch, first())
    x = np.linalg.solve(fisher + 0.1 * np.eye(len(gradient)), gradient)
    np.testing.assert_allclose(change, np.sqrt(0.04 / (x @ fisher @ x)) * x, rtol=1e-7)
    assert about["cg_residual"] < 1e-9
    assert about["cg_blocked"] == 0.0


def test_a_fixed_rate_multiplies_the_natural_gradient() -> None:
    change, _, problem, batch = moved(Step(MeanKL(Dense(), damping=0.1), Rate(Constant(0.3))))
    fisher = hessian_of_the_mean_kl(problem, batch, first())
    x = np.linalg.solve(fisher + 0.1 * np.eye(len(change)), gradient_of(problem, batch, first()))
    np.testing.assert_allclose(change, 0.3 * x, rtol=1e-6)  # a schedule is in single precision


def test_as_many_conjugate_gradient_steps_as_parameters_make_tnpg_of_npg() -> None:
    exact, *_ = moved(Step(MeanKL(Dense(), damping=0.1), Boundary(0.01)))
    truncated, about, *_ = moved(Step(MeanKL(ConjugateGradient(len(exact), 0.0), damping=0.1), Boundary(0.01)))
    assert len(exact) == 16
    assert about["cg_iterations"] == 16
    np.testing.assert_allclose(truncated, exact, atol=1e-8)


def test_rows_left_out_of_the_matrix_are_left_out_of_the_direction_alone() -> None:
    change, _, problem, batch = moved(Step(MeanKL(Dense(), damping=0.1, every=3), Boundary(0.02)))
    some = jax.tree.map(lambda x: x[::3], batch)
    fisher = hessian_of_the_mean_kl(problem, some, first())
    x = np.linalg.solve(fisher + 0.1 * np.eye(len(change)), gradient_of(problem, batch, first()))
    np.testing.assert_allclose(change, np.sqrt(0.04 / (x @ fisher @ x)) * x, rtol=1e-7)


def test_dense_systems_of_many_seeds_are_solved_one_after_the_other() -> None:
    def solved(matrix: Array) -> Array:
        return Dense().solve(lambda x: matrix @ x, jnp.arange(1.0, 4.0)).x

    matrices = jnp.stack([jnp.diag(jnp.arange(i, i + 3.0)) for i in (1, 2)])
    assert stacked_decompositions(jax.vmap(solved), matrices) == []
    np.testing.assert_allclose(jax.jit(jax.vmap(solved))(matrices), [[1, 1, 1], [1 / 2, 2 / 3, 3 / 4]], rtol=1e-5)


def test_a_singular_fisher_matrix_gives_the_solution_of_least_norm() -> None:
    """A constant added to all logits changes nothing: the matrix is singular, and nothing goes along that direction."""
    change, about, *_ = moved(Step(MeanKL(Dense()), Boundary(0.02)))
    assert np.isfinite(change).all()
    np.testing.assert_allclose(change[:CHOICES].sum(), 0.0, atol=1e-10)
    assert about["cg_residual"] < 1e-6


@pytest.mark.parametrize(
    ("solver", "invariant"),
    [
        (Step(MeanKL(Dense()), Boundary(0.02)), True),
        (Step(MeanKL(Dense()), Rate(Constant(0.3))), True),
        (Step(Euclidean(), Boundary(0.02)), False),
        (Step(Euclidean(), Rate(Constant(0.3))), False),
    ],
)
def test_undamped_natural_steps_do_not_depend_on_the_parametrisation_and_plain_ones_do(
    solver: Step, invariant: bool
) -> None:
    flat, unravel = ravel_pytree({"kernel": first(2)["kernel"]})
    rng = np.random.default_rng(5)
    matrix = jnp.asarray(rng.standard_normal((flat.size, flat.size)) + 2.0 * np.eye(flat.size))

    def other(parameters: Parameters, batch: Batch) -> DiagGaussian:
        return gaussian(unravel(matrix @ parameters["z"] + 0.5), batch)

    change, *_ = moved(solver, gaussian, unravel(flat))
    image, *_ = moved(solver, other, {"z": jnp.linalg.solve(matrix, flat - 0.5)})
    gap = np.linalg.norm(matrix @ image - change) / np.linalg.norm(change)
    assert gap < 1e-9 if invariant else gap > 0.1


def test_a_natural_step_of_a_linear_gaussian_mean_reaches_the_divergence_exactly() -> None:
    start = {"kernel": first(2)["kernel"]}
    change, _, problem, batch = moved(Step(MeanKL(Dense()), Boundary(0.5)), gaussian, start)
    np.testing.assert_allclose(distance(problem, batch, change, start), 0.5, rtol=1e-10)


def test_the_divergence_of_a_natural_step_nears_the_one_asked_for_as_it_shrinks() -> None:
    gaps = []
    for delta in (1e-4, 1e-6, 1e-8):
        change, _, problem, batch = moved(Step(MeanKL(Dense()), Boundary(delta)))
        gaps.append(abs(distance(problem, batch, change) / delta - 1.0))
    slopes = np.diff(np.log(gaps)) / np.log(1e-2)
    assert (slopes >= 0.45).all()


@pytest.mark.parametrize("geometry", [Euclidean(), MeanKL(Dense()), MeanKL(ConjugateGradient(10), 0.1)])
@pytest.mark.parametrize("length", [Boundary(0.02), Rate(Constant(0.3))])
@pytest.mark.parametrize(
    "changes",
    [
        {"advantages": jnp.zeros(ROWS)},
        {"weights": jnp.zeros(ROWS)},
        {"advantages": jnp.full(ROWS, np.nan)},
        {"advantages": jnp.full(ROWS, np.inf)},
    ],
)
def test_nothing_to_climb_gives_no_step_and_no_nan(geometry: Any, length: Any, changes: Any) -> None:
    for solver in (Step(geometry, length), LineSearch(Step(geometry, length), 0.02)):
        change, about, *_ = moved(solver, **changes)
        assert not np.any(change)
        assert about["step_norm"] == 0.0
        assert about["predicted_improvement"] == 0.0


# -- the line search --------------------------------------------------------------------------------------------------


def test_a_step_that_is_near_and_better_is_taken_whole() -> None:
    step = Step(MeanKL(Dense()), Boundary(1e-4))
    change, *_ = moved(step)
    searched, about, *_ = moved(LineSearch(step, 1.1e-4))
    np.testing.assert_allclose(searched, change, rtol=1e-12)
    assert (about["step_fraction"], about["line_search_tries"]) == (1.0, 1.0)


def test_a_step_that_is_too_far_is_shortened_to_the_first_fraction_that_is_near_enough_and_better() -> None:
    step = Step(MeanKL(Dense()), Boundary(4.0))
    change, _, problem, batch = moved(step)
    searched, about, *_ = moved(LineSearch(step, 0.01, shrink=0.5, most=20))
    flat, unravel = ravel_pytree(first())

    def acceptable(fraction: float) -> bool:
        candidate = unravel(flat + fraction * change)
        gain = problem.policy_objective(candidate, batch)[0] - problem.policy_objective(first(), batch)[0]
        return bool(gain > 0.0) and float(problem.distance(first(), candidate, batch)[0]) <= 0.01

    tries = next(j for j in range(20) if acceptable(0.5**j))
    assert tries > 1
    np.testing.assert_allclose(searched, 0.5**tries * change, rtol=1e-12)
    assert (float(about["step_fraction"]), float(about["line_search_tries"])) == (0.5**tries, tries + 1)
    assert distance(problem, batch, searched) <= 0.01


def test_a_step_that_is_never_good_changes_no_bit() -> None:
    """The divergence of any step is made infinite."""
    parameters = first()
    batch = experience(softmax, parameters)
    problem = replace(problem_of(softmax, batch), divergence=lambda old, new, batch: jnp.full(ROWS, np.inf))
    flat, unravel = ravel_pytree(parameters)
    solver = LineSearch(Step(MeanKL(Dense()), Boundary(0.01)), 0.01, most=7)
    result = jax.jit(lambda flat: solver.move(problem, flat, unravel, batch, (), ALL, KEY))(flat)
    assert np.array_equal(result.flat, flat)
    assert (result.about["step_fraction"], result.about["line_search_tries"]) == (0.0, 7.0)


def test_a_step_that_does_not_improve_is_refused_however_near_it_is() -> None:
    """The objective is at its maximum over the ray: it falls in both directions."""
    parameters = first()
    batch = experience(softmax, parameters)
    flat, unravel = ravel_pytree(parameters)

    def peak(at: Categorical, batch: Batch) -> tuple[Array, dict[str, Array]]:
        away = at.logits - softmax(parameters, batch).logits
        # A slope that the gradient sees, and a cliff that it does not.
        return jnp.sum(away) - 1e6 * jnp.sum(jnp.abs(jax.lax.stop_gradient(away))), {}

    problem = replace(problem_of(softmax, batch), gain=peak)
    result = LineSearch(Step(Euclidean(), Boundary(1e-4)), 1.0).move(problem, flat, unravel, batch, (), ALL, KEY)
    assert np.array_equal(result.flat, flat)


# -- divergences ---------------------------------------------------------------------------------------------------------

OLD = Categorical(jnp.log(jnp.array([[0.1, 0.2, 0.3, 0.4], [0.1, 0.1, 0.6, 0.2]])))
NEW = Categorical(jnp.log(jnp.array([[0.4, 0.3, 0.2, 0.1], [0.1, 0.1, 0.5, 0.3]])))


def test_both_directions_of_the_divergence_have_their_closed_forms() -> None:
    """Exercise 12.3 of the book, whose mean over five states is 0.285181; the other direction's is 0.286052."""
    batch = experience(softmax, first())
    np.testing.assert_allclose(kl(OLD, NEW, batch), [0.456435, 0.028300], atol=1e-6)
    shares = np.array([3, 2]) / 5
    np.testing.assert_allclose(shares @ np.asarray(kl(OLD, NEW, batch)), 0.285181, atol=1e-6)
    np.testing.assert_allclose(shares @ np.asarray(reverse_kl(OLD, NEW, batch)), 0.286052, atol=1e-6)


@pytest.mark.parametrize("divergence", [reverse_kl, kl_of_actions, log_ratio_of_actions])
def test_the_expectation_of_every_divergence_is_the_same_to_second_order(divergence: Divergence) -> None:
    batch = experience(softmax, first())
    old = softmax(first(), batch)
    ways = jnp.asarray(np.random.default_rng(3).standard_normal(old.logits.shape))

    def expected(size: float) -> float:
        new = Categorical(old.logits + size * ways)
        by_action = [
            divergence(old, new, batch._replace(actions=jnp.full(ROWS, a), log_probs=old.log_probs[:, a]))
            for a in range(CHOICES)
        ]
        return float(jnp.sum(old.probs * jnp.stack(by_action, 1)) / jnp.sum(old.kl(new)))

    gaps = [abs(expected(size) - 1.0) for size in (1e-1, 1e-2)]
    assert gaps[0] < 0.2
    assert gaps[1] < 0.2 * gaps[0] or gaps[1] < 1e-10  # those of actions have it exactly


def test_the_logarithms_of_ratios_fall_below_0_along_the_scores_of_a_sample_and_bound_nothing_alone() -> None:
    parameters = first()
    batch = experience(softmax, parameters)
    flat, unravel = ravel_pytree(parameters)
    old = softmax(parameters, batch)
    likely = jax.grad(lambda flat: jnp.sum(batch.weights * softmax(unravel(flat), batch).log_prob(batch.actions)))(flat)
    new = softmax(unravel(flat + likely / jnp.linalg.norm(likely)), batch)
    exact, sampled = (float(weighted_mean(each(old, new, batch), batch.weights)) for each in (kl, log_ratio_of_actions))
    assert exact > 0.01
    assert sampled < -0.01
    assert float(weighted_mean(kl_of_actions(old, new, batch), batch.weights)) > 0.0
    # So a line search that asked for them alone would let the step through.
    for acceptance, accepted in ((Always(), True), (Both(Always(), Within(kl, 0.01)), False)):
        search = LineSearch(Jump(likely / jnp.linalg.norm(likely)), 0.01, most=1, acceptance=acceptance)
        problem = replace(problem_of(softmax, batch), divergence=log_ratio_of_actions)
        moved_to = search.move(problem, flat, unravel, batch, (), ALL, KEY)
        assert bool(jnp.any(moved_to.flat != flat)) == accepted


class Always:
    """The acceptance that everything has."""

    def test(self, problem: Problem, batch: Batch, old: Distribution) -> Callable[[Distribution], Array]:
        return lambda new: jnp.ones((), bool)


@dataclass(frozen=True)
class Jump:
    """A step that is given."""

    change: Array

    def init(self, parameters: Parameters) -> tuple[()]:
        return ()

    def move(
        self, problem: Problem, flat: Array, unravel: Any, batch: Batch, state: Any, remaining: Array, key: Array
    ) -> PolicyMove:
        return PolicyMove(flat + self.change, state, {})


def test_the_mean_over_trajectories_is_of_the_sums_over_the_steps_that_count() -> None:
    blank = jnp.zeros(6)
    starts = jnp.array([False, True, False, False, False, True])  # two environments of three rows
    weights = jnp.array([1.0, 0.5, 0.25, 1.0, 0.0, 0.0])
    batch = Batch(blank, blank, blank, blank, blank, blank, weights, None, starts, (), ())
    rows = jnp.array([1.0, 10.0, 100.0, 1000.0, jnp.nan, jnp.nan])
    # Trajectories: 1; 10 + 100; 1000 (its second row does not count); and one of which nothing counts.
    assert float(MeanOverTrajectories(2)(rows, batch)) == pytest.approx(1111.0 / 3.0)
    assert float(MeanOverTrajectories(2)(rows, batch._replace(weights=blank))) == 0.0
