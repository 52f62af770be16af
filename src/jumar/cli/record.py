"""``jumar record``: film a trained policy."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from jumar.cli.output import Outcome
from jumar.cli.train import assignments, typed_wrappers
from jumar.console.reporter import Silent, write_line
from jumar.errors import UsageError
from jumar.text import counted, short_number


def run(arguments: argparse.Namespace) -> Outcome:
    """Film the policy."""
    if arguments.out == "":
        raise UsageError("--out is empty; give the path of a new file that ends in .mp4 or .gif.")
    from jumar.video.record import Shots, record

    shots = Shots(
        **shown(arguments),
        every_checkpoint=arguments.every_checkpoint,
        out=None if arguments.out is None else Path(arguments.out),
        caption=arguments.caption,
    )
    made = record(shots, Silent(sys.stderr).warn, lambda words: write_line(sys.stderr, words))
    seconds = made["frames"] / made["fps"]
    words = f"{counted(made['episodes'], 'episode')}, {short_number(seconds)} s: written to {' '.join(made['files'])}"
    return Outcome(made, words, kept=True)


def shown(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return what films and windows are told alike: whose policy is shown, in which environment, how large and how fast.

    Raises:
        UsageError: an argument of the environment or of a wrapper cannot be read.
    """
    from jumar.training.resolve import Making

    return {
        "run": Path(arguments.run),
        "best": arguments.best,
        "episodes": arguments.episodes,
        "seed": arguments.seed,
        "stochastic": arguments.stochastic,
        "rate": arguments.fps,
        "size": arguments.size,
        "env": arguments.env,
        "wrappers": typed_wrappers(arguments),
        "encoder": arguments.encoder,
        "making": Making(assignments(arguments.env_kwargs or []), arguments.frame_stack, arguments.atari),
    }
