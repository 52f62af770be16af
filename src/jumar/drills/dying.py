"""``python -m jumar.drills.dying WHERE SIGNAL COUNT WORD...``: a ``jumar`` command that sends itself a real signal.

``WHERE`` is ``iteration``, and the signal (a number) comes when that iteration has been logged; or an operation on files,
``replace``, ``fsync``, ``mkdir``, ``ftruncate`` or ``unlink``, and it comes right after the operation that ``COUNT`` names.
So the moment does not depend on how fast the machine is.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

OPERATIONS = ("replace", "fsync", "mkdir", "ftruncate", "unlink")
WHERE = ("iteration", *OPERATIONS)


def after(function: Callable[..., Any], number: int, count: int) -> Callable[..., Any]:
    """Return the function, followed by the signal ``number`` when it is called for the ``count``-th time."""
    seen = 0

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        nonlocal seen
        result = function(*args, **kwargs)
        seen += 1
        if seen == count:
            os.kill(os.getpid(), number)
        return result

    return wrapped


def main() -> int:
    """Run the command that the arguments spell."""
    where, number, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    from jumar.training.keeper import Files  # before anything is replaced: imports work on files, too

    if where == "iteration":
        Files.iteration = after(Files.iteration, number, count)
    else:
        setattr(os, where, after(getattr(os, where), number, count))
    from jumar.cli import main as jumar

    return jumar(sys.argv[4:])


if __name__ == "__main__":
    sys.exit(main())
