"""``jumar completion``: the script that lets a shell complete Jumar's commands, options and environments."""

from __future__ import annotations

import argparse

from jumar.cli.grammar import build
from jumar.cli.options.train import Algorithms
from jumar.cli.output import Outcome

LIST_ENVIRONMENTS = "jumar list envs 2>/dev/null | sed 's/ .*//; p; s#^[a-z]*/##' | sort -u"
"""The first word of each line, with the backend in front and without it."""

HELPERS = {
    "bash": f'_jumar_environments() {{\n  compgen -W "$({LIST_ENVIRONMENTS})" -- "$1"\n}}\n',
    "zsh": f"_jumar_environments() {{\n  compadd -- $({LIST_ENVIRONMENTS})\n}}\n",
}


def run(arguments: argparse.Namespace, algorithms: Algorithms) -> Outcome:
    """Print the script."""
    text = script(arguments.shell, algorithms)
    return Outcome({"shell": arguments.shell, "script": text}, text)


def script(shell: str, algorithms: Algorithms) -> str:
    """Return the completion script for ``bash``, ``zsh`` or ``tcsh``."""
    import shtab

    root, _ = build(algorithms, all_settings=True)
    return shtab.complete(root, shell=shell, preamble=HELPERS.get(shell, ""))
