"""The ``jumar`` command: finds the command that was typed, runs it, and turns what goes wrong into a sentence."""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import signal
import sys
from collections.abc import Sequence
from typing import IO, TYPE_CHECKING

from jumar.console.streams import Steady, steady_streams, to_nowhere
from jumar.errors import JumarError, UsageError, explain_system_error, nearest, unknown
from jumar.text import printable

if TYPE_CHECKING:
    from jumar.cli.options.train import Algorithms
    from jumar.cli.output import Outcome

MANY_OBJECTS = 20_000
"""How many new ones make Python look for garbage (its own number is 700 in 3.11): importing and tracing make many that stay."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that ``argv`` spells (default: the process's arguments) and return the exit code.

    0 done; 1 the run failed, a file is damaged or the answer could not be written; 2 the command, a setting or a path is
    wrong; 129, 130 and 143 stopped by SIGHUP, SIGINT and SIGTERM.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    with steady_streams() as standard_output:
        for stream in (sys.stdout, sys.stderr):
            if (reconfigure := getattr(stream, "reconfigure", None)) is not None:
                reconfigure(errors="backslashreplace")
        code = _answer(words, standard_output)
    if argv is None and code == INTERRUPTED and "jax" in sys.modules:
        # A program that JAX still computes would crash while Python puts its modules away.
        os._exit(code)
    return code


INTERRUPTED = 128 + signal.SIGINT


def _answer(words: list[str], standard_output: Steady) -> int:
    """Run the command that the words spell, print what it has to say, and return the exit code."""
    json_wanted = "--json" in (words[: words.index("--")] if "--" in words else words)
    gc.set_threshold(MANY_OBJECTS)
    from jumar.cli.output import json_line, reserved_output
    from jumar.xla.compiler import quiet_compiler

    quiet_compiler()
    # The user's own environments lie where the command is typed. Last, so that nothing there hides an installed module.
    with contextlib.suppress(OSError):  # the folder may have been removed
        if (here := os.getcwd()) not in sys.path:
            sys.path.append(here)

    with reserved_output(json_wanted) as output:
        try:
            outcome = _dispatch(words)
            if outcome.then is not None:
                if (unwritten := _print_outcome(outcome, json_wanted, output)) is not None:
                    return _unwritten(unwritten, True)  # nobody has heard of it
                outcome.then()
                return outcome.exit_code
        except SystemExit as leaving:  # after --help and --version
            code = leaving.code if isinstance(leaving.code, int) else 0
            return code or _unwritten(standard_output.failure, True)
        except (Exception, KeyboardInterrupt) as error:
            message, code = _report(error)
            if json_wanted:
                _print(json_line({"error": message}), output)
            return code
        unwritten = _print_outcome(outcome, json_wanted, output)
        return _unwritten(unwritten, json_wanted or not outcome.kept) or outcome.exit_code


def _report(error: BaseException) -> tuple[str, int]:
    """Say on standard error what went wrong; return the message and the exit code."""
    if os.environ.get("JUMAR_TRACEBACK"):
        import traceback

        traceback.print_exception(error)
    message, code = explain(error)
    message = printable(message)
    print(f"jumar: {'' if code > 128 else 'error: '}{message}", file=sys.stderr, flush=True)
    return message, code


def _print_outcome(outcome: Outcome, json_wanted: bool, output: IO[str]) -> OSError | None:
    from jumar.cli.output import json_line

    return _print(json_line(outcome.data) if json_wanted else printable(outcome.words), output)


def _print(text: str, output: IO[str]) -> OSError | None:
    """Print the last words; return what prevented it."""
    try:
        print(text, file=output, flush=True)
    except OSError as error:
        # What is left in the buffer would raise once more when Python closes the stream.
        to_nowhere(output.fileno())
        return error
    return output.failure if isinstance(output, Steady) else None


def _unwritten(error: OSError | None, wanted: bool) -> int:
    """Return the exit code, given what kept the last words from being printed, and whether they are what was asked for.

    Who closed the other end has seen enough (`jumar list envs | head`). Where the result is kept in a folder, its
    words are no more than a courtesy.
    """
    if error is None or isinstance(error, BrokenPipeError):
        return 0
    if wanted:
        return _report(error)[1]
    print(f"jumar: warning: the last words could not be printed: {explain(error)[0]}", file=sys.stderr, flush=True)
    return 0


def explain(error: BaseException) -> tuple[str, int]:
    """Return the sentence that tells a person what went wrong, and the exit code that goes with it."""
    from jumar.console.signals import Stopped

    if isinstance(error, JumarError):
        return str(error), error.exit_code
    if isinstance(error, Stopped):
        return str(error), error.exit_code
    if isinstance(error, KeyboardInterrupt):
        return "interrupted.", INTERRUPTED
    if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error):
        return "out of memory; a smaller n_envs, n_steps, batch_size or buffer_size needs less.", 1
    first_line = (str(error).strip().splitlines() or [""])[0]
    if isinstance(error, OSError) and error.errno == errno.EBADF and not error.filename and "closed" not in first_line:
        return "a file of the run was closed by something else in this process, such as the environment.", 1
    if isinstance(error, OSError) and error.strerror:
        return explain_system_error(error), 1
    what = f"{type(error).__name__}: {first_line}" if first_line else type(error).__name__
    return f"{what}\nthis is a bug in Jumar; run with JUMAR_TRACEBACK=1 to see where.", 1


def _dispatch(words: list[str]) -> Outcome:
    """Find the command among the words and run it with the others."""
    from jumar.cli.grammar import COMMANDS, build

    position = next((i for i, word in enumerate(words) if not word.startswith("-")), None)
    if position is None:
        root, _ = build({})
        options, _ = root.split([word for word in words if word != "--json"])
        root.parse_args(options)  # --help and --version end here
        raise UsageError(
            "no command is given; `jumar --help` lists the commands. To start: jumar train ppo CartPole-v1"
        )
    command, rest = words[position], words[:position] + words[position + 1 :]
    names = [name for name, *_ in COMMANDS]
    if command not in names:
        aliases = {"eval": "evaluate", "continue": "resume", "learn": "train", "tune": "sweep"}
        if not nearest(command, names, aliases):
            raise UsageError(f"unknown command {command!r}; `jumar --help` lists the commands.")
        raise unknown("command", command, names, aliases)
    return _run(command, rest)


def _run(command: str, words: list[str]) -> Outcome:
    """Parse the words of a known command and run it. The imports are here to keep ``jumar --help`` quick."""
    from jumar.cli.grammar import build

    algorithms = _algorithms() if command in ("train", "completion") else {}
    if command == "train":
        from jumar.cli import train

        return train.run(words, algorithms)
    _, parsers = build(algorithms)
    arguments = parsers[command].read(words)
    if command == "resume":
        from jumar.cli import resume

        return resume.run(arguments)
    if command == "evaluate":
        from jumar.cli import evaluate

        return evaluate.run(arguments)
    if command == "export":
        from jumar.cli import export

        return export.run(arguments)
    if command == "record":
        from jumar.cli import record

        return record.run(arguments)
    if command == "watch":
        from jumar.cli import watch

        return watch.run(arguments)
    if command == "compare":
        from jumar.cli import compare

        return compare.run(arguments)
    if command == "sweep":
        from jumar.cli import sweep

        return sweep.run(arguments)
    if command == "report":
        from jumar.cli import report

        return report.run(arguments)
    if command == "live":
        from jumar.cli import live

        return live.run(arguments)
    if command == "follow":
        from jumar.cli import follow

        return follow.run(arguments)
    if command == "check":
        from jumar.cli import check

        return check.run(arguments)
    if command == "verify":
        from jumar.cli import verify

        return verify.run(arguments)
    if command == "doctor":
        from jumar.cli import doctor

        return doctor.run(arguments)
    if command == "figure":
        from jumar.cli import figure

        return figure.run(arguments)
    if command == "list":
        from jumar.cli import listing

        return listing.run(arguments, _algorithms)
    if command == "example":
        from jumar.cli import example

        return example.run(arguments)
    from jumar.cli import completion

    return completion.run(arguments, algorithms)


def _algorithms() -> Algorithms:
    from jumar.algorithms.registry import ALGORITHMS

    return ALGORITHMS


__all__ = ["explain", "main"]
