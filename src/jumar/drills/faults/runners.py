"""Runners in other processes and on other machines, by Ray: killed, paused, cut off, and the head with them."""

from __future__ import annotations

import importlib.util
import os
import secrets
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from jumar.drills.faults.kills import kill_once, written_since
from jumar.drills.hosts import Hosts
from jumar.drills.processes import Ended, Running, command, complaint, jumar, wait_until
from jumar.drills.ray_hosts import RayHosts
from jumar.drills.references import NORMALISED, PPO, Case, Reference, newest
from jumar.drills.registry import Bench, Try, Unable, drill

SMALL = ("--n-envs", "4", "--n-steps", "16", "--net-arch", "8", "--preset", "none")
CASE = Case("ppo", "gymnasium/CartPole-v1", (*SMALL, *PPO, *NORMALISED), 12_288, 1_024)
MARK = "JUMAR_DRILL_MARK"
"""An environment variable that tells the processes of one command from all others."""
RUNNER, RAYLET = b"ray::RunnerProcess", b"/raylet/raylet"
"""What the titles of these processes have in them."""
MOST_ATTEMPTS = 3
PAUSE = 2.0
"""Seconds for which a runner stands still."""
CUT: dict[str, Callable[[Hosts, int], None]] = {"cut": Hosts.cut, "silenced": Hosts.silence, "deafened": Hosts.deafen}
"""What becomes of a host: nothing passes, or what it sends is lost, or what is sent to it."""
CUTS = (("cut", 3.0), ("silenced", 3.0), ("deafened", 3.0), ("cut", 45.0))
"""For how many seconds. After the longest one Ray has given up the host, which is not one of its nodes any more."""
STORE = 80_000_000
"""Bytes of a small object store; Ray demands some 75 million."""
SAME = "policy.safetensors is the one of --runners 0, bit for bit."


@drill(
    "runners/killed",
    "kill -9 of a runner at a random moment, once in each run with --runners 2.",
    f"the run goes on without a word from the user, and {SAME}",
    whole=20,
    quick=2,
)
def killed(bench: Bench) -> Iterator[Try]:
    yield from _signalled(bench, signal.SIGKILL)


@drill(
    "runners/paused",
    f"SIGSTOP of a runner at a random moment, and SIGCONT {PAUSE:g} s later.",
    f"the run goes on, and {SAME}",
    whole=6,
    quick=1,
)
def paused(bench: Bench) -> Iterator[Try]:
    yield from _signalled(bench, signal.SIGSTOP)


@drill(
    "runners/head",
    "kill -9 of the command itself while two runners work, and resume with three.",
    f"the resumed run's {SAME}",
    whole=10,
    quick=1,
)
def head(bench: Bench) -> Iterator[Try]:
    reference = _without_runners(bench)
    for number in range(bench.tries or 1):
        place = bench.folder / str(number)
        place.mkdir()
        target = place / "run"
        ended = kill_once(_train(target, 2), place, target, bench, trained=True, longest=reference.training)
        wrong = complaint(ended, (0, -signal.SIGKILL))
        at = newest(target)
        yield Try(f"kill at step {at}", wrong or _resumed(reference, place, 3))


@drill(
    "runners/node",
    "kill -9 of the process by which Ray runs this machine (its raylet), and resume.",
    f"the command ends, with whatever exit code, nothing hangs, and the resumed run's {SAME}",
    whole=6,
    quick=1,
)
def node(bench: Bench) -> Iterator[Try]:
    reference = _without_runners(bench)
    for i in range(bench.tries or 1):
        ended, what, found = _disturbed(bench, reference, bench.folder / str(i), signal.SIGKILL, RAYLET)
        wrong = "it hung and had to be killed" if ended.code is None else None if found else "no raylet was found"
        yield Try(what, wrong or _resumed(reference, bench.folder / str(i), 2))


@drill(
    "runners/network",
    "Three hosts, the head and two with runners: one of these is cut off, in one direction or in both, and connected again.",
    f"the run goes on, and {SAME}",
    whole=len(CUTS),
    quick=1,
)
def network(bench: Bench) -> Iterator[Try]:
    reference = _without_runners(bench)
    for i, (how, seconds) in enumerate(bench.cases(CUTS)):
        place = bench.folder / str(i)
        place.mkdir()
        target, began = place / "run", time.time()
        with RayHosts(2, place) as cluster:
            words = cluster.command([*_train(target, 2), "--address", cluster.address])
            with Running(words, place, cluster.environment) as running:
                wait_until(lambda run=target, at=began: written_since(run, at), running)
                time.sleep(bench.random.uniform(0.0, reference.training / 2))
                host, at = bench.random.choice((1, 2)), newest(target)
                wrong = None if running.under_way else "the run ended before the fault"
                CUT[how](cluster.hosts, host)
                time.sleep(seconds)
                cluster.hosts.heal(host)
                wrong = complaint(running.wait(), (0,)) or wrong
        yield Try(f"{how} for {seconds:g} s at step {at}", wrong or reference.other_policy(target))


@drill(
    "runners/store",
    f"Object stores of {STORE // 10**6} MB, of the head and of the runners' node, where another program keeps twice as much.",
    f"the run goes on, and {SAME}",
    whole=2,
    quick=1,
)
def store(bench: Bench) -> Iterator[Try]:
    reference = _without_runners(bench)
    for i in range(bench.tries or 1):
        place = bench.folder / str(i)
        place.mkdir()
        target, began = place / "run", time.time()
        with RayHosts(1, place, STORE) as cluster:
            words = cluster.command([*_train(target, 2), "--address", cluster.address])
            with Running(words, place, cluster.environment) as running:
                wait_until(lambda run=target, at=began: written_since(run, at), running)
                for host in range(cluster.hosts.count):
                    cluster.fill(host, 2 * STORE)
                at = newest(target)
                wrong = None if running.under_way else "the run ended before the stores were full"
                wrong = complaint(running.wait(), (0,)) or wrong
        yield Try(f"full from step {at} on", wrong or reference.other_policy(target))


def _signalled(bench: Bench, number: signal.Signals) -> Iterator[Try]:
    reference = _without_runners(bench)
    for i in range(bench.tries or 1):
        place = bench.folder / str(i)
        ended, what, found = _disturbed(bench, reference, place, number, RUNNER)
        wrong = complaint(ended, (0,)) or (None if found else "no runner was found")
        yield Try(what, wrong or reference.other_policy(place / "run"))


def _disturbed(
    bench: Bench, reference: Reference, place: Path, number: signal.Signals, title: bytes
) -> tuple[Ended, str, bool]:
    """Train with two runners, and send a signal to a process with a title at a random moment.

    Returns how the command ended, what was done, and whether there was such a process; where there was none any more, it is
    done once more, from the beginning.
    """
    for attempt in range(1, MOST_ATTEMPTS + 1):
        folder = place if attempt == MOST_ATTEMPTS else place.with_name(f"{place.name}-{attempt}")
        folder.mkdir()
        target, mark, began = folder / "run", secrets.token_hex(8), time.time()
        with Running(_train(target, 2), folder, {MARK: mark}) as running:
            wait_until(lambda run=target, at=began: written_since(run, at), running)
            time.sleep(bench.random.uniform(0.0, reference.training))
            found = processes_of(mark, title)
            what = f"{number.name} at step {newest(target)}, {len(found)} there"
            if found:
                _send(bench.random.choice(found), number)
            ended = running.wait()
        if found or attempt == MOST_ATTEMPTS:
            if folder != place:
                folder.rename(place)
            return ended, what, bool(found)
    raise AssertionError("it returns with the last attempt")


def _send(process: int, number: signal.Signals) -> None:
    os.kill(process, number)
    if number == signal.SIGSTOP:
        time.sleep(PAUSE)
        os.kill(process, signal.SIGCONT)


def processes_of(mark: str, title: bytes) -> list[int]:
    """Return the processes with a title (a part of it) that a command with this mark has started. Needs ``/proc``."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words, variables = (folder / "cmdline").read_bytes(), (folder / "environ").read_bytes()
        except OSError:
            continue
        if title in words and f"{MARK}={mark}".encode() in variables:
            found.append(int(folder.name))
    return sorted(found)


def _train(target: Path, runners: int) -> list[str]:
    return command(*CASE.train(target), "--runners", str(runners))


def _resumed(reference: Reference, place: Path, runners: int) -> str | None:
    ended = jumar(*CASE.resume(place / "run"), "--runners", str(runners), folder=place)
    return complaint(ended, (0,)) or reference.other_policy(place / "run")


def _without_runners(bench: Bench) -> Reference:
    """Return the run of ``--runners 0``.

    Raises:
        Unable: Ray is not installed, or this version of Jumar has no runners.
        RuntimeError: it fails, even without a fault.
    """
    place = bench.folder / "none"
    if "--runners" not in jumar("train", "ppo", "--help", folder=place).output:
        raise Unable("this version of Jumar has no --runners.")
    if importlib.util.find_spec("ray") is None:
        raise Unable("Ray is not installed.")
    began = time.monotonic()
    ended = jumar(*CASE.train(place / "run"), "--runners", "0", folder=place)
    if (wrong := complaint(ended, (0,))) is not None:
        raise RuntimeError(f"the run that nothing disturbs failed: {wrong}")
    return Reference(CASE, place / "run", time.monotonic() - began)
