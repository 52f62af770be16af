"""Policies that are linear in features of one's own: closed forms, the lab's families, and files without code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces
from jax import Array
from probes import Probe, one
from updates import BOX, CHOICES, CONTINUOUS

import jumar
from jumar.cli import main
from jumar.errors import UsageError
from jumar.lab import families
from jumar.lab.gradients import policy_gradient
from jumar.lab.tabular import action_values, random_mdp, visitation
from jumar.policies.distributions import Categorical
from jumar.policies.features import FeatureTorso
from jumar.policies.own_code import OwnCode
from jumar.policies.policy import Policy, PolicySettings, make_policy
from jumar.trajectory import Batch

KEY = jax.random.PRNGKey(0)


def products(vector: Array, action: Array) -> Array:
    """Return features of (state, action) that are no blocks: [s_0 a, s_1 s_2, a^2, s_0 + a]."""
    a = action.astype(vector.dtype)
    return jnp.stack([vector[0] * a, vector[1] * vector[2], a * a, vector[0] + a])


def curve(vector: Array) -> Array:
    return jnp.concatenate([vector, jnp.square(vector)])


def rows(vectors: Any, actions: Any, mask: Any = None) -> Batch:
    zeros = jnp.zeros(len(vectors))
    features = {"vector": jnp.asarray(vectors)}
    return Batch(features, jnp.asarray(actions), zeros, zeros, zeros, zeros, zeros, mask, zeros.astype(bool), (), ())


# -- what they are ----------------------------------------------------------------------------------------------------


def test_the_logits_are_the_products_with_the_weights_by_hand() -> None:
    """phi = (s_0 a, s_1 s_2, a^2, s_0 + a) at s = (2, 3, 5) with theta = (1, 1, -1, 0.5): 16, 17.5 and 17."""
    policy = make_policy(BOX, CHOICES, PolicySettings(), OwnCode(products))
    parameters = {"torso": {}, "head": {"theta": jnp.array([1.0, 1.0, -1.0, 0.5])}}
    at = policy.evaluate(parameters, rows([[2.0, 3.0, 5.0]], [1]))
    assert isinstance(at, Categorical)
    np.testing.assert_array_equal(at.logits, [[16.0, 17.5, 17.0]])
    shapes = jax.tree.map(lambda x: x.shape, policy.init(KEY))
    assert shapes == {"torso": {}, "head": {"theta": (4,)}}
    np.testing.assert_array_equal(policy.init(KEY)["head"]["theta"], np.zeros(4))
    masked = policy.evaluate(parameters, rows([[2.0, 3.0, 5.0]], [1], jnp.array([[True, False, True]])))
    assert masked.probs[0, 1] == 0.0  # type: ignore[attr-defined]


def test_the_score_is_the_feature_minus_its_mean_under_the_policy() -> None:
    policy = make_policy(BOX, CHOICES, PolicySettings(), OwnCode(products))
    draw = np.random.default_rng(0)
    vectors, actions = draw.normal(size=(5, 3)), draw.integers(0, 3, 5)
    with jax.enable_x64(True):
        batch, theta = rows(vectors, actions), jnp.asarray(draw.normal(size=4))

        def log_prob(theta: Array) -> Array:
            return policy.evaluate({"torso": {}, "head": {"theta": theta}}, batch).log_prob(batch.actions)

        scores = jax.jit(jax.jacrev(log_prob))(theta)
    weights = np.asarray(theta)
    for i, (s, a) in enumerate(zip(vectors, actions, strict=True)):
        phi = np.array([[s[0] * b, s[1] * s[2], b * b, s[0] + b] for b in range(3)])
        probs = np.exp(phi @ weights) / np.exp(phi @ weights).sum()
        np.testing.assert_allclose(scores[i], phi[a] - probs @ phi, atol=1e-12)


def test_the_mean_of_a_box_is_linear_in_the_features_and_so_is_its_score() -> None:
    policy = make_policy(
        BOX, CONTINUOUS, PolicySettings(head_bias=False, deviation="fixed", log_std_init=-0.5), OwnCode(curve)
    )
    draw = np.random.default_rng(0)
    vectors, actions, theta = draw.normal(size=(5, 3)), draw.normal(size=(5, 2)), draw.normal(size=(6, 2))
    with jax.enable_x64(True):
        batch = rows(vectors, actions)

        def log_prob(theta: Array) -> Array:
            return policy.evaluate({"torso": {}, "head": {"mean": {"kernel": theta}}}, batch).log_prob(batch.actions)

        scores = jax.jit(jax.jacrev(log_prob))(jnp.asarray(theta))
    phi = np.concatenate([vectors, vectors**2], axis=1)
    errors = (actions - phi @ theta) * np.exp(1.0)
    np.testing.assert_allclose(scores, phi[:, :, None] * errors[:, None, :], atol=1e-12)


def test_features_that_tell_states_and_actions_apart_are_the_table_of_the_lab() -> None:
    """The exact gradient of J with phi(s, a) one-hot is that of the tabular family, and of others that of the linear one."""
    mdp = random_mdp(KEY, n_states=4, n_actions=3, gamma=0.8)

    def one_hot(vector: Array, action: Array) -> Array:
        return jnp.outer(vector, jax.nn.one_hot(action, 3)).reshape(-1)

    def mixed(vector: Array, action: Array) -> Array:
        return jnp.stack([vector[0] * action, vector[1] - vector[2], vector @ jnp.arange(4.0) * action**2])

    table = jnp.stack([jnp.stack([mixed(jnp.eye(4)[s], jnp.int32(a)) for a in range(3)]) for s in range(4)])
    pairs = ((one_hot, families.softmax(mdp)), (mixed, families.linear_softmax(table)))
    for features, family in pairs:
        policy = make_policy(spaces.Discrete(4), spaces.Discrete(3), PolicySettings(), OwnCode(features))
        theta = jax.random.normal(KEY, (policy.count_parameters(),))
        moments = policy.encoder.initial_moments()

        def of(theta: Array, policy: Policy = policy, moments: Any = moments) -> Categorical:
            return families.network_policy(mdp, policy, {"torso": {}, "head": {"theta": theta}}, moments)

        np.testing.assert_allclose(of(theta).probs, family(theta).probs, rtol=1e-5)
        worth = visitation(mdp, of(theta))[:, None] * action_values(mdp, of(theta))
        gradient = jax.grad(lambda theta, of=of, worth=worth: jnp.sum(worth * of(theta).probs))(theta)
        np.testing.assert_allclose(gradient, policy_gradient(mdp, family, theta), atol=1e-5)


# -- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spaces_of", "settings", "features", "said"),
    [
        ((BOX, CHOICES), {}, 3, "features=3 is not a function"),
        (
            (BOX, CHOICES),
            {},
            curve,
            "features curve fails on a vector of 3 numbers and the index of an action: TypeError",
        ),
        (
            (BOX, CONTINUOUS),
            {},
            lambda vector: vector[:, None],
            r"an array of shape \[3, 1\] and type float32 for a vector",
        ),
        ((BOX, CONTINUOUS), {}, lambda vector: vector if vector[0] > 0 else -vector, "fails on a vector of 3 numbers"),
        ((BOX, CONTINUOUS), {}, lambda vector: vector[0], r"returns an array of shape \[\] and type float32"),
        ((BOX, spaces.MultiBinary(2)), {}, products, "features are for Discrete and Box action spaces"),
        ((BOX, CHOICES), {"recurrent": "gru"}, products, "features have no memory, and recurrent=gru asks for one"),
        ((spaces.Box(0, 255, (8, 8, 3), np.uint8), CHOICES), {}, products, "the observation has an image"),
    ],
)
def test_features_that_do_not_fit_are_refused_in_words(spaces_of: Any, settings: Any, features: Any, said: str) -> None:
    observation_space, action_space = spaces_of
    with pytest.raises(UsageError, match=said):
        make_policy(observation_space, action_space, PolicySettings(**settings), OwnCode(features))


# -- agents and files -------------------------------------------------------------------------------------------------


def random_vector(key: Array, time: Array) -> Array:
    return jax.random.normal(key, (3,), jnp.float32)


def sign_pays(observation: Array, action: Array, time: Array) -> Array:
    return jnp.where(action == jnp.where(observation[0] > 0.0, 2, 0), 1.0, 0.0)


PROBE = Probe(sign_pays, random_vector, length=4, action_space=CHOICES, observation_space=BOX)
SMALL: dict[str, Any] = {"n_envs": 8, "n_steps": 8, "net_arch": (4,)}


def test_an_agent_learns_is_saved_without_code_and_loaded_with_the_function(tmp_path: Path) -> None:
    agent = jumar.TRPO(PROBE, features=products, target_kl=0.05, batch_size=64, **SMALL)
    assert isinstance(agent._training.policy.torso, FeatureTorso)
    agent.learn(8 * 8 * 30)
    observations = np.array([[2.0, 0.0, 0.0], [-2.0, 0.0, 0.0]], np.float32)
    np.testing.assert_array_equal(agent.predict(observations)[0], [2, 0])
    agent.save(tmp_path / "agent")

    said = r"linear in features of your own \(products\), which no file can bring back"
    with pytest.raises(UsageError, match=said):
        jumar.load(tmp_path / "agent", env=PROBE)
    with pytest.raises(UsageError, match=said):
        jumar.load_policy(tmp_path / "agent")
    loaded = jumar.load(tmp_path / "agent", env=PROBE, features=products)
    alone = jumar.load_policy(tmp_path / "agent", features=products)
    for actor in (loaded.actor(), alone):
        mine, others = (x.predict(observations, deterministic=False)[0] for x in (agent.actor(), actor))
        np.testing.assert_array_equal(mine, others)
    with pytest.raises(jumar.DamagedFile, match="theta"):
        jumar.load_policy(tmp_path / "agent", features=lambda vector, action: vector)
    assert json.loads((tmp_path / "agent" / "policy.json").read_text())["features"] == "products"


def test_features_for_a_policy_without_them_are_refused(tmp_path: Path) -> None:
    jumar.A2C(Probe(one), n_envs=2, n_steps=2, net_arch=()).save(tmp_path / "agent")
    for load in (jumar.load_policy, lambda path, features: jumar.load(path, Probe(one), features=features)):
        with pytest.raises(UsageError, match="is not made of features; leave features=products out"):
            load(tmp_path / "agent", features=products)
    assert json.loads((tmp_path / "agent" / "config.json").read_text())["features"] is None


def test_the_command_line_says_that_a_run_with_features_is_python_s(tmp_path: Path, capsys: Any) -> None:
    agent = jumar.A2C("jax/CartPole-v1", preset="none", features=products, n_envs=2, n_steps=4, net_arch=())
    agent.learn(8, run_dir=tmp_path / "run")
    for command in ("evaluate", "resume"):
        assert main([command, str(tmp_path / "run")]) == 2
        assert "which no file can bring back" in capsys.readouterr().err
