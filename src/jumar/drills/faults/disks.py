"""Disks that are full, full for a while, or cannot be written."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from jumar.drills.faults.kills import written_since
from jumar.drills.machine import change_disk, immutable, small_disk, snapshot
from jumar.drills.processes import Running, command, complaint, jumar, run, wait_until
from jumar.drills.references import Reference, newest
from jumar.drills.registry import Bench, Try, drill

NAMED = r"could not be saved|No space left|File too large|no space is left|cannot be written"
"""What is said of something that could not be saved."""
KINDS = ("short", "short replay", "host")
FULL_FOR = 2.0
"""Seconds for which a disk is full."""
RESUMED = "and once there is space again, jumar resume ends with the policy of a run that nothing disturbed."


@drill(
    "disks/every-operation",
    "Each operation on files of each kind of save fails once: a power loss, an error, a disk that is full from there on.",
    "a reader finds the old one or the new one, never half, and saving once more is enough.",
)
def every_operation(bench: Bench) -> Iterator[Try]:
    ended = run([sys.executable, "-P", "-m", "jumar.drills.struck", str(bench.folder)], bench.folder)
    for line in ended.output.splitlines():
        found = json.loads(line)
        yield Try(found["try"], found["lost"])
    if (wrong := complaint(ended, (0,))) is not None:
        yield Try("the process", wrong)


@drill(
    "disks/full",
    "A disk too small for the run, from its first file on or from later on.",
    f"the exit code is 1 or 2 and what could not be saved is named, what is there can be read, {RESUMED}",
    whole=12,
    quick=2,
)
def full(bench: Bench) -> Iterator[Try]:
    for number, kind in enumerate(bench.cases(KINDS)):
        reference, size = bench.references.of(kind), 4 * bench.random.randint(2, 60)
        place = bench.folder / str(number)
        place.mkdir()
        with small_disk(place / "disk", f"{size}k") as disk:
            lost = _lost_on(reference, disk, place)
        yield Try(f"{kind} on a disk of {size} kB", lost)


def _lost_on(reference: Reference, disk: Path, place: Path) -> str | None:
    case, target = reference.case, disk / "run"
    ended = jumar(*case.train(target), folder=place)
    wrong = complaint(ended, (1, 2), NAMED) if ended.code else complaint(ended, (0,))
    if wrong is not None:
        return wrong
    change_disk(disk, "size=100m")
    return _once_there_is_space(reference, target, place)


def _once_there_is_space(reference: Reference, target: Path, place: Path) -> str | None:
    """Go on with a run whose disk was full; return what was lost.

    Lines of logs may be lost: that was said, and made the exit code 1.
    """
    case = reference.case
    if not (target / "config.json").exists():
        return reference.outcome(jumar(*case.train(target), folder=place), target)
    ended = jumar(*case.resume(target), folder=place)
    if (
        newest(target) is None and ended.code
    ):  # not even the first checkpoint could be saved, and what was trained is not replaced
        return complaint(ended, (1,), "holds no checkpoint, but the run has trained")
    return complaint(ended, (0,)) or reference.other_policy(target)


@drill(
    "disks/file-size",
    "Files that may not grow beyond some size (ulimit -f).",
    f"the exit code is 1 or 2 and what could not be saved is named, what is there can be read, {RESUMED}",
    whole=10,
    quick=2,
)
def file_size(bench: Bench) -> Iterator[Try]:
    for number, kind in enumerate(bench.cases(KINDS)):
        reference, size = bench.references.of(kind), bench.random.randint(1, 20_000)
        place = bench.folder / str(number)
        case, target = reference.case, place / "run"
        # Programs that are compiled anew are not kept in the cache either.
        ended = jumar(*case.train(target), folder=place, limits={"FSIZE": size})
        wrong = complaint(ended, (1, 2), NAMED) if ended.code else complaint(ended, (0,))
        wrong = wrong or _once_there_is_space(reference, target, place)
        yield Try(f"{kind}, files of at most {size} bytes", wrong)


@drill(
    "disks/full-for-a-while",
    f"The disk is filled while a run trains, and freed {FULL_FOR:g} s later.",
    "the run goes on to its end; policy, logs and replay buffer are those of a run that nothing disturbed.",
    whole=6,
    quick=1,
)
def full_for_a_while(bench: Bench) -> Iterator[Try]:
    for number, kind in enumerate(bench.cases(("compiled", "host", "replay"))):
        reference, place = bench.references.of(kind), bench.folder / str(number)
        place.mkdir()
        with small_disk(place / "disk", "20m") as disk:
            target, began = disk / "run", time.time()
            with Running(command(*reference.case.train(target)), place) as running:
                wait_until(lambda at=began, run=target: written_since(run, at), running)
                time.sleep(bench.random.uniform(0.0, 0.5 * reference.training))
                _fill(disk / "ballast")
                time.sleep(FULL_FOR)
                (disk / "ballast").unlink()
                ended = running.wait()
            # What was the newest checkpoint then may be missing; training needs none.
            wrong = complaint(ended, (1,), NAMED) if ended.code else complaint(ended, (0,))
            if wrong is None:
                wrong = reference.outcome(jumar(*reference.case.resume(target), folder=place), target)
            yield Try(kind, wrong)


def _fill(path: Path) -> None:
    """Write to a file until the disk is full."""
    with path.open("wb", buffering=0) as file:
        for size in (2**16, 2**12, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue


@drill(
    "disks/read-only",
    "A run on a disk that can only be read: resume refuses in a sentence, evaluate and list work, and nothing is changed.",
    "the exit codes are 2 (or 1) and 0, the path is named, and every byte is what it was.",
)
def read_only(bench: Bench) -> Iterator[Try]:
    reference, place = bench.references.of("short"), bench.folder
    with small_disk(place / "disk", "20m") as disk:
        target = reference.copy(disk / "run", reference.half)
        before = snapshot(target)
        change_disk(disk, "ro")
        commands = {
            "resume": (reference.case.resume(target), (1, 2), "Read-only file system|cannot be written"),
            "train": (reference.case.train(disk / "new"), (2,), "read-only"),
            "evaluate": (["evaluate", str(target), "--episodes", "2", "--json"], (0,), "mean_return"),
            "list": (["list", "runs", str(disk), "--json"], (0,), "stopped"),
            "report": (["report", str(target)], (2,), "cannot be written"),
        }
        for name, (words, codes, said) in commands.items():
            wrong = complaint(jumar(*words, folder=place), codes, said)
            if wrong is None and snapshot(target) != before:
                wrong = "something was changed"
            yield Try(name, wrong)


@drill(
    "disks/immutable",
    "A log, or the folder of the checkpoints, that cannot be changed (chattr +i) while a run is resumed.",
    "the exit code is 1 or 2 and the file is named, and once it can be changed, the resumed run ends like one that nothing "
    "disturbed.",
    quick=1,
)
def unchangeable(bench: Bench) -> Iterator[Try]:
    reference = bench.references.of("short")
    for number, name in enumerate(bench.cases(("metrics.jsonl", "evaluations.jsonl", "checkpoints", "policy.json"))):
        place = bench.folder / str(number)
        place.mkdir()
        target = reference.copy(place / "run", reference.half)
        with immutable(target / name):
            ended = jumar(*reference.case.resume(target), folder=place)
            wrong = complaint(ended, (1, 2), f"{name}|policy|checkpoint|state")
        if wrong is None:
            wrong = reference.outcome(jumar(*reference.case.resume(target), folder=place), target)
        yield Try(name, wrong)
