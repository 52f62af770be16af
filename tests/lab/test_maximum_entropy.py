"""Soft values, soft policy iteration and its optimum; and that the shipped methods reach it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces
from processes import random_policy
from replays import scattered

from jumar.algorithms.off_policy.update import OffPolicy
from jumar.algorithms.registry import algorithm
from jumar.errors import UsageError
from jumar.experience.replay import Transitions
from jumar.lab.maximum_entropy import (
    soft_action_values,
    soft_improvement,
    soft_optimum,
    soft_policy_iteration,
    soft_state_values,
)
from jumar.lab.tabular import TabularMDP, random_mdp, state_values
from jumar.policies.policy import make_policy

MDP = random_mdp(jax.random.PRNGKey(2), 4, 3, 0.8)
ALPHA = 0.5


def test_soft_values_satisfy_their_definition() -> None:
    policy = random_policy(3)
    p = np.asarray(policy.probs, np.float64)
    v, q = soft_state_values(MDP, policy, ALPHA), soft_action_values(MDP, policy, ALPHA)
    np.testing.assert_allclose(q, MDP.rewards + 0.8 * np.asarray(MDP.transitions) @ v, rtol=1e-6)
    np.testing.assert_allclose(v, (p * (q - ALPHA * np.log(p))).sum(-1), rtol=1e-6)
    np.testing.assert_allclose(soft_state_values(MDP, policy, 0.0), state_values(MDP, policy), rtol=1e-12)


def test_soft_improvement_never_loses_and_iteration_converges_to_the_optimum() -> None:
    best, q = soft_optimum(MDP, ALPHA)
    last, values = soft_policy_iteration(MDP, random_policy(4), ALPHA, 40)
    assert np.all(np.diff(values, axis=0) >= -1e-12)
    np.testing.assert_allclose(values[-1], ALPHA * np.log(np.exp(q / ALPHA).sum(-1)), rtol=1e-10)
    np.testing.assert_allclose(last.probs, best.probs, rtol=1e-8)
    np.testing.assert_allclose(soft_action_values(MDP, best, ALPHA), q, rtol=1e-5)
    np.testing.assert_array_equal(soft_improvement(q, ALPHA).logits, best.logits)


def test_with_little_entropy_the_optimum_is_the_greedy_one() -> None:
    policy, q = soft_optimum(MDP, 1e-3)
    values = np.asarray(MDP.rewards)
    for _ in range(400):
        values = MDP.rewards + 0.8 * np.asarray(MDP.transitions) @ values.max(-1)
    np.testing.assert_allclose(q, values, atol=0.02)
    np.testing.assert_array_equal(np.asarray(policy.probs).argmax(-1), values.argmax(-1))


@pytest.mark.parametrize(
    ("mdp", "alpha", "said"),
    [(replace(MDP, horizon=3), 1.0, "horizon=3"), (MDP, 0.0, "must be above 0"), (MDP, -1.0, "alpha=-1.0")],
)
def test_what_has_no_soft_optimum_is_refused(mdp: TabularMDP, alpha: float, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        soft_optimum(mdp, alpha)


def every_transition(mdp: TabularMDP) -> Transitions:
    """Return a row for every (s, a, s'), weighted by how likely it is: means over them are exact."""
    states, actions, successors = (x.ravel() for x in np.indices(mdp.transitions.shape))
    rewards, weights = np.asarray(mdp.rewards, np.float32), np.asarray(mdp.transitions, np.float32)
    return Transitions(
        observations=jnp.asarray(states, jnp.int32),
        actions=jnp.asarray(actions, jnp.float32)[:, None],
        rewards=jnp.asarray(rewards[states, actions]),
        discounts=jnp.full(len(states), mdp.gamma, jnp.float32),
        successors=jnp.asarray(successors, jnp.int32),
        weights=jnp.asarray(weights.ravel()),
    )


@pytest.mark.parametrize(
    ("name", "settings"),
    [("sql", {}), ("sac", {})],
)
def test_shipped_methods_reach_the_exact_optimum(name: str, settings: dict[str, Any]) -> None:
    """Tables for policy and critics, exact means over all transitions: what is left is Adam's last step."""
    chosen = algorithm(name)
    common = {"net_arch": (), "tau": 0.1, "target_update_interval": 1, "learning_rate": "linear:0.05"}
    made = chosen.settings.make({"ent_coef": ALPHA, **common, **settings})
    policy = make_policy(spaces.Discrete(MDP.n_states), spaces.Discrete(MDP.n_actions), made)
    update = chosen.make(made, policy)
    assert isinstance(update, OffPolicy)
    rows = every_transition(MDP)
    learner, n = update.init(jax.random.PRNGKey(0), 1), 4_000
    learner = learner._replace(parameters=scattered(learner.parameters, 1))

    def step(state: Any, i: Any) -> tuple[Any, None]:
        learner, sums = state
        return update.improve(learner, sums, rows, 1.0 - i / n, jax.random.PRNGKey(0)), None

    start = (learner, update.begin().sums)
    (learner, _), _ = jax.jit(lambda start: jax.lax.scan(step, start, jnp.arange(n)))(start)
    best, q = soft_optimum(MDP, ALPHA)
    states = policy.encoder.encode(jnp.arange(MDP.n_states), learner.observation_moments)
    values, _ = update.critic.of_all(learner.parameters["critic"], (), states, jax.random.PRNGKey(0), False)
    np.testing.assert_allclose(values, np.broadcast_to(q, values.shape), atol=2e-3)
    probs = policy.at(learner.parameters["policy"], states).probs  # type: ignore[attr-defined]
    np.testing.assert_allclose(probs, best.probs, atol=2e-3)
