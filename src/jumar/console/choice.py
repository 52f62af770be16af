"""The choice of a reporter."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import IO

from jumar.console.reporter import PlainLines, Reporter, Silent


def make_reporter(stream: IO[str], *, quiet: bool = False, environment: Mapping[str, str] | None = None) -> Reporter:
    """Choose the reporter that fits ``stream``: a panel on a capable terminal, else plain lines; warnings if quiet.

    ``environment`` holds the environment variables (default: the process's own); ``TERM=dumb`` means no panel.
    """
    environment = os.environ if environment is None else environment
    if quiet:
        return Silent(stream)
    if not stream.isatty() or environment.get("TERM", "dumb") in ("dumb", "unknown", ""):
        return PlainLines(stream)
    from jumar.console.panel import Panel  # it loads rich, which a log does not need

    panel = Panel(stream)
    return panel if panel.fits() else PlainLines(stream)
