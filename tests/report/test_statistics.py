"""Statistics over seeds and tasks, against rliable, SciPy's trimmed mean, known intervals and their coverage."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from jumar.report.statistics import (
    bootstrap_interval,
    interquartile_mean,
    mean_curve,
    performance_profile,
    probability_of_improvement,
)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 8, 10, 37])
def test_the_interquartile_mean_is_the_trimmed_mean_at_a_quarter(n: int) -> None:
    scores = np.random.default_rng(n).normal(size=n)
    assert interquartile_mean(scores) == pytest.approx(stats.trim_mean(scores, 0.25), rel=1e-12)


def test_the_interquartile_mean_leaves_out_the_extremes() -> None:
    assert interquartile_mean(np.array([-1e9, 1.0, 2.0, 3.0, 1e9])) == 2.0
    assert interquartile_mean(np.array([[1.0, 5.0], [3.0, 100.0]])) == 4.0  # over all scores, not task by task


def test_an_interval_holds_the_mean_as_often_as_it_says() -> None:
    """Of 400 samples of 40, about 95 % (91 % to 98 %) have an interval that holds the true mean."""
    rng = np.random.default_rng(0)
    held = 0
    for seed in range(400):
        low, high = bootstrap_interval(rng.normal(3.0, 2.0, 40), np.mean, resamples=500, seed=seed)
        held += low <= 3.0 <= high
    assert 364 <= held <= 392


def test_runs_are_drawn_within_each_task() -> None:
    """Tasks of constant scores have no spread, however different they are from each other."""
    scores = np.tile([1.0, 100.0], (5, 1))
    assert bootstrap_interval(scores, np.mean) == (50.5, 50.5)


def test_the_same_scores_have_the_same_interval() -> None:
    scores = np.array([1.0, 5.0, 2.0, 8.0, 3.0])
    assert bootstrap_interval(scores) == bootstrap_interval(scores)
    low, high = bootstrap_interval(scores)
    narrow = bootstrap_interval(scores, level=0.5)
    assert low < narrow.low <= interquartile_mean(scores) <= narrow.high < high


def test_what_is_no_score_is_refused() -> None:
    with pytest.raises(ValueError, match="no scores"):
        interquartile_mean(np.array([]))
    for wrong in (np.array([]), np.zeros((2, 2, 2))):
        with pytest.raises(ValueError, match="shape"):
            bootstrap_interval(wrong)
    with pytest.raises(ValueError, match="level"):
        bootstrap_interval(np.ones(3), level=95.0)


# -- against rliable --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def rliable() -> dict[str, Any]:
    """What rliable 1.2.0 says (``make_rliable.py``)."""
    return json.loads((Path(__file__).parent / "data" / "rliable.json").read_text())


@pytest.fixture(scope="module")
def scores(rliable: dict[str, Any]) -> dict[str, np.ndarray]:
    return {name: np.array(table) for name, table in rliable["scores"].items()}


METHODS = ("first", "second", "third")


@pytest.mark.parametrize("method", METHODS)
def test_means_and_intervals_are_rliables(method: str, rliable: dict[str, Any], scores: dict[str, np.ndarray]) -> None:
    iqm, mean = rliable["iqm and mean"][method]
    assert interquartile_mean(scores[method]) == pytest.approx(iqm, rel=1e-12)
    assert float(np.mean(scores[method])) == pytest.approx(mean, rel=1e-12)
    for statistic, column in ((interquartile_mean, 0), (np.mean, 1)):
        low, high = (row[column] for row in rliable["intervals"][method])
        ours = bootstrap_interval(scores[method], statistic, resamples=50_000)
        assert ours == pytest.approx((low, high), abs=0.03 * (high - low))  # both are samples


@pytest.mark.parametrize("method", METHODS)
def test_performance_profiles_are_rliables(method: str, rliable: dict[str, Any], scores: dict[str, np.ndarray]) -> None:
    ours = performance_profile(scores[method], np.array(rliable["thresholds"]), resamples=5_000)
    np.testing.assert_allclose(ours.middle, rliable["profiles"][method], atol=1e-12)
    low, high = np.array(rliable["profile bands"][method])
    np.testing.assert_allclose(ours.low, low, atol=0.03)  # a run more or less is 0.025
    np.testing.assert_allclose(ours.high, high, atol=0.03)


@pytest.mark.parametrize("pair", ["first,second", "third,second"])
def test_probabilities_of_improvement_are_rliables(
    pair: str, rliable: dict[str, Any], scores: dict[str, np.ndarray]
) -> None:
    ours, theirs = (scores[name] for name in pair.split(","))
    found = probability_of_improvement(ours, theirs, resamples=20_000)
    assert found.probability == pytest.approx(rliable["improvement"][pair], abs=1e-12)
    assert found.interval == pytest.approx(rliable["improvement intervals"][pair], abs=0.01)
    assert probability_of_improvement(theirs, ours).probability == pytest.approx(1.0 - found.probability, abs=1e-12)


# -- where tasks have different numbers of runs -----------------------------------------------------------------------


def test_tasks_may_have_different_numbers_of_runs() -> None:
    groups = [np.array([1.0, 1.0, 1.0, 1.0]), np.array([5.0]), np.array([3.0, 3.0])]
    assert bootstrap_interval(groups, np.mean) == pytest.approx((15.0 / 7.0, 15.0 / 7.0))  # none has any spread
    profile = performance_profile(groups, np.array([0.0, 2.0, 3.0, 5.0]))
    np.testing.assert_allclose(profile.middle, [1.0, 3.0 / 7.0, 1.0 / 7.0, 0.0])
    np.testing.assert_allclose(profile.low, profile.middle)
    found = probability_of_improvement(groups, [np.array([1.0, 0.0]), np.array([5.0]), np.array([4.0])])
    assert found.probability == pytest.approx(((0.5 + 1.0) / 2.0 + 0.5 + 0.0) / 3.0)


def test_a_curve_has_the_mean_and_the_interval_of_each_of_its_points() -> None:
    values = np.random.default_rng(3).normal(size=(9, 4)) + np.arange(4)
    curve = mean_curve(values, resamples=20_000)
    for i in range(4):
        assert curve.middle[i] == pytest.approx(interquartile_mean(values[:, i]), rel=1e-12)
        low, high = bootstrap_interval(values[:, i], resamples=20_000)
        assert (curve.low[i], curve.high[i]) == pytest.approx((low, high), abs=0.05 * (high - low))


@pytest.mark.parametrize("wrong", [[], [np.array([])], [np.ones((2, 2))]])
def test_tasks_without_runs_are_refused(wrong: list[np.ndarray]) -> None:
    with pytest.raises(ValueError, match="every task"):
        bootstrap_interval(wrong)


def test_different_numbers_of_tasks_cannot_be_compared() -> None:
    with pytest.raises(ValueError, match="2 tasks cannot be compared with 1"):
        probability_of_improvement(np.ones((3, 2)), np.ones(3))
