"""From an environment's pictures to the frames of a film: all of one size, enlarged where they are small, with a caption.

A renderer may write instead of draw (``ansi``): its text, with the colours that it asks a terminal for, is drawn too.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from jumar.text import printable, short_number
from jumar.video.canvas import BLUE, GREEN, INK, PALE, RED, WHITE, Canvas, Colour, font

USUAL = 400
"""Pixels: pictures much smaller than this are enlarged to about it, by a whole factor."""
LARGEST_SIDE = 4096
"""Pixels: more is refused; H.264's levels end there."""
SMALLEST_SIDE = 32

Size = tuple[int, int]
"""Width and height in pixels."""


@dataclass(frozen=True)
class Caption:
    """What stands below a picture: two lines.

    Attributes:
        title: which environment and which policy.
        episode: the episode's number, from 1.
        episodes: how many there are; ``None`` where there is no end.
        step: steps taken in the episode.
        total: the sum of its rewards so far.
    """

    title: str
    episode: int
    episodes: int | None
    step: int
    total: float

    @property
    def lines(self) -> tuple[str, str]:
        """The two lines."""
        of = "" if self.episodes is None else f" of {self.episodes}"
        return printable(
            self.title
        ), f"episode {self.episode}{of}   step {self.step:,}   return {short_number(self.total)}"


class Framing:
    """Brings pictures to one size, which the first one decides unless it is given.

    Args:
        size: of the picture, without the caption; ``None``: that of the first picture.
        caption: whether there is one below it.
    """

    def __init__(self, size: Size | None, caption: bool) -> None:
        self._size = size
        self._caption = caption

    def frame(self, picture: np.ndarray | str, caption: Caption) -> np.ndarray:
        """Return a frame, uint8 ``[height, width, 3]``, whose sides are even, as H.264 asks."""
        drawn = draw_text(picture) if isinstance(picture, str) else picture
        if self._size is None:
            factor = max(1, round(USUAL / max(drawn.shape[:2])))
            self._size = drawn.shape[1] * factor, drawn.shape[0] * factor
        width, height = self._size
        strip = max(30, min(56, height // 9)) if self._caption else 0
        frame = np.full((_even(height + strip), _even(width), 3), 255 if isinstance(picture, str) else 0, np.uint8)
        fitted = fit(drawn, self._size)
        top, left = (height - fitted.shape[0]) // 2, (width - fitted.shape[1]) // 2
        frame[top : top + fitted.shape[0], left : left + fitted.shape[1]] = fitted
        if strip:
            frame[height:] = _strip(caption, frame.shape[1], frame.shape[0] - height)
        return frame


def _strip(caption: Caption, width: int, height: int) -> np.ndarray:
    """Return what stands below a picture."""
    canvas, margin, size = Canvas(width, height, INK), max(6, height // 5), 0.36 * height
    room = width - 2 * margin
    for words, line, colour in zip(caption.lines, (0.29, 0.71), (PALE, WHITE), strict=True):
        at = (margin, line * height)
        canvas.text(shortened(words, room, size), at, _fitting(words, room, size), colour, "lm")
    return canvas.picture()


def _even(number: int) -> int:
    return number + number % 2


SMALLEST_LETTERS = 9.0
"""Pixels. What does not fit at this size is cut."""


def _fitting(words: str, room: float, size: float) -> float:
    """Return the size at which words fit, not below the smallest that can be read."""
    long = font(max(1, round(size))).getlength(words)
    return size if long <= room else max(SMALLEST_LETTERS, float(int(size * room / long)))


def shortened(words: str, room: float, size: float) -> str:
    """Return the words, with an ellipsis where they do not fit into so many pixels at any size that can be read."""
    letters = font(max(1, round(_fitting(words, room, size))))
    while words and letters.getlength(words) > room + 1:
        words = words[:-2].rstrip() + "…" if len(words) > 2 else ""
    return words


def fit(picture: np.ndarray, size: Size) -> np.ndarray:
    """Return a picture in the largest size that fits into ``size`` with the same shape; whole factors stay sharp."""
    height, width = picture.shape[:2]
    scale = min(size[0] / width, size[1] / height)
    wide, high = max(1, round(width * scale)), max(1, round(height * scale))
    if (wide, high) == (width, height):
        return picture
    if wide % width == 0 and high % height == 0 and wide // width == high // height:
        factor = wide // width
        return np.repeat(np.repeat(picture, factor, 0), factor, 1)
    from PIL import Image

    return np.asarray(Image.fromarray(picture).resize((wide, high), Image.Resampling.LANCZOS))


# --- text ----------------------------------------------------------------------------------------------------------

_STYLE = re.compile(r"\x1b\[([0-9;]*)m")
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b.")
_COLOURS: tuple[Colour, ...] = (
    (30, 30, 30),
    RED,
    GREEN,
    (190, 140, 20),
    BLUE,
    (160, 70, 160),
    (0, 140, 160),
    (235, 235, 235),
)
"""A terminal's eight."""
LONGEST_LINE, MOST_LINES = 200, 100
LETTER = 18
"""Pixels of a letter's height in text that is drawn."""


class Cell(NamedTuple):
    """A letter with its colours; ``None`` is the usual one."""

    letter: str
    ink: int | None = None
    paper: int | None = None


def cells(text: str) -> list[list[Cell]]:
    """Return the lines of a text for a terminal; of its control codes only the eight colours count."""
    ink: int | None = None
    paper: int | None = None
    lines: list[list[Cell]] = [[]]
    for i, part in enumerate(_STYLE.split(text)):
        if i % 2:
            for code in part.split(";"):
                number = int(code) if code else 0
                if number == 0:
                    ink = paper = None
                elif number == 7:
                    ink, paper = 7, 0
                elif 30 <= number <= 37 or 90 <= number <= 97:
                    ink = number % 10
                elif 40 <= number <= 47 or 100 <= number <= 107:
                    paper = number % 10
            continue
        for letter in _CONTROL.sub("", part).expandtabs(4):
            if letter == "\n":
                lines.append([])
            elif letter.isprintable():
                lines[-1].append(Cell(letter, ink, paper))
    while len(lines) > 1 and not lines[-1]:
        lines.pop()
    return [line[:LONGEST_LINE] for line in lines[:MOST_LINES]]


def draw_text(text: str) -> np.ndarray:
    """Return a picture of a text, black on white with the colours that it asks for."""
    lines = cells(text)
    width = round(font(LETTER, True).getlength("M"))
    height = round(1.3 * LETTER)
    columns = max(20, *(len(line) for line in lines))
    canvas = Canvas((columns + 2) * width, (len(lines) + 2) * height, WHITE)
    for i, line in enumerate(lines):
        for j, cell in enumerate(line):
            x, y = (j + 1) * width, (i + 1) * height
            if cell.paper is not None:
                canvas.rectangle(x, y, x + width, y + height, _COLOURS[cell.paper])
            if not cell.letter.isspace():
                colour: Colour = INK if cell.ink is None else _COLOURS[cell.ink]
                if cell.ink is None and cell.paper not in (None, 3, 7):
                    colour = WHITE
                canvas.text(cell.letter, (x + width / 2, y + 0.78 * height), LETTER, colour, "ms", mono=True)
    return canvas.picture()


def for_terminal(text: str, colours: bool) -> str:
    """Return a text as it may be printed: of control codes nothing but colours, and none where they are not wanted."""
    if not colours:
        return "\n".join("".join(cell.letter for cell in line) for line in cells(text))
    printed = []
    for line in cells(text):
        style: tuple[int | None, int | None] = (None, None)
        for cell in line:
            if (cell.ink, cell.paper) != style:
                style = (cell.ink, cell.paper)
                codes = ["0"]
                codes += [] if cell.ink is None else [str(30 + cell.ink)]
                codes += [] if cell.paper is None else [str(40 + cell.paper)]
                printed.append(f"\x1b[{';'.join(codes)}m")
            printed.append(cell.letter)
        printed.append("\n" if style == (None, None) else "\x1b[0m\n")
    return "".join(printed).removesuffix("\n")
