"""A program that fills the object store of the Ray node that it runs on, and keeps it full: ``HOST:PORT BYTES``."""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Sequence

PIECE = 1_000_000
"""Bytes of one object."""
HELD = "bytes are held"
"""What the program says once they are."""


def main(arguments: Sequence[str]) -> None:
    """Join the cluster at an address, put so many bytes into the node's object store, and hold them until it is ended."""
    address, size = arguments
    ray = importlib.import_module("ray")
    ray.init(address=address, logging_level="ERROR", log_to_driver=False)
    held = [ray.put(bytes(PIECE)) for _ in range(int(size) // PIECE)]
    print(f"{len(held) * PIECE} {HELD}", flush=True)
    while True:
        time.sleep(60.0)


if __name__ == "__main__":
    main(sys.argv[1:])
