"""ACER as a whole update: the step by hand, what is replayed and when, and odd input."""

from __future__ import annotations

import dataclasses
from typing import Any

import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from gymnasium import spaces
from updates import BOX, CHOICES, CONTINUOUS, experience, first_learner, flat, improve, make_update

import jumar
from jumar.algorithms.off_policy.acer_update import Remembered, Replay, drawn
from jumar.errors import UsageError
from jumar.networks.layers import Torso
from jumar.schedules import Constant
from jumar.solvers import Ascent, Joint, Optimiser
from jumar.trajectory import masks_after

GAMMA, BOUND = 0.9, 1.2
SMALL: dict[str, Any] = {"buffer_size": 64, "replay_start": 0, "gamma": GAMMA}


def acer(**settings: Any) -> Replay:
    update: Any = make_update(BOX, settings.pop("space", CHOICES), "acer", **{**SMALL, **settings})
    assert isinstance(update, Replay)
    return update


def sharper(learner: Any, factor: float = 60.0) -> Any:
    """Return the learner with a policy that is far from uniform."""
    policy = learner.parameters["policy"]
    policy = {**policy, "head": jax.tree.map(lambda x: factor * x, policy["head"])}
    return learner._replace(parameters={**learner.parameters, "policy": policy})


def outputs(update: Replay, parameters: Any, observations: Any) -> tuple[jax.Array, jax.Array]:
    """Return log-probabilities and action values of networks that are one layer and a linear head each."""
    found = []
    for part, torso in ((parameters["policy"], update.policy.torso), (parameters["critic"], update.critic.torso)):
        assert isinstance(torso, Torso)
        latent = torso.mlp.apply(part["torso"]["mlp"], observations)
        head = part["head"].get("logits", part["head"])
        found.append(latent @ head["kernel"] + head["bias"])
    return jax.nn.log_softmax(found[0]), found[1]


@pytest.mark.parametrize("replayed", [False, True])
def test_the_step_is_the_truncated_score_with_what_makes_up_for_it(replayed: bool) -> None:
    update = acer(ent_coef=0.0, importance_bound=BOUND, replay_ratio=0, trust_region=False, retrace_lambda=0.8)
    learner, other = sharper(first_learner(update)), sharper(first_learner(update, seed=1))
    trajectory = experience(update, other if replayed else learner)
    memory = jax.jit(update._remembered)(other if replayed else learner, trajectory)[0]
    problem = update._problem(learner, (), memory)
    batch = jax.jit(problem.estimate)(learner.parameters)

    seen = trajectory.observations, trajectory.successors
    (log_probs, q), (next_log_probs, next_q) = (
        (np.asarray(x, np.float64) for x in outputs(update, learner.parameters, observations)) for observations in seen
    )
    log_ratios = log_probs - np.asarray(memory.behaviour, np.float64)
    values, next_values = np.sum(np.exp(log_probs) * q, -1), np.sum(np.exp(next_log_probs) * next_q, -1)
    actions, ended = np.asarray(trajectory.actions), np.asarray(trajectory.ended)
    coefficients, targets = np.zeros((8, 2, 3)), np.zeros((8, 2))
    truncated = 0
    for n in range(2):
        for t in reversed(range(8)):
            target = float(trajectory.rewards[t, n]) + GAMMA * next_values[t, n] * (not trajectory.terminated[t, n])
            if t < 7 and not ended[t, n]:
                a = actions[t + 1, n]
                trace = 0.8 * min(1.0, np.exp(log_ratios[t + 1, n, a]))
                target += GAMMA * trace * (targets[t + 1, n] - q[t + 1, n, a])
            targets[t, n] = target
            ratios = np.exp(log_ratios[t, n])
            truncated += np.sum(ratios > BOUND)
            coefficients[t, n] = (
                np.maximum(0.0, 1.0 - BOUND / ratios) * np.exp(log_probs[t, n]) * (q[t, n] - values[t, n])
            )
            coefficients[t, n, actions[t, n]] += min(BOUND, ratios[actions[t, n]]) * (target - values[t, n])
    assert (truncated > 0) == replayed
    np.testing.assert_allclose(np.asarray(batch.returns).T, targets, rtol=1e-4, atol=1e-5)

    def by_hand(parameters: Any) -> jax.Array:
        log_probs, q = outputs(update, parameters, trajectory.observations)
        chosen = jnp.take_along_axis(q, trajectory.actions[..., None], -1)[..., 0]
        climbed = jnp.sum(jnp.asarray(coefficients, jnp.float32) * log_probs) / 16
        return climbed - 0.5 * jnp.mean(0.5 * jnp.square(chosen - jnp.asarray(targets, jnp.float32)))

    def climbed(parameters: Any, batch: Any) -> jax.Array:
        return problem.joint(0.5).objective(parameters, batch)[0]

    expected = flat(jax.jit(jax.grad(by_hand))(learner.parameters))
    np.testing.assert_allclose(flat(jax.jit(jax.grad(climbed))(learner.parameters, batch)), expected, atol=2e-6)
    if not replayed:
        plain = Joint(Ascent(Optimiser(Constant(0.1), optax.identity())), 0.5)
        new, record = improve(dataclasses.replace(update, solver=plain), learner, trajectory)
        np.testing.assert_allclose(flat(new.parameters) - flat(learner.parameters), 0.1 * expected, atol=1e-6)
        assert record["gradient_steps"] == 1.0


def test_sequences_are_drawn_from_all_that_are_remembered_and_stay_together() -> None:
    update = acer(buffer_size=64, replay_ratio=0)
    learner = first_learner(update)
    for seed in range(3):
        learner, _ = improve(update, learner, experience(update, learner, seed=seed))
    memory = learner.experience
    assert memory.rollout.trajectory.rewards.shape == (4, 8, 2)
    sequences = drawn(memory, 300, jax.random.PRNGKey(0))

    def signatures(x: Remembered) -> np.ndarray:
        """Return all that a sequence is, one after the other: ``[M, ...]``."""
        rows = [x.rollout.trajectory.rewards, x.rollout.trajectory.observations[..., 0], x.behaviour[..., 1]]
        return np.concatenate([np.asarray(row).T for row in rows], axis=1)

    stored = np.concatenate([signatures(jax.tree.map(lambda x, k=k: x[k], memory)) for k in range(3)])
    counts = [int(np.sum(np.all(signatures(sequences) == one, axis=1))) for one in stored]
    assert sum(counts) == 300, "the one that is not there yet is never drawn"
    assert min(counts) > 25, counts


def test_replays_begin_when_enough_is_remembered() -> None:
    update = acer(replay_ratio=3, replay_start=32)
    learner = first_learner(update)
    steps = []
    for seed in range(3):
        learner, record = improve(update, learner, experience(update, learner, seed=seed))
        steps.append(float(record["gradient_steps"]))
    assert steps == [1.0, 4.0, 4.0]


def test_more_replays_move_the_policy_further_and_the_same_key_the_same_way() -> None:
    changes = []
    for ratio in (0, 4, 4):
        update = acer(replay_ratio=ratio)
        learner = first_learner(update)
        new, _ = improve(update, learner, experience(update, learner))
        changes.append(flat(new.parameters["policy"]) - flat(learner.parameters["policy"]))
    np.testing.assert_array_equal(changes[1], changes[2])
    assert np.linalg.norm(changes[1]) > 2.0 * np.linalg.norm(changes[0])


def test_the_trust_region_holds_a_policy_that_runs_from_its_average() -> None:
    """Rewards for one action alone, replayed: with a tight region the policy ends nearer to its average."""
    distances = []
    for settings in ({"trust_region_delta": 1e3}, {"trust_region_delta": 1e-3}):
        update = acer(replay_ratio=20, learning_rate=0.02, average_decay=0.9, **settings)
        learner = first_learner(update)
        trajectory = experience(update, learner)
        trajectory = trajectory._replace(rewards=jnp.where(trajectory.actions == 1, 1.0, -1.0))
        _, record = improve(update, learner, trajectory)
        distances.append(float(record["average_kl"]))
        assert (record["projected"] > 0.0) == (settings["trust_region_delta"] == 1e-3)
    assert distances[1] < 0.7 * distances[0], distances


def test_masks_of_successors_are_those_of_the_next_rows() -> None:
    masks = jnp.array([[1, 0], [0, 1], [1, 0], [0, 1]], bool)[:, None]
    ended = jnp.array([0, 1, 0, 0], bool)[:, None]
    np.testing.assert_array_equal(masks_after(masks, ended)[:, 0], [[0, 1], [1, 1], [0, 1], [1, 1]])


@pytest.mark.parametrize("place", ["in the observation", "beside it"])
@pytest.mark.parametrize("method", ["acer", "ppo"])
def test_forbidden_actions_are_worth_nothing_at_a_time_limit_and_after_the_last_row(method: str, place: str) -> None:
    """Forbidden actions, of which a critic learns nothing, are worth 100 here, and all others nothing."""
    masks = jnp.asarray(np.arange(3) != 1) & jnp.ones((8, 2, 1), bool)
    space: spaces.Space[Any] = spaces.Box(-9.0, 9.0, (4,), np.float32)
    changes: dict[str, Any] = {"action_masks": masks, "successor_masks": masks}
    if place == "in the observation":
        space = spaces.Dict({"x": space, "action_mask": spaces.MultiBinary(3)})
    settings: dict[str, Any] = {"replay_start": 0} if method == "acer" else {"advantage": "q", "batch_size": 16}
    update = make_update(space, CHOICES, method, n_envs=2, n_steps=8, **settings)
    learner = first_learner(update, 2)
    parameters = {**learner.parameters}
    head = jax.tree.map(jnp.zeros_like, parameters["critic"]["head"])
    parameters["critic"] = {**parameters["critic"], "head": {**head, "bias": jnp.array([0.0, 100.0, 0.0])}}
    x = jnp.zeros((8, 2, 4))
    if place == "in the observation":
        x, changes = {"x": x, "action_mask": masks.astype(jnp.int8)}, {}
    trajectory = experience(acer(n_steps=8), first_learner(acer(n_steps=8)), n_steps=8)._replace(
        observations=x,
        successors=x,
        actions=jnp.zeros((8, 2), jnp.int32),
        rewards=jnp.zeros((8, 2)),
        terminated=jnp.zeros((8, 2), bool),
        truncated=jnp.zeros((8, 2), bool).at[3].set(True),
        carry=update.policy.initial_carry(2),
        critic_carry=update.critic.initial_carry(2),
        **changes,
    )
    batch = update.batch(learner._replace(parameters=parameters), trajectory)
    np.testing.assert_allclose(batch.returns, 0.0, atol=1e-6)


def test_actions_that_were_forbidden_stay_impossible() -> None:
    update = acer(replay_ratio=4)
    learner = first_learner(update)
    masks = jnp.asarray(np.arange(3) != 1)[None, None] & jnp.ones((8, 2, 1), bool)
    for seed in range(2):
        learner, record = improve(update, learner, experience(update, learner, seed=seed, action_masks=masks))
        assert record["finite"]
        assert record["entropy"] <= np.log(2.0) + 1e-6


def test_a_recurrent_policy_learns_from_stored_memories() -> None:
    update = acer(recurrent="gru", recurrent_size=4, replay_ratio=2)
    learner = first_learner(update)
    for seed in range(2):
        new, record = improve(update, learner, experience(update, learner, seed=seed))
        assert record["finite"]
        assert not np.array_equal(flat(new.parameters["policy"]), flat(learner.parameters["policy"]))
        learner = new


@pytest.mark.parametrize("case", ["no reward", "no experience", "unlikely", "one action", "one row"])
def test_what_gives_no_direction_gives_no_nan(case: str) -> None:
    rows = 1 if case == "one row" else 8
    update = acer(space=spaces.Discrete(1) if case == "one action" else CHOICES, n_steps=rows, ent_coef=0.0)
    learner = first_learner(update)
    changes: dict[str, Any] = {"no reward": {"rewards": jnp.zeros((rows, 2))}}.get(case, {})
    if case == "no experience":
        changes["valid"] = jnp.zeros((rows, 2), bool)
    for seed in range(2):
        if case == "unlikely":
            behaviour = jnp.full_like(learner.experience.behaviour, -1e4).at[..., 0].set(-np.inf)
            learner = learner._replace(experience=learner.experience._replace(behaviour=behaviour))
        new, record = improve(update, learner, experience(update, learner, n_steps=rows, seed=seed, **changes))
        assert all(np.isfinite(x) for x in record.values()), record
        assert record["finite"]
        if case in ("one action", "no experience"):
            np.testing.assert_allclose(
                flat(new.parameters["policy"]), flat(learner.parameters["policy"]), rtol=0, atol=1e-7
            )
        learner = new


def test_what_it_cannot_do_is_refused_in_words() -> None:
    with pytest.raises(UsageError, match="acer needs a Discrete action space"):
        acer(space=CONTINUOUS)
    with pytest.raises(
        UsageError, match="the memory holds whole rollouts, 60 steps, so nothing would ever be replayed"
    ):
        jumar.ACER("jax/CartPole-v1", preset="none", n_envs=3, n_steps=20, buffer_size=100, replay_start=100)
    with pytest.raises(UsageError, match="no room for a rollout"):
        acer(buffer_size=15)


class MaskedBeside(gym.Env):
    """Gives its masks by a method, beside the observation."""

    observation_space = spaces.Box(-9.0, 9.0, (2,), np.float32)
    action_space = spaces.Discrete(3)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.time = 0
        return np.zeros(2, np.float32), {}

    def action_masks(self) -> Any:
        return np.array([True, self.time % 2 == 0, True])

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_masks()[action]
        self.time += 1
        return np.full(2, self.time / 10, np.float32), 1.0, False, self.time >= 7, {}


@pytest.mark.parametrize(
    ("method", "settings"), [("ACER", {"buffer_size": 64, "replay_start": 16}), ("ISPG", {})], ids=["ACER", "ISPG"]
)
def test_rollouts_with_masks_beside_their_observations_are_remembered(method: str, settings: dict[str, Any]) -> None:
    agent = getattr(jumar, method)(MaskedBeside, seed=0, preset="none", net_arch=(4,), n_envs=2, n_steps=8, **settings)
    assert agent.learn(64).num_timesteps == 64
