"""The constrained step against its optimality conditions, a search and the paper's dual, in double precision."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array
from jax.flatten_util import ravel_pytree
from test_natural import ALL, KEY, ROWS, experience, first, gaussian, problem_of, softmax

from jumar.policies.distributions import Distribution
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
from jumar.solvers.objectives import surrogate
from jumar.solvers.problem import Constraint
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


@jax.jit
def optimum(*arguments: Any) -> Optimum:
    return constrained_optimum(*map(jnp.asarray, arguments))


def solved(f: np.ndarray, g: np.ndarray, b: np.ndarray, c: float, delta: float = DELTA) -> tuple[np.ndarray, Optimum]:
    """Return the step and the optimum that it comes from."""
    x, y = np.linalg.solve(f, g), np.linalg.solve(f, b)
    best = jax.tree.map(np.asarray, optimum(g @ x, b @ x, b @ y, c, delta))
    assert all(np.isfinite(part) for part in best)
    return best.alpha * x - best.beta * y, best


def reach(f: np.ndarray, b: np.ndarray) -> float:
    """Return by how much a step can change the cost at most."""
    return float(np.sqrt(2.0 * DELTA * (b @ np.linalg.solve(f, b))))


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("seed", range(8))
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
@pytest.mark.parametrize("seed", range(8))
def test_the_multipliers_are_those_of_the_paper_s_dual(seed: int, share: float) -> None:
    f, g, b = drawn(seed)
    c = share * reach(f, b)
    x, y = np.linalg.solve(f, g), np.linalg.solve(f, b)
    _, best = solved(f, g, b, c)
    expected = paper_s_dual(float(g @ x), float(b @ x), float(b @ y), c, DELTA)
    np.testing.assert_allclose((best.divergence, best.cost), expected, rtol=1e-7)


def test_all_cases_are_among_those_drawn() -> None:
    cases = {"free": 0, "both bind": 0, "recovery": 0}
    for seed in range(8):
        f, g, b = drawn(seed)
        for share in SHARES:
            _, best = solved(f, g, b, share * reach(f, b))
            cases["recovery" if best.recovery else "both bind" if best.cost > 0.0 else "free"] += 1
    assert min(cases.values()) >= 16
    assert sum(cases.values()) == 8 * len(SHARES)


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


def cost(at: Distribution, batch: Batch) -> Array:
    paid = surrogate(at.log_prob(batch.actions), batch.log_probs, batch.cost_advantages)
    return weighted_mean(paid, batch.weights)


def costly(distribution: Callable[..., Distribution], **changes: Any) -> Batch:
    """Return the experience of ``test_natural``, in which what pays costs something; weights of 0 hide rows."""
    batch = experience(distribution, first())
    costs = batch.advantages + jnp.asarray(np.random.default_rng(8).normal(size=ROWS))
    return batch._replace(cost_advantages=costs)._replace(**changes)


class Result(NamedTuple):
    """A step of a policy."""

    change: Array
    """Of the flat parameters."""
    about: dict[str, Array]
    cost_gradient: Array
    divergence: Array
    growth: Array
    """By how much the cost changes."""
    gain: Array
    """By how much the objective does."""


@lru_cache
def program(solver: PolicySolver, distribution: Callable[..., Distribution]) -> Callable[[Batch, Array], Result]:
    """Return (batch, excess) -> what the solver does, compiled once for all cases."""
    flat, unravel = ravel_pytree(first())

    def move(batch: Batch, excess: Array) -> Result:
        problem = replace(problem_of(distribution, batch), constraint=Constraint(cost, excess))
        moved = solver.move(problem, flat, unravel, batch, solver.init(first()), ALL, KEY)
        old, new = (distribution(unravel(x), batch) for x in (flat, moved.flat))
        return Result(
            change=moved.flat - flat,
            about=moved.about,
            cost_gradient=jax.grad(lambda x: cost(distribution(unravel(x), batch), batch))(flat),
            divergence=problem.distance(unravel(flat), unravel(moved.flat), batch)[0],
            growth=cost(new, batch) - cost(old, batch),
            gain=problem.gain(new, batch)[0] - problem.gain(old, batch)[0],
        )

    return jax.jit(move)


def moved(
    solver: PolicySolver, excess: float, distribution: Callable[..., Distribution] = softmax, **changes: Any
) -> Result:
    """Move once, with some fields of the batch changed."""
    return jax.device_get(program(solver, distribution)(costly(distribution, **changes), jnp.asarray(excess)))


def searching(geometry: Any, **settings: Any) -> LineSearch:
    return LineSearch(DualStep(geometry, DELTA), DELTA, acceptance=WithinLimit(), **settings)


EXACT, TRUNCATED = MeanKL(Dense()), MeanKL(ConjugateGradient(3), 0.1, 2)


@pytest.mark.parametrize(("geometry", "distribution"), [(EXACT, softmax), (TRUNCATED, gaussian)])
@pytest.mark.parametrize("case", ["far from the limit", "no cost at all", "no cost at all, beyond the limit"])
def test_where_the_cost_does_not_bind_the_step_is_trpo_s(geometry: Any, distribution: Any, case: str) -> None:
    changes = {"cost_advantages": jnp.zeros(ROWS)} if case.startswith("no cost") else {}
    excess = 1.0 if "beyond" in case else -1e6
    expected = moved(LineSearch(Step(geometry, Boundary(DELTA)), DELTA), excess, distribution, **changes)
    found = moved(searching(geometry), excess, distribution, **changes)
    np.testing.assert_allclose(found.change, expected.change, rtol=1e-12)
    assert found.about["step_fraction"] == expected.about["step_fraction"] > 0.0
    assert (found.about["nu"], found.about["recovery"]) == (0.0, 0.0)


@pytest.mark.parametrize("share", [0.9, 0.0, -0.9])
def test_where_both_bind_the_step_leads_to_the_limit_at_the_boundary_of_the_region(share: float) -> None:
    free = moved(DualStep(EXACT, DELTA), -1e6)
    most = float(free.about["predicted_cost_change"])
    assert most > 0.01, "the step without a limit raises the cost"
    found = moved(DualStep(EXACT, DELTA), -share * most)
    np.testing.assert_allclose(found.about["predicted_cost_change"], share * most, atol=1e-10)
    np.testing.assert_allclose(found.cost_gradient @ found.change, share * most, atol=1e-10)
    assert 0.0 < found.about["predicted_improvement"] < free.about["predicted_improvement"]
    assert found.about["nu"] > 0.0
    assert found.about["lambda"] > 0.0
    # The change of the cost over a tenth of a hundredth of the way is that of the gradient, the divergence that of F.
    tiny = moved(DualStep(EXACT, DELTA * 1e-6), -share * most * 1e-3)
    np.testing.assert_allclose(tiny.change, 1e-3 * found.change, rtol=1e-6)
    np.testing.assert_allclose(tiny.divergence, DELTA * 1e-6, rtol=1e-2)
    np.testing.assert_allclose(tiny.growth, share * most * 1e-3, rtol=1e-2, atol=1e-7)


@pytest.mark.parametrize(("geometry", "distribution"), [(EXACT, softmax), (TRUNCATED, gaussian)])
@pytest.mark.parametrize("excess", [-0.05, -0.005, 0.005, 10.0])
def test_a_step_that_is_taken_keeps_the_region_and_the_limit_and_is_better(
    geometry: Any, distribution: Any, excess: float
) -> None:
    found = moved(searching(geometry), excess, distribution)
    assert found.about["step_fraction"] > 0.0
    assert 0.0 < found.divergence <= DELTA
    assert found.growth <= max(-excess, 0.0)
    assert found.gain > 0.0 if excess < 0.0 else found.growth < 0.0
    assert found.about["recovery"] == (excess == 10.0)


def test_the_recovery_goes_straight_down_the_cost_to_the_boundary_of_the_divergence() -> None:
    geometry = MeanKL(ConjugateGradient(10), 0.1)
    found = moved(DualStep(geometry, DELTA), 10.0)
    downhill = moved(Step(geometry, Boundary(DELTA)), 10.0, advantages=-costly(softmax).cost_advantages)
    np.testing.assert_allclose(found.change, downhill.change, rtol=1e-12)
    assert [found.about[name] for name in ("recovery", "nu", "lambda")] == [1.0, 0.0, 0.0]


def cliff(at: Any, start: Any, sign: float) -> Array:
    """Return what promises to change along its gradient, and falls (or rises) however it is left."""
    away = at.logits - start.logits
    return sign * (jnp.sum(away * jnp.arange(4.0)) - 1e6 * jnp.sum(jnp.abs(jax.lax.stop_gradient(away))))


@pytest.mark.parametrize("what", ["objective", "cost", "cost beyond the limit", "distance"])
def test_a_step_that_breaks_a_promise_changes_no_bit(what: str) -> None:
    batch, excess = costly(softmax), jnp.asarray(1e-4 if what.endswith("limit") else -1e-4)
    problem, start = replace(problem_of(softmax, batch), constraint=Constraint(cost, excess)), softmax(first(), batch)
    if what == "objective":
        problem = replace(problem, gain=lambda at, rows: (cliff(at, start, 1.0), {}))
    elif what == "distance":
        problem = replace(problem, divergence=lambda *_: jnp.full(ROWS, np.inf))
    else:
        problem = replace(problem, constraint=Constraint(lambda at, rows: cliff(at, start, -1.0), excess))
    flat, unravel = ravel_pytree(first())
    solver = searching(EXACT, most=5)
    result = jax.jit(lambda flat: solver.move(problem, flat, unravel, batch, (), ALL, KEY))(flat)
    assert np.array_equal(result.flat, flat)
    assert (result.about["step_fraction"], result.about["line_search_tries"]) == (0.0, 5.0)


@pytest.mark.parametrize("solver", [DualStep(EXACT, DELTA), searching(TRUNCATED)])
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
def test_what_is_no_number_or_nothing_gives_no_step_and_no_nan(solver: Any, excess: float, changes: Any) -> None:
    found = moved(solver, excess, **{name: x.astype(jnp.float64) for name, x in changes.items()})
    assert not np.any(found.change)
    assert found.about["step_norm"] == 0.0
    assert found.about["predicted_cost_change"] == 0.0


def test_a_problem_without_a_constraint_is_no_problem_of_this_solver() -> None:
    batch, (flat, unravel) = costly(softmax), ravel_pytree(first())
    with pytest.raises(ValueError, match="has no constraint"):
        DualStep(EXACT, DELTA).move(problem_of(softmax, batch), flat, unravel, batch, (), ALL, KEY)
