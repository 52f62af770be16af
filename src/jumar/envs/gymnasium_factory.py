"""Making Gymnasium environments from their registered specs, with wrappers by name."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
from gymnasium.envs.registration import EnvSpec, load_env_creator

from jumar.envs.boundary import explain
from jumar.errors import UsageError, nearest, unknown

# What breaks the convention (Autoreset), keeps statistics that no checkpoint would hold (Normalize...), serves a screen
# or a video, or converts to arrays other than NumPy's is not offered.
_REFUSED = {
    "Autoreset": "Jumar resets the environments itself",
    "NormalizeObservation": "its statistics would not be saved; use --normalize-observations",
    "NormalizeReward": "its statistics would not be saved; use --normalize-rewards",
}
_LEFT_OUT = {
    "ArrayConversion",
    "HumanRendering",
    "JaxToNumpy",
    "JaxToTorch",
    "NumpyToTorch",
    "RecordVideo",
    "RenderCollection",
    "vector",
}

Settings = tuple[tuple[str, Any], ...]
Wrappers = tuple[tuple[str, Settings], ...]


@dataclass(frozen=True)
class GymnasiumFactory:
    """A callable that makes one Gymnasium environment; it can be sent to a worker process.

    ``source`` is a registered id, or its spec (which also works where the id is not registered). Wrappers are applied
    in order, the stack of the last ``frame_stack`` observations after them.

    Raises (when called):
        UsageError: where a package is missing, or the settings do not fit.
    """

    source: str | EnvSpec
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    wrappers: Wrappers = ()
    frame_stack: int | None = None

    def __call__(self) -> gym.Env:
        """Make a new environment."""
        env = self._make()
        for name, settings in self.wrappers:
            env = _wrap(env, name, dict(settings))
        if self.frame_stack is not None:
            env = _wrap(env, "FrameStackObservation", {"stack_size": self.frame_stack})
        return env

    def _make(self) -> gym.Env:
        name = self.source if isinstance(self.source, str) else self.source.id
        try:
            # Gymnasium's own checker only warns, and slows down; Jumar checks every value itself.
            return gym.make(self.source, **{"disable_env_checker": True, **self.kwargs})
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
            self._blame_settings(name, error)
            raise

    def _blame_settings(self, name: str, error: Exception) -> None:
        if self.kwargs:
            settings = ", ".join(f"{key}={value}" for key, value in self.kwargs.items())
            raise UsageError(f"cannot make {name} with {settings}: {explain(error)}.") from error


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
    return UsageError(f"cannot make {name}: {said}")


# --- wrappers by name ----------------------------------------------------------------------------------------------


def known_wrappers() -> list[str]:
    """Return the names of Gymnasium's wrappers that can be asked for."""
    return sorted(set(gym.wrappers.__all__) - _LEFT_OUT - set(_REFUSED))


def check_wrapper(name: str) -> None:
    """Refuse a wrapper that does not exist, or that would break what Jumar promises.

    Raises:
        UsageError: with the nearest names, or the reason.
    """
    if name in _REFUSED:
        raise UsageError(f"the wrapper {name} is not offered: {_REFUSED[name]}.")
    known = known_wrappers()
    if name not in known:
        raise unknown("wrapper", name, known, {"FrameStack": "FrameStackObservation"})


def _wrap(env: gym.Env, name: str, settings: dict[str, Any]) -> gym.Env:
    check_wrapper(name)
    wrapper = getattr(gym.wrappers, name)
    takes = [key for key in inspect.signature(wrapper).parameters if key != "env"]
    for key in settings:
        if key not in takes:
            raise unknown(f"setting of the wrapper {name}", key, takes)
    try:
        return wrapper(env, **settings)
    except Exception as error:
        shown = ", ".join(f"{key}={value}" for key, value in settings.items()) or "no settings"
        raise UsageError(
            f"cannot put the wrapper {name} ({shown}) around the environment: {explain(error)}."
        ) from error


# --- ids -----------------------------------------------------------------------------------------------------------

_VERSION = re.compile(r"-v(\d+)$")


def registered_ids() -> list[str]:
    """Return the ids of Gymnasium's registry, without its adapters of old Gym and what was moved elsewhere."""
    moved = "gymnasium.envs.mujoco:"  # the v2 and v3 environments, which only raise
    return [
        name
        for name, spec in gym.registry.items()
        if not name.startswith("GymV2") and not str(spec.entry_point).startswith(moved)
    ]


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
