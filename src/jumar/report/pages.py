"""A comparison as text: CSV of each table, and one page for people."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

from jumar.report.comparison import Comparison, Protocol, Table
from jumar.report.told import told_lines
from jumar.text import counted, short_number

CAPTIONS = {
    "learning_curves.png": "Learning curves: IQM over seeds, and its 95 % interval.",
    "scores.png": "Scores: IQM over seeds, and its 95 % interval.",
    "performance_profiles.png": "Performance profiles: the share of runs whose score is above a threshold, and its 95 % "
    "interval.",
    "probability_of_improvement.png": "Probability of improvement: how likely a run of the row's method scores higher than one "
    "of the column's, and its 95 % interval.",
    "diagnostics.png": "Diagnostics: median over seeds, and quartiles, of means over hundredths of the training.",
}
"""What is in each picture, by its name."""


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
    if equal := comparison.about["equal"]:
        lines += ["", f"All scores are equal on {', '.join(equal)}: left out of what is over tasks."]
    failures = [row for row in comparison.runs if row["failure"]]
    if failures:
        lines += ["", "## Failed", ""]
        lines += [f"- {row['method']} on {row['env']}, seed {row['seed']}: {row['failure']}" for row in failures]
    if left_out := comparison.about["left_out"]:
        lines += ["", "## Left out", "", *(f"- {words}" for words in left_out)]
    lines += ["", "## What was compared", "", *told_lines(comparison)]
    for name in pictures:
        lines += ["", f"![{name.removesuffix('.png').replace('_', ' ')}]({name})", "", CAPTIONS.get(name, "")]
    return "\n".join(lines) + "\n"


def explanation(comparison: Comparison) -> str:
    """Say what the numbers are."""
    words = (
        f"A run's score is the mean return of {_last_words(comparison)}. IQM: the mean of the middle "
        "half of the scores over seeds, with the 95 % interval of a stratified bootstrap."
    )
    if _any(comparison, "cost"):
        words += (
            " Cost: the mean of the episodes that ended in the last fifth of training, ± its standard error over seeds."
        )
    if _any(comparison, "mean_kl"):
        words += " Mean KL: the median over the updates after the first tenth, and over seeds."
    return words


def _last_words(comparison: Comparison) -> str:
    last = comparison.about["last"]
    protocols = {Protocol(**row["protocol"]) for row in comparison.about["told"] if row["protocol"]}
    if not protocols:
        return f"its last {counted(last, 'evaluation')}"
    if len(protocols) > 1:
        return f"its evaluations since the last {last} were due, from the step on that is named below"
    first = protocols.pop().counted_from(last)
    return (
        f"its evaluations since the last {last} were due, from step {first:,} on" if first else "all of its evaluations"
    )


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")


def score_cells(comparison: Comparison) -> list[list[str]]:
    """Return the table of scores as texts, the heading first."""
    rows = comparison.scores
    costs, divergences = _any(comparison, "cost"), _any(comparison, "mean_kl")
    heading = ["task", "method", "seeds", "IQM", "95 % interval", "mean", "worst seed", "best seed"]
    heading += ["cost"] * costs + ["mean KL"] * divergences
    cells = [heading]
    for row in rows:
        others = [
            f"{row[name]} {words}" for name, words in (("failed", "failed"), ("waiting", "to train")) if row[name]
        ]
        seeds = str(row["runs"]) + (f" ({', '.join(others)})" if others else "")
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
    return [f"| {' | '.join(map(_escaped, line))} |" for line in (heading, rule, *rows)]


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
