"""Standard streams that are closed, full, or left by their reader."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass

from jumar.drills.processes import Ended, complaint, run
from jumar.drills.registry import Bench, Try, drill

CLOSED = "standard output is closed."
FULL = "No space left on device."
LAST = "warning: the last words could not be printed: "


@dataclass(frozen=True)
class Redirection:
    """A command whose streams are redirected.

    Attributes:
        command: ``resume`` or ``evaluate``, with options; the run comes before them.
        shell: what bash does to its streams.
        code: the right exit code.
        errors: what is found in standard error; ``None``: nobody can read it.
    """

    command: str
    shell: str
    code: int
    errors: str | None

    @property
    def works(self) -> bool:
        """Whether the command does its work at all."""
        return "--help" not in self.command


REDIRECTIONS = (
    Redirection("resume", "2>&-", 0, None),
    Redirection("resume", ">&-", 0, LAST + CLOSED),
    Redirection("resume", ">&- 2>&- <&-", 0, None),
    Redirection("resume --json", "2>&-", 0, None),
    Redirection("resume --json", ">&-", 1, f"error: {CLOSED}"),
    Redirection("resume --json", ">/dev/full", 1, f"error: {FULL}"),
    Redirection("resume", ">/dev/full", 0, LAST + FULL),
    Redirection("resume --json", "| head -0", 0, ""),
    Redirection("resume", "| head -0", 0, ""),
    Redirection("evaluate", ">&-", 1, f"error: {CLOSED}"),
    Redirection("evaluate --help", ">/dev/full", 1, f"error: {FULL}"),
)
"""Whoever asked for an answer hears that it could not be written; what is kept in a folder is done all the same."""

UNREAD = (Redirection("resume", "2>/dev/full", 0, None), Redirection("resume", "2>&1 | head -0", 0, None))
"""Nobody hears anything."""


@drill(
    "streams/redirected",
    "Standard streams that are closed (2>&-, >&-, <&-), full (/dev/full) or left by their reader (| head -0).",
    "the exit code says whether the answer was written, and a run ends like one whose words were heard.",
    quick=6,
)
def redirected(bench: Bench) -> Iterator[Try]:
    reference = bench.references.of("short")
    for number, each in enumerate(bench.cases((*REDIRECTIONS, *UNREAD))):
        place = bench.folder / str(number)
        target = reference.copy(place / "run", reference.half)
        word, _, options = each.command.partition(" ")
        script = f'"$0" -P -m jumar {word} run {options} {each.shell}; exit ${{PIPESTATUS[0]}}'
        ended = run(["bash", "-c", script, sys.executable], place)
        wrong = _complaint(ended, each)
        if wrong is None and word == "resume" and each.works:
            wrong = reference.difference(target)
        yield Try(f"{each.command} {each.shell}", wrong)


def _complaint(ended: Ended, each: Redirection) -> str | None:
    wrong = complaint(ended, (each.code,))
    if wrong is None and each.errors is not None and each.errors not in ended.errors:
        wrong = f"it did not say {each.errors!r}: {ended.last_words}"
    return wrong
