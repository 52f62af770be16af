"""A warm start: a run that begins with what another has learnt, and with settings of its own.

It is not a resumed run. Steps are counted from 0, the optimiser and the schedules begin anew, and the method may be another.
What is taken over is the policy with its observation normaliser, and from a run directory also the critic of the newest
checkpoint. The policy keeps its shape. All of it is in the new run's first checkpoint, so that resuming needs nothing of the
old run.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np

from jumar.algorithms.off_policy.settings import ReplaySettings
from jumar.algorithms.update import Learner, Update
from jumar.critics.encodings import Histogram
from jumar.errors import DamagedFile, UsageError
from jumar.experience.rewards import RewardScale
from jumar.fields import LONGEST_TEXT
from jumar.policies.moments import RunningMoments
from jumar.policies.own_code import NO_CODE, OwnCode
from jumar.policies.policy import PolicySettings
from jumar.runs.files import PathLike, arrays_to_tree, pack_arrays, sha256
from jumar.runs.policy_files import has_policy
from jumar.runs.run_directory import SEED_NAME, RunDirectory
from jumar.settings import Settings, as_typed, coerce
from jumar.text import printable
from jumar.training.plan import Origin, Plan
from jumar.training.restore import newest_checkpoint, parameters_of, read_saved_policy

OWN = frozenset({"ortho_init", "sde_sample_freq"})
"""The settings of a policy that a run may choose anew: how matrices are drawn, and how often noise is, change no policy."""
CRITIC = "learner/parameters/critic/"
"""Begins the names of a critic's arrays in a checkpoint."""
REWARD_MOMENTS = "learner/reward_scale/moments/"
"""Begins those of the moments of returns, where rewards are normalised."""
STATISTICS = "learner/statistics/"
"""Begins those of the moments of batch normalisation in critics."""


class SavedCritic(NamedTuple):
    """A critic as a checkpoint keeps it."""

    step: int
    arrays: dict[str, np.ndarray]
    """Its parameters by name; none where the method had no critic."""
    reward_moments: dict[str, np.ndarray]
    """The moments of returns that its rewards were divided by; none where rewards were raw."""
    statistics: Mapping[str, np.ndarray] = MappingProxyType({})
    """The moments of its batch normalisation; none where there is none."""
    limit: float | None = None
    """Its ``critic_limit``, where it has bins."""


@dataclass(frozen=True)
class WarmStart:
    """What a run begins with."""

    origin: Origin
    step: int
    """How many steps the policy was trained for."""
    settings: PolicySettings
    """What the policy is made of."""
    spaces: tuple[gym.Space[Any], gym.Space[Any]]
    parameters: Any
    """The policy's."""
    moments: RunningMoments
    """The policy's observation normaliser."""
    critic: SavedCritic | None
    """``None`` where there is no checkpoint beside the policy."""
    warnings: tuple[str, ...] = ()
    """What is to be said of damaged checkpoints that were passed over."""

    def completed(self, given: Mapping[str, Any], settings: type[Settings]) -> dict[str, Any]:
        """Return the settings that were given, and those that the policy brings.

        Args:
            given: settings by name, as values or as typed; the preset's are not among them.
            settings: the class that they are for.

        Raises:
            UsageError: one that was given would make another policy.
        """
        completed = dict(given)
        for name in (field.name for field in fields(PolicySettings)):
            own = getattr(self.settings, name)
            if name not in given:
                completed[name] = own
            elif name not in OWN and (asked := coerce(settings, name, given[name])) != own:
                raise UsageError(
                    f"{name}={as_typed(asked)}, but the policy in {self.origin.path} has {name}={as_typed(own)}, which a warm "
                    "start keeps; leave it out, or begin with a new policy."
                )
        return completed

    def begin(self, update: Update, learner: Learner, several: bool) -> Begun:
        """Return a run's first learner with what is taken over in its place; ``several``: with a leading axis of seeds.

        All seeds begin with the same.
        """
        axes: Any = update.mapped[0]  # None for what is counted, which all seeds share
        one = jax.eval_shape(lambda x: _first_seed(axes, x), learner) if several else learner
        critic, why = self._critic_for(one, getattr(getattr(update, "critic", None), "encoding", None))

        def begin(learner: Learner) -> Learner:
            parameters = {**learner.parameters, "policy": self.parameters}
            scale = learner.reward_scale
            if critic is not None:
                parameters["critic"] = critic.parameters
                if critic.reward_moments is not None:
                    scale = scale._replace(moments=critic.reward_moments)
            begun = update.begin_with(
                learner._replace(observation_moments=self.moments, reward_scale=scale), parameters
            )
            if critic is None or critic.statistics is None:
                return begun
            targets = jax.tree.map(jnp.copy, critic.statistics) if jax.tree.leaves(begun.target_statistics) else ()
            return begun._replace(statistics=critic.statistics, target_statistics=targets)

        mapped = jax.vmap(begin, in_axes=(axes,), out_axes=axes) if several else begin
        return Begun(jax.jit(mapped)(learner), why)

    def words(self, critic_left_out: str | None) -> str:
        """Say what a run begins with."""
        words = f"begins with the policy in {self.origin.path} (step {self.step}, SHA-256 {self.origin.policy[:12]}...)"
        if critic_left_out is not None:
            return f"{words} alone: {critic_left_out}"
        assert self.critic is not None
        return f"{words} and its critic" + (f" (step {self.critic.step})" if self.critic.step != self.step else "")

    def _critic_for(self, learner: Any, encoding: Any = None) -> tuple[_Critic | None, str | None]:
        """Return the critic for a learner, or why it has a new one; ``encoding`` is how the learner's writes values."""
        saved, scale = self.critic, learner.reward_scale
        if not jax.tree.leaves(learner.parameters["critic"]):
            return None, "this run has no critic"
        if saved is None:
            return None, "there is no checkpoint beside it, so the critic is new"
        if not saved.arrays:
            return None, "its run had no critic, so the critic is new"
        if isinstance(scale, RewardScale) != bool(saved.reward_moments):
            return (
                None,
                "its critic was trained with normalize_rewards and this run is not, or the reverse, so the critic is new",
            )
        if isinstance(encoding, Histogram) and saved.limit != encoding.limit:
            return (
                None,
                "its critic's bins do not lie between this run's critic_limit and its negative, so the critic is new",
            )
        own = getattr(learner, "statistics", ())
        try:
            parameters = arrays_to_tree(_shapes(learner.parameters["critic"]), saved.arrays)
            moments = arrays_to_tree(_shapes(scale.moments), saved.reward_moments) if saved.reward_moments else None
            statistics = arrays_to_tree(_shapes(own), saved.statistics) if jax.tree.leaves(own) else None
        except DamagedFile:
            return None, "its critic is of another kind than this run's, which is new"
        return _Critic(parameters, moments, statistics), None


class Begun(NamedTuple):
    """A learner that a warm start was put into."""

    learner: Learner
    critic_left_out: str | None
    """Why its critic is a new one; ``None`` where it is the old run's."""


class _Critic(NamedTuple):
    parameters: Any
    reward_moments: RunningMoments | None
    statistics: Any = None
    """The moments of batch normalisation, where there are any."""


def _first_seed(axes: Any, learner: Any) -> Any:
    """Return the learner of the first of several seeds; ``axes`` says which parts have an axis over them."""
    of_one = lambda axis, part: part if axis is None else jax.tree.map(lambda leaf: leaf[0], part)  # noqa: E731
    return jax.tree.map(of_one, axes, learner, is_leaf=lambda axis: axis is None)


def _shapes(tree: Any) -> Any:
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), tree)


def read_warm_start(path: PathLike, own: OwnCode = NO_CODE) -> WarmStart:
    """Return what the run at ``path`` has learnt; ``path`` may also hold the two files of a policy alone. Nothing is changed.

    ``own`` is the user's code that the policy is made of.

    Raises:
        UsageError: nothing is there, it holds no policy, or code of the user's is missing.
        DamagedFile: a file is damaged or foreign, or no checkpoint is sound.
    """
    folder = Path(path)
    if not has_policy(folder):
        raise _no_policy(folder)
    saved = read_saved_policy(folder, own)
    parameters, moments = parameters_of(saved, folder)
    run, lane = run_of(folder)
    critic, warnings = None, ()
    if run is not None:
        plan = Plan.from_json(run.read_config(), run.config)
        if checkpoint := newest_checkpoint(run, plan, with_buffer=False):
            warnings = tuple(checkpoint.warnings)
            theirs = plan.settings
            limit = theirs.critic_limit if isinstance(theirs, ReplaySettings) and theirs.critic_bins else None
            critic = _saved_critic(checkpoint.step, checkpoint.arrays, lane, run.checkpoints)._replace(limit=limit)
    return WarmStart(
        origin=Origin(printable(str(path))[-LONGEST_TEXT:], sha256(pack_arrays(saved.arrays))),
        step=saved.step,
        settings=saved.settings,
        spaces=saved.spaces,
        parameters=jax.tree.map(jnp.asarray, parameters),
        moments=jax.tree.map(jnp.asarray, moments),
        critic=critic,
        warnings=warnings,
    )


def _no_policy(folder: Path) -> UsageError:
    """Return why nothing can begin with what is in a folder that has no policy."""
    run = RunDirectory.open(folder)  # raises where it is no run at all, and names the nearest
    if seeds := run.seeds():
        return UsageError(f"{run} holds several seeds; begin with one of them, such as {run.seed(seeds[0])}.")
    best = f", or begin with its best policy so far, {run.best}" if has_policy(run.best) else ""
    return UsageError(f"{run} has no final policy: go on with jumar resume {run}{best}.")


def run_of(folder: Path) -> tuple[RunDirectory | None, int | None]:
    """Return the run whose checkpoints belong to a policy, and which seed of several the policy is.

    Both are ``None`` where the policy's two files are alone.
    """
    run, lane = RunDirectory(folder), None
    parent, seed = RunDirectory(folder.resolve().parent), SEED_NAME.fullmatch(folder.resolve().name)
    if not run.checkpoints.exists() and seed is not None and parent.config.is_file():
        plan = Plan.from_json(parent.read_config(), parent.config)
        lane = int(seed[1]) - plan.seed
        if not 0 <= lane < (plan.n_seeds or 0):  # a run of its own that lies in another
            return None, None
        run = parent
    return (RunDirectory.open(run.path), lane) if os.path.lexists(run.config) else (None, None)


def _saved_critic(step: int, arrays: dict[str, np.ndarray], lane: int | None, where: Path) -> SavedCritic:
    """Return what a checkpoint's arrays say of the critic, of one seed of several if ``lane`` says which."""

    def part(prefix: str) -> dict[str, np.ndarray]:
        found = {name.removeprefix(prefix): x for name, x in arrays.items() if name.startswith(prefix)}
        if lane is None:
            return found
        if any(x.ndim == 0 or len(x) <= lane for x in found.values()):
            raise DamagedFile(f"the checkpoint in {where} does not hold so many seeds; restore a copy.")
        return {name: x[lane] for name, x in found.items()}

    return SavedCritic(step, part(CRITIC), part(REWARD_MOMENTS), part(STATISTICS))
