"""A job of a comparison or sweep, done where a batch system starts it: ``python -m jumar.cli.attempt FOLDER NUMBER``.

The job is written down in the folder (:mod:`jumar.studies.attempts`), and so is how it ended. A signal lets it save and stop.
"""

from __future__ import annotations

import sys
from pathlib import Path

from jumar.console.signals import stop_on_signals


def main() -> int:
    """Do the job that the arguments name; return 0 if it was done, 1 if it failed."""
    from jumar.studies.on_node import carry_out

    place, index = sys.argv[1:]
    with stop_on_signals() as stop:
        failure = carry_out(Path(place), int(index), lambda: bool(stop))
    if failure is None:
        return 0
    print(failure.words, file=sys.stderr, flush=True)
    return 1


if __name__ == "__main__":
    sys.exit(main())
