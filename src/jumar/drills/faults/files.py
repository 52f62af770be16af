"""Runs with damaged, missing, exchanged and forged files, and the whole commands that meet them."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from jumar.drills.machine import snapshot
from jumar.drills.processes import complaint
from jumar.drills.references import Reference
from jumar.drills.registry import Bench, Try, drill
from jumar.drills.session import Session

KINDS = ("short", "short replay")
WISHES = ("total_timesteps", "eval_every", "eval_episodes", "checkpoint_every", "workers")
"""Entries of config.json that say how long a run is, and how often something is done."""
Damage = Callable[[Path, random.Random], None]
"""Damages a file."""


def _cut_to(share: float) -> Damage:
    def cut(path: Path, chance: random.Random) -> None:
        data = path.read_bytes()
        path.write_bytes(data[: int(share * len(data))])

    return cut


def _cut_last(path: Path, chance: random.Random) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def _cut_anywhere(path: Path, chance: random.Random) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: chance.randint(0, len(data))])


def _flip(path: Path, chance: random.Random) -> None:
    data = bytearray(path.read_bytes())
    if data:
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    path.write_bytes(data)


def _zeros(path: Path, chance: random.Random) -> None:
    """As some file systems leave a file that was not flushed: right in length, and nothing in it."""
    path.write_bytes(bytes(path.stat().st_size))


def _longer(path: Path, chance: random.Random) -> None:
    path.write_bytes(path.read_bytes() + chance.randbytes(100))


def _foreign(path: Path, chance: random.Random) -> None:
    path.write_bytes(b"\x80\x04\x95\x0f\x00\x00\x00\x00\x00\x00\x00\x8c\x08builtins\x94\x8c\x04exec\x94\x93\x94.")


DAMAGES: Mapping[str, Damage] = {
    "empty": _cut_to(0.0),
    "cut at a half": _cut_to(0.5),
    "without its last byte": _cut_last,
    "cut anywhere": _cut_anywhere,
    "with a flipped bit": _flip,
    "of zeros": _zeros,
    "longer": _longer,
    "a pickle": _foreign,
    "missing": lambda path, chance: path.unlink(),
}


@drill(
    "files/damaged",
    "One file of a run that was stopped half-way is cut, emptied, changed by a bit, lengthened, foreign or missing.",
    "jumar resume ends with the policy of a run that nothing disturbed, from an older checkpoint if need be and saying so, or "
    "refuses in a sentence that names the file, and then nothing is changed.",
    whole=150,
    quick=15,
)
def damaged(bench: Bench) -> Iterator[Try]:
    with Session(bench.folder) as session:
        for _ in range(bench.tries or 1):
            reference = bench.references.of(bench.random.choice(KINDS))
            target = reference.copy(bench.folder / "run", _middle(reference))
            files = sorted(path for path in target.rglob("*") if path.is_file() and path.name != ".lock")
            path, how = bench.random.choice(files), bench.random.choice(sorted(DAMAGES))
            DAMAGES[how](path, bench.random)
            before = snapshot(target)
            ended = session.jumar(*reference.case.resume(target))
            wrong = complaint(ended, (0, 1, 2))
            if wrong is None and ended.code == 0:
                wrong = reference.difference(target) if _matters(path) else reference.other_policy(target)
            elif wrong is None and path.name not in f"{ended.output}{ended.errors}":
                wrong = f"{path.name} is not named: {ended.last_words}"
            elif wrong is None and _without_lock(snapshot(target)) != _without_lock(before):
                wrong = "it refused, and changed something all the same"
            yield Try(f"{path.relative_to(target)} {how}", wrong)
            shutil.rmtree(target)


def _middle(reference: Reference) -> int:
    """Return the step of the second checkpoint that is kept, so that there is one before it."""
    from jumar.runs.checkpoints import CheckpointStore

    return CheckpointStore(reference.path / "checkpoints").steps()[1]


def _matters(path: Path) -> bool:
    """Whether what is compared depends on a file; logs that were changed stay so, and are named."""
    return path.suffix != ".jsonl"


def _without_lock(seen: dict[str, object]) -> dict[str, object]:
    return {name: content for name, content in seen.items() if name != ".lock"}


@drill(
    "files/exchanged",
    "A file of a run is that of another run, sound in itself.",
    "it is refused in a sentence, or training goes on and ends with the policy of a run that nothing disturbed.",
    whole=60,
    quick=6,
)
def exchanged(bench: Bench) -> Iterator[Try]:
    own, other = bench.references.of("short"), bench.references.of("short replay")
    with Session(bench.folder) as session:
        for _ in range(bench.tries or 1):
            target = own.copy(bench.folder / "run", _middle(own))
            shared = _shared(target, other.path)
            name = bench.random.choice(sorted(shared))
            shutil.copyfile(shared[name], target / name)
            ended = session.jumar(*own.case.resume(target))
            wrong = complaint(ended, (0, 1, 2))
            if wrong is None and ended.code == 0:
                wrong = own.other_policy(target)
            yield Try(name, wrong)
            shutil.rmtree(target)


def _shared(target: Path, other: Path) -> dict[str, Path]:
    """Return for each file of a run, by its path in it, the one of the same kind of another run, where it has one."""
    newest = max((other / "checkpoints").iterdir())
    found = {}
    for path in target.rglob("*"):
        name = path.relative_to(target)
        same = newest / name.name if name.parts[0] == "checkpoints" else other / name
        if path.is_file() and same.is_file() and name.name != ".lock":
            found[str(name)] = same
    return found


@drill(
    "files/forged",
    "Values of config.json, checkpoint.json and policy.json are absurd (sizes, seeds, steps, texts), and the digests right.",
    "every command that opens the run ends in time with what it should give, or refuses in a sentence.",
    whole=300,
    quick=25,
)
def forged_values(bench: Bench) -> Iterator[Try]:
    from jumar.drills.faults.entries import COMMANDS
    from jumar.drills.fuzzing.mutations import ABSURD, LEFT_OUT, at, changed, forged, places
    from jumar.runs.files import read_json

    reference = bench.references.of("short")
    kinds = {"config.json": "run configuration", "policy.json": "policy", "checkpoint.json": "checkpoint"}
    with Session(bench.folder) as session:
        for _ in range(bench.tries or 1):
            target = reference.copy(bench.folder / "run", _middle(reference))
            name = bench.random.choice(sorted(kinds))
            path = max(target.glob("checkpoints/*/checkpoint.json")) if name == "checkpoint.json" else target / name
            data = read_json(path, kinds[name])
            command = bench.random.choice(sorted(COMMANDS))
            # Another total is another wish: a run that asks for more steps trains longer.
            known = [each for each in places(data) if command != "resume" or each[0] not in WISHES]
            place = bench.random.choice(known)
            value = bench.random.choice(ABSURD)
            if value is LEFT_OUT and isinstance(at(data, place[:-1]), list):
                value = None
            path.write_bytes(forged(kinds[name], changed(data, place, value)))
            ended = session.jumar(*COMMANDS[command](target, bench.folder), seconds=120.0)
            shown = "left out" if value is LEFT_OUT else f"{value!r:.40}"
            what = f"{name}: {'.'.join(map(str, place))} is {shown}, {command}"
            yield Try(what, complaint(ended, (0, 1, 2)))
            shutil.rmtree(target)
            for made in ("never", "comparison"):
                shutil.rmtree(bench.folder / made, ignore_errors=True)
