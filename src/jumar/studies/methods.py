"""What is compared: an algorithm, and what it is told."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from jumar.algorithms.registry import ALGORITHMS, algorithm
from jumar.errors import UsageError
from jumar.settings import kinds

PRESET, ENCODER = "preset", "encoder"
"""What a method may be told that is no setting."""
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
    encoder: str | None = None
    """The user's network that encodes observations, as ``module:Name``, or ``"none"``; ``None``: what the comparison says."""


def read_methods(text: str) -> tuple[Method, ...]:
    """Read ``ppo,trpo`` or ``ppo:clip_range=0.1,n_epochs=4,ppo:preset=none``: settings follow an algorithm's colon.

    Raises:
        UsageError: an algorithm is unknown, a setting has no value, or two methods are the same.
    """
    return distinct([_read(part.strip()) for part in _parts(text)])


def _parts(text: str) -> list[str]:
    """Return the text of each method.

    A name after a comma begins a method, unless it is no algorithm's and the setting before it takes names:
    ``ppo:critic_observations=state,forces``.
    """
    parts: list[str] = []
    for part in _NEXT.split(text):
        if parts and part.strip() not in ALGORITHMS and ":" not in part and _takes_names(parts[-1]):
            parts[-1] += f",{part}"
        else:
            parts.append(part)
    return parts


def _takes_names(text: str) -> bool:
    """Whether the last setting of a method's text takes a list of names."""
    name, _, rest = text.strip().partition(":")
    assignments = re.findall(r"(?:^|,)\s*([A-Za-z_]\w*)\s*=", rest)
    if name not in ALGORITHMS or not assignments or assignments[-1] not in ALGORITHMS[name].setting_names:
        return False
    return tuple[str, ...] in kinds(ALGORITHMS[name].settings, assignments[-1])


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
    return Method(text, name, given, preset=given.pop(PRESET, None), encoder=given.pop(ENCODER, None))
