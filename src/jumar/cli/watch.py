"""``jumar watch``: show a trained policy in a window."""

from __future__ import annotations

import argparse
import sys

from jumar.cli.output import Outcome
from jumar.cli.record import shown
from jumar.console.reporter import Silent, write_line
from jumar.text import counted, short_number


def run(arguments: argparse.Namespace) -> Outcome:
    """Show the policy until the window is closed."""
    from jumar.video.shown import Shown
    from jumar.video.watch import watch

    viewing = Shown(**shown(arguments))
    seen = watch(viewing, Silent(sys.stderr).warn, lambda words: write_line(sys.stderr, words), sys.stdout)
    returns = ", ".join(map(short_number, seen["returns"][:20])) + (", ..." if len(seen["returns"]) > 20 else "")
    words = f"{counted(seen['episodes'], 'whole episode')}" + (f", returns {returns}" if returns else "")
    return Outcome(seen, words, kept=True)
