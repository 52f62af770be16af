"""A sweep: settings are searched by training runs, and the best are written to a file that training takes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jumar.console.signals import Stopped, stop_on_signals
from jumar.errors import JumarError, UsageError
from jumar.report.pages import csv_text
from jumar.runs import run_directory
from jumar.runs.entries import Layout, check_entries, exactly, remove_temporaries
from jumar.runs.files import write_atomically
from jumar.runs.run_directory import RunDirectory, make_study_folder
from jumar.studies import attempts
from jumar.studies.attempts import ATTEMPTS
from jumar.studies.cells import RUNS, Cell
from jumar.studies.executor import Executor
from jumar.studies.processes import Processes
from jumar.studies.progress import Progress, Quiet
from jumar.studies.proposals import Proposals, check_packages, importances, versions
from jumar.studies.search import OtherProposals, best_of, search
from jumar.studies.space import Space, read_space
from jumar.studies.sweep_page import best_text, page, rows
from jumar.studies.sweep_pictures import importance_picture, parallel_coordinates
from jumar.studies.trial_runs import LOGS, Trainer, check_together, plan_of
from jumar.studies.trials import FAILED, MOST_TRIALS, TRIALS, Record, Trial
from jumar.studies.where import Where, opened
from jumar.text import counted, typed
from jumar.training.plan import check_count, check_seed

PAGE = "sweep.md"
TABLE = "trials.csv"
BEST = "best.toml"
IMPORTANCE = "importance.png"
COORDINATES = "parallel_coordinates.png"


@dataclass(frozen=True, kw_only=True)
class SweepRequest:
    """The wishes for one sweep; ``None`` means that the space, or the folder, says it.

    Attributes:
        space: The space's file.
        trials: How many trials there are to be.
        parallel: How many trials a generation has, and train at a time; ``None``: as many as there is room for, which SLURM
            does not say.
        out: Where everything is kept; ``None``: a new folder under ``runs``.
        seed: Seeds what is proposed, and is the first seed of every trial.
        env: The environment, in place of the space's; it must be repeated where it is code of the user's.
        where: Where the trials are trained.
    """

    space: Path
    trials: int | None = None
    parallel: int | None = None
    out: Path | None = None
    seed: int | None = None
    env: str | None = None
    where: Where = Where()


@dataclass(frozen=True)
class Sweep:
    """A sweep that was done, or as far as it is.

    Attributes:
        space: What was searched.
        seed: Its seed.
        trials: All trials, in order.
        best: The complete trial with the best value, if there is one.
        importance: The share of each setting, the largest first; ``None`` where there are too few trials.
        out: Its folder.
        files: What was written there.
    """

    space: Space
    seed: int
    trials: Sequence[Trial]
    best: Trial | None
    importance: Mapping[str, float] | None
    out: Path
    files: Sequence[str]

    @property
    def preset_file(self) -> Path | None:
        """The file with the best settings."""
        return self.out / BEST if self.best else None

    def summary(self) -> dict[str, Any]:
        """Return what ``--json`` prints."""
        return {
            "best_settings": dict(self.best.settings) if self.best else None,
            "best_value": self.space.value(self.best.scores) if self.best else None,
            "trials": rows(self.space, self.trials),
            "preset_file": str(self.preset_file) if self.best else None,
            "importance": dict(self.importance) if self.importance else None,
            "out": str(self.out),
            "files": list(self.files),
        }


def sweep(request: SweepRequest, progress: Progress | None = None) -> Sweep:
    """Search the settings of a space, and write the best to a file.

    Where it was stopped or killed, the same request with its folder goes on; trials that are over are not trained again.

    Raises:
        UsageError: something in the space or the request is wrong, or a package is missing; nothing was trained.
        DamagedFile: an entry of the folder is a link, of the wrong kind or changed; nothing was written.
        Stopped: a signal came; everything is saved, and what is there is reported.
        JumarError: no trial could be trained over all seeds.
    """
    progress = progress or Quiet()
    space = read_space(request.space, request.env)
    check_packages(space.sampler)
    n_trials = _check_numbers(request, space)
    cell = check_together(space, request.seed or space.seed or 0)
    with ExitStack() as stack:
        stop = stack.enter_context(stop_on_signals(progress.warn))
        out = make_study_folder(request.out, "sweep", "sweep", TRIALS, before=(ATTEMPTS,))
        layout = _layout(cell)
        check_entries(out, layout, writing=True)
        stack.enter_context(RunDirectory(out).lock())
        before = _before(request, space, out)
        remove_temporaries(out, request.where.own(layout))
        n_trials = max(n_trials, len(before.trials) if before else 0)
        all_over = before is not None and sum(trial.over for trial in before.trials) == n_trials
        executor = Processes() if all_over else stack.enter_context(opened(request.where, out, progress.warn))
        record = before or _new_record(request, space, executor)
        seed, parallel = record.seed, record.parallel

        def write(trials: Sequence[Trial]) -> None:
            replace(record, trials=trials).write(out)

        try:
            write(record.trials)
        except OSError as error:
            raise UsageError(f"{out} cannot be written ({error.strerror}); give another folder with --out.") from None
        trainer = Trainer(space, seed, out, parallel, n_trials, write, progress, stop, executor)
        try:
            proposals = Proposals(space, seed)
            trials = search(space, proposals, n_trials, parallel, trainer.train, trainer.keep, record.trials)
        except OtherProposals as error:
            raise UsageError(f"{out} cannot go on: {error} {_changes(record.versions)}") from None
        done = write_sweep(space, seed, trials, out)
    if stop:
        over = sum(trial.over for trial in done.trials)
        again = "The same command" + ("" if request.out else f", with --out {out},")
        words = f"stopped; {over} of {counted(n_trials, 'trial')} are done. {again} goes on."
        raise Stopped(stop.signal or 0, words + (f" The best so far: {done.preset_file}" if done.best else ""))
    if done.best is None:
        raise JumarError(_no_best(done.trials, out))
    return done


def write_sweep(space: Space, seed: int, trials: Sequence[Trial], out: Path) -> Sweep:
    """Write the best settings, the page, the table and the pictures of a sweep to a folder, each file atomically.

    Raises:
        JumarError: a file cannot be written.
    """
    best = best_of(space, trials)
    importance = importances(space, trials)
    content: dict[str, bytes] = {}
    if best is not None:
        content[BEST] = best_text(space, best, trials, plan_of(space, seed, best), out / BEST).encode()
        content[COORDINATES] = parallel_coordinates(space, trials)
    if importance is not None:
        content[IMPORTANCE] = importance_picture(importance)
    text = page(space, trials, best, importance, [name for name in content if name.endswith(".png")], BEST)
    content |= {
        PAGE: text.encode("utf-8", "backslashreplace"),
        TABLE: csv_text(rows(space, trials, flat=True)).encode(),
    }
    try:
        for name, data in content.items():
            write_atomically(out / name, data)
        for name in {BEST, COORDINATES, IMPORTANCE} - set(content):
            (out / name).unlink(missing_ok=True)
    except OSError as error:
        raise JumarError(f"the results cannot be written to {out} ({error.strerror}); the trials are safe.") from error
    return Sweep(space, seed, trials, best, importance, out, list(content))


def _check_numbers(request: SweepRequest, space: Space) -> int:
    """Return the number of trials. Raises ``UsageError`` for what is wrong in the request."""
    request.where.check()
    if request.seed is not None:
        check_seed(request.seed, space.seeds)
    for name in ("parallel", "trials"):
        if (value := getattr(request, name)) is not None:
            check_count(name, value, 1, MOST_TRIALS)
    return request.trials or space.trials


def _before(request: SweepRequest, space: Space, out: Path) -> Record | None:
    """Return what the folder says of itself; ``None`` where it is new.

    Raises:
        UsageError: it holds another sweep than is asked for; the message says what differs.
        DamagedFile: what it says is damaged.
    """
    seed = space.seed if request.seed is None else request.seed
    if not (out / TRIALS).exists():
        return None
    before = Record.read(out)
    asked = {"seed": seed, "parallel": request.parallel, **_flat(space.to_json())}
    saved = {"seed": before.seed, "parallel": before.parallel, **_flat(before.space)}
    for name in [*asked, *saved]:
        remembered = name in ("seed", "parallel") and asked[name] is None
        if asked.get(name) != saved.get(name) and not remembered:
            here, now = (typed(each[name]) if name in each else "not there" for each in (saved, asked))
            raise UsageError(
                f"{out} holds a sweep in which {name} is {here}, and now it is {now}; give another folder with --out."
            )
    return before


def _new_record(request: SweepRequest, space: Space, executor: Executor) -> Record:
    """Return what a new folder will say of itself. Raises ``UsageError`` where nobody says how many trials go on at once."""
    seed = space.seed if request.seed is None else request.seed
    parallel = request.parallel or executor.room
    if parallel is None:
        raise UsageError(
            f"--on {request.where.on} needs --parallel N: how many trials train at a time, which the search depends on."
        )
    return Record(space.to_json(), seed or 0, parallel, versions())


def _flat(data: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Return plain data as one level, with names such as ``search.gamma.low``."""
    found: dict[str, Any] = {}
    for name, value in data.items():
        found |= _flat(value, f"{before}{name}.") if isinstance(value, Mapping) else {before + name: value}
    return found


def _changes(before: Mapping[str, str]) -> str:
    """Return what to do where other settings are proposed than before."""
    now = versions()
    changed = [f"{name} was {then} and is {now.get(name)}" for name, then in before.items() if now.get(name) != then]
    return f"{', '.join(changed)}; install that version, or give another folder." if changed else "Give another folder."


def _layout(cell: Cell) -> Layout:
    """Return the names that are used in a sweep's folder, down to the runs of its trials."""
    runs = Layout(folders={r"seeds?_\d+(-\d+)?": run_directory.LAYOUT})
    logs = (r".*\.log",)
    return Layout(
        files=exactly(TRIALS, PAGE, TABLE, BEST, IMPORTANCE, COORDINATES),
        folders={
            LOGS: Layout(files=logs, in_place=logs),
            ATTEMPTS: attempts.LAYOUT,
            RUNS: Layout(folders={r"trial_\d+": Layout(folders={re.escape(cell.folder.name): runs})}),
        },
    )


def _no_best(trials: Sequence[Trial], out: Path) -> str:
    failed = [trial for trial in trials if trial.state == FAILED]
    if len(failed) == len(trials):
        return f"{'the only trial' if len(trials) == 1 else f'all {len(trials)} trials'} failed; the first: {failed[0].reason}"
    return f"no trial was trained over all seeds; {out / PAGE} says why."
