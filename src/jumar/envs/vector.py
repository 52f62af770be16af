"""A user's own live Gymnasium vector environment, brought to the convention whatever its autoreset mode."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv

from jumar.envs import batches
from jumar.envs.batches import Batch, Misfit
from jumar.envs.boundary import Boundary, Extras, has_rows, no_info, of_all, read_flags, space_of
from jumar.envs.goals import Goals
from jumar.envs.host import HostStep, Warn, environment_name, failed_rewards, start_watchdog
from jumar.envs.step_costs import GIVEN, Cost
from jumar.errors import EnvironmentFault, UsageError
from jumar.spaces import check_spaces, without_text


class VectorAdapter:
    """A live vector environment as :class:`~jumar.envs.host.HostEnvironments`; it is not closed with the adapter.

    NEXT_STEP: the row after an episode's end is not ``valid``. SAME_STEP: the true successor is ``info["final_obs"]``,
    and the ended step's info is ``info["final_info"]``. DISABLED: ended environments are reset with the option
    ``reset_mask``.

    ``reset`` passes a seed for each environment to Gymnasium's own ``SyncVectorEnv`` and ``AsyncVectorEnv``, and the
    first seed alone to any other, as Gymnasium's interface has only one. ``cost`` says what a step costs.

    Raises:
        UsageError: where the autoreset mode is not declared, or a space is not supported.
    """

    never_costs = False
    frames = 1
    hides_mask = False

    def __init__(
        self,
        vector_env: VectorEnv,
        name: str = "",
        *,
        cost: Cost = GIVEN,
        log: Sequence[str] = (),
        warn: Warn | None = None,
        patience: float = 60.0,
    ) -> None:
        self._env = vector_env
        self.n_envs = int(vector_env.num_envs)
        self.name = name or environment_name(vector_env)
        self._whole_space = space_of(vector_env, "single_observation_space", self.name)
        self.observation_space, self.left_out = without_text(self._whole_space)
        self.action_space = space_of(vector_env, "single_action_space", self.name)
        check_spaces(self.observation_space, self.action_space, self.name)
        self._mode = _autoreset_mode(vector_env, self.name)
        self.resets_take_steps = self._mode is AutoresetMode.NEXT_STEP
        self._many_seeds = isinstance(vector_env.unwrapped, (SyncVectorEnv, AsyncVectorEnv))
        self.episode_limit = self._stated_limit()
        self._ended = np.zeros(self.n_envs, dtype=bool)
        self._keeps_infos = False
        self._progress = [-1, 0]
        self._boundary = Boundary(self.name, self.n_envs, self.observation_space, self.action_space, self._progress)
        self._extras = Extras(self.n_envs, self.action_space, cost, log)
        self._mask_methods = bool(self._extras.segments) and self._each_has("action_masks")
        self._watchdog = start_watchdog(self, self._progress, warn, patience)

    def reset(self, seeds: Sequence[int]) -> tuple[Batch, np.ndarray | None]:
        """Start all environments anew; return observations and action masks."""
        if len(seeds) != self.n_envs:
            raise ValueError(f"{len(seeds)} seeds for {self.n_envs} environments")
        self._progress[1] = 0
        self._ended = np.zeros(self.n_envs, dtype=bool)
        seed: Any = [int(seed) for seed in seeds] if self._many_seeds else int(seeds[0])
        observations, infos = self._call("reset", 2, lambda: self._env.reset(seed=seed), ["seed"])
        batch = self._read(observations)
        self._read_masks("reset", infos, range(self.n_envs))
        return batch, self._extras.masks()

    def step(self, actions: Any) -> HostStep:
        """Act once in every environment; see :class:`~jumar.envs.host.HostEnvironments`."""
        self._progress[1] += 1
        prepared = self._boundary.prepare_actions(actions)
        observations, rewards, terminated, truncated, infos = self._call("step", 5, lambda: self._env.step(prepared))
        batch = self._read(observations)
        terminated, truncated = self._flags("terminated", terminated), self._flags("truncated", truncated)
        ended = terminated | truncated
        valid = np.ones(self.n_envs, dtype=bool)
        successors = batch
        # After an end a mask is only that of an action if it came from the reset, which SAME_STEP has already made.
        idle = None if self._mode is AutoresetMode.SAME_STEP else ended
        self._read_masks("step", infos, range(self.n_envs), idle)
        costs, logged = self._costs(infos, ended), self._extras.infos()
        if self._mode is AutoresetMode.NEXT_STEP:
            valid, self._ended = ~self._ended, ended
        elif ended.any():
            after = self._same_step if self._mode is AutoresetMode.SAME_STEP else self._reset_ended
            batch, successors = after(batch, infos, ended)
        return HostStep(
            batch,
            self._boundary.read_rewards(rewards),
            terminated,
            truncated & ~terminated,
            successors,
            valid,
            self._extras.masks(),
            costs,
            self._boundary.complaint(self._extras),
            logged,
            None if logged is None else self._boundary.info_complaints(self._extras),
            self._extras.new_numbers,
            self._separated(infos, ended) if self._keeps_infos else None,
        )

    @property
    def rewards_goals(self) -> bool:
        """Whether the environments have ``compute_reward`` and can be asked for it, as Gymnasium's own can."""
        return self._each_has("compute_reward")

    def rewards_of(self, goals: Goals) -> Any:
        """Return what ``compute_reward`` says of many goals; see :class:`~jumar.envs.host.HostEnvironments`."""
        try:
            return self._call_each("compute_reward", *goals)[0]
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            raise failed_rewards(self.name, len(goals.infos), error) from error

    def keep_infos(self, wanted: bool) -> None:
        """Let steps come with whole infos, or not."""
        self._keeps_infos = wanted

    def _separated(self, infos: dict[str, Any], ended: np.ndarray) -> list[dict[str, Any]]:
        """Return the info of each environment's step; after a SAME_STEP reset it lies in the final infos."""
        final = infos.get("final_info") if self._mode is AutoresetMode.SAME_STEP else None
        return [
            self._of_row(final if isinstance(final, dict) and ended[row] else infos, row) for row in range(self.n_envs)
        ]

    def _of_row(self, infos: dict[str, Any], row: int) -> dict[str, Any]:
        try:
            return _of_row(infos, row, self.n_envs)
        except Misfit as misfit:
            self._boundary.fail(None, misfit)

    def close(self) -> None:
        """Stop watching; the vector environment is its owner's to close."""
        if self._watchdog is not None:
            self._watchdog.close()

    def _each_has(self, name: str) -> bool:
        """Whether the environments can be asked, as Gymnasium's own can, and have this attribute."""
        return self._many_seeds and all(self._call_each("has_wrapper_attr", name))

    def _call_each(self, name: str, *arguments: Any) -> tuple[Any, ...]:
        """Return what a method of each environment returns, or the attribute."""
        return self._env.unwrapped.call(name, *arguments)  # type: ignore[attr-defined]

    def _stated_limit(self) -> int | None:
        """Return the registered time limit in steps, or else that of the ``TimeLimit`` around the first environment."""
        registered = self._env.spec.max_episode_steps if self._env.spec else None
        if registered is not None or not self._each_has("_max_episode_steps"):
            return registered
        limit = self._call_each("_max_episode_steps")[0]
        return limit if isinstance(limit, int) else None

    def _read(self, observations: Any) -> Batch:
        seen = batches.drop_text(self._whole_space, observations) if self.left_out else observations
        return self._boundary.observations_from_vector(seen)

    def _same_step(self, batch: Batch, infos: dict[str, Any], ended: np.ndarray) -> tuple[Batch, Batch]:
        """Return the batch, which is already reset, and the true successors."""
        final = infos.get("final_obs")
        successors = batches.copy(batch)
        for row in map(int, np.flatnonzero(ended)):
            value = final[row] if final is not None and has_rows(final, self.n_envs) else None
            if value is None:
                raise EnvironmentFault(
                    f"environment {row} of {self.name} ended an episode at step {self._progress[1]} without "
                    "info['final_obs'], which its SAME_STEP autoreset must give."
                )
            try:
                batches.write_row(self.observation_space, successors, row, batches.drop_text(self._whole_space, value))
            except Misfit as misfit:
                self._boundary.fail(row, misfit)
        self._boundary.check_observations(successors)
        return batch, successors

    def _reset_ended(self, successors: Batch, _infos: dict[str, Any], ended: np.ndarray) -> tuple[Batch, Batch]:
        """Reset what has ended; return the observations to act on, and the true successors."""
        options = {"reset_mask": ended.copy()}
        observations, infos = self._call("reset", 2, lambda: self._env.reset(options=options), ["options"])
        fresh = self._read(observations)
        self._read_masks("reset", infos, map(int, np.flatnonzero(ended)))
        return fresh, successors

    def _read_masks(self, call: str, infos: dict[str, Any], rows: Any, idle: np.ndarray | None = None) -> None:
        """Take masks from ``action_masks()`` where the environments have it, else from what ``call`` gave as infos."""
        if self._mask_methods:
            masks = self._watched(call, lambda: self._call_each("action_masks"))
            infos = {"action_mask": masks, "_action_mask": [mask is not None for mask in masks]}
        try:
            self._extras.read_vector_masks(infos, rows, idle)
        except Misfit as misfit:
            self._boundary.fail(None, misfit, call)

    def _costs(self, infos: dict[str, Any], ended: np.ndarray) -> np.ndarray | None:
        """Return the costs of this step; after a SAME_STEP reset they lie in the final infos."""
        self._extras.begin()
        final = infos.get("final_info") if self._mode is AutoresetMode.SAME_STEP else None
        try:
            if isinstance(final, dict):
                self._extras.read_vector_costs(final, map(int, np.flatnonzero(ended)))
                self._extras.read_vector_costs(infos, map(int, np.flatnonzero(~ended)))
            else:
                self._extras.read_vector_costs(infos, map(int, np.flatnonzero(~self._ended)))
        except Misfit as misfit:
            self._boundary.fail(None, misfit)
        return self._extras.costs()

    def _flags(self, what: str, flags: Any) -> np.ndarray:
        try:
            return read_flags(what, flags, self.n_envs)
        except Misfit as misfit:
            self._boundary.fail(None, misfit)

    def _call(self, call: str, length: int, function: Callable[[], Any], keywords: Sequence[str] = ()) -> Any:
        """Return the values of a step or a reset, of which the last is the info."""
        result = self._watched(call, function, keywords)
        if not isinstance(result, (tuple, list)) or len(result) != length:
            raise self._boundary.miscounted(None, result, call)
        if not isinstance(result[-1], dict):
            self._boundary.fail(None, no_info(result[-1]), call)
        return result

    def _watched(self, call: str, function: Callable[[], Any], keywords: Sequence[str] = ()) -> Any:
        """Return what a call into the environments returns, under the eyes of the watchdog."""
        if self._watchdog is not None:
            self._watchdog.begin()
        try:
            return function()
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            self._boundary.fail(None, error, call, self._env, keywords)
        finally:
            if self._watchdog is not None:
                self._watchdog.end()


def _of_row(infos: dict[str, Any], row: int, n: int) -> dict[str, Any]:
    """Return the info of one environment, of those that a vector environment has joined to arrays of ``n`` entries."""
    found = {}
    for key, values in infos.items():
        if isinstance(key, str) and key.startswith("_"):
            continue
        given = infos.get(f"_{key}")
        if given is None or of_all(f"an info['_{key}']", given, n)[row]:
            nested = isinstance(values, dict)
            found[key] = _of_row(values, row, n) if nested else of_all(f"an info[{key!r}]", values, n)[row]
    return found


def _autoreset_mode(vector_env: VectorEnv, name: str) -> AutoresetMode:
    # Gymnasium's own classes write their mode into metadata that all instances of an environment share; the attribute
    # is the one that holds.
    declared = getattr(vector_env.unwrapped, "autoreset_mode", None) or vector_env.metadata.get("autoreset_mode")
    try:
        return AutoresetMode(declared)
    except ValueError:
        modes = ", ".join(f"AutoresetMode.{mode.name}" for mode in AutoresetMode)
        raise UsageError(
            f"the vector environment {name} must say in metadata['autoreset_mode'] what it does when an episode ends "
            f"({modes}); it says {declared!r}."
        ) from None
