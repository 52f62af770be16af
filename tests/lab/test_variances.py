"""Exact variances: the dynamic programme against enumeration by the shipped weights, and gradients by baseline."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jumar.errors import UsageError
from jumar.estimators.advantages import GAE, DiscountedStates, FullReturn
from jumar.estimators.importance import weights_of_trajectories, weights_so_far
from jumar.lab import gradients, tabular, trajectories, variances
from jumar.lab.families import softmax
from jumar.lab.rollouts import discounts, sampled_gradient
from jumar.lab.tabular import TabularMDP
from jumar.lab.variances import BASELINES, SIGNALS, Moments
from jumar.policies.distributions import Categorical

pytestmark = pytest.mark.usefixtures("double_precision")

STATES, ACTIONS, LENGTH, GAMMA = 2, 2, 3, 0.8
MDP = tabular.random_mdp(jax.random.PRNGKey(2), STATES, ACTIONS, GAMMA, LENGTH)
FAMILY = softmax(MDP)
FLAT = cast(jax.Array, np.random.default_rng(5).standard_normal(STATES * ACTIONS))  # in double precision from the start


def policy(seed: int) -> Categorical:
    return Categorical(jnp.asarray(np.random.default_rng(seed).standard_normal((STATES, ACTIONS))))


# -- importance sampling ------------------------------------------------------------------------------------------------


def timed(*seeds: int) -> Categorical:
    """Return a policy that is another one at each step."""
    return Categorical(jnp.stack([policy(seed).logits for seed in seeds]))


@pytest.mark.parametrize("timing", ["neither", "new", "both"])
def test_the_dynamic_programme_has_the_moments_of_all_trajectories(timing: str) -> None:
    old = timed(*range(LENGTH)) if timing == "both" else policy(0)
    new = policy(1) if timing == "neither" else timed(*range(9, 9 + LENGTH))
    every = trajectories.every_trajectory(MDP)
    probs = np.asarray(trajectories.probabilities(MDP, old, every))
    log_ratios = jnp.asarray(trajectories.log_ratios(new, old, every.states, every.actions)).T
    ended = np.zeros(log_ratios.shape, bool)
    ended[-1] = True
    rewards = GAMMA ** np.arange(LENGTH)[:, None] * np.asarray(every.rewards).T
    for per_step, weighting in ((True, weights_so_far), (False, weights_of_trajectories)):
        each = np.sum(rewards * np.asarray(weighting(log_ratios, jnp.asarray(ended))), 0)
        found = variances.importance_moments(MDP, old, new, per_step=per_step)
        np.testing.assert_allclose(found.mean, probs @ each, rtol=1e-12)
        np.testing.assert_allclose(found.variance, probs @ each**2 - (probs @ each) ** 2, rtol=1e-10)
        np.testing.assert_allclose(found.mean, tabular.performance(MDP, new), rtol=1e-12)
    weights = np.asarray(weights_so_far(log_ratios, jnp.asarray(ended)))
    np.testing.assert_allclose(variances.weight_variance(MDP, old, new), weights**2 @ probs - 1.0, rtol=1e-10)


def test_one_state_by_hand() -> None:
    """Two steps, a fair coin for old and 3/4 for new, which earns 1: E w^2 = 5/4, E w^2 r = 9/8."""
    mdp = TabularMDP.of([[[1.0], [1.0]]], [[0.0, 1.0]], [1.0], 1.0, 2)
    old, new = Categorical(jnp.zeros((1, 2))), Categorical(jnp.log(jnp.array([[0.25, 0.75]])))
    np.testing.assert_allclose(variances.weight_variance(mdp, old, new), [0.25, 9.0 / 16.0], rtol=1e-12)
    # r_0 w_0 + r_1 w_0 w_1: 9/8 + 2 (9/8) (3/4) + (5/4) (9/8) - 9/4.
    per_step = variances.importance_moments(mdp, old, new)
    np.testing.assert_allclose(per_step, (1.5, 9 / 8 + 27 / 16 + 45 / 32 - 9 / 4), rtol=1e-12)
    # (r_0 + r_1) w_0 w_1: 2 (9/8) (5/4) + 2 (9/8)^2 - 9/4.
    whole = variances.importance_moments(mdp, old, new, per_step=False)
    np.testing.assert_allclose(whole, (1.5, 45 / 16 + 81 / 32 - 9 / 4), rtol=1e-12)
    # Of the same policy: twice the variance of a coin.
    np.testing.assert_allclose(variances.importance_moments(mdp, old, old, per_step=False), (1.0, 0.5), rtol=1e-12)


def test_products_over_whole_trajectories_vary_more_and_grow_with_the_horizon() -> None:
    """The rewards are all 1, so that only the weights vary: per step, those of later actions are left out."""
    mdp = replace(MDP, rewards=np.ones((STATES, ACTIONS)), horizon=30, gamma=0.9)
    old, new = policy(0), policy(1)
    per_step, whole = (float(variances.importance_moments(mdp, old, new, per_step=x).variance) for x in (True, False))
    assert 0.0 < per_step < 0.5 * whole
    growth = np.diff(np.log(1.0 + np.asarray(variances.weight_variance(mdp, old, new))))
    np.testing.assert_allclose(growth[10:], growth[-1], rtol=1e-4)  # exponential
    assert growth[-1] > 0.01


# -- policy gradients ---------------------------------------------------------------------------------------------------


@functools.cache
def moments(signal: str, baseline: str) -> Moments:
    with jax.enable_x64(True):
        return variances.gradient_moments(MDP, FAMILY, FLAT, signal, baseline)


@pytest.mark.parametrize("baseline", BASELINES)
@pytest.mark.parametrize("signal", SIGNALS)
def test_no_signal_and_no_baseline_changes_the_mean(signal: str, baseline: str) -> None:
    exact = gradients.policy_gradient(MDP, FAMILY, FLAT)
    np.testing.assert_allclose(moments(signal, baseline).mean, exact, rtol=0.0, atol=1e-12)
    assert np.linalg.norm(exact) > 0.1


@pytest.mark.parametrize("signal", SIGNALS)
def test_the_optimal_baseline_has_the_least_variance(signal: str) -> None:
    totals = {baseline: float(moments(signal, baseline).total) for baseline in BASELINES}
    assert totals["optimal"] < min(totals["none"], totals["time"], totals["value"])


def test_less_of_the_past_and_of_the_future_is_less_variance() -> None:
    totals = {(s, b): float(moments(s, b).total) for s in SIGNALS for b in BASELINES}
    assert totals["action-values", "optimal"] < totals["to-go", "optimal"] < totals["return", "optimal"]
    assert totals["action-values", "value"] < totals["to-go", "value"] < totals["return", "value"]


def test_no_baseline_near_the_optimal_one_is_better() -> None:
    """The total variance is a parabola in each entry of the baseline, with its lowest point there."""
    made_by = variances.estimator_of(MDP, "to-go")
    best = variances.optimal_baseline(MDP, FAMILY, FLAT, made_by)
    least = float(variances.estimator_moments(MDP, FAMILY, FLAT, made_by, best).total)
    way = np.random.default_rng(1).standard_normal(best.shape)
    up, down = (
        float(variances.estimator_moments(MDP, FAMILY, FLAT, made_by, best + size * way).total) - least
        for size in (0.1, -0.1)
    )
    assert up > 1e-4
    np.testing.assert_allclose(up, down, rtol=1e-9)


def test_the_covariance_is_that_of_drawn_gradients() -> None:
    n = 20_000
    of = FAMILY(FLAT)
    drawn = tabular.draw(MDP, of, jax.random.PRNGKey(1), n, LENGTH)
    table = np.asarray(jax.jacfwd(lambda x: FAMILY(x).log_probs)(jnp.asarray(FLAT)))
    each = jnp.asarray(table[np.asarray(drawn.states), np.asarray(drawn.actions)])
    weights = jnp.broadcast_to(discounts(GAMMA, LENGTH), (n, LENGTH))
    one = jax.jit(jax.vmap(lambda s, x, w: sampled_gradient(s[None], x[None], w[None])))
    found = np.asarray(one(each, drawn.reward_to_go(GAMMA), weights))
    np.testing.assert_allclose(np.trace(np.cov(found.T)), moments("to-go", "none").total, rtol=0.05)


def test_any_estimator_can_be_judged() -> None:
    """With the exact V, GAE has the variance of advantages to go where lambda is 1, and less bias than none where it is 0."""
    values = tabular.state_values(MDP, FAMILY(FLAT))
    exact = gradients.policy_gradient(MDP, FAMILY, FLAT)
    one, zero = (
        variances.estimator_moments(MDP, FAMILY, FLAT, DiscountedStates(GAE(GAMMA, x), GAMMA), values)
        for x in (1.0, 0.0)
    )
    np.testing.assert_allclose(one.total, moments("to-go", "value").total, rtol=1e-10)
    for found in (one, zero):
        np.testing.assert_allclose(found.mean, exact, atol=1e-12)
    wrong = variances.estimator_moments(MDP, FAMILY, FLAT, DiscountedStates(GAE(GAMMA, 0.0), GAMMA), 0.0 * values)
    assert np.linalg.norm(wrong.mean - exact) > 0.05 * np.linalg.norm(exact)


def test_a_whole_return_with_discounted_states_is_not_the_gradient() -> None:
    twice = DiscountedStates(FullReturn(GAMMA), GAMMA)
    found = variances.estimator_moments(MDP, FAMILY, FLAT, twice, np.zeros((LENGTH, STATES)))
    exact = gradients.policy_gradient(MDP, FAMILY, FLAT)
    assert np.linalg.norm(found.mean - exact) > 0.05 * np.linalg.norm(exact)


def test_unknown_names_and_processes_without_end_are_refused() -> None:
    with pytest.raises(UsageError, match="signal='rewards' is unknown; it must be one of return, to-go, action-values"):
        variances.gradient_moments(MDP, FAMILY, FLAT, "rewards")
    with pytest.raises(UsageError, match="baseline='mean' is unknown; it must be one of none, time, value, optimal"):
        variances.gradient_moments(MDP, FAMILY, FLAT, baseline="mean")
    endless = replace(MDP, horizon=None)
    for refused in (
        lambda: variances.gradient_moments(endless, FAMILY, FLAT),
        lambda: variances.importance_moments(endless, policy(0), policy(1)),
        lambda: variances.weight_variance(endless, policy(0), policy(1)),
    ):
        with pytest.raises(UsageError, match="horizon=None"):
            refused()
