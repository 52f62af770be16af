"""``jumar list``: the algorithms, environments, presets or runs that there are, a line each, the name first."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from jumar.cli.lists import listed
from jumar.cli.options.train import Algorithms
from jumar.cli.output import Outcome
from jumar.console.terminal import output_columns
from jumar.errors import UsageError


def run(arguments: argparse.Namespace, load_algorithms: Callable[[], Algorithms]) -> Outcome:
    """Make the list; the algorithms are loaded, and JAX with them, only if it is about them."""
    if arguments.folder is not None and arguments.what != "runs":
        raise UsageError(f"unexpected {arguments.folder!r}; a folder is only for `jumar list runs`.")
    if arguments.what == "runs":
        from jumar.cli import list_runs

        return list_runs.run(arguments.folder)
    if arguments.what == "algorithms":
        entries, keys = [(entry.name, entry.title) for entry in load_algorithms().values()], ("name", "title")
    elif arguments.what == "presets":
        return _presets(load_algorithms())
    else:
        from jumar.envs.registry import list_environments

        entries, keys = list_environments(), ("id", "description")
    return Outcome(
        {arguments.what: [dict(zip(keys, entry, strict=True)) for entry in entries]}, listed(entries, output_columns())
    )


def _presets(algorithms: Algorithms) -> Outcome:
    from jumar.presets import presets

    every = [(algorithm, preset) for algorithm in algorithms for preset in presets(algorithm).values()]
    lines = [(preset.name, f"{algorithm}, {preset.words}") for algorithm, preset in every]
    return Outcome(
        {"presets": [{"algorithm": name, **preset.to_json()} for name, preset in every]},
        listed(lines, output_columns()),
    )
