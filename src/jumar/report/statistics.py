r"""Statistics of scores over seeds and tasks.

Scores are arrays ``[runs]`` of one task or ``[runs, tasks]``, or a sequence with one array ``[runs]`` for each task, where
tasks have different numbers of runs. All intervals are percentile intervals of a stratified bootstrap: runs are drawn again,
with replacement, within each task.

Source: Agarwal, Schwarzer, Castro, Courville and Bellemare (2021), *Deep reinforcement learning at the edge of the
statistical precipice*, section 4.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

Scores = np.ndarray | Sequence[np.ndarray]
"""``[runs]``, ``[runs, tasks]``, or for each task an array ``[runs]``."""
LEVEL = 0.95
"""How often an interval holds the true value, unless told."""
RESAMPLES = 10_000
"""How many samples an interval is made from, unless told."""


Statistic = Callable[..., Any]
"""A number of scores along an ``axis``, such as ``numpy.mean`` and :func:`interquartile_mean`."""


class Interval(NamedTuple):
    """A confidence interval."""

    low: float
    high: float


class Band(NamedTuple):
    """A curve with a confidence interval at each of its points, all ``[points]``."""

    middle: np.ndarray
    low: np.ndarray
    high: np.ndarray


def interquartile_mean(scores: np.ndarray, axis: int | None = None) -> Any:
    r"""Return the mean of the middle half of the scores (IQM): along an axis, or of all of them whatever their shape.

    With :math:`n` scores in order, the lowest and the highest :math:`\lfloor n / 4 \rfloor` are left out:

    .. math:: \frac{1}{n - 2 k} \sum_{i = k + 1}^{n - k} x_{(i)}, \qquad k = \lfloor n / 4 \rfloor

    Raises:
        ValueError: there are no scores.
    """
    table = np.asarray(scores, np.float64)
    ordered = np.sort(table.reshape(-1) if axis is None else np.moveaxis(table, axis, -1), axis=-1)
    if ordered.shape[-1] == 0:
        raise ValueError("there are no scores to take a mean of.")
    cut = ordered.shape[-1] // 4
    means = np.mean(ordered[..., cut : ordered.shape[-1] - cut], axis=-1)
    return float(means) if axis is None else means


def bootstrap_interval(
    scores: Scores,
    statistic: Statistic = interquartile_mean,
    *,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Return the interval of a statistic of all scores together.

    Args:
        scores: of the runs in one task or in several.
        statistic: what the interval is of.
        level: how often such intervals hold the true value, in (0, 1).
        resamples: how many samples of the same size are drawn.
        seed: seeds the draws, so that the same scores have the same interval.

    Raises:
        ValueError: there are no scores, they are of another shape, or the level is no share.
    """
    groups = by_task(scores)
    rng = np.random.default_rng(seed)
    drawn = [group[rng.integers(len(group), size=(resamples, len(group)))] for group in groups]
    low, high = _quantiles(statistic(np.concatenate(drawn, axis=1), axis=1), level)
    return Interval(float(low), float(high))


def performance_profile(
    scores: Scores, thresholds: np.ndarray, *, level: float = LEVEL, resamples: int = 2_000, seed: int = 0
) -> Band:
    r"""Return the share of runs whose score is above each threshold (a score distribution), with its band.

    .. math:: \hat F(\tau) = \frac{1}{\sum_m N_m} \sum_m \sum_n \mathbb{1}[x_{m, n} > \tau]

    Args:
        scores: of the runs, comparable between tasks.
        thresholds: ``[points]``.
        level: how often the interval at one threshold holds the true share.
        resamples: how many samples are drawn.
        seed: seeds the draws.
    """
    groups = by_task(scores)
    rng = np.random.default_rng(seed)
    total = sum(len(group) for group in groups)
    above = [(group[:, None] > np.asarray(thresholds)[None]).astype(np.float64) for group in groups]
    drawn = sum(_counts(rng, len(group), resamples) @ x for group, x in zip(groups, above, strict=True))
    low, high = _quantiles(np.asarray(drawn) / total, level)
    return Band(np.sum(np.concatenate(above), axis=0) / total, low, high)


class Improvement(NamedTuple):
    """How often one method beats another."""

    probability: float
    interval: Interval


def probability_of_improvement(
    ours: Scores, theirs: Scores, *, level: float = LEVEL, resamples: int = 2_000, seed: int = 0
) -> Improvement:
    r"""Return how likely a run of one method is to score higher than one of another, as a mean over tasks.

    In a task with :math:`N` runs of ``ours`` and :math:`K` of ``theirs`` it is the Mann-Whitney statistic, and ties count half:

    .. math:: P(X > Y) = \frac{1}{N K} \sum_{i, j} S(x_i, y_j), \qquad S = 1, \tfrac12, 0 \text{ for } x >, =, < y

    Args:
        ours: the scores of one method.
        theirs: those of the other, in the same tasks in the same order.
        level: how often the interval holds the true probability.
        resamples: how many samples are drawn.
        seed: seeds the draws.

    Raises:
        ValueError: the tasks are not equally many, or one has no runs.
    """
    first, second = by_task(ours), by_task(theirs)
    if len(first) != len(second):
        raise ValueError(f"{len(first)} tasks cannot be compared with {len(second)}.")
    rng = np.random.default_rng(seed)
    exact, drawn = 0.0, np.zeros(resamples)
    for x, y in zip(first, second, strict=True):
        wins = (x[:, None] > y[None]) + 0.5 * (x[:, None] == y[None])
        exact += float(np.mean(wins))
        mine, other = _counts(rng, len(x), resamples), _counts(rng, len(y), resamples)
        drawn += np.einsum("rn,nk,rk->r", mine, wins, other) / wins.size
    low, high = _quantiles(drawn / len(first), level)
    return Improvement(exact / len(first), Interval(float(low), float(high)))


def mean_curve(values: np.ndarray, *, level: float = LEVEL, resamples: int = 2_000, seed: int = 0) -> Band:
    """Return the interquartile mean over runs ``[runs, points]`` at each point, with its band.

    The same runs are drawn at all points.
    """
    table = np.asarray(values, np.float64)
    rows = np.random.default_rng(seed).integers(len(table), size=(resamples, len(table)))
    drawn = np.stack([interquartile_mean(table[rows, i], axis=1) for i in range(table.shape[1])], axis=1)
    return Band(interquartile_mean(table, axis=0), *_quantiles(drawn, level))


def by_task(scores: Scores) -> list[np.ndarray]:
    """Return the scores of each task as an array ``[runs]``.

    Raises:
        ValueError: they have another shape, or a task has no runs.
    """
    if isinstance(scores, np.ndarray):
        if scores.ndim not in (1, 2) or scores.size == 0:
            raise ValueError(f"scores of shape {scores.shape} are not [runs] or [runs, tasks].")
        return list(np.asarray(scores, np.float64).reshape(len(scores), -1).T)
    groups = [np.asarray(group, np.float64) for group in scores]
    if not groups or any(group.ndim != 1 or group.size == 0 for group in groups):
        raise ValueError("every task needs an array [runs] of scores, with one score at least.")
    return groups


def _counts(rng: np.random.Generator, runs: int, resamples: int) -> np.ndarray:
    """Return how often each run is drawn, ``[resamples, runs]``."""
    return rng.multinomial(runs, np.full(runs, 1.0 / runs), size=resamples).astype(np.float64)


def _quantiles(drawn: np.ndarray, level: float) -> tuple[np.ndarray, np.ndarray]:
    if not 0.0 < level < 1.0:
        raise ValueError(f"level={level} is out of range: it must be above 0 and below 1.")
    low, high = np.quantile(drawn, [(1.0 - level) / 2.0, (1.0 + level) / 2.0], axis=0)
    return low, high
