"""The options of the commands that show, look after and explain."""

from __future__ import annotations

from jumar.cli.options.environments import add_env, add_making_options
from jumar.cli.parser import Parser
from jumar.cli.values import count, one_of, port, seed, steps


def _add_places(parser: Parser) -> None:
    places = parser.add_argument(
        "runs", metavar="RUN", nargs="*", help="run directories, comparisons, or folders that hold some"
    )
    places.complete = "directory"  # type: ignore[attr-defined]


def add_report(parser: Parser) -> None:
    """Add the options of ``jumar report``."""
    _add_places(parser)
    out = parser.add_argument(
        "--out", metavar="FILE.html",
        help="the page (default: report.html in RUN; of several RUNs in the present folder)",
    )  # fmt: skip
    out.complete = "file"  # type: ignore[attr-defined]


def add_live(parser: Parser) -> None:
    """Add the options of ``jumar live``."""
    _add_places(parser)
    parser.add_argument(
        "--port", type=port, default=0, metavar="N", help="the port on 127.0.0.1 (default: 0, one that is free)"
    )


def add_follow(parser: Parser) -> None:
    """Add the options of ``jumar follow``."""
    run = parser.add_argument("run", metavar="RUN", help="a run directory")
    run.complete = "directory"  # type: ignore[attr-defined]
    parser.examples = {"RUN": "jumar follow runs/my_run --to trackio"}
    known = ("wandb", "trackio")
    parser.add_argument(
        "--to", metavar="TRACKER", type=one_of("tracker", *known), choices=known,
        help="wandb (Weights & Biases; with WANDB_MODE=offline kept here) or trackio (a database on this machine)",
    )  # fmt: skip
    parser.add_argument("--project", default="jumar", metavar="NAME", help="the tracker's project (default: jumar)")
    parser.add_argument(
        "--name", metavar="NAME", help="what the run is called there (default: the name of its directory)"
    )


def add_check(parser: Parser) -> None:
    """Add the options of ``jumar check``."""
    parser.examples = {"ENV": "jumar check CartPole-v1"}
    add_env(parser, "an environment, as `jumar train` takes it")
    add_making_options(parser)
    parser.add_argument("--seed", type=seed, default=0, metavar="N", help="seed of everything random (default: 0)")
    parser.add_argument(
        "--steps", type=count(1), default=1000, metavar="N",
        help="random actions to take; they end after 10 seconds (default: 1,000)",
    )  # fmt: skip


def add_verify(parser: Parser) -> None:
    """Add the options of ``jumar verify``."""
    parser.add_argument(
        "names", metavar="NAME", nargs="*",
        help="a check, or a group such as gradients (default: all checks)",
    )  # fmt: skip
    parser.add_argument("--quick", action="store_true", help="leave out the checks whose programs take long to compile")
    parser.add_argument("--list", action="store_true", help="list the checks, one per line, the name first")


def add_doctor(parser: Parser) -> None:
    """Add the options of ``jumar doctor``."""
    parser.add_argument(
        "--quick",
        action="store_true",
        help="leave out the worker process, the training and the comparison with exact results",
    )
    parser.add_argument(
        "--address", metavar="HOST:PORT",
        help="look at the Ray cluster with this head instead: its nodes, their versions, processors and memory, and the folder "
        "that they share",
    )  # fmt: skip
    folder = parser.add_argument(
        "--folder", metavar="DIR", help="where runs are to be kept that the cluster trains (default: runs)"
    )
    folder.complete = "directory"  # type: ignore[attr-defined]


def add_figure(parser: Parser) -> None:
    """Add the options of ``jumar figure``."""
    parser.add_argument(
        "names", metavar="NAME", nargs="*",
        help="figures, such as 12.2; all: every one that does not train for minutes",
    )  # fmt: skip
    parser.add_argument("--list", action="store_true", help="list the figures, one per line, the name first")
    out = parser.add_argument(
        "--out", metavar="PATH",
        help="of one figure a file that ends in .png or .svg (default: NAME.png); of several a folder, in which each is "
        "written as both (default: figures)",
    )  # fmt: skip
    data = parser.add_argument(
        "--data", metavar="PATH",
        help="write what is drawn, as JSON, too: of one figure a file, of several a folder",
    )  # fmt: skip
    parser.add_argument(
        "--steps", type=steps, metavar="STEPS",
        help="environment steps of each training, in figures that train (default: the figure's own number)",
    )  # fmt: skip
    source = parser.add_argument(
        "--from", dest="source", metavar="FILE",
        help="results of your own to draw, in figures that show results (default: those that come with Jumar)",
    )  # fmt: skip
    out.complete = data.complete = source.complete = "file"  # type: ignore[attr-defined]


def add_list(parser: Parser) -> None:
    """Add the options of ``jumar list``."""
    parser.examples = {"WHAT": "jumar list envs"}
    known = ("algorithms", "envs", "presets", "runs")
    parser.optional = {"DIR"}
    parser.add_argument(
        "what", metavar="WHAT", type=one_of("list", *known), choices=known, help="algorithms, envs, presets or runs"
    )
    folder = parser.add_argument("folder", metavar="DIR", nargs="?", help="where to look for runs (default: runs)")
    folder.complete = "directory"  # type: ignore[attr-defined]


def add_example(parser: Parser) -> None:
    """Add the options of ``jumar example``."""
    parser.examples = {"NAME": "jumar example example-12.1, or jumar example --list"}
    parser.spared = {"NAME": ("--list",)}
    parser.add_argument("name", metavar="NAME", nargs="?", help="the example; --list shows all")
    parser.add_argument("--list", action="store_true", help="list all examples, one per line, the name first")


def add_completion(parser: Parser) -> None:
    """Add the options of ``jumar completion``."""
    parser.examples = {"SHELL": "jumar completion bash"}
    known = ("bash", "zsh", "tcsh")
    parser.add_argument("shell", metavar="SHELL", type=one_of("shell", *known), choices=known, help="bash, zsh or tcsh")
