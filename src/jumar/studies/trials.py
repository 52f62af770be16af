"""The trials of a search, and the file that keeps them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from jumar.fields import DamagedEntry, choice, mapping, number, optional, reading, record, several, text, whole
from jumar.runs.files import read_json, write_json

TRIALS = "trials.json"
KIND = "sweep"
MOST_TRIALS = 10_000
MOST_SEEDS = 1_000

RUNNING, COMPLETE, PRUNED, FAILED = "running", "complete", "pruned", "failed"
STATES = (RUNNING, COMPLETE, PRUNED, FAILED)


@dataclass(frozen=True)
class Trial:
    """Settings that are tried over several seeds.

    Attributes:
        number: From 0 on, in the order in which they were asked for.
        settings: The values of what is searched, as plain data.
        state: One of ``STATES``: not over yet, trained over all seeds, stopped before because others are better, failed.
        scores: Of the first seeds, in their order.
        reason: Why it failed.
        same_as: The earlier trial that had the same settings, whose outcome this one shares: nothing is trained twice.
    """

    number: int
    settings: Mapping[str, Any]
    state: str = RUNNING
    scores: tuple[float, ...] = ()
    reason: str | None = None
    same_as: int | None = None

    @property
    def over(self) -> bool:
        """Whether nothing is left to do for it."""
        return self.state != RUNNING

    def scored(self, *scores: float) -> Trial:
        """Return the trial with the scores of its next seeds."""
        return replace(self, scores=self.scores + scores)

    def failed(self, reason: str) -> Trial:
        """Return the trial as one that failed."""
        return replace(self, state=FAILED, reason=reason)

    def ended(self, state: str) -> Trial:
        """Return the trial as one that is over."""
        return replace(self, state=state)

    def like(self, other: Trial) -> Trial:
        """Return the trial with the outcome of an earlier one that had the same settings."""
        return replace(self, state=other.state, scores=other.scores, reason=other.reason, same_as=other.number)

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {
            "number": self.number,
            "state": self.state,
            "settings": dict(self.settings),
            "scores": list(self.scores),
            "reason": self.reason,
            "same_as": self.same_as,
        }


@dataclass(frozen=True)
class Record:
    """What a sweep's folder says of itself.

    Attributes:
        space: What is searched, as :meth:`jumar.studies.space.Space.to_json` gives it.
        seed: The sweep's seed.
        parallel: How many trials a generation has.
        versions: Of the packages that propose settings.
        trials: All that were asked for so far, in order.
    """

    space: Mapping[str, Any]
    seed: int
    parallel: int
    versions: Mapping[str, str]
    trials: Sequence[Trial] = field(default=())

    def write(self, folder: Path) -> None:
        """Write it to a folder, atomically. Raises ``OSError``."""
        content = {"space": dict(self.space), "seed": self.seed, "parallel": self.parallel}
        content |= {"versions": dict(self.versions), "trials": [trial.to_json() for trial in self.trials]}
        write_json(folder / TRIALS, KIND, content)

    @classmethod
    def read(cls, folder: Path) -> Record:
        """Return what a folder says of itself.

        Raises:
            DamagedFile: the file is missing, changed, or not what a sweep writes.
        """
        path = folder / TRIALS
        with reading(path):
            found = _READ(read_json(path, KIND))
            trials = tuple(Trial(**{**entry, "scores": tuple(entry["scores"])}) for entry in found.pop("trials"))
            for i, trial in enumerate(trials):
                if trial.number != i:
                    raise DamagedEntry.wrong(trial.number, str(i)).inside("number").inside(str(i)).inside("trials")
        return cls(**found, trials=trials)


def _finite(value: Any) -> float:
    read = number()(value)
    if not math.isfinite(read):
        raise DamagedEntry.wrong(value, "a finite number")
    return read


def _versions(value: Any) -> dict[str, str]:
    return {name: text()(version) for name, version in mapping(value).items()}


_READ_ENTRIES = record(
    number=whole(0, MOST_TRIALS),
    state=choice(*STATES),
    settings=mapping,
    scores=several(_finite, most=MOST_SEEDS),
    reason=optional(text()),
    same_as=optional(whole(0, MOST_TRIALS)),
)


def _read_trial(value: Any) -> dict[str, Any]:
    found = _READ_ENTRIES(value)
    if found["state"] in (COMPLETE, PRUNED) and not found["scores"]:
        raise DamagedEntry(f"is empty, and the trial is {found['state']}", ("scores",))
    return found


_READ = record(
    space=mapping,
    seed=whole(0, 2**31),
    parallel=whole(1, MOST_TRIALS),
    versions=_versions,
    trials=several(_read_trial, most=MOST_TRIALS),
)
