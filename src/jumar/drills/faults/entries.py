"""Run directories whose entries are links, pipes and devices: a foreign run leads nowhere else."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from jumar.drills.hostile import FILES, FOLDERS, KINDS, make_outside, plant
from jumar.drills.machine import snapshot
from jumar.drills.processes import complaint
from jumar.drills.registry import Bench, Try, drill
from jumar.drills.session import Session

PATIENCE = 60.0
"""Seconds after which a command that should refuse counts as one that hangs."""
REFUSED = r"is (a link|a pipe|a device|a folder|a file)|left out|damaged|no run|not a run|is missing|cannot be read"


@drill(
    "entries/elsewhere",
    "A link, a pipe or a link to a device in the place of each entry of a run, and every command that opens runs.",
    "the entry is named in a sentence, nothing hangs, nothing outside is read, written or removed, and the run is not changed.",
    whole=300,
    quick=40,
)
def elsewhere(bench: Bench) -> Iterator[Try]:
    reference = bench.references.of("short")
    outside = make_outside(bench.folder / "outside")
    kept = snapshot(outside)
    cases = [(name, kind, command) for name in (*FILES, *FOLDERS) for kind in KINDS for command in COMMANDS]
    with Session(bench.folder) as session:
        for name, kind, command in bench.cases(cases):
            target = reference.copy(bench.folder / "run", reference.half)
            plant(target, name, kind, outside)
            before = snapshot(target)
            ended = session.jumar(*COMMANDS[command](target, bench.folder), seconds=PATIENCE)
            codes = (0, 1, 2) if command in TELL_THEMSELVES else (1, 2)
            wrong = complaint(ended, codes, REFUSED)
            if wrong is None and snapshot(outside) != kept:
                wrong = "something outside of the run was changed"
            if wrong is None and snapshot(target) != before:
                wrong = "the run was changed"
            yield Try(f"{kind} as {name}, {command}", wrong)
            shutil.rmtree(target)
            if wrong is not None:
                shutil.rmtree(outside)
                make_outside(outside)


def _resume(run: Path, folder: Path) -> list[str]:
    return ["resume", str(run), "--quiet", "--json"]


def _evaluate(run: Path, folder: Path) -> list[str]:
    return ["evaluate", str(run), "--episodes", "1"]


def _like(run: Path, folder: Path) -> list[str]:
    return ["train", "--like", str(run), "--print-config"]


def _init(run: Path, folder: Path) -> list[str]:
    new = folder / "never"
    return [
        "train",
        "ppo",
        "jax/CartPole-v1",
        "--init-from",
        str(run),
        "--total-timesteps",
        "64",
        "--run-dir",
        str(new),
    ]


def _report(run: Path, folder: Path) -> list[str]:
    return ["report", str(run), "--out", str(folder / "report.html")]


def _list(run: Path, folder: Path) -> list[str]:
    return ["list", "runs", str(run), "--json"]


def _compare(run: Path, folder: Path) -> list[str]:
    return ["compare", "--from", str(run), "--out", str(folder / "comparison")]


COMMANDS = {
    "resume": _resume,
    "evaluate": _evaluate,
    "train --like": _like,
    "train --init-from": _init,
    "report": _report,
    "list runs": _list,
    "compare --from": _compare,
}
"""Commands that open a run, by name."""
TELL_THEMSELVES = ("list runs", "report", "compare --from")
"""Commands that are about many runs, and say of one that it is damaged."""
