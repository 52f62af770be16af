"""The choice of a reporter."""

from __future__ import annotations

from collections.abc import Mapping
from typing import IO

from jumar.console.reporter import PlainLines, Reporter, Silent
from jumar.console.terminal import can_draw


def make_reporter(stream: IO[str], *, quiet: bool = False, environment: Mapping[str, str] | None = None) -> Reporter:
    """Choose the reporter that fits ``stream``: a panel on a capable terminal, else plain lines; warnings if quiet.

    ``environment`` holds the environment variables (default: the process's own); ``TERM=dumb`` and ``JUMAR_PLAIN=1`` mean no
    panel.
    """
    if quiet:
        return Silent(stream)
    if not can_draw(stream, environment):
        return PlainLines(stream)
    from jumar.console.panel import Panel  # it loads rich, which a log does not need

    panel = Panel(stream)
    return panel if panel.fits() else PlainLines(stream)
