"""Signals that ask a run to stop, or let it wait."""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from jumar.drills.faults.kills import written_since
from jumar.drills.processes import Ended, Running, command, complaint, jumar, wait_until
from jumar.drills.references import Reference, digest, newest
from jumar.drills.registry import Bench, Try, drill

STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
KINDS = ("compiled", "host", "replay", "compiled replay", "seeds")
MOST_ATTEMPTS = 3
PAUSE = 2.0
"""Seconds for which a process stands still."""


@drill(
    "signals/stop",
    "SIGINT, SIGTERM or SIGHUP at a random moment.",
    "the run saves and exits with 128 plus the signal's number (or is done already), and the resumed one ends with the policy, "
    "the logs and the replay buffer of one that nothing disturbed.",
    whole=30,
    quick=5,
)
def stopped(bench: Bench) -> Iterator[Try]:
    cases = [(number, kind) for kind in KINDS for number in STOPS]
    for i, (number, kind) in enumerate(bench.cases(cases)):
        reference, place = bench.references.of(kind), bench.folder / str(i)
        target = place / "run"
        ended = _signalled(bench, reference, place, number)
        at = f"{kind}, {number.name} at step {newest(target)}"
        wrong = complaint(ended, (0, 128 + number))
        if wrong is None and ended.code and not all(digest(target / lane) for lane in reference.case.lanes):
            wrong = "no policy was saved"
        if wrong is None:
            wrong = reference.outcome(jumar(*reference.case.resume(target), folder=place), target)
        yield Try(at, wrong)


@drill(
    "signals/twice",
    "SIGTERM twice: the second one ends the process at once.",
    "it exits with 143 (or dies of the signal where it is done already), and the resumed run ends like one that nothing "
    "disturbed.",
    whole=10,
    quick=2,
)
def twice(bench: Bench) -> Iterator[Try]:
    for i, kind in enumerate(bench.cases(KINDS)):
        reference, place = bench.references.of(kind), bench.folder / str(i)
        ended = _signalled(bench, reference, place, signal.SIGTERM, signal.SIGTERM)
        # After its last words a command has given the signals back to the system.
        wrong = complaint(ended, (0, 128 + signal.SIGTERM, *([-signal.SIGTERM] if ended.answer() else [])))
        if wrong is None:
            wrong = reference.outcome(jumar(*reference.case.resume(place / "run"), folder=place), place / "run")
        yield Try(kind, wrong)


@drill(
    "signals/hangup-ignored",
    "SIGHUP under nohup, which ignores it.",
    "the run goes on to its end, which is that of one that nothing disturbed.",
    whole=4,
    quick=1,
)
def ignored(bench: Bench) -> Iterator[Try]:
    for i, kind in enumerate(bench.cases(KINDS)):
        reference, place = bench.references.of(kind), bench.folder / str(i)
        ended = _signalled(bench, reference, place, signal.SIGHUP, before=("nohup",))
        yield Try(kind, reference.outcome(ended, place / "run"))


@drill(
    "signals/pause",
    f"SIGSTOP, {PAUSE:g} s of standing still, and SIGCONT.",
    "the run goes on to its end, which is that of one that nothing disturbed.",
    whole=10,
    quick=2,
)
def paused(bench: Bench) -> Iterator[Try]:
    for i, kind in enumerate(bench.cases(KINDS)):
        reference, place = bench.references.of(kind), bench.folder / str(i)
        ended = _signalled(bench, reference, place, signal.SIGSTOP)
        yield Try(kind, reference.outcome(ended, place / "run"))


def _signalled(
    bench: Bench, reference: Reference, place: Path, *numbers: signal.Signals, before: tuple[str, ...] = ()
) -> Ended:
    """Train a case, send it signals at a random moment after it has begun to train, and return how it ended.

    Where it had ended before, it is done once more, from the beginning.
    """
    for attempt in range(1, MOST_ATTEMPTS + 1):
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        target, began = place / "run", time.time()
        with Running([*before, *command(*reference.case.train(target))], place) as running:
            wait_until(lambda run=target, at=began: written_since(run, at), running)
            time.sleep(bench.random.uniform(0.0, reference.training))
            heard = running.under_way
            for number in numbers:
                running.send(number)
                if number == signal.SIGSTOP:
                    time.sleep(PAUSE)
                    running.send(signal.SIGCONT)
            ended = running.wait()
        if heard or attempt == MOST_ATTEMPTS:
            return ended
    raise AssertionError("it returns with the last attempt")
