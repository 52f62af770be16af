"""Importance weights: loops over the definitions, and expectations over all trajectories of a small decision process."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jumar.estimators.advantages import GAE, DiscountedStates, Estimates, Finished, RewardToGo, Steps
from jumar.estimators.importance import (
    LARGEST,
    PerDecision,
    Reweighted,
    VTrace,
    WholeTrajectory,
    beyond_bound,
    effective_sample_size,
    retrace,
    self_normalised,
    v_trace,
    weights_of_trajectories,
    weights_so_far,
    weights_to_come,
)
from jumar.trajectory import centred, standardise, unscaled

GAMMA = 0.9


def random_steps(seed: int = 0, spread: float = 0.5, shape: tuple[int, int] = (9, 4)) -> Steps:
    rng = np.random.default_rng(seed)
    terminated, truncated = rng.random((2, *shape)) < 0.15
    rewards, values, successors, log_ratios = rng.normal(size=(4, *shape)).astype(np.float32)
    steps = jax.jit(Steps.on_policy)(rewards, values, successors, terminated, truncated & ~terminated)
    return steps._replace(log_ratios=spread * log_ratios)


def segments(steps: Steps) -> list[tuple[int, list[int]]]:
    """Return (environment, rows) of every episode, or part of one, in the batch."""
    ended = np.asarray(steps.terminated) | np.asarray(steps.truncated)
    found = []
    for n in range(ended.shape[1]):
        rows: list[int] = []
        for t in range(ended.shape[0]):
            rows.append(t)
            if ended[t, n] or t == ended.shape[0] - 1:
                found.append((n, rows))
                rows = []
    return found


def test_products_of_ratios_by_hand() -> None:
    steps = random_steps()
    ended, ratios = np.asarray(steps.terminated) | np.asarray(steps.truncated), np.exp(steps.log_ratios)
    expected = np.zeros((3, *ended.shape))
    for n, rows in segments(steps):
        for k, t in enumerate(rows):
            expected[0, t, n] = np.prod([ratios[u, n] for u in rows[: k + 1]])
            expected[1, t, n] = np.prod([ratios[u, n] for u in rows[k:]])
            expected[2, t, n] = np.prod([ratios[u, n] for u in rows])
    for function, product in zip((weights_so_far, weights_to_come, weights_of_trajectories), expected, strict=True):
        np.testing.assert_allclose(jax.jit(function)(steps.log_ratios, ended), product, rtol=1e-5)


@pytest.mark.parametrize("bounds", [(1.0, 1.0), (2.0, 0.5), (np.inf, np.inf)])
def test_v_trace_is_the_sum_of_its_definition(bounds: tuple[float, float]) -> None:
    steps, gae_lambda = random_steps(1), 0.8
    rho, c = (np.minimum(bound, np.exp(steps.log_ratios)) for bound in bounds)
    bootstrap = np.where(steps.terminated, 0.0, steps.successor_values)
    deltas = np.asarray(steps.rewards) + GAMMA * bootstrap - np.asarray(steps.values)
    targets, advantages = np.zeros_like(deltas), np.zeros_like(deltas)
    for n, rows in segments(steps):
        for k, s in enumerate(rows):
            terms = [
                (GAMMA * gae_lambda) ** (t - s) * np.prod([c[i, n] for i in range(s, t)]) * rho[t, n] * deltas[t, n]
                for t in rows[k:]
            ]
            targets[s, n] = steps.values[s, n] + sum(terms)
            advantages[s, n] = deltas[s, n] + sum(terms[1:]) / c[s, n]
    given = *steps[:5], steps.log_ratios
    found = jax.jit(v_trace)(*given, GAMMA, gae_lambda, *bounds)
    np.testing.assert_allclose(found[0], advantages, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found[1], targets, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("gae_lambda", [0.0, 0.7, 1.0])
def test_where_the_policy_itself_acted_all_are_generalized_advantage_estimation(gae_lambda: float) -> None:
    steps = random_steps(2, spread=0.0)
    plain = jax.jit(GAE(GAMMA, gae_lambda))(steps)
    for part in (VTrace(GAMMA, gae_lambda), PerDecision(GAMMA, gae_lambda), WholeTrajectory(GAE(GAMMA, gae_lambda))):
        estimates = jax.jit(part)(steps)
        for found, expected in zip(estimates, plain, strict=True):
            np.testing.assert_allclose(found, np.broadcast_to(expected, steps.rewards.shape), rtol=1e-5, atol=1e-5)


# -- expectations over all trajectories -------------------------------------------------------------------------------

STATES, ACTIONS, HORIZON = 2, 2, 3


class Process(NamedTuple):
    """Three steps in two states with two actions, then the end; in float64."""

    first: np.ndarray
    """P(s), ``[S]``."""
    transitions: np.ndarray
    """P(s'|s, a), ``[S, A, S]``."""
    rewards: np.ndarray
    """``[S, A]``."""
    logits: np.ndarray
    """Of the policy, ``[S, A]``."""
    behaviour: np.ndarray
    """Of the policy that acts, ``[S, A]``."""
    guess: np.ndarray
    """Some values at each time, ``[T + 1, S]``."""


@pytest.fixture(scope="module")
def process() -> Process:
    rng = np.random.default_rng(5)
    first, transitions = rng.dirichlet(np.ones(STATES)), rng.dirichlet(np.ones(STATES), (STATES, ACTIONS))
    rewards, logits, behaviour = rng.normal(size=(3, STATES, ACTIONS))
    return Process(first, transitions, rewards, logits, behaviour, rng.normal(size=(HORIZON + 1, STATES)))


TRAJECTORIES = np.array(list(itertools.product(*[range(STATES), range(ACTIONS)] * HORIZON)))
"""All of them: state and action in turns, ``[64, 6]``."""
S, A = TRAJECTORIES[:, 0::2].T, TRAJECTORIES[:, 1::2].T


def probability(process: Process, logits: Any) -> Any:
    """Return the probability of each trajectory under a policy, ``[64]``."""
    log_probs = jax.nn.log_softmax(jnp.asarray(logits))
    chance = process.first[S[0]] * np.prod(process.transitions[S[:-1], A[:-1], S[1:]], axis=0)
    return chance * jnp.exp(jnp.sum(log_probs[S, A], axis=0))


def all_steps(process: Process, guess: np.ndarray) -> Steps:
    """Return all trajectories side by side, ``[3, 64]``, with the values of ``guess``; they end with the last row."""
    time = np.arange(HORIZON)[:, None]
    later = np.concatenate([S[1:], S[-1:]])
    terminated = np.broadcast_to(time == HORIZON - 1, S.shape)
    log_ratios = jax.nn.log_softmax(process.logits)[S, A] - jax.nn.log_softmax(process.behaviour)[S, A]
    values = guess[time, S], guess[time + 1, later]
    steps = jax.jit(Steps.on_policy)(process.rewards[S, A], *values, terminated, np.zeros(S.shape, bool))
    return steps._replace(log_ratios=log_ratios)


def exact_gradient(process: Process) -> np.ndarray:
    discounts = GAMMA ** np.arange(HORIZON)[:, None]
    returns = np.sum(discounts * process.rewards[S, A], axis=0)
    return jax.jit(jax.grad(lambda logits: jnp.sum(probability(process, logits) * returns)))(process.logits)


def expected_gradient(process: Process, estimates: Estimates) -> np.ndarray:
    """Return the expectation of the weighted score over what the other policy does."""
    rows = probability(process, process.behaviour) * estimates.weights * estimates.importance * estimates.advantages

    def objective(logits: Any) -> Any:
        return jnp.sum(rows * jax.nn.log_softmax(logits)[S, A])

    return jax.jit(jax.grad(objective))(process.logits)


UNBIASED: dict[str, Callable[[], Any]] = {
    "per decision": lambda: PerDecision(GAMMA, 1.0),
    "whole trajectory, to go": lambda: WholeTrajectory(Finished(RewardToGo(GAMMA))),
    "whole trajectory, GAE": lambda: WholeTrajectory(GAE(GAMMA, 1.0)),
}


@pytest.mark.parametrize("name", UNBIASED)
def test_the_estimate_is_unbiased_whatever_the_critic_says(name: str, process: Process) -> None:
    with jax.enable_x64(True):
        estimates = jax.jit(DiscountedStates(UNBIASED[name](), GAMMA))(all_steps(process, process.guess))
        found, exact = expected_gradient(process, estimates), exact_gradient(process)
        np.testing.assert_allclose(found, exact, rtol=1e-10, atol=1e-12)
        # The same estimates without their weights are another policy's.
        assert np.abs(expected_gradient(process, estimates._replace(importance=1.0)) - exact).max() > 0.01


def values_of(process: Process, probs: np.ndarray) -> np.ndarray:
    """Return the values of a policy at each time, ``[T + 1, S]``, by going backwards."""
    values = np.zeros((HORIZON + 1, STATES))
    for t in reversed(range(HORIZON)):
        values[t] = np.sum(probs * (process.rewards + GAMMA * process.transitions @ values[t + 1]), axis=1)
    return values


def expected_targets(process: Process, estimates: Estimates) -> np.ndarray:
    """Return the expectation of the targets in each state at each time, ``[T, S]``."""
    likely = np.asarray(probability(process, process.behaviour))
    in_state = S[..., None] == np.arange(STATES)
    return np.sum((likely * estimates.targets)[..., None] * in_state, 1) / np.sum(likely[:, None] * in_state, 1)


@pytest.mark.parametrize("name", UNBIASED)
def test_the_critic_s_targets_are_the_policy_s_values_on_average(name: str, process: Process) -> None:
    with jax.enable_x64(True):
        targets = expected_targets(process, jax.jit(UNBIASED[name]())(all_steps(process, process.guess)))
        exact = values_of(process, np.asarray(jax.nn.softmax(process.logits)))[:-1]
        np.testing.assert_allclose(targets, exact, rtol=1e-10)


def test_v_trace_stays_at_the_values_of_the_policy_that_its_bound_allows(process: Process) -> None:
    r"""Theorem 1 of the source: :math:`\pi_{\bar\rho} \propto \min(\bar\rho \mu, \pi)`."""
    with jax.enable_x64(True):
        rho_bar = 0.9
        target, acting = (np.asarray(jax.nn.softmax(x)) for x in (process.logits, process.behaviour))
        between = np.minimum(rho_bar * acting, target)
        between /= between.sum(1, keepdims=True)
        values = values_of(process, between)
        targets = expected_targets(process, jax.jit(VTrace(GAMMA, 1.0, rho_bar, 0.7))(all_steps(process, values)))
        np.testing.assert_allclose(targets, values[:-1], rtol=1e-10)
        assert np.abs(values - values_of(process, target)).max() > 0.01


def test_retrace_stays_at_the_policy_s_own_action_values(process: Process) -> None:
    with jax.enable_x64(True):
        probs = np.asarray(jax.nn.softmax(process.logits))
        values = values_of(process, probs)
        q = np.stack([process.rewards + GAMMA * process.transitions @ values[t + 1] for t in range(HORIZON)])
        time, steps = np.arange(HORIZON)[:, None], all_steps(process, values)
        taken = jnp.asarray(q[time, S, A])
        for retrace_lambda in (1.0, 0.6):
            targets = retrace_of(steps, taken, retrace_lambda)
            likely = np.asarray(probability(process, process.behaviour))[None, :, None, None]
            here = (S[..., None, None] == np.arange(STATES)[:, None]) & (A[..., None, None] == np.arange(ACTIONS))
            means = np.sum(likely * here * targets[..., None, None], 1) / np.sum(likely * here, 1)
            np.testing.assert_allclose(means, q, rtol=1e-10)


def retrace_of(steps: Steps, taken: Any, retrace_lambda: float) -> Any:
    ends = steps.terminated, steps.truncated
    given = steps.rewards, taken, steps.successor_values, *ends, steps.log_ratios
    return jax.jit(retrace)(*given, GAMMA, retrace_lambda)


def test_retrace_is_the_recursion_of_its_definition() -> None:
    steps, taken = random_steps(6), np.asarray(random_steps(7).rewards)
    rewards, later = np.asarray(steps.rewards), np.asarray(steps.successor_values)
    targets = np.zeros_like(rewards)
    for n, rows in segments(steps):
        for t in reversed(rows):
            targets[t, n] = rewards[t, n] + GAMMA * later[t, n] * (not steps.terminated[t, n])
            if t != rows[-1]:
                ratio = min(1.0, np.exp(steps.log_ratios[t + 1, n]))
                targets[t, n] += GAMMA * 0.8 * ratio * (targets[t + 1, n] - taken[t + 1, n])
    np.testing.assert_allclose(retrace_of(steps, taken, 0.8), targets, rtol=1e-4, atol=1e-5)


def test_retrace_of_the_policy_itself_is_generalized_advantage_estimation() -> None:
    steps = random_steps(8, spread=0.0)
    plain = jax.jit(GAE(GAMMA, 0.8))(steps)
    np.testing.assert_allclose(retrace_of(steps, steps.values, 0.8), plain.targets, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("bound", [0.5, 1.0, 10.0])
def test_what_a_ratio_has_beyond_a_bound_is_made_up_for(bound: float) -> None:
    rng = np.random.default_rng(9)
    log_probs, behaviour = np.asarray(jax.nn.log_softmax(2.0 * rng.normal(size=(2, 5, 3))))
    values = rng.normal(size=(5, 3))
    probs, ratios = np.exp(log_probs), np.exp(log_probs - behaviour)
    beyond = np.asarray(beyond_bound(log_probs - behaviour, probs, bound))
    assert (beyond > 0).any() == (ratios > bound).any()
    found = np.sum(np.exp(behaviour) * np.minimum(bound, ratios) * values + beyond * values, axis=1)
    np.testing.assert_allclose(found, np.sum(probs * values, axis=1), rtol=1e-4, atol=1e-6)


# -- weights and their scale ------------------------------------------------------------------------------------------


def test_the_effective_sample_size_by_hand() -> None:
    size = jax.jit(effective_sample_size)
    importance, weights = np.array([[1.0, 3.0], [2.0, 50.0]]), np.array([[1.0, 1.0], [1.0, 0.0]])
    assert size(importance, weights) == pytest.approx(36 / 14 / 3)
    assert size(1e30 * importance, weights) == pytest.approx(36 / 14 / 3)
    assert size(np.ones(3), np.ones(3)) == 1.0
    assert size(np.array([1e-9, 1.0, 1e-9]), np.ones(3)) == pytest.approx(1 / 3)
    assert size(importance, np.zeros((2, 2))) == 0.0
    assert size(np.zeros(3), np.ones(3)) == 0.0


def test_self_normalised_weights_make_a_mean_of_ratios() -> None:
    importance, weights, x = np.random.default_rng(0).random((3, 50))
    found = np.sum(self_normalised(jnp.asarray(importance), jnp.asarray(weights)) * x * weights) / weights.sum()
    assert found == pytest.approx(np.sum(importance * weights * x) / np.sum(importance * weights), rel=1e-5)
    np.testing.assert_array_equal(self_normalised(jnp.zeros(3), jnp.ones(3)), np.zeros(3))


@pytest.mark.parametrize("scale", [standardise, centred, unscaled])
def test_advantages_are_scaled_by_the_weights_and_then_weighted(scale: Any) -> None:
    weights = np.ones((9, 4))
    weights[2] = 0.0
    steps = random_steps(3)._replace(weights=weights)
    part = Finished(PerDecision(GAMMA, 0.9))
    plain, found = jax.jit(part)(steps), jax.jit(Reweighted(part, scale, unscaled))(steps)
    weights = steps.weights * plain.weights * plain.importance
    np.testing.assert_allclose(found.advantages, plain.importance * scale(plain.advantages, weights), rtol=1e-5)
    if scale is not unscaled:
        # What is weighted afterwards has mean 0: the score times a constant has too, in expectation.
        assert float(jnp.sum(found.advantages * steps.weights * plain.weights)) == pytest.approx(0.0, abs=1e-4)
    np.testing.assert_array_equal(found.targets, plain.targets)


@pytest.mark.parametrize("direction", [-1.0, 1.0])
@pytest.mark.parametrize("part", [VTrace(GAMMA, 1.0), PerDecision(GAMMA, 1.0), WholeTrajectory(GAE(GAMMA, 1.0))])
def test_no_ratio_makes_an_infinity(part: Any, direction: float) -> None:
    steps = random_steps(4, shape=(400, 2))._replace(log_ratios=np.full((400, 2), direction * 20.0))
    for scale_importance in (unscaled, self_normalised):
        estimates = jax.jit(Reweighted(part, standardise, scale_importance))(steps)
        for x in estimates:
            assert np.isfinite(np.sum(np.square(x, dtype=np.float32)))
            assert np.max(np.abs(x)) <= 1.001 * LARGEST
    assert 0.0 < effective_sample_size(estimates.importance, steps.weights) <= 1.0
