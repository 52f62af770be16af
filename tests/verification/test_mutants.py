"""The script of mutants cannot rot: what it changes is there, and what it runs exists."""

from __future__ import annotations

import subprocess
import sys

import mutants
import pytest
from mutants import MUTANTS, SOURCE, Mutant

from jumar.verification.registry import checks, select


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_the_text_is_there_exactly_once_and_the_checks_exist(mutant: Mutant) -> None:
    changed = mutant.text()
    compile(changed, mutant.file, "exec")
    assert changed != (SOURCE / mutant.file).read_text(encoding="utf-8")
    assert select(checks(), mutant.checks)


def test_a_text_that_is_not_there_is_said_loudly() -> None:
    with pytest.raises(SystemExit, match=r"0 times in errors\.py, not once"):
        Mutant("name", "errors.py", "no such text", "", ()).text()


def test_names_are_told_apart() -> None:
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS) >= 12


@pytest.mark.slow
def test_some_mutants_are_caught() -> None:
    """Those of a sign, of a discount and of a target network; `make mutants` runs all."""
    names = ["KL(new || old)", "no gamma in GAE", "target networks"]
    done = subprocess.run([sys.executable, mutants.__file__, *names], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 of 3 mutants were caught" in done.stdout
