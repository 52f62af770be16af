"""Exact gradients and Fisher matrices: against finite differences, explicit matrices, and all trajectories there are."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import processes
import pytest
from jax import Array
from processes import ACTIONS, GAMMA, HORIZON, HORIZONS, STATES

from jumar.errors import UsageError
from jumar.lab import gradients, improvement, tabular
from jumar.lab.families import Family, softmax
from jumar.lab.tabular import TabularMDP
from jumar.policies.distributions import Categorical
from jumar.solvers.fisher import boundary_length, conjugate_gradient, damped, fisher_product, scores

pytestmark = pytest.mark.usefixtures("double_precision")

FAMILIES = ("softmax", "linear", "neural", "network")


class Exact(NamedTuple):
    mdp: TabularMDP
    family: Family
    flat: Array
    states: Array
    gradient: Array
    fisher: Array
    natural: Array
    differences: Array


@functools.cache
def program(name: str, horizon: int | None) -> Callable[[TabularMDP, Array], tuple[Array, ...]]:
    """Return the quantities of a family, and the central differences of its performance, as one compiled function."""
    family, _ = processes.families(processes.process(horizon))[name]

    def quantities(mdp: TabularMDP, flat: Array) -> tuple[Array, ...]:
        states = tabular.state_distribution(mdp, family(flat))
        gradient, fisher = gradients.policy_gradient(mdp, family, flat), gradients.step_fisher(family, flat, states)
        h = 1e-5
        nudged = flat + h * jnp.stack([jnp.eye(flat.size), -jnp.eye(flat.size)])
        ups, downs = jax.vmap(jax.vmap(lambda flat: tabular.performance(mdp, family(flat))))(nudged)
        return states, gradient, fisher, gradients.solve(fisher, gradient), (ups - downs) / (2.0 * h)

    return jax.jit(quantities)


def exact(name: str, horizon: int | None = None, seed: int = 0) -> Exact:
    mdp = processes.process(horizon, seed)
    family, size = processes.families(mdp)[name]
    flat = processes.parameters(size, seed + 5)
    return Exact(mdp, family, flat, *program(name, horizon)(mdp, flat))


@pytest.mark.parametrize("horizon", HORIZONS.values(), ids=HORIZONS)
@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("seed", range(3))
def test_the_policy_gradient_theorem_gives_the_finite_differences_of_the_performance(
    name: str, horizon: int | None, seed: int
) -> None:
    found = exact(name, horizon, seed)
    np.testing.assert_allclose(found.gradient, found.differences, rtol=1e-6, atol=1e-9)
    assert np.linalg.norm(found.gradient) > 1e-3


def explicit_fisher(family: Family, flat: Array, states: Array) -> np.ndarray:
    each = np.asarray(scores(lambda x: family(x).log_probs, flat))  # of every action at every state
    return np.einsum("s,sa,sai,saj->ij", states, family(flat).probs, each, each)


@pytest.mark.parametrize("horizon", HORIZONS.values(), ids=HORIZONS)
@pytest.mark.parametrize("name", FAMILIES)
def test_fisher_products_are_products_with_the_explicit_matrix(name: str, horizon: int | None) -> None:
    at = exact(name, horizon)
    matrix = explicit_fisher(at.family, at.flat, at.states)
    vector = processes.parameters(at.flat.size, 9)
    np.testing.assert_allclose(
        fisher_product(at.family, at.flat, at.states)(vector), matrix @ vector, rtol=0.0, atol=1e-10
    )
    np.testing.assert_allclose(at.fisher, matrix, rtol=0.0, atol=1e-10)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_fisher_matrix_per_step_is_the_hessian_of_the_mean_divergence(name: str) -> None:
    at = exact(name)

    def distance(new: Array) -> Array:
        return improvement.mean_kl(at.mdp, at.family(at.flat), at.family(new))

    hessian = jax.jit(jax.hessian(distance))(at.flat)
    np.testing.assert_allclose(at.fisher, hessian, rtol=0.0, atol=1e-10)


def test_the_fisher_matrix_of_trajectories_is_that_of_all_trajectories_there_are() -> None:
    """All 4^3 of three steps in two states: the products of scores at different steps add up to 0."""
    length = 3
    mdp = tabular.random_mdp(jax.random.PRNGKey(2), 2, 2, GAMMA, length)
    family, flat = softmax(mdp), processes.parameters(4)
    initial, transitions, probs = map(np.asarray, (mdp.initial, mdp.transitions, family(flat).probs))
    each = np.asarray(scores(lambda x: family(x).log_probs, flat))
    total, fisher = 0.0, np.zeros((4, 4))
    for states in itertools.product(range(2), repeat=length):
        for actions in itertools.product(range(2), repeat=length):
            p = initial[states[0]] * np.prod(probs[states, actions])
            p *= np.prod(transitions[states[:-1], actions[:-1], states[1:]])
            whole = each[states, actions].sum(0)
            total, fisher = total + p, fisher + p * np.outer(whole, whole)
    np.testing.assert_allclose(total, 1.0, rtol=1e-12)
    np.testing.assert_allclose(gradients.trajectory_fisher(mdp, family, flat, length), fisher, rtol=0.0, atol=1e-12)


def test_conjugate_gradients_find_what_the_dense_solution_is() -> None:
    at = exact("linear")
    matrix = explicit_fisher(at.family, at.flat, at.states)
    found = conjugate_gradient(fisher_product(at.family, at.flat, at.states), at.gradient, 30)
    np.testing.assert_allclose(found.x, np.linalg.solve(matrix, at.gradient), rtol=1e-7)
    np.testing.assert_allclose(gradients.natural_gradient(at.mdp, at.family, at.flat), found.x, rtol=1e-7)


# -- tabular softmax --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("horizon", HORIZONS.values(), ids=HORIZONS)
def test_a_tabular_softmax_has_one_null_direction_for_every_state(horizon: int | None) -> None:
    at = exact("softmax", horizon)
    spectrum = np.linalg.eigvalsh(at.fisher)
    assert (np.abs(spectrum[:STATES]) < 1e-12).all()
    assert (spectrum[STATES:] > 1e-3).all()
    constants = np.kron(np.eye(STATES), np.ones(ACTIONS))
    np.testing.assert_allclose(constants @ at.fisher, 0.0, atol=1e-12)
    np.testing.assert_allclose(constants @ at.gradient, 0.0, atol=1e-13)
    np.testing.assert_allclose(at.fisher @ at.natural, at.gradient, atol=1e-12)
    np.testing.assert_allclose(constants @ at.natural, 0.0, atol=1e-10)


@pytest.mark.parametrize("damping", [1e-3, 1e-6])
def test_damping_bounds_the_null_directions_and_fades(damping: float) -> None:
    at = exact("softmax")
    found = conjugate_gradient(
        damped(fisher_product(at.family, at.flat, at.states), damping), at.gradient, 60, tolerance=1e-12
    )
    assert not found.blocked
    smallest = np.linalg.eigvalsh(at.fisher)[STATES]
    # Along each eigenvector the damped solution is 1 / (1 + damping / eigenvalue) of the other.
    assert np.linalg.norm(found.x - at.natural) <= damping / smallest * np.linalg.norm(at.natural)


def test_the_natural_gradient_of_a_tabular_softmax_is_the_advantages() -> None:
    r"""Up to a constant in each state: :math:`F^+ \nabla J = A / (1 - \gamma)`, whatever the visits are."""
    at = exact("softmax")
    wanted = tabular.advantages(at.mdp, at.family(at.flat)) / (1.0 - GAMMA)
    np.testing.assert_allclose(at.natural.reshape(STATES, ACTIONS), wanted - wanted.mean(-1, keepdims=True), rtol=1e-8)


@pytest.mark.parametrize("gap", [8.0, 16.0, 20.0])
def test_the_natural_gradient_is_the_advantages_where_an_action_is_nearly_certain_too(gap: float) -> None:
    r"""The curvature there is :math:`e^{-gap}` of that of an undecided state, and no rounding error in double precision."""
    mdp = TabularMDP.of([[[0.0, 1.0], [1.0, 0.0]]] * 2, [[1.0, 0.0], [0.5, 0.0]], [0.5, 0.5], GAMMA)
    family = softmax(mdp)
    flat = jnp.array([0.0, gap, 0.3, 0.0])
    found = gradients.natural_gradient(mdp, family, flat).reshape(2, 2)
    wanted = tabular.advantages(mdp, family(flat)) / (1.0 - GAMMA)
    np.testing.assert_allclose(found, wanted - wanted.mean(-1, keepdims=True), rtol=1e-4)
    assert abs(float(found[0, 0])) > 0.5


# -- natural steps -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("horizon", HORIZONS.values(), ids=HORIZONS)
def test_a_natural_step_has_the_divergence_asked_for_to_second_order(name: str, horizon: int | None) -> None:
    at = exact(name, horizon)
    distance = jax.jit(lambda new: improvement.mean_kl(at.mdp, at.family(at.flat), at.family(new)))
    gaps = []
    for delta in (1e-4, 1e-6):
        step = gradients.natural_step(at.fisher, at.gradient, delta)
        np.testing.assert_allclose(0.5 * step @ at.fisher @ step, delta, rtol=1e-9)
        gaps.append(abs(float(distance(at.flat + step)) / delta - 1.0))
    assert gaps[0] < 0.1
    assert np.log(gaps[0] / gaps[1]) / np.log(1e2) >= 0.45


def test_the_length_with_the_matrix_where_its_inverse_belongs_is_far_off() -> None:
    r"""One set of notes prints :math:`\sqrt{\delta / g^T F g}`: F for its inverse, and no factor 2."""
    at = exact("softmax")
    delta = 0.01
    printed = np.sqrt(delta / (at.gradient @ at.fisher @ at.gradient)) * at.natural
    assert 0.5 * printed @ at.fisher @ printed > 10.0 * delta


def test_no_step_of_the_same_divergence_promises_more() -> None:
    at = exact("softmax")
    promised = float(at.gradient @ gradients.natural_step(at.fisher, at.gradient, 0.01))
    ways = np.vstack([np.random.default_rng(0).standard_normal((200, at.gradient.size)), at.gradient])
    lengths = boundary_length(jnp.einsum("ni,ij,nj->n", ways, at.fisher, ways), 0.01)
    assert (lengths * (ways @ at.gradient) < promised).all()


def test_the_step_of_trajectories_is_shorter_by_the_root_of_their_length() -> None:
    at = exact("linear", HORIZON)
    per_step = gradients.step_fisher(
        at.family, at.flat, tabular.occupancies(at.mdp, at.family(at.flat), HORIZON).mean(0)
    )
    whole = gradients.trajectory_fisher(at.mdp, at.family, at.flat, HORIZON)
    short, long = (gradients.natural_step(fisher, at.gradient, 0.01) for fisher in (whole, per_step))
    np.testing.assert_allclose(long, np.sqrt(HORIZON) * short, rtol=1e-9)


def test_natural_steps_do_not_depend_on_the_parametrisation_and_gradients_do() -> None:
    at = exact("linear")
    matrix = jnp.asarray(
        np.random.default_rng(1).standard_normal((at.flat.size, at.flat.size)) + 2.0 * np.eye(at.flat.size)
    )

    def other(z: Array) -> Categorical:
        return at.family(matrix @ z)

    z = jnp.linalg.solve(matrix, at.flat)
    gradient_there = gradients.policy_gradient(at.mdp, other, z)
    step_there = gradients.natural_step(gradients.step_fisher(other, z, at.states), gradient_there, 0.01)
    np.testing.assert_allclose(matrix @ step_there, gradients.natural_step(at.fisher, at.gradient, 0.01), rtol=1e-6)
    assert np.linalg.norm(matrix @ gradient_there - at.gradient) > 0.1 * np.linalg.norm(at.gradient)


# -- multipliers, and where there is no curvature --------------------------------------------------------------------------


@pytest.mark.parametrize("delta", [1e-4, 0.01])
def test_a_penalised_step_with_the_multiplier_of_delta_is_the_step_of_delta(delta: float) -> None:
    at = exact("linear")
    factor = float(gradients.multiplier(at.fisher, at.gradient, delta))
    step = gradients.natural_step(at.fisher, at.gradient, delta)
    np.testing.assert_allclose(gradients.penalised_step(at.fisher, at.gradient, factor), step, rtol=1e-9)
    # It is the slope of what the step promises.
    up, down = (at.gradient @ gradients.natural_step(at.fisher, at.gradient, delta * x) for x in (1.001, 0.999))
    np.testing.assert_allclose((up - down) / (0.002 * delta), factor, rtol=1e-5)


def test_the_multiplier_of_the_bernoulli_policy_by_hand() -> None:
    """F = 1/4 and g = 24.75 at theta = 0: F^-1 g = 99, and g F^-1 g = 2450.25, whose root is 49.5."""
    fisher, gradient = jnp.array([[0.25]]), jnp.array([24.75])
    np.testing.assert_allclose(gradients.multiplier(fisher, gradient, 0.5), 49.5, rtol=1e-12)
    np.testing.assert_allclose(gradients.natural_step(fisher, gradient, 0.5), [2.0], rtol=1e-12)


def test_a_family_whose_fisher_matrix_is_0_is_refused() -> None:
    def constant(flat: Array) -> Categorical:
        return Categorical(jnp.zeros((STATES, ACTIONS)) + 0.0 * flat[0])

    mdp = processes.process(None)
    with pytest.raises(UsageError, match="the Fisher matrix is 0: no parameter changes the policy"):
        gradients.natural_gradient(mdp, constant, jnp.ones(2))
    with pytest.raises(UsageError, match="would be 0/0"):
        gradients.natural_step(jnp.zeros((2, 2)), jnp.zeros(2), 0.01)
    with pytest.raises(UsageError, match="not finite"):
        gradients.natural_step(jnp.full((2, 2), jnp.nan), jnp.zeros(2), 0.01)
    with pytest.raises(UsageError, match=r"delta=0\.0 must be above 0"):
        gradients.natural_step(jnp.eye(2), jnp.ones(2), 0.0)


def test_where_the_gradient_is_0_so_is_the_step() -> None:
    np.testing.assert_array_equal(gradients.natural_step(jnp.eye(2), jnp.zeros(2), 0.01), 0.0)
