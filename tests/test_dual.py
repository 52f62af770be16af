"""The constrained step against its optimality conditions, a search and the paper's dual, in double precision."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array
from jax.flatten_util import ravel_pytree
from test_natural import ALL, KEY, ROWS, distance, experience, first, gaussian, gradient_of, problem_of, softmax

from jumar.distributions import Distribution
from jumar.objectives import surrogate
from jumar.problem import Constraint, Problem
from jumar.solvers import (
    Boundary,
    ConjugateGradient,
    Dense,
    DualStep,
    LineSearch,
    MeanKL,
    PolicySolver,
    Step,
    WithinLimit,
)
from jumar.solvers.dual import Optimum, constrained_optimum
from jumar.trajectory import Batch, weighted_mean

DELTA = 0.02
SHARES = (-3.0, -1.001, -0.999, -0.5, -0.01, 0.0, 0.01, 0.5, 0.999, 1.001, 3.0)
"""The excess, in units of what a step can change the cost by."""


@pytest.fixture(autouse=True)
def double_precision() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


def drawn(seed: int, size: int = 4) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return a positive definite matrix and two gradients."""
    draw = np.random.default_rng(seed)
    root = draw.normal(size=(size, size))
    return root @ root.T + 0.1 * np.eye(size), draw.normal(size=size), draw.normal(size=size)


def solved(f: np.ndarray, g: np.ndarray, b: np.ndarray, c: float, delta: float = DELTA) -> tuple[np.ndarray, Optimum]:
    """Return the step and the optimum that it comes from."""
    x, y = np.linalg.solve(f, g), np.linalg.solve(f, b)
    best = jax.tree.map(np.asarray, constrained_optimum(*map(jnp.asarray, (g @ x, b @ x, b @ y, c)), delta))
    assert all(np.isfinite(part) for part in best)
    return best.alpha * x - best.beta * y, best


def reach(f: np.ndarray, b: np.ndarray) -> float:
    """Return by how much a step can change the cost at most."""
    return float(np.sqrt(2.0 * DELTA * (b @ np.linalg.solve(f, b))))


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("seed", range(12))
def test_the_step_meets_the_conditions_of_optimality_or_is_the_lowest_cost_within_reach(
    seed: int, share: float
) -> None:
    """Feasible, stationary, complementary: for a linear objective and convex constraints that is enough."""
    f, g, b = drawn(seed)
    c = share * reach(f, b)
    d, best = solved(f, g, b, c)
    size = 0.5 * d @ f @ d
    assert size <= DELTA * (1.0 + 1e-9)
    assert best.recovery == (share > 1.0)
    if best.recovery:
        np.testing.assert_allclose(size, DELTA, rtol=1e-9)
        np.testing.assert_allclose(b @ d, -reach(f, b), rtol=1e-9)
        assert best.divergence == best.cost == 0.0
        return
    left = c + b @ d
    assert left <= 1e-12
    assert best.cost >= 0.0
    assert best.divergence > 0.0
    np.testing.assert_allclose(g - best.cost * b, best.divergence * (f @ d), atol=1e-8)
    np.testing.assert_allclose(size, DELTA, rtol=1e-9)
    np.testing.assert_allclose(best.cost * left, 0.0, atol=1e-9)


def paper_s_dual(q: float, r: float, s: float, c: float, delta: float) -> tuple[float, float]:
    """Return the multipliers as the paper's appendix has them, for a maximum: two candidates, each on its interval."""
    a, b = q - r * r / s, 2.0 * delta - c * c / s
    turn = -r / c
    positive = (turn, np.inf) if c > 0.0 else (0.0, turn)  # where nu = (r + lambda c) / s is positive
    zero = (0.0, turn) if c > 0.0 else (turn, np.inf)

    def best_on(interval: tuple[float, float], optimum: float, value: Callable[[float], float]) -> tuple[float, float]:
        low, high = max(interval[0], 0.0), interval[1]
        if low > high:
            return np.inf, np.inf
        where = float(np.clip(optimum, low, high))
        return value(where), where

    with np.errstate(divide="ignore"):
        bound = best_on(positive, np.sqrt(a / b), lambda x: 0.5 * (np.divide(a, x) + b * x) - r * c / s)
        free = best_on(zero, np.sqrt(q / (2.0 * delta)), lambda x: 0.5 * (np.divide(q, x) + 2.0 * delta * x))
    multiplier = min(bound, free)[1]
    return multiplier, max((r + multiplier * c) / s, 0.0) if bound <= free else 0.0


@pytest.mark.parametrize("share", [share for share in SHARES if 0.0 < abs(share) < 1.0])
@pytest.mark.parametrize("seed", range(12))
def test_the_multipliers_are_those_of_the_paper_s_dual(seed: int, share: float) -> None:
    f, g, b = drawn(seed)
    c = share * reach(f, b)
    x, y = np.linalg.solve(f, g), np.linalg.solve(f, b)
    _, best = solved(f, g, b, c)
    np.testing.assert_allclose((best.divergence, best.cost), paper_s_dual(g @ x, b @ x, b @ y, c, DELTA), rtol=1e-7)


def test_all_cases_are_among_those_drawn() -> None:
    cases = {"free": 0, "both bind": 0, "recovery": 0}
    for seed in range(12):
        f, g, b = drawn(seed)
        for share in SHARES:
            _, best = solved(f, g, b, share * reach(f, b))
            cases["recovery" if best.recovery else "both bind" if best.cost > 0.0 else "free"] += 1
    assert min(cases.values()) >= 20
    assert sum(cases.values()) == 12 * len(SHARES)


@pytest.mark.parametrize("share", [-0.5, 0.0, 0.5, 0.9])
@pytest.mark.parametrize("seed", range(4))
def test_no_point_of_a_fine_grid_is_better(seed: int, share: float) -> None:
    f, g, b = drawn(seed, 2)
    c = share * reach(f, b)
    d, _ = solved(f, g, b, c)
    angle, radius = np.meshgrid(np.linspace(0.0, 2.0 * np.pi, 2000), np.linspace(0.0, 1.0, 300))
    disc = np.sqrt(2.0 * DELTA) * radius.ravel() * np.stack([np.cos(angle), np.sin(angle)]).reshape(2, -1)
    points = np.linalg.solve(np.linalg.cholesky(f).T, disc)
    allowed = points[:, c + b @ points <= 0.0]
    assert allowed.shape[1] > 1000
    best = (g @ allowed).max()
    assert best <= g @ d + 1e-12
    assert best >= g @ d - 0.02 * np.sqrt(2.0 * DELTA * (g @ np.linalg.solve(f, g)))


@pytest.mark.parametrize("c", [-1.0, 0.0, 1.0])
def test_a_cost_that_no_step_changes_leaves_the_free_step(c: float) -> None:
    f, g, _ = drawn(0)
    d, best = solved(f, g, np.zeros(4), c)
    x = np.linalg.solve(f, g)
    np.testing.assert_allclose(d, np.sqrt(2.0 * DELTA / (g @ x)) * x, rtol=1e-14)
    assert (best.recovery, best.cost) == (False, 0.0)


@pytest.mark.parametrize("c_share", SHARES)
@pytest.mark.parametrize("factor", [1.0, 0.37, -1.0, -2.1])
def test_gradients_along_one_line(factor: float, c_share: float) -> None:
    """What the objective gains the cost pays, or the other way round; sideways there is nothing to gain."""
    f, _, b = drawn(1)
    g, c = factor * b, c_share * reach(f, b)
    d, _ = solved(f, g, b, c)
    y = np.linalg.solve(f, b)
    most = reach(f, b)
    change = np.clip(-c, -most, most) if factor > 0.0 or c_share > 1.0 else -most
    np.testing.assert_allclose(d, change / (b @ y) * y, atol=1e-9)


@pytest.mark.parametrize("share", SHARES)
def test_nothing_to_gain_leads_to_the_limit_by_the_shortest_way_and_no_further(share: float) -> None:
    f, _, b = drawn(2)
    d, _ = solved(f, np.zeros(4), b, share * reach(f, b))
    y = np.linalg.solve(f, b)
    np.testing.assert_allclose(d, -np.clip(share, 0.0, 1.0) * reach(f, b) / (b @ y) * y, atol=1e-12)


@pytest.mark.parametrize("share", [-0.5, 0.0, 0.5, 2.0])
def test_the_step_does_not_depend_on_the_unit_of_the_cost(share: float) -> None:
    f, g, b = drawn(3)
    steps = [solved(f, g, unit * b, unit * share * reach(f, b))[0] for unit in (1e-9, 1.0, 1e9)]
    np.testing.assert_allclose(steps[0], steps[1], rtol=1e-9)
    np.testing.assert_allclose(steps[2], steps[1], rtol=1e-9)


# -- the step of a policy ---------------------------------------------------------------------------------------------


def constrained(distribution: Callable[..., Distribution], excess: float, costs: Any = None) -> tuple[Problem, Batch]:
    """Return the problem of ``test_natural`` with random cost advantages; weights of 0 hide rows."""
    batch = experience(distribution, first())
    draw = np.random.default_rng(8).normal(size=ROWS) if costs is None else costs
    batch = batch._replace(cost_advantages=jnp.asarray(draw, jnp.float64))

    def cost(at: Distribution, batch: Batch) -> Array:
        paid = surrogate(at.log_prob(batch.actions), batch.log_probs, batch.cost_advantages)
        return weighted_mean(paid, batch.weights)

    return replace(
        problem_of(distribution, batch), constraint=Constraint(cost, jnp.asarray(excess, jnp.float64))
    ), batch


def moved(solver: PolicySolver, problem: Problem, batch: Batch) -> tuple[Array, dict[str, Array]]:
    """Return the change of the flat parameters, and the record."""
    flat, unravel = ravel_pytree(first())
    result = solver.move(problem, flat, unravel, batch, solver.init(first()), ALL, KEY)
    return result.flat - flat, result.about


def cost_gradient(problem: Problem, batch: Batch) -> Array:
    assert problem.constraint is not None
    cost = problem.constraint.cost
    return ravel_pytree(jax.grad(lambda p: cost(problem.distribution(p, batch), batch))(first()))[0]


def growth(problem: Problem, batch: Batch, change: Array) -> float:
    """Return by how much the cost changes."""
    assert problem.constraint is not None
    flat, unravel = ravel_pytree(first())
    old, new = (problem.distribution(unravel(x), batch) for x in (flat, flat + change))
    return float(problem.constraint.cost(new, batch) - problem.constraint.cost(old, batch))


def gain(problem: Problem, batch: Batch, change: Array) -> float:
    """Return by how much the objective changes."""
    flat, unravel = ravel_pytree(first())
    before, after = (problem.policy_objective(unravel(x), batch)[0] for x in (flat, flat + change))
    return float(after - before)


GEOMETRIES = [MeanKL(Dense()), MeanKL(ConjugateGradient(10), 0.1), MeanKL(ConjugateGradient(3), 0.1, 2)]


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("distribution", [softmax, gaussian])
@pytest.mark.parametrize("case", ["far from the limit", "no cost at all", "no cost at all, beyond the limit"])
def test_where_the_cost_does_not_bind_the_step_is_trpo_s(geometry: Any, distribution: Any, case: str) -> None:
    costs = np.zeros(ROWS) if case.startswith("no cost") else None
    problem, batch = constrained(distribution, 1.0 if "beyond" in case else -1e6, costs)
    plain = LineSearch(Step(geometry, Boundary(DELTA)), DELTA)
    own = LineSearch(DualStep(geometry, DELTA), DELTA, acceptance=WithinLimit())
    expected, about = moved(plain, problem, batch)
    found, record = moved(own, problem, batch)
    np.testing.assert_allclose(found, expected, rtol=1e-13)
    assert np.any(found)
    assert record["step_fraction"] == about["step_fraction"]
    assert (record["nu"], record["recovery"]) == (0.0, 0.0)


@pytest.mark.parametrize("share", [0.9, 0.0, -0.9])
def test_where_both_bind_the_step_leads_to_the_limit_at_the_boundary_of_the_region(share: float) -> None:
    """What is good costs something: the free step would raise the cost."""
    costs = experience(softmax, first()).advantages + np.random.default_rng(8).normal(size=ROWS)
    problem, batch = constrained(softmax, 0.0, costs)
    b, geometry = cost_gradient(problem, batch), MeanKL(Dense())
    free, _ = moved(Step(geometry, Boundary(DELTA)), problem, batch)
    assert b @ free > 0.01
    left = share * (b @ free)
    problem = replace(problem, constraint=replace(problem.constraint, excess=-left))
    change, record = moved(DualStep(geometry, DELTA), problem, batch)
    np.testing.assert_allclose(b @ change, left, atol=1e-10)
    np.testing.assert_allclose(record["predicted_cost_change"], left, atol=1e-10)
    np.testing.assert_allclose(record["predicted_improvement"], gradient_of(problem, batch, first()) @ change)
    assert record["nu"] > 0.0
    assert record["lambda"] > 0.0
    assert distance(problem, batch, 1e-3 * change) == pytest.approx(1e-6 * DELTA, rel=1e-2)


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("distribution", [softmax, gaussian])
@pytest.mark.parametrize("excess", [-0.05, -0.005, 0.0, 0.005, 10.0])
def test_a_step_that_is_taken_keeps_the_region_and_the_limit_and_is_better(
    geometry: Any, distribution: Any, excess: float
) -> None:
    problem, batch = constrained(distribution, excess)
    change, record = moved(LineSearch(DualStep(geometry, DELTA), DELTA, acceptance=WithinLimit()), problem, batch)
    assert record["step_fraction"] > 0.0
    assert 0.0 < distance(problem, batch, change) <= DELTA
    assert growth(problem, batch, change) <= max(-excess, 0.0)
    if excess <= 0.0:
        assert gain(problem, batch, change) > 0.0
    else:
        assert growth(problem, batch, change) < 0.0
    assert record["recovery"] == (excess == 10.0)


def test_the_recovery_goes_straight_down_the_cost_to_the_boundary() -> None:
    problem, batch = constrained(softmax, 10.0)
    geometry = MeanKL(ConjugateGradient(10), 0.1)
    change, record = moved(DualStep(geometry, DELTA), problem, batch)
    downhill = replace(problem, gain=lambda at, rows: (-problem.constraint.cost(at, rows), {}))
    expected, _ = moved(Step(geometry, Boundary(DELTA)), downhill, batch)
    np.testing.assert_allclose(change, expected, rtol=1e-12)
    assert (record["recovery"], record["nu"], record["lambda"]) == (1.0, 0.0, 0.0)


class Cliff:
    """A function of distributions whose gradient promises what no step keeps: it falls in every direction."""

    def __init__(self, sign: float, start: Distribution) -> None:
        self.sign, self.start = sign, start

    def __call__(self, at: Any) -> Array:
        away = at.logits - self.start.logits
        return self.sign * (jnp.sum(away * jnp.arange(4.0)) - 1e6 * jnp.sum(jnp.abs(jax.lax.stop_gradient(away))))


@pytest.mark.parametrize("what", ["objective", "cost", "cost beyond the limit", "distance"])
def test_a_step_that_breaks_a_promise_changes_no_bit(what: str) -> None:
    problem, batch = constrained(softmax, 1e-4 if what.endswith("limit") else -1e-4)
    start = softmax(first(), batch)
    if what == "objective":
        falling = Cliff(1.0, start)
        problem = replace(problem, gain=lambda at, rows: (falling(at), {}))
    elif what == "distance":
        problem = replace(problem, divergence=lambda *both: jnp.full(ROWS, np.inf))
    else:
        rising = Cliff(-1.0, start)
        problem = replace(problem, constraint=replace(problem.constraint, cost=lambda at, rows: rising(at)))
    flat, unravel = ravel_pytree(first())
    solver = LineSearch(DualStep(MeanKL(Dense()), DELTA), DELTA, most=5, acceptance=WithinLimit())
    result = solver.move(problem, flat, unravel, batch, solver.init(first()), ALL, KEY)
    assert np.array_equal(result.flat, flat)
    assert (result.about["step_fraction"], result.about["line_search_tries"]) == (0.0, 5.0)


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("excess", [-1.0, 1.0])
@pytest.mark.parametrize(
    "changes",
    [
        {"cost_advantages": jnp.full(ROWS, np.nan)},
        {"cost_advantages": jnp.full(ROWS, np.inf)},
        {"advantages": jnp.full(ROWS, np.nan)},
        {"weights": jnp.zeros(ROWS)},
        {"advantages": jnp.zeros(ROWS), "cost_advantages": jnp.zeros(ROWS)},
    ],
)
def test_what_is_no_number_or_nothing_gives_no_step_and_no_nan(geometry: Any, excess: float, changes: Any) -> None:
    problem, batch = constrained(softmax, excess)
    for solver in (DualStep(geometry, DELTA), LineSearch(DualStep(geometry, DELTA), DELTA, acceptance=WithinLimit())):
        change, record = moved(solver, problem, batch._replace(**changes))
        assert not np.any(change)
        assert record["step_norm"] == 0.0
        assert record["predicted_cost_change"] == 0.0


def test_a_problem_without_a_constraint_is_no_problem_of_this_solver() -> None:
    problem, batch = constrained(softmax, 0.0)
    with pytest.raises(ValueError, match="has no constraint"):
        moved(DualStep(MeanKL(Dense()), DELTA), replace(problem, constraint=None), batch)
