"""Presets: sound data, chosen by name or by environment, and overruled by what the user gives."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import jumar
from jumar import presets
from jumar.algorithms.registry import ALGORITHMS
from jumar.cli import main
from jumar.errors import UsageError
from jumar.presets import Preset, Reached

EVERY = [(name, preset) for name in ALGORITHMS for preset in presets.presets(name).values()]
FOLDER = Path(presets.__file__).parent

LONG = {"Pong-v5", "Breakout-v5", "Go1JoystickFlatTerrain-v1"}
"""Of one seed, whose training takes an hour or more."""
MINATAR = tuple(f"{game}-MinAtar" for game in ("Breakout", "Asterix", "Freeway", "SpaceInvaders"))
NOT_MEASURED = {
    *(("ppo", name) for name in (*MINATAR, *LONG, "BipedalWalker-v3", "Taxi-v3")),
    *(("sac", name) for name in (*MINATAR, "LunarLanderContinuous-v3", "BipedalWalker-v3", "FrozenLake-v1")),
    ("sql", "Taxi-v3"),
}
"""Algorithms and presets whose rows of the table of returns are still to be trained."""

ONE = Preset("CartPole-v1", {"gamma": 0.9, "n_envs": 4, "n_steps": 16}, Reached(499.0, 498.0, 500.0, 5, 100_000))


@pytest.fixture
def one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presets, "_read", lambda algorithm: {ONE.name: ONE} if algorithm == "ppo" else {})


def test_every_file_is_of_an_algorithm() -> None:
    assert {path.stem for path in FOLDER.glob("*.json")} <= set(ALGORITHMS)


@pytest.mark.parametrize(("algorithm", "preset"), EVERY, ids=[f"{a}-{p.name}" for a, p in EVERY])
def test_a_preset_is_sound(algorithm: str, preset: Preset) -> None:
    settings: Any = ALGORITHMS[algorithm].settings.make(preset.settings)
    if "learning_starts" not in ALGORITHMS[algorithm].setting_names:  # nothing is left of a rollout
        assert settings.n_envs * settings.n_steps % getattr(settings, "batch_size", 1) == 0
    plain, defaults = settings.to_json(), ALGORITHMS[algorithm].settings().to_json()
    assert [name for name in preset.settings if plain[name] == defaults[name]] == [], "the default need not be said"
    if (algorithm, preset.name) in NOT_MEASURED:
        assert preset.reached is None, "strike it off the list"
        return
    assert preset.reached is not None, "benchmarks/returns.py or comparisons.py, with --presets, fills it in"
    assert preset.reached.low <= preset.reached.mean <= preset.reached.high
    assert preset.reached.seeds >= (1 if preset.name in LONG else 5)


@pytest.mark.usefixtures("one")
def test_a_preset_is_chosen_by_the_bare_id_or_by_name() -> None:
    assert presets.choose("ppo", "CartPole-v1", None) is ONE
    assert presets.choose("ppo", "CartPole-v0", None) is None
    assert presets.choose("ppo", "CartPole-v0", "CartPole-v1") is ONE
    assert presets.choose("ppo", "CartPole-v1", "none") is None
    with pytest.raises(UsageError, match="unknown preset of ppo 'CartPol-v1'; did you mean CartPole-v1"):
        presets.choose("ppo", "CartPole-v1", "CartPol-v1")


GAME = Preset("Pong-v5", {"n_envs": 4}, None, atari=True)
GRID = Preset("MiniGrid-Empty-5x5-v0", {"features_extractor": "flatten"}, Reached(0.9, 0.9, 0.9, 1, 100))


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presets, "_read", lambda algorithm: {GAME.name: GAME, GRID.name: GRID})


@pytest.mark.usefixtures("two")
def test_a_preset_of_a_prepared_game_is_for_it_alone_and_has_its_name_in_both_backends() -> None:
    assert presets.choose("ppo", "Pong-v5", None, atari=True) is GAME
    assert presets.choose("ppo", "ALE/Pong-v5", None, atari=True) is GAME
    assert presets.choose("ppo", "phys2d/Pong-v5", None, atari=True) is None
    assert presets.choose("ppo", "Pong-v5", None) is None
    assert presets.choose("ppo", "Breakout-v5", "Pong-v5", atari=True) is GAME
    assert jumar.PPO("envpool/Pong-v5", atari=True).settings.n_envs == 4
    assert str(GAME) == "Pong-v5, with --atari, not measured"
    assert GAME.to_json()["atari"] is True


@pytest.mark.usefixtures("two")
def test_a_preset_that_says_how_observations_are_seen_is_for_those_that_no_wrapper_changed() -> None:
    assert presets.choose("ppo", GRID.name, None) is GRID
    assert presets.choose("ppo", GRID.name, None, wrapped=True) is None
    assert presets.choose("ppo", GRID.name, GRID.name, wrapped=True) is GRID
    assert str(GRID) == "MiniGrid-Empty-5x5-v0, reached 0.9 in 100 steps (1 seed)", "a single seed has no interval"


def test_an_algorithm_without_a_file_has_no_presets() -> None:
    assert presets.presets("none-such") == {}


@pytest.mark.usefixtures("one")
@pytest.mark.parametrize("env", ["jax/CartPole-v1", "gymnasium/CartPole-v1"])
def test_an_agent_starts_from_the_preset_and_what_is_given_comes_first(env: str) -> None:
    assert jumar.PPO(env).settings.gamma == 0.9
    given = jumar.PPO(env, gamma=0.5).settings
    assert (given.gamma, given.n_steps) == (0.5, 16)
    assert jumar.PPO(env, preset="none").settings.gamma == 0.99
    assert jumar.PPO("jax/Pendulum-v1", preset="CartPole-v1").settings.n_envs == 4


@pytest.mark.usefixtures("one")
def test_the_command_line_names_the_preset_and_what_it_reached(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", "ppo", "jax/CartPole-v1", "--total-timesteps", "64", "--eval-every", "0", "--json"]
    assert main([*words, "--run-dir", str(tmp_path / "a"), "--n-steps", "32"]) == 0
    said = capsys.readouterr()
    assert "preset: CartPole-v1, reached 499.0 [498.0, 500.0] in 100,000 steps (5 seeds)" in said.err
    assert json.loads(said.out)["preset"] == "CartPole-v1"
    config = json.loads((tmp_path / "a" / "config.json").read_text())
    assert config["preset"] == "CartPole-v1"
    assert (config["settings"]["gamma"], config["settings"]["n_steps"]) == (0.9, 32)
    assert main([*words, "--run-dir", str(tmp_path / "b"), "--preset", "none", "--n-envs", "2", "--n-steps", "32"]) == 0
    assert json.loads(capsys.readouterr().out)["preset"] is None


@pytest.mark.usefixtures("one")
def test_presets_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "presets"]) == 0
    assert capsys.readouterr().out.startswith("CartPole-v1  ppo, reached 499.0 [498.0, 500.0] in 100,000 steps")
    assert main(["list", "presets", "--json"]) == 0
    (entry,) = json.loads(capsys.readouterr().out)["presets"]
    assert entry == {"algorithm": "ppo", **ONE.to_json()}
