"""A comparison as text: CSV of each table, and one page for people."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

from jumar.report.comparison import Comparison, Table
from jumar.words import short_number


def csv_text(table: Table) -> str:
    """Return a table as CSV with a line of names; what is not known is empty."""
    text = io.StringIO()
    if table:
        writer = csv.DictWriter(text, list(table[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(table)
    return text.getvalue()


def page(comparison: Comparison, pictures: Sequence[str]) -> str:
    """Return the comparison in Markdown, with the pictures by their file names."""
    lines = ["# Comparison", "", explanation(comparison), "", *markdown(score_cells(comparison))]
    if comparison.normalised and comparison.overall:
        lines += ["", "## All tasks", "", *_scale_words(comparison), "", *markdown(overall_cells(comparison))]
    failures = [row for row in comparison.runs if row["failure"]]
    if failures:
        lines += ["", "## Failed", ""]
        lines += [f"- {row['method']} on {row['env']}, seed {row['seed']}: {row['failure']}" for row in failures]
    lines += [text for name in pictures for text in ("", f"![{name.removesuffix('.png').replace('_', ' ')}]({name})")]
    return "\n".join(lines) + "\n"


def explanation(comparison: Comparison) -> str:
    """Say what the numbers are."""
    words = (
        f"A run's score is the mean return over its last {comparison.about['last']} evaluations. IQM: the mean of the middle "
        "half of the scores over seeds, with the 95 % interval of a stratified bootstrap."
    )
    if _any(comparison, "cost"):
        words += " Cost: the mean of an episode over the last fifth of training, ± its standard error over seeds."
    if _any(comparison, "mean_kl"):
        words += " Mean KL: the median over the updates after the first tenth, and over seeds."
    return words


def score_cells(comparison: Comparison) -> list[list[str]]:
    """Return the table of scores as texts, the heading first."""
    rows = comparison.scores
    costs, divergences = _any(comparison, "cost"), _any(comparison, "mean_kl")
    heading = ["task", "method", "seeds", "IQM", "95 % interval", "mean", "worst seed", "best seed"]
    heading += ["cost"] * costs + ["mean KL"] * divergences
    cells = [heading]
    for row in rows:
        seeds = str(row["runs"]) + (f" ({row['failed']} failed)" if row["failed"] else "")
        line = [row["env"], row["method"], seeds, number(row["iqm"]), interval(row)]
        line += [number(row[name]) for name in ("mean", "lowest", "highest")]
        line += [with_error(row["cost"], row["cost_error"])] * costs + [number(row["mean_kl"])] * divergences
        cells.append(line)
    return cells


def overall_cells(comparison: Comparison) -> list[list[str]]:
    """Return the table of normalised scores over all tasks as texts, the heading first."""
    rows = [
        [row["method"], str(row["tasks"]), str(row["runs"]), number(row["iqm"]), interval(row)]
        for row in comparison.overall
    ]
    return [["method", "tasks", "runs", "IQM", "95 % interval"], *rows]


def _scale_words(comparison: Comparison) -> list[str]:
    scales = comparison.about["scales"]
    words = "; ".join(f"{env} {number(low)} and {number(high)}" for env, (low, high) in scales.items())
    return [f"Normalised scores; 0 and 1 stand for these returns: {words}. Only methods with scores in all tasks."]


def markdown(cells: Sequence[Sequence[str]]) -> list[str]:
    """Return a table in Markdown: the first two columns to the left, numbers to the right."""
    heading, *rows = cells
    rule = ["---" if i < 2 else "---:" for i in range(len(heading))]
    return [f"| {' | '.join(line)} |" for line in (heading, rule, *rows)]


def aligned(cells: Sequence[Sequence[str]]) -> list[str]:
    """Return a table for a terminal: the first two columns to the left, numbers to the right."""
    widths = [max(len(line[i]) for line in cells) for i in range(len(cells[0]))]
    return [
        "  ".join(
            text.ljust(w) if i < 2 else text.rjust(w) for i, (text, w) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in cells
    ]


def interval(row: dict[str, Any]) -> str:
    """Return an interval in words, or a dash."""
    return "-" if row["low"] is None else f"{number(row['low'])} to {number(row['high'])}"


def with_error(value: float | None, error: float | None) -> str:
    """Return a number and its standard error, where that is known."""
    return number(value) if error is None else f"{number(value)} ± {number(error)}"


def _any(comparison: Comparison, name: str) -> bool:
    return any(row[name] is not None for row in comparison.scores)


def number(value: float | None) -> str:
    """Return a number in about four digits, or a dash where there is none."""
    return "-" if value is None else short_number(value)
