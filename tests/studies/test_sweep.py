"""Whole sweeps: what is written, what goes on, what is refused. Most train by a formula, in no process."""

from __future__ import annotations

import contextlib
import errno
import importlib.util
import io
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jumar.cli import main
from jumar.cli.sweep import words
from jumar.console.signals import StopFlag
from jumar.errors import DamagedFile, UsageError
from jumar.studies import trial_runs
from jumar.studies.cells import Job
from jumar.studies.executor import Failure
from jumar.studies.progress import Quiet
from jumar.studies.search import Note, Settle
from jumar.studies.space import read_space
from jumar.studies.sweep import SweepRequest, sweep
from jumar.studies.trials import COMPLETE, FAILED, RUNNING, Record, Trial

pytest.importorskip("optuna")

FREE = "free some space there, or choose another place."
SPACE = """\
algorithm = "ppo"
env = "jax/CartPole-v1"
total_timesteps = 1024
seeds = 2
trials = 14
startup_trials = 4
preset = "none"
eval_episodes = 2

[settings]
n_envs = 2
net_arch = [8]
n_epochs = 1

[search]
learning_rate = { low = 1e-4, high = 1e-1, log = true }
n_steps = { choices = [32, 64] }
batch_size = { choices = [32, 64] }
"""


def jumar(*words: str | Path) -> tuple[int, dict[str, Any], str]:
    """Run the command in this process; return its exit code, what ``--json`` prints, and what it says beside it."""
    output, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
        code = main([*map(str, words), "--json"])
    return code, json.loads(output.getvalue().splitlines()[-1]), errors.getvalue()


def by_formula(trainer: Any, trials: Sequence[Trial], settle: Settle, note: Note) -> None:
    """Train by a formula."""
    for trial in trials:
        now = settle(trial)
        while not now.over:
            rate, place = now.settings["learning_rate"], len(now.scores)
            if rate > 0.05:
                now = now.failed("the gradient is not finite.")
            else:
                now = settle(
                    now.scored(100.0 - 10.0 * abs(math.log10(rate) + 3) + place * now.settings["n_steps"] / 64)
                )
            note(now)


@pytest.fixture
def space(monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(trial_runs.Trainer, "train", by_formula)
    path = Path("space.toml")
    path.write_text(SPACE)
    return path


def test_the_best_settings_are_written_as_a_file_that_training_takes(space: Path) -> None:
    code, answer, _ = jumar("sweep", space, "--parallel", "2", "--out", "d")
    assert code == 0
    assert set(answer) > {"best_settings", "best_value", "trials", "preset_file"}
    complete = [trial for trial in answer["trials"] if trial["state"] == COMPLETE]
    best = max(complete, key=lambda trial: trial["value"])
    assert (answer["best_settings"], answer["best_value"]) == (best["settings"], best["value"])
    assert len(answer["trials"]) == 14
    written = tomllib.loads(Path(answer["preset_file"]).read_text())
    fixed = {"algorithm": "ppo", "env": "jax/CartPole-v1", "total_timesteps": 1024, "preset": "none"}
    assert written == {**fixed, "n_envs": 2, "net_arch": [8], "n_epochs": 1, **best["settings"]}
    assert set(os.listdir("d")) >= {"sweep.md", "trials.csv", "trials.json", "parallel_coordinates.png", "best.toml"}
    page = Path("d/sweep.md").read_text()
    assert f"Best: trial {best['number']}" in page
    assert "the gradient is not finite." in page
    assert Path("d/trials.csv").read_text().count("\n") == 15


def test_what_was_searched_is_said_in_words(space: Path) -> None:
    done = sweep(SweepRequest(space=space, parallel=2, trials=4, out=Path("d d")))
    assert "trial  learning_rate  n_steps  batch_size  seeds  value" in words(done)
    said = words(done, 60)
    assert "4 trials (1 failed); the best:" in said
    head = "trial  seeds  value  95 % interval  worst seed  best seed"
    assert head in said.splitlines()  # its settings have no room
    assert "jumar train ppo jax/CartPole-v1 --preset 'd d/best.toml' --total-timesteps 1024 --seed 2" in said


class Crash(BaseException):
    """As if the process ended here."""


@pytest.mark.parametrize("after", [0, 3, 9])
def test_a_sweep_that_ended_anywhere_goes_on(after: int, space: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jumar("sweep", space, "--parallel", "2", "--out", "whole")
    written = []
    write = Record.write

    def some(record: Record, folder: Path) -> None:
        if len(written) == after:
            raise Crash
        written.append(write(record, folder))

    monkeypatch.setattr(Record, "write", some)
    with pytest.raises(Crash):
        jumar("sweep", space, "--parallel", "2", "--out", "d")
    monkeypatch.setattr(Record, "write", write)
    code, _, said = jumar("sweep", space, "--out", "d")  # --parallel is remembered
    assert code == 0, said
    for name in ("best.toml", "trials.csv", "sweep.md"):
        assert Path("d", name).read_text() == Path("whole", name).read_text().replace("whole/", "d/")


def test_a_finished_sweep_trains_nothing_and_may_be_made_longer(space: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, long, _ = jumar("sweep", space, "--parallel", "3", "--out", "long")
    jumar("sweep", space, "--parallel", "3", "--trials", "5", "--out", "d")
    _, answer, _ = jumar("sweep", space, "--out", "d")
    assert answer["trials"] == long["trials"]

    def nothing(trainer: Any, trials: Sequence[Trial], settle: Settle, note: Note) -> None:
        assert all(trial.over for trial in trials)

    monkeypatch.setattr(trial_runs.Trainer, "train", nothing)
    assert jumar("sweep", space, "--trials", "2", "--out", "d")[1]["trials"] == answer["trials"]


@pytest.mark.parametrize(
    ("words", "change", "fault"),
    [
        (["--parallel", "3"], ("", ""), "parallel is 2, and now it is 3"),
        (["--seed", "1"], ("", ""), "seed is 0, and now it is 1"),
        ([], ("seeds = 2", "seeds = 3"), "seeds is 2, and now it is 3"),
        ([], ("seeds = 2", "seeds = 2\nseed = 3"), "seed is 0, and now it is 3"),
        ([], ("seeds = 2", "seeds = 2\neval_every = 99"), "eval_every is 51, and now it is 99"),
        ([], ("n_epochs = 1", "n_epochs = 2"), "settings.n_epochs is 1, and now it is 2"),
        ([], ("high = 1e-1", "high = 1e-2"), "search.learning_rate.high is 0.1, and now it is 0.01"),
        ([], ("n_epochs = 1\n", ""), "settings.n_epochs is 1, and now it is not there"),
        (["--env", "jax/Acrobot-v1"], ("", ""), "env is jax/CartPole-v1, and now it is jax/Acrobot-v1"),
    ],
)
def test_another_sweep_is_not_mixed_with_it(words: list[str], change: tuple[str, str], fault: str, space: Path) -> None:
    jumar("sweep", space, "--parallel", "2", "--trials", "2", "--out", "d")
    before = Path("d/trials.json").read_bytes()
    space.write_text(SPACE.replace(*change))
    code, answer, _ = jumar("sweep", space, "--out", "d", *words)
    assert code == 2
    assert fault in answer["error"]
    assert Path("d/trials.json").read_bytes() == before


def test_a_foreign_folder_is_refused(space: Path, tmp_path: Path) -> None:
    Path("mine").mkdir()
    Path("mine/thesis.tex").touch()
    code, answer, _ = jumar("sweep", space, "--out", "mine")
    assert (code, os.listdir("mine")) == (2, ["thesis.tex"])
    assert "holds no sweep; give another folder" in answer["error"]
    jumar("sweep", space, "--parallel", "2", "--trials", "2", "--out", "d")
    outside = tmp_path / "outside"
    outside.mkdir()
    for name in ("runs", "best.toml", "trials.json"):
        shutil.copytree("d", f"{name}.d")
        with contextlib.suppress(FileNotFoundError):
            Path(f"{name}.d", name).unlink()
        Path(f"{name}.d", name).symlink_to(outside)
        with pytest.raises(DamagedFile, match="is a link, but must be a"):
            sweep(SweepRequest(space=space, out=Path(f"{name}.d")))
    assert os.listdir(outside) == []
    Path("d/trials.json").write_text(Path("d/trials.json").read_text().replace('"seed": 0', '"seed": 1'))
    assert jumar("sweep", space, "--out", "d")[0] == 1


def test_trials_that_all_fail_are_an_error_in_words(space: Path) -> None:
    space.write_text(SPACE.replace("low = 1e-4", "low = 6e-2"))
    code, answer, _ = jumar("sweep", space, "--trials", "3", "--out", "d")
    assert (code, answer) == (1, {"error": "all 3 trials failed; the first: the gradient is not finite."})
    assert not Path("d/best.toml").exists()
    assert "trial 2: the gradient" in Path("d/sweep.md").read_text()


def test_a_stop_keeps_what_is_done_and_says_how_to_go_on(space: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(trainer: Any, trials: Sequence[Trial], settle: Settle, note: Note) -> None:
        if trials[0].number == 4:
            os.kill(os.getpid(), signal.SIGTERM)
        else:
            by_formula(trainer, trials, settle, note)

    monkeypatch.setattr(trial_runs.Trainer, "train", stopped)
    code, answer, _ = jumar("sweep", space, "--parallel", "4", "--out", "d")
    assert code == 143
    assert re.fullmatch(
        r"stopped; 4 of 14 trials are done. The same command goes on. The best so far: d/best.toml", answer["error"]
    )
    assert [trial.state == RUNNING for trial in Record.read(Path("d")).trials] == [False] * 4 + [True] * 4


def test_a_full_disk_stops_it_in_words(space: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write, written = Record.write, []

    def full(record: Record, folder: Path) -> None:
        if len(written) == 5:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder / "trials.json"))
        written.append(write(record, folder))

    monkeypatch.setattr(Record, "write", full)
    code, answer, _ = jumar("sweep", space, "--parallel", "2", "--out", "d")
    assert (code, answer["error"]) == (1, f"No space left on device: d/trials.json; {FREE}")
    monkeypatch.setattr(Record, "write", write)
    assert jumar("sweep", space, "--out", "d")[0] == 0


@pytest.mark.parametrize(("sampler", "missing"), [("tpe", "optuna"), ("cmaes", "cmaes")])
def test_a_missing_package_is_named_with_its_extra(
    sampler: str, missing: str, space: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ranges = SPACE.replace("{ choices = [32, 64] }", "{ low = 32, high = 64 }")
    space.write_text(f'sampler = "{sampler}"\n{ranges}')
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == missing else find(name))
    with pytest.raises(UsageError, match=rf"needs .*{missing}; install it with: pip install 'jumar\[sweep\]'"):
        sweep(SweepRequest(space=space, out=Path("d")))
    assert not Path("d").exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("jax/CartPole-v1", "jax/CartPole-v7"), "CartPole"),
        (('preset = "none"', 'preset = "nono"'), "unknown preset"),
        (('preset = "none"', 'cost = "speed"'), "cost"),
    ],
)
def test_what_no_trial_can_have_is_refused_before_anything(change: tuple[str, str], words: str, space: Path) -> None:
    space.write_text(SPACE.replace(*change))
    code, answer, _ = jumar("sweep", space, "--out", "d")
    assert code == 2
    assert words in answer["error"]
    assert not Path("d").exists()


class Started:
    """Takes the place of processes: what is started, and how it ends."""

    def __init__(self, *endings: Failure | None) -> None:
        self.endings = list(endings)
        self.started: list[str] = []

    def __call__(
        self, jobs: Sequence[Job], command: Any, logs: Path, parts: int, watcher: Any, stop: Any, **more: Any
    ) -> None:
        waiting = list(jobs)
        while waiting:
            job = waiting.pop(0)
            self.started.append(job.words.partition(" on ")[0] + job.words.rpartition(",")[2])
            waiting += watcher.ended(job, self.endings.pop(0))


def trained(monkeypatch: pytest.MonkeyPatch, *endings: Failure | None) -> tuple[list[str], list[Trial]]:
    """Train a generation of two trials with processes that end so; return what was started, and what became of the trials."""
    Path("space.toml").write_text(SPACE)
    space, started = replace(read_space("space.toml"), pruner="median"), Started(*endings)
    monkeypatch.setattr(trial_runs, "work_off", started)
    notes: dict[int, Trial] = {}
    trainer = trial_runs.Trainer(space, 0, Path("d"), 2, 2, lambda trials: None, Quiet(), StopFlag())
    settings = {"learning_rate": 1e-3, "n_steps": 32, "batch_size": 32}
    trials = [Trial(number, settings) for number in range(2)]
    trainer.train(trials, lambda trial: trial, lambda trial: notes.__setitem__(trial.number, trial))
    return started.started, [notes[number] for number in sorted(notes)]


def test_a_trial_whose_run_fails_has_failed_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    started, trials = trained(monkeypatch, Failure("it diverged\x1b[31m\n at once."), None)
    assert started == ["trial 0 seed 0", "trial 1 seed 0"]
    assert [(trial.state, trial.reason) for trial in trials] == [
        (FAILED, "it diverged\\x1b[31m at once."),
        (FAILED, "it ended before its last evaluation; its log says why."),
    ]


def test_a_run_that_a_signal_ended_goes_on_once(monkeypatch: pytest.MonkeyPatch) -> None:
    killed = Failure("it was ended by SIGKILL.", interrupted=True)
    started, trials = trained(monkeypatch, killed, killed, killed, killed)
    assert started == ["trial 0 seed 0", "trial 1 seed 0"] * 2
    assert [trial.reason for trial in trials] == ["it was ended by SIGKILL."] * 2


# With processes ------------------------------------------------------------------------------------------------------


def start(*words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "jumar", "sweep", "space.toml", "--parallel", "2", *words],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


@pytest.mark.slow
def test_a_sweep_that_is_killed_and_one_that_never_was_end_alike() -> None:
    Path("space.toml").write_text(SPACE.replace("trials = 14", "trials = 3"))
    whole = start("--out", "whole")
    output, _ = whole.communicate(timeout=600)
    assert whole.returncode == 0, output
    killed = start("--out", "killed")
    deadline = time.monotonic() + 300
    while not list(Path("killed").glob("runs/*/*/*/policy.json")) and time.monotonic() < deadline:
        time.sleep(0.2)
    killed.kill()
    killed.communicate()
    begun = {path: path.stat().st_mtime_ns for path in Path("killed").glob("runs/*/*/*/policy.json")}
    again = start("--out", "killed")
    output, _ = again.communicate(timeout=600)
    assert again.returncode == 0, output
    assert all(
        path.stat().st_mtime_ns == time for path, time in begun.items()
    )  # what was finished was not trained again
    assert Path("killed/trials.csv").read_text() == Path("whole/trials.csv").read_text()
    assert tomllib.loads(Path("killed/best.toml").read_text()) == tomllib.loads(Path("whole/best.toml").read_text())
    # The file is one that training takes.
    assert (
        main(["train", "ppo", "jax/CartPole-v1", "--preset", "whole/best.toml", "--total-timesteps", "128", "--quiet"])
        == 0
    )
