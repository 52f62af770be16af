"""What the runs of a comparison were told, in words: what is the same for all of them first, then what makes each method."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jumar._version import __version__
from jumar.report.comparison import Comparison
from jumar.words import counted

PROTOCOL = ("total_timesteps", "eval_every", "eval_episodes")
"""What is said once, where it is the same for all runs."""


def told_lines(comparison: Comparison) -> list[str]:
    """Return a list in Markdown: each method with its settings, and their tasks where it has others elsewhere."""
    rows = [row for row in comparison.about["told"] if row["told"]]
    protocols = list(dict.fromkeys(_protocol(row["told"]) for row in rows))
    first = f"Reported by Jumar {__version__}."
    if len(protocols) == 1:
        first += f" Every run: {protocols[0]}."
    envs: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        words = _settings(row["told"]) + (f"; {_protocol(row['told'])}" if len(protocols) > 1 else "")
        envs.setdefault((row["method"], words), []).append(row["env"])
    lines = [first + (" Settings that are not named are the algorithm's defaults." if rows else ""), ""]
    for (method, words), where in envs.items():
        everywhere = set(where) == {row["env"] for row in rows if row["method"] == method}
        lines.append(f"- **{method}**{'' if everywhere else ' on ' + ', '.join(where)}: {words}")
    return lines


def _settings(told: Mapping[str, Any]) -> str:
    settings = [f"{name}={_value(value)}" for name, value in told.items() if name not in (*PROTOCOL, "algorithm")]
    return ", ".join([str(told.get("algorithm")), *settings])


def _protocol(told: Mapping[str, Any]) -> str:
    total, every, episodes = (told.get(name) for name in PROTOCOL)
    evaluated = (
        f"evaluated every {every:,} by {counted(episodes, 'episode')}" if every and episodes else "not evaluated"
    )
    return f"{total:,} steps, {evaluated}" if total else "of unknown length"


def _value(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return str(value).lower()
    return " ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
