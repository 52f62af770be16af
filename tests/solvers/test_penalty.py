"""The penalty around a solver, and PPO with it."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from updates import BOX, CHOICES, CONTINUOUS, experience, first_learner, flat, improve, make_update, rows_of

from jumar.solvers.objectives import surrogate
from jumar.solvers.penalty import LARGEST, SMALLEST
from jumar.trajectory import weighted_mean

NAME = "ppo-penalty"
BASE: dict[str, Any] = {"normalize_advantage": False, "max_grad_norm": None}


@pytest.mark.parametrize(
    ("space", "divergence"),
    [(CHOICES, "exact"), (CONTINUOUS, "exact"), (CONTINUOUS, "reverse"), (CHOICES, "log-ratio")],
    ids=["discrete", "continuous", "reverse", "log-ratio"],
)
def test_the_gradient_is_that_of_the_penalised_surrogate(space: Any, divergence: str) -> None:
    """Of the second of two steps: at the old parameters an exact divergence has no gradient.

    With ``log-ratio`` it is that of the course notes' objective, the mean of ratio A - beta log(1 / pi).
    """
    chosen: dict[str, Any] = {**BASE, "divergence": divergence, "learning_rate": 0.01}
    first = make_update(BOX, space, NAME, **chosen)
    learner = first_learner(first)
    trajectory = experience(first, learner)
    one, _ = improve(first, learner, trajectory)
    two, _ = improve(make_update(BOX, space, NAME, n_epochs=2, **chosen), learner, trajectory)
    batch = rows_of(first, learner, trajectory)
    old = first.policy.evaluate(learner.parameters["policy"], batch)

    def penalised(policy: Any) -> jax.Array:
        at = first.policy.evaluate(policy, batch)
        gain = weighted_mean(surrogate(at.log_prob(batch.actions), batch.log_probs, batch.advantages), batch.weights)
        rows = {"exact": old.kl(at), "reverse": at.kl(old), "log-ratio": -at.log_prob(batch.actions)}[divergence]
        return gain - 1.0 * weighted_mean(rows, batch.weights)

    # Adam's first two steps by hand.
    gradient = jax.jit(jax.grad(penalised))
    gradients = [flat(gradient(at.parameters["policy"])) for at in (learner, one)]
    mean = 0.1 * (0.9 * gradients[0] + gradients[1]) / (1 - 0.9**2)
    square = 0.001 * (0.999 * gradients[0] ** 2 + gradients[1] ** 2) / (1 - 0.999**2)
    expected = flat(one.parameters["policy"]) + 0.01 * mean / (np.sqrt(square) + 1e-5)
    np.testing.assert_allclose(flat(two.parameters["policy"]), expected, atol=2e-5)


@pytest.mark.parametrize(
    ("target", "factor"), [(1e-6, 2.0), (1e6, 0.5), (None, 1.0)], ids=["too far", "too near", "fixed"]
)
def test_the_coefficient_doubles_halves_or_stays(target: float | None, factor: float) -> None:
    own: dict[str, Any] = {"adaptive_kl": False} if target is None else {"target_kl": target}
    update = make_update(BOX, CHOICES, NAME, learning_rate=0.01, **own)
    learner = first_learner(update)
    new, record = improve(update, learner, experience(update, learner))
    assert record["kl_coef"] == 1.0, "that of this update"
    assert new.solver["coefficient"] == factor


def test_a_divergence_near_the_target_leaves_the_coefficient() -> None:
    plain = make_update(BOX, CHOICES, NAME, learning_rate=0.01, adaptive_kl=False)
    learner = first_learner(plain)
    trajectory = experience(plain, learner)
    mean_kl = float(improve(plain, learner, trajectory)[1]["mean_kl"])
    for share, factor in ((1.4, 1.0), (1.6, 2.0), (1 / 1.4, 1.0), (1 / 1.6, 0.5)):
        update = make_update(BOX, CHOICES, NAME, learning_rate=0.01, target_kl=mean_kl / share)
        new, _ = improve(update, learner, trajectory)
        assert new.solver["coefficient"] == factor


@pytest.mark.parametrize(("start", "target"), [(LARGEST, 1e-6), (SMALLEST, 1e6)])
def test_the_coefficient_is_bounded(start: float, target: float) -> None:
    update = make_update(BOX, CHOICES, NAME, learning_rate=0.01, kl_coef=start, target_kl=target)
    learner = first_learner(update)
    new, _ = improve(update, learner, experience(update, learner))
    assert new.solver["coefficient"] == pytest.approx(start)


def test_a_larger_coefficient_keeps_the_policy_nearer() -> None:
    far = []
    for coefficient in (0.01, 100.0):
        update = make_update(BOX, CONTINUOUS, NAME, learning_rate=0.01, n_epochs=20, kl_coef=coefficient)
        learner = first_learner(update)
        _, record = improve(update, learner, experience(update, learner))
        far.append(float(record["mean_kl"]))
    assert far[1] < 0.2 * far[0]


@pytest.mark.parametrize("recurrent", [None, "gru"])
def test_the_penalty_does_no_harm_where_there_is_nothing_to_climb(recurrent: str | None) -> None:
    update = make_update(BOX, CONTINUOUS, NAME, recurrent=recurrent, recurrent_size=4)
    learner = first_learner(update)
    new, record = improve(update, learner, experience(update, learner, valid=jnp.zeros((8, 2), bool)))
    assert record["finite"]
    assert np.array_equal(flat(new.parameters["policy"]), flat(learner.parameters["policy"]))
