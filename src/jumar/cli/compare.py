"""``jumar compare``: train several methods over seeds, and report how they compare."""

from __future__ import annotations

import argparse
import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from jumar.cli.output import Outcome
from jumar.cli.train import assignments, typed_wrappers
from jumar.errors import UsageError
from jumar.text import counted

if TYPE_CHECKING:
    from jumar.studies.compare import Report
    from jumar.studies.compare_request import CompareRequest
    from jumar.studies.where import Where


def run(arguments: argparse.Namespace) -> Outcome:
    """Compare as the arguments say."""
    from jumar.studies.compare import compare
    from jumar.studies.progress import make_progress

    with contextlib.closing(make_progress(sys.stderr, quiet=arguments.quiet)) as progress:
        report = compare(request_from(arguments), progress)
    failures = report.failures
    if not failures:
        return Outcome(report.summary(), words(report), kept=True)
    error = (
        f"{counted(len(failures), 'run')} of {len(report.comparison.runs)} failed; the first: {failures[0]['failure']}"
    )
    return Outcome({**report.summary(), "error": error}, words(report), exit_code=1, kept=True)


def request_from(arguments: argparse.Namespace) -> CompareRequest:
    """Turn the parsed arguments into a request.

    Raises:
        UsageError: a list has a hole, an algorithm is unknown, or a folder has no name.
    """
    from jumar.studies.compare_request import CompareRequest
    from jumar.studies.methods import read_methods

    if arguments.out == "" or "" in (arguments.earlier or ()):
        raise UsageError("a directory's name is empty.")
    envs = [name.strip() for text in arguments.envs or () for name in text.split(",")]
    if "" in envs:
        raise UsageError("an environment is missing between two commas; write them as jax/CartPole-v1,jax/Acrobot-v1.")
    return CompareRequest(
        methods=read_methods(",".join(arguments.algorithms)) if arguments.algorithms else (),
        envs=tuple(envs),
        total_timesteps=arguments.total_timesteps,
        seed=arguments.seed,
        n_seeds=arguments.seeds,
        eval_every=arguments.eval_every,
        eval_episodes=arguments.eval_episodes,
        n_envs=arguments.n_envs,
        preset=arguments.preset,
        cost=arguments.cost,
        env_kwargs=assignments(arguments.env_kwargs or []),
        frame_stack=arguments.frame_stack,
        atari=arguments.atari,
        wrappers=tuple((name, tuple(settings.items())) for name, settings in typed_wrappers(arguments)),
        encoder=arguments.encoder,
        out=Path(arguments.out) if arguments.out else None,
        processes=arguments.jobs,
        where=where_from(arguments),
        earlier=tuple(Path(text) for text in arguments.earlier or ()),
        last=arguments.last,
        scales=dict(arguments.scale or ()),
    )


def where_from(arguments: argparse.Namespace) -> Where:
    """Return where the parsed arguments of a comparison or a sweep say that runs are trained."""
    from jumar.studies.where import Where

    return Where(
        on=arguments.on,
        address=arguments.address,
        slurm_options=arguments.slurm_options,
        processors=arguments.processors,
    )


def words(report: Report) -> str:
    """Say what the comparison found."""
    from jumar.report.pages import aligned, overall_cells, score_cells

    comparison = report.comparison
    lines = aligned(score_cells(comparison))
    if comparison.normalised and comparison.overall:
        lines += ["", "all tasks, normalised:", *aligned(overall_cells(comparison))]
    if report.failures:
        lines += ["", f"{counted(len(report.failures), 'run')} failed:"]
        lines += [f"  {row['method']} on {row['env']}, seed {row['seed']}: {row['failure']}" for row in report.failures]
    return "\n".join([*lines, "", f"Tables and pictures: {report.out / 'report.md'}"])
