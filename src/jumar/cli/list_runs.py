"""``jumar list runs``: the runs in a folder, a line each."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jumar.cli.output import Outcome
from jumar.console.terminal import output_columns
from jumar.errors import UsageError
from jumar.text import counted, printable, short_number

if TYPE_CHECKING:
    from jumar.runs.overview import FoundRun

DEFAULT = "runs"
HEADER = ("run", "method", "task", "seed", "steps", "return", "evaluated", "state", "changed")
NUMBERS = (4, 5, 6)
"""The columns that are aligned on the right."""


def run(folder: str | None) -> Outcome:
    """Look for runs.

    Raises:
        UsageError: there is no such folder.
    """
    from jumar.runs.overview import find_runs

    if folder == "":
        raise UsageError("the name of the folder is empty.")
    place = Path(DEFAULT if folder is None else folder)
    if folder is None and not place.exists():
        return Outcome({"runs": []}, f"There is no folder {DEFAULT} here; give the folder that has the runs.")
    found = find_runs(place)
    width = output_columns()
    return Outcome({"runs": [each.to_json() for each in found]}, words(found, place, width))


def words(runs: Sequence[FoundRun], place: Path, width: int | None) -> str:
    """Return a line for each run, and what is wrong with damaged ones below; a paragraph each where lines are too long.

    Args:
        runs: in their order.
        place: where they were looked for.
        width: of the terminal, where there is a header too; ``None``: the output is no terminal.
    """
    if not runs:
        return f"There are no runs in {one_line(str(place))}."
    rows = [_cells(each) for each in runs]
    shown = rows if width is None else [HEADER, *rows]
    sizes = [max(len(row[i]) for row in shown) for i in range(len(HEADER))]
    damaged = [f"{one_line(str(each.path))} is damaged: {one_line(each.why)}" for each in runs if each.why]
    if width is not None and sum(sizes) + 2 * (len(sizes) - 1) > width:
        lines = [line for each in runs for line in _paragraph(each, max(width, 20))]
    else:
        lines = ["  ".join(_aligned(row, sizes)).rstrip() for row in shown]
    if damaged:
        lines.append("")
        lines += (
            damaged if width is None else [line for each in damaged for line in textwrap.wrap(each, max(width, 20))]
        )
    return "\n".join(lines)


def _cells(run: FoundRun) -> tuple[str, ...]:
    return (
        one_line(str(run.path)),
        one_line(run.algorithm or "-"),
        one_line(run.env or "-"),
        _seeds(run),
        _steps(run),
        "-" if run.ep_rew_mean is None else short_number(run.ep_rew_mean),
        "-" if run.last_eval_mean is None else short_number(run.last_eval_mean),
        _state(run),
        f"{run.date:%Y-%m-%d %H:%M}",
    )


def _aligned(row: Sequence[str], sizes: Sequence[int]) -> list[str]:
    return [
        f"{cell:>{size}}" if i in NUMBERS else f"{cell:<{size}}"
        for i, (cell, size) in enumerate(zip(row, sizes, strict=True))
    ]


def _paragraph(run: FoundRun, width: int) -> list[str]:
    """Return a run in sentences, broken at the terminal's width."""
    path, method, task, seed, _, trained, evaluated, state, date = _cells(run)
    parts = [f"{method} on {task}, seed {seed}"] if run.algorithm else []
    if run.steps is not None:
        parts.append(f"{run.steps:,} of {counted(run.total_timesteps or 0, 'step')}")
    parts += [f"return {trained}"] if run.ep_rew_mean is not None else []
    parts += [f"evaluated {evaluated}"] if run.last_eval_mean is not None else []
    told = ", ".join([*parts, state, date])
    return [
        *textwrap.wrap(path, width, break_on_hyphens=False),
        *textwrap.wrap(told, width, initial_indent="  ", subsequent_indent="  "),
    ]


def _seeds(run: FoundRun) -> str:
    if run.seed is None:
        return "-"
    return str(run.seed) if run.n_seeds in (None, 1) else f"{run.seed}-{run.seed + (run.n_seeds or 1) - 1}"


def _steps(run: FoundRun) -> str:
    return "-" if run.steps is None else f"{run.steps:,}/{run.total_timesteps:,}"


def _state(run: FoundRun) -> str:
    return run.state if run.stopped_by is None else f"{run.state} ({run.stopped_by})"


def one_line(text: str) -> str:
    """Return a foreign text in one line, with everything that steers a terminal written out."""
    return printable(text).replace("\n", "\\n").replace("\t", "\\t")
