"""``jumar train``: train a policy and save it in a run directory."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from jumar.cli.configured import NOTHING, Base, printed, read_train
from jumar.cli.options.settings import given_settings
from jumar.cli.options.train import Algorithms
from jumar.cli.output import Outcome, run_words
from jumar.console.choice import make_reporter
from jumar.console.reporter import Silent
from jumar.errors import UsageError
from jumar.runs import toml
from jumar.settings import coerce
from jumar.training.request import TrainRequest


def run(words: Sequence[str], algorithms: Algorithms) -> Outcome:
    """Train as the words say, or print the configuration that they make."""
    arguments, base = read_train(words, algorithms)
    request = request_from(arguments, algorithms, base)
    if arguments.print_config:
        return _print_config(request, words, algorithms)
    with contextlib.closing(make_reporter(sys.stderr, quiet=arguments.quiet)) as reporter:
        from jumar.training.commands import train

        summary = train(request, reporter)
    return Outcome(summary, run_words(summary), kept=True)


def _print_config(request: TrainRequest, words: Sequence[str], algorithms: Algorithms) -> Outcome:
    from jumar.training.commands import settle

    # Whether worker processes pay is measured when training begins.
    plan = settle(replace(request, workers=request.workers or 0), Silent(sys.stderr)).plan
    text, values = printed(plan, request, words, algorithms)
    in_utf8 = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"  # it may be led into a file
    return Outcome({"config": values, "toml": text}, (text if in_utf8 else toml.in_ascii(text)).rstrip("\n"))


def request_from(arguments: argparse.Namespace, algorithms: Algorithms, base: Base = NOTHING) -> TrainRequest:
    """Turn the parsed arguments into a request; every setting is looked at, so that a mistake shows at once.

    Args:
        arguments: what was typed, completed by a file or another run.
        algorithms: all that there are.
        base: what the file has of options that are collected from several words.

    Raises:
        UsageError: a setting, an environment argument or a wrapper's argument is wrong.
    """
    settings = given_settings(arguments)
    for name, value in settings.items():
        coerce(algorithms[arguments.algorithm].settings, name, value)
    given = arguments.wrapper if base.wrapper is None else base.wrapper
    wrappers = [(name, assignments(list(texts))) for name, texts in given or ()]
    return TrainRequest(
        algorithm=arguments.algorithm,
        env=arguments.env,
        total_timesteps=arguments.total_timesteps,
        seed=arguments.seed,
        n_envs=arguments.n_envs,
        run_dir=_folder("--run-dir", "a new directory", arguments.run_dir),
        env_kwargs={**base.env_kwargs, **assignments(arguments.env_kwargs or [])},
        frame_stack=arguments.frame_stack,
        atari=arguments.atari,
        wrappers=tuple((name, tuple(settings.items())) for name, settings in wrappers),
        workers=arguments.workers,
        runners=arguments.runners,
        address=arguments.address,
        cost=arguments.cost,
        eval_every=arguments.eval_every,
        eval_episodes=arguments.eval_episodes,
        checkpoint_every=arguments.checkpoint_every,
        preset=arguments.preset,
        n_seeds=arguments.n_seeds,
        encoder=arguments.encoder,
        init_from=_folder("--init-from", "a run", arguments.init_from),
        dataset=_folder("--dataset", "a data set", arguments.dataset),
        prefill=_folder("--prefill", "a data set", arguments.prefill),
        save_dataset=_folder("--save-dataset", "a new data set", arguments.save_dataset),
        stop_at_return=arguments.stop_at_return,
        stop_without_gain=arguments.stop_without_gain,
        log_info=tuple(arguments.log_info or base.log_info),
        settings=settings,
    )


def _folder(option: str, what: str, text: str | None) -> Path | None:
    if text == "":
        raise UsageError(f"{option} is empty; give the path of {what}.")
    return None if text is None else Path(text)


def typed_wrappers(arguments: argparse.Namespace) -> list[tuple[str, dict[str, Any]]]:
    """Return the wrappers that were typed, each with its settings."""
    return [(name, assignments(list(texts))) for name, texts in arguments.wrapper or ()]


def assignments(texts: list[str]) -> dict[str, Any]:
    """Return the arguments of an environment that were typed. Raises ``UsageError`` for one that is none."""
    if not texts:
        return {}
    from jumar.envs.registry import parse_assignments

    return parse_assignments(texts)
