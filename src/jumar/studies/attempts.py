"""Attempts at jobs that other machines make: what they are told and what they answer, as files that all machines share.

Each submission has a folder of its own in the study's folder ``attempts``. Of its job number I it holds

=================  ==================================================================================================
``I.job.json``     what to do, written before the job is given
``I.leash``        ``go``, and ``stop`` once the job is to save and stop. It is there from the start and is opened anew at each
                   look: network file systems may hide a new file for a minute, but not what is new in one that is opened
``I.ended.json``   how it ended, written by the machine that did it
``I.out``          what a batch system adds on its own
``I.run``          a run directory, where the file system has no locks (:mod:`~jumar.studies.beside`)
=================  ==================================================================================================
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jumar.fields import DamagedEntry, flag, mapping, optional, reading, record, several, whole
from jumar.runs import run_directory
from jumar.runs.entries import Layout, open_plain
from jumar.runs.files import read_json, write_all, write_json
from jumar.studies.executor import Failure

ATTEMPTS = "attempts"
TOKEN = r"[0-9a-f]{12}"
JOB_KIND, ENDED_KIND = "job of a study", "ending of a job"
ARRAY = "array"
"""There once the jobs of a folder were given to SLURM, under the name that `array_name` returns."""
PROBE = "probe"
GO, STOP = b"go\n", b"stop\n"
MOST_JOBS = 10_000
LAYOUT = Layout(
    folders={
        TOKEN: Layout(
            files=(ARRAY, PROBE, r"\d+\.(job|ended)\.json", r"\d+\.(leash|out)"),
            in_place=(r"\d+\.(leash|out)",),
            folders={r"\d+\.run": run_directory.LAYOUT},
        )
    }
)
OWN = ("PYTHONPATH", "MUJOCO_GL")
NUMERIC = ("JAX_", "XLA_", "JUMAR_", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NPROC")
"""Beginnings of the environment variables that may decide what a run computes: they are everywhere those of the machine
that gives the jobs."""


@dataclass(frozen=True)
class Assignment:
    """What another machine is to do.

    Attributes:
        name: of the job.
        words: after ``jumar``.
        run: the run directory, as it stands in the words.
        log: where standard error is added.
        folder: the working directory, which paths are relative to.
        lock: a file that whoever gives the jobs holds locked.
        processors: how many the job has.
        environment: variables that are to be as they are where the jobs are given.
        versions: of what decides the results.
    """

    name: str
    words: tuple[str, ...]
    run: str
    log: str
    folder: str
    lock: str
    processors: int
    environment: Mapping[str, str]
    versions: Mapping[str, str]

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        return asdict(self)

    @classmethod
    def read(cls, path: Path) -> Assignment:
        """Return what was written. Raises ``DamagedFile``."""
        with reading(path):
            found = _READ_JOB(read_json(path, JOB_KIND))
        return cls(**{**found, "words": tuple(found["words"])})


@dataclass(frozen=True)
class Files:
    """The files of one attempt.

    Attributes:
        place: the folder of its submission.
        index: its number there.
    """

    place: Path
    index: int

    @property
    def job(self) -> Path:
        """What to do."""
        return self.place / f"{self.index}.job.json"

    @property
    def leash(self) -> Path:
        """Whether to go on."""
        return self.place / f"{self.index}.leash"

    @property
    def ended(self) -> Path:
        """How it ended."""
        return self.place / f"{self.index}.ended.json"

    @property
    def out(self) -> Path:
        """What a batch system adds."""
        return self.place / f"{self.index}.out"

    @property
    def run(self) -> Path:
        """The run directory beside the run's own."""
        return self.place / f"{self.index}.run"

    def write(self, assignment: Assignment) -> None:
        """Write down a new attempt. Raises ``OSError``."""
        write_json(self.job, JOB_KIND, assignment.to_json())
        self._write_leash(GO)

    def let_go(self) -> None:
        """Tell whoever does the job to save and stop. Raises ``OSError``."""
        self._write_leash(STOP)

    def told_to_stop(self) -> bool:
        """Whether the job is to save and stop; a leash that cannot be read says nothing."""
        with contextlib.suppress(OSError):
            return self.leash.read_bytes() == STOP
        return False

    def write_ending(self, failure: Failure | None) -> None:
        """Write down how it ended. Raises ``OSError``."""
        write_json(self.ended, ENDED_KIND, {"failure": None if failure is None else failure.to_json()})

    def read_ending(self) -> tuple[bool, Failure | None]:
        """Return whether it has ended, and why it failed if it did. Raises ``DamagedFile``."""
        if not self.ended.exists():
            return False, None
        with reading(self.ended):
            found = _READ_ENDING(read_json(self.ended, ENDED_KIND))["failure"]
        return True, None if found is None else Failure(**found)

    def remove(self) -> None:
        """Remove all of its files but a run directory."""
        for path in (self.job, self.leash, self.ended, self.out):
            with contextlib.suppress(OSError):
                path.unlink()

    def _write_leash(self, word: bytes) -> None:
        # In place: whoever opens the same file anew sees what is new in it.
        descriptor = open_plain(self.leash, os.O_WRONLY | os.O_CREAT)
        try:
            write_all(descriptor, word)  # over the old word, which a full disk does not prevent
            os.ftruncate(descriptor, len(word))
        finally:
            os.close(descriptor)


def new_place(attempts: Path) -> Path:
    """Make the folder of a new submission. Raises ``OSError``."""
    place = attempts / secrets.token_hex(6)
    place.mkdir(parents=True)
    return place


def array_name(place: Path) -> str:
    """Return the name by which SLURM knows the jobs of a folder."""
    return f"jumar-{place.name}"


def environment() -> dict[str, str]:
    """Return the environment variables that other machines are to have."""
    return {name: value for name, value in os.environ.items() if name in OWN or name.startswith(NUMERIC)}


def _texts(value: Any) -> dict[str, str]:
    return {name: _word(each) for name, each in mapping(value).items()}


def _word(value: Any) -> str:
    if not isinstance(value, str):
        raise DamagedEntry.wrong(value, "a text")
    return value


_READ_JOB = record(
    name=_word,
    words=several(_word, most=1_000),
    run=_word,
    log=_word,
    folder=_word,
    lock=_word,
    processors=whole(1, 100_000),
    environment=_texts,
    versions=_texts,
)
_READ_ENDING = record(failure=optional(record(words=_word, refused=flag, interrupted=flag, lost=flag)))
