"""The list of runs: how far each is, and runs that are damaged, foreign or hostile."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from jumar.cli import list_runs, main
from jumar.errors import UsageError
from jumar.runs.checkpoints import CheckpointStore
from jumar.runs.overview import FoundRun, find_runs
from jumar.runs.run_directory import RunDirectory

CONFIG: dict[str, Any] = {
    "kind": "run",
    "algorithm": "ppo",
    "environment": {"backend": "jax", "name": "CartPole-v1", "module": None},
    "environment_name": "CartPole-v1",
    "seed": 3,
    "n_seeds": None,
    "total_timesteps": 1000,
}


def make(
    path: str | Path,
    steps: int | None = None,
    *,
    checkpoint: int | None = None,
    policy: bool = False,
    rule: str | None = None,
    when: int = 0,
    **config: Any,
) -> RunDirectory:
    """Make the directory of a run that has logged so many steps, without training it."""
    run = RunDirectory(Path(path))
    run.path.mkdir(parents=True)
    run.write_config({**CONFIG, **config})
    (run.path / ".lock").touch()
    if steps is not None:
        run.metrics.write_text(json.dumps({"time/total_timesteps": steps, "rollout/ep_rew_mean": steps / 10}) + "\n")
        run.evaluations.write_text(json.dumps({"step": steps, "mean_return": steps / 5}) + "\n")
    if checkpoint is not None:
        CheckpointStore(run.checkpoints).save(checkpoint, {}, {"stopped_by": rule})
    if policy:
        (run.path / "policy.json").write_text("{}")
    for file in (run.config, run.metrics, run.evaluations):
        if file.exists():
            os.utime(file, (when, when))
    return run


def states(place: str = "runs") -> dict[str, str]:
    return {run.path.name: run.state for run in find_runs(Path(place))}


def test_every_state_of_a_run_is_told() -> None:
    make("runs/done", 1024, checkpoint=1024, policy=True, when=5)
    make("runs/half", 512, checkpoint=500, when=4)
    make("runs/early", 512, checkpoint=512, policy=True, rule="stop_at_return", when=3)
    make("runs/new", when=2)
    make("runs/saved", checkpoint=8, policy=True, when=1, kind="agent")
    make("runs/lost", 512, when=0)
    found = {run.path.name: run for run in find_runs(Path("runs"))}
    assert list(found) == ["done", "half", "early", "new", "saved", "lost"]
    assert {name: run.state for name, run in found.items()} == {
        "done": "finished",
        "half": "stopped",
        "early": "finished",
        "new": "not begun",
        "saved": "saved",
        "lost": "damaged",
    }
    done, early = found["done"], found["early"]
    assert (done.algorithm, done.env, done.seed, done.steps, done.total_timesteps) == (
        "ppo",
        "jax/CartPole-v1",
        3,
        1024,
        1000,
    )
    assert (done.ep_rew_mean, done.last_eval_mean, done.changed, done.stopped_by) == (102.4, 204.8, 5.0, None)
    assert early.stopped_by == "stop_at_return"
    assert "has no checkpoint" in str(found["lost"].why)
    assert find_runs(Path("runs/done"))[0].state == "finished"


def test_a_run_that_a_process_holds_is_running_and_stays_as_it_is() -> None:
    run = make("runs/held", 512, checkpoint=500)
    with run.lock():
        before = (run.path / ".lock").read_bytes()
        assert states() == {"held": "running"}
        assert (run.path / ".lock").read_bytes() == before
    with open(run.path / ".lock") as mine:  # to look again left no lock
        fcntl.flock(mine, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert states() == {"held": "stopped"}


def test_several_seeds_are_one_run_with_means_over_them() -> None:
    make("runs/five", checkpoint=1000, n_seeds=2)
    for seed, steps in ((3, 1000), (4, 2000)):
        make(f"runs/five/seed_{seed}", steps, policy=True, seed=seed, kind="seed")
    [run] = find_runs(Path("runs"))
    assert (run.path, run.state, run.n_seeds, run.ep_rew_mean) == (Path("runs/five"), "finished", 2, 150.0)
    assert list_runs._seeds(run) == "3-4"
    assert find_runs(Path("runs/five/seed_4"))[0].state == "finished"


def test_a_number_of_seeds_that_no_folder_has_costs_nothing() -> None:
    make("runs/forged", checkpoint=1000, n_seeds=2**31)
    make("runs/forged/seed_3", 1000, policy=True, kind="seed")
    [run] = find_runs(Path("runs"))
    assert (run.state, run.n_seeds, run.ep_rew_mean) == ("finished", 2**31, 100.0)


def test_foreign_folders_are_passed_over_and_damaged_runs_named() -> None:
    make("runs/good", 512, checkpoint=500)
    os.makedirs("runs/model")
    Path("runs/model/config.json").write_text('{"model_type": "bert"}')
    os.makedirs("runs/folder/config.json")
    shutil.copytree("runs/good", "elsewhere")
    os.symlink(Path("elsewhere").absolute(), "runs/link")
    make("runs/cut", 1).config.write_text('{"format": 3')
    run = make("runs/linked", 1)
    run.metrics.unlink()
    run.metrics.symlink_to("/etc/hostname")
    os.mkfifo(make("runs/pipe", checkpoint=1).evaluations)
    pipe = make("runs/config_pipe", 1)
    pipe.config.unlink()
    os.mkfifo(pipe.config)
    assert states() == {
        "good": "stopped",
        "cut": "damaged",
        "linked": "damaged",
        "pipe": "damaged",
        "config_pipe": "damaged",
    }


@pytest.mark.parametrize("value", ["1e999", "-1e999", "NaN", '"x"', "null", "[1]", "true", "1" + "0" * 400])
def test_numbers_of_a_foreign_log_are_checked(value: str) -> None:
    run = make("runs/odd", 512, checkpoint=500)
    run.metrics.write_text(f'{{"time/total_timesteps": {value}, "rollout/ep_rew_mean": {value}}}\n')
    run.evaluations.write_text(f'{{"mean_return": {value}}}\n')
    [found] = find_runs(Path("runs"))
    assert (found.state, found.steps, found.ep_rew_mean, found.last_eval_mean) == ("stopped", 500, None, None)


def test_names_that_steer_a_terminal_are_written_out(capfd: pytest.CaptureFixture[str]) -> None:
    make("runs/a\x1b[2J\nb", 512, checkpoint=500, environment=None, environment_name="c", when=86_400)
    assert main(["list", "runs"]) == 0
    [line] = capfd.readouterr().out.splitlines()
    assert line.startswith(r"runs/a\x1b[2J\nb  ppo  c  3  512/1,000  51.2  102.4  stopped  1970-01-0")
    assert main(["list", "runs", "runs", "--json"]) == 0
    [run] = json.loads(capfd.readouterr().out)["runs"]
    assert run["run_dir"] == "runs/a\x1b[2J\nb"
    assert run["date"].startswith("1970-01-0")


def test_lists_fit_a_terminal() -> None:
    run = FoundRun(
        Path("runs/first"), "finished", 0.0, "ppo", "jax/CartPole-v1", 0, None, 1024, 1000, 20.5, None, "stop_at_return"
    )
    wide = list_runs.words([run], Path("runs"), 160).splitlines()
    assert wide[0].split() == list(list_runs.HEADER)
    assert wide[0].index("state") == wide[1].index("finished (stop_at_return)")
    [piped] = list_runs.words([run], Path("runs"), None).splitlines()
    assert piped.split() == wide[1].split()
    for width in (20, 60):
        lines = list_runs.words([run], Path("runs"), width).splitlines()
        assert max(map(len, lines)) <= width
        assert " ".join(" ".join(lines).split()).startswith(
            "runs/first ppo on jax/CartPole-v1, seed 0, 1,024 of 1,000 steps, return 20.5, finished (stop_at_return), 19"
        )


def test_where_there_is_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "runs"]) == 0
    assert "There is no folder runs here" in capfd.readouterr().out
    os.mkdir("runs")
    assert main(["list", "runs"]) == 0
    assert capfd.readouterr().out == "There are no runs in runs.\n"
    for words, message in (
        (["list", "runs", "nowhere"], "there is no folder of runs at nowhere"),
        (["list", "runs", ""], "the name of the folder is empty"),
        (["list", "envs", "runs"], "unexpected 'runs'; a folder is only for `jumar list runs`"),
        (["list", "runs", "a", "b"], "unexpected 'b'"),
    ):
        assert main(words) == 2
        assert message in capfd.readouterr().err
    with pytest.raises(UsageError):
        find_runs(Path("nowhere"))
