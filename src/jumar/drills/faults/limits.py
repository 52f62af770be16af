"""Limits of the system: open files, memory, processor time."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Mapping

from jumar.drills.processes import Ended, complaint, jumar
from jumar.drills.references import Reference
from jumar.drills.registry import Bench, Try, drill

KINDS = ("short", "host", "short replay")
Judge = Callable[[Ended], str | None]
"""Returns what is wrong with how a command ended."""
RESUMED = "and without the limit the resumed run ends like one that nothing disturbed."


@drill(
    "limits/open-files",
    "Few files may be open (ulimit -n).",
    f"the run ends, or says that too many files are open and how to allow more, {RESUMED}",
    whole=16,
    quick=2,
)
def open_files(bench: Bench) -> Iterator[Try]:
    for number, kind in enumerate(bench.cases(KINDS)):
        most = bench.random.choice((16, 24, 32, 40, 48, 64, 96))
        what = f"{kind}, {most} open files"
        yield Try(what, _limited(bench, bench.references.of(kind), number, {"NOFILE": most}, _told_of_files))


def _told_of_files(ended: Ended) -> str | None:
    if ended.code == 0:
        return complaint(ended, (0,))
    # Python itself cannot begin where not even its modules can be opened.
    began = "Fatal Python error" not in ended.errors and "Traceback" not in ended.errors.partition("jumar")[0]
    return complaint(ended, (1, 2), "Too many open files|open files") if began else None


@drill(
    "limits/memory",
    "Little memory (ulimit -v).",
    "the run ends, says that memory is missing, or is ended by the system, but does not hang; "
    f"{RESUMED.removeprefix('and ')}",
    whole=12,
    quick=1,
)
def memory(bench: Bench) -> Iterator[Try]:
    for number, kind in enumerate(bench.cases(("short", "short replay"))):
        most = bench.random.randrange(800, 6000, 100)
        what = f"{kind}, {most} MB of address space"
        yield Try(what, _limited(bench, bench.references.of(kind), number, {"AS": most * 10**6}, _did_not_hang))


def _did_not_hang(ended: Ended) -> str | None:
    # JAX's own code ends the process where it cannot allocate, and there is nobody left to say it in a sentence.
    return "it hung and had to be killed" if ended.code is None else None


@drill(
    "limits/processor-time",
    "The system ends the process after some seconds of processor time (ulimit -t), as a batch system does.",
    f"what was saved is whole, {RESUMED}",
    whole=8,
    quick=1,
)
def processor_time(bench: Bench) -> Iterator[Try]:
    for number, kind in enumerate(bench.cases(("compiled", "replay"))):
        most = bench.random.randint(3, 12)
        what = f"{kind}, {most} s of processor time"
        yield Try(what, _limited(bench, bench.references.of(kind), number, {"CPU": most}, _ended_by_the_system))


def _ended_by_the_system(ended: Ended) -> str | None:
    return complaint(ended, (0, -signal.SIGXCPU, -signal.SIGKILL))


def _limited(bench: Bench, reference: Reference, number: int, limits: Mapping[str, int], judge: Judge) -> str | None:
    place = bench.folder / str(number)
    case, target = reference.case, place / "run"
    ended = jumar(*case.train(target), folder=place, limits=limits)
    if (wrong := judge(ended)) is not None:
        return wrong
    again = case.resume(target) if (target / "config.json").exists() else case.train(target)
    return reference.outcome(jumar(*again, folder=place), target)


@drill(
    "limits/too-much-asked",
    "More memory, environments or files than there can be are asked for.",
    "the command refuses in a sentence before anything is made, or says that memory is missing.",
)
def too_much(bench: Bench) -> Iterator[Try]:
    common = ["--total-timesteps", "64", "--preset", "none"]
    commands = {
        "a replay buffer": ["train", "sac", "jax/Pendulum-v1", "--buffer-size", "1e12", *common],
        "environments": ["train", "ppo", "jax/CartPole-v1", "--n-envs", "1e9", *common],
        "a network": ["train", "ppo", "jax/CartPole-v1", "--net-arch", "1e10", *common],
        "seeds": ["train", "ppo", "jax/CartPole-v1", "--n-seeds", "1e9", *common],
        "frames": ["train", "ppo", "gymnasium/CartPole-v1", "--frame-stack", "1e9", *common],
    }
    for number, name in enumerate(bench.cases(sorted(commands))):
        place = bench.folder / str(number)
        ended = jumar(*commands[name], "--run-dir", place / "run", folder=place, limits={"AS": 12 * 10**9})
        yield Try(name, complaint(ended, (1, 2)))
