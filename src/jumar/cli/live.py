"""``jumar live``: the page of ``jumar report``, served to a browser of this machine while runs go on."""

from __future__ import annotations

import argparse

from jumar.cli.output import Outcome
from jumar.cli.report import read_places
from jumar.text import counted


def run(arguments: argparse.Namespace) -> Outcome:
    """Begin to serve; what the outcome goes on with ends when a signal comes."""
    from jumar.web.gathering import Gathering
    from jumar.web.server import Server

    gathering = Gathering(read_places(arguments.runs, "live"), waits=True)
    server = Server(gathering, arguments.port)
    waiting = [f"there is no run at {place} yet; it is shown when it appears" for place in gathering.missing]
    words = f"serving {counted(len(gathering.runs), 'run')}; Ctrl-C ends it, and the runs go on:\n{server.url}"
    return Outcome({"url": server.url, "port": server.port}, "\n".join([*waiting, words]), then=server.serve)
