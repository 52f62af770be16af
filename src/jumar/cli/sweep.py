"""``jumar sweep``: search settings over seeds, and write the best to a file that ``train`` takes."""

from __future__ import annotations

import argparse
import contextlib
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from jumar.cli.compare import where_from
from jumar.cli.output import Outcome
from jumar.console.terminal import output_columns
from jumar.errors import UsageError

if TYPE_CHECKING:
    from jumar.studies.sweep import Sweep


def run(arguments: argparse.Namespace) -> Outcome:
    """Search as the arguments say."""
    from jumar.studies.progress import make_progress
    from jumar.studies.sweep import SweepRequest, sweep

    if arguments.out == "":
        raise UsageError("--out is empty; give the path of a folder.")
    request = SweepRequest(
        space=Path(arguments.space),
        trials=arguments.trials,
        parallel=arguments.parallel,
        out=Path(arguments.out) if arguments.out else None,
        seed=arguments.seed,
        env=arguments.env,
        where=where_from(arguments),
    )
    with contextlib.closing(make_progress(sys.stderr, quiet=arguments.quiet)) as progress:
        done = sweep(request, progress)
    width = output_columns()
    return Outcome(done.summary(), words(done, width), kept=True)


def words(done: Sweep, width: int | None = None) -> str:
    """Say what the sweep found; the table has settings where a line of ``width`` characters holds them."""
    from jumar.report.pages import aligned, number
    from jumar.studies.sweep_page import SELECTION, cells, command, counts
    from jumar.text import percent, typed

    assert done.best is not None
    table = aligned(cells(done.space, done.trials))
    if width is not None and max(map(len, table)) > width:
        table = aligned(cells(done.space, done.trials, settings=False))
    lines = [f"{counts(done.trials)}; the best:", "", *table, ""]
    lines += [f"Best: trial {done.best.number}, {number(done.space.value(done.best.scores))}, with"]
    lines += [f"  {name} = {typed(value) or 'none'}" for name, value in done.best.settings.items()]
    if done.importance:
        shares = ", ".join(f"{name} {percent(share)}" for name, share in done.importance.items())
        lines += [f"Importance: {shares}."]
    lines += [SELECTION, f"Everything is saved in {done.out}; {done.out / 'sweep.md'} has tables and pictures."]
    seed = done.seed + done.space.seeds
    next_command = command(done.space, shlex.quote(str(done.preset_file)))
    return "\n".join([*lines, "", "What to type next:", f"  {next_command} --seed {seed}"])
