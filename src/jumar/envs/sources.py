"""Where a run's environments come from: an id that was typed, or objects passed from Python."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, cast

import gymnasium as gym

from jumar._stable_baselines3 import is_of_stable_baselines3
from jumar.envs import atari as atari_games
from jumar.envs.compiled import CompiledEnvironment, Costed, FrameStack
from jumar.envs.compiled_check import check_compiled_environment
from jumar.envs.gymnasium_factory import GymnasiumFactory, WrappedFactory, wrapper_name
from jumar.envs.host import HostEnvironments, SerialEnvironments, Warn, environment_name
from jumar.envs.registry import (
    EnvironmentId,
    TypedWrapper,
    gymnasium_factory,
    make_compiled,
    make_host,
    parse_wrapper,
    resolve,
)
from jumar.envs.step_costs import GIVEN, Cost
from jumar.errors import UsageError


class Source(Protocol):
    """Makes the environments of a run, and the separate ones of its evaluations."""

    @property
    def name(self) -> str:
        """What to call the environment."""
        ...

    @property
    def backend(self) -> str:
        """The backend."""
        ...

    @property
    def compiled(self) -> bool:
        """Whether the environment is written in JAX."""
        ...

    @property
    def rebuildable(self) -> bool:
        """Whether fresh environments can be made; a live object is all there is."""
        ...

    @property
    def cost(self) -> Cost:
        """What a step costs."""
        ...

    @property
    def time_limit_remedy(self) -> str:
        """How the user gives the environment a time limit, as a sentence."""
        ...

    def make_host(
        self, n_envs: int, workers: int, warn: Warn | None = None, log: Sequence[str] = ()
    ) -> HostEnvironments:
        """Make environments that are stepped from Python.

        ``warn`` hears of a step that does not return; ``log`` are entries of ``info`` that are kept as numbers.
        """
        ...

    def maker(self) -> Callable[[], gym.Env[Any, Any]]:
        """Return what makes one Gymnasium environment, here or in another process.

        Raises:
            UsageError: there is no such thing.
        """
        ...

    def make_compiled(self) -> CompiledEnvironment:
        """Make the compiled environment."""
        ...


ONE_BY_ONE = "and runners step copies of a Gymnasium environment one by one"
"""Why there are no runners for what is no Gymnasium environment, a part of a sentence."""
REPORT_TRUNCATED = "Give the environment a time limit: let it count its steps and report truncated after so many."
PUT_TIME_LIMIT = "Give the environment a time limit: gymnasium.wrappers.TimeLimit(env, max_episode_steps=200), say."


@dataclass(frozen=True)
class FromId:
    """Environments by their id."""

    id: EnvironmentId
    cost: Cost = GIVEN
    use: atari_games.Use = "training"
    """What the environments are for."""

    rebuildable = True

    @property
    def name(self) -> str:
        """The id with its backend."""
        return self.id.full_name

    @property
    def backend(self) -> str:
        """The backend."""
        return self.id.backend

    @property
    def compiled(self) -> bool:
        """Whether the environment is written in JAX."""
        return self.id.compiled

    @property
    def time_limit_remedy(self) -> str:
        """How the user gives the environment a time limit."""
        if self.compiled:
            return REPORT_TRUNCATED
        return (
            "Give the environment a time limit in training: --env-kwargs max_episode_steps=200, say "
            '(in Python env_kwargs={"max_episode_steps": 200}).'
        )

    def make_host(
        self, n_envs: int, workers: int, warn: Warn | None = None, log: Sequence[str] = ()
    ) -> HostEnvironments:
        """Make environments that are stepped from Python."""
        return make_host(self.id, n_envs, workers, cost=self.cost, log=log, warn=warn, use=self.use)

    def maker(self) -> Callable[[], gym.Env[Any, Any]]:
        """Return what makes one environment of Gymnasium's."""
        if self.compiled:
            raise UsageError(f"{self.name} is a compiled environment, {ONE_BY_ONE}.")
        if self.backend != "gymnasium":
            raise UsageError(f"{self.name} steps all copies together, {ONE_BY_ONE}; use gymnasium/{self.id.name}.")
        return gymnasium_factory(self.id, self.use)

    def make_compiled(self) -> CompiledEnvironment:
        """Make the compiled environment."""
        return with_cost(make_compiled(self.id), self.cost, self.name)


@dataclass(frozen=True)
class FromCallable:
    """Environments made by a function of the user's."""

    make: Callable[[], gym.Env[Any, Any]]
    name: str
    cost: Cost = GIVEN

    backend = "gymnasium"
    compiled = False
    rebuildable = True
    time_limit_remedy = PUT_TIME_LIMIT

    def make_host(
        self, n_envs: int, workers: int, warn: Warn | None = None, log: Sequence[str] = ()
    ) -> HostEnvironments:
        """Call the function ``n_envs`` times."""
        if workers:
            from jumar.envs.workers import WorkerEnvironments

            return WorkerEnvironments([self.make] * n_envs, workers, self.name, cost=self.cost, log=log)
        return SerialEnvironments([self.make] * n_envs, self.name, warn=warn, cost=self.cost, log=log)

    def maker(self) -> Callable[[], gym.Env[Any, Any]]:
        """Return the function."""
        return self.make

    def make_compiled(self) -> CompiledEnvironment:
        """Refuse: a function makes Gymnasium environments."""
        raise UsageError(f"{self.name} is not a compiled environment.")


@dataclass(frozen=True)
class FromObject:
    """A live Gymnasium environment or vector environment: it can be reset, not made anew."""

    object: Any
    name: str
    cost: Cost = GIVEN

    backend = "gymnasium"
    compiled = False
    rebuildable = False
    time_limit_remedy = PUT_TIME_LIMIT

    def make_host(
        self, n_envs: int, workers: int, warn: Warn | None = None, log: Sequence[str] = ()
    ) -> HostEnvironments:
        """Wrap the object; it must hold ``n_envs`` environments."""
        if isinstance(self.object, gym.vector.VectorEnv):
            from jumar.envs.vector import VectorAdapter

            return VectorAdapter(self.object, self.name, warn=warn, cost=self.cost, log=log)
        if n_envs != 1:
            raise UsageError(
                f"n_envs={n_envs}, but {self.name} is one live environment; pass a function that makes one."
            )
        return SerialEnvironments([self.object], self.name, warn=warn, cost=self.cost, log=log)

    def maker(self) -> Callable[[], gym.Env[Any, Any]]:
        """Refuse: it cannot be made anew."""
        raise UsageError(
            f"{self.name} is one live object, {ONE_BY_ONE}; pass an id or a function that makes an environment."
        )

    def make_compiled(self) -> CompiledEnvironment:
        """Refuse: it is a Gymnasium environment."""
        raise UsageError(f"{self.name} is not a compiled environment.")


@dataclass(frozen=True)
class FromCompiled:
    """A compiled environment of the user's."""

    object: CompiledEnvironment
    name: str
    cost: Cost = GIVEN

    backend = "jax"
    compiled = True
    rebuildable = True
    time_limit_remedy = REPORT_TRUNCATED

    def make_host(
        self, n_envs: int, workers: int, warn: Warn | None = None, log: Sequence[str] = ()
    ) -> HostEnvironments:
        """Refuse: it is compiled."""
        raise UsageError(f"{self.name} is a compiled environment.")

    def maker(self) -> Callable[[], gym.Env[Any, Any]]:
        """Refuse: it is compiled."""
        raise UsageError(f"{self.name} is a compiled environment, {ONE_BY_ONE}.")

    def make_compiled(self) -> CompiledEnvironment:
        """Return the object."""
        return with_cost(self.object, self.cost, self.name)


def for_evaluation(source: Source) -> Source:
    """Return the source of the environments that a policy is evaluated in: without what is for training alone."""
    return replace(source, use="evaluation") if isinstance(source, FromId) else source


NO_ENVIRONMENT = "stored transitions"
"""What a run has in the place of an environment that learns from a data set without one."""


@dataclass(frozen=True, eq=False)
class NoEnvironment:
    """No environment: a run learns from a data set of these spaces, and nothing evaluates it."""

    spaces: tuple[gym.Space[Any], gym.Space[Any]]

    name = NO_ENVIRONMENT
    backend = "data"
    compiled = False
    rebuildable = False
    cost = GIVEN
    time_limit_remedy = ""

    def make_host(
        self, n_envs: int, workers: int, warn: Warn | None = None, log: Sequence[str] = ()
    ) -> HostEnvironments:
        """Refuse: there is none."""
        raise UsageError(
            "the run learns from stored transitions without an environment; give --env ENV to evaluate it in one."
        )

    def maker(self) -> Callable[[], gym.Env[Any, Any]]:
        """Refuse: there is none."""
        raise UsageError("the run learns from stored transitions, and steps no environment.")

    def make_compiled(self) -> CompiledEnvironment:
        """Refuse: there is none."""
        raise UsageError("the run learns from stored transitions without an environment.")


def with_cost(env: CompiledEnvironment, cost: Cost, name: str) -> CompiledEnvironment:
    """Return the environment, its steps costing what ``cost`` says.

    Raises:
        UsageError: it does not give what the cost is made of.
    """
    return env if cost == GIVEN else Costed(env, cost, name)


GivenWrapper = TypedWrapper | Callable[..., Any]
"""A wrapper as Python takes it: ``"NAME:key=value"``, a name and its settings, or a class or function of an env."""


def source_of(
    env: Any,
    *,
    frame_stack: int | None = None,
    cost: Cost = GIVEN,
    wrappers: Sequence[GivenWrapper] = (),
    kwargs: Mapping[str, Any] | None = None,
    atari: bool = False,
    one_by_one: bool = False,
) -> Source:
    """Return the source for what a user passed as an environment.

    Args:
        env: an id; a ``gymnasium.Env``; a function that makes one; a ``gymnasium.vector.VectorEnv``; or a compiled
            environment.
        frame_stack: stack the last so many observations (ids and compiled environments).
        cost: what a step costs.
        wrappers: put around Gymnasium environments, the innermost first. Those that have names, in Gymnasium or in a module
            of the user's, are remembered with an id; an id with one that has none is a function of the user's.
        kwargs: arguments of an environment given by its id.
        atari: whether it is the id of an Atari game, to be prepared as :mod:`jumar.envs.atari` says.
        one_by_one: whether copies are stepped one by one: an id without a backend is then Gymnasium's.

    Raises:
        UsageError: it is none of these, its frames cannot be stacked here, or it is no such game.
    """
    if isinstance(env, EnvironmentId):
        return FromId(env, cost)
    if kwargs is not None and not isinstance(kwargs, Mapping):
        raise UsageError(f"env_kwargs={kwargs!r} is not a dict; write env_kwargs={{'name': value}}.")
    given = tuple(map(_named, _listed(wrappers)))
    named = [(wrapper, settings) for wrapper, settings in given if isinstance(wrapper, str)]
    if atari not in (True, False):
        raise UsageError(f"atari={atari!r} must be True or False.")
    if atari and not (isinstance(env, str) and len(named) == len(given)):
        what = "wrappers that a module has" if isinstance(env, str) else "an environment given by its id"
        raise UsageError(f"atari=True is for {what}; training and evaluation each make the game in a way of their own.")
    if isinstance(env, str):
        if len(named) == len(given):
            found = resolve(env, kwargs, frame_stack, named, workers=int(one_by_one), atari_games=atari)
            return FromId(found, cost)
        return _by_function(resolve(env, kwargs, frame_stack, named, workers=1), given, cost)
    if kwargs:
        raise UsageError(
            "env_kwargs are for an environment given by its id; this one is made already, or by a function."
        )
    is_live = isinstance(env, (gym.Env, gym.vector.VectorEnv))
    parts = ("reset", "step", "params", "observation_space", "action_space")
    is_compiled = not is_live and all(hasattr(env, name) for name in parts)
    if frame_stack is not None and not is_compiled:
        raise UsageError(
            f"frame_stack={frame_stack} is for ids and compiled environments; wrap this one in "
            "gymnasium.wrappers.FrameStackObservation."
        )
    if given and (is_compiled or isinstance(env, gym.vector.VectorEnv)):
        kind = "a compiled environment" if is_compiled else "a vector environment"
        raise UsageError(f"wrappers are Gymnasium's, and {type(env).__name__} is {kind}; wrap it before it is passed.")
    if isinstance(env, gym.Env):
        return FromObject(WrappedFactory(lambda: env, given)(), environment_name(env), cost)
    if is_live:
        return FromObject(env, environment_name(env), cost)
    if is_compiled:
        name = type(env).__name__
        check_compiled_environment(env, name)
        return FromCompiled(env if frame_stack is None else FrameStack(env, frame_stack), name, cost)
    if callable(env):
        name = getattr(env, "__qualname__", type(env).__name__)
        make = cast(Callable[[], gym.Env[Any, Any]], env)
        return FromCallable(WrappedFactory(make, given) if given else make, name, cost)
    if is_of_stable_baselines3(env):
        said = f"{type(env).__name__} is an environment of Stable-Baselines3, which steps with another convention"
        raise UsageError(f"{said}: pass an id or a function that makes one environment, with n_envs=8, say.")
    raise UsageError(
        f"{env!r} is not an environment: pass an id such as 'CartPole-v1', a gymnasium.Env, a function that makes one, "
        "a gymnasium.vector.VectorEnv or a compiled environment."
    )


def _listed(wrappers: Any) -> list[GivenWrapper]:
    if wrappers is None or isinstance(wrappers, (str, Mapping)) or callable(wrappers):
        raise UsageError(f"wrappers={wrappers!r} is not a list; write wrappers=[...], the innermost first.")
    return list(wrappers)


def named_wrappers(wrappers: Sequence[GivenWrapper]) -> list[tuple[str, Mapping[str, Any]]]:
    """Return wrappers by name, with their settings.

    Raises:
        UsageError: one of them has no name.
    """
    given = [_named(wrapper) for wrapper in _listed(wrappers)]
    for wrapper, _ in given:
        if not isinstance(wrapper, str):
            raise UsageError(f"{wrapper!r} is in no module; the wrappers of a run are repeated by their names.")
    return [(wrapper, settings) for wrapper, settings in given if isinstance(wrapper, str)]


def _named(wrapper: Any) -> tuple[str | Callable[..., Any], Mapping[str, Any]]:
    """Return a wrapper by its name, or itself where it has none, with its settings."""
    if isinstance(wrapper, str):
        return parse_wrapper(wrapper)
    if isinstance(wrapper, (tuple, list)) and len(wrapper) == 2 and isinstance(wrapper[1], Mapping):
        name, _ = _named(wrapper[0])
        return name, wrapper[1]
    if not callable(wrapper):
        raise UsageError(
            f"{wrapper!r} is not a wrapper: write 'TimeLimit:max_episode_steps=200', ('TimeLimit', {{'max_episode_steps': "
            "200}), 'module:Name', or a class or function that takes an environment and returns one."
        )
    return wrapper_name(wrapper) or wrapper, {}


def _by_function(id: EnvironmentId, wrappers: tuple[Any, ...], cost: Cost) -> FromCallable:
    """Return the source of an id with wrappers that have no name, which no file can bring back."""
    if id.backend != "gymnasium":
        raise UsageError(f"wrappers are Gymnasium's; use gymnasium/{id.name} instead of {id.text}.")
    stack = () if id.frame_stack is None else (("FrameStackObservation", {"stack_size": id.frame_stack}),)
    make = GymnasiumFactory(gym.registry[id.name], dict(id.kwargs))
    return FromCallable(WrappedFactory(make, (*wrappers, *stack)), id.full_name, cost)
