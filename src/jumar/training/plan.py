"""A run's plan: every setting resolved, as data. It is what ``config.json`` holds."""

from __future__ import annotations

import functools
import os
import platform
from dataclasses import dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from jumar._version import __version__
from jumar.algorithms.registry import algorithm, is_known, is_name
from jumar.algorithms.settings import CollectingSettings
from jumar.envs.registry import EnvironmentId
from jumar.envs.step_costs import GIVEN, Cost, parse_cost
from jumar.errors import UsageError
from jumar.fields import (
    DamagedEntry,
    Reader,
    exact_record,
    flag,
    made_by,
    mapping,
    number,
    optional,
    reading,
    record,
    several,
    text,
    whole,
)
from jumar.policies.own_code import NO_CODE, OwnCode, OwnNames
from jumar.training.events import MOST_EVALUATIONS, MOST_KEYS, check_evaluated, read_keys, read_threshold

MOST_SEEDS = 10_000
"""How many seeds may share a program."""
MOST_STEPS = 10**12
"""How long a run may be, in environment steps."""
MOST_EPISODES = 1_000_000
"""How many episodes an evaluation may have: ``evaluation_seed`` leaves room for so many seeds."""
MOST_RUNNERS = 4096
"""How many runners may step environments."""
MOST_WORKERS = 4096
"""How many worker processes may step environments."""
LARGEST_SEED = 2**31 - 1
VERSIONED = ("jax", "jaxlib", "numpy", "gymnasium", "envpool", "mujoco", "gymnax", "brax")


RANGES = {
    "seed": (0, LARGEST_SEED - 1),
    "total_timesteps": (1, MOST_STEPS),
    "eval_every": (0, MOST_STEPS),
    "eval_episodes": (1, MOST_EPISODES),
    "checkpoint_every": (0, MOST_STEPS),
    "workers": (0, MOST_WORKERS),
    "schedule_start": (0, MOST_STEPS),
}
"""The least and the largest value of a plan's whole numbers, wherever they come from."""


@dataclass(frozen=True)
class Identity:
    """What makes a run the one that it is, of its plan. Checkpoints keep it, so that they fit no other run's plan."""

    algorithm: str
    settings: CollectingSettings
    environment: EnvironmentId | None
    environment_name: str
    cost: Cost
    seed: int
    n_seeds: int | None
    lanes: bool = False
    """Whether each environment copy acts alone, so that runners may step it (:mod:`jumar.lanes`)."""

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON-ready data."""
        return {
            "algorithm": self.algorithm,
            "settings": self.settings.to_json(),
            "environment": self.environment.to_json() if self.environment else None,
            "environment_name": self.environment_name,
            "cost": self.cost.text,
            "seed": self.seed,
            "n_seeds": self.n_seeds,
            "lanes": self.lanes,
        }

    @classmethod
    def from_json(cls, data: Any) -> Identity:
        """Take back what ``to_json`` gave. It is a reader of :mod:`jumar.fields`.

        Raises:
            DamagedEntry: it is not what this version of Jumar understands, or a number is out of its range.
        """
        chosen = record(algorithm=made_by(algorithm, text()))(data)["algorithm"]
        # What was written before there were lanes has none.
        found = record(settings=made_by(chosen.make_settings, mapping), **_IDENTITY)({"lanes": False, **mapping(data)})
        if found["seed"] > (last := LARGEST_SEED - (found["n_seeds"] or 1)):
            raise DamagedEntry.wrong(found["seed"], f"at most {last}, for all seeds to be below 2^31").inside("seed")
        return cls(algorithm=chosen.name, **found)

    def difference(self, other: Identity) -> str | None:
        """Return the first thing that is another one in ``other``, as ``seed=0, not 1``; ``None`` where all is equal."""
        for name, (here, there) in _pairs(self.to_json(), other.to_json()).items():
            if here != there and name == "settings":
                pairs = _pairs(here, there)
                name, (here, there) = next((key, pair) for key, pair in pairs.items() if pair[0] != pair[1])
            if here != there:
                return f"{name}={here!r}, not {there!r}"
        return None


@dataclass(frozen=True)
class Origin:
    """Where the policy comes from that a run began with: a warm start."""

    path: str
    """As it was given; nothing is read from there again."""
    policy: str
    """The SHA-256 of its ``policy.safetensors``."""

    def to_json(self) -> dict[str, str]:
        """Return it as plain data."""
        return {"path": self.path, "policy_sha256": self.policy}

    @classmethod
    def from_json(cls, data: Any) -> Origin:
        """Take back what ``to_json`` gave. It is a reader of :mod:`jumar.fields`.

        Raises:
            DamagedEntry: it is not that.
        """
        found = _READ_ORIGIN(data)
        return cls(found["path"], found["policy_sha256"])


_READ_ORIGIN = exact_record(path=text(), policy_sha256=text("[0-9a-f]{64}", "a SHA-256 in hexadecimal"))


@dataclass(frozen=True)
class DataOrigin:
    """Which transitions a run began with."""

    path: str
    """As it was given; nothing is read from there again."""
    sha256: str
    """Of the file."""
    alone: bool
    """Whether the run learns from them alone, so that a step is an update."""

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {"path": self.path, "sha256": self.sha256, "use": "dataset" if self.alone else "prefill"}

    @classmethod
    def from_json(cls, data: Any) -> DataOrigin:
        """Take back what ``to_json`` gave. It is a reader of :mod:`jumar.fields`.

        Raises:
            DamagedEntry: it is not that.
        """
        found = _READ_DATA(data)
        return cls(found["path"], found["sha256"], found["use"] == "dataset")


_READ_DATA = exact_record(
    path=text(), sha256=text("[0-9a-f]{64}", "a SHA-256 in hexadecimal"), use=text("dataset|prefill", "a use of data")
)


@dataclass(frozen=True)
class Plan:
    """What a run is to do. Steps count all environments together.

    Raises:
        UsageError: a number is out of its range (``RANGES``).
    """

    algorithm: str
    settings: CollectingSettings
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
    own_names: OwnNames = OwnNames()
    """What the user's code is called that the policy is made of: all that a file keeps of it."""
    own: OwnCode = field(default=NO_CODE, compare=False)
    """The code itself, which is passed anew in each process."""
    init_from: Origin | None = None
    """What the run began with, where that was not a policy drawn at random."""
    data: DataOrigin | None = None
    """The transitions that were in the replay buffer before any step."""
    stop_at_return: float | None = None
    """The mean return of an evaluation that is enough."""
    stop_without_gain: int | None = None
    """After how many evaluations in a row without a new best one training stops."""
    log_info: tuple[str, ...] = ()
    """Entries of ``info`` whose means are logged."""
    lanes: bool = False
    """Whether each environment copy acts alone, so that runners may step it (:mod:`jumar.lanes`)."""

    def __post_init__(self) -> None:
        for name, (least, most) in RANGES.items():
            check_count(name, getattr(self, name), least, most)
        if self.stop_at_return is not None:
            read_threshold(self.stop_at_return)
        if self.stop_without_gain is not None:
            check_count("stop_without_gain", self.stop_without_gain, 1, MOST_EVALUATIONS)
        read_keys(self.log_info)
        none = "the run has no environment" if self.offline and self.environment is None else ""
        check_evaluated(self.stop_at_return, self.stop_without_gain, self.eval_every, none)
        if self.log_info and self.offline:
            raise UsageError("log_info needs steps in an environment, and the run learns from a data set alone.")
        if self.lanes and self.offline:
            raise UsageError("runners step environments, and the run learns from a data set alone; leave them out.")

    @property
    def offline(self) -> bool:
        """Whether the run learns from a data set alone."""
        return self.data is not None and self.data.alone

    def remaining(self, steps: int) -> float:
        """Return the share of training that is left after so many steps, for schedules."""
        length = self.total_timesteps - self.schedule_start
        return max(0.0, 1.0 - (steps - self.schedule_start) / length) if length > 0 else 0.0

    @property
    def identity(self) -> Identity:
        """What makes the run the one that it is. However the environment was typed, it is the same one."""
        environment = self.environment and replace(self.environment, text=self.environment.full_name)
        return Identity(
            algorithm=self.algorithm,
            settings=self.settings,
            environment=environment,
            environment_name=self.environment_name,
            cost=self.cost,
            seed=self.seed,
            n_seeds=self.n_seeds,
            lanes=self.lanes,
        )

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
        none = "data" if self.offline else "object"
        return self.environment.backend if self.environment else none

    @property
    def seeds(self) -> list[int]:
        """The seed of each lane of the run."""
        return [self.seed + i for i in range(self.n_seeds or 1)]

    @property
    def whole_iterations(self) -> int:
        """The total rounded up to whole iterations: what is trained where every row is experience."""
        steps = self.settings.steps_per_iteration
        return -(-self.total_timesteps // steps) * steps

    def with_own(self, own: OwnCode) -> Plan:
        """Return the plan with the user's code that its policy is made of, passed again.

        Raises:
            UsageError: something is missing, or the policy is not made of it.
        """
        own.check(self.own_names, "the run's policy")
        return replace(self, own=own)

    def without_rule(self, name: str) -> Plan:
        """Return the plan without one of the rules that stop it."""
        return replace(self, **{name: None})

    def with_total(self, total_timesteps: int) -> Plan:
        """Return the plan with a new total; schedules are anchored to it."""
        return replace(self, total_timesteps=total_timesteps)

    def to_json(self) -> dict[str, Any]:
        """Return the plan, with the versions that it was made with, as JSON-ready data."""
        return {
            "jumar": __version__,
            "python": platform.python_version(),
            "versions": {name: version for name in VERSIONED if (version := _version(name))},
            **self.identity.to_json(),
            "environment": self.environment.to_json() if self.environment else None,  # as it was typed
            "backend": self.backend,
            "total_timesteps": self.total_timesteps,
            "eval_every": self.eval_every,
            "eval_episodes": self.eval_episodes,
            "checkpoint_every": self.checkpoint_every,
            "workers": self.workers,
            "preset": self.preset,
            "schedule_start": self.schedule_start,
            "features": self.own_names.features,
            "encoder": self.own_names.encoder,
            "init_from": self.init_from.to_json() if self.init_from else None,
            "data": self.data.to_json() if self.data else None,
            "stop_at_return": self.stop_at_return,
            "stop_without_gain": self.stop_without_gain,
            "log_info": list(self.log_info),
        }

    @classmethod
    def from_json(cls, data: Any, path: str | Path = "config.json") -> Plan:
        """Take back what ``to_json`` gave; ``path`` is where it was read, for messages.

        Raises:
            DamagedFile: it is not a plan that this version understands, or a number is out of its range.
            UsageError: it is of a method of the user's own, which this process has not made.
        """
        with reading(path):
            _check_method(record(algorithm=text())(data)["algorithm"], path)
            identity = Identity.from_json(data)
            rest = _READ_REST({**_LATER, **data})
            names = OwnNames(rest.pop("features"), rest.pop("encoder"))
            known = {key: getattr(identity, key) for key in _OF_IDENTITY}
            try:
                return cls(**known, **rest, own_names=names)
            except UsageError as error:  # two entries that do not go together
                entry = str(error).partition("=")[0].split()[0]
                raise DamagedEntry(f"contradicts another one: {str(error).removesuffix('.')}", (entry,)) from None

    @staticmethod
    def differences_in_versions(data: Any, path: str | Path = "config.json") -> list[str]:
        """Return a sentence for every package whose version is not the one that a saved plan was made with.

        Raises:
            DamagedFile: the versions in ``data``, which was read from ``path``, are none.
        """
        with reading(path):
            saved = _READ_VERSIONS(data)
        pairs = {"jumar": (saved["jumar"], __version__)}
        pairs |= {name: (saved["versions"][name], _version(name)) for name in VERSIONED if name in saved["versions"]}
        return [f"{name} was {then} and is {now}" for name, (then, now) in pairs.items() if then != now]


def _check_method(name: str, path: str | Path) -> None:
    """Raise a ``UsageError`` for a method of the user's own that this process has not made; the file is sound."""
    if is_name(name) and not is_known(name):
        raise UsageError(
            f"{path} is of the method {name!r:.100}, which this process does not know. In Python, make it with jumar.method "
            "and go on with jumar.load; `jumar export` and jumar.load_policy need no method."
        )


def _pairs(here: dict[str, Any], there: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    return {name: (here.get(name), there.get(name)) for name in here | there}


_IDENTITY: dict[str, Reader[Any]] = {
    "environment": optional(EnvironmentId.from_json),
    "environment_name": text(),
    "cost": made_by(parse_cost, optional(text())),
    "seed": whole(*RANGES["seed"]),
    "n_seeds": optional(whole(1, MOST_SEEDS)),
    "lanes": flag,
}
"""The readers of an identity's entries, beside the algorithm and its settings."""
_OF_IDENTITY = ("algorithm", "settings", *_IDENTITY)
_LATER = {"data": None, "encoder": None, "stop_at_return": None, "stop_without_gain": None, "log_info": []}
"""What plans of earlier versions do not speak of."""
_READ_REST = record(
    preset=optional(text()),
    features=optional(text()),
    encoder=optional(text()),
    init_from=optional(Origin.from_json),
    data=optional(DataOrigin.from_json),
    stop_at_return=optional(made_by(read_threshold, number())),
    stop_without_gain=optional(whole(1, MOST_EVALUATIONS)),
    log_info=made_by(read_keys, several(text(), most=MOST_KEYS)),
    **{name: whole(*limits) for name, limits in RANGES.items() if name not in _IDENTITY},
)


def _read_versions(value: Any) -> dict[str, str]:
    return {name: text()(version) for name, version in mapping(value).items() if name in VERSIONED}


_READ_VERSIONS = record(jumar=text(), versions=_read_versions)


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


@functools.cache
def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
