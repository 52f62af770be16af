"""The comparison itself: the runs that are missing are trained, and all of them are reported."""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from jumar.console.signals import StopFlag, Stopped, stop_on_signals
from jumar.errors import JumarError, UsageError, unknown
from jumar.report.comparison import Comparison, Run, Scale, compare_runs
from jumar.report.pages import csv_text, page
from jumar.report.pictures import pictures
from jumar.runs import run_directory
from jumar.runs.entries import Layout, check_entries, exactly, remove_temporaries
from jumar.runs.files import plain, write_atomically, write_json
from jumar.runs.run_directory import RunDirectory, make_study_folder
from jumar.studies import attempts
from jumar.studies.attempts import ATTEMPTS
from jumar.studies.cells import RUNS, Cell, Job, cells_of
from jumar.studies.compare_request import CompareRequest
from jumar.studies.executor import Executor, Failure
from jumar.studies.found_runs import STATE, STATE_KIND, failed, read_earlier, read_methods_of, read_run, waiting
from jumar.studies.methods import distinct
from jumar.studies.progress import Progress, Quiet
from jumar.studies.where import opened
from jumar.studies.work import work_off
from jumar.text import counted, short_number
from jumar.training.plan import MOST_STEPS, check_count, check_n_seeds, check_seed

LOGS = "logs"
TABLES = "tables"
PAGE = "report.md"
RESULTS = "results.json"
CUT_SHORT = Failure("it ended before its last evaluation; its log says why.")
PATIENCE = 70.0
"""Seconds that the processes of a killed comparison are waited for: what they take to save and stop, at most."""


class Report:
    """A comparison that is done: its tables, and where its files are."""

    def __init__(self, comparison: Comparison, out: Path, files: Sequence[str]) -> None:
        self.comparison = comparison
        self.out = out
        self.files = list(files)

    @property
    def failures(self) -> list[dict[str, Any]]:
        """The runs that failed."""
        return [row for row in self.comparison.runs if row["failure"]]

    def summary(self) -> dict[str, Any]:
        """Return what ``--json`` prints."""
        tables = self.comparison.tables
        return {
            "out": str(self.out),
            "runs": len(self.comparison.runs),
            "failed": len(self.failures),
            **{name: tables[name] for name in ("scores", "overall", "improvement")},
            "left_out": self.comparison.about["left_out"],
            "failures": [{key: row[key] for key in ("method", "env", "seed", "failure")} for row in self.failures],
            "files": self.files,
        }


def compare(request: CompareRequest, progress: Progress | None = None) -> Report:
    """Train the runs of a comparison that are missing, and write its report.

    Where it was stopped or killed, the same request goes on: finished runs are kept, those that were under way go on from
    their newest checkpoint, those that failed are tried again.

    Raises:
        UsageError: something in the request is wrong; nothing was trained.
        DamagedFile: an entry of the folder is a link, or of the wrong kind; nothing was written.
        Stopped: a signal came; everything is saved, and what is there is reported.
        JumarError: no run at all could be done.
    """
    progress = progress or Quiet()
    _check(request)
    asked = cells_of(request)
    left_out: list[str] = []

    def leave_out(words: str) -> None:
        progress.warn(words)
        left_out.append(words)

    earlier = read_earlier(request.earlier, [cell.within(request.out or Path()) for cell in asked], leave_out)
    scales = _scales(request, asked, earlier)
    with ExitStack() as stack:
        stop = stack.enter_context(stop_on_signals(progress.warn))
        out = make_study_folder(request.out, "compare", "comparison", STATE)
        layout = _layout(asked)
        check_entries(out, layout, writing=True)
        stack.enter_context(RunDirectory(out).lock())
        remove_temporaries(out, request.where.own(layout))
        cells = [cell.within(out) for cell in asked]
        for cell in cells:
            cell.check_runs(request.seeds)
        _write_state(request, out)
        work = _Work(request, cells, progress)
        if work.jobs:
            work.do(out, stop)
        runs = _together(work.runs(), earlier)
        report = write_report(compare_runs(runs, last=request.last, scales=scales, left_out=left_out), out)
    if stop:
        how = "The same command" + ("" if request.out else f", with --out {out},")
        words = f"stopped; {counted(work.missing, 'run')} of {len(report.comparison.runs)} are still to be trained. "
        raise Stopped(stop.signal or 0, words + f"{how} goes on with them; what there is: {out / PAGE}")
    if not report.comparison.curves:
        raise JumarError(f"no run could be compared; the first: {report.failures[0]['failure']}")
    return report


def write_report(comparison: Comparison, out: Path) -> Report:
    """Write tables, pictures and page of a comparison to a folder, each file the old one or the new one.

    Raises:
        JumarError: a file cannot be written.
    """
    drawn = pictures(comparison)
    texts = {
        PAGE: page(comparison, list(drawn)),
        RESULTS: _json({"about": comparison.about, **comparison.tables}),
        **{f"{TABLES}/{name}.csv": csv_text(table) for name, table in comparison.tables.items()},
    }
    content = {**{name: text.encode("utf-8", "backslashreplace") for name, text in texts.items()}, **drawn}
    try:
        (out / TABLES).mkdir(exist_ok=True)
        for name, data in content.items():
            write_atomically(out / name, data)
    except OSError as error:
        raise JumarError(
            f"the report cannot be written to {out} ({error.strerror}); what the runs saved is safe."
        ) from error
    return Report(comparison, out, list(content))


class _Work:
    """The runs of a comparison: which are done, which are under way, and which have failed."""

    def __init__(self, request: CompareRequest, cells: Sequence[Cell], progress: Progress) -> None:
        self._request, self._cells, self._progress = request, cells, progress
        self.jobs = [job for cell in cells for job in cell.jobs(request.seeds)]
        self._failures: dict[tuple[str, str, int], str] = {}
        total = len(cells) * request.n_seeds * request.total_timesteps
        self._done = total - sum(job.steps_asked for job in self.jobs)
        runs = sum(len(job.seeds) for job in self.jobs)
        progress.began(total, runs, self._done + sum(job.steps for job in self.jobs))

    def do(self, out: Path, stop: StopFlag) -> None:
        """Train what is missing, where the request says."""
        with opened(self._request.where, out, self._progress.warn) as executor:
            if not executor.outlives:
                self.wait_for_orphans(stop)
            work_off(
                self.jobs, self.command, out / LOGS, self.parts(executor), self, stop,
                executor=executor, warn=self._progress.warn,
            )  # fmt: skip

    def parts(self, executor: Executor) -> int:
        """Return among how many jobs at a time the processors are divided.

        It does not depend on what is done already: a program's last bits may, on how many processors it has.
        """
        jobs = sum(1 if cell.compiled else self._request.n_seeds for cell in self._cells)
        return max(1, min(self._request.processes or executor.room or jobs, jobs))

    @property
    def missing(self) -> int:
        """How many runs are not finished."""
        return sum(cell.run_of(seed) is None for cell in self._cells for seed in self._request.seeds)

    def wait_for_orphans(self, stop: StopFlag) -> None:
        """Wait until the processes of a comparison that was killed have saved and stopped."""
        deadline, said = time.monotonic() + PATIENCE, False
        while not stop and time.monotonic() < deadline and any(job.is_locked() for job in self.jobs):
            if not said:
                self._progress.note("waiting for processes that are still at work in these runs")
                said = True
            time.sleep(0.2)

    def command(self, job: Job) -> list[str]:
        """Return the words that do a job."""
        return job.command(self._request)

    def running(self, jobs: Sequence[Job]) -> None:
        """Tell how far everything is."""
        self._progress.moved(self._done + sum(job.steps for job in jobs), [job.words for job in jobs])

    def ended(self, job: Job, failure: Failure | None) -> Sequence[Job]:
        """Note how a job ended; where one seed of a program may be at fault, each is tried by itself."""
        if failure is None and any(job.cell.run_of(seed) is None for seed in job.seeds):
            failure = CUT_SHORT
        if failure is not None and not failure.refused and (parts := job.parts()):
            self._progress.warn(f"{job.words}: {failure.words} Each seed is tried by itself.")
            return parts
        self._done += job.steps_asked
        if failure is None:
            self._progress.ended(f"{job.words}: {self._reached(job)}")
        else:
            self._failures |= {(job.cell.method.name, job.cell.task, seed): failure.words for seed in job.seeds}
            self._progress.ended(f"{job.words}: failed: {failure.words}")
        return ()

    def runs(self) -> list[Run]:
        """Read all runs back."""
        found = []
        for cell in self._cells:
            for seed in self._request.seeds:
                name, directory = cell.method.name, cell.run_of(seed)
                if directory is not None:
                    found.append(read_run(directory, name, cell.plan, seed))
                elif why := self._failures.get((name, cell.task, seed)):
                    found.append(failed(name, cell.plan, seed, why, cell.folder))
                else:
                    found.append(waiting(name, cell.plan, seed, cell.folder))
        return found

    def _reached(self, job: Job) -> str:
        """Return the mean score of a job's runs, in words."""
        told = job.cell.method.name, job.cell.plan
        runs = [read_run(directory, *told, seed) for seed, directory in zip(job.seeds, job.run_dirs, strict=True)]
        if damaged := next((run.failure for run in runs if run.failure), None):
            return damaged
        return short_number(sum(run.score(self._request.last) for run in runs) / len(runs))


def _together(runs: Sequence[Run], earlier: Sequence[Run]) -> list[Run]:
    """Return all runs, each method, task and seed once."""
    have = {(run.method, run.env, run.seed) for run in runs}
    return [*runs, *(run for run in earlier if (run.method, run.env, run.seed) not in have)]


def _check(request: CompareRequest) -> None:
    if not request.methods and not request.envs and not request.earlier:
        raise UsageError(
            "there is nothing to compare: give --algorithms and --envs, or --from and directories of runs."
        )
    if bool(request.methods) != bool(request.envs):
        lacking, given = ("--envs", "--algorithms") if request.methods else ("--algorithms", "--envs")
        raise UsageError(
            f"{lacking} is missing beside {given}; for example: jumar compare --algorithms ppo,trpo --envs jax/CartPole-v1"
        )
    if isinstance(request.envs, str):
        raise UsageError(f"envs must be a tuple of environments, not the text {request.envs!r}.")
    if request.methods:
        distinct(request.methods)
        if twice := next((env for env in request.envs if request.envs.count(env) > 1), None):
            raise UsageError(f"the environment {twice} is given twice.")
    check_n_seeds(request.n_seeds)
    check_seed(request.seed, request.n_seeds)
    check_count("total_timesteps", request.total_timesteps, 1, MOST_STEPS)
    check_count("eval_every", request.steps_between, 1)
    for name in ("eval_episodes", "last"):
        check_count(name, getattr(request, name), 1)
    if request.processes is not None:
        check_count("jobs", request.processes, 1)
    request.where.check()


def _scales(request: CompareRequest, cells: Sequence[Cell], earlier: Sequence[Run]) -> dict[str, Scale]:
    """Return the scales by task; an environment may be named as it was typed, or without its backend.

    Raises:
        UsageError: there is no such task, or the two numbers are no scale.
    """
    tasks = {name: name for name in [*(cell.task for cell in cells), *(run.env for run in earlier)]}
    tasks = {**{name.partition("/")[2]: name for name in tasks}, **{cell.env: cell.task for cell in cells}, **tasks}
    found = {}
    for env, (low, high) in request.scales.items():
        if env not in tasks:
            raise unknown("environment", env, tasks)
        if not (low < high and math.isfinite(low) and math.isfinite(high)):
            raise UsageError(f"the scale {env}={low:g}:{high:g} must go up, from one number to another.")
        found[tasks[env]] = low, high
    return found


def _layout(cells: Sequence[Cell]) -> Layout:
    """Return the names that are used in a comparison's folder, down to the runs of its cells."""
    runs = Layout(folders={r"seeds?_\d+(-\d+)?": run_directory.LAYOUT})
    methods: dict[str, dict[str, Layout]] = {}
    for cell in cells:
        method, task = cell.folder.parts[-2:]
        methods.setdefault(re.escape(method), {})[re.escape(task)] = runs
    logs = (r".*\.log",)
    return Layout(
        files=(*exactly(STATE, PAGE, RESULTS), r"\w+\.png"),
        folders={
            TABLES: Layout((r"\w+\.csv",)),
            LOGS: Layout(files=logs, in_place=logs),
            ATTEMPTS: attempts.LAYOUT,
            RUNS: Layout(folders={method: Layout(folders=tasks) for method, tasks in methods.items()}),
        },
    )


def _write_state(request: CompareRequest, out: Path) -> None:
    """Write down what the methods of the folder are called.

    Raises:
        UsageError: it cannot be written.
        DamagedFile: what the folder says of itself was changed.
    """
    known = read_methods_of(out) if (out / STATE).exists() else []
    methods = list(dict.fromkeys([*known, *(method.name for method in request.methods)]))
    try:
        write_json(out / STATE, STATE_KIND, {"methods": methods})
    except OSError as error:
        raise UsageError(f"{out} cannot be written ({error.strerror}); give another folder with --out.") from None


def _json(data: dict[str, Any]) -> str:
    return json.dumps(plain(data, lambda value: None), indent=1) + "\n"
