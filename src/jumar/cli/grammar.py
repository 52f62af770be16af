"""All commands of the command line, with their options."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from jumar.cli.options.others import (
    add_check,
    add_completion,
    add_doctor,
    add_example,
    add_figure,
    add_follow,
    add_list,
    add_live,
    add_report,
    add_verify,
)
from jumar.cli.options.runs import add_evaluate, add_export, add_record, add_resume, add_watch
from jumar.cli.options.studies import add_compare, add_sweep
from jumar.cli.options.train import Algorithms, add_train
from jumar.cli.parser import Parser
from jumar.errors import UsageError, unknown


def build(
    algorithms: Algorithms, algorithm: str | None = None, *, all_settings: bool = False
) -> tuple[Parser, dict[str, Parser]]:
    """Build the parser of the whole command line, and the parser of each command by name.

    ``train`` has the settings of one ``algorithm``, or of all ``algorithms`` if none is named; these are then left out
    of its help unless ``all_settings`` is true.
    """
    from jumar._version import __version__

    root = Parser(
        prog="jumar",
        usage="jumar COMMAND [options]",
        description="Policy optimization in JAX: train a policy, evaluate it, continue a run that was stopped.",
        epilog="`jumar COMMAND --help` explains a command; `jumar train ALGO --help` an algorithm and its settings.\n"
        "The documentation is in the folder docs of the source: command-line.md, and a page for each algorithm.\n"
        "Example: jumar train ppo CartPole-v1",
    )
    root.add_argument("--version", action="version", version=f"jumar {__version__}", help="print the version and exit")
    commands = root.add_subparsers(title="commands", metavar="COMMAND".ljust(12), prog="jumar", parser_class=Parser)
    parsers = {
        name: commands.add_parser(
            name,
            help=summary,
            description=summary[0].upper() + summary[1:] + ".",
            usage=usage,
            epilog=f"Example: {example}",
        )
        for name, summary, usage, example in COMMANDS
    }
    add_train(parsers["train"], algorithms, algorithm, all_settings)
    add_resume(parsers["resume"])
    add_evaluate(parsers["evaluate"])
    add_export(parsers["export"])
    add_record(parsers["record"])
    add_watch(parsers["watch"])
    add_compare(parsers["compare"])
    add_sweep(parsers["sweep"])
    add_report(parsers["report"])
    add_live(parsers["live"])
    add_follow(parsers["follow"])
    add_check(parsers["check"])
    add_verify(parsers["verify"])
    add_doctor(parsers["doctor"])
    add_figure(parsers["figure"])
    add_list(parsers["list"])
    add_example(parsers["example"])
    add_completion(parsers["completion"])
    for command in parsers.values():
        command.add_argument("--json", action="store_true", help="print one JSON object as the last line of the output")
    return root, parsers


COMMANDS = (
    (
        "train",
        "train a policy and save it in a run directory",
        "jumar train ALGO ENV [options]",
        "jumar train ppo CartPole-v1 --total-timesteps 100k --run-dir first",
    ),
    (
        "resume",
        "continue a run from its newest sound checkpoint",
        "jumar resume RUN [options]",
        "jumar resume runs/my_run --total-timesteps 2M",
    ),
    (
        "evaluate",
        "run a trained policy in fresh environments and print its mean return",
        "jumar evaluate RUN [options]",
        "jumar evaluate runs/my_run --episodes 100",
    ),
    (
        "export",
        "write a trained policy to a file that other programs can run",
        "jumar export RUN [options]",
        "jumar export runs/my_run --format onnx",
    ),
    (
        "record",
        "record a video of a trained policy, as MP4 or GIF",
        "jumar record RUN [options]",
        "jumar record runs/my_run --best --out best.mp4",
    ),
    ("watch", "show a trained policy in a window", "jumar watch RUN [options]", "jumar watch runs/my_run --best"),
    (
        "compare",
        "train several methods over seeds and report how they compare",
        "jumar compare --algorithms A,B --envs E [options]",
        "jumar compare --algorithms ppo,trpo --envs jax/CartPole-v1 --seeds 5 --total-timesteps 100k --out c",
    ),
    (
        "sweep",
        "search for the best settings of a method on a task",
        "jumar sweep SPACE.toml [options]",
        "jumar sweep space.toml --trials 20 --out tuned",
    ),
    (
        "report",
        "write one HTML page about runs or a comparison",
        "jumar report RUN... [options]",
        "jumar report runs/a runs/b --out both.html",
    ),
    (
        "live",
        "show the report page in a browser while runs train",
        "jumar live RUN... [options]",
        "jumar live runs/my_run",
    ),
    (
        "follow",
        "send the metrics of a run to Weights & Biases or Trackio while it trains",
        "jumar follow RUN --to wandb|trackio [options]",
        "jumar follow runs/my_run --to trackio",
    ),
    (
        "check",
        "report what is wrong or slow with an environment",
        "jumar check ENV [options]",
        "jumar check CartPole-v1",
    ),
    (
        "verify",
        "compare methods and their parts with exact results on this machine",
        "jumar verify [NAME...] [options]",
        "jumar verify gradients --quick",
    ),
    (
        "doctor",
        "report what is wrong with this installation or machine",
        "jumar doctor [options]",
        "jumar doctor --quick",
    ),
    (
        "figure",
        "draw figures of the textbooks by running Jumar",
        "jumar figure NAME... [options]",
        "jumar figure 12.2 --out fields.svg; `jumar figure --list` lists the names",
    ),
    (
        "example",
        "compute a worked example or an exercise from a textbook",
        "jumar example NAME [options]",
        "jumar example example-12.1; `jumar example --list` lists the names",
    ),
    (
        "list",
        "list algorithms, environments, presets or runs, one per line",
        "jumar list algorithms|envs|presets|runs [DIR]",
        "jumar list envs",
    ),
    (
        "completion",
        "print a shell's completion script",
        "jumar completion bash|zsh|tcsh",
        "jumar completion bash > ~/.local/share/bash-completion/completions/jumar",
    ),
)
"""Name, summary, usage and an example of every command."""


def find_algorithm(words: Sequence[str], algorithms: Algorithms) -> str | None:
    """Return the algorithm that the words of ``train`` name; ``None`` if there is no positional at all.

    Raises:
        UsageError: the first positional is no algorithm.
    """
    _, parsers = build(algorithms)
    _, positionals = parsers["train"].split(words, strict=False)
    if not positionals:
        return None
    if positionals[0] in algorithms:
        return positionals[0]
    first, *others = positionals
    if others and others[0] in algorithms:
        raise UsageError(f"the algorithm comes first: jumar train {others[0]} {shlex.quote(first)}")
    raise unknown("algorithm", first, algorithms, listed_by="jumar list algorithms")
