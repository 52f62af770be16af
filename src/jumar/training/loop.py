"""The training loop: iterate, and at steps that the plan names evaluate and save."""

from __future__ import annotations

from typing import Any, Protocol

import jax
import numpy as np

from jumar.collecting.stopping import Abandoned
from jumar.console.reporter import Reporter
from jumar.console.signals import StopFlag, Stopped
from jumar.runs.standing import Standing, standing
from jumar.training.events import COMPLETE, Callbacks
from jumar.training.training import Metrics, Training


class Keeper(Protocol):
    """Keeps what a run makes. Nothing here raises for a full disk."""

    def iteration(self, lane: int, metrics: Metrics) -> None:
        """Log an iteration of one seed."""
        ...

    def evaluation(self, training: Training, lane: int, record: dict[str, Any], is_best: bool) -> None:
        """Log an evaluation of one seed, and keep its policy if it is the best yet."""
        ...

    def checkpoint(self, training: Training) -> None:
        """Save the state."""
        ...

    def policies(self, training: Training) -> None:
        """Save the policies."""
        ...

    def make_room(self, training: Training) -> None:
        """Keep what the next iteration may overwrite in the replay buffer, where all steps are kept."""
        ...


def run_loop(
    training: Training,
    keeper: Keeper,
    reporter: Reporter,
    stop: StopFlag | None = None,
    callbacks: Callbacks | None = None,
) -> None:
    """Train until the plan's total, a rule of the plan's, a signal, or a callback that returns ``False``.

    A run that a rule stops is complete: it ends with a checkpoint, like one that has reached its total.

    Raises:
        Stopped: a signal came; everything was saved before. An iteration of one round is finished first, one of many rounds
            is given up, and a resumed run does it again.
        Exception: training cannot go on, or a callback raised; the last good state was saved before.
    """
    callbacks = callbacks or Callbacks()
    callbacks.attach(training)
    try:
        reason = _train(training, keeper, reporter, stop, callbacks)
    except BaseException as error:
        _say_the_end(callbacks, reporter, error)
        raise
    callbacks.end(reason)


def _say_the_end(callbacks: Callbacks, reporter: Reporter, error: BaseException) -> None:
    """Tell callbacks that an exception ends training; one that raises now must not hide it."""
    try:
        callbacks.end(str(error) or type(error).__name__)
    except Exception as second:
        notes = " ".join(getattr(second, "__notes__", ()))
        reporter.warn(f"{type(second).__name__}: {second}. {notes}")


def _train(training: Training, keeper: Keeper, reporter: Reporter, stop: StopFlag | None, callbacks: Callbacks) -> str:
    """Do what :func:`run_loop` does; return why training ended."""
    plan, reason = training.plan, COMPLETE
    if not plan.offline and (words := plan.settings.shortcoming(plan.whole_iterations)):
        reporter.warn(words)
    try:
        while training.steps < plan.total_timesteps:
            if stop:
                _save_where_it_stopped(training, keeper)
                raise Stopped(stop.signal or 0)
            before = training.steps
            keeper.make_room(training)
            try:
                all_metrics = training.iterate(lambda: bool(stop))
            except Abandoned:  # the state is the one from before the iteration
                _save_where_it_stopped(training, keeper)
                raise Stopped(stop.signal or 0 if stop else 0) from None
            last = training.steps >= plan.total_timesteps
            reason, record = COMPLETE if last else None, None
            if plan.eval_every and (last or _due(plan.eval_every, before, training.steps)):
                record = _evaluate(training, keeper, reporter, all_metrics, stop)
                reason = training.judge(record, last) or reason
            shown = _tell(training, keeper, reporter, all_metrics)
            # Everything is logged before callbacks are called: one of them may raise.
            answers = [None if record is None else callbacks.evaluation(record), callbacks.iteration(shown)]
            if reason or _due(plan.checkpoint_every, before, training.steps):
                training.cut()
                _checkpoint(training, keeper, callbacks)
                if not reason:
                    training.restart()
            if reason:
                break
            if stopper := answers[0] or answers[1]:
                _save_where_it_stopped(training, keeper)
                return f"stopped by the callback {stopper}"
    except Abandoned:
        # The evaluation belongs to the iteration before it: a resumed run repeats both, from the last checkpoint.
        keeper.policies(training)
        raise Stopped(stop.signal or 0 if stop else 0) from None
    except (Exception, KeyboardInterrupt):
        _save_where_it_stopped(training, keeper)
        raise
    training.info.close()
    keeper.policies(training)
    if training.stopped_by:
        reporter.note(f"training stops after {training.steps:,} steps: {reason}")
    return reason or COMPLETE


def _checkpoint(training: Training, keeper: Keeper, callbacks: Callbacks) -> None:
    before = training.saved_at
    keeper.checkpoint(training)
    if training.saved_at != before and training.saved_at is not None:
        callbacks.checkpoint(training.saved_at)


def _tell(training: Training, keeper: Keeper, reporter: Reporter, all_metrics: list[Metrics]) -> Metrics:
    """Log an iteration and show it; return what is shown, the mean over seeds."""
    for lane, metrics in enumerate(all_metrics):
        keeper.iteration(lane, metrics)
        for words in training.health(lane, metrics):
            reporter.warn(words)
    shown = mean_metrics(all_metrics)
    reporter.iteration({name: x for name, x in shown.items() if x is not None})
    return shown


def _evaluate(
    training: Training, keeper: Keeper, reporter: Reporter, all_metrics: list[Metrics], stop: StopFlag | None
) -> dict[str, Any]:
    """Evaluate every seed, and keep what is best; return the evaluation of all seeds together."""
    lanes = range(len(all_metrics))
    records = [training.evaluate(lane, training.plan.eval_episodes, lambda: stop) for lane in lanes]
    for lane, metrics in enumerate(all_metrics):
        record = records[lane]
        mean, best = record["mean_return"], training.best[lane]
        here = standing(record)
        is_best = best is None or here > Standing(training.best_comparable[lane], best)
        if is_best:
            training.best[lane], training.best_steps[lane] = mean, training.steps
            training.best_comparable[lane] = here.comparable
            training.best_policies[lane] = jax.device_get(training.snapshot(lane))
        training.last_evaluation[lane], training.last_cut[lane] = mean, record["cut_episodes"]
        metrics["eval/mean_reward"] = mean
        keeper.evaluation(training, lane, record, is_best)
    everything = {**records[0], "returns": [x for record in records for x in record["returns"]]}
    everything["mean_return"] = float(np.mean(everything["returns"]))
    everything["std_return"] = float(np.std(everything["returns"]))
    everything["cut_episodes"] = sum(record["cut_episodes"] for record in records)
    everything["cut_returns"] = [x for record in records for x in record.get("cut_returns", ())]
    reporter.evaluation(everything)
    return everything


def _save_where_it_stopped(training: Training, keeper: Keeper) -> None:
    """Save the policy; and the state, where it can be gone on from exactly."""
    if not training.runner.has_barriers:
        keeper.checkpoint(training)
    keeper.policies(training)


def _due(every: int, before: int, after: int) -> bool:
    return every > 0 and after // every > before // every


def mean_metrics(all_metrics: list[Metrics]) -> Metrics:
    """Return the mean over seeds of each metric (that of the only seed, as a rule)."""
    if len(all_metrics) == 1:
        return all_metrics[0]
    names = all_metrics[0]
    columns = {name: [x for metrics in all_metrics if (x := metrics.get(name)) is not None] for name in names}
    return {name: float(np.mean(column)) if column else None for name, column in columns.items()}
