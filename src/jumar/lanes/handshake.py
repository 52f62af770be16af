"""What must be the same in this process and in a runner's for the results to be, in words where it is not."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from jumar.lanes.runner_process import INSTRUCTIONS, PACKAGES

Look = Mapping[str, str | None]
"""What :func:`jumar.lanes.runner_process.look` returns."""
LEVELS = [name for name, _ in reversed(INSTRUCTIONS)]
"""XLA's names of sets of instructions, the smallest first."""


def differences(here: Look, there: Look) -> str:
    """Return what makes a runner there unfit, with the remedy, as the end of a sentence; empty if nothing does."""
    for name in ("python", *PACKAGES):
        if there[name] is None and here[name] is not None:
            return f"{name} is not installed there; install {name} {here[name]}, as here"
        if there[name] != here[name]:
            return f"{name} is {there[name]} there and {here[name]} here; install the same on all nodes"
    if there["code"] != here["code"]:
        return "the code of its Jumar is not the same as here, although the version is; install the same on all nodes"
    if there["processor"] != here["processor"]:
        return f"its processor is {there['processor']} and this one {here['processor']}, which round differently"
    limit = allowed()
    if level(there["instructions"], limit) != level(here["instructions"], limit):
        least = LEVELS[min(level(there["instructions"], None), level(here["instructions"], None))]
        return (
            f"its processor has {there['instructions']} and this one {here['instructions']}, which round differently; start "
            f"with XLA_FLAGS=--xla_cpu_max_isa={least}"
        )
    return ""


def level(instructions: str | None, limit: str | None) -> int:
    """Return how large a set of instructions is, up to a limit."""
    found = LEVELS.index(instructions) if instructions in LEVELS else 0
    return min(found, LEVELS.index(limit)) if limit in LEVELS else found


def allowed() -> str | None:
    """Return the largest set of instructions that XLA may use, if the user gave one."""
    found = re.search(r"--xla_cpu_max_isa=(\w+)", os.environ.get("XLA_FLAGS", ""))
    return found[1].upper() if found else None
