"""The pictures of a sweep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jumar.report.style import TEXT_COLOUR, new_figure, png, style
from jumar.studies.space import Choices, Domain, Space
from jumar.studies.trial_runs import shown
from jumar.studies.trials import COMPLETE, PRUNED, Trial

PRUNED_COLOUR = "#cccccc"
COLOURS = "viridis_r"
MOST_TICKS = 8
"""Values that are written at an axis."""


def importance_picture(importance: Mapping[str, float]) -> bytes:
    """Return the bars of all settings as PNG, the largest on top."""
    figure = new_figure(6.4, 0.9 + 0.34 * len(importance))
    axes = figure.subplots()
    style(axes, "Importance", "share", "")
    axes.grid(visible=False)
    axes.grid(axis="x", color="#e6e6e6", linewidth=0.8)
    places = range(len(importance))
    axes.barh(places, list(importance.values()), color="#2f6fae", height=0.6)
    axes.set_yticks(places, list(importance))
    axes.set_xlim(0.0, None)
    axes.invert_yaxis()
    return png(figure)


def parallel_coordinates(space: Space, trials: Sequence[Trial]) -> bytes:
    """Return a picture with an axis for each setting and one for the value, as PNG; a line through them is a trial.

    Axes go from the low to the high end of what was searched, by logarithms where it was searched so. The best lie on top.
    """
    from matplotlib import colormaps

    different = [trial for trial in trials if trial.same_as is None]
    complete = sorted(
        (trial for trial in different if trial.state == COMPLETE), key=lambda trial: space.goodness(trial.scores)
    )
    pruned = [trial for trial in different if trial.state == PRUNED]
    values = [space.value(trial.scores) for trial in (*complete, *pruned)]
    low, high = min(values), max(values)
    figure = new_figure(1.6 + 1.5 * len(space.search), 4.2)
    axes = figure.subplots()
    style(axes, f"{space.algorithm} on {space.env}", "", "")
    axes.grid(visible=False)
    axes.spines["bottom"].set_visible(False)
    colours = colormaps[COLOURS]

    def draw(trial: Trial, **look: Any) -> None:
        across = [domain.position(trial.settings[name]) for name, domain in space.search.items()]
        axes.plot([*across, _place(space.value(trial.scores), low, high)], alpha=0.85, **look)

    for trial in pruned:
        draw(trial, color=PRUNED_COLOUR, linewidth=0.8)
    for rank, trial in enumerate(complete):
        draw(trial, color=colours(rank / max(1, len(complete) - 1)), linewidth=2.4 if trial is complete[-1] else 1.2)
    ticks = [*map(_ticks, space.search.values()), [(0.0, shown(float(low))), (1.0, shown(float(high)))]]
    for place, marks in enumerate(ticks):
        axes.axvline(place, color="#bbbbbb", linewidth=1.0)
        for height, words in marks:
            axes.text(place, height, f" {words}", fontsize=8, color=TEXT_COLOUR, va="center", parse_math=False)
    axes.set_xticks(range(len(ticks)), [*space.search, "value"], rotation=20, ha="right")
    axes.set_yticks([])
    axes.set_xlim(-0.2, len(ticks) - 0.4)
    return png(figure)


def _place(value: float, low: float, high: float) -> float:
    return (value - low) / (high - low) if high > low else 0.5


def _ticks(domain: Domain) -> list[tuple[float, str]]:
    """Return what is written at an axis, and where."""
    if isinstance(domain, Choices):
        every = -(-len(domain.values) // MOST_TICKS)
        return [(domain.position(value), shown(value)) for value in domain.values[::every]]
    return [(0.0, shown(domain.value(domain.low))), (1.0, shown(domain.value(domain.high)))]
