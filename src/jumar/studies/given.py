"""Jobs that are given to other machines, as whoever gives them keeps them: written down, tidied up, brought home."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from jumar.cluster.versions import versions
from jumar.errors import DamagedFile, UsageError, explain_system_error
from jumar.runs.entries import temporary_beside
from jumar.runs.files import write_atomically
from jumar.runs.run_directory import LOCK
from jumar.studies import beside
from jumar.studies.attempts import ATTEMPTS, TOKEN, Assignment, Files, environment, new_place
from jumar.studies.executor import Warn


class GivenJobs:
    """The attempts of a study, in its folder ``attempts``.

    Args:
        out: the study's folder, which this process has locked.
        warn: is told of what could not be brought home yet.
    """

    def __init__(self, out: Path, warn: Warn = lambda words: None) -> None:
        self._out, self._warn = out, warn
        self.attempts = out / ATTEMPTS
        self._place: Path | None = None
        self._written = 0
        self._versions = versions()

    def place(self) -> Path:
        """Return the folder of this process's own attempts, made at the first call. Raises ``OSError``."""
        if self._place is None:
            self._place = new_place(self.attempts)
        return self._place.absolute()

    def write(self, place: Path, name: str, words: Sequence[str], run: Path, log: Path, processors: int) -> Files:
        """Write down a job as the next one of a folder; return its files. Raises ``OSError``."""
        files = Files(place, self._written)
        self._written += 1
        files.write(
            Assignment(
                name=name,
                words=tuple(words),
                run=str(run),
                log=str(log),
                folder=os.getcwd(),
                lock=str(self._out / LOCK),
                processors=processors,
                environment=environment(),
                versions=self._versions,
            )
        )
        return files

    def new_probe(self, path: Path) -> str:
        """Write a random word to a file, for other machines to read; return it. Raises ``OSError``."""
        word = secrets.token_hex(16)
        write_atomically(path, word.encode())
        return word

    def tidy(self, files: Files, run: Path) -> None:
        """Remove the files of an attempt that is over, bring home what it did beside the run, and see what it did in it.

        Where that cannot be, as on a full disk, all of it stays for the next command.
        """
        try:
            beside.put_in_place(files.run, run)
        except OSError as error:
            self._warn(f"{_not_home(files, run, error)} The same command brings it home later.")
            return
        files.remove()
        for folder in (run.parent, run, *(run / name for name in _folders(run))):
            _look_anew(folder)

    def leftovers(self) -> Iterator[Files]:
        """Yield the attempts of earlier processes whose files are still there, in the order of their numbers."""
        for path in sorted(self.attempts.glob("*/*.job.json")):
            number = path.name.partition(".")[0]
            if path.parent != self._place and re.fullmatch(TOKEN, path.parent.name) and number.isdecimal():
                yield Files(path.parent, int(number))

    def bring_home(self, files: Files) -> None:
        """Tidy up after an attempt of an earlier process that does not go on any more.

        What it did beside its run is lost only where it does not say which run of this study that was.

        Raises:
            UsageError: it cannot be copied, as on a full disk; all of it stays.
        """
        with contextlib.suppress(DamagedFile):
            told = Assignment.read(files.job)
            run = Path(told.folder, told.run)
            if run.resolve().is_relative_to(self._out.resolve()):
                try:
                    beside.put_in_place(files.run, run)
                except OSError as error:
                    raise UsageError(_not_home(files, run, error)) from error
        files.remove()

    def remove_empty(self) -> None:
        """Remove the folders that hold nothing more that is needed."""
        if not self.attempts.is_dir():
            return
        for place in self.attempts.iterdir():
            ours = re.fullmatch(TOKEN, place.name) and place.is_dir() and not place.is_symlink()
            if ours and not any(place.glob("*.job.json")) and not any(place.glob("*.run")):
                shutil.rmtree(place, ignore_errors=True)
        with contextlib.suppress(OSError):
            self.attempts.rmdir()


def _not_home(files: Files, run: Path, error: OSError) -> str:
    return f"what was trained in {files.run} cannot be put in the place of {run}: {explain_system_error(error)}"


def _folders(run: Path) -> list[str]:
    try:
        return [entry.name for entry in os.scandir(run) if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return []


def _look_anew(folder: Path) -> None:
    """Let a network file system look at a folder anew: for a minute, a file that was missing may still seem to be.

    That it has changed, the server says with the answer to every change that is made there from here.
    """
    path = temporary_beside(folder / "seen")
    with contextlib.suppress(OSError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC))
        os.unlink(path)
