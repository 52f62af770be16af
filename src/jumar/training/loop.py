"""The training loop: iterate, and at steps that the plan names evaluate and save."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import jax
import numpy as np

from jumar.collecting.stopping import Abandoned
from jumar.console.reporter import Reporter
from jumar.console.signals import StopFlag, Stopped
from jumar.runs.standing import Standing, standing
from jumar.training.training import Metrics, Training

Callback = Callable[[Metrics], Any]
"""Called once per iteration with the metrics; what it returns is read by :func:`says_stop`."""


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


def run_loop(
    training: Training,
    keeper: Keeper,
    reporter: Reporter,
    stop: StopFlag | None = None,
    callback: Callback | None = None,
) -> None:
    """Train until the plan's total, a signal, or a callback that returns ``False``.

    Raises:
        Stopped: a signal came; everything was saved before. An iteration of one round is finished first, one of many rounds
            is given up, and a resumed run does it again.
        Exception: training cannot go on, or the callback raised; the last good state was saved before.
    """
    plan = training.plan
    if words := plan.settings.shortcoming(plan.whole_iterations):
        reporter.warn(words)
    try:
        while training.steps < plan.total_timesteps:
            if stop:
                _save_where_it_stopped(training, keeper)
                raise Stopped(stop.signal or 0)
            before = training.steps
            try:
                all_metrics = training.iterate(lambda: bool(stop))
            except Abandoned:  # the state is the one from before the iteration
                _save_where_it_stopped(training, keeper)
                raise Stopped(stop.signal or 0 if stop else 0) from None
            last = training.steps >= plan.total_timesteps
            if plan.eval_every and (last or _due(plan.eval_every, before, training.steps)):
                _evaluate(training, keeper, reporter, all_metrics, stop)
            wanted = _tell(training, keeper, reporter, all_metrics, callback)
            if last or _due(plan.checkpoint_every, before, training.steps):
                training.cut()
                keeper.checkpoint(training)
                if not last:
                    training.restart()
            if not wanted:
                _save_where_it_stopped(training, keeper)
                return
    except Abandoned:
        # The evaluation belongs to the iteration before it: a resumed run repeats both, from the last checkpoint.
        keeper.policies(training)
        raise Stopped(stop.signal or 0 if stop else 0) from None
    except (Exception, KeyboardInterrupt):
        _save_where_it_stopped(training, keeper)
        raise
    keeper.policies(training)


def _tell(
    training: Training, keeper: Keeper, reporter: Reporter, all_metrics: list[Metrics], callback: Callback | None
) -> bool:
    """Log an iteration, show it, and ask the callback whether to go on."""
    for lane, metrics in enumerate(all_metrics):
        keeper.iteration(lane, metrics)
        for words in training.health(lane, metrics):
            reporter.warn(words)
    shown = mean_metrics(all_metrics)
    reporter.iteration({name: x for name, x in shown.items() if x is not None})
    return callback is None or not says_stop(callback(shown))


def says_stop(answer: Any) -> bool:
    """Whether a callback's answer ends training: ``False`` alone does, a NumPy or JAX boolean too.

    A comparison with a NumPy number gives such a boolean. Other values, ``None``, 0 and empty ones among them, go on.
    """
    if isinstance(answer, (bool, np.bool_)):
        return not answer
    return getattr(answer, "dtype", None) == np.bool_ and np.ndim(answer) == 0 and not answer


def _evaluate(
    training: Training, keeper: Keeper, reporter: Reporter, all_metrics: list[Metrics], stop: StopFlag | None
) -> None:
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
