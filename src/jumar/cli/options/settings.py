"""An algorithm's settings as options."""

from __future__ import annotations

import argparse
import dataclasses
import inspect
from collections.abc import Mapping
from typing import Any

from jumar.cli.parser import Parser, as_option
from jumar.schedules import Constant
from jumar.settings import Settings, describe, kinds

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
