"""What all figures look like: colours, panels, arrows, labels on lines, and SVG."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from jumar.report.style import TEXT_COLOUR, new_figure, style

BLACK, ORANGE, SKY, GREEN, YELLOW, BLUE, RED, PURPLE = (
    "#000000", "#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7",
)  # fmt: skip
"""Colours that most colour-blind readers tell apart. Source: Okabe and Ito 2008, *Color Universal Design*."""
CYCLE = (BLUE, RED, GREEN, ORANGE, PURPLE, SKY, BLACK)
"""The colours of lines, in this order."""
DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (8, 2)), (0, (1, 1)))
"""The line styles that go with them, so that colour is never the only difference."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
"""The markers that go with them."""
CONTOURS = "#b8b8b8"


def panels(columns: int, width: float, height: float, rows: int = 1, **options: Any) -> tuple[Any, list[Any]]:
    """Return a figure and its axes, row by row; ``width`` and ``height`` of one panel are in inches."""
    figure = new_figure(width * columns, height * rows)
    grid = figure.subplots(rows, columns, squeeze=False, **options)
    return figure, list(grid.flat)


def look(index: int) -> dict[str, Any]:
    """Return the colour and the line style of the line with that index."""
    return {"color": CYCLE[index % len(CYCLE)], "linestyle": DASHES[index % len(DASHES)]}


def frame(axes: Any, title: str, x: str, y: str) -> None:
    """Give axes a title and labels, in which ``$`` begins a formula."""
    style(axes, "", x, y)
    axes.set_title(title, loc="left", color=TEXT_COLOUR, fontsize=11, parse_math=True)
    axes.tick_params(which="minor", length=0)


def label(axes: Any, place: Any, text: str, colour: str, **options: Any) -> None:
    """Write a text at a point of the data, on a white ground so that no line runs through it."""
    options = {"ha": "center", "va": "center", "fontsize": 9, **options}
    ground = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1.0}
    axes.text(*place, text, color=colour, bbox=ground, zorder=6, **options)


def arrow(axes: Any, start: Any, end: Any, colour: str, width: float = 1.8, **options: Any) -> None:
    """Draw an arrow between two points of the data."""
    form = {"arrowstyle": "-|>", "color": colour, "linewidth": width, "shrinkA": 0, "shrinkB": 0, **options}
    axes.annotate("", xy=tuple(end), xytext=tuple(start), arrowprops=form, zorder=5)


def field(axes: Any, x: np.ndarray, y: np.ndarray, vectors: np.ndarray, colour: str) -> None:
    """Draw the directions of vectors ``[len(y), len(x), 2]`` as arrows of one length, centred on the grid's points."""
    spans = np.array([np.ptp(x), np.ptp(y)])
    across, up = np.meshgrid(x, y)
    units = vectors / np.maximum(np.linalg.norm(vectors / spans, axis=-1, keepdims=True), 1e-300)
    # With lengths in data units of both axes, angles are those of the plot and all arrows are a part of a cell long.
    reach = 0.75 / (max(len(x), len(y)) - 1)
    axes.quiver(
        across, up, units[..., 0] * reach, units[..., 1] * reach, angles="xy", scale_units="xy", scale=1.0,
        pivot="mid", color=colour, width=0.006, headwidth=4.5, headlength=5, headaxislength=4.5, zorder=3,
    )  # fmt: skip


def optimum(axes: Any, place: Sequence[float], text: str = "") -> None:
    """Mark the best parameters: a black disc, as the book has it."""
    axes.plot(*place, "o", color=BLACK, markersize=8, zorder=7, clip_on=False, linestyle="none", label=text or None)


def legend(axes: Any, **options: Any) -> None:
    """Name the lines of axes."""
    axes.legend(frameon=False, labelcolor=TEXT_COLOUR, **{"fontsize": 9, "loc": "best", **options})


def svg(figure: Any) -> bytes:
    """Return a figure as SVG, its texts as outlines: the same on every screen, and the same bytes each time."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    figure.set_facecolor("white")
    drawn = io.BytesIO()
    with rc_context({"svg.hashsalt": "jumar", "svg.fonttype": "path", "path.simplify": True}):
        FigureCanvasSVG(figure).print_svg(drawn, metadata={"Date": None, "Creator": "Jumar"})
    return _numbered(drawn.getvalue())


_HASHED = re.compile(rb"\b[A-Za-z][0-9_]*[0-9a-f]{10}\b")


def _numbered(drawing: bytes) -> bytes:
    """Return an SVG whose hashed identifiers are numbers, in the order in which they appear.

    The hashes are of places with all digits, of which the layout does not always find the last one alike.
    """
    hashed = {name: b"i%d" % i for i, name in enumerate(dict.fromkeys(re.findall(rb'id="(\w+)"', drawing)))}
    return _HASHED.sub(lambda found: hashed.get(found[0], found[0]), drawing)
