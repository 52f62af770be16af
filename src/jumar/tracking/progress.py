"""How far a run was sent to a tracker, kept in a folder of its own beside the run's files."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from jumar.errors import JumarError, UsageError
from jumar.fields import optional, reading, record, text, whole
from jumar.runs.entries import Layout, check_entries, exactly, make_folder, remove_temporaries
from jumar.runs.files import read_json, write_json
from jumar.runs.run_directory import RunDirectory
from jumar.tracking.rows import LARGEST_STEP

FOLDER = "follow"
FILE = "progress.json"
KIND = "progress of following"
LAYOUT = Layout(exactly(FILE))
NOTHING = -1
"""The last step sent where none was."""
_step = whole(NOTHING, LARGEST_STEP)
_READ = record(
    project=text(),
    name=text(),
    run_id=text("[0-9a-f]{16}", "16 hexadecimal digits"),
    step=_step,
    sending=optional(_step),
)


@dataclass(frozen=True)
class Progress:
    """How far a run was sent.

    Attributes:
        project: where to.
        name: what it is called there.
        run_id: what tells it from others there, 16 hexadecimal digits.
        step: the last step that was sent; ``NOTHING`` if none was.
        sending: the last step of the rows that are being sent; ``None`` between two sendings.
    """

    project: str
    name: str
    run_id: str
    step: int = NOTHING
    sending: int | None = None


def new_progress(project: str, name: str) -> Progress:
    """Return the progress of a run of which nothing was sent."""
    return Progress(project, name, secrets.token_hex(8))


class ProgressFile:
    """The file of a progress, read and written by one process at a time.

    Attributes:
        folder: where it is.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @staticmethod
    @contextmanager
    def of(run: RunDirectory, tracker: str) -> Iterator[ProgressFile]:
        """Within the block, nobody else sends this run to this tracker.

        Raises:
            UsageError: somebody else does, or the run directory cannot be written to.
            DamagedFile: something else is in the place of the folder or the file.
        """
        folder = run.path / FOLDER / tracker
        try:
            make_folder(folder.parent)
            make_folder(folder)
            check_entries(folder, LAYOUT)
        except OSError as error:
            raise UsageError(
                f"{folder} cannot be made ({error.strerror}); what was sent is noted there, so that nothing is sent twice."
            ) from None
        with RunDirectory(folder).lock():
            remove_temporaries(folder, LAYOUT)
            yield ProgressFile(folder)

    def read(self) -> Progress | None:
        """Return what was written; ``None`` if nothing was. Raises ``DamagedFile``."""
        path = self.folder / FILE
        if not path.exists():
            return None
        data = read_json(path, KIND)
        with reading(path):
            return Progress(**_READ(data))

    def begin(self, progress: Progress, until: int) -> Progress:
        """Note that rows up to a step are about to be sent."""
        return self.write(replace(progress, sending=until))

    def done(self, progress: Progress) -> Progress:
        """Note that the rows that were begun are sent."""
        assert progress.sending is not None
        return self.write(replace(progress, step=progress.sending, sending=None))

    def write(self, progress: Progress) -> Progress:
        """Write a progress, and return it.

        Raises:
            JumarError: it cannot be written.
        """
        try:
            write_json(self.folder / FILE, KIND, asdict(progress))
        except OSError as error:
            raise JumarError(
                f"{self.folder / FILE} cannot be written ({error.strerror}); what was sent is noted there, so nothing more is "
                "sent. The same command goes on."
            ) from None
        return progress
