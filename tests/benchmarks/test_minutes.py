"""The return per minute beside peers: what is read of a training under way, and the table; nothing is trained."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from jumar.algorithms.registry import ALGORITHMS
from jumar.cli.grammar import build
from jumar.cli.train import request_from

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.append(str(BENCHMARKS))
minutes: Any = importlib.import_module("minutes")
harness: Any = importlib.import_module("harness")
sys.path.remove(str(BENCHMARKS))

SPEAKS = """
import json, sys, time
print(json.dumps({"versions": {"its": "1.0"}}), flush=True)
for i in range(10_000):
    print(json.dumps({"time/total_timesteps": i, "mean_return": 2.0 * i}), flush=True)
    time.sleep(0.2)
"""


class InstalledPeers:
    def interpreter(self, peer: str) -> Path:
        return Path(peer)


def filled(folder: Path) -> Any:
    results = minutes.Results(folder)
    for seed, last in enumerate((30.0, 10.0, 20.0)):
        points = [
            minutes.Point(100.0, 10_000, 1.0),
            minutes.Point(700.0, 80_000, 5.0),
            minutes.Point(1750.0, 200_000, last),
        ]
        results.of("A-v0", "jumar")[seed] = minutes.Run(seed, 30.0, points, {})
    results.of("A-v0", "sb3")[0] = minutes.Run(0, 20.0, [minutes.Point(400.0, 10_000, 7.0)], {"torch": "2"})
    return results


def test_a_training_is_read_while_it_goes_on_and_ended_when_its_time_is_over(tmp_path: Path) -> None:
    points, versions = minutes.train([sys.executable, "-c", SPEAKS], tmp_path / "out", tmp_path, 1.5 / 60.0)
    assert versions == {"its": "1.0"}
    assert [(point.steps, point.mean_return) for point in points] == [(i, 2.0 * i) for i in range(len(points))]
    assert len(points) >= 2
    assert [point.seconds for point in points] == sorted(point.seconds for point in points)


def test_a_training_that_ends_by_itself_has_failed(tmp_path: Path) -> None:
    with pytest.raises(harness.Failed, match="no such thing"):
        minutes.train([sys.executable, "-c", "raise SystemExit('no such thing')"], tmp_path / "out", tmp_path, 1.0)


def test_half_a_line_is_read_when_it_is_whole(tmp_path: Path) -> None:
    log = tmp_path / "log"
    lines = minutes.new_lines(log)
    assert next(lines) == []
    log.write_text('{"a": 1}\n{"b"')
    assert next(lines) == [{"a": 1}]
    with log.open("a") as file:
        file.write(": 2}\n")
    assert next(lines) == [{"b": 2}]
    assert next(lines) == []


def test_the_table_has_the_newest_evaluation_after_so_many_minutes(tmp_path: Path) -> None:
    text = minutes.page(filled(tmp_path))
    assert "| Jumar, SAC's defaults | 3 | 1 (1 to 1) | 5 (5 to 5) | 20 (10 to 30) | 200,000 |" in text
    assert "| Stable-Baselines3 | 1 |  | 7 (7 to 7) |  | 10,000 |" in text  # nothing after 5 minutes; ended before 30


def test_results_come_back_and_what_is_missing_is_trained_in_turns(tmp_path: Path) -> None:
    filled(tmp_path).write()
    again = minutes.Results(tmp_path)
    assert again.runs == filled(tmp_path).runs
    arguments = minutes.parse(["A-v0", "--seeds", "2", "--sides", "jumar", "sb3"])
    assert minutes.missing(again, arguments) == [("sb3", 0), ("sb3", 1)]
    assert json.loads((tmp_path / "minutes.json").read_text())["envs"]["A-v0"]["sb3"][0]["versions"] == {"torch": "2"}


def test_jumars_command_is_one_that_it_knows(tmp_path: Path) -> None:
    words = minutes.command(minutes.SIDES["jumar"], "HalfCheetah-v5", 3, tmp_path, InstalledPeers())
    request = request_from(build(ALGORITHMS, "sac")[1]["train"].read(words[4:]), ALGORITHMS)
    assert (request.env, request.seed, request.preset, request.eval_every) == (
        "gymnasium/HalfCheetah-v5",
        3,
        "none",
        10_000,
    )
    theirs = minutes.command(minutes.SIDES["sbx"], "HalfCheetah-v5", 3, tmp_path, InstalledPeers())
    assert theirs[0] == "sbx"
    assert theirs[theirs.index("--threads") + 1] == "1"


@pytest.mark.parametrize("words", [[], ["A-v0", "--seeds", "0"], ["A-v0", "--minutes", "-1"], ["A-v0", "--sides", "x"]])
def test_a_command_line_that_asks_for_nothing_is_refused(words: list[str]) -> None:
    with pytest.raises(SystemExit) as leaving:
        minutes.parse(words)
    assert leaving.value.code == 2
