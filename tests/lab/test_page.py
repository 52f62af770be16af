"""The examples of the lab's page on control print what the page says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "lab.md"

pytestmark = pytest.mark.skipif(not PAGE.is_file(), reason="the pages are not part of an installed package")


def run_example(word: str) -> None:
    """Run the one example of the page that has the word."""
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    [block] = [block for block in blocks if word in block]
    exec(compile(block, "lab.md", "exec"), {})  # noqa: S102 (a text of this repository)


def test_the_example_of_a_grid_world(capsys: Any) -> None:
    run_example("grid_world")
    [printed] = re.findall(r"^```text\n(→.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert capsys.readouterr().out == printed


def test_the_example_of_fitted_and_conservative_iteration(capsys: Any) -> None:
    run_example("conservative_policy_iteration")
    fitted, conservative, steps = (re.findall(r"-?\d+\.\d*", line) for line in capsys.readouterr().out.splitlines())
    assert [float(number) for number in fitted] == pytest.approx([0.525, -4.0, -9.475, -5.0])
    assert [float(number) for number in conservative] == sorted(map(float, conservative))
    assert (len(conservative), conservative[0], steps[0]) == (11, "0.525", "0.035")
