"""What a plan settles by looking: how many worker processes an environment is worth."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from types import SimpleNamespace

import pytest

from jumar.envs.registry import resolve
from jumar.training import planning
from jumar.training.progress import Reporter, Silent


@pytest.fixture
def reporter() -> Reporter:
    return Silent(io.StringIO())


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch, reporter: Reporter) -> Callable[..., int]:
    """Return a function from the times that steps take to the number of workers chosen for four environments."""

    def workers(times: Sequence[float], env: str = "gymnasium/CartPole-v1", cores: int = 2, n_envs: int = 4) -> int:
        ticks = iter([tick for took in times for tick in (0.0, took)])
        monkeypatch.setattr(planning, "time", SimpleNamespace(perf_counter=lambda: next(ticks)))
        monkeypatch.setattr(planning, "count_processors", lambda: cores)
        return planning.choose_workers(resolve(env), n_envs, reporter)

    return workers


FAST, SLOW = 100e-6, 400e-6


def test_workers_are_for_steps_that_are_slow(measured: Callable[..., int]) -> None:
    assert measured([FAST] * 20) == 0
    assert measured([SLOW] * 20) == 2
    assert measured([SLOW] * 20, cores=16) == 4
    assert measured([SLOW] * 20, n_envs=1) == measured([SLOW] * 20, cores=1) == 0


def test_what_else_runs_on_the_machine_brings_no_workers(measured: Callable[..., int]) -> None:
    """A step is as slow as the quarter that was disturbed least."""
    assert measured([SLOW] * 14 + [FAST] * 6) == 0
    assert measured([SLOW] * 16 + [FAST] * 4) == 2


def test_only_environments_of_gymnasium_have_workers(measured: Callable[..., int]) -> None:
    assert measured([], "jax/CartPole-v1") == measured([], "envpool/CartPole-v1") == 0
