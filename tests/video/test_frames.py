"""Frames: one even size, a caption that fits, and text of renderers that cannot harm a terminal."""

from __future__ import annotations

import numpy as np
import pytest

from jumar.video.canvas import font
from jumar.video.frames import Caption, Framing, cells, draw_text, fit, for_terminal, shortened

CAPTION = Caption("jax/CartPole-v1   best, 1,000 steps of training", 2, 3, 17, -4.25)


def test_a_caption_says_which_policy_episode_step_and_return() -> None:
    assert CAPTION.lines == (CAPTION.title, "episode 2 of 3   step 17   return -4.25")
    assert Caption("\x1b[2Jx", 1, None, 1000, 0.0).lines == ("\\x1b[2Jx", "episode 1   step 1,000   return 0")


@pytest.mark.parametrize(
    ("shape", "expected"), [((401, 601), (402, 602)), ((50, 40), (400, 320)), ((84, 84), (420, 420))]
)
def test_frames_are_even_and_small_pictures_are_enlarged(shape: tuple[int, int], expected: tuple[int, int]) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    framing = Framing(None, caption=False)
    assert framing.frame(picture, CAPTION).shape == (*expected, 3)
    # What comes later and has another size is fitted into the first one's.
    assert framing.frame(picture[:31], CAPTION).shape == (*expected, 3)


def test_the_picture_is_unchanged_above_its_caption() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (450, 450, 3), dtype=np.uint8)
    frame = Framing(None, caption=True).frame(picture, CAPTION)
    np.testing.assert_array_equal(frame[:450], picture)
    assert 480 <= len(frame) <= 510
    assert frame[450:].max() > 200 > frame[450:].min()
    assert Framing((640, 360), caption=True).frame(picture, CAPTION).shape == (400, 640, 3)


def test_pictures_keep_their_shape() -> None:
    picture = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    np.testing.assert_array_equal(fit(picture, (6, 100)), np.repeat(np.repeat(picture, 2, 0), 2, 1))
    assert fit(picture, (7, 3)).shape == (3, 4, 3)
    assert fit(picture, (3, 2)) is picture


def test_words_that_do_not_fit_end_in_an_ellipsis() -> None:
    words = "gymnasium/SomeVeryLongEnvironment-v0   final, 1,000,000 steps of training"
    short = shortened(words, 120, 15)
    assert short.endswith("…")
    assert words.startswith(short[:-1])
    assert font(9).getlength(short) <= 121
    assert shortened("short", 120, 15) == "short"


WRITTEN = "a\x1b[41mb\x1b[0m\tc\x1b[2J\x1b]0;t\x07\r\n\x1b[1;32mok\x1b[m\n"


def test_of_what_renderers_write_only_letters_and_colours_are_left() -> None:
    lines = cells(WRITTEN)
    assert [[cell.letter for cell in line] for line in lines][1] == ["o", "k"]
    assert (lines[0][1].letter, lines[0][1].paper, lines[0][0].paper) == ("b", 1, None)
    assert lines[1][0].ink == 2
    plain, coloured = for_terminal(WRITTEN, False), for_terminal(WRITTEN, True)
    assert not any(character in plain for character in "\x1b\x07\r")
    assert coloured.replace("\x1b[0;41m", "").replace("\x1b[0;32m", "").replace("\x1b[0m", "") == plain
    assert for_terminal("x" * 5000 + "\n" * 5000, False) == "x" * 200


def test_text_is_drawn_with_its_background() -> None:
    plain, marked = draw_text("S\nF"), draw_text("\x1b[41mS\x1b[0m\nF")
    assert plain.shape == marked.shape
    different = (plain != marked).any(2)
    rows, columns = np.nonzero(different)
    assert rows.max() < plain.shape[0] // 2 + 5
    assert columns.max() < 40, "only the first letter"
    assert plain.min() < 100
