"""EnvPool: its NEXT_STEP rows, seeds, spaces and settings, and its XLA calls."""

from __future__ import annotations

import numpy as np
import pytest
from gymnasium import spaces
from test_host import cart_pole_errors

from jumar.envs import pool
from jumar.envs.pool import EnvPoolEnvironments
from jumar.errors import EnvironmentFault, UsageError

pytest.importorskip("envpool")


def test_the_row_after_an_end_is_no_experience() -> None:
    envs = EnvPoolEnvironments("CartPole-v1", 2, {"max_episode_steps": 4})
    assert (envs.name, envs.episode_limit) == ("envpool/CartPole-v1", 4)
    envs.reset([0, 1])
    rows = [envs.step(np.array([0, step % 2])) for step in range(10)]
    for step, row in enumerate(rows, start=1):
        assert row.truncated.tolist() == [step % 5 == 4] * 2
        assert not row.terminated.any()
        assert row.valid.tolist() == [step % 5 != 0] * 2
        assert row.rewards.tolist() == [float(step % 5 != 0)] * 2
        assert row.successors is row.observations
        assert row.costs is None
        assert row.action_masks is None
    for _ in range(3):
        envs.step(np.array([0, 1]))
    assert envs.step(np.array([0, 1])).truncated.all()
    envs.reset([0, 1])
    assert envs.step(np.array([0, 0])).valid.all()


def test_valid_rows_are_true_transitions_and_the_others_are_not() -> None:
    envs = EnvPoolEnvironments("CartPole-v1", 2, {"max_episode_steps": 14})
    observations, _ = envs.reset([0, 1])
    terminated = truncated = 0
    for step in range(45):
        actions = np.array([1, step % 2])
        result = envs.step(actions)
        errors = cart_pole_errors(observations, actions, result)
        assert np.array_equal(errors < 1e-5, result.valid)
        terminated += int(result.terminated.sum())
        truncated += int(result.truncated.sum())
        observations = result.observations
    assert terminated >= 3
    assert truncated >= 2


def rollout(envs: EnvPoolEnvironments, seeds: list[int]) -> np.ndarray:
    observations, _ = envs.reset(seeds)
    steps = [envs.step(np.ones(len(seeds), int)).observations for _ in range(15)]
    return np.array([observations, *steps])


def test_the_same_seeds_give_the_same_streams_again() -> None:
    envs = EnvPoolEnvironments("CartPole-v1", 3)
    first = rollout(envs, [1, 2, 3])
    assert np.array_equal(first, rollout(envs, [1, 2, 3]))
    other = rollout(EnvPoolEnvironments("CartPole-v1", 2, num_threads=1), [9, 2])
    assert np.array_equal(first[:, 1], other[:, 1])
    assert not np.array_equal(first[:, 0], other[:, 0])
    rollout(envs, [2**40, 2, 3])  # larger than EnvPool's own seeds


def test_spaces_are_those_of_one_environment() -> None:
    lake = EnvPoolEnvironments("FrozenLake-v1", 2)
    observations, _ = lake.reset([0, 1])
    assert isinstance(lake.observation_space, spaces.Discrete)
    assert observations.shape == (2,)
    assert observations.dtype == lake.observation_space.dtype
    assert all(map(lake.observation_space.contains, lake.step(np.array([2, 1])).observations))
    grid = EnvPoolEnvironments("MiniGrid-Empty-5x5-v0", 2)
    observations, _ = grid.reset([0, 1])
    assert isinstance(grid.observation_space, spaces.Dict)
    assert observations["image"].shape == (2, 7, 7, 3)
    assert observations["direction"].shape == (2,)


def test_double_precision_observations_and_infos_are_kept() -> None:
    envs = EnvPoolEnvironments("HalfCheetah-v4", 2)
    assert envs.episode_limit == 1000
    observations, _ = envs.reset([0, 1])
    assert observations.dtype == np.float64
    result = envs.step(np.full((2, 6), 0.5, np.float32))
    assert result.rewards.dtype == np.float32
    assert envs.last_info["x_velocity"].shape == (2,)


@pytest.mark.parametrize(
    ("actions", "words"),
    [
        ([0, 2], r"environment 1 of envpool/CartPole-v1 was given a bad action at step 1: it is 2"),
        ([0], r"envpool/CartPole-v1 was given a bad action at step 1: actions of shape \(1,\) instead of \(2,\)"),
    ],
)
def test_actions_that_envpool_itself_would_accept_are_refused(actions: list[int], words: str) -> None:
    envs = EnvPoolEnvironments("CartPole-v1", 2)
    envs.reset([0, 1])
    with pytest.raises(EnvironmentFault, match=words):
        envs.step(np.array(actions))


def test_a_nan_action_does_not_reach_the_simulator() -> None:
    envs = EnvPoolEnvironments("Pendulum-v1", 2)
    envs.reset([0, 1])
    with pytest.raises(EnvironmentFault, match=r"environment 1 of envpool/Pendulum-v1 .* \[0\] is nan"):
        envs.step(np.array([[0.0], [np.nan]]))


@pytest.mark.parametrize(
    ("name", "kwargs", "words"),
    [
        ("CartPole-v7", {}, "unknown EnvPool environment 'CartPole-v7'; did you mean CartPole-v"),
        ("CartPole-v1", {"max_steps": 3}, "unknown setting of envpool/CartPole-v1 'max_steps'"),
        ("CartPole-v1", {"num_envs": 3}, "unknown setting of envpool/CartPole-v1 'num_envs'"),
        ("CartPole-v1", {"max_episode_steps": -1}, "max_episode_steps=-1 of envpool/CartPole-v1 must be at least 1"),
        ("CartPole-v1", {"max_episode_steps": 0}, "max_episode_steps=0 of envpool/CartPole-v1 must be at least 1"),
        (
            "Pong-v5",
            {"repeat_action_probability": 5.0},
            "repeat_action_probability=5.0 of envpool/Pong-v5 must be a number",
        ),
        ("CartPole-v1", {"max_episode_steps": "x"}, r"does not take max_episode_steps='x' \(default 500\)"),
    ],
)
def test_what_envpool_does_not_have_is_refused(name: str, kwargs: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        EnvPoolEnvironments(name, 2, kwargs)


def test_ids_are_known_only_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert pool.available("HalfCheetah-v5")
    assert not pool.available("HalfCheetah")
    monkeypatch.setattr(pool.importlib.util, "find_spec", lambda name: None)
    assert not pool.available("HalfCheetah-v5")
    assert pool.ids() == []
    with pytest.raises(UsageError, match=r"EnvPool is not installed: pip install 'jumar\[envpool\]'"):
        EnvPoolEnvironments("HalfCheetah-v5", 2)


def test_steps_inside_a_compiled_program_are_the_same() -> None:
    import jax
    import jax.numpy as jnp

    envs = EnvPoolEnvironments("HalfCheetah-v4", 2)
    with pytest.raises(UsageError, match="must be reset"):
        envs.xla()
    actions = np.random.default_rng(0).uniform(-1, 1, (6, 2, 6)).astype(np.float32)
    for _ in range(2):  # a second time: reset has built a new pool
        envs.reset([0, 1])
        expected = [envs.step(action) for action in actions]
        envs.reset([0, 1])
        with jax.enable_x64(True):
            handle, step = envs.xla()

            def collect(handle, actions, step=step):
                def body(handle, action):
                    handle, (observations, rewards, _, _, _) = step(handle, action)
                    return handle, (observations, rewards)

                return jax.lax.scan(body, handle, actions)

            _, (observations, rewards) = jax.jit(collect)(handle, jnp.asarray(actions))
            assert np.array_equal(observations, [row.observations for row in expected])
            assert np.array_equal(rewards, [row.rewards for row in expected])
