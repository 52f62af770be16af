"""How long a training round of SAC takes with a small and with a large replay buffer; the two should not differ.

    .venv/bin/python benchmarks/replay.py [--rounds N] [--updates N] [--only NAME ...] [--out DIR]

A round is a step of every environment and as many updates as there were steps. Jumar is run by its command: once for the
first steps alone, which are random and fill the small buffer, and once for some rounds more. The difference of the times
that training took, compilation left out, is that of these rounds.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from harness import HERE, Failed, measure, options, say
from report import Measurement, Spread, busy, paired_ratio
from speed import machine, versions

from jumar.runs.files import write_atomically

SMALL, LARGE = 10_000, 1_000_000
RANDOM_STEPS = 12_000
"""Steps of each seed before the first update: more than the small buffer has room for."""
LIMIT_S = 600.0


@dataclass(frozen=True)
class Case:
    """What is trained.

    Args:
        title: a cell of the table.
        env: an id with its backend.
        n_envs: environments of each seed, and updates of a round.
        seeds: seeds in one program.
    """

    title: str
    env: str
    n_envs: int = 1
    seeds: int = 1

    def words(self, capacity: int) -> tuple[str, ...]:
        """Return the command after the interpreter, without the number of steps and the folder."""
        settings = {
            "n_envs": self.n_envs,
            "train_freq": self.n_envs,
            "gradient_steps": self.n_envs,
            "net_arch": "256,256",
            "batch_size": 256,
            "buffer_size": capacity,
            "learning_starts": RANDOM_STEPS,
            "eval_every": 0,
            "checkpoint_every": 0,
        }
        seeds = ("--n-seeds", str(self.seeds)) if self.seeds > 1 else ()
        command = ("-m", "jumar", "train", "sac", self.env, "--preset", "none")
        return (*command, *options(settings), *seeds, "--quiet", "--json")

    def rounds(self, updates: int) -> int:
        """Return how many rounds have so many updates of each seed, at least one."""
        return max(1, updates // self.n_envs)


CASES = {
    "pool": Case("HalfCheetah-v5 of EnvPool, 1 environment", "envpool/HalfCheetah-v5"),
    "pool-8": Case("HalfCheetah-v5 of EnvPool, 8 environments", "envpool/HalfCheetah-v5", n_envs=8),
    "gymnasium": Case("HalfCheetah-v5 of Gymnasium, 1 environment", "gymnasium/HalfCheetah-v5"),
    "compiled": Case("Pendulum-v1 compiled, 1 environment", "jax/Pendulum-v1"),
    "compiled-8": Case("Pendulum-v1 compiled, 8 environments", "jax/Pendulum-v1", n_envs=8),
    "seeds": Case("Pendulum-v1 compiled, 4 seeds of 1 environment", "jax/Pendulum-v1", seeds=4),
}


@dataclass
class Result:
    """Milliseconds of a round, and MiB of memory, by capacity; numbers of the same index were measured in turn."""

    title: str
    ms: dict[int, list[float]] = field(default_factory=lambda: {SMALL: [], LARGE: []})
    memory: dict[int, float] = field(default_factory=lambda: {SMALL: 0.0, LARGE: 0.0})
    failure: str | None = None

    @property
    def line(self) -> str:
        """A row of the table."""
        small, large = Spread.of(self.ms[SMALL]), Spread.of(self.ms[LARGE])
        ratio = paired_ratio(self.ms[LARGE], self.ms[SMALL])
        if small is None or large is None or ratio is None:
            return f"| {self.title} | {self.failure or 'not measured'} | | | |"
        spread = f"{ratio.median:.2f} ({ratio.lowest:.2f} to {ratio.highest:.2f})"
        memory = f"{self.memory[SMALL]:,.0f} / {self.memory[LARGE]:,.0f}"
        return f"| {self.title} | {small.median:.2f} | {large.median:.2f} | {spread} | {memory} |"


def training_seconds(measured: Measurement, seeds: int) -> float:
    """Return how long training took, compilation left out; the steps are those of one seed, the rate is of all."""
    return measured.total_timesteps * seeds / measured.steps_per_second


def round_ms(first: Measurement, whole: Measurement, case: Case) -> float:
    """Return the milliseconds of one of the rounds by which ``whole`` is longer than ``first``.

    Raises:
        Failed: it is no longer, or took no longer.
    """
    rounds = (whole.total_timesteps - first.total_timesteps) / case.n_envs
    seconds = training_seconds(whole, case.seeds) - training_seconds(first, case.seeds)
    if rounds <= 0 or seconds <= 0:
        raise Failed(f"{rounds:.0f} rounds more took {seconds:.2f} s more")
    return 1e3 * seconds / rounds


def train(case: Case, capacity: int, steps: int, scratch: Path) -> Measurement:
    """Run the command for so many steps of each seed.

    Raises:
        Failed: with the reason.
    """
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        words = (*case.words(capacity), "--total-timesteps", str(steps), "--run-dir", str(Path(folder) / "run"))
        return measure([sys.executable, *words], scratch, LIMIT_S)


def measure_round(case: Case, updates: int, result: Result, scratch: Path) -> None:
    """Add a round of both capacities to the result, or the reason why there is none."""
    longer = RANDOM_STEPS + case.rounds(updates) * case.n_envs
    try:
        found = {}
        for capacity in (SMALL, LARGE):
            first, whole = (train(case, capacity, steps, scratch) for steps in (RANDOM_STEPS, longer))
            found[capacity] = round_ms(first, whole, case)
            result.memory[capacity] = max(result.memory[capacity], whole.peak_memory_mib)
            say(f"{case.title}, room for {capacity:,} steps: {found[capacity]:.2f} ms a round")
    except Failed as failure:
        result.failure = str(failure)
        say(f"{case.title}: failed: {failure}")
        return
    for capacity, ms in found.items():
        result.ms[capacity].append(ms)


def to_markdown(results: Sequence[Result], here: Mapping[str, str | int | float], about: str) -> str:
    """Return the page."""
    parts = [
        "# Replay buffer",
        f"{about}. {here['processor']}, {here['cores']} cores.",
        *busy(here),
        f"Milliseconds of a round of SAC: a step of every environment, and as many updates of minibatches of 256 with two "
        f"layers of 256. The buffer has room for {SMALL:,} or for {LARGE:,} steps; {RANDOM_STEPS:,} were put into it before. "
        "Medians; how many times as long the large one takes is the ratio within each turn (lowest to highest).",
        "\n".join(
            [
                f"| | {SMALL:,} | {LARGE:,} | times as long | peak MiB |",
                "| --- | ---: | ---: | ---: | ---: |",
                *(result.line for result in results),
            ]
        ),
    ]
    return "\n\n".join(parts) + "\n"


def parse(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=tuple(CASES), default=list(CASES))
    parser.add_argument("--rounds", type=int, default=3, help="how often the capacities take turns (default: 3)")
    parser.add_argument("--updates", type=int, default=2_000, help="updates to time, of each seed (default: 2,000)")
    parser.add_argument("--out", type=Path, default=HERE / "results", help="where to write replay.md")
    return parser.parse_args(words)


def main(words: list[str] | None = None) -> int:
    """Measure, print the table and write it; return 1 if anything failed."""
    arguments = parse(words)
    here, mine = machine(), versions()
    commit = f", commit {mine['commit']}" if "commit" in mine else ""
    about = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC{commit}, jax {mine.get('jax', 'unknown')}"
    results = [Result(CASES[name].title) for name in arguments.only]
    with tempfile.TemporaryDirectory(prefix="jumar-replay-") as scratch:
        for _ in range(arguments.rounds):
            for name, result in zip(arguments.only, results, strict=True):
                if result.failure is None:
                    measure_round(CASES[name], arguments.updates, result, Path(scratch))
    page = to_markdown(results, here, about)
    arguments.out.mkdir(parents=True, exist_ok=True)
    write_atomically(arguments.out / "replay.md", page.encode())
    print(page)
    return 1 if any(result.failure for result in results) else 0


if __name__ == "__main__":
    sys.exit(main())
