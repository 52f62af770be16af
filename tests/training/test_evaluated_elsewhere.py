"""Evaluating a run that learnt without an environment: in one that is made as the command says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from jumar.cli import main
from jumar.envs.registry import is_unprepared_game, resolve
from jumar.errors import UsageError
from jumar.runs.datasets import Dataset, write_dataset
from jumar.training.plan import Plan
from jumar.training.resolve import Making, with_environment


@pytest.fixture(scope="module")
def offline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of a policy that has seen two frames of CartPole at once, in a data set."""
    folder = tmp_path_factory.mktemp("offline")
    rng = np.random.default_rng(0)
    rows, none = rng.normal(size=(16, 2, 4)).astype(np.float32), np.zeros(16, bool)
    space: Any = gym.make("CartPole-v1").observation_space
    stacked = gym.spaces.Box(np.stack([space.low] * 2), np.stack([space.high] * 2), dtype=np.float32)
    actions = rng.integers(0, 2, 16)
    data = Dataset(rows, actions, np.ones(16, np.float32), rows, none, none, (stacked, gym.spaces.Discrete(2)))
    write_dataset(folder / "rows.safetensors", data)
    words = ["--total-timesteps", "4", "--net-arch", "4", "--batch-size", "8", "--quiet"]
    assert (
        main(["train", "bc", "--dataset", str(folder / "rows.safetensors"), "--run-dir", str(folder / "run"), *words])
        == 0
    )
    return folder / "run"


def plan_of(run: Path) -> Plan:
    return Plan.from_json(json.loads((run / "config.json").read_text()))


def test_the_environment_is_made_as_the_command_says(offline: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["evaluate", str(offline), "--episodes", "2", "--env", "gymnasium/CartPole-v1", "--json"]
    assert main(words) == 2
    assert "but the policy was trained with 2 x 4 numbers" in json.loads(capsys.readouterr().out)["error"]
    made = ["--frame-stack", "2", "--env-kwargs", "sutton_barto_reward=true", "max_episode_steps=7"]
    assert main([*words, *made]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["episodes"] == 2
    assert set(answer["returns"]) <= {0.0, -1.0}, "rewards are those that were asked for"
    assert answer["mean_length"] <= 7


def test_a_game_is_prepared_where_that_is_asked_for(offline: Path) -> None:
    pytest.importorskip("envpool")
    plan = plan_of(offline)
    found = with_environment(plan, "envpool/Pong-v5", making=Making(atari=True)).environment
    assert found is not None
    assert found.atari
    assert not is_unprepared_game(found)
    assert is_unprepared_game(resolve("envpool/Pong-v5"))
    assert not is_unprepared_game(resolve("jax/CartPole-v1"))
    with pytest.raises(UsageError, match="is not an Atari game that --atari prepares"):
        with_environment(plan, "jax/CartPole-v1", making=Making(atari=True))


@pytest.mark.parametrize(
    ("making", "option"),
    [(Making(atari=True), "--atari"), (Making(frame_stack=2), "--frame-stack"), (Making({"g": 1.0}), "--env-kwargs")],
)
def test_what_makes_no_environment_is_refused(making: Making, option: str, offline: Path) -> None:
    plan: Any = plan_of(offline)
    with pytest.raises(UsageError, match=f"{option} says how an environment is made; give --env ENV with it"):
        with_environment(plan, None, making=making)
    with_one = with_environment(plan, "jax/Pendulum-v1")
    with pytest.raises(
        UsageError, match=f"{option} is for runs that learnt from stored transitions without an environment"
    ):
        with_environment(with_one, None, making=making)
