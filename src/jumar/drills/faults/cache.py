"""The compile cache, damaged or in a folder that others can write to."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from jumar.drills.faults.files import DAMAGES
from jumar.drills.processes import complaint, jumar
from jumar.drills.registry import Bench, Try, drill

UNUSED = "compiled programs are not kept for the next run"
SAME = "the run ends with the policy of one that nothing disturbed"


@drill(
    "cache/damaged",
    "Some of the compiled programs in the cache are cut, emptied, changed by a bit, foreign or missing.",
    f"{SAME}, and nothing is said of a bug.",
    whole=20,
    quick=2,
)
def damaged(bench: Bench) -> Iterator[Try]:
    reference, home = bench.references.of("short"), bench.folder / "cache"
    home.mkdir(mode=0o700)
    variables = {"XDG_CACHE_HOME": str(home)}
    first = jumar(*reference.case.train("filled"), folder=bench.folder, environment=variables)
    if (wrong := reference.outcome(first, bench.folder / "filled")) is not None:
        raise RuntimeError(f"the cache could not be filled: {wrong}")
    for number in range(bench.tries or 1):
        entries = sorted(path for path in home.rglob("*") if path.is_file())
        how = bench.random.choice(sorted(DAMAGES))
        for path in bench.random.sample(entries, max(1, len(entries) // 2)):
            DAMAGES[how](path, bench.random)
        run = f"run-{number}"
        ended = jumar(*reference.case.train(run), folder=bench.folder, environment=variables)
        yield Try(f"half of the entries {how}", reference.outcome(ended, bench.folder / run))


def _shared(home: Path) -> None:
    home.mkdir()
    home.chmod(0o777)


def _shared_inside(home: Path) -> None:
    (home / "jumar" / "xla").mkdir(parents=True, mode=0o700)
    home.chmod(0o700)
    (home / "jumar" / "xla").chmod(0o777)


def _link(home: Path) -> None:
    (home.parent / "elsewhere").mkdir(exist_ok=True)
    (home / "jumar").mkdir(parents=True, mode=0o700)
    home.chmod(0o700)
    (home / "jumar" / "xla").symlink_to(home.parent / "elsewhere")


def _file(home: Path) -> None:
    home.write_text("not a folder")


def _of_another(home: Path) -> None:
    home.mkdir(mode=0o700)
    os.chown(home, 12345, -1)


HOMES: Mapping[str, Callable[[Path], None]] = {
    "can be written by everybody": _shared,
    "holds a folder that everybody can write to": _shared_inside,
    "holds a link": _link,
    "is a file": _file,
}


@drill(
    "cache/not-private",
    "The cache folder can be written by others, is a link or a file, or belongs to somebody else.",
    f"it is not used, which is said in a sentence that names it, nothing is put there, and {SAME}.",
    quick=2,
)
def not_private(bench: Bench) -> Iterator[Try]:
    reference = bench.references.of("short")
    homes = {**HOMES, **({"belongs to another user": _of_another} if os.geteuid() == 0 else {})}
    for number, name in enumerate(bench.cases(sorted(homes))):
        place = bench.folder / str(number)
        place.mkdir()
        homes[name](place / "cache")
        words = [word for word in reference.case.train(place / "run") if word != "--quiet"]
        ended = jumar(*words, folder=place, environment={"XDG_CACHE_HOME": str(place / "cache")})
        wrong = complaint(ended, (0,), UNUSED) or reference.difference(place / "run")
        if wrong is None and (programs := [*place.glob("cache/**/*-cache"), *place.glob("elsewhere/*")]):
            wrong = f"{programs[0].relative_to(place)} was written there all the same"
        yield Try(f"the folder {name}", wrong)
