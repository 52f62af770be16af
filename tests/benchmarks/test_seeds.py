"""Returns over many seeds beside Stable-Baselines3: the arithmetic, what is left to train, the files; nothing is trained."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import pytest

from jumar.algorithms.registry import ALGORITHMS
from jumar.cli.grammar import build
from jumar.cli.train import request_from

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"

# The benchmarks are scripts beside their modules, and no package.
sys.path.append(str(BENCHMARKS))
seeds: Any = importlib.import_module("seeds")
harness: Any = importlib.import_module("harness")
sys.path.remove(str(BENCHMARKS))

SETUP = seeds.Setup("LunarLander-v3", 200_000, 8, 256, 20)


class InstalledPeers:
    def interpreter(self, peer: str | None) -> Path:
        return Path("ours" if peer is None else "theirs")


def filled(folder: Path) -> Any:
    results = seeds.Results(folder)
    results.about = {"date": "2026-01-02", "machine": "A processor, 2 cores"}
    for side, returns in {"jumar": (1.0, 2.0, 3.0, 4.0), "sb3": (2.0, 4.0, 6.0)}.items():
        for seed, value in enumerate(returns):
            results.of(SETUP)[side][seed] = seeds.Run(seed, value, [value, 3.0 * value], 60.0, {})
    return results


def test_welchs_interval_on_numbers_worked_out_by_hand() -> None:
    # Variances 5/3 and 4: squared errors 5/12 and 4/3, their sum 7/4; (7/4)^2 / ((5/12)^2 / 3 + (4/3)^2 / 2) = 3.236 degrees
    # of freedom, where Student's 97.5 % quantile is 3.055 (between 3.182 of 3 and 2.776 of 4).
    ours, theirs = seeds.mean_of([1.0, 2.0, 3.0, 4.0]), seeds.mean_of([2.0, 4.0, 6.0])
    assert ours == pytest.approx((4, 2.5, (5 / 12) ** 0.5))
    difference = seeds.welch(ours, theirs)
    assert difference[:2] == pytest.approx((-1.5, 1.75**0.5))
    assert difference.high + difference.low == pytest.approx(-3.0)
    assert 2.776 < (difference.high - difference.low) / 2.0 / 1.75**0.5 < 3.182


def test_equal_returns_have_a_difference_of_nothing() -> None:
    same = seeds.mean_of([5.0, 5.0, 5.0])
    assert seeds.welch(same, same) == (0.0, 0.0, 0.0, 0.0)


def test_the_table_and_the_command_that_makes_it(tmp_path: Path) -> None:
    lines = seeds.page(filled(tmp_path)).splitlines()
    assert "| training | 4 | 2.5 ± 0.6 | 3 | 4.0 ± 1.2 | -1.5 ± 1.3 | -5.5 to 2.5 |" in lines
    assert next(line for line in lines if line.startswith("| evaluation")).startswith("| evaluation | 4 | 5.0 ± 1.3")
    command = next(line for line in lines if line.startswith("`")).strip("`").split()
    arguments = seeds.parse(command[2:])
    assert (arguments.env, arguments.seeds) == ("LunarLander-v3", 4)
    assert seeds.setup_of(arguments) == SETUP


def test_results_come_back_from_their_file_and_what_is_missing_is_trained_in_turns(tmp_path: Path) -> None:
    filled(tmp_path).write()
    again = seeds.Results(tmp_path)
    assert again.runs == filled(tmp_path).runs
    jobs = seeds.missing(again, SETUP, 5, InstalledPeers())
    assert [(job.side, job.seed, job.interpreter) for job in jobs] == [
        *(("sb3", 3, "theirs"), ("jumar", 4, "ours"), ("sb3", 4, "theirs"))
    ]
    longer = seeds.Setup("LunarLander-v3", 400_000, 8, 256, 20)
    assert len(seeds.missing(again, longer, 5, InstalledPeers())) == 10


def test_jumars_commands_are_ones_that_it_knows_and_both_sides_evaluate_with_the_same_seeds(tmp_path: Path) -> None:
    train, evaluate = seeds.commands(seeds.Job("jumar", SETUP, 3, "python"), tmp_path)
    request = request_from(build(ALGORITHMS, "ppo")[1]["train"].read(train[4:]), ALGORITHMS)
    assert (request.env, request.seed, request.total_timesteps) == ("gymnasium/LunarLander-v3", 3, 200_000)
    assert (request.preset, request.eval_every, request.checkpoint_every) == ("none", 0, 0)
    assert build(ALGORITHMS)[1]["evaluate"].read(evaluate[4:]).seed == 1_000_060
    (theirs,) = seeds.commands(seeds.Job("sb3", SETUP, 3, "python"), tmp_path)
    assert theirs[theirs.index("--evaluation-seed") + 1] == "1000060"
    assert theirs[theirs.index("--seed") + 1] == "3"


@pytest.mark.parametrize("words", [[], ["A-v0", "--jobs", "0"], ["A-v0", "--seeds", "none"]])
def test_a_wrong_command_line_is_refused(words: list[str]) -> None:
    with pytest.raises(SystemExit) as leaving:
        seeds.parse(words)
    assert leaving.value.code == 2
