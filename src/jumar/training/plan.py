"""A run's plan: every setting resolved, as data. It is what ``config.json`` holds."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from jumar._version import __version__
from jumar.algorithms.registry import algorithm
from jumar.algorithms.settings import RolloutSettings
from jumar.envs.costs import GIVEN, Cost, parse_cost
from jumar.envs.registry import EnvironmentId
from jumar.errors import DamagedFile, UsageError

MOST_SEEDS = 10_000
"""How many seeds may share a program."""
MOST_STEPS = 10**12
"""How long a run may be, in environment steps."""
LARGEST_SEED = 2**31 - 1
VERSIONED = ("jax", "jaxlib", "numpy", "gymnasium", "envpool", "mujoco", "gymnax", "brax")


@dataclass(frozen=True)
class Plan:
    """What a run is to do. Steps count all environments together."""

    algorithm: str
    settings: RolloutSettings
    environment: EnvironmentId | None
    """``None`` for a live object or a callable passed from Python."""
    environment_name: str
    seed: int
    total_timesteps: int
    eval_every: int
    """0: no evaluation."""
    eval_episodes: int
    checkpoint_every: int
    """0: only at the end."""
    n_seeds: int | None
    workers: int
    cost: Cost = GIVEN
    """What a step costs."""
    preset: str | None = None
    schedule_start: int = 0
    """The step at which schedules begin; they end with the total."""

    def remaining(self, steps: int) -> float:
        """Return the share of training that is left after so many steps, for schedules."""
        return max(0.0, 1.0 - (steps - self.schedule_start) / (self.total_timesteps - self.schedule_start))

    @property
    def repeat_env(self) -> str | None:
        """What the user must repeat as ``--env`` where the environment is code of their own."""
        return self.environment.own_name if self.environment else None

    @property
    def repeat_wrappers(self) -> list[str]:
        """What the user must repeat as ``--wrapper``, one by one, where wrappers are code of their own."""
        return self.environment.own_wrappers if self.environment else []

    @property
    def backend(self) -> str:
        """The backend that steps the environments."""
        return self.environment.backend if self.environment else "object"

    @property
    def seeds(self) -> list[int]:
        """The seed of each lane of the run."""
        return [self.seed + i for i in range(self.n_seeds or 1)]

    @property
    def whole_iterations(self) -> int:
        """The total rounded up to whole iterations: what is trained where every row is experience."""
        rollout = self.settings.n_envs * self.settings.n_steps
        return -(-self.total_timesteps // rollout) * rollout

    def with_total(self, total_timesteps: int) -> Plan:
        """Return the plan with a new total; schedules are anchored to it."""
        return replace(self, total_timesteps=total_timesteps)

    def to_json(self) -> dict[str, Any]:
        """Return the plan, with the versions that it was made with, as JSON-ready data."""
        return {
            "jumar": __version__,
            "python": platform.python_version(),
            "versions": {name: version for name in VERSIONED if (version := _version(name))},
            "algorithm": self.algorithm,
            "settings": self.settings.to_json(),
            "environment": self.environment.to_json() if self.environment else None,
            "environment_name": self.environment_name,
            "backend": self.backend,
            "cost": self.cost.text,
            "seed": self.seed,
            "total_timesteps": self.total_timesteps,
            "eval_every": self.eval_every,
            "eval_episodes": self.eval_episodes,
            "checkpoint_every": self.checkpoint_every,
            "n_seeds": self.n_seeds,
            "workers": self.workers,
            "preset": self.preset,
            "schedule_start": self.schedule_start,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Plan:
        """Take back what ``to_json`` gave.

        Raises:
            DamagedFile: it is not a plan that this version understands.
        """
        try:
            environment = data["environment"]
            return cls(
                algorithm=data["algorithm"],
                settings=algorithm(data["algorithm"]).make_settings(data["settings"]),
                environment=None if environment is None else EnvironmentId.from_json(environment),
                environment_name=str(data["environment_name"]),
                **{name: int(data[name]) for name in _NUMBERS},
                n_seeds=None if data["n_seeds"] is None else int(data["n_seeds"]),
                preset=data["preset"],
                cost=parse_cost(data.get("cost")),
            )
        except (KeyError, TypeError, ValueError, UsageError) as error:
            raise DamagedFile(f"config.json does not describe a run of this version of Jumar: {error}") from None

    def differences_in_versions(self, data: dict[str, Any]) -> list[str]:
        """Return a sentence for every package whose version is not the one that a saved plan was made with."""
        saved = {"jumar": data.get("jumar"), **(data.get("versions") or {})}
        now = {"jumar": __version__, **{name: _version(name) for name in saved if name != "jumar"}}
        return [f"{name} was {saved[name]} and is {now[name]}" for name in saved if saved[name] != now[name]]


_NUMBERS = ("seed", "total_timesteps", "schedule_start", "eval_every", "eval_episodes", "checkpoint_every", "workers")


def check_seed(seed: int, n_seeds: int | None = None) -> None:
    """Raise a ``UsageError`` for a seed, or so many from it on, that the random number generators cannot all take."""
    check_count("seed", seed, 0)
    if seed > LARGEST_SEED - (n_seeds or 1):
        raise UsageError(f"seed={seed} is out of range: it must be at least 0 and below 2^31.")


def check_n_seeds(n_seeds: int | None) -> None:
    """Raise a ``UsageError`` for a number of seeds that no run has; ``None`` is a plain run."""
    if n_seeds is not None:
        check_count("n_seeds", n_seeds, 1, MOST_SEEDS)


def check_count(name: str, value: int, least: int, most: int | None = None) -> None:
    """Raise a ``UsageError`` for what is no whole number from ``least`` to ``most``."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise UsageError(f"{name}={value!r} is not a whole number.")
    if value < least or (most is not None and value > most):
        upper = "" if most is None else f" and at most {most}"
        raise UsageError(f"{name}={value} is out of range: it must be at least {least}{upper}.")


def read_count(name: str, value: Any, least: int, most: int | None = None) -> int:
    """Return a whole number from ``least`` to ``most`` that may be written as a float, such as ``1e6``.

    Raises:
        UsageError: it is none, or out of range.
    """
    whole: Any = int(value) if isinstance(value, (float, np.floating)) and float(value).is_integer() else value
    check_count(name, whole, least, most)
    return int(whole)


def read_path(name: str, path: Any) -> Path:
    """Return a path.

    Raises:
        UsageError: it is none.
    """
    if not isinstance(path, (str, os.PathLike)) or not os.fspath(path):
        raise UsageError(f"{name}={path!r} is not a path; write the name of a directory.")
    return Path(path)


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
