"""How fast Jumar is beside Stable-Baselines3, sb3-contrib, SBX, rejax and the simulator alone, and where its time goes.

    .venv/bin/python benchmarks/speed.py [--quick] [--only NAME ... [--replace]] [--rounds N] [--out DIR]

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
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import FrameType

from harness import HERE, PEERS, Comparison, Effort, Peers, Side, Variant, compare, options, say
from off_policy import off_policy
from report import PROFILE, UPDATE, ComparisonResult, Report, busy, read, write

from jumar.algorithms.registry import ALGORITHMS
from jumar.xla.compiler import count_processors

RESULTS = HERE / "results"
PARTIAL = RESULTS / "partial"
FULL = Effort(seconds=12.0, rounds=5)
QUICK = Effort(seconds=2.0, rounds=2)
PACKAGES = ("jumar", "jax", "jaxlib", "numpy", "gymnasium", "envpool", "mujoco")


@dataclass(frozen=True)
class Method:
    """An algorithm, and the settings that all sides are given; the names are Stable-Baselines3's and Jumar's."""

    algorithm: str
    settings: dict[str, int | float]
    own: dict[str, str] = field(default_factory=dict)
    """What Jumar is told beside them."""
    title: str = ""
    """What a comparison's title calls it; empty for the one that needs no name."""
    without: str = ""
    """What Jumar is called that is not told what is its own."""
    peer: tuple[str, ...] = ()
    """Words for the peer beside the settings."""

    def words(self, n_envs: int, n_steps: int) -> tuple[str, ...]:
        """Return the words for a rollout of this size, and for what is done with it."""
        return options({"n_envs": n_envs, "n_steps": n_steps, **self.settings})

    def own_words(self, n_envs: int, n_steps: int) -> tuple[str, ...]:
        """Return the same for Jumar."""
        return (*self.words(n_envs, n_steps), *options(self.own))


PPO = Method("ppo", {"n_epochs": 10, "batch_size": 64})
APART = Method(
    "ppo",
    PPO.settings,
    {"joint_gradient": "false"},
    "PPO with a gradient for each of policy and critic",
    "Jumar, joint gradient",
)
TRPO = Method("trpo", {"cg_max_steps": 15, "n_critic_updates": 10, "batch_size": 128}, title="TRPO")
PONG = Method("ppo", {"n_epochs": 4, "batch_size": 256}, {"net_arch": "none"}, peer=("--policy", "CnnPolicy"))
RECURRENT = Method(
    "ppo",
    {"n_epochs": 10, "batch_size": 128},
    {"recurrent": "lstm", "recurrent_size": "256"},
    peer=("--algorithm", "recurrent-ppo", "--policy", "MlpLstmPolicy"),
)
SAME_ITERATIONS = {**TRPO.settings, "cg_tolerance": 0.0}
RELATIVES: dict[str, tuple[str, int, tuple[Method, ...]]] = {
    "natural": (
        "Natural steps, equally many iterations of the conjugate gradient",
        256,
        tuple(Method(name, SAME_ITERATIONS) for name in ("trpo", "npg", "tnpg")),
    ),
    "penalty": ("A penalty in the place of clipping", 256, (PPO, Method("ppo-penalty", PPO.settings))),
    "kronecker": ("Kronecker factors", 32, (Method("a2c", {}), Method("acktr", {}))),
}
"""Algorithms of Jumar beside the first of them: title, steps of each environment in a rollout, methods.

One that is not registered is left out, and a comparison that has nothing left to compare.
"""
PEER_TITLES = {"ppo": "Stable-Baselines3", "trpo": "sb3-contrib"}
VECTORS = {"dummy": "DummyVecEnv", "subproc": "SubprocVecEnv"}
POOL = {"envpool": "EnvPool"}


def jumar_words(env: str, n_envs: int, n_steps: int, method: Method, seeds: int = 1) -> tuple[str, ...]:
    """Return Jumar's public command, without what the other side does not do: evaluations and checkpoints."""
    words = ["-m", "jumar", "train", method.algorithm, env, "--preset", "none", *method.own_words(n_envs, n_steps)]
    words += ["--eval-every", "0", "--checkpoint-every", "0", "--quiet", "--json"]
    return (*words, "--n-seeds", str(seeds)) if seeds > 1 else tuple(words)


def jumar_side(
    env: str, n_envs: int, n_steps: int, method: Method = PPO, *, seeds: int = 1, times: float = 1.0
) -> Side:
    """Jumar, beside another program or beside itself, so many times as long."""
    name, title = ("jumar", "Jumar") if times == 1.0 else (f"jumar-{times:g}-times", f"Jumar, {times:g} times as long")
    variant = Variant("", jumar_words(env, n_envs, n_steps, method, seeds))
    return Side(name, title, (variant,), trial_steps=40_960 * seeds, run_dir=True, seeds=seeds, times=times)


def relative_side(env: str, n_envs: int, n_steps: int, method: Method, title: str = "") -> Side:
    """Jumar, beside other algorithms of Jumar, or another way of the same."""
    variant = Variant("", jumar_words(env, n_envs, n_steps, method))
    return Side(method.algorithm, title or method.algorithm, (variant,), trial_steps=40_960, run_dir=True)


def parts_side(env: str, n_envs: int, n_steps: int, method: Method) -> Side:
    """Jumar's iteration in parts, or for TRPO the parts of its update."""
    name, script = (UPDATE, "trust_region.py") if method.algorithm == "trpo" else (PROFILE, "iteration.py")
    words = (str(PEERS / script), "--env", env, *method.own_words(n_envs, n_steps))
    return Side(name, "Jumar, in parts", (Variant("", words),), trial_steps=8_192)


def sb3_side(env: str, method: Method, *sizes: tuple[int, int], vectors: dict[str, str] = VECTORS) -> Side:
    """Stable-Baselines3 in the fastest of the ways that it offers on a processor, and of the sizes (n_envs, n_steps).

    ``vectors`` are the kinds of vector environment to choose from.
    """
    variants = []
    for n_envs, n_steps in sizes:
        script = (str(PEERS / "sb3_speed.py"), "--algorithm", method.algorithm, "--env", env)
        script += (*method.words(n_envs, n_steps), *method.peer)
        useful = vectors if n_envs > 1 else {"dummy": "DummyVecEnv"}
        many = f"{n_envs} x {n_steps}, " if len(sizes) > 1 else ""
        variants += [
            Variant(f"{many}{label}, torch threads: {threads}", (*script, "--vector", kind, "--threads", str(threads)))
            for kind, label in useful.items()
            for threads in (1, 2)
        ]
    title = "sb3-contrib" if "recurrent-ppo" in method.peer else PEER_TITLES[method.algorithm]
    trial_steps = 1_024 if vectors is POOL else 8_192
    return Side("sb3", title, tuple(variants), trial_steps=trial_steps, peer="sb3")


def rejax_side(n_envs: int, n_steps: int, seeds: int = 1) -> Side:
    """Return rejax on gymnax's CartPole, one program; the steps of all seeds count."""
    words = (str(PEERS / "rejax_ppo.py"), "--env", "CartPole-v1", *PPO.words(n_envs, n_steps), "--n-seeds", str(seeds))
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


def cheetahs(method: Method, n_envs: int, n_steps: int, *more: tuple[int, int]) -> tuple[str, int, tuple[Side, ...]]:
    """Return title, rollout and sides of a comparison on HalfCheetah; Stable-Baselines3 may take ``more`` sizes."""
    env = "HalfCheetah-v5"
    without = [relative_side(f"envpool/{env}", n_envs, n_steps, replace(method, own={}), method.without)]
    sides = (
        jumar_side(f"envpool/{env}", n_envs, n_steps, method),
        *(without if method.own else ()),
        sb3_side(env, method, (n_envs, n_steps), *more),
        envpool_side(env, n_envs),
        parts_side(f"envpool/{env}", n_envs, n_steps, method),
    )
    return (
        f"{method.title}{', ' if method.title else ''}{env}, {n_envs} environment{'s' if n_envs > 1 else ''}",
        n_envs * n_steps,
        sides,
    )


def relatives() -> dict[str, Comparison]:
    """Return the comparisons of Jumar's algorithms with each other, of those that are registered."""
    found = {}
    for name, (title, n_steps, methods) in RELATIVES.items():
        sides = tuple(
            relative_side("envpool/HalfCheetah-v5", 8, n_steps, method)
            for method in methods
            if method.algorithm in ALGORITHMS
        )
        if len(sides) > 1:
            whole = f"{title}, HalfCheetah-v5, 8 environments of {n_steps} steps"
            found[name] = Comparison(name, whole, 8 * n_steps, sides, reference=sides[0].name)
    return found


def comparisons() -> dict[str, Comparison]:
    """Return all comparisons by name."""
    cheetah, cartpole, slow = "envpool/HalfCheetah-v5", "jax/CartPole-v1", "slow_env:Slow-v0"
    sides = {
        "halfcheetah": cheetahs(PPO, 8, 256),
        "halfcheetah-32": cheetahs(PPO, 32, 64, (8, 256)),
        "halfcheetah-1": cheetahs(PPO, 1, 2048),
        "apart": cheetahs(APART, 8, 256),
        "apart-32": cheetahs(APART, 32, 64, (8, 256)),
        "cartpole-compiled": (
            "CartPole-v1 compiled, 8 environments",
            2048,
            (
                jumar_side(cartpole, 8, 256),
                sb3_side("CartPole-v1", PPO, (8, 256)),
                rejax_side(8, 256),
                compiled_side(8, 256),
                parts_side(cartpole, 8, 256, PPO),
            ),
        ),
        "cartpole-seeds": (
            "CartPole-v1 compiled, 8 seeds of 8 environments",
            2048,
            (jumar_side(cartpole, 8, 256, seeds=8), rejax_side(8, 256, seeds=8)),
        ),
        "cartpole-gymnasium": (
            "CartPole-v1 of Gymnasium, 1 environment",
            2048,
            (
                jumar_side("gymnasium/CartPole-v1", 1, 2048),
                sb3_side("CartPole-v1", PPO, (1, 2048)),
                parts_side("gymnasium/CartPole-v1", 1, 2048, PPO),
            ),
        ),
        "slow-python": (
            "A Python environment of 1 ms a step, 1 environment",
            2048,
            (jumar_side(slow, 1, 2048), slow_side()),
        ),
        "slow-python-workers": (
            "A Python environment of 1 ms a step, 8 environments in worker processes",
            2048,
            (jumar_side(slow, 8, 256), slow_side()),
        ),
        "pong": (
            "Pong-v5 from images, 8 environments",
            1024,
            (
                replace(jumar_side("envpool/Pong-v5", 8, 128, PONG), trial_steps=2_048),
                sb3_side("Pong-v5", PONG, (8, 128), vectors=POOL),
            ),
        ),
        "recurrent": (
            "Recurrent PPO, HalfCheetah-v5, 8 environments",
            1024,
            (
                replace(jumar_side(cheetah, 8, 128, RECURRENT), trial_steps=4_096),
                replace(sb3_side("HalfCheetah-v5", RECURRENT, (8, 128)), trial_steps=2_048),
            ),
        ),
        "memory": (
            "Memory of a long run",
            2048,
            (jumar_side(cheetah, 8, 256), jumar_side(cheetah, 8, 256, times=4.0)),
        ),
        "trpo": cheetahs(TRPO, 8, 256),
        "trpo-32": cheetahs(TRPO, 32, 64, (8, 256)),
        "trpo-cartpole": (
            "TRPO, CartPole-v1 compiled, 8 environments",
            2048,
            (
                jumar_side(cartpole, 8, 256, TRPO),
                sb3_side("CartPole-v1", TRPO, (8, 256)),
                compiled_side(8, 256),
                parts_side(cartpole, 8, 256, TRPO),
            ),
        ),
    }
    peers = {name: Comparison(name, title, rollout, them) for name, (title, rollout, them) in sides.items()}
    return {**peers, **relatives(), **off_policy(ALGORITHMS)}


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
    parser.add_argument(
        "--replace", action="store_true", help="with --only: take the place of these in the results of a whole run"
    )
    arguments = parser.parse_args(words)
    if arguments.replace and (arguments.quick or not arguments.only):
        parser.error("--replace goes with --only NAME ..., and not with --quick")
    effort = QUICK if arguments.quick else FULL
    if arguments.rounds is not None and arguments.rounds < 1:
        parser.error(f"--rounds {arguments.rounds}: it must be at least 1")
    arguments.effort = Effort(effort.seconds, arguments.rounds or effort.rounds)
    # A part of the comparisons, or a quick look, is not to replace the figures of a whole run.
    partly = arguments.quick or (arguments.only and not arguments.replace)
    arguments.out = arguments.out or (PARTIAL if partly else RESULTS)
    if arguments.replace and not (arguments.out / "speed.json").exists():
        parser.error(f"--replace: there are no results in {arguments.out}")
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
    here, mine = machine(), versions()
    report = read(arguments.out) if arguments.replace else Report(date, arguments.quick, here, mine)
    commit = f", commit {mine['commit']}" if "commit" in mine else ""
    measured = ". ".join([f"{date}{commit}, {here['processor']}", *busy(here)]) if arguments.replace else ""
    peers = Peers(say)

    def save() -> None:
        write(report, arguments.out)

    every = comparisons()
    try:
        for name in arguments.only:
            comparison = every[name]
            result = ComparisonResult(
                name, comparison.title, comparison.rollout, comparison.reference, measured=measured
            )
            if not arguments.replace:
                report.put(result)
            # What is replaced stays until the new figures are whole.
            compare(comparison, arguments.effort, peers, result, say, (lambda: None) if arguments.replace else save)
            report.put(result)
            save()
    except (KeyboardInterrupt, SystemExit) as stop:
        if not arguments.replace:
            report.interrupted = True
            save()
        return 130 if isinstance(stop, KeyboardInterrupt) else 143
    say(f"written: {arguments.out / 'speed.json'} and speed.md")
    return 1 if report.failures else 0


if __name__ == "__main__":
    sys.exit(main())
