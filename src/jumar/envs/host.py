"""Host environments: the convention that every Gymnasium-like backend is brought to, and the loop in this process.

A step of N environments yields a :class:`HostStep`. It always says both what to act on next and what truly followed,
so that a time limit can bootstrap, and it marks rows that are no experience. Bad values are refused before they reach a
policy, with an :class:`~jumar.errors.EnvironmentFault` that names the environment, its index, the step and the value.

Steps are counted from 1, and from the last ``reset`` of all environments together.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, MutableSequence, Sequence
from typing import Any, NamedTuple, Protocol

import gymnasium as gym
import numpy as np
from gymnasium import Space, spaces
from gymnasium.wrappers import FrameStackObservation, TimeLimit

from jumar.envs import batches
from jumar.envs.batches import Batch
from jumar.envs.boundary import Boundary, Extras, explain, read_flag, space_of
from jumar.envs.goals import Goals
from jumar.envs.step_costs import GIVEN, Cost
from jumar.envs.watchdog import Watchdog
from jumar.errors import EnvironmentFault, UnsupportedEnvironment, UsageError
from jumar.spaces import check_spaces, describe_space, same_space, without_text

Warn = Callable[[str], None]


class HostStep(NamedTuple):
    """What one step of N environments gave. All arrays have a leading axis N; they may be kept, but not written to.

    ``observations``: what to act on next, already after the reset where an episode ended in SAME_STEP backends.
    ``rewards``: float ``[N]``. ``terminated``, ``truncated``: bool ``[N]``, never both true: termination wins.
    ``successors``: the true successor observations, also where the episode ended. The same object as ``observations``
    where the two do not differ.
    ``valid``: bool ``[N]``; false where the row is no experience, because a NEXT_STEP backend only reset itself.
    ``action_masks``: bool ``[N, M]`` for ``observations``, true where an action is allowed; ``None`` where the
    environments give none.
    ``costs``: float ``[N]``, by default from ``info["cost"]``; ``None`` as long as no environment has given one.
    ``complaint``: a sentence about an ``info["cost"]`` that is no finite number and counts as none, else ``None``.
    ``infos``: float ``[K, N]``, the entries of ``info`` that are logged, NaN where a step has none; ``None`` where none are.
    ``info_complaints``: by entry a sentence about one that was no finite number, the first time that it was none.
    ``info_numbers``: entries of ``info`` that are numbers and were not seen before, where some are logged.
    ``whole_infos``: the ``info`` of each environment's step, where ``keep_infos`` asked for them, else ``None``.
    """

    observations: Batch
    rewards: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    successors: Batch
    valid: np.ndarray
    action_masks: np.ndarray | None
    costs: np.ndarray | None
    complaint: str | None = None
    infos: np.ndarray | None = None
    info_complaints: Mapping[str, str] | None = None
    info_numbers: tuple[str, ...] = ()
    whole_infos: Sequence[dict[str, Any]] | None = None


class HostEnvironments(Protocol):
    """N environments that are stepped together from Python.

    ``observation_space`` and ``action_space`` are those of one environment. ``episode_limit`` is the time limit in
    steps where the backend knows one. ``resets_take_steps``: whether some rows are no experience, because an environment only
    resets itself in them (NEXT_STEP). ``never_costs``: whether it is known already that no step comes with a cost.
    ``frames``: how many frames an observation stacks along its first axis, the oldest first, where that is known; else 1. A
    reset fills the stack with one frame. ``left_out``: where in the environment's own observations text is, which is no
    part of ``observation_space``. ``hides_mask``: whether wrappers leave out the ``action_mask`` of its own observations.
    """

    n_envs: int
    observation_space: Space
    action_space: Space
    name: str
    episode_limit: int | None
    resets_take_steps: bool
    never_costs: bool
    frames: int
    left_out: tuple[str, ...]
    hides_mask: bool

    def reset(self, seeds: Sequence[int]) -> tuple[Batch, np.ndarray | None]:
        """Start all environments anew, environment i from ``seeds[i]`` alone; return observations and action masks."""
        ...

    def step(self, actions: Any) -> HostStep:
        """Act once in every environment; ``actions`` ``[N, ...]`` are in the action space.

        Raises:
            EnvironmentFault: where an environment raises, hangs, dies, or returns what is no experience.
        """
        ...

    def close(self) -> None:
        """Release what the environments hold."""
        ...

    @property
    def rewards_goals(self) -> bool:
        """Whether :meth:`rewards_of` is known: the environments have ``compute_reward``."""
        ...

    def rewards_of(self, goals: Goals) -> Any:
        """Return what the environments' ``compute_reward`` says of many goals at once: rewards ``[R]``, unchecked.

        Raises:
            EnvironmentFault: it raises.
        """
        ...

    def keep_infos(self, wanted: bool) -> None:
        """Let steps come with the whole infos of the environments, or not."""
        ...


def _unseeded(row: int) -> None:
    """Seed no reset but the first."""


class SerialEnvironments:
    """Environments stepped one after the other in this process; an ended episode is reset at once (SAME_STEP).

    ``make`` holds callables that each make a new environment, or environments that already live (these are not closed).
    With ``warn``, a watchdog warns when a call into an environment has not returned for ``patience`` seconds.
    ``first_index`` is the index of the first one, for messages. ``progress`` is where the index and the step being
    taken are kept up to date (worker processes share it with their parent). ``cost`` says what a step costs.
    ``log`` are entries of ``info`` that are kept as numbers.
    ``passed_on`` are exceptions that are not taken for the environment's own: Ctrl-C, where it can reach this process.
    ``next_seed`` says by an environment's row what the reset after an episode's end is seeded with, ``None``: by nothing.

    Raises:
        UsageError: where the spaces are not supported, or differ between the environments.
        EnvironmentFault: where a callable raises.
    """

    resets_take_steps = False
    never_costs = False

    def __init__(
        self,
        make: Sequence[Callable[[], gym.Env] | gym.Env],
        name: str = "",
        *,
        warn: Warn | None = None,
        patience: float = 60.0,
        first_index: int = 0,
        progress: MutableSequence[int] | memoryview | None = None,
        cost: Cost = GIVEN,
        log: Sequence[str] = (),
        passed_on: tuple[type[BaseException], ...] = (KeyboardInterrupt,),
        next_seed: Callable[[int], int | None] = _unseeded,
    ) -> None:
        self.first_index, self._next_seed = first_index, next_seed
        self._passed_on = (*passed_on, UsageError, EnvironmentFault)
        self._progress = [first_index, 0] if progress is None else progress
        self._envs = [self._make(item, index, name) for index, item in enumerate(make)]
        self._owned = [not isinstance(item, gym.Env) for item in make]
        first = self._envs[0]
        self.n_envs = len(self._envs)
        self.name = name or environment_name(first)
        self._whole_space = space_of(first, "observation_space", self.name)
        self.observation_space, self.left_out = without_text(self._whole_space)
        self.action_space = space_of(first, "action_space", self.name)
        self.episode_limit = stated_limit(first)
        self.frames = min(stacked_frames(env) for env in self._envs)
        self._check_alike()
        self._step_functions = [env.step for env in self._envs]
        self._plain_box = isinstance(self.observation_space, spaces.Box)
        self._none, self._all = np.zeros(self.n_envs, dtype=bool), np.ones(self.n_envs, dtype=bool)
        self._none.flags.writeable = self._all.flags.writeable = False
        self._extras = Extras(self.n_envs, self.action_space, cost, log)
        self.hides_mask = bool(self._extras.segments) and _hides_mask(first, self.name)
        self._mask_functions = [_mask_function(env) if self._extras.segments else None for env in self._envs]
        self._whole_infos: list[dict[str, Any]] | None = None
        self._boundary = Boundary(
            self.name, self.n_envs, self.observation_space, self.action_space, self._progress, first_index
        )
        self._watchdog = start_watchdog(self, self._progress, warn, patience)

    def _make(self, item: Callable[[], gym.Env] | gym.Env, index: int, name: str) -> gym.Env:
        if isinstance(item, gym.Env):
            return item
        self._progress[0] = self.first_index + index
        try:
            env = item()
        except self._passed_on:
            raise
        except BaseException as error:
            where = f"environment {self.first_index + index}" + (f" of {name}" if name else "")
            raise EnvironmentFault(f"{where} raised while it was made: {explain(error)}.") from error
        if not isinstance(env, gym.Env):
            raise UnsupportedEnvironment(f"an environment must be a gymnasium.Env, not {type(env).__name__}.")
        return env

    def _check_alike(self) -> None:
        check_spaces(self.observation_space, self.action_space, self.name)
        if len({id(env) for env in self._envs}) < self.n_envs:
            raise UsageError(f"the same environment object of {self.name} was given twice; each must be a new one.")
        for index, env in enumerate(self._envs):
            for kind in ("observation_space", "action_space"):
                own, common = without_text(space_of(env, kind, self.name))[0], getattr(self, kind)
                if not same_space(own, common):
                    raise UsageError(
                        f"environment {self.first_index + index} of {self.name} has the space {describe_space(own)}, "
                        f"the first one {describe_space(common)}; all must have the same."
                    )

    def reset(self, seeds: Sequence[int]) -> tuple[Batch, np.ndarray | None]:
        """Start all environments anew, environment i from ``seeds[i]`` alone; return observations and action masks."""
        if len(seeds) != self.n_envs:
            raise ValueError(f"{len(seeds)} seeds for {self.n_envs} environments")
        self._progress[1] = 0
        observations = batches.empty(self.observation_space, self.n_envs)
        for row, seed in enumerate(seeds):
            self._reset_row(row, int(seed), observations)
        self._boundary.check_observations(observations)
        return observations, self._extras.masks()

    def step(self, actions: Any) -> HostStep:
        """Act once in every environment; see :class:`HostEnvironments`."""
        self._progress[1] += 1
        observations = batches.empty(self.observation_space, self.n_envs)
        rewards, terminated, truncated, ended = self._step_rows(self._boundary.prepare_actions(actions), observations)
        rewards = self._boundary.read_rewards(rewards)
        self._boundary.check_observations(observations)
        costs, infos = self._extras.costs(), self._extras.infos()
        successors = observations
        if ended:
            successors = batches.copy(observations)
            for row in ended:
                self._reset_row(row, self._next_seed(row), observations)
            self._boundary.check_observations(observations)
            terminations = np.array(terminated, dtype=bool)
            truncations = np.array(truncated, dtype=bool) & ~terminations
        else:
            terminations = truncations = self._none
        return HostStep(
            observations,
            rewards,
            terminations,
            truncations,
            successors,
            self._all,
            self._extras.masks(),
            costs,
            self._boundary.complaint(self._extras),
            infos,
            None if infos is None else self._boundary.info_complaints(self._extras),
            self._extras.new_numbers,
            None if self._whole_infos is None else tuple(self._whole_infos),
        )

    @property
    def rewards_goals(self) -> bool:
        """Whether the environments have ``compute_reward``."""
        return self._envs[0].has_wrapper_attr("compute_reward")

    def rewards_of(self, goals: Goals) -> Any:
        """Return what the first environment's ``compute_reward`` says of many goals; see :class:`HostEnvironments`."""
        try:
            return self._envs[0].get_wrapper_attr("compute_reward")(*goals)
        except self._passed_on:
            raise
        except BaseException as error:
            raise failed_rewards(self.name, len(goals.infos), error) from error

    def keep_infos(self, wanted: bool) -> None:
        """Let steps come with whole infos, or not."""
        self._whole_infos = [{} for _ in self._envs] if wanted else None

    @property
    def gives(self) -> tuple[bool, bool]:
        """Whether any step or reset has come with action masks so far, and with costs."""
        return self._extras.has_masks, self._extras.has_costs

    def expect(self, masks: bool, costs: bool) -> None:
        """Give action masks and costs from now on, as environments do that gave some before."""
        self._extras.has_masks, self._extras.has_costs = masks, costs

    def close(self) -> None:
        """Close the environments that were made here."""
        if self._watchdog is not None:
            self._watchdog.close()
        for env, owned in zip(self._envs, self._owned, strict=True):
            if owned:
                try:
                    env.close()
                except KeyboardInterrupt:
                    raise
                except BaseException:
                    continue

    # The loop below is the hot code: for a fast simulator its own cost per environment must stay near one microsecond.

    def _step_rows(
        self, actions: np.ndarray, observations: Batch
    ) -> tuple[list[Any], list[bool], list[bool], list[int]]:
        space, shape, dtype = self.observation_space, self.observation_space.shape, self.observation_space.dtype
        plain_box, progress, first = self._plain_box, self._progress, self.first_index
        # An info that is empty is looked at only where something of it would be missed.
        looked_at = self._extras.has_masks or self._mask_functions[0] is not None or self._extras.cost.required
        rewards: list[Any] = []
        terminated: list[bool] = []
        truncated: list[bool] = []
        ended: list[int] = []
        row = 0
        self._extras.begin()
        if self._watchdog is not None:
            self._watchdog.begin()
        try:
            for row, (step, action) in enumerate(zip(self._step_functions, actions, strict=True)):
                progress[0] = first + row
                result = step(action)
                if not isinstance(result, (tuple, list)) or len(result) != 5:
                    raise self._boundary.miscounted(row, result)
                observation, reward, terminates, truncates, info = result
                if (
                    plain_box
                    and type(observation) is np.ndarray
                    and observation.dtype == dtype
                    and observation.shape == shape
                ):
                    observations[row] = observation
                else:
                    if self.left_out:
                        observation = batches.drop_text(self._whole_space, observation)
                    batches.write_row(space, observations, row, observation)
                rewards.append(reward)
                if type(terminates) is not bool or type(truncates) is not bool:
                    terminates, truncates = read_flag("terminated", terminates), read_flag("truncated", truncates)
                terminated.append(terminates)
                truncated.append(truncates)
                if terminates or truncates:
                    ended.append(row)
                if info or looked_at:
                    self._extras.read(row, info, self._mask_functions[row], not (terminates or truncates))
                if self._whole_infos is not None:
                    self._whole_infos[row] = dict(info or {})  # environments may reuse theirs
        except self._passed_on:
            raise
        except BaseException as error:
            self._boundary.fail(row, error, env=self._envs[row])
        finally:
            if self._watchdog is not None:
                self._watchdog.end()
        return rewards, terminated, truncated, ended

    def _reset_row(self, row: int, seed: int | None, observations: Batch) -> None:
        self._progress[0] = self.first_index + row
        seeds: dict[str, Any] = {} if seed is None else {"seed": seed}
        if self._watchdog is not None:
            self._watchdog.begin()
        try:
            result = self._envs[row].reset(**seeds)
            if not isinstance(result, (tuple, list)) or len(result) != 2:
                raise self._boundary.miscounted(row, result, "reset")
            observation, info = result
            if self.left_out:
                observation = batches.drop_text(self._whole_space, observation)
            batches.write_row(self.observation_space, observations, row, observation)
            self._extras.read(row, info, self._mask_functions[row], with_cost=False)
        except self._passed_on:
            raise
        except BaseException as error:
            self._boundary.fail(row, error, "reset", self._envs[row], seeds)
        finally:
            if self._watchdog is not None:
                self._watchdog.end()


def _mask_function(env: gym.Env) -> Callable[[], Any] | None:
    # Through all wrappers; Gymnasium's own do not forward attributes.
    if not env.has_wrapper_attr("action_masks"):
        return None
    function = env.get_wrapper_attr("action_masks")
    return function if callable(function) else None


def _hides_mask(env: gym.Env, name: str) -> bool:
    """Whether an environment's observation has an action mask that its wrappers leave out, and no method gives one."""

    def has_mask(env: gym.Env) -> bool:
        space = space_of(env, "observation_space", name)
        return isinstance(space, spaces.Dict) and "action_mask" in space.spaces

    return has_mask(env.unwrapped) and not has_mask(env) and _mask_function(env) is None


def failed_rewards(name: str, count: int, error: BaseException) -> EnvironmentFault:
    """Return the fault for a ``compute_reward`` that raised when it was given ``count`` goals."""
    return EnvironmentFault(
        f"compute_reward of {name} raised {explain(error)}; it was given arrays of {count} achieved and desired goals and a "
        "list of as many infos, and must return as many rewards."
    )


def words_on_text(environments: HostEnvironments) -> str | None:
    """Return a sentence on the text that is left out of observations; ``None`` where there is none."""
    where = environments.left_out
    if not where:
        return None
    parts = f"{', '.join(where)} is" if len(where) == 1 else f"{', '.join(where)} are"
    return f"{parts} text in the observations of {environments.name}; no policy here reads text, so it is left out."


def words_on_mask(environments: HostEnvironments) -> str | None:
    """Return a sentence on an action mask that wrappers leave out of observations; ``None`` where they do not."""
    if not environments.hides_mask:
        return None
    return (
        f"{environments.name} has an action_mask in its observations that its wrappers leave out; keep it in a Dict, or give "
        "it as info['action_mask'] or by a method action_masks(), or forbidden actions are taken."
    )


def stated_limit(env: gym.Env) -> int | None:
    """Return the time limit in steps that an environment was registered with, or else that of the ``TimeLimit`` around it."""
    registered = env.spec.max_episode_steps if env.spec else None
    if registered is not None:
        return registered
    limits: list[int] = []
    while isinstance(env, gym.Wrapper):
        if isinstance(env, TimeLimit):
            limits.append(env._max_episode_steps)
        env = env.env
    return min(limits, default=None)


def stacked_frames(env: gym.Env) -> int:
    """Return how many frames an environment stacks along the first axis of its observations; 1 where it stacks none.

    Only stacks that a reset fills with its observation count, and only where the stack is the outermost wrapper.
    """
    # A class derived from it may stack in another way.
    if type(env) is FrameStackObservation and env.padding_type == "reset":
        return int(env.stack_size)
    return 1


def environment_name(env: Any) -> str:
    """Return the id an environment was registered under, or the name of its class."""
    spec = getattr(env, "spec", None)
    return getattr(spec, "id", None) or type(getattr(env, "unwrapped", env)).__name__


def start_watchdog(
    owner: HostEnvironments, progress: MutableSequence[int] | memoryview, warn: Warn | None, patience: float
) -> Watchdog | None:
    """Start a watchdog that ends with its owner; none without ``warn``."""
    if warn is None:
        return None
    watchdog = Watchdog(owner.name, progress, warn, patience)
    weakref.finalize(owner, watchdog.close)
    return watchdog
