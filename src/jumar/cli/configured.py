"""``jumar train`` with ``--config`` or ``--like``: what is not on the command line comes from a file or another run.

The command line comes first, then the file, then the preset, then the defaults. Values of a file are read by the readers of
the options that they stand for.
"""

from __future__ import annotations

import argparse
import shlex
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from jumar.cli.grammar import build, find_algorithm
from jumar.cli.options.settings import SETTING
from jumar.cli.options.train import Algorithms
from jumar.cli.parser import Parser, as_option
from jumar.errors import UsageError
from jumar.text import repeat_words, typed, wrapper_words

if TYPE_CHECKING:
    from jumar.training.config_file import Config
    from jumar.training.plan import Plan
    from jumar.training.request import TrainRequest

SEVERAL = ("env_kwargs", "wrapper", "log_info")
"""Options that are collected from several words."""
EXAMPLES: Mapping[str, Any] = {
    "env": "CartPole-v1",
    "n_seeds": 5,
    "encoder": "module:Name",
    "init_from": "runs/first",
    "dataset": "data.safetensors",
    "prefill": "data.safetensors",
    "env_kwargs": {"gravity": 9.8},
    "wrapper": ["TimeLimit:max_episode_steps=200"],
    "frame_stack": 4,
    "atari": True,
    "runners": 0,
    "cost": "velocity:1.5",
    "checkpoint_every": 100_000,
    "eval_every": 100_000,
    "stop_at_return": 475,
    "stop_without_gain": 10,
    "log_info": ["cost"],
}
"""Values that ``--print-config`` shows in comments for options that have none."""


@dataclass(frozen=True)
class Base:
    """What a file has of the options that are collected from several words."""

    env_kwargs: Mapping[str, Any] = field(default_factory=dict)
    """The command line changes them one by one."""
    wrapper: Sequence[tuple[str, tuple[str, ...]]] | None = None
    """In their place, or ``None`` where the command line has others."""
    log_info: Sequence[str] = ()
    """Used where the command line has none."""


NOTHING = Base()


def read_train(words: Sequence[str], algorithms: Algorithms) -> tuple[argparse.Namespace, Base]:
    """Parse the words of ``jumar train``, and complete them by the file or run that they name.

    Raises:
        UsageError: a word, a key or a value is wrong, or code or a file that only the file names is not on the command line.
        DamagedFile: the run that ``--like`` names is damaged.
    """
    options, positionals = build(algorithms)[1]["train"].split(words, strict=False)
    typed_options = {name: value for name, _, value in (option.partition("=") for option in options)}
    config = None if {"--help", "-h"} & set(typed_options) else _config(typed_options)
    if config is None:
        parser = build(algorithms, find_algorithm(words, algorithms))[1]["train"]
        return parser.read(words), Base()
    algorithm = _algorithm(words, positionals, algorithms, config)
    parser = build(algorithms, algorithm)[1]["train"]
    options, positionals = parser.split(words)  # strictly now: a misspelt option is told before anything of the file
    base = _fill(parser, config, algorithm, options, positionals)
    return parser.read(words), base


def _config(options: Mapping[str, str]) -> Config | None:
    """Return what the file or the run says, if there is one."""
    for name, what in (("--config", "a configuration file"), ("--like", "a run")):
        if options.get(name) == "":
            raise UsageError(f"{name} needs a value: the path of {what}.")
    if "--config" in options and "--like" in options:
        raise UsageError("--config and --like both say what the run is to be; give one of them.")
    from jumar.training.config_file import read_config, read_run

    if "--config" in options:
        return read_config(options["--config"])
    return read_run(options["--like"]) if "--like" in options else None


def _algorithm(words: Sequence[str], positionals: Sequence[str], algorithms: Algorithms, config: Config) -> str:
    try:
        algorithm = find_algorithm(words, algorithms)
    except UsageError as error:
        if len(positionals) > 1:
            raise
        raise UsageError(f"{error} (ALGO comes before ENV, also where {config.origin} has it)") from None
    algorithm = algorithm or config.values.get("algorithm")
    if algorithm is None:
        raise UsageError(
            f'{config.origin} names no algorithm; add algorithm = "ppo", say, or ALGO on the command line.'
        )
    return algorithm


def _fill(parser: Parser, config: Config, algorithm: str, options: Sequence[str], positionals: Sequence[str]) -> Base:
    """Let the parser's defaults be what the file says; return the rest of it."""
    from jumar.algorithms.registry import algorithm as registered
    from jumar.training.config_file import OPTIONS

    chosen, given = registered(algorithm), {option.partition("=")[0] for option in options}
    config.check_keys(chosen)
    _check_confirmed(config, algorithm, given, positionals, options)
    defaults: dict[str, Any] = {"algorithm": algorithm}
    for key in config.values:
        if key in ("algorithm", *SEVERAL):
            continue
        if key == "env":
            defaults[key] = config.values[key]
        elif key in OPTIONS:
            defaults[key] = _read_option(parser, config, key)
        else:
            defaults[SETTING + key] = config.setting(chosen, key)
    parser.set_defaults(**defaults)
    return Base(
        _env_kwargs(config), _wrappers(config, options), () if "--log-info" in given else _texts(config, "log_info")
    )


def _read_option(parser: Parser, config: Config, key: str) -> Any:
    """Return the value of an option, read as from the command line."""
    value = config.values[key]
    action = parser._option_string_actions[as_option(key)]
    if action.nargs == 0:
        if not isinstance(value, bool):
            raise config.fault(key, f"{key} must be true or false, not {value!r:.100}.")
        return value
    if action.type is None:
        if not isinstance(value, str) or not value:
            raise config.fault(key, f"{key} must be a text in quotes, not {value!r:.100}.")
        return value
    if not isinstance(value, (bool, int, float, str)):
        raise config.fault(key, f"{key} must be a number or a text, not {value!r:.100}.")
    try:
        return action.type(typed(value))  # type: ignore[operator]
    except argparse.ArgumentTypeError as error:
        raise config.fault(key, f"{key}: {error!s:.200}") from None


def _texts(config: Config, key: str) -> list[str]:
    value = config.values.get(key, [])
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(each, str) and each for each in texts):
        raise config.fault(key, f"{key} must be a text or a list of texts, not {value!r:.100}.")
    return texts


def _env_kwargs(config: Config) -> dict[str, Any]:
    from jumar.envs.registry import Settings, parse_assignments

    value = config.values.get("env_kwargs", {})
    try:
        return dict(Settings(value)) if isinstance(value, dict) else parse_assignments(_texts(config, "env_kwargs"))
    except UsageError as error:
        if str(error).startswith(config.origin):
            raise
        raise config.fault("env_kwargs", str(error)) from None


def _wrappers(config: Config, options: Sequence[str]) -> list[tuple[str, tuple[str, ...]]] | None:
    """Return the file's wrappers; ``None`` where the command line has others.

    Typed names alone of the user's own wrappers, which allow them, leave the file's as they are.
    """
    typed_wrappers = _typed_wrappers(options)
    own = [name for name, _ in _file_wrappers(config) if _is_own(name)]
    if typed_wrappers and not all(name in own and not settings for name, settings in typed_wrappers):
        return None
    return _file_wrappers(config)


def _file_wrappers(config: Config) -> list[tuple[str, tuple[str, ...]]]:
    found = []
    for text in _texts(config, "wrapper"):
        try:
            name, assignments = wrapper_words(text)
        except ValueError:
            raise config.fault("wrapper", f"wrapper: {text!r:.100} is not NAME or NAME:key=value,...") from None
        found.append((name, tuple(assignments)))
    return found


def _typed_wrappers(options: Sequence[str]) -> list[tuple[str, list[str]]]:
    texts = [option.partition("=")[2] for option in options if option.startswith("--wrapper=")]
    found = []
    for text in texts:
        try:
            found.append(wrapper_words(text))
        except ValueError:  # the parser says so
            found.append((text, [""]))
    return found


def _is_own(name: str) -> bool:
    return ":" in name


def _check_confirmed(
    config: Config, algorithm: str, given: set[str], positionals: Sequence[str], options: Sequence[str]
) -> None:
    """Refuse code and files that the file names and the command line does not.

    Raises:
        UsageError: with what is to be added to the command line.
    """
    from jumar.training.config_file import CONFIRMED, is_file

    typed_names = {name for name, _ in _typed_wrappers(options)}
    replaced = _wrappers(config, options) is None
    own = [] if replaced else [name for name, _ in _file_wrappers(config) if _is_own(name) and name not in typed_names]
    keys = [key for key in CONFIRMED if key in config.values and as_option(key) not in given]
    keys += ["preset"] if is_file(config.values.get("preset")) and "--preset" not in given else []
    values = {key: config.values[key] for key in keys}
    env = config.values.get("env", "")
    own_env = env if ":" in env and len(positionals) < 2 else None
    if not (values or own or own_env):
        return
    key = "env" if own_env else "wrapper" if own else keys[0]
    words = (f" {algorithm}" + repeat_words(own_env, ()).removeprefix(" --env") if own_env else "") + repeat_words(
        None, own
    )
    words += "".join(f" {as_option(key)} {shlex.quote(str(value))}" for key, value in values.items())
    raise config.fault(
        key,
        f"{key} names code or a file, and what a file names is imported or opened only if the command line names it too; "
        f"add:{words}",
    )


# --- --print-config -------------------------------------------------------------------------------------------------


def printed(
    plan: Plan, request: TrainRequest, words: Sequence[str], algorithms: Algorithms
) -> tuple[str, dict[str, Any]]:
    """Return a configuration file with every option of a method, and the values in it.

    Options that Jumar would choose, and those that are off, are shown in comments.

    Args:
        plan: what was asked for, settled.
        request: what was asked for.
        words: the words of the command, for its first line.
        algorithms: all that there are.
    """
    from jumar.training.config_file import COMMAND_LINE_ALONE, config_text, values_of

    values = values_of(plan)
    suggested = {**EXAMPLES, "eval_every": plan.eval_every or EXAMPLES["eval_every"]}
    for key in ("eval_every", "checkpoint_every"):
        if getattr(request, key) is None:
            values.pop(key, None)
    values["workers"] = "auto" if request.workers is None else request.workers
    parser = build(algorithms, plan.algorithm)[1]["train"]
    sections, comments = [], {"algorithm": algorithms[plan.algorithm].title}
    for group in parser._action_groups:
        keys = []
        for action in group._group_actions:
            key = (
                action.option_strings[0].removeprefix("--").replace("-", "_") if action.option_strings else action.dest
            )
            if key in COMMAND_LINE_ALONE or action.help in (None, argparse.SUPPRESS) or key == "help":
                continue
            keys.append(key)
            comments.setdefault(key, str(action.help).replace("%%", "%"))
        title = "" if set(keys) & {"algorithm", "env"} else str(group.title)
        sections.append((title, keys))
    preset = f" The preset {plan.preset} is among the settings." if plan.preset else ""
    head = [
        "Configuration of a training, printed by: " + shlex.join(["jumar", "train", *words]),
        *textwrap.wrap(
            "`jumar train --config FILE` takes this file. What is on the command line comes before it; lines that are removed "
            f"or in comments have their defaults.{preset}",
            98,
        ),
    ]
    return config_text(values, head=head, sections=sections, comments=comments, suggested=suggested), values
