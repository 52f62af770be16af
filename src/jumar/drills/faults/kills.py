"""Processes that are killed: at random moments, and right after chosen operations on files."""

from __future__ import annotations

import contextlib
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from jumar.drills.dying import WHERE
from jumar.drills.processes import Ended, Running, command, complaint, jumar, run, wait_until
from jumar.drills.references import CASES, Case, Reference, newest
from jumar.drills.registry import Bench, Drill, Try, Work, drill

CHAIN = 5
"""How often one run is killed before it may end."""
LONGEST_WAIT = 0.6
"""The longest wait before a kill, as a share of what an undisturbed command takes."""
MOST_CHAINS = 40
BEGINNINGS = ("train", "resume")
LATEST = 40
"""The last operation on files, or iteration, after which a run is killed."""
SAME = (
    "the last of the resumed runs ends with the policy, the logs and the replay buffer of one that nothing disturbed."
)


def killing(case: str) -> Work:
    """Return the work of killing the runs of a case at random moments."""

    def work(bench: Bench) -> Iterator[Try]:
        yield from _chains(bench, bench.references.of(case))

    return work


WHAT = "kill -9 at random moments, and resume: "
SPOKEN = {
    "compiled": "a compiled environment",
    "host": "a host environment in worker processes",
    "replay": "a replay buffer and a host environment",
    "compiled replay": "a replay buffer and a compiled environment",
    "EnvPool": "an environment of EnvPool",
    "seeds": "several seeds in one program",
}
for _case, _spoken in SPOKEN.items():
    _what = f"{WHAT}{_spoken} ({CASES[_case].algorithm} on {CASES[_case].env})."
    drill(f"kills/{_case.replace(' ', '-')}", _what, SAME, whole=20, quick=4)(killing(_case))


def own_drill(name: str, case: Case) -> Drill:
    """Return the drill of killing a run that the user asks for; ``name`` is that of its case."""
    what = f"{WHAT}{case.algorithm} on {case.env}."
    return Drill("kills/own", what, SAME, killing(name), whole=10, quick=4)


def _chains(bench: Bench, reference: Reference) -> Iterator[Try]:
    left, number = bench.tries or 1, 0
    while left > 0 and number < MOST_CHAINS:
        for each in _chain(bench, reference, bench.folder / str(number), min(CHAIN, left)):
            yield each
            left -= 1
        number += 1


def _chain(bench: Bench, reference: Reference, place: Path, kills: int) -> Iterator[Try]:
    """Kill one run again and again, until it ends before; if it is not as it should be then, all kills are lost."""
    place.mkdir()
    case, target, moments = reference.case, place / "run", list[str]()
    words, wrong = case.train(target), None
    while len(moments) < kills and wrong is None:
        # The first stop must leave a run behind. Every other one comes after it has begun to train, however long it compiles.
        trained = bool(len(moments) % 2)
        longest = reference.training if trained else LONGEST_WAIT * reference.seconds
        ended = kill_once(command(*words), place, target, bench, trained=trained, longest=longest)
        wrong = complaint(ended, (0, -signal.SIGKILL))
        words = case.resume(target)
        if ended.code == 0:
            break
        moments.append(f"kill {len(moments) + 1} at step {newest(target)}")
    wrong = wrong or reference.outcome(jumar(*words, folder=place), target)
    for moment in moments or (["the run"] if wrong is not None else []):
        yield Try(moment, wrong)


def kill_once(words: Sequence[str], place: Path, target: Path, bench: Bench, *, trained: bool, longest: float) -> Ended:
    """Start a command, kill it at a random moment, and return how it ended; it may have ended before.

    Args:
        words: the command.
        place: where it runs.
        target: its run directory.
        bench: draws the moment.
        trained: whether to wait for a line of its log first.
        longest: the longest wait in seconds.
    """
    began = time.time()
    with Running(words, place, name="killed") as running:
        wait_until(lambda: newest(target) is not None, running)
        if trained:
            wait_until(lambda: written_since(target, began), running)
        time.sleep(bench.random.uniform(0.0, longest))
        running.send(signal.SIGKILL)
        return running.wait()


def written_since(target: Path, began: float) -> bool:
    """Whether a process that began at a time (in seconds since 1970) has logged an iteration of a run."""
    for path in (target / "metrics.jsonl", *target.glob("seed_*/metrics.jsonl")):
        with contextlib.suppress(FileNotFoundError):
            status = path.stat()
            if status.st_size and status.st_mtime > began + 1.0:
                return True
    return False


@drill(
    "kills/at-operations",
    "kill -9 right after an operation on files (a renaming, a flush, a new folder, a cut, a removal), or after an iteration.",
    SAME,
    whole=60,
    quick=6,
)
def at_operations(bench: Bench) -> Iterator[Try]:
    places = [(kind, begin, where) for kind in ("short", "short replay") for begin in BEGINNINGS for where in WHERE]
    for number, (kind, begin, where) in enumerate(bench.cases(places)):
        reference, count, attempt = bench.references.of(kind), bench.random.randint(1, LATEST), 0
        while True:
            place = bench.folder / f"{number}-{attempt}"
            wrong, died = _died(reference, place, begin, where, count)
            if died or wrong is not None or count == 1:
                break
            count, attempt = count // 2, attempt + 1  # it has fewer of them
        if died or wrong is not None:
            yield Try(f"{kind}, {begin}, {where} {count}", wrong)


def _died(reference: Reference, place: Path, begin: str, where: str, count: int) -> tuple[str | None, bool]:
    """Kill a command after its operation of a number; return what was lost, and whether it had so many."""
    case, target = reference.case, place / "run"
    if begin == "resume":
        reference.copy(target, reference.half)
    words = case.resume(target) if begin == "resume" else case.train(target)
    dying = [sys.executable, "-P", "-m", "jumar.drills.dying", where, str(int(signal.SIGKILL)), str(count)]
    ended = run([*dying, *words], place)
    wrong = complaint(ended, (0, -signal.SIGKILL))
    if wrong is not None or ended.code == 0:
        return wrong, False
    begun = (target / "config.json").exists()
    again = jumar(*(case.resume(target) if begun else case.train(target)), folder=place)
    return reference.outcome(again, target), True
