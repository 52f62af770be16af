"""Drawings show what an observation says: positions, angles and letters are where they belong."""

from __future__ import annotations

import math
from typing import Any

import jax
import numpy as np
import pytest

from jumar.envs.classic_control import ENVIRONMENTS, CartPole
from jumar.envs.compiled import FrameStack
from jumar.envs.game_2048 import Game2048
from jumar.lab.tabular import TabularEnvironment, random_mdp
from jumar.lab.worlds import Chain, CliffWalk, GridWorld
from jumar.video import drawings
from jumar.video.canvas import BLUE, INK, ORANGE, RED, WHITE, Canvas
from jumar.video.drawings import drawing_of


def centre(picture: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    """Return the mean (x, y) of the pixels of a colour."""
    rows, columns = np.nonzero((picture == np.array(colour)).all(2))
    assert len(rows), colour
    return np.array([columns.mean() + 0.5, rows.mean() + 0.5])


def darkness(canvas: Canvas) -> float:
    """Return the area that black has covered, in pixels."""
    return float((255.0 - canvas.picture().astype(float)).sum() / (3 * 255.0))


def test_shapes_have_their_areas() -> None:
    """A disc's is pi r^2, a line's with round ends w l + pi (w / 2)^2, a polygon's by the shoelace formula."""
    disc, line, polygon = (Canvas(100, 80) for _ in range(3))
    disc.disc((41.3, 37.8), 20.0, (0, 0, 0))
    assert darkness(disc) == pytest.approx(math.pi * 400, rel=0.005)
    line.line((20, 20), (60, 50), 6.0, (0, 0, 0))
    assert darkness(line) == pytest.approx(6 * 50 + math.pi * 9, rel=0.01)
    corners = [(10.5, 10.5), (70.0, 20.0), (40.0, 70.0)]
    for order in (corners, corners[::-1]):
        polygon = Canvas(100, 80)
        polygon.polygon(order, (0, 0, 0))
        assert darkness(polygon) == pytest.approx(0.5 * abs(59.5 * 59.5 - 9.5 * 29.5), rel=0.01)


def test_what_lies_outside_of_the_canvas_is_cut_off() -> None:
    canvas = Canvas(20, 10)
    canvas.rectangle(-50, -50, 5, 50, (0, 0, 0))
    canvas.disc((1e9, -1e9), 5, (0, 0, 0))
    canvas.text("x", (-40, 5), 10, (0, 0, 0))
    canvas.paste(np.zeros((30, 30, 3), np.uint8), 15, -3)
    picture = canvas.picture()
    assert (picture[:, :5] == 0).all()
    assert (picture[:, 5:15] == 255).all()
    assert (picture[:, 15:] == 0).all()


def test_text_is_written_where_it_is_anchored() -> None:
    for anchor, side in (("lm", slice(30, 60)), ("rm", slice(0, 30))):
        canvas = Canvas(60, 20)
        canvas.text("ab", (30, 10), 12, (0, 0, 0), anchor)
        there = 255 - canvas.picture()[..., 0]
        assert there.sum() == there[:, side].sum() > 0


@pytest.mark.parametrize("theta", [0.0, 0.2, -0.15])
def test_the_pole_leans_as_the_angle_says(theta: float) -> None:
    picture = drawings.CART_POLE.picture(np.array([0.6, 0.0, theta, 0.0]))
    unit = 600 / 4.8
    assert centre(picture, INK)[0] == pytest.approx(300 + 0.6 * unit, abs=1.0)
    # The pole's middle is half of its length from the axle.
    lean = centre(picture, ORANGE)[0] - (300 + 0.6 * unit)
    assert lean == pytest.approx(0.5 * unit * math.sin(theta), abs=3.0)


def test_the_pendulum_and_the_acrobot_hang_and_stand() -> None:
    for angle, side in ((0.0, -1), (math.pi, 1)):  # 0 is upright
        picture = drawings.PENDULUM.picture(np.array([math.cos(angle), math.sin(angle), 0.0]))
        x, y = centre(picture, RED) - 240
        assert x == pytest.approx(0, abs=2)
        assert y * side > 50
    # Anticlockwise, as in Gymnasium's picture: a quarter turn points to the left.
    assert centre(drawings.PENDULUM.picture(np.array([0.0, 1.0, 0.0])), RED)[0] < 200
    hanging = drawings.ACROBOT.picture(np.array([1.0, 0.0, 1.0, 0.0, 0.0, 0.0]))
    assert 240 < centre(hanging, BLUE)[1] < centre(hanging, ORANGE)[1]
    folded = drawings.ACROBOT.picture(np.array([0.0, 1.0, 0.0, 1.0, 0.0, 0.0]))
    assert centre(folded, BLUE)[0] > 250  # the first link to the right, the second one upwards from its end
    assert centre(folded, ORANGE)[1] < 220


def test_the_agent_of_a_grid_world_is_in_its_cell() -> None:
    """The states are the cells without walls and cliffs, row by row."""
    env = GridWorld("S.#/.PG", slip=0.0)
    drawing = drawing_of(env, "jax/x")
    assert drawing is not None
    side = drawing.size[0] / 3
    for state, (i, j) in enumerate([(0, 0), (0, 1), (1, 0), (1, 1), (1, 2)]):
        assert centre(drawing.picture(np.int32(state)), BLUE) == pytest.approx(
            [(j + 0.5) * side, (i + 0.5) * side], abs=1
        )


@pytest.mark.parametrize(
    "env",
    [
        *(make() for make in ENVIRONMENTS.values()),
        Game2048(),
        Game2048(observation="log2"),
        CliffWalk(),
        Chain(),
        TabularEnvironment(random_mdp(jax.random.PRNGKey(0), n_states=30, n_actions=2, gamma=0.9), 10),
        FrameStack(CartPole(), 3),
    ],
    ids=lambda env: type(env).__name__,
)
def test_everything_of_jumars_own_has_a_picture(env: Any) -> None:
    drawing = drawing_of(env, "jax/own")
    assert drawing is not None
    observation = jax.device_get(jax.jit(env.reset)(jax.random.PRNGKey(1), env.params)[1])
    picture = drawing.picture(observation)
    assert picture.shape == (drawing.size[1], drawing.size[0], 3)
    assert picture.dtype == np.uint8
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 2
    assert drawing.picture(observation, (133, 97)).shape == (97, 133, 3)


def test_of_a_stack_of_frames_the_newest_is_drawn() -> None:
    drawing = drawing_of(FrameStack(CartPole(), 2), "jax/CartPole-v1")
    assert drawing is not None
    frames = np.array([[0.0, 0, 0, 0], [1.0, 0, 0, 0]])
    np.testing.assert_array_equal(drawing.picture(frames), drawings.CART_POLE.picture(frames[1]))


def test_planes_have_a_colour_each_and_what_has_no_picture_has_none() -> None:
    class Planes:
        observation_space = type("Box", (), {"shape": (4, 6, 3)})()

    drawing = drawing_of(Planes(), "gymnax/Some-MinAtar")  # type: ignore[arg-type]
    assert drawing is not None
    planes = np.zeros((4, 6, 3))
    planes[1, 2, 0] = planes[3, 5, 1] = planes[3, 5, 2] = 1
    picture = drawing.picture(planes)
    side = drawing.size[0] // 6
    assert tuple(picture[int(1.5 * side), int(2.5 * side)]) == BLUE
    assert tuple(picture[int(3.5 * side), int(5.5 * side)]) == ORANGE, "of several planes the first"
    assert picture.sum() == side * side * (sum(BLUE) + sum(ORANGE))
    assert drawing_of(Planes(), "jax/own:Planes") is None  # type: ignore[arg-type]
    assert WHITE == (255, 255, 255)
