"""Files of every kind that Jumar reads, changed in many ways."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from jumar.drills.fuzzing.campaign import Campaign
from jumar.drills.processes import complaint, run
from jumar.drills.registry import Bench, Try, drill

SURVIVED = (
    "it gives what the sound file gives or a sentence, within 10 s and 2 GiB, and neither imports what a file names nor "
    "writes, removes, starts or connects anything."
)
STUDIES = ("space", "trials.json", "comparison.json", "results.json", "configuration file", "preset")
DATA = ("data set", "Minari: metadata.json", "Minari: HDF5")
MAKE = (
    "import sys, pathlib; from jumar.drills.fuzzing.corpus import make_corpus; make_corpus(pathlib.Path(sys.argv[1]))"
)


def _fuzz(bench: Bench, chosen: tuple[str, ...] | None) -> Iterator[Try]:
    corpus, count = bench.folder / "corpus", bench.tries or 1
    made = run([sys.executable, "-P", "-c", MAKE, str(corpus)], bench.folder)
    if (wrong := complaint(made, (0,))) is not None:
        raise RuntimeError(f"the sound files could not be made: {wrong}")
    lost: dict[int, Try] = {}
    done: list[int] = []
    names = chosen or tuple(name for name in _all_names() if name not in (*STUDIES, *DATA))
    for found in Campaign(corpus, bench.seed, count, names, done.append).run():
        lost[found.number] = Try(f"{found.what or 'unknown'}, try {found.number} of seed {bench.seed}", found.wrong)
    yield from (lost.pop(number, Try(str(number))) for number in done)
    yield from lost.values()  # of a process that could not begin


def _all_names() -> tuple[str, ...]:
    from jumar.drills.fuzzing.targets import TARGETS

    return tuple(target.name for target in TARGETS)


@drill(
    "fuzz/runs",
    "Changed files of a run (config.json, policy, checkpoint, segments, logs), most of them with a right digest, are read by "
    "what resume, evaluate, list, report, compare, --like and --init-from read them with.",
    SURVIVED,
    whole=60_000,
    quick=4_000,
)
def runs(bench: Bench) -> Iterator[Try]:
    yield from _fuzz(bench, None)


@drill(
    "fuzz/studies",
    "Changed configuration files, presets, spaces of sweeps, trials.json, comparison.json and results.json are read.",
    SURVIVED,
    whole=25_000,
    quick=1_500,
)
def studies(bench: Bench) -> Iterator[Try]:
    yield from _fuzz(bench, STUDIES)


@drill(
    "fuzz/data",
    "Changed data sets, Jumar's and Minari's, are read.",
    SURVIVED,
    whole=15_000,
    quick=1_000,
)
def data(bench: Bench) -> Iterator[Try]:
    yield from _fuzz(bench, DATA)
