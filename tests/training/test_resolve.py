"""What a plan settles: how many worker processes an environment is worth, and what the user must type again."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from jumar.algorithms.registry import algorithm
from jumar.console.reporter import Reporter, Silent
from jumar.envs.registry import EnvironmentId, resolve
from jumar.errors import UsageError
from jumar.training import resolve as planning
from jumar.training.plan import Plan


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


OWN = "test_resolve:Same"
SAVED = [("TimeLimit", {"max_episode_steps": 9}), (OWN, {"factor": 3})]


def Same(env: Any, factor: int = 1) -> Any:
    return env


def read_back(module: str | None = None) -> Plan:
    """Return the plan of a run in CartPole with :data:`SAVED` as it is read from its file."""
    data = resolve("gymnasium/CartPole-v1", wrappers=SAVED).to_json()
    return Plan(
        algorithm="ppo",
        settings=algorithm("ppo").make_settings({}),
        environment=EnvironmentId.from_json(data | {"module": module}),
        environment_name="CartPole-v1",
        seed=0,
        total_timesteps=1,
        eval_every=0,
        eval_episodes=1,
        checkpoint_every=0,
        n_seeds=None,
        workers=0,
    )


@pytest.mark.parametrize("typed", [[OWN], [f"{OWN}:factor=3"], [(OWN, {}), "TimeLimit"]])
@pytest.mark.parametrize("env", [None, "gymnasium/CartPole-v1"])
def test_a_wrapper_of_the_user_s_own_is_typed_again_and_keeps_its_settings(env: str | None, typed: list[Any]) -> None:
    plan = read_back()
    assert plan.repeat_wrappers == [OWN]
    again = planning.with_environment(plan, env, typed).environment
    assert again == plan.environment
    assert again is not None
    assert again.typed


@pytest.mark.parametrize(
    ("module", "env", "typed", "said"),
    [
        (None, None, [], f"nothing named by a file is imported; repeat --wrapper {OWN} to allow it"),
        (None, "gymnasium/CartPole-v1", [], f"nothing named by a file is imported; repeat --wrapper {OWN} to allow it"),
        ("gymnasium", "gymnasium:CartPole-v1", [], f"repeat --env gymnasium:CartPole-v1 --wrapper {OWN} to allow it"),
        (None, "CartPloe-v1", [OWN], r"did you mean .* This run's environment is gymnasium/CartPole-v1\."),
        (None, None, ["other:Same"], f"other:Same is not a wrapper of this run, which has TimeLimit, {OWN}"),
        (None, None, [f"{OWN}:factor=4"], "has other settings than in this run, which has factor=3; leave them out"),
    ],
)
def test_other_wrappers_than_those_of_the_run_are_refused(
    module: str | None, env: str | None, typed: list[Any], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        planning.with_environment(read_back(module), env, typed)
