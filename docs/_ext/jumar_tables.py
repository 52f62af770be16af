"""Directives that write tables from the code, so that the pages cannot fall behind it.

``settings-table`` takes a settings class (``jumar.algorithms.on_policy.ppo:PPOSettings``) and lists every setting with its
default, the values it takes and what it does. ``command-options`` takes a command of ``jumar`` and lists its options.
``presets-table`` takes an algorithm's name and lists its presets, and ``trained-table`` the names of environments: of every
algorithm it takes the preset for the first of them that there is one for. ``names-table`` takes ``Stable-Baselines3`` and
lists its names that are not Jumar's. ``verification-table`` lists the checks of ``jumar verify``. ``examples-table`` takes a
word that a source has in it (``Decision``; ``all`` for all of them) and lists the worked examples, with what is said of the
print. ``figures-table`` lists the figures, and ``figures-gallery`` shows them. ``drills-table`` lists the drills.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import inspect
import re
from collections.abc import Sequence
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from jumar._stable_baselines3 import PLACES
from jumar.algorithms.registry import ALGORITHMS
from jumar.cli.grammar import build
from jumar.cli.options.settings import SETTING
from jumar.cli.verify import figure
from jumar.drills.registry import drills
from jumar.figures.registry import FIGURES
from jumar.lab.examples import EXAMPLES
from jumar.presets import presets
from jumar.settings import Settings, values_words
from jumar.verification.registry import checks

Row = tuple[str, ...]


def settings_rows(settings: type[Settings]) -> dict[str, list[Row]]:
    """Return rows (name, default, takes, what it does) by the class that declares them, the derived class first."""
    groups: dict[str, list[Row]] = {}
    for cls in settings.__mro__:
        own = [field for field in dataclasses.fields(settings) if field.name in inspect.get_annotations(cls)]
        if own:
            groups[_first_line(cls)] = [_settings_row(settings, field) for field in own]
    return groups


def _settings_row(settings: type[Settings], field: dataclasses.Field[Any]) -> Row:
    metadata = field.metadata
    takes = values_words(settings, field)
    unit = f" ({metadata['unit']})" if metadata["unit"] else ""
    return f"`{field.name}`", f"`{_shown(field.default)}`", takes, metadata["help"] + unit


def _shown(default: Any) -> str:
    if default is None or isinstance(default, bool):
        return str(default).lower()
    return ",".join(map(str, default)) if isinstance(default, tuple) else str(default)


def _first_line(cls: type) -> str:
    return (inspect.getdoc(cls) or cls.__name__).splitlines()[0].rstrip(".")


def option_rows(command: str) -> dict[str, list[Row]]:
    """Return rows (option, what it does) of a command by group; an algorithm's settings have a page of their own."""
    _, parsers = build(ALGORITHMS)
    groups: dict[str, list[Row]] = {}
    for group in parsers[command]._action_groups:
        rows = [_option_row(action) for action in group._group_actions if _is_shown(action)]
        if rows:
            groups[(group.title or "").capitalize()] = rows
    return groups


def _is_shown(action: argparse.Action) -> bool:
    return action.help is not argparse.SUPPRESS and not action.dest.startswith(SETTING)


def _option_row(action: argparse.Action) -> Row:
    name = ", ".join(action.option_strings) or str(action.metavar)
    value = f" {action.metavar}" if action.option_strings and action.nargs != 0 and action.metavar else ""
    return f"`{name}{value}`", (action.help or "").replace("%%", "%")


def preset_rows(algorithm: str) -> list[Row]:
    """Return rows (environment, what it reached, steps, seeds, settings) of an algorithm's presets."""
    rows = []
    for preset in presets(algorithm).values():
        reached = preset.reached
        measured = ("", "", "")
        if reached:
            measured = (reached.score, f"{reached.total_timesteps:,}", str(reached.seeds))
        settings = " ".join(f"`{name}={_shown(value)}`" for name, value in preset.settings.items())
        rows.append((preset.name + (" `--atari`" if preset.atari else ""), *measured, settings))
    return rows


def trained_rows(environments: Sequence[str]) -> list[Row]:
    """Return rows (algorithm, command, what it reached, seeds) of algorithms that have a preset for one of some tasks."""
    rows = []
    for algorithm in ALGORITHMS:
        known = presets(algorithm)
        found = next((known[name] for name in environments if name in known), None)
        if found is not None and (reached := found.reached):
            command = f"jumar train {algorithm} {found.name} --total-timesteps {reached.total_timesteps}"
            rows.append((f"`{algorithm}`", f"`{command}`", reached.score, str(reached.seeds)))
    return rows


def verification_rows() -> dict[str, list[Row]]:
    """Return rows (check, what is compared, bound, whether it is quick) by group."""
    groups: dict[str, list[Row]] = {}
    for each in checks():
        group, _, _ = each.name.partition("/")
        row = (f"`{each.name}`", each.what, figure(each.bound), "yes" if each.quick else "")
        groups.setdefault(group.replace("-", " ").capitalize(), []).append(row)
    return groups


def drill_rows() -> list[Row]:
    """Return rows (drill, what is done, what surviving means)."""
    return [(f"`{each.name}`", _plain(each.what), _plain(each.survived)) for each in drills()]


def example_rows(source: str) -> list[Row]:
    """Return rows (example, what is asked, verdict) of the examples whose source has the word in it, or of all."""
    return [
        (f"`{example.name}`", f"{example.title} ({example.source})", _plain(example.verdict))
        for example in EXAMPLES.values()
        if source == "all" or source in example.source
    ]


def _plain(text: str) -> str:
    """Return text in which Markdown sees no markup."""
    return re.sub(r"([*_<>\[\]^$])", r"\\\1", text)


def figure_rows() -> list[Row]:
    """Return rows (name, what it shows, source) of the figures."""
    return [
        (f"`{name}`", figure.title + (" (slow)" if figure.slow else ""), figure.source)
        for name, figure in FIGURES.items()
    ]


def gallery() -> str:
    """Return the figures in Markdown, each with its title, caption, source and command."""
    return "\n\n".join(
        f"**{name}: {figure.title}**\n\n![{figure.title}](figures/{name}.svg)\n\n{figure.words()}\n\n"
        f"After {figure.source}.\n\n```sh\njumar figure {name}\n```"
        for name, figure in FIGURES.items()
    )


def markdown_table(header: Row, rows: Sequence[Row]) -> str:
    """Return a table in Markdown; a bar inside of a cell is escaped."""
    lines = [header, tuple("---" for _ in header), *rows]
    return "\n".join("| " + " | ".join(re.sub(r"\|", r"\\|", cell) for cell in line) + " |" for line in lines)


class _Table(SphinxDirective):
    """Base of the directives: groups of rows, each under its title."""

    required_arguments = 1
    header: Row = ()

    def groups(self, argument: str) -> dict[str, list[Row]]:
        """Return the rows by title."""
        raise NotImplementedError

    def run(self) -> list[nodes.Node]:
        """Return a table for each group, made by the page's own parser."""
        groups = self.groups(self.arguments[0])
        parts = [
            f"**{title}**\n\n{markdown_table(self.header, rows)}" if title else markdown_table(self.header, rows)
            for title, rows in groups.items()
        ]
        return self.parse_text_to_nodes("\n\n".join(parts))


class SettingsTable(_Table):
    """The settings of an algorithm."""

    header = ("setting", "default", "takes", "what it does")

    def groups(self, argument: str) -> dict[str, list[Row]]:
        """Return the settings of ``module:Class``."""
        module, _, name = argument.partition(":")
        return settings_rows(getattr(importlib.import_module(module), name))


class PresetsTable(_Table):
    """The presets of an algorithm."""

    header = ("environment", "reached [95 %]", "steps", "seeds", "settings")

    def groups(self, argument: str) -> dict[str, list[Row]]:
        """Return the presets of an algorithm, without a title."""
        return {"": preset_rows(argument)}


class TrainedTable(_Table):
    """What every algorithm reaches in a small task."""

    header = ("method", "command", "reached [95 %]", "seeds")
    final_argument_whitespace = True

    def groups(self, argument: str) -> dict[str, list[Row]]:
        """Return a row for each algorithm, without a title."""
        return {"": trained_rows(argument.split())}


class CommandOptions(_Table):
    """The options of a command."""

    header = ("option", "what it does")

    def groups(self, argument: str) -> dict[str, list[Row]]:
        """Return the options of a command."""
        return option_rows(argument)


class ExamplesTable(_Table):
    """The worked examples of the textbooks."""

    header = ("`jumar example`", "about", "what is printed")

    def groups(self, argument: str) -> dict[str, list[Row]]:
        """Return a row for each example, without a title."""
        return {"": example_rows(argument)}


class FiguresTable(SphinxDirective):
    """The figures, a line each."""

    def run(self) -> list[nodes.Node]:
        """Return the table."""
        return self.parse_text_to_nodes(markdown_table(("name", "what it shows", "after"), figure_rows()))


class FiguresGallery(SphinxDirective):
    """The figures with their captions."""

    def run(self) -> list[nodes.Node]:
        """Return the pictures and what belongs to them."""
        return self.parse_text_to_nodes(gallery())


class NamesTable(_Table):
    """What another library calls a thing, and what to write here."""

    header = ("there", "here")

    def groups(self, argument: str) -> dict[str, list[Row]]:
        """Return the names of Stable-Baselines3 by the places where they are written."""
        return {place: [(f"`{name}`", here) for name, here in table.items()] for place, table in PLACES.items()}


class VerificationTable(_Table):
    """The checks of ``jumar verify``."""

    required_arguments = 0
    header = ("check", "what is compared", "bound", "quick")

    def run(self) -> list[nodes.Node]:
        """Return a table for each group of checks."""
        parts = [f"**{title}**\n\n{markdown_table(self.header, rows)}" for title, rows in verification_rows().items()]
        return self.parse_text_to_nodes("\n\n".join(parts))


class DrillsTable(_Table):
    """The drills of ``python -m jumar.drills``."""

    required_arguments = 0
    header = ("drill", "what is done", "survived means")

    def run(self) -> list[nodes.Node]:
        """Return one table."""
        return self.parse_text_to_nodes(markdown_table(self.header, drill_rows()))


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directives."""
    app.add_directive("settings-table", SettingsTable)
    app.add_directive("command-options", CommandOptions)
    app.add_directive("presets-table", PresetsTable)
    app.add_directive("trained-table", TrainedTable)
    app.add_directive("names-table", NamesTable)
    app.add_directive("verification-table", VerificationTable)
    app.add_directive("drills-table", DrillsTable)
    app.add_directive("examples-table", ExamplesTable)
    app.add_directive("figures-table", FiguresTable)
    app.add_directive("figures-gallery", FiguresGallery)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
