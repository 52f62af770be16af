"""Configuration files: a plan written as one is the same plan again, and a preset of one's own is such a file."""

from __future__ import annotations

import dataclasses
import io
import tomllib
from pathlib import Path
from typing import Any

import pytest
from test_resume import SMALL, digest, jumar

import jumar as jumar_library
from jumar import presets
from jumar.algorithms.registry import ALGORITHMS, algorithm
from jumar.console.reporter import Silent
from jumar.envs.registry import EnvironmentId, Settings, parse_assignments, parse_wrapper
from jumar.errors import DamagedFile, UsageError
from jumar.policies.own_code import OwnNames
from jumar.runs.run_directory import RunDirectory
from jumar.training import config_file
from jumar.training.config_file import (
    Config,
    choose_preset,
    config_text,
    read_config,
    read_run,
    text_of_run,
    values_of,
    write_config,
)
from jumar.training.keeper import write_configs
from jumar.training.plan import DataOrigin, Origin, Plan
from jumar.training.request import TrainRequest
from jumar.training.resolve import make_plan

SHORT = {"total_timesteps": 1000, "workers": 0, "checkpoint_every": 500}


def said(text: str) -> str:
    """A comment without its line breaks."""
    return " ".join(text.replace("#", " ").split())


def planned(method: str, env: str, **wishes: Any) -> Plan:
    return make_plan(TrainRequest(algorithm=method, env=env, **{**SHORT, **wishes}), Silent(io.StringIO()))


@pytest.mark.parametrize("method", [name for name in ALGORITHMS if name != "bc"])
def test_every_setting_of_every_method_is_read_back_as_it_was(method: str) -> None:
    chosen = algorithm(method)
    settings = chosen.make_settings({})
    values = tomllib.loads(config_text({key: config_file.writable(x) for key, x in settings.to_json().items()}))
    assert Config("x.toml", values).settings(chosen) == {
        field.name: getattr(settings, field.name) for field in dataclasses.fields(settings)
    }


AROUND = (("TimeLimit", (("max_episode_steps", 99),)), ("FilterObservation", (("filter_keys", ["a=b, c=d"]),)))


def test_a_plan_comes_back_through_a_file() -> None:
    plan = planned(
        "ppo", "gymnasium/CartPole-v1", seed=7, stop_at_return=-2.5, stop_without_gain=3, log_info=("a", "b")
    )
    assert plan.environment is not None
    odd = Settings({"text": "true", "none": None, "list": [1, [2.5, "x=1"]], "half": 1e-5, "no": False})
    environment = dataclasses.replace(plan.environment, kwargs=odd, wrappers=AROUND, frame_stack=3, atari=True)
    values = tomllib.loads(config_text(values_of(dataclasses.replace(plan, environment=environment))))
    assert (values["env"], values["preset"], values["seed"]) == ("gymnasium/CartPole-v1", "none", 7)
    assert (values["frame_stack"], values["atari"], values["log_info"]) == (3, True, ["a", "b"])
    assert (values["stop_at_return"], values["stop_without_gain"]) == (-2.5, 3)
    assert parse_assignments(values["env_kwargs"]) == dict(odd)
    assert [parse_wrapper(text) for text in values["wrapper"]] == [(name, dict(around)) for name, around in AROUND]
    plain = dataclasses.replace(environment, kwargs=Settings({"gravity": 9.5, "wind": True}), wrappers=())
    values = tomllib.loads(config_text(values_of(dataclasses.replace(plan, environment=plain))))
    assert values["env_kwargs"] == {"gravity": 9.5, "wind": True}
    assert "wrapper" not in values


def test_the_preset_of_a_run_is_among_its_settings() -> None:
    plan = planned("ppo", "jax/CartPole-v1")
    assert plan.preset == "CartPole-v1"
    values = values_of(plan)
    settings = {key: value for key, value in values.items() if key not in config_file.OPTIONS}
    again = planned("ppo", values["env"], preset=values["preset"], n_envs=values["n_envs"], settings=settings)
    assert again.settings == plan.settings
    assert again.identity == plan.identity


def test_what_only_python_can_give_has_no_file(tmp_path: Path) -> None:
    plan, run = planned("ppo", "jax/CartPole-v1"), RunDirectory(tmp_path / "run")
    assert "jumar train --config" in str(text_of_run(run, plan, "run"))
    for own in (OwnNames("features", None), OwnNames(None, "a pair of functions")):
        assert text_of_run(run, dataclasses.replace(plan, own_names=own), "run") is None
    assert text_of_run(run, dataclasses.replace(plan, environment=None), "run") is None


def test_the_first_lines_say_how_to_train_a_run_again(tmp_path: Path) -> None:
    plan, run = planned("ppo", "jax/CartPole-v1"), RunDirectory(tmp_path / "a run")
    own = EnvironmentId("mine:Hill-v0", "gymnasium", "Hill-v0", "mine", wrappers=(("mine:Grey", ()),))
    plan = dataclasses.replace(
        plan,
        environment=own,
        own_names=OwnNames(None, "mine:Net"),
        init_from=Origin("old run", "0" * 64),
        data=DataOrigin("d", "0" * 64, False),
    )
    text = str(text_of_run(run, plan, "run"))
    assert (
        f"jumar train ppo mine:Hill-v0 --config '{tmp_path}/a run/config.toml' --wrapper mine:Grey --encoder mine:Net "
        "--init-from 'old run' --prefill d\n"
    ) in text
    assert "bit for bit" in said(text)
    longer = str(text_of_run(run, plan, "run", dataclasses.replace(plan, total_timesteps=1)))
    assert "need not give the same policy" in said(longer)
    assert "bit for bit" not in said(str(text_of_run(run, plan, "seed")))
    assert "bit for bit" not in said(str(text_of_run(run, plan, from_python=True)))
    # A path that UTF-8 cannot hold is no reason to fail.
    assert text_of_run(run, dataclasses.replace(plan, init_from=Origin("\udcff", "0" * 64)), "run") is None


def test_a_preset_may_be_a_file() -> None:
    chosen = algorithm("ppo")
    Path("tuned.toml").write_text('algorithm = "ppo"\nenv = "Elsewhere-v0"\nseed = 9\ngamma = 0.5\nn_envs = 3\n')
    preset = choose_preset(chosen, "CartPole-v1", "tuned.toml")
    assert preset == presets.Preset("tuned.toml", {"gamma": 0.5, "n_envs": 3}, None, own=True)
    assert str(preset) == "tuned.toml, your file"
    assert choose_preset(chosen, "CartPole-v1", Path("tuned.toml")) == preset
    plan = planned("ppo", "jax/CartPole-v1", preset="tuned.toml", settings={"n_epochs": 2})
    assert (plan.settings.gamma, plan.settings.n_envs, plan.seed, plan.preset) == (0.5, 3, 0, "tuned.toml")
    with pytest.raises(UsageError, match=r"there is no configuration file tunde.toml; did you mean tuned.toml"):
        jumar_library.PPO("jax/CartPole-v1", preset="tunde.toml")
    Path("tuned.toml").write_text('preset = "CartPole-v1"\ngamma = 0.5\n')
    based = choose_preset(chosen, "", "tuned.toml")
    assert based is not None
    assert based.settings == {**presets.presets("ppo")["CartPole-v1"].settings, "gamma": 0.5}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('algorithm = "sac"', "tuned.toml, line 1: this preset is for sac, not ppo"),
        ("\nclip_coef = 0.1", "tuned.toml, line 2: unknown key 'clip_coef'; did you mean clip_range"),
        ("gamma = 2", "tuned.toml, line 1: gamma=2 is out of range"),
        ('preset = "other.toml"', "tuned.toml, line 1: a preset in a file names one of Jumar's or none"),
        ('preset = "CratPole-v1"', "tuned.toml, line 1: unknown preset of ppo 'CratPole-v1'; did you mean CartPole-v1"),
    ],
)
def test_a_preset_file_that_is_wrong_is_refused(text: str, message: str) -> None:
    Path("tuned.toml").write_text(text)
    with pytest.raises(UsageError, match=message):
        choose_preset(algorithm("ppo"), "CartPole-v1", "tuned.toml")


def test_a_file_that_is_written_is_read_back() -> None:
    settings = {"learning_rate": "linear:3e-4", "net_arch": (8, 8), "target_kl": None, "use_sde": False}
    write_config("t.toml", "ppo", "CartPole-v1", settings, options={"total_timesteps": 10}, head=["two\nlines"])
    config = read_config("t.toml")
    assert Path("t.toml").read_text().startswith("# two lines\n\nalgorithm")
    assert config.values["total_timesteps"] == 10
    found = config.settings(algorithm("ppo"))
    assert (str(found["learning_rate"]), found["net_arch"], found["target_kl"]) == ("linear:0.0003", (8, 8), None)
    for name, values, message in (
        ("ppo", {"gama": 1}, "t.toml: unknown key 'gama'; did you mean gamma"),
        ("ppo", {"gamma": 7}, "t.toml: gamma=7 is out of range"),
        ("pop", {}, "unknown algorithm 'pop'"),
    ):
        with pytest.raises(UsageError, match=message):
            write_config("t.toml", name, None, values)
    assert read_config("t.toml") == config


def test_half_of_a_surrogate_pair_is_refused_in_words() -> None:
    with pytest.raises(
        UsageError, match="wrapper has half of a surrogate pair, a character that no text file can hold"
    ):
        config_text({"wrapper": ["A:name=\ud800"]})


def test_a_run_that_cannot_be_repeated_is_refused(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "run")
    run.path.mkdir()
    plan = planned("ppo", "jax/CartPole-v1")
    run.write_config({"kind": "run", **plan.to_json()})
    assert read_run(run.path).values == values_of(plan)
    run.write_config({"kind": "run", **dataclasses.replace(plan, own_names=OwnNames("mine", None)).to_json()})
    with pytest.raises(UsageError, match=r"linear in features of your own .mine., which only Python can give"):
        read_run(run.path)
    run.config.write_text("{}")
    with pytest.raises(DamagedFile):
        read_run(run.path)
    with pytest.raises(UsageError, match=r"is a run, not a configuration file; --like .*run takes"):
        read_config(run.path)
    with pytest.raises(UsageError, match="is a file, not a run; --config"):
        read_run(run.config)


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ["ppo", "jax/CartPole-v1", "--batch-size", "32", "--n-epochs", "1", *SMALL],
        ["ddpg", "gymnasium/Pendulum-v1", "--workers", "0", "--batch-size", "8", "--net-arch", "8"],
        ["ppo", "jax/CartPole-v1", "--n-seeds", "2", "--batch-size", "32", "--n-epochs", "1", *SMALL],
    ],
    ids=["compiled", "off-policy", "seeds"],
)
def test_a_run_from_its_own_file_or_like_it_is_the_same_bit_for_bit(words: list[str], tmp_path: Path) -> None:
    first, again, like = tmp_path / "first", tmp_path / "again", tmp_path / "like"
    steps = ["--total-timesteps", "256", "--eval-every", "128", "--eval-episodes", "1", "--seed", "3"]
    jumar("train", *words, *steps, "--run-dir", first)
    jumar("train", "--config", first / "config.toml", "--run-dir", again)
    jumar("train", "--like", first, "--run-dir", like)
    for part in ("seed_3", "seed_4") if "--n-seeds" in words else (".",):
        assert digest(first / part) == digest(again / part) == digest(like / part)
    assert read_config(again / "config.toml").values == read_config(first / "config.toml").values


def test_a_new_total_is_said_in_the_file_and_the_same_one_changes_nothing(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "run", "ppo", "CartPole-v1", 0)
    plan = planned("ppo", "jax/CartPole-v1", n_seeds=2)
    write_configs(run, plan)
    first = (run.path / "config.toml").read_text()
    assert "bit for bit" in said(first)
    assert tomllib.loads((run.seed(1).path / "config.toml").read_text())["seed"] == 1
    write_configs(run, plan, before=plan)
    assert (run.path / "config.toml").read_text() == first
    write_configs(run, plan.with_total(5000), before=plan)
    text = (run.path / "config.toml").read_text()
    assert "bit for bit" not in said(text)
    assert tomllib.loads(text)["total_timesteps"] == 5000
    assert run.read_config()["total_timesteps"] == 5000
    saved = RunDirectory.create(tmp_path / "saved", "ppo", "CartPole-v1", 0)
    write_configs(saved, plan, "agent")
    assert not (saved.path / "config.toml").exists()


def test_a_link_in_the_place_of_the_file_is_refused_and_not_written_through(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "run", "ppo", "CartPole-v1", 0)
    plan = planned("ppo", "jax/CartPole-v1")
    (tmp_path / "mine").write_text("mine")
    (run.path / "config.toml").symlink_to(tmp_path / "mine")
    run.write_config({"kind": "run", **plan.to_json()})
    with pytest.raises(DamagedFile, match=r"config.toml is a link"):
        RunDirectory.open(run.path)
    write_configs(run, plan)
    assert (tmp_path / "mine").read_text() == "mine"
