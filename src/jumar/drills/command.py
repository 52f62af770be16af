"""The command ``python -m jumar.drills``."""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path

from jumar.console.live_line import LiveLine
from jumar.drills.faults.kills import own_drill
from jumar.drills.references import Case
from jumar.drills.registry import Drill, Sizes, drills, select
from jumar.drills.results import Report, Result
from jumar.drills.runner import run_drills
from jumar.errors import UsageError, explain_system_error
from jumar.runs.run_directory import make_free
from jumar.text import clock_time, printable, whole_number
from jumar.xla.compiler import count_processors

CACHE = "XDG_CACHE_HOME"
OWN = "own"
"""The name of the case that the user asks for."""
MOST_JOBS = 2
"""How many drills run at a time unless told: each drives processes that use more than one processor now and then."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the drills that the arguments name; return the exit code.

    0: nothing was lost; 1: something was; 2: an argument is wrong; 130: stopped by Ctrl-C.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        return _run(_parser().parse_args(words), words)
    except UsageError as error:
        print(f"jumar.drills: error: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(f"jumar.drills: error: {explain_system_error(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("jumar.drills: interrupted; the table has what was done.", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m jumar.drills",
        description="Bring faults about, and print what survived them. All drills take some two hours on two processors.",
        allow_abbrev=False,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="drills or groups to run (default: all); see --list")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="the same")
    parser.add_argument("--quick", action="store_true", help="fewer tries: for about a quarter of an hour")
    parser.add_argument("--list", action="store_true", help="print what there is, and run nothing")
    parser.add_argument("--seed", type=_count, default=0, help="of the moments and of what is damaged (default: 0)")
    parser.add_argument("--tries", type=_count, help="tries of each drill (default: its own number)")
    parser.add_argument("--jobs", type=_count, help="drills at a time (default: one per processor, at most 2)")
    parser.add_argument("--out", type=Path, help="folder for the table and what was lost (default: drills_DATE)")
    own = parser.add_argument_group("a run of your own, which is killed at random moments instead of the drills")
    own.add_argument("--env", help="its environment, as jumar train takes it")
    own.add_argument("--algorithm", default="ppo", help="its method (default: ppo)")
    own.add_argument("--total-timesteps", type=_count, default=60_000, help="its steps (default: 60000)")
    own.add_argument("--checkpoint-every", type=_count, default=8_192, help="steps between checkpoints (default: 8192)")
    own.add_argument("--train", default="", metavar="OPTIONS", help="other options of jumar train, in quotes")
    soak = parser.add_argument_group("soak")
    soak.add_argument("--compiled-steps", type=_count, help="steps of the run in a compiled environment (default: 1e8)")
    soak.add_argument("--host-steps", type=_count, help="steps of the run in a host environment (default: 1e7)")
    return parser


def _count(text: str) -> int:
    try:
        number = whole_number(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
    if number < 0:
        raise argparse.ArgumentTypeError(f"{text} is negative")
    return number


def _run(arguments: argparse.Namespace, words: Sequence[str]) -> int:
    cases = _own_case(arguments)
    if cases:
        chosen = [own_drill(OWN, cases[OWN])]
    else:
        chosen = select(drills(), [*arguments.names, *arguments.only], arguments.quick)
    if arguments.list:
        print(listing(chosen))
        return 0
    for name in ("jobs", "tries", "compiled_steps", "host_steps"):
        if getattr(arguments, name) == 0:
            raise UsageError(f"--{name.replace('_', '-')} must be at least 1.")
    out = _out(arguments.out)
    report = Report(["python", "-m", "jumar.drills", *words], arguments.seed)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="jumar-drills-")))
        stack.enter_context(_own_cache(folder / "cache"))
        watcher = _Watcher(report, chosen, out, stack.enter_context(contextlib.closing(LiveLine(sys.stderr))))
        run_drills(
            chosen,
            folder,
            out,
            quick=arguments.quick,
            seed=arguments.seed,
            tries=arguments.tries,
            jobs=arguments.jobs or min(MOST_JOBS, count_processors()),
            sizes=_sizes(arguments),
            cases=cases,
            began=watcher.began,
            ended=watcher.ended,
        )
    print(report.words())
    print(f"the table is in {out / 'drills.md'}, everything in {out / 'drills.json'}")
    return 1 if report.lost else 0


class _Watcher:
    """Shows how far the drills are, and writes the table whenever one has ended."""

    def __init__(self, report: Report, chosen: Sequence[Drill], out: Path, line: LiveLine) -> None:
        self._report, self._chosen, self._out, self._line = report, chosen, out, line
        self._under_way: list[str] = []
        self._start = time.monotonic()

    def began(self, drill: Drill) -> None:
        """Hear that a drill begins."""
        self._under_way.append(drill.name)
        self._show()

    def ended(self, result: Result) -> None:
        """Hear what came of a drill."""
        self._under_way.remove(result.drill.name)
        self._report.results.append(result)
        self._report.results.sort(key=lambda each: self._chosen.index(each.drill))
        self._report.seconds = time.monotonic() - self._start
        self._report.write(self._out)
        self._line.close()
        print(told(result), file=sys.stderr, flush=True)
        self._show()

    def _show(self) -> None:
        seconds = time.monotonic() - self._start
        done = f"{len(self._report.results)} of {len(self._chosen)} drills, {clock_time(seconds)}"
        lost = f", {self._report.lost} lost" if self._report.lost else ""
        self._line.show(f"{done}{lost}  {', '.join(self._under_way)}")


@contextlib.contextmanager
def _own_cache(folder: Path) -> Iterator[None]:
    """Within the block, programs are kept in a cache of the drills' own, for a full disk may leave half of one there."""
    folder.mkdir(mode=0o700)
    before = os.environ.get(CACHE)
    os.environ[CACHE] = str(folder)
    try:
        yield
    finally:
        if before is None:
            del os.environ[CACHE]
        else:
            os.environ[CACHE] = before


def _own_case(arguments: argparse.Namespace) -> dict[str, Case] | None:
    """Return the run that the user asks for, if there is one, by its name."""
    if arguments.env is None:
        return None
    if arguments.names or arguments.only:
        raise UsageError("--env is killed instead of the drills; leave their names out.")
    # Commands run in folders of their own, and a module of the user's lies in this one.
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [os.getcwd(), os.environ.get("PYTHONPATH")]))
    options = shlex.split(arguments.train)
    every = arguments.checkpoint_every
    return {OWN: Case(arguments.algorithm, arguments.env, options, arguments.total_timesteps, every)}


def _sizes(arguments: argparse.Namespace) -> Sizes:
    usual = Sizes(2_000_000, 100_000) if arguments.quick else Sizes()
    return Sizes(arguments.compiled_steps or usual.compiled, arguments.host_steps or usual.host)


def _out(given: Path | None) -> Path:
    if given is None:
        return make_free(Path(), f"drills_{datetime.now():%Y%m%d-%H%M%S}")
    given.mkdir(parents=True, exist_ok=True)
    return given


def told(result: Result) -> str:
    """Return a line about a drill that has ended."""
    if result.unable is not None:
        return f"{result.drill.name}: not run: {result.unable}"
    lost = len(result.losses)
    words = f"{lost:,} of {len(result.tries):,} LOST: {result.losses[0].what}: {result.losses[0].lost}" if lost else ""
    return f"{result.drill.name}: {printable(words) or f'{len(result.tries):,} survived'} ({result.seconds:.0f} s)"


def listing(chosen: Sequence[Drill]) -> str:
    """Return a paragraph for each drill: its name, what it does and what surviving means."""
    return "\n".join(f"{each.name}\n    {each.what}\n    Survived: {each.survived}" for each in chosen)
