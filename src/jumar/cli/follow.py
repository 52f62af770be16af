"""``jumar follow``: send a run's numbers to a tracker, beside the process that trains."""

from __future__ import annotations

import argparse
import contextlib
import sys
from pathlib import Path

from jumar.cli.output import Outcome
from jumar.console.live_line import LiveLine
from jumar.console.reporter import Silent, write_line
from jumar.errors import UsageError
from jumar.text import counted


def run(arguments: argparse.Namespace) -> Outcome:
    """Send the numbers until the run ends."""
    from jumar.tracking.follow import LONGEST_NAME, Following, Told, follow

    if arguments.to is None:
        raise UsageError(f"jumar follow: --to is missing; for example: jumar follow {arguments.run} --to trackio")
    for option, text in (("--project", arguments.project), ("--name", arguments.name)):
        if text is not None and not (text.strip() and text.isprintable() and len(text) <= LONGEST_NAME):
            raise UsageError(
                f"{option}: {text!r} is not a name of at most {LONGEST_NAME} characters that can be printed."
            )
    with contextlib.closing(LiveLine(sys.stderr)) as line:

        def tell(words: str) -> None:
            line.close()
            write_line(sys.stderr, words)

        def warn(words: str) -> None:
            line.close()
            Silent(sys.stderr).warn(words)

        following = Following(Path(arguments.run), arguments.to, arguments.project, arguments.name)
        done = follow(following, Told(warn, tell, line.show))
    words = (
        f"{counted(done['rows'], 'row')} sent to {done['to']}, project {done['project']}, as {done['name']}; the run is "
        f"{done['state']} at step {done['step']:,}.\n{done['place']}"
    )
    return Outcome(done, words, kept=True)
