"""Optuna's samplers, asked and told in memory.

Every trial has a sampler of its own, seeded by the sweep's seed and the trial's number. So what is proposed depends on these
two, on the space and on what was told before, and a sweep that is told the same once more proposes the same: samplers need no
file.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import metadata, util
from typing import Any

import numpy as np

from jumar.errors import UsageError
from jumar.studies.space import Choices, Domain, Range, Space
from jumar.studies.trials import COMPLETE, FAILED, Trial

INSTALL = "pip install 'jumar[sweep]'"
LEAST_FOR_IMPORTANCE = 10
"""Complete trials with different settings; the best of fewer say nothing."""
BEST_SHARE, BEST = 0.25, 5
"""Which trials importance takes as the best: that share, and so many at least. Of fewer it says little: of 60 trials, drawn at
random in a space where one setting did nothing, the best tenth put it last in 9 of 12 searches, the best quarter in 11."""


def check_packages(sampler: str) -> None:
    """Raise a ``UsageError`` where a package that a sampler needs is missing."""
    if util.find_spec("optuna") is None:
        raise UsageError(f"jumar sweep needs the package optuna; install it with: {INSTALL}")
    if sampler == "cmaes" and util.find_spec("cmaes") is None:
        raise UsageError(f"sampler=cmaes needs the package cmaes; install it with: {INSTALL}")


def versions() -> dict[str, str]:
    """Return the versions of the packages that propose settings, where they are installed."""
    return {name: metadata.version(name) for name in ("optuna", "cmaes") if util.find_spec(name) is not None}


class Proposals:
    """Proposes the settings of trials, and learns from how they ended.

    A trial that failed is told to TPE as one that was stopped before it had a value, which it takes as the worst; one that was
    pruned as one with the value that it had then. CMA-ES is told the value of a pruned trial, and of a failed one nothing.
    """

    def __init__(self, space: Space, seed: int) -> None:
        check_packages(space.sampler)
        self._space, self._seed = space, seed
        with _quiet():
            import optuna

            self._study = optuna.create_study(direction="maximize")
        self._asked: dict[int, Any] = {}

    def ask(self, number: int) -> dict[str, Any]:
        """Return the settings of the trial of that number, as plain data. Trials are asked for in order."""
        with _quiet():
            self._study.sampler = self._sampler(number)
            trial = self._study.ask(_distributions(self._space.search))
        assert trial.number == number, "trials are asked for in order"
        self._asked[number] = trial
        return {name: domain.value(trial.params[name]) for name, domain in self._space.search.items()}

    def tell(self, trial: Trial) -> None:
        """Learn how a trial that is over has ended."""
        from optuna.trial import TrialState

        asked = self._asked.pop(trial.number)
        failed, evolution = trial.state == FAILED, self._space.sampler == "cmaes"
        with _quiet():
            if trial.state == COMPLETE or (evolution and not failed):
                self._study.tell(asked, self._space.goodness(trial.scores))
            elif failed and evolution:
                self._study.tell(asked, state=TrialState.FAIL)
            else:
                if not failed:
                    asked.report(self._space.goodness(trial.scores), len(trial.scores))
                self._study.tell(asked, state=TrialState.PRUNED)

    def _sampler(self, number: int) -> Any:
        from optuna import samplers

        seed = int(np.random.SeedSequence([self._seed, number]).generate_state(1)[0])
        if self._space.sampler == "random":
            return samplers.RandomSampler(seed=seed)
        if self._space.sampler == "cmaes":
            return samplers.CmaEsSampler(seed=seed, warn_independent_sampling=False)
        return samplers.TPESampler(seed=seed, n_startup_trials=self._space.startup_trials)


def importances(space: Space, trials: Sequence[Trial]) -> dict[str, float] | None:
    """Return the share that each setting has in whether a trial is among the best, by PED-ANOVA; the largest first.

    For each setting, the values of the best quarter of the complete trials (five at least) are compared with values spread
    evenly over the space. ``None`` where there are fewer than ten complete trials with different settings, or their values are
    all the same.

    Source: Watanabe, Bansal and Hutter (2023), *PED-ANOVA: efficiently quantifying hyperparameter importance in arbitrary
    subspaces*.
    """
    complete = [trial for trial in trials if trial.state == COMPLETE and trial.same_as is None]
    values = [space.goodness(trial.scores) for trial in complete]
    if len(complete) < LEAST_FOR_IMPORTANCE or len(set(values)) < 2:
        return None
    with _quiet():
        import optuna
        from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

        study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))
        distributions = _distributions(space.search)
        for trial, value in zip(complete, values, strict=True):
            drawn = {name: _drawn(space.search[name], setting) for name, setting in trial.settings.items()}
            study.add_trial(optuna.create_trial(params=drawn, distributions=distributions, value=value))
        share = max(BEST_SHARE, BEST / len(complete))
        found = get_param_importances(
            study, evaluator=PedAnovaImportanceEvaluator(target_quantile=share, evaluate_on_local=False)
        )
    return {name: float(value) for name, value in found.items()}


def _distributions(search: Mapping[str, Domain]) -> dict[str, Any]:
    from optuna import distributions

    def of(domain: Domain) -> Any:
        if isinstance(domain, Choices):
            return distributions.CategoricalDistribution(range(len(domain.values)))
        if domain.whole:
            step = 1 if domain.step is None else int(domain.step)
            return distributions.IntDistribution(int(domain.low), int(domain.high), domain.log, step)
        return distributions.FloatDistribution(domain.low, domain.high, domain.log, domain.step)

    return {name: of(domain) for name, domain in search.items()}


def _drawn(domain: Domain, value: Any) -> Any:
    """Return what a value was drawn as: the inverse of a domain's ``value``."""
    if isinstance(domain, Range):
        number = float(value.removeprefix(domain.prefix)) if isinstance(value, str) else value
        return int(number) if domain.whole else float(number)
    return domain.values.index(value)


@contextmanager
def _quiet() -> Iterator[None]:
    """Within the block, Optuna says nothing of its own."""
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        optuna.logging.set_verbosity(before)


__all__ = ["Proposals", "check_packages", "importances", "versions"]
