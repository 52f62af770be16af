"""The pictures of the home page and of the benchmarks, which are made when the site is built."""

from __future__ import annotations

import importlib
import math
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]

pytest.importorskip("sphinx")


@pytest.fixture
def charts(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "docs" / "_ext")
    return importlib.import_module("jumar_charts")


@pytest.mark.parametrize(
    ("low", "high", "log"), [(0.0, 1.0, False), (-1900.0, -130.0, False), (310.0, 359.0, False), (0.9, 40.0, True)]
)
def test_ticks_are_few_and_round_and_within(charts: ModuleType, low: float, high: float, log: bool) -> None:
    ticks = charts.ticks_between(low, high, log=log)
    assert 3 <= len(ticks) <= 7
    assert ticks == sorted(tick for tick in ticks if low <= tick <= high)
    step = min(b - a for a, b in pairwise(ticks))
    assert f"{step:e}"[0] in "125"


def test_a_value_stands_where_its_size_puts_it(charts: ModuleType) -> None:
    page = charts.chart(
        {"": [charts.Row("a", {"": charts.Spread(10.0, 1.0, 100.0)})]}, "Title", "axis", log=True, one=True
    )
    low, high = 1.0 / 1.1, 110.0
    assert f"left:{100 * math.log(10.0 / low) / math.log(high / low):.2f}%" in page
    assert 'class="one"' in page
    assert 'aria-label="Title. a: 10 (1 to 100)."' in page


def test_names_are_escaped(charts: ModuleType) -> None:
    values = {"x<y": charts.Spread(1.0, 0.0, 2.0), "z": charts.Spread(1.0, 1.0, 1.0)}
    page = charts.chart({"<h>": [charts.Row('a<b>"&', values)]}, "<t>", "<a>")
    assert not [word for word in ("<h>", "<b>", "x<y", "<t>", "<a>") if word in page]


def test_the_family_holds_every_method_once(charts: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    assert charts.family().count("<li") == len(charts.ALGORITHMS)
    monkeypatch.setattr(charts, "ALGORITHMS", {**charts.ALGORITHMS, "new-method": None})
    with pytest.raises(ValueError, match="new-method"):
        charts.family()


def test_speed_is_the_ratio_of_each_round(charts: ModuleType) -> None:
    (row,) = charts.speed_rows(["halfcheetah"])["Stable-Baselines3"]
    comparison = next(c for c in charts.read(charts.BENCHMARKS / "results").comparisons if c.name == "halfcheetah")
    sides = {side.name: side.rounds for side in comparison.sides}
    ratios = sorted(a.steps_per_second / b.steps_per_second for a, b in zip(sides["jumar"], sides["sb3"], strict=True))
    assert row.values["AMD EPYC"] == charts.Spread(ratios[1], ratios[0], ratios[2])
    with pytest.raises(ValueError, match=r"halfcheeta; known: .*halfcheetah"):
        charts.speed_rows(["halfcheeta"])


def test_returns_are_those_of_the_table(charts: ModuleType) -> None:
    rows = charts.returns_rows("hopper")
    table = (ROOT / "benchmarks" / "results" / "returns.md").read_text()
    for row in rows:
        value = row.values[""]
        assert f"| {row.label} | 5 | {value.median:,.1f} | {value.lowest:,.1f} to {value.highest:,.1f} |" in table
    medians = [row.values[""].median for row in rows]
    assert medians == sorted(medians, reverse=True)
