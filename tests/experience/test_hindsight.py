"""Which goals are chosen in hindsight, and relabelled rows in the memory."""

from __future__ import annotations

from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from gymnasium import spaces

from jumar.errors import UsageError
from jumar.experience.hindsight import LONGEST, STRATEGIES, Hindsight, chosen_steps, slots_at_once
from jumar.experience.replay import Cursor, Replay
from jumar.policies.observations import Encoder
from jumar.trajectory import Trajectory

# -- which goals ------------------------------------------------------------------------------------------------------


def test_future_goals_are_uniform_over_the_steps_from_each_one_on() -> None:
    length, goals = 7, 4000
    chosen = chosen_steps("future", length, goals, np.random.default_rng(0))
    assert chosen.shape == (length, goals)
    for t in range(length):
        counts = np.bincount(chosen[t], minlength=length)
        assert not counts[:t].any()
        if t < length - 1:
            assert scipy.stats.chisquare(counts[t:]).pvalue > 1e-4


def test_the_other_strategies_take_the_last_step_or_any() -> None:
    draw = np.random.default_rng(1)
    np.testing.assert_array_equal(chosen_steps("final", 5, 2, draw), np.full((5, 2), 4))
    anywhere = chosen_steps("episode", 5, 4000, draw)
    for t in range(5):
        assert scipy.stats.chisquare(np.bincount(anywhere[t], minlength=5)).pvalue > 1e-4


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_an_episode_of_one_step_has_one_goal(strategy: str) -> None:
    np.testing.assert_array_equal(chosen_steps(strategy, 1, 3, np.random.default_rng(2)), np.zeros((1, 3)))


# -- rows in the memory -----------------------------------------------------------------------------------------------

SPACE = spaces.Box(-1e6, 1e6, (1,), np.float32)
SLOTS, N, BLOCK = 13, 3, 4


def make(n_envs: int = N, slots: int = SLOTS) -> Replay:
    encoder = Encoder.of(SPACE, normalise=False, clip=10.0, mask_size=None, flatten=False)
    return Replay(
        encoder, 1, slots, n_envs, BLOCK, gamma=0.5, aligned=False, relabelled=Hindsight("final", 1).slots(BLOCK)
    )


def rows(numbers: np.ndarray, valid: np.ndarray | None = None) -> Trajectory:
    """Return rows ``[T, N]`` that are told by their observations."""
    none = jnp.zeros(numbers.shape, bool)
    return Trajectory(
        observations=jnp.asarray(numbers, jnp.float32)[..., None],
        actions=jnp.zeros((*numbers.shape, 1)),
        rewards=jnp.asarray(numbers, jnp.float32),
        terminated=none,
        truncated=none,
        successors=jnp.asarray(numbers, jnp.float32)[..., None] + 0.5,
        valid=~none if valid is None else jnp.asarray(valid),
        episode_start=none,
        log_probs=jnp.zeros(numbers.shape),
        action_masks=None,
        costs=None,
        carry=(),
        critic_carry=(),
    )


@cache
def programs(replay: Replay) -> tuple[Any, ...]:
    draw = jax.jit(lambda ring, fresh, cursor, key: replay.draw(ring, fresh, cursor, 3000, key))
    return *map(jax.jit, (replay.add, replay.add_relabelled, replay.store, replay.stepped)), draw


def test_relabelled_rows_come_in_any_number_and_are_drawn_like_all_others() -> None:
    """Against a list: what is drawn is always from the newest slots, whether these are fresh or in the ring."""
    replay, told = make(), np.random.default_rng(3)
    add, add_relabelled, store, stepped, draw = programs(replay)
    ring, cursor, listed, count = replay.ring(), Cursor.start(), [], 0
    for iteration in range(6):
        fresh, real = replay.fresh(), []
        for _ in range(BLOCK):
            slots = int(told.integers(0, 4)) if told.random() < 0.5 else 0
            if slots:
                some = np.arange(count, count + slots_at_once(N) * N, dtype=float).reshape(-1, N)
                fresh = add_relabelled(fresh, rows(some), np.int32(slots))
                listed += list(some[:slots])
                count += slots * N
            step = np.arange(count, count + N, dtype=float)[None]
            fresh, count = add(fresh, rows(step)), count + N
            listed += list(step)
            real += list(step)
            found = jax.device_get(draw(ring, fresh, cursor, jax.random.PRNGKey(count)))
            newest = np.concatenate(listed[-SLOTS:])
            drawn, counts = np.unique(found.observations[:, 0], return_counts=True)
            np.testing.assert_array_equal(drawn, newest)
            assert scipy.stats.chisquare(counts).pvalue > 1e-4
            np.testing.assert_array_equal(found.successors, found.observations + 0.5)
            assert np.all(found.weights == 1.0)
        recalled = replay.recalled(stepped(fresh), BLOCK)
        np.testing.assert_array_equal(recalled.rewards, np.stack(real))
        before = cursor
        cursor, ring = replay.after(cursor, fresh), store(ring, fresh, before)
        assert int(cursor.place) == len(listed) % replay.places, iteration


def test_a_row_that_only_fills_a_slot_up_counts_for_nothing() -> None:
    replay = make()
    _, add_relabelled, _, _, draw = programs(replay)
    some = np.arange(slots_at_once(N) * N, dtype=float).reshape(-1, N)
    fresh = add_relabelled(replay.fresh(), rows(some, some < 4), np.int32(2))
    found = jax.device_get(draw(replay.ring(), fresh, Cursor.start(), jax.random.PRNGKey(0)))
    assert set(found.observations[found.weights > 0.0, 0]) == {0.0, 1.0, 2.0, 3.0}
    assert set(found.observations[found.weights == 0.0, 0]) == {4.0, 5.0}


def test_a_cut_is_made_once_in_the_newest_step_and_never_in_relabelled_rows() -> None:
    replay = make(slots=20)
    add, add_relabelled, store, _, _ = programs(replay)
    truncated = replay.columns.column("truncated")
    fresh = add(replay.fresh(), rows(np.zeros((1, N))))
    cursor = replay.after(Cursor.start(), fresh)
    ring = jax.jit(replay.cut)(store(replay.ring(), fresh, Cursor.start()), cursor)
    assert np.all(np.asarray(ring["rows"])[:N, truncated] == 1.0)
    later = add_relabelled(replay.fresh(), rows(np.ones((slots_at_once(N), N))), np.int32(1))
    ring, cursor = store(ring, later, cursor), replay.after(cursor, later)
    again = jax.jit(replay.cut)(ring, cursor)
    np.testing.assert_array_equal(again["rows"], ring["rows"])
    assert np.all(np.asarray(ring["rows"])[N : 2 * N, truncated] == 0.0)


def test_there_is_room_for_whatever_an_iteration_relabels() -> None:
    """All steps of the iteration and all but one of the longest stretch before them, and slots that do not count behind."""
    for n_envs in (1, 3, 300):
        replay = make(n_envs)
        most = (BLOCK + LONGEST - 1) * n_envs + n_envs - 1
        assert replay.room >= BLOCK + most // n_envs + slots_at_once(n_envs) - 1
        assert replay.places >= replay.slots + replay.room


def test_targets_of_several_steps_are_refused() -> None:
    import jumar

    with pytest.raises(UsageError, match="n_steps=3: with goal_selection_strategy targets have one reward"):
        jumar.SAC("envpool/FetchReach-v4", goal_selection_strategy="future", n_steps=3)
