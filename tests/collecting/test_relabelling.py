"""Rows that are made of episodes which end, against the same rows made one by one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from jumar.collecting.relabelling import CUT, Episodes, Relabelling, Steps
from jumar.envs.goals import Goals, pool_rewards
from jumar.errors import EnvironmentFault, UnsupportedEnvironment
from jumar.experience import hindsight
from jumar.experience.hindsight import Hindsight, chosen_steps

NEAR = 0.6


def near(goals: Goals) -> np.ndarray:
    return -(np.abs(goals.achieved - goals.desired).sum(axis=-1) > NEAR).astype(float)


class Walks:
    """Random rounds of T steps of N environments, in which episodes end by themselves, or are cut."""

    def __init__(self, n_envs: int, seed: int, resets: bool = False, ends: float = 0.3) -> None:
        self._n, self._draw, self._resets, self._ends, self._count = (
            n_envs,
            np.random.default_rng(seed),
            resets,
            ends,
            0,
        )
        self._over = np.zeros(n_envs, bool)

    def round(self, n_steps: int) -> Steps:
        draw, shape = self._draw, (n_steps, self._n)
        valid, over = np.ones(shape, bool), draw.random(shape) < self._ends
        if self._resets:
            for t in range(n_steps):
                valid[t] = ~self._over
                over[t] &= valid[t]
                self._over = over[t]
        number = self._count + np.arange(n_steps * self._n).reshape(shape)
        self._count += number.size
        achieved, desired = draw.normal(size=(*shape, 2)), draw.normal(size=(*shape, 2))
        seen = {
            "observation": number[..., None].astype(np.float32),
            "achieved_goal": (achieved - 1.0).astype(np.float32),
            "desired_goal": desired.astype(np.float32),
        }
        after = {**seen, "observation": seen["observation"] + 0.5, "achieved_goal": achieved.astype(np.float32)}
        terminated = over & (draw.random(shape) < 0.5)
        rewards = near(Goals(achieved, desired, []))
        fields = {
            "observations": seen,
            "actions": draw.normal(size=(*shape, 1)).astype(np.float32),
            "rewards": rewards.astype(np.float32),
            "terminated": terminated,
            "truncated": over & ~terminated,
            "successors": after,
            "valid": valid,
            "action_masks": None,
            "successor_masks": None,
            "costs": draw.random(shape).astype(np.float32),
        }
        return Steps(fields, achieved, desired, rewards, None)


def listed(chunks: list[tuple[dict[str, Any], np.int32]]) -> list[dict[str, Any]]:
    """Return the rows of chunks that count, one by one."""
    found = []
    for rows, slots in chunks:
        for place in np.ndindex(int(slots), rows["rewards"].shape[1]):
            if rows["valid"][place]:
                found.append(at(rows, place))
    return found


def at(fields: dict[str, Any], place: Any) -> dict[str, Any]:
    return {
        name: {key: part[place] for key, part in x.items()} if isinstance(x, dict) else x[place]
        for name, x in fields.items()
        if x is not None
    }


def relabelled(open_steps: list[tuple[Steps, int, int]], strategy: str, goals: int, draw: Any) -> list[dict[str, Any]]:
    """Relabel an episode by hand; ``open_steps`` are (round, t, environment) of its steps."""
    made = []
    chosen = chosen_steps(strategy, len(open_steps), goals, draw)
    for (part, t, i), others in zip(open_steps, chosen, strict=True):
        for other in others:
            there, u, j = open_steps[other]
            goal = there.achieved[u, j]
            row = at(part.fields, (t, i))
            row["rewards"] = np.float32(-0.0 if np.abs(part.achieved[t, i] - goal).sum() <= NEAR else -1.0)
            for name in ("observations", "successors"):
                row[name] = {**row[name], "desired_goal": goal.astype(np.float32)}
            made.append(row)
    return made


def assert_same(found: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    assert len(found) == len(expected)
    for mine, theirs in zip(found, expected, strict=True):
        assert mine.keys() == theirs.keys()
        for name, value in theirs.items():
            np.testing.assert_equal(mine[name], value, err_msg=name)


@pytest.mark.parametrize("strategy", ["future", "final", "episode"])
@pytest.mark.parametrize(("n_envs", "n_steps", "resets"), [(1, 1, False), (3, 2, False), (2, 3, True)])
def test_rows_are_those_that_are_made_by_hand(strategy: str, n_envs: int, n_steps: int, resets: bool) -> None:
    walks, relabelling = Walks(n_envs, 0, resets), Relabelling(Hindsight(strategy, 2), n_envs, "walks")
    episodes = Episodes.none(n_envs)
    under_way: list[list[tuple[Steps, int, int]]] = [[] for _ in range(n_envs)]
    found: list[dict[str, Any]] = []
    expected: list[dict[str, Any]] = []
    for number in range(12):
        steps, draw = walks.round(n_steps), np.random.default_rng((5, number))
        for t, i in np.ndindex(n_steps, n_envs):
            if steps.fields["valid"][t, i]:
                under_way[i].append((steps, t, i))
                if steps.fields["terminated"][t, i] | steps.fields["truncated"][t, i]:
                    expected += relabelled(under_way[i], strategy, 2, draw)
                    under_way[i] = []
        before = episodes
        episodes, chunks = relabelling.after(episodes, steps, (5, number), near)
        found += listed(chunks)
        assert len(expected) - n_envs < len(found) <= len(expected)  # what fills no slot waits
        if number == 6:  # from what was held before, the round can be done again
            assert_same(listed(relabelling.after(before, steps, (5, number), near)[1]), listed(chunks))
    draw = np.random.default_rng((5, 11, CUT))
    for one in under_way:
        expected += relabelled(one, strategy, 2, draw) if one else []
    episodes, chunks = relabelling.cut(episodes, near)
    found += listed(chunks)
    assert len(expected) > 20
    assert_same(found, expected)
    assert relabelling.cut(episodes, near)[1] == []


def test_a_long_episode_is_relabelled_in_stretches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jumar.collecting.relabelling.LONGEST", 6)
    walks, relabelling = Walks(2, 1, ends=0.0), Relabelling(Hindsight("final", 1), 2, "walks")
    episodes, found = Episodes.none(2), []
    for number in range(7):
        steps = walks.round(2)
        episodes, chunks = relabelling.after(episodes, steps, (number,), near)
        found.append(len(listed(chunks)))
        assert sum(len(part.rewards) for part in episodes.steps) < 6
    assert found == [0, 0, 12, 0, 0, 12, 0]
    assert hindsight.LONGEST == 1000


def test_what_came_late_is_neutral_before() -> None:
    """A mask of actions that an environment begins to give in the middle of an episode allows everything before."""
    walks, relabelling = Walks(1, 2, ends=0.0), Relabelling(Hindsight("final", 1), 1, "walks")
    first, second = walks.round(1), walks.round(1)
    second.fields["action_masks"] = np.array([[[True, False]]])
    episodes, _ = relabelling.after(Episodes.none(1), first, (1,), near)
    episodes, _ = relabelling.after(episodes, second, (2,), near)
    _, chunks = relabelling.cut(episodes, near)
    masks = [row["action_masks"].tolist() for row in listed(chunks)]
    assert masks == [[True, True], [True, False]]


@pytest.mark.parametrize(
    ("rewards_of", "kind", "said"),
    [
        (lambda goals: near(goals) - 0.5, UnsupportedEnvironment, "gave the reward .* depends on more than the goals"),
        (lambda goals: near(goals)[:-1], EnvironmentFault, r"returned an array of shape \(8,\) for 9 goals"),
        (lambda goals: -1.0, EnvironmentFault, r"returned an array of shape \(\) for 9 goals"),
        (lambda goals: np.full(9, np.nan), EnvironmentFault, "returned nan, which is not finite"),
        (lambda goals: ["far"] * 9, EnvironmentFault, "returned .*, which is no array of numbers"),
    ],
)
def test_rewards_that_are_none_or_others_than_the_steps_had_are_refused(
    rewards_of: Callable[[Goals], Any], kind: type[Exception], said: str
) -> None:
    walks, relabelling = Walks(1, 3, ends=0.0), Relabelling(Hindsight("future", 2), 1, "walks")
    episodes = Episodes.none(1)
    for number in range(3):
        episodes, _ = relabelling.after(episodes, walks.round(1), (number,), near)
    with pytest.raises(kind, match=said):
        relabelling.cut(episodes, rewards_of)


def test_formulas_of_pools_are_those_of_gymnasium_robotics() -> None:
    goals = Goals(np.array([[0.0, 0.0], [0.0, 0.0], [3.0, 4.0]]), np.array([[0.0, 0.05], [0.0, 0.06], [3.0, 4.44]]), [])
    fetch = {"reward_type": "sparse", "distance_threshold": 0.05}
    of = {
        name: pool_rewards(name, settings)
        for name, settings in [
            ("FetchPush-v4", fetch),
            ("HandReachDense-v3", {**fetch, "reward_type": "dense"}),
            ("PointMaze_UMaze-v3", {"reward_type": "sparse"}),
            ("PointMaze_OpenDense-v3", {"reward_type": "dense"}),
        ]
    }
    expected = [[0, -1, -1], [-0.05, -0.06, -0.44], [1, 1, 1], np.exp([-0.05, -0.06, -0.44])]
    for rewards, values in zip(of.values(), expected, strict=True):
        assert rewards is not None
        np.testing.assert_allclose(rewards(goals), values, atol=1e-9)
    assert pool_rewards("HandManipulateBlock-v1", fetch) is None
