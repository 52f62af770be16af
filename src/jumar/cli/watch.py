"""``jumar watch``: show a trained policy in a window."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from jumar.cli.output import Outcome
from jumar.cli.train import assignments, typed_wrappers
from jumar.console.reporter import Silent, write_line
from jumar.text import counted, short_number


def run(arguments: argparse.Namespace) -> Outcome:
    """Show the policy until the window is closed."""
    from jumar.training.resolve import Making
    from jumar.video.watch import Viewing, watch

    viewing = Viewing(
        run=Path(arguments.run),
        best=arguments.best,
        episodes=arguments.episodes,
        seed=arguments.seed,
        stochastic=arguments.stochastic,
        rate=arguments.fps,
        size=arguments.size,
        env=arguments.env,
        wrappers=typed_wrappers(arguments),
        encoder=arguments.encoder,
        making=Making(assignments(arguments.env_kwargs or []), arguments.frame_stack, arguments.atari),
    )
    seen = watch(viewing, Silent(sys.stderr).warn, lambda words: write_line(sys.stderr, words), sys.stdout)
    returns = ", ".join(map(short_number, seen["returns"][:20])) + (", ..." if len(seen["returns"]) > 20 else "")
    words = f"{counted(seen['episodes'], 'whole episode')}" + (f", returns {returns}" if returns else "")
    return Outcome(seen, words, kept=True)
