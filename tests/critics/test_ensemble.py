"""Ensembles of Q(s, a): the numbers of each critic, and what is made of them."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from replays import double, make_update, q_values, scattered

from jumar.critics.ensemble import Ensemble, First, Layers, Least, Mean
from jumar.networks.layers import Torso, orthogonal, uniform_fan_in

KEY = jax.random.PRNGKey(0)


def ensemble(n: int, initialiser: object = uniform_fan_in) -> Ensemble:
    return Ensemble(Torso(3, (), (), "relu", None, 1, uniform_fan_in), 2, (16, 8), Layers("relu"), n, initialiser)  # type: ignore[arg-type]


def inputs(n: int = 7) -> tuple[Any, Any]:
    draw = np.random.default_rng(0)
    return draw.normal(size=(n, 3)).astype(np.float32), draw.uniform(-1.0, 1.0, (n, 2)).astype(np.float32)


def test_each_critic_is_its_own_network_of_observation_and_action() -> None:
    update = make_update("sac", n_critics=3)
    critic = update.critic
    observations, actions = inputs()
    parameters = scattered(critic.init(KEY), 1)
    features = update.policy.encoder.encode(observations, update.policy.encoder.initial_moments())
    values, statistics = critic.apply(parameters, (), features, actions, KEY, True)
    assert (values.shape, statistics) == ((3, 7), ())
    np.testing.assert_allclose(values, q_values(double(parameters), observations, actions), rtol=1e-5)


def test_critics_begin_apart_and_each_with_the_spread_of_a_single_one() -> None:
    """Matrices of the first layers lie side by side, but are drawn for themselves."""
    for initialiser in (uniform_fan_in, orthogonal):
        pair = ensemble(2, initialiser).init(KEY)
        first, second = np.split(np.asarray(pair["first"]["kernel"]), 2, axis=1)
        assert first.shape == (5, 16)
        assert np.abs(first - second).max() > 0.1
        assert np.any(pair["critic_0"]["layer_1"]["kernel"] != pair["critic_1"]["layer_1"]["kernel"])
        if initialiser is orthogonal:  # of gain sqrt 2, in rows
            np.testing.assert_allclose(first @ first.T, 2.0 * np.eye(5), atol=1e-5)
        else:
            assert 0.9 / np.sqrt(5.0) < np.abs(first).max() <= 1.0 / np.sqrt(5.0)


def test_no_critic_has_a_part_in_the_gradient_of_another() -> None:
    update = make_update("td3")
    critic = update.critic
    observations, actions = inputs()
    features = update.policy.encoder.encode(observations, update.policy.encoder.initial_moments())
    parameters = scattered(critic.init(KEY), 1)
    slopes = jax.grad(lambda p: jnp.sum(critic.apply(p, (), features, actions, KEY, True)[0][0]))(parameters)
    assert not ravel_pytree(slopes["critic_1"])[0].any()
    assert not np.split(np.asarray(slopes["first"]["kernel"]), 2, axis=1)[1].any()
    assert ravel_pytree(slopes["critic_0"])[0].any()


def test_reductions_by_literal_numbers() -> None:
    values = jnp.array([[3.0, -1.0, 2.0], [1.0, 5.0, 2.5], [2.0, 0.0, 9.0]])
    np.testing.assert_array_equal(First()(values, KEY), [3.0, -1.0, 2.0])
    np.testing.assert_array_equal(Mean()(values, KEY), [2.0, jnp.float32(4.0 / 3.0), 4.5])
    np.testing.assert_array_equal(Least()(values, KEY), [1.0, -1.0, 2.0])
    np.testing.assert_array_equal(Least(3)(values, KEY), Least()(values, KEY))


def test_a_subset_is_drawn_for_the_batch_as_one_and_each_subset_equally_often() -> None:
    """Of three critics two are taken: three subsets, each by a third; the least of each is over whole rows of one subset."""
    values = jnp.array([[1.0, 9.0, 3.0], [2.0, 8.0, 1.0], [3.0, 7.0, 2.0]])
    keys = jax.random.split(KEY, 900)
    found = np.asarray(jax.vmap(lambda key: Least(2)(values, key))(keys))
    subsets = [np.minimum(values[i], values[j]) for i, j in ((0, 1), (0, 2), (1, 2))]
    which = np.array([[np.array_equal(row, subset) for subset in subsets] for row in found])
    np.testing.assert_array_equal(which.sum(axis=1), 1)
    assert which.sum(axis=0).min() > 240
