"""The options of the commands that train many runs: compare and sweep."""

from __future__ import annotations

from jumar.cli.options.environments import add_making_options
from jumar.cli.options.places import add_where
from jumar.cli.options.train import DEFAULT_TOTAL_TIMESTEPS
from jumar.cli.parser import Parser, Several
from jumar.cli.values import count, scale, seed, steps


def add_compare(parser: Parser) -> None:
    """Add the options of ``jumar compare``."""
    what = parser.add_argument_group("what is compared")
    what.add_argument(
        "--algorithms", action=Several, metavar="A,B",
        help="the algorithms; settings follow a colon: ppo,ppo:clip_range=0.1,n_epochs=4,trpo:preset=none",
    )  # fmt: skip
    what.add_argument("--envs", action=Several, metavar="E,F", help="the environments, as in `jumar train`")
    what.add_argument(
        "--from", dest="earlier", action=Several, metavar="DIR",
        help="earlier runs to compare as well: run directories, or folders that contain them",
    )  # fmt: skip
    runs = parser.add_argument_group("runs")
    runs.add_argument(
        "--seeds",
        type=count(1),
        default=5,
        metavar="K",
        help="number of seeds for each algorithm and environment (default: 5)",
    )
    runs.add_argument("--seed", type=seed, default=0, metavar="N", help="the first seed (default: 0)")
    runs.add_argument(
        "--total-timesteps", type=steps, default=DEFAULT_TOTAL_TIMESTEPS, metavar="STEPS",
        help=f"environment steps of each run (default: {DEFAULT_TOTAL_TIMESTEPS:,})",
    )  # fmt: skip
    runs.add_argument(
        "--n-envs", type=count(1), metavar="N", help="environments stepped side by side (default: each algorithm's own)"
    )
    runs.add_argument(
        "--preset", metavar="NAME|FILE|none",
        help="tuned settings to start from (default: those of each algorithm and environment, where there are any)",
    )  # fmt: skip
    runs.add_argument("--cost", metavar="velocity:V", help="cost of a step, as in `jumar train`")
    runs.add_argument(
        "--encoder", metavar="module:Name",
        help="a network of your own that encodes observations, for all algorithms that name none: ppo:encoder=module:Name, or "
        "ppo:encoder=none (default: Jumar's)",
    )  # fmt: skip
    add_making_options(parser.add_argument_group("how every environment is made"))
    runs.add_argument(
        "--eval-every", type=steps, metavar="STEPS",
        help="environment steps between evaluations (default: 20,000, or a fiftieth of shorter runs)",
    )  # fmt: skip
    runs.add_argument(
        "--eval-episodes", type=count(1), default=10, metavar="N", help="episodes of each evaluation (default: 10)"
    )
    runs.add_argument(
        "--jobs", type=count(1), metavar="N",
        help="runs, or programs of several seeds, that train at a time (default: as many as there are processors for; with "
        "--on slurm, all)",
    )  # fmt: skip
    add_where(parser.add_argument_group("where runs are trained"))
    report = parser.add_argument_group("report")
    out = report.add_argument(
        "--out", metavar="DIR",
        help="folder for runs and report; the same command with the same folder continues (default: runs/compare_DATE)",
    )  # fmt: skip
    out.complete = "directory"  # type: ignore[attr-defined]
    report.add_argument(
        "--last", type=count(1), default=10, metavar="N",
        help="a run's score is the mean of its last N evaluations (default: 10)",
    )  # fmt: skip
    report.add_argument(
        "--scale", action=Several, type=scale, metavar="ENV=LOW:HIGH",
        help="returns at which the normalised score is 0 and 1 (default: the lowest and the highest score of any run)",
    )  # fmt: skip
    report.add_argument("--quiet", action="store_true", help="show no progress, only warnings and the final summary")


def add_sweep(parser: Parser) -> None:
    """Add the options of ``jumar sweep``."""
    parser.examples = {"SPACE.toml": "jumar sweep space.toml --trials 20"}
    space = parser.add_argument(
        "space", metavar="SPACE.toml",
        help="a TOML file: algorithm, env and total_timesteps at the top; fixed settings below [settings]; and below [search] "
        "what is searched: learning_rate = { low = 1e-5, high = 1e-2, log = true }, n_steps = { choices = [32, 64] }",
    )  # fmt: skip
    space.complete = "file"  # type: ignore[attr-defined]
    parser.add_argument(
        "--trials", type=count(1), metavar="N",
        help="number of trials, each with settings of its own; with a larger number a finished sweep continues (default: the "
        "file's, or 20)",
    )  # fmt: skip
    parser.add_argument(
        "--parallel", type=count(1), metavar="K",
        help="trials that are proposed together and train at the same time; the result depends on it (default: as many as "
        "there are processors for; required with --on slurm)",
    )  # fmt: skip
    out = parser.add_argument(
        "--out", metavar="DIR",
        help="folder for everything; the same command with the same folder continues (default: runs/sweep_DATE)",
    )  # fmt: skip
    out.complete = "directory"  # type: ignore[attr-defined]
    parser.add_argument(
        "--seed", type=seed, metavar="S",
        help="seed of the proposals, and the first training seed of every trial (default: the file's, or 0)",
    )  # fmt: skip
    parser.add_argument(
        "--env", metavar="ENV",
        help="an environment to use instead of the file's; needed if the file's is code of your own: no module is imported "
        "only because a file names it",
    )  # fmt: skip
    add_where(parser.add_argument_group("where runs are trained"))
    parser.add_argument("--quiet", action="store_true", help="show no progress, only warnings and the final summary")
