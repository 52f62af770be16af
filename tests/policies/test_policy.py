"""Policies and critics: actions that fit their space, log-probabilities that belong to them, and memory."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from compiling import compiled_as_ever
from gymnasium import spaces

from jumar.critics.state_values import make_critic
from jumar.errors import UsageError
from jumar.policies.distributions import DiagGaussian
from jumar.policies.heads import (
    BernoulliHead,
    CategoricalHead,
    GaussianHead,
    MultiCategoricalHead,
    StateDependentNoiseHead,
)
from jumar.policies.moments import RunningMoments
from jumar.policies.observations import Encoder
from jumar.policies.policy import Exploration, Policy, PolicySettings, make_policy
from jumar.trajectory import Batch

KEY = jax.random.PRNGKey(0)
BOX = spaces.Box(-np.inf, np.inf, (3,))
ACTION_SPACES = {
    "box": spaces.Box(np.array([-1, 0], np.float32), np.array([1, 0.1], np.float32)),
    "matrix box": spaces.Box(-0.4, 0.4, (2, 2), np.float64),
    "discrete": spaces.Discrete(4, start=-1),
    "multi_discrete": spaces.MultiDiscrete([3, 2, 4], start=[0, 5, -2]),
    "multi_binary": spaces.MultiBinary(3),
}
HEADS = {
    "box": GaussianHead,
    "matrix box": GaussianHead,
    "discrete": CategoricalHead,
    "multi_discrete": MultiCategoricalHead,
    "multi_binary": BernoulliHead,
}
SMALL = PolicySettings(net_arch=(8,), recurrent_size=6)


def observations(*batch: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((*batch, 3)).astype(np.float32)


def lively(policy: Any, key: jax.Array = KEY) -> Any:
    """Return parameters with nothing near 0 in them, so that actions depend on observations."""
    leaves, tree = jax.tree.flatten(jax.eval_shape(policy.init, key))
    rng = np.random.default_rng(1)
    return jax.tree.unflatten(tree, [(0.7 * rng.standard_normal(x.shape)).astype(np.float32) for x in leaves])


def batch_of(
    features: Any, actions: Any, starts: Any, carry: Any = (), critic_carry: Any = (), mask: Any = None
) -> Batch:
    zeros = jnp.zeros(starts.shape, jnp.float32)
    return Batch(features, actions, zeros, zeros, zeros, zeros, zeros, mask, starts, carry, critic_carry)


def unnormalised(policy: Policy) -> RunningMoments:
    return policy.encoder.initial_moments()


# -- every action space -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ACTION_SPACES)
def test_actions_are_valid_and_their_log_prob_is_that_of_the_unclipped_action(kind: str) -> None:
    space = ACTION_SPACES[kind]
    policy = make_policy(BOX, space, SMALL)
    assert isinstance(policy.head, HEADS[kind])
    parameters, x, starts = lively(policy), observations(200), jnp.zeros(200, bool)

    @compiled_as_ever
    def act_and_evaluate(parameters: Any) -> Any:
        actions, _ = policy.act(
            parameters, unnormalised(policy), x, policy.initial_carry(200), starts, None, policy.noise(KEY, 200)
        )
        distribution = policy.evaluate(parameters, batch_of({"vector": x}, actions, starts))
        stored = distribution.log_prob(actions)
        return actions, policy.actions.to_environment(actions, jnp), stored, distribution, distribution.mode()

    actions, valid, log_probs, distribution, mode = act_and_evaluate(parameters)
    for action in np.asarray(valid):
        assert space.contains(action.astype(space.dtype) if action.ndim else space.dtype.type(action)), action  # type: ignore[union-attr]
    assert len(np.unique(np.asarray(actions), axis=0)) > 1
    assert log_probs.shape == (200,)
    if isinstance(distribution, DiagGaussian):
        mean, std = np.asarray(distribution.mean, float), np.exp(np.asarray(distribution.log_std, float))
        assert np.any(np.asarray(valid).reshape(200, -1) != np.asarray(actions)), "some were clipped"
        expected = scipy.stats.norm.logpdf(np.asarray(actions, float), mean, std).sum(-1)
        np.testing.assert_allclose(log_probs, expected, rtol=1e-4)
    greedy, _ = jax.jit(policy.act)(parameters, unnormalised(policy), x, policy.initial_carry(200), starts, None)
    np.testing.assert_allclose(greedy, mode, rtol=1e-5)


@pytest.mark.parametrize("kind", ACTION_SPACES)
def test_noise_drawn_for_a_rollout_is_what_each_of_its_steps_would_draw(kind: str) -> None:
    policy = make_policy(BOX, ACTION_SPACES[kind], SMALL)
    keys, x, starts = jax.random.split(KEY, 5), observations(3), jnp.zeros(3, bool)
    rows = policy.rollout_noise(keys, 3)
    for key, row in zip(keys, rows, strict=True):
        np.testing.assert_array_equal(row, policy.noise(key, 3))
    parameters, carry = lively(policy), policy.initial_carry(3)
    actions, _ = policy.act(parameters, unnormalised(policy), x, carry, starts, None, rows[2])
    distribution, _ = policy.distribution(parameters, {"vector": jnp.asarray(x)}, (), starts, None)
    np.testing.assert_array_equal(actions, distribution.sample(keys[2]))


@pytest.mark.parametrize("kind", ["discrete", "multi_discrete", "multi_binary"])
def test_masked_actions_are_never_taken(kind: str) -> None:
    policy = make_policy(BOX, ACTION_SPACES[kind], SMALL)
    sizes = {"discrete": (4,), "multi_discrete": (3, 2, 4), "multi_binary": (2, 2, 2)}[kind]
    rng = np.random.default_rng(2)
    masks = [rng.random((300, n)) < 0.5 for n in sizes]
    for part in masks:
        part[np.arange(300), rng.integers(0, part.shape[1], 300)] = True
    mask, x, starts = jnp.asarray(np.concatenate(masks, axis=1)), observations(300), jnp.zeros(300, bool)
    assert policy.actions.mask_size == mask.shape[1]

    @compiled_as_ever
    def act(parameters: Any) -> Any:
        arguments = parameters, unnormalised(policy), x, policy.initial_carry(300), starts, mask
        actions, greedy = policy.act(*arguments, policy.noise(KEY, 300))[0], policy.act(*arguments)[0]
        distribution = policy.evaluate(parameters, batch_of({"vector": x}, actions, starts, mask=mask))
        return actions, greedy, distribution.log_prob(actions), distribution.entropy()

    actions, greedy, log_probs, entropy = act(lively(policy))
    for chosen in (np.asarray(actions), np.asarray(greedy)):
        for i, part in enumerate(masks):
            column = chosen if chosen.ndim == 1 else chosen[:, i]
            assert part[np.arange(300), column].all()
    assert np.isfinite(log_probs).all()
    assert (np.asarray(log_probs) > -50).all()
    alone = np.all([part.sum(1) == 1 for part in masks], axis=0)
    assert alone.any()
    np.testing.assert_allclose(np.asarray(entropy)[alone], 0.0, atol=1e-6)


def test_a_mask_in_the_observation_is_obeyed() -> None:
    space = spaces.Dict({"action_mask": spaces.MultiBinary(4), "x": BOX})
    policy = make_policy(space, spaces.Discrete(4), SMALL)
    mask = np.tile(np.array([[0, 1, 0, 0]], np.int8), (50, 1))
    observation = {"action_mask": mask, "x": observations(50)}
    arguments = lively(policy), unnormalised(policy), observation, policy.initial_carry(50), np.zeros(50, bool), None
    np.testing.assert_array_equal(jax.jit(policy.act)(*arguments, policy.noise(KEY, 50))[0], np.ones(50))
    np.testing.assert_array_equal(jax.jit(policy.act)(*arguments)[0], np.ones(50))


def test_choices_of_different_length_fill_up_with_what_never_happens() -> None:
    policy = make_policy(BOX, ACTION_SPACES["multi_discrete"], SMALL)
    distribution, _ = policy.distribution(
        lively(policy), {"vector": jnp.asarray(observations(5))}, (), jnp.zeros(5, bool), None
    )
    probabilities = np.asarray(distribution.parts.probs)  # type: ignore[attr-defined]
    assert probabilities.shape == (5, 3, 4)
    np.testing.assert_array_equal(probabilities[:, 0, 3:], 0.0)
    np.testing.assert_array_equal(probabilities[:, 1, 2:], 0.0)
    assert (probabilities[:, 2] > 0).all()


def test_a_new_policy_is_nearly_uniform_or_centred_and_a_new_critic_is_not_zero() -> None:
    x, starts = {"vector": jnp.asarray(observations(20))}, jnp.zeros(20, bool)
    policy = make_policy(BOX, ACTION_SPACES["discrete"], SMALL)
    distribution, _ = policy.distribution(jax.jit(policy.init)(KEY), x, (), starts, None)
    np.testing.assert_allclose(distribution.probs, 0.25, atol=0.02)  # type: ignore[attr-defined]
    policy = make_policy(BOX, ACTION_SPACES["box"], PolicySettings(net_arch=(8,), log_std_init=-0.7))
    distribution, _ = policy.distribution(jax.jit(policy.init)(KEY), x, (), starts, None)
    assert isinstance(distribution, DiagGaussian)
    assert float(jnp.abs(distribution.mean).max()) < 0.1
    np.testing.assert_allclose(distribution.log_std, np.full((20, 2), -0.7), rtol=1e-6)
    critic = make_critic(policy.encoder, SMALL)
    values = critic.evaluate(jax.jit(critic.init)(KEY), batch_of(x, jnp.zeros(20), starts))
    assert values.shape == (20,)
    assert float(values.std()) > 0.1


# -- the observation normaliser ---------------------------------------------------------------------------------------


def test_acting_uses_the_normaliser_as_it_is_given() -> None:
    policy = make_policy(BOX, ACTION_SPACES["box"], PolicySettings(net_arch=(8,), normalize_observations=True))
    moments = RunningMoments(jnp.float32(50.0), jnp.array([1.0, -2.0, 3.0]), jnp.array([4.0, 0.25, 9.0]))
    parameters, starts = lively(policy), np.zeros(20, bool)
    scaled = observations(20)
    raw = scaled * np.sqrt([4.0, 0.25, 9.0], dtype=np.float32) + np.array([1.0, -2.0, 3.0], np.float32)
    greedy, _ = policy.act(parameters, moments, raw, policy.initial_carry(20), jnp.asarray(starts), None)
    # Rows that are evaluated are features: encoded once with the moments that acted, so the first ratio is 1.
    features = policy.encoder.encode(raw, moments)
    np.testing.assert_allclose(features["vector"], scaled, atol=1e-5)
    at_once = policy.evaluate(parameters, batch_of(features, greedy, starts))
    by_hand = policy.evaluate(parameters, batch_of({"vector": jnp.asarray(scaled)}, greedy, starts))
    np.testing.assert_allclose(at_once.mode(), greedy, atol=1e-5)
    np.testing.assert_allclose(by_hand.mode(), greedy, atol=1e-4)


# -- memory -----------------------------------------------------------------------------------------------------------

STARTS = np.array([[0, 0, 1, 0, 0, 1, 0], [1, 0, 0, 0, 1, 0, 0]], bool)


@pytest.mark.parametrize("core", ["gru", "lstm"])
@pytest.mark.parametrize("kind", ["box", "discrete"])
def test_evaluating_sequences_at_once_equals_acting_step_by_step(core: str, kind: str) -> None:
    settings = PolicySettings(net_arch=(8,), recurrent=core, recurrent_size=6)
    policy = make_policy(BOX, ACTION_SPACES[kind], settings)
    assert policy.recurrent
    parameters, x = lively(policy), observations(2, 7)
    first = jax.tree.map(lambda x: x + 0.3, policy.initial_carry(2))  # in the middle of an episode

    @jax.jit
    def step(carry: Any, x: Any, starts: Any, key: Any) -> Any:
        noise = policy.noise(key, 2)
        actions, after = policy.act(parameters, unnormalised(policy), x, carry, starts, None, noise)
        _, after_greedy = policy.act(parameters, unnormalised(policy), x, carry, starts, None)
        distribution: Any
        distribution, core_after = policy.distribution(parameters, {"vector": x}, carry.core, starts, None)
        return actions, distribution.log_prob(actions), after, (after_greedy.core, core_after)

    carry, actions, log_probs = first, [], []
    for t in range(7):
        action, log_prob, carry, others = step(carry, x[:, t], STARTS[:, t], jax.random.fold_in(KEY, t))
        for other in others:
            jax.tree.map(np.testing.assert_array_equal, carry.core, other)
        actions.append(action)
        log_probs.append(log_prob)
    batch = batch_of({"vector": x}, jnp.stack(actions, axis=1), STARTS, first)
    at_once = jax.jit(lambda p: policy.evaluate(p, batch).log_prob(batch.actions))(parameters)
    np.testing.assert_allclose(at_once, jnp.stack(log_probs, axis=1), atol=1e-5)


def test_acting_forgets_the_episode_before() -> None:
    settings = PolicySettings(net_arch=(8,), recurrent="gru", recurrent_size=6)
    policy = make_policy(BOX, ACTION_SPACES["box"], settings)
    parameters, x = lively(policy), observations(2)
    fresh = policy.initial_carry(2)
    stale = jax.tree.map(lambda x: x + 1.0, fresh)
    starts = np.array([True, False])
    greedy = jax.jit(policy.act)
    from_stale = greedy(parameters, unnormalised(policy), x, stale, starts, None)[0]
    from_fresh = greedy(parameters, unnormalised(policy), x, fresh, starts, None)[0]
    np.testing.assert_array_equal(from_stale[0], from_fresh[0])
    assert float(jnp.abs(from_stale[1] - from_fresh[1]).max()) > 1e-3


def test_a_recurrent_critic_sees_each_successor_with_the_memory_of_its_own_episode() -> None:
    settings = PolicySettings(net_arch=(8,), recurrent="lstm", recurrent_size=6)
    critic = make_critic(Encoder.of(BOX, normalise=False), settings)
    parameters, x, after = lively(critic), observations(2, 7), observations(2, 7, seed=5)
    carry = jax.tree.map(lambda x: x + 0.3, critic.initial_carry(2))
    values, next_values, last = jax.jit(critic.values)(parameters, {"vector": x}, {"vector": after}, carry, STARTS)
    head = parameters["head"]

    @jax.jit
    def value(memory: Any, x: Any, starts: Any) -> Any:
        latent, memory = critic.torso.apply(parameters["torso"], {"vector": x}, memory, starts)
        return (latent @ head["kernel"] + head["bias"])[..., 0], memory

    memory = carry
    for t in range(7):
        here, memory = value(memory, x[:, t], STARTS[:, t])
        there, _ = value(memory, after[:, t], np.zeros(2, bool))  # looked at, but not remembered
        np.testing.assert_allclose(values[:, t], here, atol=1e-5)
        np.testing.assert_allclose(next_values[:, t], there, atol=1e-5)
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, atol=1e-5), last, memory)
    evaluated = jax.jit(critic.evaluate)(parameters, batch_of({"vector": x}, x, STARTS, (), carry))
    np.testing.assert_allclose(evaluated, values, atol=1e-5)


def test_the_value_of_a_successor_inside_an_episode_is_the_value_of_the_next_row() -> None:
    for core in (None, "gru"):
        critic = make_critic(
            Encoder.of(BOX, normalise=False), PolicySettings(net_arch=(8,), recurrent=core, recurrent_size=6)
        )
        x, carry, starts = observations(2, 7), critic.initial_carry(2), np.zeros((2, 7), bool)
        after = np.concatenate([x[:, 1:], observations(2, 1, seed=9)], axis=1)
        values, next_values, _ = jax.jit(critic.values)(lively(critic), {"vector": x}, {"vector": after}, carry, starts)
        np.testing.assert_allclose(next_values[:, :-1], values[:, 1:], atol=1e-5)


# -- gSDE -------------------------------------------------------------------------------------------------------------


def noisy(sde_sample_freq: int = -1) -> Policy:
    settings = PolicySettings(net_arch=(8,), use_sde=True, sde_sample_freq=sde_sample_freq, log_std_init=-0.5)
    return make_policy(BOX, ACTION_SPACES["box"], settings)


def roll(policy: Policy, parameters: Any, carry: Any, n_steps: int, first_key: int) -> tuple[list[np.ndarray], Any]:
    """Act in two environments and return the noise matrix of each step."""

    @jax.jit
    def step(x: Any, carry: Any, key: Any) -> Any:
        starts, noise = jnp.zeros(2, bool), policy.noise(key, 2)
        action, after = policy.act(parameters, unnormalised(policy), x, carry, starts, None, noise)
        latent, _ = policy.torso.apply(parameters["torso"], {"vector": x}, (), starts)
        return action, after, latent, policy.head.distribution(parameters["head"], latent, None).mode()

    matrices = []
    for t in range(n_steps):
        action, carry, latent, mean = step(observations(2, seed=t), carry, jax.random.fold_in(KEY, first_key + t))
        matrix = np.asarray(carry.exploration.matrix)
        noise = np.stack([np.asarray(latent)[i] @ matrix[i] for i in range(2)])
        np.testing.assert_allclose(np.asarray(action) - mean, noise, atol=1e-5)
        matrices.append(matrix)
    return matrices, carry


def drawn_at(matrices: list[np.ndarray]) -> list[int]:
    return [t for t in range(len(matrices)) if t == 0 or not np.array_equal(matrices[t], matrices[t - 1])]


def test_noise_is_a_linear_function_of_the_state_that_stays_within_a_rollout() -> None:
    policy = noisy()
    assert isinstance(policy.head, StateDependentNoiseHead)
    parameters = lively(policy)
    first, carry = roll(policy, parameters, policy.begin_rollout(policy.initial_carry(2)), 5, 0)
    assert drawn_at(first) == [0]
    assert np.abs(first[0]).min() > 0, "drawn, not the zeros that it began with"
    assert np.abs(first[0][0] - first[0][1]).max() > 0.1, "each environment has its own"
    second, _ = roll(policy, parameters, policy.begin_rollout(carry), 3, 5)
    assert drawn_at(second) == [0]
    assert not np.array_equal(first[0], second[0])


def test_noise_is_drawn_anew_every_so_many_steps_and_with_each_rollout() -> None:
    policy = noisy(3)
    parameters = lively(policy)
    first, carry = roll(policy, parameters, policy.begin_rollout(policy.initial_carry(2)), 8, 0)
    assert drawn_at(first) == [0, 3, 6]
    second, _ = roll(policy, parameters, policy.begin_rollout(carry), 4, 8)
    assert drawn_at(second) == [0, 3]
    assert not np.array_equal(first[-1], second[0])


def test_the_distribution_has_the_variance_of_the_noise() -> None:
    policy = noisy()
    head = policy.head
    assert isinstance(head, StateDependentNoiseHead)
    n, parameters = 20_000, lively(policy)["head"]
    latent = jnp.asarray(np.random.default_rng(3).standard_normal(8).astype(np.float32))
    distribution = head.distribution(parameters, latent, None)

    @jax.jit
    def draws(parameters: Any) -> Any:
        return head.explore(parameters, jnp.broadcast_to(latent, (n, 8)), head.draw(parameters, KEY, (n,)))

    actions = np.asarray(draws(parameters))
    assert isinstance(distribution, DiagGaussian)
    std = np.exp(np.asarray(distribution.log_std))
    np.testing.assert_array_less(np.abs(actions.std(0) / std - 1), 4 / np.sqrt(2 * n))
    np.testing.assert_array_less(np.abs(actions.mean(0) - distribution.mean), 4 * std / np.sqrt(n))
    # sigma^2 = sum over i of z_i^2 sigma_ij^2
    by_hand = np.square(latent) @ np.exp(2 * parameters["log_std"]) + 1e-6
    np.testing.assert_allclose(np.square(std), by_hand, rtol=1e-5)


def test_the_latent_vector_is_trained_through_the_noise_where_that_is_asked_for() -> None:
    policy = noisy()
    assert isinstance(policy.head, StateDependentNoiseHead)
    head, parameters = replace(policy.head, trains_latent=True), lively(policy)["head"]
    latent = jnp.asarray(np.random.default_rng(3).standard_normal(8).astype(np.float32))

    def log_std(z: Any) -> Any:
        told: Any = head.distribution(parameters, z, None)
        return jnp.sum(told.log_std)

    slope = jax.grad(log_std)(latent)
    squares = np.exp(2.0 * np.asarray(parameters["log_std"]))
    by_hand = np.sum(latent[:, None] * squares / (np.square(latent) @ squares + 1e-6), axis=1)
    np.testing.assert_allclose(slope, by_hand, rtol=1e-5)


def test_the_mean_is_clipped_in_the_distribution_and_in_what_explores() -> None:
    policy = noisy()
    assert isinstance(policy.head, StateDependentNoiseHead)
    head, parameters = replace(policy.head, clip_mean=0.3), lively(policy)["head"]
    latent = 5.0 * jnp.asarray(np.random.default_rng(3).standard_normal(8).astype(np.float32))
    free = np.asarray(policy.head.distribution(parameters, latent, None).mode())
    assert np.abs(free).max() > 0.3
    np.testing.assert_array_equal(head.distribution(parameters, latent, None).mode(), np.clip(free, -0.3, 0.3))
    still = jnp.zeros((8, free.size))
    np.testing.assert_array_equal(head.explore(parameters, latent, still), np.clip(free, -0.3, 0.3))


def test_the_latent_vector_is_not_trained_through_the_noise() -> None:
    policy = noisy()
    parameters = lively(policy)["head"]

    def entropy(parameters: Any, latent: jax.Array) -> jax.Array:
        distribution: Any = policy.head.distribution(parameters, latent, None)
        return distribution.entropy()

    by_deviation, by_latent = jax.jit(jax.grad(entropy, (0, 1)))(parameters, jnp.ones(8))
    np.testing.assert_array_equal(by_latent, np.zeros(8))
    assert float(jnp.abs(by_deviation["log_std"]).min()) > 0.0


def test_gsde_is_refused_where_actions_are_no_numbers() -> None:
    with pytest.raises(UsageError, match="use_sde needs a Box action space"):
        make_policy(BOX, ACTION_SPACES["discrete"], PolicySettings(use_sde=True))


def test_policies_without_gsde_have_nothing_to_begin() -> None:
    policy = make_policy(BOX, ACTION_SPACES["box"], SMALL)
    carry = policy.initial_carry(2)
    assert policy.begin_rollout(carry) is carry
    assert not jax.tree.leaves(carry)


def test_greedy_actions_have_no_noise_and_leave_the_exploration_alone() -> None:
    policy = noisy()
    parameters, x, starts = lively(policy), observations(2), jnp.zeros(2, bool)
    exploration = Exploration(jnp.ones((2, 8, 2)), jnp.int32(4))
    carry = policy.initial_carry(2)._replace(exploration=exploration)
    greedy, after = policy.act(parameters, unnormalised(policy), x, carry, starts, None)
    distribution, _ = policy.distribution(parameters, {"vector": jnp.asarray(x)}, (), starts, None)
    np.testing.assert_allclose(greedy, distribution.mode(), rtol=1e-6)
    assert after.exploration is exploration


# -- precision --------------------------------------------------------------------------------------------------------


def jitted_shapes(policy: Policy, observation: Any) -> Any:
    def everything(key: Any) -> Any:
        parameters, carry = policy.init(key), policy.initial_carry(2)
        noise = policy.noise(key, 2)
        actions, carry = policy.act(
            parameters, policy.encoder.initial_moments(), observation, carry, jnp.zeros(2, bool), None, noise
        )
        return parameters, actions, carry

    return jax.eval_shape(everything, KEY)


@pytest.mark.parametrize("kind", ACTION_SPACES)
def test_nothing_is_64_bits_wide_with_64_bit_mode_on(kind: str) -> None:
    observation_space: gym.Space[Any] = spaces.Box(-1, 1, (3,), np.float64)
    sde = "box" in kind
    deviations = [PolicySettings(net_arch=(8,), deviation=x) for x in ("fixed", "state") if sde]
    noisy = PolicySettings(net_arch=(8,), recurrent="lstm", use_sde=sde, normalize_observations=True)
    for settings in (SMALL, noisy, *deviations):
        with jax.enable_x64(True):
            shapes = jitted_shapes(make_policy(observation_space, ACTION_SPACES[kind], settings), np.zeros((2, 3)))
        assert {x.dtype for x in jax.tree.leaves(shapes)} <= {jnp.dtype("float32"), jnp.dtype("int32")}
