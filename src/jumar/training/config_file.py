"""Configuration files: what a training is to be, as TOML. ``jumar train --config FILE.toml`` reads one.

Every key stands in the outermost table and is an option of ``jumar train`` with ``_`` for ``-``, or ``algorithm`` or ``env``::

    algorithm = "ppo"
    env = "CartPole-v1"
    total_timesteps = 100_000
    learning_rate = "linear:3e-4"

:func:`read_config` reads one, :func:`read_run` takes what it would say from a run directory, and :func:`write_config` writes
one. A preset of the user's own is such a file, of which the settings of the method are taken (:func:`choose_preset`).
"""

from __future__ import annotations

import json
import shlex
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jumar import presets
from jumar._version import __version__
from jumar.algorithms.registry import ALGORITHMS, BUILT_IN, Algorithm
from jumar.errors import UsageError, nearest, unknown
from jumar.fields import LONGEST_TEXT
from jumar.runs import toml
from jumar.runs.entries import PathLike
from jumar.runs.files import write_atomically
from jumar.runs.run_directory import CONFIG_TOML, RunDirectory
from jumar.settings import ALIASES, coerce
from jumar.text import printable
from jumar.training.plan import Plan

WHAT = "configuration file"
ENDING = ".toml"
SECTIONS: Sequence[tuple[str, Sequence[str]]] = (
    ("", ("algorithm", "env")),
    ("general", ("total_timesteps", "seed", "n_seeds", "preset", "encoder", "init_from")),
    ("environment", ("n_envs", "env_kwargs", "wrapper", "frame_stack", "atari", "workers", "runners", "cost")),
    ("evaluation and files", ("eval_every", "eval_episodes", "checkpoint_every")),
    ("early stopping and logging", ("stop_at_return", "stop_without_gain", "log_info")),
    ("stored transitions", ("dataset", "prefill")),
)
"""The options that a file may have beside the settings of its method, in the order in which they are written."""
OPTIONS = tuple(name for _, names in SECTIONS for name in names)
COMMAND_LINE_ALONE = ("run_dir", "save_dataset", "address", "quiet", "json", "config", "like", "print_config")
"""Options of ``jumar train`` that say where and how, and not what is trained."""
CONFIRMED = ("encoder", "init_from", "dataset", "prefill")
"""Options that name code or files: used only where the command line has them too."""
OTHER_NAMES = {
    "algo": "algorithm",
    "method": "algorithm",
    "env_id": "env",
    "environment": "env",
    "env_name": "env",
    "wrappers": "wrapper",
    "env_wrapper": "wrapper",
    "n_timesteps": "total_timesteps",
    "steps": "total_timesteps",
}
"""What people and other libraries call an option."""
WIDTH = 100
"""Of comments."""


@dataclass(frozen=True)
class Config:
    """What a configuration file, or a run, says a training is to be: keys and values, the values not checked yet.

    Attributes:
        origin: the file, for messages.
        values: by key.
        document: the file itself, where it is one that somebody wrote.
    """

    origin: str
    values: dict[str, Any]
    document: toml.Document | None = None

    def fault(self, key: str, words: str) -> UsageError:
        """Return the error for an entry, which begins with the file and, where it is known, the line."""
        return UsageError(f"{self.document.place(key) if self.document else self.origin}: {words}")

    def check_keys(self, chosen: Algorithm) -> None:
        """Refuse a key that is neither an option nor a setting of the method.

        Raises:
            UsageError: the message has the file, the line, and the nearest keys that there are.
        """
        known = [*OPTIONS, *chosen.setting_names]
        for key in self.values:
            if key not in known:
                raise self.fault(key, _unknown_key(key, self.values[key], chosen, known))

    def settings(self, chosen: Algorithm) -> dict[str, Any]:
        """Return the settings of the method, ``n_envs`` among them, each in the type that the method takes.

        Raises:
            UsageError: a value does not fit, with the file and the line.
        """
        return {key: self.setting(chosen, key) for key in self.values if key in chosen.setting_names}

    def setting(self, chosen: Algorithm, key: str) -> Any:
        """Return one setting of the method. Raises ``UsageError`` as :meth:`settings`."""
        value = self.values[key]
        entries = value if isinstance(value, (list, tuple)) else [value]
        if not all(isinstance(entry, (bool, int, float, str)) for entry in entries):
            right = "a number, a text, true, false, or a list of these"
            raise self.fault(key, f"{key} must be {right}, not {value!r:.100}.")
        try:
            return coerce(chosen.settings, key, value)
        except UsageError as error:
            raise self.fault(key, f"{error!s:.300}") from None


def _unknown_key(key: str, value: Any, chosen: Algorithm, known: Sequence[str]) -> str:
    """Return what is wrong with a key, and what would be right."""
    name = key.replace("-", "_")
    if name in COMMAND_LINE_ALONE:
        return f"{key} is for the command line alone: --{name.replace('_', '-')}. A file says what is trained."
    if name in known:
        return f"unknown key {key!r}; did you mean {name}?"
    if isinstance(value, Mapping):
        return f"unknown table {key!r}; settings stand at the top of the file, in no table."
    if owners := [other.name for other in ALGORITHMS.values() if name in other.setting_names]:
        return f"{key} is not a setting of {chosen.name}, but of {', '.join(owners)}."
    aliases = {alias: ours for alias, ours in {**ALIASES, **OTHER_NAMES}.items() if ours in known}
    said = str(unknown("key", name, known, aliases)).replace(repr(name), repr(key), 1)
    if nearest(name, known, aliases):
        return said
    return f"unknown key {key!r:.100}; `jumar train {chosen.name} --print-config` shows those that there are."


# --- reading ---------------------------------------------------------------------------------------------------------


def read_config(path: PathLike) -> Config:
    """Return what a configuration file says. Keys and values are not checked yet, but for ``algorithm`` and ``env``.

    Nothing that it names is imported or opened.

    Raises:
        UsageError: it is not there, is not TOML, or names no algorithm that there is; the message has the line.
    """
    if Path(path).is_dir() and RunDirectory(Path(path)).config.exists():
        raise UsageError(f"{path} is a run, not a {WHAT}; --like {path} takes its configuration.")
    document = toml.read(path, WHAT)
    config = Config(document.path, document.values, document)
    for key in ("algorithm", "env"):
        if not isinstance(value := config.values.get(key, key), str) or not value:
            raise config.fault(key, f"{key} must be a text in quotes, not {value!r:.100}.")
    if (name := config.values.get("algorithm")) is not None and name not in ALGORITHMS:
        raise config.fault("algorithm", f"{unknown('algorithm', name, ALGORITHMS)}")
    return config


def read_run(path: PathLike) -> Config:
    """Return the configuration of a run: a training from it is the same run.

    Raises:
        UsageError: there is no run, or it was trained with what only Python can give.
        DamagedFile: its ``config.json`` is damaged.
    """
    if Path(path).is_file():
        raise UsageError(f"{path} is a file, not a run; --config {path} reads a {WHAT}.")
    run = RunDirectory.open(path)
    plan = Plan.from_json(run.read_config(), run.config)
    if (why := only_from_python(plan)) is not None:
        raise UsageError(f"{run} cannot be repeated by a command: {why}.")
    return Config(str(run.config), values_of(plan))


def choose_preset(
    chosen: Algorithm, environment: str, asked: Any, *, atari: bool = False, wrapped: bool = False
) -> presets.Preset | None:
    """Return the preset to use: a file of the user's own, one by its name, or that of the environment.

    Of a file the settings of the method are taken, and of its ``preset``, where it names one, those that it does not have
    itself; its other options are not.

    Args:
        chosen: the algorithm.
        environment: the environment's bare id, without a backend.
        asked: the path of a file (a text that ends in ``.toml``, or a ``Path``), or what :func:`jumar.presets.choose` takes.
        atari: whether the environment is a game as ``--atari`` prepares it.
        wrapped: whether there are wrappers around it.

    Raises:
        UsageError: there is no such file or preset; or it is for another algorithm, or a key or value is wrong.
    """
    if not is_file(asked):
        return presets.choose(chosen.name, environment, asked, atari=atari, wrapped=wrapped)
    config = read_config(asked)
    if (name := config.values.get("algorithm", chosen.name)) != chosen.name:
        raise config.fault("algorithm", f"this preset is for {name}, not {chosen.name}.")
    config.check_keys(chosen)
    base = config.values.get("preset", presets.NONE)
    if not isinstance(base, str) or is_file(base):
        raise config.fault("preset", f"a preset in a file names one of Jumar's or none, not {base!r:.100}.")
    try:
        tuned = presets.choose(chosen.name, "", base)
    except UsageError as error:
        raise config.fault("preset", str(error)) from None
    name, settings = printable(config.origin)[:LONGEST_TEXT], presets.merged(tuned, config.settings(chosen))
    return presets.Preset(name, settings, None, own=True)


def is_file(preset: Any) -> bool:
    """Whether a preset is the path of a file, and not a name."""
    return isinstance(preset, Path) or (isinstance(preset, str) and preset.endswith(ENDING))


# --- what a plan says -------------------------------------------------------------------------------------------------


def only_from_python(plan: Plan) -> str | None:
    """Return why no command can train a plan, as the end of a sentence; ``None`` where one can."""
    if plan.algorithm not in BUILT_IN:
        return f"{plan.algorithm} is a method of your own, which only Python can give"
    if plan.own_names.features is not None:
        return f"its policy is linear in features of your own ({plan.own_names.features}), which only Python can give"
    if plan.own_names.encoder is not None and ":" not in plan.own_names.encoder:
        return f"its encoder ({plan.own_names.encoder}) was passed from Python, without a module"
    if plan.environment is None and not plan.offline:
        return f"it trained in an object ({plan.environment_name}) that was passed from Python"
    return None


def values_of(plan: Plan) -> dict[str, Any]:
    """Return a plan as the values of a configuration file, which makes the same plan again.

    The preset's settings are among the others, so that ``preset`` is ``"none"``.
    """
    environment = plan.environment
    origin = {} if plan.data is None else {"dataset" if plan.data.alone else "prefill": plan.data.path}
    found = {
        "algorithm": plan.algorithm,
        "env": environment.full_name if environment else None,
        "total_timesteps": plan.total_timesteps,
        "seed": plan.seed,
        "n_seeds": plan.n_seeds,
        "preset": presets.NONE,
        "encoder": plan.own_names.encoder,
        "init_from": plan.init_from.path if plan.init_from else None,
        **origin,
        "env_kwargs": _table(environment.kwargs) if environment and environment.kwargs else None,
        "wrapper": [_typed_wrapper(name, around) for name, around in environment.wrappers] if environment else [],
        "frame_stack": environment.frame_stack if environment else None,
        "atari": (environment.atari or None) if environment else None,
        "workers": plan.workers,
        "runners": 0 if plan.lanes else None,
        "cost": plan.cost.text,
        "eval_every": plan.eval_every,
        "eval_episodes": plan.eval_episodes,
        "checkpoint_every": plan.checkpoint_every,
        "stop_at_return": plan.stop_at_return,
        "stop_without_gain": plan.stop_without_gain,
        "log_info": list(plan.log_info),
    }
    options = {key: value for key, value in found.items() if value is not None and value != []}
    return {**options, **{key: writable(value) for key, value in plan.settings.to_json().items()}}


def writable(setting: Any) -> Any:
    """Return the value of a setting as a file has it: TOML has no null."""
    return "none" if setting is None else setting


def _table(kwargs: Mapping[str, Any]) -> Any:
    """Return the arguments of an environment as a table, or, where TOML lacks a value, as they are typed."""
    try:
        toml.value(dict(kwargs))
    except (TypeError, ValueError):
        return [_assignment(key, each) for key, each in kwargs.items()]
    return dict(kwargs)


def _typed_wrapper(name: str, settings: Sequence[tuple[str, Any]]) -> str:
    words = ",".join(_assignment(key, each) for key, each in settings)
    return f"{name}:{words}" if words else name


def _assignment(key: str, value: Any) -> str:
    """Return ``key=value`` as it is typed; :func:`jumar.envs.registry.parse_assignments` reads it back equal."""
    if value is None or isinstance(value, bool):
        return f"{key}={str(value).lower()}"
    if isinstance(value, (int, float)):
        return f"{key}={value!r}"
    # With "=" written out, no part of a text looks like the beginning of another assignment.
    return f"{key}={json.dumps(value).replace('=', chr(92) + 'u003d')}"


# --- writing ---------------------------------------------------------------------------------------------------------


def write_config(
    path: PathLike,
    algorithm: str,
    env: str | None,
    settings: Mapping[str, Any],
    *,
    options: Mapping[str, Any] | None = None,
    head: Sequence[str] = (),
) -> None:
    """Write a configuration file atomically; ``jumar train --config`` and ``--preset`` take it.

    Args:
        path: where to.
        algorithm: the method.
        env: the environment's id; ``None`` leaves it open.
        settings: the method's, by name, as values or as typed; ``None`` is written as ``"none"``.
        options: others of ``jumar train``, such as ``total_timesteps``, by name.
        head: lines of a comment at the top.

    Raises:
        UsageError: the method, a name or a value of a setting is wrong.
        OSError: the disk refuses.
        TypeError, ValueError: a value is not data that TOML can hold.
    """
    values = {"algorithm": algorithm, **({} if env is None else {"env": env}), **(options or {})}
    values |= {key: writable(value) for key, value in settings.items()}
    config = Config(str(path), values)
    if algorithm not in ALGORITHMS:
        raise unknown("algorithm", algorithm, ALGORITHMS, listed_by="jumar list algorithms")
    config.check_keys(ALGORITHMS[algorithm])
    config.settings(ALGORITHMS[algorithm])
    write_atomically(path, config_text(values, head=head).encode("utf-8"))


def config_text(
    values: Mapping[str, Any],
    *,
    head: Sequence[str] = (),
    sections: Iterable[tuple[str, Sequence[str]]] = SECTIONS,
    comments: Mapping[str, str] | None = None,
    suggested: Mapping[str, Any] | None = None,
) -> str:
    """Return the text of a configuration file.

    Args:
        values: by key.
        head: lines of a comment at the top.
        sections: titles and keys, in their order; keys that are in none come last, under ``settings``.
        comments: what to say of a key, above it.
        suggested: keys that are not in ``values`` and are shown in a comment, with an example of a value.

    Raises:
        TypeError, ValueError: a value is not data that TOML can hold.
    """
    comments, suggested = comments or {}, suggested or {}
    listed = [(title, list(keys)) for title, keys in sections]
    known = {key for _, keys in listed for key in keys}
    listed.append(("settings", [key for key in values if key not in known]))
    blocks = [[toml.comment(line) for line in head]]
    for title, keys in listed:
        lines: list[str] = []
        for key in keys:
            if key not in values and key not in suggested:
                continue
            lines += [""] if comments and lines else []
            lines += [toml.comment(line) for line in textwrap.wrap(comments.get(key, ""), WIDTH - 2)]
            if key in values:
                lines.append(_line(key, values[key]))
            else:
                lines.append(f"#{_line(key, suggested[key])}")
        if lines and title:
            lines = [toml.comment(f"--- {title} ---"), *([""] if comments else []), *lines]
        blocks.append(lines)
    return "\n\n".join("\n".join(block) for block in blocks if block) + "\n"


def _line(key: str, value: Any) -> str:
    try:
        return f"{toml.key(key)} = {toml.value(value)}"
    except UnicodeEncodeError:
        raise UsageError(f"{key} has half of a surrogate pair, a character that no text file can hold.") from None


def text_of_run(
    run: RunDirectory, plan: Plan, kind: str = "run", before: Plan | None = None, from_python: bool = False
) -> str | None:
    """Return the text of a run's own ``config.toml``; ``None`` where no command can train it.

    Args:
        run: where it is kept.
        plan: what it is.
        kind: who keeps it, as in ``config.json``.
        before: what it was before a later command changed it.
        from_python: whether ``learn`` trains it, perhaps with callbacks.
    """
    if only_from_python(plan) is not None:
        return None
    again = "On the same machine, with the same versions, this command trains it again, to the same policy bit for bit:"
    if kind == "seed":
        again = "It was trained in one program with other seeds. Alone it need not become the same policy:"
    elif from_python:
        again = "It was trained from Python. This command trains a new policy with the same settings:"
    elif before is not None:
        again = (
            "`jumar resume` gave it a new total, or went on without the rule that had stopped it. This command trains to the "
            "total at once, which need not give the same policy:"
        )
    head = [
        f"The configuration of a run, written by jumar {__version__}. Jumar reads config.json back, not this file.",
        *textwrap.wrap(again, WIDTH - 2),
        f"  {repeat_command(plan, run.path / CONFIG_TOML)}",
    ]
    if plan.preset is not None:
        head.append(f"The preset {plan.preset} is among the settings.")
    try:
        return config_text(values_of(plan), head=head)
    except (TypeError, ValueError):  # a text that UTF-8 cannot hold, such as the path of another run
        return None


def repeat_command(plan: Plan, config: Path) -> str:
    """Return the command that trains a plan from its configuration file."""
    words = ["jumar", "train"]
    if plan.repeat_env is not None:
        words += [plan.algorithm, plan.repeat_env]
    words += ["--config", str(config)]
    words += [word for name in plan.repeat_wrappers for word in ("--wrapper", name)]
    named = {
        "--encoder": plan.own_names.encoder,
        "--init-from": plan.init_from.path if plan.init_from else None,
        "--dataset": plan.data.path if plan.data and plan.data.alone else None,
        "--prefill": plan.data.path if plan.data and not plan.data.alone else None,
    }
    words += [word for option, value in named.items() if value is not None for word in (option, value)]
    return shlex.join(words)
