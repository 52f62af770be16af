"""Making Gymnasium environments from their registered specs, with wrappers by name."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import math
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import gymnasium as gym
from gymnasium.envs.registration import EnvSpec, load_env_creator

from jumar.envs import atari
from jumar.envs.boundary import explain
from jumar.errors import UsageError, nearest, unknown

_TO_FILM = "jumar record RUN films the trained policy"
_TO_WATCH = "jumar watch RUN shows the trained policy"
_NUMPY = "Jumar takes NumPy arrays and hands them to JAX itself"
_TAKES_FUNCTION = "it takes a function, which cannot be typed; write a wrapper of your own and name it as module:Name"
_REFUSED = {
    "ArrayConversion": _NUMPY,
    "Autoreset": "Jumar resets the environments itself",
    "HumanRendering": f"every environment that is trained in would open a window; {_TO_WATCH}",
    "JaxToNumpy": _NUMPY,
    "JaxToTorch": _NUMPY,
    "NormalizeObservation": "its statistics would not be saved; use --normalize-observations",
    "NormalizeReward": "its statistics would not be saved; use --normalize-rewards",
    "NumpyToTorch": _NUMPY,
    "RecordVideo": f"every environment that is trained in would write videos; {_TO_FILM}",
    "RenderCollection": f"the frames of the whole training would stay in memory; {_TO_FILM}",
    "TransformAction": _TAKES_FUNCTION,
    "TransformObservation": _TAKES_FUNCTION,
    "TransformReward": _TAKES_FUNCTION,
}
"""Gymnasium's wrappers that are not offered, and why."""
_NO_WRAPPERS = {"vector"}
"""What is in the list of Gymnasium's wrappers and is none."""
_OWN = re.compile(r"(?P<module>[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*):(?P<name>[A-Za-z_]\w*)")
"""A wrapper of the user's own: ``module:Name``."""

Settings = tuple[tuple[str, Any], ...]
Wrappers = tuple[tuple[str, Settings], ...]


@dataclass(frozen=True)
class GymnasiumFactory:
    """A callable that makes one Gymnasium environment; it can be sent to a worker process.

    ``source`` is a registered id, or its spec (which also works where the id is not registered). Wrappers are applied
    in order, the stack of the last ``frame_stack`` observations after them. With ``atari`` it is a game whose frames are
    prepared for that use, and stacked (:mod:`jumar.envs.atari`).

    Raises (when called):
        UsageError: where a package is missing, or the settings do not fit.
    """

    source: str | EnvSpec
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    wrappers: Wrappers = ()
    frame_stack: int | None = None
    atari: atari.Use | None = None

    def __call__(self) -> gym.Env:
        """Make a new environment."""
        env = self._make(self.kwargs) if self.atari is None else self._make_game(self.atari)
        for name, settings in self.wrappers:
            env = wrap(env, name, dict(settings))
        stack = self.frame_stack if self.atari is None else atari.STACK
        if stack is not None:
            env = wrap(env, "FrameStackObservation", {"stack_size": stack})
        return env

    def _make_game(self, use: atari.Use) -> gym.Env:
        atari.register()  # in a worker process it is not yet
        kwargs = dict(self.kwargs)
        limit = kwargs.pop("max_episode_steps", atari.LONGEST)
        return atari.AtariFrames(self._make({"max_num_frames_per_episode": 0, **kwargs}), use, limit)

    def _make(self, kwargs: Mapping[str, Any]) -> gym.Env:
        name = self.source if isinstance(self.source, str) else self.source.id
        try:
            # Gymnasium's own checker only warns, and slows down; Jumar checks every value itself.
            return gym.make(self.source, **{"disable_env_checker": True, **kwargs})
        except (gym.error.DependencyNotInstalled, ImportError) as error:
            raise _missing(name, error) from error
        except gym.error.Error as error:
            raise UsageError(f"cannot make {name}: {error}") from error
        except TypeError as error:
            stranger = re.search(r"unexpected keyword argument '(\w+)'", str(error))
            if stranger and stranger[1] in self.kwargs:
                raise unknown(f"setting of {name}", stranger[1], _parameters(name)) from error
            self._blame_settings(name, error)
            raise
        except Exception as error:
            if isinstance(error, OSError) and name in gym.registry and atari.is_game(gym.registry[name]):
                raise atari.missing_rom(name, error) from error
            self._blame_settings(name, error)
            raise

    def _blame_settings(self, name: str, error: Exception) -> None:
        if self.kwargs:
            settings = ", ".join(f"{key}={value}" for key, value in self.kwargs.items())
            raise UsageError(f"cannot make {name} with {settings}: {explain(error)}.") from error


@dataclass(frozen=True)
class WrappedFactory:
    """A callable that makes an environment with ``make`` and puts wrappers around it, the innermost first."""

    make: Callable[[], gym.Env]
    wrappers: tuple[tuple[str | Callable[..., Any], Mapping[str, Any]], ...]

    def __call__(self) -> gym.Env:
        """Make a new environment."""
        env = self.make()
        if isinstance(env, gym.Env):  # else its user says what is wrong
            for wrapper, settings in self.wrappers:
                env = wrap(env, wrapper, settings)
        return env


def _parameters(name: str) -> list[str]:
    """Return the names of the settings that a registered environment takes."""
    entry = gym.registry[name].entry_point if name in gym.registry else None
    creator = load_env_creator(entry) if isinstance(entry, str) else entry
    if creator is None:
        return []
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return [key for key, value in inspect.signature(creator).parameters.items() if value.kind in named]


def _missing(name: str, error: ImportError | gym.error.DependencyNotInstalled) -> UsageError:
    said = " ".join(str(error).split())
    if "mujoco" in said.lower() and importlib.util.find_spec("mujoco") is None:
        return UsageError(f"{name} needs MuJoCo, which is not installed: pip install 'jumar[mujoco]'.")
    if "box2d" in said.lower() and importlib.util.find_spec("Box2D") is None:
        return UsageError(
            f"{name} needs Box2D, which is not installed: pip install 'gymnasium[box2d]'; envpool/{name} needs EnvPool alone."
        )
    return UsageError(f"cannot make {name}: {said}")


# --- wrappers by name ----------------------------------------------------------------------------------------------


def known_wrappers() -> list[str]:
    """Return the names of Gymnasium's wrappers that can be asked for."""
    return sorted(set(gym.wrappers.__all__) - _NO_WRAPPERS - set(_REFUSED))


def is_own_wrapper(name: str) -> bool:
    """Whether a wrapper's name is ``module:Name``: code of the user's own."""
    return _OWN.fullmatch(name) is not None


def check_wrapper(name: str) -> None:
    """Refuse one of Gymnasium's wrappers that does not exist, or that would break what Jumar promises.

    Nothing is imported; whether a ``module:Name`` is there, :func:`find_wrapper` says.

    Raises:
        UsageError: with the nearest names, or the reason.
    """
    if is_own_wrapper(name):
        return
    if name in _REFUSED:
        raise UsageError(f"the wrapper {name} is not offered: {_REFUSED[name]}.")
    known = known_wrappers()
    if name not in known:
        refusal = unknown("wrapper of Gymnasium", name, known, {"FrameStack": "FrameStackObservation"})
        raise UsageError(f"{refusal} A wrapper of your own is named as module:Name.")


def find_wrapper(name: str) -> Callable[..., Any]:
    """Return a wrapper by its name, importing the module of a ``module:Name``: only for what the user has typed.

    Raises:
        UsageError: there is no such module or name, or it would break what Jumar promises.
    """
    check_wrapper(name)
    own = _OWN.fullmatch(name)
    if own is None:
        return getattr(gym.wrappers, name)
    module = import_module(own["module"], f"the wrapper {name}")
    wrapper = getattr(module, own["name"], None)
    if wrapper is None:
        raise unknown(f"wrapper of {own['module']}", own["name"], [x for x in vars(module) if not x.startswith("_")])
    if not callable(wrapper):
        raise UsageError(f"the wrapper {name} is a {type(wrapper).__name__}; it must be a class or function of an env.")
    if (theirs := gymnasium_name(wrapper)) is not None:
        check_wrapper(theirs)
    return wrapper


def gymnasium_name(wrapper: Any) -> str | None:
    """Return the name of one of Gymnasium's wrappers, ``None`` for anything else."""
    name = getattr(wrapper, "__name__", "")
    return name if name in gym.wrappers.__all__ and getattr(gym.wrappers, name, None) is wrapper else None


def wrapper_name(wrapper: Callable[..., Any]) -> str | None:
    """Return the name by which :func:`find_wrapper` finds a wrapper, ``None`` where no module has it."""
    if (theirs := gymnasium_name(wrapper)) is not None:
        return theirs
    module, name = getattr(wrapper, "__module__", None), getattr(wrapper, "__qualname__", "")
    own = f"{module}:{name}"
    if (
        not is_own_wrapper(own)
        or module == "__main__"
        or getattr(sys.modules.get(str(module)), name, None) is not wrapper
    ):
        return None
    return own


def wrap(env: gym.Env, wrapper: str | Callable[..., Any], settings: Mapping[str, Any] | None = None) -> gym.Env:
    """Put a wrapper, by its name or itself, around an environment.

    Lists among the settings of Gymnasium's own wrappers become tuples, as their shapes must be.

    Raises:
        UsageError: a setting is unknown, or the wrapper raises or does not return an environment.
    """
    settings = settings or {}
    name = wrapper if isinstance(wrapper, str) else getattr(wrapper, "__qualname__", type(wrapper).__name__)
    function = find_wrapper(wrapper) if isinstance(wrapper, str) else wrapper
    takes = _arguments(function) if settings else None
    for key in settings:
        if takes is not None and key not in takes:
            raise unknown(f"setting of the wrapper {name}", key, takes)
    own = not isinstance(wrapper, str) or is_own_wrapper(wrapper)
    given = dict(settings) if own else {key: _as_tuple(value) for key, value in settings.items()}
    try:
        wrapped = function(env, **given)
    except Exception as error:
        shown = ", ".join(f"{key}={value}" for key, value in settings.items()) or "no settings"
        raise UsageError(
            f"cannot put the wrapper {name} ({shown}) around the environment: {explain(error)}."
        ) from error
    if not isinstance(wrapped, gym.Env):
        raise UsageError(f"the wrapper {name} returned a {type(wrapped).__name__}; it must return a gymnasium.Env.")
    return wrapped


def _as_tuple(value: Any) -> Any:
    return tuple(map(_as_tuple, value)) if isinstance(value, list) else value


def _arguments(wrapper: Callable[..., Any]) -> list[str] | None:
    """Return the names of what a wrapper takes beside the environment, its first; ``None`` where it takes any."""
    try:
        _, *rest = inspect.signature(wrapper).parameters.values()
    except (TypeError, ValueError):
        return None
    return None if any(x.kind is inspect.Parameter.VAR_KEYWORD for x in rest) else [x.name for x in rest]


def import_module(module: str, text: str) -> ModuleType:
    """Import a user's module; ``text`` is what was typed.

    Raises:
        UsageError: there is no such module, or importing it raises.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name and (module == error.name or module.startswith(error.name + ".")):
            raise UsageError(f"{text}: there is no module {error.name!r} here or among the installed ones.") from error
        raise UsageError(f"{text}: importing {module} raised {explain(error)}.") from error
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise UsageError(f"{text}: importing {module} raised {explain(error)}.") from error


# --- ids -----------------------------------------------------------------------------------------------------------

_VERSION = re.compile(r"-v(\d+)$")


def registered_ids() -> list[str]:
    """Return the ids of Gymnasium's registry, without its adapters of old Gym and what was moved elsewhere."""
    moved = "gymnasium.envs.mujoco:"  # the v2 and v3 environments, which only raise
    return [
        name
        for name, spec in gym.registry.items()
        if not name.startswith("GymV2")
        and not str(spec.entry_point).startswith(moved)
        and (atari.is_of_ale(name) or not atari.is_game(spec))  # of the hundreds of older ids of the same games
    ]


def ids_of_package(module: str) -> list[str]:
    """Return the registered ids whose environments are made by code of a module's package."""
    package = module.partition(".")[0]
    found = []
    for name, spec in gym.registry.items():
        entry = spec.entry_point
        where = entry if isinstance(entry, str) else getattr(entry, "__module__", None) or ""
        if where.partition(":")[0].partition(".")[0] == package:
            found.append(name)
    return found


def nearest_ids(name: str, known: list[str]) -> list[str]:
    """Return up to three known ids that ``name`` most likely stands for.

    The same name in another case, version or namespace comes first, the newest version before older ones.
    """
    same = [candidate for candidate in known if _bare(candidate) == _bare(name)]
    version = _VERSION.search(name)
    same.sort(key=lambda candidate: (version is None or not candidate.endswith(version[0]), -_version(candidate)))
    close = [candidate for candidate in nearest(name, known) if candidate not in same]
    return [*same, *close][:3] if len(same) != 1 else same


def _bare(name: str) -> str:
    return _VERSION.sub("", name.rpartition("/")[2]).lower()


def _version(name: str) -> float:
    match = _VERSION.search(name)
    return float(match[1]) if match else math.inf
