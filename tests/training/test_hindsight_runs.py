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
from jumar.envs.goals import Goals
from jumar.envs.host import SerialEnvironments
from jumar.envs.vector import VectorAdapter
from jumar.errors import EnvironmentFault, UsageError
from jumar.runs.datasets import read_dataset
from jumar.training.checks.findings import Findings
from jumar.training.checks.goal_rewards import check_goal_rewards
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


@pytest.mark.slow
def test_neither_lines_of_the_log_nor_saving_change_a_result(tmp_path: Path) -> None:
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
    moments = agent._training.learner.observation_moments
    assert float(moments.rows) == pytest.approx(180, abs=1.0)
    assert [updates for updates, _ in counts] == [51, 111, 171]  # each round of 3 steps but those of the first 10
    assert counts[-1][1] <= 720


@pytest.mark.slow
def test_what_a_run_did_is_saved_without_what_was_relabelled(tmp_path: Path, capsys: Any) -> None:
    words = ["train", "sac", "goals:Reach-v0", "--env-kwargs", "limit=7", "--total-timesteps", "120", "--n-envs", "2"]
    words += ["--goal-selection-strategy", "final", "--net-arch", "8", "--batch-size", "8", "--learning-starts", "100"]
    words += ["--eval-every", "0", "--log-every", "40", "--workers", "0", "--buffer-size", "60"]
    assert main([*words, "--run-dir", str(tmp_path / "run"), "--save-dataset", str(tmp_path / "data")]) == 0
    data, _ = read_dataset(tmp_path / "data")
    assert len(data) == 120  # of which the buffer holds 60 rows, most of them relabelled
    assert not interrupted(data).any()
    assert data.truncated.sum() == 2 * 9  # 8 episodes of 7 steps and one of 4 that the end cut, in each environment
    assert set(data.observations) == {"observation", "achieved_goal", "desired_goal"}
    # Stored steps are learnt from as they are, and what is done on top of them is relabelled.
    words[-1] = "1000"
    assert main([*words, "--run-dir", str(tmp_path / "next"), "--prefill", str(tmp_path / "data"), "--json"]) == 0
    size = [json.loads(line)["replay/size"] for line in (tmp_path / "next" / "metrics.jsonl").read_text().splitlines()]
    assert size[0] > 120
    assert main([*words[:3], "--dataset", str(tmp_path / "data"), "--goal-selection-strategy", "final"]) == 2
    assert "goal_selection_strategy=final relabels the steps of episodes" in capsys.readouterr().err


KILLED = """
import os, signal, sys
from jumar.training.keeper import Files

seen, last = 0, int(sys.argv[1])
iteration = Files.iteration

def killed(*arguments):
    global seen
    iteration(*arguments)
    seen += 1
    if seen == last:
        os.kill(os.getpid(), signal.SIGKILL)

Files.iteration = killed
from jumar.cli import main
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "extra", [["--workers", "2", "--copy-info-dict", "true"], ["--normalize-observations", "true"]]
)
def test_a_killed_run_goes_on_to_the_same_policy(extra: list[str], tmp_path: Path) -> None:
    """Killed after three iterations of six, after a barrier in the middle of episodes; and steps in other processes."""
    words = [
        "sac",
        "goals:Reach-v0",
        "--env-kwargs",
        "limit=13",
        "ends=true",
        "--total-timesteps",
        "360",
        "--n-envs",
        "3",
    ]
    words += ["--goal-selection-strategy", "future", "--net-arch", "8", "--batch-size", "16", "--learning-starts", "10"]
    words += [
        "--log-every",
        "60",
        "--checkpoint-every",
        "120",
        "--eval-every",
        "180",
        "--eval-episodes",
        "1",
        "--quiet",
    ]
    words += ["--buffer-size", "900"]
    assert main(["train", *words, "--workers", "0", *extra, "--run-dir", str(tmp_path / "whole")]) == 0
    command = [sys.executable, "-c", KILLED, "3", "train", *words, *extra, "--run-dir", str(tmp_path / "killed")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    assert subprocess.run(command, env=environment, check=False).returncode == -signal.SIGKILL
    assert main(["resume", str(tmp_path / "killed"), "--env", "goals:Reach-v0"]) == 0
    whole, killed = ((tmp_path / run / "policy.safetensors").read_bytes() for run in ("whole", "killed"))
    assert whole == killed


# -- what is learnt ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_bits_are_flipped_to_what_is_desired_with_hindsight_and_not_without() -> None:
    """Of 8 bits half differ at the beginning: the best mean return is near -3. Without a reward nothing is learnt: -8."""
    settings: dict[str, Any] = {"net_arch": (64, 64), "learning_starts": 200, "batch_size": 128, "learning_rate": 1e-3}
    settings |= {"gamma": 0.95, "ent_coef": 0.05, "target_update_interval": 50, "buffer_size": 50_000}
    means = []
    for strategy in ("future", None):
        agent = jumar.SQL(BitFlipping, seed=0, goal_selection_strategy=strategy, **settings).learn(4000)
        means.append(jumar.evaluate_policy(agent, BitFlipping, n_eval_episodes=50)[0])
    assert means[0] > -4.0
    assert means[1] < -6.5


@pytest.mark.slow
@pytest.mark.parametrize("method", [jumar.DDPG, jumar.TD3, jumar.SAC])
def test_a_point_reaches_its_goal_with_hindsight(method: Any) -> None:
    """It moves by a tenth at most, so it is some 7 steps away from its goal: a mean return of about -7, of -20 at worst."""
    noise: dict[str, Any] = {} if method is jumar.SAC else {"action_noise": "normal:0.2"}
    settings: dict[str, Any] = {"net_arch": (64, 64), "learning_starts": 200, "batch_size": 128, "learning_rate": 1e-3}
    agent = method(Reach, seed=0, goal_selection_strategy="future", gamma=0.95, **settings, **noise).learn(3000)
    mean, _ = jumar.evaluate_policy(agent, Reach, n_eval_episodes=30)
    assert float(np.mean(mean)) > -11.0


# -- environments -----------------------------------------------------------------------------------------------------


def steps_of_vector(mode: Any) -> tuple[list[dict[str, Any]], list[Any]]:
    """Step a vector environment with whole infos; return those of its first environment, and its rewards."""
    vector = gym.vector.SyncVectorEnv([lambda: Reach(limit=3, toll=1.0)] * 2, autoreset_mode=mode)
    adapter = VectorAdapter(vector)
    assert adapter.rewards_goals
    adapter.keep_infos(True)
    adapter.reset([0, 1])
    infos, rewards = [], []
    for _ in range(3):
        step = adapter.step(np.full((2, 2), 0.25, np.float32))
        assert step.whole_infos is not None
        asked = step.successors["achieved_goal"], step.successors["desired_goal"], list(step.whole_infos)
        np.testing.assert_allclose(adapter.rewards_of(Goals(*asked)), step.rewards)
        infos.append(step.whole_infos[0])
        rewards.append(step.rewards[0])
    return infos, rewards


@pytest.mark.parametrize("mode", list(gym.vector.AutoresetMode))
def test_a_vector_environment_gives_the_infos_and_rewards_of_each_of_its_environments(mode: Any) -> None:
    infos, rewards = steps_of_vector(mode)
    assert infos == [{"toll": 0.5, "is_success": 0.0}] * 3
    assert rewards == [-1.5] * 3


@pytest.mark.slow
def test_rewards_that_need_infos_are_computed_with_them_and_refused_without() -> None:
    def paid() -> gym.Env[Any, Any]:
        return Reach(limit=5, toll=1.0)

    with pytest.raises(UsageError, match=r"depends on more than the goals.*or set copy_info_dict"):
        made(paid).learn(60)
    agent = made(paid, copy_info_dict=True).learn(60)
    vector = gym.vector.SyncVectorEnv([paid] * 3)  # whose rows after an end are none
    other = made(vector, copy_info_dict=True).learn(60)
    for one in (agent, other):
        rows = rows_of(one)
        reward = rows[:, one._training.buffer.replay.columns.column("reward")]
        assert np.mean((reward < -0.5) & (reward > -3.0)) > 0.9


class Reusing(Reach):
    """Gives the same dict as info in every step."""

    def __init__(self) -> None:
        super().__init__(limit=3, toll=1.0)
        self._info: dict[str, Any] = {}

    def step(self, action: Any) -> Any:
        *rest, info = super().step(action)
        self._info.update(info)
        return *rest, self._info


def test_the_info_of_a_step_is_kept_where_an_environment_reuses_its_dict() -> None:
    environments = SerialEnvironments([Reusing])
    environments.keep_infos(True)
    environments.reset([0])
    steps = [environments.step(np.full((1, 2), way, np.float32)) for way in (0.25, 0.5)]
    assert [step.whole_infos[0]["toll"] for step in steps if step.whole_infos] == [0.5, 1.0]


@pytest.mark.slow
def test_goals_of_a_pool_are_relabelled_by_its_formula() -> None:
    agent = made("envpool/FetchReach-v4", n_envs=2, buffer_size=5000).learn(240)
    rows = rows_of(agent)
    reward = rows[:, agent._training.buffer.replay.columns.column("reward")]
    assert set(reward) == {-1.0, 0.0}
    assert np.mean(reward[rows[:, -1] == 1.0] == 0.0) > 0.3
    assert not agent._training.update.replay.all_valid


class Blind(Reach):
    """Does not say what it has achieved."""

    def __init__(self) -> None:
        super().__init__()
        parts: Any = self.observation_space
        seen = {key: part for key, part in parts.items() if key != "achieved_goal"}
        self.observation_space = spaces.Dict(seen)


class Failing(Reach):
    """Computes rewards of one goal alone."""

    def compute_reward(self, achieved_goal: Any, desired_goal: Any, info: Any) -> Any:
        if len(achieved_goal) > 1:
            raise ValueError("one goal at a time")
        return super().compute_reward(achieved_goal, desired_goal, info)


class Lopsided(Reach):
    """Desires other goals than can be achieved."""

    def __init__(self) -> None:
        super().__init__()
        parts: Any = self.observation_space
        parts["desired_goal"] = spaces.Box(-1.0, 1.0, (3,))


class Plain(gym.Wrapper):
    """Hides the rewards of goals, as an environment that has none."""

    def has_wrapper_attr(self, name: str) -> bool:
        return name != "compute_reward" and super().has_wrapper_attr(name)


@pytest.mark.parametrize(
    ("env", "said"),
    [
        ("gymnasium/Pendulum-v1", "the observation of gymnasium/Pendulum-v1 has no observation: it needs a Dict with"),
        (Blind, "the observation of Blind has no achieved_goal"),
        (Lopsided, "both must be arrays of the same shape"),
        (lambda: Plain(Reach()), "has no method compute_reward"),
        ("envpool/HandManipulateBlock-v1", "how envpool/HandManipulateBlock-v1 rewards goals is not known here"),
        ("jax/Pendulum-v1", "jax/Pendulum-v1 is compiled"),
    ],
)
def test_environments_without_goals_or_their_rewards_are_refused(env: Any, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        made(env)


@pytest.mark.parametrize("name", ["policy_observations", "critic_observations"])
def test_networks_that_do_not_see_the_desired_goal_are_refused(name: str) -> None:
    keys = "observation", "achieved_goal"
    with pytest.raises(UsageError, match=f"relabels desired_goal, and {name}=observation,achieved_goal leaves it out"):
        made(**{name: keys})


def test_a_reward_of_one_goal_at_a_time_is_named() -> None:
    environments = SerialEnvironments([Failing])
    goals = np.zeros((4, 2))
    with pytest.raises(
        EnvironmentFault, match=r"compute_reward of Failing raised ValueError: one goal at a time .*arrays of 4"
    ):
        environments.rewards_of(Goals(goals, goals, [{}] * 4))


def test_methods_without_a_replay_buffer_do_not_know_the_settings(capsys: Any) -> None:
    with contextlib.redirect_stdout(io.StringIO()):
        assert main(["train", "ppo", "goals:Reach-v0", "--goal-selection-strategy", "future"]) == 2
    assert "goal" in capsys.readouterr().err
    with pytest.raises(UsageError, match="unknown goal_selection_strategy value 'futur'; did you mean future"):
        made(goal_selection_strategy="futur")
    with pytest.raises(UsageError, match="goal_selection_strategy needs a replay buffer, and on_policy has none"):
        jumar.DPG(Reach, on_policy=True, goal_selection_strategy="final")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (Reach, "off-policy methods can learn in hindsight (--goal-selection-strategy future)."),
        (lambda: Reach(toll=1.0), "(--goal-selection-strategy future, with copy_info_dict)."),
        (lambda: Plain(Reach()), "It has goals, and no compute_reward: nothing can be learnt in hindsight."),
        (
            lambda: gym.wrappers.TransformReward(Reach(), lambda reward: float(reward) + 1.0),
            "does not give the rewards of its steps",
        ),
        (Failing, "compute_reward cannot be asked for 100 goals at once"),
    ],
)
def test_a_check_says_whether_goals_can_be_relabelled(make: Any, said: str) -> None:
    findings = Findings()
    check_goal_rewards(findings, SerialEnvironments([make]), 0)
    assert said in " ".join([*findings.what, *findings.wrong])
    assert len(findings.wrong) == ("hindsight" not in said and "copy" not in said)


class Forgetting(Reach):
    """A :class:`Reach` whose rewards of goals fail once they are told to."""

    fail = False

    def compute_reward(self, achieved_goal: Any, desired_goal: Any, info: Any) -> Any:
        if Forgetting.fail:
            raise RuntimeError("gone")
        return super().compute_reward(achieved_goal, desired_goal, info)


@pytest.mark.slow
def test_a_barrier_whose_relabelling_fails_leaves_the_agent_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = made(lambda: Forgetting(limit=30, ends=False))

    def fails(metrics: Any) -> None:
        monkeypatch.setattr(Forgetting, "fail", metrics["time/total_timesteps"] >= 60)

    with pytest.raises(EnvironmentFault, match="gone"):
        agent.learn(600, callback=fails)
    monkeypatch.setattr(Forgetting, "fail", False)
    agent.save(tmp_path / "saved")
    agent.learn(60)
