"""``jumar example``: a worked number or exercise of the textbooks, computed anew and held against what is printed."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from jumar.cli.output import Outcome

if TYPE_CHECKING:
    from jumar.lab.examples import Example, Findings

WIDTH = 80
NAMES = 40
"""How wide the column of names is at most."""


def run(arguments: argparse.Namespace) -> Outcome:
    """Work the example out, or list all.

    Raises:
        UsageError: there is no such example.
    """
    from jumar.lab.examples import EXAMPLES, find

    if arguments.list:
        width = max(map(len, EXAMPLES))
        lines = [f"{name:<{width}}  {example.title}" for name, example in EXAMPLES.items()]
        rows = [{"name": one.name, "title": one.title, "source": one.source} for one in EXAMPLES.values()]
        return Outcome({"examples": rows}, "\n".join(lines))
    example = find(arguments.name)
    found = example.find()
    return Outcome(example.summary(found), words(example, found))


def words(example: Example, found: Findings) -> str:
    """Return the example as text of at most 80 columns."""
    wrong = set(found.wrong)
    lines = [f"{example.name}: {example.title}", *_wrapped(example.source), "", *_wrapped(example.question)]
    lines += ["", "Data", *_table(found.data), "", "Steps", *_table(found.steps), "", "Printed, and right"]
    for name, value in found.printed.items():
        lines += [f"  {name}", *_entry("    printed", value, 14)]
        lines += _entry("    right", found.right[name], 14) if name in wrong else ["    right       the same"]
    return "\n".join([*lines, "", *_wrapped(found.verdict)])


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH)


def _table(values: Mapping[str, Any]) -> list[str]:
    width = min(NAMES, max(map(len, values))) + 4
    return [line for name, value in values.items() for line in _entry(f"  {name}", value, width)]


def _entry(name: str, value: Any, width: int) -> list[str]:
    """Return the lines of a name with its value beside it, or below it where there is no room."""
    shown = _shown(value, WIDTH - width)
    if len(name) + 2 <= width:
        first, *rest = shown
        return [f"{name:<{width}}{first}", *(" " * width + line for line in rest)]
    return [name, *(" " * width + line for line in shown)]


def _shown(value: Any, room: int) -> list[str]:
    """Return a value as lines of at most ``room`` characters."""
    if isinstance(value, str):
        return textwrap.wrap(value, room)
    array = np.asarray(value)
    if array.ndim < 2:
        cells = [_number(x) for x in array.ravel()]
        return textwrap.wrap("  ".join(cells), room) if array.ndim else cells
    rows = [[_number(x) for x in row] for row in array.reshape(-1, array.shape[-1])]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]


def _number(x: Any) -> str:
    if isinstance(x, (bool, np.bool_)):
        return "yes" if x else "no"
    if isinstance(x, (int, np.integer)):
        return str(x)
    return f"{0.0 if abs(x) < 1e-12 else x:.6g}"
