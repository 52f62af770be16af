"""Atari games as the field prepares them, the same from ALE's own package (Gymnasium) and from EnvPool.

Mnih et al. 2015 (Human-level control through deep reinforcement learning, Methods), with the evaluation of Machado et al. 2018
(Revisiting the Arcade Learning Environment): a step repeats its action for 4 frames and shows the larger value, pixel by pixel,
of the last two, in grey and 84 x 84; an observation is the last 4 of these; an episode begins with 1 to 30 frames without an
action, the last of which presses FIRE in a game that has that button; actions are sticky. In training, rewards are clipped
to their sign, and a lost life ends the episode while the game goes on. Evaluations are of whole games with their own rewards.

Where a choice is open it is EnvPool's, so that both backends are alike. One difference is left: after a lost life EnvPool's
stack still holds the frames before it, and Gymnasium's is filled with the first frame of the new life.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping
from typing import Any, Literal

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from jumar.errors import UsageError, unknown

Use = Literal["training", "evaluation"]
"""What an environment is made for: only training clips rewards and ends episodes with a life."""

STACK = 4
"""Frames in an observation."""
SKIP = 4
"""Frames that a step takes."""
SIZE = 84
"""The height and width of a frame."""
NO_OPS = 30
"""The most frames without a player's action at an episode's begin."""
LONGEST = 27_000
"""Steps of a game, half an hour of play: Machado et al. 2018."""
STICKY = 0.25
"""The probability that the game repeats the action before: Machado et al. 2018. EnvPool's own default is 0."""
SETTINGS = ("repeat_action_probability", "full_action_space", "mode", "difficulty", "max_episode_steps")
"""What may still be set, by the same names in both backends."""
_NAMESPACE = "ALE/"


def register() -> bool:
    """Have Gymnasium know ALE's ids; return whether ale-py is installed."""
    if importlib.util.find_spec("ale_py") is None:
        return False
    ale = importlib.import_module("ale_py")  # which registers them
    ale.ALEInterface.setLoggerMode(ale.LoggerMode.Error)  # else every game announces itself
    return True


def is_of_ale(name: str) -> bool:
    """Whether an id is in ALE's namespace."""
    return name.startswith(_NAMESPACE)


def missing_package(text: str) -> UsageError:
    """Return the error for an id of ALE's where its package is not installed."""
    return UsageError(f"{text} needs ale-py, which is not installed: pip install 'jumar[atari]'.")


def missing_rom(name: str, error: OSError) -> UsageError:
    """Return the error for a game of ALE's whose ROM is not there, or another file than it must be."""
    said = " ".join(str(error).split()).removesuffix(".")
    return UsageError(
        f"the ROM of {name} cannot be read ({said}); those that come with ale-py are used where the environment variable "
        "ALE_ROMS_DIR is not set: pip install --force-reinstall ale-py brings them back."
    )


def is_game(spec: Any) -> bool:
    """Whether one of Gymnasium's registered specs is a game of ALE's."""
    return str(getattr(spec, "entry_point", "")).startswith("ale_py")


def check_settings(text: str, kwargs: Mapping[str, Any], frame_stack: int | None) -> None:
    """Refuse settings that the preparation makes itself.

    Raises:
        UsageError: with those that may be set.
    """
    if frame_stack is not None:
        raise UsageError(f"--atari shows the policy the last {STACK} frames; leave --frame-stack {frame_stack} out.")
    for key in kwargs:
        if key not in SETTINGS:
            raise unknown(f"setting of {text} beside --atari", key, SETTINGS)
    limit = kwargs.get("max_episode_steps", LONGEST)
    if type(limit) is not int or limit < 1:
        raise UsageError(f"max_episode_steps={limit!r} of {text} must be a whole number of at least 1.")
    check_sticky(text, kwargs)


def check_sticky(text: str, kwargs: Mapping[str, Any]) -> None:
    """Refuse a ``repeat_action_probability`` that is no probability; neither ALE nor EnvPool does.

    Raises:
        UsageError: with the value.
    """
    sticky = kwargs.get("repeat_action_probability", STICKY)
    if isinstance(sticky, bool) or not isinstance(sticky, (int, float)) or not 0 <= sticky <= 1:
        raise UsageError(f"repeat_action_probability={sticky!r} of {text} must be a number from 0 to 1.")


def pool_settings(kwargs: Mapping[str, Any], use: Use) -> dict[str, Any]:
    """Return the settings that have EnvPool prepare a game."""
    training = use == "training"
    return {
        "stack_num": STACK,
        "frame_skip": SKIP,
        "noop_max": NO_OPS,
        "img_height": SIZE,
        "img_width": SIZE,
        "gray_scale": True,
        "use_inter_area_resize": True,
        "use_fire_reset": True,
        "zero_discount_on_life_loss": False,
        "max_episode_steps": LONGEST,
        "repeat_action_probability": STICKY,
        **kwargs,
        "episodic_life": training,
        "reward_clip": training,
    }


class AtariFrames(gym.Wrapper):
    """The frames of a game of ALE's, prepared; a stack of them is for a wrapper around this one.

    It plays the game frame by frame itself, whatever the id's own frame skip.

    Args:
        env: an environment of ale-py's.
        use: for training or for evaluation.
        limit: steps after which a game is truncated.
    """

    def __init__(self, env: gym.Env, use: Use, limit: int = LONGEST) -> None:
        super().__init__(env)
        self._ale: Any = env.unwrapped.ale  # pyright: ignore[reportAttributeAccessIssue]
        self._training = use == "training"
        self._limit = limit
        minimal, legal = self._ale.getMinimalActionSet(), self._ale.getLegalActionSet()
        assert isinstance(env.action_space, spaces.Discrete)
        self._actions = minimal if env.action_space.n == len(minimal) else legal
        by_name = {action.name: action for action in self._actions}
        self._no_action, self._fire = by_name["NOOP"], by_name.get("FIRE")
        height, width = self._ale.getScreenDims()
        self._rows, self._columns = area_weights(height, SIZE), area_weights(width, SIZE).T
        self.observation_space = spaces.Box(0, 255, (SIZE, SIZE), np.uint8)
        self._steps = self._lives = 0
        self._over = True

    @property
    def spec(self) -> Any:
        """The game's spec, with the time limit in steps."""
        spec = super().spec
        if spec is not None:
            spec.max_episode_steps = self._limit  # of a copy of the game's own
        return spec

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin a game, or the next life of one that is not over."""
        if self._over or seed is not None or not self._training:
            self._begin_game(seed)
        frames = int(self.np_random.integers(1, NO_OPS + 1))
        for left in range(frames, 0, -1):
            self._ale.act(self._fire if left == 1 and self._fire is not None else self._no_action)
            if self._ale.game_over():
                self._begin_game(None)
        self._lives = self._ale.lives()
        return self._shrunk(self._ale.getScreenGrayscale()), self._info()

    def _begin_game(self, seed: int | None) -> None:
        self.env.reset(seed=seed)
        self._steps, self._over = 0, False

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Act for some frames."""
        played, reward, frames, over = self._actions[action], 0.0, [], False
        for left in range(SKIP, 0, -1):
            reward += self._ale.act(played)
            over = self._ale.game_over()
            if left <= 2 or over:
                frames.append(self._ale.getScreenGrayscale())
            if over:
                break
        self._steps += 1
        truncated = self._steps >= self._limit
        self._over = over or truncated
        lives, before = self._ale.lives(), self._lives
        self._lives = lives
        lost = self._training and 0 < lives < before
        reward = float(np.sign(reward)) if self._training else float(reward)
        seen = frames[0] if len(frames) == 1 else np.maximum(*frames)
        return self._shrunk(seen), reward, over or lost, truncated, self._info()

    def _info(self) -> dict[str, Any]:
        return {"lives": self._lives}

    def _shrunk(self, screen: np.ndarray) -> np.ndarray:
        return np.rint(self._rows @ screen.astype(np.float32) @ self._columns).astype(np.uint8)


def area_weights(length: int, shorter: int) -> np.ndarray:
    r"""Return the matrix ``[shorter, length]`` that averages a line of pixels over equal shares of it.

    A new pixel i covers the old ones from :math:`i L / l` to :math:`(i + 1) L / l`, each with the share of it that lies there:
    the area interpolation of image libraries.
    """
    edges = np.arange(shorter + 1) * (length / shorter)
    pixels = np.arange(length)
    covered = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    weights = np.maximum(covered, 0.0)
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
