"""Readers of what a file says: what is right comes back, and of anything else the entry, the value and what is right."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jumar.errors import DamagedFile, UsageError
from jumar.fields import (
    DamagedEntry,
    choice,
    exact_record,
    made_by,
    mapping,
    number,
    optional,
    reading,
    record,
    several,
    text,
    whole,
)

INNER = record(seed=whole(0, 9), names=several(text("[a-z]+", "small letters"), most=2))


@pytest.mark.parametrize(
    ("reader", "right", "wrong", "words"),
    [
        (whole(0, 9), [0, 9], [-1, 10, 1.0, True, "1", None, 10**300], "a whole number from 0 to 9"),
        (number(0, 1), [0, 1.0, 0.5], [-0.1, 1.1, math.nan, math.inf, True, "1", []], "a number from 0 to 1"),
        (number(), [-1e300, math.inf, -5], [math.nan, "1", None, 10**400], "a number"),
        (text(), ["", "a b", "é"], ["\x1b[2J", "a\n", "x" * 1001, "\ud800", 3, None], "a short text"),
        (text("[a-z]", "a letter"), ["a"], ["ab", "", "a\n", 1], "a letter"),
        (choice("a", "b"), ["a", "b"], ["c", None, [], {}], "one of a, b"),
        (optional(whole(0, 1)), [None, 1], [2, "none"], "a whole number from 0 to 1"),
        (several(whole(0, 1), 1, 2), [[0], [0, 1]], [[], [0, 0, 0], {}, "ab"], "a list of 1 to 2"),
        (several(whole(0, 1), 2, 2), [[0, 1]], [[0]], "a list of 2"),
        (mapping, [{}, {"a": [1]}], [[], None, {str(i): 0 for i in range(1001)}], "an object"),
        (exact_record(a=whole(0, 1)), [{"a": 1}], [3, [1]], "an object"),
    ],
)
def test_values(reader: Callable[[Any], Any], right: list[Any], wrong: list[Any], words: str) -> None:
    for value in right:
        assert reader(value) == value
    for value in wrong:
        with pytest.raises(DamagedEntry, match=rf"^the value is .*, but must be {words}") as caught:
            reader(value)
        assert len(str(caught.value)) < 250


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"names": []}, "the entry runs.1.seed is missing"),
        ({"seed": -1, "names": []}, "the entry runs.1.seed is -1, but must be a whole number from 0 to 9"),
        ({"seed": 1, "names": ["a", "B"]}, "the entry runs.1.names.1 is 'B', but must be small letters"),
        ([], r"the entry runs.1 is \[\], but must be an object"),
    ],
)
def test_the_file_and_the_entry_are_named(data: Any, said: str) -> None:
    right = {"seed": 1, "names": ["a"], "more": 3}
    expected = pytest.raises(DamagedFile, match=rf"^x/config\.json is damaged: {said}\. Restore a copy\.$")
    with expected, reading("x/config.json"):
        record(runs=several(INNER))({"runs": [right, data]})
    assert INNER(right) == {"seed": 1, "names": ["a"]}


def test_entries_of_another_kind_are_refused_where_all_are_known() -> None:
    with pytest.raises(DamagedEntry, match="the entry 'b' is not one that this version of Jumar knows"):
        exact_record(a=whole(0, 1))({"a": 1, "b": 2})


def test_what_a_value_makes_says_why_it_cannot_be() -> None:
    def make(value: int) -> float:
        if value == 0:
            raise UsageError("0 has no inverse.")
        return 1 / value

    assert made_by(make, whole(0, 9))(4) == 0.25
    with pytest.raises(DamagedEntry, match=r"^the value is not right: 0 has no inverse$"):
        made_by(make, whole(0, 9))(0)
    with pytest.raises(DamagedEntry, match="is 10, but must be"):
        made_by(make, whole(0, 9))(10)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=50, deadline=None)
@given(ANYTHING)
def test_nothing_but_a_damaged_entry_is_ever_raised(value: Any) -> None:
    for reader in (whole(0, 9), number(0, 1), number(), text("a"), choice("a"), several(INNER), mapping, INNER):
        with contextlib.suppress(DamagedEntry):
            reader(value)
