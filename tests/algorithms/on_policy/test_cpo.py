"""CPO as whole updates: it is TRPO where the cost does not bind, and keeps what it may cost where it does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from probes import Metronome, Probe, one, random_sign
from updates import BOX, CHOICES, CONTINUOUS, experience, first_learner, flat, improve, make_update, rows_of

import jumar
from jumar.algorithms.on_policy.costs import CostLimit, EpisodeCosts, LimitState
from jumar.critics.state_values import CriticPair
from jumar.errors import EnvironmentFault, UsageError
from jumar.estimators.advantages import gae

T, N = 8, 2


def drawn_costs(seed: int = 5) -> Any:
    return jnp.asarray(np.random.default_rng(seed).random((T, N)), jnp.float32)


# -- what episodes cost -----------------------------------------------------------------------------------------------


def test_episodes_are_followed_as_a_loop_over_single_steps_does() -> None:
    """Over several rollouts, with rows that are no experience, and a restart."""
    draw = np.random.default_rng(0)
    state = EpisodeCosts.none(3)
    under_way: list[list[float]] = [[] for _ in range(3)]
    last: list[list[list[float]]] = [[] for _ in range(3)]
    for rollout in range(6):
        if rollout == 3:
            state = state.restarted()
            under_way = [[] for _ in range(3)]
        valid = draw.random((7, 3)) < 0.8
        ended = (draw.random((7, 3)) < (0.0 if rollout in (0, 4) else 0.2)) & valid
        costs = draw.random((7, 3)).astype(np.float32)
        state = state.followed(jnp.where(valid, costs, 1e9), jnp.asarray(ended), jnp.asarray(valid))
        for n in range(3):
            finished = []
            for t in range(7):
                under_way[n] += [float(costs[t, n])] * int(valid[t, n])
                if ended[t, n]:
                    finished.append(under_way[n])
                    under_way[n] = []
            last[n] = finished or last[n]
        np.testing.assert_allclose(state.open_costs, [sum(episode) for episode in under_way], rtol=1e-5)
        np.testing.assert_array_equal(state.open_lengths, [len(episode) for episode in under_way])
        known = [episode for episodes in last for episode in episodes] or under_way
        expected = np.mean([sum(episode) for episode in known]), np.mean([len(episode) for episode in known])
        np.testing.assert_allclose(state.mean_episode(), expected, rtol=1e-5)
    assert sum(map(len, last)) > 3


def test_the_excess_is_per_step() -> None:
    """Two episodes, of 4 steps that cost 10 and of 8 steps that cost 2: 6 in 6 steps on average, 3 beyond the limit."""
    limit = make_update(name="cpo", cost_limit=3.0).costs
    assert isinstance(limit, CostLimit)
    known = EpisodeCosts(*(jnp.asarray(x, jnp.float32) for x in ([7, 0], [3, 1], [10, 2], [4, 8], [1, 1])))
    state = LimitState(known, jnp.asarray(0.0))
    assert float(limit.constraint(state).excess) == 0.5
    assert float(limit.constraint(state._replace(margin=jnp.asarray(3.0))).excess) == 1.0
    assert float(limit.constraint(limit.init(2)).excess) == -3.0
    np.testing.assert_array_equal(limit.restart(state).episodes.open_costs, [0.0, 0.0])
    assert float(limit.constraint(limit.restart(state)).excess) == 0.5


@pytest.mark.parametrize(
    ("rate", "cost", "expected"),
    [(0.5, 1.5, 0.5), (0.5, 0.5, 0.0), (0.5, 4.5, 3.5), (0.5, 9.0, 4.0), (0.0, 9.0, 0.0)],
    ids=["beyond the limit", "never below 0", "a dear episode counts in full", "never above 4 limits", "no margin"],
)
def test_a_margin_is_learnt_from_each_episode_once(rate: float, cost: float, expected: float) -> None:
    """An episode ends in each of two environments; the limit is 1."""
    update = make_update(name="cpo", cost_limit=1.0, cost_margin_rate=rate)
    limit = update.costs
    assert isinstance(limit, CostLimit)
    trajectory = experience(update, first_learner(update), costs=jnp.zeros((T, N)).at[0].set(cost))
    state = limit.follow(limit.init(N), trajectory)
    np.testing.assert_allclose(state.episodes.costs, [cost, cost])
    np.testing.assert_allclose(state.margin, expected)
    uneven = limit.follow(
        state, experience(update, first_learner(update), costs=jnp.zeros((T, N)).at[0].set([3.0, 0.0]))
    )
    change = float(np.clip(expected + rate * (2.0 - 1.0), 0.0, 4.0)) - expected  # by the sum, not by the sign
    np.testing.assert_allclose(uneven.margin, expected + change)
    none = jnp.zeros((T, N), bool)
    again = limit.follow(state, trajectory._replace(terminated=none, truncated=none))
    np.testing.assert_allclose(again.margin, state.margin)


@pytest.mark.parametrize(
    ("settings", "gamma", "gae_lambda"),
    [
        ({}, 0.99, 0.95),
        ({"gamma": 0.9, "gae_lambda": 0.5}, 0.9, 0.5),
        ({"cost_gamma": 0.7, "cost_gae_lambda": 0.3}, 0.7, 0.3),
    ],
)
def test_advantages_of_costs_are_estimated_like_those_of_rewards_and_centred(
    settings: dict[str, Any], gamma: float, gae_lambda: float
) -> None:
    update = make_update(name="cpo", **settings)
    learner = first_learner(update)
    costs = drawn_costs()
    trajectory = experience(update, learner, costs=costs)
    batch = rows_of(update, learner, trajectory)
    features, successors = (
        jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), update.policy.encoder.encode(x, learner.observation_moments))
        for x in (trajectory.observations, trajectory.successors)
    )
    assert isinstance(update.critic, CriticPair)
    values, after, _ = update.critic.cost.values(
        learner.parameters["critic"]["cost"], features, successors, (), trajectory.episode_start.T
    )
    expected = gae(costs, values.T, after.T, trajectory.terminated, trajectory.truncated, gamma, gae_lambda)
    np.testing.assert_allclose(batch.cost_values.reshape(N, T), values, rtol=1e-6)
    np.testing.assert_allclose(batch.cost_returns.reshape(N, T).T, expected + values.T, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(batch.cost_advantages.reshape(N, T).T, expected - jnp.mean(expected), atol=1e-5)
    assert np.abs(batch.cost_values - batch.values).max() > 0.01, "two networks"


# -- whole updates ----------------------------------------------------------------------------------------------------


def three_updates(name: str, action_space: Any, costs: Any, **settings: Any) -> tuple[Any, list[dict[str, Any]]]:
    update = make_update(BOX, action_space, name, **settings)
    learner, records = first_learner(update), []
    for i in range(3):
        trajectory = experience(update, learner, seed=i, costs=costs)
        learner, record = improve(update, learner, trajectory, seed=i)
        records.append(record)
    return learner, records


@pytest.mark.parametrize(
    ("action_space", "settings"),
    [
        (CONTINUOUS, {"normalize_observations": True}),
        pytest.param(CHOICES, {"recurrent": "gru", "recurrent_size": 4}, marks=pytest.mark.slow),
    ],
    ids=["plain", "recurrent"],
)
def test_with_a_limit_that_is_never_met_it_is_trpo(action_space: Any, settings: dict[str, Any]) -> None:
    plain, expected = three_updates("trpo", action_space, None, target_kl=0.05, **settings)
    learner, records = three_updates("cpo", action_space, drawn_costs(), target_kl=0.05, cost_limit=1e9, **settings)
    np.testing.assert_allclose(flat(learner.parameters["policy"]), flat(plain.parameters["policy"]), atol=2e-6)
    np.testing.assert_allclose(
        flat(learner.parameters["critic"]["reward"]), flat(plain.parameters["critic"]), atol=2e-6
    )
    for record, other in zip(records, expected, strict=True):
        assert record["step_fraction"] == other["step_fraction"] > 0.0
        assert (record["nu"], record["recovery"]) == (0.0, 0.0)
        np.testing.assert_allclose(record["value_loss"], other["value_loss"], rtol=1e-4)


def test_without_a_cost_gradient_it_is_trpo_whatever_the_limit() -> None:
    """Returns alone judge actions, and every cost is 0."""
    by_returns = {"baseline": "none", "advantage": "to-go"}
    plain, _ = three_updates("trpo", CHOICES, None, **by_returns)
    learner, records = three_updates("cpo", CHOICES, jnp.zeros((T, N)), cost_limit=0.0, **by_returns)
    np.testing.assert_allclose(flat(learner.parameters["policy"]), flat(plain.parameters["policy"]), atol=1e-6)
    assert all(record["cost_grad_norm"] == 0.0 for record in records)
    assert all(record["step_fraction"] > 0.0 for record in records)


LIMITED = {"target_kl": 0.02, "cg_damping": 0.01, "n_critic_updates": 20, "learning_rate": 0.05}


def near_the_limit(excess: float) -> tuple[Any, Any, Any]:
    """Return an update, a learner and experience in which what is paid is what it costs.

    The episodes under way have cost so much before that those that end cost ``excess`` more than the limit, on average.
    """
    update = make_update(BOX, CHOICES, "cpo", **LIMITED)
    learner = first_learner(update)
    trajectory = experience(update, learner, costs=drawn_costs())
    trajectory = trajectory._replace(costs=trajectory.rewards + 2.0)
    assert isinstance(update.costs, CostLimit)
    cost, length = update.costs.follow(learner.costs, trajectory).episodes.mean_episode()
    assert float(length) == 4.0, "one of 3 steps, one of 5"
    before = jnp.full((N,), update.costs.limit + excess - cost)
    episodes = learner.costs.episodes._replace(open_costs=before)
    return update, learner._replace(costs=learner.costs._replace(episodes=episodes)), trajectory


@pytest.mark.parametrize("margin", [0.002, 0.0, -0.002])
def test_a_limit_within_reach_is_met(margin: float) -> None:
    """A step without a limit would add 0.02 a step and more."""
    _, free = improve(*near_the_limit(-1e3))
    assert free["predicted_cost_change"] > 0.02
    _, record = improve(*near_the_limit(-4.0 * margin))
    np.testing.assert_allclose(record["cost_excess"], -4.0 * margin, atol=1e-5)
    np.testing.assert_allclose(record["predicted_cost_change"], margin, atol=2e-5)
    assert record["nu"] > 0.0
    assert record["recovery"] == 0.0
    assert record["cost_change"] <= max(4.0 * margin, 0.0) + 1e-6
    assert record["step_fraction"] > 0.0 or margin == 0.0


def test_a_limit_out_of_reach_is_recovered_from() -> None:
    """Whatever is earned by it, the cost goes down."""
    _, free = improve(*near_the_limit(-1e3))
    _, record = improve(*near_the_limit(100.0))
    assert record["finite"]
    assert record["recovery"] == 1.0
    assert record["cost_value"] == pytest.approx(125.0)
    assert record["cost_change"] < 0.0 < free["cost_change"]
    assert record["predicted_cost_change"] < 0.0
    assert 0.0 < record["mean_kl"] <= 0.02
    assert record["policy_objective_after"] < record["policy_objective_before"]


def test_the_critic_of_costs_is_fitted() -> None:
    update, learner, trajectory = near_the_limit(0.0)
    new, record = improve(update, learner, trajectory)
    before, after = (rows_of(update, learner._replace(parameters=x.parameters), trajectory) for x in (learner, new))
    errors = [float(jnp.mean((x.cost_values - before.cost_returns) ** 2)) for x in (before, after)]
    assert errors[1] < 0.9 * errors[0]
    assert 0.0 < record["critic_cost_loss"] < errors[0]
    assert np.isfinite(record["cost_explained_variance"])


@pytest.mark.parametrize("costs", [None, jnp.ones((T, N, 3))], ids=["none", "several"])
def test_no_cost_and_several_costs_are_refused_in_words(costs: Any) -> None:
    update = make_update(BOX, CHOICES, "cpo")
    learner = first_learner(update)
    words = "need a cost per step: info" if costs is None else r"take one cost per step.*shape \[3\]"
    with pytest.raises(UsageError, match=words):
        rows_of(update, learner, experience(update, learner, costs=costs))


# -- training ---------------------------------------------------------------------------------------------------------

SMALL = {"n_envs": 4, "n_steps": 64, "batch_size": 256, "net_arch": (4,), "seed": 0}


def arm_pays(observation: Any, action: Any, time: Any) -> Any:
    return action.astype(jnp.float32)


def arm_costs(observation: Any, action: Any, time: Any) -> dict[str, Any]:
    return {"cost": action.astype(jnp.float32)}


ARMS = Probe(arm_pays, random_sign, length=5, time_limit=True, info=arm_costs)
"""The second arm pays 1 and costs 1, the first nothing; an episode has five pulls."""


def share_of_the_second_arm(agent: jumar.Agent) -> float:
    training = agent._training
    policy, (parameters, moments) = training.policy, training.snapshot(0)
    features = policy.encoder.encode(jnp.array([[1.0], [-1.0]]), moments)
    carry, start = policy.initial_carry(2).core, jnp.ones((2,), bool)
    distribution, _ = policy.distribution(parameters, features, carry, start, None)
    return float(jnp.mean(jax.nn.softmax(distribution.logits)[:, 1]))  # type: ignore[attr-defined]


def test_the_best_policy_within_the_limit_is_found_from_beyond_it() -> None:
    """A cost of 1.5 an episode allows the second arm in 30 % of the pulls; the first policy takes it in half."""
    records: list[Any] = []
    agent = jumar.CPO(ARMS, cost_limit=1.5, target_kl=0.02, **SMALL)
    agent.learn(256 * 60, callback=records.append)
    assert records[0]["train/cost_excess"] > 0.7
    late = records[30:]
    assert np.mean([record["train/cost_value"] for record in late]) == pytest.approx(1.5, abs=0.15)
    assert np.mean([record["rollout/ep_rew_mean"] for record in late]) == pytest.approx(1.5, abs=0.15)
    assert share_of_the_second_arm(agent) == pytest.approx(0.3, abs=0.08)


def test_save_load_and_go_on_equals_never_having_stopped(tmp_path: Path) -> None:
    """Two seeds side by side. Episodes are under way when it stops: what they have cost so far is kept."""
    settings = {**SMALL, "n_steps": 32, "batch_size": 128, "cost_limit": 1.5, "n_seeds": 2}
    agent = jumar.CPO(ARMS, **settings).learn(128)
    agent.save(tmp_path / "agent")
    assert agent._training.learner.costs.episodes.open_costs.shape == (2, 4)
    assert np.any(agent._training.learner.costs.episodes.open_costs)
    again = jumar.load(tmp_path / "agent", env=ARMS)
    for each in (agent, again):
        each.learn(256)
    np.testing.assert_array_equal(flat(again._training.learner), flat(agent._training.learner))
    assert np.isfinite(flat(agent._training.learner)).all()


@pytest.mark.parametrize("env", ["jax/CartPole-v1", "envpool/CartPole-v1", Probe(one)], ids=["own", "pool", "object"])
def test_what_surely_has_no_cost_is_refused_before_training(env: Any) -> None:
    with pytest.raises(UsageError, match=r"need a cost per step: info\['cost'\] .* --cost velocity:V"):
        jumar.CPO(env, n_envs=1)


def test_what_gives_no_cost_is_refused_at_the_first_iteration() -> None:
    agent = jumar.CPO(Metronome, n_steps=16, batch_size=16)
    before = flat(agent._training.learner)
    with pytest.raises(UsageError, match=r"need a cost per step: info\['cost'\]"):
        agent.learn(16)
    np.testing.assert_array_equal(flat(agent._training.learner), before)


def test_a_cost_that_is_no_number_is_named_and_nothing_is_learnt_from_it() -> None:
    def info(observation: Any, action: Any, time: Any) -> dict[str, Any]:
        return {"cost": jnp.where(time == 3, jnp.nan, 1.0)}

    agent = jumar.CPO(Probe(one, length=5, info=info), **SMALL)
    before = flat(agent._training.learner)
    with pytest.raises(EnvironmentFault, match="environment 0 of Probe returned a cost that is nan at step 4"):
        agent.learn(16)
    np.testing.assert_array_equal(flat(agent._training.learner), before)
