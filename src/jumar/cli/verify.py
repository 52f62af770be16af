"""``jumar verify``: compare each training method, and the parts listed in its table, with exact results."""

from __future__ import annotations

import argparse
import contextlib
import sys
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

from jumar.cli.lists import listed, wrapped
from jumar.cli.output import Outcome
from jumar.console.live_line import LiveLine
from jumar.console.reporter import Silent
from jumar.console.terminal import output_columns
from jumar.text import counted

if TYPE_CHECKING:
    from jumar.verification.registry import Check, Result

HEADER = ("", "check", "measured", "bound", "seconds", "what is compared")


def run(arguments: argparse.Namespace) -> Outcome:
    """Run the checks that the arguments name."""
    from jumar.verification import registry
    from jumar.xla.compiler import prepare_compiler

    chosen = registry.select(registry.checks(), arguments.names, arguments.quick)
    if arguments.list:
        return Outcome({"checks": [described(each) for each in chosen]}, listing(chosen, output_columns()))
    prepare_compiler(Silent(sys.stderr).warn)
    results: list[Result] = []
    with contextlib.closing(LiveLine(sys.stderr)) as line:
        for i, each in enumerate(chosen):
            failed = sum(not result.passed for result in results)
            line.show(f"{i + 1} of {len(chosen)}" + (f", {failed} failed" if failed else "") + f"  {each.name}")
            results.append(registry.run_one(each))
    failed = sum(not result.passed for result in results)
    data = {
        "passed": len(results) - failed,
        "failed": failed,
        "checks": [result.to_json() for result in results],
    }
    width = output_columns()
    return Outcome(data, words(results, width), exit_code=1 if failed else 0)


def described(check: Check) -> dict[str, object]:
    """Return what ``--list --json`` says of a check."""
    return {"name": check.name, "what": check.what, "bound": check.bound, "quick": check.quick}


def listing(checks: Sequence[Check], width: int | None = None) -> str:
    """Return a line for each check, the name first; its words are broken where a line of ``width`` does not hold them."""
    return listed([(each.name, each.what) for each in checks], width)


def words(results: Sequence[Result], width: int | None) -> str:
    """Return the table of results and a last line that sums them up.

    Args:
        results: of the checks that were run.
        width: of the terminal; what is compared is broken into lines there. ``None``: a line for each check.
    """
    rows = [HEADER, *(_cells(result) for result in results)]
    sizes = [max(len(row[i]) for row in rows) for i in range(len(HEADER) - 1)]
    lines = [line for row in rows for line in _lines(row, sizes, width)]
    failures = [result for result in results if not result.passed]
    lines += [""] * bool(failures)
    for result in failures:
        lines += wrapped(f"{result.check.name}: {_why(result)}", width, "  ")
    seconds = sum(result.seconds for result in results)
    passed = len(results) - len(failures)
    total = f"{counted(passed, 'check')} passed" + (f", {len(failures):,} failed" if failures else "")
    return "\n".join([*lines, "", *wrapped(f"{total}, in {seconds:.0f} s", width, "")])


def _cells(result: Result) -> tuple[str, ...]:
    check = result.check
    verdict = "pass" if result.passed else "FAIL"
    measured = "error" if result.error else figure(result.measured)
    return verdict, check.name, measured, figure(check.bound), f"{result.seconds:.1f}", check.what


def _why(result: Result) -> str:
    if result.error:
        return result.error
    return f"{result.check.what}: {figure(result.measured)} is not at most {figure(result.check.bound)}"


def figure(value: float) -> str:
    """Return a measured number or a bound in two digits, such as ``1.3e-06``, ``0.1`` or ``0``."""
    return f"{value:.1e}" if 0.0 < abs(value) < 1e-2 else f"{value:.2g}"


def _lines(row: Sequence[str], sizes: Sequence[int], width: int | None) -> list[str]:
    """Return the lines of a row: what is compared comes last, or below where there is no room beside the other cells."""
    verdict, name, *numbers, what = row
    aligned = [f"{cell:>{size}}" for cell, size in zip(numbers, sizes[2:], strict=True)]
    first = "  ".join([f"{verdict:<{sizes[0]}}", f"{name:<{sizes[1]}}", *aligned])
    if width is None:
        return [f"{first}  {what}"]
    room = width - len(first) - 2
    if room >= 24:
        head, *more = textwrap.wrap(what, room) or [""]
        return [f"{first}  {head}", *(" " * (len(first) + 2) + part for part in more)]
    if len(first) <= width:
        return [first.rstrip()] if row is HEADER else [first, *wrapped(what, width, "      ")]
    if row is HEADER:
        return []
    measured, bound, seconds = numbers
    told = f"{verdict}  {name}", f"measured {measured}, bound {bound}, {seconds} s", what
    return [line for text, indent in zip(told, ("", "  ", "  "), strict=True) for line in wrapped(text, width, indent)]
