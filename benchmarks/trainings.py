"""Whole trainings as processes, several at a time, and the score of each by one protocol.

A run is evaluated every 20,000 steps (every 2 % of shorter ones) for 10 deterministic episodes with raw rewards, unless its
task says otherwise; its score is the mean return over its last 10 evaluations.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from harness import Failed, last_line

from jumar.studies.claims import claim
from jumar.studies.compare_request import COUNTED, EVALUATIONS, LONGEST_BETWEEN

EPISODES = 10

Work = TypeVar("Work")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Job:
    """One training.

    Args:
        env: the environment's id.
        total_timesteps: steps over all environments.
        seed: seeds everything.
        command: what runs it, without the words of the protocol: they are ``--env`` or a positional already in it.
        name: what it is called in reports: a side, or a candidate.
    """

    name: str
    env: str
    total_timesteps: int
    seed: int
    command: tuple[str, ...]
    evaluations: int | None = None
    """How many evaluations there are; ``None``: those of the protocol."""
    episodes: int = EPISODES
    """Of an evaluation."""

    @property
    def eval_every(self) -> int:
        """Steps between evaluations."""
        if self.evaluations is not None:
            return self.total_timesteps // self.evaluations
        return max(1, min(LONGEST_BETWEEN, self.total_timesteps // EVALUATIONS))

    @property
    def words(self) -> list[str]:
        """The whole command; what it prints last is a JSON object with ``evaluations``, or names a run directory."""
        protocol = {
            "--total-timesteps": self.total_timesteps,
            "--seed": self.seed,
            "--eval-every": self.eval_every,
            "--eval-episodes": self.episodes,
        }
        return [*self.command, *(str(word) for pair in protocol.items() for word in pair)]


@dataclass(frozen=True)
class Run:
    """What a training gave."""

    seed: int
    evaluations: list[float]
    """Mean return of each evaluation, in order."""
    wall_time_s: float
    """Seconds of the process, evaluations included; several run at a time."""
    versions: dict[str, str] = field(default_factory=dict)

    @property
    def score(self) -> float:
        """The mean of the last evaluations."""
        last = self.evaluations[-COUNTED:]
        return sum(last) / len(last)


def jumar_command(
    algorithm: str, env: str, preset: str | None, settings: Mapping[str, Any], options: Sequence[str] = ()
) -> tuple[str, ...]:
    """Return the command that trains with a preset (``None``: the environment's own), settings and further options."""
    words = [sys.executable, "-m", "jumar", "train", algorithm, env, "--checkpoint-every", "0", "--quiet", "--json"]
    words += [*options, *(["--preset", preset] if preset else [])]
    for name, value in settings.items():
        option = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{option}" if value else f"--no-{option}")
        else:
            words += [f"--{option}", ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)]
    return tuple(words)


class Running:
    """The processes that are at work; once they are stopped, none begins any more."""

    def __init__(self) -> None:
        self.stopped = False
        self._lock, self._processes = threading.Lock(), set[subprocess.Popen[Any]]()

    @contextlib.contextmanager
    def process(self, words: Sequence[str], **options: Any) -> Iterator[subprocess.Popen[Any]]:
        """Start a process in a session of its own, which is one of them within the block.

        Raises:
            Failed: they are stopped.
        """
        with self._lock:
            if self.stopped:
                raise Failed("stopped")
            process = subprocess.Popen(words, start_new_session=True, **options)
            self._processes.add(process)
        try:
            yield process
        finally:
            with self._lock:
                self._processes.discard(process)

    def stop(self) -> None:
        """Kill them, and what they have started."""
        with self._lock:
            self.stopped = True
            for process in self._processes:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)


def in_parallel(
    jobs: Sequence[Work],
    processes: int,
    run: Callable[[Work, set[int] | None, Running], Result],
    done: Callable[[Work, Result | Failed], None],
) -> None:
    """Do all jobs, ``processes`` at a time, each on a processor of its own; ``done`` is called as each one ends.

    ``run`` does one job, in a process on the given processors, and may raise ``Failed``. Ctrl-C and SIGTERM end the
    processes too.
    """
    claims = claim(processes)  # those that no other command has
    ours = claims.numbers
    cores: queue.SimpleQueue[set[int] | None] = queue.SimpleQueue()
    for i in range(processes):
        cores.put({ours[i % len(ours)]} if ours else None)
    running = Running()

    def work(job: Work) -> Result | Failed:
        core = cores.get()
        try:
            return run(job, core, running)
        except Failed as failure:
            return failure
        finally:
            cores.put(core)

    with claims, ThreadPoolExecutor(processes) as pool:
        try:
            futures = {pool.submit(work, job): job for job in jobs}
            for future in as_completed(futures):
                done(futures[future], future.result())
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            running.stop()
            raise


def train(job: Job, core: set[int] | None, running: Running) -> Run:
    """Run one job to its end, on the given processors.

    Raises:
        Failed: it ended with an error, or said nothing that can be read.
    """
    with tempfile.TemporaryDirectory(prefix="jumar-returns-") as name:
        folder = Path(name)
        words = job.words + (["--run-dir", str(folder / "run")] if "jumar" in job.command else [])
        start = time.perf_counter()
        run_process(words, folder, core, running)
        seconds = time.perf_counter() - start
        return read(job, folder, seconds)


def run_process(words: Sequence[str], folder: Path, core: set[int] | None, running: Running) -> None:
    """Run a command to its end, on the given processors; what it prints goes to the files ``out`` and ``err`` of a folder.

    Raises:
        Failed: it ended with an error.
    """
    with (
        (folder / "out").open("w+") as output,
        (folder / "err").open("w+") as errors,
        running.process(words, stdout=output, stderr=errors) as process,
    ):
        if core is not None:
            os.sched_setaffinity(process.pid, core)
        code = process.wait()
    if code:
        raise Failed(last_line((folder / "err").read_text()) or f"exit code {code}")


def read(job: Job, folder: Path, seconds: float) -> Run:
    """Read what a training left: its evaluations, from its run directory or from the last line that it printed."""
    log = folder / "run" / "evaluations.jsonl"
    try:
        if log.exists():
            rows = [json.loads(line)["returns"] for line in log.read_text().splitlines()]
            return Run(job.seed, [sum(row) / len(row) for row in rows], seconds)
        said = json.loads(last_line((folder / "out").read_text()))
        return Run(job.seed, [float(x) for x in said["evaluations"]], seconds, said.get("versions", {}))
    except (ValueError, KeyError, TypeError, ZeroDivisionError) as error:
        raise Failed(f"it left no evaluations that can be read ({type(error).__name__})") from None
