"""ACKTR as a whole update: the trust region holds, its memory is kept, odd input does no harm."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from updates import BOX, CHOICES, CONTINUOUS, ODD_CASES, experience, first_learner, flat, improve, make_update, odd_case

TO_THE_BOUNDARY = {"learning_rate": 100, "momentum": 0, "ent_coef": 0, "target_kl": 1e-4}


@pytest.mark.parametrize(("action_space", "recurrent"), [(CHOICES, None), (CONTINUOUS, "gru")])
def test_a_step_to_the_boundary_has_about_the_divergence_asked_for(
    action_space: gym.Space[Any], recurrent: str | None
) -> None:
    memory = {"recurrent": recurrent, "recurrent_size": 4} if recurrent else {}
    update = make_update(BOX, action_space, "acktr", **TO_THE_BOUNDARY, **memory)
    learner = first_learner(update)
    new, record = improve(update, learner, experience(update, learner))
    assert record["finite"]
    assert record["mean_kl"] == pytest.approx(1e-4, rel=0.1)
    gain = record["policy_objective_after"] - record["policy_objective_before"]
    assert gain == pytest.approx(float(record["predicted_improvement"]), rel=0.2)
    assert not np.array_equal(flat(new.parameters["critic"]), flat(learner.parameters["critic"]))


def test_the_critic_s_loss_falls_as_its_model_says_it_will() -> None:
    update = make_update(BOX, CHOICES, "acktr", **TO_THE_BOUNDARY)
    learner = first_learner(update)
    trajectory = experience(update, learner)
    new, record = improve(update, learner, trajectory)
    fitted = learner._replace(parameters={**learner.parameters, "critic": new.parameters["critic"]})
    _, later = improve(update, fitted, trajectory)
    assert later["value_loss"] < record["value_loss"]
    assert record["critic_predicted_improvement"] > 0.0


def test_what_is_remembered_keeps_its_types_and_grows_with_each_update() -> None:
    update = make_update(BOX, CONTINUOUS, "acktr")
    learner = first_learner(update)
    trajectory = experience(update, learner)
    for count in (1, 2):
        new, _ = improve(update, learner, trajectory)
        kinds = [jax.tree.map(lambda x: (x.shape, x.dtype), one) for one in (learner, new)]
        assert kinds[0] == kinds[1]
        curvatures = [new.solver[which]["step"] for which in ("policy", "critic")]
        assert [int(one.updates) for one in curvatures] == [count, count]
        learner = new
    np.testing.assert_allclose(curvatures[0].diagonal, [2.0, 2.0], rtol=1e-6)


def test_without_a_critic_the_policy_moves_alone() -> None:
    update = make_update(BOX, CHOICES, "acktr", baseline="mean", advantage="to-go")
    learner = first_learner(update)
    new, record = improve(update, learner, experience(update, learner))
    assert record["finite"]
    assert record["step_norm"] > 0.0
    assert not np.array_equal(flat(new.parameters["policy"]), flat(learner.parameters["policy"]))


def test_a_forbidden_action_has_no_part_in_anything() -> None:
    update = make_update(BOX, CHOICES, "acktr", **TO_THE_BOUNDARY)
    learner = first_learner(update)
    masks = jnp.broadcast_to(jnp.array([True, True, False]), (8, 2, 3))
    new, record = improve(
        update, learner, experience(update, learner, actions=jnp.ones((8, 2), jnp.int32), action_masks=masks)
    )
    assert record["finite"]
    curvature = new.solver["policy"]["step"]
    outputs = curvature.factors[0].outputs  # those of the head, the first layer in order
    assert outputs.shape == (3, 3)
    assert not np.any(outputs[2])
    assert np.any(outputs[:2, :2])
    change = jax.tree.map(jnp.subtract, new.parameters["policy"]["head"], learner.parameters["policy"]["head"])
    assert not np.any(change["logits"]["bias"][2])


@pytest.mark.parametrize("case", ODD_CASES)
def test_what_gives_no_direction_gives_no_nan(case: str) -> None:
    update, learner, trajectory = odd_case("acktr", case)
    for _ in range(2):
        learner, record = improve(update, learner, trajectory)
        assert record["finite"], record


def test_rows_that_are_no_experience_have_no_part() -> None:
    """Whatever their observations are."""
    update = make_update(BOX, CHOICES, "acktr")
    learner = first_learner(update)
    trajectory = experience(update, learner, valid=jnp.ones((8, 2), bool).at[3, 0].set(False))
    other = trajectory._replace(observations=trajectory.observations.at[3, 0].set(50.0))
    curvatures = [improve(update, learner, one)[0].solver["policy"]["step"] for one in (trajectory, other)]
    for one, two in zip(*(jax.tree.leaves(x.factors) for x in curvatures), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-6)
