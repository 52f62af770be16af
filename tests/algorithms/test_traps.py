"""The traps of the field, held at the level of the whole update: each test is named after what goes wrong elsewhere."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from gymnasium import spaces
from probes import Probe, one
from updates import (
    BOX,
    CHOICES,
    CONTINUOUS,
    experience,
    first_learner,
    flat,
    held_first,
    improve,
    make_update,
    one_round,
    recording,
)

import jumar
from jumar.algorithms.on_policy.update import OnPolicy
from jumar.collecting.programs import CompiledRunner
from jumar.envs.classic_control import Pendulum
from jumar.policies.moments import RunningMoments
from jumar.schedules import Constant
from jumar.solvers import Epochs, Joint, Optimiser
from jumar.solvers.objectives import ClippedSquaredError

PENDULUM = Pendulum()


Rounds = list[tuple[Any, dict[str, Any], Any]]


@cache
def collect(**settings: Any) -> Rounds:
    """Run three iterations on Pendulum; return (the learner that acted, the record, the learner after it) of each.

    An episode has five steps, so that memories are cleared in the middle of a rollout.
    """
    update = pendulum_update(**settings)
    runner = CompiledRunner(recording(update), replace(PENDULUM, max_episode_steps=5), "probe", 2, 8, None)
    held = held_first(runner, first_learner(update))
    rounds = []
    for i in range(3):
        acted = held.learner
        held, record, _ = runner.iterate(held, *one_round(i + 10))
        rounds.append((acted, record, held.learner))
    return rounds


def pendulum_update(**settings: Any) -> OnPolicy:
    return make_update(PENDULUM.observation_space, PENDULUM.action_space, learning_rate=0.01, **settings)


def acting_distributions(update: OnPolicy, learner: Any, trajectory: Any) -> list[Any]:
    """Go through a rollout one step at a time, as acting does, and return the distribution of each step."""
    policy, carry = update.policy, trajectory.carry.core
    distributions = []
    for t in range(trajectory.rewards.shape[0]):
        observation = jax.tree.map(lambda x, t=t: x[t], trajectory.observations)
        features = policy.encoder.encode(observation, learner.observation_moments)
        start = trajectory.episode_start[t]
        distribution, carry = policy.distribution(learner.parameters["policy"], features, carry, start, None)
        distributions.append(distribution)
    return distributions


WIDE = {"normalize_observations": True, "log_std_init": 2.0}
NARROW = {"normalize_observations": True, "log_std_init": -12.0}


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param(WIDE, id="normalised observations"),
        pytest.param({"normalize_observations": True, "recurrent": "gru", "recurrent_size": 4}, id="recurrent"),
        pytest.param({"recurrent": "lstm", "recurrent_size": 4, "use_sde": True}, id="recurrent gSDE"),
        pytest.param({"normalize_observations": True, "use_sde": True}, id="gSDE"),
    ],
)
def test_the_first_minibatch_has_ratio_1_to_the_policy_that_acted(settings: dict[str, Any]) -> None:
    for acted, record, _ in collect(**settings):
        trajectory = record["trajectory"]
        steps = zip(
            acting_distributions(pendulum_update(**settings), acted, trajectory), trajectory.actions, strict=True
        )
        acting = np.stack([distribution.log_prob(actions) for distribution, actions in steps])
        np.testing.assert_allclose(np.exp(trajectory.log_probs - acting), 1.0, atol=1e-5)
        assert abs(record["approx_kl"]) < 1e-5
        assert record["clip_fraction"] == 0.0


def test_what_acts_is_the_policy_with_the_normaliser_that_the_update_sees() -> None:
    """With next to no noise, the actions themselves tell which means they were drawn around."""
    update = pendulum_update(**NARROW)
    for acted, record, after in collect(**NARROW):
        trajectory = record["trajectory"]
        means = np.stack([distribution.mode() for distribution in acting_distributions(update, acted, trajectory)])
        np.testing.assert_allclose(trajectory.actions, means, atol=5e-5)
        later = replace_moments(acted, after)
        wrong = np.stack([distribution.mode() for distribution in acting_distributions(update, later, trajectory)])
        assert np.abs(wrong - means).max() > 5e-4, "the normaliser of after the update would be told apart"


def replace_moments(learner: Any, other: Any) -> Any:
    return learner._replace(observation_moments=other.observation_moments)


def test_the_observation_normaliser_stays_frozen_from_rollout_through_update_and_learns_last() -> None:
    for acted, record, after in collect(**NARROW):
        trajectory, frozen = record["trajectory"], acted.observation_moments
        by_environment = np.swapaxes(trajectory.observations, 0, 1).reshape(-1, 3)
        expected = np.clip((by_environment - frozen.mean) / np.sqrt(frozen.variance + 1e-8), -10, 10)
        np.testing.assert_allclose(record["batch"].features["vector"], expected, rtol=1e-5, atol=1e-5)
        # With so little noise, any other moments in the update would make enormous ratios.
        assert abs(record["approx_kl"]) < 0.01
        learnt = frozen.updated(jnp.asarray(trajectory.observations), jnp.ones((8, 2)))
        np.testing.assert_allclose(after.observation_moments.mean, learnt.mean, rtol=1e-5)
        assert int(after.observation_moments.rows) == int(frozen.rows) + 16


def test_the_observation_normaliser_is_saved_with_the_policy_and_evaluation_does_not_update_it(tmp_path: Any) -> None:
    agent = jumar.PPO(
        PENDULUM, n_envs=2, n_steps=8, batch_size=16, n_epochs=1, net_arch=(6,), normalize_observations=True
    )
    agent.learn(64)
    agent.save(tmp_path / "agent")
    before: RunningMoments = agent.actor().moments
    jumar.evaluate_policy(agent, PENDULUM, n_eval_episodes=1)
    loaded = jumar.load_policy(tmp_path / "agent").moments
    assert int(before.rows) == 64
    for moments in (agent.actor().moments, loaded):
        np.testing.assert_array_equal(flat(before), flat(moments))


def test_the_reward_normaliser_is_cleared_at_any_end_of_an_episode() -> None:
    update = make_update(normalize_rewards=True, gamma=0.5)
    learner = first_learner(update)
    trajectory = experience(update, learner)
    rewards, ended = np.asarray(trajectory.rewards, np.float64), np.asarray(trajectory.ended)
    assert trajectory.terminated.any(), "one episode terminates"
    assert trajectory.truncated.any(), "another is cut"
    running, seen = np.zeros(2), []
    for reward, end in zip(rewards, ended, strict=True):
        running = 0.5 * running + reward
        seen.append(running)
        running = np.where(end, 0.0, running)
    new, _ = improve(update, learner, trajectory)
    np.testing.assert_allclose(new.reward_scale.running_return, running, rtol=1e-5)
    np.testing.assert_allclose(new.reward_scale.moments.variance, np.var(seen), rtol=1e-5)


BEFORE_TERMINATION = float(np.mean([(1 - 0.9**k) / (1 - 0.9) for k in range(1, 6)]))
"""The mean discounted return over the five steps of an episode, which all look alike."""


@pytest.mark.parametrize(("time_limit", "value"), [(True, 1 / (1 - 0.9)), (False, BEFORE_TERMINATION)])
def test_a_constant_reward_of_1_under_a_time_limit_is_worth_1_over_1_minus_gamma(
    time_limit: bool, value: float
) -> None:
    probe = Probe(one, length=5, time_limit=time_limit)
    agent = jumar.PPO(
        probe, n_envs=4, n_steps=20, batch_size=80, net_arch=(8,), gamma=0.9, gae_lambda=1.0, learning_rate=0.02
    )
    agent.learn(80 * 60)
    training = agent._training
    critic, parameters = vars(training.update)["critic"], training.learner.parameters["critic"]
    observation = {"vector": jnp.ones((1, 1, 1))}
    values, _, _ = critic.values(parameters, observation, observation, (), jnp.zeros((1, 1), bool))
    assert float(values[0, 0]) == pytest.approx(value, rel=0.03)


ROWS = 6
RESET_ROWS = [2, 6]
"""Where the NEXT_STEP version of the experience below has rows that are none."""


def with_reset_rows(trajectory: Any, fill: float) -> Any:
    """Return the experience of one environment as NEXT_STEP gives it: a row more after every end, filled with ``fill``."""

    def insert(x: Any) -> Any:
        for row in RESET_ROWS:
            x = np.insert(x, row, np.asarray(fill).astype(x.dtype), axis=0)
        return x

    longer = jax.tree.map(insert, jax.device_get(trajectory._replace(carry=(), critic_carry=())))
    valid = np.ones((ROWS + len(RESET_ROWS), 1), bool)
    valid[RESET_ROWS] = False
    starts = longer.episode_start.copy()
    starts[RESET_ROWS] = True
    never = np.where(valid, longer.terminated, False), np.where(valid, longer.truncated, False)
    return longer._replace(
        valid=valid,
        episode_start=starts,
        terminated=never[0],
        truncated=never[1],
        carry=trajectory.carry,
        critic_carry=trajectory.critic_carry,
    )


def one_environment(**settings: Any) -> tuple[OnPolicy, Any, Any]:
    """Return an update, its learner, and six rows of one environment: one episode of 2 rows, one of 3, and a row."""
    update = make_update(n_envs=1, n_steps=ROWS, batch_size=ROWS, **settings)
    learner = first_learner(update, 1)
    terminated, truncated = np.zeros((ROWS, 1), bool), np.zeros((ROWS, 1), bool)
    terminated[1], truncated[4] = True, True
    starts = np.array([1, 0, 1, 0, 0, 1], bool)[:, None]
    changes = {"terminated": terminated, "truncated": truncated, "episode_start": starts}
    return update, learner, experience(update, learner, ROWS, 1, **jax.tree.map(jnp.asarray, changes))


def with_longer_rollouts(settings: dict[str, Any]) -> OnPolicy:
    n_steps = ROWS + len(RESET_ROWS)
    return make_update(n_envs=1, n_steps=n_steps, batch_size=n_steps, **settings)


PLAIN = {
    "normalize_observations": True,
    "normalize_rewards": True,
    "ent_coef": 0.01,
    "gamma": 0.9,
    "clip_range_vf": 0.1,
    "n_epochs": 2,
    "learning_rate": 0.01,
}
RECURRENT = {**PLAIN, "recurrent": "gru", "recurrent_size": 4}


@pytest.mark.parametrize("settings", [PLAIN, RECURRENT], ids=["plain", "recurrent"])
def test_next_step_and_same_step_environments_give_the_same_update(settings: dict[str, Any]) -> None:
    update, learner, same_step = one_environment(**settings)
    new, record = improve(update, learner, same_step)
    new_longer, record_longer = improve(with_longer_rollouts(settings), learner, with_reset_rows(same_step, 0.0))
    np.testing.assert_allclose(flat(new), flat(new_longer), rtol=2e-5, atol=2e-6)
    for name in record:
        np.testing.assert_allclose(record_longer[name], record[name], rtol=1e-3, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("settings", [PLAIN, RECURRENT], ids=["plain", "recurrent"])
def test_rows_that_are_no_experience_have_no_influence_at_all(settings: dict[str, Any]) -> None:
    _, learner, same_step = one_environment(**settings)
    update = with_longer_rollouts(settings)
    clean, poisoned = (improve(update, learner, with_reset_rows(same_step, fill)) for fill in (0.0, 1e6))
    np.testing.assert_array_equal(flat(clean[0]), flat(poisoned[0]))
    for name, value in clean[1].items():
        np.testing.assert_array_equal(value, poisoned[1][name], err_msg=name)


def test_box_actions_are_stored_unclipped_with_the_log_probability_of_what_was_drawn() -> None:
    acted, record, _ = collect(**WIDE)[0]
    trajectory = record["trajectory"]
    assert np.abs(trajectory.actions).max() > 2.0, "the Box ends at 2"
    means = np.stack(
        [distribution.mode() for distribution in acting_distributions(pendulum_update(**WIDE), acted, trajectory)]
    )
    z = (trajectory.actions - means) / np.exp(2.0)
    expected = (-0.5 * z**2 - 2.0 - 0.5 * np.log(2 * np.pi)).sum(-1)
    np.testing.assert_allclose(trajectory.log_probs, expected, rtol=1e-4)


def test_value_clipping_takes_the_larger_of_the_clipped_and_the_unclipped_loss() -> None:
    loss = ClippedSquaredError(Constant(0.5))
    values, old, targets = jnp.array([2.0, 0.2, -2.0]), jnp.zeros(3), jnp.array([3.0, 1.0, 3.0])
    # Unclipped (2-3)^2, (0.2-1)^2, (-2-3)^2; clipped (0.5-3)^2, (0.2-1)^2, (-0.5-3)^2.
    np.testing.assert_allclose(loss(values, old, targets, jnp.float32(1.0)), [6.25, 0.64, 25.0], rtol=1e-6)
    slopes = jax.grad(lambda v: loss(v, old, targets, jnp.float32(1.0)).sum())(values)
    # Moved too far towards the target: no gradient. Moved away from it: the whole one.
    np.testing.assert_allclose(slopes, [0.0, -1.6, -10.0], rtol=1e-6)


def test_early_stop_on_kl_is_checked_before_the_step_and_leaves_all_epochs() -> None:
    """Adam's first step moves no number by more than the learning rate; a second one would go beyond."""
    update = make_update(target_kl=1e-6, batch_size=4, n_epochs=3, learning_rate=0.05)
    learner = first_learner(update)
    new, record = improve(update, learner, experience(update, learner))
    assert record["gradient_steps"] == 1.0
    assert record["stopped_early"] == 1.0
    moves = np.abs(flat(new.parameters) - flat(learner.parameters))
    assert 0.049 < moves.max() <= 0.05001
    assert record["approx_kl"] > 1.5e-6, "the minibatch that stopped it is reported"


def test_the_gradient_is_clipped_by_one_norm_over_actor_and_critic_together() -> None:
    update = make_update()
    learner = first_learner(update)
    trajectory = experience(update, learner)

    def step(max_grad_norm: float | None) -> tuple[np.ndarray, np.ndarray]:
        plain = replace(
            update, solver=Joint(Epochs(Optimiser(Constant(1.0), optax.identity(), max_grad_norm), 1, 1), vf_coef=3.0)
        )
        new, _ = improve(plain, learner._replace(solver=plain.solver.init(learner.parameters)), trajectory)
        before, after = learner.parameters, new.parameters
        return tuple(flat(after[part]) - flat(before[part]) for part in ("policy", "critic"))  # type: ignore[return-value]

    actor, critic = step(None)
    norm = np.hypot(np.linalg.norm(actor), np.linalg.norm(critic))
    assert norm > 0.5, "there is something to clip"
    clipped_actor, clipped_critic = step(0.5)
    np.testing.assert_allclose(clipped_actor, actor * 0.5 / norm, atol=1e-6)
    np.testing.assert_allclose(clipped_critic, critic * 0.5 / norm, atol=1e-6)


@pytest.mark.parametrize("space", [CHOICES, CONTINUOUS], ids=str)
def test_the_gradient_of_the_entropy_bonus_reaches_the_policy(space: spaces.Space) -> None:
    update = make_update(BOX, space, ent_coef=0.1, ortho_init=False)
    # Rewards and values of zero: the entropy bonus is all that is left.
    learner = without_values(first_learner(update))
    trajectory = experience(update, learner, rewards=jnp.zeros((8, 2)))
    new, _ = improve(update, learner, trajectory)
    batch = update.batch(learner, trajectory)
    before, after = (update.policy.evaluate(x.parameters["policy"], batch).entropy().mean() for x in (learner, new))
    assert after > before


def without_values(learner: Any) -> Any:
    """Return a learner whose critic says 0 everywhere."""
    nothing = jax.tree.map(jnp.zeros_like, learner.parameters["critic"])
    return learner._replace(parameters={**learner.parameters, "critic": nothing})


@pytest.mark.parametrize("case", ["zero advantages", "single step", "one action", "constant advantages"])
def test_degenerate_batches_give_no_nan(case: str) -> None:
    small: dict[str, Any] = {"n_envs": 1, "n_steps": 1, "batch_size": 1} if case == "single step" else {}
    update = make_update(BOX, spaces.Discrete(1) if case == "one action" else CONTINUOUS, n_epochs=2, **small)
    learner = first_learner(update, small.get("n_envs", 2))
    if "advantages" in case:
        # With V = 0 everywhere, the reward of a step that ends its episode is its advantage.
        learner = without_values(learner)
        constant = 0.0 if case == "zero advantages" else 3.0
        changes: dict[str, Any] = {"rewards": jnp.full((8, 2), constant), "terminated": jnp.ones((8, 2), bool)}
        trajectory = experience(update, learner, **changes)
    else:
        trajectory = experience(update, learner, small.get("n_steps", 8), small.get("n_envs", 2))
    new, record = improve(update, learner, trajectory)
    assert record["finite"]
    assert all(np.isfinite(x) for x in record.values())
    assert np.isfinite(flat(new)).all()
    if "advantages" in case:
        np.testing.assert_array_equal(flat(new.parameters["policy"]), flat(learner.parameters["policy"]))


def test_recomputed_advantages_change_the_second_epoch_and_nothing_else() -> None:
    def parameters(n_epochs: int, recompute: bool) -> np.ndarray:
        update = make_update(n_epochs=n_epochs, recompute_advantages=recompute, learning_rate=0.01)
        learner = first_learner(update)
        return flat(improve(update, learner, experience(update, learner))[0].parameters)

    np.testing.assert_allclose(parameters(1, True), parameters(1, False), atol=1e-7)
    assert np.abs(parameters(2, True) - parameters(2, False)).max() > 1e-5


def test_the_reported_kl_is_that_of_the_old_policy_to_the_new_one() -> None:
    update = make_update(BOX, CONTINUOUS, learning_rate=0.03, n_epochs=6)
    learner = first_learner(update)
    trajectory = experience(update, learner)
    new, record = improve(update, learner, trajectory)
    batch = update.batch(learner, trajectory)
    old, late = (update.policy.evaluate(x.parameters["policy"], batch) for x in (learner, new))
    m, s, n, u = (np.asarray(x, np.float64) for x in (old.mean, old.std, late.mean, late.std))  # type: ignore[attr-defined]
    kl = (np.log(u / s) + (s**2 + (m - n) ** 2) / (2 * u**2) - 0.5).sum(-1)
    reverse = (np.log(s / u) + (u**2 + (m - n) ** 2) / (2 * s**2) - 0.5).sum(-1)
    assert record["mean_kl"] == pytest.approx(kl.mean(), rel=1e-4)
    assert record["max_kl"] == pytest.approx(kl.max(), rel=1e-4)
    assert abs(kl.mean() - reverse.mean()) > 0.01 * kl.mean(), "the direction can be told"


def test_the_kl_of_later_epochs_is_measured_to_the_behaviour_policy() -> None:
    """Not to the policy of the minibatch before: with one minibatch an epoch, the last sampled KL is that of the whole way."""
    update = make_update(BOX, CONTINUOUS, learning_rate=0.03, n_epochs=6)
    learner = first_learner(update)
    trajectory = experience(update, learner)
    _, record = improve(update, learner, trajectory)
    almost, _ = improve(make_update(BOX, CONTINUOUS, n_epochs=5, learning_rate=0.03), learner, trajectory)
    batch = update.batch(learner, trajectory)
    log_probs = update.policy.evaluate(almost.parameters["policy"], batch).log_prob(batch.actions)
    difference = np.asarray(log_probs - batch.log_probs, np.float64)
    assert record["approx_kl"] == pytest.approx((np.exp(difference) - 1 - difference).mean(), rel=1e-3)
