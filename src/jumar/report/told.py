"""What the runs of a comparison were told, in words: what is the same for all of them first, then what makes each method."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jumar._version import __version__
from jumar.report.comparison import Comparison, Protocol
from jumar.text import counted, typed


def told_lines(comparison: Comparison) -> list[str]:
    """Return a list in Markdown: each method with its settings, and their tasks where it has others elsewhere."""
    rows = [row for row in comparison.about["told"] if row["told"]]
    protocols = [Protocol(**row["protocol"]) if row["protocol"] else None for row in rows]
    differ = len(set(protocols)) > 1
    first = f"Reported by Jumar {__version__}."
    if rows and not differ:
        first += f" Every run: {_words(protocols[0])}."
    envs: dict[tuple[str, str], list[str]] = {}
    for row, protocol in zip(rows, protocols, strict=True):
        words = _settings(row["told"])
        if differ:
            words += f"; {_words(protocol)}"
            words += f", scored from step {protocol.counted_from(comparison.about['last']):,} on" if protocol else ""
        envs.setdefault((row["method"], words), []).append(row["env"])
    lines = [first + (" Settings that are not named are the algorithm's defaults." if rows else ""), ""]
    for (method, words), where in envs.items():
        everywhere = set(where) == {row["env"] for row in rows if row["method"] == method}
        lines.append(f"- **{method}**{'' if everywhere else ' on ' + ', '.join(where)}: {words}")
    return lines


def _settings(told: Mapping[str, Any]) -> str:
    settings = [f"{name}={typed(value)}" for name, value in told.items() if name != "algorithm"]
    return ", ".join([str(told.get("algorithm")), *settings])


def _words(protocol: Protocol | None) -> str:
    if protocol is None:
        return "never evaluated"
    episodes = counted(protocol.eval_episodes, "episode")
    return f"{protocol.total_timesteps:,} steps, evaluated every {protocol.eval_every:,} by {episodes}"
