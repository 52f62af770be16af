"""Charts as SVG, for browsers without JavaScript and for paper. Colours come from the page's style."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from jumar.web.buckets import Points
from jumar.web.charts import DOTS, THIN, Chart
from jumar.web.elements import Markup, element, together

COLOURS = 7
"""How many colours the style has; further curves are dashed."""
MOST = 160
"""How many points a curve has at most."""
LEFT, RIGHT, TOP, BOTTOM = 52.0, 12.0, 10.0, 26.0
Scale = Callable[[float], float]


def look(group: int) -> str:
    """Return the classes that give a group its colour and its dashes."""
    return f"c{group % COLOURS} d{group // COLOURS % 3}"


def still(chart: Chart) -> Markup:
    """Return the picture of a chart."""
    width, height = (520.0, 250.0) if chart.large else (400.0, 210.0)
    known = [_drawn(one.points) for one in chart.series]
    ends = _ends(chart, known)
    if ends is None:
        return Markup("")
    first, last, low, high = ends
    across, up = _linear(first, last, LEFT, width - RIGHT), _upward(chart, low, high, height)
    parts = [_axes(chart, ends, across, up, width, height)]
    order = sorted(range(len(known)), key=lambda i: chart.series[i].kind != THIN)
    parts += [_curve(chart, i, known[i], across, up) for i in order]
    return element(
        "svg", *parts,
        class_="still", viewBox=f"0 0 {width:g} {height:g}", role="img", aria_label=f"{chart.title}. {chart.summary}",
    )  # fmt: skip


def _drawn(points: Points) -> Points:
    group = -(-len(points.x) // MOST)
    places = np.arange(group - 1, len(points.x), group) if group > 1 else np.arange(len(points.x))
    return Points(points.x[places], points.mean[places], points.low[places], points.high[places])


def _ends(chart: Chart, known: list[Points]) -> tuple[float, float, float, float] | None:
    ys = [
        part
        for one, points in zip(chart.series, known, strict=True)
        for part in ((points.mean, points.low, points.high) if one.band else (points.mean,))
    ]
    xs = [points.x for points in known]
    if not ys or not any((~np.isnan(part)).any() for part in ys):
        return None
    x, y = np.concatenate(xs), np.concatenate(ys)
    low, high = float(np.nanmin(y)), float(np.nanmax(y))
    margin = 0.05 * (high - low) or 0.5 * abs(high) or 1.0
    if chart.logarithmic:
        return float(x.min()), float(x.max()), low / 1.2, high * 1.2
    return float(x.min()), float(x.max()), low - margin, high + margin


def _linear(first: float, last: float, start: float, end: float) -> Scale:
    span = (last - first) or 1.0
    return lambda value: start + (end - start) * ((value - first) / span if last > first else 0.5)


def _upward(chart: Chart, low: float, high: float, height: float) -> Scale:
    if not chart.logarithmic:
        return _linear(low, high, height - BOTTOM, TOP)
    inner = _linear(math.log10(low), math.log10(high), height - BOTTOM, TOP)
    return lambda value: inner(math.log10(value))


def _axes(
    chart: Chart, ends: tuple[float, float, float, float], across: Scale, up: Scale, width: float, height: float
) -> Markup:
    first, last, low, high = ends
    parts = []
    for value in ticks(low, high, 4) if not chart.logarithmic else decades(low, high):
        y = f"{up(value):.1f}"
        parts.append(element("line", x1=f"{LEFT:g}", x2=f"{width - RIGHT:g}", y1=y, y2=y, class_="grid"))
        parts.append(element("text", short_axis(value), x=f"{LEFT - 6:g}", y=f"{up(value) + 4:.1f}", text_anchor="end"))
    for value in ticks(first, last, 5 if chart.large else 4):
        parts.append(
            element("text", short_axis(value), x=f"{across(value):.1f}", y=f"{height - 8:g}", text_anchor="middle")
        )
    return together(parts)


def _curve(chart: Chart, number: int, points: Points, across: Scale, up: Scale) -> Markup:
    one = chart.series[number]
    colour = look(one.group)
    parts = []
    if one.band:
        parts.append(_band(points, across, up, colour))
    pieces = []
    pen_down = False
    for x, y in zip(points.x.tolist(), points.mean.tolist(), strict=True):
        if math.isnan(y):
            pen_down = False
            continue
        pieces.append(f"{'L' if pen_down else 'M'}{across(x):.1f} {up(y):.1f}")
        pen_down = True
    parts.append(element("path", d=Markup("".join(pieces)), class_=f"{one.kind} {colour}"))
    known = ~np.isnan(points.mean)
    if (one.kind == DOTS and known.sum() <= 60) or known.sum() == 1:
        dots = zip(points.x[known].tolist(), points.mean[known].tolist(), strict=True)
        parts += [element("circle", cx=f"{across(x):.1f}", cy=f"{up(y):.1f}", r="3", class_=colour) for x, y in dots]
    return together(parts)


def _band(points: Points, across: Scale, up: Scale, colour: str) -> Markup:
    known = ~(np.isnan(points.low) | np.isnan(points.high))
    if not known.any():
        return Markup("")
    x, low, high = (part[known].tolist() for part in (points.x, points.low, points.high))
    there = [f"{across(a):.1f} {up(b):.1f}" for a, b in zip(x, high, strict=True)]
    back = [f"{across(a):.1f} {up(b):.1f}" for a, b in zip(reversed(x), reversed(low), strict=True)]
    return element("path", d=Markup("M" + "L".join([*there, *back]) + "Z"), class_=f"band {colour}")


def ticks(low: float, high: float, most: int) -> list[float]:
    """Return round numbers between two: multiples of 1, 2 or 5 times a power of ten."""
    span = high - low
    if not (span > 0.0 and math.isfinite(span)):
        return [low]
    rough = span / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next((factor * power for factor in (1.0, 2.0, 5.0) if factor * power >= rough), 10.0 * power)
    first = math.ceil(low / step)
    return [float(f"{i * step:.12g}") for i in range(first, first + most + 2) if i * step <= high]


def decades(low: float, high: float) -> list[float]:
    """Return the powers of ten between two positive numbers, not too many; ends of the range where there is none."""
    found = [10.0**i for i in range(math.ceil(math.log10(low)), math.floor(math.log10(high)) + 1)]
    thinned = found[:: max(1, -(-len(found) // 5))]
    return thinned if len(thinned) > 1 else sorted({*thinned, low * 1.2, high / 1.2})


def short_axis(value: float) -> str:
    """Return a number as it stands at an axis: ``100k``, ``1.5M``, ``0.02`` or ``1e-06``."""
    size = abs(value)
    for factor, sign in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if factor <= size < 1e12:
            return f"{value / factor:.3g}{sign}"
    return f"{value:.3g}" if size >= 1e-3 or not size else f"{value:.0e}"
