"""What all pictures look like."""

from __future__ import annotations

import io
from typing import Any

TEXT_COLOUR = "#333333"


def style(axes: Any, title: str, x: str, y: str) -> None:
    """Give axes a title and labels, and take away what is not data."""
    # A title is shown as it is: a $ in an environment's name starts no formula.
    axes.set_title(title, loc="left", color=TEXT_COLOUR, fontsize=12, parse_math=False)
    axes.set_xlabel(x, color=TEXT_COLOUR)
    axes.set_ylabel(y, color=TEXT_COLOUR)
    axes.grid(axis="y", color="#e6e6e6", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=TEXT_COLOUR, length=0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color("#bbbbbb")


def count_steps(axes: Any) -> None:
    """Write the numbers along the x axis as 100 k and 1 M."""
    from matplotlib.ticker import EngFormatter

    axes.xaxis.set_major_formatter(EngFormatter(sep=" "))


def new_figure(width: float, height: float) -> Any:
    """Return an empty figure, its size in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=150, layout="constrained")


def png(figure: Any) -> bytes:
    """Return the picture of a figure."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    picture = io.BytesIO()
    FigureCanvasAgg(figure).print_png(picture)
    return picture.getvalue()
