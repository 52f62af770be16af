"""Critics that see the time: values that depend on how much of the episode is left, and a policy that does not see it."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces
from updates import BOX, CHOICES, experience, first_learner, improve, make_update, rows_of

import jumar
from jumar.algorithms.on_policy.update import OnPolicy
from jumar.critics.state_values import (
    TIME,
    CriticPair,
    LayerPerStep,
    NeuralCritic,
    ScaledTime,
    TorsoCritic,
    make_critic,
)
from jumar.experience.rollouts import Rollout
from jumar.lab.tabular import TabularEnvironment, TabularMDP, state_values
from jumar.policies.observations import Encoder
from jumar.policies.policy import PolicySettings
from jumar.trajectory import Batch

STARTS = np.array([[0, 0, 1, 0, 0, 1, 0], [1, 0, 0, 0, 1, 0, 0]], bool)


# -- the parts --------------------------------------------------------------------------------------------------------


def test_scaled_time_is_one_more_entry_of_the_vector() -> None:
    features = {"vector": jnp.array([[1.0, 2.0], [3.0, 4.0]]), TIME: jnp.array([0, 15], jnp.int32)}
    seen = ScaledTime(10).seen(features)["vector"]
    np.testing.assert_array_equal(seen, np.array([[1.0, 2.0, 0.0], [3.0, 4.0, 1.5]], np.float32))
    alone = ScaledTime(10).seen({"image_0": jnp.zeros((2, 4, 4, 1)), TIME: features[TIME]})["vector"]
    np.testing.assert_array_equal(alone, np.array([[0.0], [1.5]], np.float32))


def test_a_layer_per_step_chooses_by_the_time_and_later_steps_have_the_last() -> None:
    features = {TIME: jnp.array([0, 1, 2, 9], jnp.int32)}
    outputs = jnp.tile(jnp.arange(6.0), (4, 1))  # two outputs of each of the steps 0, 1 and 2
    np.testing.assert_array_equal(LayerPerStep(2).chosen(outputs, features), [[0, 1], [2, 3], [4, 5], [4, 5]])


def test_the_time_goes_on_from_the_rollout_before_and_is_one_more_at_successors() -> None:
    update = make_update(critic_time="scaled")
    learner = first_learner(update)._replace(ages=jnp.array([3, 0], jnp.int32))
    trajectory = experience(update, learner)  # ends after row 2 of the first, row 4 of the second environment
    view = update._view(learner, Rollout(trajectory, learner.ages))
    expected = np.array([[3, 4, 5, 0, 1, 2, 3, 4], [0, 1, 2, 3, 4, 0, 1, 2]])
    np.testing.assert_array_equal(view.features[TIME], expected)
    np.testing.assert_array_equal(view.successors[TIME], expected + 1)
    assert TIME not in make_update()._view(learner, Rollout(trajectory, learner.ages)).features


def test_the_time_of_remembered_rollouts_is_that_of_the_day() -> None:
    update = make_update(name="ispg", critic_time="scaled", n_rollouts=2, n_steps=8)
    learner = first_learner(update)
    first = experience(update, learner, terminated=jnp.zeros((8, 2), bool), truncated=jnp.zeros((8, 2), bool))
    _, remembered = update.experience.add(learner.experience, Rollout(first, learner.ages), update.policy)
    after = jnp.full(2, 8, jnp.int32)
    both, _ = update.experience.add(remembered, Rollout(first, after), update.policy)
    times = update._view(learner, both).features[TIME]
    np.testing.assert_array_equal(times, np.arange(8) + np.array([8, 8, 0, 0])[:, None])


def test_the_policy_does_not_see_the_time() -> None:
    update = make_update(critic_time="scaled", critic_horizon=10)
    learner = first_learner(update)
    batch = rows_of(update, learner, experience(update, learner))
    later = batch._replace(features={**batch.features, TIME: batch.features[TIME] + 5})
    policy, critic = learner.parameters["policy"], learner.parameters["critic"]
    same = (update.policy.evaluate(policy, x).logits for x in (batch, later))  # type: ignore[attr-defined]
    np.testing.assert_array_equal(*same)
    assert np.all(update.critic.evaluate(critic, batch) != update.critic.evaluate(critic, later))
    assert policy["torso"]["mlp"]["layer_0"]["kernel"].shape == (3, 6)
    assert critic["torso"]["mlp"]["layer_0"]["kernel"].shape == (4, 6)


@pytest.mark.parametrize("critic_time", ["scaled", "steps"])
def test_a_recurrent_critic_sees_the_time_of_rows_and_of_successors(critic_time: str) -> None:
    settings = PolicySettings(
        net_arch=(), recurrent="gru", recurrent_size=3, critic_time=critic_time, critic_horizon=4, ortho_init=False
    )
    critic = make_critic(Encoder.of(BOX, normalise=False), settings)
    assert critic.sees_time
    parameters = jax.jit(critic.init)(jax.random.PRNGKey(0))
    x = np.random.default_rng(0).standard_normal((2, 8, 3)).astype(np.float32)
    time = jnp.asarray(np.arange(8) + np.array([[0], [2]]), jnp.int32)
    here, there = ({"vector": x[:, i : i + 7], TIME: time[:, i : i + 7]} for i in (0, 1))
    carry, never = critic.initial_carry(2), jnp.zeros((2, 7), bool)
    values, next_values, _ = jax.jit(critic.values)(parameters, here, there, carry, never)
    np.testing.assert_allclose(next_values[:, :-1], values[:, 1:], atol=1e-6)
    zeros = jnp.zeros((2, 7))
    batch = Batch(here, zeros, zeros, zeros, zeros, zeros, zeros, None, never, (), carry)
    np.testing.assert_allclose(critic.evaluate(parameters, batch), values, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "settings"), [("cpo", {}), ("acer", {"buffer_size": 64, "n_steps": 8, "replay_start": 0})]
)
def test_critics_of_costs_and_of_actions_see_the_time(name: str, settings: dict[str, Any]) -> None:
    update = make_update(BOX, CHOICES, name, critic_time="steps", critic_horizon=5, **settings)
    assert update.critic.sees_time
    parts = [update.critic.reward, update.critic.cost] if isinstance(update.critic, CriticPair) else [update.critic]
    for part in parts:
        assert isinstance(part, TorsoCritic)
        assert isinstance(part.timing, LayerPerStep)
    learner = first_learner(update)
    batch = rows_of(update, learner, experience(update, learner))
    later = batch._replace(features={**batch.features, TIME: batch.features[TIME] + 1})
    by_step = jax.jit(update.critic.evaluate)
    evaluated = [np.asarray(by_step(learner.parameters["critic"], rows)) for rows in (batch, later)]
    assert evaluated[0].shape == ((16,) if name == "cpo" else (2, 8, 3))
    assert np.any(evaluated[0] != evaluated[1])


def test_a_critic_of_actions_has_an_update_that_sees_the_time() -> None:
    settings = {"buffer_size": 64, "n_steps": 8, "replay_start": 0, "replay_ratio": 1}
    update = make_update(BOX, CHOICES, "acer", critic_time="steps", critic_horizon=5, **settings)
    learner = first_learner(update)
    new, record = improve(update, learner, experience(update, learner))
    assert record["finite"]
    moved = np.asarray(new.parameters["critic"]["head"]["bias"] != learner.parameters["critic"]["head"]["bias"])
    assert moved.reshape(6, 3)[:5].any()
    assert not moved.reshape(6, 3)[5].any(), "no row is so old"


# -- exact values of a finite horizon ---------------------------------------------------------------------------------


def advantages(update: OnPolicy, head: dict[str, Any], **changes: Any) -> np.ndarray:
    """Return the advantages of undiscounted rewards of 1 under a time limit of 5 steps, by a critic given by hand."""
    learner = first_learner(update)._replace(ages=jnp.array([3, 0], jnp.int32))
    learner.parameters["critic"]["head"] = head
    cut = np.zeros((8, 2), bool)
    cut[[1, 6], 0], cut[4, 1] = True, True  # the ages are 3 4 0 1 2 3 4 0, and 0 1 2 3 4 0 1 2
    trajectory = experience(
        update,
        learner,
        rewards=jnp.ones((8, 2)),
        terminated=jnp.zeros((8, 2), bool),
        truncated=jnp.asarray(cut),
        episode_start=jnp.asarray(np.concatenate([np.zeros((1, 2), bool), cut[:-1]])),
        **changes,
    )
    return np.asarray(rows_of(update, learner, trajectory).advantages)


FINITE: dict[str, Any] = {"net_arch": (), "gamma": 1.0, "bootstrap_truncated": False}


def test_the_value_of_a_time_limit_is_exact_for_a_critic_linear_in_the_time() -> None:
    """V_t = 5 - t; with horizon 10 the weight of t / 10 is -10. No action is better than another, at any lambda."""
    update = make_update(critic_time="scaled", critic_horizon=10, **FINITE)
    head = {"kernel": jnp.array([[0.0], [0.0], [0.0], [-10.0]]), "bias": jnp.array([5.0])}
    np.testing.assert_allclose(advantages(update, head), np.zeros(16), atol=1e-5)


def test_the_value_of_a_time_limit_is_exact_for_a_layer_per_step() -> None:
    update = make_update(critic_time="steps", critic_horizon=5, **FINITE)
    head = {"kernel": jnp.zeros((3, 6)), "bias": jnp.array([5.0, 4.0, 3.0, 2.0, 1.0, 77.0])}
    np.testing.assert_allclose(advantages(update, head), np.zeros(16), atol=1e-5)


def test_a_critic_without_time_cannot_know_the_limit() -> None:
    head = {"kernel": jnp.zeros((3, 1)), "bias": jnp.array([3.0])}
    assert np.abs(advantages(make_update(**FINITE), head)).max() > 0.9


def test_a_table_of_states_and_steps_learns_the_values_of_a_finite_horizon() -> None:
    """States follow each other in a circle whatever is done, with rewards of 1, 0 and -2, for 4 steps, undiscounted."""
    circle = np.zeros((3, 2, 3))
    circle[[0, 1, 2], :, [1, 2, 0]] = 1.0
    mdp = TabularMDP.of(circle, [[1, 1], [0, 0], [-2, -2]], [0.5, 0.25, 0.25], 1.0, horizon=4)
    agent = jumar.REINFORCE(
        TabularEnvironment(mdp),
        n_envs=24,
        n_steps=4,
        gamma=1.0,
        net_arch=(),
        baseline="critic",
        critic_time="steps",
        critic_horizon=4,
        batch_size=96,
        n_critic_updates=300,
        critic_learning_rate=0.03,
    )
    agent.learn(24 * 4 * 2)
    critic, parameters = vars(agent._training.update)["critic"], agent._training.learner.parameters["critic"]
    assert isinstance(critic, NeuralCritic)
    features = {
        "vector": jnp.tile(jnp.eye(3), (4, 1, 1)),
        TIME: jnp.broadcast_to(jnp.arange(4, dtype=jnp.int32)[:, None], (4, 3)),
    }
    zeros = jnp.zeros((4, 3))
    rows = Batch(features, zeros, zeros, zeros, zeros, zeros, zeros, None, zeros.astype(bool), (), ())
    exact = state_values(mdp, jumar.distributions.Categorical(jnp.zeros((3, 2))))
    np.testing.assert_allclose(exact[0], [0.0, -1.0, -3.0])  # 1 + 0 - 2 + 1, 0 - 2 + 1 + 0, -2 + 1 + 0 - 2
    np.testing.assert_allclose(critic.evaluate(parameters, rows), exact, atol=0.02)


def test_settings_of_time_that_do_not_fit_are_refused_in_words() -> None:
    with pytest.raises(jumar.UsageError, match="unknown critic_time value 'stepp'; did you mean steps"):
        PolicySettings(critic_time="stepp")
    with pytest.raises(jumar.UsageError, match="critic_horizon=0 is out of range"):
        PolicySettings(critic_horizon=0)


def test_the_critic_of_a_discrete_observation_is_a_table_of_states_and_steps() -> None:
    settings = PolicySettings(net_arch=(), critic_time="steps", critic_horizon=4)
    critic = make_critic(Encoder.of(spaces.Discrete(3), normalise=False), settings)
    shapes = jax.tree.map(lambda x: x.shape, jax.eval_shape(critic.init, jax.random.PRNGKey(0)))
    assert shapes["head"] == {"kernel": (3, 5), "bias": (5,)}
