"""Exact resume: a run that is stopped, killed or extended goes on as if nothing had happened, to the last bit."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from jumar.cli import main
from jumar.runs import logs
from jumar.runs.checkpoints import CheckpointStore
from jumar.runs.segments import read_segments

SMALL = ["--n-envs", "2", "--n-steps", "32", "--net-arch", "8"]
RUN = ["--total-timesteps", "1024", "--checkpoint-every", "256", "--eval-every", "512", "--eval-episodes", "2", *SMALL]
NORMALISED = ["--normalize-observations", "--normalize-rewards"]

PPO = ["ppo", "--n-epochs", "2", "--batch-size", "32"]
PENALTY, ADAPTED = ["ppo-penalty", *PPO[1:]], ["--kl-coef", "0.1", "--target-kl", "1e-4"]
TRPO = ["trpo", "--n-critic-updates", "2", "--batch-size", "32"]
ISPG = ["ispg", "--n-rollouts", "3"]
HERE, WORKERS = ["--workers", "0"], ["--workers", "2"]  # a busy machine would have workers for all

CASES = {
    "compiled": [*PPO, "jax/CartPole-v1", *NORMALISED],
    "compiled recurrent": [*PENALTY, "jax/CartPole-v1", "--recurrent", "gru", "--recurrent-size", "4", *ADAPTED],
    "host": [*PPO, "gymnasium/CartPole-v1", *WORKERS, *NORMALISED],
    "host gSDE": [*TRPO, "gymnasium/Pendulum-v1", *HERE, "--use-sde", "--sde-sample-freq", "5", *NORMALISED],
    "pool recurrent": [*PPO, "envpool/CartPole-v1", "--recurrent", "lstm", "--recurrent-size", "4", *NORMALISED],
    "ACKTR": ["acktr", "jax/CartPole-v1", "--kfac-update", "3"],
    "earlier rollouts": [
        *ISPG,
        "gymnasium/CartPole-v1",
        *HERE,
        "--recurrent",
        "gru",
        "--recurrent-size",
        "4",
        *NORMALISED,
    ],
    "replay": ["acer", "jax/CartPole-v1", "--replay-start", "300", "--buffer-size", "640", *NORMALISED],
}


def jumar(*words: str | Path) -> dict[str, Any]:
    """Run the command in this process; return what ``--json`` prints."""
    output = io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(io.StringIO()):
        code = main([*map(str, words), "--json"])
    answer = json.loads(output.getvalue().splitlines()[-1])
    assert code == 0, answer
    return answer


def stopped_by(number: int, where: str, count: int, *words: str | Path) -> None:
    """Run the command in a process of its own that gets the signal; check that it died of it."""
    command = [sys.executable, "-m", "jumar.drills.dying", where, str(number), str(count), *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    expected = -9 if number == signal.SIGKILL else 128 + number
    assert done.returncode == expected, done.stderr


def digest(run: Path) -> str:
    return hashlib.sha256((run / "policy.safetensors").read_bytes()).hexdigest()


def what_is_logged(run: Path) -> list[dict[str, Any]]:
    """Return the logs without what a clock measured."""
    entries = logs.read(run / "metrics.jsonl") + logs.read(run / "evaluations.jsonl")
    return [{name: x for name, x in entry.items() if not is_of_the_clock(name)} for entry in entries]


def is_of_the_clock(name: str) -> bool:
    return name.startswith("time/") and name != "time/total_timesteps"


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return a function from a case to the run directory of its uninterrupted run; each is trained once."""
    folder, runs = tmp_path_factory.mktemp("uninterrupted"), {}

    def train(case: str) -> Path:
        if case not in runs:
            runs[case] = folder / case.replace(" ", "_")
            jumar("train", *CASES[case], *RUN, "--run-dir", runs[case])
        return runs[case]

    return train


# The fifth iteration lies between the first checkpoint and the second one; a checkpoint takes one renaming, the best
# policy and the final one take two each, and config.json one.
@pytest.mark.parametrize(
    ("case", "number", "where", "count"),
    [
        ("compiled recurrent", signal.SIGINT, "iteration", 5),
        pytest.param("host", signal.SIGTERM, "iteration", 6, marks=pytest.mark.slow),
        pytest.param("host", signal.SIGKILL, "replace", 4, marks=pytest.mark.slow),
        pytest.param("host gSDE", signal.SIGKILL, "iteration", 7, marks=pytest.mark.slow),
        pytest.param("earlier rollouts", signal.SIGKILL, "iteration", 6, marks=pytest.mark.slow),
        pytest.param("replay", signal.SIGKILL, "iteration", 7, marks=pytest.mark.slow),
        pytest.param("ACKTR", signal.SIGTERM, "iteration", 6, marks=pytest.mark.slow),
        pytest.param("pool recurrent", signal.SIGKILL, "iteration", 2, marks=pytest.mark.slow),
    ],
)
def test_a_stopped_run_ends_with_the_policy_of_one_never_stopped(
    case: str, number: int, where: str, count: int, uninterrupted: Any, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    stopped_by(number, where, count, "train", *CASES[case], *RUN, "--run-dir", run)
    if number != signal.SIGKILL:
        assert (run / "policy.safetensors").exists(), "a run stopped by a signal saves the policy"
        assert digest(run) != digest(uninterrupted(case))
    summary = jumar("resume", run)
    assert summary["total_timesteps"] >= 1024
    assert digest(run) == digest(uninterrupted(case))
    assert what_is_logged(run) == what_is_logged(uninterrupted(case))


@pytest.mark.slow
def test_a_run_that_is_killed_again_and_again_still_ends_with_the_same_policy(
    uninterrupted: Any, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    stopped_by(signal.SIGKILL, "iteration", 3, "train", *CASES["compiled"], *RUN, "--run-dir", run)
    for where, count in (("replace", 1), ("iteration", 6), ("replace", 3)):
        stopped_by(signal.SIGKILL, where, count, "resume", run)
    jumar("resume", run)
    assert digest(run) == digest(uninterrupted("compiled"))
    steps = [entry["time/total_timesteps"] for entry in logs.read(run / "metrics.jsonl")]
    assert steps == list(range(64, 1025, 64))


def test_the_same_command_gives_the_same_policy_and_another_seed_another(uninterrupted: Any, tmp_path: Path) -> None:
    jumar("train", *CASES["compiled"], *RUN, "--run-dir", tmp_path / "again")
    jumar("train", *CASES["compiled"], *RUN, "--seed", "1", "--run-dir", tmp_path / "other")
    assert digest(tmp_path / "again") == digest(uninterrupted("compiled"))
    assert digest(tmp_path / "other") != digest(uninterrupted("compiled"))


@pytest.mark.parametrize("case", ["compiled", "host"])
def test_evaluation_changes_nothing_in_training(case: str, uninterrupted: Any, tmp_path: Path) -> None:
    summary = jumar("train", *CASES[case], *RUN, "--eval-every", "0", "--run-dir", tmp_path / "run")
    assert summary["last_eval_mean"] is None
    assert digest(tmp_path / "run") == digest(uninterrupted(case))


def test_a_finished_run_says_so_and_a_larger_total_trains_on(uninterrupted: Any, tmp_path: Path) -> None:
    run = tmp_path / "run"
    jumar("train", *CASES["compiled"], *RUN, "--run-dir", run)
    before, errors = digest(run), io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(errors):
        assert main(["resume", str(run)]) == 0
    assert "finished" in errors.getvalue()
    assert digest(run) == before
    assert jumar("resume", run, "--total-timesteps", "1200")["total_timesteps"] == 1216
    assert digest(run) != before
    steps = [entry["time/total_timesteps"] for entry in logs.read(run / "metrics.jsonl")]
    assert steps == list(range(64, 1217, 64))
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(errors):
        assert main(["resume", str(run), "--total-timesteps", "100"]) == 2
    assert "already trained for 1216" in errors.getvalue()


@pytest.mark.slow
def test_many_seeds_in_one_program_have_a_run_each_and_resume_as_a_whole(tmp_path: Path) -> None:
    many = ["train", *PPO, "jax/CartPole-v1", *RUN, "--n-seeds", "3", "--seed", "5", "--eval-every", "0"]
    summary = jumar(*many, "--run-dir", tmp_path / "whole")
    assert [run["seed"] for run in summary["runs"]] == [5, 6, 7]
    whole = [digest(tmp_path / "whole" / f"seed_{seed}") for seed in (5, 6, 7)]
    assert len(set(whole)) == 3, "every seed learns something of its own"
    for seed in (5, 6, 7):
        files = {path.name for path in (tmp_path / "whole" / f"seed_{seed}").iterdir()}
        assert {"config.json", "metrics.jsonl", "policy.safetensors", "policy.json", "learning_curve.png"} <= files
    stopped_by(signal.SIGKILL, "iteration", 3 * 7, *many, "--run-dir", tmp_path / "killed")
    (tmp_path / "killed" / "seed_6" / "config.json").unlink()  # as if the kill had come before it was written
    jumar("resume", tmp_path / "killed")
    assert (tmp_path / "killed" / "seed_6" / "config.json").exists()
    assert [digest(tmp_path / "killed" / f"seed_{seed}") for seed in (5, 6, 7)] == whole
    logged = [what_is_logged(tmp_path / run / "seed_6") for run in ("whole", "killed")]
    assert logged[0] == logged[1]
    assert jumar("evaluate", tmp_path / "whole" / "seed_6", "--episodes", "2")["episodes"] == 2


# Off-policy runs: the replay buffer is in segments, which wrap around before the end.

OFF = ["--total-timesteps", "960", "--checkpoint-every", "240", "--eval-every", "480", "--eval-episodes", "1"]
OFF += ["--n-envs", "2", "--net-arch", "8", "--batch-size", "8", "--buffer-size", "300", "--log-every", "80"]
OFF += ["--learning-starts", "60", "--n-steps", "3", "--gradient-steps", "-1", "--train-freq", "8", *NORMALISED]
REMEMBERING = {
    "compiled": ["sac", "jax/Pendulum-v1"],
    "host": ["sac", "gymnasium/Pendulum-v1", *HERE, "--critic-batch-norm", "true", "--target-network", "false"],
    "pool": ["td3", "envpool/HalfCheetah-v5", "--action-noise", "ou:0.1"],
    "seeds": ["sac", "jax/Pendulum-v1", "--n-seeds", "3"],
    "frames": ["sac", "envpool/Pong-v5"],
}
FEW_UPDATES = {"frames": ["--gradient-steps", "1"]}
LANES = {"seeds": ["seed_0", "seed_1", "seed_2"]}
"""Three: two would be divided among two processors, in a process of their own alone, and be rounded otherwise."""


@pytest.fixture(scope="module")
def remembering(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return a function from a case to the run directory of its uninterrupted run; each is trained once."""
    folder, runs = tmp_path_factory.mktemp("remembering"), {}

    def train(case: str) -> Path:
        if case not in runs:
            runs[case] = folder / case.replace(" ", "_")
            jumar("train", *REMEMBERING[case], *OFF, *FEW_UPDATES.get(case, ()), "--run-dir", runs[case])
        return runs[case]

    return train


def killed_after(run: Path, step: int, copy: Path) -> Path:
    """Return a copy of a run as a kill leaves it before the checkpoint after ``step``: with a segment that none names."""
    shutil.copytree(run, copy)
    CheckpointStore(copy / "checkpoints").discard_after(step)
    return copy


@pytest.mark.parametrize(
    "case",
    [pytest.param(case, marks=[pytest.mark.slow] * (case in ("frames", "pool", "seeds"))) for case in REMEMBERING],
)
def test_a_replay_buffer_comes_back_exactly(case: str, remembering: Any, tmp_path: Path) -> None:
    whole = remembering(case)
    steps = CheckpointStore(whole / "checkpoints").steps()
    segments = sorted(path.name for path in (whole / "replay").iterdir())
    assert len(steps) == 3
    run = killed_after(whole, steps[0], tmp_path / "run")
    jumar("resume", run)
    for lane in LANES.get(case, ["."]):
        assert digest(run / lane) == digest(whole / lane)
        assert what_is_logged(run / lane) == what_is_logged(whole / lane)
    assert sorted(path.name for path in (run / "replay").iterdir()) == segments, "the same rows, cut at the same places"


def test_state_holds_no_buffer_and_a_segment_only_new_slots(remembering: Any) -> None:
    run = remembering("host")
    found = CheckpointStore(run / "checkpoints").newest()
    assert {name.split("/")[0] for name in found.arrays} == {"learner", "episodes", "best"}
    assert all(len(array.shape) == 0 or len(array) < 300 for array in found.arrays.values())
    sizes = [(segment["first"], segment["slots"]) for segment in found.record["segments"]]
    assert sizes == [(240, 120), (360, 120)]
    assert found.record["slots"] == 480
    named = {segment.name for segment in read_segments(found.record["segments"])}
    assert named < {path.name for path in (run / "replay").iterdir()}, "those of older checkpoints stay"


def test_a_damaged_segment_damages_its_checkpoint_and_the_one_before_is_used(remembering: Any, tmp_path: Path) -> None:
    whole = remembering("compiled")
    run = killed_after(whole, 10**6, tmp_path / "run")
    newest = sorted((run / "replay").iterdir())[-1]
    data = bytearray(newest.read_bytes())
    data[-1] ^= 1
    newest.write_bytes(data)
    errors = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(errors):
        assert main(["resume", str(run)]) == 0
    assert "the checkpoint of step 960 was passed over" in errors.getvalue()
    assert newest.name in errors.getvalue().replace("\n", "")
    assert digest(run) == digest(whole)


def test_a_finished_run_trains_on_with_its_buffer_and_is_resumed_from_there(remembering: Any, tmp_path: Path) -> None:
    longer = killed_after(remembering("host"), 10**6, tmp_path / "longer")
    jumar("resume", longer, "--total-timesteps", "1440")
    again = killed_after(longer, 1200, tmp_path / "again")
    jumar("resume", again)
    assert digest(again) == digest(longer)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "number", "where", "count"),
    [
        ("compiled", signal.SIGTERM, "iteration", 5),
        ("compiled", signal.SIGKILL, "replace", 3),
        ("host", signal.SIGINT, "iteration", 5),
        ("host", signal.SIGKILL, "replace", 4),
        ("pool", signal.SIGKILL, "iteration", 10),
        ("seeds", signal.SIGTERM, "iteration", 15),
    ],
)
def test_a_stopped_run_with_a_buffer_ends_with_the_policy_of_one_never_stopped(
    case: str, number: int, where: str, count: int, remembering: Any, tmp_path: Path
) -> None:
    whole, run = remembering(case), tmp_path / "run"
    stopped_by(number, where, count, "train", *REMEMBERING[case], *OFF, "--run-dir", run)
    steps = CheckpointStore(run / "checkpoints").steps()
    if number == signal.SIGTERM:
        assert steps[-1] == 400, "a compiled environment goes on exactly there"
    elif where == "iteration":
        assert steps[-1] % 240 == 0, "host environments go on from a scheduled checkpoint"
    jumar("resume", run)
    for lane in LANES.get(case, ["."]):
        assert digest(run / lane) == digest(whole / lane)
        assert what_is_logged(run / lane) == what_is_logged(whole / lane)
