"""Where the pictures of a film come from: an environment of Gymnasium in a process of its own, or Jumar's drawings.

A camera makes the evaluator of a policy in its environment, and gives the picture of each moment that the evaluator's
spectator sees. So a film shows the episodes that ``jumar evaluate`` runs, with the same seeds and the same returns.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import gymnasium as gym

from jumar.collecting.evaluation import Evaluator, Seen, compiled_evaluator, host_evaluator
from jumar.envs.boundary import explain
from jumar.envs.gymnasium_factory import GymnasiumFactory
from jumar.envs.host import HostEnvironments, words_on_text
from jumar.envs.registry import EnvironmentId, gymnasium_factory, in_gymnasium
from jumar.envs.sources import FromId
from jumar.envs.workers import WorkerEnvironments
from jumar.errors import UsageError
from jumar.policies.policy import Policy
from jumar.spaces import require_interchangeable_spaces, require_same_spaces
from jumar.video import opengl
from jumar.video.frames import Size
from jumar.video.stage import DrawnFactory, Picture, Stage, as_picture

Tell = Callable[[str], None]
Spaces = tuple[gym.Space[Any], gym.Space[Any]]

USUAL_RATE = 30.0
"""Pictures per second of an environment that states none."""
ATARI_RATE = 15.0
"""Of an Atari game that is prepared by ``--atari``: 60 frames a second, of which a step takes 4."""
PATIENCE = 60.0
"""Seconds that a step with its picture may take."""


class Camera(Protocol):
    """Gives pictures of an environment that a policy acts in."""

    name: str
    """The environment's id with its backend."""
    rate: float | None
    """Pictures per second; ``None`` where the environment states none."""

    @property
    def closed(self) -> bool:
        """Whether the user has closed the environment's own window."""
        ...

    def evaluator(self, policy: Policy, deterministic: bool) -> Evaluator:
        """Return what runs episodes of a policy."""
        ...

    def picture(self, seen: Seen) -> Picture | None:
        """Return the picture of the moment that a spectator sees; ``None`` where the environment draws in a window."""
        ...

    def close(self) -> None:
        """Let go of the environment."""
        ...


def camera_for(
    source: FromId, spaces: Spaces, size: Size | None, modes: tuple[str, ...], tell: Tell, loss: str
) -> Camera:
    """Return the camera for a run's environment.

    Args:
        source: the environment.
        spaces: of observations and actions, in which the policy was trained.
        size: width and height of the pictures in pixels; ``None``: the environment's own.
        modes: Gymnasium's render modes that are of use, the best first.
        tell: takes a sentence that the user should read.
        loss: what is to be said where the environment's process dies or hangs, the end of a sentence.

    Raises:
        UsageError: the environment cannot be drawn, or is another one than the policy was trained in.
        EnvironmentFault: it fails.
    """
    if source.compiled:
        return DrawnCamera(source, spaces, size)
    return GymnasiumCamera(source.id, spaces, size, modes, tell, loss)


class DrawnCamera:
    """Draws the observations of a compiled environment, in this process."""

    closed = False

    def __init__(self, source: FromId, spaces: Spaces, size: Size | None) -> None:
        from jumar.video.drawings import drawing_of

        self.name = source.name
        self._env, self._size = source.make_compiled(), size
        require_same_spaces((self._env.observation_space, self._env.action_space), spaces, self.name)
        drawing = drawing_of(self._env, self.name)
        render = _own_render(self._env) if drawing is None else None
        if drawing is None and render is None:
            raise UsageError(_no_drawing(source.id))
        self.rate = drawing.rate if drawing is not None else _stated_rate(_innermost(self._env))
        self._drawing, self._render = drawing, render

    def evaluator(self, policy: Policy, deterministic: bool) -> Evaluator:
        """Return the evaluator of compiled environments."""
        return compiled_evaluator(policy, self._env, self.name, deterministic)

    def picture(self, seen: Seen) -> Picture | None:
        """Draw an observation."""
        if self._drawing is not None:
            return self._drawing.picture(seen.observation, self._size)
        assert self._render is not None
        try:
            drawn = self._render(seen.observation)
        except Exception as error:
            raise UsageError(f"{self.name} cannot be drawn: its render raised {explain(error)}.") from error
        return as_picture(drawn, "render(observation)", self.name)

    def close(self) -> None:
        """Nothing is held."""


def _innermost(env: Any) -> Any:
    while hasattr(env, "env") and not hasattr(env, "render"):
        env = env.env
    return env


def _own_render(env: Any) -> Callable[[Any], Any] | None:
    """Return the ``render`` of a user's compiled environment, which takes an observation, if it has one."""
    # Brax's and gymnax's own environments lie in adapters, and their renderers take something else.
    inner = _innermost(env)
    if type(inner).__module__.startswith(("brax.", "gymnax.", "jumar.")):
        return None
    render = getattr(inner, "render", None)
    return render if callable(render) else None


def _stated_rate(env: Any) -> float | None:
    rate = getattr(env, "render_fps", None)
    return float(rate) if isinstance(rate, (int, float)) and 0 < rate <= 1000 else None


def _no_drawing(env_id: EnvironmentId) -> str:
    if env_id.backend == "brax":
        return (
            f"{env_id.full_name} cannot be drawn here: Brax shows its states in a browser (brax.io.html in Python). Jumar "
            "draws its own environments and what has a renderer in Gymnasium."
        )
    if env_id.module is not None:
        return (
            f"{env_id.full_name} cannot be drawn: give it a method render(observation) that returns a uint8 array "
            "[height, width, 3]."
        )
    return (
        f"{env_id.full_name} cannot be drawn: its observations are no picture. Jumar draws classic control, grid worlds, 2048 "
        "and the games of MinAtar, and what has a renderer in Gymnasium."
    )


class GymnasiumCamera:
    """Has an environment of Gymnasium draw itself, in a worker process."""

    def __init__(
        self, env_id: EnvironmentId, spaces: Spaces, size: Size | None, modes: tuple[str, ...], tell: Tell, loss: str
    ) -> None:
        given = env_id
        if env_id.backend == "envpool":
            env_id = _twin(env_id)
            tell(
                f"EnvPool draws no pictures, so the episodes are those of {env_id.full_name}, which begin in other states than "
                f"those of {given.full_name} do."
            )
        self.name = env_id.full_name
        factory, needs_driver = _sized(gymnasium_factory(env_id, "evaluation"), size), _uses_mujoco(env_id)
        driver = None
        if needs_driver is not False and "human" not in modes[:1]:
            driver = _driver(self.name, needed=needs_driver is True)
        self._folder = tempfile.TemporaryDirectory(prefix="jumar-", ignore_cleanup_errors=True)
        path = Path(self._folder.name) / "picture"
        self._stage = Stage(path)
        try:
            with _variables(_quiet(windows="human" in modes) | ({opengl.VARIABLE: driver} if driver else {})):
                self._environments = WorkerEnvironments(
                    [DrawnFactory(factory, modes, path, self.name)], 1, self.name, timeout=PATIENCE, remedy=loss
                )
        except BaseException:
            self._stage.close()
            self._folder.cleanup()
            raise
        here = self._environments.observation_space, self._environments.action_space
        try:
            (require_same_spaces if env_id is given else require_interchangeable_spaces)(here, spaces, self.name)
        except UsageError:
            self.close()
            raise
        if words := words_on_text(self._environments):
            tell(words)
        self.rate = ATARI_RATE if env_id.atari else self._stage.rate

    @property
    def closed(self) -> bool:
        """Whether the user has closed the environment's own window."""
        return self._stage.closed

    def evaluator(self, policy: Policy, deterministic: bool) -> Evaluator:
        """Return the evaluator of host environments; all episodes are in the one environment that there is."""
        lent: Any = _Lent(self._environments)
        return host_evaluator(policy, lambda n: lent, deterministic, 1)

    def picture(self, seen: Seen) -> Picture | None:
        """Return the picture that the environment has drawn."""
        return self._stage.take()

    def close(self) -> None:
        """End the worker process."""
        self._environments.close()
        self._stage.close()
        self._folder.cleanup()


class _Lent:
    """Environments that are not closed by whom they are lent to."""

    def __init__(self, environments: HostEnvironments) -> None:
        self._environments = environments

    def __getattr__(self, name: str) -> Any:
        return getattr(self._environments, name)

    def close(self) -> None:
        """Leave them open."""


def _twin(env_id: EnvironmentId) -> EnvironmentId:
    try:
        return in_gymnasium(env_id)
    except UsageError as error:
        raise UsageError(
            f"{env_id.full_name} cannot be drawn: EnvPool draws no pictures, and Gymnasium does not make the same: {error}"
        ) from error


def _uses_mujoco(env_id: EnvironmentId) -> bool | None:
    """Whether an environment is drawn by MuJoCo; ``None`` where that cannot be told, and MuJoCo is installed."""
    entry = str(gym.registry[env_id.name].entry_point)
    if entry.startswith("gymnasium.envs.mujoco"):
        return True
    known = env_id.module is None and entry.startswith(("gymnasium.", "ale_py"))
    return False if known or importlib.util.find_spec("mujoco") is None else None


def _driver(name: str, needed: bool) -> str | None:
    """Return the driver for MuJoCo. Raises ``UsageError`` where one is needed and none is there."""
    try:
        return opengl.choose_driver(name)
    except UsageError:
        if needed:
            raise
        return None


def _sized(factory: GymnasiumFactory, size: Size | None) -> GymnasiumFactory:
    """Return a factory whose environment draws pictures of a size, where its renderer can."""
    if size is None or not str(getattr(factory.source, "entry_point", "")).startswith("gymnasium.envs.mujoco"):
        return factory
    return replace(factory, kwargs={**factory.kwargs, "width": size[0], "height": size[1]})


def _quiet(windows: bool) -> dict[str, str]:
    """Return the environment variables that keep pygame from looking for a sound card, and for a display that is not needed."""
    wanted = {"SDL_AUDIODRIVER": "dummy"} | ({} if windows else {"SDL_VIDEODRIVER": "dummy"})
    return {name: value for name, value in wanted.items() if name not in os.environ}


@contextlib.contextmanager
def _variables(values: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables for the processes that are started in the block."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
