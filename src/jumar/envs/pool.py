"""EnvPool: environments stepped by a pool of threads in compiled code.

EnvPool resets itself in NEXT_STEP mode: the step that ends an episode returns the true last observation, and the step
after it ignores the action and returns the first observation of the next episode with reward 0. That row is no
experience, and ``valid`` says so. Where an episode both terminates and meets its time limit in the same step, EnvPool
itself reports a truncation only.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any

import numpy as np
from gymnasium import Space, spaces

from jumar.envs.atari import check_sticky
from jumar.envs.batches import Batch, Misfit
from jumar.envs.boundary import Boundary, Extras, explain
from jumar.envs.goals import Goals, pool_rewards
from jumar.envs.host import HostStep, Warn, start_watchdog
from jumar.envs.step_costs import GIVEN, Cost, lacking
from jumar.errors import UsageError, unknown
from jumar.spaces import check_spaces

# Settings of the pool itself and not of the environment.
_RESERVED = {
    "base_path",
    "batch_size",
    "env_seed",
    "gym_reset_return_info",
    "max_num_players",
    "num_envs",
    "num_threads",
    "seed",
    "thread_affinity_offset",
}
_NO_LIMIT = 2**31 - 1
_SEEDS = 2**31  # EnvPool's seeds are 32-bit signed numbers


def installed() -> bool:
    """Return whether EnvPool is installed, without importing it."""
    return importlib.util.find_spec("envpool") is not None


def _envpool() -> ModuleType:
    if not installed():
        raise UsageError("EnvPool is not installed: pip install 'jumar[envpool]', or use gymnasium/ID.")
    try:
        return importlib.import_module("envpool")
    except ImportError as error:
        raise UsageError(f"EnvPool is installed but cannot be imported: {explain(error)}.") from error


def ids() -> list[str]:
    """Return the ids that EnvPool has; none where it is not installed."""
    return list(_envpool().list_all_envs()) if installed() else []


def available(name: str) -> bool:
    """Return whether EnvPool is installed and has the id."""
    return installed() and name in ids()


def settings(name: str) -> dict[str, Any]:
    """Return the settings that an environment takes, with their defaults."""
    config = _quietly(lambda: _envpool().make_spec(name).config)
    return {key: value for key, value in config._asdict().items() if key not in _RESERVED}


def check_settings(name: str, kwargs: Mapping[str, Any]) -> None:
    """Refuse settings that the environment does not take.

    Raises:
        UsageError: with the nearest names, or the default where the value does not fit.
    """
    if not kwargs:
        return
    known = settings(name)
    for key in kwargs:
        if key not in known:
            raise unknown(f"setting of envpool/{name}", key, known)
    try:
        _quietly(lambda: _envpool().make_spec(name, **kwargs))
    except Exception as error:
        given = ", ".join(f"{key}={value!r} (default {known[key]!r})" for key, value in kwargs.items())
        raise UsageError(f"envpool/{name} does not take {given}.") from error
    # EnvPool itself takes any number.
    limit = kwargs.get("max_episode_steps", _NO_LIMIT)
    if limit < 1:
        raise UsageError(f"max_episode_steps={limit!r} of envpool/{name} must be at least 1.")
    check_sticky(f"envpool/{name}", kwargs)


def is_game(name: str) -> bool:
    """Whether an id is one of an Atari game."""
    return {"episodic_life", "repeat_action_probability"} <= settings(name).keys()


def _quietly(make: Callable[[], Any]) -> Any:
    with warnings.catch_warnings():  # about bounds that EnvPool declares in double precision
        warnings.filterwarnings("ignore", message=".*precision lowered.*")
        return make()


def _stacked_frames(config: Any, space: Space) -> int:
    """Return how many frames an Atari game's observation stacks; 1 for other environments, of whose stacks nothing is known."""
    is_atari = hasattr(config, "episodic_life") and hasattr(config, "stack_num")
    return config.stack_num if is_atari and (space.shape or ())[:1] == (config.stack_num,) else 1


class EnvPoolEnvironments:
    """N environments of one EnvPool id; a :class:`~jumar.envs.host.HostEnvironments`.

    A pool cannot be seeded twice, so ``reset`` builds a new one. ``last_info`` holds what the last call gave as info,
    arrays with a leading axis N. ``num_threads`` is the number of EnvPool's threads (as many as processors by default);
    results do not depend on it. ``cost`` says what a step costs, ``log`` which entries of ``info`` are kept as numbers.

    Raises:
        UsageError: where EnvPool, the id, a setting or what the cost is made of is missing, or the environment has
            several players or an unsupported space.
    """

    resets_take_steps = True
    left_out: tuple[str, ...] = ()
    hides_mask = False

    def __init__(
        self,
        name: str,
        n_envs: int,
        kwargs: Mapping[str, Any] | None = None,
        num_threads: int | None = None,
        *,
        cost: Cost = GIVEN,
        log: Sequence[str] = (),
        warn: Warn | None = None,
        patience: float = 60.0,
    ) -> None:
        self._envpool = _envpool()
        if name not in ids():
            raise unknown("EnvPool environment", name, ids())
        kwargs = dict(kwargs or {})
        check_settings(name, kwargs)
        self._id = name
        self._options = {**kwargs, "num_envs": n_envs, "num_threads": num_threads or 0}
        spec = _quietly(lambda: self._envpool.make_spec(name, **self._options))
        self.n_envs = n_envs
        self.name = f"envpool/{name}"
        self.observation_space: Space = _quietly(lambda: spec.gymnasium_observation_space)
        self.action_space: Space = _quietly(lambda: spec.gymnasium_action_space)
        if spec.config.max_num_players != 1:
            raise UsageError(f"{self.name} has {spec.config.max_num_players} players; Jumar trains single agents.")
        check_spaces(self.observation_space, self.action_space, self.name)
        limit = int(spec.config.max_episode_steps)
        self.episode_limit = limit if 0 < limit < _NO_LIMIT else None
        self.frames = _stacked_frames(spec.config, self.observation_space)
        self._rewards_of = pool_rewards(name, spec.config._asdict())
        action = list(spec.action_array_spec.values())[-1]
        self._action_dtype = np.dtype(action.dtype)
        self._action_shape = (n_envs, *(length for length in action.shape if length != -1))
        self.last_info: dict[str, Any] = {}
        self._pool: Any = None
        self._ended = np.zeros(n_envs, dtype=bool)
        self._progress = [-1, 0]
        self._boundary = Boundary(self.name, n_envs, self.observation_space, self.action_space, self._progress)
        self.cost = cost
        self.never_costs = f"info:{cost.entry}" not in spec.state_array_spec
        if cost.required and self.never_costs:
            raise lacking(cost.entry, self.name)
        self._extras = Extras(n_envs, self.action_space, cost, log)
        self._watchdog = start_watchdog(self, self._progress, warn, patience)

    def reset(self, seeds: Sequence[int]) -> tuple[Batch, np.ndarray | None]:
        """Build a new pool, environment i from ``seeds[i]`` alone (modulo 2^31); return observations and masks."""
        if len(seeds) != self.n_envs:
            raise ValueError(f"{len(seeds)} seeds for {self.n_envs} environments")
        self._progress[1] = 0
        self._ended = np.zeros(self.n_envs, dtype=bool)
        self._release()
        observations, self.last_info = self._call(lambda: self._start([int(seed) % _SEEDS for seed in seeds]), "reset")
        batch = self._boundary.observations_from_vector(self._own_shape(self.observation_space, observations))
        self._read_extras(with_costs=False)
        return batch, self._extras.masks()

    def _start(self, seeds: list[int]) -> tuple[Any, dict[str, Any]]:
        self._pool = _quietly(lambda: self._envpool.make_gymnasium(self._id, seed=seeds, **self._options))
        return _quietly(self._pool.reset)

    def step(self, actions: Any) -> HostStep:
        """Act once in every environment; see :class:`~jumar.envs.host.HostEnvironments`."""
        self._progress[1] += 1
        prepared = self._boundary.prepare_actions(actions).astype(self._action_dtype, copy=False)
        prepared = prepared.reshape(self._action_shape)
        result = self._call(lambda: self._pool.step(prepared), "step")
        observations, rewards, terminated, truncated, self.last_info = result
        batch = self._boundary.observations_from_vector(self._own_shape(self.observation_space, observations))
        valid = ~self._ended
        self._ended = terminated | truncated
        self._read_extras()
        logged = self._extras.infos()
        return HostStep(
            batch,
            self._boundary.read_rewards(rewards),
            terminated,
            truncated & ~terminated,
            batch,
            valid,
            self._extras.masks(),
            self._extras.costs(),
            self._boundary.complaint(self._extras),
            logged,
            None if logged is None else self._boundary.info_complaints(self._extras),
            self._extras.new_numbers,
        )

    def _call(self, function: Callable[[], Any], call: str) -> Any:
        if self._watchdog is not None:
            self._watchdog.begin()
        try:
            return function()
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            self._boundary.fail(None, error, call)
        finally:
            if self._watchdog is not None:
                self._watchdog.end()

    def _read_extras(self, with_costs: bool = True) -> None:
        try:
            self._extras.read_vector_masks(self.last_info, range(self.n_envs), self._ended)
            if with_costs:
                self._extras.begin()
                self._extras.read_vector_costs(self.last_info, range(self.n_envs))
        except Misfit as misfit:
            self._boundary.fail(None, misfit)

    def _own_shape(self, space: Space, value: Any) -> Any:
        """Give single numbers the shape of their space: EnvPool has them with or without an axis of length one."""
        if isinstance(space, spaces.Dict) and isinstance(value, Mapping):
            return {key: self._own_shape(child, value[key]) for key, child in space.spaces.items() if key in value}
        if isinstance(space, spaces.Discrete) and np.shape(value) == (self.n_envs, 1):
            return np.reshape(value, self.n_envs)
        return value

    @property
    def compilable(self) -> bool:
        """Whether :meth:`xla` serves: on Linux, and without masks in the last info (ask after a reset)."""
        return sys.platform == "linux" and "action_mask" not in self.last_info

    def xla(self) -> tuple[Any, Callable[[Any, Any], tuple[Any, tuple[Any, Any, Any, Any, dict[str, Any]]]]]:
        """Return ``(handle, step)`` for collecting inside one compiled program.

        ``step(handle, actions) -> (handle, (observations, rewards, terminated, truncated, info))`` may be traced by
        ``jax.jit`` and ``jax.lax.scan``. It belongs to the present pool: after ``reset`` ask for it anew, and compile
        anew, for the pool's address is part of the compiled program. Where the environment has double-precision
        arrays (MuJoCo), trace and run it under ``jax.enable_x64(True)``; ``actions`` are cast to the dtype EnvPool
        demands. None of the checks of :meth:`step` are made, and NEXT_STEP rows are the caller's to mark.

        Raises:
            UsageError: before the first ``reset``, and where EnvPool has no XLA calls (macOS, Windows).
        """
        if self._pool is None:
            raise UsageError(f"{self.name} must be reset before it is compiled.")
        try:
            handle, _, _, pool_step = self._pool.xla()
        except RuntimeError as error:
            raise UsageError(f"{self.name} cannot be compiled here: {explain(error)}.") from error

        def step(handle: Any, actions: Any) -> Any:
            return pool_step(handle, actions.astype(self._action_dtype).reshape(self._action_shape))

        return handle, step

    def _release(self) -> None:
        if self._pool is not None:
            self._pool.close()
            self._pool = None

    @property
    def rewards_goals(self) -> bool:
        """Whether it is known here how goals are rewarded."""
        return self._rewards_of is not None

    def rewards_of(self, goals: Goals) -> np.ndarray:
        """Return the rewards of many goals, by the formula of the environment: EnvPool itself cannot be asked."""
        assert self._rewards_of is not None
        return self._rewards_of(goals)

    def keep_infos(self, wanted: bool) -> None:
        """Do nothing: the formulas take no infos."""

    def close(self) -> None:
        """Stop the threads of the pool."""
        if self._watchdog is not None:
            self._watchdog.close()
        self._release()
