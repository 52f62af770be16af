"""The lists of packages agree with the ranges of pyproject.toml."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

HERE = Path(__file__).parents[1]
PROJECT = tomllib.loads((HERE / "pyproject.toml").read_text())["project"]


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def least(requirement: str) -> tuple[str, str]:
    """Return the name and the lower bound of a requirement such as ``jax>=0.8``."""
    found = re.match(r"([A-Za-z0-9._-]+)(?:\[[^]]*\])?>=([0-9.]+)$", requirement)
    assert found, requirement
    return canonical(found[1]), found[2]


def pinned(file: str) -> dict[str, str]:
    lines = (HERE / "requirements" / file).read_text().splitlines()
    found = (re.match(r"([A-Za-z0-9._-]+)==([^ ;]+)", line) for line in lines)
    return {canonical(one[1]): one[2] for one in found if one}


def test_the_oldest_versions_are_those_that_the_project_allows() -> None:
    oldest = pinned("oldest.txt")
    for name, bound in map(least, PROJECT["dependencies"]):
        assert name in oldest, name
        assert oldest[name] == bound or re.fullmatch(re.escape(bound) + r"(\.0)*", oldest[name]), (name, bound)
    assert set(oldest) - {least(each)[0] for each in PROJECT["dependencies"]} <= {"jaxlib"}


@pytest.mark.parametrize("file", ["train.txt", "test.txt", "check.txt"])
def test_no_list_names_an_index(file: str) -> None:
    text = (HERE / "requirements" / file).read_text()
    assert "://" not in text
    assert pinned(file)
