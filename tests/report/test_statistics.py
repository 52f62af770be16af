"""Statistics over seeds and tasks, against SciPy's trimmed mean, known intervals and their coverage."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from jumar.report.statistics import bootstrap_interval, interquartile_mean


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
        low, high = bootstrap_interval(rng.normal(3.0, 2.0, 40), lambda x: float(np.mean(x)), resamples=500, seed=seed)
        held += low <= 3.0 <= high
    assert 364 <= held <= 392


def test_runs_are_drawn_within_each_task() -> None:
    """Tasks of constant scores have no spread, however different they are from each other."""
    scores = np.tile([1.0, 100.0], (5, 1))
    assert bootstrap_interval(scores, lambda x: float(np.mean(x))) == (50.5, 50.5)


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
