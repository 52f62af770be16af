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
from jumar.errors import DamagedFile
from jumar.runs.entries import temporary_beside
from jumar.runs.files import write_atomically
from jumar.runs.run_directory import LOCK
from jumar.studies import beside
from jumar.studies.attempts import ATTEMPTS, TOKEN, Assignment, Files, environment, new_place


class GivenJobs:
    """The attempts of a study, in its folder ``attempts``.

    Args:
        out: the study's folder, which this process has locked.
    """

    def __init__(self, out: Path) -> None:
        self._out = out
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
        """Remove the files of an attempt that is over, bring home what it did beside the run, and see what it did in it."""
        beside.put_in_place(files.run, run)
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
        """
        with contextlib.suppress(DamagedFile, OSError):
            told = Assignment.read(files.job)
            run = Path(told.folder, told.run)
            if Path(os.path.normpath(run)).is_relative_to(self._out.absolute()):
                beside.put_in_place(files.run, run)
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
