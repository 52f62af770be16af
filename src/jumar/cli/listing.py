"""``jumar list``: the algorithms and the environments that there are, a line each, the name first."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from jumar.cli.output import Outcome
from jumar.cli.parser import Algorithms


def run(arguments: argparse.Namespace, load_algorithms: Callable[[], Algorithms]) -> Outcome:
    """Make the list; the algorithms are loaded, and JAX with them, only if it is about them."""
    if arguments.what == "algorithms":
        entries, keys = [(entry.name, entry.title) for entry in load_algorithms().values()], ("name", "title")
    else:
        from jumar.envs.registry import list_environments

        entries, keys = list_environments(), ("id", "description")
    width = max((len(name) for name, _ in entries), default=0)
    lines = [f"{name:<{width}}  {words}".rstrip() for name, words in entries]
    return Outcome({arguments.what: [dict(zip(keys, entry, strict=True)) for entry in entries]}, "\n".join(lines))
