"""The script of mutants cannot rot: what it changes is there, and what it runs exists."""

from __future__ import annotations

import pytest
from mutants import MUTANTS, Mutant

from jumar.verification.registry import checks, select


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_the_text_is_there_exactly_once_and_the_checks_exist(mutant: Mutant) -> None:
    changed = mutant.text()
    compile(changed, mutant.file, "exec")
    assert mutant.new in changed
    assert select(checks(), mutant.checks)


def test_a_text_that_is_not_there_is_said_loudly() -> None:
    with pytest.raises(SystemExit, match=r"0 times in errors\.py, not once"):
        Mutant("name", "errors.py", "no such text", "", ()).text()


def test_names_are_told_apart() -> None:
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS) >= 12
