"""Steps by Kronecker factors, their momentum, and critics that move by them, in float64 on small problems."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array
from jax.flatten_util import ravel_pytree

from jumar.policies.distributions import Categorical, DiagGaussian, Distribution
from jumar.schedules import Constant
from jumar.solvers import (
    Boundary,
    Dense,
    Kronecker,
    LineSearch,
    MeanKL,
    Momentum,
    PolicySolver,
    Rate,
    Regression,
    Shorter,
    Step,
    Top,
)
from jumar.solvers.kronecker import Curvature
from jumar.solvers.kronecker_factors import matrix
from jumar.solvers.natural import PolicyMove
from jumar.solvers.objectives import surrogate
from jumar.solvers.problem import Climb, Parameters, Problem
from jumar.trajectory import Batch, weighted_mean

ROWS, WIDTH, OUTPUTS = 24, 3, 2
ALL, KEY = jnp.float32(1.0), jax.random.PRNGKey(0)
WEIGHTS = np.where(np.arange(ROWS) % 7 == 3, 0.0, 1.0)
RNG = np.random.default_rng(0)
FEATURES, ADVANTAGES, TARGETS = RNG.standard_normal((ROWS, WIDTH)), RNG.standard_normal(ROWS), RNG.standard_normal(ROWS)


@pytest.fixture(autouse=True)
def double_precision() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


class Even(DiagGaussian):
    """A normal whose draws at all rows together have no correlation and the right variance, exactly."""

    def sample(self, key: Array) -> Array:
        noise, _ = jnp.linalg.qr(jax.random.normal(key, self.mean.shape, self.mean.dtype))
        return self.mean + self.std * noise * jnp.sqrt(1.0 * len(noise))

    def fisher_product(self, tangent: DiagGaussian) -> DiagGaussian:
        return Even(*super().fisher_product(tangent))


def linear(parameters: Parameters, batch: Batch) -> DiagGaussian:
    """Return a normal of fixed deviations with a mean that is linear in the features."""
    mean = batch.features @ parameters["kernel"] + parameters["bias"]
    return Even(mean, jnp.broadcast_to(jnp.array([-0.3, 0.4]), mean.shape))


def network(parameters: Parameters, batch: Batch) -> Array:
    hidden = jnp.tanh(batch.features @ parameters["hidden"]["kernel"] + parameters["hidden"]["bias"])
    return hidden @ parameters["mean"]["kernel"] + parameters["mean"]["bias"]


def deep(parameters: Parameters, batch: Batch) -> DiagGaussian:
    """Return a normal of free deviations with one hidden layer."""
    mean = network(parameters, batch)
    return DiagGaussian(mean, jnp.broadcast_to(parameters["log_std"], mean.shape))


def softmax(parameters: Parameters, batch: Batch) -> Categorical:
    return Categorical(network(parameters, batch))


def layer(inputs: int, outputs: int, seed: int) -> Parameters:
    draw = np.random.default_rng(seed)
    return {
        "kernel": jnp.asarray(0.5 * draw.standard_normal((inputs, outputs))),
        "bias": jnp.asarray(0.1 * draw.standard_normal(outputs)),
    }


def first(distribution: Any) -> Parameters:
    if distribution is linear:
        return layer(WIDTH, OUTPUTS, 1)
    parameters = {"hidden": layer(WIDTH, 4, 1), "mean": layer(4, OUTPUTS, 2)}
    return parameters if distribution is softmax else {**parameters, "log_std": jnp.array([-0.5, 0.2])}


def experience(distribution: Any, **changes: Any) -> Batch:
    blank = jnp.zeros(ROWS)
    batch = Batch(
        features=jnp.asarray(FEATURES),
        actions=blank,
        log_probs=blank,
        advantages=jnp.asarray(ADVANTAGES),
        returns=jnp.asarray(TARGETS),
        values=blank,
        weights=jnp.asarray(WEIGHTS),
        action_masks=None,
        episode_start=blank.astype(bool),
        carry=(),
        critic_carry=(),
    )
    old: Distribution = distribution(first(distribution), batch)
    actions = old.sample(jax.random.PRNGKey(5))
    return batch._replace(actions=actions, log_probs=old.log_prob(actions))._replace(**changes)


def problem_of(distribution: Any, batch: Batch) -> Problem:
    def gain(at: Any, batch: Batch) -> tuple[Array, dict[str, Array]]:
        log_probs = at.log_prob(batch.actions)
        return weighted_mean(surrogate(log_probs, batch.log_probs, batch.advantages), batch.weights), {}

    def no_loss(parameters: Parameters, batch: Batch) -> tuple[Array, dict[str, Array]]:
        return jnp.zeros(()), {}

    return Problem(gain, no_loss, distribution, lambda parameters: batch)


@lru_cache
def mover(solver: PolicySolver, distribution: Any) -> Any:
    """Return the compiled move of a solver from the first parameters: (state, batch, key) -> where it led."""
    flat, unravel = ravel_pytree(first(distribution))

    def move(state: Any, batch: Batch, key: Array) -> PolicyMove:
        return solver.move(problem_of(distribution, batch), flat, unravel, batch, state, ALL, key)

    return jax.jit(move)


def moves(
    solver: PolicySolver, distribution: Any, n: int = 1, batch: Batch | None = None
) -> tuple[list[Array], list[Any]]:
    """Move ``n`` times from the same parameters, on the same batch; return the changes, and the states after them."""
    batch = experience(distribution) if batch is None else batch
    parameters = first(distribution)
    state, steps, states = solver.init(parameters), [], []
    for i in range(n):
        moved = mover(solver, distribution)(state, batch, jax.random.fold_in(KEY, i))
        state = moved.state
        steps.append(moved.flat - ravel_pytree(parameters)[0])
        states.append(state)
    return steps, states


def gradient_of(distribution: Any) -> Parameters:
    batch = experience(distribution)
    gradient = jax.jit(jax.grad(lambda p: problem_of(distribution, batch).policy_objective(p, batch)[0]))
    return gradient(first(distribution))


# -- directions -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [Boundary(0.02), Rate(Constant(0.3))])
def test_for_a_linear_gaussian_mean_the_factors_are_the_fisher_matrix_and_the_step_is_the_natural_one(
    length: Any,
) -> None:
    """The outputs' gradients have one covariance at all inputs: nothing is lost."""
    batch = experience(linear, weights=jnp.ones(ROWS))
    [factored], _ = moves(Step(Kronecker(damping=1e-20), length), linear, batch=batch)
    [natural], _ = moves(Step(MeanKL(Dense(1e-12)), length), linear, batch=batch)
    np.testing.assert_allclose(factored, natural, rtol=1e-8)


def test_the_direction_is_that_of_the_explicit_damped_matrices() -> None:
    """Block by block, the free deviations by their Fisher matrix, which is 2 for each."""
    damping, rate = 0.1, 0.5
    [change], [state] = moves(Step(Kronecker(damping), Rate(Constant(rate))), deep)
    _, unravel = ravel_pytree(first(deep))
    step, gradient = unravel(change / rate), gradient_of(deep)
    np.testing.assert_allclose(step["log_std"], gradient["log_std"] / (2.0 + damping), rtol=1e-6)
    for name, factors in zip(("hidden", "mean"), state.factors, strict=True):
        a, g = (np.asarray(x) for x in factors)
        pi = np.sqrt((np.trace(a) / len(a)) / (np.trace(g) / len(g)))
        root = np.sqrt(damping)
        whole = np.kron(a + pi * root * np.eye(len(a)), g + root / pi * np.eye(len(g)))
        expected = np.linalg.solve(whole, np.asarray(matrix(gradient[name])).ravel())
        np.testing.assert_allclose(np.asarray(matrix(step[name])).ravel(), expected, rtol=1e-6)  # the rate is float32


@pytest.mark.parametrize("every", [1, 3])
def test_a_step_to_the_boundary_has_its_divergence_by_the_exact_fisher_matrix(every: int) -> None:
    """However wrong the factors are: those of one draw of actions, damped."""
    [change], _ = moves(Step(Kronecker(0.3, every=every), Boundary(0.02)), linear)
    batch = experience(linear)
    flat, unravel = ravel_pytree(first(linear))
    some = jax.tree.map(lambda x: x[::every], batch)
    mean, _ = problem_of(linear, batch).distance(unravel(flat), unravel(flat + change), some)
    np.testing.assert_allclose(mean, 0.02, rtol=1e-10)


# -- what is remembered -----------------------------------------------------------------------------------------------


def each(n: int) -> list[Curvature]:
    """Return what is measured in each of ``n`` updates alone."""
    return moves(Step(Kronecker(0.1, decay=0.0), Rate(Constant(0.1))), deep, n)[1]


def test_the_running_mean_is_plain_at_first_and_exponential_later() -> None:
    alone = [state.factors[0].outputs for state in each(4)]
    _, states = moves(Step(Kronecker(0.1, decay=0.6), Rate(Constant(0.1))), deep, 4)
    means = [alone[0], (alone[0] + alone[1]) / 2.0]
    means.append(0.6 * means[1] + 0.4 * alone[2])
    means.append(0.6 * means[2] + 0.4 * alone[3])
    for state, mean in zip(states, means, strict=True):
        np.testing.assert_allclose(state.factors[0].outputs, mean, rtol=1e-6)
    assert not np.allclose(alone[0], alone[1]), "each update draws actions of its own"
    assert [int(state.updates) for state in states] == [1, 2, 3, 4]


def test_inverses_are_renewed_every_so_many_updates() -> None:
    _, states = moves(Step(Kronecker(0.1, renew=3), Rate(Constant(0.1))), deep, 5)
    inverses = [np.asarray(state.inverses[0].outputs) for state in states]
    same = [np.array_equal(one, other) for one, other in itertools.pairwise(inverses)]
    assert same == [True, True, False, True]


@pytest.mark.parametrize(
    "changes", [{"features": jnp.full((ROWS, WIDTH), np.nan)}, {"weights": jnp.zeros(ROWS)}], ids=["NaN", "no rows"]
)
def test_an_unsound_measurement_is_forgotten(changes: Any) -> None:
    solver, batch = Step(Kronecker(0.1, decay=0.6), Rate(Constant(0.1))), experience(deep)
    parameters = first(deep)
    good = mover(solver, deep)(solver.init(parameters), batch, KEY)
    bad = mover(solver, deep)(good.state, batch._replace(**changes), KEY)
    assert np.array_equal(bad.flat, ravel_pytree(parameters)[0])
    jax.tree.map(np.testing.assert_array_equal, bad.state, good.state)


@pytest.mark.parametrize("distribution", [deep, softmax])
@pytest.mark.parametrize(
    "changes",
    [
        {"advantages": jnp.zeros(ROWS)},
        {"weights": jnp.zeros(ROWS)},
        {"advantages": jnp.full(ROWS, np.nan)},
        {"advantages": jnp.full(ROWS, np.inf)},
    ],
)
def test_nothing_to_climb_gives_no_step_and_no_nan(distribution: Any, changes: Any) -> None:
    length = Shorter(Rate(Constant(0.3)), Boundary(0.02))
    solver = Momentum(LineSearch(Step(Kronecker(0.1), length), 0.02), 0.5)
    for change, state in zip(*moves(solver, distribution, 2, experience(distribution, **changes)), strict=True):
        assert not np.any(change)
        assert all(np.isfinite(x).all() for x in jax.tree.leaves(state))


# -- lengths and momentum ---------------------------------------------------------------------------------------------


def test_the_shorter_length_is_taken() -> None:
    rate, boundary = Rate(Constant(0.3)), Boundary(0.02)
    lengths = (rate, boundary, Shorter(rate, boundary), Shorter(boundary, rate))
    sizes = [float(jnp.linalg.norm(moves(Step(MeanKL(Dense()), length), deep)[0][0])) for length in lengths]
    assert sizes[2] == sizes[3] == min(sizes[:2])
    assert sizes[0] != sizes[1]


def test_momentum_moves_by_the_mean_of_the_steps_so_far() -> None:
    """The same step each time: 1 - 0.8, 1 - 0.8^2, 1 - 0.8^3 of it."""
    step = Step(MeanKL(Dense(), damping=0.1), Rate(Constant(0.3)))
    [plain], _ = moves(step, deep)
    changes, _ = moves(Momentum(step, 0.8), deep, 3)
    for k, change in enumerate(changes, 1):
        np.testing.assert_allclose(change, (1.0 - 0.8**k) * plain, rtol=1e-12)


# -- critics ----------------------------------------------------------------------------------------------------------


def values(parameters: Parameters, batch: Batch) -> Array:
    return (batch.features @ parameters["kernel"] + parameters["bias"])[..., 0]


def climb_of(batch: Batch) -> Climb:
    def objective(parameters: Parameters, rows: Batch) -> tuple[Array, dict[str, Array]]:
        loss = weighted_mean(jnp.square(values(parameters, rows) - rows.returns), rows.weights)
        return -loss, {"value_loss": loss}

    return Climb(objective, lambda parameters: batch)


@lru_cache
def fitter(regression: Regression) -> Any:
    """Return the compiled climb of a regression: (critic, state, batch, key) -> critic, state, record."""
    return jax.jit(lambda critic, state, batch, key: regression.climb(climb_of(batch), critic, state, ALL, key))


@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_one_gauss_newton_step_to_the_top_fits_a_linear_critic_by_least_squares(scale: float) -> None:
    batch = experience(linear, returns=jnp.asarray(scale * TARGETS))
    regression = Regression(values, Step(MeanKL(Dense(1e-12)), Top()))
    critic = layer(WIDTH, 1, 4)
    fitted, _, record = fitter(regression)(critic, regression.init(critic), batch, KEY)
    root = np.sqrt(WEIGHTS)[:, None]
    rows = np.concatenate([FEATURES, np.ones((ROWS, 1))], axis=1)
    expected = np.linalg.lstsq(root * rows, root * scale * TARGETS[:, None], rcond=None)[0]
    np.testing.assert_allclose(matrix(fitted), expected, rtol=1e-9)
    assert float(record["value_loss"]) == pytest.approx(
        float(climb_of(batch).objective(critic, batch)[1]["value_loss"])
    )


def test_a_regression_by_factors_never_goes_past_the_top() -> None:
    """Damped, with factors of one draw and a rate that is far too high: the loss falls at every step."""
    batch = experience(linear)
    regression = Regression(values, Step(Kronecker(1e-3), Shorter(Rate(Constant(50.0)), Top())))
    critic, losses = layer(WIDTH, 1, 4), []
    state = regression.init(critic)
    for i in range(6):
        critic, state, record = fitter(regression)(critic, state, batch, jax.random.fold_in(KEY, i))
        losses.append(float(record["value_loss"]))
    assert (np.diff(losses) <= 0.0).all()
    root = np.sqrt(WEIGHTS)[:, None]
    rows = np.concatenate([FEATURES, np.ones((ROWS, 1))], axis=1)
    left = np.linalg.lstsq(root * rows, root * TARGETS[:, None], rcond=None)[1] / WEIGHTS.sum()
    assert losses[-1] == pytest.approx(left.item(), rel=1e-3)


def test_the_divergence_of_a_critic_is_half_the_square_of_how_far_its_values_move() -> None:
    batch = experience(linear)
    regression = Regression(values, Step(Kronecker(0.1), Boundary(0.02)))
    critic = layer(WIDTH, 1, 4)
    moved, _, _ = fitter(regression)(critic, regression.init(critic), batch, KEY)
    change = jnp.square(values(moved, batch) - values(critic, batch))
    assert float(0.5 * weighted_mean(change, batch.weights)) == pytest.approx(0.02, rel=1e-9)
