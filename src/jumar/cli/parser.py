"""The grammar of the command line, built on argparse.

argparse keeps the options, prints the help and feeds the shell completion. Before it parses, the words are brought into
one form, ``--name=value``, so that options may stand anywhere, flags may take ``true`` or ``false``, a value may start
with a minus sign, and every mistake gets Jumar's own sentence.
"""

from __future__ import annotations

import argparse
import re
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

from jumar.errors import UsageError, nearest, unknown
from jumar.settings import ALIASES


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
            elif isinstance(action, Several):
                options += self._several(name, rest, strict, action)
            elif rest and not self._is_option(rest[0]):
                options.append(f"{name}={rest.pop(0)}")
            elif strict:
                raise UsageError(f"{name} needs a value.")
        return options, positionals

    def _several(self, name: str, rest: list[str], strict: bool, action: Several) -> list[str]:
        """Take the words that follow from ``rest``, as long as they are the option's."""
        taken = []
        while rest and action.takes(rest[0]) and not self._is_option(rest[0]):
            taken.append(f"{name}={rest.pop(0)}")
        if not taken and strict:
            other = f", not {rest[0]!r:.100}" if rest and not self._is_option(rest[0]) else ""
            raise UsageError(f"{name} needs {action.needs}{other}.")
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
    """Help with room for long option names, and with no line that is wider than the terminal.

    Texts are broken at spaces only, never inside of ``--total-timesteps``; the lines of a text stay apart.
    """

    def __init__(self, prog: str, **options: Any) -> None:
        options["max_help_position"] = 34
        super().__init__(prog, **options)

    def _split_lines(self, text: str, width: int) -> list[str]:
        return textwrap.wrap(text, width, break_on_hyphens=False)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return "\n".join(
            textwrap.fill(line, width, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)
            for line in text.splitlines()
        )

    def start_section(self, heading: str | None) -> None:
        """Begin a group of options; its heading is broken into lines too, and has no marks of a docstring's."""
        words = (
            None
            if heading is None
            else "\n".join(textwrap.wrap(heading.replace("``", ""), self._width - 1, break_on_hyphens=False))
        )
        super().start_section(words)


class Several(argparse.Action):
    """Collects one or more texts in a list."""

    needs = "a value"

    def takes(self, word: str) -> bool:
        """Whether a word may be one of them."""
        return True

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option_string: Any = None
    ) -> None:
        """Add one text to the list."""
        setattr(namespace, self.dest, [*(getattr(namespace, self.dest) or []), values])


class Assignments(Several):
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
        raise UsageError(f"{name}={value} is neither true nor false; write {right}.")
    return name if words[value.lower()] else "--no-" + name.removeprefix("--")


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True
