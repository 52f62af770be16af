"""A picture to draw on, in NumPy: lines, discs, polygons and text with smooth edges. No display and no other library is needed.

Points are (x, y) in pixels from the upper left corner, y downwards. A shape is a function that gives each pixel's distance to
its edge, negative inside; a pixel is covered by the share ``clip(0.5 - distance, 0, 1)``.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

Colour = tuple[int, int, int]
Point = tuple[float, float]

WHITE, BLACK, INK, GREY, PALE = (255, 255, 255), (0, 0, 0), (38, 42, 51), (140, 146, 158), (226, 229, 235)
BLUE, ORANGE, GREEN, RED, GOLD = (42, 101, 196), (222, 120, 31), (46, 146, 89), (200, 55, 55), (235, 184, 48)


class Canvas:
    """A picture that is being drawn.

    Attributes:
        width: pixels.
        height: pixels.
    """

    def __init__(self, width: int, height: int, background: Colour = WHITE) -> None:
        self.width, self.height = width, height
        self._pixels = np.empty((height, width, 3), np.float32)
        self._pixels[:] = background

    def picture(self) -> np.ndarray:
        """Return what was drawn, uint8 ``[height, width, 3]``."""
        return np.rint(self._pixels).astype(np.uint8)

    def line(self, start: Point, end: Point, width: float, colour: Colour) -> None:
        """Draw a line with round ends."""
        (x0, y0), (x1, y1) = start, end
        length = max((x1 - x0) ** 2 + (y1 - y0) ** 2, 1e-9)

        def distance(x: np.ndarray, y: np.ndarray) -> np.ndarray:
            along = np.clip(((x - x0) * (x1 - x0) + (y - y0) * (y1 - y0)) / length, 0.0, 1.0)
            return np.hypot(x - x0 - along * (x1 - x0), y - y0 - along * (y1 - y0)) - 0.5 * width

        self._fill([start, end], 0.5 * width, distance, colour)

    def path(self, points: Sequence[Point], width: float, colour: Colour) -> None:
        """Draw lines from each point to the next."""
        for start, end in itertools.pairwise(points):
            self.line(start, end, width, colour)

    def disc(self, centre: Point, radius: float, colour: Colour) -> None:
        """Draw a filled circle."""
        self._fill([centre], radius, lambda x, y: np.hypot(x - centre[0], y - centre[1]) - radius, colour)

    def polygon(self, corners: Sequence[Point], colour: Colour) -> None:
        """Draw a filled convex polygon."""
        array = np.array(corners, np.float64)
        edges = np.roll(array, -1, axis=0) - array
        turn = np.sign(np.sum(array[:, 0] * np.roll(array[:, 1], -1) - np.roll(array[:, 0], -1) * array[:, 1])) or 1.0
        normals = turn * np.stack([edges[:, 1], -edges[:, 0]], 1) / np.maximum(np.hypot(*edges.T), 1e-9)[:, None]

        def distance(x: np.ndarray, y: np.ndarray) -> np.ndarray:
            sides = [(x - a) * n + (y - b) * m for (a, b), (n, m) in zip(array, normals, strict=True)]
            return functools.reduce(np.maximum, sides)

        self._fill(corners, 0.0, distance, colour)

    def rectangle(self, left: float, top: float, right: float, bottom: float, colour: Colour) -> None:
        """Draw a filled rectangle."""
        self.polygon([(left, top), (right, top), (right, bottom), (left, bottom)], colour)

    def text(self, words: str, at: Point, size: float, colour: Colour, anchor: str = "mm", mono: bool = False) -> None:
        """Write one line of text.

        Args:
            words: the text.
            at: where.
            size: height of the letters in pixels.
            colour: of the letters.
            anchor: which point of the text ``at`` is: l, m or r (left, middle, right), then a, m or s (top, middle, base line).
            mono: whether all letters are equally wide.
        """
        from PIL import Image, ImageDraw

        letters = font(max(1, round(size)), mono)
        left, top, right, bottom = (round(x) for x in letters.getbbox(words, anchor=anchor))
        if right <= left or bottom <= top:
            return
        mask = Image.new("L", (right - left + 2, bottom - top + 2))
        ImageDraw.Draw(mask).text((1 - left, 1 - top), words, fill=255, font=letters, anchor=anchor)
        self._blend(round(at[0]) + left - 1, round(at[1]) + top - 1, np.asarray(mask, np.float32) / 255.0, colour)

    def paste(self, picture: np.ndarray, left: int, top: int) -> None:
        """Put a picture, uint8 ``[height, width, 3]``, on this one; what does not fit is cut off."""
        height, width = picture.shape[:2]
        x0, y0 = max(left, 0), max(top, 0)
        x1, y1 = min(left + width, self.width), min(top + height, self.height)
        if x0 < x1 and y0 < y1:
            self._pixels[y0:y1, x0:x1] = picture[y0 - top : y1 - top, x0 - left : x1 - left]

    def _fill(
        self,
        around: Sequence[Point],
        margin: float,
        distance: Callable[[np.ndarray, np.ndarray], np.ndarray],
        colour: Colour,
    ) -> None:
        """Draw a shape that lies within ``margin`` pixels around some points."""
        array = np.clip(np.array(around, np.float64), -1e6, 1e6)
        left, top = np.floor(array.min(0) - margin - 1).astype(int)
        right, bottom = np.ceil(array.max(0) + margin + 1).astype(int)
        x0, x1, y0, y1 = max(left, 0), min(right, self.width), max(top, 0), min(bottom, self.height)
        if x0 >= x1 or y0 >= y1:
            return
        x, y = np.arange(x0, x1)[None] + 0.5, np.arange(y0, y1)[:, None] + 0.5
        self._blend(x0, y0, np.clip(0.5 - distance(x, y), 0.0, 1.0).astype(np.float32), colour)

    def _blend(self, left: int, top: int, coverage: np.ndarray, colour: Colour) -> None:
        height, width = coverage.shape
        x0, y0, x1, y1 = max(left, 0), max(top, 0), min(left + width, self.width), min(top + height, self.height)
        if x0 >= x1 or y0 >= y1:
            return
        share = coverage[y0 - top : y1 - top, x0 - left : x1 - left, None]
        part = self._pixels[y0:y1, x0:x1]
        part += share * (np.array(colour, np.float32) - part)


@functools.lru_cache(64)
def font(size: int, mono: bool = False) -> Any:
    """Return a font of Matplotlib's, which come with it, in a size in pixels."""
    import matplotlib as mpl
    from PIL import ImageFont

    name = "DejaVuSansMono.ttf" if mono else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(mpl.get_data_path()) / "fonts" / "ttf" / name), size)
