"""Processors are claimed once, by one command of Jumar at a time."""

from __future__ import annotations

import os
import sys

import pytest

from jumar.studies import claims, processes
from jumar.studies.claims import claim
from jumar.studies.processes import Processes

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="claims are names of Linux")
FIRST = 1_000_000 + 10 * os.getpid()
NUMBERS = [FIRST + i for i in range(5)]
"""Of no machine, and of this process alone, so that nobody else claims them, not even another test at the same time."""


@pytest.fixture(autouse=True)
def _machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (claims, processes):
        monkeypatch.setattr(module, "processors", lambda: NUMBERS)


@pytest.mark.parametrize("anywhere", [False, True])
def test_processors_are_claimed_once_and_free_again(anywhere: bool) -> None:
    with claim(2, anywhere=anywhere) as first, claim(2, anywhere=anywhere) as second:
        assert len({*first.numbers, *second.numbers}) == 4
        with claim(3, anywhere=anywhere) as third:  # one is free, two are shared
            assert len(set(third.numbers)) == 3
            assert set(NUMBERS) - {*first.numbers, *second.numbers} <= set(third.numbers)
    with claim(4, anywhere=anywhere) as four, claim(1, anywhere=anywhere) as one:
        assert {*four.numbers, *one.numbers} == set(NUMBERS)
    with claim(9, anywhere=anywhere) as all_of_them:
        assert list(all_of_them.numbers) == NUMBERS


def test_two_commands_with_jobs_of_a_fixed_number_have_processors_of_their_own() -> None:
    one, other = Processes(1), Processes(1)
    a, b, c, d, e = ((number,) for number in NUMBERS)
    assert one.shares(2, even=False) == [a, b]
    assert other.shares(2, even=False) == [c, d]
    assert one.shares(2, even=False) == [a, b]  # its own are no one else's
    del other
    assert Processes(1).shares(3, even=False) == [c, d, e]
