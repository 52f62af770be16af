"""``jumar resume``: go on from the newest sound checkpoint of a run."""

from __future__ import annotations

import argparse
import contextlib
import sys
from pathlib import Path

from jumar.cli.output import Outcome, run_words
from jumar.cli.train import typed_wrappers
from jumar.console.choice import make_reporter


def run(arguments: argparse.Namespace) -> Outcome:
    """Go on with the run."""
    with contextlib.closing(make_reporter(sys.stderr, quiet=arguments.quiet)) as reporter:
        from jumar.training.commands import resume

        summary = resume(
            Path(arguments.run),
            total_timesteps=arguments.total_timesteps,
            env=arguments.env,
            reporter=reporter,
            wrappers=typed_wrappers(arguments),
            encoder=arguments.encoder,
            save_dataset=None if arguments.save_dataset is None else Path(arguments.save_dataset),
            runners=arguments.runners,
            address=arguments.address,
        )
    return Outcome(summary, run_words(summary), kept=True)
