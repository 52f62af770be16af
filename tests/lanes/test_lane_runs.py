"""Runs with lanes, in this process: exact resume, files, and what is refused."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import gymnasium as gym
import jax
import numpy as np
import pytest
from goals import Reach
from gymnasium.vector import SyncVectorEnv
from walks import Clocked, Walk

import jumar
from jumar.cli import main
from jumar.errors import EnvironmentFault, UsageError

SMALL = ["--net-arch", "8", "--eval-every", "0", "--quiet"]
PPO = ["ppo", "walks:LaneWalk-v0", "--n-envs", "3", "--n-steps", "16", "--n-epochs", "1", "--batch-size", "16", *SMALL]
TD3 = [
    "td3",
    "walks:LaneWalk-v0",
    "--n-envs",
    "3",
    "--log-every",
    "48",
    "--learning-starts",
    "30",
    "--batch-size",
    "8",
    *SMALL,
]
TD3 += ["--action-noise", "ou:0.1", "--buffer-size", "200"]
CASES = {
    "recurrent": [*PPO, "--recurrent", "gru", "--recurrent-size", "4", "--normalize-observations"],
    "off-policy": TD3,
}


def jumar_says(*words: Any) -> tuple[int, dict[str, Any]]:
    """Run the command in this process; return its exit code and what ``--json`` prints."""
    output = io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(io.StringIO()):
        code = main([*map(str, words), "--json"])
    return code, json.loads(output.getvalue().splitlines()[-1])


def done(*words: Any) -> dict[str, Any]:
    code, answer = jumar_says(*words)
    assert code == 0, answer
    return answer


def policy(run: Path) -> bytes:
    return (run / "policy.safetensors").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("case", ["recurrent", "off-policy"])
def test_a_run_with_lanes_that_goes_on_later_ends_as_one_never_stopped(case: str, tmp_path: Path) -> None:
    words = [*CASES[case], "--runners", "0", "--checkpoint-every", "144"]
    done("train", *words, "--total-timesteps", "432", "--run-dir", tmp_path / "whole")
    done("train", *words, "--total-timesteps", "288", "--run-dir", tmp_path / "parts")
    done("resume", tmp_path / "parts", "--env", words[1], "--total-timesteps", "432", "--runners", "0")
    metrics = [(tmp_path / name / "metrics.jsonl").read_text().splitlines() for name in ("whole", "parts")]
    assert len(metrics[0]) == len(metrics[1])
    config = json.loads((tmp_path / "whole" / "config.json").read_text())
    assert config["lanes"] is True
    assert config["environment"]["backend"] == "gymnasium"
    assert "\nrunners = 0\n" in (tmp_path / "whole" / "config.toml").read_text()
    assert policy(tmp_path / "parts") == policy(tmp_path / "whole")
    done("train", words[0], words[1], "--like", tmp_path / "whole", "--run-dir", tmp_path / "again", "--quiet")
    assert policy(tmp_path / "again") == policy(tmp_path / "whole")


def test_without_runners_nothing_of_a_run_says_so(tmp_path: Path) -> None:
    done("train", *PPO, "--workers", "0", "--total-timesteps", "48", "--run-dir", tmp_path / "plain")
    assert json.loads((tmp_path / "plain" / "config.json").read_text())["lanes"] is False
    assert "\nrunners" not in (tmp_path / "plain" / "config.toml").read_text()
    code, answer = jumar_says(
        "resume", tmp_path / "plain", "--env", PPO[1], "--total-timesteps", "96", "--runners", "0"
    )
    assert code == 2
    assert "was begun without lanes, and runners would change its result" in answer["error"]


@pytest.mark.slow
def test_hindsight_in_lanes_relabels_what_they_return(tmp_path: Path) -> None:
    def short() -> gym.Env[Any, Any]:
        return Reach(limit=7, ends=True)

    settings: dict[str, Any] = {
        "net_arch": (8,),
        "batch_size": 16,
        "buffer_size": 700,
        "learning_starts": 10,
        "log_every": 60,
    }
    settings |= {"n_envs": 3, "goal_selection_strategy": "future", "n_sampled_goal": 3}
    agent = jumar.SAC(short, runners=0, **settings).learn(240)
    again = jumar.SAC(short, runners=0, **settings).learn(240)
    jax.tree.map(np.testing.assert_array_equal, agent._training.held.memory, again._training.held.memory)
    assert agent._training.slots > 240 / 3, "there are relabelled rows beside the steps"
    agent.close()
    again.close()


def test_logged_entries_and_costs_come_from_all_lanes(tmp_path: Path) -> None:
    words = ["ppo", "walks:LaneChooser-v0", *PPO[2:], "--log-info", "height", "--total-timesteps", "96"]
    done("train", *words, "--runners", "0", "--run-dir", tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert all(abs(line["info/height"]) < 3 for line in lines)
    assert "rollout/ep_cost_mean" in lines[-1]


def test_an_environment_that_is_seeded_by_the_clock_is_named_before_anything_is_learnt() -> None:
    agent = jumar.PPO(lambda: Clocked(3), runners=0, n_envs=2, n_steps=16, batch_size=16, net_arch=(8,))
    with pytest.raises(
        EnvironmentFault, match=r"is not deterministic: two episodes with the same seed and the same policy"
    ):
        agent.learn(64)
    assert agent.num_timesteps == 0
    agent.close()


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["ppo", "jax/CartPole-v1", "--runners", "2"], "runners=2, but jax/CartPole-v1 is a compiled environment"),
        (["ppo", "envpool/CartPole-v1", "--runners", "0"], "envpool/CartPole-v1 steps all copies together"),
        (["ppo", "gymnasium/CartPole-v1", "--runners", "9", "--n-envs", "8"], "there are only n_envs=8 environments"),
        (["ppo", "gymnasium/CartPole-v1", "--address", "127.0.0.1:6379"], "says where runners are; say how many"),
        (["ppo", "gymnasium/CartPole-v1", "--runners", "-1"], "--runners"),
        (["ppo", "gymnasium/CartPole-v1", "--n-envs", "2", "--runners", "2", "--address", "a"], "'a' is not HOST:PORT"),
    ],
)
def test_what_cannot_be_lanes_is_refused(words: list[str], error: str, tmp_path: Path) -> None:
    code, answer = jumar_says("train", *words, "--preset", "none", "--run-dir", tmp_path / "run")
    assert code == 2
    assert error in answer["error"]
    assert not (tmp_path / "run").exists()


def test_live_objects_cannot_be_lanes() -> None:
    for env in (Walk(), SyncVectorEnv([Walk] * 2)):
        with pytest.raises(UsageError, match=r"runners=0, but .* is one live object"):
            jumar.PPO(env, runners=0, n_steps=16, batch_size=16)
    with pytest.raises(UsageError, match="says where runners are"):
        jumar.PPO(Walk, address="127.0.0.1:6379")


def test_an_agent_with_lanes_that_is_loaded_learns_as_the_one_that_was_saved(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"n_envs": 2, "n_steps": 16, "batch_size": 16, "net_arch": (8,)}
    agent = jumar.PPO(Walk, runners=0, **settings).learn(64)
    agent.save(tmp_path / "saved")
    loaded = jumar.load(tmp_path / "saved", Walk, runners=0)
    assert loaded._training.plan.lanes
    here, there = (x.learn(64).actor().parameters for x in (agent, loaded))
    jax.tree.map(np.testing.assert_array_equal, here, there)
    plain = jumar.PPO(Walk, **settings)
    plain.save(tmp_path / "plain")
    with pytest.raises(UsageError, match="was begun without lanes"):
        jumar.load(tmp_path / "plain", Walk, runners=0)
    for each in (agent, loaded, plain):
        each.close()
