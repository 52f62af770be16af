"""``jumar check``: what is wrong or slow with an environment."""

from __future__ import annotations

import argparse
import sys

from jumar.cli.output import Outcome
from jumar.cli.train import assignments, typed_wrappers
from jumar.console.reporter import Silent


def run(arguments: argparse.Namespace) -> Outcome:
    """Look at the environment; the exit code is 1 if it cannot be trained in."""
    from jumar.training.check import check, words

    report = check(
        arguments.env,
        kwargs=assignments(arguments.env_kwargs or []),
        frame_stack=arguments.frame_stack,
        wrappers=typed_wrappers(arguments),
        atari=arguments.atari,
        seed=arguments.seed,
        steps=arguments.steps,
        warn=Silent(sys.stderr).warn,
    )
    return Outcome(report, words(report), exit_code=0 if report["can_train"] else 1)
