"""The benchmark of single optimisations: its arithmetic, its page and its failures; nothing is timed here."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"

sys.path.append(str(BENCHMARKS))
history: Any = importlib.import_module("history")
sys.path.remove(str(BENCHMARKS))


def test_a_line_has_medians_and_the_ratios_within_rounds() -> None:
    result = history.Result("a change", ("a1", "b2"), "a workload", "update", [40.0, 60.0, 30.0], [20.0, 20.0, 20.0])
    assert result.line == "| a change | a workload | update | 40.0 | 20.0 | 2.00 (1.50 to 3.00) |"


def test_every_optimisation_names_a_part_that_its_workload_measures() -> None:
    parts = (BENCHMARKS / "peers" / "parts.py").read_text()
    for one in history.OPTIMISATIONS.values():
        assert one.before != one.after
        assert f'"{one.row}"' in parts
        assert "--n-envs" in one.workload.words
        assert one.workload.total_timesteps >= 3 * one.workload.rollout


def test_a_commit_that_is_not_there_is_a_failure_in_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lost = history.Optimisation("a lost change", "0" * 40, "1" * 40, history.CHEETAH, "update")
    monkeypatch.setattr(history, "OPTIMISATIONS", {"lost": lost})
    assert history.main(["--out", str(tmp_path)]) == 1
    assert "the whole history is needed" in capsys.readouterr().err
    kept = json.loads((tmp_path / "history.json").read_text())
    assert kept["optimisations"][0]["failure"] is not None
    assert (
        "a lost change | HalfCheetah-v5, 8 environments | update | git has no" in (tmp_path / "history.md").read_text()
    )
