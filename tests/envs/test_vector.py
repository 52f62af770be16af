"""A user's vector environment in each of Gymnasium's autoreset modes gives the same experience as one process does."""

from __future__ import annotations

from typing import Any

import faulty
import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv

from jumar.envs.host import HostEnvironments, HostStep, SerialEnvironments
from jumar.envs.step_costs import VelocityCost
from jumar.envs.vector import VectorAdapter
from jumar.errors import EnvironmentFault, UsageError

SEEDS = [3, 4, 5]


class Walk(faulty.Walk):
    # Gymnasium keeps the last observation without copying it, so that here the buffer must not be returned itself.
    def observe(self, action: Any) -> Any:
        return super().observe(action).copy()


def experience(envs: HostEnvironments, action: Any, steps: int) -> list[list[Any]]:
    """Return each environment's valid rows: what was acted on, what followed, what it paid, and how it went on."""
    observations, masks = envs.reset(SEEDS)
    rows: list[list[Any]] = [[] for _ in SEEDS]
    for _ in range(steps):
        result = envs.step(np.array([action] * len(SEEDS)))
        for i in map(int, np.flatnonzero(result.valid)):
            mask = None if masks is None else masks[i].tolist()
            cost = 0.0 if result.costs is None else result.costs[i]
            outcome = (float(result.rewards[i]), bool(result.terminated[i]), bool(result.truncated[i]), cost, mask)
            rows[i].append((row_of(observations, i), row_of(result.successors, i), outcome))
        observations, masks = result.observations, result.action_masks
    return rows


def row_of(batch: Any, row: int) -> Any:
    if isinstance(batch, dict):
        return {key: row_of(child, row) for key, child in batch.items()}
    return tuple(row_of(child, row) for child in batch) if isinstance(batch, tuple) else batch[row].tolist()


@pytest.mark.parametrize("mode", list(AutoresetMode))
@pytest.mark.parametrize(("make", "action"), [(lambda: Walk(ends=3), 1), (faulty.Rich, [0, 0])])
def test_every_mode_gives_the_experience_of_one_process(mode: AutoresetMode, make: Any, action: Any) -> None:
    steps = 20
    adapter = VectorAdapter(SyncVectorEnv([make] * 3, autoreset_mode=mode))
    serial = SerialEnvironments([make] * 3)
    found, expected = experience(adapter, action, steps), experience(serial, action, steps)
    for own, other in zip(found, expected, strict=True):
        assert len(own) == steps if mode is not AutoresetMode.NEXT_STEP else steps > len(own) > steps / 2
        assert own == other[: len(own)]
        assert make is not faulty.Rich or all(mask is not None for _, _, (*_, mask) in own)


def test_next_step_marks_the_row_after_an_end() -> None:
    adapter = VectorAdapter(SyncVectorEnv([lambda: Walk(ends=2)]))
    adapter.reset([0])
    rows = [adapter.step([0]) for _ in range(6)]
    assert [bool(row.terminated[0]) for row in rows] == [False, True, False] * 2
    assert [bool(row.valid[0]) for row in rows] == [True, True, False] * 2
    assert rows[2].rewards[0] == 0
    adapter.reset([0])
    adapter.step([0])
    adapter.step([0])
    adapter.reset([0])
    assert adapter.step([0]).valid.all()  # the reset of all has also ended the episode that was about to be reset


def test_two_modes_of_one_class_are_told_apart() -> None:
    # Gymnasium writes the mode into metadata that belongs to the environment's class.
    first = SyncVectorEnv([Walk], autoreset_mode=AutoresetMode.SAME_STEP)
    SyncVectorEnv([Walk], autoreset_mode=AutoresetMode.NEXT_STEP)
    adapter = VectorAdapter(first)
    adapter.reset([0])
    for _ in range(6):
        assert adapter.step([0]).valid.all()


def test_an_undeclared_mode_is_refused() -> None:
    class Undeclared(SyncVectorEnv):
        def __init__(self) -> None:
            super().__init__([lambda: gym.make("CartPole-v1")])
            self.autoreset_mode = None  # type: ignore[assignment]
            self.metadata = {}

    with pytest.raises(UsageError, match=r"metadata\['autoreset_mode'\].*it says None"):
        VectorAdapter(Undeclared())


def test_a_missing_final_observation_is_a_fault() -> None:
    class Forgetful(SyncVectorEnv):
        def step(self, actions: Any) -> Any:
            *rest, infos = super().step(actions)
            infos.pop("final_obs", None)
            return *rest, infos

    adapter = VectorAdapter(Forgetful([lambda: Walk(ends=2)], autoreset_mode=AutoresetMode.SAME_STEP), "x")
    adapter.reset([0])
    adapter.step([0])
    with pytest.raises(
        EnvironmentFault, match=r"environment 0 of x ended an episode at step 2 without info\['final_obs"
    ):
        adapter.step([0])


def test_a_foreign_cost_counts_as_none_and_is_complained_of() -> None:
    adapter = VectorAdapter(SyncVectorEnv([faulty.Walk, lambda: faulty.Faulty("bad cost", at=1)]), "x")
    adapter.reset([0, 1])
    step = adapter.step([0, 0])
    assert step.costs is None
    assert step.complaint == "environment 1 of x gave a cost at step 1 that is nan, not a finite number."


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("nan", r"environment 1 of x returned a bad observation at step 3: \[1\] is nan"),
        ("inf reward", "environment 1 of x returned a bad reward at step 3: inf"),
        ("no mask", "environment 1 of x gave an action mask at step 3 that allows no action"),
        ("raise", r"^x raised at step 3: ValueError: boom \(faulty.py:\d+\)"),
    ],
)
def test_faults_are_named(fault: str, words: str) -> None:
    makers = [lambda: faulty.Faulty(fault, at=-1), lambda: faulty.Faulty(fault, at=3)]
    adapter = VectorAdapter(SyncVectorEnv(makers), "x")
    adapter.reset([0, 1])
    adapter.step([0, 0])
    adapter.step([0, 0])
    with pytest.raises(EnvironmentFault, match=words):
        adapter.step([0, 0])


class Foreign(VectorEnv):
    """Two environments whose step returns other values in some places: by index, of a list where ``kind`` is one."""

    num_envs = 2
    single_observation_space = faulty.Walk.observation_space
    single_action_space = faulty.Walk.action_space

    def __init__(self, changes: dict[int, Any], kind: type = tuple) -> None:
        self.metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP}
        self.changes, self.kind = changes, kind

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        return np.zeros((2, 3), np.float32), {}

    def step(self, actions: Any) -> Any:
        values = [np.zeros((2, 3), np.float32), np.ones(2), np.zeros(2, bool), np.zeros(2, bool), {}]
        return self.kind(self.changes.get(i, value) for i, value in enumerate(values))


def step_of(changes: dict[int, Any], kind: type = tuple, keep: bool = False, **options: Any) -> HostStep:
    adapter = VectorAdapter(Foreign(changes, kind), "x", **options)
    adapter.keep_infos(keep)
    adapter.reset([0, 1])
    return adapter.step([0, 0])


def test_five_values_may_be_a_list_and_flags_numbers() -> None:
    step = step_of({2: [0, 1.0], 3: np.array([1, 0])}, list)
    assert step.terminated.tolist() == [False, True]
    assert step.truncated.tolist() == [True, False]


OF_TWO = "not an array with an entry for each of the 2 environments"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({1: 1.0}, r"x returned a bad reward at step 1: float 1\.0, not a number for each of the 2 environments\."),
        ({1: None}, "x returned a bad reward at step 1: NoneType None, not a number for each"),
        ({1: [1.0, "a"]}, "environment 1 of x returned a bad reward at step 1: str 'a', which is not a number"),
        ({2: None}, f"x gave a terminated at step 1 that is None, {OF_TWO}"),
        (
            {2: np.array([2, 0])},
            "environment 0 of x gave a terminated at step 1 that is (np.int64.)?2.?, not true or false",
        ),
        ({3: np.zeros(3, bool)}, f"x gave a truncated at step 1 that is .*, {OF_TWO}"),
        ({4: None}, "x gave an info at step 1 that is no dict but NoneType None"),
        ({4: [{}, {}]}, r"x gave an info at step 1 that is no dict but list \[{}, {}\]"),
        ({4: {"action_mask": [[1, 0, 0]]}}, rf"x gave an action mask at step 1 that is \[\[1, 0, 0\]\], {OF_TWO}"),
        ({4: {"action_mask": 1}}, f"x gave an action mask at step 1 that is 1, {OF_TWO}"),
        ({4: {"action_mask": np.ones((2, 3)), "_action_mask": 1}}, rf"x gave an info\['_action_mask'\] .* 1, {OF_TWO}"),
    ],
)
def test_malformed_returns_are_named(changes: dict[int, Any], words: str) -> None:
    with pytest.raises(EnvironmentFault, match="^" + words):
        step_of(changes)


@pytest.mark.parametrize("cost", [{"a": 1.0}, 1.0, [1.0]])
def test_entries_that_are_not_of_each_environment_are_complained_of(cost: Any) -> None:
    step = step_of({4: {"cost": cost}}, log=["cost"])
    assert step.costs is None
    assert step.complaint == f"x gave a cost at step 1 that is {cost}, {OF_TWO}."
    assert step.info_complaints == {"cost": f"x gave an info['cost'] at step 1 that is {cost}, {OF_TWO}."}
    with pytest.raises(EnvironmentFault, match=r"x gave an x_velocity at step 1 that is .* each of the 2"):
        step_of({4: {"x_velocity": cost}}, cost=VelocityCost(1.0))


def test_whole_infos_are_of_each_environment() -> None:
    infos = {"a": np.array([1, 2]), "_b": np.array([False, True]), "b": {"c": [3, 4]}, 5: ("x", "y")}
    step = step_of({4: infos}, keep=True)
    assert step.whole_infos == [{"a": 1, 5: "x"}, {"a": 2, "b": {"c": 4}, 5: "y"}]
    with pytest.raises(EnvironmentFault, match=rf"x gave an info\['t'\] at step 1 that is 3, {OF_TWO}"):
        step_of({4: {"t": 3}}, keep=True)
