"""``jumar evaluate``: run a trained policy in fresh environments."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jumar.cli.output import Outcome
from jumar.cli.train import assignments, typed_wrappers
from jumar.console.reporter import Silent


def run(arguments: argparse.Namespace) -> Outcome:
    """Evaluate the policy."""
    from jumar.training.commands import evaluate
    from jumar.training.resolve import Making

    result = evaluate(
        Path(arguments.run),
        episodes=arguments.episodes,
        seed=arguments.seed,
        stochastic=arguments.stochastic,
        best=arguments.best,
        env=arguments.env,
        warn=Silent(sys.stderr).warn,
        wrappers=typed_wrappers(arguments),
        encoder=arguments.encoder,
        making=Making(assignments(arguments.env_kwargs or []), arguments.frame_stack, arguments.atari),
    )
    return Outcome(result, words(result))


def words(result: Mapping[str, Any]) -> str:
    """Say how the policy did."""
    from jumar.text import counted, short_number

    cut = result.get("cut_episodes")
    number = {key: short_number(float(result[f"{key}_return"])) for key in ("mean", "std", "min", "max")}
    return (
        f"mean return {number['mean']} +- {number['std']} over {counted(int(result['episodes']), 'episode')}"
        + (f", {int(cut):,} of them cut before they ended, " if cut else " ")
        + f"(from {number['min']} to {number['max']}), mean length {short_number(float(result['mean_length']))}"
        + (f", mean cost {short_number(float(result['mean_cost']))}" if "mean_cost" in result else "")
    )
