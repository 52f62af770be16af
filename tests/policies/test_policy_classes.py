"""The policy classes: tables, linear and neural ones, every deviation; scores and divergences against closed forms."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces
from jax import Array
from jax.flatten_util import ravel_pytree
from probes import Probe
from updates import BOX, CHOICES, CONTINUOUS

import jumar
from jumar.errors import UsageError
from jumar.networks.layers import Linear
from jumar.policies.distributions import DiagGaussian
from jumar.policies.heads import LOG_STD_REACH, LOWEST_LOG_STD, GaussianHead, StateDeviation
from jumar.policies.moments import RunningMoments
from jumar.policies.policy import Policy, PolicySettings, make_policy
from jumar.runs.policy_files import read_policy_files, write_policy_files
from jumar.solvers import Boundary, Dense, MeanKL, Step
from jumar.solvers.fisher import dense, fisher_product
from jumar.solvers.objectives import surrogate
from jumar.solvers.problem import Problem
from jumar.trajectory import Batch, weighted_mean

STATES = spaces.Discrete(5)
LINEAR: dict[str, Any] = {"net_arch": (), "head_bias": False}
KINDS: dict[str, tuple[gym.Space[Any], gym.Space[Any], dict[str, Any]]] = {
    "table": (STATES, CHOICES, LINEAR),
    "table of several choices": (STATES, spaces.MultiDiscrete([3, 2]), LINEAR),
    "table of bits": (STATES, spaces.MultiBinary(2), LINEAR),
    "linear softmax": (BOX, CHOICES, LINEAR),
    "neural softmax": (BOX, CHOICES, {"net_arch": (3,)}),
    "table of means, fixed deviation": (STATES, CONTINUOUS, {**LINEAR, "deviation": "fixed"}),
    "linear mean, fixed deviation": (BOX, CONTINUOUS, {**LINEAR, "deviation": "fixed"}),
    "linear mean, free deviation": (BOX, CONTINUOUS, LINEAR),
    "linear mean, deviation by state": (BOX, CONTINUOUS, {**LINEAR, "deviation": "state"}),
    "neural mean, fixed deviation": (BOX, CONTINUOUS, {"net_arch": (3,), "deviation": "fixed"}),
    "neural mean, deviation by state": (BOX, CONTINUOUS, {"net_arch": (3,), "deviation": "state"}),
}
PARAMETERS = {
    "table": 5 * 3,
    "table of several choices": 5 * 5,
    "table of bits": 5 * 2,
    "linear softmax": 3 * 3,
    "neural softmax": 4 * 3 + 4 * 3,
    "table of means, fixed deviation": 5 * 2,
    "linear mean, fixed deviation": 3 * 2,
    "linear mean, free deviation": 3 * 2 + 2,
    "linear mean, deviation by state": 3 * 2 * 2,
    "neural mean, fixed deviation": 4 * 3 + 4 * 2,
    "neural mean, deviation by state": 4 * 3 + 2 * 4 * 2,
}
LOG_STD = -0.5
ROWS = 12


def make(kind: str, **more: Any) -> Policy:
    observation_space, action_space, settings = KINDS[kind]
    return make_policy(observation_space, action_space, PolicySettings(**{"log_std_init": LOG_STD, **settings, **more}))


def lively(policy: Policy) -> Any:
    """Return float64 parameters with nothing near 0 in them."""
    rng = np.random.default_rng(1)
    shapes = jax.eval_shape(policy.init, jax.random.PRNGKey(0))
    return jax.tree.map(lambda x: jnp.asarray(0.6 * rng.standard_normal(x.shape)), shapes)


def rows_of(policy: Policy, parameters: Any) -> Batch:
    """Return rows with random observations, actions and advantages, in float64."""
    rng = np.random.default_rng(2)
    tabular = policy.encoder.leaves[0].kind == "one_hot"
    observations = rng.integers(STATES.n, size=ROWS) if tabular else rng.standard_normal((ROWS, 3))
    vector = policy.encoder.encode(observations, policy.encoder.initial_moments())["vector"]
    if not tabular:
        vector = jnp.asarray(observations)
    blank, starts = jnp.zeros(ROWS), jnp.zeros(ROWS, bool)
    weights = jnp.asarray(np.where(np.arange(ROWS) % 5 == 3, 0.0, 1.0))
    batch = Batch(
        {"vector": vector.astype(jnp.float64)}, blank, blank, blank, blank, blank, weights, None, starts, (), ()
    )
    actions, log_probs = _drawn(policy, parameters, batch)
    return batch._replace(actions=actions, log_probs=log_probs, advantages=jnp.asarray(rng.standard_normal(ROWS)))


@partial(jax.jit, static_argnums=0)
def _drawn(policy: Policy, parameters: Any, batch: Batch) -> tuple[Array, Array]:
    at = policy.evaluate(parameters, batch)
    actions = at.sample(jax.random.PRNGKey(3))
    return actions, at.log_prob(actions)


@partial(jax.jit, static_argnums=0)
def scores_of(policy: Policy, parameters: Any, batch: Batch) -> Any:
    """Return the score of each row, in the structure of the parameters with a leading axis."""
    return jax.jacrev(lambda p: policy.evaluate(p, batch).log_prob(batch.actions))(parameters)


# -- what the parameters are ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_class_has_the_parameters_of_its_formula_and_no_others(kind: str) -> None:
    assert make(kind).count_parameters() == PARAMETERS[kind]


def test_a_table_has_an_entry_for_each_state_and_action() -> None:
    policy = make("table")
    with jax.enable_x64(True):
        parameters = lively(policy)
        [table] = jax.tree.leaves(parameters)
        batch = rows_of(policy, parameters)
        states = np.argmax(batch.features["vector"], axis=-1)
        expected = np.exp(table[states]) / np.exp(table[states]).sum(axis=-1, keepdims=True)
        np.testing.assert_allclose(policy.evaluate(parameters, batch).probs, expected, rtol=1e-12)  # type: ignore[attr-defined]


def test_settings_from_before_there_were_deviations_make_the_policy_that_they_made() -> None:
    """The names and shapes of its arrays are what files know it by."""
    policy = make_policy(BOX, CONTINUOUS, PolicySettings.make({"net_arch": [4], "log_std_init": -0.5}))
    parameters = policy.init(jax.random.PRNGKey(0))
    shapes = jax.tree.map(lambda x: x.shape, parameters)
    assert shapes["head"] == {"mean": {"kernel": (4, 2), "bias": (2,)}, "log_std": (2,)}
    assert shapes["torso"] == {"mlp": {"layer_0": {"kernel": (3, 4), "bias": (4,)}}}
    np.testing.assert_array_equal(parameters["head"]["log_std"], [-0.5, -0.5])


@pytest.mark.parametrize("kind", ["table", "linear mean, fixed deviation", "neural mean, deviation by state"])
def test_actions_are_made_of_noise_drawn_for_the_whole_rollout(kind: str) -> None:
    policy = make(kind)
    parameters = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), lively(policy))
    observations = np.arange(3) if KINDS[kind][0] is STATES else np.eye(3, dtype=np.float32)
    keys, starts, moments = jax.random.split(jax.random.PRNGKey(0), 4), jnp.zeros(3, bool), RunningMoments.zero((3,))
    noise = policy.rollout_noise(keys, 3)
    actions, _ = policy.act(parameters, moments, observations, policy.initial_carry(3), starts, None, noise[2])
    features = policy.encoder.encode(observations, moments)
    distribution, _ = policy.distribution(parameters, features, (), starts, None)
    np.testing.assert_array_equal(actions, distribution.sample(keys[2]))
    np.testing.assert_array_equal(noise[2], policy.noise(keys[2], 3))


# -- scores in closed form --------------------------------------------------------------------------------------------


def test_the_score_of_a_table_is_one_minus_the_probability_in_the_row_of_the_state() -> None:
    policy = make("table")
    with jax.enable_x64(True):
        parameters = lively(policy)
        batch = rows_of(policy, parameters)
        [scores] = jax.tree.leaves(scores_of(policy, parameters, batch))
        probs = np.asarray(policy.evaluate(parameters, batch).probs)  # type: ignore[attr-defined]
    expected = np.zeros((ROWS, 5, 3))
    for i, (state, action) in enumerate(zip(np.argmax(batch.features["vector"], -1), batch.actions, strict=True)):
        expected[i, state] = -probs[i]
        expected[i, state, action] += 1.0
    np.testing.assert_allclose(scores, expected, atol=1e-12)


def test_the_score_of_a_linear_softmax_is_the_feature_minus_its_mean_under_the_policy() -> None:
    r""":math:`\phi(s, a) - E_{b \sim \pi}[\phi(s, b)]`, where an action's features are the state's in a block of its own."""
    policy = make("linear softmax")
    with jax.enable_x64(True):
        parameters = lively(policy)
        batch = rows_of(policy, parameters)
        [scores] = jax.tree.leaves(scores_of(policy, parameters, batch))
        probs = np.asarray(policy.evaluate(parameters, batch).probs)  # type: ignore[attr-defined]
    for i in range(ROWS):
        features = np.stack([np.outer(batch.features["vector"][i], np.eye(3)[b]) for b in range(3)])
        expected = features[int(batch.actions[i])] - np.einsum("b,bij->ij", probs[i], features)
        np.testing.assert_allclose(scores[i], expected, atol=1e-12)


@pytest.mark.parametrize("deviation", ["fixed", "free", "state"])
def test_the_score_of_a_linear_gaussian(deviation: str) -> None:
    r"""Of the mean :math:`\phi (a - \mu)^T / \sigma^2`; of a log deviation :math:`(a - \mu)^2 / \sigma^2 - 1`."""
    policy = make("linear mean, free deviation", deviation=deviation)
    with jax.enable_x64(True):
        parameters = lively(policy)
        batch = rows_of(policy, parameters)
        at = policy.evaluate(parameters, batch)
        scores = scores_of(policy, parameters, batch)["head"]
    assert isinstance(at, DiagGaussian)
    features, error, std = (np.asarray(x) for x in (batch.features["vector"], batch.actions - at.mean, at.std))
    by_mean = features[:, :, None] * (error / std**2)[:, None, :]
    np.testing.assert_allclose(scores.pop("mean")["kernel"], by_mean, rtol=1e-10)

    by_log_std = (error / std) ** 2 - 1.0
    if deviation == "fixed":
        np.testing.assert_allclose(std, np.exp(LOG_STD), rtol=1e-12)
        assert not scores
    elif deviation == "free":
        np.testing.assert_allclose(scores["log_std"], by_log_std, rtol=1e-10)
    else:
        bent = np.tanh(features @ np.asarray(parameters["head"]["log_std"]["kernel"]) / 5.0)
        np.testing.assert_allclose(np.log(std), LOG_STD + 5.0 * bent, rtol=1e-10)
        slope = features[:, :, None] * (1.0 - bent**2)[:, None, :]
        np.testing.assert_allclose(scores["log_std"]["kernel"], by_log_std[:, None, :] * slope, rtol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_the_score_of_sampled_actions_has_mean_zero(kind: str) -> None:
    policy, draws = make(kind), 4000
    with jax.enable_x64(True):
        parameters = lively(policy)
        batch = rows_of(policy, parameters)
        one = jax.tree.map(lambda x: x[:1], batch)
        flat, unravel = ravel_pytree(parameters)

        def log_prob(flat: Array, action: Array) -> Array:
            return policy.evaluate(unravel(flat), one).log_prob(action)[0]

        def scores_of_draws(keys: Array) -> Array:
            actions = jax.vmap(policy.evaluate(parameters, one).sample)(keys)
            return jax.vmap(jax.grad(log_prob), (None, 0))(flat, actions)

        scores = np.asarray(jax.jit(scores_of_draws)(jax.random.split(jax.random.PRNGKey(5), draws)))
    error = scores.std(axis=0) / np.sqrt(draws)
    assert np.any(error > 0.0)
    np.testing.assert_array_less(np.abs(scores.mean(axis=0)), 4.5 * error + 1e-12)


# -- geometry ---------------------------------------------------------------------------------------------------------


def problem_of(policy: Policy, batch: Batch) -> Problem:
    def gain(at: Any, batch: Batch) -> tuple[Array, dict[str, Array]]:
        log_probs = at.log_prob(batch.actions)
        return weighted_mean(surrogate(log_probs, batch.log_probs, batch.advantages), batch.weights), {}

    def no_loss(parameters: Any, batch: Batch) -> tuple[Array, dict[str, Array]]:
        return jnp.zeros(()), {}

    return Problem(gain, no_loss, policy.evaluate, lambda parameters: batch)


@pytest.mark.parametrize("kind", KINDS)
def test_the_fisher_matrix_is_the_second_derivative_of_the_mean_divergence(kind: str) -> None:
    policy = make(kind)
    with jax.enable_x64(True):
        parameters = lively(policy)
        batch = rows_of(policy, parameters)
        flat, unravel = ravel_pytree(parameters)
        problem = problem_of(policy, batch)

        def both(flat: Array) -> tuple[Array, Array]:
            matrix = dense(fisher_product(lambda x: policy.evaluate(unravel(x), batch), flat, batch.weights), flat)
            return matrix, jax.hessian(lambda x: problem.distance(parameters, unravel(x), batch)[0])(flat)

        matrix, bend = jax.device_get(jax.jit(both)(flat))
    assert np.abs(matrix).max() > 0.01
    np.testing.assert_allclose(matrix, bend, atol=1e-9)


@pytest.mark.parametrize(
    ("kind", "delta"), [("linear mean, fixed deviation", 20.0), ("table of means, fixed deviation", 1e-3)]
)
def test_an_undamped_natural_step_of_a_linear_mean_has_the_divergence_asked_for_exactly(
    kind: str, delta: float
) -> None:
    """However far it goes: the divergence is quadratic in the parameters."""
    policy = make(kind)
    with jax.enable_x64(True):
        parameters = lively(policy)
        batch = rows_of(policy, parameters)
        problem = problem_of(policy, batch)
        flat, unravel = ravel_pytree(parameters)
        step = Step(MeanKL(Dense()), Boundary(delta))
        rest = (), jnp.float32(1.0), jax.random.PRNGKey(0)
        moved = jax.jit(lambda flat: step.move(problem, flat, unravel, batch, *rest).flat)(flat)
        mean_kl, _ = problem.distance(parameters, unravel(moved), batch)
        means = [np.asarray(policy.evaluate(x, batch).mode()) for x in (parameters, unravel(moved))]
    np.testing.assert_allclose(mean_kl, delta, rtol=1e-9)
    squares = np.sum(np.square(means[1] - means[0]), axis=-1) / (2.0 * np.exp(2.0 * LOG_STD))
    np.testing.assert_allclose(np.average(squares, weights=batch.weights), delta, rtol=1e-9)


# -- the deviation by state -------------------------------------------------------------------------------------------


def test_a_deviation_by_state_begins_at_the_first_one_with_slope_one() -> None:
    head = StateDeviation(Linear(3, 2), -1.0)
    latent = jnp.array([0.5, -1.0, 2.0])
    nothing = {"log_std": {"kernel": jnp.zeros((3, 2)), "bias": jnp.zeros(2)}}
    np.testing.assert_array_equal(head.log_std(nothing, latent), [-1.0, -1.0])
    slope = jax.jacrev(lambda parameters: head.log_std(parameters, latent))(nothing)["log_std"]["bias"]
    np.testing.assert_allclose(slope, np.eye(2), rtol=1e-6)
    new = jax.jit(make("neural mean, deviation by state").init)(jax.random.PRNGKey(0))["head"]
    assert float(jnp.abs(new["log_std"]["kernel"]).max()) > 0.0
    assert not np.array_equal(new["log_std"]["kernel"], new["mean"]["kernel"]), "drawn by another key"


@pytest.mark.parametrize("first", [-20.0, 0.0, 5.0])
def test_a_deviation_by_state_stays_in_bounds_that_single_precision_holds(first: float) -> None:
    policy = make("linear mean, deviation by state", log_std_init=first)
    blank = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(policy.init, jax.random.PRNGKey(0)))

    def at(raw: float) -> Any:
        head = {**blank["head"], "log_std": {"kernel": jnp.full((3, 2), raw)}}
        return policy.head.distribution(head, jnp.ones(3), None)

    assert isinstance(policy.head, GaussianHead)
    narrow, wide = at(-1e30), at(1e30)
    np.testing.assert_allclose(narrow.log_std, first - LOG_STD_REACH, rtol=1e-6)
    np.testing.assert_allclose(wide.log_std, first + LOG_STD_REACH, rtol=1e-6)
    key = jax.random.PRNGKey(0)
    for one, other in ((narrow, wide), (wide, narrow)):
        numbers = (one.kl(other), one.log_prob(other.sample(key)), one.entropy())
        assert np.isfinite(numbers).all(), numbers


@pytest.mark.parametrize(("given", "counts_as"), [(-3.0, -3.0), (-80.0, LOWEST_LOG_STD), (-np.inf, LOWEST_LOG_STD)])
def test_a_free_deviation_has_a_least_one(given: float, counts_as: float) -> None:
    head = make("linear mean, free deviation").head
    parameters = {"mean": {"kernel": jnp.zeros((3, 2))}, "log_std": jnp.full(2, given)}
    np.testing.assert_array_equal(head.distribution(parameters, jnp.ones(3), None).log_std, np.full(2, counts_as))  # type: ignore[attr-defined]


# -- settings that do not fit -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("space", "settings", "said"),
    [
        (CHOICES, {"deviation": "fixed"}, "deviation=fixed needs a Box action space, and this one is one of 3"),
        (spaces.MultiBinary(2), {"deviation": "state"}, "deviation=state needs a Box action space"),
        (CONTINUOUS, {"deviation": "state", "use_sde": True}, "use_sde has a deviation of its own .* deviation=state"),
        (CONTINUOUS, {"deviation": "stat"}, "unknown deviation value 'stat'; did you mean state"),
        (CONTINUOUS, {"head_bias": "perhaps"}, "head_bias='perhaps' is not true or false"),
        (CONTINUOUS, {"net_arch": None}, "net_arch=None is not a list of whole numbers such as 64,64, or none"),
    ],
)
def test_settings_that_do_not_fit_are_refused_in_words(space: Any, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        make_policy(BOX, space, PolicySettings(**settings))


# -- from Python, to files and back -----------------------------------------------------------------------------------


def random_state(key: Array, time: Array) -> Array:
    return jax.random.randint(key, (), 0, 5, jnp.int32)


def random_vector(key: Array, time: Array) -> Array:
    return jax.random.normal(key, (3,), jnp.float32)


def probe_of(kind: str) -> Probe:
    observation_space, action_space, _ = KINDS[kind]
    observe = random_state if observation_space is STATES else random_vector
    return Probe(
        lambda observation, action, time: jnp.sum(action).astype(jnp.float32),
        observe,
        length=4,
        action_space=action_space,
        observation_space=observation_space,
    )


@pytest.mark.parametrize("kind", KINDS)
def test_an_agent_of_every_class_is_saved_and_acts_as_before(kind: str, tmp_path: Path) -> None:
    agent = jumar.A2C(probe_of(kind), n_envs=2, n_steps=4, **KINDS[kind][2])
    if kind in ("table", "neural mean, deviation by state"):  # the others' updates are in other tests
        before = ravel_pytree(agent.actor().parameters)[0]
        agent.learn(16)
        assert np.any(ravel_pytree(agent.actor().parameters)[0] != before)
    agent.save(tmp_path / "agent")
    alone = jumar.load_policy(tmp_path / "agent")
    assert alone.policy == agent.actor().policy
    observations = np.arange(5) if KINDS[kind][0] is STATES else np.random.default_rng(0).standard_normal((5, 3))
    mine, loaded = (x.predict(observations, deterministic=False)[0] for x in (agent.actor(), alone))
    np.testing.assert_array_equal(mine, loaded)
    assert all(agent.action_space.contains(action) for action in mine)


@pytest.mark.parametrize("kind", ["table", "linear mean, fixed deviation"])
def test_a_policy_of_another_class_evaluates_as_before(kind: str, tmp_path: Path) -> None:
    agent = jumar.A2C(probe_of(kind), n_envs=2, n_steps=4, **KINDS[kind][2])
    agent.save(tmp_path / "agent")
    mine, loaded = (
        jumar.evaluate_policy(x, probe_of(kind), 3, return_episode_rewards=True)
        for x in (agent, jumar.load_policy(tmp_path / "agent"))
    )
    assert mine == loaded


def test_a_file_from_before_there_were_deviations_is_read(tmp_path: Path) -> None:
    agent = jumar.A2C(probe_of("linear mean, free deviation"), n_envs=2, n_steps=4)
    agent.save(tmp_path / "agent")
    arrays, description = read_policy_files(tmp_path / "agent")
    description = {name: value for name, value in description.items() if name not in ("kind", "format", "digest")}
    for name in ("deviation", "head_bias"):
        del description["policy"][name]
    write_policy_files(tmp_path / "old", arrays, description)
    observations = np.random.default_rng(0).standard_normal((5, 3))
    old = jumar.load_policy(tmp_path / "old")
    np.testing.assert_array_equal(old.predict(observations)[0], agent.predict(observations)[0])
