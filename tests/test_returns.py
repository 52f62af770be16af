"""The table of returns: its protocol, its arithmetic and its files; nothing is trained here."""

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
from jumar.cli.parser import build
from jumar.cli.train import request_from
from jumar.presets import presets

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"

# The benchmarks are scripts beside their modules, and no package.
sys.path.append(str(BENCHMARKS))
trainings: Any = importlib.import_module("trainings")
returns: Any = importlib.import_module("returns")
harness: Any = importlib.import_module("harness")
sys.path.remove(str(BENCHMARKS))


def run(seed: int, *evaluations: float) -> Any:
    return trainings.Run(seed, list(evaluations), 120.0, {})


def filled(folder: Path) -> Any:
    results = returns.results_in(folder)
    results.about = {"date": "2026-01-02", "machine": "A processor, 2 cores"}
    for seed, score in enumerate((1.0, 5.0, 2.0, 3.0, 100.0)):
        results.runs("pendulum", "preset")[seed] = run(seed, -1000.0, *[score] * 10)
    return results


def test_the_protocol() -> None:
    job = trainings.Job("preset", "Hopper-v5", 1_000_000, 3, ("train",))
    assert job.eval_every == 20_000
    assert replace(job, total_timesteps=100_000).eval_every == 2_000
    assert replace(job, total_timesteps=10_000_000).eval_every == 20_000
    assert job.words[1:] == [
        *("--total-timesteps", "1000000", "--seed", "3", "--eval-every", "20000", "--eval-episodes", "10")
    ]


def test_a_score_is_the_mean_of_the_last_ten_evaluations() -> None:
    assert run(0, *[-100.0] * 40, *range(10)).score == 4.5


def test_the_table_and_what_is_written_to_the_presets(tmp_path: Path) -> None:
    results = filled(tmp_path)
    line = next(line for line in returns.page(results).splitlines() if line.startswith("| Pendulum"))
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[:5] == ["Pendulum-v1", "200,000", "Jumar, preset", "5", "3.3"]  # the mean of 2, 3 and 5
    assert cells[6:] == ["1.0", "1.0", "-200", "2.0"]
    path = tmp_path / "ppo.json"
    path.write_text(json.dumps({"Pendulum-v1": {"settings": {"gamma": 0.9}}, "Other-v0": {"settings": {}}}))
    returns.write_presets(results, path)
    written = json.loads(path.read_text())
    assert written["Other-v0"] == {"settings": {}}
    assert written["Pendulum-v1"]["settings"] == {"gamma": 0.9}
    reached = written["Pendulum-v1"]["reached"]
    assert (reached["return"], reached["seeds"], reached["total_timesteps"]) == (3.3, 5, 200_000)
    assert reached["low"] <= 3.3 <= reached["high"]


def test_results_come_back_from_their_file(tmp_path: Path) -> None:
    results = filled(tmp_path)
    results.write(returns.page(results))
    again = returns.results_in(tmp_path)
    assert again.to_json() == results.to_json()
    assert again.runs("pendulum", "preset")[4].score == 100.0
    assert again.runs("hopper", "sb3") == {}


@pytest.mark.parametrize("name", returns.TASKS)
def test_every_task_has_a_preset_and_commands_that_jumar_knows(name: str) -> None:
    task = returns.TASKS[name]
    assert task.env in presets("ppo")
    for side, preset in (("preset", None), ("defaults", "none")):
        job = returns.job_of(task, side, 7, harness.Peers(lambda words: None))
        words = job.words
        assert words[1:4] == ["-m", "jumar", "train"]
        request = request_from(build(ALGORITHMS, "ppo")[1]["train"].read(words[4:]), ALGORITHMS)
        assert (request.env, request.seed, request.preset) == (task.env, 7, preset)
        assert (request.eval_every, request.eval_episodes) == (job.eval_every, 10)


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
    trainings.in_parallel(jobs, 2, lambda job, outcome: outcomes.update({job.seed: outcome}))
    assert outcomes[0].evaluations == outcomes[3].evaluations == [1.0, 2.5]
    assert outcomes[0].versions == {"x": "1"}
    assert "no such thing" in str(outcomes[1])
    assert "no evaluations" in str(outcomes[2])


STOPPED = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever runs the tests may have it ignored
sys.path.append({benchmarks!r})
from trainings import Job, in_parallel
code = "import pathlib, time; pathlib.Path({begun!r}).touch(); time.sleep(600)"
jobs = [Job("fake", "env", 1000, seed, (sys.executable, "-c", code)) for seed in range(4)]
try:
    in_parallel(jobs, 2, lambda job, outcome: print("ended"))
except KeyboardInterrupt:
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
    assert (process.returncode, output) == (130, "")
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
