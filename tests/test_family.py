"""The table of the whole family's returns: its data, what is left to train, and its page; nothing is trained here."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from jumar.algorithms.registry import ALGORITHMS
from jumar.cli.parser import build
from jumar.cli.train import request_from
from jumar.errors import UsageError

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"

# The benchmarks are scripts beside their modules, and no package.
sys.path.append(str(BENCHMARKS))
trainings: Any = importlib.import_module("trainings")
tables: Any = importlib.import_module("tables")
family: Any = importlib.import_module("family")
sys.path.remove(str(BENCHMARKS))

TASKS = family.read_tasks()


def run(seed: int, score: float) -> Any:
    return trainings.Run(seed, [score] * 10, 120.0, {})


def results_in(folder: Path) -> Any:
    return tables.Results(folder / "family.json", tuple(TASKS))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("name", TASKS)
def test_every_algorithm_has_a_command_that_jumar_knows_and_settings_that_are_its_own(
    name: str, algorithm: str
) -> None:
    task = TASKS[name]
    job = task.job(algorithm, 7)
    assert job.words[1:4] == ["-m", "jumar", "train"]
    request = request_from(build(ALGORITHMS, algorithm)[1]["train"].read(job.words[4:]), ALGORITHMS)
    assert (request.algorithm, request.env, request.preset) == (algorithm, task.env, "none")
    assert (request.seed, request.total_timesteps, request.eval_episodes) == (7, task.total_timesteps, 10)
    settings = dict(task.settings_of(algorithm))
    assert request.n_envs == settings.pop("n_envs", None)
    chosen = ALGORITHMS[algorithm]
    assert chosen.make_settings(request.settings) == chosen.make_settings(settings)


def test_the_data_name_no_algorithm_that_jumar_has_not() -> None:
    assert all(set(task.settings) <= set(ALGORITHMS) for task in TASKS.values())


def test_an_algorithm_that_the_data_do_not_name_has_its_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    task = family.Task("jax/CartPole-v1", 1_000, 3, {"trpo": {"n_envs": 4}})
    assert task.settings_of("to-come") == {}
    assert "--n-envs" not in task.job("to-come", 0).words
    assert "--n-envs" in task.job("trpo", 0).words
    monkeypatch.setattr(family, "ALGORITHMS", {**ALGORITHMS, "to-come": None})
    assert "to-come" in family.parse({"cartpole": task}, []).algorithms


@pytest.mark.parametrize("task", TASKS.values(), ids=list(TASKS))
def test_every_algorithm_of_today_can_be_trained_on_both_tasks(task: Any) -> None:
    for algorithm in task.settings:
        assert family.refusal(algorithm, task.env) is None


def test_an_algorithm_that_cannot_be_trained_is_left_out_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def assemble(plan: Any, source: Any, warn: Any) -> None:
        if plan.algorithm == "npg":
            raise UsageError("it has no pendulum.")

    monkeypatch.setattr(family, "assemble", assemble)
    arguments = family.parse(TASKS, ["--only", "pendulum", "--algorithms", "trpo", "npg"])
    jobs = family.missing(results_in(tmp_path), TASKS, arguments)
    assert {job.name for _, job in jobs} == {"trpo"}
    assert "pendulum, npg: left out: it has no pendulum." in capsys.readouterr().err


def test_only_what_is_not_measured_with_the_settings_of_today_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(family, "refusal", lambda algorithm, env: None)
    tasks = {"cartpole": family.Task("jax/CartPole-v1", 1_000, 3, {"trpo": {"gamma": 0.9}})}

    def left(*words: str) -> list[tuple[str, int]]:
        arguments = family.parse(tasks, ["--algorithms", "trpo", "ppo", *words])
        return [(job.name, job.seed) for _, job in family.missing(results_in(tmp_path), tasks, arguments)]

    everything = [(name, seed) for name in ("ppo", "trpo") for seed in range(3)]
    assert left() == everything
    results = results_in(tmp_path)
    for name in ("ppo", "trpo"):
        results.runs_with(tasks["cartpole"].settings_of(name), "cartpole", name)[1] = run(1, 5.0)
    results.write("a page")
    assert left() == [("ppo", 0), ("ppo", 2), ("trpo", 0), ("trpo", 2)]
    assert left("--again") == everything
    tasks["cartpole"].settings["trpo"]["gamma"] = 0.8
    assert left() == [("ppo", 0), ("ppo", 2), *everything[3:]]


def test_the_page_has_what_was_measured_with_its_settings_and_nothing_else(tmp_path: Path) -> None:
    task = family.Task("jax/CartPole-v1", 100_000, 5, {"trpo": {"n_envs": 8, "learning_rate": "linear:1e-3"}})
    results = results_in(tmp_path)
    results.about = {"date": "2026-01-02", "machine": "A processor", "command": "python family.py --only cartpole"}
    for name in ("trpo", "a2c", "npg"):
        runs = results.runs_with(task.settings_of(name), "cartpole", name)
        if name != "npg":
            runs.update({seed: run(seed, score) for seed, score in enumerate((1.0, 5.0, 2.0, 3.0, 100.0))})
    results.write(family.page(results, {"cartpole": task}))
    lines = (tmp_path / "family.md").read_text().splitlines()
    assert lines[2] == "2026-01-02. A processor. `python family.py --only cartpole`"
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[8:]]
    assert [row[:5] for row in rows] == [
        ["jax/CartPole-v1", "100,000", name, "5", "3.3"]  # the mean of 2, 3 and 5
        for name in ("a2c", "trpo")
    ]
    assert [row[6:] for row in rows] == [
        ["1.0", "2.0", "defaults"],
        ["1.0", "2.0", "`n_envs` 8, `learning_rate` linear:1e-3"],
    ]
    kept = json.loads((tmp_path / "family.json").read_text())
    assert kept["settings"] == {"cartpole": {"trpo": task.settings["trpo"], "a2c": {}}}
    assert results_in(tmp_path).to_json() == results.to_json()


@pytest.mark.parametrize("words", [["--jobs", "0"], ["--only", "chess"], ["--algorithms", "chess"]])
def test_a_wrong_command_line_is_refused(words: list[str]) -> None:
    with pytest.raises(SystemExit) as leaving:
        family.parse(TASKS, words)
    assert leaving.value.code == 2


def test_a_training_that_fails_is_said_and_spoils_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def in_parallel(jobs: Any, processes: int, done: Any) -> None:
        for job in jobs:
            done(job, trainings.Failed("no room") if job.seed == 1 else run(job.seed, 9.0))

    monkeypatch.setattr(tables, "in_parallel", in_parallel)
    monkeypatch.setattr(family, "signal", type("Signals", (), {"SIGTERM": 15, "signal": staticmethod(lambda *_: None)}))
    words = ["--only", "cartpole", "--algorithms", "trpo", "--out", str(tmp_path)]
    assert family.main(words) == 1
    assert "cartpole, trpo, seed 1: no room" in capsys.readouterr().err.replace("failed: ", "")
    kept = json.loads((tmp_path / "family.json").read_text())
    assert [row["seed"] for row in kept["tasks"]["cartpole"]["trpo"]] == [0, *range(2, TASKS["cartpole"].seeds)]
    assert kept["about"]["command"] == " ".join((".venv/bin/python benchmarks/family.py", *words))
