"""The options of the commands that show, look after and explain."""

from __future__ import annotations

from jumar.cli.options.environments import add_env, add_making_options
from jumar.cli.parser import Parser
from jumar.cli.values import count, one_of, port, seed, steps


def _add_places(parser: Parser) -> None:
    places = parser.add_argument(
        "runs", metavar="RUN", nargs="*", help="run directories, comparisons, or folders that contain them"
    )
    places.complete = "directory"  # type: ignore[attr-defined]


def add_report(parser: Parser) -> None:
    """Add the options of ``jumar report``."""
    _add_places(parser)
    out = parser.add_argument(
        "--out", metavar="FILE.html",
        help="file to write (default: report.html in RUN; with several RUNs, in the current folder)",
    )  # fmt: skip
    out.complete = "file"  # type: ignore[attr-defined]


def add_live(parser: Parser) -> None:
    """Add the options of ``jumar live``."""
    _add_places(parser)
    parser.add_argument(
        "--port", type=port, default=0, metavar="N", help="port on 127.0.0.1; 0: any free port (default: 0)"
    )


def add_follow(parser: Parser) -> None:
    """Add the options of ``jumar follow``."""
    run = parser.add_argument("run", metavar="RUN", help="a run directory")
    run.complete = "directory"  # type: ignore[attr-defined]
    parser.examples = {"RUN": "jumar follow runs/my_run --to trackio"}
    known = ("wandb", "trackio")
    parser.add_argument(
        "--to", metavar="|".join(known), type=one_of("tracker", *known), choices=known,
        help="required; wandb: Weights & Biases (with WANDB_MODE=offline, a folder on this machine); trackio: a database on "
        "this machine",
    )  # fmt: skip
    parser.add_argument("--project", default="jumar", metavar="NAME", help="project in the tracker (default: jumar)")
    parser.add_argument(
        "--name", metavar="NAME", help="name of the run in the tracker (default: the name of its directory)"
    )


def add_check(parser: Parser) -> None:
    """Add the options of ``jumar check``."""
    parser.examples = {"ENV": "jumar check CartPole-v1"}
    add_env(parser, "an environment, as in `jumar train`")
    add_making_options(parser)
    parser.add_argument("--seed", type=seed, default=0, metavar="N", help="seed of everything random (default: 0)")
    parser.add_argument(
        "--steps", type=count(1), default=1000, metavar="N",
        help="random actions to take, for at most 10 seconds (default: 1,000)",
    )  # fmt: skip


def add_verify(parser: Parser) -> None:
    """Add the options of ``jumar verify``."""
    parser.add_argument(
        "names", metavar="NAME", nargs="*",
        help="checks, or groups of checks such as gradients (default: all checks)",
    )  # fmt: skip
    parser.add_argument("--quick", action="store_true", help="skip the checks that take long to compile")
    parser.add_argument("--list", action="store_true", help="list the checks, one per line, the name first")


def add_doctor(parser: Parser) -> None:
    """Add the options of ``jumar doctor``."""
    parser.add_argument(
        "--quick",
        action="store_true",
        help="skip the worker process, the test training and the comparison with exact results",
    )
    parser.add_argument(
        "--address", metavar="HOST:PORT",
        help="examine the Ray cluster with this head node instead: its nodes, their versions, processors and memory, and the "
        "folder that they share",
    )  # fmt: skip
    folder = parser.add_argument(
        "--folder", metavar="DIR", help="with --address: the shared folder for the cluster's runs (default: runs)"
    )
    folder.complete = "directory"  # type: ignore[attr-defined]


def add_figure(parser: Parser) -> None:
    """Add the options of ``jumar figure``."""
    parser.add_argument(
        "names", metavar="NAME", nargs="*",
        help="names of figures, such as 12.2; all: every figure that does not train for minutes",
    )  # fmt: skip
    parser.add_argument("--list", action="store_true", help="list the figures, one per line, the name first")
    out = parser.add_argument(
        "--out", metavar="PATH",
        help="for one figure, a file that ends in .png or .svg (default: NAME.png); for several, a folder, which gets each "
        "figure as PNG and SVG (default: figures)",
    )  # fmt: skip
    data = parser.add_argument(
        "--data", metavar="PATH",
        help="also write the plotted data as JSON: for one figure to a file, for several to a folder (default: not written)",
    )  # fmt: skip
    parser.add_argument(
        "--steps", type=steps, metavar="STEPS",
        help="environment steps of each training run, for figures that train (default: the figure's own number)",
    )  # fmt: skip
    source = parser.add_argument(
        "--from", dest="source", metavar="FILE",
        help="draw results of your own, for figures that show results (default: the results that come with Jumar)",
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
    folder = parser.add_argument(
        "folder", metavar="DIR", nargs="?", help="for runs only: the folder to search (default: runs)"
    )
    folder.complete = "directory"  # type: ignore[attr-defined]


def add_example(parser: Parser) -> None:
    """Add the options of ``jumar example``."""
    parser.examples = {"NAME": "jumar example example-12.1, or jumar example --list"}
    parser.spared = {"NAME": ("--list",)}
    parser.add_argument("name", metavar="NAME", nargs="?", help="name of the example, as --list shows it")
    parser.add_argument("--list", action="store_true", help="list all examples, one per line, the name first")


def add_completion(parser: Parser) -> None:
    """Add the options of ``jumar completion``."""
    parser.examples = {"SHELL": "jumar completion bash"}
    known = ("bash", "zsh", "tcsh")
    parser.add_argument("shell", metavar="SHELL", type=one_of("shell", *known), choices=known, help="bash, zsh or tcsh")
