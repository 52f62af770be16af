"""Trials as training runs: which are missing, and what those that ended are worth."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from jumar.console.signals import StopFlag
from jumar.errors import UsageError
from jumar.studies.cells import Cell, Job, cells_of
from jumar.studies.compare import CUT_SHORT
from jumar.studies.compare_request import CompareRequest
from jumar.studies.executor import Executor, Failure
from jumar.studies.found_runs import read_run
from jumar.studies.methods import Method
from jumar.studies.processes import Processes
from jumar.studies.progress import Progress
from jumar.studies.search import Keep, Note, Settle, best_of, next_seeds
from jumar.studies.space import Space
from jumar.studies.trials import COMPLETE, FAILED, Trial
from jumar.studies.work import work_off
from jumar.text import counted, printable, short_number, typed
from jumar.training.plan import Plan

LOGS = "logs"
PATIENCE = 70.0
"""Seconds that the processes of a killed sweep are waited for: what they take to save and stop, at most."""
LONGEST_REASON = 500


class Trainer:
    """Trains generations of trials, so many at a time; each trial trains its seeds one after another.

    :meth:`train` and :meth:`keep` are what :func:`jumar.studies.search.search` calls.

    Args:
        space: what is searched.
        seed: the first seed of every trial.
        out: the sweep's folder.
        parallel: how many trials train at a time.
        n_trials: how many there are to be.
        write: writes down what has become of all trials so far.
        progress: who is told.
        stop: asks for an end.
        executor: what trains them; ``None``: processes of this machine.
    """

    def __init__(
        self,
        space: Space,
        seed: int,
        out: Path,
        parallel: int,
        n_trials: int,
        write: Keep,
        progress: Progress,
        stop: StopFlag,
        executor: Executor | None = None,
    ) -> None:
        self._space, self._seed, self._out = space, seed, out
        self._parallel, self._n_trials = parallel, n_trials
        self._write, self._progress, self._stop = write, progress, stop
        self._executor: Executor = executor or Processes()
        self._request = request_of(space, seed)
        self._all: tuple[Trial, ...] = ()
        self._trials: dict[str, Trial] = {}
        """Those of the generation, by the name of their cell's method."""
        self._again: set[Path] = set()
        """Runs that were begun again after a signal had ended them."""
        self._began = False

    def keep(self, trials: Sequence[Trial]) -> None:
        """Write down what has become of the trials, where anything has."""
        if tuple(trials) != self._all:
            self._all = tuple(trials)
            self._write(trials)

    def train(self, trials: Sequence[Trial], settle: Settle, note: Note) -> None:
        """Train the trials that are not over."""
        self._settle, self._note = settle, note
        self._trials = {method_of(self._space, trial).name: trial for trial in trials}
        if not self._began and not all(trial.over for trial in trials):
            self._begin()
        jobs = [job for trial in trials for job in self._advance(trial)]
        if not self._executor.outlives:
            self._wait_for_orphans(jobs)
        work_off(
            jobs, lambda job: job.command(self._request), self._out / LOGS, self._parallel, self, self._stop, even=True,
            executor=self._executor, warn=self._progress.warn,
        )  # fmt: skip

    def running(self, jobs: Sequence[Job]) -> None:
        """Tell how far everything is."""
        self._progress.moved(self._done + sum(job.steps for job in jobs), [job.words for job in jobs])

    def ended(self, job: Job, failure: Failure | None) -> Sequence[Job]:
        """Note how a job ended; return the one that its trial has next."""
        if failure is not None and failure.interrupted and job.run.path not in self._again:
            self._again.add(job.run.path)
            return [job]
        if failure is None and any(job.cell.run_of(seed) is None for seed in job.seeds):
            failure = CUT_SHORT
        trial = self._trials[job.cell.method.name]
        if failure is not None:
            self._settled(trial.failed(_one_line(failure.words)))
            return []
        return self._advance(trial)

    def _advance(self, trial: Trial) -> list[Job]:
        """Return what a trial has to train next, one job at most; nothing once it is over. What is trained is scored."""
        while not trial.over:
            settled = self._settle(trial)
            if settled.over:
                self._settled(settled)
                break
            try:
                cell = self._cell(trial)
            except UsageError as error:  # settings that do not go together
                self._settled(trial.failed(_one_line(str(error))))
                break
            seeds = [self._seed + place for place in next_seeds(self._space, trial)]
            cell.check_runs(seeds)
            if jobs := cell.jobs(seeds):
                return jobs[:1]
            trial = self._scored(trial, cell, seeds)
        return []

    def _scored(self, trial: Trial, cell: Cell, seeds: Sequence[int]) -> Trial:
        """Return a trial with the scores of seeds whose runs are finished; failed, where one of them has none."""
        for seed in seeds:
            directory = cell.run_of(seed)
            assert directory is not None
            run = read_run(directory, cell.method.name, cell.plan, seed)
            if run.failure is not None:
                trial = trial.failed(_one_line(run.failure))
                self._settled(trial)
                return trial
            trial = trial.scored(run.score(self._space.last))
        self._noted(cell.method.name, trial)
        return trial

    def _noted(self, name: str, trial: Trial) -> None:
        self._trials[name] = trial
        self._note(trial)

    def _settled(self, trial: Trial) -> None:
        """Note a trial that is over, and say what it reached."""
        self._noted(method_of(self._space, trial).name, trial)
        best = best_of(self._space, self._all)
        leads = best is not None and best.number == trial.number
        self._progress.ended(trial_words(self._space, trial) + (" (the best so far)" if leads else ""))

    def _cell(self, trial: Trial) -> Cell:
        [cell] = cells_of(replace(self._request, methods=(method_of(self._space, trial),)))
        return cell.within(self._out)

    @property
    def _done(self) -> int:
        """The steps that are done, those that need not be done any more among them."""
        of_trial = self._space.seeds * self._space.total_timesteps
        return sum(
            of_trial if trial.over else len(trial.scores) * self._space.total_timesteps
            for trial in self._all[: self._n_trials]
        )

    def _begin(self) -> None:
        self._began = True
        total = self._n_trials * self._space.seeds * self._space.total_timesteps
        self._progress.began(total, (total - self._done) // self._space.total_timesteps, self._done)

    def _wait_for_orphans(self, jobs: Sequence[Job]) -> None:
        """Wait until the processes of a sweep that was killed have saved and stopped."""
        deadline, said = time.monotonic() + PATIENCE, False
        while not self._stop and time.monotonic() < deadline and any(job.is_locked() for job in jobs):
            if not said:
                self._progress.note("waiting for processes that are still at work in these runs")
                said = True
            time.sleep(0.2)


def request_of(space: Space, seed: int) -> CompareRequest:
    """Return what the runs of a search have in common, as a comparison says it."""
    return CompareRequest(
        envs=(space.env,),
        total_timesteps=space.total_timesteps,
        seed=seed,
        n_seeds=space.seeds,
        eval_every=space.steps_between,
        eval_episodes=space.eval_episodes,
        preset=space.preset,
        cost=space.cost,
    )


def method_of(space: Space, trial: Trial) -> Method:
    """Return a trial as a method of a comparison."""
    return Method(f"trial {trial.number}", space.algorithm, {**space.settings, **trial.settings})


def check_together(space: Space, seed: int) -> Cell:
    """Return the cell of the first settings of a space, which tells whether what does not change can be asked for.

    Raises:
        UsageError: the environment, the preset, the cost or a fixed setting is wrong.
    """
    first = {name: domain.value(getattr(domain, "low", 0)) for name, domain in space.search.items()}
    method = Method(space.algorithm, space.algorithm, {**space.settings, **first})
    [cell] = cells_of(replace(request_of(space, seed), methods=(method,)))
    return cell


def plan_of(space: Space, seed: int, trial: Trial) -> Plan:
    """Return the plan of a trial's first run."""
    [cell] = cells_of(replace(request_of(space, seed), methods=(method_of(space, trial),)))
    return cell.plan


def trial_words(space: Space, trial: Trial) -> str:
    """Say what a trial reached, and with which settings."""
    settings = ", ".join(f"{name}={shown(value)}" for name, value in trial.settings.items())
    if trial.state == FAILED:
        return f"trial {trial.number}: failed: {trial.reason} ({settings})"
    value = short_number(space.value(trial.scores))
    if trial.state != COMPLETE:
        value += f" after {len(trial.scores)} of {counted(space.seeds, 'seed')}, pruned"
    return f"trial {trial.number}: {value}, {settings}"


def shown(value: Any) -> str:
    """Return a setting's value in few digits, for people."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, str) and ":" in value:
        head, _, number = value.rpartition(":")
        try:
            return f"{head}:{float(number):.4g}"
        except ValueError:
            return value
    return typed(value) or "none"


def _one_line(words: str) -> str:
    return " ".join(printable(words).split())[:LONGEST_REASON]
