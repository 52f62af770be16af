"""What a figure is: a name, a source, a caption, a function that computes its data and one that draws them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jumar.errors import UsageError
from jumar.figures.drawing import svg
from jumar.report.style import png
from jumar.runs.files import plain

Data = Mapping[str, Any]
"""What a figure shows, by name: arrays, numbers, texts or lists of texts."""


@dataclass(frozen=True)
class Figure:
    """A figure of a text, or one that goes with it."""

    name: str
    """What is typed: the number in the book, or a word or two."""
    title: str
    """What it is, in a line."""
    source: str
    """The text, and the figure's number if it has one."""
    caption: str
    """What is seen, and how it was made: the problem, seeds and numbers; ``{steps}`` stands for the steps of a training."""
    compute: Callable[..., Data]
    """Computes the data; takes ``steps`` or ``path`` where the figure has them."""
    draw: Callable[[Data], Any]
    """Draws the data as a matplotlib figure."""
    steps: int | None = None
    """Environment steps of each training, where the figure trains."""
    reads: str = ""
    """What can be read in place of the data that come with Jumar; empty: nothing."""

    @property
    def slow(self) -> bool:
        """Whether it trains for minutes."""
        return self.steps is not None

    def words(self, steps: int | None = None) -> str:
        """Return the caption, of a figure whose trainings have that many steps (None: the figure's own number)."""
        return self.caption.replace("{steps}", f"{steps or self.steps or 0:,}")

    def check(self, steps: int | None = None, path: Path | None = None) -> None:
        """Refuse what the figure has no use for.

        Raises:
            UsageError: ``steps`` is given and it trains nothing, or ``path`` and it reads nothing.
        """
        if steps is not None and self.steps is None:
            raise UsageError(f"figure {self.name} trains nothing; leave --steps {steps} out.")
        if path is not None and not self.reads:
            raise UsageError(f"figure {self.name} reads no file; leave --from {path} out.")

    def data(self, steps: int | None = None, path: Path | None = None) -> Data:
        """Compute the data.

        Args:
            steps: environment steps of each training; None: the figure's own number.
            path: what to read in place of the data that come with Jumar.

        Raises:
            UsageError: ``steps`` or ``path`` is given and the figure has no use for it.
        """
        self.check(steps, path)
        options: dict[str, Any] = {} if self.steps is None else {"steps": self.steps if steps is None else steps}
        return self.compute(**options, **({} if path is None else {"path": path}))


def picture(figure: Figure, data: Data, ending: str) -> bytes:
    """Return the figure as a file of that ending, ``".png"`` or ``".svg"``; the same data make the same bytes."""
    drawn = figure.draw(data)
    return png(drawn) if ending == ".png" else svg(drawn)


def data_file(figure: Figure, data: Data, steps: int | None = None) -> bytes:
    """Return the data as JSON, with the figure's name, title, source and caption; NaN and infinities become null."""
    about = {"figure": figure.name, "title": figure.title, "source": figure.source, "caption": figure.words(steps)}
    arrays = {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in data.items()}
    return (json.dumps({**about, "data": plain(arrays, lambda _: None)}, indent=1) + "\n").encode("ascii")
