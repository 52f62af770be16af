"""An algorithm's settings as options."""

from __future__ import annotations

import argparse
import dataclasses
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from jumar.cli.parser import Parser, as_option
from jumar.schedules import Constant
from jumar.settings import Settings, kinds, values_words

SETTING = "setting:"
"""Keeps the settings apart from the other options in what argparse returns."""


def add_settings(parser: Parser, settings: type[Settings], *, hidden: bool, choices: bool) -> None:
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
        return "|".join([*metadata["choices"], *(["none"] if type(None) in allowed else [])])
    if Constant in allowed:
        return "X|SCHEDULE"
    if int in allowed or float in allowed:
        return ("N" if int in allowed else "X") + ("|TEXT" if str in allowed else "")
    if str in allowed:
        return "TEXT"
    return "KEYS" if tuple[str, ...] in allowed else "N,N|none"


def setting_help(settings: type[Settings], field: dataclasses.Field[Any]) -> str:
    """Return what a setting does, what it takes, its default and its unit, in one line.

    What it takes is left to the text where the text has to say it: the forms of other texts than names, and choices that
    are explained one by one.
    """
    default, text = field.default, field.metadata["help"].rstrip(".")
    if default is None or isinstance(default, bool):
        shown = str(default).lower()
    else:
        shown = ",".join(map(str, default)) if isinstance(default, tuple) else str(default)
    allowed, choices = kinds(settings, field.name), field.metadata["choices"]
    told = _names_choices(text, choices) if choices else bool in allowed or str in allowed
    takes = "" if told else f"; {values_words(settings, field)}"
    return f"{text}{takes} (default: {shown}{_unit(default, field.metadata['unit'])})"


def _unit(default: Any, unit: str) -> str:
    """Return the unit of a default, after a space; nothing where the default is no number."""
    if not unit or isinstance(default, str) or default is None:
        return ""
    return f" {unit.removesuffix('s') if default == 1 else unit}"


def _names_choices(text: str, choices: Sequence[str]) -> bool:
    """Whether a text says of each choice what it means: ``kl: ...; rate: ...``."""
    return all(f" {choice}: " in text for choice in choices)


def given_settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the settings that were typed, by name, as typed (flags as true or false)."""
    given = {name: value for name, value in vars(arguments).items() if name.startswith(SETTING)}
    return {name.removeprefix(SETTING): value for name, value in given.items()}
