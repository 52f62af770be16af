"""The examples of the lab's page run, and print what the page says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jumar.lab import bounds, improvement, tabular

PAGE = Path(__file__).parents[2] / "docs" / "lab.md"
SECTIONS = (
    "Bounds of the gain",
    "Trajectories and variances",
    "Trust regions without approximations",
    "Natural actor-critic",
)

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


def indented(section: str) -> str:
    [text] = re.findall(rf"^## {section}\n(.*?)(?=^## )", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    return "\n".join(line[4:] for line in text.splitlines() if line.startswith("    ") or not line)


@pytest.mark.slow
def test_the_examples_of_bounds_variances_and_trust_regions_run(capsys: Any) -> None:
    scope: dict[str, Any] = {}
    first = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)[0]
    for block in (first, *map(indented, SECTIONS)):
        exec(compile(block, "lab.md", "exec"), scope)  # noqa: S102 (a text of this repository)
    mdp, old, new = scope["mdp"], scope["old"], scope["new"]
    gain = float(tabular.performance(mdp, new) - tabular.performance(mdp, old))
    tight, wide = bounds.mean_tv_bounds(mdp, old, new), bounds.mean_kl_bounds(mdp, old, new)
    assert wide.lower <= tight.lower <= gain <= tight.upper <= wide.upper
    best, again, steps = scope["best"], scope["again"], scope["steps"]
    np.testing.assert_allclose(improvement.mean_kl(mdp, old, best.policy), 0.01, rtol=1e-8)
    np.testing.assert_allclose(again.policy.logits, best.policy.logits, atol=1e-9)
    assert best.surrogate >= float(improvement.surrogate(mdp, old, new)) * 0.99
    assert np.all(steps.gained >= steps.guaranteed)
    printed = capsys.readouterr().out.splitlines()
    totals = dict(line.split() for line in printed if line.startswith(("none ", "time ", "value ", "optimal ")))
    assert float(totals["optimal"]) < float(totals["value"]) < float(totals["none"])
    assert float(printed[-1]) < 1e-9  # the critic's weights and the natural gradient
    whole, per_step = (line for line in printed if line.startswith("Moments("))
    means = [float(re.findall(r"mean=array\(([-\d.]+)\)", line)[0]) for line in (whole, per_step)]
    assert means[0] == pytest.approx(means[1])


def test_the_numbers_of_the_mismatch_are_those_of_the_page() -> None:
    mdp, old, new = bounds.mismatch_example()
    found = (
        improvement.performance_difference(mdp, old, new),
        bounds.printed_mismatch_bound(mdp, old, new),
        bounds.mismatch_bounds(mdp, old, new).lower,
    )
    np.testing.assert_allclose(found, [-11.21, -10.7, -19.5], rtol=1e-10)
    for number in ("-11.21", "-10.7", "-19.5"):
        assert number in PAGE.read_text()
