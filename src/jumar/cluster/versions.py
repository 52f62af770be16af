"""Versions of what decides the results of a run: machines that share work must have the same ones."""

from __future__ import annotations

import contextlib
import platform
from collections.abc import Mapping
from importlib import metadata

from jumar._version import __version__

PACKAGES = ("jax", "jaxlib", "numpy", "optax", "gymnasium")
"""Those that compute, beside Jumar itself."""
SAME_VERSIONS = "results would not be the same: install the versions of the machine that gives the work."


def versions() -> dict[str, str]:
    """Return the versions on this machine, by name."""
    found = {"python": platform.python_version(), "jumar": __version__}
    for name in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def other_versions(here: Mapping[str, str], there: Mapping[str, str]) -> str | None:
    """Return in words which versions there are not those here; ``None`` if all are.

    >>> other_versions({"jax": "0.10.2", "numpy": "2.4"}, {"jax": "0.10.1", "numpy": "2.4"})
    'jax 0.10.1 instead of 0.10.2'
    """
    names = [*here, *(name for name in there if name not in here)]
    differing = [name for name in names if here.get(name) != there.get(name)]
    if not differing:
        return None
    return ", ".join(f"{name} {there.get(name, 'missing')} instead of {here.get(name, 'none')}" for name in differing)
