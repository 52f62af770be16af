"""How the environments of a comparison are made: as its command says, in every run, and told apart from others."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jumar.algorithms.registry import ALGORITHMS
from jumar.cli import main
from jumar.cli.compare import request_from as compare_request
from jumar.cli.grammar import build
from jumar.cli.train import request_from as train_request
from jumar.console.reporter import Silent
from jumar.errors import UsageError
from jumar.runs.run_directory import RunDirectory
from jumar.studies import cells
from jumar.studies.cells import Job, cells_of, told
from jumar.studies.compare_request import CompareRequest
from jumar.studies.making import repeated_words
from jumar.studies.methods import read_methods
from jumar.training.keeper import write_configs
from jumar.training.plan import Plan
from jumar.training.resolve import make_plan, typed_code

ENCODERS = """
import jax.numpy as jnp
Plain = (lambda key: {}, lambda parameters, seen: jnp.concatenate(list(seen.values()), -1))
Other = Plain
"""


@pytest.fixture
def nets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "encoders_of_mine.py").write_text(ENCODERS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "encoders_of_mine", raising=False)


def plan_of(words: list[str]) -> Plan:
    """Return the plan of a ``train`` command."""
    assert words[0] == "train"
    wishes = train_request(build(ALGORITHMS, words[-2])[1]["train"].read(words[1:]), ALGORITHMS)
    return make_plan(replace(wishes, workers=0), Silent(sys.stderr), own=typed_code(wishes.encoder))


def asked(*words: str) -> CompareRequest:
    return compare_request(build(ALGORITHMS)[1]["compare"].read([*words, "--total-timesteps", "1000"]))


@pytest.mark.parametrize(
    "making",
    [
        {"env_kwargs": {"sutton_barto_reward": True, "render_mode": None}, "frame_stack": 3},
        {
            "env_kwargs": {"max_episode_steps": 70},
            "wrappers": (("TimeAwareObservation", (("normalize_time", False),)),),
        },
        {"wrappers": (("TimeLimit", (("max_episode_steps", 50),)),), "encoder": "encoders_of_mine:Plain"},
    ],
)
@pytest.mark.usefixtures("nets")
def test_every_run_has_the_environment_that_the_comparison_was_asked_for(making: dict[str, Any]) -> None:
    request = CompareRequest(methods=read_methods("ppo,a2c"), envs=("gymnasium/CartPole-v1",), **making)
    found = cells_of(request)
    assert len(found) == 2
    for cell in found:
        plan = plan_of(Job(cell, (0,)).command(request))
        assert plan.environment == cell.plan.environment
        assert told(plan) == told(cell.plan)
        assert plan.own_names.encoder == making.get("encoder")


@pytest.mark.parametrize("value", ["true", "none", "7", "a,b=c", 'a "word"', [1, None, "x"], 1e-05, -3, False])
def test_arguments_arrive_as_what_they_are(value: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cells, "check_made", lambda request, plan: None)
    request = CompareRequest(methods=read_methods("ppo"), envs=("gymnasium/CartPole-v1",), env_kwargs={"any": value})
    [cell] = cells_of(request)
    environment = plan_of(Job(cell, (0,)).command(request)).environment
    assert environment is not None
    assert dict(environment.kwargs) == {"any": value}
    assert type(environment.kwargs["any"]) is type(value)


def test_games_are_prepared_and_start_from_their_presets() -> None:
    request = asked("--algorithms", "ppo,a2c", "--envs", "envpool/Pong-v5", "--atari")
    first, second = cells_of(request)
    assert (first.plan.preset, second.plan.preset) == ("Pong-v5", None)
    assert first.task == "envpool/Pong-v5 (atari)"
    plan = plan_of(Job(first, (0,)).command(request))
    assert plan.environment is not None
    assert plan.environment.atari
    assert plan.preset == "Pong-v5"


@pytest.mark.usefixtures("nets")
def test_methods_may_have_encoders_of_their_own() -> None:
    methods = "ppo:encoder=encoders_of_mine:Other,ppo,ppo:encoder=none"
    request = asked("--algorithms", methods, "--envs", "jax/CartPole-v1", "--encoder", "encoders_of_mine:Plain")
    commands = [Job(cell, (0,)).command(request) for cell in cells_of(request)]
    assert [plan_of(words).own_names.encoder for words in commands] == [
        "encoders_of_mine:Other",
        "encoders_of_mine:Plain",
        None,
    ]
    with pytest.raises(UsageError, match="ppo and ppo:encoder=none are told the same everywhere"):
        cells_of(replace(request, encoder=None, methods=read_methods("ppo,ppo:encoder=none")))


@pytest.mark.usefixtures("nets")
def test_what_is_code_of_the_users_own_is_repeated_where_a_run_goes_on(tmp_path: Path) -> None:
    request = asked(
        *("--algorithms", "ppo", "--envs", "gymnasium:CartPole-v1", "--encoder", "encoders_of_mine:Plain", "--wrapper"),
        *("gymnasium.wrappers:TimeLimit:max_episode_steps=9", "--wrapper", "TimeAwareObservation"),
    )
    [cell] = cells_of(request)
    own = ["--env=gymnasium:CartPole-v1", "--wrapper=gymnasium.wrappers:TimeLimit", "--encoder=encoders_of_mine:Plain"]
    assert repeated_words(cell.plan, cell.env) == own
    job = Job(cell.within(tmp_path), (0,))
    run = RunDirectory.create(job.run.path, "ppo", cell.env, 0)
    write_configs(run, cell.plan)
    assert job.command(request) == ["resume", *own, "--quiet", "--json", "--", str(run)]
    [other] = cells_of(replace(request, encoder="encoders_of_mine:Other"))
    with pytest.raises(
        UsageError, match="was trained with encoder=encoders_of_mine:Plain, not encoders_of_mine:Other; give another"
    ):
        other.within(tmp_path).check_runs([0])
    [longer] = cells_of(replace(request, env_kwargs={"sutton_barto_reward": True}))
    assert longer.folder != cell.folder


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["jax/CartPole-v1", "--atari"], "ppo on jax/CartPole-v1: jax/CartPole-v1 is not an Atari game"),
        (["envpool/CartPole-v1", "--frame-stack", "4"], "a frame stack is not EnvPool's"),
        (["gymnasium/ALE/Pong-v5", "--atari", "--frame-stack", "4"], "leave --frame-stack 4 out"),
        (["jax/CartPole-v1", "--env-kwargs", "mass"], "--env-kwargs needs one or more values such as key=value"),
        (["jax/CartPole-v1", "--env-kwargs", "massses=1"], "massses"),
        (["gymnasium/CartPole-v1", "--env-kwargs", "massses=1"], "massses"),
        (["gymnasium/CartPole-v1", "--wrapper", "TimeLimit:steps=1"], "steps"),
        (["gymnasium/CartPole-v1", "--wrapper", "TimeLimi"], "did you mean TimeLimit"),
        (["jax/CartPole-v1", "--encoder", "Mine"], "--encoder Mine must be written as module:Name"),
        (["jax/CartPole-v1", "--encoder", "no_such_module_:Mine"], "no_such_module_"),
    ],
)
def test_mistakes_are_refused_before_anything_is_made(
    words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", "--algorithms", "ppo", "--envs", *words, "--out", str(tmp_path / "c")]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "c").exists()
