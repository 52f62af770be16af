"""Where the runs of a comparison or a sweep are trained: on this machine, by a Ray cluster, or by SLURM."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from jumar.errors import UsageError, unknown
from jumar.runs.entries import Layout
from jumar.studies.attempts import ARRAY, ATTEMPTS, Files, array_name
from jumar.studies.executor import Executor, Warn
from jumar.studies.given import GivenJobs
from jumar.studies.processes import Processes
from jumar.training.plan import check_count
from jumar.xla.compiler import count_processors

LOCAL, RAY, SLURM = PLACES = ("local", "ray", "slurm")
MOST_PROCESSORS = 10_000


@dataclass(frozen=True, kw_only=True)
class Where:
    """Where runs are trained.

    Attributes:
        on: ``"local"``: in processes of this machine; ``"ray"``: by a Ray cluster; ``"slurm"``: by SLURM's arrays.
        address: ``HOST:PORT`` of the Ray cluster's head; ``None``: a local Ray, for the time of the command.
        slurm_options: of ``sbatch``, as one text.
        processors: how many each run has; ``None``: on this machine they are divided among the runs, elsewhere one.
    """

    on: str = LOCAL
    address: str | None = None
    slurm_options: str | None = None
    processors: int | None = None

    def check(self) -> None:
        """Refuse what does not go together. Raises ``UsageError``."""
        from jumar.studies.slurm import read_options

        if self.on not in PLACES:
            raise unknown("place", self.on, PLACES)
        for name, value, place in (("address", self.address, RAY), ("slurm_options", self.slurm_options, SLURM)):
            if value is not None and self.on != place:
                raise UsageError(f"--{name.replace('_', '-')} is for --on {place}, and this is --on {self.on}.")
        if self.processors is not None:
            check_count("processors", self.processors, 1, MOST_PROCESSORS)
        read_options(self.slurm_options or "")

    def own(self, layout: Layout) -> Layout:
        """Return the part of a study's layout where no job can be at work: SLURM's go on without this process."""
        if self.on != SLURM:
            return layout
        return replace(
            layout, folders={name: each for name, each in layout.folders.items() if name not in ("runs", ATTEMPTS)}
        )


@contextmanager
def opened(where: Where, out: Path, warn: Warn) -> Iterator[Executor]:
    """Within the block, yield what trains the runs of a study.

    Args:
        where: it is.
        out: the study's folder, which this process has locked.
        warn: is told of what is not as it should be, and does not prevent anything.

    Raises:
        UsageError: it cannot be used; the message says what would help. Nothing was begun.
    """
    given = GivenJobs(out, warn)
    if where.on != SLURM:
        _leave_nothing(given)
    try:
        if where.on == RAY:
            from jumar.cluster.ray_session import open_session
            from jumar.studies.ray_tasks import RayTasks

            with open_session(where.address, count_processors(), "--on ray") as session:
                yield RayTasks(session, given, where.processors or 1, warn)
        elif where.on == SLURM:
            from jumar.studies.slurm import read_options
            from jumar.studies.slurm_arrays import SlurmArrays

            yield SlurmArrays(given, where.processors or 1, read_options(where.slurm_options or ""), warn)
        else:
            yield Processes(where.processors)
    finally:
        given.remove_empty()


def _leave_nothing(given: GivenJobs) -> None:
    """Bring home what tasks of an earlier process did. Raises ``UsageError`` where SLURM may still be at work."""
    left = list(given.leftovers())
    at_work = _at_work([files for files in left if (files.place / ARRAY).exists() and not files.ended.exists()])
    for files in left:
        if files in at_work:
            raise UsageError(
                f"SLURM was given runs of this folder and may still train them: go on with --on slurm, or cancel them "
                f"(scancel --name={array_name(files.place)}) and remove {files.place}."
            )
        given.bring_home(files)
    given.remove_empty()


def _at_work(left: Sequence[Files]) -> Sequence[Files]:
    """Return which jobs that were given to SLURM are in its queue; all of them where it does not answer."""
    from jumar.studies import slurm

    try:
        found = slurm.queue(sorted({array_name(files.place) for files in left}))
    except UsageError:
        return left
    queued = {(one.name, one.index) for one in found if not one.over}
    return [files for files in left if (array_name(files.place), files.index) in queued]
