"""The table of returns: its protocol, what is left to train, its arithmetic and its files; nothing is trained here."""

from __future__ import annotations

import importlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jumar.algorithms.registry import ALGORITHMS
from jumar.cli.grammar import build
from jumar.cli.train import request_from
from jumar.errors import UsageError
from jumar.presets import presets

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"

# The benchmarks are scripts beside their modules, and no package.
sys.path.append(str(BENCHMARKS))
trainings: Any = importlib.import_module("trainings")
tables: Any = importlib.import_module("tables")
returns: Any = importlib.import_module("returns")
harness: Any = importlib.import_module("harness")
sys.path.remove(str(BENCHMARKS))

PEERS = harness.Peers(lambda words: None)
PENDULUM = {"gamma": 0.9}


def run(seed: int, *evaluations: float) -> Any:
    return trainings.Run(seed, list(evaluations), 120.0, {})


def is_peer(side: str) -> bool:
    return side in returns.VARIANTS and returns.VARIANTS[side].peer


def filled(folder: Path) -> Any:
    results = returns.results_in(folder)
    results.about = {"date": "2026-01-02", "machine": "A processor, 2 cores"}
    for seed, score in enumerate((1.0, 5.0, 2.0, 3.0, 100.0)):
        results.runs_with(PENDULUM, "pendulum", "ppo")[seed] = run(seed, -1000.0, *[score] * 10)
    return results


def test_the_protocol() -> None:
    job = trainings.Job("preset", "Hopper-v5", 1_000_000, 3, ("train",))
    assert job.eval_every == 20_000
    assert replace(job, total_timesteps=100_000).eval_every == 2_000
    assert replace(job, total_timesteps=10_000_000).eval_every == 20_000
    assert replace(job, total_timesteps=10_000_000, evaluations=50).eval_every == 200_000
    assert job.words[1:] == [
        *("--total-timesteps", "1000000", "--seed", "3", "--eval-every", "20000", "--eval-episodes", "10")
    ]


def test_a_score_is_the_mean_of_the_last_ten_evaluations() -> None:
    assert run(0, *[-100.0] * 40, *range(10)).score == 4.5


def test_the_tables(tmp_path: Path) -> None:
    lines = returns.page(filled(tmp_path)).splitlines()
    assert lines[2] == "2026-01-02. A processor, 2 cores. `.venv/bin/python benchmarks/returns.py`"
    assert "| algorithm | Pendulum-v1, 200,000 steps |" in lines
    overview = next(line for line in lines if line.startswith("| ppo"))
    assert overview.startswith("| ppo | 3 [")  # the mean of 2, 3 and 5
    line = next(line for line in lines if line.startswith("| Pendulum"))
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[:5] == ["Pendulum-v1", "200,000", "ppo", "5", "3.3"]
    assert cells[6:] == ["1.0", "1.0", "-200", "2.0"]


def test_what_was_reached_is_written_to_the_presets_whose_settings_it_was_reached_with(tmp_path: Path) -> None:
    results = filled(tmp_path)
    path = tmp_path / "ppo.json"
    path.write_text(json.dumps({"Pendulum-v1": {"settings": PENDULUM}, "Other-v0": {"settings": {}}}))
    returns.write_presets(results, tmp_path)
    written = json.loads(path.read_text())
    assert written["Other-v0"] == {"settings": {}}
    assert written["Pendulum-v1"]["settings"] == PENDULUM
    reached = written["Pendulum-v1"]["reached"]
    assert (reached["return"], reached["seeds"], reached["total_timesteps"]) == (3.3, 5, 200_000)
    assert reached["low"] <= 3.3 <= reached["high"]
    changed = {"Pendulum-v1": {"settings": {"gamma": 0.8}}}
    path.write_text(json.dumps(changed))
    returns.write_presets(results, tmp_path)
    assert json.loads(path.read_text()) == changed
    assert [file.name for file in tmp_path.iterdir()] == ["ppo.json"]


def test_results_come_back_from_their_file_with_a_line_for_the_evaluations_of_a_run(tmp_path: Path) -> None:
    results = filled(tmp_path)
    results.write(returns.page(results))
    again = returns.results_in(tmp_path)
    assert again.to_json() == results.to_json()
    assert again.runs("pendulum", "ppo")[4].score == 100.0
    assert again.settings["pendulum"]["ppo"] == PENDULUM
    assert again.runs("hopper", "sb3") == {}
    assert results.to_json().count("[-1000.0, 1.0, 1.0,") == 1


def test_the_results_kept_are_those_of_the_presets_of_today() -> None:
    results = returns.results_in(BENCHMARKS / "results")
    for name, sides in results.settings.items():
        for side, settings in sides.items():
            assert settings == returns.TASKS[name].settings_of(side), f"{name}, {side}: run benchmarks/returns.py"


@pytest.mark.parametrize(
    ("name", "side"), [(name, side) for name, task in returns.TASKS.items() for side in task.sides if not is_peer(side)]
)
def test_every_side_has_a_command_that_jumar_knows(name: str, side: str) -> None:
    task = returns.TASKS[name]
    job = returns.job_of(task, side, 7, PEERS)
    assert job.words[1:4] == ["-m", "jumar", "train"]
    variant = returns.VARIANTS.get(side)
    algorithm = variant.algorithm if variant else side
    request = request_from(build(ALGORITHMS, algorithm)[1]["train"].read(job.words[4:]), ALGORITHMS)
    assert (request.algorithm, request.env, request.seed) == (algorithm, task.env, 7)
    assert request.preset == ("none" if variant else None)
    assert (request.total_timesteps, request.eval_every, request.eval_episodes) == (
        task.total_timesteps,
        job.eval_every,
        task.episodes,
    )
    assert request.atari is ("--atari" in task.options)


def test_every_preset_is_of_a_task_and_every_aim_of_a_side() -> None:
    envs = {task.name for task in returns.TASKS.values()}
    assert {preset for algorithm in ALGORITHMS for preset in presets(algorithm)} <= envs
    assert all(set(task.aims) <= set(ALGORITHMS) for task in returns.TASKS.values())


def test_the_memoryless_side_is_the_preset_without_its_core() -> None:
    told = dict(presets("ppo")["MemoryChain-bsuite"].settings)
    assert told.pop("recurrent") == "gru"
    told.pop("recurrent_size")
    assert told == returns.VARIANTS["memoryless"].settings


def left(folder: Path, *words: str) -> list[tuple[str, int]]:
    arguments = returns.parse(["--only", "pendulum", "--sides", "trpo", "npg", *words])
    jobs, failures = returns.missing(returns.results_in(folder), arguments, PEERS)
    assert failures == []
    return [(job.name, job.seed) for _, job in jobs]


def test_only_what_is_not_measured_with_the_settings_of_today_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(returns, "refusal", lambda algorithm, env: None)
    npg, trpo = ([(name, seed) for seed in range(5)] for name in ("npg", "trpo"))
    assert left(tmp_path) == npg + trpo
    results = returns.results_in(tmp_path)
    for side in ("npg", "trpo"):
        results.runs_with(returns.TASKS["pendulum"].settings_of(side), "pendulum", side)[1] = run(1, 5.0)
    results.write("a page")
    assert left(tmp_path) == [(name, seed) for name, seed in npg + trpo if seed != 1]
    assert left(tmp_path, "--again") == npg + trpo
    results.runs_with({"gamma": 0.123}, "pendulum", "trpo")[1] = run(1, 5.0)
    results.write("a page")
    assert left(tmp_path) == [(name, seed) for name, seed in npg if seed != 1] + trpo


def test_an_algorithm_that_cannot_be_trained_is_left_out_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def assemble(plan: Any, source: Any, warn: Any) -> None:
        if plan.algorithm == "npg":
            raise UsageError("it has no pendulum.")

    monkeypatch.setattr(returns, "assemble", assemble)
    assert {name for name, _ in left(tmp_path)} == {"trpo"}
    assert "pendulum, npg: left out: it has no pendulum." in capsys.readouterr().err


def test_what_limits_costs_is_no_side_of_a_task_without_them() -> None:
    assert "Hopper-v5" in presets("cpo")
    assert "cpo" not in returns.TASKS["hopper"].sides
    assert "trpo" in returns.TASKS["hopper"].sides


@pytest.mark.parametrize("words", [["--jobs", "0"], ["--only", "chess"], ["--sides", "chess"]])
def test_a_wrong_command_line_is_refused(words: list[str]) -> None:
    with pytest.raises(SystemExit) as leaving:
        returns.parse(words)
    assert leaving.value.code == 2


def test_a_training_that_fails_is_said_and_spoils_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def in_parallel(jobs: Any, processes: int, run_one: Any, done: Any) -> None:
        for job in jobs:
            done(job, trainings.Failed("no room") if job.seed == 1 else run(job.seed, 9.0))

    monkeypatch.setattr(tables, "in_parallel", in_parallel)
    monkeypatch.setattr(
        returns, "signal", type("Signals", (), {"SIGTERM": 15, "signal": staticmethod(lambda *_: None)})
    )
    words = ["--only", "cartpole", "--sides", "trpo", "--out", str(tmp_path)]
    assert returns.main(words) == 1
    assert "cartpole, trpo, seed 1: failed: no room" in capsys.readouterr().err
    kept = json.loads((tmp_path / "returns.json").read_text())
    assert [row["seed"] for row in kept["tasks"]["cartpole"]["trpo"]] == [0, *range(2, 10)]


def test_settings_of_candidates_become_options() -> None:
    words = trainings.jumar_command(
        "ppo", "Hopper-v5", "none", {"net_arch": [8, 9], "use_sde": True, "ortho_init": False}
    )
    assert words[words.index("--preset") :] == ("--preset", "none", "--net-arch", "8,9", "--use-sde", "--no-ortho-init")


def job(code: str, seed: int = 0) -> Any:
    return trainings.Job("fake", "env", 1000, seed, (sys.executable, "-c", code))


def test_jobs_run_side_by_side_and_a_failure_spoils_nothing() -> None:
    good = 'import json; print(json.dumps({"evaluations": [1, 2.5], "versions": {"x": "1"}}))'
    jobs = [job(good, 0), job("raise ValueError('no such thing')", 1), job("print('done')", 2), job(good, 3)]
    outcomes: dict[int, Any] = {}
    trainings.in_parallel(jobs, 2, trainings.train, lambda job, outcome: outcomes.update({job.seed: outcome}))
    assert outcomes[0].evaluations == outcomes[3].evaluations == [1.0, 2.5]
    assert outcomes[0].versions == {"x": "1"}
    assert "no such thing" in str(outcomes[1])
    assert "no evaluations" in str(outcomes[2])


STOPPED = """
import signal, sys, threading
signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever runs the tests may have it ignored
sys.path.append({benchmarks!r})
from trainings import Job, in_parallel, train
code = "import pathlib, time; pathlib.Path({begun!r}).touch(); time.sleep(600)"
jobs = [Job("fake", "env", 1000, seed, (sys.executable, "-c", code)) for seed in range(4)]
try:
    in_parallel(jobs, 2, train, lambda job, outcome: print("ended"))
except KeyboardInterrupt:
    print("threads:", threading.active_count())
    sys.exit(130)
"""


def test_ctrl_c_ends_the_trainings_too(tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    words = [sys.executable, "-c", STOPPED.format(benchmarks=str(BENCHMARKS), begun=str(begun))]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    wait_until(begun.exists)
    tasks = Path(f"/proc/{process.pid}/task").glob("*/children")
    children = [int(pid) for task in tasks for pid in task.read_text().split()]
    assert children
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert (process.returncode, output) == (130, "threads: 1\n")
    wait_until(lambda: not any(alive(pid) for pid in children))


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60.0
    while not condition():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.02)
