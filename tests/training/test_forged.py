"""Forged files with a right digest: the digest is no secret, so every value is checked, and files must belong together."""

from __future__ import annotations

import math
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from test_commands import refused

import jumar
from jumar.drills.fuzzing.mutations import LEFT_OUT, changed, forged, places
from jumar.errors import DamagedFile, JumarError, UsageError
from jumar.runs.files import plain, read_json
from jumar.runs.run_directory import RunDirectory
from jumar.training.plan import MOST_STEPS, Plan
from jumar.training.restore import newest_checkpoint, read_policy

KINDS_OF_SETTINGS = ("net_arch", "activation", "recurrent", "ortho_init", "gamma", "n_envs", "learning_rate")
STRANGE = (None, -1, 10**300, math.inf, "\x1b[2J" + 2000 * "x", [[]], LEFT_OUT)
"""What takes the place of each value in turn."""


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory that nobody may change, with a policy, a checkpoint and a configuration."""
    folder = tmp_path_factory.mktemp("saved") / "run"
    jumar.PPO("jax/CartPole-v1", n_envs=2, n_steps=8, batch_size=8, net_arch=(4,)).save(folder)
    return folder


def forge(path: Path, what: str, data: dict[str, Any]) -> None:
    """Write some data with a right digest; there is no more to it than this."""
    path.write_bytes(forged(what, plain(data, str)))


def newest(run: Path) -> None:
    opened = RunDirectory.open(run)
    newest_checkpoint(opened, Plan.from_json(opened.read_config(), opened.config))


def read_config(run: Path) -> None:
    newest(run)
    opened = RunDirectory(run)
    Plan.differences_in_versions(opened.read_config(), opened.config)


READERS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "config.json": ("run configuration", read_config),
    "checkpoints/000000000000/checkpoint.json": ("checkpoint", newest),
    "policy.json": ("policy", read_policy),
}


@pytest.mark.parametrize("name", READERS)
def test_no_forged_value_is_a_bug_in_jumar(name: str, saved: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(saved, run)
    what, read = READERS[name]
    data = read_json(run / name, what)
    for place in places(data):
        if place[-2:-1] in (("settings",), ("policy",)) and place[-1] not in KINDS_OF_SETTINGS:
            continue  # one of each kind is enough
        for value in STRANGE:
            forge(run / name, what, changed(data, place, value))
            try:
                read(run)
            except JumarError as error:
                said = str(error)
                assert len(said) < 1000, place
                assert said.isprintable(), place
                assert Path(name).stem in said, (place, value)
    forge(run / name, what, data)
    read(run)


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        (("seed",), -1, "the entry seed is -1, but must be a whole number from 0 to 2147483646"),
        (("seed",), 10**30, "the entry seed is 10000.*, but must be a whole number"),
        (("seed",), 1, "the entry record.run is that of another run than config.json describes: seed=0, not 1"),
        (("total_timesteps",), 10**300, f"the entry total_timesteps is 1000.*, but must be a whole .* to {MOST_STEPS}"),
        (("total_timesteps",), "64", "the entry total_timesteps is '64', but must be"),
        (("algorithm",), "Sac 2", "the entry algorithm is not right: unknown algorithm 'Sac 2'"),
        (("algorithm",), "a2c", "the entry settings is not right: .* is not a setting of a2c"),
        (("settings", "gamma"), 0.5, "gamma=0.98, not 0.5"),
        (("settings", "gamma"), 1.5, "the entry settings is not right: gamma=1.5 is out of range"),
        (
            ("settings", "net_arch"),
            [1] * 101,
            "the entry settings is not right: net_arch has 101 numbers",
        ),
        (
            ("environment", "frame_stack"),
            10**9,
            "the entry environment.frame_stack is 1000000000, but must be a whole n",
        ),
        (("environment", "frame_stack"), 4, "is that of another run than config.json describes: environment="),
        (("environment", "name"), "Pendulum-v1", "is that of another run than config.json describes: environment="),
        (("environment_name",), "x", "environment_name='CartPole-v1', not 'x'"),
        (("n_seeds",), 2, "n_seeds=None, not 2"),
        (("cost",), 3, "the entry cost is 3, but must be a short text"),
        (("versions",), [], r"the entry versions is \[\], but must be an object"),
        (
            ("eval_episodes",),
            10**7,
            "the entry eval_episodes is 10000000, but must be a whole number from 1 to 1000000",
        ),
    ],
)
def test_a_configuration_is_refused(place: tuple[str, ...], value: Any, said: str, saved: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(saved, run)
    forge(
        run / "config.json",
        "run configuration",
        changed(read_json(run / "config.json", "run configuration"), place, value),
    )
    code, error = refused("resume", run)
    assert code == 1
    assert re.search(said, error), error


def test_a_method_that_this_process_has_not_made_is_no_damage(saved: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(saved, run)
    config = read_json(run / "config.json", "run configuration")
    forge(run / "config.json", "run configuration", changed(config, ("algorithm",), "mean-td3"))
    code, error = refused("resume", run)
    assert code == 2
    assert f"{run / 'config.json'} is of the method 'mean-td3', which this process does not know." in error
    assert "jumar.load" in error
    with pytest.raises(UsageError, match=r"make it with jumar\.method"):
        jumar.load(run)


def test_a_checkpoint_of_a_method_that_is_not_the_run_s_is_damaged(saved: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(saved, run)
    path = run / "checkpoints" / "000000000000" / "checkpoint.json"
    forge(path, "checkpoint", changed(read_json(path, "checkpoint"), ("record", "run", "algorithm"), "mean-td3"))
    with pytest.raises(DamagedFile, match=r"record\.run\.algorithm is not right: unknown algorithm 'mean-td3'"):
        newest(run)


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        (("step",), -1, "the entry step is -1, but must be a whole number from 0 to 999999999999"),
        (("arrays",), LEFT_OUT, "the entry arrays is missing"),
        (("record",), {}, "the entry record.run is missing"),
        (("record",), {"step_was": 3}, "the entry record.run is missing"),
        (("record", "steps"), -64, "the entry record.steps is -64, but must be 0"),
        (("record", "steps"), 64, "the entry record.steps is 64, but must be 0"),
        (("record", "iterations"), 2**32, "the entry record.iterations is 4294967296, but must be"),
        (("record", "elapsed"), "long", "the entry record.elapsed is 'long', but must be a number from 0 to"),
        (("record", "best"), [], r"the entry record.best is \[\], but must be a list of 1"),
        (("record", "best"), ["x"], "the entry record.best.0 is 'x', but must be a number"),
        (
            ("record", "logs"),
            [{"metrics.jsonl": 3, "evaluations.jsonl": 3}],
            "the entry record.logs.0.metrics.jsonl is 3, but must be an object",
        ),
        (("record", "run", "seed"), 1, "seed=1, not 0"),
        (
            ("record", "spaces", 1, "n"),
            10**12,
            "the entry record.spaces.1 does not describe a Discrete space: it has more",
        ),
    ],
)
def test_a_checkpoint_is_refused(place: tuple[str, ...], value: Any, said: str, saved: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(saved, run)
    path = run / "checkpoints" / "000000000000" / "checkpoint.json"
    forge(path, "checkpoint", changed(read_json(path, "checkpoint"), place, value))
    for use in (lambda: jumar.load(run), lambda: newest(run)):
        with pytest.raises(DamagedFile, match=f"no checkpoint is sound. {path} is damaged: .*{said}"):
            use()


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        (("step",), -1, "the entry step is -1, but must be a whole number from 0 to 999999999999"),
        (("policy", "net_arch"), [10**9], r"in .*policy.safetensors is float32\[4, 2\]; float32\[1000000000, 2\]"),
        (("policy", "activation"), 3, "the entry policy is not right: activation=3 is not one of"),
        (("observation_space",), None, "the entry observation_space does not describe a space: None"),
        (("action_space", "n"), 10**10, "the entry action_space does not describe a Discrete space: it has more than"),
        (("action_space",), {"type": "Dict", "spaces": []}, "does not describe a policy of this version of Jumar: "),
    ],
)
def test_a_policy_is_refused(place: tuple[str, ...], value: Any, said: str, saved: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(saved, run)
    forge(run / "policy.json", "policy", changed(read_json(run / "policy.json", "policy"), place, value))
    with pytest.raises(DamagedFile, match=said):
        jumar.load_policy(run)


def test_a_run_goes_on_in_the_environment_that_was_typed_otherwise(saved: Path, tmp_path: Path) -> None:
    agent = jumar.load(saved, env="jax/CartPole-v1")
    agent.save(tmp_path / "again")
    assert jumar.load(tmp_path / "again").num_timesteps == 0
