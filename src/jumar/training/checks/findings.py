"""What a check has found, in sentences."""

from __future__ import annotations

from dataclasses import dataclass, field

WHAT, WRONG, SLOW, RIGHT = "what", "wrong", "slow", "right"


@dataclass
class Findings:
    """Sentences in groups."""

    what: list[str] = field(default_factory=list)
    """What the environment is."""
    wrong: list[str] = field(default_factory=list)
    """What is wrong with it, or may be."""
    slow: list[str] = field(default_factory=list)
    """How fast it is, and what is slow."""
    right: list[str] = field(default_factory=list)
    """What would be right."""
    prevents: list[str] = field(default_factory=list)
    """Those of ``wrong`` that make training impossible."""

    def prevent(self, words: str) -> None:
        """Take down something that makes training impossible."""
        self.wrong.append(words)
        self.prevents.append(words)

    def suspect(self, words: str, right: str | None = None) -> None:
        """Take down something that is wrong and does not prevent training, and what would be right."""
        self.wrong.append(words)
        if right is not None and right not in self.right:
            self.right.append(right)
