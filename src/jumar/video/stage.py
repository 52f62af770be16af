"""An environment that is drawn in a process of its own, and the memory through which its pictures come back.

Renderers crash, hang and leave windows behind. So the environment lives in a worker process (:mod:`jumar.envs.workers`), which
draws it after the reset and after each step, and leaves the picture in a file that both processes have mapped
(:class:`Stage`). This module is imported there, and does not import JAX.
"""

from __future__ import annotations

import contextlib
import io
import mmap
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import load_env_creator

from jumar.envs.boundary import explain
from jumar.envs.gymnasium_factory import GymnasiumFactory
from jumar.errors import UnsupportedEnvironment, UsageError

LARGEST = 64 * 2**20
"""Bytes of the largest picture. The file is sparse: what is not used takes no room."""
_HEADER = 64
_NOTHING, _PIXELS, _TEXT = 0, 1, 2
_KIND, _HEIGHT, _WIDTH, _CLOSED, _RATE = range(5)
"""The places of the numbers in the header; the last one is pictures per 1,000 seconds, 0 where the environment does not say."""

Picture = np.ndarray | str
"""Pixels, uint8 ``[height, width, 3]``, or the text of a renderer that writes."""


class Stage:
    """The newest picture of an environment in another process. Both sides open the same file."""

    def __init__(self, path: Path) -> None:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(descriptor, _HEADER + LARGEST)
            self._memory = mmap.mmap(descriptor, _HEADER + LARGEST)
        finally:
            os.close(descriptor)
        self._numbers = np.frombuffer(self._memory, np.int64, _HEADER // 8)
        self._bytes = np.frombuffer(self._memory, np.uint8, LARGEST, _HEADER)

    @property
    def closed(self) -> bool:
        """Whether the user has closed the environment's window."""
        return bool(self._numbers[_CLOSED])

    @property
    def rate(self) -> float | None:
        """Pictures per second that the environment states, if it does."""
        return float(self._numbers[_RATE]) / 1000.0 or None

    def state_rate(self, rate: float) -> None:
        """Say how many pictures make a second."""
        self._numbers[_RATE] = round(1000.0 * rate)

    def close_window(self) -> None:
        """Say that the user has closed the window."""
        self._numbers[_CLOSED] = 1

    def put(self, picture: Picture) -> None:
        """Leave a picture in the place of the one before.

        Raises:
            UsageError: it is too large.
        """
        if isinstance(picture, str):
            data, shape, kind = np.frombuffer(picture.encode(), np.uint8), (len(picture.encode()), 1), _TEXT
        else:
            data, shape, kind = picture.reshape(-1), picture.shape[:2], _PIXELS
        if data.size > LARGEST:
            raise UsageError(f"a picture of {data.size:,} bytes is too large; at most {LARGEST:,} can be shown.")
        self._bytes[: data.size] = data
        self._numbers[_HEIGHT], self._numbers[_WIDTH] = shape
        self._numbers[_KIND] = kind

    def take(self) -> Picture | None:
        """Return a copy of the newest picture; ``None`` where there is none, as where the environment has a window."""
        height, width = int(self._numbers[_HEIGHT]), int(self._numbers[_WIDTH])
        if self._numbers[_KIND] == _TEXT:
            return self._bytes[:height].tobytes().decode(errors="replace")
        if self._numbers[_KIND] == _PIXELS:
            return self._bytes[: 3 * height * width].reshape(height, width, 3).copy()
        return None

    def close(self) -> None:
        """Let go of the memory."""
        del self._numbers, self._bytes
        with contextlib.suppress(BufferError):
            self._memory.close()


@dataclass(frozen=True)
class DrawnFactory:
    """Makes an environment of Gymnasium that draws itself; it is sent to a worker process.

    ``make`` has no render mode yet: the first of ``modes`` is taken that the environment has and whose packages are there.
    ``stage`` is where pictures are left.
    """

    make: GymnasiumFactory
    modes: tuple[str, ...]
    stage: Path
    name: str

    def __call__(self) -> gym.Env[Any, Any]:
        """Make the environment.

        Raises:
            UnsupportedEnvironment: it cannot draw itself in any of these ways.
            UsageError: a package is missing, or its renderer fails.
        """
        known = render_modes(self.make.source)
        missing: UsageError | None = None
        for mode in [mode for mode in self.modes if known is None or mode in known]:
            kwargs = {**self.make.kwargs, "render_mode": mode}
            env = replace(self.make, kwargs=kwargs)()
            if mode == "human" and env.render_mode != mode:
                env.close()
                continue
            drawn = Drawn(env, Stage(self.stage), mode, self.name)
            try:
                drawn.try_out()
            except _PackageMissing as error:
                env.close()
                missing = UsageError(str(error))
                continue
            return drawn
        raise missing or _cannot_be_drawn(self.name, known, self.modes)


class _PackageMissing(Exception):
    """What draws the environment is not installed."""


def render_modes(source: Any) -> list[str] | None:
    """Return the render modes that an environment states; ``None`` where only the made environment could say."""
    spec = gym.registry[source] if isinstance(source, str) else source
    entry = spec.entry_point
    creator = load_env_creator(entry) if isinstance(entry, str) else entry
    metadata = getattr(creator, "metadata", None)
    if not isinstance(metadata, Mapping):
        return None
    return [str(mode) for mode in metadata.get("render_modes") or ()]


def _cannot_be_drawn(name: str, known: list[str] | None, modes: tuple[str, ...]) -> UnsupportedEnvironment:
    has = "it states no render mode" if not known else f"its render modes are {', '.join(known)}"
    wanted = "rgb_array" if "rgb_array" in modes else " or ".join(modes)
    return UnsupportedEnvironment(
        f"{name} cannot be drawn: {has}. An environment that draws itself has {wanted!r} among "
        'metadata["render_modes"], and a render() that returns an array [height, width, 3].'
    )


class Drawn(gym.Wrapper[Any, Any, Any, Any]):
    """An environment that is drawn after each step, and after each reset that has a seed.

    A reset without a seed is that of an episode which is over: the last picture of it stays.
    """

    def __init__(self, env: gym.Env[Any, Any], stage: Stage, mode: str, name: str) -> None:
        super().__init__(env)
        self._stage, self._mode, self._name = stage, mode, name
        self._heard: Any = None
        """The window of MuJoCo's whose keys are heard."""
        rate = env.metadata.get("render_fps")
        if isinstance(rate, (int, float)) and 0 < rate <= 1000:
            stage.state_rate(rate)

    def try_out(self) -> None:
        """Draw a first picture, so that what is missing shows now.

        Raises:
            _PackageMissing: a package.
            UsageError: the renderer fails.
        """
        self.env.reset(seed=0)
        self._draw()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Reset, and draw where an episode begins that is shown."""
        result = self.env.reset(seed=seed, options=options)
        if seed is not None:
            self._draw()
        return result

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Take a step and draw it."""
        if self._mode == "human":
            self._look_at_window()
        result = self.env.step(action)
        self._draw()
        return result

    def _look_at_window(self) -> None:
        """Say whether the user has closed the window that the environment has opened."""
        if closed_in_pygame():
            self._stage.close_window()
        viewer = getattr(getattr(self.env.unwrapped, "mujoco_renderer", None), "viewer", None)
        if viewer is not None and viewer is not self._heard:
            close_by_stage(viewer, self._stage)
            self._heard = viewer

    def _draw(self) -> None:
        if self._mode == "human":
            return  # such environments draw by themselves
        try:
            drawn = self.env.render()
        except (gym.error.DependencyNotInstalled, ImportError) as error:
            raise _PackageMissing(missing_package(self._name, error)) from error
        except Exception as error:
            raise UsageError(f"{self._name} cannot be drawn: its renderer raised {explain(error)}.") from error
        self._stage.put(as_picture(drawn, self._mode, self._name))


def missing_package(name: str, error: Exception) -> str:
    """Return the sentence for a renderer whose package is missing."""
    said = " ".join(str(error).split())
    if "pygame" in said:
        return f"{name} is drawn by pygame, which is not installed: pip install 'jumar[video]'."
    if "mujoco" in said.lower() or "imageio" in said:
        return f"{name} is drawn by MuJoCo, of which a package is missing ({said}): pip install 'jumar[mujoco]'."
    return f"{name} cannot be drawn: {said}."


def as_picture(drawn: Any, mode: str, name: str) -> Picture:
    """Return what a renderer returned as a picture.

    Raises:
        UsageError: it is none.
    """
    if isinstance(drawn, io.StringIO):
        drawn = drawn.getvalue()
    if isinstance(drawn, str):
        return drawn
    array = np.asarray(drawn) if not isinstance(drawn, (list, tuple, type(None))) else None
    if array is None or array.ndim != 3 or array.shape[2] not in (3, 4) or array.size == 0:
        what = f"an array of shape {array.shape}" if array is not None else f"a {type(drawn).__name__}"
        raise UsageError(
            f"{name} cannot be drawn: its render(), in the mode {mode!r}, returned {what}; it must return an array "
            "[height, width, 3]."
        )
    if array.dtype != np.uint8:
        raise UsageError(f"{name} cannot be drawn: its render() returned an array of {array.dtype}; it must be uint8.")
    return np.ascontiguousarray(array[..., :3])


def closed_in_pygame() -> bool:
    """Whether the user has closed the window that an environment has drawn itself in by pygame, or typed q or Escape there."""
    pygame = sys.modules.get("pygame")
    if pygame is None or not pygame.display.get_init() or pygame.display.get_surface() is None:
        return False
    keys = (pygame.K_q, pygame.K_ESCAPE)
    return any(
        event.type == pygame.QUIT or event.key in keys for event in pygame.event.get((pygame.QUIT, pygame.KEYDOWN))
    )


def close_by_stage(viewer: Any, stage: Stage) -> None:
    """Have the window of Gymnasium's viewer for MuJoCo say that it is to be closed, where it would destroy itself and crash."""
    window, glfw = getattr(viewer, "window", None), sys.modules.get("glfw")
    if window is None or glfw is None:
        return
    others = getattr(viewer, "_key_callback", None)

    def on_key(window: Any, key: int, *rest: Any) -> None:
        if key in (glfw.KEY_Q, glfw.KEY_ESCAPE):
            stage.close_window()
        elif others is not None:
            others(window, key, *rest)

    def on_close(window: Any) -> None:
        stage.close_window()
        glfw.set_window_should_close(window, False)

    glfw.set_key_callback(window, on_key)
    glfw.set_window_close_callback(window, on_close)
