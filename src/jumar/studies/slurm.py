"""SLURM's commands: a job array is submitted, looked for in the queue, asked what became of it, cancelled."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jumar.errors import UsageError
from jumar.text import printable

PATIENCE = 60.0
"""Seconds that a command of SLURM's may take."""
OURS = {
    "array": "one is made of the jobs",
    "wrap": "the jobs are commands of Jumar's",
    "job-name": "it tells the jobs of a study from others",
    "output": "it goes to the study's folder",
    "error": "it goes to the study's folder",
    "requeue": "a lost job is given again by the command itself",
    "chdir": "the jobs begin where the command was typed",
    "cpus-per-task": "it is --processors",
    "ntasks": "a job is one process",
    "wait": "the command itself waits",
    "parsable": "it is given anyway",
    "test-only": "nothing would be submitted",
}
"""Options of ``sbatch`` that are not the user's here, and why."""
SHORT = {
    "a": "array",
    "J": "job-name",
    "o": "output",
    "e": "error",
    "D": "chdir",
    "c": "cpus-per-task",
    "n": "ntasks",
    "W": "wait",
}
GRACE = 120
"""Seconds before the end of its time at which a job is told to save and stop."""
ENDS = (
    "COMPLETED",
    "FAILED",
    "CANCELLED",
    "TIMEOUT",
    "NODE_FAIL",
    "PREEMPTED",
    "OUT_OF_MEMORY",
    "BOOT_FAIL",
    "DEADLINE",
)
HOPELESS = (
    "BadConstraints",
    "PartitionNodeLimit",
    "PartitionTimeLimit",
    "InvalidAccount",
    "InvalidQOS",
    "JobHeldUser",
    "JobHeldAdmin",
)
"""Reasons for which a job stays in the queue for ever."""


@dataclass(frozen=True)
class Queued:
    """A job in SLURM's queue.

    Attributes:
        name: of its array.
        index: its number there.
        id: SLURM's own, ``1234_5``.
        state: ``PENDING``, ``RUNNING``, ...
        reason: why it waits.
    """

    name: str
    index: int
    id: str
    state: str
    reason: str

    @property
    def waits(self) -> bool:
        """Whether it has not begun."""
        return self.state == "PENDING"

    @property
    def over(self) -> bool:
        """Whether it has ended, and is shown a little longer."""
        return self.state.startswith(ENDS)


def read_options(text: str) -> list[str]:
    """Return the options of ``sbatch`` that a user typed as one text.

    Raises:
        UsageError: a quotation mark is left open, a word is no option, or an option is not the user's here.
    """
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise UsageError(
            f"--slurm-options {text!r} cannot be read: {str(error)[:1].lower()}{str(error)[1:]}."
        ) from None
    if words and not words[0].startswith("-"):
        raise UsageError(
            f'--slurm-options {text!r} must begin with an option of sbatch, such as "--time=4:00:00 --partition=short".'
        )
    for word in words:
        found = re.match(r"--(?:no-)?([a-z-]+)", word) or re.match(r"-([A-Za-z])", word)
        name = found and SHORT.get(found[1], found[1])
        if name in OURS:
            raise UsageError(f"--slurm-options must not have {word.partition('=')[0]}: {OURS[name]}.")
    return words


def submit(place: Path, name: str, indexes: Sequence[int], processors: int, options: Sequence[str]) -> str:
    """Submit jobs that were written down in a folder, as one array; return SLURM's number of it.

    Args:
        place: the folder, as an absolute path.
        name: of the array.
        indexes: the jobs' numbers.
        processors: how many each job has.
        options: the user's, of ``sbatch``.

    Raises:
        UsageError: there is no ``sbatch`` here, or it refused; the message has its words.
    """
    command = [
        "sbatch",
        "--parsable",
        f"--job-name={name}",
        f"--array={ranges(indexes)}",
        "--ntasks=1",
        f"--cpus-per-task={processors}",
        f"--output={str(place).replace('%', '%%')}/%a.out",
        "--open-mode=append",
        "--no-requeue",
        f"--signal=B:TERM@{GRACE}",
        *options,
    ]
    answer = _asked(command, script(place))
    found = re.match(r"(\d+)(;\S+)?\s*$", answer.strip().splitlines()[-1] if answer.strip() else "")
    if found is None:
        raise UsageError(f"sbatch answered {printable(answer)[:200]!r} instead of the number of a job.")
    return found[1]


def script(place: Path) -> str:
    """Return the script of an array whose jobs are written down in a folder."""
    words = [sys.executable, "-P", "-m", "jumar.cli.attempt", str(place)]
    # By exec the process is the script's own, which is the one that SLURM warns before its time is over.
    return f'#!/bin/sh\nexec {shlex.join(words)} "$SLURM_ARRAY_TASK_ID"\n'


def queue(names: Sequence[str]) -> list[Queued]:
    """Return the jobs in the queue that belong to arrays of these names. Raises ``UsageError`` where SLURM does not answer."""
    if not names:
        return []
    command = ["squeue", "--noheader", "--array", "--me", f"--name={','.join(names)}", "--format=%j|%i|%T|%r"]
    found = []
    for line in _asked(command).splitlines():
        name, job, state, reason = (*line.strip().split("|"), "", "", "", "")[:4]
        index = job.rpartition("_")[2]
        if index.isdecimal():
            found.append(Queued(name, int(index), job, state, reason))
    return found


def what_became_of(job: str) -> tuple[str, str]:
    """Return the state in which a job ended and the nodes that it had, as ``sacct`` tells them; empty where it does not."""
    command = ["sacct", "--noheader", "--parsable2", "--allocations", f"--jobs={job}", "--format=State,NodeList"]
    try:
        lines = _asked(command).splitlines()
    except UsageError:  # many clusters keep no accounts
        return "", ""
    state, _, places = (lines[-1] if lines else "").partition("|")
    return state.strip(), places.strip()


def cancel(job: str) -> None:
    """Take a job out of the queue. That it cannot be, because it is not there any more, does not matter."""
    try:
        _asked(["scancel", job])
    except UsageError:
        return


def ranges(indexes: Sequence[int]) -> str:
    """Return numbers as ``sbatch`` takes them: ``0-3,7``."""
    parts: list[list[int]] = []
    for index in sorted(indexes):
        if parts and index == parts[-1][-1] + 1:
            parts[-1].append(index)
        else:
            parts.append([index])
    return ",".join(f"{part[0]}-{part[-1]}" if len(part) > 1 else str(part[0]) for part in parts)


def _asked(command: Sequence[str], text: str = "") -> str:
    """Return what a command of SLURM's prints. Raises ``UsageError`` with its own words."""
    try:
        done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=PATIENCE, check=False)
    except FileNotFoundError:
        raise UsageError(
            f"there is no {command[0]} here; --on slurm is for the login node of a SLURM cluster, --on ray for a Ray cluster."
        ) from None
    except (OSError, subprocess.TimeoutExpired) as error:
        words = f"did not answer within {PATIENCE:g} s" if isinstance(error, subprocess.TimeoutExpired) else str(error)
        raise UsageError(f"{command[0]} {words}.") from None
    if done.returncode != 0:
        said = printable(done.stderr).strip().splitlines() or [f"exit code {done.returncode}"]
        words = said[-1].removeprefix(f"{command[0]}: ").removeprefix("error: ").removesuffix(".")
        raise UsageError(f"{command[0]} refused: {words}. Its options are given by --slurm-options.")
    return done.stdout
