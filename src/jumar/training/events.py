"""Callbacks: what is called while a policy is trained, and may stop it. ``jumar.callbacks`` has its names.

``callback=`` of :meth:`jumar.Agent.learn` takes a function of the metrics, an object with any of these methods, or a list of
both:

- ``iteration(metrics)``: an iteration has ended; ``metrics`` has the keys of ``metrics.jsonl``. A function is called in the
  same way. With several seeds each number is the mean over them.
- ``evaluation(record)``: an evaluation has ended; ``record`` is its line of ``evaluations.jsonl`` (``step``, ``mean_return``,
  ``returns``, ``lengths``, ...). With several seeds ``returns`` are those of all, and ``mean_return`` is the mean over them.
- ``checkpoint(step)``: a checkpoint of this step has been saved (only with ``run_dir``).
- ``end(reason)``: training has ended. ``reason`` is ``"complete"``, or a text that says what stopped it.

``False`` from a function, from ``iteration`` or from ``evaluation`` stops training. All callbacks are called, in order, also
where one of them has stopped it. One that raises stops training too: the last good state is saved, and a note of the exception
names the callback.

:class:`StopAtReturn`, :class:`StopWithoutGain` and :class:`LogInfo` are settings of a run: ``config.json`` has them, and
``jumar resume`` has them again. On the command line they are ``--stop-at-return``, ``--stop-without-gain`` and ``--log-info``.
Each call of ``learn`` begins with its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from jumar.errors import UsageError
from jumar.runs.standing import Standing, standing
from jumar.text import counted, short_number

if TYPE_CHECKING:
    from jumar.training.training import Training

Metrics = Mapping[str, float | None]
Record = Mapping[str, Any]

METHODS = ("iteration", "evaluation", "checkpoint", "end")
"""What an object may have to be a callback."""
COMPLETE = "complete"
"""Why training ended where it has reached its total."""
MOST_EVALUATIONS = 1_000_000
MOST_KEYS = 100
LONGEST_KEY = 200


class StopAtReturn:
    """Stop when an evaluation's mean return is at least ``threshold``.

    The evaluation is the deterministic one of ``eval_every``, with the environment's own rewards. With several seeds all stop
    together, when the mean over all their episodes reaches the threshold.

    Raises:
        UsageError: the threshold is not a finite number.
    """

    name = "stop_at_return"

    def __init__(self, threshold: float) -> None:
        self.threshold = read_threshold(threshold)

    def __repr__(self) -> str:
        """Show the threshold."""
        return f"StopAtReturn({self.threshold:g})"

    def evaluation(self, record: Record) -> bool:
        """Return ``False`` if the mean return reaches the threshold."""
        return not float(record["mean_return"]) >= self.threshold

    def words(self, record: Record) -> str:
        """Say why it stopped after this evaluation."""
        mean = float(record["mean_return"])
        return f"the evaluation had a mean return of {short_number(mean)}, at least stop_at_return={self.threshold:g}"


class Waiting(NamedTuple):
    """How long :class:`StopWithoutGain` has waited: what a checkpoint keeps of it."""

    best: float | None = None
    """The best mean return; ``None`` before the first evaluation."""
    comparable: bool = True
    """Whether it is that of whole episodes, as far as can be told (``jumar.runs.standing``)."""
    evaluations: int = 0
    """How many evaluations in a row have not been better."""


class StopWithoutGain:
    """Stop after ``n`` evaluations in a row without a new best mean return.

    The first evaluation is always a new best one; one that is equal to the best is not. With several seeds all stop together,
    and the mean over all their episodes counts.

    Raises:
        UsageError: ``n`` is not a whole number of at least 1.
    """

    name = "stop_without_gain"

    def __init__(self, n: int) -> None:
        self.n = read_patience(n)
        self.waiting = Waiting()

    def __repr__(self) -> str:
        """Show the number."""
        return f"StopWithoutGain({self.n})"

    def evaluation(self, record: Record) -> bool:
        """Return ``False`` if this is the n-th evaluation in a row without a new best."""
        here, best = standing(record), self.waiting.best
        if best is None or here > Standing(self.waiting.comparable, best):
            self.waiting = Waiting(here.mean_return, here.comparable)
        else:
            # After the last evaluation of a run it may be n already, and the run be given a larger total.
            self.waiting = self.waiting._replace(evaluations=min(self.waiting.evaluations + 1, self.n))
        return self.waiting.evaluations < self.n

    def words(self, record: Record) -> str:
        """Say why it stopped after this evaluation."""
        best = short_number(self.waiting.best or 0.0)
        many = counted(self.waiting.evaluations, "evaluation")
        return f"{many} in a row had no mean return above the best one, {best} (stop_without_gain={self.n})"


class LogInfo:
    """Log entries of ``info``: ``info/KEY`` is the mean over the steps of an iteration whose ``info`` has the key.

    It comes with the other metrics: in ``metrics.jsonl``, TensorBoard and the live panel. A value must be one finite number.

    Raises:
        UsageError: there is no key, or one that is not a short text.
    """

    name = "log_info"

    def __init__(self, *keys: str) -> None:
        self.keys = read_keys(keys)
        if not keys:
            raise UsageError("LogInfo needs the keys that are logged, such as LogInfo('cost').")

    def __repr__(self) -> str:
        """Show the keys."""
        return f"LogInfo({', '.join(map(repr, self.keys))})"


class SaveEvery:
    """Save the policy every ``n_steps`` steps, in ``folder/000000010000`` and so on, the number being the step.

    It is saved after the first iteration that ends at or after each multiple of ``n_steps``. :func:`jumar.load_policy` loads
    such a folder. With several seeds each has a folder of its own inside, ``seed_0`` and so on.

    Raises:
        UsageError: a value is out of range.
    """

    def __init__(self, n_steps: float, folder: str | Path) -> None:
        from jumar.training.plan import MOST_STEPS, read_count, read_path

        self.n_steps = read_count("n_steps", n_steps, 1, MOST_STEPS)
        self.folder = read_path("folder", folder)
        self._training: Training | None = None
        self._seen = 0

    def __repr__(self) -> str:
        """Show how often and where to."""
        return f"SaveEvery({self.n_steps}, {str(self.folder)!r})"

    def attach(self, training: Training) -> None:
        """Say whose policy it is; ``learn`` does."""
        self._training, self._seen = training, training.steps

    def iteration(self, metrics: Metrics) -> None:
        """Save the policy if it is time. Raises ``OSError`` if the disk refuses."""
        from jumar.runs.entries import make_folder
        from jumar.training.keeper import save_lane

        training = self._training
        if training is None:
            raise UsageError(f"{self!r} saves the policy of the agent that it is passed to: agent.learn(callback=...).")
        steps, before = training.steps, self._seen
        self._seen = steps
        if steps // self.n_steps == before // self.n_steps:
            return
        here = self.folder / f"{steps:012d}"
        for lane, seed in enumerate(training.plan.seeds):
            folder = here if training.plan.n_seeds is None else here / f"seed_{seed}"
            make_folder(folder)
            save_lane(folder, training, lane)


Rule = StopAtReturn | StopWithoutGain
RULES = (StopAtReturn.name, StopWithoutGain.name)


def says_stop(answer: Any) -> bool:
    """Whether a callback's answer ends training: ``False`` alone does, a NumPy or JAX boolean too.

    A comparison with a NumPy number gives such a boolean. Other values, ``None``, 0 and empty ones among them, go on.
    """
    if isinstance(answer, (bool, np.bool_)):
        return not answer
    return getattr(answer, "dtype", None) == np.bool_ and np.ndim(answer) == 0 and not answer


class Callbacks:
    """Callbacks in order; each is called where it has the method, a function for each iteration.

    Raises:
        UsageError: one of them is neither a function nor an object with one of the methods.
    """

    def __init__(self, given: Sequence[Any] = ()) -> None:
        for each in given:
            if isinstance(each, type) and any(hasattr(each, name) for name in METHODS):
                raise UsageError(f"callback={each.__name__} is a class; make one: {each.__name__}(...).")
            if not callable(each) and not _is_handler(each):
                raise UsageError(
                    f"callback={each!r} is not a function and has none of the methods {', '.join(METHODS)}; write a function "
                    "that is called once per iteration with the metrics (a dict), and returns False to stop training."
                )
        self._given = list(given)

    def attach(self, training: Training) -> None:
        """Tell those that save policies whose they are."""
        for each in self._given:
            if isinstance(each, SaveEvery):
                each.attach(training)

    def iteration(self, metrics: Metrics) -> str | None:
        """Call for an iteration; return which callback stops training, ``None`` if none does."""
        return self._call("iteration", metrics)

    def evaluation(self, record: Record) -> str | None:
        """Call for an evaluation; return which callback stops training, ``None`` if none does."""
        return self._call("evaluation", record)

    def checkpoint(self, step: int) -> None:
        """Call for a checkpoint."""
        self._call("checkpoint", step)

    def end(self, reason: str) -> None:
        """Call at the end."""
        self._call("end", reason)

    def _call(self, what: str, argument: Any) -> str | None:
        stopped_by = None
        for each in self._given:
            function = getattr(each, what, None) if _is_handler(each) else (each if what == "iteration" else None)
            if function is None:
                continue
            try:
                answer = function(argument)
            except BaseException as error:
                if not isinstance(error, KeyboardInterrupt):
                    error.add_note(f"Raised by the callback {_name_of(each)}, called for: {what}.")
                raise
            if what in ("iteration", "evaluation") and says_stop(answer) and stopped_by is None:
                stopped_by = _name_of(each)
        return stopped_by


def _is_handler(callback: Any) -> bool:
    return any(callable(getattr(callback, name, None)) for name in METHODS)


def _name_of(callback: Any) -> str:
    return getattr(callback, "__qualname__", None) or repr(callback)


class Ready(NamedTuple):
    """Callbacks that are settings of a run, and the others."""

    stop_at_return: float | None
    stop_without_gain: int | None
    log_info: tuple[str, ...]
    others: list[Any]


def sorted_out(callback: Any) -> Ready:
    """Return what was passed as ``callback=``, sorted.

    Raises:
        UsageError: two rules of a kind were passed.
    """
    given = [] if callback is None else list(callback) if isinstance(callback, (list, tuple)) else [callback]
    rules: dict[str, Rule] = {}
    keys: list[str] = []
    others = []
    for each in given:
        if isinstance(each, (StopAtReturn, StopWithoutGain)):
            if each.name in rules:
                raise UsageError(f"callback has both {rules[each.name]!r} and {each!r}; pass one of them.")
            rules[each.name] = each
        elif isinstance(each, LogInfo):
            keys += each.keys
        else:
            others.append(each)
    threshold, patience = rules.get(StopAtReturn.name), rules.get(StopWithoutGain.name)
    return Ready(
        threshold.threshold if isinstance(threshold, StopAtReturn) else None,
        patience.n if isinstance(patience, StopWithoutGain) else None,
        tuple(dict.fromkeys(keys)),
        others,
    )


def read_threshold(value: Any) -> float:
    """Return the threshold of :class:`StopAtReturn`.

    Raises:
        UsageError: it is not a finite number.
    """
    right = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    if not right or not math.isfinite(value):
        raise UsageError(f"stop_at_return={value!r} must be a finite number: the mean return that is enough.")
    return float(value)


def read_patience(value: Any) -> int:
    """Return the number of :class:`StopWithoutGain`.

    Raises:
        UsageError: it is not a whole number of at least 1.
    """
    from jumar.training.plan import read_count

    return read_count("stop_without_gain", value, 1, MOST_EVALUATIONS)


def read_keys(keys: Any) -> tuple[str, ...]:
    """Return the keys of :class:`LogInfo`, each once.

    Raises:
        UsageError: one of them is not a short text, or they are too many.
    """
    for key in keys:
        if not isinstance(key, str) or not key or len(key) > LONGEST_KEY or not key.isprintable():
            raise UsageError(f"log_info={key!r:.300} must be the name of an entry of info, such as 'cost'.")
    if len(keys) > MOST_KEYS:
        raise UsageError(f"log_info has {len(keys)} keys; at most {MOST_KEYS} can be logged.")
    return tuple(dict.fromkeys(keys))


def check_evaluated(
    stop_at_return: float | None, stop_without_gain: int | None, eval_every: int, why: str = ""
) -> None:
    """Refuse rules about evaluations in a run that has none.

    Raises:
        UsageError: there are none; ``why`` is said too.
    """
    for name, value in ((StopAtReturn.name, stop_at_return), (StopWithoutGain.name, stop_without_gain)):
        if value is not None and not eval_every:
            raise UsageError(
                f"{name}={value:g} needs evaluations, and {why or 'eval_every=0: give the steps between two of them'}."
            )


Callback = Callable[[Metrics], Any] | Any
"""A function of the metrics, or an object with some of the methods above."""

__all__ = ["Callback", "LogInfo", "Metrics", "Record", "SaveEvery", "StopAtReturn", "StopWithoutGain"]
