"""Presets: tuned settings for an algorithm in an environment, kept as data.

``ALGORITHM.json`` beside this file holds those of an algorithm, by the environment's bare id, which is the preset's
name::

    "Pendulum-v1": {
        "settings": {"gamma": 0.9, ...},
        "reached": {"return": -170.1, "low": -180.2, "high": -160.9, "seeds": 5, "total_timesteps": 200000}
    }

``reached`` is what the settings were seen to reach: the interquartile mean over the seeds of each run's last ten
evaluations, with its 95 % bootstrap interval. ``benchmarks/returns.py`` measures it, and writes it here. Where costs were
limited it has two more, ``"cost"`` and ``"cost_source"``, and ``benchmarks/comparisons.py`` measures it. ``"atari": true``
beside the settings says that they are for a game as ``--atari`` prepares it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from jumar.errors import UsageError, unknown
from jumar.text import counted

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
        return f"reached {self.score} in {self.total_timesteps:,} steps ({counted(self.seeds, 'seed')})"

    @property
    def score(self) -> str:
        """The mean with its interval, which a single seed has not, and the cost where costs were limited."""
        mean = f"{self.mean:,.1f}" + (f" [{self.low:,.1f}, {self.high:,.1f}]" if self.seeds > 1 else "")
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
    atari: bool = False
    """Whether it is for a game as ``--atari`` prepares it."""
    own: bool = False
    """Whether it is a file of the user's."""

    def __str__(self) -> str:
        return f"{self.name}, {self.words}"

    @property
    def words(self) -> str:
        """What it reached, and with which option."""
        reached = str(self.reached or ("your file" if self.own else "not measured"))
        return ("with --atari, " if self.atari else "") + reached

    @property
    def says_what_is_seen(self) -> bool:
        """Whether it depends on what an observation is made of, so that it does not fit one that a wrapper has changed."""
        return any(name in self.settings for name in _ABOUT_OBSERVATIONS)

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {
            "name": self.name,
            "settings": dict(self.settings),
            "reached": self.reached.to_json() if self.reached else None,
            **({"atari": True} if self.atari else {}),
        }


_ABOUT_OBSERVATIONS = ("policy_observations", "critic_observations", "features_extractor")
_SAME = ("ALE/", "MuJoCoPlayground/")
"""Namespaces in front of ids that are known without them, too."""


def presets(algorithm: str) -> Mapping[str, Preset]:
    """Return the presets of an algorithm by name; none for an algorithm that has no file."""
    return _read(algorithm)


def choose(
    algorithm: str, environment: str, asked: str | None, *, atari: bool = False, wrapped: bool = False
) -> Preset | None:
    """Return the preset to use: the one asked for by name, or else the one of the environment, if there is one.

    Args:
        algorithm: its command-line name.
        environment: the environment's bare id, without a backend.
        asked: a preset's name, ``"none"`` for no preset, ``None`` where nobody asked.
        atari: whether the environment is a game as ``--atari`` prepares it.
        wrapped: whether there are wrappers around it.

    Raises:
        UsageError: there is no preset of the name asked for; the message names the nearest.
    """
    known = presets(algorithm)
    if asked is None:
        found = known.get(bare(environment))
        fits = found is not None and found.atari == atari and not (wrapped and found.says_what_is_seen)
        return found if fits else None
    if asked == NONE:
        return None
    if not isinstance(asked, str):
        raise UsageError(f'preset={asked!r} is not a name; preset="{NONE}" starts from the defaults of the algorithm.')
    if asked not in known:
        raise unknown(f"preset of {algorithm}", asked, [*known, NONE], listed_by="jumar list presets")
    return known[asked]


def bare(environment: str) -> str:
    """Return an environment's id without a namespace that makes no difference: ``ALE/Pong-v5`` is ``Pong-v5``."""
    return next((environment.removeprefix(name) for name in _SAME if environment.startswith(name)), environment)


def merged(preset: Preset | None, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return a preset's settings with those given in their place; what is given comes first."""
    return {**(preset.settings if preset else {}), **given}


@cache
def _read(algorithm: str) -> dict[str, Preset]:
    file = resources.files(__name__) / f"{algorithm}.json"
    if not file.is_file():
        return {}
    return {name: _preset(name, **entry) for name, entry in json.loads(file.read_text(encoding="utf-8")).items()}


def _preset(name: str, settings: dict[str, Any], reached: dict[str, Any] | None = None, atari: bool = False) -> Preset:
    if reached is None:
        return Preset(name, settings, None, atari)
    numbers = {key: value for key, value in reached.items() if key != "return"}
    return Preset(name, settings, Reached(mean=reached["return"], **numbers), atari)
