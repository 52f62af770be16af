"""The run directory: its name, its places, its settings, and the lock that keeps two processes from one run."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import time
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import Any

from jumar.errors import DamagedFile, UsageError, nearest
from jumar.runs import checkpoints, policy_files, segments
from jumar.runs.entries import (
    Layout,
    OpenFile,
    PathLike,
    check_entries,
    exactly,
    name_of_temporary,
    open_plain,
    remove_temporaries,
)
from jumar.runs.files import read_json, write_json
from jumar.runs.tensorboard import NAME_START

CONFIG = "config.json"
CONFIG_KIND = "run configuration"
CONFIG_TOML = "config.toml"
METRICS = "metrics.jsonl"
EVALUATIONS = "evaluations.jsonl"
TENSORBOARD = "tensorboard"
CHECKPOINTS = "checkpoints"
REPLAY = "replay"
COLLECTED = "collected"
BEST = "best"
LEARNING_CURVE = "learning_curve.png"
LOCK = ".lock"
NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL)
"""What file systems without locks answer."""
SEED_NAME = re.compile(r"seed_(0|[1-9][0-9]*)")
TRIES, BETWEEN_TRIES = 10, 0.02
"""How often a lock is tried, and the seconds in between: longer than anybody takes to look whether it is held."""


def _layout(*, of_one_seed: bool) -> Layout:
    """Return the names that Jumar uses in a run directory."""
    in_place = exactly(METRICS, EVALUATIONS, LOCK)
    folders = {
        TENSORBOARD: Layout((re.escape(NAME_START) + ".*",)),
        CHECKPOINTS: Layout(folders={checkpoints.FOLDER_NAME.pattern: Layout(exactly(*checkpoints.FILES))}),
        REPLAY: Layout((segments.NAME.pattern,)),
        COLLECTED: Layout((segments.NAME.pattern,)),
        BEST: Layout(exactly(*policy_files.FILES)),
    }
    if not of_one_seed:
        folders[SEED_NAME.pattern] = _layout(of_one_seed=True)
    return Layout((*exactly(CONFIG, CONFIG_TOML, LEARNING_CURVE, *policy_files.FILES), *in_place), in_place, folders)


LAYOUT = _layout(of_one_seed=False)
UNFIT_FOR_NAMES = re.compile(r"[^A-Za-z0-9._-]+")


def fit_for_a_name(text: str) -> str:
    """Return the text with ``_`` for what does not fit into the name of a file, such as ``/`` and ``:``."""
    return UNFIT_FOR_NAMES.sub("_", text)


@dataclass(frozen=True)
class RunDirectory:
    """Where everything about one training run is kept. Make one with ``create`` or ``open``.

    Attributes:
        path: the directory itself.
    """

    path: Path

    @staticmethod
    def create(
        path: PathLike | None, algorithm: str, env_text: str, seed: int, now: datetime | None = None
    ) -> RunDirectory:
        """Make a new run directory: ``path``, or by default ``runs/ALGO_ENV_SEED_DATE``.

        In the default name, what does not fit into a file name (``/`` and ``:`` of an environment's id, say) becomes
        ``_``, and a taken name gets ``-2``, ``-3`` and so on. DATE is ``now`` as in ``20261120-093012``.

        Raises:
            UsageError: ``path`` exists and is not an empty directory, or a directory cannot be made or written there.
        """
        if path is not None:
            return RunDirectory(_make_given(Path(path)))
        date = (now or datetime.now()).strftime("%Y%m%d-%H%M%S")
        name = f"{algorithm}_{fit_for_a_name(env_text)}_{seed}_{date}"
        return RunDirectory(make_free(Path("runs"), name))

    @staticmethod
    def open(path: PathLike) -> RunDirectory:
        """Return the run directory at ``path``, after checking its entries and that its configuration is sound.

        Raises:
            UsageError: nothing is there, or it is no run directory; the message gives the nearest names of runs.
            DamagedFile: an entry is a link or of the wrong kind; or ``config.json`` was changed, is foreign, or is from a
                newer version.
        """
        run = RunDirectory(Path(path))
        if not os.path.lexists(run.config):
            raise _not_a_run(run)
        run.check_entries()
        run.read_config()
        return run

    def check_entries(self, *, writing: bool = False) -> None:
        """Refuse a directory that leads out of itself, or holds something else than the files and folders of a run.

        The directory itself may be reached through a link; no entry that Jumar uses may be one.

        Raises:
            DamagedFile: an entry is a link or of the wrong kind, or (where ``writing``) would be written in place and has
                a second name.
            UsageError: the directory cannot be read.
        """
        try:
            check_entries(self.path, LAYOUT, writing=writing)
        except OSError as error:
            raise UsageError(f"{error.filename or self.path} cannot be read ({error.strerror}).") from None

    def __fspath__(self) -> str:
        return str(self.path)

    def __str__(self) -> str:
        return str(self.path)

    @property
    def config(self) -> Path:
        """``config.json``: every setting, resolved."""
        return self.path / CONFIG

    @property
    def metrics(self) -> Path:
        """``metrics.jsonl``: one JSON object per iteration."""
        return self.path / METRICS

    @property
    def evaluations(self) -> Path:
        """``evaluations.jsonl``: one JSON object per evaluation."""
        return self.path / EVALUATIONS

    @property
    def tensorboard(self) -> Path:
        """``tensorboard/``: event files."""
        return self.path / TENSORBOARD

    @property
    def checkpoints(self) -> Path:
        """``checkpoints/``: a folder per checkpoint."""
        return self.path / CHECKPOINTS

    @property
    def replay(self) -> Path:
        """``replay/``: the segments of the replay buffer."""
        return self.path / REPLAY

    @property
    def collected(self) -> Path:
        """``collected/``: the segments of the steps that are kept for a data set."""
        return self.path / COLLECTED

    @property
    def policy(self) -> Path:
        """The folder of the final policy's two files: the run directory itself."""
        return self.path

    @property
    def best(self) -> Path:
        """``best/``: the folder of the best evaluation's policy."""
        return self.path / BEST

    @property
    def learning_curve(self) -> Path:
        """``learning_curve.png``."""
        return self.path / LEARNING_CURVE

    def seed(self, seed: int) -> RunDirectory:
        """Return the run directory ``seed_S`` of one seed, where one command trains several. It is not made."""
        return RunDirectory(self.path / f"seed_{seed}")

    def seeds(self) -> list[int]:
        """Return the seeds that have a run directory of their own in this one, in order."""
        matches = [SEED_NAME.fullmatch(name) for name in _names(self.path)]
        return sorted(int(match[1]) for match in matches if match and _is_run(self.path / match[0]))

    def write_config(self, data: Mapping[str, Any]) -> None:
        """Write ``config.json`` atomically, with its digest. Raises ``OSError``, and as ``write_json`` does."""
        write_json(self.config, CONFIG_KIND, data)

    def read_config(self) -> dict[str, Any]:
        """Return what ``write_config`` wrote. Raises ``DamagedFile``."""
        return read_json(self.config, CONFIG_KIND)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Within the block, no other process can lock this run. The system frees the lock of a process that dies.

        Who locks a run is about to write to it: its entries are checked first (``check_entries``). What a killed process
        left half written is removed.

        Raises:
            UsageError: another process has it, or the directory cannot be written.
            DamagedFile: an entry is not one that may be written to.
        """
        self.check_entries(writing=True)
        try:
            descriptor = open_plain(self.path / LOCK, os.O_RDWR | os.O_CREAT)
        except OSError as error:
            raise UsageError(f"the run directory {self.path} cannot be written ({error.strerror}).") from None
        held = _Held(descriptor)
        try:
            _lock_or_refuse(descriptor, self.path)
            remove_temporaries(self.path, LAYOUT)
            yield
        finally:
            held.close()

    def locked(self) -> bool | None:
        """Return whether a process works on this run; ``None`` where that cannot be known (:func:`is_locked`)."""
        return is_locked(self.path / LOCK)


class _Held:
    """An open lock file. A forked child closes its copy, or it would keep the lock of a parent that was killed."""

    def __init__(self, descriptor: int) -> None:
        self._opened: OpenFile | None = OpenFile(descriptor)
        _all_held.add(self)

    def close(self) -> None:
        """Close the file, and so free the lock. Raises ``OSError`` if something else has done so: the run was not locked."""
        opened, self._opened = self._opened, None
        if opened is not None:
            opened.close()


_all_held: weakref.WeakSet[_Held] = weakref.WeakSet()


def _close_all() -> None:
    for held in list(_all_held):
        with contextlib.suppress(OSError):
            held.close()


os.register_at_fork(after_in_child=_close_all)


def _lock_or_refuse(descriptor: int, path: Path) -> None:
    try:
        _lock(descriptor)
    except BlockingIOError:
        owner = os.pread(descriptor, 20, 0).decode("ascii", "replace").strip()
        process = f"process {owner}" if owner.isdigit() else "another process"
        raise UsageError(f"the folder {path} is in use by {process}; wait for it or stop it first.") from None
    except OSError as error:
        # A file system without locks (some network ones) is no reason not to train.
        if error.errno not in NO_LOCKS:
            raise
    # The number is only for the message above; a full disk must not stop a run here.
    with contextlib.suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode("ascii"), 0)


def is_locked(path: Path) -> bool | None:
    """Return whether another process holds a lock file; ``None`` where that cannot be known. Nothing is changed.

    The lock is taken for a moment, shared with all others who look. Who wants it for longer tries again.
    """
    try:
        descriptor = open_plain(path)
    except FileNotFoundError:
        return False
    except (OSError, DamagedFile):
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # a file system without locks
        return None
    finally:
        os.close(descriptor)
    return False


def _lock(descriptor: int) -> None:
    """Lock a file. Raises ``BlockingIOError`` where it stays locked, and ``OSError`` where there are no locks."""
    for _ in range(TRIES - 1):
        try:
            return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(BETWEEN_TRIES)
    return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _make_given(path: Path) -> Path:
    try:
        path.mkdir(parents=True, exist_ok=True)
        if any(not _is_left_by_a_kill(name) for name in os.listdir(path)):
            raise UsageError(
                f"the run directory {path} is not empty; give a new one, or go on with it by `jumar resume`."
                if _is_run(path)
                else f"the run directory {path} is not empty; give a new one."
            )
        _try_writing(path)
    except OSError as error:
        raise _cannot_make(path, error) from None
    return path


def _is_left_by_a_kill(name: str) -> bool:
    """Whether a process that was killed before it had written a configuration leaves an entry of this name."""
    return name == LOCK or name_of_temporary(name) == CONFIG


def make_study_folder(out: Path | None, command: str, kind: str, mark: str, *, before: Sequence[str] = ()) -> Path:
    """Return the folder of several runs together, made if need be.

    Args:
        out: where it is to be; ``None`` for a free name in ``runs``.
        command: the command that has it, which a free name begins with.
        kind: what it holds, in words.
        mark: the entry that tells such a folder from others.
        before: entries that there may be before the mark is.

    Raises:
        UsageError: it holds something else, or cannot be made.
    """
    if out is None:
        return make_free(Path("runs"), f"{command}_{datetime.now():%Y%m%d-%H%M%S}")
    try:
        out.mkdir(parents=True, exist_ok=True)
        names = [name for name in os.listdir(out) if not name.startswith(".")]
    except OSError as error:
        raise UsageError(f"{out} cannot be made ({error.strerror}); give another folder with --out.") from None
    if set(names) - {*before} and mark not in names:
        raise UsageError(f"{out} is not empty, and holds no {kind}; give another folder with --out.")
    return out


def make_free(parent: Path, name: str) -> Path:
    """Make a folder of that name, or with ``-2``, ``-3`` and so on where it is taken.

    Raises:
        UsageError: it cannot be made or written there.
    """
    for number in count(1):
        path = parent / (name if number == 1 else f"{name}-{number}")
        try:
            path.mkdir(parents=True)
            _try_writing(path)
            return path
        except FileExistsError as error:
            if not os.path.lexists(path):  # ``runs`` itself is a file
                raise _cannot_make(path, error) from None
        except OSError as error:
            raise _cannot_make(path, error) from None
    raise AssertionError("count never ends")


def _try_writing(path: Path) -> None:
    """Raise ``OSError`` if no file can be made in ``path``: better now than after an hour of training."""
    os.close(open_plain(path / LOCK, os.O_WRONLY | os.O_CREAT))


def _cannot_make(path: Path, error: OSError) -> UsageError:
    reasons = {
        errno.EEXIST: "a file of that name is in the way",
        errno.ENOTDIR: "a part of the path is a file",
        errno.EACCES: "no permission to write there",
        errno.EPERM: "no permission to write there",
        errno.EROFS: "the file system is read-only",
        errno.ENOSPC: "no space is left on the disk",
        errno.ENAMETOOLONG: "the name is too long",
    }
    reason = reasons.get(error.errno or 0, error.strerror or str(error))
    return UsageError(f"the run directory {path} cannot be made: {reason}. Give another with --run-dir.")


def _not_a_run(run: RunDirectory) -> UsageError:
    path = run.path
    if seeds := run.seeds():
        names = ", ".join(str(run.seed(seed)) for seed in seeds[:6]) + (", ..." if len(seeds) > 6 else "")
        return UsageError(f"{path} holds a run for each seed; name one of them: {names}.")
    wrong = f"{path} is not a run directory: it has no {CONFIG}" if path.exists() else f"there is no run at {path}"
    return UsageError(wrong + _suggestion(path))


def _suggestion(path: Path) -> str:
    """Return the end of a sentence that names the runs whose names are nearest to that of ``path``."""
    places = [path.parent] + [place for place in (Path("runs"),) if place.absolute() != path.parent.absolute()]
    for place in places:
        runs = [name for name in _names(place) if _is_run(place / name)]
        if close := nearest(path.name, runs):
            return f"; did you mean {' or '.join(str(place / name) for name in close)}?"
    return "."


def _is_run(path: Path) -> bool:
    return (path / CONFIG).is_file()


def _names(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []
