"""Long runs: memory that grows is a fault, too."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from jumar.drills.memory import MIB, Sample, as_csv, as_svg, growth, watch
from jumar.drills.processes import Running, command, complaint
from jumar.drills.references import QUIET
from jumar.drills.registry import Bench, Try, drill
from jumar.runs import logs
from jumar.runs.files import write_atomically

BOUND = 16 * MIB
"""Bytes that the memory may grow over the second half of a run. Allocators give memory back late."""
STEPS = "time/total_timesteps"
ON_POLICY = ["--n-epochs", "1", "--net-arch", "8", "--preset", "none", "--eval-episodes", "2"]
COMPILED = ["ppo", "jax/CartPole-v1", "--n-envs", "64", "--n-steps", "32", "--batch-size", "2048", *ON_POLICY]
HOST = ["ppo", "gymnasium/CartPole-v1", "--n-envs", "8", "--n-steps", "64", "--batch-size", "512", *ON_POLICY]


@drill(
    "soak/memory",
    "A long run in a compiled environment (1e8 steps) and one in a host environment (1e7); their memory is sampled.",
    f"over the second half of the steps, a line fitted to the memory grows by at most {BOUND // MIB} MiB.",
)
def memory(bench: Bench) -> Iterator[Try]:
    curves: dict[str, list[Sample]] = {}
    runs = {"compiled": (COMPILED, bench.sizes.compiled), "host": ([*HOST, "--workers", "0"], bench.sizes.host)}
    for name, (words, total) in runs.items():
        samples, wrong = _watched(bench.folder / name, words, total)
        curves[name] = samples
        write_atomically(bench.kept / f"soak-{name}.csv", as_csv(samples).encode())
        write_atomically(bench.kept / "soak.svg", as_svg(dict(curves)))
        yield _judged(name, total, samples, wrong)


def _watched(place: Path, words: list[str], total: int) -> tuple[list[Sample], str | None]:
    place.mkdir()
    often = max(1, total // 10)
    numbers = ["--total-timesteps", str(total), "--eval-every", str(often), "--checkpoint-every", str(often)]
    run = place / "run"
    with Running(command("train", *words, *numbers, "--run-dir", run, *QUIET), place) as running:
        every = 0.05 if total < 10**7 else 1.0
        samples = watch(running.process.pid, lambda: _steps(run), lambda: running.under_way, every)
        return samples, complaint(running.wait(), (0,))


def _steps(run: Path) -> int:
    found = logs.read_last(run / "metrics.jsonl").get(STEPS)
    return found if isinstance(found, int) else 0


def _judged(name: str, total: int, samples: list[Sample], wrong: str | None) -> Try:
    what = f"{name}, {total:,} steps"
    if wrong is not None:
        return Try(what, wrong)
    try:
        grown = growth(samples)
    except ValueError as error:
        return Try(what, f"its memory cannot be judged: {error}.")
    most = max(each.resident for each in samples) / MIB
    measured = f"{most:.0f} MiB at most, {grown / MIB:+.1f} MiB over the second half"
    lost = f"its memory grew by {grown / MIB:.1f} MiB over the second half, more than {BOUND // MIB}"
    return Try(what, lost if grown > BOUND else None, measured)
