"""Solvers on problems whose every step is known: no policy, no critic, a handful of numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import Array

from jumar.policies.distributions import DiagGaussian
from jumar.schedules import Constant, Exponential, InverseSqrt, Linear, Schedule
from jumar.solvers import Ascent, Epochs, Joint, Optimiser, clip_gradient, scale_gradient
from jumar.solvers.epochs import PACKED_ROWS, random_order, split, summarise
from jumar.solvers.problem import Climb, Problem
from jumar.trajectory import Batch, weighted_mean

KEY = jax.random.PRNGKey(0)
WHOLE = jnp.float32(1.0)


def rows(advantages: Any) -> Batch:
    """Return a batch whose rows differ by their advantages alone."""
    x = jnp.asarray(advantages, jnp.float32)
    return Batch({"vector": x[:, None]}, x, x, x, x, x, jnp.ones_like(x), None, jnp.zeros(x.shape, bool), (), ())


def problem(
    objective: Callable[[Any, Batch], Array],
    advantages: Any = (0.0, 0.0, 0.0, 0.0),
    kl: Callable[[Any, Batch], Array] = lambda parameters, batch: jnp.float32(0.0),
    estimate: Callable[[Any], Batch] | None = None,
) -> Climb:
    return Climb(
        lambda parameters, batch: (objective(parameters, batch), {"approx_kl": kl(parameters, batch)}),
        estimate or (lambda parameters: rows(advantages)),
    )


def start(*x: float) -> dict[str, Array]:
    return {"x": jnp.array(x, jnp.float32)}


def solve(solver: Any, problem: Climb, parameters: Any, remaining: float = 1.0) -> tuple[np.ndarray, Any, Any]:
    solved, state, record = solver.climb(problem, parameters, solver.init(parameters), jnp.float32(remaining), KEY)
    return np.asarray(solved["x"]), state, record


def slope(parameters: Any, batch: Batch) -> Array:
    """3 x + 4 y: the gradient is (3, 4) and its norm 5."""
    return parameters["x"] @ jnp.array([3.0, 4.0], jnp.float32)


@pytest.mark.parametrize(
    ("optimiser", "expected"),
    [
        (Optimiser(Constant(0.1), optax.identity()), [1.3, 2.4]),
        (Optimiser(Constant(0.1), optax.identity(), max_grad_norm=1.0), [1.06, 2.08]),
        (Optimiser(Constant(0.1), optax.identity(), max_grad_norm=50.0), [1.3, 2.4]),
        (Optimiser(Constant(0.1), optax.identity(), max_grad_value=3.5), [1.3, 2.35]),
        (Optimiser(Constant(0.1), optax.identity(), max_grad_value=50.0), [1.3, 2.4]),
        # The entries first, (2, 2), then the norm.
        (Optimiser(Constant(0.1), optax.identity(), max_grad_norm=1.0, max_grad_value=2.0), [1.0707107, 2.0707107]),
        # Adam's first step is lr * g / (|g| + epsilon), whatever the size of the gradient.
        (Optimiser(Constant(0.1), optax.scale_by_adam(eps=1.0)), [1.0 + 0.1 * 3 / 4, 2.0 + 0.1 * 4 / 5]),
        # RMSprop's is lr * g / (sqrt(0.01 g^2) + epsilon).
        (
            Optimiser(Constant(0.1), optax.scale_by_rms(decay=0.99, eps=0.1, eps_in_sqrt=False)),
            [1.0 + 0.1 * 3 / 0.4, 2.0 + 0.1 * 4 / 0.5],
        ),
    ],
)
def test_one_step_of_ascent(optimiser: Optimiser, expected: list[float]) -> None:
    solved, _, record = solve(Ascent(optimiser), problem(slope), start(1.0, 2.0))
    np.testing.assert_allclose(solved, expected, rtol=1e-6)
    assert float(record["grad_norm"]) == pytest.approx(5.0), "the norm before clipping"


@pytest.mark.parametrize(
    ("most", "least", "expected"), [(1.0, -3.5, [1.1, 1.65]), (None, -3.5, [1.3, 1.65]), (3.5, None, [1.3, 1.65])]
)
def test_the_entries_of_a_gradient_have_two_bounds(
    most: float | None, least: float | None, expected: list[float]
) -> None:
    optimiser = Optimiser(Constant(0.1), optax.identity(), max_grad_value=most, min_grad_value=least)
    tilted = problem(lambda parameters, batch: parameters["x"] @ jnp.array([3.0, -4.0], jnp.float32))
    solved, _, _ = solve(Ascent(optimiser), tilted, start(1.0, 2.0))
    np.testing.assert_allclose(solved, expected, rtol=1e-6)


def test_scaling_a_gradient_keeps_its_direction_and_clipping_its_entries_does_not() -> None:
    gradient = jnp.array([3.0, -4.0, 0.0])
    np.testing.assert_allclose(scale_gradient(gradient, 1.0), [0.6, -0.8, 0.0], rtol=1e-6)
    np.testing.assert_array_equal(scale_gradient(gradient, 5.0), gradient)
    np.testing.assert_array_equal(scale_gradient(gradient, 7.0), gradient)
    np.testing.assert_array_equal(clip_gradient(gradient, 1.0), [1.0, -1.0, 0.0])
    np.testing.assert_array_equal(clip_gradient(gradient, 3.5), [3.0, -3.5, 0.0])
    np.testing.assert_array_equal(clip_gradient(gradient, 2.0, -1.5), [2.0, -1.5, 0.0])


@pytest.mark.parametrize("limit", [scale_gradient, clip_gradient])
def test_a_zero_gradient_stays_zero(limit: Callable[[Array, float], Array]) -> None:
    with jax.debug_nans(True):
        np.testing.assert_array_equal(jax.jit(limit)(jnp.zeros(3), 1.0), np.zeros(3))
    adam = Optimiser(Constant(0.1), optax.scale_by_adam(eps=1e-8), max_grad_norm=1.0, max_grad_value=1.0)
    solved, _, record = solve(
        Ascent(adam), problem(lambda parameters, batch: 0.0 * slope(parameters, batch)), start(1.0, 2.0)
    )
    np.testing.assert_array_equal(solved, [1.0, 2.0])
    assert float(record["grad_norm"]) == 0.0


@given(
    st.lists(st.floats(-(2.0**50), 2.0**50, allow_subnormal=False, width=32), min_size=1, max_size=5),
    st.floats(1e-3, 1e3),
)
@settings(max_examples=50, deadline=None)
def test_limits_hold_whatever_the_gradient(entries: list[float], limit: float) -> None:
    gradient = np.asarray(entries, np.float32)
    scaled, clipped = (np.asarray(jax.jit(limiter)(gradient, limit)) for limiter in (scale_gradient, clip_gradient))
    assert np.linalg.norm(scaled) <= limit * (1 + 1e-5)
    assert np.max(np.abs(clipped)) <= np.float32(limit)
    for limited in (scaled, clipped):
        assert np.all(limited * gradient >= 0.0)
        assert np.all(np.abs(limited) <= np.abs(gradient) * (1 + 1e-6))


@pytest.mark.parametrize(
    ("rate", "expected"),
    [(Linear(0.4), 0.1), (Exponential(0.4, 0.1), 0.1 * 4**0.25), (InverseSqrt(0.4, 0.1), 0.4 / 12.25**0.5)],
)
def test_the_learning_rate_follows_what_is_left_of_training(rate: Schedule, expected: float) -> None:
    solver = Ascent(Optimiser(rate, optax.identity()))
    solved, _, _ = solve(solver, problem(slope), start(0.0, 0.0), 0.25)
    np.testing.assert_allclose(solved, [3.0 * expected, 4.0 * expected], rtol=1e-6)


def test_epochs_climb_a_hill_to_its_top() -> None:
    hill = problem(lambda parameters, batch: -jnp.sum(jnp.square(parameters["x"] - jnp.array([1.0, -2.0]))))
    solver = Epochs(Optimiser(Constant(0.25), optax.identity()), n_epochs=20, n_minibatches=2)
    solved, _, record = solve(solver, hill, start(5.0, 5.0))
    # Every step halves the distance.
    np.testing.assert_allclose(solved, [1.0, -2.0], atol=1e-5)
    assert float(record["gradient_steps"]) == 40.0


def test_one_epoch_of_one_minibatch_is_one_step_of_ascent() -> None:
    def curved(parameters: Any, batch: Batch) -> Array:
        return weighted_mean(jnp.sin(parameters["x"][0] * batch.advantages) + parameters["x"][1], batch.weights)

    optimiser = Optimiser(Constant(0.1), optax.scale_by_adam(eps=1e-5), 0.5)
    results = [
        solve(solver, problem(curved, (1.0, 2.0, 3.0)), start(0.3, 0.7))[0]
        for solver in (Ascent(optimiser), Epochs(optimiser, 1, 1))
    ]
    np.testing.assert_allclose(results[0], results[1], atol=1e-7)


@pytest.mark.parametrize(("minibatches", "size"), [(1, 1), (1, 5), (4, 1), (6, 5)])
def test_a_split_holds_every_row_once(minibatches: int, size: int) -> None:
    numbers = np.arange(minibatches * size, dtype=np.float32)
    for seed in range(5):
        parts = jax.jit(split, static_argnums=2)(rows(numbers), jax.random.PRNGKey(seed), minibatches)
        assert parts.advantages.shape == (minibatches, size)
        np.testing.assert_array_equal(np.sort(np.ravel(parts.advantages)), numbers)
        np.testing.assert_array_equal(parts.advantages, parts.returns)
        np.testing.assert_array_equal(parts.features["vector"][..., 0], parts.advantages)


@pytest.mark.parametrize("rows", [1, 2, 7, 64, 2048, PACKED_ROWS, PACKED_ROWS + 3])
def test_a_random_order_holds_every_row_once(rows: int) -> None:
    for seed in range(3):
        order = jax.jit(random_order, static_argnums=1)(jax.random.PRNGKey(seed), rows)
        assert order.dtype == jnp.int32
        np.testing.assert_array_equal(np.sort(order), np.arange(rows))


@pytest.mark.parametrize("rows", [3, 4])
def test_every_order_is_equally_likely(rows: int) -> None:
    draws = 24_000
    orders = jax.jit(jax.vmap(lambda key: random_order(key, rows)))(jax.random.split(KEY, draws))
    _, counts = np.unique(np.asarray(orders), axis=0, return_counts=True)
    n = {3: 6, 4: 24}[rows]
    assert len(counts) == n
    expected = draws / n
    # Chi-squared with n - 1 degrees of freedom: its mean, and five standard deviations.
    assert np.sum(np.square(counts - expected)) / expected < (n - 1) + 5.0 * np.sqrt(2.0 * (n - 1))


def test_rows_whose_random_bits_are_equal_come_in_either_order(monkeypatch: pytest.MonkeyPatch) -> None:
    def equal_but_for_the_mask(key: Array, shape: tuple[int, ...]) -> Array:
        return jnp.zeros(shape, jnp.uint32).at[0].set(key[0])

    monkeypatch.setattr(jax.random, "bits", equal_but_for_the_mask)
    assert random_order(jnp.asarray([0, 0], jnp.uint32), 4).tolist() == [0, 1, 2, 3]
    assert random_order(jnp.asarray([3, 0], jnp.uint32), 4).tolist() == [3, 2, 1, 0]


def test_every_epoch_walks_through_all_rows_in_an_order_of_its_own() -> None:
    """The parameters write down each step's row: after a step x becomes 10 x + row."""

    def write(parameters: Any, batch: Batch) -> Array:
        x = jax.lax.stop_gradient(parameters["x"])
        return jnp.sum(parameters["x"] * (9.0 * x + batch.advantages[0]))

    solver = Epochs(Optimiser(Constant(1.0), optax.identity()), n_epochs=2, n_minibatches=3)
    solved, _, _ = solve(solver, problem(write, (1.0, 2.0, 3.0)), start(0.0))
    digits = f"{int(solved[0]):06d}"
    assert sorted(digits[:3]) == sorted(digits[3:]) == ["1", "2", "3"]
    assert digits[:3] != digits[3:], "with this key the two orders differ"


@pytest.mark.parametrize(("target_kl", "steps"), [(0.5, 1), (1.0, 2), (2.0, 4), (3.0, 5), (100.0, 12)])
def test_the_early_stop_comes_before_the_step_and_ends_all_epochs(target_kl: float, steps: int) -> None:
    """Each step adds 1 to x, and the KL is x: the stop comes at the first x above 1.5 target_kl, in whichever epoch."""
    climb = problem(lambda parameters, batch: parameters["x"][0], kl=lambda parameters, batch: parameters["x"][0])
    solver = Epochs(Optimiser(Constant(1.0), optax.identity()), n_epochs=3, n_minibatches=4, target_kl=target_kl)
    solved, _, record = solve(solver, climb, start(0.0))
    assert solved[0] == steps == float(record["gradient_steps"])
    assert float(record["stopped_early"]) == float(steps < 12)


def test_an_epoch_that_stops_leaves_out_later_ones_although_their_minibatches_might_not_offend() -> None:
    """One row of four offends, wherever the shuffle puts it: what comes before it in the first epoch is all there is."""
    climb = problem(
        lambda parameters, batch: parameters["x"][0],
        (0.0, 0.0, 9.0, 0.0),
        kl=lambda parameters, batch: batch.advantages[0],
    )
    solver = Epochs(Optimiser(Constant(1.0), optax.identity()), n_epochs=3, n_minibatches=4, target_kl=1.0)
    solved, _, record = solve(solver, climb, start(0.0))
    first_epoch = split(rows((0.0, 0.0, 9.0, 0.0)), jax.random.split(KEY, 3)[0], 4).advantages[:, 0]
    assert solved[0] == int(np.argmax(first_epoch)) == float(record["gradient_steps"])


def test_a_stopped_update_leaves_the_optimiser_where_it_was() -> None:
    climb = problem(lambda parameters, batch: parameters["x"][0], kl=lambda parameters, batch: parameters["x"][0])
    adam = Optimiser(Constant(1.0), optax.scale_by_adam(eps=1e-8))
    _, stopped, _ = solve(Epochs(adam, 3, 4, target_kl=1.0), climb, start(0.0))
    _, two_steps, _ = solve(Epochs(adam, 1, 2), climb, start(0.0))
    for one, other in zip(jax.tree.leaves(stopped), jax.tree.leaves(two_steps), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)


def test_without_a_target_nothing_stops() -> None:
    climb = problem(lambda parameters, batch: parameters["x"][0], kl=lambda parameters, batch: jnp.float32(1e9))
    solved, _, record = solve(Epochs(Optimiser(Constant(1.0), optax.identity()), 3, 4), climb, start(0.0))
    assert solved[0] == 12.0
    assert float(record["stopped_early"]) == 0.0


@pytest.mark.parametrize(("recompute", "expected"), [(False, 1.0 + 1.0 + 1.0), (True, 1.0 + 2.0 + 4.0)])
def test_advantages_are_recomputed_by_the_parameters_of_each_epoch(recompute: bool, expected: float) -> None:
    """The estimate is x + 1 in every row and each epoch adds it to x."""
    follow = problem(
        lambda parameters, batch: parameters["x"][0] * weighted_mean(batch.advantages, batch.weights),
        estimate=lambda parameters: rows(jnp.broadcast_to(jax.lax.stop_gradient(parameters["x"][0]) + 1.0, (4,))),
    )
    solver = Epochs(Optimiser(Constant(1.0), optax.identity()), n_epochs=3, n_minibatches=1, recompute=recompute)
    assert solve(solver, follow, start(0.0))[0][0] == expected


def test_recomputing_keeps_the_values_that_the_update_began_with() -> None:
    """The estimated values are x + 1, and each epoch adds to x those of the first estimate: 1."""

    def estimate(parameters: Any) -> Batch:
        values = jnp.broadcast_to(jax.lax.stop_gradient(parameters["x"][0]) + 1.0, (4,))
        return rows([0.0] * 4)._replace(values=values)

    def objective(parameters: Any, batch: Batch) -> Array:
        return parameters["x"][0] * weighted_mean(batch.values, batch.weights)

    solver = Epochs(Optimiser(Constant(1.0), optax.identity()), n_epochs=3, n_minibatches=1, recompute=True)
    assert solve(solver, problem(objective, estimate=estimate), start(0.0))[0][0] == 3.0


def test_the_record_averages_over_what_was_seen_and_takes_the_kl_of_the_last_pass() -> None:
    record = summarise(
        {
            "loss": jnp.array([[1.0, 3.0], [8.0, 99.0]]),
            "approx_kl": jnp.array([[0.1, 0.2], [0.6, 99.0]]),
            "seen": jnp.array([[1.0, 1.0], [1.0, 0.0]]),
            "taken": jnp.array([[1.0, 1.0], [0.0, 0.0]]),
        }
    )
    assert float(record["loss"]) == pytest.approx(4.0)
    assert float(record["approx_kl"]) == pytest.approx(0.6)
    assert float(record["gradient_steps"]) == 2.0
    assert float(record["stopped_early"]) == 1.0


def test_the_divergence_is_the_mean_kl_of_old_to_new_and_its_maximum() -> None:
    """Between normals of deviation 1 it is half of the squared distance of the means."""
    batch = rows([0.0, 0.0])._replace(weights=jnp.array([1.0, 0.0]))

    def distribution(parameters: Any, batch: Batch) -> DiagGaussian:
        mean = jnp.broadcast_to(parameters["x"], (batch.weights.shape[0], 2))
        return DiagGaussian(mean, jnp.zeros_like(mean))

    def nothing(parameters: Any, batch: Batch) -> Any:
        return jnp.zeros(()), {}

    whole = Problem(nothing, nothing, distribution, lambda parameters: batch)
    mean, largest = whole.distance(start(0.0, 0.0), start(1.0, 2.0), batch)
    assert float(mean) == pytest.approx(2.5)
    assert float(largest) == pytest.approx(2.5)
    empty = batch._replace(weights=jnp.zeros(2))
    assert [float(x) for x in whole.distance(start(0.0, 0.0), start(1.0, 2.0), empty)] == [0.0, 0.0]
    other = replace(whole, divergence=lambda old, new, batch: jnp.abs(old.mean - new.mean)[:, 0])
    assert float(other.distance(start(0.0, 0.0), start(1.0, 2.0), batch)[0]) == pytest.approx(1.0)


def test_joint_climbs_the_objective_and_the_critics_loss_by_one_gradient() -> None:
    """2 x for the policy and (y - 3)^2 for the critic: from (0, 0) the joint gradient is (2, 0.5 * 6)."""

    def gain(parameters: Any, batch: Batch) -> Any:
        return 2.0 * parameters["x"][0], {"gain": parameters["x"][0]}

    def loss(parameters: Any, batch: Batch) -> Any:
        return (parameters["x"][0] - 3.0) ** 2, {"loss": parameters["x"][0]}

    whole = Problem(gain, loss, lambda parameters, batch: parameters, lambda parameters: rows([0.0]))  # type: ignore[arg-type]
    solver = Joint(Ascent(Optimiser(Constant(0.1), optax.identity())), vf_coef=0.5)
    both = {"policy": start(0.0), "critic": start(0.0)}
    solved, _, record = solver.solve(whole, both, solver.init(both), jnp.float32(1.0), KEY)
    np.testing.assert_allclose([solved["policy"]["x"][0], solved["critic"]["x"][0]], [0.2, 0.3], rtol=1e-6)
    assert float(record["grad_norm"]) == pytest.approx(13**0.5)
    assert {"gain", "loss"} < set(record)
