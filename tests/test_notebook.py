"""The notebook of the docs runs from top to bottom, in a kernel's way: one namespace, cell after cell."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest

NOTEBOOK = Path(__file__).parents[1] / "docs" / "examples" / "jumar.ipynb"


@pytest.mark.slow
def test_the_notebook_runs_from_top_to_bottom(capsys: pytest.CaptureFixture[str]) -> None:
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert not any(cell.get("outputs") for cell in notebook["cells"])
    names: dict[str, Any] = {"__name__": "__main__"}
    with mpl.rc_context({"backend": "agg"}):
        for number, cell in enumerate(cells):
            exec(compile(cell, f"<cell {number}>", "exec"), names)  # noqa: S102
    printed = capsys.readouterr().out
    first, act, last = (float(x) for x in re.findall(r"return (-?[\d.]+)", printed))
    assert min(first, act, last) > 150
    # By hand: delta = (0.86, 0.78, 0.8), each later one weighs 0.72 times as much.
    np.testing.assert_allclose(
        np.ravel(names["advantages"]), [0.86 + 0.72 * (0.78 + 0.72 * 0.8), 0.78 + 0.72 * 0.8, 0.8], rtol=1e-5
    )
    apart = np.abs(names["sampled"].mean(axis=0) - names["exact"])
    assert np.all(apart < 4.0 * names["error"])
