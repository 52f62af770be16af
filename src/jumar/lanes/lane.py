"""A lane's environment: it knows where it is in its episodes, and can be put there again by doing the same once more."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from jumar.envs.host import HostStep, SerialEnvironments, Warn
from jumar.errors import EnvironmentFault
from jumar.lanes.records import Barrier, Gave, LaneMaking, LaneRecord, Opened, episode_seed


class NotDeterministic(EnvironmentFault):
    """An environment did something else when it was given the same seed and the same actions once more."""


def not_deterministic(name: str, lane: int, how: str) -> NotDeterministic:
    """Return the fault of an environment that cannot be repeated; ``how`` that was found, the end of a clause."""
    return NotDeterministic(
        f"environment {lane} of {name} is not deterministic: {how}. What it does must follow from the seed that reset is given "
        "and from the actions (not from the clock, a generator of its own, or earlier episodes), or --runners cannot repeat "
        "it elsewhere; repair it, or leave --runners out."
    )


class Lane:
    """One environment, from a barrier on.

    Args:
        making: how it is made.
        index: the lane's.
        barrier: where its episodes are counted from.
        warn: hears of a step that does not return; ``None``: nobody does.
        passed_on: exceptions that are not taken for the environment's own.

    Attributes:
        at: the number of the request that it is ready for.
        observations, masks: what to act on next, a batch of one.
    """

    def __init__(
        self,
        making: LaneMaking,
        index: int,
        barrier: Barrier,
        warn: Warn | None = None,
        passed_on: tuple[type[BaseException], ...] = (KeyboardInterrupt,),
    ) -> None:
        self.index, self.barrier, self._name = index, barrier, making.name
        self._progress = [index, 0]
        self._environments = SerialEnvironments(
            [making.make],
            making.name,
            warn=warn,
            first_index=index,
            progress=self._progress,
            cost=making.cost,
            log=making.log,
            passed_on=passed_on,
            next_seed=lambda row: episode_seed(barrier, index, self._episode + 1),
        )
        self._environments.keep_infos(making.keeps_infos)
        self._dtype = self._environments.action_space.dtype
        self._episode = 0
        self._shown = hashlib.sha256()
        self._rows = hashlib.sha256()
        self._actions: list[np.ndarray] = []
        self._goes_on = True
        self.at = 0
        self.observations: Any = None
        self.masks: np.ndarray | None = None

    def put(self, record: LaneRecord) -> Iterator[None]:
        """Reset it, and repeat the actions of the open episode; yield after each.

        Raises:
            NotDeterministic: it shows something else than before.
            EnvironmentFault: it failed.
        """
        actions = [action for part in record.actions or () for action in part]
        self._episode, self._shown = record.episode, hashlib.sha256()
        seed = episode_seed(self.barrier, self.index, record.episode)
        self._environments.expect(*record.gave)
        observations, masks = self._environments.reset([seed])
        self._progress[1] = record.steps - len(actions)
        self._see(observations, masks)
        for action in actions:
            if self._ends_by(action[None]):
                raise not_deterministic(
                    self._name, self.index, "an episode that was repeated ended where it had gone on"
                )
            yield
        if record.digest and self._shown.digest() != record.digest:
            raise not_deterministic(
                self._name,
                self.index,
                f"an episode repeated with the seed {seed} showed other observations or rewards",
            )
        self.begin()

    def begin(self) -> None:
        """Take note that a request begins, in the middle of which the lane is ready for none."""
        self.at = -1
        self._rows, self._actions, self._goes_on = hashlib.sha256(), [], True

    def step(self, action: np.ndarray) -> HostStep:
        """Act once; ``action`` is a batch of one."""
        action = self._as_kept(action)
        self._actions.append(action[0])
        step = self._environments.step(action)
        self._follow(action, step)
        return step

    def opened(self) -> Opened:
        """Return where the lane is after a request."""
        shape = self._environments.action_space.shape or ()
        actions = np.stack(self._actions) if self._actions else np.zeros((0, *shape), self._dtype)
        return Opened(
            self.index,
            self._episode,
            self._progress[1],
            actions,
            self._goes_on,
            self._shown.digest(),
            self._rows.digest(),
            Gave(*self._environments.gives),
        )

    def close(self) -> None:
        """Close the environment."""
        self._environments.close()

    def _ends_by(self, action: np.ndarray) -> bool:
        """Repeat an action; return whether the episode ended with it."""
        episode, action = self._episode, self._as_kept(action)
        self._follow(action, self._environments.step(action))
        return self._episode != episode

    def _as_kept(self, action: np.ndarray) -> np.ndarray:
        """Return an action in the dtype of its space, in which it is kept and enters digests: programs make narrower ones."""
        return action.astype(self._dtype, copy=False)

    def _follow(self, action: np.ndarray, step: HostStep) -> None:
        """Write down what came of an action."""
        ended = bool(step.terminated[0] | step.truncated[0])
        shown = _digest(
            action,
            step.successors,
            step.rewards.astype(np.float64),
            step.terminated,
            step.truncated,
            np.zeros(1) if step.costs is None else step.costs,
        )
        self._rows.update(shown)
        self._shown.update(shown)
        if ended:
            self._episode += 1
            self._shown, self._actions, self._goes_on = hashlib.sha256(), [], False
            self._see(step.observations, step.action_masks)
        else:
            self.observations, self.masks = step.observations, step.action_masks
            self._shown.update(_of_masks(step.action_masks))

    def _see(self, observations: Any, masks: np.ndarray | None) -> None:
        """Take in what an episode begins with."""
        self.observations, self.masks = observations, masks
        shown = _digest(observations) + _of_masks(masks)
        self._shown.update(shown)
        self._rows.update(shown)


def _of_masks(masks: np.ndarray | None) -> bytes:
    # One that allows everything says as little as none.
    return b"" if masks is None or masks.all() else masks.tobytes()


def _digest(*trees: Any) -> bytes:
    """Return the SHA-256 of the bytes of arrays."""
    leaves = trees if all(type(tree) is np.ndarray for tree in trees) else jax.tree.leaves(trees)
    return hashlib.sha256(b"".join([leaf.tobytes() for leaf in leaves])).digest()
