"""Runs on stored transitions: written by one, learnt from by another, resumed; and what cannot be is refused."""

from __future__ import annotations

import contextlib
import errno
import io
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

import jumar as library
from jumar.cli import main
from jumar.errors import UsageError
from jumar.runs.checkpoints import CheckpointStore
from jumar.runs.datasets import Dataset, read_dataset, write_dataset
from jumar.runs.segments import SegmentStore
from jumar.training import collected, commands
from jumar.training.collected import Collection, Kept
from jumar.training.data import StartData, _in_dtype, interrupted
from jumar.training.plan import DataOrigin

SMALL = ["--net-arch", "8", "--batch-size", "8", "--eval-episodes", "1", "--log-every", "40"]
RUN = ["--total-timesteps", "400", "--eval-every", "0", *SMALL]


def jumar(*words: Any) -> dict[str, Any]:
    """Run a command and return what it prints as JSON."""
    told = io.StringIO()
    with contextlib.redirect_stdout(told), contextlib.redirect_stderr(io.StringIO()):
        assert main([*map(str, words), "--json"]) == 0
    return json.loads(told.getvalue())


def refused(capsys: Any, *words: Any) -> str:
    """Run a command that is refused, and return what it says."""
    assert main([*map(str, words)]) == 2
    return capsys.readouterr().err


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set that a run of SAC wrote: 400 steps of two environments, two whole episodes and no end of a third."""
    folder = tmp_path_factory.mktemp("data")
    jumar(
        "train",
        "sac",
        "jax/Pendulum-v1",
        "--n-envs",
        "2",
        *RUN,
        "--run-dir",
        folder / "run",
        "--save-dataset",
        folder / "data",
    )
    return folder / "data"


def write_steps(agent: Any, path: Path) -> None:
    """Write what an agent's replay buffer holds as a data set."""
    training = agent._training
    kept = Collection(path.parent / "steps", training.buffer, Kept(0, []))
    kept.write_dataset(path, training.held.memory, training.slots, training.spaces)


def rows_of(data: Dataset, rows: Any) -> Dataset:
    """Return some rows of a data set."""
    names = ("observations", "actions", "rewards", "successors", "terminated", "truncated")
    return replace(data, **{name: getattr(data, name)[rows] for name in names})


def test_a_run_writes_what_it_did(data: Path) -> None:
    found, _ = read_dataset(data)
    assert len(found) == 400
    assert found.truncated.sum() == 2
    assert not found.terminated.any()
    assert not interrupted(found).any()  # each step is followed by its successor, or an end
    assert np.abs(found.actions).max() <= 2.0
    assert len(np.unique(found.observations, axis=0)) == 400


@pytest.mark.parametrize("method", [pytest.param("td3", marks=pytest.mark.slow), "bc"])
def test_what_is_learnt_from_data_is_the_same_twice_and_after_a_resume(method: str, data: Path, tmp_path: Path) -> None:
    words = [method, "gymnasium/Pendulum-v1", "--dataset", data, "--total-timesteps", "120", "--checkpoint-every", "40"]
    words += [*SMALL, "--normalize-observations", "true"]
    summary = jumar("train", *words, "--run-dir", tmp_path / "once")
    assert summary["total_timesteps"] == 120
    assert summary["last_eval_mean"] < 0.0
    jumar("train", *words, "--run-dir", tmp_path / "twice")
    jumar("train", *words[:5], "80", *words[6:], "--run-dir", tmp_path / "part")
    jumar("resume", tmp_path / "part", "--total-timesteps", "120")
    policies = [(tmp_path / run / "policy.safetensors").read_bytes() for run in ("once", "twice", "part")]
    assert policies[0] == policies[1]
    assert policies[0] == policies[2]


SHORT = [*SMALL, "--eval-every", "0", "--buffer-size", "50", "--checkpoint-every", "120", "--n-envs", "2"]
"""Twenty-five slots, with a run of 200."""


@pytest.mark.slow
def test_all_steps_are_written_although_the_buffer_forgets_and_the_same_after_a_crash(tmp_path: Path) -> None:
    words = ["train", "sac", "gymnasium/Pendulum-v1", "--total-timesteps", "400", *SHORT]
    jumar(*words, "--run-dir", tmp_path / "run", "--save-dataset", tmp_path / "once")
    found, _ = read_dataset(tmp_path / "once")
    assert len(found) == 400
    assert found.truncated.sum() == 8  # at 120, 240 and 360 steps, and at the end, in each of two environments
    assert not interrupted(found)[np.arange(400) != 199].any()
    # As if it had been killed some time after the checkpoint at 240 steps.
    CheckpointStore(tmp_path / "run/checkpoints").discard_after(240)
    (tmp_path / "run/policy.json").unlink()
    jumar("resume", tmp_path / "run", "--save-dataset", tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == (tmp_path / "once").read_bytes()
    # A run that was begun without a data set has the newest steps alone, and says so.
    jumar(*words, "--run-dir", tmp_path / "late")
    assert not (tmp_path / "late/collected").exists()
    assert main(["resume", str(tmp_path / "late"), "--save-dataset", str(tmp_path / "part")]) == 0
    newest, _ = read_dataset(tmp_path / "part")
    np.testing.assert_array_equal(newest.rewards, np.r_[found.rewards[175:200], found.rewards[375:]])


class After:
    """A stop that comes when it was asked for so many times."""

    signal = 15

    def __init__(self, times: int) -> None:
        self._left = times

    def __bool__(self) -> bool:
        self._left -= 1
        return self._left < 0


def test_a_run_that_is_stopped_writes_what_it_has_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    real: Any = commands.run_loop
    words = ["train", "sac", "gymnasium/Pendulum-v1", "--total-timesteps", "400", *SHORT]
    words += ["--run-dir", str(tmp_path / "run"), "--save-dataset", str(tmp_path / "data")]
    with monkeypatch.context() as patched:
        patched.setattr(commands, "run_loop", lambda *rest: real(*rest[:3], After(100)))
        assert main(words) == 143
    assert f"jumar resume {tmp_path}/run --save-dataset {tmp_path}/data" in capsys.readouterr().err
    part, _ = read_dataset(tmp_path / "data")
    assert 120 <= len(part) < 400
    jumar("resume", tmp_path / "run", "--save-dataset", tmp_path / "data")
    whole, _ = read_dataset(tmp_path / "data")
    n = len(part) // 2
    assert len(whole) == 400
    np.testing.assert_array_equal(part.rewards, np.r_[whole.rewards[:n], whole.rewards[200 : 200 + n]])


def test_a_full_disk_loses_no_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps that cannot be written down stay in memory, and are written when it is possible again."""
    append, refused_times = SegmentStore.append, []

    def full(store: SegmentStore, first: int, *rest: Any) -> Any:
        if store.folder.name == "collected" and len(refused_times) < 2:
            refused_times.append(first)
            raise OSError(errno.ENOSPC, "No space left on device")
        return append(store, first, *rest)

    monkeypatch.setattr(SegmentStore, "append", full)
    monkeypatch.setattr(collected, "PIECE", 1)
    words = ["sac", "gymnasium/Pendulum-v1", "--total-timesteps", "200", *SHORT]
    jumar("train", *words, "--run-dir", tmp_path / "run", "--save-dataset", tmp_path / "data")
    assert refused_times == [0, 0]
    assert len(read_dataset(tmp_path / "data")[0]) == 200


def test_more_transitions_than_the_buffer_holds_are_spoken_of(data: Path, tmp_path: Path, capsys: Any) -> None:
    words = ["train", "sac", "gymnasium/Pendulum-v1", "--total-timesteps", "8", *SMALL, "--eval-every", "0"]
    run = [*words, "--run-dir", str(tmp_path / "run"), "--prefill", str(data), "--buffer-size", "300"]
    assert main(run) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert (
        f"the replay buffer holds 300 of the 400 transitions of {data}, the newest; buffer_size=400 holds all." in said
    )
    assert "300 transitions of" in said
    found, _ = read_dataset(data)
    begin = StartData(DataOrigin("FILE", "0" * 64, False), found)
    small: Any = SimpleNamespace(n_envs=3, slots=20)
    assert begin.left_out(small) == (
        "the replay buffer holds 60 of the 400 transitions of FILE, the newest of each of 3 equal parts; buffer_size=399 holds "
        "399; the last 1 do not fill a step of 3 environments."
    )
    large: Any = SimpleNamespace(n_envs=2, slots=200)
    assert begin.left_out(large) is None


class Turnstile(gym.Env[Any, np.int64]):
    """The action must be the number that is shown; the mask says so in the observation, or beside it."""

    action_space = spaces.Discrete(3)

    def __init__(self, beside: bool = False) -> None:
        parts: dict[str, Any] = {"shown": spaces.Discrete(3), "action_mask": spaces.MultiBinary(3)}
        self.beside, self.time = beside, 0
        self.observation_space = spaces.Dict({"shown": parts["shown"]} if beside else parts)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.time = 0
        return self.seen()

    def step(self, action: np.int64) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert action == self.time % 3
        self.time += 1
        observation, info = self.seen()
        return observation, 1.0, False, self.time == 10, info

    def seen(self) -> tuple[Any, dict[str, Any]]:
        shown = self.time % 3
        mask = np.eye(3, dtype=np.int8)[shown]
        return ({"shown": shown}, {"action_mask": mask}) if self.beside else ({"shown": shown, "action_mask": mask}, {})


def test_masks_in_observations_are_written_and_learnt_from_and_others_are_refused(tmp_path: Path) -> None:
    small: dict[str, Any] = {"seed": 0, "net_arch": (8,), "batch_size": 8, "log_every": 24, "preset": "none"}
    agent = library.SQL(Turnstile, **small, learning_starts=20)
    agent.learn(24)
    write_steps(agent, tmp_path / "data")
    found, _ = read_dataset(tmp_path / "data")
    np.testing.assert_array_equal(found.observations["action_mask"], np.eye(3)[found.observations["shown"]])
    np.testing.assert_array_equal(found.successors["action_mask"], np.eye(3)[found.successors["shown"]])
    np.testing.assert_array_equal(found.actions, found.observations["shown"])
    learner = library.SQL(Turnstile, **small, dataset=tmp_path / "data")
    learner.learn(24)
    assert learner._training is not None
    held = learner._training.held.memory["rows"]
    columns = learner._training.update.replay.columns  # type: ignore[attr-defined]
    assert np.asarray(held[:24, columns.mask : columns.mask + 3]).sum(axis=1).tolist() == [1.0] * 24
    beside = library.SQL(lambda: Turnstile(beside=True), **small, learning_starts=20)
    beside.learn(24)
    with pytest.raises(UsageError, match="masks that come beside the observations cannot be written"):
        write_steps(beside, tmp_path / "beside")
    assert not (tmp_path / "beside").exists()


def test_prefilled_transitions_are_learnt_from_and_written_again(data: Path, tmp_path: Path) -> None:
    words = ["sac", "gymnasium/Pendulum-v1", "--prefill", data, "--buffer-size", "500", "--checkpoint-every", "0"]
    jumar("train", *words, "--total-timesteps", "40", *SMALL, "--run-dir", tmp_path / "run")
    jumar("resume", tmp_path / "run", "--total-timesteps", "80", "--save-dataset", tmp_path / "more")
    before, _ = read_dataset(data)
    after, _ = read_dataset(tmp_path / "more")
    assert len(after) == 480
    np.testing.assert_array_equal(after.observations[:400], before.observations)
    np.testing.assert_array_equal(after.rewards[:400], before.rewards)


def test_no_environment_is_needed_to_learn_from_data(data: Path, tmp_path: Path, capsys: Any) -> None:
    run = tmp_path / "run"
    words = ["bc", "--dataset", data, "--total-timesteps", "80", *SMALL]
    alone = jumar("train", *words, "--run-dir", run)
    assert (alone["env"], alone["backend"], alone["last_eval_mean"]) == ("stored transitions", "data", None)
    beside = tmp_path / "beside"
    jumar("train", "bc", "jax/Pendulum-v1", *words[1:], "--run-dir", beside, "--eval-every", "0")
    assert (run / "policy.safetensors").read_bytes() == (beside / "policy.safetensors").read_bytes()
    assert jumar("resume", run, "--total-timesteps", "120")["total_timesteps"] == 120
    assert jumar("evaluate", run, "--env", "gymnasium/Pendulum-v1", "--episodes", "1")["episodes"] == 1
    assert "evaluate it with --env ENV" in refused(capsys, "evaluate", run)
    assert "ENV is missing" in refused(capsys, "train", "sac", "--total-timesteps", "40")
    assert "eval_every=10 needs an environment" in refused(capsys, "train", *words, "--eval-every", "10")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["ppo", "jax/Pendulum-v1", "--dataset", "DATA"],
            "--dataset needs a method that learns from a replay buffer, and ppo",
        ),
        (
            ["ppo", "jax/Pendulum-v1", "--save-dataset", "x"],
            "--save-dataset needs a method with a replay buffer, and ppo",
        ),
        (["bc", "jax/Pendulum-v1"], "bc learns from stored transitions alone; give --dataset FILE"),
        (["bc", "jax/Pendulum-v1", "--prefill", "DATA"], "give --dataset instead of --prefill"),
        (["sac", "jax/CartPole-v1", "--dataset", "DATA"], "/data has 3 numbers"),
        (["sac", "jax/Pendulum-v1", "--dataset", "DATA", "--prefill", "DATA"], "give one of them"),
        (["sac", "jax/Pendulum-v1", "--dataset", "nowhere"], "there is no data set nowhere"),
        (["sac", "jax/Pendulum-v1", "--dataset", "DATA", "--normalize-rewards", "true"], "normalize_rewards follows"),
        (
            ["sac", "jax/Pendulum-v1", "--dataset", "DATA", "--buffer-size", "300"],
            "buffer_size=300 is less than the 400",
        ),
        (["sac", "jax/Pendulum-v1", "--save-dataset", "nowhere/data"], "there is no folder"),
        (
            ["dpg", "jax/Pendulum-v1", "--prefill", "DATA", "--on-policy", "true"],
            "on_policy=true learns from its own steps",
        ),
    ],
)
def test_what_cannot_be_learnt_from_is_refused(
    words: list[str], said: str, data: Path, tmp_path: Path, capsys: Any
) -> None:
    typed = [str(data) if word == "DATA" else word for word in words]
    assert said in refused(capsys, "train", *typed, "--total-timesteps", "40", "--run-dir", tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--dataset", "DATA", "--train-freq", "4"], "train_freq=4: with --dataset a step is an update"),
        (["--save-dataset", "x", "--dataset", "DATA"], "writes what a run collects, and with --dataset no environment"),
        (["--save-dataset", "x", "--n-seeds", "2"], "--save-dataset writes the steps of one seed, and n_seeds=2"),
    ],
)
def test_what_would_count_or_keep_something_else_is_refused(
    words: list[str], said: str, data: Path, capsys: Any
) -> None:
    typed = [str(data) if word == "DATA" else word for word in words]
    assert said in refused(capsys, "train", "sac", "jax/Pendulum-v1", *typed, "--total-timesteps", "40")


def test_rows_that_do_not_follow_each_other_are_told_apart(data: Path) -> None:
    found, _ = read_dataset(data)
    order = np.r_[0:10, 20:30]
    part = rows_of(found, order)
    np.testing.assert_array_equal(np.flatnonzero(interrupted(part)), [9])
    assert interrupted(rows_of(found, np.r_[0:1])).tolist() == [False]


def test_agents_learn_from_data_too(data: Path) -> None:
    settings: dict[str, Any] = {"net_arch": (8,), "batch_size": 8, "log_every": 20}
    agent = library.TD3("jax/Pendulum-v1", dataset=data, bc_coef=0.4, **settings).learn(40)
    assert agent.num_timesteps == 40
    assert "bc_coef" in agent.settings.to_json()
    with pytest.raises(UsageError, match="give --dataset"):
        library.BC("jax/Pendulum-v1")


def test_a_wrong_data_set_stops_before_anything_is_made(data: Path, tmp_path: Path) -> None:
    found, _ = read_dataset(data)
    write_dataset(tmp_path / "one", rows_of(found, slice(1)))
    with pytest.raises(UsageError, match="has 1 transitions, fewer than n_envs=2"):
        library.SAC("jax/Pendulum-v1", prefill=tmp_path / "one", n_envs=2)


def test_whole_numbers_that_rows_round_up_stay_within_32_bits() -> None:
    rounded = np.array([2.0**31, -(2.0**31), 5.0], np.float32)
    assert _in_dtype(rounded, np.int64).tolist() == [2**31 - 1, -(2**31), 5]
    assert _in_dtype(np.array([256.0], np.float32), np.uint8).tolist() == [255]
