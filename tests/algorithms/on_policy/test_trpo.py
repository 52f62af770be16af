"""TRPO, NPG and TNPG as whole updates: the trust region holds, a refused step changes nothing, odd input does no harm."""

from __future__ import annotations

import dataclasses
from typing import Any

import gymnasium as gym
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces
from updates import (
    BOX,
    CHOICES,
    CONTINUOUS,
    ODD_CASES,
    experience,
    first_learner,
    flat,
    improve,
    make_update,
    odd_case,
    rows_of,
)

METHODS = ("trpo", "npg", "tnpg")
# Heads know nothing of memories, so not every pair is tried.
POLICIES: dict[str, tuple[gym.Space[Any], str | None]] = {
    "discrete": (CHOICES, None),
    "continuous, recurrent": (CONTINUOUS, "gru"),
    "multi_discrete": (spaces.MultiDiscrete([3, 2]), None),
    "multi_binary, recurrent": (spaces.MultiBinary(3), "gru"),
}


@pytest.mark.parametrize("policy", POLICIES)
def test_an_accepted_step_stays_in_the_trust_region_and_raises_the_surrogate(policy: str) -> None:
    action_space, recurrent = POLICIES[policy]
    update = make_update(BOX, action_space, "trpo", recurrent=recurrent, recurrent_size=4, target_kl=0.05)
    learner = first_learner(update)
    new, record = improve(update, learner, experience(update, learner))
    assert record["finite"]
    assert record["step_fraction"] > 0.0
    assert 0.0 < record["mean_kl"] <= 0.05
    assert record["policy_objective_after"] > record["policy_objective_before"]
    assert record["cg_blocked"] == 0.0
    assert not np.array_equal(flat(new.parameters["critic"]), flat(learner.parameters["critic"]))


@pytest.mark.parametrize("name", METHODS)
def test_a_small_step_has_the_divergence_asked_for_and_the_gain_predicted(name: str) -> None:
    update = make_update(BOX, CONTINUOUS, name, target_kl=1e-4)
    learner = first_learner(update)
    _, record = improve(update, learner, experience(update, learner))
    assert record["mean_kl"] == pytest.approx(1e-4, rel=0.1)
    gain = record["policy_objective_after"] - record["policy_objective_before"]
    assert gain == pytest.approx(float(record["predicted_improvement"]), rel=0.1)


def test_the_bound_of_trajectories_is_on_the_sums_over_their_steps_sampled_and_exact() -> None:
    """Definition 4.6.4 of the course notes, its sum divided by the number of trajectories, and the exact one beside it."""
    update = make_update(
        BOX, CHOICES, "trpo", target_kl=0.02, divergence="log-ratio", divergence_per="trajectory", ent_coef=0.0
    )
    learner = first_learner(update)
    trajectory = experience(update, learner)
    new, record = improve(update, learner, trajectory)
    batch = rows_of(update, learner, trajectory)
    old, at = (update.policy.evaluate(x.parameters["policy"], batch) for x in (learner, new))
    trajectories = 4  # each of two environments ends an episode and goes on with another
    assert record["step_fraction"] > 0.0
    assert 0.0 < float(jnp.sum(old.kl(at))) / trajectories <= 0.02 * (1 + 1e-5)
    assert float(jnp.sum(batch.log_probs - at.log_prob(batch.actions))) / trajectories <= 0.02
    # To the mean over steps the step would have been longer: to 0.02 in each of 16 rows, not in each of 4 trajectories.
    assert record["mean_kl"] < 0.006


class Refusal:
    """The acceptance that nothing has."""

    def test(self, problem: Any, batch: Any, old: Any) -> Any:
        return lambda new: jnp.zeros((), bool)


def test_a_refused_step_changes_no_bit_of_the_policy_and_the_critic_learns_all_the_same() -> None:
    made: Any = make_update(BOX, CHOICES, "trpo")
    search = dataclasses.replace(made.solver.policy, acceptance=Refusal())
    update = dataclasses.replace(made, solver=dataclasses.replace(made.solver, policy=search))
    learner = first_learner(update)
    new, record = improve(update, learner, experience(update, learner))
    assert (record["step_fraction"], record["line_search_tries"]) == (0.0, 10.0)
    assert np.array_equal(flat(new.parameters["policy"]), flat(learner.parameters["policy"]))
    assert not np.array_equal(flat(new.parameters["critic"]), flat(learner.parameters["critic"]))
    assert record["mean_kl"] == 0.0


def test_the_policy_s_step_does_not_depend_on_how_the_critic_is_fitted() -> None:
    steps = []
    for settings in ({}, {"learning_rate": 0.1, "n_critic_updates": 3}):
        update = make_update(BOX, CONTINUOUS, "trpo", **settings)
        learner = first_learner(update)
        new, _ = improve(update, learner, experience(update, learner))
        steps.append(flat(new.parameters["policy"]))
    np.testing.assert_array_equal(*steps)


def test_a_fixed_rate_is_another_method_than_a_step_to_the_divergence() -> None:
    changes = []
    for rate in (0.01, 0.02):
        update = make_update(BOX, CONTINUOUS, "npg", natural_step="rate", policy_learning_rate=rate)
        learner = first_learner(update)
        new, _ = improve(update, learner, experience(update, learner))
        changes.append(flat(new.parameters["policy"]) - flat(learner.parameters["policy"]))
    np.testing.assert_allclose(changes[1], 2.0 * changes[0], rtol=1e-3, atol=1e-7)


def test_npg_by_the_whole_matrix_and_by_conjugate_gradients_agree() -> None:
    steps = []
    for dense_up_to in (400, 0):
        update = make_update(BOX, CONTINUOUS, "npg", dense_up_to=dense_up_to, cg_tolerance=1e-6)
        learner = first_learner(update)
        new, record = improve(update, learner, experience(update, learner))
        assert record["cg_residual"] < 1e-4
        steps.append(flat(new.parameters["policy"]))
    np.testing.assert_allclose(*steps, atol=1e-5)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("case", ODD_CASES)
def test_what_gives_no_direction_gives_no_nan(name: str, case: str) -> None:
    update, learner, trajectory = odd_case(name, case)
    new, record = improve(update, learner, trajectory)
    assert record["finite"], record
    if case in ("one action", "no experience"):
        assert np.array_equal(flat(new.parameters["policy"]), flat(learner.parameters["policy"]))
