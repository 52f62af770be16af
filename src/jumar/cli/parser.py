"""The grammar of the command line, built on argparse.

argparse keeps the options, prints the help and feeds the shell completion. Before it parses, the words are brought into
one form, ``--name=value``, so that options may stand anywhere, flags may take ``true`` or ``false``, a value may start
with a minus sign, and every mistake gets Jumar's own sentence.
"""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NoReturn, Protocol

from jumar.errors import UsageError, nearest, unknown
from jumar.schedules import Constant
from jumar.settings import ALIASES, Settings, describe, kinds
from jumar.text import whole_number, wrapper_words

DEFAULT_TOTAL_TIMESTEPS = 1_000_000
SETTING = "setting:"
"""Keeps the settings apart from the other options in what argparse returns."""


class Algorithm(Protocol):
    """What the command line needs to know of an algorithm."""

    @property
    def name(self) -> str:
        """The name that is typed."""
        ...

    @property
    def title(self) -> str:
        """What it is, in one line."""
        ...

    @property
    def settings(self) -> type[Settings]:
        """The class of its hyperparameters."""
        ...


Algorithms = Mapping[str, Algorithm]


class Parser(argparse.ArgumentParser):
    """An argument parser whose mistakes are ``UsageError``s, and which takes options before and after positionals."""

    def __init__(self, **options: Any) -> None:
        options.setdefault("allow_abbrev", False)
        options.setdefault("formatter_class", _HelpFormatter)
        super().__init__(**options)
        self.examples: dict[str, str] = {}
        """By positional: a command to show when it is missing."""
        self.spared: dict[str, tuple[str, ...]] = {}
        """By positional: the options beside which it may be left out."""
        self.optional: set[str] = set()
        """The positionals that may always be left out."""
        self.owners: dict[str, list[str]] = {}
        """By option: the algorithms that have it as a setting."""
        self.why_no_settings = ""
        """What to say of an option that is none of the command's, nor like one: it is taken to be a setting."""

    def error(self, message: str) -> NoReturn:
        """Raise the mistake instead of printing the usage and exiting."""
        message = re.sub(r"^argument (\S+?)(/\S+)?: ", r"\1: ", message)
        raise UsageError(message if message.endswith((".", "?", "!")) else message + ".")

    def read(self, words: Sequence[str]) -> argparse.Namespace:
        """Parse the words of one command.

        Raises:
            UsageError: an option is unknown or lacks its value, a value does not fit, or there are too few or too many
                positionals.
            SystemExit: the help was asked for, and printed.
        """
        options, positionals = self.split(words)
        if "--help" in options or "-h" in options:
            self.print_help()
            raise SystemExit(0)
        self._check_count(positionals, options)
        return self.parse_args([*options, "--", *positionals] if positionals else options)

    def split(self, words: Sequence[str], *, strict: bool = True) -> tuple[list[str], list[str]]:
        """Separate options, each with its value as ``--name=value``, from positionals.

        Without ``strict``, an unknown option is taken to have a value, and nothing is refused.
        """
        options: list[str] = []
        positionals: list[str] = []
        rest = list(words)
        while rest:
            word = rest.pop(0)
            if word == "--":
                return options, positionals + rest
            if not word.startswith("-") or word == "-" or _is_number(word):
                positionals.append(word)
                continue
            name, equals, value = word.partition("=")
            action = self._option_string_actions.get(name)
            if action is None and strict:
                raise self._unknown_option(name)
            if isinstance(action, argparse.BooleanOptionalAction):
                options.append(_switch(name, value if equals else None, rest))
            elif action is not None and action.nargs == 0:
                if equals and strict:
                    raise UsageError(f"{name} is a flag and takes no value; got {value!r}.")
                options.append(name)
            elif equals:
                options.append(word)
            elif isinstance(action, _Several):
                options += self._several(name, rest, strict, action)
            elif rest and not self._is_option(rest[0]):
                options.append(f"{name}={rest.pop(0)}")
            elif strict:
                raise UsageError(f"{name} needs a value.")
        return options, positionals

    def _several(self, name: str, rest: list[str], strict: bool, action: _Several) -> list[str]:
        """Take the words that follow from ``rest``, as long as they are the option's."""
        taken = []
        while rest and action.takes(rest[0]) and not self._is_option(rest[0]):
            taken.append(f"{name}={rest.pop(0)}")
        if not taken and strict:
            raise UsageError(f"{name} needs {action.needs}.")
        return taken

    def has_option(self, name: str) -> bool:
        """Whether ``name`` (``--gamma``) is an option of this command."""
        return name in self._option_string_actions

    def _is_option(self, word: str) -> bool:
        """Whether a word after an option starts the next one: ``-0.1`` and a lone ``-`` do not."""
        return self.has_option(word.partition("=")[0]) or word.startswith("--")

    def _unknown_option(self, name: str) -> UsageError:
        known = [option for option in self._option_string_actions if option.startswith("--")]
        aliases = {as_option(alias): as_option(ours) for alias, ours in ALIASES.items() if as_option(ours) in known}
        as_typed = name if name in known else "--" + name.lstrip("-").replace("_", "-")
        if as_typed in known:  # --n_steps, -seed
            return UsageError(f"unknown option {name!r}; did you mean {as_typed}?")
        if owners := self.owners.get(as_typed.replace("--no-", "--")):
            return UsageError(f"{name} is not a setting of this algorithm, but of {', '.join(owners)}.")
        found = unknown("option", as_typed, known, aliases)
        settings = {as_option(word) for pair in ALIASES.items() for word in pair} - set(aliases)
        if self.why_no_settings and (as_typed in settings or not nearest(as_typed, known, aliases)):
            return UsageError(f"unknown option {name!r}; {self.why_no_settings}")
        hint = str(found).partition("; ")[2] or f"`{self.prog} --help` lists the options."
        return UsageError(f"unknown option {name!r}; {hint}")

    def _check_count(self, positionals: list[str], options: Iterable[str]) -> None:
        actions = self._get_positional_actions()
        if any(action.nargs in ("*", "+") for action in actions):
            return  # any number will do; the command says so where it needs one
        names = [str(action.metavar) for action in actions]
        if len(positionals) > len(names):
            extra = " ".join(positionals[len(names) :])
            raise UsageError(f"{self.prog}: unexpected {extra!r}; usage: {self.usage}")
        if len(positionals) < len(names):
            missing = names[len(positionals)]
            if missing in self.optional:
                return
            if {option.partition("=")[0] for option in options}.intersection(self.spared.get(missing, ())):
                return
            example = self.examples.get(missing)
            raise UsageError(f"{self.prog}: {missing} is missing" + (f"; for example: {example}" if example else "."))


class _HelpFormatter(argparse.HelpFormatter):
    """Help with room for long option names."""

    def __init__(self, prog: str, **options: Any) -> None:
        options["max_help_position"] = 34
        super().__init__(prog, **options)


class _Several(argparse.Action):
    """Collects one or more texts in a list."""

    needs = "a value"

    def takes(self, word: str) -> bool:
        """Whether a word may be one of them."""
        return True

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option_string: Any = None
    ) -> None:
        setattr(namespace, self.dest, [*(getattr(namespace, self.dest) or []), values])


class _Assignments(_Several):
    """Collects ``key=value`` texts in a list."""

    needs = "one or more values such as key=value"

    def takes(self, word: str) -> bool:
        """Whether a word is an assignment."""
        return "=" in word


def as_option(name: str) -> str:
    """Return the option of a setting: ``clip_range`` is ``--clip-range``."""
    return "--" + name.replace("_", "-")


def _switch(name: str, value: str | None, rest: list[str]) -> str:
    """Return ``--x`` or ``--no-x`` for ``--x``, ``--no-x``, ``--x=false`` or ``--x`` followed by ``false``."""
    words = {"true": True, "false": False}
    negative = name.startswith("--no-")
    if value is None and not negative and rest and rest[0].lower() in words:
        value = rest.pop(0)
    if value is None:
        return name
    if negative or value.lower() not in words:
        right = f"{name} alone" if negative else f"{name}, {name} true or {name} false"
        raise UsageError(f"{name}={value} is neither yes nor no; write {right}.")
    return name if words[value.lower()] else "--no-" + name.removeprefix("--")


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


# Values --------------------------------------------------------------------------------------------------------------


def count(at_least: int, example: str = "8") -> Callable[[str], int]:
    """Return a reader of whole numbers from ``at_least`` on; see :func:`~jumar.text.whole_number`."""

    def read(text: str) -> int:
        try:
            number = whole_number(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number such as {example}.") from None
        if number < at_least:
            raise argparse.ArgumentTypeError(f"{text} is out of range: it must be at least {at_least}.")
        return number

    return read


steps = count(1, "500000, 1e6 or 100k")
steps_or_none = count(0, "50000, 1e5 or 50k (0: never)")


def mean_return(text: str) -> float:
    """Read a return: any finite number."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise argparse.ArgumentTypeError(f"{text!r} is not a finite number such as 475 or -200.")
    return number


def seed(text: str) -> int:
    """Read a seed: a whole number from 0 to 2^31 - 2, which is what all environments take."""
    number = count(0, "0 or 42")(text)
    if number >= 2**31 - 1:
        raise argparse.ArgumentTypeError(f"{text} is out of range: it must be at most {2**31 - 2}.")
    return number


def workers(text: str) -> int | None:
    """Read a number of worker processes; ``auto`` is ``None``."""
    return None if text == "auto" else count(0, "0, 4 or auto")(text)


def one_of(kind: str, *known: str) -> Callable[[str], str]:
    """Return a reader of one of the ``known`` words."""

    def read(text: str) -> str:
        if text not in known:
            raise argparse.ArgumentTypeError(str(unknown(kind, text, known)))
        return text

    return read


def frame_rate(text: str) -> float:
    """Read frames per second: a positive number."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not (math.isfinite(number) and number > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number such as 30.")
    return number


def picture_size(text: str) -> tuple[int, int]:
    """Read ``WIDTHxHEIGHT``."""
    found = re.fullmatch(r"(\d{1,6})[xX](\d{1,6})", text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a width and a height in pixels such as 640x480.")
    return int(found[1]), int(found[2])


def wrapper(text: str) -> tuple[str, tuple[str, ...]]:
    """Read ``NAME`` or ``NAME:key=value,...`` into the name (``module:Name`` too) and its assignments."""
    try:
        name, assignments = wrapper_words(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME or NAME:key=value,...") from None
    return name, tuple(assignments)


# Commands ------------------------------------------------------------------------------------------------------------


def build(
    algorithms: Algorithms, algorithm: str | None = None, *, all_settings: bool = False
) -> tuple[Parser, dict[str, Parser]]:
    """Build the parser of the whole command line, and the parser of each command by name.

    ``train`` has the settings of one ``algorithm``, or of all ``algorithms`` if none is named; these are then left out
    of its help unless ``all_settings`` is true.
    """
    from jumar._version import __version__

    root = Parser(
        prog="jumar",
        usage="jumar COMMAND [options]",
        description="Policy optimization in JAX: train a policy, evaluate it, go on where a run stopped.",
        epilog="`jumar COMMAND --help` explains a command; `jumar train ALGO --help` an algorithm and its settings.",
    )
    root.add_argument("--version", action="version", version=f"jumar {__version__}", help="print the version and exit")
    commands = root.add_subparsers(title="commands", metavar="COMMAND".ljust(12), prog="jumar", parser_class=Parser)
    parsers = {
        name: commands.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + ".", usage=usage)
        for name, summary, usage in COMMANDS
    }
    _add_train(parsers["train"], algorithms, algorithm, all_settings)
    _add_resume(parsers["resume"])
    _add_evaluate(parsers["evaluate"])
    _add_export(parsers["export"])
    _add_record(parsers["record"])
    _add_watch(parsers["watch"])
    _add_compare(parsers["compare"])
    _add_sweep(parsers["sweep"])
    _add_report(parsers["report"])
    _add_live(parsers["live"])
    _add_check(parsers["check"])
    _add_verify(parsers["verify"])
    _add_doctor(parsers["doctor"])
    _add_figure(parsers["figure"])
    _add_list(parsers["list"])
    _add_example(parsers["example"])
    _add_completion(parsers["completion"])
    for command in parsers.values():
        command.add_argument("--json", action="store_true", help="print one JSON object as the last line of the output")
    return root, parsers


COMMANDS = (
    ("train", "train a policy and save it in a run directory", "jumar train ALGO ENV [options]"),
    ("resume", "go on from the newest sound checkpoint of a run", "jumar resume RUN [options]"),
    ("evaluate", "run a trained policy in fresh environments", "jumar evaluate RUN [options]"),
    ("export", "write a trained policy to a file that other programs can run", "jumar export RUN [options]"),
    ("record", "film a trained policy, as MP4 or GIF", "jumar record RUN [options]"),
    ("watch", "show a trained policy in a window", "jumar watch RUN [options]"),
    (
        "compare",
        "train several methods and report how they compare",
        "jumar compare --algorithms A,B --envs E [options]",
    ),
    ("sweep", "search the best settings of a method on a task", "jumar sweep SPACE.toml [options]"),
    ("report", "write one HTML page about runs or a comparison", "jumar report RUN... [options]"),
    ("live", "show runs in a browser while they go on", "jumar live RUN... [options]"),
    ("check", "say what is wrong or slow with an environment", "jumar check ENV [options]"),
    ("verify", "compare methods and parts with exact results on this machine", "jumar verify [NAME...] [options]"),
    ("doctor", "say what is wrong with this installation or machine", "jumar doctor [options]"),
    ("figure", "draw figures of the textbooks by running Jumar", "jumar figure NAME... [options]"),
    ("example", "compute a worked example or an exercise from a textbook", "jumar example NAME [options]"),
    ("list", "list what there is, one per line, the name first", "jumar list algorithms|envs|presets|runs [DIR]"),
    ("completion", "print a shell's completion script", "jumar completion bash|zsh|tcsh"),
)
"""Name, summary and usage of every command."""


def find_algorithm(words: Sequence[str], algorithms: Algorithms) -> str | None:
    """Return the algorithm that the words of ``train`` name; ``None`` if there is no positional at all.

    Raises:
        UsageError: the first positional is no algorithm.
    """
    _, parsers = build(algorithms)
    _, positionals = parsers["train"].split(words, strict=False)
    if not positionals:
        return None
    if positionals[0] in algorithms:
        return positionals[0]
    raise unknown("algorithm", positionals[0], algorithms)


def _add_train(parser: Parser, algorithms: Algorithms, algorithm: str | None, all_settings: bool) -> None:
    described = ("--config", "--like")
    parser.spared = {"ALGO": described, "ENV": (*described, "--dataset")}
    parser.examples = {"ALGO": "jumar train ppo CartPole-v1", "ENV": f"jumar train {algorithm or 'ppo'} CartPole-v1"}
    shown = [algorithms[algorithm]] if algorithm else list(algorithms.values())
    listing = "; ".join(f"{entry.name} ({entry.title})" for entry in shown) or "`jumar list algorithms`"
    parser.add_argument(
        "algorithm",
        metavar="ALGO",
        nargs="?",
        choices=tuple(algorithms) or None,
        help=f"the algorithm: {listing}".replace("%", "%%"),
    )
    _add_env(
        parser,
        "a Gymnasium id (HalfCheetah-v5, module:EnvId), or an id with its backend in front: gymnasium/, envpool/, "
        "jax/, gymnax/ or brax/; `jumar list envs` lists them; with --dataset it may be left out",
        nargs="?",
    )

    general = parser.add_argument_group("general")
    default = f"default: {DEFAULT_TOTAL_TIMESTEPS:,}"
    general.add_argument(
        "--total-timesteps", type=steps, default=DEFAULT_TOTAL_TIMESTEPS, metavar="STEPS",
        help=f"environment steps to train for, over all environments; rounded up to whole iterations ({default})",
    )  # fmt: skip
    general.add_argument("--seed", type=seed, default=0, metavar="N", help="seed of everything random (default: 0)")
    general.add_argument(
        "--n-seeds", type=count(1), metavar="K",
        help="train K seeds in one program; compiled environments only (default: one seed)",
    )  # fmt: skip
    general.add_argument(
        "--preset", metavar="NAME|FILE|none",
        help="tuned settings to start from: one of `jumar list presets`, or a file of yours, FILE.toml (default: the preset of "
        "this algorithm and environment, if there is one)",
    )  # fmt: skip
    general.add_argument(
        "--encoder", metavar="module:Name",
        help="a network of your own that encodes observations, for policy and critic (default: Jumar's)",
    )  # fmt: skip
    start = general.add_argument(
        "--init-from", metavar="RUN",
        help="begin with the policy, normaliser and critic of another run, in an environment with equal spaces; method and "
        "settings may differ, those of the policy are its own (default: a policy drawn at random)",
    )  # fmt: skip
    start.complete = "directory"  # type: ignore[attr-defined]
    _add_config_options(parser)
    _add_data_options(parser)
    defaults = {field.name: field.default for field in dataclasses.fields(shown[0].settings)} if algorithm else {}
    _add_environment_options(parser, str(defaults.get("n_envs", "the algorithm's")))
    _add_saving_options(parser)
    _add_events(parser)
    for entry in shown:
        _add_settings(parser, entry.settings, hidden=algorithm is None and not all_settings, choices=all_settings)
    for entry in algorithms.values():
        for field in dataclasses.fields(entry.settings):
            parser.owners.setdefault(as_option(field.name), []).append(entry.name)
    if algorithm is None:
        parser.epilog = "`jumar train ALGO --help` lists the settings of an algorithm."
    else:
        parser.epilog = "The defaults of settings are those without a preset (--preset none)."


def _add_env(parser: Parser, words: str, **options: Any) -> None:
    environment = parser.add_argument("env", metavar="ENV", help=words, **options)
    environment.complete = {"bash": "_jumar_environments", "zsh": "_jumar_environments"}  # type: ignore[attr-defined]


def _add_making_options(group: Any) -> None:
    """Add the options that say how an environment is made."""
    _add_env_kwargs(group)
    group.add_argument(
        "--wrapper", action="append", type=wrapper, metavar="NAME[:KEY=VALUE,...]",
        help="one of Gymnasium's wrappers by name, or one of your own as module:Name; may be repeated, the innermost first; "
        "a list is written as JSON: 'FilterObservation:filter_keys=[\"image\"]'",
    )  # fmt: skip
    _add_frames(group)


def _add_env_kwargs(group: Any) -> None:
    group.add_argument(
        "--env-kwargs", action=_Assignments, metavar="KEY=VALUE",
        help="arguments of the environment, one or more: --env-kwargs gravity=9.8 continuous=true",
    )  # fmt: skip


def _add_frames(group: Any) -> None:
    group.add_argument("--frame-stack", type=count(1), metavar="K", help="show the policy the last K observations")
    group.add_argument(
        "--atari", action="store_true",
        help="prepare an Atari game of ALE's or EnvPool's in the usual way: 84 x 84 in grey, 4 frames a step, a stack of 4, "
        "sticky actions; in training clipped rewards and episodes that end with a life",
    )  # fmt: skip


def _add_environment_options(parser: Parser, n_envs: str) -> None:
    group = parser.add_argument_group("environment")
    group.add_argument(
        "--n-envs", type=count(1), metavar="N",
        help=f"environments stepped side by side (default: {n_envs})",
    )  # fmt: skip
    _add_making_options(group)
    group.add_argument(
        "--workers", type=workers, metavar="N|auto",
        help="worker processes that step the environments, 0 for none (default: auto, by measuring a step)",
    )  # fmt: skip
    group.add_argument(
        "--cost", metavar="velocity:V",
        help="a step costs 1 where the body moves faster than V along x, and else 0 (default: the environment's own "
        "info['cost'])",
    )  # fmt: skip


def _add_config_options(parser: Parser) -> None:
    group = parser.add_argument_group("configuration files")
    config = group.add_argument(
        "--config", metavar="FILE",
        help="take what is not on the command line from a configuration file (TOML), ALGO and ENV too",
    )  # fmt: skip
    config.complete = "file"  # type: ignore[attr-defined]
    like = group.add_argument(
        "--like",
        metavar="RUN",
        help="take what is not on the command line from another run, ALGO, ENV and the seed too",
    )
    like.complete = "directory"  # type: ignore[attr-defined]
    group.add_argument(
        "--print-config", action="store_true",
        help="train nothing; print a configuration file with every option, what it does and its default",
    )  # fmt: skip


def _add_data_options(parser: Parser) -> None:
    group = parser.add_argument_group("stored transitions")
    dataset = group.add_argument(
        "--dataset", metavar="FILE",
        help="learn from a data set alone (a file of --save-dataset, or a folder of Minari's): a step is an update, and the "
        "environment only evaluates (off-policy methods, bc)",
    )  # fmt: skip
    prefill = group.add_argument(
        "--prefill", metavar="FILE", help="begin with a data set in the replay buffer (off-policy methods)"
    )
    dataset.complete = prefill.complete = "file"  # type: ignore[attr-defined]
    _add_save_dataset(group)


def _add_save_dataset(group: Any) -> None:
    save = group.add_argument(
        "--save-dataset", metavar="FILE",
        help="write all steps that the run collects to a data set, when it ends or is stopped (off-policy methods)",
    )  # fmt: skip
    save.complete = "file"


def _add_saving_options(parser: Parser) -> None:
    group = parser.add_argument_group("evaluation and files")
    run_dir = group.add_argument(
        "--run-dir", metavar="DIR",
        help="where to save; new or empty (default: runs/ALGO_ENV_SEED_DATE)",
    )  # fmt: skip
    run_dir.complete = "directory"  # type: ignore[attr-defined]
    group.add_argument(
        "--eval-every", type=steps_or_none, metavar="STEPS",
        help="environment steps between evaluations, 0 for none (default: a tenth of the run)",
    )  # fmt: skip
    group.add_argument(
        "--eval-episodes", type=count(1), default=10, metavar="N", help="episodes of each evaluation (default: 10)"
    )
    group.add_argument(
        "--checkpoint-every", type=steps_or_none, metavar="STEPS",
        help="environment steps between checkpoints, 0 for one at the end only (default: chosen by the run's length); "
        "on environments that are not compiled each one resets them",
    )  # fmt: skip
    group.add_argument("--quiet", action="store_true", help="show no progress, only warnings and the final words")


def _add_events(parser: Parser) -> None:
    group = parser.add_argument_group("early stopping and logging")
    group.add_argument(
        "--stop-at-return", type=mean_return, metavar="R",
        help="stop when an evaluation's mean return is at least R; with --n-seeds the mean over all seeds "
        "(default: train to the total)",
    )  # fmt: skip
    group.add_argument(
        "--stop-without-gain", type=count(1, "5"), metavar="N",
        help="stop after N evaluations in a row without a new best mean return; with --n-seeds the mean over all seeds "
        "(default: train to the total)",
    )  # fmt: skip
    group.add_argument(
        "--log-info", action="append", metavar="KEY",
        help="log the mean of info[KEY] over the steps of an iteration that have it, as info/KEY; may be repeated",
    )  # fmt: skip


def _add_settings(parser: Parser, settings: type[Settings], *, hidden: bool, choices: bool) -> None:
    """Add an option for every setting that has none yet, grouped by the class that declares it, the derived first.

    The group's title is the first line of that class's docstring. ``choices`` are for completion: when a command is
    parsed, the settings class itself refuses what is none of them, in better words.
    """
    for cls in settings.__mro__:
        names = inspect.get_annotations(cls)
        declared = [field for field in dataclasses.fields(settings) if field.name in names]
        new = [field for field in declared if not parser.has_option(as_option(field.name))]
        title = (cls.__doc__ or cls.__name__).strip().splitlines()[0].rstrip(".").removeprefix("The ")
        group = parser.add_argument_group(title[0].lower() + title[1:]) if new and not hidden else parser
        for field in new:
            _add_setting(group, settings, field, hidden=hidden, choices=choices)


def _add_setting(
    group: Any, settings: type[Settings], field: dataclasses.Field[Any], *, hidden: bool, choices: bool
) -> None:
    allowed = kinds(settings, field.name)
    words = argparse.SUPPRESS if hidden else setting_help(settings, field).replace("%", "%%")
    form: dict[str, Any] = {"metavar": _metavar(allowed, field.metadata)}
    if choices:
        form["choices"] = field.metadata["choices"]
    if bool in allowed:
        form = {"action": argparse.BooleanOptionalAction}
    group.add_argument(as_option(field.name), dest=SETTING + field.name, default=argparse.SUPPRESS, help=words, **form)


def _metavar(allowed: tuple[Any, ...], metadata: Mapping[str, Any]) -> str:
    if metadata["choices"]:
        return "|".join(metadata["choices"])
    if Constant in allowed:
        return "X|SCHEDULE"
    if int in allowed:
        return "N"
    if float in allowed:
        return "X"
    return "TEXT" if str in allowed else "N,N|none"


def setting_help(settings: type[Settings], field: dataclasses.Field[Any]) -> str:
    """Return what a setting does, its unit, what it takes and its default, in one line."""
    default = field.default
    if default is None or isinstance(default, bool):
        shown = str(default).lower()
    else:
        shown = ",".join(map(str, default)) if isinstance(default, tuple) else str(default)
    allowed = kinds(settings, field.name)
    takes = "" if bool in allowed else f"; {describe(allowed, field.metadata)}"
    unit = f" {field.metadata['unit']}" if field.metadata["unit"] and default is not None else ""
    return f"{field.metadata['help'].rstrip('.')}{takes} (default: {shown}{unit})"


def given_settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the settings that were typed, by name, as typed (flags as true or false)."""
    given = {name: value for name, value in vars(arguments).items() if name.startswith(SETTING)}
    return {name.removeprefix(SETTING): value for name, value in given.items()}


def _add_run(parser: Parser, command: str) -> None:
    run = parser.add_argument("run", metavar="RUN", help="a run directory")
    run.complete = "directory"  # type: ignore[attr-defined]
    parser.examples = {"RUN": f"jumar {command} runs/my_run"}
    parser.add_argument(
        "--env",
        metavar="module:EnvId",
        help="the environment once more, where it is code of your own: no module is imported because a file names it",
    )
    parser.add_argument(
        "--wrapper", action="append", type=wrapper, metavar="module:Name",
        help="a wrapper once more, where it is code of your own; may be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--encoder", metavar="module:Name", help="the run's encoder of your own once more, if it has one"
    )


def _add_resume(parser: Parser) -> None:
    _add_run(parser, "resume")
    parser.why_no_settings = (
        "a resumed run goes on with the settings that it has. With others, begin a new run with what it has learnt: "
        "jumar train ALGO ENV --init-from RUN."
    )
    parser.add_argument(
        "--total-timesteps", type=steps, metavar="STEPS",
        help="a new total of environment steps; schedules then count down to it (default: the same as before)",
    )  # fmt: skip
    parser.add_argument("--quiet", action="store_true", help="show no progress, only warnings and the final words")
    _add_save_dataset(parser)


def _add_evaluate(parser: Parser) -> None:
    _add_run(parser, "evaluate")
    parser.add_argument("--episodes", type=count(1), default=10, metavar="N", help="episodes to run (default: 10)")
    parser.add_argument("--seed", type=seed, default=0, metavar="S", help="episode i is seeded with S + i (default: 0)")
    parser.add_argument("--stochastic", action="store_true", help="sample actions (default: the likeliest action)")
    parser.add_argument(
        "--best", action="store_true", help="take the best evaluation's policy (default: the final one)"
    )
    _add_elsewhere(parser)


def _add_export(parser: Parser) -> None:
    run = parser.add_argument("run", metavar="RUN", help="a run directory, or a folder with policy.json alone")
    run.complete = "directory"  # type: ignore[attr-defined]
    parser.examples = {"RUN": "jumar export runs/my_run --format onnx"}
    known = ("onnx",)
    parser.add_argument(
        "--format", metavar="onnx", type=one_of("format", *known), choices=known, default="onnx",
        help="the format of the file (default: onnx, the only one)",
    )  # fmt: skip
    parser.add_argument(
        "--best", action="store_true", help="take the best evaluation's policy (default: the final one)"
    )
    out = parser.add_argument(
        "--out", metavar="FILE",
        help="the file, which ends in .onnx and does not exist yet (default: policy.onnx beside the policy)",
    )  # fmt: skip
    out.complete = "file"  # type: ignore[attr-defined]
    parser.add_argument(
        "--action-mask", action="store_true",
        help="make the mask of allowed actions an input (default: only where it is a part of the observation)",
    )  # fmt: skip


def _add_elsewhere(parser: Parser) -> None:
    group = parser.add_argument_group("how --env is made, of a run that learnt from stored transitions without one")
    _add_env_kwargs(group)
    _add_frames(group)


def _add_record(parser: Parser) -> None:
    _add_run(parser, "record")
    parser.add_argument(
        "--episodes", type=count(1), default=1, metavar="N", help="episodes to film, of each policy (default: 1)"
    )
    _add_shown(parser)
    parser.add_argument(
        "--every-checkpoint", action="store_true",
        help="film of learning: the policy of each checkpoint that is kept, and the best one, in the order of their steps",
    )  # fmt: skip
    out = parser.add_argument(
        "--out", metavar="FILE",
        help="a new file that ends in .mp4 or .gif (default: a new .mp4 in the run's folder videos)",
    )  # fmt: skip
    out.complete = "file"  # type: ignore[attr-defined]
    _add_pictures(parser)
    parser.add_argument(
        "--caption", action=argparse.BooleanOptionalAction, default=True,
        help="write policy, episode, step and return below the picture (default: true)",
    )  # fmt: skip
    _add_elsewhere(parser)


def _add_watch(parser: Parser) -> None:
    _add_run(parser, "watch")
    parser.add_argument(
        "--episodes", type=count(1), metavar="N",
        help="end after so many episodes (default: when the window is closed, by q or its button)",
    )  # fmt: skip
    _add_shown(parser)
    _add_pictures(parser)
    _add_elsewhere(parser)


def _add_shown(parser: Parser) -> None:
    parser.add_argument(
        "--best", action="store_true", help="take the best evaluation's policy (default: the final one)"
    )
    parser.add_argument(
        "--seed", type=seed, default=0, metavar="S",
        help="episode i is seeded with S + i, as in `jumar evaluate` (default: 0)",
    )  # fmt: skip
    parser.add_argument("--stochastic", action="store_true", help="sample actions (default: the likeliest action)")


def _add_pictures(parser: Parser) -> None:
    parser.add_argument(
        "--fps", type=frame_rate, metavar="F",
        help="pictures per second, a picture being a step (default: what the environment states, else 30)",
    )  # fmt: skip
    parser.add_argument(
        "--size", type=picture_size, metavar="WIDTHxHEIGHT",
        help="of the picture in pixels, without the caption (default: the environment's own; small ones are enlarged)",
    )  # fmt: skip


def scale(text: str) -> tuple[str, tuple[float, float]]:
    """Read ``ENV=LOW:HIGH`` into the environment and the two numbers."""
    env, _, ends = text.rpartition("=")
    try:
        low, high = map(float, ends.split(":"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not ENV=LOW:HIGH, such as Hopper-v5=0:3000.") from None
    return env, (low, high)


def _add_compare(parser: Parser) -> None:
    what = parser.add_argument_group("what is compared")
    what.add_argument(
        "--algorithms", action=_Several, metavar="A,B",
        help="the algorithms; settings follow a colon: ppo,ppo:clip_range=0.1,n_epochs=4,trpo:preset=none",
    )  # fmt: skip
    what.add_argument("--envs", action=_Several, metavar="E,F", help="the environments, as `jumar train` takes them")
    what.add_argument(
        "--from", dest="earlier", action=_Several, metavar="DIR",
        help="runs made earlier that are compared too: run directories, or folders that hold some",
    )  # fmt: skip
    runs = parser.add_argument_group("runs")
    runs.add_argument(
        "--seeds",
        type=count(1),
        default=5,
        metavar="K",
        help="seeds of each algorithm in each environment (default: 5)",
    )
    runs.add_argument("--seed", type=seed, default=0, metavar="N", help="the first of the seeds (default: 0)")
    runs.add_argument(
        "--total-timesteps", type=steps, default=DEFAULT_TOTAL_TIMESTEPS, metavar="STEPS",
        help=f"environment steps of each run (default: {DEFAULT_TOTAL_TIMESTEPS:,})",
    )  # fmt: skip
    runs.add_argument(
        "--n-envs", type=count(1), metavar="N", help="environments stepped side by side (default: each algorithm's own)"
    )
    runs.add_argument(
        "--preset", metavar="NAME|none",
        help="tuned settings to start from (default: those of each algorithm and environment, where there are any)",
    )  # fmt: skip
    runs.add_argument("--cost", metavar="velocity:V", help="what a step costs, as `jumar train` takes it")
    runs.add_argument(
        "--encoder", metavar="module:Name",
        help="a network of your own that encodes observations, for all algorithms that name none: ppo:encoder=module:Name, or "
        "ppo:encoder=none (default: Jumar's)",
    )  # fmt: skip
    _add_making_options(parser.add_argument_group("how every environment is made"))
    runs.add_argument(
        "--eval-every", type=steps, metavar="STEPS",
        help="environment steps between evaluations (default: 20,000, or a fiftieth of shorter runs)",
    )  # fmt: skip
    runs.add_argument(
        "--eval-episodes", type=count(1), default=10, metavar="N", help="episodes of each evaluation (default: 10)"
    )
    runs.add_argument(
        "--jobs", type=count(1), metavar="N", help="processes that train at a time (default: one for each processor)"
    )
    report = parser.add_argument_group("report")
    out = report.add_argument(
        "--out", metavar="DIR",
        help="where runs and report are kept; the same command with the same folder goes on (default: runs/compare_DATE)",
    )  # fmt: skip
    out.complete = "directory"  # type: ignore[attr-defined]
    report.add_argument(
        "--last", type=count(1), default=10, metavar="N", help="evaluations that make a run's score (default: 10)"
    )
    report.add_argument(
        "--scale", action=_Several, type=scale, metavar="ENV=LOW:HIGH",
        help="returns that normalised scores of 0 and 1 stand for (default: the lowest and the highest score of any run)",
    )  # fmt: skip
    report.add_argument("--quiet", action="store_true", help="show no progress, only warnings and the final words")


def _add_sweep(parser: Parser) -> None:
    parser.examples = {"SPACE": "jumar sweep space.toml --trials 20"}
    space = parser.add_argument(
        "space", metavar="SPACE",
        help="a TOML file with algorithm, env and total_timesteps, fixed settings below [settings], and below [search] what is "
        "searched: learning_rate = { low = 1e-5, high = 1e-2, log = true }, n_steps = { choices = [32, 64] }",
    )  # fmt: skip
    space.complete = "file"  # type: ignore[attr-defined]
    parser.add_argument(
        "--trials", type=count(1), metavar="N",
        help="how many settings are tried; more than before goes on (default: the file's, or 20)",
    )  # fmt: skip
    parser.add_argument(
        "--parallel", type=count(1), metavar="K",
        help="trials that are proposed together and train at a time; the outcome depends on it (default: one for each "
        "processor)",
    )  # fmt: skip
    out = parser.add_argument(
        "--out", metavar="DIR",
        help="where everything is kept; the same command with the same folder goes on (default: runs/sweep_DATE)",
    )  # fmt: skip
    out.complete = "directory"  # type: ignore[attr-defined]
    parser.add_argument(
        "--seed", type=seed, metavar="S",
        help="seed of what is proposed, and the first training seed of every trial (default: the file's, or 0)",
    )  # fmt: skip
    parser.add_argument(
        "--env", metavar="ENV",
        help="the environment, in place of the file's; needed where it is code of your own: no module is imported because a "
        "file names it",
    )  # fmt: skip
    parser.add_argument("--quiet", action="store_true", help="show no progress, only warnings and the final words")


def _add_verify(parser: Parser) -> None:
    parser.add_argument(
        "names", metavar="NAME", nargs="*",
        help="a check, or a group such as gradients (default: all checks)",
    )  # fmt: skip
    parser.add_argument("--quick", action="store_true", help="leave out the checks whose programs take long to compile")
    parser.add_argument("--list", action="store_true", help="list the checks, one per line, the name first")


def _add_doctor(parser: Parser) -> None:
    parser.add_argument(
        "--quick",
        action="store_true",
        help="leave out the worker process, the training and the comparison with exact results",
    )


def _add_figure(parser: Parser) -> None:
    parser.add_argument(
        "names", metavar="NAME", nargs="*",
        help="figures, such as 12.2; all: every one that does not train for minutes",
    )  # fmt: skip
    parser.add_argument("--list", action="store_true", help="list the figures, one per line, the name first")
    out = parser.add_argument(
        "--out", metavar="PATH",
        help="of one figure a file that ends in .png or .svg (default: NAME.png); of several a folder, in which each is "
        "written as both (default: figures)",
    )  # fmt: skip
    data = parser.add_argument(
        "--data", metavar="PATH",
        help="write what is drawn, as JSON, too: of one figure a file, of several a folder",
    )  # fmt: skip
    parser.add_argument(
        "--steps", type=steps, metavar="STEPS",
        help="environment steps of each training, in figures that train (default: the figure's own number)",
    )  # fmt: skip
    source = parser.add_argument(
        "--from", dest="source", metavar="FILE",
        help="results of your own to draw, in figures that show results (default: those that come with Jumar)",
    )  # fmt: skip
    out.complete = data.complete = source.complete = "file"  # type: ignore[attr-defined]


def _add_places(parser: Parser) -> None:
    places = parser.add_argument(
        "runs", metavar="RUN", nargs="*", help="run directories, comparisons, or folders that hold some"
    )
    places.complete = "directory"  # type: ignore[attr-defined]


def _add_report(parser: Parser) -> None:
    _add_places(parser)
    out = parser.add_argument(
        "--out", metavar="FILE.html",
        help="the page (default: report.html in RUN; of several RUNs in the present folder)",
    )  # fmt: skip
    out.complete = "file"  # type: ignore[attr-defined]


def port(text: str) -> int:
    """Read a port: a whole number from 0 to 65,535."""
    number = count(0, "8765 (0: a free one)")(text)
    if number > 65_535:
        raise argparse.ArgumentTypeError(f"{text} is out of range: it must be at most 65535.")
    return number


def _add_live(parser: Parser) -> None:
    _add_places(parser)
    parser.add_argument(
        "--port", type=port, default=0, metavar="N", help="the port on 127.0.0.1 (default: 0, one that is free)"
    )


def _add_check(parser: Parser) -> None:
    parser.examples = {"ENV": "jumar check CartPole-v1"}
    _add_env(parser, "an environment, as `jumar train` takes it")
    _add_making_options(parser)
    parser.add_argument("--seed", type=seed, default=0, metavar="N", help="seed of everything random (default: 0)")
    parser.add_argument(
        "--steps", type=count(1), default=1000, metavar="N",
        help="random actions to take; they end after 10 seconds (default: 1,000)",
    )  # fmt: skip


def _add_list(parser: Parser) -> None:
    parser.examples = {"WHAT": "jumar list envs"}
    known = ("algorithms", "envs", "presets", "runs")
    parser.optional = {"DIR"}
    parser.add_argument(
        "what", metavar="WHAT", type=one_of("list", *known), choices=known, help="algorithms, envs, presets or runs"
    )
    folder = parser.add_argument("folder", metavar="DIR", nargs="?", help="where to look for runs (default: runs)")
    folder.complete = "directory"  # type: ignore[attr-defined]


def _add_example(parser: Parser) -> None:
    parser.examples = {"NAME": "jumar example example-12.1, or jumar example --list"}
    parser.spared = {"NAME": ("--list",)}
    parser.add_argument("name", metavar="NAME", nargs="?", help="the example; --list shows all")
    parser.add_argument("--list", action="store_true", help="list all examples, one per line, the name first")


def _add_completion(parser: Parser) -> None:
    parser.examples = {"SHELL": "jumar completion bash"}
    known = ("bash", "zsh", "tcsh")
    parser.add_argument("shell", metavar="SHELL", type=one_of("shell", *known), choices=known, help="bash, zsh or tcsh")
