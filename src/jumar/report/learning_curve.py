"""The learning curve of a run as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jumar.report.style import TEXT_COLOUR, count_steps, new_figure, png, style
from jumar.runs.files import PathLike, write_atomically
from jumar.runs.logs import finite

TRAINING_COLOUR = "#8fb3d9"
EVALUATION_COLOUR = "#c44e2b"
MARKED_POINTS = 40
"""With more evaluations than this, a mark on each would hide the line."""


def learning_curve(
    path: PathLike, metrics: Sequence[Mapping[str, Any]], evaluations: Sequence[Mapping[str, Any]], title: str
) -> None:
    """Draw ``learning_curve.png`` to ``path``, atomically.

    Over environment steps: the mean return of recent training episodes (``rollout/ep_rew_mean`` of ``metrics``), and
    of each evaluation (``step`` and ``returns`` of ``evaluations``) the mean, with a band of one standard deviation
    either side, between the least and the greatest return. Values that are missing or not finite are left out.

    Raises:
        OSError: the picture cannot be written.
    """
    figure = new_figure(8, 4.5)
    axes = figure.add_subplot()
    style(axes, title, "environment steps", "return of an episode")
    count_steps(axes)
    _draw_training(axes, metrics)
    _draw_evaluations(axes, evaluations)
    if axes.has_data():
        axes.legend(frameon=False, loc="best", labelcolor=TEXT_COLOUR)
    else:
        axes.text(0.5, 0.5, "no episode has ended yet", transform=axes.transAxes, ha="center", color=TEXT_COLOUR)
    write_atomically(path, png(figure))


def _draw_training(axes: Any, metrics: Sequence[Mapping[str, Any]]) -> None:
    names = ("time/total_timesteps", "rollout/ep_rew_mean")
    points = [tuple(finite(entry.get(name)) for name in names) for entry in metrics]
    points = [point for point in points if None not in point]
    if points:
        steps, values = zip(*points, strict=True)
        marker = "o" if len(points) == 1 else ""
        axes.plot(steps, values, color=TRAINING_COLOUR, linewidth=1.6, marker=marker, label="training (recent mean)")


def _draw_evaluations(axes: Any, evaluations: Sequence[Mapping[str, Any]]) -> None:
    found = [(finite(entry.get("step")), _finite(entry.get("returns"))) for entry in evaluations]
    found = [(step, returns) for step, returns in found if step is not None and returns.size]
    if not found:
        return
    steps = [step for step, _ in found]
    with np.errstate(over="ignore"):  # a deviation that is infinite is cut at the extremes
        mean, deviation, least, greatest = np.array(
            [(returns.mean(), returns.std(), returns.min(), returns.max()) for _, returns in found]
        ).T
    low, high = np.maximum(mean - deviation, least), np.minimum(mean + deviation, greatest)
    marker = "o" if len(found) <= MARKED_POINTS else ""
    label = "evaluation (mean, ± one deviation)"
    axes.fill_between(steps, low, high, color=EVALUATION_COLOUR, alpha=0.18, linewidth=0)
    axes.plot(steps, mean, color=EVALUATION_COLOUR, linewidth=2, marker=marker, markersize=4, label=label)
    if len(found) == 1:  # a band of no width cannot be seen
        axes.errorbar(steps, mean, yerr=[mean - low, high - mean], color=EVALUATION_COLOUR, capsize=4)


def _finite(values: Any) -> np.ndarray:
    known = (finite(value) for value in values) if isinstance(values, (list, tuple)) else ()
    return np.array([value for value in known if value is not None], dtype=np.float64)
