"""Statistics of scores over seeds and tasks.

Scores are arrays ``[runs]`` for one task, or ``[runs, tasks]``. Source: Agarwal, Schwarzer, Castro, Courville and
Bellemare (2021), Deep reinforcement learning at the edge of the statistical precipice, section 4.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

Statistic = Callable[[np.ndarray], float]
"""Scores ``[runs]`` or ``[runs, tasks]`` -> a number."""


class Interval(NamedTuple):
    """A confidence interval."""

    low: float
    high: float


def interquartile_mean(scores: np.ndarray) -> float:
    r"""Return the mean of the middle half of all scores (IQM), whatever their shape.

    With :math:`n` scores in order, the lowest and the highest :math:`\lfloor n / 4 \rfloor` are left out:

    .. math:: \frac{1}{n - 2 k} \sum_{i = k + 1}^{n - k} x_{(i)}, \qquad k = \lfloor n / 4 \rfloor

    Raises:
        ValueError: there are no scores.
    """
    ordered = np.sort(np.asarray(scores, np.float64), axis=None)
    if ordered.size == 0:
        raise ValueError("there are no scores to take a mean of.")
    cut = ordered.size // 4
    return float(np.mean(ordered[cut : ordered.size - cut]))


def bootstrap_interval(
    scores: np.ndarray,
    statistic: Statistic = interquartile_mean,
    *,
    level: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> Interval:
    """Return the percentile interval of a stratified bootstrap: runs are drawn again within each task.

    Args:
        scores: ``[runs]`` or ``[runs, tasks]``.
        statistic: what the interval is of.
        level: how often such intervals hold the true value, in (0, 1).
        resamples: how many samples of the same size are drawn, with replacement.
        seed: seeds the draws, so that the same scores have the same interval.

    Raises:
        ValueError: there are no scores, they have more than two axes, or the level is no share.
    """
    table = np.asarray(scores, np.float64)
    if table.ndim not in (1, 2) or table.size == 0:
        raise ValueError(f"scores of shape {table.shape} are not [runs] or [runs, tasks].")
    if not 0.0 < level < 1.0:
        raise ValueError(f"level={level} is out of range: it must be above 0 and below 1.")
    table = table.reshape(len(table), -1)
    draws = np.random.default_rng(seed).integers(len(table), size=(resamples, *table.shape))
    values = [statistic(np.take_along_axis(table, rows, axis=0)) for rows in draws]
    low, high = np.quantile(values, [(1.0 - level) / 2.0, (1.0 + level) / 2.0])
    return Interval(float(low), float(high))
