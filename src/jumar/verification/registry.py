"""The checks by name, and running them."""

from __future__ import annotations

import importlib
import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from jumar.console.signals import Stopped
from jumar.errors import UsageError, unknown

Measure = Callable[[], float]

GROUPS = (
    "distributions",
    "estimators",
    "importance",
    "objectives",
    "experience",
    "curvature",
    "gradients",
    "trust_regions",
    "critics",
    "soft",
    "normaliser",
    "runs",
)
"""The modules of ``jumar.verification.checks``, in the order in which their checks run."""


@dataclass(frozen=True)
class Check:
    """A comparison of shipped code with what is known to be right."""

    name: str
    """``group/name``."""
    what: str
    """What is compared with what, in a few words."""
    bound: float
    """The largest number that passes."""
    measure: Measure
    """Runs the code and returns the number."""
    quick: bool = False
    """Whether it is one of those that ``--quick`` runs."""


@dataclass(frozen=True)
class Result:
    """What came of a check."""

    check: Check
    measured: float
    """NaN where the check raised an exception."""
    seconds: float
    error: str | None = None
    """The exception, in a sentence."""

    @property
    def passed(self) -> bool:
        """Whether the number is at most its bound; NaN never is."""
        return self.error is None and self.measured <= self.check.bound

    def to_json(self) -> dict[str, Any]:
        """Return the result as ``jumar verify --json`` prints it."""
        found = {
            "name": self.check.name,
            "passed": self.passed,
            "measured": self.measured,
            "bound": self.check.bound,
            "seconds": round(self.seconds, 3),
            "what": self.check.what,
        }
        return found if self.error is None else {**found, "error": self.error}


_checks: dict[str, Check] = {}


def check(name: str, what: str, bound: float, quick: bool = False) -> Callable[[Measure], Measure]:
    """Return a decorator that registers a function as the check of a name.

    Raises:
        ValueError: the name is taken.
    """

    def register(measure: Measure) -> Measure:
        if name in _checks:
            raise ValueError(f"the check {name} is there already")
        _checks[name] = Check(name, what, bound, measure, quick)
        return measure

    return register


def checks() -> tuple[Check, ...]:
    """Return all checks in the order in which they run; this imports JAX."""
    for group in GROUPS:
        importlib.import_module(f"jumar.verification.checks.{group}")
    return tuple(sorted(_checks.values(), key=lambda each: GROUPS.index(group_of(each.name))))


def group_of(name: str) -> str:
    """Return the module that a check is in: ``trust-regions/kl`` is in ``trust_regions``."""
    return name.partition("/")[0].replace("-", "_")


def select(every: Sequence[Check], names: Iterable[str], quick: bool = False) -> list[Check]:
    """Return the checks that the names stand for, each once and in their order; all of them without a name.

    A name is a check, or a group such as ``gradients``. ``curvature/fisher``, which is neither, stands for the checks whose
    names go on with a hyphen, and ``gae`` for ``estimators/gae``.

    Args:
        every: all checks.
        names: as typed.
        quick: leave out those that take longer.

    Raises:
        UsageError: a name stands for none; the message has the nearest. Or only the slower checks have that name.
    """
    known = [each.name for each in every]
    wanted: set[str] = set()
    for name in names:
        typed = name.rstrip("/")
        found = [typed] if typed in known else [each for each in known if each.startswith((typed + "/", typed + "-"))]
        found = found or [each for each in known if each.partition("/")[2] == typed]
        if not found:
            groups = dict.fromkeys(each.partition("/")[0] for each in known)
            raise unknown("check", name, [*groups, *known], listed_by="jumar verify --list")
        wanted.update(found)
    chosen = [each for each in every if not wanted or each.name in wanted]
    some = [each for each in chosen if each.quick or not quick]
    if not some:
        raise UsageError(f"--quick leaves out {chosen[0].name}; run it without --quick.")
    return some


def run_one(chosen: Check, clock: Callable[[], float] = time.perf_counter) -> Result:
    """Run a check, and return what came of it; an exception is a check that failed.

    Raises:
        Stopped: a signal came while the check trained.
    """
    began = clock()
    measured, error = math.nan, None
    try:
        measured = float(chosen.measure())
    except Stopped as stopped:
        raise Stopped(stopped.signal_number) from None  # what it saved goes with the check
    except Exception as raised:
        first = (str(raised).strip().splitlines() or [""])[0]
        error = f"{type(raised).__name__}: {first}" if first else type(raised).__name__
    return Result(chosen, measured, clock() - began, error)
