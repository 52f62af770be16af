"""The comparisons of papers made again: their requests can be planned, their tables add up; nothing is trained here."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from jumar.presets import presets
from jumar.studies.cells import cells_of

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"

# The benchmarks are scripts beside their modules, and no package.
sys.path.append(str(BENCHMARKS))
comparisons: Any = importlib.import_module("comparisons")
sys.path.remove(str(BENCHMARKS))

ABOUT = {"date": "2026-01-02", "machine": "A processor, 2 cores"}


def score(method: str, iqm: float, cost: float | None = None, error: float | None = None) -> dict[str, Any]:
    row = {"method": method, "env": "envpool/Hopper-v5", "runs": 5, "failed": 0, "iqm": iqm, "low": 1.0, "high": 2.0}
    return {**row, "cost": cost, "cost_error": error, "mean_kl": 0.01}


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


@pytest.mark.parametrize("name", comparisons.STUDIES)
def test_every_run_can_be_planned(name: str) -> None:
    for request in comparisons.STUDIES[name].parts.values():
        planned = cells_of(request)
        assert len(planned) == len(request.methods) * len(request.envs)
        assert all(cell.plan.total_timesteps == 1_000_000 for cell in planned)


def test_objectives_are_all_that_differs() -> None:
    (request,) = comparisons.OBJECTIVES.parts.values()
    told = {key for method in request.methods for key in method.settings}
    assert told - set(comparisons.EPOCHS) == {"clip_range", "target_kl", "adaptive_kl", "kl_coef"}


def test_a_limit_is_kept_within_a_standard_error_and_the_best_price_that_keeps_it_is_the_measure() -> None:
    scores = [
        score("cpo", 900.0, 24.0, 2.0),
        score("ppo, price 0.3", 2_000.0, 40.0, 14.0),
        score("ppo, price 1", 1_000.0, 26.0, 1.5),
        score("ppo, price 3", 500.0, 0.0, None),
    ]
    lines = comparisons.limit_table({"hopper": {"scores": scores}})
    found = [cells(line)[-3:] for line in lines[2:]]
    assert found == [
        ["24.0 ± 2.00", "yes", "90%"],
        ["40.0 ± 14.0", "no", "200%"],
        ["26.0 ± 1.50", "yes", "100%"],
        ["0", "yes", "50%"],
    ]
    alone = comparisons.limit_table({"hopper": {"scores": [score("cpo", 900.0, 30.0)]}})
    assert cells(alone[-1])[-2:] == ["no", "-"]


def test_an_objective_is_shown_over_all_tasks_in_each_and_beside_the_clipped_one() -> None:
    methods = (comparisons.CLIPPED, "neither")
    tables = {
        "scores": [score(method, iqm) for method, iqm in zip(methods, (3_000.0, 10.0), strict=True)],
        "overall": [
            {"method": method, "tasks": 3, "runs": 15, "iqm": iqm, "low": 0.0, "high": 1.0}
            for method, iqm in zip(methods, (0.75, 0.25), strict=True)
        ],
        "improvement": [{"method": comparisons.CLIPPED, "other": "neither", "probability": 0.96}],
    }
    lines = comparisons.objectives_table({"": tables})
    assert cells(lines[0])[3] == "Hopper-v5"
    assert cells(lines[2])[:4] == ["clip 0.2", "5", "0.7500 [0 to 1.00]", "3,000 [1.00 to 2.00]"]
    assert cells(lines[3])[-2:] == ["0.0100", "0.9600"]


def test_numbers_page_and_pictures_are_kept_together(tmp_path: Path) -> None:
    found = {"limit": {"hopper": {"about": ABOUT, "tables": {"scores": [score("cpo", 900.0, 24.0, 2.0)]}}}}
    comparisons.keep(found, {"limit-hopper-diagnostics.png": b"a picture"}, tmp_path)
    assert json.loads((tmp_path / "comparisons.json").read_text()) == found
    page = (tmp_path / "comparisons.md").read_text()
    assert "`.venv/bin/python benchmarks/comparisons.py --only limit`" in page
    assert "![diagnostics](comparisons/limit-hopper-diagnostics.png)" in page
    assert "The objectives of PPO" not in page
    assert (tmp_path / "comparisons" / "limit-hopper-diagnostics.png").read_bytes() == b"a picture"
    assert not list(tmp_path.rglob("*.tmp"))


def test_parts_of_a_study_say_each_when_and_on_what_they_were_made_unless_it_is_the_same() -> None:
    other = {"date": "2026-01-03", "machine": "Another, 2 cores"}
    same = {part: {"about": ABOUT} for part in ("hopper", "walker2d")}
    assert comparisons.made(same) == "2026-01-02, A processor, 2 cores."
    differing = comparisons.made({**same, "walker2d": {"about": other}})
    assert differing == "hopper: 2026-01-02, A processor, 2 cores; walker2d: 2026-01-03, Another, 2 cores."


def test_what_cpo_reached_is_written_to_the_presets_whose_settings_it_was_reached_with(tmp_path: Path) -> None:
    found: dict[str, Any] = {"limit": {}}
    for env, iqm in (("Hopper-v5", 900.04), ("Walker2d-v5", 800.0)):
        scores = [score("ppo, price 1", 1.0), {**score("cpo", iqm, 24.04, 2.0), "env": f"envpool/{env}", "low": 800.0}]
        presets_of_today = {"cpo": {env: {"n_envs": 16}}}
        found["limit"][env.partition("-")[0].lower()] = {"presets": presets_of_today, "tables": {"scores": scores}}
    path = tmp_path / "cpo.json"
    path.write_text(json.dumps({"Hopper-v5": {"settings": {"n_envs": 16}}, "Walker2d-v5": {"settings": {"n_envs": 8}}}))
    comparisons.write_presets(found, tmp_path)
    written = json.loads(path.read_text())
    assert written["Walker2d-v5"] == {"settings": {"n_envs": 8}}
    assert written["Hopper-v5"]["reached"] == {
        "return": 900.0,
        "low": 800.0,
        "high": 2.0,
        "seeds": 5,
        "total_timesteps": 1_000_000,
        "cost": 24.0,
        "cost_source": "velocity:0.7402",
    }


def test_the_studies_kept_are_those_of_today() -> None:
    path = BENCHMARKS / "results" / "comparisons.json"
    kept = json.loads(path.read_text())
    assert kept
    for name, parts in kept.items():
        assert set(parts) == set(comparisons.STUDIES[name].parts)
        for part, found in parts.items():
            request = comparisons.STUDIES[name].parts[part]
            again = f"run benchmarks/comparisons.py --only {name}"
            assert found["presets"] == comparisons.presets_of(request), again
            assert found["asked"] == comparisons.asked_of(request), again


def test_every_preset_of_cpo_is_of_a_task_whose_costs_are_limited() -> None:
    assert set(presets("cpo")) == {request.envs[0] for request in comparisons.LIMITED.parts.values()}
