"""``jumar doctor``: what is wrong with this installation or machine."""

from __future__ import annotations

import argparse
import contextlib
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jumar.cli.list_runs import one_line
from jumar.cli.output import Outcome
from jumar.console.live_line import LiveLine
from jumar.console.terminal import output_columns
from jumar.errors import UsageError
from jumar.text import counted

if TYPE_CHECKING:
    from jumar.verification.doctor.finding import Finding

COLUMN = max(map(len, ("ok", "note", "warning", "FAULT"))) + 2


def run(arguments: argparse.Namespace) -> Outcome:
    """Examine; the exit code is 1 if something keeps Jumar from training."""
    chosen = _chosen(arguments)
    findings: list[Finding] = []
    with contextlib.closing(LiveLine(sys.stderr)) as line:
        for i, each in enumerate(chosen):
            line.show(f"{i + 1} of {len(chosen)}  {each.__name__}")
            findings += examined(each)
    faults = [finding for finding in findings if finding.status == "fault"]
    data = {
        "can_train": not faults,
        "faults": len(faults),
        "warnings": sum(finding.status == "warning" for finding in findings),
        "findings": [finding.to_json() for finding in findings],
    }
    width = output_columns()
    there = "here" if arguments.address is None else "there"
    return Outcome(data, words(findings, width, there), exit_code=1 if faults else 0)


def _chosen(arguments: argparse.Namespace) -> list[Callable[[], Iterator[Finding]]]:
    """Return the examinations that were asked for: of this machine, or of a cluster."""
    if arguments.address is not None:
        from jumar.verification.doctor.cluster import cluster

        place = Path("runs" if arguments.folder is None else arguments.folder)

        def nodes() -> Iterator[Finding]:
            yield from cluster(arguments.address, place)

        return [nodes]
    if arguments.folder is not None:
        raise UsageError("--folder is a folder that the nodes of a cluster share; give its --address too.")
    from jumar.verification.doctor.examine import HEAVY, LIGHT

    return [*LIGHT, *(() if arguments.quick else HEAVY)]


def examined(examination: Callable[[], Iterator[Finding]]) -> list[Finding]:
    """Return what an examination found; one that fails itself is a warning."""
    from jumar.verification.doctor.finding import Finding

    found: list[Finding] = []
    try:
        found.extend(examination())
    except Exception as error:
        first = (str(error).strip().splitlines() or [""])[0]
        told = f"This could not be examined: {type(error).__name__}: {first}"
        found.append(Finding(examination.__name__, "warning", told.removesuffix(": ") + "."))
    return found


def words(findings: Sequence[Finding], width: int | None, there: str = "here") -> str:
    """Return a paragraph for each finding, and a last line that sums them up for the place that was looked at."""
    lines = [line for finding in findings for line in _paragraph(finding, width)]
    faults = sum(finding.status == "fault" for finding in findings)
    warnings = sum(finding.status == "warning" for finding in findings)
    verdict = (
        f"Jumar can train {there}." if not faults else f"Jumar cannot train {there}: {counted(faults, 'fault')} above."
    )
    if warnings:
        verdict += f" {counted(warnings, 'warning')} above {'is' if warnings == 1 else 'are'} worth a look."
    return "\n".join([*lines, "", *(textwrap.wrap(verdict, max(width, 20)) if width else [verdict])])


def _paragraph(finding: Finding, width: int | None) -> list[str]:
    status = "FAULT" if finding.status == "fault" else finding.status
    told = f"{status:<{COLUMN}}{finding.name}: {one_line(finding.words)}"
    remedy = [] if finding.remedy is None else [f"{'':<{COLUMN}}What helps: {one_line(finding.remedy)}"]
    if width is None:
        return [told, *remedy]
    return [
        line
        for text in (told, *remedy)
        for line in textwrap.wrap(text, max(width, 20), subsequent_indent=" " * COLUMN, break_on_hyphens=False)
    ]
