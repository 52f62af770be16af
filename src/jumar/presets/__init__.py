"""Presets: tuned settings for an algorithm in an environment, kept as data.

``ALGORITHM.json`` beside this file holds those of an algorithm, by the environment's bare id, which is the preset's
name::

    "Pendulum-v1": {
        "settings": {"gamma": 0.9, ...},
        "reached": {"return": -170.1, "low": -180.2, "high": -160.9, "seeds": 5, "total_timesteps": 200000}
    }

``reached`` is what the settings were seen to reach: the interquartile mean over the seeds of each run's last ten
evaluations, with its 95 % bootstrap interval. ``benchmarks/returns.py`` measures it, and writes it here. Where costs were
limited it has two more, ``"cost"`` and ``"cost_source"``, and ``benchmarks/comparisons.py`` measures it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from jumar.errors import UsageError, unknown

NONE = "none"
"""The name that stands for no preset: the algorithm's defaults."""


@dataclass(frozen=True)
class Reached:
    """What a preset was seen to reach, over seeds."""

    mean: float
    """Interquartile mean of the runs' scores, undiscounted raw rewards per episode."""
    low: float
    high: float
    """The ends of its 95 % bootstrap interval."""
    seeds: int
    total_timesteps: int
    cost: float | None = None
    """Mean cost of an episode over the last fifth of training, undiscounted; ``None`` where costs were not limited."""
    cost_source: str | None = None
    """What a step's cost was, as ``--cost`` takes it."""

    def __str__(self) -> str:
        return f"reached {self.score} in {self.total_timesteps:,} steps ({self.seeds} seeds)"

    @property
    def score(self) -> str:
        """The mean with its interval, and the cost where costs were limited."""
        mean = f"{self.mean:,.1f} [{self.low:,.1f}, {self.high:,.1f}]"
        return mean if self.cost is None else f"{mean} at a cost of {self.cost:,.1f} ({self.cost_source})"

    def to_json(self) -> dict[str, Any]:
        """Return it as the file has it."""
        plain = {
            "return": self.mean,
            "low": self.low,
            "high": self.high,
            "seeds": self.seeds,
            "total_timesteps": self.total_timesteps,
        }
        return plain if self.cost is None else {**plain, "cost": self.cost, "cost_source": self.cost_source}


@dataclass(frozen=True)
class Preset:
    """Settings by name, as values that the algorithm's settings class takes, and what they reach."""

    name: str
    settings: Mapping[str, Any]
    reached: Reached | None
    """``None`` where it has not been measured."""

    def __str__(self) -> str:
        return f"{self.name}, {self.reached or 'not measured'}"

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {
            "name": self.name,
            "settings": dict(self.settings),
            "reached": self.reached.to_json() if self.reached else None,
        }


def presets(algorithm: str) -> Mapping[str, Preset]:
    """Return the presets of an algorithm by name; none for an algorithm that has no file."""
    return _read(algorithm)


def choose(algorithm: str, environment: str, asked: str | None) -> Preset | None:
    """Return the preset to use: the one asked for by name, or else the one of the environment, if there is one.

    Args:
        algorithm: its command-line name.
        environment: the environment's bare id, without a backend.
        asked: a preset's name, ``"none"`` for no preset, ``None`` where nobody asked.

    Raises:
        UsageError: there is no preset of the name asked for; the message names the nearest.
    """
    known = presets(algorithm)
    if asked is None:
        return known.get(environment)
    if asked == NONE:
        return None
    if not isinstance(asked, str):
        raise UsageError(f'preset={asked!r} is not a name; preset="{NONE}" starts from the defaults of the algorithm.')
    if asked not in known:
        raise unknown(f"preset of {algorithm}", asked, [*known, NONE])
    return known[asked]


def merged(preset: Preset | None, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return a preset's settings with those given in their place; what is given comes first."""
    return {**(preset.settings if preset else {}), **given}


@cache
def _read(algorithm: str) -> dict[str, Preset]:
    file = resources.files(__name__) / f"{algorithm}.json"
    if not file.is_file():
        return {}
    return {name: _preset(name, **entry) for name, entry in json.loads(file.read_text(encoding="utf-8")).items()}


def _preset(name: str, settings: dict[str, Any], reached: dict[str, Any] | None = None) -> Preset:
    if reached is None:
        return Preset(name, settings, None)
    numbers = {key: value for key, value in reached.items() if key != "return"}
    return Preset(name, settings, Reached(mean=reached["return"], **numbers))
