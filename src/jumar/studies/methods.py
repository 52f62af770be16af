"""What is compared: an algorithm, and what it is told."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from jumar.algorithms.registry import algorithm
from jumar.errors import UsageError

PRESET = "preset"
_NEXT = re.compile(r",(?=\s*[A-Za-z][\w-]*\s*(?:[:,]|$))")
"""The commas between methods: a name follows, and no value."""


@dataclass(frozen=True)
class Method:
    """An algorithm with settings, by the name that it has in the comparison."""

    name: str
    algorithm: str
    settings: dict[str, Any] = field(default_factory=dict)
    """As values, or as typed."""
    preset: str | None = None
    """``None``: whatever the comparison says."""


def read_methods(text: str) -> tuple[Method, ...]:
    """Read ``ppo,trpo`` or ``ppo:clip_range=0.1,n_epochs=4,ppo:preset=none``: settings follow an algorithm's colon.

    Raises:
        UsageError: an algorithm is unknown, a setting has no value, or two methods are the same.
    """
    return distinct([_read(part.strip()) for part in _NEXT.split(text)])


def distinct(methods: Sequence[Method]) -> tuple[Method, ...]:
    """Return the methods, after checking that there are some and that their names differ."""
    if not methods:
        raise UsageError("no algorithm is given to compare.")
    names = [method.name for method in methods]
    if bad := [name for name in names if not name.strip() or not name.isprintable()]:
        raise UsageError(f"{bad[0]!r} is no name for a method; give it a line of printable characters.")
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UsageError(
            f"{twice} is to be compared with itself; give it once, or with other settings: {twice}:KEY=VALUE."
        )
    return tuple(methods)


def _read(text: str) -> Method:
    name, colon, rest = text.partition(":")
    if not name or text.endswith(","):
        raise UsageError("an algorithm is missing between two commas; write them as ppo,trpo.")
    algorithm(name)  # a misspelt one before its settings
    given: dict[str, str] = {}
    for assignment in re.split(r",(?=\s*[A-Za-z_]\w*=)", rest) if colon else ():
        key, equals, value = (part.strip() for part in assignment.partition("="))
        if not equals or not key:
            raise UsageError(f"{assignment.strip()!r} is no setting of {name}; write it as {name}:key=value,key=value.")
        if key in given:
            raise UsageError(f"the setting {key} of {name} is given twice.")
        given[key] = value
    preset = given.pop(PRESET, None)
    return Method(text, name, given, preset)
