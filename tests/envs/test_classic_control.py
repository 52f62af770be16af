"""Jumar's classic control tasks against Gymnasium's own, step for step."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jumar.envs.classic_control import ENVIRONMENTS
from jumar.envs.compiled_check import check_compiled_environment
from jumar.errors import UsageError
from jumar.policies.actions import narrow_dtype

LIMITS = {
    "CartPole-v1": 500,
    "Acrobot-v1": 500,
    "MountainCar-v0": 200,
    "MountainCarContinuous-v0": 999,
    "Pendulum-v1": 200,
}
NAMES = sorted(ENVIRONMENTS)
KEY = jax.random.PRNGKey(0)


class Rollout(NamedTuple):
    """What Gymnasium did: states before and after each step, actions, and what each step returned."""

    before: np.ndarray
    actions: np.ndarray
    after: np.ndarray
    observations: np.ndarray
    rewards: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray


def gymnasium_rollout(name: str, seed: int, steps: int, act: Any, kwargs: dict[str, Any] | None = None) -> Rollout:
    """Step Gymnasium's environment, resetting where an episode ends; states as float64."""
    env = gymnasium.make(name, disable_env_checker=True, **(kwargs or {}))
    inner: Any = env.unwrapped
    rng = np.random.default_rng(seed)
    env.reset(seed=seed)
    rows = []
    for _ in range(steps):
        before = np.array(inner.state, np.float64)
        action = act(rng, before)
        observation, reward, terminated, truncated, _ = env.step(action)
        after = np.array(inner.state, np.float64)
        rows.append((before, action, after, observation, reward, terminated, truncated))
        if terminated or truncated:
            env.reset()
    return Rollout(*(np.array(column) for column in zip(*rows, strict=True)))


def random_action(name: str, dtype: Any = np.float32) -> Any:
    """A random policy; for Box spaces with actions beyond the bounds too."""
    space = gymnasium.make(name).action_space
    if isinstance(space, gymnasium.spaces.Box):
        return lambda rng, state: (rng.normal(size=space.shape) * 1.5 * space.high).astype(dtype)
    return lambda rng, state: int(rng.integers(space.n))  # type: ignore[attr-defined]


def balance(rng: np.random.Generator, state: np.ndarray) -> int:
    """Keep the cart-pole up, so that its rollout is long."""
    return int(state[2] + 0.3 * state[3] + 0.05 * state[1] + 0.02 * rng.normal() > 0)


def pump(rng: np.random.Generator, state: np.ndarray) -> int:
    """Push along the velocity: the mountain car arrives, the acrobot swings up."""
    return 2 if state[-1] > 0 else 0


def pump_continuous(rng: np.random.Generator, state: np.ndarray) -> np.ndarray:
    return np.array([np.sign(state[1]) * 0.9 + 0.1 * rng.normal()], np.float32)


def swing_acrobot(rng: np.random.Generator, state: np.ndarray) -> int:
    return 0 if state[2] > 0 else 2


POLICIES = {
    "CartPole-v1": [balance],
    "Acrobot-v1": [swing_acrobot],
    "MountainCar-v0": [pump],
    "MountainCarContinuous-v0": [pump_continuous],
    "Pendulum-v1": [],
}


def state_of(env: Any, values: np.ndarray, dtype: Any) -> Any:
    """Make a batch of our states from Gymnasium's (rows, numbers)."""
    kind = type(env.reset(KEY, env.params)[0])
    columns = [jnp.asarray(column, dtype) for column in np.moveaxis(values, -1, 0)]
    return kind(*columns, jnp.zeros(values.shape[:-1], jnp.int32))


def step_all(env: Any, states: Any, actions: np.ndarray) -> Any:
    keys = jnp.broadcast_to(KEY, (len(actions), 2))
    step = jax.jit(jax.vmap(lambda key, state, action: env.step(key, state, action, env.params)))
    return step(keys, states, jnp.asarray(actions, jnp.int32 if actions.dtype.kind == "i" else jnp.float32))


def assert_one_steps_equal(env: Any, rollout: Rollout) -> None:
    states = state_of(env, rollout.before, jnp.float32)
    _, observation, reward, terminated, _, _ = step_all(env, states, rollout.actions)
    assert observation.dtype == jnp.float32
    assert reward.dtype == jnp.float32
    np.testing.assert_allclose(observation, rollout.observations, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(reward, rollout.rewards, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(terminated, rollout.terminated)


@pytest.mark.parametrize("name", NAMES)
def test_each_step_equals_gymnasiums(name: str) -> None:
    env = ENVIRONMENTS[name]()
    rollouts = [gymnasium_rollout(name, seed, 400, random_action(name)) for seed in range(3)]
    rollouts += [gymnasium_rollout(name, 10, 1200, policy) for policy in POLICIES[name]]
    rollout = Rollout(*(np.concatenate(column) for column in zip(*rollouts, strict=True)))
    assert_one_steps_equal(env, rollout)
    if name != "Pendulum-v1":  # the comparison of `terminated` saw both outcomes
        assert 0 < rollout.terminated.sum() < len(rollout.terminated)


@pytest.mark.parametrize(
    ("name", "kwargs"),
    [
        ("CartPole-v1", {"sutton_barto_reward": True}),
        ("MountainCar-v0", {"goal_velocity": 0.03}),
        ("MountainCarContinuous-v0", {"goal_velocity": 0.06}),
        ("Pendulum-v1", {"g": 9.81}),
    ],
)
def test_arguments_mean_what_they_mean_in_gymnasium(name: str, kwargs: dict[str, Any]) -> None:
    policy = POLICIES[name][0] if name.startswith("Mountain") else random_action(name)
    rollout = gymnasium_rollout(name, 3, 600, policy, kwargs)
    assert_one_steps_equal(ENVIRONMENTS[name](**kwargs), rollout)
    env = ENVIRONMENTS[name]()
    default = step_all(env, state_of(env, rollout.before, jnp.float32), rollout.actions)
    if name == "CartPole-v1":
        assert not np.allclose(default[2], rollout.rewards)
    elif name == "Pendulum-v1":
        assert not np.allclose(default[1], rollout.observations, atol=1e-5)
    else:
        assert not np.array_equal(default[3], rollout.terminated)


@functools.cache
def episode_program(env: Any) -> Any:
    """Compile once for all episodes of one length."""

    def body(state: Any, action: jax.Array) -> tuple[Any, Any]:
        state, _, reward, terminated, truncated, _ = env.step(KEY, state, action, env.params)
        return state, (jnp.stack(state[:-1]), reward, terminated, truncated)

    return jax.jit(lambda state, actions: jax.lax.scan(body, state, actions)[1])


def scan_episode(env: Any, start: np.ndarray, actions: np.ndarray, dtype: Any) -> tuple[Any, ...]:
    """Step from one state on, with no reset; return all states, rewards, terminated, truncated."""
    scan = episode_program(env)
    return scan(state_of(env, start, dtype), jnp.asarray(actions, jnp.int32 if actions.dtype.kind == "i" else dtype))


def first_episode(rollout: Rollout) -> Rollout:
    ends = np.flatnonzero(rollout.terminated | rollout.truncated)
    return Rollout(*(column[: ends[0] + 1] for column in rollout))


@pytest.mark.parametrize(
    ("name", "policy", "steps"),
    [
        ("CartPole-v1", random_action("CartPole-v1"), 500),
        # An upright pole is unstable: under fixed actions rounding grows e-fold in a quarter of a second (12 steps).
        ("CartPole-v1", balance, 150),
        # So is the acrobot once it swings high, hence the cut.
        ("Acrobot-v1", random_action("Acrobot-v1"), 100),
        ("MountainCar-v0", pump, 200),
        # Gymnasium computes the torque's part in the action's own precision.
        ("Pendulum-v1", random_action("Pendulum-v1", np.float64), 200),
    ],
)
def test_whole_rollouts_in_float64_equal_gymnasiums(name: str, policy: Any, steps: int) -> None:
    with jax.enable_x64(True):
        env = ENVIRONMENTS[name]()
        for seed in range(3):
            rollout = Rollout(*(c[:steps] for c in first_episode(gymnasium_rollout(name, seed, 500, policy))))
            states, rewards, terminated, _ = scan_episode(env, rollout.before[0], rollout.actions, jnp.float64)
            assert states.dtype == jnp.float64
            np.testing.assert_allclose(states, rollout.after, rtol=1e-9, atol=1e-9)
            np.testing.assert_allclose(rewards, rollout.rewards, rtol=1e-9, atol=1e-9)
            np.testing.assert_array_equal(terminated, rollout.terminated)


def test_whole_continuous_mountain_car_rollout_equals_gymnasiums() -> None:
    # Gymnasium rounds this task's state to float32 after every step, so float32 is what can be compared,
    # and rounding adds up over the 999 steps.
    env = ENVIRONMENTS["MountainCarContinuous-v0"]()
    for seed, policy in enumerate([random_action("MountainCarContinuous-v0"), pump_continuous]):
        rollout = first_episode(gymnasium_rollout("MountainCarContinuous-v0", seed, 1000, policy))
        states, rewards, terminated, truncated = scan_episode(env, rollout.before[0], rollout.actions, jnp.float32)
        np.testing.assert_allclose(states, rollout.after, atol=5e-5)
        np.testing.assert_allclose(rewards, rollout.rewards, rtol=1e-5, atol=1e-5)
        np.testing.assert_array_equal(terminated, rollout.terminated)
        np.testing.assert_array_equal(truncated, rollout.truncated)


@pytest.mark.parametrize("name", NAMES)
def test_spaces_and_limits_are_gymnasiums(name: str) -> None:
    env, reference = ENVIRONMENTS[name](), gymnasium.make(name)
    assert env.observation_space == reference.observation_space
    assert env.action_space == reference.action_space
    assert reference.spec is not None
    assert reference.spec.max_episode_steps == LIMITS[name]
    check_compiled_environment(env, name)


@pytest.mark.parametrize("name", NAMES)
def test_truncated_at_exactly_the_limit(name: str) -> None:
    for limit, env in ((LIMITS[name], ENVIRONMENTS[name]()), (7, ENVIRONMENTS[name](max_episode_steps=7))):
        state, _ = env.reset(KEY, env.params)
        for steps_taken, expected in ((limit - 2, False), (limit - 1, True)):
            late = state._replace(time=jnp.asarray(steps_taken, jnp.int32))
            action = jnp.zeros(env.action_space.shape or (), narrow_dtype(env.action_space.dtype))
            assert bool(env.step(KEY, late, action, env.params)[4]) is expected


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("CartPole-v1", [-0.05] * 4, [0.05] * 4),
        ("Acrobot-v1", [-0.1] * 4, [0.1] * 4),
        ("MountainCar-v0", [-0.6, 0.0], [-0.4, 0.0]),
        ("MountainCarContinuous-v0", [-0.6, 0.0], [-0.4, 0.0]),
        ("Pendulum-v1", [-np.pi, -1.0], [np.pi, 1.0]),
    ],
)
def test_initial_states_are_uniform_in_gymnasiums_ranges(name: str, low: list[float], high: list[float]) -> None:
    env = ENVIRONMENTS[name]()
    n = 20_000
    state, observation = jax.vmap(lambda key: env.reset(key, env.params))(jax.random.split(KEY, n))
    values = np.stack([np.asarray(column, np.float64) for column in state[:-1]], axis=-1)
    lows, widths = np.array(low), np.array(high) - np.array(low)
    assert np.all(values >= lows - 1e-6)
    assert np.all(values <= lows + widths + 1e-6)
    # Five standard errors of the mean and of the variance of a uniform variable.
    np.testing.assert_array_less(np.abs(values.mean(0) - lows - widths / 2), 5 * widths / np.sqrt(12 * n) + 1e-6)
    np.testing.assert_array_less(np.abs(values.var(0) - widths**2 / 12), 5 * widths**2 / np.sqrt(180 * n) + 1e-9)
    correlation = np.corrcoef(values[:, widths > 0].T) - np.eye(int((widths > 0).sum()))
    assert np.abs(correlation).max() < 0.05
    assert all(env.observation_space.contains(row) for row in np.asarray(observation[:20]))


def test_params_are_used_and_can_be_arrays_of_any_precision() -> None:
    env = ENVIRONMENTS["Pendulum-v1"]()
    state, _ = env.reset(KEY, env.params)
    action = jnp.zeros((1,), jnp.float32)
    weightless = env.params._replace(g=0.0)
    assert float(env.step(KEY, state, action, weightless)[0].theta_dot) == float(state.theta_dot)
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda value: jnp.asarray(value, jnp.float64), env.params)
        assert env.step(KEY, state, action, wide)[0].theta.dtype == jnp.float32


def test_environments_made_alike_are_equal_so_that_programs_are_shared() -> None:
    for make in ENVIRONMENTS.values():
        assert make() == make()
        assert hash(make()) == hash(make())
        assert make() != make(max_episode_steps=3)


@pytest.mark.parametrize(
    ("name", "kwargs", "words"),
    [
        ("CartPole-v1", {"max_episode_steps": 0}, "max_episode_steps=0 must be a whole number of at least 1"),
        ("CartPole-v1", {"sutton_barto_reward": "maybe"}, "sutton_barto_reward='maybe' must be true or false"),
        ("Pendulum-v1", {"g": float("nan")}, "g=nan must be a finite number"),
        ("MountainCar-v0", {"goal_velocity": "fast"}, "goal_velocity='fast' must be a finite number"),
    ],
)
def test_bad_arguments_are_refused(name: str, kwargs: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        ENVIRONMENTS[name](**kwargs)
