"""The registry of checks, and the checks that take next to no time."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest

from jumar.algorithms.registry import BUILT_IN
from jumar.console.signals import Stopped
from jumar.errors import UsageError
from jumar.verification import registry
from jumar.verification.registry import Check, check, checks, run_one, select

CHECKS = checks()
SHORT = ("distributions", "estimators", "importance", "objectives", "experience", "critics", "normaliser")
"""Groups whose checks run in every test run; the others have programs that take seconds to compile, and are slow tests."""


def test_names_are_of_one_form_and_in_the_order_of_their_groups() -> None:
    assert len({each.name for each in CHECKS}) == len(CHECKS) > 60
    for each in CHECKS:
        assert re.fullmatch(r"[a-z-]+/[a-z0-9-]+", each.name), each.name
        assert each.bound >= 0.0
        assert math.isfinite(each.bound)
        assert not each.what.endswith("."), each.name
    groups = [registry.group_of(each.name) for each in CHECKS]
    assert list(dict.fromkeys(groups)) == list(registry.GROUPS)
    assert groups == sorted(groups, key=registry.GROUPS.index)


def test_every_module_of_checks_is_one_that_is_run() -> None:
    folder = Path(registry.__file__).parent / "checks"
    assert {path.stem for path in folder.glob("[a-z]*.py")} == set(registry.GROUPS)


@pytest.mark.parametrize("method", sorted(BUILT_IN))
def test_every_shipped_method_has_a_check(method: str) -> None:
    words = {"bc": "behaviour-cloning", "sql": "sql-values"}
    assert any(each.name.endswith("/" + words.get(method, method)) for each in CHECKS)


@pytest.mark.parametrize(
    "each",
    [each if each.name.startswith(SHORT) else pytest.param(each, marks=pytest.mark.slow) for each in CHECKS],
    ids=lambda each: each.name,
)
def test_every_check_passes(each: Check) -> None:
    """All of them; those whose programs take long to compile among the slow tests."""
    result = run_one(each)
    assert result.error is None
    assert result.measured <= each.bound


def made(name: str, measured: float, bound: float = 1.0, quick: bool = False) -> Check:
    return Check(name, "one thing against another", bound, lambda: measured, quick)


def test_a_number_above_its_bound_fails_and_nan_fails() -> None:
    assert run_one(made("a/b", 1.0)).passed
    assert not run_one(made("a/b", 1.1)).passed
    assert not run_one(made("a/b", math.nan)).passed


def test_an_exception_is_a_failed_check_with_its_sentence() -> None:
    def broken() -> float:
        raise ValueError("the first line\nanother")

    result = run_one(Check("a/b", "words", 1.0, broken))
    assert not result.passed
    assert result.error == "ValueError: the first line"
    assert result.to_json()["error"] == result.error


def test_a_signal_in_a_check_that_trains_stops_all_of_them() -> None:
    def stopped() -> float:
        raise Stopped(15, "stopped after 64 steps; everything is saved in a folder that is removed.")

    with pytest.raises(Stopped, match=r"stopped by SIGTERM\.") as found:
        run_one(Check("a/b", "words", 1.0, stopped))
    assert found.value.exit_code == 143


EVERY = (
    made("one/a", 0.0, quick=True),
    made("one/a-longer", 0.0),
    made("one/b", 0.0),
    made("two-more/a", 0.0, quick=True),
)


@pytest.mark.parametrize(
    ("names", "quick", "found"),
    [
        ((), False, "one/a one/a-longer one/b two-more/a"),
        ((), True, "one/a two-more/a"),
        (("one",), False, "one/a one/a-longer one/b"),
        (("one/",), False, "one/a one/a-longer one/b"),
        (("one/a",), False, "one/a"),
        (("two",), False, "two-more/a"),
        (("b",), False, "one/b"),
        (("a",), False, "one/a two-more/a"),
        (("two-more/a", "one/b", "two"), False, "one/b two-more/a"),
    ],
)
def test_names_choose(names: tuple[str, ...], quick: bool, found: str) -> None:
    assert " ".join(each.name for each in select(EVERY, names, quick)) == found


def test_unknown_names_get_the_nearest() -> None:
    with pytest.raises(UsageError, match="unknown check 'on/a'; did you mean one/a"):
        select(EVERY, ["on/a"])
    with pytest.raises(UsageError, match="unknown check 'o'; known"):
        select(EVERY, ["o"])
    with pytest.raises(UsageError, match="--quick leaves out one/b"):
        select(EVERY, ["one/b"], quick=True)


def test_a_name_is_taken_once() -> None:
    with pytest.raises(ValueError, match="there already"):
        check(CHECKS[0].name, "words", 1.0)(lambda: 0.0)
