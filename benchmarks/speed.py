"""How fast Jumar is beside Stable-Baselines3, rejax and the simulator alone, and where its time goes.

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

from harness import HERE, PEERS, Comparison, Effort, Peers, Side, Variant, compare, say
from report import PROFILE, ComparisonResult, Report, write

from jumar.training.compiler import count_processors

RESULTS = HERE / "results"
PARTIAL = RESULTS / "partial"
FULL = Effort(seconds=12.0, rounds=5)
QUICK = Effort(seconds=2.0, rounds=2)
PACKAGES = ("jumar", "jax", "jaxlib", "numpy", "gymnasium", "envpool", "mujoco")

N_EPOCHS, BATCH_SIZE = 10, 64


def jumar_side(env: str, n_envs: int, n_steps: int, *, seeds: int = 1, times: float = 1.0) -> Side:
    """Jumar by its public command, without what the other side does not do: evaluations and checkpoints."""
    words = ["-m", "jumar", "train", "ppo", env, "--preset", "none", *words_for(n_envs, n_steps)]
    words += ["--eval-every", "0", "--checkpoint-every", "0", "--quiet", "--json"]
    words += ["--n-seeds", str(seeds)] if seeds > 1 else []
    name, title = ("jumar", "Jumar") if times == 1.0 else (f"jumar-{times:g}-times", f"Jumar, {times:g} times as long")
    trial = 40_960 * seeds
    return Side(name, title, (Variant("", tuple(words)),), trial_steps=trial, run_dir=True, seeds=seeds, times=times)


def profile_side(env: str, n_envs: int, n_steps: int) -> Side:
    """Jumar's iteration in parts."""
    words = (str(PEERS / "iteration.py"), "--env", env, *words_for(n_envs, n_steps))
    return Side(PROFILE, "Jumar, in parts", (Variant("", words),), trial_steps=8_192)


def sb3_side(env: str, *sizes: tuple[int, int]) -> Side:
    """Stable-Baselines3 in the fastest of the ways that it offers on a processor, and of the sizes (n_envs, n_steps)."""
    variants = []
    for n_envs, n_steps in sizes:
        script = (str(PEERS / "sb3_ppo.py"), "--env", env, *words_for(n_envs, n_steps))
        vectors = {"dummy": "DummyVecEnv", "subproc": "SubprocVecEnv"} if n_envs > 1 else {"dummy": "DummyVecEnv"}
        many = f"{n_envs} x {n_steps}, " if len(sizes) > 1 else ""
        variants += [
            Variant(f"{many}{label}, torch threads: {threads}", (*script, "--vector", kind, "--threads", str(threads)))
            for kind, label in vectors.items()
            for threads in (1, 2)
        ]
    return Side("sb3", "Stable-Baselines3", tuple(variants), trial_steps=8_192, peer="sb3")


def rejax_side(n_envs: int, n_steps: int, seeds: int = 1) -> Side:
    """Return rejax on gymnax's CartPole, one program; the steps of all seeds count."""
    words = (str(PEERS / "rejax_ppo.py"), "--env", "CartPole-v1", *words_for(n_envs, n_steps), "--n-seeds", str(seeds))
    return Side("rejax", "rejax", (Variant("", words),), trial_steps=200_000, peer="rejax")


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


def slow_side() -> Side:
    """The slow environment alone, stepped by one process."""
    variant = Variant("", (str(PEERS / "slow_alone.py"),))
    return Side("simulator", "stepping alone, one process", (variant,), trial_steps=2_000)


def words_for(n_envs: int, n_steps: int) -> tuple[str, ...]:
    """Return the words for a rollout of this size, and for the epochs and minibatches that all comparisons have."""
    numbers = {"--n-envs": n_envs, "--n-steps": n_steps, "--n-epochs": N_EPOCHS, "--batch-size": BATCH_SIZE}
    return tuple(word for name, number in numbers.items() for word in (name, str(number)))


def cheetahs(n_envs: int, n_steps: int, *more: tuple[int, int]) -> tuple[str, tuple[Side, ...]]:
    """Return title and sides of a comparison on HalfCheetah; Stable-Baselines3 may take ``more`` sizes."""
    env = "HalfCheetah-v5"
    sides = (
        jumar_side(f"envpool/{env}", n_envs, n_steps),
        sb3_side(env, (n_envs, n_steps), *more),
        envpool_side(env, n_envs),
        profile_side(f"envpool/{env}", n_envs, n_steps),
    )
    return f"{env}, {n_envs} environment{'s' if n_envs > 1 else ''}", sides


def comparisons() -> dict[str, Comparison]:
    """Return all comparisons by name; each iteration is 2,048 steps, 10 epochs of minibatches of 64."""
    cheetah, cartpole, slow = "envpool/HalfCheetah-v5", "jax/CartPole-v1", "slow_env:Slow-v0"
    sides = {
        "halfcheetah": cheetahs(8, 256),
        "halfcheetah-32": cheetahs(32, 64, (8, 256)),
        "halfcheetah-1": cheetahs(1, 2048),
        "cartpole-compiled": (
            "CartPole-v1 compiled, 8 environments",
            (
                jumar_side(cartpole, 8, 256),
                sb3_side("CartPole-v1", (8, 256)),
                rejax_side(8, 256),
                compiled_side(8, 256),
                profile_side(cartpole, 8, 256),
            ),
        ),
        "cartpole-seeds": (
            "CartPole-v1 compiled, 8 seeds of 8 environments",
            (jumar_side(cartpole, 8, 256, seeds=8), rejax_side(8, 256, seeds=8)),
        ),
        "cartpole-gymnasium": (
            "CartPole-v1 of Gymnasium, 1 environment",
            (
                jumar_side("gymnasium/CartPole-v1", 1, 2048),
                sb3_side("CartPole-v1", (1, 2048)),
                profile_side("gymnasium/CartPole-v1", 1, 2048),
            ),
        ),
        "slow-python": (
            "A Python environment of 1 ms a step, 1 environment",
            (jumar_side(slow, 1, 2048), slow_side()),
        ),
        "slow-python-workers": (
            "A Python environment of 1 ms a step, 8 environments in worker processes",
            (jumar_side(slow, 8, 256), slow_side()),
        ),
        "memory": (
            "Memory of a long run",
            (jumar_side(cheetah, 8, 256), jumar_side(cheetah, 8, 256, times=4.0)),
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
    return {
        "processor": _processor(),
        "cores": count_processors(),
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


def terminate(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def main(words: list[str] | None = None) -> int:
    """Measure, and write after every measurement; return 1 if anything failed, 130 or 143 if it was stopped."""
    arguments = parse(words)
    signal.signal(signal.SIGTERM, terminate)  # an exception, so that no process is left behind
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
