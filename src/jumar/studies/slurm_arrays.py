"""Jobs as tasks of SLURM's arrays. They go on when the process that gave them is gone, and the next one takes them up."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from jumar.errors import DamagedFile, UsageError
from jumar.runs.files import write_atomically
from jumar.studies import slurm
from jumar.studies.attempts import ARRAY, Assignment, Files, array_name
from jumar.studies.executor import NOT_BEGUN, Failure, Warn, Words
from jumar.studies.given import GivenJobs
from jumar.studies.slurm import Queued

PAUSE = 1.0
"""Seconds between two looks at the files of the tasks."""
ASK_QUEUE = 15.0
"""Seconds between two looks at the queue, which all users of a cluster share."""
UNSEEN = 60.0
"""Seconds after which a job that is not in the queue, and has not written how it ended, is lost: a network file system may
hide a new file for as long."""
MOST_AT_ONCE = 1_000
"""Tasks of one array; SLURM's default for ``MaxArraySize`` is 1,001."""
MOST_REFUSALS = 5
"""How often in a row SLURM may refuse an array after it has taken one."""


@dataclass(eq=False)
class SlurmTask:
    """A job that was given to SLURM, or is to be with the next array."""

    arrays: SlurmArrays
    files: Files
    run: Path
    processors: int
    array: str | None = None
    """The name of its array, once it is submitted."""
    id: str | None = None
    """SLURM's own, once it was seen in the queue."""
    waits: bool = True
    """Whether it had not begun when the queue was last looked at."""
    missing_since: float | None = None
    asked_to_stop: bool = False
    outcome: tuple[Failure | None] | None = None

    def over(self) -> bool:
        """Whether it has ended."""
        self.arrays.look()
        return self.outcome is not None

    def failure(self) -> Failure | None:
        """Return why it failed; ``None`` if it was done."""
        assert self.outcome is not None
        return self.outcome[0]

    def let_go(self) -> None:
        """Let the job save and stop; one that has not begun is taken out of the queue."""
        self.asked_to_stop = True
        self.files.let_go()
        if self.array is None:
            self.outcome = (NOT_BEGUN,)
        self.arrays.hurry()

    def close(self) -> None:
        """Tidy up after a job that is over. One that is not goes on, and is taken up by the next process."""
        self.arrays.forget(self)
        if self.outcome is not None:
            self.arrays.given.tidy(self.files, self.run)


@dataclass
class SlurmArrays:
    """A SLURM cluster as an :class:`~jumar.studies.executor.Executor`.

    Jobs that are begun one after another are submitted together, at the next look.

    Attributes:
        given: where jobs are written down.
        each: how many processors each job has.
        options: of ``sbatch``, the user's.
        warn: is told of jobs that cannot begin.
    """

    given: GivenJobs
    each: int
    options: Sequence[str]
    warn: Warn
    pause: float = PAUSE
    ask_queue: float = ASK_QUEUE
    unseen: float = UNSEEN
    outlives: bool = field(default=True, init=False)
    room: None = field(default=None, init=False)
    _tasks: list[SlurmTask] = field(default_factory=list, init=False)
    _orphans: dict[str, tuple[Files, Queued]] = field(default_factory=dict, init=False)
    _looked: float = field(default=-math.inf, init=False)
    _asked: float = field(default=-math.inf, init=False)
    _retry: float = field(default=-math.inf, init=False)
    _submitted: bool = field(default=False, init=False)
    _refusals: int = field(default=0, init=False)
    _told: set[str] = field(default_factory=set, init=False)

    def __post_init__(self) -> None:
        """Find the jobs of an earlier process that are still in the queue; bring home what the others did."""
        left = list(self.given.leftovers())
        found = slurm.queue(sorted({array_name(files.place) for files in left if (files.place / ARRAY).exists()}))
        queued = {(one.name, one.index): one for one in found if not one.over}
        for files in left:
            one = queued.get((array_name(files.place), files.index))
            if one is None or files.ended.exists():
                self.given.bring_home(files)
            else:
                self._orphans[_job_name(files)] = files, one

    def shares(self, parts: int, *, even: bool) -> list[tuple[int, ...]]:
        """Return the same number of processors for each job; SLURM chooses which."""
        return [tuple(range(self.each))] * parts

    def start(self, name: str, words: Words, run: Path, log: Path, processors: tuple[int, ...]) -> SlurmTask:
        """Write a job down for the next array, or take up the one that an earlier process has given."""
        if (orphan := self._orphans.pop(name, None)) is not None:
            files, queued = orphan
            task = SlurmTask(self, files, run, len(processors), queued.name, queued.id, queued.waits)
        else:
            files = self.given.write(self.given.place(), name, words(), run, log, len(processors))
            task = SlurmTask(self, files, run, len(processors))
        self._tasks.append(task)
        return task

    def forget(self, task: SlurmTask) -> None:
        """Look no more at a task."""
        if task in self._tasks:
            self._tasks.remove(task)

    def hurry(self) -> None:
        """Look at files and queue at the next call."""
        self._looked = self._asked = -math.inf

    def look(self) -> None:
        """Submit what was begun, and see what has ended, where it is time to."""
        self._submit()
        now = time.monotonic()
        if now - self._looked < self.pause:
            return
        self._looked = now
        under_way = [task for task in self._tasks if task.outcome is None]
        for task in under_way:
            self._read_ending(task)
        if now - self._asked >= self.ask_queue:
            self._asked = now
            self._look_at_queue([task for task in under_way if task.outcome is None], now)

    def _submit(self) -> None:
        if time.monotonic() < self._retry:
            return
        by_size: defaultdict[int, list[SlurmTask]] = defaultdict(list)
        for task in self._tasks:
            if task.array is None and task.outcome is None:
                by_size[task.processors].append(task)
        for processors, tasks in by_size.items():
            for start in range(0, len(tasks), MOST_AT_ONCE):
                try:
                    self._submit_array(tasks[start : start + MOST_AT_ONCE], processors)
                except UsageError as error:
                    self._refused(error)
                    return

    def _submit_array(self, tasks: Sequence[SlurmTask], processors: int) -> None:
        place = tasks[0].files.place
        # Its name is known before SLURM knows the array, so that a process that is killed here loses no job.
        name = array_name(place)
        write_atomically(place / ARRAY, f"{name}\n".encode())
        if self._refusals:  # it may have been taken all the same, and only the answer was late
            known = {one.index for one in slurm.queue([name])}
            for task in (task for task in tasks if task.files.index in known):
                task.array = name
            tasks = [task for task in tasks if task.files.index not in known]
        if tasks:
            slurm.submit(place, name, [task.files.index for task in tasks], processors, self.options)
        for task in tasks:
            task.array = name
        self._submitted, self._refusals = True, 0
        self._asked = time.monotonic()  # it need not be in the queue at once

    def _refused(self, error: UsageError) -> None:
        self._refusals += 1
        if not self._submitted or self._refusals > MOST_REFUSALS:
            raise error
        self.warn(f"{error} It is tried again.")
        self._retry = time.monotonic() + self.ask_queue * self._refusals

    def _read_ending(self, task: SlurmTask) -> None:
        try:
            ended, failure = task.files.read_ending()
        except DamagedFile as error:
            ended, failure = True, Failure(str(error))
        if not ended:
            return
        if failure is not None and failure.interrupted and not task.asked_to_stop:
            failure = replace(failure, lost=True)  # it was an earlier process that wanted an end
        task.outcome = (failure,)

    def _look_at_queue(self, tasks: Sequence[SlurmTask], now: float) -> None:
        try:
            found = slurm.queue(sorted({task.array for task in tasks if task.array}))
        except UsageError:  # SLURM is busy, or restarts
            return
        queued = {(one.name, one.index): one for one in found if not one.over}
        for task in (task for task in tasks if task.array):
            one = queued.get((task.array or "", task.files.index))
            if one is not None:
                task.id, task.waits, task.missing_since = one.id, one.waits, None
                self._tell_hopeless(task, one)
                if one.waits and task.asked_to_stop:
                    slurm.cancel(one.id)
                    task.outcome = (NOT_BEGUN,)
            elif task.missing_since is None:
                task.missing_since = now
            elif now - task.missing_since >= self.unseen:
                task.outcome = (self._lost(task),)

    def _tell_hopeless(self, task: SlurmTask, one: Queued) -> None:
        reason = one.reason.strip("()")
        if one.waits and reason in slurm.HOPELESS and reason not in self._told:
            self._told.add(reason)
            self.warn(f"SLURM does not begin {_job_name(task.files)} (job {one.id}): {reason}.")

    def _lost(self, task: SlurmTask) -> Failure:
        state, places = slurm.what_became_of(task.id) if task.id is not None else ("", "")
        job = f"SLURM's job {task.id}" if task.id is not None else "SLURM's job"
        where = f" on {places}" if places and places != "None assigned" else ""
        words = f"{job} ended{where}{f' ({state})' if state else ''} without saying how"
        if task.waits or state.startswith("FAILED"):
            words += f"; if this repeats, its node may not see {task.files.place}, which all nodes must share"
        return Failure(f"{words}.", interrupted=True, lost=True)


def _job_name(files: Files) -> str:
    try:
        return Assignment.read(files.job).name
    except DamagedFile:
        return str(files.job)
