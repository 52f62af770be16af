"""The processor of this machine, as the system names it: machines that differ in it may round differently."""

from __future__ import annotations

import platform
import re
from pathlib import Path

INSTRUCTIONS = ("avx", "avx2", "fma", "avx512f", "avx512_bf16", "amx_tile", "asimd", "sve")
"""The extensions of instruction sets that make a difference to linear algebra."""


def instruction_sets(root: Path = Path("/")) -> list[str] | None:
    """Return which of ``INSTRUCTIONS`` the processor has; ``None`` where the system does not say."""
    found = re.search(r"^(?:flags|Features)\s*:\s*(.*)$", _information(root), re.MULTILINE)
    return None if found is None else [name for name in INSTRUCTIONS if name in found[1].split()]


def processor_name(root: Path = Path("/")) -> str:
    """Return what the processor is called, where the system says it."""
    found = re.search(r"^model name\s*:\s*(.*)$", _information(root), re.MULTILINE)
    return found[1].strip()[:100] if found else "unknown"


def processor(root: Path = Path("/")) -> str:
    """Return the processor in words: what it is called, and which vector instructions it has."""
    name = processor_name(root)
    sets = ", ".join(instruction_sets(root) or ()) or "no vector instructions known"
    return f"{platform.machine() if name == 'unknown' else name} ({sets})"


def _information(root: Path) -> str:
    try:
        return (root / "proc/cpuinfo").read_text(errors="replace")
    except OSError:
        return ""
