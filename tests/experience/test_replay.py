"""The replay memory against a list of steps, and the rows that are drawn from it."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from gymnasium import spaces
from replays import BOX

from jumar.experience.replay import ABSENT, Cursor, Fresh, Replay, Transitions
from jumar.policies.observations import Encoder
from jumar.runs.checkpoints import CheckpointStore
from jumar.runs.datasets import Dataset, read_dataset
from jumar.training import collected
from jumar.training.remembered import Buffer
from jumar.trajectory import Trajectory

GAMMA = 0.5
SLOTS, N = 13, 3


def encoder_of(space: Any) -> Encoder:
    return Encoder.of(space, normalise=False, clip=10.0, mask_size=None, flatten=False)


def make(n_steps: int = 1, slots: int = SLOTS, n_envs: int = N, block: int = 4, **others: Any) -> Replay:
    return Replay(encoder_of(BOX), 2, slots, n_envs, block, n_steps, GAMMA, **others)


class Model:
    """The same memory as a list of slots; slot ``t`` of environment ``i`` is told by its observation (t, i, 0).

    With ``resets`` the row after each end is no experience, as in NEXT_STEP environments.
    """

    def __init__(self, n_envs: int = N, seed: int = 0, ends: float = 0.2, resets: bool = False) -> None:
        self.slots: list[dict[str, np.ndarray]] = []
        self._n, self._draw, self._ends, self._resets = n_envs, np.random.default_rng(seed), ends, resets

    def step(self, n_steps: int) -> Trajectory:
        """Take some steps, and return them as a trajectory."""
        first = len(self.slots)
        for t in range(first, first + n_steps):
            number = np.stack([np.full(self._n, t), np.arange(self._n), np.zeros(self._n)], axis=-1)
            valid = np.ones(self._n, bool)
            if self._resets and self.slots:
                valid = ~(self.slots[-1]["terminated"] | self.slots[-1]["truncated"])
            ended = valid & (self._draw.random(self._n) < self._ends)
            terminated = ended & (self._draw.random(self._n) < 0.5)
            self.slots.append(
                {
                    "observations": number.astype(np.float32),
                    "actions": (number[:, :2] + 0.5).astype(np.float32),
                    "rewards": self._draw.normal(size=self._n).astype(np.float32),
                    "terminated": terminated,
                    "truncated": ended & ~terminated,
                    "successors": (number + 0.25).astype(np.float32),
                    "valid": valid,
                    "costs": self._draw.random(self._n).astype(np.float32),
                }
            )
        fields = {name: jnp.asarray(np.stack([x[name] for x in self.slots[first:]])) for name in self.slots[first]}
        shape = n_steps, self._n
        return Trajectory(
            **fields,
            episode_start=jnp.zeros(shape, bool),
            log_probs=jnp.zeros(shape),
            action_masks=None,
            carry=(),
            critic_carry=(),
        )

    def row(self, t: int, i: int, n_steps: int) -> tuple[float, float, np.ndarray]:
        """Return the sum of rewards, the discount and the successor of up to ``n_steps`` steps from a row on."""
        total, discount, successor, count = 0.0, 1.0, np.zeros(3), 0
        for slot in self.slots[t:]:
            total, discount, count = total + discount * float(slot["rewards"][i]), discount * GAMMA, count + 1
            successor = slot["successors"][i]
            if slot["terminated"][i]:
                discount = 0.0
            if slot["terminated"][i] or slot["truncated"][i] or count == n_steps:
                break
        return total, discount, successor


@cache
def programs(replay: Replay) -> tuple[Any, Any, Any]:
    """Compile what is done with a memory once."""
    drawing = jax.jit(lambda ring, fresh, cursor, key: replay.draw(ring, fresh, cursor, 400, key))
    return jax.jit(replay.add), jax.jit(replay.store), drawing


class Kept:
    """A memory that is written to in blocks, as training does."""

    def __init__(self, replay: Replay) -> None:
        self.replay, self.ring, self.fresh, self.cursor = replay, replay.ring(), replay.fresh(), Cursor.start()
        self._add, self._store, self._draw = programs(replay)

    def add(self, trajectory: Trajectory) -> None:
        self.fresh = self._add(self.fresh, trajectory)

    def store(self) -> None:
        before = self.cursor
        self.cursor = self.replay.after(before, self.fresh)
        self.ring, self.fresh = self._store(self.ring, self.fresh, before), self.replay.fresh()

    def draw(self, seed: int) -> Transitions:
        return jax.device_get(self._draw(self.ring, self.fresh, self.cursor, jax.random.PRNGKey(seed)))


def numbers(rows: Transitions) -> list[tuple[int, int]]:
    """Return (t, i) of drawn rows that count."""
    return [(int(t), int(i)) for (t, i, _), weight in zip(rows.observations, rows.weights, strict=True) if weight]


def check(rows: Transitions, model: Model, n_steps: int) -> set[tuple[int, int]]:
    """Compare rows that were drawn with the model's; return which ones they are."""
    for k, (t, i) in enumerate((int(t), int(i)) for t, i, _ in rows.observations):
        if not rows.weights[k]:
            continue
        total, discount, successor = model.row(t, i, n_steps)
        assert model.slots[t]["valid"][i]
        np.testing.assert_allclose(rows.rewards[k], total, atol=1e-6)
        assert rows.discounts[k] == discount
        np.testing.assert_array_equal(rows.successors[k], successor)
        np.testing.assert_array_equal(rows.actions[k], model.slots[t]["actions"][i])
    return set(numbers(rows))


@pytest.mark.parametrize("n_steps", [1, 3])
def test_a_prime_capacity_wrapped_three_times_is_a_list(n_steps: int) -> None:
    """After each round the rows drawn are those of the last 13 slots, of the ring and fresh ones alike."""
    kept, model = Kept(make(n_steps)), Model()
    rounds = [1, 2, 1] * 15
    for number, count in enumerate(rounds):
        if number % 3 == 0:
            kept.store()
        kept.add(model.step(count))
        size = min(len(model.slots), SLOTS)
        assert int(kept.replay.size(kept.cursor, kept.fresh)) == size
        seen = check(kept.draw(number), model, n_steps)
        newest = len(model.slots)
        assert seen == {(t, i) for t in range(newest - size, newest) for i in range(N)}
    assert len(model.slots) > 4 * SLOTS


@pytest.mark.parametrize("n_steps", [1, 3])
def test_after_stored_transitions_of_any_number_nothing_is_overwritten(n_steps: int) -> None:
    """Five slots are there before any block of four: blocks are then divided where the ring comes round."""
    replay = make(n_steps, aligned=False)
    kept, model = Kept(replay), Model()
    stored = replay.written(model.step(5))
    kept.ring = {name: x.at[: 5 * N].set(stored[name]) for name, x in kept.ring.items()}
    kept.cursor = Cursor(jnp.asarray(5, jnp.int32), jnp.asarray(5, jnp.int32))
    for number in range(12):
        kept.add(model.step(4))
        kept.store()
        seen = check(kept.draw(number), model, n_steps)
        newest, size = len(model.slots), min(len(model.slots), SLOTS)
        assert seen == {(t, i) for t in range(newest - size, newest) for i in range(N)}


def test_n_steps_of_one_are_the_steps_themselves() -> None:
    one, model = Kept(make(1)), Model()
    one.add(model.step(4))
    rows = one.draw(0)
    assert rows.weights.all()
    assert set(numbers(rows)) == {(t, i) for t in range(4) for i in range(N)}
    for k, (t, i) in enumerate(numbers(rows)):
        slot = model.slots[t]
        assert rows.rewards[k] == slot["rewards"][i]
        assert rows.discounts[k] == (0.0 if slot["terminated"][i] else GAMMA)
        np.testing.assert_array_equal(rows.successors[k], slot["successors"][i])


def test_returns_of_n_steps_by_literal_numbers() -> None:
    """Rewards 1, 2, 4, 8 with a gamma of 1/2; the third step is cut, or ends the episode."""
    for cut in (False, True):
        kept, model = Kept(make(3)), Model(ends=0.0)
        steps = model.step(4)
        at = jnp.zeros((4, N), bool).at[2].set(True)
        rewards = jnp.broadcast_to(jnp.array([1.0, 2.0, 4.0, 8.0])[:, None], (4, N))
        kept.add(steps._replace(rewards=rewards, terminated=at & (not cut), truncated=at & cut))
        rows = kept.draw(1)
        assert rows.weights.all()
        told = {
            (int(t), int(i), rows.rewards[k], rows.discounts[k], *rows.successors[k][:2])
            for k, (t, i, _) in enumerate(rows.observations)
        }
        end = 1.0 if cut else 0.0
        by_hand = {
            0: (1.0 + 1.0 + 1.0, end * 0.125, 2.25),
            1: (2.0 + 2.0, end * 0.25, 2.25),
            2: (4.0, end * 0.5, 2.25),
            3: (8.0, 0.5, 3.25),
        }
        assert told == {(t, i, *row, i + 0.25) for t, row in by_hand.items() for i in range(N)}


def test_returns_of_n_steps_stop_at_the_first_end_even_if_the_next_episode_ends_too() -> None:
    """The second and the third of four steps end; nothing of the third or the fourth is in the sums of the first two."""
    kept, model = Kept(make(3)), Model(ends=0.0)
    steps = model.step(4)
    ends = jnp.zeros((4, N), bool).at[1:3].set(True)
    cut = ends.at[1, 0].set(False)  # there the first end is a termination
    for t in (1, 2):
        model.slots[t]["terminated"], model.slots[t]["truncated"] = np.asarray(ends[t] & ~cut[t]), np.asarray(cut[t])
    kept.add(steps._replace(terminated=ends & ~cut, truncated=cut))
    rows = kept.draw(0)
    assert check(rows, model, 3) == {(t, i) for t in range(4) for i in range(N)}
    rewards = [[float(slot["rewards"][i]) for slot in model.slots] for i in range(N)]
    for k, (t, i) in enumerate(numbers(rows)):
        expected = {0: rewards[i][0] + GAMMA * rewards[i][1], 1: rewards[i][1], 2: rewards[i][2], 3: rewards[i][3]}[t]
        assert rows.rewards[k] == pytest.approx(expected, abs=1e-6)
        assert (rows.discounts[k] == 0.0) == (i == 0 and t < 2)


def test_returns_of_n_steps_do_not_go_across_the_write_head() -> None:
    """The newest row sums up itself alone, although old rows lie behind it in the ring."""
    kept, model = Kept(make(3)), Model(ends=0.0)
    for _ in range(9):
        kept.add(model.step(4))
        kept.store()
    newest, rows = len(model.slots) - 1, kept.draw(0)
    found = [k for k, (t, _) in enumerate(numbers(rows)) if t == newest]
    assert found
    for k in found:
        assert rows.discounts[k] == GAMMA
        assert rows.rewards[k] == model.slots[newest]["rewards"][numbers(rows)[k][1]]
    check(rows, model, 3)


@pytest.mark.parametrize("n_steps", [1, 3])
def test_rows_that_are_no_experience_are_never_drawn(n_steps: int) -> None:
    kept, model = Kept(make(n_steps, block=3, all_valid=False)), Model(resets=True)
    for number in range(12):
        kept.add(model.step(3))
        seen = check(kept.draw(number), model, n_steps)
        newest = len(model.slots)
        last = range(max(0, newest - SLOTS), newest)
        assert seen == {(t, i) for t in last for i in range(N) if model.slots[t]["valid"][i]}
        kept.store()


def test_a_memory_without_experience_gives_rows_without_weight() -> None:
    assert not Kept(make()).draw(0).weights.any()
    kept, model = Kept(make(all_valid=False)), Model()
    kept.add(model.step(4)._replace(valid=jnp.zeros((4, N), bool)))
    assert not kept.draw(0).weights.any()


@pytest.mark.parametrize("resets", [False, True])
def test_rows_are_drawn_uniformly(resets: bool) -> None:
    """Chi-square of 40,000 draws over all rows of the ring and fresh ones; the seed is fixed."""
    kept, model = Kept(make(all_valid=not resets)), Model(resets=resets)
    for _ in range(5):
        kept.add(model.step(4))
        kept.store()
    kept.add(model.step(3))
    counts: dict[tuple[int, int], int] = {}
    for seed in range(100):
        for row in numbers(kept.draw(seed)):
            counts[row] = counts.get(row, 0) + 1
    newest = len(model.slots)
    valid = [(t, i) for t in range(newest - SLOTS, newest) for i in range(N) if model.slots[t]["valid"][i]]
    assert sorted(counts) == valid
    assert scipy.stats.chisquare(list(counts.values())).pvalue > 0.01


def test_a_cut_makes_the_newest_slot_truncated_where_its_episodes_go_on() -> None:
    """Nothing is summed up across a barrier, and an episode that terminated there stays terminated."""
    kept, model = Kept(make(3)), Model(ends=0.0)
    for _ in range(5):
        kept.add(model.step(4))
        kept.store()
    trajectory = model.step(4)
    ended = np.array([False, True, False])
    model.slots[-1]["terminated"] = ended
    kept.add(trajectory._replace(terminated=trajectory.terminated.at[-1].set(ended)))
    kept.store()
    before = kept.ring
    kept.ring = jax.jit(kept.replay.cut)(before, kept.cursor)
    model.slots[-1]["truncated"] = ~ended
    changed = np.argwhere(np.asarray(before["rows"] != kept.ring["rows"]))
    newest = (len(model.slots) - 1) % kept.replay.places * N
    truncated = kept.replay.columns.column("truncated")
    assert changed.tolist() == [[newest, truncated], [newest + 2, truncated]]
    kept.add(model.step(4))
    size = range(len(model.slots) - SLOTS, len(model.slots))
    rows = kept.draw(1)
    assert check(rows, model, 3) == {(t, i) for t in size for i in range(N)}
    barrier = len(model.slots) - 5
    across = [k for k, (t, i) in enumerate(numbers(rows)) if t == barrier and i != 1]
    assert across
    assert all(rows.discounts[k] == GAMMA for k in across), "cut, and valued by what followed"


def test_a_cut_of_an_empty_memory_changes_nothing() -> None:
    kept, model = Kept(make()), Model(ends=0.0)
    kept.ring = jax.jit(kept.replay.cut)(kept.ring, kept.cursor)
    np.testing.assert_array_equal(kept.ring["rows"], 0.0)
    kept.add(model.step(4))
    assert check(kept.draw(0), model, 1) == {(t, i) for t in range(4) for i in range(N)}


def test_a_learner_from_before_a_block_still_finds_all_of_its_rows() -> None:
    """The ring has room for one block more than its slots."""
    kept, model = Kept(make(block=4)), Model()
    for _ in range(12):
        kept.add(model.step(4))
        kept.store()
    before, then = kept.cursor, jax.device_get(kept.draw(0))
    kept.add(model.step(4))
    kept.store()
    kept.cursor = before
    jax.tree.map(np.testing.assert_array_equal, then, kept.draw(0))


def test_costs_are_kept_beside_rewards_and_what_they_are_worth_is_taken_off_when_drawn() -> None:
    replay = make(2)
    model = Model(ends=0.0)
    steps = model.step(4)
    for given in (True, False):
        fresh = replay.add(replay.fresh(), steps if given else steps._replace(costs=None))

        def worth(rewards: Any, costs: Any) -> Any:
            return rewards - 2.0 * jnp.where(costs == ABSENT, 0.0, costs)

        rows = replay.draw(replay.ring(), fresh, Cursor.start(), 50, jax.random.PRNGKey(0), worth)
        for k, (t, i) in enumerate(numbers(rows)):
            expected = 0.0
            for later, discount in ((t, 1.0), (t + 1, GAMMA)):
                if later < 4:
                    slot = model.slots[later]
                    expected += discount * (slot["rewards"][i] - (2.0 * slot["costs"][i] if given else 0.0))
            np.testing.assert_allclose(rows.rewards[k], expected, rtol=1e-5)


def test_a_whole_iteration_is_recalled_as_it_happened() -> None:
    replay, model = make(block=5), Model(resets=True, ends=0.5)
    trajectory = model.step(4)
    recalled = replay.recalled(replay.add(replay.fresh(), trajectory).arrays, 5)
    for name in ("observations", "actions", "rewards", "terminated", "truncated", "successors", "valid", "costs"):
        np.testing.assert_array_equal(getattr(recalled, name)[:4], getattr(trajectory, name), err_msg=name)
    assert not recalled.valid[4:].any()


def test_images_and_numbers_of_a_dict_come_back_each_in_its_place() -> None:
    """Images are kept as bytes beside the numbers; n-step successors are those of the last step, images too."""
    space = spaces.Dict(
        {
            "camera": spaces.Box(0, 255, (24, 24, 3), np.uint8),
            "count": spaces.Discrete(5),
            "place": spaces.Box(-1.0, 1.0, (2, 2), np.float32),
        }
    )
    replay = Replay(encoder_of(space), 1, 5, 2, 3, n_steps=2, gamma=GAMMA)
    assert any(leaf.convolved for leaf in replay.encoder.leaves)
    draw = np.random.default_rng(0)

    def observed() -> dict[str, Any]:
        return {
            "camera": draw.integers(0, 256, (3, 2, 24, 24, 3), np.uint8),
            "count": draw.integers(0, 5, (3, 2)).astype(np.int32),
            "place": draw.normal(size=(3, 2, 2, 2)).astype(np.float32),
        }

    here, there = observed(), observed()
    never = jnp.zeros((3, 2), bool)
    trajectory = Trajectory(
        observations=here,
        actions=jnp.arange(6.0).reshape(3, 2, 1),
        rewards=jnp.ones((3, 2)),
        terminated=never,
        truncated=never,
        successors=there,
        valid=~never,
        episode_start=never,
        log_probs=jnp.zeros((3, 2)),
        action_masks=None,
        costs=None,
        carry=(),
        critic_carry=(),
    )
    fresh = replay.add(replay.fresh(), trajectory)
    ring = replay.store(replay.ring(), fresh, Cursor.start())
    places = [(replay.ring(), fresh, Cursor.start()), (ring, replay.fresh(), replay.after(Cursor.start(), fresh))]
    for memory, new, cursor in places:
        rows = replay.draw(memory, Fresh(*new), cursor, 40, jax.random.PRNGKey(0))
        for k, action in enumerate(np.asarray(rows.actions[:, 0], int)):
            t, i = divmod(action, 2)
            last = min(t + 1, 2)
            for name in here:
                np.testing.assert_array_equal(rows.observations[name][k], here[name][t, i])
                np.testing.assert_array_equal(rows.successors[name][k], there[name][last, i])
                assert rows.observations[name].dtype == here[name].dtype
        assert set(np.asarray(rows.actions[:, 0], int)) == set(range(6))


# -- stacks of frames ----------------------------------------------------------------------------------------------------

K, SIDE = 3, 40
SCREENS = spaces.Box(0, 255, (K, SIDE, SIDE), np.uint8)


class Screens:
    """Stacks of ``K`` frames, as Gymnasium (SAME_STEP) and EnvPool (``resets``: NEXT_STEP) make them, in N environments."""

    def __init__(self, resets: bool, keep_stack: bool = False) -> None:
        self._draw = np.random.default_rng(3)
        self._resets, self._keep = resets, keep_stack
        self._stacks = [self._first() for _ in range(N)]
        self._over = np.zeros(N, bool)

    def _frame(self) -> np.ndarray:
        return self._draw.integers(0, 256, (SIDE, SIDE), np.uint8)

    def _first(self) -> np.ndarray:
        return np.repeat(self._frame()[None], K, axis=0)

    def _next(self, stack: np.ndarray) -> np.ndarray:
        return np.concatenate([stack[1:], self._frame()[None]])

    def step(self, n_steps: int) -> Trajectory:
        rows = []
        for _ in range(n_steps):
            now, valid = self._stacks, ~self._over
            ended = valid & (self._draw.random(N) < 0.3)
            terminated = ended & (self._draw.random(N) < 0.5)
            # A lost life may end an episode without a new screen: then the stack goes on.
            anew = self._over & (not self._keep)
            followed = [self._first() if anew[i] else self._next(now[i]) for i in range(N)]
            self._stacks = [self._first() if ended[i] and not self._resets else followed[i] for i in range(N)]
            self._over = ended & self._resets
            rows.append((np.stack(now), np.stack(followed), terminated, ended & ~terminated, valid))
        observations, successors, terminated, truncated, valid = (
            jnp.asarray(np.stack(x)) for x in zip(*rows, strict=True)
        )
        shape = n_steps, N
        return Trajectory(
            observations=observations,
            successors=successors,
            terminated=terminated,
            truncated=truncated,
            valid=valid,
            rewards=jnp.asarray(self._draw.normal(size=shape).astype(np.float32)),
            actions=jnp.zeros((*shape, 2), jnp.float32),
            episode_start=jnp.zeros(shape, bool),
            log_probs=jnp.zeros(shape),
            action_masks=None,
            costs=None,
            carry=(),
            critic_carry=(),
        )


@pytest.mark.parametrize(
    ("resets", "keep_stack", "n_steps"), [(False, False, 1), (True, False, 3), (True, True, 1)], ids=str
)
def test_stacks_are_put_together_from_frames_as_they_were(resets: bool, keep_stack: bool, n_steps: int) -> None:
    """A memory of frames gives the same rows as one of whole stacks, wrapped three times, across ends and resets."""
    made = {"n_steps": n_steps, "gamma": GAMMA, "all_valid": not resets}
    frames = Replay(encoder_of(SCREENS), 2, SLOTS, N, 4, frames=K, **made)
    whole = Replay(encoder_of(SCREENS), 2, SLOTS - (K - 1), N, 4, **made)
    assert frames.oldest == K - 1
    assert frames.row_bytes < whole.row_bytes / 2.9
    screens, kept = Screens(resets, keep_stack), [Kept(frames), Kept(whole)]
    for number, count in enumerate([1, 2, 1] * 12):
        steps = screens.step(count)
        for memory in kept:
            if number % 3 == 0:
                memory.store()
            memory.add(steps)
        ours, theirs = (memory.draw(number) for memory in kept)
        for mine, other in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
            np.testing.assert_array_equal(mine, other)


def test_an_iteration_of_stacks_is_recalled_as_it_happened() -> None:
    replay = Replay(encoder_of(SCREENS), 2, SLOTS, N, 8, frames=K)
    steps = Screens(resets=False).step(8)
    told = replay.recalled(replay.add(replay.fresh(), steps).arrays, 8)
    np.testing.assert_array_equal(told.observations, steps.observations)
    np.testing.assert_array_equal(told.successors, steps.successors)


@pytest.mark.parametrize("resets", [False, True], ids=["same step", "next step"])
def test_stacks_that_reach_back_before_an_iteration_are_told_apart(resets: bool) -> None:
    """In an iteration under way when an episode goes on, the first stacks repeat a frame unless an episode begins there."""
    replay = Replay(encoder_of(SCREENS), 2, SLOTS, N, 8, frames=K, all_valid=not resets)
    screens, wrong, right_early = Screens(resets), 0, 0
    for _ in range(6):
        steps = screens.step(8)
        arrays = replay.add(replay.fresh(), steps).arrays
        told, whole = replay.recalled(arrays, 8), np.asarray(replay.whole(arrays, 8))
        pairs = ((told.observations, steps.observations), (told.successors, steps.successors))
        equal = [np.all(np.asarray(x == y), axis=(2, 3, 4)) for x, y in pairs]
        np.testing.assert_array_equal(whole, equal[0])
        assert not np.any(whole & np.asarray(steps.valid) & ~equal[1])
        wrong, right_early = wrong + np.sum(~whole), right_early + np.sum(whole[: K - 1])
    assert wrong
    assert right_early


BOTH = (SCREENS, spaces.Box(-1.0, 1.0, (2,), np.float32))


def collected_from(
    first: int, path: Path, resets: bool, piece: int
) -> tuple[Dataset, dict[str, np.ndarray], np.ndarray]:
    """Keep 60 slots of screens from a slot on, of which a ring holds 13, by two processes: the second goes on after 40.

    Returns the data set, what happened, ``[T, N, ...]``, and which of it was to be kept.
    """
    replay = Replay(encoder_of(SCREENS), 2, SLOTS, N, 4, frames=K, all_valid=not resets)
    buffer, store, screens, rows = Buffer(replay, None), CheckpointStore(path / "checkpoints"), Screens(resets), []
    ring, begun, kept = Kept(replay), collected.Kept(first, []), None
    with mock.patch.object(collected, "PIECE", piece), mock.patch.object(collected, "MOST_LISTED", 1):
        for total in range(0, 60, 4):
            if total in (first, 40):
                kept = collected.Collection(path / "steps", buffer, begun)
            if kept is not None:
                kept.make_room(ring.ring, total)
            rows.append(screens.step(4))
            ring.add(rows[-1])
            ring.store()
            if kept is not None and total == 36:
                kept.write(ring.ring, 40)
                record = kept.record
                store.save(40, {"x": np.zeros(1)}, {"collected": record})
                kept.saved(store)
                begun = collected.read_kept(record) or begun
                assert len(begun.segments) == len(os.listdir(path / "steps")) == 1
                assert begun.end == 40
        assert kept is not None
        n = kept.write_dataset(path / "data", ring.ring, 60, BOTH)
    found, _ = read_dataset(path / "data")
    assert len(found) == n
    names = ("observations", "successors", "rewards", "terminated", "truncated", "valid")
    told = {name: np.concatenate([np.asarray(getattr(steps, name)) for steps in rows]) for name in names}
    return found, told, told.pop("valid") & (np.arange(60) >= first)[:, None]


@pytest.mark.parametrize(("resets", "piece"), [(False, 1), (True, 1), (True, 2**25)], ids=str)
def test_a_data_set_has_all_steps_however_small_the_ring(resets: bool, piece: int, tmp_path: Path) -> None:
    """Of each environment one after another, whole stacks of frames too, over resumed runs and joined segments."""
    found, told, kept = collected_from(0, tmp_path, resets, piece)
    for name, x in told.items():
        expected = np.concatenate([x[:, i][kept[:, i]] for i in range(N)])
        np.testing.assert_array_equal(getattr(found, name), expected, err_msg=name)


def test_a_data_set_has_only_stacks_that_were_seen(tmp_path: Path) -> None:
    """Where steps are kept from the middle of a run on, the first ones are left out whose frames are forgotten."""
    found, told, kept = collected_from(20, tmp_path, True, 1)
    begun = np.all(told["observations"] == told["observations"][:, :, :1], axis=(2, 3, 4))
    for t in range(20, 20 + K - 1):
        kept[t] &= np.any(begun[20 : t + 1], axis=0)
    assert kept[20 : 20 + K - 1].sum() < N * (K - 1)
    for name, x in told.items():
        expected = np.concatenate([x[:, i][kept[:, i]] for i in range(N)])
        np.testing.assert_array_equal(getattr(found, name), expected, err_msg=name)
