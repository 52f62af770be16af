"""Behaviours of off-policy methods: random actions at first, noise of each environment's own, and what is kept."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from gymnasium import spaces
from replays import BOX, HALF, LOPSIDED, LOW, make_update

from jumar.algorithms.registry import algorithm
from jumar.policies.actions import ActionCodec
from jumar.policies.exploration import (
    OU_DECAY,
    Acting,
    Exploring,
    NormalNoise,
    OrnsteinUhlenbeckNoise,
    Persistence,
    parse_noise,
)
from jumar.policies.policy import make_policy
from jumar.schedules import Constant, Linear

N = 4
FLOATS = spaces.Box(LOW.astype(np.float64), (LOW + 2.0 * HALF).astype(np.float64), dtype=np.float64)
INTEGERS = spaces.Box(np.array([-2, 0]), np.array([3, 1]), dtype=np.int32)


def behaviour(noise: str | None = None, space: Any = LOPSIDED, random_steps: int = 0, name: str = "ddpg") -> Exploring:
    policy = make_policy(BOX, space, algorithm(name).make_settings({"net_arch": (4,)}))
    return Exploring(policy, parse_noise(noise), random_steps)


def run(
    exploring: Exploring, n_steps: int, starts: Any = None, n: int = N, remaining: float = 1.0, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Act at observations that are 0, where the deterministic policy does nothing; return kept and given actions, and units."""
    policy = exploring.policy
    parameters = jax.tree.map(jnp.zeros_like, policy.init(jax.random.PRNGKey(1)))
    moments = policy.encoder.initial_moments()
    starts = jnp.zeros((n_steps, n), bool) if starts is None else jnp.asarray(starts)

    def row(state: Any, now: Any) -> Any:
        carry, steps = state
        acting = Acting(parameters, moments, steps, jnp.float32(remaining))
        acted = exploring.act(acting, jnp.zeros((n, 3)), carry, now[1], None, now[0])
        return (acted.carry, steps + n), (acted.kept, acted.given)

    @jax.jit
    def whole(key: Any) -> Any:
        noise = exploring.rollout_noise(jax.random.split(key, n_steps), n)
        first = exploring.begin_rollout(exploring.initial_carry(n)), jnp.zeros((), jnp.int32)
        return jax.lax.scan(row, first, (noise, starts))[1]

    kept, given = jax.device_get(whole(jax.random.PRNGKey(seed)))
    return kept, given, np.asarray(policy.actions.unit_of(kept))


def test_noise_is_of_the_size_that_the_setting_says_in_half_ranges() -> None:
    _, _, units = run(behaviour("normal:0.1"), 2000)
    np.testing.assert_allclose(units.std(axis=(0, 1)), 0.1, rtol=0.03)
    np.testing.assert_allclose(units.mean(axis=(0, 1)), 0.0, atol=0.005)


def test_environments_entries_and_steps_have_noise_of_their_own() -> None:
    _, _, units = run(behaviour("normal:0.1"), 2000)
    columns = units.reshape(2000, -1)
    apart = np.corrcoef(columns.T) - np.eye(columns.shape[1])
    assert np.abs(apart).max() < 0.1
    assert abs(np.corrcoef(columns[1:, 0], columns[:-1, 0])[0, 1]) < 0.1


def test_noise_with_a_schedule_shrinks_and_is_none_at_its_end() -> None:
    sizes = [run(behaviour("normal:linear:0.2"), 500, remaining=left)[2].std() for left in (1.0, 0.5, 0.0)]
    np.testing.assert_allclose(sizes, [0.2, 0.1, 0.0], rtol=0.05, atol=1e-7)


def test_noise_never_leaves_the_box_and_stays_at_its_bounds() -> None:
    _, given, units = run(behaviour("normal:3.0"), 200)
    assert all(LOPSIDED.contains(action) for action in given.reshape(-1, 2))
    assert np.mean(np.abs(units) > 1.0 - 1e-6) > 0.5


def test_ou_noise_by_literal_numbers() -> None:
    """With deviation 1 and normal numbers 1, 1, 1: 1, 1.85, 2.5725; a start clears what was before."""
    noise = OrnsteinUhlenbeckNoise(Constant(1.0))
    one, memory, seen = jnp.ones((2, 1)), noise.initial((2, 1)), []
    for start in ([True, True], [False, False], [False, True]):
        actions, memory = noise.add(jnp.zeros((2, 1)), memory, jnp.array(start), one, 1.0)
        np.testing.assert_array_equal(actions, memory)
        seen.append(np.asarray(actions)[:, 0])
    np.testing.assert_allclose(np.array(seen), [[1.0, 1.0], [1.85, 1.85], [2.5725, 1.0]], rtol=1e-6)
    actions, _ = OrnsteinUhlenbeckNoise(Linear(1.0)).add(jnp.zeros((2, 1)), memory, jnp.ones(2, bool), one, 0.25)
    np.testing.assert_allclose(actions, 0.25)


def test_ou_noise_begins_anew_at_the_start_of_that_environments_episode_alone() -> None:
    starts = np.zeros((60, N), bool)
    starts[0], starts[30, 2] = True, True
    _, _, whole = run(behaviour("ou:0.05"), 60, np.eye(60, N, 60) + (np.arange(60) == 0)[:, None] > 0)
    _, _, cut = run(behaviour("ou:0.05"), 60, starts)
    others = [0, 1, 3]
    np.testing.assert_array_equal(cut[:, others], whole[:, others])
    np.testing.assert_array_equal(cut[:30, 2], whole[:30, 2])
    gone = (whole - cut)[30:, 2]
    np.testing.assert_allclose(gone[0], (1.0 - OU_DECAY) * whole[29, 2], atol=1e-6)
    np.testing.assert_allclose(gone[1:], (1.0 - OU_DECAY) * gone[:-1], atol=1e-6)


def test_only_noise_with_a_memory_minds_where_episodes_start() -> None:
    assert behaviour("ou:0.1").recurrent
    assert not behaviour("normal:0.1").recurrent
    assert not behaviour().recurrent


# -- random actions at first ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("space", [LOPSIDED, FLOATS], ids=["float32", "float64"])
def test_random_actions_are_uniform_over_the_box(space: Any) -> None:
    _, given, _ = run(behaviour(space=space, random_steps=10**9), 3000, n=1)
    for entry in range(2):
        law = scipy.stats.uniform(space.low[entry], space.high[entry] - space.low[entry])
        assert scipy.stats.kstest(given[:, 0, entry], law.cdf).pvalue > 0.01


def test_random_integers_are_uniform_too_ends_included() -> None:
    _, given, _ = run(behaviour(space=INTEGERS, random_steps=10**9), 3000, n=1)
    for entry, values in enumerate([range(-2, 4), range(2)]):
        counts = [np.sum(given[:, 0, entry] == value) for value in values]
        assert sum(counts) == 3000
        assert scipy.stats.chisquare(counts).pvalue > 0.01


def test_actions_are_random_until_learning_starts_and_the_policys_after() -> None:
    """Ten steps of four environments: the rounds that begin at 0, 4 and 8 steps are random."""
    _, _, units = run(behaviour(random_steps=10), 6)
    assert np.all(np.any(units[:3] != 0.0, axis=-1))
    np.testing.assert_array_equal(units[3:], 0.0)


@pytest.mark.parametrize("name", ["ddpg", "sac"])
def test_a_policy_without_noise_acts_as_it_is(name: str) -> None:
    _, _, units = run(behaviour(name=name), 500)
    if name == "ddpg":
        np.testing.assert_array_equal(units, 0.0)
    else:  # tanh of a standard normal
        assert scipy.stats.kstest(np.arctanh(units[..., 0].ravel()), "norm").pvalue > 0.01


# -- what is kept -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("space", [LOPSIDED, FLOATS, INTEGERS], ids=["float32", "float64", "int32"])
@pytest.mark.parametrize("random_steps", [0, 10**9])
def test_what_is_kept_is_what_the_environments_were_given(space: Any, random_steps: int) -> None:
    kept, given, _ = run(behaviour("normal:0.5", space, random_steps), 100)
    assert kept.dtype == np.float32
    np.testing.assert_array_equal(kept, given.astype(np.float32))
    dtype = np.dtype(space.dtype)
    assert given.dtype == (np.float32 if dtype.kind == "f" else np.int32)
    assert all(space.contains(action.astype(dtype)) for action in given.reshape(-1, 2))


@pytest.mark.parametrize("xp", [np, jnp], ids=["numpy", "jax"])
@pytest.mark.parametrize(
    "space",
    [
        LOPSIDED,
        FLOATS,
        spaces.Box(-1e-3, 2e3, (2,)),
        spaces.Box(0.1, 0.4, (2,), np.float64),
        spaces.Box(-1.0, 1.0, (2,)),
    ],
)
def test_units_come_back_to_rounding(space: Any, xp: Any) -> None:
    codec = ActionCodec.of(space, squash=True)
    units = np.concatenate([np.random.default_rng(0).uniform(-1.0, 1.0, (500, 2)), [[-1.0, 1.0]]]).astype(np.float32)
    back = codec.unit_of(codec.from_unit(xp.asarray(units), xp), xp)
    np.testing.assert_allclose(back, units, atol=5e-7)


def test_integers_are_the_nearest_and_their_units_are_those_of_what_was_done() -> None:
    """Over {-2 ... 3} the middle is 0.5 and half of the range 2.5: units -0.6, 0.1, 0.5 are -1, 0.75 and 1.75."""
    codec = ActionCodec.of(spaces.Box(-2, 3, (1,), np.int32), squash=True)
    units = np.array([[-1.0], [-0.6], [0.1], [0.5], [1.0]], np.float32)
    for xp in (np, jnp):
        done = codec.from_unit(xp.asarray(units), xp)
        np.testing.assert_array_equal(done[:, 0], [-2, -1, 1, 2, 3])
        back = codec.unit_of(done.astype(np.float32), xp)
        np.testing.assert_allclose(back[:, 0], [-1.0, -0.6, 0.2, 0.6, 1.0], atol=1e-6)
    greedy = codec.to_environment(np.arctanh(np.clip(units, -0.999999, 0.999999)))
    np.testing.assert_array_equal(greedy[:, 0], [-2, -1, 1, 2, 3])


def test_a_method_explores_by_its_settings() -> None:
    behaviour: Any = make_update("td3", action_noise="ou:0.3", learning_starts=7).behaviour
    assert behaviour.noise == OrnsteinUhlenbeckNoise(Constant(0.3))
    assert behaviour.random_steps == 7
    behaviour = make_update("sac", action_noise="normal:linear:0.3").behaviour
    assert behaviour.noise == NormalNoise(Linear(0.3))


def persistent(longest: int, noise: str | None = None, name: str = "ddpg") -> Exploring:
    return replace(behaviour(noise, name=name), persistence=Persistence(longest))


def lengths(column: np.ndarray) -> np.ndarray:
    """Return for how many steps each number is repeated; the last is cut off."""
    changes = np.flatnonzero(np.diff(column)) + 1
    return np.diff(np.concatenate([[0], changes]))


def test_noise_that_is_repeated_lasts_as_long_as_its_law_says() -> None:
    _, _, units = run(persistent(4, "normal:0.1"), 6000)
    found = np.concatenate([lengths(units[:, i, 0]) for i in range(N)])
    weights = np.arange(1, 5) ** -2.0
    np.testing.assert_allclose(np.bincount(found, minlength=5)[1:] / len(found), weights / weights.sum(), atol=0.01)
    assert len(np.bincount(found)) == 5
    np.testing.assert_allclose(units.std(axis=(0, 1)), 0.1, rtol=0.05)
    for entry in range(1, units.shape[2]):  # all entries of an action at a time, each environment at its own
        np.testing.assert_array_equal(lengths(units[:, 0, entry]), lengths(units[:, 0, 0]))
    assert not np.array_equal(lengths(units[:, 0, 0])[:50], lengths(units[:, 1, 0])[:50])


def test_repeated_noise_ends_with_its_episode() -> None:
    starts = np.zeros((400, N), bool)
    starts[::2, 1] = True
    _, _, units = run(persistent(50, "normal:0.1"), 400, starts)
    assert np.all(units[2::2, 1, 0] != units[1:-1:2, 1, 0])
    assert np.any(units[2::2, 0, 0] == units[1:-1:2, 0, 0])


def test_draws_of_a_stochastic_policy_are_repeated_too() -> None:
    """At parameters of 0 its actions are those of the noise alone."""
    _, _, units = run(persistent(6, name="sac"), 2000)
    found = lengths(units[:, 0, 0])
    assert (found.min(), found.max()) == (1, 6)
    assert np.mean(found == 1) == pytest.approx(1.0 / np.sum(np.arange(1, 7) ** -2.0), abs=0.04)
