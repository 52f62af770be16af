"""How critics write values in their outputs, numbers and histograms, against the normal distribution in double precision."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats
from gymnasium import spaces
from replays import (
    HALF,
    MIDDLE,
    by_gradient,
    change,
    double,
    gradient,
    improve,
    make_update,
    mean,
    scattered_learner,
    some_rows,
)

from jumar.critics.encodings import Histogram, Number

BINS = Histogram(21, 4.0)
EDGES = np.linspace(-4.0, 4.0, 22)
CENTRES = (EDGES[1:] + EDGES[:-1]) / 2.0


def shares(targets: np.ndarray) -> np.ndarray:
    """Return a Gaussian around each target, in bins and cut off at the limits."""
    y = np.clip(np.asarray(targets, np.float64), -4.0, 4.0)[..., None]
    below = scipy.stats.norm.cdf(EDGES, y, 0.75 * 8.0 / 21.0)
    return np.diff(below) / (below[..., -1:] - below[..., :1])


def cross_entropy(outputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
    wanted = shares(targets)
    return np.sum(scipy.special.xlogy(wanted, wanted) - wanted * scipy.special.log_softmax(outputs, axis=-1), axis=-1)


def test_a_number_is_its_own_value_and_its_loss_half_the_squared_error() -> None:
    outputs = jnp.asarray([[1.5], [-2.0]])
    np.testing.assert_array_equal(Number().value(outputs), [1.5, -2.0])
    np.testing.assert_array_equal(Number().loss(outputs, jnp.asarray([1.0, 2.0])), [0.125, 8.0])


def test_a_target_is_a_gaussian_in_bins_which_is_worth_the_target() -> None:
    targets = np.array([-9.0, -4.0, -3.9, -0.3, 0.0, 1.7, 4.0, 1e30], np.float32)
    found = np.asarray(BINS.shares(jnp.asarray(targets)))
    np.testing.assert_allclose(found, shares(targets), atol=1e-6)
    np.testing.assert_allclose(found.sum(axis=-1), 1.0, rtol=1e-6)
    inner = targets[3:6]  # far from the limits
    worth = BINS.value(jnp.log(jnp.maximum(BINS.shares(jnp.asarray(inner)), 1e-30)))
    np.testing.assert_allclose(worth, inner, atol=2e-3 * BINS.width)


def test_the_loss_is_a_relative_entropy_whose_slope_is_the_difference_of_shares() -> None:
    draw = np.random.default_rng(0)
    outputs, targets = draw.normal(size=(5, 21)).astype(np.float32), np.array([-5.0, -1.0, 0.2, 3.3, 9.0], np.float32)
    losses = BINS.loss(jnp.asarray(outputs), jnp.asarray(targets))
    np.testing.assert_allclose(losses, cross_entropy(outputs, targets), rtol=1e-5)
    slope = jax.grad(lambda x: jnp.sum(BINS.loss(x, jnp.asarray(targets))))(jnp.asarray(outputs))
    np.testing.assert_allclose(slope, scipy.special.softmax(outputs, axis=-1) - shares(targets), atol=1e-6)
    best = np.log(np.maximum(shares(targets), 1e-30)).astype(np.float32)
    np.testing.assert_allclose(BINS.loss(jnp.asarray(best), jnp.asarray(targets)), 0.0, atol=2e-6)


def logits(critic: Any, observations: np.ndarray, units: np.ndarray) -> np.ndarray:
    """Return the outputs of both critics of one hidden layer, ``[2, B, m]``."""
    first = np.concatenate([observations, units], axis=-1) @ critic["first"]["kernel"] + critic["first"]["bias"]
    last = [critic[f"critic_{k}"]["layer_1"] for k in range(2)]
    hidden = np.split(np.maximum(first, 0.0), 2, axis=-1)
    return np.stack([x @ layer["kernel"] + layer["bias"] for x, layer in zip(hidden, last, strict=True)])


def test_an_update_climbs_down_the_cross_entropy_with_targets_of_values() -> None:
    """Against NumPy: DDPG's targets with two critics, whose values are means of their histograms."""
    settings: dict[str, Any] = {"critic_net_arch": (4,), "n_critics": 2, "critic_bins": 21, "critic_limit": 4.0}
    update = by_gradient(make_update("ddpg", **settings))
    assert update.critic.encoding == BINS
    learner, rows = scattered_learner(update), some_rows()
    new, said, _ = improve(update, learner, rows)
    old, then = double(learner.parameters), double(new.parameters)

    def acted(policy: Any, seen: np.ndarray) -> np.ndarray:
        for layer in policy["torso"]["mlp"].values():
            seen = np.maximum(seen @ layer["kernel"] + layer["bias"], 0.0)
        return np.tanh(seen @ policy["head"]["mean"]["kernel"] + policy["head"]["mean"]["bias"])

    observations, successors = np.asarray(rows.observations, np.float64), np.asarray(rows.successors, np.float64)
    units = (np.asarray(rows.actions, np.float64) - MIDDLE) / HALF
    after = logits(old["target"]["critic"], successors, acted(old["target"]["policy"], successors))
    values = scipy.special.softmax(after, axis=-1) @ CENTRES
    targets = rows.rewards + rows.discounts * values.min(axis=0)

    def loss(critic: Any) -> float:
        return sum(mean(cross_entropy(own, targets), rows.weights) for own in logits(critic, observations, units))

    assert said["critic_loss"] == pytest.approx(loss(old["critic"]), rel=1e-5)
    np.testing.assert_allclose(change(old["critic"], then["critic"]), -gradient(loss, old["critic"]), atol=3e-6)
    now = scipy.special.softmax(logits(old["critic"], observations, units), axis=-1) @ CENTRES
    assert said["q_mean"] == pytest.approx(mean(now.mean(axis=0), rows.weights), rel=1e-4, abs=1e-5)


def test_discrete_actions_have_a_histogram_each() -> None:
    update = make_update("sac", spaces.Discrete(3), critic_bins=5, critic_limit=2.0)
    critic, key = update.critic, jax.random.PRNGKey(0)
    features = update.policy.encoder.encode(np.ones((4, 3), np.float32), update.policy.encoder.initial_moments())
    parameters = critic.init(key)
    outputs, _ = critic.outputs_of_all(parameters, (), features, key, True)
    assert outputs.shape == (2, 4, 3, 5)
    chosen = jax.nn.one_hot(jnp.asarray([0, 2, 1, 1]), 3)
    of_chosen, _ = critic.outputs(parameters, (), features, chosen, key, True)
    np.testing.assert_array_equal(of_chosen, outputs[:, jnp.arange(4), jnp.asarray([0, 2, 1, 1])])
    values, _ = critic.of_all(parameters, (), features, key, True)
    np.testing.assert_allclose(values, critic.encoding.value(outputs), rtol=1e-6)


def test_critics_that_come_near_the_end_of_what_they_can_write_are_told_of() -> None:
    update = make_update("ddpg", critic_bins=21, critic_limit=4.0)
    assert "critic_limit" in update.symptoms({"train/q_mean": -3.7})["limit"]
    assert not update.symptoms({"train/q_mean": 3.0})["limit"]
    numbers = replace(update, critic=replace(update.critic, encoding=Number()))  # type: ignore[type-var]
    assert not numbers.symptoms({"train/q_mean": 1e5})["limit"]
