"""The pictures of a comparison: learning curves, scores, profiles, who beats whom, and what the updates did."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from jumar.report.comparison import DIAGNOSTICS, KL, Comparison, Table
from jumar.report.style import TEXT_COLOUR, count_steps, new_figure, png, style

COLOURS = ("#c44e2b", "#2f6fae", "#3c8d53", "#8a5fa8", "#c99a1e", "#4aa5b5", "#b0568a", "#7a6a58", "#6a7fd1", "#8c8c8c")
"""In the order of the methods; where there are more, they come again with broken lines."""
LINES = ("-", "--", ":", "-.")
MOST_COLUMNS = 3
LOGARITHMIC = (KL, "train/kl_coef", "train/cg_residual")


def pictures(comparison: Comparison) -> dict[str, bytes]:
    """Return the pictures as PNG, by file name; one that there is nothing to show in is left out."""
    if not comparison.scores or not comparison.curves:
        return {}
    drawn = {
        "learning_curves.png": _learning_curves(comparison),
        "scores.png": _scores(comparison),
        "performance_profiles.png": _profiles(comparison) if comparison.profiles else None,
        "probability_of_improvement.png": _improvement(comparison) if comparison.improvement else None,
        "diagnostics.png": _diagnostics(comparison) if comparison.diagnostics else None,
    }
    return {name: png(figure) for name, figure in drawn.items() if figure is not None}


def _learning_curves(comparison: Comparison) -> Any:
    envs = _in_order(row["env"] for row in comparison.curves)
    points = _grouped(comparison.curves, "method", "env")
    figure, panels = _panels(len(envs), 5.2, 3.6)
    for axes, env in zip(panels, envs, strict=True):
        style(axes, env, "environment steps", "return")
        count_steps(axes)
        for method in comparison.about["methods"]:
            _draw_band(axes, points[method, env], "step", "iqm", _look(comparison, method), method)
    _legend(figure, panels)
    return figure


def _scores(comparison: Comparison) -> Any:
    """A dot and an interval for each method, a panel for each task, and one for all of them."""
    known = [row for row in comparison.scores if row["iqm"] is not None]
    envs = _in_order(row["env"] for row in known)
    groups = [(env, [row for row in known if row["env"] == env], "return") for env in envs]
    if comparison.normalised and comparison.overall:
        groups.append(("all tasks", comparison.overall, "normalised score"))
    methods = comparison.about["methods"]
    figure, panels = _panels(len(groups), 3.6 + _width(methods), 0.9 + 0.32 * len(methods))
    for axes, (title, rows, label) in zip(panels, groups, strict=True):
        style(axes, title, label, "")
        axes.grid(axis="x", color="#e6e6e6", linewidth=0.8)
        axes.set_yticks(range(len(methods)), methods, parse_math=False)
        axes.set_ylim(len(methods) - 0.5, -0.5)
        for row in rows:
            place, colour = methods.index(row["method"]), _look(comparison, row["method"])["color"]
            if row["low"] is not None:
                ends = [row["low"], row["high"]]
                axes.plot(ends, [place, place], color=colour, linewidth=6, alpha=0.35, solid_capstyle="butt")
            axes.plot(row["iqm"], place, "o", color=colour, markersize=6)
    return figure


def _profiles(comparison: Comparison) -> Any:
    figure, [axes] = _panels(1, 7.0, 4.2)
    label = "normalised score" if comparison.normalised else "return"
    style(axes, "Share of runs above a score", label, "share of runs")
    axes.set_ylim(-0.02, 1.02)
    points = _grouped(comparison.profiles, "method")
    for method in comparison.about["methods"]:
        _draw_band(axes, points[method,], "threshold", "share", _look(comparison, method), method)
    _legend(figure, [axes])
    return figure


def _improvement(comparison: Comparison) -> Any:
    methods = _in_order(row["method"] for row in comparison.improvement)
    table = np.full((len(methods), len(methods)), np.nan)
    intervals: dict[tuple[int, int], str] = {}
    for row in comparison.improvement:
        place = methods.index(row["method"]), methods.index(row["other"])
        table[place] = row["probability"]
        if row["low"] is not None:
            intervals[place] = f"\n{row['low']:.2f} to {row['high']:.2f}"
    side = 0.9 + 0.78 * len(methods) + _width(methods)
    figure, [axes] = _panels(1, side + 0.6, side)
    axes.imshow(table, cmap="RdBu", vmin=0.0, vmax=1.0, alpha=0.75)
    for i, j in np.ndindex(*table.shape):
        if not math.isnan(table[i, j]):
            colour = "white" if abs(table[i, j] - 0.5) > 0.3 else TEXT_COLOUR
            words = f"{table[i, j]:.2f}{intervals.get((i, j), '')}"
            axes.text(j, i, words, ha="center", va="center", color=colour, fontsize=8)
    axes.set_xticks(range(len(methods)), methods, rotation=45, ha="right", parse_math=False)
    axes.set_yticks(range(len(methods)), methods, parse_math=False)
    style(axes, "How likely the row beats the column", "", "")
    axes.grid(visible=False)
    axes.spines["bottom"].set_visible(False)
    return figure


def _diagnostics(comparison: Comparison) -> Any:
    """A row for each number of the flight record, a column for each task."""
    envs = _in_order(row["env"] for row in comparison.diagnostics)
    present = {row["metric"] for row in comparison.diagnostics}
    metrics = [name for name in DIAGNOSTICS if name in present]
    found = _grouped(comparison.diagnostics, "method", "env", "metric")
    figure = new_figure(0.6 + 4.4 * len(envs), 0.6 + 2.3 * len(metrics))
    grid = figure.subplots(len(metrics), len(envs), squeeze=False, sharex="col")
    for (i, metric), (j, env) in ((a, b) for a in enumerate(metrics) for b in enumerate(envs)):
        axes = grid[i, j]
        style(
            axes, env if i == 0 else "", "environment steps" * (i == len(metrics) - 1), DIAGNOSTICS[metric] * (j == 0)
        )
        count_steps(axes)
        for method in comparison.about["methods"]:
            points = found[method, env, metric]
            if metric in LOGARITHMIC:
                points = [row for row in points if row["low"] > 0.0]
            _draw_band(axes, points, "step", "median", _look(comparison, method), method)
        if metric in LOGARITHMIC and axes.has_data():
            axes.set_yscale("log")
    _legend(figure, list(grid.flat))
    return figure


def _draw_band(axes: Any, points: Table, x: str, y: str, look: dict[str, Any], label: str) -> None:
    if not points:
        return
    across = [row[x] for row in points]
    if all(row["low"] is not None for row in points):
        low, high = ([row[end] for row in points] for end in ("low", "high"))
        axes.fill_between(across, low, high, color=look["color"], alpha=0.15, linewidth=0)
    marker = "o" if len(points) == 1 else ""
    axes.plot(across, [row[y] for row in points], label=label, linewidth=1.8, marker=marker, **look)


def _look(comparison: Comparison, method: str) -> dict[str, Any]:
    place = comparison.about["methods"].index(method)
    return {"color": COLOURS[place % len(COLOURS)], "linestyle": LINES[place // len(COLOURS) % len(LINES)]}


def _width(names: Iterable[str]) -> float:
    """Return how wide the longest of some names is, in inches."""
    return 0.085 * max(map(len, names), default=0)


def _panels(number: int, width: float, height: float) -> tuple[Any, list[Any]]:
    """Return a figure with so many axes side by side, in rows of a few."""
    columns = min(number, MOST_COLUMNS)
    rows = -(-number // columns)
    figure = new_figure(width * columns, height * rows)
    grid = figure.subplots(rows, columns, squeeze=False)
    for spare in list(grid.flat)[number:]:
        spare.set_visible(False)
    return figure, list(grid.flat)[:number]


def _legend(figure: Any, panels: Sequence[Any]) -> None:
    """Name every method once, below everything."""
    entries: dict[str, Any] = {}
    for axes in panels:
        handles, labels = axes.get_legend_handles_labels()
        entries |= {label: handle for label, handle in zip(labels, handles, strict=True) if label not in entries}
    if entries:
        columns = max(1, min(len(entries), int(figure.get_figwidth() / (0.6 + _width(entries)))))
        legend = figure.legend(
            list(entries.values()), list(entries), loc="outside lower center", ncols=columns, frameon=False,
            labelcolor=TEXT_COLOUR,
        )  # fmt: skip
        for text in legend.get_texts():
            text.set_parse_math(False)  # a method's name is no formula


def _grouped(table: Table, *names: str) -> Mapping[tuple[Any, ...], Table]:
    """Return the records of a table by the values that they have under some names; none for values that none has."""
    groups: dict[tuple[Any, ...], Table] = defaultdict(list)
    for row in table:
        groups[tuple(row[name] for name in names)].append(row)
    return groups


def _in_order(values: Iterable[str]) -> list[str]:
    """Return the different values, in the order in which they come first."""
    return list(dict.fromkeys(values))
