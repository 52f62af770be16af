"""Policies that depend on time, in tabular processes with a horizon."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import processes
import pytest
from jax import Array
from processes import ACTIONS, HORIZON, STATES

from jumar.errors import UsageError
from jumar.lab import improvement, tabular
from jumar.lab.tabular import TabularMDP
from jumar.policies.distributions import Categorical

pytestmark = pytest.mark.usefixtures("double_precision")


def timed_policy(seed: int) -> Categorical:
    return Categorical(jax.random.normal(jax.random.PRNGKey(seed), (HORIZON, STATES, ACTIONS)))


@jax.jit
def found(mdp: TabularMDP, policy: Categorical, new: Categorical) -> dict[str, Array]:
    return {
        "values": tabular.state_values(mdp, policy),
        "action_values": tabular.action_values(mdp, policy),
        "occupancies": tabular.occupancies(mdp, policy, HORIZON),
        "visits": tabular.visitation(mdp, policy),
        "states": tabular.state_distribution(mdp, policy),
        "worth": tabular.performance(mdp, policy),
        "gain": tabular.performance(mdp, new) - tabular.performance(mdp, policy),
        "lemma": improvement.performance_difference(mdp, policy, new),
        "mean_kl": improvement.mean_kl(mdp, policy, new),
    }


def test_the_values_and_visits_of_a_policy_that_depends_on_time() -> None:
    mdp, policy, new = processes.process(HORIZON), timed_policy(1), timed_policy(2)
    exact = found(mdp, policy, new)
    probs, later, gamma = np.asarray(policy.probs), np.zeros(STATES), mdp.gamma
    transitions, rewards = np.asarray(mdp.transitions), np.asarray(mdp.rewards)
    for step in reversed(range(HORIZON)):
        q = rewards + gamma * transitions @ later
        later = (probs[step] * q).sum(-1)
        np.testing.assert_allclose(exact["action_values"][step], q, rtol=1e-12)
        np.testing.assert_allclose(exact["values"][step], later, rtol=1e-12)
    states = np.asarray(mdp.initial)
    for step in range(HORIZON):
        np.testing.assert_allclose(exact["occupancies"][step], states, rtol=1e-12)
        np.testing.assert_allclose(exact["visits"][step], gamma**step * states, rtol=1e-12)
        states = np.einsum("s,sa,sap->p", states, probs[step], transitions)
    np.testing.assert_allclose(exact["worth"], np.asarray(mdp.initial) @ later, rtol=1e-12)
    np.testing.assert_allclose(exact["lemma"], exact["gain"], rtol=1e-8)
    weights = np.asarray(exact["visits"])
    kl = (probs * np.log(probs / np.asarray(new.probs))).sum(-1)
    np.testing.assert_allclose(exact["mean_kl"], (weights * kl).sum() / weights.sum(), rtol=1e-10)


def test_a_policy_that_is_the_same_at_all_times_is_one_without_time() -> None:
    mdp, steady, new = processes.process(HORIZON), processes.random_policy(1), timed_policy(2)
    repeated = tabular.over_time(mdp, steady)
    assert repeated.logits.shape == (HORIZON, STATES, ACTIONS)
    one, other = found(mdp, steady, new), found(mdp, repeated, new)
    for name, number in one.items():
        np.testing.assert_allclose(other[name], number, rtol=1e-12, err_msg=name)
    endless = processes.process(None)
    np.testing.assert_array_equal(tabular.over_time(endless, steady).logits, steady.logits)


def test_trajectories_are_drawn_by_the_time() -> None:
    mdp, policy, n = processes.process(HORIZON), timed_policy(3), 20_000
    rollouts = tabular.draw(mdp, policy, jax.random.PRNGKey(7), n, HORIZON)
    counted = np.zeros((HORIZON, STATES, ACTIONS))
    steps = np.broadcast_to(np.arange(HORIZON), rollouts.states.shape)
    np.add.at(counted, (steps, np.asarray(rollouts.states), np.asarray(rollouts.actions)), 1.0 / n)
    exact = np.asarray(tabular.occupancies(mdp, policy, HORIZON))[..., None] * np.asarray(policy.probs)
    np.testing.assert_array_less(np.abs(counted - exact), 5.0 * np.sqrt(exact * (1.0 - exact) / n))


def test_a_policy_that_does_not_fit_the_process_is_refused() -> None:
    timed = timed_policy(1)
    with pytest.raises(UsageError, match=r"shape \(6, 4, 3\) does not fit the process; it must be \(4, 3\)\."):
        tabular.state_values(processes.process(None), timed)
    with pytest.raises(UsageError, match=r"must be \(4, 3\) or \(5, 4, 3\)"):
        tabular.performance(processes.process(HORIZON - 1), timed)
    with pytest.raises(UsageError, match="length=7 is beyond the 6 steps"):
        tabular.draw(processes.process(HORIZON), timed, jax.random.PRNGKey(0), 2, HORIZON + 1)
    with pytest.raises(UsageError, match="length=7 is beyond the 6 steps"):
        tabular.occupancies(processes.process(HORIZON), timed, HORIZON + 1)
    with pytest.raises(UsageError, match=r"shape \(4, 2\) does not fit"):
        tabular.advantages(processes.process(None), Categorical(jnp.zeros((4, 2))))
