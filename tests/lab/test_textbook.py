"""The book's updates: against a transcription of its algorithms, by hand, and at the edges where the book divides by 0."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array

from jumar.errors import UsageError
from jumar.lab import regulator, tabular, textbook
from jumar.lab.exact_tabular import ExactTabular
from jumar.lab.families import softmax
from jumar.lab.gradients import trajectory_fisher
from jumar.lab.iterated_ascent import Update, ascend
from jumar.lab.local_models import (
    ExactRegulator,
    Known,
    LocalModel,
    RegulatorProcess,
    Sampled,
    TabularProcess,
    above_the_mean,
    advantage,
    reward_to_go,
    whole_return,
)
from jumar.lab.regulator import Regulator
from jumar.lab.rollouts import Rollouts
from jumar.lab.textbook import (
    ClampedSurrogateUpdate,
    NaturalPolicyGradient,
    PolicyGradientUpdate,
    RestrictedPolicyGradient,
    TrustRegionUpdate,
)
from jumar.schedules import Linear

pytestmark = pytest.mark.usefixtures("double_precision")

PROBLEM = Regulator(gamma=0.9, depth=4)
PROCESS = RegulatorProcess(PROBLEM)
THETA = (-0.4, 0.3)
KEY = jax.random.PRNGKey(0)
M = 5


def theta() -> Array:
    return jnp.array(THETA)


# -- the book's code, line by line -------------------------------------------------------------------------------------


class Book:
    """Algorithms 12.3 to 12.6 on given rollouts, in plain NumPy; a trajectory is a list of (s, a, r)."""

    def __init__(self, rollouts: Rollouts) -> None:
        arrays = (np.asarray(x) for x in rollouts)
        self.taus = [list(zip(*rows, strict=True)) for rows in zip(*arrays, strict=True)]
        self.gamma = PROBLEM.gamma

    def grad_log(self, theta: np.ndarray, a: float, s: float) -> np.ndarray:
        sigma = abs(theta[1]) + 1e-5
        off = a - theta[0] * s
        return np.array([off * s / sigma**2, np.sign(theta[1]) * (off**2 - sigma**2) / sigma**3])

    def p(self, theta: np.ndarray, a: float, s: float) -> float:
        sigma = abs(theta[1]) + 1e-5
        return np.exp(-0.5 * ((a - theta[0] * s) / sigma) ** 2) / (sigma * np.sqrt(2.0 * np.pi))

    def kl(self, old: np.ndarray, new: np.ndarray, s: float) -> float:
        sigmas = abs(old[1]) + 1e-5, abs(new[1]) + 1e-5
        off = (old[0] - new[0]) * s
        return np.log(sigmas[1] / sigmas[0]) + (sigmas[0] ** 2 + off**2) / (2.0 * sigmas[1] ** 2) - 0.5

    def to_go(self, tau: list, j: int) -> float:
        return sum(r * self.gamma ** (k - 1) for k, (_, _, r) in enumerate(tau[j - 1 :], start=j))

    def gradient(self, theta: np.ndarray) -> np.ndarray:
        return np.mean([self.log_of(theta, tau) * self.to_go(tau, 1) for tau in self.taus], axis=0)

    def log_of(self, theta: np.ndarray, tau: list) -> np.ndarray:
        return np.sum([self.grad_log(theta, a, s) for s, a, _ in tau], axis=0)

    def restricted(self, theta: np.ndarray, epsilon: float) -> np.ndarray:
        u = self.gradient(theta)
        return theta + u * np.sqrt(2.0 * epsilon / (u @ u))

    def natural(self, theta: np.ndarray, epsilon: float) -> np.ndarray:
        logs = [self.log_of(theta, tau) for tau in self.taus]
        u = np.linalg.solve(np.mean([np.outer(x, x) for x in logs], axis=0), self.gradient(theta))
        return theta + u * np.sqrt(2.0 * epsilon / (self.gradient(theta) @ u))

    def objective(self, old: np.ndarray, new: np.ndarray) -> float:
        rows = [
            [self.p(new, a, s) / self.p(old, a, s) * self.to_go(tau, k) for k, (s, a, _) in enumerate(tau, start=1)]
            for tau in self.taus
        ]
        return float(np.mean(rows))

    def constraint(self, old: np.ndarray, new: np.ndarray) -> float:
        rows = [
            [self.kl(old, new, s) * self.gamma ** (k - 1) for k, (s, _, _) in enumerate(tau, start=1)]
            for tau in self.taus
        ]
        return float(np.mean(rows))

    def trust_region(self, theta: np.ndarray, epsilon: float, alpha: float) -> tuple[np.ndarray, int]:
        new, shrinks = self.natural(theta, epsilon), 0
        while self.constraint(theta, new) > epsilon or self.objective(theta, new) <= self.objective(theta, theta):
            new, shrinks = theta + alpha * (new - theta), shrinks + 1
        return new, shrinks

    def clamped_gradient(self, old: np.ndarray, new: np.ndarray, epsilon: float) -> np.ndarray:
        def of(a: float, s: float, to_go: float) -> np.ndarray:
            likelihood = self.p(old, a, s)
            w = self.p(new, a, s) / likelihood
            if (to_go > 0 and w > 1.0 + epsilon) or (to_go < 0 and w < 1.0 - epsilon):
                return np.zeros(2)
            return self.p(new, a, s) * self.grad_log(new, a, s) * to_go / likelihood

        rows = [[of(a, s, self.to_go(tau, k)) for k, (s, a, _) in enumerate(tau, start=1)] for tau in self.taus]
        return np.mean(rows, axis=(0, 1))

    def clamped(self, theta: np.ndarray, epsilon: float, alpha: float, k_max: int) -> np.ndarray:
        new = theta.copy()
        for _ in range(k_max):
            new += alpha * self.clamped_gradient(theta, new, epsilon)
        return new


@functools.cache
def drawn(seed: int) -> tuple[Rollouts, Book]:
    rollouts = jax.jit(PROCESS.draw, static_argnums=2)(theta(), jax.random.PRNGKey(seed), M)
    return rollouts, Book(rollouts)


def stepped(update: Callable[[Array, LocalModel], object], seed: int) -> object:
    """The update's step in the model of the rollouts of a seed, as one program."""
    rollouts, _ = drawn(seed)
    return jax.jit(lambda theta, rollouts: update(theta, Sampled(PROCESS, M).of_rollouts(theta, rollouts)))(
        theta(), rollouts
    )


def test_the_model_and_the_natural_step_are_those_of_the_book() -> None:
    rollouts, book = drawn(1)
    new = jnp.array([-0.6, 0.25])

    @jax.jit
    def facts(theta: Array, rollouts: Rollouts) -> tuple[Array, ...]:
        local = Sampled(PROCESS, M).of_rollouts(theta, rollouts)
        natural = NaturalPolicyGradient(Sampled(PROCESS, M), 0.05).step(theta, local)
        return local.gradient, local.objective(new), local.constraint(new), local.penalised(new, 3.0), natural.theta

    gradient, objective, constraint, penalised, natural = facts(theta(), rollouts)
    at = np.array(THETA)
    np.testing.assert_allclose(gradient, book.gradient(at), rtol=1e-9)
    np.testing.assert_allclose(objective, book.objective(at, np.asarray(new)), rtol=1e-9)
    np.testing.assert_allclose(constraint, book.constraint(at, np.asarray(new)), rtol=1e-9)
    np.testing.assert_allclose(penalised, objective - 3.0 * constraint, rtol=1e-12)
    np.testing.assert_allclose(natural, book.natural(at, 0.05), rtol=1e-9)


def test_the_restricted_step_is_that_of_the_book() -> None:
    found = RestrictedPolicyGradient(Sampled(PROCESS, M), 0.02).update(theta(), jax.random.PRNGKey(1))
    _, book = drawn(1)  # the same key, so the same rollouts
    np.testing.assert_allclose(found.theta, book.restricted(np.array(THETA), 0.02), rtol=1e-9)
    np.testing.assert_allclose(np.linalg.norm(found.theta - theta()), 0.2, rtol=1e-12)


@pytest.mark.parametrize(("epsilon", "shrink", "least"), [(0.1, 0.5, 0), (1.0, 0.5, 1), (3.0, 0.9, 2)])
def test_the_trust_region_step_is_that_of_the_book(epsilon: float, shrink: float, least: int) -> None:
    update = TrustRegionUpdate(Sampled(PROCESS, M), epsilon, shrink)
    found = stepped(update.step, 2)
    assert isinstance(found, textbook.TrustRegionUpdated)
    expected, times = drawn(2)[1].trust_region(np.array(THETA), epsilon, shrink)
    np.testing.assert_allclose(found.theta, expected, rtol=1e-9)
    assert (found.shrinks, found.accepted) == (times, True)
    assert times >= least
    np.testing.assert_allclose(found.constraint, drawn(2)[1].constraint(np.array(THETA), expected), rtol=1e-8)
    assert found.objective > found.objective_before


def test_the_clamped_steps_are_those_of_the_book() -> None:
    update = ClampedSurrogateUpdate(Sampled(PROCESS, M), 0.2, 0.4, k_max=6)
    found = stepped(update.step, 3)
    assert isinstance(found, textbook.ClampedUpdated)
    _, book = drawn(3)
    at = np.array(THETA)
    expected = book.clamped(at, 0.2, 0.4, 6)
    np.testing.assert_allclose(found.theta, expected, rtol=1e-9)
    assert np.abs(expected - book.clamped(at, 1e9, 0.4, 6)).max() > 1e-3  # so the clamp has had a part in it


# -- estimates and exact models ----------------------------------------------------------------------------------------


def test_estimates_have_the_exact_quantities_as_their_expectations() -> None:
    groups, m, new = 40, 500, jnp.array([-0.5, 0.33])

    def facts(local: LocalModel) -> dict[str, Array]:
        return {
            "gradient": local.gradient,
            "fisher": local.fisher,
            "objective": local.objective(new),
            "constraint": local.constraint(new),
            "clamped": local.clamped(new, 0.2),
        }

    def sampled(key: Array) -> dict[str, Array]:
        rollouts = PROCESS.draw(theta(), key, m)
        others = {
            f"gradient {name}": Sampled(PROCESS, m, signal).of_rollouts(theta(), rollouts).gradient
            for name, signal in (("to go", reward_to_go), ("mean", above_the_mean), ("advantage", advantage))
        }
        return {**facts(Sampled(PROCESS, m, whole_return).of_rollouts(theta(), rollouts)), **others}

    found = jax.tree.map(np.asarray, jax.jit(jax.vmap(sampled))(jax.random.split(KEY, groups)))
    exact = jax.jit(lambda theta: facts(ExactRegulator(PROBLEM).at(theta, KEY)))(theta())
    for name, each in found.items():
        expected = exact[name.split()[0]] * (1.0 - 1.0 / m if name.endswith("mean") else 1.0)
        error = np.abs(each.mean(0) - expected)
        np.testing.assert_array_less(error, 4.5 * each.std(0) / np.sqrt(groups) + 1e-12, err_msg=name)
    spread = {name: each.std(0).max() for name, each in found.items()}
    assert spread["gradient advantage"] < spread["gradient to go"] < spread["gradient"]


MDP = tabular.TabularMDP.of(
    transitions=[[[0.7, 0.3], [0.2, 0.8]], [[0.5, 0.5], [0.9, 0.1]]],
    rewards=[[1.0, -0.5], [0.3, 2.0]],
    initial=[0.6, 0.4],
    gamma=0.9,
    horizon=3,
)
TABULAR = TabularProcess(MDP, softmax(MDP))
FLAT = (0.3, -0.2, 0.5, 0.1)


def test_a_tabular_process_is_sampled_with_its_exact_quantities_as_expectations() -> None:
    groups, m, new = 40, 500, jnp.array([0.5, -0.1, 0.1, 0.3])

    def facts(local: LocalModel) -> tuple[Array, ...]:
        return local.gradient, local.fisher, local.objective(new), local.constraint(new)

    sampled = jax.jit(jax.vmap(lambda key: facts(Sampled(TABULAR, m).at(jnp.array(FLAT), key))))
    exact = jax.jit(lambda flat: facts(ExactTabular(TABULAR).at(flat, KEY)))(jnp.array(FLAT))
    for each, expected in zip(sampled(jax.random.split(KEY, groups)), exact, strict=True):
        each = np.asarray(each)
        np.testing.assert_array_less(np.abs(each.mean(0) - expected), 4.5 * each.std(0) / np.sqrt(groups) + 1e-12)


def test_the_exact_objectives_of_a_tabular_process_begin_with_the_gradient() -> None:
    @jax.jit
    def facts(flat: Array) -> tuple[Array, ...]:
        by_values, by_advantages = (ExactTabular(TABULAR, x).at(flat, KEY) for x in (False, True))
        slopes = [jax.grad(f)(flat) for f in (by_values.objective, by_advantages.objective)]
        clamped = [jax.grad(lambda new, x=x: x.clamped(new, 0.2))(flat) for x in (by_values, by_advantages)]
        far = flat.at[0].add(2.0)  # far beyond a ratio of 0.8 for the second action of state 0
        lost = by_advantages.objective(far) - by_advantages.clamped(far, 0.2)
        return (
            by_values.gradient,
            jnp.stack(slopes + clamped),
            lost,
            by_advantages.clamped(far, 1e9) - by_advantages.objective(far),
        )

    gradient, slopes, lost, none = facts(jnp.array(FLAT))
    for slope in slopes:
        np.testing.assert_allclose(3.0 * slope, gradient, rtol=1e-9, atol=1e-12)
    assert lost > 1e-3
    np.testing.assert_allclose(none, 0.0, atol=1e-12)


def test_the_natural_step_in_a_tabular_process_with_its_singular_fisher_matrix() -> None:
    model = ExactTabular(TABULAR)
    found = NaturalPolicyGradient(model, 0.01).update(jnp.array(FLAT), KEY)
    change = np.asarray(found.theta - jnp.array(FLAT))
    fisher = trajectory_fisher(MDP, TABULAR.family, jnp.array(FLAT), 3)
    np.testing.assert_allclose(0.5 * change @ fisher @ change, 0.01, rtol=1e-9)
    np.testing.assert_allclose(change.reshape(2, 2).sum(1), 0.0, atol=1e-12)  # of least norm


# -- by hand, and at the edges -----------------------------------------------------------------------------------------


def known(gradient: list[float], **functions: Callable) -> Known:
    fisher = functions.pop("fisher", lambda theta, key: jnp.diag(jnp.array([1.0, 4.0])))
    return Known(lambda theta, key: jnp.array(gradient), fisher=fisher, **functions)


def test_scaling_keeps_the_direction_and_clipping_does_not() -> None:
    model, start = known([3.0, -4.0]), jnp.array([1.0, 1.0])

    def led(**limits: object) -> Array:
        return PolicyGradientUpdate(model, 0.1, **limits).update(start, KEY).theta  # type: ignore[arg-type]

    np.testing.assert_allclose(led(), [1.3, 0.6])
    np.testing.assert_allclose(led(max_norm=1.0), [1.06, 0.92])
    np.testing.assert_allclose(led(bounds=(-1.0, 2.0)), [1.2, 0.9])
    np.testing.assert_allclose(led(max_norm=10.0, bounds=(-5.0, 5.0)), [1.3, 0.6])


def test_the_natural_step_by_hand() -> None:
    """u = (3, -1), g'u = 13, and the step is u sqrt(2 * 0.065 / 13) = u / 10."""
    found = NaturalPolicyGradient(known([3.0, -4.0]), 0.065).update(jnp.array([1.0, 1.0]), KEY)
    np.testing.assert_allclose(found.direction, [3.0, -1.0])
    np.testing.assert_allclose(found.theta, [1.3, 0.9])


def line(objective: Callable[[Array], Array]) -> Known:
    """One parameter, from 0; the natural step with epsilon 0.5 leads to 1, and the constraint is x^2."""
    return Known(
        lambda theta, key: jnp.ones(1),
        fisher=lambda theta, key: jnp.eye(1),
        objective=lambda theta, new: objective(new[0]),
        constraint=lambda theta, new: new[0] ** 2,
    )


@pytest.mark.parametrize(
    ("objective", "theta", "shrinks"),
    [
        (lambda x: x, 0.5, 1),  # at 1 the constraint is broken
        (lambda x: x - 3.0 * x**2, 0.25, 2),  # at 0.5 nothing is gained
    ],
)
def test_the_line_search_halves_the_step(objective: Callable[[Array], Array], theta: float, shrinks: int) -> None:
    found = TrustRegionUpdate(line(objective), 0.5).update(jnp.zeros(1), KEY)
    np.testing.assert_allclose([found.theta[0], found.whole[0]], [theta, 1.0], rtol=1e-12)
    assert (found.shrinks, found.accepted) == (shrinks, True)


@pytest.mark.parametrize("objective", [lambda x: -x, lambda x: 0.0 * x, lambda x: jnp.nan * x])
def test_a_line_search_without_end_ends_where_it_began(objective: Callable[[Array], Array]) -> None:
    start = jnp.array([0.1])
    found = TrustRegionUpdate(line(objective), 0.5, most=7).update(start, KEY)
    np.testing.assert_array_equal(found.theta, start)
    assert (found.shrinks, found.accepted) == (6, False)


def updates(model: Known) -> list[Update]:
    return [
        PolicyGradientUpdate(model, 0.1, max_norm=1.0),
        PolicyGradientUpdate(model, 0.1, bounds=(-1.0, 1.0)),
        RestrictedPolicyGradient(model, 0.1),
        NaturalPolicyGradient(model, 0.1),
        TrustRegionUpdate(model, 0.1),
        ClampedSurrogateUpdate(model, 0.2, 0.1, k_max=3),
    ]


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
def test_no_gradient_and_gradients_that_are_not_finite_leave_the_parameters_as_they_are(value: float) -> None:
    model = known(
        [value, 0.0],
        objective=lambda theta, new: value * jnp.sum(new),
        constraint=lambda theta, new: jnp.sum((new - theta) ** 2),
        clamped=lambda theta, new, epsilon: value * jnp.sum(new),
    )
    start = jnp.array([0.7, -0.3])
    for update in updates(model):
        np.testing.assert_array_equal(update.update(start, KEY).theta, start, err_msg=type(update).__name__)


def test_one_rollout_has_a_singular_fisher_matrix_and_a_finite_step() -> None:
    """F = x x' and g = R x for the one score x, so that the step is along x and its quadratic divergence epsilon."""
    found = NaturalPolicyGradient(Sampled(PROCESS, 1), 0.1).update(theta(), KEY)
    change = found.theta - theta()
    score = found.gradient / np.linalg.norm(found.gradient)
    np.testing.assert_allclose(change / np.linalg.norm(change), score, rtol=1e-9)


def test_what_makes_no_sense_is_refused() -> None:
    model = known([1.0, 0.0])
    for make, words in (
        (lambda: Sampled(PROCESS, 0), "m=0 must be at least 1"),
        (lambda: PolicyGradientUpdate(model, 0.1, max_norm=0.0), "max_norm=0.0 must be above 0"),
        (lambda: PolicyGradientUpdate(model, 0.1, bounds=(1.0, -1.0)), r"bounds=\(1.0, -1.0\) must be a lower and"),
        (lambda: RestrictedPolicyGradient(model, -1.0), "epsilon=-1.0 must be above 0"),
        (lambda: NaturalPolicyGradient(model, np.nan), "epsilon=nan must be above 0"),
        (lambda: TrustRegionUpdate(model, 0.1), "the model has no objective"),
        (lambda: TrustRegionUpdate(line(lambda x: x), 0.1, shrink=1.0), "shrink=1.0 must be between 0 and 1"),
        (lambda: TrustRegionUpdate(line(lambda x: x), 0.1, most=0), "most=0 must be at least 1"),
        (lambda: ClampedSurrogateUpdate(model, 0.2, 0.1, 3), "the model has no clamped"),
        (lambda: ClampedSurrogateUpdate(Sampled(PROCESS, 2), 0.2, 0.1, 0), "k_max=0 must be at least 1"),
        (lambda: ascend(half_way(), theta(), KEY, 0), "n=0 must be at least 1"),
        (lambda: ascend(half_way(), theta(), KEY, 3, tolerance=-1.0), "must be at least 0, and not -1.0"),
        (lambda: ascend(half_way(), theta(), KEY, 3, utility_tolerance=1.0), "needs utility"),
        (lambda: TabularProcess(tabular.random_mdp(KEY, 2, 2, 0.9), lambda flat: flat), "horizon=None"),  # type: ignore[arg-type,return-value]
    ):
        with pytest.raises(UsageError, match=words):
            make()


# -- the loop ----------------------------------------------------------------------------------------------------------


def half_way() -> Update:
    """U = -x^2 / 2 climbed with the step factor 1/2: each update halves x."""
    return PolicyGradientUpdate(Known(lambda theta, key: -theta), 0.5)


def test_it_ends_when_the_parameters_have_converged_or_the_utility_has() -> None:
    path = ascend(half_way(), np.array([1.0]), KEY, 5)
    np.testing.assert_allclose(path.thetas[:, 0], [1.0, 0.5, 0.25, 0.125, 0.0625, 0.03125], rtol=1e-12)
    assert (path.steps, path.converged, path.utilities) == (5, False, None)

    by_theta = ascend(half_way(), np.array([1.0]), KEY, 50, tolerance=0.1)  # changes: 0.5, 0.25, 0.125, 0.0625
    assert (by_theta.steps, by_theta.converged) == (4, True)

    by_utility = ascend(
        half_way(), np.array([1.0]), KEY, 50, utility=lambda theta: -0.5 * theta @ theta, utility_tolerance=0.03
    )  # changes of x^2 / 2: 0.375, 0.094, 0.023
    assert (by_utility.steps, by_utility.converged) == (3, True)
    assert by_utility.utilities is not None
    np.testing.assert_allclose(by_utility.utilities, [-0.5, -0.125, -0.03125, -0.0078125], rtol=1e-12)


def test_a_step_factor_may_decay() -> None:
    update = PolicyGradientUpdate(Known(lambda theta, key: jnp.ones(1)), Linear(0.4))
    np.testing.assert_allclose(ascend(update, np.zeros(1), KEY, 4).thetas[:, 0], [0.0, 0.4, 0.7, 0.9, 1.0], rtol=1e-12)


def test_each_update_draws_its_own_rollouts_and_a_key_says_which() -> None:
    update = RestrictedPolicyGradient(Sampled(PROCESS, M), 0.001)
    path = ascend(update, np.array(THETA), KEY, 3)
    first = update.update(theta(), jax.random.fold_in(KEY, 0)).theta
    np.testing.assert_allclose(path.thetas[1], first, rtol=1e-12)
    changes = np.diff(path.thetas, axis=0)
    assert np.abs(changes[1] - changes[0]).max() > 1e-4
    np.testing.assert_array_equal(ascend(update, np.array(THETA), KEY, 3).thetas, path.thetas)


def test_the_exact_trust_region_update_finds_the_best_policy_of_the_regulator() -> None:
    problem = Regulator(gamma=0.9)
    path = ascend(
        TrustRegionUpdate(ExactRegulator(problem), epsilon=1.0),
        np.array([-0.2, 0.4]),
        KEY,
        100,
        tolerance=1e-6,
        utility=functools.partial(regulator.performance, problem),
    )
    assert path.converged
    np.testing.assert_allclose(path.thetas[-1], regulator.OPTIMUM, atol=1e-4)
    assert path.utilities is not None
    assert (np.diff(path.utilities[:-1]) > 0.0).all()


@pytest.mark.slow
def test_the_example_of_the_page_of_the_lab_runs(capsys: pytest.CaptureFixture[str]) -> None:
    text = (Path(__file__).parents[2] / "docs" / "lab.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    for module in ("jumar.lab.textbook", "jumar.lab.linear_quadratic"):
        [block] = [block for block in blocks if f"from {module} import" in block]
        exec(compile(block, "lab.md", "exec"), {})  # noqa: S102 (a text of this repository)
    printed = capsys.readouterr().out
    assert re.search(r"exact: \d+ updates to \[-(1|0\.99)", printed), printed
    gains = re.search(r"gain: \[\[(-[\d.]+) (-[\d.]+)\]\]", printed)
    assert gains is not None, printed
    np.testing.assert_allclose([float(x) for x in gains.groups()], [-2.190966, -2.143044], atol=1e-5)
