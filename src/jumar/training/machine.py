"""What a run runs on, for its record: nothing that names the machine or its user."""

from __future__ import annotations

import platform
from typing import Any

from jumar.xla.compiler import count_processors


def describe_machine() -> dict[str, Any]:
    """Return the system, the processor, how many processors the process may use, and the kind of JAX's devices."""
    import jax

    devices = jax.devices()
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": processor_name(),
        "processors": count_processors(),
        "device": f"{len(devices)} x {devices[0].device_kind}" if len(devices) > 1 else devices[0].device_kind,
    }


def processor_name() -> str:
    """Return the processor's name as Linux knows it, else as Python does."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    except OSError:
        names = []
    name = names[0] if names else platform.processor()
    return name[:200] if name.isprintable() else ""
