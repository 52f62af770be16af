"""``jumar example``: the list, the text within 80 columns, JSON, and mistakes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from jumar.cli import main
from jumar.cli.example import WIDTH, words
from jumar.lab.examples import EXAMPLES, Example, Findings

PAGE = Path(__file__).parents[2] / "docs" / "examples.md"


def test_the_list_has_a_line_for_each_example_the_name_first(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["example", "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(EXAMPLES)
    assert all(len(line) <= WIDTH for line in lines)
    assert main(["example", "--list", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["examples"]
    assert [row["name"] for row in rows] == list(EXAMPLES)
    assert set(rows[0]) == {"name", "title", "source", "question", "verdict"}


def test_an_example_as_text_and_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["example", "exercise-12.3"]) == 0
    text = capsys.readouterr().out
    assert "    printed   0.285\n    right     the same" in text
    assert "    printed   0.000\n    right     0.12164" in text
    assert max(map(len, text.splitlines())) <= WIDTH
    assert f"```text\n{text}```" in PAGE.read_text()
    assert main(["example", "exercise-12.3", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    keys = ["name", "title", "source", "question", "data", "steps", "printed", "right", "wrong", "verdict"]
    assert list(data) == keys
    assert data["right"]["mean of KL(pi || pi')"] == pytest.approx(0.28518085646996605, rel=1e-12)
    assert data["data"]["states visited"] == [1, 2, 1, 1, 2]
    assert data["wrong"] == ["third term of KL at s1"]


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        (
            ["exercise-12"],
            "unknown example 'exercise-12'; did you mean exercise-12.1 or exercise-12.2 or exercise-12.3?",
        ),
        (["trpo"], "unknown example 'trpo'; did you mean example-12.1?"),
        (["nothing"], "unknown example 'nothing'; jumar example --list shows all."),
        ([], "jumar example: NAME is missing; for example: jumar example example-12.1, or jumar example --list"),
    ],
)
def test_mistakes(typed: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["example", *typed]) == 2
    assert words in capsys.readouterr().err
    assert main(["example", *typed, "--json"]) == 2
    assert words in json.loads(capsys.readouterr().out)["error"]


def test_values_of_all_kinds_are_aligned() -> None:
    found = Findings(
        data={"a number": 0.5, "a whole one": 3, "yes or no": True, "a text": "word " * 20, "rounded to 0": 1e-17},
        steps={
            "a name that is longer than the column of names": np.array([1.0, 2.0]),
            "wide": np.full((2, 6), 1.0 / 3.0),
        },
        printed={"F": np.array([[2.0, -0.5], [1.0, 118.0]]), "formula": "a + b"},
        right={"F": np.array([[2.0001, -0.5], [1.0, 29.5]]), "formula": "a + b"},
        tolerance=5e-3,
    )
    text = words(Example("n", "title", "source", "question", "Wrong.", lambda: found), found)
    assert found.wrong == ("F",)
    assert max(map(len, text.splitlines())) <= WIDTH
    assert "  a number      0.5\n  a whole one   3\n  yes or no     yes\n  a text        word word" in text
    assert "  rounded to 0  0\n" in text
    assert "  a name that is longer than the column of names\n" + " " * 44 + "1  2\n" in text
    assert "  wide\n    0.333333  0.333333  0.333333  0.333333  0.333333  0.333333\n" in text
    assert "    printed   2.00   -0.50\n              1.00  118.00\n    right     2.0001  -0.5\n" in text
    assert "  formula\n    printed   a + b\n    right     the same\n" in text
