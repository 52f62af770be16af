"""Double precision of the lab in a process where JAX computes in single precision: against NumPy."""

from __future__ import annotations

import inspect
import warnings
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jumar.lab import families, gradients, improvement, regulator, rollouts, tabular, worked
from jumar.lab.precision import in_double
from jumar.lab.tabular import TabularMDP

S, A, GAMMA = 4, 3, 0.95
MODULES = (tabular, gradients, improvement, regulator, rollouts, worked)


@pytest.fixture(autouse=True)
def single_precision() -> None:
    assert jnp.ones(1).dtype == jnp.float32


def simplex(draw: np.random.Generator, *shape: int) -> np.ndarray:
    parts = draw.exponential(size=shape)
    return parts / parts.sum(-1, keepdims=True)


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def reference(mdp: TabularMDP, pi: np.ndarray) -> dict[str, np.ndarray]:
    """Return values, visits and performance of the probabilities ``[S, A]`` by linear algebra."""
    transitions, rewards = np.asarray(mdp.transitions), np.asarray(mdp.rewards)
    move, reward = np.einsum("sa,sap->sp", pi, transitions), (pi * rewards).sum(-1)
    values = np.linalg.solve(np.eye(S) - GAMMA * move, reward)
    action_values = rewards + GAMMA * transitions @ values
    visits = np.linalg.solve(np.eye(S) - GAMMA * move.T, np.asarray(mdp.initial))
    return {"V": values, "Q": action_values, "A": action_values - values[:, None], "rho": visits, "J": visits @ reward}


def test_values_gradients_and_bounds_are_those_of_numpy_to_twelve_digits() -> None:
    draw = np.random.default_rng(0)
    mdp = TabularMDP.of(simplex(draw, S, A, S), draw.normal(size=(S, A)), simplex(draw, S), GAMMA)
    family = families.softmax(mdp)
    theta: Any = draw.normal(size=S * A)
    other: Any = draw.normal(size=S * A)
    old: Any = family(theta)
    new: Any = family(other)
    pi, target = softmax(theta.reshape(S, A)), softmax(other.reshape(S, A))
    of, better = reference(mdp, pi), reference(mdp, target)
    gradient = of["rho"][:, None] * pi * of["A"]
    states = (1.0 - GAMMA) * of["rho"]
    kl = (pi * np.log(pi / target)).sum(-1)
    blocks = [d * (np.diag(p) - np.outer(p, p)) for d, p in zip(states, pi, strict=True)]
    fisher = np.zeros((S * A, S * A))
    for s, block in enumerate(blocks):
        fisher[s * A : (s + 1) * A, s * A : (s + 1) * A] = block
    gained = (target * of["A"]).sum(-1)
    natural = (of["A"] - of["A"].mean(-1, keepdims=True)).reshape(-1) / (1.0 - GAMMA)
    found_fisher = gradients.step_fisher(family, theta, tabular.state_distribution(mdp, old))
    expected: list[tuple[Any, Any]] = [
        (tabular.state_values(mdp, old), of["V"]),
        (tabular.action_values(mdp, old), of["Q"]),
        (tabular.advantages(mdp, old), of["A"]),
        (tabular.visitation(mdp, old), of["rho"]),
        (tabular.performance(mdp, old), of["J"]),
        (gradients.policy_gradient(mdp, family, theta), gradient.reshape(-1)),
        (found_fisher, fisher),
        (gradients.natural_gradient(mdp, family, theta), natural),
        (improvement.mean_kl(mdp, old, new), states @ kl),
        (improvement.max_kl(old, new), kl.max()),
        (improvement.surrogate(mdp, old, new), of["rho"] @ gained),
        (improvement.performance_difference(mdp, old, new), better["J"] - of["J"]),
    ]
    for found, wanted in expected:
        assert isinstance(found, np.ndarray)
        assert found.dtype == np.float64
        np.testing.assert_allclose(found, wanted, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_every_public_function_computes_in_double_precision(module: ModuleType) -> None:
    functions = [
        function
        for name, function in vars(module).items()
        if inspect.isfunction(function) and function.__module__ == module.__name__ and not name.startswith("_")
    ]
    assert functions
    assert all(hasattr(function, "__wrapped__") for function in functions)


def test_drawn_processes_and_trajectories_are_in_double_precision() -> None:
    key = jax.random.PRNGKey(0)
    mdp = tabular.random_mdp(key, S, A, GAMMA)
    np.testing.assert_allclose(np.asarray(mdp.transitions).sum(-1), 1.0, rtol=0.0, atol=1e-15)
    drawn = tabular.draw(mdp, families.softmax(mdp)(jnp.zeros(S * A)), key, 5, 4)
    assert drawn.rewards.dtype == np.float64
    rewards = np.asarray(drawn.rewards)
    np.testing.assert_allclose(drawn.returns(0.9)[:, 0], rewards @ 0.9 ** np.arange(4.0), rtol=1e-14)
    at: Any = np.array([-0.7, 0.2])
    moments = regulator.second_moments(regulator.Regulator(), at)
    wanted = [0.1]
    for _ in range(9):
        wanted.append(0.3**2 * wanted[-1] + (0.2 + 1e-5) ** 2 + 0.01)
    np.testing.assert_allclose(moments, wanted, rtol=1e-14)


def test_transformations_work_in_either_precision() -> None:
    """What is transformed has the precision that JAX is in; inside of ``in_double`` it is double."""
    mdp = tabular.random_mdp(jax.random.PRNGKey(1), S, A, GAMMA)
    family = families.softmax(mdp)
    theta: Any = np.random.default_rng(1).standard_normal(S * A)

    def worth(flat: Any) -> Any:
        return tabular.performance(mdp, family(flat))

    exact = gradients.policy_gradient(mdp, family, theta)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # of numbers that are cut to single precision
        outside = jax.jit(jax.grad(worth))(theta)
        mapped = jax.vmap(worth)(np.stack([theta, theta]))
    assert outside.dtype == mapped.dtype == jnp.float32
    np.testing.assert_allclose(outside, exact, rtol=1e-4, atol=1e-5)
    inside = in_double(jax.jit(jax.grad(worth)))(theta)
    np.testing.assert_allclose(inside, exact, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(mapped, worth(theta), rtol=1e-5)
