"""How fast Jumar is beside Stable-Baselines3 and beside the simulator alone.

    .venv/bin/python benchmarks/speed.py [--quick] [--only NAME ...] [--rounds N] [--out DIR]

Run it with the interpreter that has Jumar. Peers are installed when first needed, each in an environment of its own
under ``benchmarks/.environments``. README.md says what is measured.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import signal
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import FrameType

from harness import HERE, PEERS, Comparison, Effort, Peers, Side, Variant, compare
from report import ComparisonResult, Report, write

RESULTS = HERE / "results"
PARTIAL = RESULTS / "partial"
FULL = Effort(seconds=12.0, rounds=5)
QUICK = Effort(seconds=2.0, rounds=2)
PACKAGES = ("jumar", "jax", "jaxlib", "numpy", "gymnasium", "envpool", "mujoco")

N_EPOCHS, BATCH_SIZE = 10, 64


def jumar_side(env: str, n_envs: int, n_steps: int, n_epochs: int = N_EPOCHS) -> Side:
    """Jumar by its public command, without what the other side does not do: evaluations and checkpoints."""
    words = ["-m", "jumar", "train", "ppo", env, "--preset", "none", *_sizes(n_envs, n_steps, n_epochs)]
    words += ["--eval-every", "0", "--checkpoint-every", "0", "--quiet", "--json"]
    whole = n_epochs == N_EPOCHS
    name, title = ("jumar", "Jumar") if whole else (f"jumar-{n_epochs}-epoch", f"Jumar, {n_epochs} epoch")
    return Side(name, title, (Variant("", tuple(words)),), trial_steps=40_960, run_dir=True)


def sb3_side(env: str, n_envs: int, n_steps: int) -> Side:
    """Stable-Baselines3 in the fastest of the ways that it offers on a processor."""
    vectors = {"dummy": "DummyVecEnv", "subproc": "SubprocVecEnv"} if n_envs > 1 else {"dummy": "DummyVecEnv"}
    script = (str(PEERS / "sb3_ppo.py"), "--env", env, *_sizes(n_envs, n_steps, N_EPOCHS))
    variants = tuple(
        Variant(f"{label}, torch threads: {threads}", (*script, "--vector", vector, "--threads", str(threads)))
        for vector, label in vectors.items()
        for threads in (1, 2)
    )
    return Side("sb3", "Stable-Baselines3", variants, trial_steps=8_192, peer="sb3")


def envpool_side(env: str, n_envs: int) -> Side:
    """EnvPool with random actions: what any method that steps it is bounded by."""
    script = (str(PEERS / "envpool_alone.py"), "--env", env, "--n-envs", str(n_envs))
    variants = tuple(
        Variant(label, (*script, "--way", way))
        for way, label in (("loop", "loop in Python"), ("scan", "compiled scan"))
    )
    return Side("simulator", "EnvPool alone", variants, trial_steps=100_000)


def compiled_side(n_envs: int, n_steps: int) -> Side:
    """Jumar's compiled CartPole with random actions."""
    sizes = ("--n-envs", str(n_envs), "--n-steps", str(n_steps))
    variant = Variant("", (str(PEERS / "compiled_alone.py"), *sizes))
    return Side("simulator", "compiled CartPole alone", (variant,), trial_steps=2_000_000)


def _sizes(n_envs: int, n_steps: int, n_epochs: int) -> tuple[str, ...]:
    numbers = {"--n-envs": n_envs, "--n-steps": n_steps, "--n-epochs": n_epochs, "--batch-size": BATCH_SIZE}
    return tuple(word for name, number in numbers.items() for word in (name, str(number)))


def comparisons() -> dict[str, Comparison]:
    """Return all comparisons by name; each iteration is 2,048 steps, 10 epochs of minibatches of 64."""
    sides = {
        "halfcheetah": (
            "HalfCheetah-v5, 8 environments",
            (
                jumar_side("envpool/HalfCheetah-v5", 8, 256),
                sb3_side("HalfCheetah-v5", 8, 256),
                envpool_side("HalfCheetah-v5", 8),
                jumar_side("envpool/HalfCheetah-v5", 8, 256, n_epochs=1),
            ),
        ),
        "cartpole-compiled": (
            "CartPole-v1 compiled, 8 environments",
            (
                jumar_side("jax/CartPole-v1", 8, 256),
                sb3_side("CartPole-v1", 8, 256),
                compiled_side(8, 256),
                jumar_side("jax/CartPole-v1", 8, 256, n_epochs=1),
            ),
        ),
        "cartpole-gymnasium": (
            "CartPole-v1 of Gymnasium, 1 environment",
            (
                jumar_side("gymnasium/CartPole-v1", 1, 2048),
                sb3_side("CartPole-v1", 1, 2048),
                jumar_side("gymnasium/CartPole-v1", 1, 2048, n_epochs=1),
            ),
        ),
    }
    return {name: Comparison(name, title, 2048, N_EPOCHS, them) for name, (title, them) in sides.items()}


def parse(words: list[str] | None = None) -> argparse.Namespace:
    """Read the command line; ``out`` and ``effort`` are settled by the rest where they are not given."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="short rounds: to see that it works, not for figures")
    parser.add_argument(
        "--only", nargs="+", metavar="NAME", choices=tuple(comparisons()), help="these comparisons alone"
    )
    parser.add_argument("--rounds", type=int, metavar="N", help="how often the sides take turns (default: 5, quick: 2)")
    parser.add_argument(
        "--out", type=Path, help="where to write (default: results; with --quick or --only results/partial)"
    )
    arguments = parser.parse_args(words)
    effort = QUICK if arguments.quick else FULL
    if arguments.rounds is not None and arguments.rounds < 1:
        parser.error(f"--rounds {arguments.rounds}: it must be at least 1")
    arguments.effort = Effort(effort.seconds, arguments.rounds or effort.rounds)
    # A part of the comparisons, or a quick look, is not to replace the figures of a whole run.
    arguments.out = arguments.out or (PARTIAL if arguments.quick or arguments.only else RESULTS)
    arguments.only = arguments.only or list(comparisons())
    return arguments


def machine() -> dict[str, str | int | float]:
    """Describe what everything runs on."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return {
        "processor": _processor(),
        "cores": cores,
        "system": f"{platform.system()} {platform.machine()}",
        "load_before": round(os.getloadavg()[0], 2),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or "unknown processor"


def versions() -> dict[str, str]:
    """Return the versions on Jumar's side; peers tell theirs themselves."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    command = ["git", "-C", str(HERE), "describe", "--always", "--dirty"]
    with contextlib.suppress(OSError, subprocess.CalledProcessError):  # an unpacked archive has no commit
        found["commit"] = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    return found


def say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


def _terminate(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def main(words: list[str] | None = None) -> int:
    """Measure, and write after every measurement; return 1 if anything failed, 130 or 143 if it was stopped."""
    arguments = parse(words)
    signal.signal(signal.SIGTERM, _terminate)  # an exception, so that no process is left behind
    date = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    report = Report(date, arguments.quick, machine(), versions())
    peers = Peers(say)

    def save() -> None:
        write(report, arguments.out)

    every = comparisons()
    try:
        for name in arguments.only:
            comparison = every[name]
            result = ComparisonResult(name, comparison.title, comparison.rollout, comparison.n_epochs)
            report.comparisons.append(result)
            compare(comparison, arguments.effort, peers, result, say, save)
    except (KeyboardInterrupt, SystemExit) as stop:
        report.interrupted = True
        save()
        return 130 if isinstance(stop, KeyboardInterrupt) else 143
    say(f"written: {arguments.out / 'speed.json'} and speed.md")
    return 1 if report.failures else 0


if __name__ == "__main__":
    sys.exit(main())
