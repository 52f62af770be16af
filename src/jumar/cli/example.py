"""``jumar example``: a worked number or exercise of the textbooks, computed anew and compared with what is printed."""

from __future__ import annotations

import argparse
import math
import textwrap
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from jumar.cli.lists import listed, wrapped
from jumar.cli.output import Outcome
from jumar.console.terminal import output_columns

if TYPE_CHECKING:
    from jumar.lab.examples import Example, Findings

WIDTH = 80
NAMES = 40
"""How wide the column of names is at most."""
NOTHING = 1e-12
"""What is smaller is 0 but for rounding."""


def run(arguments: argparse.Namespace) -> Outcome:
    """Work the example out, or list all.

    Raises:
        UsageError: there is no such example.
    """
    from jumar.lab.examples import EXAMPLES, find

    if arguments.list:
        lines = listed([(name, example.title) for name, example in EXAMPLES.items()], output_columns())
        keys = ("name", "title", "source", "question", "verdict")
        rows = [{key: getattr(one, key) for key in keys} for one in EXAMPLES.values()]
        return Outcome({"examples": rows}, lines)
    example = find(arguments.name)
    found = example.find()
    return Outcome(example.summary(found), words(example, found, min(WIDTH, output_columns() or WIDTH)))


def words(example: Example, found: Findings, columns: int = WIDTH) -> str:
    """Return the example as text of at most so many columns; rows of matrices stay whole."""
    wrong = set(found.wrong)
    places = round(-math.log10(2.0 * found.tolerance)) if found.tolerance > 1e-6 else None
    head = (f"{example.name}: {example.title}", example.source, "", example.question)
    lines = [line for text in head for line in wrapped(text, columns) or [""]]
    lines += [
        "",
        "Data",
        *_table(found.data, columns),
        "",
        "Steps",
        *_table(found.steps, columns),
        "",
        "Printed, and right",
    ]
    for name, value in found.printed.items():
        lines += [*wrapped(name, columns, "  "), *_entry("    printed", value, 14, columns, places)]
        lines += _entry("    right", found.right[name], 14, columns) if name in wrong else ["    right     the same"]
    return "\n".join([*lines, "", *wrapped(example.verdict, columns)])


def _table(values: Mapping[str, Any], columns: int) -> list[str]:
    width = min(NAMES, columns // 2, max(map(len, values))) + 4
    return [line for name, value in values.items() for line in _entry(f"  {name}", value, width, columns)]


def _entry(name: str, value: Any, width: int, columns: int, places: int | None = None) -> list[str]:
    """Return the lines of a name with its value beside it, or below it where there is no room."""
    shown = _shown(value, columns - width, places)
    names = wrapped(name.lstrip(), columns, " " * (len(name) - len(name.lstrip())))
    if max(map(len, shown)) > columns - width:
        return [*names, *(" " * 4 + line for line in shown)]
    if len(name) + 2 > width:
        return [*names, *(" " * width + line for line in shown)]
    first, *rest = shown
    return [f"{name:<{width}}{first}", *(" " * width + line for line in rest)]


def _shown(value: Any, room: int, places: int | None) -> list[str]:
    """Return a value as lines, of at most ``room`` characters but for matrices, whose rows stay whole."""
    if isinstance(value, str):
        return textwrap.wrap(value, room)
    array = np.asarray(value)
    rows = [[_number(x, places) for x in row] for row in array.reshape(-1, array.shape[-1] if array.ndim else 1)]
    if array.ndim < 2:
        return textwrap.wrap("  ".join(rows[0]), room)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]


def _number(x: Any, places: int | None) -> str:
    """Return a number with six digits, or as printed, with so many decimal places."""
    if isinstance(x, (bool, np.bool_)):
        return "yes" if x else "no"
    if isinstance(x, (int, np.integer)):
        return str(x)
    if places is not None:
        return f"{x:.{places}f}"
    return "0" if abs(x) < NOTHING else f"{x:.6g}"
