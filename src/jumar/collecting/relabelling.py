"""Relabelling on the host: the steps of episodes under way, and the rows that are made of them when they end.

What is held is immutable, as everything is that training holds on to: an iteration that fails leaves it as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import numpy as np

from jumar.envs.goals import Goals
from jumar.envs.host import HostStep
from jumar.errors import EnvironmentFault, UnsupportedEnvironment
from jumar.experience.hindsight import ACHIEVED, DESIRED, LONGEST, Hindsight, slots_at_once, with_goals
from jumar.experience.replay import ABSENT

Fields = dict[str, Any]
"""Fields of a trajectory by their names, arrays or trees of arrays; ``None`` for what environments have not given (yet)."""

NEUTRAL: dict[str, Any] = {"action_masks": True, "successor_masks": True, "costs": ABSENT}
"""What stands for a field in the rows from before an environment gave it."""
KEPT = ("observations", "actions", "rewards", "terminated", "truncated", "successors", "valid", *NEUTRAL)
"""The fields of a trajectory that are written to the memory."""
CUT = 2**32 - 2
"""Makes another key of a round's: that of the goals of episodes that a barrier cuts after it."""


class Steps(NamedTuple):
    """Steps ``[T, N]`` of all environments."""

    fields: Fields
    """As they are written to the memory."""
    achieved: np.ndarray
    """The goals that were achieved after each step, in the environment's own precision, like what follows."""
    desired: np.ndarray
    rewards: np.ndarray
    infos: np.ndarray | None
    """What came with each step, where that is wanted: dictionaries."""


class Row(NamedTuple):
    """A step that is relabelled: its slot among the steps that are held, and its environment."""

    slot: int
    env: int


@dataclass(frozen=True)
class Episodes:
    """What is held between rounds.

    Attributes:
        steps: those of episodes under way, and maybe some before them, a part for each round.
        begun: the slot, among these, at which the episode under way begins in each environment.
        waiting: relabelled rows that do not fill a slot yet, ``[R]``.
        key: of the last round.
    """

    steps: tuple[Steps, ...]
    begun: tuple[int, ...]
    waiting: Fields | None = None
    key: tuple[int, ...] = ()

    @classmethod
    def none(cls, n_envs: int) -> Episodes:
        """Return no steps."""
        return cls((), (0,) * n_envs)


class Relabelling:
    """Makes relabelled rows of the episodes that end.

    Args:
        hindsight: what is relabelled.
        n_envs: how many environments there are.
        name: what to call the environment in errors.
    """

    def __init__(self, hindsight: Hindsight, n_envs: int, name: str) -> None:
        self._hindsight, self._n_envs, self._name = hindsight, n_envs, name
        self._chunk = slots_at_once(n_envs)

    def after(
        self, episodes: Episodes, steps: Steps, key: Sequence[int], rewards_of: Callable[[Goals], Any]
    ) -> tuple[Episodes, list[tuple[Fields, np.int32]]]:
        """Take in a round of steps; return what is held now, and the slots of rows that became of episodes that ended.

        An episode of more than ``LONGEST`` steps is relabelled in stretches.

        Args:
            episodes: what was held.
            steps: those of the round.
            key: the round's own numbers, which goals are drawn by.
            rewards_of: the environment's rewards of goals.

        Returns:
            what is held, and rows ``[C, N]``, C slots at a time, with the number of slots of each that count.

        Raises:
            EnvironmentFault: computing rewards failed, or gave what is none.
            UnsupportedEnvironment: the rewards that steps had are other ones.
        """
        before = sum(len(part.rewards) for part in episodes.steps)
        episodes = replace(episodes, steps=(*episodes.steps, steps), key=tuple(map(int, key)))
        now = before + len(steps.rewards)
        ended = (steps.fields["terminated"] | steps.fields["truncated"]) & steps.fields["valid"]
        ends = [Row(before + int(t), int(env)) for t, env in np.argwhere(ended)]
        begun = list(episodes.begun)
        for end in ends:
            begun[end.env] = end.slot + 1
        ends += [Row(now - 1, env) for env in range(self._n_envs) if now - begun[env] >= LONGEST]
        return self._relabelled(episodes, ends, rewards_of, all_rows=False) if ends else (episodes, [])

    def cut(
        self, episodes: Episodes, rewards_of: Callable[[Goals], Any]
    ) -> tuple[Episodes, list[tuple[Fields, np.int32]]]:
        """Return the same of the episodes under way, which are cut here: nothing is held afterwards. Raises as ``after``."""
        last = sum(len(part.rewards) for part in episodes.steps) - 1
        ends = [Row(last, env) for env, begun in enumerate(episodes.begun) if begun <= last]
        none = Episodes.none(self._n_envs)
        if not ends and episodes.waiting is None:
            return none, []
        _, chunks = self._relabelled(replace(episodes, key=(*episodes.key, CUT)), ends, rewards_of, all_rows=True)
        return none, chunks

    def _relabelled(
        self, episodes: Episodes, ends: list[Row], rewards_of: Callable[[Goals], Any], all_rows: bool
    ) -> tuple[Episodes, list[tuple[Fields, np.int32]]]:
        """Relabel the episodes that have these ends; let go of steps that are of no use any more."""
        rows = episodes.waiting
        begun = list(episodes.begun)
        whole: tuple[Steps, ...] = ()
        if ends:
            together = joined(episodes.steps)
            draw = np.random.default_rng(episodes.key)
            real: list[np.ndarray] = []
            chosen: list[np.ndarray] = []
            count = 0
            for end in sorted(ends):
                slots = np.arange(begun[end.env], end.slot + 1)
                slots = slots[together.fields["valid"][slots, end.env]]
                begun[end.env] = end.slot + 1
                if len(slots):
                    real.append(np.stack([slots, np.full(len(slots), end.env)]))
                    chosen.append(count + self._hindsight.chosen(len(slots), draw))
                    count += len(slots)
            if count:
                made = self._with_other_goals(
                    together, np.concatenate(real, axis=1), np.concatenate(chosen), rewards_of
                )
                rows = made if rows is None else _concatenated([rows, made])
            oldest = min(begun)
            whole = (_part(together, slice(oldest, None)),) if oldest < len(together.rewards) else ()
            begun = [first - oldest for first in begun]
        chunks, waiting = self._in_chunks(rows, all_rows)
        return Episodes(whole, tuple(begun), waiting, episodes.key), chunks

    def _with_other_goals(
        self, steps: Steps, real: np.ndarray, chosen: np.ndarray, rewards_of: Callable[[Goals], Any]
    ) -> Fields:
        """Return rows made of steps.

        Args:
            steps: all that are held, ``[T, N]``.
            real: the slots and the environments of the steps to relabel, ``[2, R]``.
            chosen: which of these steps' achieved goals are desired instead, ``[R, k]``.
            rewards_of: the environment's rewards of goals.
        """
        one = _part(steps, (real[0], real[1]))
        source = np.repeat(np.arange(real.shape[1]), chosen.shape[1])
        goals = one.achieved[chosen.reshape(-1)].astype(one.desired.dtype, copy=False)
        n, both = len(one.rewards), np.concatenate([np.arange(len(one.rewards)), source])
        # One call for both: the steps as they were, whose rewards are known, and with other goals.
        infos = [{} for _ in both] if one.infos is None else list(one.infos[both])
        asked = Goals(one.achieved[both], np.concatenate([one.desired, goals]), infos)
        rewards = self._checked(rewards_of(asked), len(both))
        self._compare(rewards[:n], one, real[1])
        fields = jax.tree.map(lambda x: x[source], one.fields)
        fields["rewards"] = rewards[n:].astype(np.float32)
        for name in ("observations", "successors"):
            fields[name] = with_goals(fields[name], goals)
        return fields

    def _checked(self, rewards: Any, count: int) -> np.ndarray:
        """Return rewards as an array of numbers, one for each row. Raises ``EnvironmentFault``."""
        who = f"compute_reward of {self._name} returned"
        try:
            found = np.asarray(rewards)
            numbers = found.astype(np.float64)
        except (TypeError, ValueError):
            raise EnvironmentFault(f"{who} {rewards!r:.60}, which is no array of numbers.") from None
        if found.shape != (count,):
            raise EnvironmentFault(
                f"{who} an array of shape {found.shape} for {count} goals; it must take arrays of goals and return an array of "
                f"shape ({count},), a reward for each."
            )
        if not np.all(np.isfinite(numbers)):
            raise EnvironmentFault(f"{who} {found[~np.isfinite(numbers)][0]}, which is not finite.")
        return numbers

    def _compare(self, computed: np.ndarray, steps: Steps, envs: np.ndarray) -> None:
        """Refuse rewards that depend on more than they are computed from. Raises ``UnsupportedEnvironment``."""
        differs = ~np.isclose(computed, steps.rewards, rtol=1e-4, atol=1e-6)
        if not np.any(differs):
            return
        i = int(np.argmax(differs))
        infos = self._hindsight.with_infos
        remedy = "leave goal_selection_strategy out" + (
            "" if infos else ", or set copy_info_dict if it depends on info"
        )
        raise UnsupportedEnvironment(
            f"environment {int(envs[i])} of {self._name} gave the reward {steps.rewards[i]:g} for a step, and its "
            f"compute_reward gives {computed[i]:g} for the goals of this step ({int(np.sum(differs))} of {len(differs)} steps "
            f"differ). So the reward depends on more than the goals, and that of another goal is not known; {remedy}."
        )

    def _in_chunks(self, rows: Fields | None, all_rows: bool) -> tuple[list[tuple[Fields, np.int32]], Fields | None]:
        """Return rows in whole slots, some slots at a time, and those that do not fill one; with ``all_rows`` none are left."""
        count = 0 if rows is None else len(rows["rewards"])
        slots = -(-count // self._n_envs) if all_rows else count // self._n_envs
        if rows is None or slots == 0:
            return [], rows
        chunks = []
        for first in range(0, slots, self._chunk):
            used = min(self._chunk, slots - first)
            part = _take(rows, first * self._n_envs, used * self._n_envs)
            chunks.append((jax.tree.map(self._as_slots, part), np.int32(used)))
        left = count - slots * self._n_envs
        return chunks, _take(rows, count - left, left) if left > 0 else None

    def _as_slots(self, rows: np.ndarray) -> np.ndarray:
        """Return rows as ``[C, N, ...]``; what lacks is filled up by zeros, which are no experience."""
        lacking = self._chunk * self._n_envs - len(rows)
        if lacking:
            rows = np.concatenate([rows, np.zeros((lacking, *rows.shape[1:]), rows.dtype)])
        return rows.reshape(self._chunk, self._n_envs, *rows.shape[1:])


def steps_of(gathered: Fields, steps: Sequence[HostStep], with_infos: bool) -> Steps:
    """Return a round that was gathered, with the environments' own goals and rewards.

    Args:
        gathered: fields of a trajectory.
        steps: what the environments returned, one after the other.
        with_infos: whether infos are wanted.
    """
    achieved, desired = (np.stack([np.asarray(step.successors[key]) for step in steps]) for key in (ACHIEVED, DESIRED))
    rewards, infos = np.stack([step.rewards for step in steps]), None
    if with_infos:
        infos = np.empty(rewards.shape, dtype=object)
        for t, step in enumerate(steps):
            infos[t] = [{} for _ in infos[t]] if step.whole_infos is None else list(step.whole_infos)
    return Steps({name: gathered[name] for name in KEPT}, achieved, desired, rewards, infos)


def trajectory_fields(rows: Fields) -> Fields:
    """Return relabelled rows ``[C, N]`` as fields of a trajectory."""
    shape = rows["rewards"].shape
    return {**rows, "episode_start": np.zeros(shape, bool), "carry": (), "critic_carry": ()}


def joined(parts: Sequence[Steps]) -> Steps:
    """Return steps that follow each other as one."""
    if len(parts) == 1:
        return parts[0]
    fields, *others = zip(*parts, strict=True)
    together: Any = [None if x[0] is None else np.concatenate(x) for x in others]
    return Steps(_concatenated(fields), *together)


def _concatenated(parts: Sequence[Fields]) -> Fields:
    """Return fields of rows one after the other; one that came late has its neutral value in the rows before."""
    counts = [part["rewards"].shape for part in parts]

    def column(name: str) -> Any:
        values = [part[name] for part in parts]
        given = next((x for x in values if x is not None), None)
        if given is None:
            return None
        if name in NEUTRAL:
            row = given.shape[len(counts[0]) :]
            values = [
                np.full((*count, *row), NEUTRAL[name], given.dtype) if x is None else x
                for x, count in zip(values, counts, strict=True)
            ]
        return jax.tree.map(lambda *x: np.concatenate(x), *values)

    return {name: column(name) for name in KEPT}


def _part(steps: Steps, index: Any) -> Steps:
    """Return some of the steps, in arrays of their own: those let go of are not kept alive by them."""
    return jax.tree.map(lambda x: np.array(x[index]), steps)


def _take(rows: Fields, first: int, count: int) -> Fields:
    return jax.tree.map(lambda x: x[first : first + count], rows)
