"""Atari games as they are usually prepared: by Jumar around ale-py's, by EnvPool, and what is refused."""

from __future__ import annotations

import importlib.util
import json
from enum import IntEnum
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from jumar.envs import atari
from jumar.envs.atari import AtariFrames, area_weights, pool_settings
from jumar.envs.host import HostEnvironments, SerialEnvironments
from jumar.envs.registry import EnvironmentId, make_host, resolve
from jumar.envs.sources import FromId, for_evaluation, source_of
from jumar.errors import UsageError

needs_ale = pytest.mark.skipif(importlib.util.find_spec("ale_py") is None, reason="ale-py is not installed")
needs_envpool = pytest.mark.skipif(importlib.util.find_spec("envpool") is None, reason="EnvPool is not installed")


class Button(IntEnum):
    NOOP = 0
    FIRE = 1
    RIGHT = 3


class FakeScreen:
    """Plays as ``ALEInterface`` does. A game has 120 frames and 3 lives; every 40 of them cost one, and each pays 2 for RIGHT.

    Frame t is all t, but odd frames have a row of 200.
    """

    def __init__(self) -> None:
        self.games = 0
        self.frame = 0
        self.pressed: list[Button] = []

    def getScreenDims(self) -> tuple[int, int]:
        return 210, 160

    def getMinimalActionSet(self) -> list[Button]:
        return list(Button)

    getLegalActionSet = getMinimalActionSet

    def reset_game(self) -> None:
        self.games, self.frame, self.pressed = self.games + 1, 0, []

    def act(self, action: Button) -> float:
        self.pressed.append(action)
        self.frame += 1
        return 2.0 * (action == Button.RIGHT)

    def lives(self) -> int:
        return 3 - self.frame // 40

    def game_over(self) -> bool:
        return self.lives() <= 0

    def getScreenGrayscale(self) -> np.ndarray:
        screen = np.full((210, 160), self.frame, np.uint8)
        if self.frame % 2:
            screen[0] = 200
        return screen


class FakeGame(gym.Env[Any, Any]):
    observation_space = spaces.Box(0, 255, (210, 160, 3), np.uint8)
    action_space = spaces.Discrete(3)

    def __init__(self) -> None:
        self.ale = FakeScreen()

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.ale.reset_game()
        return self.observation_space.sample(), {}


NOTHING, RIGHT = 0, 2


def test_area_weights_are_shares_of_pixels() -> None:
    expected = [[0.4, 0.4, 0.2, 0.0, 0.0], [0.0, 0.0, 0.2, 0.4, 0.4]]
    np.testing.assert_allclose(area_weights(5, 2), expected, rtol=1e-6)
    np.testing.assert_allclose(area_weights(160, 84).sum(axis=1), 1.0, rtol=1e-6)
    np.testing.assert_allclose(area_weights(160, 84).sum(axis=0), 84 / 160, rtol=1e-5)


def test_a_game_begins_with_frames_without_an_action_the_last_of_which_fires() -> None:
    game = FakeGame()
    env = AtariFrames(game, "evaluation")
    begun = set()
    for seed in range(60):
        frame, _ = env.reset(seed=seed)
        *idle, last = game.ale.pressed
        assert last == Button.FIRE
        assert not any(idle)
        assert frame.shape == (84, 84)
        assert frame.dtype == np.uint8
        assert frame[-1, 0] == game.ale.frame
        begun.add(game.ale.frame)
    assert min(begun) == 1
    assert max(begun) == 30


def test_a_step_is_four_frames_and_shows_the_larger_of_the_last_two() -> None:
    game = FakeGame()
    env = AtariFrames(game, "evaluation")
    env.reset(seed=0)
    before = game.ale.frame
    frame, reward, terminated, truncated, info = env.step(RIGHT)
    assert game.ale.pressed[-4:] == [Button.RIGHT] * 4
    assert reward == 8.0
    assert (terminated, truncated, info) == (False, False, {"lives": game.ale.lives()})
    assert frame[-1, 0] == before + 4
    # The bright line is in one of two frames, and takes 1 of the 2.5 lines that the first one is made of.
    assert frame[0, 0] == round((200 + 1.5 * (before + 4)) / 2.5)


@pytest.mark.parametrize(("use", "paid"), [("training", 1.0), ("evaluation", 8.0)])
def test_in_training_alone_a_life_ends_the_episode_and_rewards_are_clipped(use: atari.Use, paid: float) -> None:
    training = use == "training"
    game = FakeGame()
    env = AtariFrames(game, use)
    env.reset(seed=0)
    game.ale.frame = 36  # a life is lost in the fourth frame of the next step
    assert env.step(RIGHT)[1:4] == (paid, training, False)
    env.reset()
    assert game.ale.games == (1 if training else 2)  # the game goes on
    assert (game.ale.frame > 40) == training
    game.ale.frame = 118  # and it is over in the second one
    assert env.step(RIGHT)[1:4] == (paid if training else 4.0, True, False)
    assert game.ale.frame == 120
    before = game.ale.games
    env.reset()
    assert game.ale.games == before + 1


@pytest.mark.parametrize("use", ["training", "evaluation"])
def test_a_game_that_is_too_long_is_truncated_and_begun_anew(use: atari.Use) -> None:
    game = FakeGame()
    env = AtariFrames(game, use, 2)
    env.reset(seed=0)
    for games in (1, 2):
        assert [env.step(NOTHING)[2:4] for _ in range(2)] == [(False, False), (False, True)]
        assert game.ale.games == games
        env.reset()


def test_a_seed_begins_a_game_anew_wherever_it_is() -> None:
    env = AtariFrames(FakeGame(), "training")
    first = [env.reset(seed=5)[0], *(env.step(RIGHT)[0] for _ in range(9))]
    again = [env.reset(seed=5)[0], *(env.step(RIGHT)[0] for _ in range(9))]
    np.testing.assert_array_equal(first, again)


def test_envpool_is_told_the_same() -> None:
    told = pool_settings({"repeat_action_probability": 0.0, "mode": 1}, "evaluation")
    assert (told["episodic_life"], told["reward_clip"], told["repeat_action_probability"]) == (False, False, 0.0)
    told = pool_settings({}, "training")
    assert (told["episodic_life"], told["reward_clip"], told["repeat_action_probability"]) == (True, True, 0.25)


@pytest.mark.parametrize(
    ("text", "options", "words"),
    [
        (
            "gymnasium/CartPole-v1",
            {},
            "gymnasium/CartPole-v1 is not an Atari game that --atari prepares: .*ALE/Pong-v5",
        ),
        ("jax/CartPole-v1", {}, "jax/CartPole-v1 is not an Atari game"),
        pytest.param("envpool/CartPole-v1", {}, "envpool/CartPole-v1 is not an Atari game", marks=needs_envpool),
        pytest.param("Pong-v5", {"kwargs": {"stack_num": 2}}, "'stack_num'.*repeat_action", marks=needs_envpool),
        pytest.param(
            "envpool/Pong-v5", {"kwargs": {"max_episode_steps": 0}}, "max_episode_steps=0 of", marks=needs_envpool
        ),
        pytest.param(
            "envpool/Pong-v5",
            {"kwargs": {"repeat_action_probability": 5.0}},
            "=5.0 of envpool/Pong-v5 must be a number from 0 to 1",
            marks=needs_envpool,
        ),
        pytest.param(
            "ALE/Pong-v5",
            {"kwargs": {"repeat_action_probability": -0.5}},
            "=-0.5 of ALE/Pong-v5 must be a number from 0 to 1",
            marks=needs_ale,
        ),
        pytest.param("ALE/Pong-v5", {"frame_stack": 4}, "last 4 frames; leave --frame-stack 4 out", marks=needs_ale),
        pytest.param("ALE/Pong-v5", {"kwargs": {"frameskip": 2}}, "beside --atari 'frameskip'", marks=needs_ale),
        pytest.param(
            "ALE/Pang-v5", {}, "unknown environment 'ALE/Pang-v5'; did you mean.*ALE/Pong-v5", marks=needs_ale
        ),
    ],
)
def test_what_is_no_atari_game_or_set_already_is_refused(text: str, options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        resolve(text, atari_games=True, **options)


def test_without_its_package_ale_names_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(atari.importlib.util, "find_spec", lambda name: None)
    for name in [name for name in gym.registry if name.startswith("ALE/")]:
        monkeypatch.delitem(gym.registry, name)
    with pytest.raises(UsageError, match=r"ALE/Pong-v5 needs ale-py, .*: pip install 'jumar\[atari\]'"):
        resolve("ALE/Pong-v5")


@needs_ale
def test_without_its_roms_ale_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setenv("ALE_ROMS_DIR", str(tmp_path))
    with pytest.raises(UsageError, match=r"the ROM of ALE/Freeway-v5 cannot be read .*ALE_ROMS_DIR"):
        make_host(resolve("ALE/Freeway-v5", atari_games=True), 1)


def test_objects_and_wrappers_without_names_are_refused() -> None:
    with pytest.raises(UsageError, match="atari=True is for an environment given by its id"):
        source_of(FakeGame(), atari=True)
    with pytest.raises(UsageError, match=r"atari=1\.5 must be"):
        source_of("CartPole-v1", atari=1.5)  # pyright: ignore[reportArgumentType]
    with pytest.raises(UsageError, match="atari=True is for wrappers that a module has"):
        source_of("gymnasium/CartPole-v1", atari=True, wrappers=[lambda env: env])


def test_the_choice_is_written_down_and_old_descriptions_have_none() -> None:
    found = EnvironmentId("ALE/Pong-v5", "gymnasium", "ALE/Pong-v5", atari=True)
    data = json.loads(json.dumps(found.to_json()))
    assert EnvironmentId.from_json(data) == found
    del data["atari"]
    assert EnvironmentId.from_json(data).atari is False
    evaluated = for_evaluation(FromId(found))
    assert isinstance(evaluated, FromId)
    assert (evaluated.id, evaluated.use) == (found, "evaluation")


def made(text: str, use: atari.Use, **kwargs: Any) -> HostEnvironments:
    return make_host(resolve(text, kwargs, atari_games=True), 1, use=use)


@pytest.mark.slow
@needs_ale
@needs_envpool
def test_both_backends_show_the_same_frames() -> None:
    """After the same number of idle frames the same actions give the same pictures, but for rounding."""
    still: dict[str, Any] = {"repeat_action_probability": 0.0}
    ours, theirs = made("ALE/Breakout-v5", "evaluation", **still), made("envpool/Breakout-v5", "evaluation", **still)
    try:
        assert isinstance(ours, SerialEnvironments)
        for both in (ours, theirs):
            assert both.observation_space == spaces.Box(0, 255, (4, 84, 84), np.uint8)
            assert both.action_space == spaces.Discrete(4)
            assert (both.episode_limit, both.frames) == (atari.LONGEST, atari.STACK)
        pictures = [_pictures(theirs, seed) for seed in range(2)]
        found = [_pictures(ours, seed) for seed in range(40)]
        for seen in pictures:
            assert min(np.abs(seen.astype(int) - other).max() for other in found) <= 1
    finally:
        ours.close()
        theirs.close()


def _pictures(environments: HostEnvironments, seed: int) -> np.ndarray:
    seen = [environments.reset([seed])[0][0]]
    assert (seen[0] == seen[0][-1]).all()
    for t in range(8):
        seen.append(environments.step(np.array([(2, 3)[t // 4]])).successors[0])
        np.testing.assert_array_equal(seen[-1][:3], seen[-2][1:])
    return np.stack([stack[-1] for stack in seen])


@pytest.mark.parametrize(
    "text",
    [pytest.param("ALE/Breakout-v5", marks=needs_ale), pytest.param("envpool/Breakout-v5", marks=needs_envpool)],
)
def test_training_ends_with_a_life_and_evaluation_with_the_game(text: str) -> None:
    lengths = {}
    for use in ("training", "evaluation"):
        environments = made(text, use, repeat_action_probability=0.0)
        environments.reset([1])
        lengths[use] = 0
        ended = False
        while not ended:
            step = environments.step(np.array([0]))  # the first ball is served, and missed
            lengths[use] += 1
            ended = bool(step.terminated[0]) or lengths[use] == 150
        environments.close()
    assert lengths["training"] < 60
    assert lengths["evaluation"] == 150  # the next ball waits for FIRE
