"""Environments that raise, hang, crash, or return what is no experience."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from jumar.drills.faulty import VARIABLE
from jumar.drills.processes import UNSPOKEN, Ended, complaint, jumar
from jumar.drills.references import Reference, digest
from jumar.drills.registry import Bench, Try, drill

MEND = {VARIABLE: None}
LATEST = 120
"""The last step at which an environment in a worker process goes wrong: the processes are made anew at each checkpoint."""


@dataclass(frozen=True)
class Fault:
    """How an environment goes wrong, and what is to be said of it.

    Attributes:
        name: of :data:`jumar.drills.faulty.ACTS` and its like.
        code: the right exit code.
        said: a regular expression that is found in what is said; ``None``: the process is gone, and cannot say anything.
    """

    name: str
    code: int
    said: str | None


RETURNED = (
    Fault("raise", 1, r"raised at step \d+: ValueError: boom \(faulty\.py"),
    Fault("generator exit", 1, r"raised at step \d+: GeneratorExit"),
    Fault("nan", 1, r"returned a bad observation at step \d+: \[1\] is nan"),
    Fault("shape", 1, r"returned a bad observation at step \d+"),
    Fault("scalar", 1, r"returned a bad observation at step \d+"),
    Fault("text", 1, r"returned a bad observation at step \d+"),
    Fault("inf reward", 1, r"returned a bad reward at step \d+: inf"),
    Fault("no reward", 1, r"returned a bad reward at step \d+"),
    Fault("four values", 1, r"returned 4 values at step \d+"),
    Fault("no mask", 1, r"gave an action mask at step \d+ that allows no action"),
)
"""What can be named wherever the environment is."""
HERE = (
    Fault("interrupt", 130, "stopped|interrupted"),
    Fault("close", 1, "was closed by something else"),
    Fault("exit", 7, None),
    Fault("exit zero", 0, None),
    Fault("crash", -11, None),
    Fault("abort", -6, None),
    Fault("killed", -9, None),
)
"""What takes the whole process along, where the environment is in it."""
IN_WORKERS = (
    Fault("interrupt", 1, r"raised at step \d+: KeyboardInterrupt"),
    Fault("close", 1, r"died \(its environments closed its connection\)"),
    Fault("exit", 1, r"died \(exit code 7\) while stepping environment \d"),
    Fault("exit zero", 1, r"died \(exit code 0\) while stepping environment \d"),
    Fault("crash", 1, r"died \(killed by SIGSEGV\) while stepping environment \d"),
    Fault("abort", 1, r"died \(killed by SIGABRT\) while stepping environment \d"),
    Fault("killed", 1, r"died \(killed by SIGKILL\) while stepping environment \d"),
)
"""What a worker process dies of, and Jumar survives."""
HANGS = Fault("hang", 1, r"did not return from step \d+ within 60 s and was stopped")
SURVIVED = (
    "the exit code is the documented one, the fault is named with environment and step where a process is left to name it, and "
    "once the environment is mended, jumar resume ends with the policy of a run that nothing disturbed."
)


@drill("environments/here", "An environment goes wrong at a random step, in Jumar's own process.", SURVIVED, quick=5)
def here(bench: Bench) -> Iterator[Try]:
    yield from _each(bench, "drilled", (*RETURNED, *HERE), 900)


@drill("environments/workers", "An environment goes wrong at a random step, in a worker process.", SURVIVED, quick=5)
def in_workers(bench: Bench) -> Iterator[Try]:
    yield from _each(bench, "drilled in workers", (*RETURNED, *IN_WORKERS), LATEST)


@drill("environments/hanging", "An environment in a worker process does not return from a step.", SURVIVED, quick=1)
def hanging(bench: Bench) -> Iterator[Try]:
    yield from _each(bench, "drilled in workers", (HANGS,), LATEST)


def _each(bench: Bench, case: str, faults: tuple[Fault, ...], latest: int) -> Iterator[Try]:
    reference = bench.references.of(case)
    for number, fault in enumerate(bench.cases(faults)):
        at = bench.random.randrange(20, latest)
        place = bench.folder / str(number)
        yield Try(f"{fault.name} at step {at}", _lost(reference, fault, at, place))


def _lost(reference: Reference, fault: Fault, at: int, place: Path) -> str | None:
    case, run = reference.case, place / "run"
    broken = jumar(*case.train(run), folder=place, environment={VARIABLE: f"{fault.name}:{at}"})
    if (wrong := _complaint(broken, fault)) is not None:
        return wrong
    if fault.said is not None and not digest(run):
        return "the policy of before was not saved"
    ended = jumar(*case.resume(run), folder=place, environment=MEND)
    return reference.outcome(ended, run)


def _complaint(ended: Ended, fault: Fault) -> str | None:
    if fault.said is not None:
        return complaint(ended, (fault.code,), fault.said)
    # Nobody is left to say anything, and where the exit code is 0, the missing last line tells.
    if ended.code != fault.code:
        return complaint(ended, (fault.code,)) or f"exit code {ended.code}"
    if ended.answer():
        return "it printed its last line all the same"
    shown = next((words for words in UNSPOKEN if words in ended.errors), None)
    return None if shown is None else f"it showed {shown!r}"
