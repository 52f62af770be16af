"""Whole trainings of off-policy methods: identities between them, what changes no result, and how many updates there are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiling import nothing_compiled
from gymnasium import spaces
from jax.flatten_util import ravel_pytree
from probes import Probe, random_sign
from replays import LOPSIDED

import jumar
from jumar.collecting.stopping import Abandoned, Pace
from jumar.errors import UsageError

SETTINGS: dict[str, Any] = {
    "net_arch": (8,),
    "batch_size": 8,
    "buffer_size": 31,
    "learning_starts": 6,
    "log_every": 12,
    "action_noise": "normal:0.3",
}


def reward(observation: jax.Array, action: jax.Array, time: jax.Array) -> jax.Array:
    return observation[0] * action[0]  # a product alone, which no program rounds otherwise than another


COMPILED = Probe(reward, random_sign, length=5, time_limit=True, action_space=LOPSIDED)


class Host(gym.Env[np.ndarray, np.ndarray]):
    """A host environment with episodes of 3, 4, 5, 3, ... steps, the second of which is cut."""

    observation_space = spaces.Box(-10.0, 10.0, (1,), np.float32)
    action_space = LOPSIDED

    def __init__(self) -> None:
        self.given: list[np.ndarray] = []
        self._episode = -1

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self._episode, self._time = self._episode + 1, 0
        return self._observation(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.given.append(np.array(action))
        self._time += 1
        over, cut = self._time == 3 + self._episode % 3, self._episode % 3 == 1
        return self._observation(), float(action[0]), over and not cut, over and cut, {}

    def _observation(self) -> np.ndarray:
        return self.np_random.normal(size=1).astype(np.float32)


def trained(method: type[Any], env: Any = COMPILED, total: int = 36, seed: int = 0, **settings: Any) -> Any:
    return method(env, seed=seed, **{**SETTINGS, **settings}).learn(total)


def numbers(agent: Any) -> np.ndarray:
    """Return all parameters and the optimisers' states."""
    learner = agent._training.learner
    return np.asarray(ravel_pytree((learner.parameters, learner.solver))[0], np.float64)


def told(method: type[Any], env: Any, total: int, name: str, **settings: Any) -> list[Any]:
    """Train, and return a metric of each line of the log."""
    found: list[Any] = []
    agent = method(env, **{**SETTINGS, **settings})
    agent.learn(total, callback=lambda metrics: found.append(metrics.get(name)))
    return found


# -- identities -------------------------------------------------------------------------------------------------------


def test_td3_without_its_three_changes_is_ddpg_to_the_bit() -> None:
    off = {"n_critics": 1, "policy_delay": 1, "target_update_interval": 1, "target_policy_noise": 0.0}
    np.testing.assert_array_equal(numbers(trained(jumar.TD3, **off)), numbers(trained(jumar.DDPG)))


@pytest.mark.parametrize(
    "env", [pytest.param(COMPILED, marks=pytest.mark.slow, id="compiled"), pytest.param(Host, id="host")]
)
def test_the_length_of_a_line_of_the_log_changes_no_result(env: Any) -> None:
    """Lines of 12 steps, of 3 and of 1: rows lie in fresh slots or in the ring, and in rings of other sizes."""
    short, middle, long = (numbers(trained(jumar.SAC, env, log_every=n)) for n in (1, 3, 12))
    np.testing.assert_array_equal(short, middle)
    np.testing.assert_array_equal(short, long)


@pytest.mark.parametrize("env", [COMPILED, Host], ids=["compiled", "host"])
def test_an_iteration_that_was_given_up_can_be_done_again(env: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Pace, "GROWTH", 1)
    given_up, other = trained(jumar.SAC, env), trained(jumar.SAC, env)
    asked = iter((False, False, False, True))
    with pytest.raises(Abandoned):
        given_up._training.iterate(lambda: next(asked))
    assert given_up._training.steps == other._training.steps
    for agent in (given_up, other):
        agent._training.restart()  # environments on the host have gone on
        agent._training.iterate()
    np.testing.assert_array_equal(numbers(given_up), numbers(other))


def test_minus_one_gradient_steps_are_one_for_each_step_and_one_program() -> None:
    for train_freq in (1, 4):
        explicit = trained(jumar.DDPG, train_freq=train_freq, gradient_steps=train_freq)
        agent = trained(jumar.DDPG, train_freq=train_freq, gradient_steps=-1)
        np.testing.assert_array_equal(numbers(agent), numbers(explicit))
        with nothing_compiled():
            agent._training.iterate()


def test_seeds_that_share_a_program_are_the_single_runs_to_rounding() -> None:
    """The delayed policy and its targets too, and the memory beyond its capacity."""
    together = trained(jumar.TD3, n_seeds=2, total=48)._training.learner
    for lane in range(2):
        alone = trained(jumar.TD3, seed=lane, total=48)._training.learner
        for name in ("policy", "critic", "target"):
            mine = ravel_pytree(jax.tree.map(lambda x, lane=lane: x[lane], together.parameters[name]))[0]
            np.testing.assert_allclose(mine, ravel_pytree(alone.parameters[name])[0], atol=2e-4, err_msg=name)
        assert int(together.clock.updates) == int(alone.clock.updates) > 0


# -- how many updates -------------------------------------------------------------------------------------------------


def test_updates_are_counted_by_steps_of_all_environments_and_begin_after_learning_starts() -> None:
    """Eight environments: no update while there are at most 16 steps, then eight a round, and no burst of missed ones."""
    counts = told(jumar.DDPG, COMPILED, 40, "train/n_updates", n_envs=8, learning_starts=16, log_every=8)
    assert counts == [0, 0, 8, 16, 24]


def test_nothing_moves_before_learning_starts() -> None:
    agent = jumar.SAC(COMPILED, **{**SETTINGS, "learning_starts": 12})
    before = numbers(agent)
    agent.learn(12)
    np.testing.assert_array_equal(numbers(agent), before)
    agent.learn(12)
    assert np.any(numbers(agent) != before)


@pytest.mark.parametrize(
    ("settings", "counts"),
    [
        ({"train_freq": 6, "gradient_steps": 2}, [2, 6, 10]),
        ({"train_freq": 5, "gradient_steps": 1, "n_envs": 2}, [2, 4, 7]),
        ({"train_freq": 5, "gradient_steps": -1, "n_envs": 2}, [12, 24, 36]),
    ],
)
def test_updates_over_steps_are_what_the_settings_say(settings: dict[str, Any], counts: list[int]) -> None:
    """Steps that are left over when updates are due count for the next ones: of 12, 24, 36 steps with one in five 2, 4, 7.

    With -1 there are as many updates as steps.
    """
    settings = {**settings, "learning_starts": 6 if "n_envs" not in settings else 0}
    assert told(jumar.DDPG, COMPILED, 36, "train/n_updates", **settings) == counts


def test_updates_after_each_episode_are_as_many_as_it_had_steps_in_one_program() -> None:
    """Episodes of 3, 4, 5, 3, ... steps; of 6 random steps none teaches, as learning starts with the episode after them."""
    settings = {"train_freq": "1:episodes", "gradient_steps": -1, "log_every": 1}
    counts = told(jumar.DDPG, Host, 15, "train/n_updates", **settings)
    assert counts == [0] * 6 + [4] * 5 + [9] * 3 + [12]
    agent = trained(jumar.DDPG, Host, **settings)
    with nothing_compiled():
        for _ in range(12):
            agent._training.iterate()


def test_episodes_between_updates_need_a_host_environment() -> None:
    with pytest.raises(UsageError, match="train_freq counts episodes, which needs a host environment"):
        jumar.SAC(COMPILED, train_freq="1:episodes")


def test_a_discrete_environment_names_ppo() -> None:
    for method in (jumar.DPG, jumar.DDPG, jumar.TD3):
        with pytest.raises(UsageError, match="needs a Box action space, and this one is one of 2; ppo takes"):
            method("jax/CartPole-v1")


# -- what is remembered -----------------------------------------------------------------------------------------------


def test_a_host_environment_is_given_the_very_actions_that_are_remembered() -> None:
    env = Host()
    agent = trained(jumar.SAC, env, total=24)
    training = agent._training
    update, learner = training.update, training.learner
    ring, cursor = training.held.memory, learner.clock.cursor
    size = int(cursor.filled)
    order = (int(cursor.place) - size + np.arange(size)) % update.replay.places
    actions = np.asarray(ring["rows"])[order, 1:3]
    assert size == 24
    np.testing.assert_array_equal(actions, np.array(env.given[-size:], np.float32))


# -- values that are known --------------------------------------------------------------------------------------------

VALUES: dict[str, Any] = {
    "net_arch": (16,),
    "batch_size": 32,
    "buffer_size": 97,
    "learning_starts": 30,
    "learning_rate": 0.01,
    "gamma": 0.9,
    "tau": 0.5,
    "n_envs": 3,
    "log_every": 300,
    "action_noise": "normal:1.0",
}


def q_of(agent: Any) -> np.ndarray:
    """Return Q of all critics at observation 1 and some actions."""
    training = agent._training
    update, learner = training.update, training.learner
    features = update.policy.encoder.encode(jnp.ones((5, 1)), learner.observation_moments)
    actions = jnp.linspace(-1.0, 1.0, 5)[:, None]
    return np.asarray(
        update.critic.apply(learner.parameters["critic"], (), features, actions, jax.random.PRNGKey(0), False)[0]
    )


def one(observation: jax.Array, action: jax.Array, time: jax.Array) -> jax.Array:
    return jnp.ones(())


def of_reward(time_limit: bool, length: int) -> Probe:
    return Probe(one, length=length, time_limit=time_limit, action_space=spaces.Box(-1.0, 1.0, (1,), np.float32))


@pytest.mark.parametrize("method", [jumar.DDPG, jumar.TD3])
def test_a_reward_of_one_is_worth_one_over_one_minus_gamma_under_time_limits(method: Callable[..., Any]) -> None:
    agent = method(of_reward(True, 5), **VALUES).learn(1800)
    np.testing.assert_allclose(q_of(agent), 10.0, rtol=0.05)


def test_a_reward_of_one_is_worth_its_reward_where_the_episode_terminates() -> None:
    """Episodes of one step: without a future Q is 1; in SAC as well, whatever entropy is worth."""
    agent = jumar.SAC(of_reward(False, 1), **VALUES).learn(900)
    np.testing.assert_allclose(q_of(agent), 1.0, atol=0.05)


def test_returns_of_several_steps_have_the_same_value() -> None:
    agent = jumar.DDPG(of_reward(True, 5), **{**VALUES, "n_steps": 3}).learn(1500)
    np.testing.assert_allclose(q_of(agent), 10.0, rtol=0.05)


def test_an_untrained_critic_underestimates_by_what_the_rewards_are_worth() -> None:
    """With updates that never come, Q is near 0 and the overestimation is minus the mean return of five steps."""
    settings = {**VALUES, "learning_starts": 10**6, "gamma": 1.0}
    found = told(jumar.DDPG, of_reward(False, 5), 300, "train/q_overestimation", **settings)
    q = q_of(jumar.DDPG(of_reward(False, 5), **{**SETTINGS, **settings}))
    assert found[0] == pytest.approx(float(q.mean()) - 3.0, abs=float(np.ptp(q)) + 1e-3)
