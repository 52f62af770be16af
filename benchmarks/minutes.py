"""The return that SAC reaches in so many minutes of this machine, in Jumar, Stable-Baselines3 and SBX.

    .venv/bin/python benchmarks/minutes.py HalfCheetah-v5 --seeds 3

Every training has the machine to itself, with networks of 256 and 256, one environment and one update a step, and each peer
with its best number of threads. The clock runs from the start of the process: imports, compilation and evaluations (five
episodes every 10,000 steps) count. A training is ended when its time is over, and kept; the sides take turns, and a stopped
command goes on where it was.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from harness import HERE, PEERS, Failed, Peers, last_line, options, say
from speed import terminate
from tables import circumstances, lists_in_lines

from jumar.runs.files import write_atomically

RESULTS = HERE / "results"
LEARNING_STARTS, NET_ARCH = 10_000, "256,256"
EVAL_EVERY, EPISODES = 10_000, 5
POLL = 0.1  # seconds
MARKS = (5, 15, 30)
"""The minutes of the table's columns."""


@dataclass(frozen=True)
class Side:
    """A library."""

    title: str
    peer: str | None = None
    threads: int = 0
    """Of a peer's PyTorch: with so many it was the fastest in ``speed.py``'s row of one environment."""
    words: tuple[str, ...] = ()
    """What Jumar is told beside the environment."""


SIDES = {
    "jumar": Side("Jumar, SAC's defaults", words=("--preset", "none", "--net-arch", NET_ARCH)),
    "sb3": Side("Stable-Baselines3", "sb3", threads=2),
    "sbx": Side("SBX", "sbx", threads=1),
}


class Point(NamedTuple):
    """An evaluation."""

    seconds: float
    """Since the process began."""
    steps: int
    mean_return: float


@dataclass(frozen=True)
class Run:
    """What a training gave until its time was over."""

    seed: int
    minutes: float
    points: list[Point]
    versions: dict[str, str] = field(default_factory=dict)

    def after(self, minutes: float) -> float | None:
        """Return the newest evaluation's mean return after so many minutes; ``None`` before the first one."""
        known = [point.mean_return for point in self.points if point.seconds <= 60.0 * minutes]
        return known[-1] if known else None


def command(side: Side, env: str, seed: int, folder: Path, peers: Peers) -> list[str]:
    """Return what trains one side for ever.

    Raises:
        Failed: the peer could not be installed.
    """
    common = {"eval_every": EVAL_EVERY, "eval_episodes": EPISODES, "seed": seed, "learning_starts": LEARNING_STARTS}
    if side.peer is None:
        words = [
            sys.executable,
            "-m",
            "jumar",
            "train",
            "sac",
            f"gymnasium/{env}",
            *side.words,
            "--checkpoint-every",
            "0",
        ]
        words += ["--total-timesteps", "100000000", "--run-dir", str(folder / "run"), "--quiet"]
    else:
        words = [str(peers.interpreter(side.peer)), str(PEERS / "sb3_minutes.py"), "--library", side.peer, "--env", env]
        common |= {"net_arch": NET_ARCH, "threads": side.threads}
    return [*words, *options(common)]


def train(words: Sequence[str], log: Path, folder: Path, minutes: float) -> tuple[list[Point], dict[str, str]]:
    """Run a command until its time is over; return the evaluations that it wrote to ``log``, and versions if it told any.

    Raises:
        Failed: it ended by itself.
    """
    points: list[Point] = []
    versions: dict[str, str] = {}
    with (folder / "out").open("w") as output, (folder / "err").open("w") as errors:
        start = time.perf_counter()
        process = subprocess.Popen(words, stdout=output, stderr=errors, start_new_session=True)
        try:
            lines = new_lines(log)
            while (now := time.perf_counter() - start) < 60.0 * minutes:
                if process.poll() is not None:
                    raise Failed(last_line((folder / "err").read_text()) or f"exit code {process.returncode}")
                for row in next(lines):
                    if "mean_return" in row:
                        points.append(Point(round(now, 1), row["time/total_timesteps"], row["mean_return"]))
                    versions.update(row.get("versions", {}))
                time.sleep(POLL)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return points, versions


def new_lines(log: Path) -> Iterator[list[dict[str, Any]]]:
    """Yield again and again the whole lines of a file, JSON objects, that were not yielded before."""
    read = 0
    while True:
        data = b""
        with contextlib.suppress(FileNotFoundError), log.open("rb") as file:
            file.seek(read)
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        read += len(whole)
        yield [json.loads(line) for line in whole.splitlines()]


class Results:
    """What has been measured, by environment and side, in ``minutes.json``; the table is in ``minutes.md`` beside it."""

    def __init__(self, folder: Path) -> None:
        """Read the file, if it is there."""
        self._path = folder / "minutes.json"
        self.about: dict[str, Any] = {}
        self.runs: dict[str, dict[str, dict[int, Run]]] = {}
        if self._path.exists():
            data = json.loads(self._path.read_text())
            self.about = data["about"]
            for env, sides in data["envs"].items():
                self.runs[env] = {side: {row["seed"]: read_run(row) for row in rows} for side, rows in sides.items()}

    def of(self, env: str, side: str) -> dict[int, Run]:
        """Return the runs of one side, by seed."""
        return self.runs.setdefault(env, {}).setdefault(side, {})

    def write(self) -> None:
        """Write the file, and the page beside it."""
        envs = {
            env: {side: [asdict(runs[seed]) for seed in sorted(runs)] for side, runs in sides.items() if runs}
            for env, sides in self.runs.items()
        }
        data = lists_in_lines(json.dumps({"about": self.about, "envs": envs}, indent=1))
        self._path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(self._path, (data + "\n").encode())
        write_atomically(self._path.with_suffix(".md"), page(self).encode())


def read_run(row: Mapping[str, Any]) -> Run:
    """Return a run as it was written."""
    return Run(row["seed"], row["minutes"], [Point(*point) for point in row["points"]], row["versions"])


def page(results: Results) -> str:
    """Return the tables: the median over seeds, the lowest and the highest."""
    lines = [
        "# Return per minute",
        "",
        f"{results.about.get('date', '')}. {results.about.get('machine', '')}. SAC with one environment and one update a step; "
        f"the newest evaluation ({EPISODES} deterministic episodes) after so many minutes from the start of the process, "
        "imports, compilation and evaluations included: median over seeds, lowest to highest.",
    ]
    for env, sides in results.runs.items():
        seeds = max((len(runs) for runs in sides.values()), default=0)
        lines += [
            "",
            f"`.venv/bin/python benchmarks/minutes.py {env} --seeds {seeds}`",
            "",
            f"| {env} | seeds | {' | '.join(f'{mark} minutes' for mark in MARKS)} | steps in {MARKS[-1]} minutes |",
            f"| --- | ---: | {' | '.join('---:' for _ in MARKS)} | ---: |",
        ]
        lines += [row(SIDES[side].title, list(sides[side].values())) for side in SIDES if sides.get(side)]
    return "\n".join(lines) + "\n"


def row(title: str, runs: Sequence[Run]) -> str:
    """Return the row of one side."""
    cells = [title, str(len(runs))]
    for mark in MARKS:
        reached = [run.after(mark) for run in runs if run.minutes >= mark]
        known = [value for value in reached if value is not None]
        whole = known and len(known) == len(reached)
        cells.append(f"{np.median(known):,.0f} ({min(known):,.0f} to {max(known):,.0f})" if whole else "")
    steps = [run.points[-1].steps for run in runs if run.points]
    cells.append(f"{np.median(steps):,.0f}" if steps else "")
    return f"| {' | '.join(cells)} |"


def parse(words: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("env", metavar="ENV", help="an id of Gymnasium's")
    parser.add_argument("--sides", nargs="+", choices=tuple(SIDES), default=list(SIDES), help="these alone")
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each side (default: 3)")
    parser.add_argument("--minutes", type=float, default=MARKS[-1], help=f"of each training (default: {MARKS[-1]})")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where to write (default: results)")
    arguments = parser.parse_args(words)
    if arguments.seeds < 1 or not 0.0 < arguments.minutes < 10_000.0:
        parser.error("--seeds and --minutes must be positive")
    return arguments


def missing(results: Results, arguments: argparse.Namespace) -> list[tuple[str, int]]:
    """Return side and seed of the trainings that are not there for as long, seed by seed."""
    known = {
        (side, seed)
        for side in arguments.sides
        for seed, run in results.of(arguments.env, side).items()
        if run.minutes >= arguments.minutes
    }
    wanted = [(side, seed) for seed in range(arguments.seeds) for side in arguments.sides]
    return [one for one in wanted if one not in known]


def main(words: list[str] | None = None) -> int:
    """Train what is missing; return 1 if anything failed, 130 or 143 if it was stopped."""
    arguments = parse(words)
    signal.signal(signal.SIGTERM, terminate)
    results, peers, failures = Results(arguments.out), Peers(say), 0
    for name, seed in missing(results, arguments):
        side = SIDES[name]
        try:
            with tempfile.TemporaryDirectory(prefix="jumar-minutes-") as scratch:
                folder = Path(scratch)
                log = folder / "run" / "evaluations.jsonl" if side.peer is None else folder / "out"
                told = command(side, arguments.env, seed, folder, peers)
                points, versions = train(told, log, folder, arguments.minutes)
        except Failed as failure:
            failures += 1
            say(f"{name}, seed {seed}: failed: {failure}")
            continue
        except (KeyboardInterrupt, SystemExit) as stop:
            return 130 if isinstance(stop, KeyboardInterrupt) else 143
        results.of(arguments.env, name)[seed] = Run(seed, arguments.minutes, points, versions)
        results.about = circumstances()
        results.write()
        say(
            f"{name}, seed {seed}: {points[-1].mean_return:,.0f}, {points[-1].steps:,} steps"
            if points
            else f"{name}: nothing"
        )
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
