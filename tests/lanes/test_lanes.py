"""Lanes: what they see and do depends on nothing but themselves, and can be had once more."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import gymnasium as gym
import jax
import numpy as np
import pytest
from compiling import nothing_compiled
from gymnasium import spaces
from updates import make_update
from walks import Chooser, Clocked, Raising, Remembering, Walk, Wide

from jumar.envs.step_costs import GIVEN
from jumar.lanes.acting import WIDTH, LaneActor
from jumar.lanes.executor import LaneExecutor
from jumar.lanes.gatherer import after
from jumar.lanes.lane import Lane, NotDeterministic
from jumar.lanes.records import Barrier, Failed, LaneMaking, LaneRecord, Request, Rows, episode_seed
from jumar.lanes.sides import first_of, side_by_side
from jumar.policies.exploration import Behaviour

T, N = 12, 5
BARRIER = Barrier(0, 7, 3000)
IMAGE = spaces.Box(0, 255, (36, 36, 1), np.uint8)

POLICIES: dict[str, tuple[Any, ...]] = {
    "gaussian": (Walk.observation_space, Walk.action_space, "ppo", {"net_arch": (64, 64)}),
    "recurrent": (Walk.observation_space, Walk.action_space, "ppo", {"recurrent": "gru", "recurrent_size": 8}),
    "gSDE": (Walk.observation_space, Walk.action_space, "ppo", {"use_sde": True, "sde_sample_freq": 3}),
    "masked": (Chooser.observation_space, Chooser.action_space, "ppo", {}),
    "image": (IMAGE, spaces.Discrete(4), "ppo", {"net_arch": (32,)}),
    "off-policy": (
        Walk.observation_space,
        Walk.action_space,
        "td3",
        {"action_noise": "ou:0.2", "learning_starts": 0, "noise_repeat": 4},
    ),
    "choices": (Walk.observation_space, spaces.Discrete(3), "sac", {"learning_starts": 0}),
}


def of_policy(name: str) -> tuple[Behaviour, Any]:
    """Return a behaviour, and what it acts by."""
    observations, actions, method, settings = POLICIES[name]
    update = make_update(observations, actions, method, **settings)
    learner = jax.jit(lambda key: update.init(key, N))(jax.random.PRNGKey(3))
    return update.behaviour, jax.device_get(update.acting(learner, jax.numpy.float32(0.7)))


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name == "image" else []) for name in POLICIES]
)
def test_a_lane_acts_alike_whatever_its_place_and_however_many_there_are(name: str) -> None:
    behaviour, acting = of_policy(name)
    actor = LaneActor(behaviour, T)
    space, draw = POLICIES[name][0], np.random.default_rng(0)
    n = WIDTH
    lanes = [3, 1, 4, 11, 5, 9, 2, 6, 53, 58, 97, 93, 23, 84, 62, 64]
    seen = draw.normal(size=(n, *space.shape)).astype(np.float32)
    if space is IMAGE:
        seen = draw.integers(0, 256, (n, *space.shape)).astype(np.uint8)
    masks = draw.random((n, 6)) < 0.7 if name == "masked" else None
    if masks is not None:
        masks[:, [0, 3]] = True
    first = jax.device_get(behaviour.begin_rollout(behaviour.initial_carry(n)))

    def acted(some: Sequence[int]) -> list[Any]:
        """Return what some lanes do in two steps, one entry for each lane."""
        k = len(some)
        pad = lambda x: np.concatenate([x[list(some)], np.zeros((WIDTH - k, *x.shape[1:]), x.dtype)])  # noqa: E731
        noise = actor.noise(np.array([1, 2], np.uint32), [lanes[i] for i in some])
        carry = actor.places(jax.tree.map(lambda x: x[list(some)] if np.ndim(x) else x, first))
        starts = [np.ones(WIDTH, bool), np.zeros(WIDTH, bool)]
        mask = None if masks is None else pad(masks)
        rows = []
        for t, start in enumerate(starts):
            kept, given, carry = actor.act(acting, pad(seen), carry, start, mask, noise, t, k)
            rows.append((np.asarray(kept)[:k], np.asarray(given)[:k], actor.lanes_of(carry, k)))
        return [jax.tree.map(lambda x, i=i: x[i] if np.ndim(x) else x, rows) for i in range(k)]

    together = acted(range(n))
    assert len({np.asarray(one[0][0]).tobytes() for one in together}) > 1, "lanes do not all do the same"
    with nothing_compiled():
        for some in ([0], [7], [15, 2, 9], [*range(15, -1, -1)]):
            for i, one in zip(some, acted(some), strict=True):
                jax.tree.map(np.testing.assert_array_equal, one, together[i])


# --- executors --------------------------------------------------------------------------------------------------------


def making(make: Callable[[], gym.Env] = Walk, policy: str = "gaussian", **settings: Any) -> LaneMaking:
    return LaneMaking(make, "walk", of_policy(policy)[0], T, GIVEN, **settings)


def requests_of(
    executors: Sequence[LaneExecutor], split: Sequence[Sequence[int]], made: LaneMaking, acting: Any, n: int = 4
) -> Any:
    """Have executors answer some requests, each for its lanes, told of all actions every time; return all answers.

    From one request to the next the lanes go from each executor to the next one.
    """
    records = [LaneRecord(lane, 0) for lane in range(N)]
    carry, start = jax.device_get(made.behaviour.initial_carry(N)), np.ones(N, bool)
    answers = []
    for number in range(n):
        carry = jax.device_get(made.behaviour.begin_rollout(carry))
        parts = []
        for i, lanes in enumerate(split):
            executor = executors[(i + number) % len(executors)]
            some = list(lanes)
            parts.append(
                executor.answer(
                    acting,
                    Request(
                        number,
                        BARRIER,
                        tuple(records[lane] for lane in some),
                        jax.tree.map(lambda x: x[some] if np.ndim(x) else x, carry),
                        start[some],
                        np.array([number, 8], np.uint32),
                    ),
                )
            )
        if failures := [part for part in parts if isinstance(part, Failed)]:
            return first_of(failures)
        rows = side_by_side(parts)
        carry, start = rows.carry, rows.start
        records = [after(record, lane, number + 1) for record, lane in zip(records, rows.lanes, strict=True)]
        answers.append(rows)
    return answers


def assert_same(here: Sequence[Rows], there: Sequence[Rows]) -> None:
    for one, other in zip(here, there, strict=True):
        assert jax.tree.structure(one.fields) == jax.tree.structure(other.fields)
        jax.tree.map(np.testing.assert_array_equal, one.fields, other.fields)
        assert [lane.rows for lane in one.lanes] == [lane.rows for lane in other.lanes]
        assert [lane.digest for lane in one.lanes] == [lane.digest for lane in other.lanes]
        jax.tree.map(np.testing.assert_array_equal, (one.carry, one.start), (other.carry, other.start))


@pytest.mark.parametrize(
    ("make", "policy"),
    [
        (Walk, "gaussian"),
        (Chooser, "masked"),
        *(pytest.param(Walk, name, marks=pytest.mark.slow) for name in ("recurrent", "off-policy", "gSDE")),
    ],
)
def test_lanes_that_move_at_every_request_see_the_same_as_those_that_stay(make: Any, policy: str) -> None:
    made = making(make, policy, log=("height",) if make is Chooser else ())
    acting = of_policy(policy)[1]
    alone = LaneExecutor(made)
    still = requests_of([alone], [range(N)], made, acting)
    assert any((rows.fields["terminated"] | rows.fields["truncated"]).any() for rows in still)
    moving = requests_of([LaneExecutor(made) for _ in range(3)], [[0, 1], [2], [3, 4]], made, acting)
    assert_same(still, moving)
    if make is Chooser:
        assert still[0].fields["action_masks"] is not None
        assert still[0].infos is not None
        np.testing.assert_array_equal(still[-1].infos, moving[-1].infos)


def test_rows_are_what_an_environment_does_that_is_given_the_same_seeds_and_actions() -> None:
    made = making()
    answers = requests_of([LaneExecutor(made)], [range(N)], made, of_policy("gaussian")[1])
    rows = {
        key: np.concatenate([a.fields[key] for a in answers])
        for key in answers[0].fields
        if answers[0].fields[key] is not None
    }
    bound = np.clip(rows["actions"], -1.0, 1.0)
    for lane in range(N):
        env, episode, start = Walk(), 0, True
        observation, _ = env.reset(seed=episode_seed(BARRIER, lane, 0))
        for t in range(4 * T):
            assert rows["episode_start"][t, lane] == start
            np.testing.assert_array_equal(rows["observations"][t, lane], np.float32(observation))
            observation, reward, terminated, truncated, _ = env.step(bound[t, lane])
            np.testing.assert_array_equal(rows["successors"][t, lane], np.float32(observation))
            assert rows["rewards"][t, lane] == np.float32(reward)
            assert (rows["terminated"][t, lane], rows["truncated"][t, lane]) == (
                terminated,
                truncated and not terminated,
            )
            start = terminated or truncated
            if start:
                episode += 1
                observation, _ = env.reset(seed=episode_seed(BARRIER, lane, episode))
        assert episode > 1


def test_more_lanes_than_places_are_acted_for_in_turn() -> None:
    made, acting = making(), of_policy("gaussian")[1]
    n = WIDTH + 3
    carry, start = jax.device_get(made.behaviour.initial_carry(n)), np.ones(n, bool)
    records = tuple(LaneRecord(lane, 0) for lane in range(n))
    request = Request(0, BARRIER, records, carry, start, np.array([0, 8], np.uint32))
    rows = LaneExecutor(made).answer(acting, request)
    few = LaneExecutor(made).answer(acting, request._replace(lanes=records[-4:], start=start[-4:]))
    assert isinstance(rows, Rows)
    assert isinstance(few, Rows)
    np.testing.assert_array_equal(rows.fields["observations"][:, -4:], few.fields["observations"])
    assert [lane.lane for lane in rows.lanes] == list(range(n))


def test_seeds_of_episodes_differ_and_depend_on_all_that_they_are_made_of() -> None:
    seeds = {
        episode_seed(Barrier(n, seed, step), lane, episode)
        for n in (0, 9)
        for seed in (0, 1)
        for step in (0, 5000)
        for lane in range(20)
        for episode in range(20)
    }
    assert len(seeds) == 2 * 2 * 20 * 20
    assert all(0 <= seed < 2**31 - 1 for seed in seeds)


# --- what cannot be repeated ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make", [lambda: Clocked(2), lambda: Remembering(0.2)], ids=["seeded by the clock", "remembers earlier episodes"]
)
def test_a_lane_that_cannot_be_rebuilt_names_the_environment(make: Any) -> None:
    made = making(make)
    answer = requests_of([LaneExecutor(made), LaneExecutor(made)], [range(N)], made, of_policy("gaussian")[1])
    assert isinstance(answer, Failed)
    assert answer.kind == "NotDeterministic"
    assert "of walk is not deterministic: an episode repeated with the seed" in answer.words


def test_an_episode_that_ends_when_it_is_repeated_is_no_episode_that_went_on() -> None:
    made = making(lambda: Walk(ends=1.0))
    lane = Lane(made, 0, BARRIER)
    with pytest.raises(NotDeterministic, match="ended where it had gone on"):
        list(lane.put(LaneRecord(0, 1, 0, 2, (np.zeros((2, 2), np.float32),), b"x" * 32)))
    lane.close()


@pytest.mark.parametrize(("make", "wide"), [(Chooser, np.int64), (Wide, np.float64)])
def test_actions_are_repeated_alike_however_wide_they_have_become(make: Any, wide: Any) -> None:
    """Programs give 32 bits; an episode that began at a request's end has kept its actions in the dtype of their space."""
    made = making(lambda: make(ends=0.0))
    lane, other = Lane(made, 0, BARRIER), Lane(made, 0, BARRIER)
    list(lane.put(LaneRecord(0, 0)))
    record = after(LaneRecord(0, 0), lane.opened(), 1)
    assert [part.shape[0] for part in record.actions or ()] == [0]
    for action in ([1, 0], [0, 1], [1, 1]):
        lane.begin()
        lane.step(np.array([action]).astype(np.int32 if wide is np.int64 else np.float32))
        record = after(record, lane.opened(), record.at + 1)
    joined = np.concatenate(record.actions or ())
    assert joined.dtype == wide
    list(other.put(record._replace(actions=(joined,))))
    lane.close()
    other.close()


@pytest.mark.parametrize("split", [[[0, 1, 2, 3, 4]], [[0, 1, 2], [3, 4]], [[0], [1], [2], [3], [4]]])
def test_of_several_faults_the_first_in_time_is_named_however_lanes_are_split(split: Any) -> None:
    makes = {0: lambda: Raising(9), 1: Walk, 2: lambda: Raising(5), 3: lambda: Raising(5), 4: lambda: Raising(7)}
    executors = []
    for lanes in split:
        waiting = [makes[lane] for lane in lanes]
        executors.append(LaneExecutor(making(lambda waiting=waiting: waiting.pop(0)())))
    answer = requests_of(executors, split, making(), of_policy("gaussian")[1], n=1)
    assert isinstance(answer, Failed)
    assert (answer.step, answer.lane) == (4, 2)
    assert answer.words.startswith("environment 2 of walk raised at step 5: ValueError: no step 5 (walks.py:")


def test_a_lane_that_failed_begins_anew_at_the_next_request() -> None:
    executor, acting = LaneExecutor(making(lambda: Raising(5))), of_policy("gaussian")[1]
    request = Request(0, BARRIER, (LaneRecord(0, 0),), (), np.ones(1, bool), np.array([0, 8], np.uint32))
    request = request._replace(carry=jax.device_get(making().behaviour.initial_carry(1)))
    first, again = executor.answer(acting, request), executor.answer(acting, request)
    assert isinstance(first, Failed)
    assert isinstance(again, Failed)
    assert (again.step, again.words) == (first.step, first.words)


def test_a_trial_shows_the_same_in_two_executors_and_not_where_the_clock_decides() -> None:
    acting = of_policy("gaussian")[1]
    here, there = LaneExecutor(making()), LaneExecutor(making())
    assert here.canary(acting) == there.canary(acting) == here.canary(acting)
    clocked = LaneExecutor(making(lambda: Clocked(2)))
    assert clocked.canary(acting) != clocked.canary(acting)
