"""From what a user types to an environment: ids, backends, settings and wrappers.

``HalfCheetah-v5`` is EnvPool's where that is installed and has it, else Gymnasium's; ``module:EnvId`` is Gymnasium's
once the user's module has been imported; ``gymnasium/``, ``envpool/``, ``jax/``, ``gymnax/`` and ``brax/`` in front
choose a backend; ``jax/module:Name`` is a user's own compiled environment.

A user's module is imported only for an :class:`EnvironmentId` that came from :func:`resolve`, never for one read from a
file.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import math
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import gymnasium as gym

from jumar.envs import atari, pool
from jumar.envs.gymnasium_factory import (
    GymnasiumFactory,
    Wrappers,
    check_wrapper,
    find_wrapper,
    ids_of_package,
    import_module,
    is_own_wrapper,
    nearest_ids,
    registered_ids,
)
from jumar.envs.host import HostEnvironments, SerialEnvironments, Warn
from jumar.envs.step_costs import GIVEN, Cost
from jumar.errors import UsageError
from jumar.fields import choice, exact_record, flag, made_by, mapping, optional, several, text, whole
from jumar.text import repeat_words, wrapper_words

if TYPE_CHECKING:
    from jumar.envs.compiled import CompiledEnvironment

TypedWrapper = str | tuple[str, Mapping[str, Any]]
"""A wrapper as it is typed, ``NAME:key=value``, or its name and its settings."""

BACKENDS = ("gymnasium", "envpool", "jax", "gymnax", "brax")
COMPILED_BACKENDS = ("jax", "gymnax", "brax")

_MODULE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")
LONGEST_ID = 300
"""Characters of an environment's id, with its module."""
MOST_FRAMES = 1000
"""Of a frame stack. Atari's have 4; each frame takes the memory of an observation in every copy of the environment."""
MOST_WRAPPERS = 100
MOST_GUESSES = 3
"""How many ids of a user's own a message names, where none is like what was typed."""


class Settings(Mapping[str, Any]):
    """Settings of an environment: a mapping that cannot be changed and holds only what JSON can hold.

    Raises:
        UsageError: for a value that is no number, text, true, false, none or list of these.
    """

    def __init__(self, values: Mapping[str, Any] | None = None) -> None:
        for key, value in (values or {}).items():
            _check_setting(key, value)
        self._text = json.dumps(dict(values or {}), sort_keys=True)
        self._values = json.loads(self._text)

    def __getitem__(self, key: str) -> Any:
        """Return the setting of that name."""
        return self._values[key]

    def __iter__(self) -> Iterator[str]:
        """Go through the names in alphabetical order."""
        return iter(self._values)

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._values)

    def __hash__(self) -> int:
        """Hash by content."""
        return hash(self._text)

    def __repr__(self) -> str:
        """Show the content."""
        return f"Settings({self._values!r})"


def _check_setting(key: Any, value: Any) -> None:
    if not isinstance(key, str):
        raise UsageError(f"the setting {key!r} of the environment must have a name.")
    for element in value if isinstance(value, (list, tuple)) else (value,):
        if isinstance(element, (list, tuple)):
            _check_setting(key, element)
        elif element is not None and type(element) not in (bool, int, float, str):
            raise UsageError(
                f"the setting {key} of the environment is a {type(element).__name__}; it must be a number, text, "
                "true, false, none or a list of these."
            )
        elif isinstance(element, float) and not math.isfinite(element):
            raise UsageError(f"the setting {key} of the environment is {element}; it must be finite.")


@dataclass(frozen=True)
class EnvironmentId:
    """Which environment a run is about: all that is needed to make it again.

    ``text`` is what was typed, ``backend`` one of :data:`BACKENDS`, ``name`` the id without backend and module,
    ``module`` the user's own module that has to be imported first. ``wrappers`` are applied in order, the stack of the
    last ``frame_stack`` observations after them; they are Gymnasium's, or the user's own (``module:Name``). ``atari``: whether
    it is a game that is prepared as :mod:`jumar.envs.atari` says. ``typed`` is true where the user typed it in this process:
    only then may modules of the user's be imported.
    """

    text: str
    backend: str
    name: str
    module: str | None = None
    kwargs: Settings = field(default_factory=Settings)
    frame_stack: int | None = None
    wrappers: Wrappers = ()
    atari: bool = False
    typed: bool = field(default=False, compare=False, repr=False)

    @property
    def compiled(self) -> bool:
        """Whether it is a JAX environment, stepped inside the compiled program."""
        return self.backend in COMPILED_BACKENDS

    @property
    def full_name(self) -> str:
        """The id with its backend and module, which resolves to the same environment wherever it is typed."""
        return f"{self.backend}/" + (f"{self.module}:" if self.module else "") + self.name

    @property
    def own_wrappers(self) -> list[str]:
        """The names of the wrappers that are code of the user's own, the innermost first."""
        return [name for name, _ in self.wrappers if is_own_wrapper(name)]

    @property
    def own_name(self) -> str | None:
        """What the user types as ``--env`` where the environment is code of their own."""
        return self.full_name.removeprefix("gymnasium/") if self.module is not None else None

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {
            "text": self.text,
            "backend": self.backend,
            "name": self.name,
            "module": self.module,
            "kwargs": dict(self.kwargs),
            "frame_stack": self.frame_stack,
            "wrappers": [[name, dict(settings)] for name, settings in self.wrappers],
            "atari": self.atari,
        }

    @classmethod
    def from_json(cls, data: Any) -> EnvironmentId:
        """Read plain data back; nothing is imported, neither now nor when the environment is made.

        It is a reader of :mod:`jumar.fields`.

        Raises:
            DamagedEntry: where the data is malformed.
        """
        # What was written before there was the entry does not have it.
        return cls(**_READ_ID({"atari": False, **mapping(data)}))


def _read_wrapper(value: Any) -> tuple[str, Any]:
    name, settings = several(lambda each: each, 2, 2)(value)
    return text()(name), mapping(settings)


def _check_frame_stack(frame_stack: Any) -> None:
    if frame_stack is not None and (type(frame_stack) is not int or not 1 <= frame_stack <= MOST_FRAMES):
        raise UsageError(f"the frame stack is {frame_stack!r}; it must be a whole number from 1 to {MOST_FRAMES}.")


def _check_wrappers(wrappers: Iterable[TypedWrapper]) -> Wrappers:
    checked = []
    for wrapper in wrappers:
        name, settings = parse_wrapper(wrapper) if isinstance(wrapper, str) else wrapper
        check_wrapper(name)
        checked.append((name, tuple(Settings(dict(settings)).items())))
    return tuple(checked)


_READ_ID = exact_record(
    text=text(),
    backend=choice(*BACKENDS),
    # A colon in the name would make Gymnasium import a module.
    name=text(_NAME.pattern, "an environment's id"),
    module=optional(text(_MODULE.pattern, "the name of a Python module")),
    kwargs=made_by(Settings, mapping),
    frame_stack=optional(whole(1, MOST_FRAMES)),
    wrappers=made_by(_check_wrappers, several(_read_wrapper, most=MOST_WRAPPERS)),
    atari=flag,
)


# --- reading what the user typed -----------------------------------------------------------------------------------


def parse_assignments(assignments: Iterable[str]) -> dict[str, Any]:
    """Read ``key=value`` words: true, false, none, whole and decimal numbers, JSON lists, else text.

    A value in double quotes is always text: ``name="true"``.

    Raises:
        UsageError: for a word without ``=``, a key given twice, or a list that is no JSON.
    """
    values: dict[str, Any] = {}
    for assignment in assignments:
        key, equals, value = assignment.partition("=")
        if not equals or not key.isidentifier():
            raise UsageError(f"{assignment!r} is no setting; write it as key=value.")
        if key in values:
            raise UsageError(f"the setting {key} is given twice.")
        values[key] = _parse_value(assignment, value)
    return values


def _parse_value(assignment: str, value: str) -> Any:
    words = {"true": True, "false": False, "none": None}
    if value.lower() in words:
        return words[value.lower()]
    if re.fullmatch(r"[+-]?\d+", value):
        return int(value)
    if re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", value):
        return float(value)
    if value.startswith(("[", '"')):
        try:
            return json.loads(value)
        except ValueError as error:
            raise UsageError(f"the value in {assignment!r} is not valid JSON: {error}.") from error
    return value


def parse_wrapper(text: str) -> tuple[str, dict[str, Any]]:
    """Read ``Name`` or ``Name:key=value,key=value``; the name may be ``module:Name``.

    Raises:
        UsageError: where it is malformed.
    """
    try:
        name, assignments = wrapper_words(text)
    except ValueError:
        raise UsageError(f"the wrapper {text!r} is not NAME or NAME:key=value,...") from None
    return name, parse_assignments(assignments)


def resolve(
    text: str,
    kwargs: Mapping[str, Any] | None = None,
    frame_stack: int | None = None,
    wrappers: Sequence[TypedWrapper] = (),
    workers: int = 0,
    atari_games: bool = False,
) -> EnvironmentId:
    """Find the environment that a user's ``text`` names, importing the module where it names one.

    Without a backend EnvPool is chosen where it is installed, has the id and takes the settings; frame stacks, wrappers
    and worker processes are Gymnasium's. ``atari_games``: prepare a game as :mod:`jumar.envs.atari` says.

    Raises:
        UsageError: unknown id (with the nearest ones), setting or wrapper; a missing package; a module that cannot be
            imported; what is no Atari game where one is needed.
    """
    settings = Settings(kwargs)
    _check_frame_stack(frame_stack)
    checked = _check_wrappers(wrappers)
    for wrapper, _ in checked:
        find_wrapper(wrapper)
    backend, module, name = _split(text)
    if module is not None and backend != "jax":
        import_module(module, text)
    if backend is None:
        plain = module is None and frame_stack is None and not checked and not workers
        backend = _choose(text, name, settings) if plain else "gymnasium"
    if checked and backend != "gymnasium":
        raise UsageError(f"wrappers are Gymnasium's; use gymnasium/{name} instead of {text}.")
    if frame_stack is not None and backend == "envpool":
        raise UsageError(f"a frame stack is not EnvPool's; use gymnasium/{name}, or EnvPool's own frame_stack setting.")
    _CHECKS[backend](text, name, module, settings)
    if atari_games:
        _check_atari(text, backend, name)
        atari.check_settings(text, settings, frame_stack)
    return EnvironmentId(text, backend, name, module, settings, frame_stack, checked, atari_games, typed=True)


def _split(text: str) -> tuple[str | None, str | None, str]:
    """Split ``[backend/][module:]name``."""
    if len(text) > LONGEST_ID:
        raise UsageError(
            f"an environment's id has at most {LONGEST_ID} characters, and this one has {len(text):,}: {text[:40]!r}..."
        )
    head, slash, rest = text.partition("/")
    backend = head if slash and head in BACKENDS else None
    rest = rest if backend else text
    module, colon, name = rest.rpartition(":")
    if backend in (None, "gymnasium", "jax") and colon and not _MODULE.fullmatch(module):
        raise UsageError(f"unknown environment {text!r}: {module!r} is no name of a Python module.")
    if not _NAME.fullmatch(name) or (colon and backend not in (None, "gymnasium", "jax")):
        raise UsageError(f"unknown environment {text!r}; write an id such as CartPole-v1, or module:Id.")
    return backend, module if colon else None, name


def is_unprepared_game(env_id: EnvironmentId) -> bool:
    """Whether it is an Atari game as its package makes it, and not as :mod:`jumar.envs.atari` prepares it."""
    return not env_id.atari and _is_game(env_id.backend, env_id.name)


def _is_game(backend: str, name: str) -> bool:
    if backend == "gymnasium":
        return name in gym.registry and atari.is_game(gym.registry[name])
    return backend == "envpool" and pool.is_game(name)


def _check_atari(text: str, backend: str, name: str) -> None:
    if not _is_game(backend, name):
        raise UsageError(
            f"{text} is not an Atari game that --atari prepares: take one of Gymnasium's, such as gymnasium/ALE/Pong-v5, or of "
            "EnvPool's, such as envpool/Pong-v5."
        )


def _known_to_gymnasium(text: str, name: str) -> bool:
    """Whether Gymnasium has an id; those of ALE's are registered where its package is installed.

    Raises:
        UsageError: it is not.
    """
    if name not in gym.registry and atari.is_of_ale(name) and not atari.register():
        raise atari.missing_package(text)
    return name in gym.registry


def _choose(text: str, name: str, settings: Settings) -> str:
    if pool.available(name):
        try:
            pool.check_settings(name, settings)
        except UsageError:
            if name not in gym.registry:
                raise
        else:
            return "envpool"
    if not _known_to_gymnasium(text, name):
        raise _unknown(text, name, None)
    return "gymnasium"


def _check_gymnasium(text: str, name: str, module: str | None, settings: Settings) -> None:
    if not _known_to_gymnasium(text, name):
        raise _unknown(text, name, "gymnasium") if module is None else _not_in_module(text, name, module)


def _check_envpool(text: str, name: str, module: str | None, settings: Settings) -> None:
    if not pool.installed():
        raise UsageError(f"{text} needs EnvPool, which is not installed: pip install 'jumar[envpool]'.")
    if not pool.available(name):
        raise _unknown(text, name, "envpool")
    pool.check_settings(name, settings)


def _check_jax(text: str, name: str, module: str | None, settings: Settings) -> None:
    if module is None and name not in _own_compiled():
        raise _unknown(text, name, "jax")


def _check_package(package: str) -> Callable[[str, str, str | None, Settings], None]:
    def check(text: str, name: str, module: str | None, settings: Settings) -> None:
        if importlib.util.find_spec(package) is None:
            raise UsageError(f"{text} needs {package}, which is not installed: pip install 'jumar[{package}]'.")

    return check


_CHECKS: dict[str, Callable[[str, str, str | None, Settings], None]] = {
    "gymnasium": _check_gymnasium,
    "envpool": _check_envpool,
    "jax": _check_jax,
    "gymnax": _check_package("gymnax"),
    "brax": _check_package("brax"),
}


def _own_compiled() -> Mapping[str, Callable[..., CompiledEnvironment]]:
    from jumar.envs.classic_control import ENVIRONMENTS
    from jumar.envs.game_2048 import Game2048

    return {**ENVIRONMENTS, "2048-v0": Game2048}


def _not_in_module(text: str, name: str, module: str) -> UsageError:
    """Return the error for an id that no module has registered, with those that the user's own has."""
    found = getattr(sys.modules.get(module), name, None)
    if callable(found) or hasattr(found, "step"):
        if not (isinstance(found, gym.Env) or (isinstance(found, type) and issubclass(found, gym.Env))):
            return UsageError(
                f"unknown environment {text!r}; did you mean jax/{module}:{name}, a compiled environment?"
            )
        return UsageError(
            f"unknown environment {text!r}: {name} is in {module}, but has no id; register it there: "
            f'gymnasium.register(id="{name}-v0", entry_point="{module}:{name}"), and write {module}:{name}-v0.'
        )
    own = ids_of_package(module)
    guesses = nearest_ids(name, own) or own[:MOST_GUESSES]
    if not guesses:
        return UsageError(
            f"unknown environment {text!r}; {module} has registered none: gymnasium.register(id=..., entry_point=...) does."
        )
    return UsageError(
        f"unknown environment {text!r}; did you mean {' or '.join(f'{module}:{guess}' for guess in guesses)}?"
    )


def _unknown(text: str, name: str, backend: str | None) -> UsageError:
    """Return the error for an unknown id, with the nearest ids of the backend, else of all backends."""
    atari.register()
    by_backend = {"gymnasium": registered_ids, "envpool": pool.ids, "jax": lambda: list(_own_compiled())}
    guesses: list[str] = []
    if backend is not None:
        guesses = [f"{backend}/{guess}" for guess in nearest_ids(name, by_backend[backend]())]
    if not guesses:
        known = list(dict.fromkeys([*registered_ids(), *pool.ids()]))
        guesses = [*([f"jax/{name}"] if name in _own_compiled() else []), *nearest_ids(name, known)]
    own = backend in (None, "gymnasium")
    if own and (module := _module_here(name)) is not None:
        guesses.insert(0, f"{module}:{name}")
    hint = f"did you mean {' or '.join(guesses)}?" if guesses else "jumar list envs shows all."
    return UsageError(f"unknown environment {text!r}; {hint}" + " (One of your own is module:EnvId.)" * own)


def _module_here(name: str) -> str | None:
    """Return the module in this folder that is called as an id is, ``stock`` for ``Stock-v0``; ``None`` if there is none."""
    module = re.sub(r"-v\d+$", "", name).lower()
    return module if module.isidentifier() and os.path.isfile(f"{module}.py") else None


# --- making environments -------------------------------------------------------------------------------------------


def make_host(
    env_id: EnvironmentId,
    n_envs: int,
    workers: int = 0,
    *,
    cost: Cost = GIVEN,
    log: Sequence[str] = (),
    warn: Warn | None = None,
    patience: float = 60.0,
    use: atari.Use = "training",
) -> HostEnvironments:
    """Make ``n_envs`` host environments: EnvPool's, or Gymnasium's in this process or in ``workers`` processes.

    ``use`` says what they are made for, which makes a difference for Atari games.
    A call that does not return within ``patience`` seconds ends in an error where it is made in a worker process, and
    in a call of ``warn`` where it is made in this one. ``log`` are entries of ``info`` that are kept as numbers.

    Raises:
        UsageError: where the environment cannot be made.
        EnvironmentFault: where making it raises.
    """
    _check_may_import(env_id)
    if env_id.backend == "envpool":
        if workers:
            raise UsageError(f"EnvPool steps in threads of its own; use gymnasium/{env_id.name} for worker processes.")
        kwargs = atari.pool_settings(env_id.kwargs, use) if env_id.atari else env_id.kwargs
        return pool.EnvPoolEnvironments(env_id.name, n_envs, kwargs, cost=cost, log=log, warn=warn, patience=patience)
    if env_id.compiled:
        raise UsageError(f"{env_id.text} is a compiled environment; it is not stepped from Python.")
    factory = gymnasium_factory(env_id, use)
    factories = [factory] * n_envs
    if workers:
        from jumar.envs.workers import WorkerEnvironments

        return WorkerEnvironments(factories, workers, env_id.text, cost=cost, log=log, timeout=patience)
    # By its id, so that Gymnasium warns, once, where there is a newer version.
    factories[0] = replace(factory, source=env_id.name)
    return SerialEnvironments(factories, env_id.text, cost=cost, log=log, warn=warn, patience=patience)


def gymnasium_factory(env_id: EnvironmentId, use: atari.Use) -> GymnasiumFactory:
    """Return what makes one of Gymnasium's environments; it can be sent to a worker process.

    Raises:
        UsageError: there is no such id, or it is code of the user's own that was not typed.
    """
    _check_may_import(env_id)
    if env_id.module is not None:
        import_module(env_id.module, env_id.text)
    if not _known_to_gymnasium(env_id.text, env_id.name):
        raise _unknown(env_id.text, env_id.name, "gymnasium")
    # The spec travels to a worker process where the id may not be registered.
    spec, purpose = gym.registry[env_id.name], use if env_id.atari else None
    return GymnasiumFactory(spec, dict(env_id.kwargs), env_id.wrappers, env_id.frame_stack, purpose)


def in_gymnasium(env_id: EnvironmentId) -> EnvironmentId:
    """Return the same environment of Gymnasium's for one of EnvPool's.

    Raises:
        UsageError: Gymnasium has none of the name, or does not take its settings.
    """
    name = f"gymnasium/ALE/{env_id.name}" if env_id.atari else f"gymnasium/{env_id.name}"
    return resolve(name, env_id.kwargs, atari_games=env_id.atari)


def _check_may_import(env_id: EnvironmentId) -> None:
    if env_id.typed or not (env_id.own_name or env_id.own_wrappers):
        return
    what = f"the environment is code of the module {env_id.module!r}"
    if env_id.module is None:
        what = f"the wrapper {env_id.own_wrappers[0]} is code of your own"
    raise UsageError(
        f"{what}, and nothing named by a file is imported; repeat"
        f"{repeat_words(env_id.own_name, env_id.own_wrappers)} to allow it."
    )


def make_compiled(env_id: EnvironmentId) -> CompiledEnvironment:
    """Make a compiled environment: Jumar's own, the user's, gymnax's or Brax's.

    Raises:
        UsageError: where it cannot be made.
    """
    _check_may_import(env_id)
    if not env_id.compiled:
        raise UsageError(f"{env_id.text} is stepped from Python; it is not a compiled environment.")
    env = _make_compiled(env_id)
    if env_id.frame_stack is None:
        return env
    from jumar.envs.compiled import FrameStack

    return FrameStack(env, env_id.frame_stack)


def _make_compiled(env_id: EnvironmentId) -> CompiledEnvironment:
    kwargs = dict(env_id.kwargs)
    if env_id.backend == "gymnax":
        from jumar.envs.gymnax import make_gymnax

        return make_gymnax(env_id.name, kwargs)
    if env_id.backend == "brax":
        from jumar.envs.brax import make_brax

        return make_brax(env_id.name, kwargs)
    from jumar.envs.compiled_check import load_user_environment
    from jumar.envs.user_code import construct

    if env_id.module is not None:
        return load_user_environment(f"{env_id.module}:{env_id.name}", kwargs)
    own = _own_compiled()
    if env_id.name not in own:
        raise _unknown(env_id.text, env_id.name, "jax")
    return construct(own[env_id.name], env_id.text, kwargs)


def list_environments() -> list[tuple[str, str]]:
    """Return all environments that are here: the id to type, with its backend, and a line about it."""
    found = [(f"jax/{name}", "Jumar's own, compiled") for name in _own_compiled()]
    atari.register()
    for name in registered_ids():
        limit = gym.registry[name].max_episode_steps
        found.append((f"gymnasium/{name}", "Gymnasium" + (f", at most {limit} steps" if limit else "")))
    found += [(f"envpool/{name}", "EnvPool") for name in pool.ids()]
    for package in ("gymnax", "brax"):
        found += [(f"{package}/{name}", f"{package}, compiled") for name in _names_of(package)]
    return found


def _names_of(package: str) -> tuple[str, ...]:
    if importlib.util.find_spec(package) is None:
        return ()
    return importlib.import_module(f"jumar.envs.{package}").NAMES
