"""A2C as a whole update, against the gradient by hand and against PPO."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest
from updates import BOX, CHOICES, CONTINUOUS, experience, first_learner, flat, improve, make_update, rows_of

from jumar.trajectory import weighted_mean


@pytest.mark.parametrize("space", [CHOICES, CONTINUOUS], ids=["discrete", "continuous"])
@pytest.mark.parametrize("normalize", [False, True])
def test_one_epoch_of_the_whole_rollout_makes_a2c_of_ppo(space: Any, normalize: bool) -> None:
    """Same optimiser, estimator, normalisation and clipping of the gradient."""
    common: dict[str, Any] = {
        "learning_rate": 1e-3,
        "gae_lambda": 0.9,
        "normalize_advantage": normalize,
        "ent_coef": 0.01,
        "max_grad_norm": 0.3,
    }
    parameters = []
    for name, own in (("ppo", {"adam_epsilon": 1e-5}), ("a2c", {"use_rms_prop": False, "rms_prop_eps": 1e-5})):
        update = make_update(BOX, space, name, **common, **own)
        learner = first_learner(update)
        new, _ = improve(update, learner, experience(update, learner))
        parameters.append(flat(new.parameters))
    np.testing.assert_allclose(*parameters, atol=1e-6)


def test_the_step_is_that_of_the_score_function_by_rmsprop() -> None:
    update = make_update(BOX, CHOICES, "a2c", learning_rate=0.01, max_grad_norm=None, vf_coef=0.0)
    learner = first_learner(update)
    trajectory = experience(update, learner)
    batch = rows_of(update, learner, trajectory)

    def objective(policy: Any) -> jax.Array:
        log_probs = update.policy.evaluate(policy, batch).log_prob(batch.actions)
        return weighted_mean(log_probs * batch.advantages, batch.weights)

    gradient = flat(jax.jit(jax.grad(objective))(learner.parameters["policy"]))
    new, record = improve(update, learner, trajectory)
    change = flat(new.parameters["policy"]) - flat(learner.parameters["policy"])
    # RMSprop's first step, its mean square 0.01 g^2.
    np.testing.assert_allclose(change, 0.01 * gradient / (0.1 * np.abs(gradient) + 1e-5), rtol=1e-3, atol=1e-6)
    assert record["grad_norm"] == pytest.approx(np.linalg.norm(gradient), rel=1e-4)
