"""Data sets in a training: how they come into the replay buffer, and how one is made of what it holds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import Space

from jumar.algorithms.off_policy.settings import ReplaySettings
from jumar.algorithms.off_policy.update import Learner, OffPolicy
from jumar.algorithms.registry import Algorithm
from jumar.algorithms.settings import CollectingSettings
from jumar.errors import UsageError
from jumar.experience.replay import Arrays, Replay
from jumar.policies.actions import narrow_dtype
from jumar.policies.observations import MASK_KEY
from jumar.runs.datasets import OBSERVATIONS, SUCCESSORS, Dataset, named, parts, read_dataset
from jumar.runs.minari import read_minari
from jumar.spaces import require_same_spaces
from jumar.training.plan import DataOrigin
from jumar.training.remembered import Buffer
from jumar.trajectory import Trajectory


@dataclass(frozen=True, eq=False)
class StartData:
    """Transitions that a run begins with, and where they are from."""

    origin: DataOrigin
    data: Dataset

    @classmethod
    def read(cls, path: str | Path, alone: bool) -> StartData:
        """Read a data set: a file of Jumar's, or a folder of Minari's.

        Raises:
            UsageError, DamagedFile: as :func:`jumar.runs.datasets.read_dataset` and :func:`jumar.runs.minari.read_minari`.
        """
        data, digest = read_minari(path) if Path(path).is_dir() else read_dataset(path)
        return cls(DataOrigin(str(path), digest, alone), data)

    def completed(self, given: dict[str, Any], chosen: Algorithm) -> dict[str, Any]:
        """Return settings that were given, with a buffer and environments that fit where the run learns from data alone."""
        if not self.origin.alone or "buffer_size" not in chosen.setting_names:
            return given
        return {"buffer_size": len(self.data), "n_envs": 1, "train_freq": 1, "learning_starts": 0, **given}

    def begin(
        self, update: Any, buffer: Buffer | None, learner: Any, memory: Any, spaces: tuple[Space, Space], name: str
    ) -> tuple[Any, Any, int]:
        """Return the learner, the memory and its number of slots with the transitions in them.

        Raises:
            UsageError: they are of other spaces than those of the environment ``name``, or do not fit into the buffer.
        """
        require_same_spaces(spaces, self.data.spaces, name, f"{self.origin.path} has")
        assert isinstance(update, OffPolicy)
        assert buffer is not None
        replay = buffer.replay
        slots = len(self.data) // replay.n_envs
        if slots == 0:
            raise UsageError(
                f"{self.origin.path} has {len(self.data)} transitions, fewer than n_envs={replay.n_envs} environments."
            )
        if self.origin.alone and slots > replay.slots:
            raise UsageError(
                f"buffer_size={replay.slots * replay.n_envs} is less than the {len(self.data)} transitions of "
                f"{self.origin.path}; leave it out."
            )
        trajectory = self._trajectory(slots, replay.n_envs, update)
        rows = {name: np.asarray(x) for name, x in jax.jit(replay.written)(trajectory).items()}
        kept = min(slots, replay.slots) * replay.n_envs
        each = {name: rows[name.rpartition("/")[2]][-kept:] for name in buffer.columns}
        memory = buffer.put(memory, each, slots)
        cursor = jax.tree.map(jnp.asarray, buffer.cursor(slots))
        learner = learner._replace(clock=learner.clock._replace(cursor=cursor))
        return self._with_moments(update, learner, trajectory, buffer.n_seeds), memory, slots

    def left_out(self, replay: Replay) -> str | None:
        """Say how many of the transitions are not in a replay buffer, and which one holds all; ``None`` if they are."""
        n, n_envs = len(self.data), replay.n_envs
        slots = n // n_envs
        fit = slots * n_envs
        rest = "" if fit == n else f"; the last {n - fit} do not fill a step of {n_envs} environments"
        if slots > replay.slots:
            held = replay.slots * n_envs
            which = "the newest" if n_envs == 1 else f"the newest of each of {n_envs} equal parts"
            return (
                f"the replay buffer holds {held:,} of the {n:,} transitions of {self.origin.path}, {which}; "
                f"buffer_size={fit} holds {f'{fit:,}' if rest else 'all'}{rest}."
            )
        return f"{fit:,} of the {n:,} transitions of {self.origin.path} are used{rest}." if rest else None

    def _trajectory(self, slots: int, n_envs: int, update: OffPolicy) -> Trajectory:
        """Return the transitions as ``[slots, N]``, a stretch of them for each environment."""
        data, shape = self.data, (slots, n_envs)

        def laid(x: Any) -> np.ndarray:
            x = np.asarray(x)[: slots * n_envs]
            return np.swapaxes(x.reshape(n_envs, slots, *x.shape[1:]), 0, 1)

        terminated, truncated = laid(data.terminated), laid(data.truncated | interrupted(data))
        truncated = truncated | ((np.arange(slots) == slots - 1)[:, None] & ~terminated)
        actions = np.asarray(data.actions, np.float32)
        fields: dict[str, Any] = {
            "observations": jax.tree.map(laid, data.observations),
            "actions": laid(actions.reshape(len(actions), -1)),
            "rewards": laid(data.rewards),
            "terminated": terminated,
            "truncated": truncated,
            "successors": jax.tree.map(laid, data.successors),
            "valid": np.ones(shape, bool),
            "episode_start": np.zeros(shape, bool),
            "log_probs": np.zeros(shape, np.float32),
            "action_masks": None,
            "costs": None,
            "carry": (),
            "critic_carry": (),
        }
        return Trajectory(**fields)

    def _with_moments(
        self, update: OffPolicy, learner: Learner, trajectory: Trajectory, n_seeds: int | None
    ) -> Learner:
        """Return the learner whose observation normaliser has seen the transitions."""
        encoder = update.policy.encoder
        if not (encoder.normalise and encoder.vector_size):
            return learner

        def seen(moments: Any) -> Any:
            return moments.updated(encoder.vector(trajectory.observations), jnp.ones(trajectory.rewards.shape))

        moments = learner.observation_moments
        return learner._replace(observation_moments=seen(moments) if n_seeds is None else jax.vmap(seen)(moments))


def start_data(dataset: str | Path | None, prefill: str | Path | None) -> StartData | None:
    """Read the data set that a run begins with, if there is one.

    Raises:
        UsageError: there are two, or it is not there.
        DamagedFile: it is no sound data set.
    """
    if dataset is not None and prefill is not None:
        raise UsageError(
            "--dataset learns from stored transitions alone, and prefill from them first; give one of them."
        )
    if dataset is not None:
        return StartData.read(dataset, alone=True)
    return None if prefill is None else StartData.read(prefill, alone=False)


def check_data(chosen: Algorithm, settings: CollectingSettings, data: StartData | None) -> None:
    """Refuse data for methods or settings that cannot learn from it, and methods without the data that they need.

    Raises:
        UsageError: the message says what would be right.
    """
    if data is None:
        if getattr(settings, "needs_dataset", False):
            raise UsageError(f"{chosen.name} learns from stored transitions alone; give --dataset FILE.")
        return
    what = "dataset" if data.origin.alone else "prefill"
    if not isinstance(settings, ReplaySettings):
        raise UsageError(
            f"--{what} needs a method that learns from a replay buffer, and {chosen.name} does not; dpg, ddpg, td3, sql "
            "and sac do."
        )
    if getattr(settings, "needs_dataset", False) and not data.origin.alone:
        raise UsageError(f"{chosen.name} learns from stored transitions alone; give --dataset instead of --prefill.")
    if getattr(settings, "on_policy", False):
        raise UsageError(f"on_policy=true learns from its own steps alone; leave it out, or --{what}.")
    if data.origin.alone and settings.hindsight is not None:
        raise UsageError(
            f"goal_selection_strategy={getattr(settings, 'goal_selection_strategy', None)} relabels the steps of episodes, and "
            "with --dataset there are none; leave it out."
        )
    if data.origin.alone and settings.normalize_rewards:
        raise UsageError(
            "normalize_rewards follows the rewards of steps, and with --dataset there are none; leave it out."
        )
    if settings.cost_coef > 0.0:
        raise UsageError(f"cost_coef={settings.cost_coef} needs costs, and a data set has none; leave it out.")
    if data.origin.alone and settings.train_freq != 1:
        raise UsageError(f"train_freq={settings.train_freq}: with --dataset a step is an update; leave it out.")
    if data.origin.alone and settings.n_envs != 1:
        raise UsageError(f"n_envs={settings.n_envs}: with --dataset no environment is stepped; leave it out.")


def interrupted(data: Dataset) -> np.ndarray:
    """Return which rows are not followed by their successors although their episodes go on, ``[N]`` boolean."""
    n = len(data)
    differs = np.zeros(n, bool)
    for now, after in zip(jax.tree.leaves(data.observations), jax.tree.leaves(data.successors), strict=True):
        differs[:-1] |= np.any(now[1:] != after[:-1], axis=tuple(range(1, now.ndim)))
    return differs & ~data.terminated & ~data.truncated


def dataset_arrays(
    replay: Replay, rows: Mapping[str, np.ndarray], slots: int, spaces: tuple[Space, Space]
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Return slots of a replay buffer as the arrays of a data set.

    Args:
        replay: what the buffer is like.
        rows: the slots' rows, oldest first, as the buffer has them.
        slots: how many there are.
        spaces: of observations and actions.

    Returns:
        Which of the rows are experience whose stacks of frames are all there, without relabelled ones, boolean
        ``[slots, N]``; and the arrays by their names in a data set, ``[slots, N, ...]``.

    Raises:
        UsageError: there were masks of actions that are no part of the observations.
    """
    told, whole = jax.device_get(_program(replay, slots)({name: jnp.asarray(x) for name, x in rows.items()}))
    masks = told.action_masks, told.successor_masks
    inside = bool(replay.masks) and any(path == (MASK_KEY,) for path, _ in parts(spaces[0]))
    if not (inside or masks[0] is None or np.all(masks[0])):
        raise UsageError(
            "masks that come beside the observations cannot be written to a data set; put them into a Dict observation as "
            f"{MASK_KEY}."
        )
    arrays: dict[str, np.ndarray] = {}
    for name, tree, mask in (
        (OBSERVATIONS, told.observations, masks[0]),
        (SUCCESSORS, told.successors, masks[1]),
    ):
        for place, part in parts(spaces[0]):
            leaf = _picked(tree, place, mask if inside else None).reshape(slots, replay.n_envs, *(part.shape or ()))
            arrays[named(name, place)] = _in_dtype(leaf, part.dtype)
    action_space = spaces[1]
    actions = np.asarray(told.actions).astype(action_space.dtype)
    arrays["actions"] = actions.reshape(slots, replay.n_envs, *(action_space.shape or ()))
    arrays |= {"rewards": np.asarray(told.rewards), "terminated": np.asarray(told.terminated)}
    arrays["truncated"] = np.asarray(told.truncated & ~told.terminated)
    happened = np.asarray(told.valid & whole)
    if replay.columns.marked:  # what was relabelled did not happen
        happened = happened & (np.asarray(rows["rows"])[:, -1].reshape(happened.shape) == 0.0)
    return happened, arrays


@lru_cache(maxsize=8)
def _program(replay: Replay, slots: int) -> Callable[[Arrays], Any]:
    """Compile what is made of so many slots."""
    return jax.jit(lambda rows: (replay.recalled(rows, slots), replay.whole(rows, slots)))


def _in_dtype(values: np.ndarray, dtype: Any) -> np.ndarray:
    """Return numbers in the dtype of their space; whole ones, which rows round to 24 bits, stay within the 32 of policies."""
    if values.dtype.kind == "f" and np.dtype(dtype).kind in "iu":
        limits = np.iinfo(narrow_dtype(dtype))
        values = np.clip(values.astype(np.float64), limits.min, limits.max)
    return values.astype(dtype)


def _picked(tree: Any, place: tuple[Any, ...], mask: Any) -> np.ndarray:
    """Return a part of observations, or the mask, if there is one, in its place among them."""
    if mask is not None and place == (MASK_KEY,):
        return np.asarray(mask)
    for step in place:
        tree = tree[step]
    return np.asarray(tree)
