"""A search in generations of trials: the order of what happens, without processes and files.

A generation of K trials is asked for, trained, and told in the order of their numbers; then comes the next. Within it, whether
a trial goes on after a seed is decided by trials of earlier generations alone. So nothing depends on which training ends first,
and a search that is given the trials that it had before does the same again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

from jumar.errors import UsageError
from jumar.studies.space import Space
from jumar.studies.trials import COMPLETE, FAILED, PRUNED, Trial


class OtherProposals(UsageError):
    """Other settings are proposed than a trial was trained with before."""


class Asked(Protocol):
    """Who proposes settings."""

    def ask(self, number: int) -> Mapping[str, Any]:
        """Return the settings of the next trial."""
        ...

    def tell(self, trial: Trial) -> None:
        """Learn how a trial has ended."""
        ...


Settle = Callable[[Trial], Trial]
"""Returns a trial as pruned or complete where it is, after some of its seeds, and as it was where it goes on."""
Note = Callable[[Trial], None]
"""Is given a trial that has changed."""
Train = Callable[[Sequence[Trial], Settle, Note], None]
"""Trains those trials of a generation that are not over, and notes each as it gets scores, is settled or fails. Where it is
interrupted, some are not over when it returns."""
Keep = Callable[[Sequence[Trial]], None]
"""Is given all trials, whenever there are new ones, and whenever one of them changes."""


def search(
    space: Space,
    proposals: Asked,
    n_trials: int,
    parallel: int,
    train: Train,
    keep: Keep = lambda trials: None,
    known: Sequence[Trial] = (),
) -> list[Trial]:
    """Return the trials of a search; fewer than ``n_trials`` where training was interrupted.

    Args:
        space: what is searched.
        proposals: who proposes settings.
        n_trials: how many trials there are to be.
        parallel: how many trials a generation has; the last one may have fewer.
        train: trains a generation.
        keep: is given what there is.
        known: trials of a search that was interrupted; what of them is over is not trained again.

    Raises:
        OtherProposals: other settings are proposed than the known trials were trained with.
    """
    done: list[Trial] = []
    first_with: dict[str, Trial] = {}
    for start in range(0, n_trials, parallel):
        numbers = range(start, min(start + parallel, n_trials))
        asked = [_resumed(Trial(number, proposals.ask(number)), known) for number in numbers]
        # Of trials with the same settings the first is trained, and the others share its outcome.
        new: dict[str, Trial] = {}
        for trial in asked:
            if _key(trial) not in first_with:
                new.setdefault(_key(trial), trial)
        later = known[numbers.stop :]
        generation = _Generation(asked, new, first_with, partial(_keep_between, keep, list(done), later))
        rivals = [trial.scores for trial in first_with.values() if trial.state != FAILED]
        train(list(new.values()), settling(space, rivals), generation.note)
        done += generation.trials
        if not all(trial.over for trial in generation.trials):
            break
        for trial in generation.trials:
            proposals.tell(trial)
        first_with |= generation.new
    return done


class _Generation:
    """The trials of a generation while it is trained."""

    def __init__(
        self, asked: Sequence[Trial], new: Mapping[str, Trial], before: Mapping[str, Trial], keep: Keep
    ) -> None:
        self._asked, self._before, self._keep = asked, before, keep
        self.new = dict(new)
        keep(self.trials)

    @property
    def trials(self) -> list[Trial]:
        """All of them as they are now."""
        return [_outcome(trial, {**self._before, **self.new}) for trial in self._asked]

    def note(self, trial: Trial) -> None:
        """Take what has become of one."""
        self.new[_key(trial)] = trial
        self._keep(self.trials)


def _keep_between(keep: Keep, before: Sequence[Trial], later: Sequence[Trial], now: Sequence[Trial]) -> None:
    """Keep the trials of a generation, with those that were before it and those that are known of after it."""
    keep([*before, *now, *later])


def settling(space: Space, rivals: Sequence[Sequence[float]]) -> Settle:
    """Return what says of a trial whether it is complete, is pruned or goes on; see :mod:`jumar.studies.pruning`."""

    def settle(trial: Trial) -> Trial:
        seeds = len(trial.scores)
        if trial.over or seeds == 0:
            return trial
        if seeds >= space.seeds:
            return trial.ended(COMPLETE)
        if seeds in space.rule.stages(space.seeds) and not space.rule.goes_on(trial.scores, rivals, space.goodness):
            return trial.ended(PRUNED)
        return trial

    return settle


def next_seeds(space: Space, trial: Trial) -> range:
    """Return the places of the seeds that a trial is trained over before it is looked at again."""
    done = len(trial.scores)
    return range(done, next(stage for stage in space.rule.stages(space.seeds) if stage > done))


def best_of(space: Space, trials: Sequence[Trial]) -> Trial | None:
    """Return the complete trial with the best value, of equal ones the first; ``None`` where none is complete."""
    complete = [trial for trial in trials if trial.state == COMPLETE]
    return max(complete, key=lambda trial: space.goodness(trial.scores), default=None)


def _outcome(trial: Trial, first_with: Mapping[str, Trial]) -> Trial:
    first = first_with[_key(trial)]
    return first if first.number == trial.number else trial.like(first)


def _key(trial: Trial) -> str:
    """Return the same text for the same settings."""
    return repr(sorted(trial.settings.items()))


def _resumed(trial: Trial, known: Sequence[Trial]) -> Trial:
    """Return the trial as it was known, with its new settings where it was not."""
    if trial.number >= len(known):
        return trial
    before = known[trial.number]
    if dict(before.settings) != dict(trial.settings):
        raise OtherProposals(
            f"other settings are proposed for trial {trial.number} than those that it was trained with."
        )
    return before if before.same_as is None else trial
