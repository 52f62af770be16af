"""PPO with Stable-Baselines3's defaults over many seeds, in Jumar and in Stable-Baselines3: do the returns differ?

    .venv/bin/python benchmarks/seeds.py LunarLander-v3 --seeds 40 --total-timesteps 200000

Both sides train in Gymnasium's environment with no evaluation in between; the sides take turns, seed by seed, each
training in a process on one processor. Two returns are kept of each: the mean over the last 100 episodes of the training
(``rollout/ep_rew_mean`` in both libraries), and those of deterministic episodes of the final policy, reset with the same
seeds on both sides. Each training is kept as soon as it ends; a stopped command goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import math
import signal
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from harness import HERE, PEERS, Failed, Peers, last_line, say
from scipy.special import stdtrit
from speed import terminate
from tables import circumstances, lists_in_lines
from trainings import Running, in_parallel, run_process

from jumar.runs.files import write_atomically

RESULTS = HERE / "results"
SIDES = {"jumar": "Jumar", "sb3": "Stable-Baselines3"}
EVALUATION_SEED = 1_000_000
"""The seed of the first evaluation episode; the episodes of a training follow those of the one before it."""


@dataclass(frozen=True)
class Setup:
    """What both sides are given."""

    env: str
    total_timesteps: int
    n_envs: int
    n_steps: int
    episodes: int
    """Deterministic episodes of the final policy."""

    @property
    def settings(self) -> dict[str, int]:
        """What a result depends on, beside the environment."""
        return {name: value for name, value in asdict(self).items() if name != "env"}


@dataclass(frozen=True)
class Job:
    """One training."""

    side: str
    setup: Setup
    seed: int
    interpreter: str

    @property
    def evaluation_seed(self) -> int:
        """The seed of its first evaluation episode."""
        return EVALUATION_SEED + self.seed * self.setup.episodes


@dataclass(frozen=True)
class Run:
    """What a training gave."""

    seed: int
    training: float
    """Mean return of the last 100 episodes of the training."""
    evaluations: list[float]
    """Return of each deterministic episode of the final policy."""
    wall_time_s: float
    """Seconds of the processes."""
    versions: dict[str, str] = field(default_factory=dict)


MEASURES = {"training": lambda run: run.training, "evaluation": lambda run: float(np.mean(run.evaluations))}
"""By name, the number of a run that is compared."""


class Results:
    """What has been measured, by environment and side, in ``seeds.json``; the table is in ``seeds.md`` beside it."""

    def __init__(self, folder: Path) -> None:
        """Read the file, if it is there."""
        self._path = folder / "seeds.json"
        self.about: dict[str, Any] = {}
        self.setups: dict[str, Setup] = {}
        self.runs: dict[str, dict[str, dict[int, Run]]] = {}
        if self._path.exists():
            data = json.loads(self._path.read_text())
            self.about = data["about"]
            for env, task in data["tasks"].items():
                self.setups[env] = Setup(env, **task["settings"])
                self.runs[env] = {
                    side: {row["seed"]: Run(**row) for row in task["runs"].get(side, [])} for side in SIDES
                }

    def of(self, setup: Setup) -> dict[str, dict[int, Run]]:
        """Return the runs of each side with this setup; those of the environment with another are forgotten."""
        if self.setups.get(setup.env) != setup:
            self.setups[setup.env] = setup
            self.runs[setup.env] = {side: {} for side in SIDES}
        return self.runs[setup.env]

    def write(self) -> None:
        """Write the file, and the page beside it."""
        tasks = {
            env: {
                "settings": self.setups[env].settings,
                "runs": {side: [asdict(runs[seed]) for seed in sorted(runs)] for side, runs in sides.items()},
            }
            for env, sides in self.runs.items()
        }
        data = json.dumps({"about": self.about, "tasks": tasks}, indent=1)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(self._path, (lists_in_lines(data) + "\n").encode())
        write_atomically(self._path.with_suffix(".md"), page(self).encode())


class Mean(NamedTuple):
    """A mean over seeds."""

    n: int
    mean: float
    error: float
    """Its standard error."""


class Difference(NamedTuple):
    """The difference of two means, with Welch's 95 % interval, which does not take the variances to be equal."""

    mean: float
    error: float
    low: float
    high: float


def mean_of(values: Sequence[float]) -> Mean:
    """Return the mean of at least two values with its standard error."""
    x = np.asarray(values, np.float64)
    return Mean(len(x), float(x.mean()), float(x.std(ddof=1)) / math.sqrt(len(x)))


def welch(ours: Mean, theirs: Mean, level: float = 0.95) -> Difference:
    r"""Return how much higher ``ours`` is, with Welch's interval.

    With standard errors :math:`a, b` the difference has the error :math:`s = \sqrt{a^2 + b^2}`, and is compared with
    Student's distribution of :math:`s^4 / (a^4 / (n - 1) + b^4 / (m - 1))` degrees of freedom.
    """
    a, b = ours.error**2, theirs.error**2
    error = math.sqrt(a + b)
    freedom = (a + b) ** 2 / (a**2 / (ours.n - 1) + b**2 / (theirs.n - 1)) if a + b else 1.0
    reach = float(stdtrit(freedom, 0.5 + level / 2.0)) * error
    difference = ours.mean - theirs.mean
    return Difference(difference, error, difference - reach, difference + reach)


def page(results: Results) -> str:
    """Return the table."""
    lines = [
        "# Returns over many seeds",
        "",
        f"{results.about.get('date', '')}. {results.about.get('machine', '')}. "
        "PPO with Stable-Baselines3's defaults, in Gymnasium's environments. Mean ± standard error over seeds: of the last "
        "100 episodes of the training, and of deterministic episodes of the final policy. The difference is Jumar's minus "
        "Stable-Baselines3's, with its standard error and Welch's 95 % interval.",
        "",
    ]
    for env, sides in results.runs.items():
        setup = results.setups[env]
        counted = {side: list(runs.values()) for side, runs in sides.items()}
        lines += [
            f"`.venv/bin/python benchmarks/seeds.py {' '.join(words_of(setup, max(map(len, counted.values()))))}`",
            "",
            f"| {env}, {setup.total_timesteps:,} steps | seeds | {SIDES['jumar']} | seeds | {SIDES['sb3']} | difference "
            "| 95 % interval |",
            "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
        ]
        if min(map(len, counted.values())) > 1:
            lines += [row(name, counted) for name in MEASURES]
        lines.append("")
    return "\n".join(lines[:-1]) + "\n"


def row(measure: str, runs: Mapping[str, Sequence[Run]]) -> str:
    """Return the row of one measure."""
    ours, theirs = (mean_of([MEASURES[measure](run) for run in runs[side]]) for side in SIDES)
    d = welch(ours, theirs)
    cells = [measure]
    for one in (ours, theirs):
        cells += [str(one.n), f"{one.mean:,.1f} ± {one.error:,.1f}"]
    cells += [f"{d.mean:,.1f} ± {d.error:,.1f}", f"{d.low:,.1f} to {d.high:,.1f}"]
    return f"| {' | '.join(cells)} |"


def words_of(setup: Setup, seeds: int) -> list[str]:
    """Return the words that ask for this setup."""
    return [setup.env, *options({"seeds": seeds, **setup.settings})]


def options(values: Mapping[str, int]) -> list[str]:
    """Return numbers as the options of a command."""
    return [word for name, value in values.items() for word in (f"--{name.replace('_', '-')}", str(value))]


def run(job: Job, core: set[int] | None, running: Running) -> Run:
    """Train and evaluate once.

    Raises:
        Failed: a process ended with an error, or said nothing that can be read.
    """
    with tempfile.TemporaryDirectory(prefix="jumar-seeds-") as name:
        folder = Path(name)
        start = time.perf_counter()
        said = [json_of(words, folder, core, running) for words in commands(job, folder)]
        seconds = time.perf_counter() - start
        try:
            if job.side == "sb3":
                told = said[0]
                return Run(job.seed, float(told["training"]), told["evaluations"], seconds, told["versions"])
            return Run(job.seed, float(said[0]["ep_rew_mean"]), said[1]["returns"], seconds)
        except (KeyError, TypeError, ValueError) as error:
            raise Failed(f"its last line is no result ({type(error).__name__})") from None


def commands(job: Job, folder: Path) -> list[list[str]]:
    """Return the commands of a training, which each print a JSON object as their last line."""
    setup = job.setup
    if job.side == "sb3":
        words = [job.interpreter, str(PEERS / "sb3_seeds.py"), "--env", setup.env]
        told = {**setup.settings, "seed": job.seed, "evaluation_seed": job.evaluation_seed}
        return [[*words, *options(told)]]
    train = [job.interpreter, "-m", "jumar", "train", "ppo", f"gymnasium/{setup.env}", "--preset", "none"]
    told = {name: value for name, value in setup.settings.items() if name != "episodes"}
    train += options({**told, "seed": job.seed, "workers": 0, "eval_every": 0, "checkpoint_every": 0})
    evaluate = [job.interpreter, "-m", "jumar", "evaluate", str(folder / "run")]
    evaluate += options({"episodes": setup.episodes, "seed": job.evaluation_seed})
    return [[*train, "--run-dir", str(folder / "run"), "--quiet", "--json"], [*evaluate, "--json"]]


def json_of(words: Sequence[str], folder: Path, core: set[int] | None, running: Running) -> dict[str, Any]:
    """Run a command, and read the JSON object in the last line of its output.

    Raises:
        Failed: it ended with an error, or there is none.
    """
    run_process(words, folder, core, running)
    try:
        said = json.loads(last_line((folder / "out").read_text()))
    except ValueError:
        raise Failed("its last line is no JSON") from None
    if not isinstance(said, dict):
        raise Failed("its last line is no JSON object")
    return said


def missing(results: Results, setup: Setup, seeds: int, peers: Peers) -> list[Job]:
    """Return the trainings that are not in the results: seed by seed, one of each side.

    Raises:
        Failed: the peer could not be installed.
    """
    have = results.of(setup)
    wanted = [(side, seed) for seed in range(seeds) for side in SIDES if seed not in have[side]]
    interpreters = {side: str(peers.interpreter(None if side == "jumar" else side)) for side, _ in wanted}
    return [Job(side, setup, seed, interpreters[side]) for side, seed in wanted]


def parse(words: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("env", metavar="ENV", help="an id of Gymnasium's")
    numbers = {
        "seeds": (40, "trainings of each side"),
        "total-timesteps": (200_000, "steps of a training"),
        "n-envs": (8, "environments"),
        "n-steps": (256, "steps of each in a rollout"),
        "episodes": (20, "deterministic episodes of the final policy"),
        "jobs": (1, "trainings at a time"),
    }
    for name, (default, what) in numbers.items():
        parser.add_argument(f"--{name}", type=int, default=default, help=f"{what} (default: {default:,})")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where to write (default: results)")
    arguments = parser.parse_args(words)
    for name in numbers:
        value = getattr(arguments, name.replace("-", "_"))
        if value < 1:
            parser.error(f"--{name} {value}: it must be at least 1")
    return arguments


def setup_of(arguments: argparse.Namespace) -> Setup:
    """Return the setup that a command line asks for."""
    return Setup(*(getattr(arguments, name) for name in Setup.__dataclass_fields__))


def main(words: list[str] | None = None) -> int:
    """Train what is missing; return 1 if anything failed, 130 or 143 if it was stopped."""
    arguments = parse(words)
    signal.signal(signal.SIGTERM, terminate)
    setup = setup_of(arguments)
    results, failures = Results(arguments.out), []
    try:
        jobs = missing(results, setup, arguments.seeds, Peers(say))
    except Failed as failure:
        say(str(failure))
        return 1
    say(f"{len(jobs)} trainings, {arguments.jobs} at a time")

    def done(job: Job, outcome: Run | Failed) -> None:
        label = f"{setup.env}, {job.side}, seed {job.seed}"
        if isinstance(outcome, Failed):
            failures.append(label)
            say(f"{label}: failed: {outcome}")
            return
        results.of(setup)[job.side][job.seed] = outcome
        results.about = circumstances()
        results.write()
        values = ", ".join(f"{name} {measure(outcome):,.1f}" for name, measure in MEASURES.items())
        say(f"{label}: {values}, {outcome.wall_time_s / 60:.1f} min")

    try:
        in_parallel(jobs, arguments.jobs, run, done)
    except (KeyboardInterrupt, SystemExit) as stop:
        return 130 if isinstance(stop, KeyboardInterrupt) else 143
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
