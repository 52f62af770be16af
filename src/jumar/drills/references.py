"""Small runs, and how each ends where nothing disturbs it: what a disturbed one is compared with."""

from __future__ import annotations

import hashlib
import importlib.util
import shutil
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from jumar.drills.processes import Ended, complaint, jumar
from jumar.drills.registry import Unable
from jumar.runs import logs
from jumar.runs.checkpoints import CheckpointStore

QUIET = ("--quiet", "--json")
SMALL = ("--n-envs", "2", "--n-steps", "32", "--net-arch", "8", "--preset", "none")
NORMALISED = ("--normalize-observations", "--normalize-rewards")
PPO = ("--n-epochs", "2", "--batch-size", "32")
REPLAY = ("--n-envs", "2", "--net-arch", "8", "--batch-size", "8", "--buffer-size", "300", "--log-every", "80")
REPLAY += ("--learning-starts", "60", "--gradient-steps", "-1", "--train-freq", "8", "--preset", "none", *NORMALISED)
DRILLED = "jumar.drills.faulty:Drilled-v0"
STEPS = "time/total_timesteps"
"""The only entry of its group that no clock measures: the others are never the same twice."""


@dataclass(frozen=True)
class Case:
    """A small training run.

    Attributes:
        algorithm: its method.
        env: its environment.
        options: of ``jumar train``.
        total: environment steps.
        every: steps between checkpoints.
        lanes: the directories of its seeds within that of the run.
        needs: a package that must be installed.
    """

    algorithm: str
    env: str
    options: Sequence[str]
    total: int
    every: int
    lanes: Sequence[str] = (".",)
    needs: str | None = None

    @property
    def repeat(self) -> list[str]:
        """What a user types again to resume or evaluate it: the environment that is their own code."""
        return ["--env", self.env] if ":" in self.env else []

    def train(self, run: Path | str) -> list[str]:
        """Return the words after ``jumar`` that begin it in a directory."""
        numbers = ["--total-timesteps", str(self.total), "--checkpoint-every", str(self.every), "--seed", "3"]
        numbers += ["--eval-every", str(4 * self.every), "--eval-episodes", "2", "--run-dir", str(run)]
        return ["train", self.algorithm, self.env, *self.options, *numbers, *QUIET]

    def resume(self, run: Path | str) -> list[str]:
        """Return the words after ``jumar`` that go on with it."""
        return ["resume", str(run), *self.repeat, *QUIET]


CASES: Mapping[str, Case] = {
    "compiled": Case("ppo", "jax/CartPole-v1", (*SMALL, *PPO, *NORMALISED), 20_480, 1_024),
    "host": Case("ppo", "gymnasium/CartPole-v1", (*SMALL, *PPO, *NORMALISED, "--workers", "2"), 6_144, 512),
    "replay": Case("sac", "gymnasium/Pendulum-v1", (*REPLAY, "--workers", "0"), 2_400, 240),
    "compiled replay": Case("sac", "jax/Pendulum-v1", REPLAY, 4_800, 240),
    "EnvPool": Case("ppo", "envpool/CartPole-v1", (*SMALL, *PPO, *NORMALISED), 12_288, 1_024, needs="envpool"),
    "seeds": Case(
        "ppo", "jax/CartPole-v1", (*SMALL, *PPO, "--n-seeds", "3"), 10_240, 1_024, ("seed_3", "seed_4", "seed_5")
    ),
    "drilled": Case("ppo", DRILLED, (*SMALL, *PPO, "--workers", "0"), 2_048, 256),
    "drilled in workers": Case("ppo", DRILLED, (*SMALL, *PPO, "--workers", "2"), 2_048, 256),
    "short": Case("ppo", "jax/CartPole-v1", (*SMALL, *PPO), 2_048, 256),
    "short replay": Case("sac", "jax/Pendulum-v1", REPLAY, 960, 240),
}
"""The runs that drills disturb, by name. They are small, with many checkpoints, so that a kill often meets one."""


@dataclass(frozen=True)
class Reference:
    """A run that nothing disturbed.

    Attributes:
        case: what it is.
        path: its directory, which nobody may change.
        seconds: that the command took.
    """

    case: Case
    path: Path
    seconds: float

    @property
    def training(self) -> float:
        """The seconds from its first iteration to its last one: without what begins and ends the process."""
        lines = logs.read(self.path / self.case.lanes[0] / "metrics.jsonl")
        return max(0.1, float(lines[-1]["time/elapsed"]) - float(lines[0]["time/elapsed"]))

    def copy(self, place: Path, step: int | None = None) -> Path:
        """Copy it to a place; with a ``step``, as a kill leaves it before the next checkpoint after that step."""
        shutil.copytree(self.path, place)
        if step is not None:
            CheckpointStore(place / "checkpoints").discard_after(step)
        return place

    @property
    def half(self) -> int:
        """The step of the oldest checkpoint that is kept."""
        return CheckpointStore(self.path / "checkpoints").steps()[0]

    def other_policy(self, run: Path) -> str | None:
        """Return, in a sentence, that the policy of a run is another one than this run's; ``None`` where it is the same."""
        for lane in self.case.lanes:
            if digest(run / lane) != digest(self.path / lane):
                return f"{lane}/policy.safetensors is another one than that of a run that nothing disturbed"
        return None

    def difference(self, run: Path) -> str | None:
        """Return how a run differs from this one, in a sentence; ``None`` where policy, logs and replay buffer are the same."""
        if (words := self.other_policy(run)) is not None:
            return words
        for lane in self.case.lanes:
            for name in ("metrics.jsonl", "evaluations.jsonl"):
                if _logged(run / lane / name) != _logged(self.path / lane / name):
                    return f"{lane}/{name} has other lines than that of a run that nothing disturbed"
        if segments(run) != segments(self.path):
            return "replay/ has other segments than that of a run that nothing disturbed"
        return None

    def outcome(self, ended: Ended, run: Path) -> str | None:
        """Return what is wrong with the last command of a disturbed run, or with the run; ``None`` if nothing is."""
        return complaint(ended, (0,)) or self.difference(run)


@dataclass
class References:
    """Runs that nothing disturbs, each trained once, when it is first asked for."""

    folder: Path
    cases: Mapping[str, Case] = field(default_factory=lambda: CASES)
    _locks: dict[str, threading.Lock] = field(default_factory=dict)
    _known: dict[str, Reference] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def of(self, name: str) -> Reference:
        """Return the reference of a case.

        Raises:
            Unable: a package that it needs is not installed.
            RuntimeError: it cannot be trained, even without a fault.
        """
        with self._lock:
            lock = self._locks.setdefault(name, threading.Lock())
        with lock:
            if name not in self._known:
                self._known[name] = self._train(name, self.cases[name])
            return self._known[name]

    def _train(self, name: str, case: Case) -> Reference:
        if case.needs is not None and importlib.util.find_spec(case.needs) is None:
            raise Unable(f"{case.needs} is not installed.")
        place = self.folder / name.replace(" ", "_")
        place.mkdir(parents=True)
        began = time.monotonic()
        ended = jumar(*case.train(place / "run"), folder=place)
        if (wrong := complaint(ended, (0,))) is not None:
            raise RuntimeError(f"the run that nothing disturbs failed: {wrong}")
        return Reference(case, place / "run", time.monotonic() - began)


def digest(run: Path) -> str:
    """Return the SHA-256 of a run's policy; empty where there is none."""
    try:
        return hashlib.sha256((run / "policy.safetensors").read_bytes()).hexdigest()
    except OSError:
        return ""


def segments(run: Path) -> list[str]:
    """Return the names of the segments of a replay buffer, which have their digests in them; none without one."""
    return sorted(path.name for path in (run / "replay").glob("*"))


def newest(run: Path) -> int | None:
    """Return the step of the newest checkpoint, sound or not; ``None`` without one."""
    return max((int(path.name) for path in (run / "checkpoints").glob("[0-9]" * 12)), default=None)


def _logged(path: Path) -> list[dict[str, object]]:
    return [
        {name: x for name, x in entry.items() if name == STEPS or not name.startswith("time/")}
        for entry in logs.read(path)
    ]
