"""``python -m jumar.drills.launch LIMIT=VALUE... -- WORD...``: replace this process by a command that has these limits.

A limit is the name of one of the system's, such as ``NOFILE=64`` (open files), ``FSIZE=20000`` (bytes of a file) or
``AS=4000000000`` (bytes of memory). They are set here, and not between a fork and the command, because a process with
threads must not do that.
"""

from __future__ import annotations

import os
import resource
import sys


def main() -> None:
    """Set the limits, and become the command."""
    cut = sys.argv.index("--")
    for limit in sys.argv[1:cut]:
        name, _, value = limit.partition("=")
        number = getattr(resource, f"RLIMIT_{name}")
        hard = resource.getrlimit(number)[1]
        most = int(value) if hard == resource.RLIM_INFINITY else min(int(value), hard)
        resource.setrlimit(number, (most, most))
    words = sys.argv[cut + 1 :]
    os.execvp(words[0], words)


if __name__ == "__main__":
    main()
