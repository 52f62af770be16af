"""Pictures of compiled environments, drawn from their observations: classic control, grid worlds, 2048, MinAtar.

The classic tasks look like Gymnasium's and have its pictures per second, so that films of both are alike.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jumar.envs.classic_control import Acrobot, CartPole, MountainCar, MountainCarContinuous, Pendulum
from jumar.envs.compiled import CompiledEnvironment, FrameStack, Wrapped
from jumar.envs.game_2048 import Game2048
from jumar.lab.tabular import TabularEnvironment
from jumar.lab.worlds import MapEnvironment
from jumar.video.canvas import BLACK, BLUE, GOLD, GREEN, GREY, INK, ORANGE, PALE, RED, WHITE, Canvas, Colour, Point

Observation = Any


@dataclass(frozen=True)
class Drawing:
    """How an environment is drawn.

    Attributes:
        draw: draws an observation on an empty canvas, whatever its size.
        rate: pictures per second that show it in a fitting pace.
        size: the usual width and height in pixels.
        background: the canvas's.
    """

    draw: Callable[[Observation, Canvas], None]
    rate: float
    size: tuple[int, int]
    background: Colour = WHITE

    def picture(self, observation: Observation, size: tuple[int, int] | None = None) -> np.ndarray:
        """Return the picture of an observation, uint8 ``[height, width, 3]``."""
        canvas = Canvas(*(size or self.size), self.background)
        self.draw(observation, canvas)
        return canvas.picture()


def drawing_of(env: CompiledEnvironment, name: str) -> Drawing | None:
    """Return how a compiled environment is drawn; ``None`` where nothing is known of it.

    Args:
        env: the environment; of a stack of frames the newest is drawn.
        name: its id with the backend in front, such as ``gymnax/CartPole-v1``.
    """
    if isinstance(env, FrameStack):
        inner = drawing_of(env.env, name)
        return inner and Drawing(
            lambda seen, canvas: inner.draw(seen[-1], canvas), inner.rate, inner.size, inner.background
        )
    if isinstance(env, Wrapped):
        return drawing_of(env.env, name)
    if isinstance(env, (MountainCar, MountainCarContinuous)):
        return _mountain_car(env.params.goal_position)
    if isinstance(env, MapEnvironment):
        return _grid_world(env.rows)
    if isinstance(env, TabularEnvironment):
        return _states(env.mdp.n_states)
    for kind, drawing in ((CartPole, CART_POLE), (Acrobot, ACROBOT), (Pendulum, PENDULUM), (Game2048, GAME_2048)):
        if isinstance(env, kind):
            return drawing
    if name in _OF_GYMNAX:
        return _OF_GYMNAX[name]
    shape = getattr(env.observation_space, "shape", None) or ()
    if name.startswith("gymnax/") and len(shape) in (2, 3) and min(shape[:2]) >= 3:
        return _planes(shape)
    return None


# --- classic control -----------------------------------------------------------------------------------------------


def _draw_cart_pole(observation: Observation, canvas: Canvas) -> None:
    x, _, theta, _ = (float(number) for number in observation)
    unit = canvas.width / 4.8  # of the track, which is 2.4 m long to both sides
    ground, middle = 0.75 * canvas.height, 0.5 * canvas.width + x * unit
    canvas.line((0, ground), (canvas.width, ground), 2, GREY)
    cart_width, cart_height = 0.4 * unit, 0.24 * unit
    axle = (middle, ground - 0.5 * cart_height)
    canvas.rectangle(
        middle - 0.5 * cart_width,
        ground - 0.5 * cart_height,
        middle + 0.5 * cart_width,
        ground + 0.5 * cart_height,
        INK,
    )
    tip = axle[0] + unit * math.sin(theta), axle[1] - unit * math.cos(theta)  # the pole is 1 m long
    canvas.line(axle, tip, 0.09 * unit, ORANGE)
    canvas.disc(axle, 0.04 * unit, PALE)


def _draw_acrobot(observation: Observation, canvas: Canvas) -> None:
    cos1, sin1, cos2, sin2 = (float(number) for number in observation[:4])
    first, second = math.atan2(sin1, cos1), math.atan2(sin2, cos2)
    unit = min(canvas.width, canvas.height) / 4.6
    origin = (0.5 * canvas.width, 0.5 * canvas.height)
    line = origin[1] - unit  # the tip is to swing above one link's length over the joint
    canvas.line((0, line), (canvas.width, line), 2, GREEN)
    joint = origin[0] + unit * math.sin(first), origin[1] + unit * math.cos(first)
    tip = joint[0] + unit * math.sin(first + second), joint[1] + unit * math.cos(first + second)
    canvas.line(origin, joint, 0.18 * unit, BLUE)
    canvas.line(joint, tip, 0.18 * unit, ORANGE)
    for point in (origin, joint):
        canvas.disc(point, 0.11 * unit, INK)


def _draw_pendulum(observation: Observation, canvas: Canvas) -> None:
    cos, sin = (float(number) for number in observation[:2])
    unit = min(canvas.width, canvas.height) / 4.4
    origin = (0.5 * canvas.width, 0.5 * canvas.height)
    tip = origin[0] - 1.6 * unit * sin, origin[1] - 1.6 * unit * cos  # angles grow anticlockwise
    canvas.line((origin[0], origin[1] - 2.0 * unit), (origin[0], origin[1] - 1.9 * unit), 3, GREEN)
    canvas.line(origin, tip, 0.36 * unit, RED)
    canvas.disc(origin, 0.1 * unit, INK)


CART_POLE = Drawing(_draw_cart_pole, 50, (600, 400))
ACROBOT = Drawing(_draw_acrobot, 15, (480, 480))
PENDULUM = Drawing(_draw_pendulum, 30, (480, 480))


def _mountain_car(goal: float) -> Drawing:
    low, high = -1.2, 0.6

    def height_of(x: float) -> float:
        return math.sin(3.0 * x) * 0.45 + 0.55

    def draw(observation: Observation, canvas: Canvas) -> None:
        position = float(observation[0])
        unit = canvas.width / (high - low)

        def at(x: float, above: float = 0.0) -> Point:
            return (x - low) * unit, canvas.height - 0.04 * unit - unit * height_of(x) * 0.55 - above

        canvas.path([at(low + (high - low) * i / 60) for i in range(61)], 3, GREY)
        pole = at(goal)
        canvas.line(pole, (pole[0], pole[1] - 0.18 * unit), 2, INK)
        top, below = pole[1] - 0.18 * unit, pole[1] - 0.1 * unit
        canvas.polygon([(pole[0], top), (pole[0] + 0.09 * unit, 0.5 * (top + below)), (pole[0], below)], GOLD)
        slope = math.atan(math.cos(3.0 * position) * 1.35 * 0.55)
        along, up = (math.cos(slope), -math.sin(slope)), (-math.sin(slope), -math.cos(slope))
        base = at(position)

        def on_car(forward: float, high: float) -> Point:
            return (
                base[0] + unit * (forward * along[0] + high * up[0]),
                base[1] + unit * (forward * along[1] + high * up[1]),
            )

        canvas.polygon([on_car(-0.06, 0.03), on_car(0.06, 0.03), on_car(0.06, 0.08), on_car(-0.06, 0.08)], BLUE)
        for wheel in (-0.035, 0.035):
            canvas.disc(on_car(wheel, 0.025), 0.02 * unit, INK)

    return Drawing(draw, 30, (600, 400))


_OF_GYMNAX = {
    "gymnax/CartPole-v1": CART_POLE,
    "gymnax/Acrobot-v1": ACROBOT,
    "gymnax/Pendulum-v1": PENDULUM,
    "gymnax/MountainCar-v0": _mountain_car(0.5),
    "gymnax/MountainCarContinuous-v0": _mountain_car(0.45),
}
"""The same tasks with the same observations in gymnax."""


# --- boards --------------------------------------------------------------------------------------------------------

_CELLS = {
    ".": WHITE,
    "S": (214, 226, 245),
    "G": (186, 226, 199),
    "P": (242, 200, 200),
    "C": (84, 62, 58),
    "#": (90, 96, 108),
}
"""The colours of a map's cells: floor, start, goal, pit, cliff and wall."""


def _grid_world(rows: Sequence[str]) -> Drawing:
    places = [(i, j) for i, line in enumerate(rows) for j, letter in enumerate(line) if letter not in "#C"]
    cells = np.array([[_CELLS[letter] for letter in line] for line in rows], np.uint8)
    size = max(8, min(64, 640 // max(cells.shape[:2])))

    def draw(observation: Observation, canvas: Canvas) -> None:
        side, left, top = _fitted(canvas, len(rows[0]), len(rows))
        board = _enlarged(cells, side)
        board[:: int(side)] = board[:, :: int(side)] = PALE
        canvas.paste(board, int(left), int(top))
        i, j = places[int(observation)]
        canvas.disc((left + (j + 0.5) * side, top + (i + 0.5) * side), 0.32 * side, BLUE)

    return Drawing(draw, 5, (size * len(rows[0]), size * len(rows)), PALE)


def _states(n: int) -> Drawing:
    """Return the drawing of a process without a map: a cell for each state, with its number."""
    columns = n if n <= 12 else math.ceil(math.sqrt(n))
    lines = -(-n // columns)
    size = max(12, min(72, 864 // columns))

    def draw(observation: Observation, canvas: Canvas) -> None:
        side, left, top = _fitted(canvas, columns, lines)
        for state in range(n):
            i, j = divmod(state, columns)
            x, y, here = left + j * side, top + i * side, state == int(observation)
            canvas.rectangle(x + 1, y + 1, x + side - 1, y + side - 1, BLUE if here else WHITE)
            if side >= 14:
                canvas.text(str(state), (x + 0.5 * side, y + 0.5 * side), 0.35 * side, WHITE if here else GREY)

    return Drawing(draw, 5, (size * columns, size * lines), PALE)


def _draw_2048(observation: Observation, canvas: Canvas) -> None:
    board = np.asarray(observation["board"])
    side, left, top = _fitted(canvas, 4, 4)
    for i in range(4):
        for j in range(4):
            power = int(board[i, j])
            x, y, gap = left + j * side, top + i * side, 0.05 * side
            canvas.rectangle(x + gap, y + gap, x + side - gap, y + side - gap, _tile(power))
            if power:
                number = str(2**power)
                size = side * (0.4 if len(number) < 3 else 1.05 / len(number))
                dark = power <= 2
                canvas.text(number, (x + 0.5 * side, y + 0.5 * side), size, INK if dark else WHITE)


def _tile(power: int) -> Colour:
    if power == 0:
        return (205, 193, 180)
    warm = [(238, 228, 218), (237, 224, 200), (242, 177, 121), (245, 149, 99), (246, 124, 95), (232, 82, 48)]
    gold = [(226, 185, 76), (214, 170, 56), (200, 156, 40), (186, 140, 26), (170, 124, 14)]
    return [*warm, *gold, (60, 58, 50)][min(power - 1, 11)]


GAME_2048 = Drawing(_draw_2048, 6, (480, 480), (187, 173, 160))


# --- planes --------------------------------------------------------------------------------------------------------

_PLANES = (BLUE, ORANGE, GREEN, RED, GOLD, (132, 94, 194), (0, 150, 170), (214, 93, 177), (140, 110, 80), GREY)


def _planes(shape: Sequence[int]) -> Drawing:
    """Return the drawing of a picture of few cells with a plane for each kind of thing: MinAtar, say.

    A cell has the colour of the first of its planes that is not 0, as bright as that.
    """
    rows, columns = shape[:2]
    size = max(4, 480 // max(rows, columns))

    def draw(observation: Observation, canvas: Canvas) -> None:
        planes = np.asarray(observation, np.float32).reshape(rows, columns, -1)
        side, left, top = _fitted(canvas, columns, rows)
        colours = np.array([_PLANES[k % len(_PLANES)] for k in range(planes.shape[2])], np.float32)
        there = planes != 0
        first = np.argmax(there, axis=2)
        value = np.clip(np.abs(np.take_along_axis(planes, first[..., None], 2)), 0.0, 1.0)
        cells = np.where(there.any(2)[..., None], colours[first] * value, 0.0).astype(np.uint8)
        canvas.paste(_enlarged(cells, side), int(left), int(top))

    return Drawing(draw, 10, (size * columns, size * rows), BLACK)


def _enlarged(cells: np.ndarray, side: float) -> np.ndarray:
    """Return cells ``[rows, columns, 3]`` as squares of so many pixels."""
    return np.repeat(np.repeat(cells, int(side), 0), int(side), 1)


def _fitted(canvas: Canvas, columns: int, rows: int) -> tuple[float, float, float]:
    """Return the side of a cell, and where the first one begins, of a board in the canvas's middle."""
    side = float(max(1, min(canvas.width // columns, canvas.height // rows)))
    return side, (canvas.width - side * columns) // 2, (canvas.height - side * rows) // 2
