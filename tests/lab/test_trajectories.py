"""Distributions of trajectories, against sums over all that there are, and by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jumar.errors import UsageError
from jumar.lab import bounds, gradients, improvement, tabular, trajectories
from jumar.lab.families import softmax
from jumar.lab.rollouts import Rollouts
from jumar.lab.tabular import TabularMDP
from jumar.policies.distributions import Categorical

pytestmark = pytest.mark.usefixtures("double_precision")

STATES, ACTIONS, LENGTH, GAMMA = 3, 2, 3, 0.8
MDP = tabular.random_mdp(jax.random.PRNGKey(2), STATES, ACTIONS, GAMMA, LENGTH)


def policy(seed: int) -> Categorical:
    return Categorical(jnp.asarray(np.random.default_rng(seed).standard_normal((STATES, ACTIONS))))


class Everything(NamedTuple):
    rollouts: Rollouts
    old: np.ndarray
    """P of each trajectory under the old policy, ``[N]``."""
    new: np.ndarray
    sampled: np.ndarray
    """The sampled sums of log ratios, old over new, ``[N]``."""


@pytest.fixture(scope="module")
def every() -> Everything:
    with jax.enable_x64(True):
        rollouts = trajectories.every_trajectory(MDP)
        states, actions = rollouts.states, rollouts.actions
        old, new = (np.asarray(trajectories.probabilities(MDP, policy(seed), rollouts)) for seed in (0, 1))
        return Everything(
            rollouts, old, new, np.asarray(trajectories.sampled_kl(policy(0), policy(1), states, actions))
        )


# -- likelihoods --------------------------------------------------------------------------------------------------------


def test_the_likelihood_of_one_trajectory_by_hand() -> None:
    """1/4 to begin in state 1, there 0.8 for action 0, 0.6 to come to state 0, there 0.3 for action 1."""
    mdp = TabularMDP.of([[[0.5, 0.5], [1.0, 0.0]], [[0.6, 0.4], [0.0, 1.0]]], [[0.0, 0.0]] * 2, [0.75, 0.25], 1.0, 2)
    of = Categorical(jnp.log(jnp.array([[0.7, 0.3], [0.8, 0.2]])))
    found = trajectories.log_likelihood(mdp, of, np.array([[1, 0], [0, 1]]), np.array([[0, 1], [1, 0]]))
    np.testing.assert_allclose(found, [np.log(0.25 * 0.8 * 0.6 * 0.3), -np.inf], rtol=1e-12)


def test_policies_that_depend_on_time_are_looked_up_at_each_step() -> None:
    early, late = np.log([[0.7, 0.3], [0.8, 0.2]]), np.log([[0.4, 0.6], [0.5, 0.5]])
    of, steady = Categorical(jnp.array([early, late])), Categorical(jnp.array(early))
    states, actions = np.array([[1, 0], [0, 1]]), np.array([[0, 1], [1, 0]])
    found = trajectories.log_ratios(of, steady, states, actions)
    np.testing.assert_allclose(found, [[0.0, np.log(0.6 / 0.3)], [0.0, np.log(0.5 / 0.8)]], atol=1e-12)
    with pytest.raises(UsageError, match="trajectories of 2 steps are longer than a policy of 1 step"):
        trajectories.log_ratios(Categorical(of.logits[:1]), steady, states, actions)


def test_all_trajectories_are_there_once_and_their_probabilities_sum_to_one(every: Everything) -> None:
    rows = np.column_stack([every.rollouts.states, every.rollouts.actions])
    assert len(rows) == (STATES * ACTIONS) ** LENGTH == len(np.unique(rows, axis=0))
    np.testing.assert_allclose([every.old.sum(), every.new.sum()], 1.0, rtol=1e-12)
    returns = np.asarray(every.rollouts.rewards) @ GAMMA ** np.arange(LENGTH)
    np.testing.assert_allclose(every.old @ returns, tabular.performance(MDP, policy(0)), rtol=1e-12)


def test_what_no_policy_can_do_is_not_enumerated() -> None:
    """From state 0 action 0 stays and action 1 leaves for ever: 2 trajectories of one step, 4 of two, 6 of three and so on."""
    stays = [[[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [0.0, 1.0]]]
    mdp = TabularMDP.of(stays, [[0.0, 1.0]] * 2, [1.0, 0.0], 1.0, 3)
    found = trajectories.every_trajectory(mdp)
    assert found.states.shape == (8, 3)  # every sequence of actions leads to one sequence of states
    ways = np.asarray(found.states).tolist()
    assert sorted(map(tuple, ways)) == sorted([(0, 0, 0)] * 2 + [(0, 0, 1)] * 2 + [(0, 1, 1)] * 4)


def test_the_gradient_of_the_likelihood_is_the_sum_of_scores() -> None:
    flat, family = jnp.asarray(np.random.default_rng(3).standard_normal(STATES * ACTIONS)), softmax(MDP)
    states, actions = np.array([0, 2, 0]), np.array([1, 0, 1])
    slope = jax.jit(jax.grad(lambda x: trajectories.log_likelihood(MDP, family(x), states, actions)))(flat)
    wanted = -np.asarray([2.0, 0.0, 1.0])[:, None] * np.asarray(family(flat).probs)
    np.add.at(wanted, (states, actions), 1.0)
    np.testing.assert_allclose(slope, wanted.ravel(), rtol=1e-12, atol=1e-15)


# -- divergences --------------------------------------------------------------------------------------------------------


def test_the_divergence_of_trajectories_is_that_of_their_probabilities(every: Everything) -> None:
    old, new = policy(0), policy(1)
    forward = trajectories.trajectory_kl(MDP, old, new)
    np.testing.assert_allclose(forward, np.sum(every.old * np.log(every.old / every.new)), rtol=1e-10)
    reverse = trajectories.trajectory_kl(MDP, old, new, reverse=True)
    np.testing.assert_allclose(reverse, np.sum(every.new * np.log(every.new / every.old)), rtol=1e-10)
    assert abs(float(forward) - float(reverse)) > 0.005
    # The mean per step is a third of it without a discount.
    undiscounted = replace(MDP, gamma=1.0)
    np.testing.assert_allclose(forward, LENGTH * improvement.mean_kl(undiscounted, old, new), rtol=1e-10)


def test_divergences_of_policies_that_depend_on_time_are_those_of_all_trajectories(every: Everything) -> None:
    old, new = (Categorical(jnp.stack([policy(seed + step).logits for step in range(LENGTH)])) for seed in (0, LENGTH))
    p, q = (np.asarray(trajectories.probabilities(MDP, of, every.rollouts)) for of in (old, new))
    np.testing.assert_allclose(trajectories.trajectory_kl(MDP, old, new), p @ np.log(p / q), rtol=1e-10)
    weights = GAMMA ** np.arange(LENGTH)
    log_ratios = np.asarray(trajectories.log_ratios(old, new, every.rollouts.states, every.rollouts.actions))
    found = trajectories.trajectory_kl(MDP, old, new, discounted=True)
    np.testing.assert_allclose(found, p @ log_ratios @ weights, rtol=1e-10)
    apart = 0.5 * np.sum(np.abs(new.probs - old.probs), -1)[np.arange(LENGTH), every.rollouts.states]
    expected = p @ apart @ weights / weights.sum()
    np.testing.assert_allclose(bounds.mean_total_variation(MDP, old, new), expected, rtol=1e-10)


def test_the_discounted_divergence_is_the_mean_one_times_the_sum_of_discounts() -> None:
    endless, old, new = replace(MDP, horizon=None), policy(0), policy(1)
    found = trajectories.trajectory_kl(endless, old, new, discounted=True)
    np.testing.assert_allclose(found, improvement.mean_kl(endless, old, new) / (1.0 - GAMMA), rtol=1e-10)
    with pytest.raises(UsageError, match="horizon=None"):
        trajectories.trajectory_kl(endless, old, new)


def test_sampled_divergences_have_the_exact_mean_and_can_be_negative(every: Everything) -> None:
    exact = float(trajectories.trajectory_kl(MDP, policy(0), policy(1)))
    np.testing.assert_allclose(every.old @ every.sampled, exact, rtol=1e-10)
    negative = every.old[every.sampled < 0.0].sum()
    assert negative > 0.1  # of one trajectory
    # The mean over six is negative still now and then; printed as a sum it is six times as large.
    drawn = np.random.default_rng(0).choice(every.sampled, (2_000, 6), p=every.old / every.old.sum())
    assert 0.02 < np.mean(drawn.mean(1) < 0.0) < negative
    np.testing.assert_allclose(drawn.mean(), exact, rtol=0.15)


def test_near_policies_have_negative_sampled_sums_half_of_the_time(every: Everything) -> None:
    """Their standard deviation is of the first order, and their mean of the second."""
    old = policy(0)
    signs = []
    for size in (1e-1, 1e-3):
        near = Categorical(old.logits + size * policy(7).logits)
        sampled = np.asarray(trajectories.sampled_kl(old, near, every.rollouts.states, every.rollouts.actions))
        mean, deviation = every.old @ sampled, np.sqrt(every.old @ sampled**2)
        np.testing.assert_allclose(mean, deviation**2 / 2.0, rtol=2.0 * size)
        signs.append(every.old[sampled < 0.0].sum())
    assert all(0.3 < share < 0.7 for share in signs)


# -- ratios of visits ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("horizon", [None, LENGTH])
def test_ratios_of_visits_turn_one_policys_expectations_into_the_others(horizon: int | None) -> None:
    mdp, old, new = replace(MDP, horizon=horizon), policy(0), policy(1)
    ratio = np.asarray(trajectories.occupancy_ratio(mdp, new, old))
    visits, other = (np.asarray(tabular.visitation(mdp, of)) for of in (old, new))
    np.testing.assert_allclose(visits * ratio, other, rtol=1e-10)
    family, flat = softmax(mdp), new.logits.reshape(-1)
    wanted = gradients.policy_gradient(mdp, family, flat)
    np.testing.assert_allclose(trajectories.off_policy_gradient(mdp, family, flat, old), wanted, atol=1e-12)
    biased = trajectories.off_policy_gradient(mdp, family, flat, old, correct_states=False)
    assert np.linalg.norm(biased - wanted) > 0.01 * np.linalg.norm(wanted)


def test_without_the_ratio_of_states_it_is_the_gradient_of_the_surrogate_with_the_others_states() -> None:
    old, new = policy(0), policy(1)
    family, flat = softmax(MDP), new.logits.reshape(-1)
    visits, worth = tabular.visitation(MDP, old), tabular.advantages(MDP, new)
    slope = jax.grad(lambda x: jnp.sum(visits[..., None] * family(x).probs * worth))(flat)
    found = trajectories.off_policy_gradient(MDP, family, flat, old, correct_states=False)
    np.testing.assert_allclose(found, slope, atol=1e-12)


def test_a_state_that_only_the_new_policy_visits_is_named() -> None:
    stays = [[[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [0.0, 1.0]]]
    mdp = TabularMDP.of(stays, [[0.0, 1.0]] * 2, [1.0, 0.0], 0.9)
    never, always = Categorical(jnp.array([[0.0, -1e9]] * 2)), Categorical(jnp.array([[0.0, 0.0]] * 2))
    with pytest.raises(UsageError, match="state 1 is visited by the new policy"):
        trajectories.occupancy_ratio(mdp, always, never)
    np.testing.assert_allclose(trajectories.occupancy_ratio(mdp, never, always)[1], 0.0, atol=1e-15)


# -- edges --------------------------------------------------------------------------------------------------------------


def test_what_cannot_be_enumerated_is_refused() -> None:
    with pytest.raises(UsageError, match="horizon=None"):
        trajectories.every_trajectory(replace(MDP, horizon=None))
    with pytest.raises(UsageError, match="horizon=9: after 8 steps there are 1679616"):
        trajectories.every_trajectory(replace(MDP, horizon=9))
    with pytest.raises(UsageError, match=r"shape \(3,\) and actions of shape \(2,\)"):
        trajectories.log_likelihood(MDP, policy(0), np.zeros(3, int), np.zeros(2, int))


def test_drawn_trajectories_have_the_likelihoods_that_are_computed(every: Everything) -> None:
    n = 20_000
    drawn = tabular.draw(MDP, policy(0), jax.random.PRNGKey(0), n, LENGTH)
    code = (STATES * ACTIONS) ** np.arange(LENGTH)
    index = (np.asarray(drawn.states) * ACTIONS + np.asarray(drawn.actions)) @ code
    known = (np.asarray(every.rollouts.states) * ACTIONS + np.asarray(every.rollouts.actions)) @ code
    counts = np.bincount(index, minlength=known.size)[known]
    deviations = (counts - n * every.old) / np.sqrt(n * every.old)
    assert np.mean(deviations**2) == pytest.approx(1.0, abs=0.4)  # chi-squared by its degrees of freedom
