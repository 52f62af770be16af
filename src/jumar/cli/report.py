"""``jumar report``: one HTML page about runs."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from jumar.cli.output import Outcome
from jumar.errors import DamagedFile, UsageError
from jumar.text import counted

ENDINGS = (".html", ".htm")
USUAL = "report.html"


def run(arguments: argparse.Namespace) -> Outcome:
    """Write the page."""
    from jumar.runs.files import write_atomically
    from jumar.web.gathering import Gathering
    from jumar.web.page import make_page

    places = read_places(arguments.runs, "report")
    out = _file(arguments.out, places)
    gathering = Gathering(places)
    page = make_page(gathering, folder=out.parent)
    try:
        write_atomically(out, page.html())
    except OSError as error:
        raise UsageError(f"{out} cannot be written ({error.strerror}); give another file with --out.") from None
    words = f"{counted(len(gathering.runs), 'run')}: open {out} in a browser"
    left_out = [f"left out: {each}" for each in gathering.left_out]
    data = {"file": str(out), "runs": [str(one.directory) for one in gathering.runs], "left_out": gathering.left_out}
    return Outcome(data, "\n".join([*left_out, words]), kept=True)


def read_places(words: Sequence[str], command: str) -> list[Path]:
    """Return the places that were typed.

    Raises:
        UsageError: there are none, or one has no name.
    """
    if not words:
        raise UsageError(f"jumar {command}: RUN is missing; for example: jumar {command} runs/my_run")
    if "" in words:
        raise UsageError("a directory's name is empty.")
    return [Path(word) for word in words]


def _file(out: str | None, places: Sequence[Path]) -> Path:
    """Return where the page is written: what was typed, or else a file in the one place, or here where there are several.

    Raises:
        UsageError: it has another ending, its folder is not there, or something else than a page of Jumar's is there.
    """
    from jumar.runs.entries import open_plain
    from jumar.web.page import MARK

    if out is None:
        path = (places[0] if len(places) == 1 else Path()) / USUAL
        if not path.parent.is_dir():
            return path  # whoever looks for the runs says so
    else:
        path = Path(out)
        if path.suffix.lower() not in ENDINGS:
            raise UsageError(f"--out: {out!r} must end in .html.")
        if not path.parent.is_dir():
            raise UsageError(f"--out: there is no folder {str(path.parent)!r}.")
    try:
        with os.fdopen(open_plain(path), "rb") as file:
            known = file.read(len(MARK)) == MARK
    except FileNotFoundError:
        return path
    except (DamagedFile, OSError):
        known = False
    if not known:
        raise UsageError(f"{path} is there already, and is not a report; give another file with --out.")
    return path
