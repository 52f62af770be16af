"""What the doctor found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Status = Literal["ok", "note", "warning", "fault"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        name: what it is about, such as ``memory``.
        status: ``ok``; ``note``: good to know; ``warning``: something works badly or not at all, and training does;
            ``fault``: it keeps Jumar from training.
        words: a sentence or two.
        remedy: what helps, where something is wrong.
        data: numbers and names of it, for programs.
    """

    name: str
    status: Status
    words: str
    remedy: str | None = None
    data: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return it as ``jumar doctor --json`` prints it."""
        return {
            "name": self.name,
            "status": self.status,
            "words": self.words,
            "remedy": self.remedy,
            **({"data": dict(self.data)} if self.data else {}),
        }
