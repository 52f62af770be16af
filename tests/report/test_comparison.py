"""From runs to tables, pages and pictures, on runs that are made by hand."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from jumar.report.comparison import (
    COST,
    ENDED,
    ENDED_COST,
    KL,
    STEPS,
    Comparison,
    Protocol,
    Run,
    compare_runs,
)
from jumar.report.pages import aligned, csv_text, explanation, markdown, page, score_cells
from jumar.report.pictures import pictures
from jumar.report.statistics import bootstrap_interval, interquartile_mean

PNG = b"\x89PNG\r\n\x1a\n"


def run(method: str, env: str, seed: int, *returns: float, **record: Any) -> Run:
    """A run with an evaluation every 100 steps; ``record`` has numbers of iterations of 50 steps each."""
    steps = 100.0 * (1.0 + np.arange(len(returns)))
    told = {name: np.asarray(values, np.float64) for name, values in record.items()}
    if told:
        told[STEPS] = 50.0 * (1.0 + np.arange(len(next(iter(told.values()))), dtype=np.float64))
    return Run(method, env, seed, steps, np.array(returns), told, path=f"{method}/{env}/{seed}")


def two_by_two() -> list[Run]:
    return [
        *(run("ppo", "A", seed, 0.0, 10.0 + seed, 20.0 + seed) for seed in range(5)),
        *(run("ppo", "B", seed, 0.0, -1.0, -2.0 - seed) for seed in range(5)),
        *(run("trpo", "A", seed, 0.0, 12.0, 22.0 + seed) for seed in range(5)),
        *(run("trpo", "B", seed, 0.0, -1.0, -4.0 - seed) for seed in range(3)),
        Run("trpo", "B", 3, np.zeros(0), np.zeros(0), failure="it fell."),
    ]


def row_of(table: list[dict[str, Any]], **wanted: Any) -> dict[str, Any]:
    [row] = [row for row in table if all(row[key] == value for key, value in wanted.items())]
    return row


def test_a_score_is_the_mean_of_the_last_evaluations() -> None:
    found = compare_runs([run("ppo", "A", 0, 1.0, 2.0, 4.0, 9.0)], last=2)
    assert row_of(found.runs, seed=0)["score"] == 6.5
    assert row_of(found.runs, seed=0)["last_eval_mean"] == 9.0
    assert compare_runs([run("ppo", "A", 0, 1.0, 3.0)], last=10).runs[0]["score"] == 2.0  # of those that there are


def evaluated(total: int, every: int, *steps: int) -> Run:
    """A run that was to be evaluated every so many steps, and was at these; each returned its number."""
    returns = np.arange(1.0, len(steps) + 1.0)
    return Run("ppo", "A", 0, np.array(steps, float), returns, protocol=Protocol(total, every, 5))


@pytest.mark.parametrize(
    ("run", "score"),
    [
        (evaluated(1000, 100, *range(100, 1001, 100)), 9.5),  # of 900 and 1,000
        (evaluated(1000, 100, 128, 256, 384, 512, 640, 768, 896, 1024), 8.0),  # that of 896 was due at 800
        (evaluated(1000, 100, 512, 1024), 2.0),  # iterations longer than what is between two
        (evaluated(950, 100, *range(100, 901, 100), 950), 9.5),  # the last is due with the end
        (evaluated(1000, 100, 400, 800), 2.0),  # none is late
    ],
)
def test_a_score_is_that_of_the_same_stretch_whatever_an_iteration_is(run: Run, score: float) -> None:
    assert run.score(2) == score
    [line] = [line for line in page(compare_runs([run], last=2), []).splitlines() if line.startswith("A run's score")]
    assert "its evaluations since the last 2 were due, from step 900 on" in line


def test_a_short_run_is_scored_by_all_of_its_evaluations() -> None:
    short = evaluated(300, 100, 100, 200, 300)
    assert short.score(10) == 2.0
    assert "is the mean return of all of its evaluations." in page(compare_runs([short]), [])


def test_each_method_in_each_task_has_its_statistics() -> None:
    found = compare_runs(two_by_two(), last=1)
    scores = np.array([20.0, 21.0, 22.0, 23.0, 24.0])
    row = row_of(found.scores, method="ppo", env="A")
    interval = bootstrap_interval(scores)
    assert (row["iqm"], row["low"], row["high"]) == (interquartile_mean(scores), *interval)
    assert (row["mean"], row["median"], row["lowest"], row["highest"]) == (22.0, 22.0, 20.0, 24.0)
    assert row["std"] == pytest.approx(np.sqrt(2.5))
    assert (row["runs"], row["failed"]) == (5, 0)
    failing = row_of(found.scores, method="trpo", env="B")
    assert (failing["runs"], failing["failed"], failing["lowest"]) == (3, 1, -6.0)


def test_scores_over_tasks_are_normalised_by_the_lowest_and_the_highest_of_any_run() -> None:
    found = compare_runs(two_by_two(), last=1)
    assert found.about["scales"] == {"A": [20.0, 26.0], "B": [-6.0, -2.0]}
    ours = np.concatenate([(np.arange(20.0, 25.0) - 20.0) / 6.0, (np.arange(-6.0, -1.0) + 6.0) / 4.0])
    row = row_of(found.overall, method="ppo")
    assert row["iqm"] == pytest.approx(interquartile_mean(ours))
    assert (row["tasks"], row["runs"]) == (2, 10)
    assert row_of(found.overall, method="trpo")["runs"] == 8


def test_scales_may_be_given() -> None:
    found = compare_runs(two_by_two(), last=1, scales={"A": (0.0, 100.0)})
    assert found.about["scales"]["A"] == [0.0, 100.0]
    assert found.about["scales"]["B"] == [-6.0, -2.0]
    one = compare_runs([run("ppo", "A", 0, 30.0)], scales={"A": (10.0, 50.0)})
    assert one.normalised
    assert row_of(one.overall, method="ppo")["iqm"] == 0.5


def test_a_scale_goes_up() -> None:
    with pytest.raises(ValueError, match="the scale of A does not go up"):
        compare_runs([run("ppo", "A", 0, 30.0)], scales={"A": (10.0, 10.0)})


def test_one_task_is_not_normalised() -> None:
    found = compare_runs([run("ppo", "A", seed, 100.0 + seed) for seed in range(3)])
    assert not found.normalised
    assert row_of(found.overall, method="ppo")["iqm"] == 101.0
    assert (
        min(row["threshold"] for row in found.profiles)
        < 100.0
        < 102.0
        < max(row["threshold"] for row in found.profiles)
    )


def test_a_method_that_lacks_a_task_has_no_score_over_all_of_them() -> None:
    found = compare_runs([*two_by_two(), run("acer", "A", 0, 5.0)], last=1)
    assert [row["method"] for row in found.overall] == ["ppo", "trpo"]
    assert {row["method"] for row in found.profiles} == {"ppo", "trpo"}
    pair = row_of(found.improvement, method="acer", other="ppo")
    assert (pair["tasks"], pair["probability"]) == (1, 0.0)  # where both have scores


def test_the_probability_of_improvement_is_a_mean_over_tasks() -> None:
    found = compare_runs(two_by_two(), last=1)
    a = np.mean([(20.0 + i < 22.0 + j) + 0.5 * (20.0 + i == 22.0 + j) for i in range(5) for j in range(5)])
    b = np.mean([(-2.0 - i < -4.0 - j) + 0.5 * (-2.0 - i == -4.0 - j) for i in range(5) for j in range(3)])
    assert row_of(found.improvement, method="trpo", other="ppo")["probability"] == pytest.approx((a + b) / 2.0)


@pytest.mark.parametrize("score", [0.0, 1e6, -1e12])
def test_a_profile_of_equal_scores_falls_from_one_to_zero(score: float) -> None:
    found = compare_runs([run(method, "A", seed, score) for method in "ab" for seed in range(3)])
    shares = [row["share"] for row in found.profiles if row["method"] == "a"]
    assert (shares[0], shares[-1]) == (1.0, 0.0)


def test_a_run_that_a_rule_ended_is_scored_by_its_own_last_evaluations() -> None:
    early = replace(run("ppo", "A", 0, 1.0, 2.0, 3.0, 4.0), protocol=Protocol(1000, 100, 10), ended=400)
    assert early.score(2) == 3.5
    assert replace(early, ended=None).score(2) == 4.0  # none of the last two evaluations of the whole


def test_a_name_with_dollars_is_no_formula() -> None:
    assert pictures(compare_runs([run(name, "A", s, 0.0, s) for name in ("$x^$ y", "b") for s in range(2)]))


def test_equal_scores_everywhere_are_no_trouble() -> None:
    found = compare_runs([run(method, env, s, 500.0) for method in "ab" for env in "xy" for s in range(2)])
    assert [found.overall, found.profiles] == [[], []]
    assert "All scores are equal on x, y: left out of what is over tasks." in page(found, [])
    assert all(row["probability"] == 0.5 for row in found.improvement)
    assert pictures(found)


def test_a_task_where_all_scores_are_equal_is_left_out_of_what_is_over_tasks() -> None:
    equal = [run(method, "C", seed, 500.0) for method in ("ppo", "trpo") for seed in range(3)]
    with_it, without = compare_runs([*two_by_two(), *equal], last=1), compare_runs(two_by_two(), last=1)
    assert with_it.overall == without.overall
    assert with_it.about["scales"] == without.about["scales"]
    assert "All scores are equal on C: left out of what is over tasks." in page(with_it, [])
    given = compare_runs([*two_by_two(), *equal], last=1, scales={"C": (0.0, 500.0)})
    assert [row["tasks"] for row in given.overall] == [3, 3]


def test_a_single_run_has_no_interval() -> None:
    found = compare_runs([run("ppo", "A", 0, 5.0), run("trpo", "A", 0, 7.0)])
    rows = [*found.scores, *found.overall, *found.improvement, *found.curves, *found.profiles]
    assert len(rows) == 6 + 2 + 2 * 101
    assert all(row["low"] is row["high"] is None for row in rows)
    assert [line[4] for line in score_cells(found)] == ["95 % interval", "-", "-"]
    assert pictures(found)


def test_runs_that_are_not_trained_yet_have_not_failed() -> None:
    waiting = Run("ppo", "A", 1, np.zeros(0), np.zeros(0), waiting=True)
    found = compare_runs([run("ppo", "A", 0, 5.0), waiting])
    assert (found.scores[0]["runs"], found.scores[0]["failed"], found.scores[0]["waiting"]) == (1, 0, 1)
    assert [(row["status"], row["failure"]) for row in found.runs] == [("done", None), ("waiting", None)]
    assert "| 1 (1 to train) |" in page(found, [])
    assert "## Failed" not in page(found, [])


def test_the_page_says_what_was_compared() -> None:
    def told(method: str, env: str, total: int = 1000, **settings: Any) -> Run:
        protocol = Protocol(total, 100, 5)
        return Run(method, env, 0, np.ones(1), np.ones(1), told={"algorithm": "ppo", **settings}, protocol=protocol)

    here = [told("small", env, clip_range=0.1, net_arch=[8, 8]) for env in "AB"]
    lines = page(compare_runs([*here, told("plain", "A"), told("plain", "B", gae=True)]), []).splitlines()
    assert any("Every run: 1,000 steps, evaluated every 100 by 5 episodes." in line for line in lines)
    assert "- **small**: ppo, clip_range=0.1, net_arch=8,8" in lines
    assert "- **plain** on A: ppo" in lines
    assert "- **plain** on B: ppo, gae=true" in lines
    lines = page(compare_runs([*here, told("longer", "A", 2000)], last=3), []).splitlines()
    assert "- **longer**: ppo; 2,000 steps, evaluated every 100 by 5 episodes, scored from step 1,800 on" in lines
    assert any("since the last 3 were due, from the step on that is named below" in line for line in lines)


def test_a_name_breaks_no_table() -> None:
    assert "| x\\|y |" in page(compare_runs([run("x|y", "A", 0, 1.0)]), [])


def test_learning_curves_match_evaluations_by_their_order() -> None:
    short = Run("ppo", "A", 1, np.array([104.0, 203.0]), np.array([3.0, 5.0]))
    found = compare_runs([run("ppo", "A", 0, 1.0, 2.0, 9.0), short])
    assert [(row["step"], row["iqm"]) for row in found.curves] == [(102, 2.0), (201, 3.5)]


def test_the_flight_record_is_the_median_over_runs_of_the_means_of_stretches() -> None:
    runs = [run("ppo", "A", seed, 1.0, **{KL: np.arange(200.0) + 100.0 * seed}) for seed in range(3)]
    found = compare_runs(runs)
    rows = [row for row in found.diagnostics if row["metric"] == KL]
    assert len(rows) == 100
    # two iterations of 50 steps are a stretch of 100
    assert [(row["step"], row["median"]) for row in rows[:2]] == [(100, 100.5), (200, 102.5)]
    assert (rows[0]["low"], rows[0]["high"]) == (50.5, 150.5)
    # the mean KL of the table leaves the first tenth out
    assert row_of(found.scores, method="ppo")["mean_kl"] == np.median(np.arange(20.0, 200.0)) + 100.0


def test_costs_are_those_of_the_last_fifth_of_training() -> None:
    """Every episode counts as much as any other."""
    before = [np.nan, 9.0, 9.0, 9.0, 9.0, 9.0, 9.0, 9.0]

    def costing(seed: int, episodes: list[float], costs: list[float]) -> Run:
        record = {ENDED: [0.0, *[1.0] * 7, *episodes], ENDED_COST: [*before, *costs]}
        return run("cpo", "A", seed, 1.0, **record)

    runs = [costing(0, [3.0, 1.0], [2.0, 6.0]), costing(1, [0.0, 5.0], [np.nan, 7.0])]
    alone, both = compare_runs(runs[:1]), compare_runs(runs)
    row = row_of(alone.scores, method="cpo")
    assert (row["cost"], row["cost_error"]) == (3.0, None)
    row = row_of(both.scores, method="cpo")
    assert (row["cost"], row["cost_error"]) == (5.0, pytest.approx(2.0))  # sqrt(8) / sqrt(2)
    column = score_cells(both)[0].index("cost")
    assert [score_cells(found)[1][column] for found in (alone, both)] == ["3.00", "5.00 ± 2.00"]
    assert "last fifth" in explanation(both)
    assert "Cost" not in explanation(compare_runs([run("ppo", "A", 0, 1.0)]))


def test_runs_that_failed_are_listed_and_count_in_nothing() -> None:
    only = compare_runs([Run("ppo", "A", 0, np.zeros(0), np.zeros(0), failure="no luck.")])
    assert only.runs[0]["failure"] == "no luck."
    assert only.scores[0]["iqm"] is None
    assert [only.overall, only.profiles, only.improvement, only.curves] == [[], [], [], []]
    assert pictures(only) == {}
    assert "ppo on A, seed 0: no luck." in page(only, [])
    mixed = page(compare_runs(two_by_two(), last=1), ["scores.png"])
    assert "3 (1 failed)" in mixed
    assert "- trpo on B, seed 3: it fell." in mixed
    assert "![scores](scores.png)" in mixed


@pytest.fixture(scope="module")
def everything() -> Comparison:
    names = [f"method {i}" for i in range(12)]
    record = {KL: np.linspace(0.0, 0.1, 30), COST: np.linspace(5.0, 1.0, 30)}
    runs = [run(name, env, s, *np.linspace(0.0, s, 9), **record) for name in names for env in "ABCD" for s in range(3)]
    return compare_runs(runs)


def test_every_picture_is_drawn_for_many_methods_and_tasks(everything: Comparison) -> None:
    drawn = pictures(everything)
    assert set(drawn) == {
        "learning_curves.png",
        "scores.png",
        "performance_profiles.png",
        "probability_of_improvement.png",
        "diagnostics.png",
    }
    assert all(data.startswith(PNG) and data.endswith(b"IEND\xaeB`\x82") for data in drawn.values())


def test_every_table_is_csv_with_one_record_a_line(everything: Comparison) -> None:
    for table in everything.tables.values():
        rows = list(csv.DictReader(io.StringIO(csv_text(table))))
        assert len(rows) == len(table) > 0
        assert list(rows[0]) == list(table[0])
    assert csv_text([]) == ""


def test_tables_for_people_are_aligned() -> None:
    cells = [["task", "method", "IQM"], ["A", "restricted", "1,000"]]
    assert aligned(cells) == ["task  method        IQM", "A     restricted  1,000"]
    assert markdown(cells)[1] == "| --- | --- | ---: |"
