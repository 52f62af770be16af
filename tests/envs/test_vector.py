"""A user's vector environment in each of Gymnasium's autoreset modes gives the same experience as one process does."""

from __future__ import annotations

from typing import Any

import faulty
import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from jumar.envs.host import HostEnvironments, SerialEnvironments
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
        # Vector environments have no action_masks(); costs and all else must agree.
        assert [(a, b, outcome[:4]) for a, b, outcome in own] == [
            (a, b, outcome[:4]) for a, b, outcome in other[: len(own)]
        ]


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
