"""What each optimisation of PPO brought: a row of the profile on the commit before it and on its own, in turns.

    .venv/bin/python benchmarks/history.py [--only NAME ...] [--rounds N] [--out DIR]

It needs the history of the repository, and Jumar's own interpreter; each commit is checked out into a folder of its own
for as long as it is measured.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from harness import HERE, PEERS, Failed, measure, say
from report import Spread, paired_ratio
from speed import PPO, machine, versions

ROOT = HERE.parent
LIMIT_S = 300.0


@dataclass(frozen=True)
class Workload:
    """What is run: ``words`` after the interpreter; a process runs for ``total_timesteps``."""

    title: str
    words: tuple[str, ...]
    total_timesteps: int
    rollout: int = 2048


def parts(env: str, n_envs: int, n_steps: int, total_timesteps: int) -> tuple[tuple[str, ...], int]:
    """Return the words of ``peers/parts.py``, and the steps to time."""
    return (str(PEERS / "parts.py"), "--env", env, *PPO.words(n_envs, n_steps)), total_timesteps


CHEETAH = Workload("HalfCheetah-v5, 8 environments", *parts("envpool/HalfCheetah-v5", 8, 256, 120_000))
GYMNASIUM = Workload("Gymnasium's CartPole-v1, 1 environment", *parts("gymnasium/CartPole-v1", 1, 2048, 40_000))
COMPILED = Workload("CartPole-v1 compiled, 8 environments", *parts("jax/CartPole-v1", 8, 256, 400_000))
SLOW = Workload("an environment of 1 ms a step", *parts("slow_env:Slow-v0", 1, 512, 3_000), rollout=512)
SEEDS = Workload(
    "CartPole-v1 compiled, 8 seeds of 8 environments",
    (
        *("-m", "jumar", "train", "ppo", "jax/CartPole-v1", "--n-seeds", "8", *PPO.words(8, 256), "--eval-every", "0"),
        *("--checkpoint-every", "0", "--quiet", "--json", "--run-dir", "run"),
    ),
    100_000,
    rollout=8 * 2048,
)


@dataclass(frozen=True)
class Optimisation:
    """A change, the last commit without it, that which brought it, and the row of the profile that it is about."""

    title: str
    before: str
    after: str
    workload: Workload
    row: str


OPTIMISATIONS = {
    "prepare": Optimisation("advantages of all minibatches scaled at once", "1e98e74", "d558eb1", CHEETAH, "update"),
    "xla": Optimisation("XLA's options", "9321274", "a5b3d82", CHEETAH, "update"),
    "shuffle": Optimisation("one packed word a row to sort", "a5b3d82", "2703695", CHEETAH, "update"),
    "seeds": Optimisation("seeds divided among processors", "1deabdd", "611895d", SEEDS, "iteration"),
    "calling-thread": Optimisation("computing in the calling thread", "59466eb", "611895d", GYMNASIUM, "collecting"),
    "rows": Optimisation("rows copied without a walk over trees", "611895d", "61c5200", GYMNASIUM, "collecting"),
    "noise": Optimisation("noise drawn ahead of the rollout", "3a4fdc0", "63a2c04", COMPILED, "iteration"),
    "noise-pool": Optimisation("noise drawn ahead of the rollout", "3a4fdc0", "63a2c04", CHEETAH, "collecting"),
    "slow": Optimisation("noise ahead, arrays afterwards, fewer checks", "3a4fdc0", "63a2c04", SLOW, "collecting"),
}


@dataclass
class Result:
    """Milliseconds an iteration, a number for each round."""

    title: str
    commits: tuple[str, str]
    workload: str
    row: str
    before: list[float] = field(default_factory=list)
    after: list[float] = field(default_factory=list)
    failure: str | None = None

    @property
    def line(self) -> str:
        """A row of the table."""
        before, after, ratio = Spread.of(self.before), Spread.of(self.after), paired_ratio(self.before, self.after)
        if before is None or after is None or ratio is None:
            return f"| {self.title} | {self.workload} | {self.row} | {self.failure or 'not measured'} | | |"
        spread = f"{ratio.median:.2f} ({ratio.lowest:.2f} to {ratio.highest:.2f})"
        return f"| {self.title} | {self.workload} | {self.row} | {before.median:.1f} | {after.median:.1f} | {spread} |"


@contextlib.contextmanager
def checked_out(commit: str) -> Iterator[Path]:
    """Check a commit out into a folder that goes away again.

    Raises:
        Failed: git has no such commit.
    """
    with tempfile.TemporaryDirectory(prefix="jumar-history-") as folder:
        tree = Path(folder) / "tree"
        git = ["git", "-C", str(ROOT), "worktree"]
        added = subprocess.run([*git, "add", "--detach", "--force", str(tree), commit], capture_output=True, text=True)
        if added.returncode:
            raise Failed(f"git has no {commit}; the whole history is needed")
        try:
            yield tree
        finally:
            subprocess.run([*git, "remove", "--force", str(tree)], capture_output=True, check=False)


def milliseconds(optimisation: Optimisation, tree: Path, scratch: Path) -> float:
    """Run the workload with the library of a checkout; return the row of its profile.

    Raises:
        Failed: the process did.
    """
    workload = optimisation.workload
    scratch.mkdir(exist_ok=True)
    run_dir = scratch / "run"
    shutil.rmtree(run_dir, ignore_errors=True)
    command = [sys.executable, *workload.words, "--total-timesteps", str(workload.total_timesteps)]
    measured = measure(command, scratch, LIMIT_S, first_on_path=tree / "src")
    return measured.profile.get(optimisation.row, 1e3 * workload.rollout / measured.steps_per_second)


def measure_one(optimisation: Optimisation, result: Result, rounds: int) -> None:
    """Fill in the result, before and after in turns."""
    with (
        checked_out(optimisation.before) as old,
        checked_out(optimisation.after) as new,
        tempfile.TemporaryDirectory(prefix="jumar-history-") as scratch,
    ):
        for index in range(rounds):
            for tree, times, name in ((old, result.before, "before"), (new, result.after, "after")):
                times.append(milliseconds(optimisation, tree, Path(scratch) / name))
                say(f"{result.title}, round {index + 1} of {rounds}, {name}: {times[-1]:.1f} ms")


def page(results: list[Result], about: dict[str, object]) -> str:
    """Return the table as a page."""
    lines = [
        "# What each optimisation brought",
        "",
        f"{about['processor']}, {about['cores']} cores. Milliseconds of an iteration's part, medians over rounds in which the "
        "commits before and after the change took turns; how many times as fast, is the ratio within each round.",
        "",
        "| change | workload | part | before, ms | after, ms | times as fast |",
        "| --- | --- | --- | ---: | ---: | ---: |",
        *(result.line for result in results),
        "",
    ]
    return "\n".join(lines)


def main(words: list[str] | None = None) -> int:
    """Measure all, and write after each; return 1 if anything failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=tuple(OPTIMISATIONS), help="these alone")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="how often they take turns (default: 3)")
    parser.add_argument("--out", type=Path, default=HERE / "results", help="where to write (default: results)")
    arguments = parser.parse_args(words)
    about = {**machine(), **versions()}
    results: list[Result] = []
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name in arguments.only or OPTIMISATIONS:
        one = OPTIMISATIONS[name]
        results.append(Result(one.title, (one.before, one.after), one.workload.title, one.row))
        try:
            measure_one(one, results[-1], arguments.rounds)
        except Failed as failure:
            results[-1].failure = str(failure)
            say(f"{one.title}: failed: {failure}")
        data = {"about": about, "optimisations": [asdict(result) for result in results]}
        (arguments.out / "history.json").write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
        (arguments.out / "history.md").write_text(page(results, about), encoding="utf-8")
    return 1 if any(result.failure for result in results) else 0


if __name__ == "__main__":
    sys.exit(main())
