"""Lists of names with words: a line each, broken where the terminal is narrower."""

from __future__ import annotations

import pytest

from jumar.cli.lists import LEAST_ROOM, listed, wrapped

ENTRIES = [
    ("ppo", "proximal policy optimization, with a clipped surrogate"),
    ("restricted-step", "Schulman's"),
    ("x", ""),
]


def test_without_a_terminal_every_entry_is_a_line() -> None:
    assert listed(ENTRIES, None).splitlines() == [
        "ppo              proximal policy optimization, with a clipped surrogate",
        "restricted-step  Schulman's",
        "x",
    ]
    assert listed([], None) == listed([], 40) == ""


@pytest.mark.parametrize("width", [40, 17 + LEAST_ROOM, 60, 71, 80])
def test_on_a_terminal_no_line_is_longer_and_no_word_is_lost(width: int) -> None:
    text = listed(ENTRIES, width)
    assert max(map(len, text.splitlines())) <= width
    assert text.split() == [word for name, words in ENTRIES for word in (name, *words.split())]
    starts = [line for line in text.splitlines() if not line.startswith(" ")]
    assert [line.split()[0] for line in starts] == [name for name, _ in ENTRIES]


def test_words_stand_beside_their_name_where_there_is_room() -> None:
    assert listed(ENTRIES, 50).splitlines()[:2] == [
        "ppo              proximal policy optimization,",
        "                 with a clipped surrogate",
    ]
    assert listed(ENTRIES, 40).splitlines()[:3] == [
        "ppo",
        "    proximal policy optimization, with a",
        "    clipped surrogate",
    ]


def test_texts_are_broken_at_a_width_alone() -> None:
    assert wrapped("one two three", None, "  ") == ["  one two three"]
    assert wrapped("one two three four five", 20, "  ") == ["  one two three four", "  five"]
    assert wrapped("", 20) == wrapped("", None) == []
