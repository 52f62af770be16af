"""The program that asks whether a cluster can be joined: ``python -m jumar.cluster.probe HOST:PORT``.

It prints one line of JSON: the versions of Ray and Python here and there, or an ``error``. Ray may end a process in which it
cannot reach a cluster, so this is one of its own.
"""

from __future__ import annotations

import importlib
import json
import platform
import sys
from typing import Any

TIMEOUT = 10.0
"""Seconds for the answer to a question."""


def main() -> None:
    """Ask, and print what was found."""
    try:
        print(json.dumps(_look(sys.argv[1])))
    except Exception as error:  # whatever Ray raises is what there is to say
        print(json.dumps({"error": f"{type(error).__name__}: {error}"}))


def _look(address: str) -> dict[str, Any]:
    ray = importlib.import_module("ray")
    client = importlib.import_module("ray._raylet").GcsClient(address=address)
    found = client.internal_kv_get(b"CLUSTER_METADATA", b"cluster", TIMEOUT)
    there = json.loads(found) if found else {}
    return {
        "ray": (ray.__version__, there.get("ray_version")),
        "python": (platform.python_version(), there.get("python_version")),
    }


if __name__ == "__main__":
    main()
