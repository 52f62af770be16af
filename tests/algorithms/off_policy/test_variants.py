"""Critics with layers between, Discrete actions with masks, samplers and DPG: each trained on small problems."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces
from jax.flatten_util import ravel_pytree
from probes import Probe, random_sign
from replays import LOPSIDED, by_gradient, improve, make_update, scattered_learner, some_rows

import jumar
from jumar.critics.ensemble import Layers, Least

KEY = jax.random.PRNGKey(0)
SMALL: dict[str, Any] = {"net_arch": (8,), "batch_size": 8, "buffer_size": 31, "learning_starts": 6, "log_every": 12}
CHOICES = spaces.Discrete(3, start=5)


def product(observation: jax.Array, action: jax.Array, time: jax.Array) -> jax.Array:
    return observation[0] * jnp.sum(action)


def box_probe() -> Probe:
    return Probe(product, random_sign, length=5, time_limit=True, action_space=LOPSIDED)


def discrete_probe() -> Probe:
    return Probe(product, random_sign, length=5, time_limit=True, action_space=CHOICES)


# -- layers between ---------------------------------------------------------------------------------------------------


def test_layer_normalisation_by_hand() -> None:
    layers = Layers("relu", layer_norm=True)
    parameters = {"layer_norm": {"scale": jnp.asarray([1.0, 2.0, 3.0]), "bias": jnp.asarray([0.0, 1.0, -1.0])}}
    x = np.array([[1.0, 2.0, 6.0]], np.float32)
    by_hand = (x - 3.0) / np.sqrt(14.0 / 3.0) * [1.0, 2.0, 3.0] + [0.0, 1.0, -1.0]
    found, _ = layers.apply(parameters, (), jnp.asarray(x), KEY, True)
    np.testing.assert_allclose(found, np.maximum(by_hand, 0.0), rtol=1e-5)


def test_batch_normalisation_by_hand() -> None:
    layers = Layers("relu", batch_norm=True)
    parameters = {"batch_norm": {"scale": jnp.asarray([2.0]), "bias": jnp.asarray([0.5])}}
    x = np.array([[1.0], [2.0], [-6.0]], np.float32)
    after = np.maximum(x, 0.0)  # mean 1, variance 2 / 3
    found, moments = layers.apply(parameters, layers.moments(1), jnp.asarray(x), KEY, True)
    np.testing.assert_allclose(found, 2.0 * (after - 1.0) / np.sqrt(2.0 / 3.0 + 1e-3) + 0.5, rtol=1e-5)
    np.testing.assert_allclose(moments, [[0.01], [0.99 + 0.01 * 2.0 / 3.0]], rtol=1e-5)
    found, same = layers.apply(parameters, moments, jnp.asarray(x), KEY, False)
    mean, variance = 0.01, 0.99 + 0.01 * 2.0 / 3.0
    np.testing.assert_allclose(found, 2.0 * (after - mean) / np.sqrt(variance + 1e-3) + 0.5, rtol=1e-5)
    assert same is moments


def test_dropout_keeps_the_mean_and_the_share() -> None:
    found, _ = Layers("relu", dropout=0.25).apply({}, (), jnp.ones((100, 100)), KEY, False)
    assert set(np.unique(found)) == {0.0, np.float32(1.0 / 0.75)}
    assert float(jnp.mean(found)) == pytest.approx(1.0, abs=0.02)


def test_one_joint_pass_has_the_targets_and_moments_of_both_halves() -> None:
    """Without a target network and with batch normalisation: Q(s, a) and Q(s', a') are of one batch."""
    update = by_gradient(make_update("td3", critic_batch_norm=True, target_network=False, target_policy_noise=0.0))
    assert update.jointly
    learner = scattered_learner(update)
    rows = some_rows()
    new, said, _ = improve(update, learner, rows)
    assert set(new.parameters["target"]) == {"policy"}
    encode, codec = update.policy.encoder.encode, update.policy.actions
    here, there = (encode(x, learner.observation_moments) for x in (rows.observations, rows.successors))
    after = codec.to_unit(update.policy.at(learner.parameters["target"]["policy"], there).mode(), jnp)
    both = {name: jnp.concatenate([here[name], there[name]]) for name in here}
    actions = jnp.concatenate([codec.unit_of(jnp.asarray(rows.actions), jnp), after])
    values, moments = update.critic.apply(learner.parameters["critic"], learner.statistics, both, actions, KEY, True)
    now, later = np.split(np.asarray(values, np.float64), 2, axis=1)
    errors = now - (rows.rewards + rows.discounts * later.min(axis=0))
    loss = 0.5 * np.sum(errors**2 @ rows.weights) / rows.weights.sum()
    assert said["critic_loss"] == pytest.approx(loss, rel=1e-4)
    np.testing.assert_allclose(ravel_pytree(new.statistics)[0], ravel_pytree(moments)[0], rtol=1e-5, atol=1e-7)


def test_target_critics_have_batch_moments_of_their_own_that_follow_by_tau() -> None:
    """Targets are of the target critics' weights and moments; the regression has the moments of its batch."""
    settings: dict[str, Any] = {"target_policy_noise": 0.0, "policy_delay": 1, "target_update_interval": 1, "tau": 0.25}
    update = by_gradient(make_update("td3", critic_batch_norm=True, **settings))
    learner, rows = scattered_learner(update), some_rows()
    own, following = (jax.tree.map(lambda x, i=i: x + 0.3 * i, learner.statistics) for i in (1, 2))
    learner = learner._replace(statistics=own, target_statistics=following)
    new, said, _ = improve(update, learner, rows)
    encode, codec = update.policy.encoder.encode, update.policy.actions
    here, there = (encode(x, learner.observation_moments) for x in (rows.observations, rows.successors))
    target = learner.parameters["target"]
    after = codec.to_unit(update.policy.at(target["policy"], there).mode(), jnp)
    later, _ = update.critic.apply(target["critic"], following, there, after, KEY, False)
    actions = codec.unit_of(jnp.asarray(rows.actions), jnp)
    now, moments = update.critic.apply(learner.parameters["critic"], own, here, actions, KEY, True)
    errors = np.asarray(now - (rows.rewards + rows.discounts * later.min(axis=0)), np.float64)
    assert said["critic_loss"] == pytest.approx(0.5 * np.sum(errors**2 @ rows.weights) / rows.weights.sum(), rel=1e-4)
    expected = jax.tree.map(lambda old, new: 0.75 * old + 0.25 * new, following, moments)
    found = ravel_pytree(new.target_statistics)[0]
    np.testing.assert_allclose(found, ravel_pytree(expected)[0], rtol=1e-5, atol=1e-7)
    assert np.any(found != ravel_pytree(new.statistics)[0])
    joint = make_update("td3", critic_batch_norm=True, target_network=False)
    assert joint.init(KEY, 1).target_statistics == ()


def test_without_a_target_network_targets_are_of_the_critics_themselves() -> None:
    update = by_gradient(make_update("ddpg", target_network=False))
    learner, rows = scattered_learner(update), some_rows()
    _, said, _ = improve(update, learner, rows)
    own = {**learner.parameters, "target": {**learner.parameters["target"], "critic": learner.parameters["critic"]}}
    other = by_gradient(make_update("ddpg"))
    _, told, _ = improve(other, learner._replace(parameters=own), rows)
    assert said["critic_loss"] == pytest.approx(told["critic_loss"], rel=1e-6)


# -- trainings --------------------------------------------------------------------------------------------------------


Shown = Callable[[jumar.SAC, dict[str, Any]], bool]
"""(agent after a training, the last line of its log) -> whether the variant shows in them."""


def samples(agent: Any, last: Any) -> bool:
    """Whether the policy draws, and its value is that of four particles."""
    seen = np.ones((1,), np.float32)
    drawn = [agent.predict(seen, deterministic=False)[0] for _ in range(2)]
    return bool(np.any(drawn[0] != drawn[1])) and agent._training.update.improvement.value.n_particles == 4


def forgets(agent: Any, last: Any) -> bool:
    """Whether no more is remembered than a round of three steps and the one before it, in each of two environments."""
    return last["replay/size"] == 8 and agent._training.update.replay.next_actions


def mixes(agent: Any, last: Any) -> bool:
    """Whether the policy has an entropy of three choices, and the critics' normalisation has learnt."""
    between = agent._training.learner.parameters["critic"]["critic_1"]["between_0"]["layer_norm"]
    return 0.0 < last["train/entropy"] <= np.log(3.0) + 1e-5 and bool(np.any(between["scale"] != 1.0))


def joins(agent: Any, last: Any) -> bool:
    """Whether moments were learnt, and no target."""
    learner, critic = agent._training.learner, agent._training.update.critic
    first = ravel_pytree(critic.initial_statistics({}))[0]
    return "critic" not in learner.parameters["target"] and bool(np.all(ravel_pytree(learner.statistics)[0] != first))


def drops(agent: Any, last: Any) -> bool:
    """Whether four critics drop outputs anew with each key, targets take two of them, and the policy climbs all."""
    update, learner = agent._training.update, agent._training.learner
    states = {"vector": jnp.ones((3, 1))}, jnp.zeros((3, 2))
    asked = [
        update.critic.apply(learner.parameters["critic"], (), *states, jax.random.PRNGKey(i), False)[0] for i in (0, 1)
    ]
    taken = update.successor.reduction, update.improvement.value.reduction
    return len(asked[0]) == 4 and bool(np.any(asked[0] != asked[1])) and taken == (Least(2), Least())


def mirrors(agent: Any, last: Any) -> bool:
    """Whether the greedy action is that of the critic's largest value."""
    update, learner = agent._training.update, agent._training.learner
    seen = np.linspace(-2.0, 2.0, 9, dtype=np.float32)[:, None]
    features = update.policy.encoder.encode(jnp.asarray(seen), learner.observation_moments)
    values, _ = update.critic.of_all(learner.parameters["critic"], (), features, KEY, False)
    return bool(np.all(agent.predict(seen)[0] == 5 + np.argmax(values[0], axis=-1)))


def is_compatible(agent: Any, last: Any) -> bool:
    """Whether the critic knows the policy as it is, and has learnt its weights."""
    learner = agent._training.learner
    own, known = (ravel_pytree(x)[0] for x in (learner.parameters["policy"], learner.statistics))
    return bool(np.all(own == known)) and bool(np.any(ravel_pytree(learner.parameters["critic"]["weights"])[0] != 0.0))


QUICK = [
    pytest.param(
        jumar.SQL,
        box_probe,
        {"n_particles": 4, "n_value_samples": 4, "target_update_interval": 5},
        samples,
        id="sql-box",
    ),
    pytest.param(
        jumar.DPG,
        box_probe,
        {"on_policy": True, "critic_dropout": 0.1, "train_freq": 6, "n_envs": 2, "action_noise": "normal:0.3"},
        forgets,
        id="dpg-sarsa",
    ),
    pytest.param(
        jumar.SAC, discrete_probe, {"n_envs": 2, "n_steps": 2, "critic_layer_norm": True}, mixes, id="sac-discrete"
    ),
]
LONG = [
    pytest.param(jumar.SAC, box_probe, {"critic_batch_norm": True, "target_network": False}, joins, id="crossq"),
    pytest.param(
        jumar.SAC,
        box_probe,
        {"critic_dropout": 0.1, "critic_layer_norm": True, "n_critics": 4, "n_critics_subset": 2},
        drops,
        id="droq",
    ),
    pytest.param(jumar.SQL, discrete_probe, {"target_update_interval": 5}, mirrors, id="sql-discrete"),
    pytest.param(
        jumar.DPG, box_probe, {"critic": "compatible", "action_noise": "normal:0.3"}, is_compatible, id="dpg-compatible"
    ),
]


@pytest.mark.parametrize(
    ("method", "env", "settings", "shows"),
    [*QUICK, *(pytest.param(*case.values, id=case.id, marks=pytest.mark.slow) for case in LONG)],
)
def test_every_variant_learns_acts_and_is_what_its_settings_say(
    method: Any, env: Any, settings: dict[str, Any], shows: Shown
) -> None:
    agent = method(env(), seed=0, **{**SMALL, **settings})
    first = jax.device_get(agent._training.learner.parameters)
    seen: list[dict[str, Any]] = []
    agent.learn(36, callback=seen.append)
    assert seen[-1]["train/n_updates"] > 0
    assert np.isfinite(seen[-1]["train/critic_loss"])
    for group in ("policy", "critic"):
        then, now = (ravel_pytree(x[group])[0] for x in (first, agent._training.learner.parameters))
        assert np.any(then != now), group
    assert shows(agent, seen[-1])
    action, _ = agent.predict(np.ones((1,), np.float32))
    assert env().action_space.contains(action)


class Masked(gym.Env[np.ndarray, np.int64]):
    """Only the action that the observation names, or the one after it, is allowed; any other raises."""

    observation_space = spaces.Box(0.0, 3.0, (1,), np.float32)
    action_space = CHOICES

    def __init__(self) -> None:
        self._time = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self._time = 0
        return self._seen(), {}

    def action_masks(self) -> np.ndarray:
        allowed = np.zeros(3, bool)
        allowed[[self._time % 3, (self._time + 1) % 3]] = True
        return allowed

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict]:
        assert self.action_masks()[action - 5], "a forbidden action"
        self._time += 1
        return self._seen(), float(action), self._time == 7, False, {}

    def _seen(self) -> np.ndarray:
        return np.array([self._time % 3], np.float32)


@pytest.mark.parametrize("method", [pytest.param(jumar.SAC, marks=pytest.mark.slow), jumar.SQL])
def test_forbidden_actions_are_neither_taken_nor_counted_on(method: Any) -> None:
    """At random and by the policy; what is remembered of a successor is what was allowed there."""
    agent = method(Masked, seed=0, **{**SMALL, "log_every": 9})
    agent.learn(36)
    training = agent._training
    replay, rows = training.update.replay, training.held.memory["rows"]
    seen = 0
    for row in np.asarray(rows):
        columns = replay.columns
        if not row[columns.column("valid")]:
            continue
        here, after = np.split(row[columns.mask :], 2)
        time = int(row[0])
        assert set(np.flatnonzero(here)) == {time, (time + 1) % 3}
        if row[columns.column("terminated")]:
            assert after.all()
        else:
            assert set(np.flatnonzero(after)) == {(time + 1) % 3, (time + 2) % 3}
        seen += 1
    assert seen >= 27
