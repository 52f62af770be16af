"""What the doctor asks each node of a cluster; Ray runs this there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jumar.cluster.versions import versions
from jumar.runs.run_directory import is_locked
from jumar.verification.doctor.children import ask
from jumar.verification.doctor.system import control_group_limits, memory_information
from jumar.xla.processor import instruction_sets, processor_name

COMPUTING = 120.0
"""Seconds that a node has to compile and run a small program."""


def describe(path: str) -> dict[str, Any]:
    """Return what this node is: what it sees of a file, its versions, processor and memory, and the digest of what it computes.

    Args:
        path: a file that whoever asks has written, and holds locked.
    """
    try:
        word: str | None = Path(path).read_text()
    except OSError:
        word = None
    computed = ask("canary", seconds=COMPUTING)
    memory = (memory_information().get("MemAvailable"), control_group_limits().memory_left)
    return {
        "word": word,
        "locked": is_locked(Path(path)),
        "versions": versions(),
        "processor": processor_name(),
        "sets": instruction_sets(),
        "memory": min((each for each in memory if each is not None), default=None),
        "digest": computed.value("digest"),
        "fault": computed.fault,
    }
