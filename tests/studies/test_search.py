"""A search in generations: who is pruned, that nothing depends on the order of what trains, and that it goes on."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jumar.errors import DamagedFile, UsageError
from jumar.studies.proposals import Proposals, importances
from jumar.studies.pruning import Halving, Median, Never
from jumar.studies.search import Note, Settle, best_of, next_seeds, search, settling
from jumar.studies.space import Choices, Range, Space
from jumar.studies.trials import COMPLETE, FAILED, PRUNED, RUNNING, Record, Trial

pytest.importorskip("optuna")

SPACE = Space(
    algorithm="ppo",
    env="jax/CartPole-v1",
    total_timesteps=1_000,
    seeds=3,
    startup_trials=4,
    search={
        "learning_rate": Range(1e-5, 1e-1, log=True),
        "n_epochs": Range(1, 10, whole=True),
        "net_arch": Choices(([8], [8, 8])),
    },
)


def mean(scores: Sequence[float]) -> float:
    return sum(scores) / len(scores)


def test_median_prunes_what_is_below_the_median_of_enough_rivals() -> None:
    rivals = [(1.0, 9.0), (2.0,), (3.0, 5.0), (10.0, 1.0)]
    rule = Median(least=4)
    assert rule.stages(3) == [1, 2, 3]
    assert [rule.goes_on((x,), rivals, mean) for x in (2.4, 2.5)] == [False, True]  # the median of 1, 2, 3 and 10
    assert rule.goes_on((0.0, 0.0), rivals, mean)  # only three got as far
    # Over two seeds the others had 5, 4 and 5.5.
    assert [Median(3).goes_on((0.0, x), rivals, mean) for x in (9.9, 10.0)] == [False, True]
    assert Median(1).goes_on((-1.0,), [], mean)


def test_halving_keeps_the_best_share_that_got_so_far() -> None:
    rule = Halving(least=1, factor=3)
    assert rule.stages(10) == [1, 3, 9, 10]
    assert Halving(1).stages(1) == [1]
    rivals = [(float(x),) for x in range(1, 6)]
    # The best 2 of 6: 5 and one more.
    assert [rule.goes_on((x,), rivals, mean) for x in (3.9, 4.0, 4.5, 6.0)] == [False, True, True, True]
    assert Halving(6, 3).goes_on((0.0,), rivals, mean)
    assert Never().stages(5) == [5]


def test_small_values_are_the_good_ones_where_one_minimises() -> None:
    small = replace(SPACE, maximize=False, startup_trials=1)
    settle = settling(small, [(5.0, 5.0, 5.0)])
    assert settle(Trial(1, {}, scores=(6.0,))).state == PRUNED
    assert settle(Trial(1, {}, scores=(4.0,))).state == RUNNING
    trials = [Trial(i, {}, COMPLETE, (x,)) for i, x in enumerate((3.0, 1.0, 1.0))]
    assert best_of(small, trials) == trials[1]
    assert best_of(SPACE, [*trials, Trial(3, {}, FAILED, (9.0,), "torn")]) == trials[0]


def test_seeds_come_stage_by_stage() -> None:
    halving = replace(SPACE, pruner="halving", seeds=5)
    assert [next_seeds(halving, Trial(0, {}, scores=(0.0,) * n)) for n in (0, 1, 2, 3, 4)] == [
        range(1), range(1, 2), range(2, 4), range(3, 4), range(4, 5),
    ]  # fmt: skip
    assert next_seeds(replace(SPACE, pruner="none"), Trial(0, {})) == range(3)


class Runner:
    """Trains by a formula, in an order of its own; may be interrupted after so many seeds."""

    def __init__(self, order: int = 0, interrupted_after: int | None = None) -> None:
        self._draw = random.Random(order)
        self._left = math.inf if interrupted_after is None else interrupted_after
        self.trained: list[tuple[int, int]] = []

    def __call__(self, trials: Sequence[Trial], settle: Settle, note: Note) -> None:
        under_way = [trial for trial in trials if not trial.over]
        while under_way and self._left > 0:
            trial = under_way.pop(self._draw.randrange(len(under_way)))
            settled = settle(trial)
            if not settled.over:
                self._left -= 1
                place = len(trial.scores)
                self.trained.append((trial.number, place))
                reached = score(trial.settings, place)
                settled = trial.failed("it diverged.") if reached is None else settle(trial.scored(reached))
            note(settled)
            if not settled.over:
                under_way.append(settled)


def score(settings: Any, seed: int) -> float | None:
    if settings["learning_rate"] > 0.05:
        return None
    return -abs(math.log10(settings["learning_rate"]) + 3) + len(settings["net_arch"]) + 0.1 * math.sin(seed * 37)


def searched(space: Space, runner: Runner, n: int = 22, known: Sequence[Trial] = (), **more: Any) -> list[Trial]:
    return search(space, Proposals(space, 5), n, 4, runner, known=known, **more)


@pytest.fixture(scope="module")
def whole() -> list[Trial]:
    return searched(SPACE, Runner())


def test_a_search_goes_where_it_is_good(whole: list[Trial]) -> None:
    assert {trial.state for trial in whole} == {COMPLETE, PRUNED, FAILED}
    assert all(len(trial.scores) == 3 for trial in whole if trial.state == COMPLETE)
    assert all(trial.state != PRUNED for trial in whole[:4])  # the first generation has no rivals
    best = best_of(SPACE, whole)
    assert best is not None
    assert best.number >= 10  # better than all that were drawn at random
    assert len(best.settings["net_arch"]) == 2


def test_the_order_of_what_trains_changes_nothing(whole: list[Trial]) -> None:
    assert searched(SPACE, Runner(order=1)) == whole


@pytest.mark.parametrize("sampler", ["tpe", pytest.param("cmaes", marks=pytest.mark.slow), "random"])
def test_a_search_that_was_interrupted_goes_on_and_repeats_nothing(sampler: str, whole: list[Trial]) -> None:
    if sampler == "cmaes":
        pytest.importorskip("cmaes")
    space = replace(SPACE, sampler=sampler)
    never_stopped, runner = Runner(), Runner(order=2)
    expected = searched(space, never_stopped)
    assert sampler != "tpe" or expected == whole
    kept: list[Trial] = []
    trained = []
    for after in (1, 7, 20, None):
        runner = Runner(order=after or 3, interrupted_after=after)
        found = searched(space, runner, known=list(kept), keep=lambda trials: kept.__setitem__(slice(None), trials))
        trained += runner.trained
    assert found == expected == kept
    assert sorted(trained) == sorted(never_stopped.trained)


def test_more_trials_go_on_as_if_they_had_been_asked_for_at_once(whole: list[Trial]) -> None:
    few = searched(SPACE, Runner(), 9)  # in the middle of a generation
    assert few == whole[:9]
    assert searched(SPACE, Runner(), 22, known=few) == whole


def test_what_is_kept_never_forgets_what_is_known(whole: list[Trial]) -> None:
    lengths = []
    searched(SPACE, Runner(), known=whole, keep=lambda trials: lengths.append(len(trials)))
    assert set(lengths) == {22}


def test_other_proposals_than_before_are_refused(whole: list[Trial]) -> None:
    changed = [replace(whole[0], settings={**whole[0].settings, "n_epochs": 99}), *whole[1:]]
    with pytest.raises(UsageError, match="other settings are proposed for trial 0"):
        searched(SPACE, Runner(), known=changed)


def test_the_same_settings_are_trained_once() -> None:
    space = replace(SPACE, search={"net_arch": Choices(([8], [8, 8]))}, settings={"learning_rate": 1e-3})
    runner = Runner()
    found = search(space, _With(Proposals(space, 0), 1e-3), 9, 3, runner)
    first = {str(trial.settings): trial for trial in reversed(found)}
    assert len(first) == 2
    assert {number for number, _ in runner.trained} == {trial.number for trial in first.values()}
    for trial in found:
        original = first[str(trial.settings)]
        assert trial.scores == original.scores
        assert trial.same_as == (None if trial is original else original.number)


class _With:
    """Proposes with a learning rate that is always the same, for the formula."""

    def __init__(self, proposals: Proposals, rate: float) -> None:
        self._proposals, self._rate = proposals, rate
        self.tell = proposals.tell

    def ask(self, number: int) -> dict[str, Any]:
        return {**self._proposals.ask(number), "learning_rate": self._rate}


def test_what_matters_has_the_larger_importance(whole: list[Trial]) -> None:
    drawn = searched(replace(SPACE, sampler="random", pruner="none"), Runner(), 60)
    shares = importances(SPACE, drawn)
    assert shares is not None
    assert list(shares)[-1] == "n_epochs"  # which the formula does not look at
    assert sum(shares.values()) == pytest.approx(1.0)
    assert importances(SPACE, whole[:5]) is None


def record(trials: Sequence[Trial]) -> Record:
    return Record(SPACE.to_json(), 5, 4, {"optuna": "5.0.0"}, tuple(trials))


def test_trials_are_kept_in_a_file(whole: list[Trial], tmp_path: Path) -> None:
    record(whole).write(tmp_path)
    assert Record.read(tmp_path) == record(whole)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"state": "torn"}, "trials.0.state is 'torn', but must be one of"),
        ({"scores": (math.nan,)}, "trials.0.scores.0 is nan, but must be a"),
        ({"number": 1}, "trials.0.number is 1, but must be 0"),
        ({"reason": "a\x1b[31m"}, "trials.0.reason is"),
        ({"scores": ()}, "trials.0.scores is empty, and the trial is complete"),
        ({"settings": ()}, "trials.0.settings is \\[\\], but must be an object"),
    ],
)
def test_a_forged_file_is_refused(changes: dict[str, Any], words: str, whole: list[Trial], tmp_path: Path) -> None:
    forged = record(whole)
    first = whole[0].to_json() | {key: list(x) if isinstance(x, tuple) else x for key, x in changes.items()}

    class Forged:
        def to_json(self) -> Any:
            return first

    replace(forged, trials=(Forged(),)).write(tmp_path)  # type: ignore[arg-type]
    with pytest.raises(DamagedFile, match=words):
        Record.read(tmp_path)
