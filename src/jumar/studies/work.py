"""Jobs are worked off, several at a time, wherever they are done; those whose machine died are given again."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from jumar.console.signals import StopFlag
from jumar.studies.cells import Job, folder_of
from jumar.studies.executor import Executor, Failure, Task, Warn
from jumar.studies.processes import Processes, shares

GIVEN_AGAIN = 3
"""How often a lost job is given again without having come further meanwhile."""


class Watcher(Protocol):
    """Who is told how the work goes."""

    def running(self, jobs: Sequence[Job]) -> None:
        """Hear which jobs are running; called again and again."""
        ...

    def ended(self, job: Job, failure: Failure | None) -> Sequence[Job]:
        """Hear that a job has ended, and why it failed if it did; return jobs that are to be done on its account."""
        ...


@dataclass
class _Running:
    """A job under way, and the processors that it has."""

    job: Job
    task: Task
    processors: tuple[int, ...]


def work_off(
    jobs: Sequence[Job],
    command: Callable[[Job], list[str]],
    logs: Path,
    parts: int,
    watcher: Watcher,
    stop: StopFlag,
    *,
    even: bool = False,
    executor: Executor | None = None,
    warn: Warn = lambda words: None,
) -> None:
    """Do all jobs, so many at a time; return when all have ended, or, once ``stop`` is set, have been stopped.

    Args:
        jobs: what is to be done, in this order.
        command: the words after ``jumar`` that do a job.
        logs: a folder for what the processes print on standard error, one file for each job.
        parts: among how many jobs at a time the processors are divided, at least 1.
        watcher: who is told.
        stop: asks for an end: the processes save and stop.
        even: whether every job has the same number of processors, so that it does not matter which it is given.
        executor: where the jobs are done; ``None``: in processes of this machine.
        warn: is told of jobs that are given again.
    """
    executor = executor or Processes()
    waiting = deque(jobs)
    free = executor.shares(parts, even=even)
    running: list[_Running] = []
    budget = _Budget()
    asked_to_stop = False
    try:
        while running or (waiting and not stop):
            while waiting and free and not stop:
                job = waiting.popleft()
                running.append(_start(executor, job, command, logs, free.pop(0)))
            for one in [one for one in running if one.task.over()]:
                running.remove(one)
                failure = one.task.failure()
                one.task.close()
                more: Sequence[Job] = ()
                if not asked_to_stop and failure is not None and failure.lost and budget.allows(one.job):
                    warn(f"{one.job.words}: {failure.words} It is given again.")
                    more = [one.job]
                elif not asked_to_stop:
                    more = watcher.ended(one.job, failure)
                # What takes the place of one job shares its processors.
                free += shares(one.processors, max(1, min(len(more), len(one.processors))))
                waiting.extend(more)
            if stop and not asked_to_stop:
                asked_to_stop = True
                for one in running:
                    one.task.let_go()
            watcher.running([one.job for one in running])
            time.sleep(executor.pause)
    finally:
        for one in running:  # only after an error of our own
            one.task.close()


def _start(
    executor: Executor, job: Job, command: Callable[[Job], list[str]], logs: Path, numbers: tuple[int, ...]
) -> _Running:
    name = folder_of(job.words)
    task = executor.start(name, lambda: command(job), job.run.path, logs / f"{name}.log", numbers)
    return _Running(job, task, numbers)


@dataclass
class _Budget:
    """How often a job is given again: a place where it comes further each time may die as often as it likes."""

    _reached: dict[Path, int] = field(default_factory=dict)
    _in_vain: dict[Path, int] = field(default_factory=dict)

    def allows(self, job: Job) -> bool:
        """Note that a job was lost; return whether it is to be given again."""
        run, steps = job.run.path, job.steps
        further = steps > self._reached.get(run, 0)
        self._reached[run] = steps
        self._in_vain[run] = 0 if further else self._in_vain.get(run, 0) + 1
        return self._in_vain[run] <= GIVEN_AGAIN
