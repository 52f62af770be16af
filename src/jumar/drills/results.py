"""What came of drills, and the table of it."""

from __future__ import annotations

import math
import platform
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from jumar._version import __version__
from jumar.drills.registry import Drill, Try
from jumar.runs.files import plain, write_atomically
from jumar.text import clock_time, counted, printable

HEADER = ("fault", "tries", "survived", "lost", "seconds")
MOST_SHOWN = 20
"""How many losses of a drill the table names; the JSON file has all of them."""


@dataclass(frozen=True)
class Result:
    """What came of one drill.

    Attributes:
        drill: which.
        tries: what came of each try.
        seconds: that it took.
        unable: why it could not be run here, in a sentence.
        kept: where the folder of a drill that lost something is kept.
    """

    drill: Drill
    tries: Sequence[Try] = ()
    seconds: float = 0.0
    unable: str | None = None
    kept: str | None = None

    @property
    def losses(self) -> list[Try]:
        """The tries in which something was lost."""
        return [each for each in self.tries if each.lost is not None]

    @property
    def cells(self) -> tuple[str, ...]:
        """Its row of the table."""
        if self.unable is not None:
            return self.drill.name, "0", "0", "0", "-"
        lost = len(self.losses)
        counts = (len(self.tries), len(self.tries) - lost, lost)
        return self.drill.name, *(f"{count:,}" for count in counts), f"{self.seconds:.0f}"

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {
            "fault": self.drill.name,
            "what": self.drill.what,
            "survived means": self.drill.survived,
            "tries": len(self.tries),
            "survived": len(self.tries) - len(self.losses),
            "lost": len(self.losses),
            "seconds": round(self.seconds, 1),
            "unable": self.unable,
            "kept": self.kept,
            "measured": {each.what: each.measured for each in self.tries if each.measured is not None},
            "losses": [{"try": each.what, "lost": each.lost} for each in self.losses],
        }


@dataclass
class Report:
    """The results of a command so far, and what they were measured on."""

    command: Sequence[str]
    seed: int
    results: list[Result] = field(default_factory=list)
    began: datetime = field(default_factory=lambda: datetime.now().astimezone())
    seconds: float = math.nan

    @property
    def lost(self) -> int:
        """In how many tries something was lost."""
        return sum(len(result.losses) for result in self.results)

    def write(self, folder: Path) -> None:
        """Write ``drills.json`` and ``drills.md`` to a folder. Raises ``OSError``."""
        import json

        data = plain({**self._about(), "drills": [result.to_json() for result in self.results]}, str)
        write_atomically(folder / "drills.json", json.dumps(data, indent=2).encode() + b"\n")
        write_atomically(folder / "drills.md", self.markdown().encode("utf-8", "backslashreplace"))

    def _about(self) -> dict[str, Any]:
        return {
            "command": shlex.join(self.command),
            "date": self.began.isoformat(timespec="seconds"),
            "seconds": self.seconds,
            "seed": self.seed,
            "jumar": __version__,
            "python": platform.python_version(),
            **machine(),
        }

    def markdown(self) -> str:
        """Return the table as Markdown, with what it was measured on and what was lost."""
        about = self._about()
        lines = [
            f"`{about['command']}`, {self.began:%Y-%m-%d}, {clock_time(self.seconds)} on {about['processors']} processors "
            f"({about['processor']}, {about['system']}); Jumar {about['jumar']}, Python {about['python']}, "
            f"seed {self.seed}.",
            "",
            "| " + " | ".join(HEADER) + " |",
            "| --- |" + " ---: |" * (len(HEADER) - 1),
            *("| " + " | ".join(result.cells) + " |" for result in self.results),
            "",
        ]
        if unable := [result for result in self.results if result.unable is not None]:
            lines += ["Not run:", "", *(f"- {each.drill.name}: {each.unable}" for each in unable), ""]
        if measured := self.measured():
            lines += ["Measured:", "", *(f"- {each}" for each in measured), ""]
        if losses := self.losses():
            lines += ["Lost:", "", *(f"- {each}" for each in losses), ""]
        return "\n".join(lines)

    def words(self) -> str:
        """Return the table for a terminal."""
        rows = [HEADER, *(result.cells for result in self.results)]
        sizes = [max(len(row[i]) for row in rows) for i in range(len(HEADER))]
        lines = [
            "  ".join([f"{row[0]:<{sizes[0]}}", *(f"{row[i]:>{sizes[i]}}" for i in range(1, len(HEADER)))])
            for row in rows
        ]
        lines += [f"not run: {each.drill.name}: {each.unable}" for each in self.results if each.unable is not None]
        lines += [f"measured: {each}" for each in self.measured()]
        lines += [f"lost: {each}" for each in self.losses()]
        tries = sum(len(result.tries) for result in self.results)
        lost = f"{self.lost:,} lost" if self.lost else "nothing was lost"
        return "\n".join([*lines, "", f"{counted(tries, 'fault')}, {lost}, in {clock_time(self.seconds)}"])

    def measured(self) -> list[str]:
        """Return what was measured, a line for each."""
        known = [(result.drill.name, each) for result in self.results for each in result.tries]
        return [f"{name}: {each.what}: {each.measured}" for name, each in known if each.measured is not None]

    def losses(self) -> list[str]:
        """Return a sentence for each loss, at most so many of a drill, and where its folder is kept."""
        found = []
        for result in self.results:
            found += [
                printable(f"{result.drill.name}: {each.what}: {each.lost}") for each in result.losses[:MOST_SHOWN]
            ]
            if (more := len(result.losses) - MOST_SHOWN) > 0:
                found.append(f"{result.drill.name}: and {more:,} more")
            if result.losses and result.kept:
                found.append(f"{result.drill.name}: its files are kept in {result.kept}")
        return found


def machine() -> dict[str, Any]:
    """Return what the drills run on; nothing in it names the machine or its user."""
    from jumar.training.machine import processor_name
    from jumar.xla.compiler import count_processors

    return {
        "system": f"{platform.system()} {platform.release()}",
        "processor": processor_name(),
        "processors": count_processors(),
        "implementation": sys.implementation.name,
    }
