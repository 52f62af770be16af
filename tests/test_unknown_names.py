"""What is said of a name that nobody knows."""

from __future__ import annotations

import pytest

from jumar.errors import LONGEST_NAME, unknown


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("ppoo", "unknown method 'ppoo'; did you mean ppo?"),
        ("ppo2", "unknown method 'ppo2'; did you mean trpo?"),
        ("zzzz", "unknown method 'zzzz'; known: ppo, trpo."),
        ("z" * LONGEST_NAME, f"unknown method '{'z' * LONGEST_NAME}'; known: ppo, trpo."),
        ("z" * 5000, f"unknown method '{'z' * (LONGEST_NAME - 3)}...'; known: ppo, trpo."),
    ],
)
def test_the_nearest_names_or_all_of_a_few_are_said_and_long_ones_are_cut(name: str, said: str) -> None:
    assert str(unknown("method", name, ["ppo", "trpo"], {"ppo2": "trpo"})) == said


def test_the_command_that_lists_all_is_said_where_there_are_many_and_none_is_near() -> None:
    many = [f"method-{i}" for i in range(13)]
    assert (
        str(unknown("method", "zzzz", many, listed_by="jumar list")) == "unknown method 'zzzz'; jumar list shows all."
    )
    assert str(unknown("method", "zzzz", ["ppo"], listed_by="jumar list")) == "unknown method 'zzzz'; known: ppo."
    assert str(unknown("method", "zzzz", many)) == "unknown method 'zzzz'."
