"""All figures by name."""

from __future__ import annotations

import re
from collections.abc import Iterable

from jumar.errors import nearest, unknown
from jumar.figures import (
    clipping,
    control,
    critics,
    fields,
    gradients,
    off_policy,
    steps,
    tasks,
    trust_regions,
    updates,
)
from jumar.figures.figure import Figure

MODULES = (updates, fields, gradients, trust_regions, steps, clipping, control, off_policy, critics, tasks)
FIGURES: dict[str, Figure] = {
    figure.name: figure
    for figure in sorted(
        (figure for module in MODULES for figure in module.FIGURES),
        key=lambda figure: figure.name if figure.name[0].isdigit() else "13",
    )
}
"""Every figure: those of the book by their numbers, then the others, those of a module side by side."""


def find(name: str) -> Figure:
    """Return the figure of that name; ``figure 12.1``, ``fig-12.1`` and ``12_1`` are ``12.1``.

    Raises:
        UsageError: there is none; the nearest names are said.
    """
    plain = re.sub(r"^fig(ure)?[\s.:_-]*", "", name.strip().lower()).replace("_", "-")
    plain = re.sub(r"^12-", "12.", plain)
    if plain in FIGURES:
        return FIGURES[plain]
    guesses = nearest(plain, FIGURES)
    raise unknown(
        "figure", name, FIGURES, {name: guesses[0]} if len(guesses) == 1 else None, listed_by="jumar figure --list"
    )


def in_order(names: Iterable[str]) -> list[Figure]:
    """Return the figures of some names, each once; ``all`` is every one that does not train for minutes.

    Raises:
        UsageError: a name is unknown.
    """
    found: dict[str, Figure] = {}
    for name in names:
        chosen = [figure for figure in FIGURES.values() if not figure.slow] if name == "all" else [find(name)]
        found |= {figure.name: figure for figure in chosen}
    return list(found.values())
