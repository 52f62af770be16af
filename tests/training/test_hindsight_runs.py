"""Whole trainings in hindsight: what changes no result, what is learnt that cannot be without, and what is refused."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from goals import BitFlipping, Reach
from gymnasium import spaces
from jax.flatten_util import ravel_pytree

import jumar
from jumar.cli import main
from jumar.envs.vector import VectorAdapter
from jumar.errors import EnvironmentFault, UsageError
from jumar.runs.datasets import read_dataset
from jumar.training.data import interrupted

SETTINGS: dict[str, Any] = {
    "net_arch": (8,),
    "batch_size": 16,
    "buffer_size": 700,
    "learning_starts": 10,
    "log_every": 60,
    "n_envs": 3,
    "goal_selection_strategy": "future",
    "n_sampled_goal": 3,
}


def short() -> gym.Env[Any, Any]:
    return Reach(limit=7, ends=True)


def made(env: Any = short, **settings: Any) -> Any:
    return jumar.SAC(env, **{**SETTINGS, **settings})


def numbers(agent: Any) -> np.ndarray:
    learner = agent._training.learner
    return np.asarray(ravel_pytree((learner.parameters, learner.solver))[0], np.float64)


def rows_of(agent: Any) -> np.ndarray:
    """Return all rows of the memory that can be drawn, oldest first."""
    training = agent._training
    kept = min(training.slots, training.buffer.replay.slots)
    return np.concatenate(training.buffer.rows(training.held.memory, training.slots - kept, kept)["rows"])


# -- what changes no result -------------------------------------------------------------------------------------------


def test_neither_lines_of_the_log_nor_workers_change_a_result_and_saving_neither(tmp_path: Path) -> None:
    """Of episodes of different lengths, in a buffer that forgets; a loaded agent goes on as one that was not saved."""
    agents = [made(log_every=n).learn(180) for n in (60, 15)]
    np.testing.assert_array_equal(numbers(agents[0]), numbers(agents[1]))
    np.testing.assert_array_equal(rows_of(agents[0]), rows_of(agents[1]))
    agents[0].save(tmp_path / "saved")
    loaded = jumar.load(tmp_path / "saved", env=short)
    np.testing.assert_array_equal(rows_of(loaded), rows_of(agents[0]))
    for agent in (loaded, agents[0]):
        agent.learn(60)
    np.testing.assert_array_equal(numbers(loaded), numbers(agents[0]))
    np.testing.assert_array_equal(rows_of(loaded), rows_of(agents[0]))
    assert agents[0]._training.slots > agents[0]._training.buffer.replay.slots


def test_every_step_is_remembered_once_as_it_was_and_k_times_with_goals_of_its_episode() -> None:
    """And updates, the steps at the beginning and the normaliser count steps alone."""
    agent = made(buffer_size=3000, gradient_steps=-1, normalize_observations=True)
    counts: list[Any] = []
    agent.learn(180, callback=lambda metrics: counts.append((metrics["train/n_updates"], metrics["replay/size"])))
    rows = rows_of(agent)
    columns = agent._training.buffer.replay.columns
    rows = rows[rows[:, columns.column("valid")] > 0.0]
    real, other = rows[rows[:, -1] == 0.0], rows[rows[:, -1] == 1.0]
    assert (len(real), len(other)) == (180, 540)
    # achieved, desired and own observation come in the order of the space's names
    names = [leaf.path[0] for leaf in columns.leaves]
    place = {name: 2 * names.index(name) for name in names}
    after = columns.others + 5
    achieved, desired = (
        (slice(begin + place[name], begin + place[name] + 2))
        for begin, name in ((after, "achieved_goal"), (0, "desired_goal"))
    )
    reward = columns.column("reward")
    for some in (real, other):
        distance = np.linalg.norm(some[:, achieved].astype(float) - some[:, desired], axis=-1)
        sure = np.abs(distance - 0.1) > 1e-6
        np.testing.assert_array_equal(some[sure, reward], -(distance[sure] > 0.1).astype(float))
        np.testing.assert_array_equal(
            some[:, desired], some[:, after + place["desired_goal"] : after + place["desired_goal"] + 2]
        )
    known = {tuple(goal) for goal in real[:, achieved]}
    assert {tuple(goal) for goal in other[:, desired]} <= known
    assert np.mean(other[:, reward] == 0.0) > 0.2 > np.mean(real[:, reward] == 0.0)
    assert float(agent._training.learner.observation_moments.count) == pytest.approx(180, abs=1.0)
    assert [updates for updates, _ in counts] == [51, 111, 171]  # each round of 3 steps but those of the first 10
    assert counts[-1][1] <= 720


def test_what_a_run_did_is_saved_without_what_was_relabelled(tmp_path: Path, capsys: Any) -> None:
    words = ["train", "sac", "goals:Reach-v0", "--env-kwargs", "limit=7", "--total-timesteps", "120", "--n-envs", "2"]
    words += ["--goal-selection-strategy", "final", "--net-arch", "8", "--batch-size", "8", "--learning-starts", "100"]
    words += ["--eval-every", "0", "--log-every", "40", "--workers", "0", "--buffer-size", "1000"]
    assert main([*words, "--run-dir", str(tmp_path / "run"), "--save-dataset", str(tmp_path / "data")]) == 0
    data, _ = read_dataset(tmp_path / "data")
    assert len(data) == 120
    assert not interrupted(data).any()
    assert data.truncated.sum() == 2 * 9  # 8 episodes of 7 steps and one of 4 that the end cut, in each environment
    assert set(data.observations) == {"observation", "achieved_goal", "desired_goal"}
    # Stored steps are learnt from as they are, and what is done on top of them is relabelled.
    assert main([*words, "--run-dir", str(tmp_path / "next"), "--prefill", str(tmp_path / "data"), "--json"]) == 0
    size = [json.loads(line)["replay/size"] for line in (tmp_path / "next" / "metrics.jsonl").read_text().splitlines()]
    assert size[0] > 120
    assert main([*words[:3], "--dataset", str(tmp_path / "data"), "--goal-selection-strategy", "final"]) == 2
    assert "goal_selection_strategy=final relabels the steps of episodes" in capsys.readouterr().err
