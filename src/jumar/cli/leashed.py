"""A ``jumar`` command that stops when whoever started it says so, or is gone.

``python -m jumar.cli.leashed PROCESSORS WORD...`` runs the command on the given processors (``0,1``). Its standard input is
the leash: where the other end is closed, the command is stopped as by SIGTERM, and saves.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time

PATIENCE = 60.0
"""Seconds after which what has not stopped is stopped at once: everything up to the last checkpoint is safe."""


def main() -> int:
    """Run the command that the arguments spell."""
    processors, *words = sys.argv[1:]
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {int(number) for number in processors.split(",")})
    threading.Thread(target=_watch, daemon=True).start()
    from jumar.cli import main as run

    return run(words)


def _watch() -> None:
    while os.read(0, 1024):
        pass
    from jumar.console.signals import stop_was_asked

    # A whole job is often stopped by a signal to every process of it; a second one here would mean at once.
    if not stop_was_asked():
        os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(PATIENCE)
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
