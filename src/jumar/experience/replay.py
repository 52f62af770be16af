r"""Replay: the last so many steps of all environments, and rows drawn from them.

The memory is a ring of *slots*; a slot is one step of all ``N`` environments. It is made of two parts:

- the *ring*, some arrays of ``[(slots + room) N, ...]``, to which whole blocks of slots are written at once, in place, by a
  program of their own, and which every other program only reads;
- *fresh* slots, few enough to be copied: those that were collected since the ring was last written to.

A loop that both reads and writes a large array makes XLA copy it (jax #40101, xla #45912), so that each step would take
time in proportion to the capacity. Here no loop writes to the ring. Rows are drawn from both parts together, so that an
update sees the step just made. The ring has room for one block more than its slots, so a learner from before a block was
written still finds all of its own rows.

A row has all of a transition: the raw observation (what :class:`jumar.policies.observations.Encoder` makes use of), the
action that the environment executed, the raw reward and cost, how the episode went on, and the true successor. All numbers
of a row lie side by side in one array, which can be gathered at once; images lie beside it. Where an image is a stack of
the last K frames, only the newest frame of it and of its successor are kept, and stacks are put together again from K rows.

Rows whose goals were chosen in hindsight are rows like any other. They fill slots of their own, any number of them after a
step, and a mark in their last column tells them from what environments did.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jumar.experience.hindsight import slots_at_once
from jumar.policies.observations import Encoder, Leaf
from jumar.spaces import nested
from jumar.trajectory import Trajectory

Arrays = dict[str, Array]

TRIES = 8
"""How many rows are drawn for each one that is wanted, where some are no experience; the first that is one is taken."""


class Cursor(NamedTuple):
    """Where the ring is written to next, and how much of it is filled; both in slots, int32 scalars."""

    place: Array
    filled: Array

    @classmethod
    def start(cls) -> Cursor:
        """Return the cursor of an empty ring."""
        return cls(jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32))


class Fresh(NamedTuple):
    """Slots that are not in the ring yet, the oldest first."""

    arrays: Arrays
    """With room for a block of slots."""
    slots: Array
    """How many there are, int32."""


class Transitions(NamedTuple):
    r"""Rows that were drawn, ``[B, ...]``.

    The target of a value function is :math:`R + d \, V(s')`: ``rewards`` has the discounted sum of up to n rewards,
    ``discounts`` :math:`\gamma^k` after k of them, or 0 where the episode terminated, and ``successors`` what followed.
    """

    observations: Any
    actions: Array
    """In the environment's units, float32 ``[B, d]``."""
    rewards: Array
    discounts: Array
    successors: Any
    weights: Array
    """1, or 0 for a row that is no experience."""
    masks: Array | None = None
    """Which actions were allowed at ``observations``, boolean ``[B, M]``; ``None`` where there are no masks."""
    successor_masks: Array | None = None
    """The same at ``successors``."""
    next_actions: Array | None = None
    """What was done at ``successors``, like ``actions``, where it is wanted."""


@dataclass(frozen=True)
class Columns:
    """Where the numbers of a row lie."""

    leaves: tuple[Leaf, ...]
    """Those parts of an observation that are no images."""
    action_size: int
    masks: int = 0
    """How many numbers a mask of actions has."""
    marked: bool = False
    """Whether the last column says of a row that its goal was chosen in hindsight."""

    @property
    def observation(self) -> int:
        """How many numbers an observation has, images apart."""
        return sum(math.prod(leaf.shape) for leaf in self.leaves)

    @property
    def width(self) -> int:
        """How many numbers a row has."""
        return 2 * self.observation + self.action_size + len(OTHERS) + 2 * self.masks + self.marked

    @property
    def others(self) -> int:
        """The first of the columns :data:`OTHERS`."""
        return self.observation + self.action_size

    @property
    def mask(self) -> int:
        """The first of the columns of the mask, behind which lies that of the successor."""
        return self.width - 2 * self.masks - self.marked

    def column(self, name: str) -> int:
        """Return the place of one of :data:`OTHERS`."""
        return self.others + OTHERS.index(name)


OTHERS = ("reward", "cost", "terminated", "truncated", "valid")
"""The columns between the action and the successor, behind which the masks lie. A cost is :data:`ABSENT` where the
environment gives none."""
ABSENT = np.finfo(np.float32).min
"""Stands for a cost that did not come with a step."""


@dataclass(frozen=True)
class Replay:
    """A memory of the last ``slots`` slots.

    Args:
        encoder: says what of an observation is kept.
        action_size: the length of an action.
        masks: the length of a mask of allowed actions; 0 where none is kept.
        next_actions: whether rows are drawn with the next action, for which ``n_steps`` must be 1. A row whose next action is
            not known counts for nothing: the newest, unless its episode terminated, and one that was truncated.
        slots: how many slots there are.
        n_envs: rows of a slot.
        block: how many slots are written to the ring at once.
        n_steps: how many rewards a drawn row sums up, n.
        gamma: the discount.
        all_valid: whether all rows are experience (no backend resets in a step of its own).
        frames: how many frames are stacked in an image, along its first axis, the oldest first: each stack goes on from the
            one of the row before, or holds a single frame K times, as after a reset; 1: none are.
        aligned: whether blocks begin at whole numbers of blocks, so that none is ever divided; not after stored transitions,
            of which there may be any number, and not where rows are relabelled.
        relabelled: how many slots of rows relabelled in hindsight (:mod:`jumar.experience.hindsight`) may come beside a block;
            0: none. They lie among the others, in the order of coming; ``n_steps`` must be 1 and no frames are stacked,
            because the row before one of them in its column is of another episode.
    """

    encoder: Encoder
    action_size: int
    slots: int
    n_envs: int
    block: int
    n_steps: int = 1
    gamma: float = 0.99
    all_valid: bool = True
    masks: int = 0
    next_actions: bool = False
    frames: int = 1
    aligned: bool = True
    relabelled: int = 0

    @property
    def columns(self) -> Columns:
        """Where the numbers of a row lie."""
        plain = tuple(leaf for leaf in self.encoder.leaves if not leaf.convolved)
        return Columns(plain, self.action_size, self.masks, self.relabelled > 0)

    @property
    def room(self) -> int:
        """How many slots have room among the fresh ones: a block, what is relabelled meanwhile, and slots that do not count."""
        return self.block + (self.relabelled + slots_at_once(self.n_envs) if self.relabelled else 0)

    @property
    def places(self) -> int:
        """How many slots the ring has room for: its own and one block more, in whole blocks, so that none is ever divided.

        Where rows are relabelled, blocks are of different lengths, and there is room for the longest one.
        """
        if self.relabelled:
            return self.slots + self.room
        return -(-(self.slots + self.block) // self.block) * self.block

    @property
    def row_bytes(self) -> int:
        """The memory that one row takes, in bytes."""
        images = sum(2 * math.prod(self._kept(leaf)) * jnp.dtype(leaf.dtype).itemsize for leaf in self._images)
        return 4 * self.columns.width + images + sum(map(self._is_stack, self._images))

    @property
    def _images(self) -> tuple[Leaf, ...]:
        return tuple(leaf for leaf in self.encoder.leaves if leaf.convolved)

    def _is_stack(self, leaf: Leaf) -> bool:
        return self.frames > 1 and leaf.shape[0] == self.frames

    def _kept(self, leaf: Leaf) -> tuple[int, ...]:
        """Return the shape of what is kept of an image."""
        return leaf.shape[1:] if self._is_stack(leaf) else leaf.shape

    @property
    def oldest(self) -> int:
        """How many of the oldest slots are not drawn, because frames of their stacks are forgotten already."""
        return self.frames - 1 if any(map(self._is_stack, self._images)) else 0

    def empty(self, slots: int) -> Arrays:
        """Return arrays of ``slots`` slots in which nothing is experience."""
        rows = slots * self.n_envs
        arrays = {"rows": jnp.zeros((rows, self.columns.width), jnp.float32)}
        for i, leaf in enumerate(self._images):
            for name in (f"image_{i}", f"next_image_{i}"):
                arrays[name] = jnp.zeros((rows, *self._kept(leaf)), leaf.dtype)
            if self._is_stack(leaf):
                arrays[f"begun_{i}"] = jnp.zeros((rows,), jnp.uint8)
        return arrays

    def ring(self) -> Arrays:
        """Return an empty ring."""
        return self.empty(self.places)

    def fresh(self) -> Fresh:
        """Return no fresh slots, with room for a block."""
        return Fresh(self.empty(self.room), jnp.zeros((), jnp.int32))

    def written(self, trajectory: Trajectory, relabelled: bool = False) -> Arrays:
        """Return the steps of a trajectory ``[T, N]`` as rows, time after time."""
        shape = trajectory.rewards.shape
        n = math.prod(shape)

        def flat(x: Array) -> Array:
            return x.astype(jnp.float32).reshape(n, -1)

        def numbers(observation: Any) -> list[Array]:
            return [flat(jnp.asarray(leaf.pick(observation))) for leaf in self.columns.leaves]

        costs = jnp.full(shape, ABSENT, jnp.float32)
        if trajectory.costs is not None and trajectory.costs.shape == shape:
            costs = trajectory.costs
        others = (trajectory.rewards, costs, trajectory.terminated, trajectory.truncated, trajectory.valid)
        parts = [
            *numbers(trajectory.observations),
            flat(trajectory.actions),
            *map(flat, others),
            *numbers(trajectory.successors),
            *map(flat, self._masks_of(trajectory)),
        ]
        if self.columns.marked:
            parts.append(jnp.full((n, 1), float(relabelled), jnp.float32))
        arrays = {"rows": jnp.concatenate(parts, axis=-1)}
        for i, leaf in enumerate(self._images):
            for name, seen in ((f"image_{i}", trajectory.observations), (f"next_image_{i}", trajectory.successors)):
                image = jnp.asarray(leaf.pick(seen)).astype(leaf.dtype).reshape(n, *leaf.shape)
                arrays[name] = image[:, -1] if self._is_stack(leaf) else image
                if self._is_stack(leaf) and seen is trajectory.observations:
                    one_frame = jnp.all((image == image[:, -1:]).reshape(n, -1), axis=-1)
                    arrays[f"begun_{i}"] = one_frame.astype(jnp.uint8)
        return arrays

    def _masks_of(self, trajectory: Trajectory) -> tuple[Array, ...]:
        """Return the masks at the observations and at the successors, where they are kept; all is allowed without any."""
        if not self.masks:
            return ()
        beside = trajectory.action_masks, trajectory.successor_masks
        all_allowed = jnp.ones((*trajectory.rewards.shape, self.masks), bool)
        if trajectory.action_masks is not None:  # those in successors, if any, may be of another kind
            return tuple(all_allowed if mask is None else mask for mask in beside)
        found = (self.encoder.mask(seen, None) for seen in (trajectory.observations, trajectory.successors))
        return tuple(all_allowed if mask is None else mask for mask in found)

    def add(self, fresh: Fresh, trajectory: Trajectory) -> Fresh:
        """Return the fresh slots with those of a trajectory behind them; there must be room."""
        return self._added(fresh, self.written(trajectory), trajectory.rewards.shape[0])

    def add_relabelled(self, fresh: Fresh, trajectory: Trajectory, slots: Array) -> Fresh:
        """Return the fresh slots with relabelled rows behind them.

        Args:
            fresh: the fresh slots, among which there must be room.
            trajectory: rows ``[C, N]``, in any order; C is at most ``slots_at_once``.
            slots: how many of the C slots count; int32.
        """
        return self._added(fresh, self.written(trajectory, relabelled=True), slots)

    def _added(self, fresh: Fresh, written: Arrays, slots: int | Array) -> Fresh:
        begin = fresh.slots * self.n_envs
        arrays = {
            name: jax.lax.dynamic_update_slice_in_dim(fresh.arrays[name], rows, begin, axis=0)
            for name, rows in written.items()
        }
        return Fresh(arrays, fresh.slots + slots)

    def stepped(self, fresh: Fresh) -> Arrays:
        """Return the slots of a whole block that environments stepped, in the order of time, without relabelled ones."""
        if not self.relabelled:
            return fresh.arrays
        marks = fresh.arrays["rows"][:: self.n_envs, -1]
        steps = jnp.argsort(marks, stable=True)[: self.block]
        rows = (steps[:, None] * self.n_envs + jnp.arange(self.n_envs)).reshape(-1)
        return {name: x[rows] for name, x in fresh.arrays.items()}

    def store(self, ring: Arrays, fresh: Fresh, cursor: Cursor) -> Arrays:
        """Return the ring with the fresh slots in it, which must be a whole block; ``cursor`` is the one from before them.

        Where rows are relabelled there may be any number of them. It is meant to be compiled by itself, with ``ring`` donated.
        """
        begin = cursor.place * self.n_envs
        if self.aligned:
            return {
                name: jax.lax.dynamic_update_slice_in_dim(ring[name], fresh.arrays[name], begin, axis=0)
                for name in ring
            }
        count, whole = jnp.arange(self.room * self.n_envs), self.places * self.n_envs
        rows = (begin + count) % whole
        if self.relabelled:  # what does not count goes beyond the ring, and is dropped
            rows = jnp.where(count < fresh.slots * self.n_envs, rows, whole + count)
        return {name: ring[name].at[rows].set(fresh.arrays[name], unique_indices=True, mode="drop") for name in ring}

    def after(self, cursor: Cursor, fresh: Fresh) -> Cursor:
        """Return the cursor after the fresh slots were stored."""
        return Cursor((cursor.place + fresh.slots) % self.places, jnp.minimum(cursor.filled + fresh.slots, self.slots))

    def size(self, cursor: Cursor, fresh: Fresh) -> Array:
        """Return how many slots can be drawn from, int32."""
        return jnp.minimum(cursor.filled + fresh.slots, self.slots - self.oldest)

    def cut(self, ring: Arrays, cursor: Cursor) -> Arrays:
        """Return the ring with the newest slot marked as truncated where its episodes go on.

        So they are valued by what followed, and nothing is summed up across the cut. It is meant to be compiled with
        ``ring`` donated.
        """
        columns = self.columns
        newest = (cursor.place - 1) % self.places
        begin = newest * self.n_envs
        rows = jax.lax.dynamic_slice_in_dim(ring["rows"], begin, self.n_envs)
        goes_on = (rows[:, columns.column("terminated")] == 0.0) & (cursor.filled > 0)
        if columns.marked:
            goes_on &= rows[:, -1] == 0.0  # a relabelled slot is the newest once the cut was made
        truncated = jnp.where(goes_on, 1.0, rows[:, columns.column("truncated")])
        rows = rows.at[:, columns.column("truncated")].set(truncated)
        return {**ring, "rows": jax.lax.dynamic_update_slice_in_dim(ring["rows"], rows, begin, axis=0)}

    def draw(
        self,
        ring: Arrays,
        fresh: Fresh,
        cursor: Cursor,
        n: int,
        key: Array,
        worth: Callable[[Array, Array], Array] = lambda rewards, costs: rewards,
    ) -> Transitions:
        """Return ``n`` rows, each drawn uniformly from all that are experience.

        Args:
            ring: the ring.
            fresh: the slots that are not in it yet.
            cursor: where the ring is written to.
            n: how many rows.
            key: for drawing.
            worth: makes of raw rewards and costs what is learnt from.
        """
        size = self.size(cursor, fresh)
        draws = n if self.all_valid else n * TRIES
        bits = jax.random.bits(key, (draws,), jnp.uint32)
        # Which of size * N rows, without a product of two large numbers.
        ages = ((bits // self.n_envs) % jnp.maximum(size, 1).astype(jnp.uint32)).astype(jnp.int32)
        envs = (bits % self.n_envs).astype(jnp.int32)

        def look(ages: Array, envs: Array, name: str) -> Array:
            """Return the rows of slots that are so many slots old, 0 being the newest."""
            is_fresh = ages < fresh.slots
            recent = jnp.where(is_fresh, fresh.slots - 1 - ages, 0) * self.n_envs + envs
            earlier = ((cursor.place - 1 - (ages - fresh.slots)) % self.places) * self.n_envs + envs
            shape = (-1,) + (1,) * (ring[name].ndim - 1)
            from_fresh = fresh.arrays[name].at[recent].get(mode="promise_in_bounds")
            from_ring = ring[name].at[jnp.where(is_fresh, 0, earlier)].get(mode="promise_in_bounds")
            return jnp.where(is_fresh.reshape(shape), from_fresh, from_ring)

        columns = self.columns
        if not self.all_valid:
            valid = look(ages, envs, "rows")[:, columns.column("valid")].reshape(n, TRIES) > 0.0
            first = jnp.argmax(valid, axis=-1)[:, None]
            ages, envs = (jnp.take_along_axis(x.reshape(n, TRIES), first, axis=-1)[:, 0] for x in (ages, envs))

        def about(rows: Array) -> tuple[Array, Array, Array, Array]:
            reward, cost, terminated, truncated, valid = (rows[:, columns.column(name)] for name in OTHERS)
            return worth(reward, cost), terminated, jnp.maximum(terminated, truncated), valid

        first_ages, last_ages = ages, ages
        rows = look(ages, envs, "rows")
        begin, last = rows, rows
        reward, terminated, ended, valid = about(rows)
        weights = valid * (size > 0)
        total, discount = reward, jnp.full((n,), self.gamma, jnp.float32)
        for _ in range(self.n_steps - 1):
            # A row that is no experience is passed over: it has no reward and no time.
            goes_on = (ended == 0.0) & (ages > 0)
            ages = jnp.where(goes_on, ages - 1, ages)
            rows = look(ages, envs, "rows")
            reward, ends_here, ended_here, valid = about(rows)
            counts = goes_on & (valid > 0.0)
            total = jnp.where(counts, total + discount * reward, total)
            discount = jnp.where(counts, discount * self.gamma, discount)
            last, last_ages = jnp.where(counts[:, None], rows, last), jnp.where(counts, ages, last_ages)
            terminated = jnp.where(counts, ends_here, terminated)
            ended = jnp.where(counts, ended_here, ended)
        images = self._images_at(lambda name, back: look(first_ages + back, envs, name))
        next_images = self._next_images_at(lambda name, back: look(last_ages + back, envs, name))
        next_actions = None
        if self.next_actions:
            after = look(jnp.maximum(ages - 1, 0), envs, "rows")
            next_actions = after[:, columns.observation : columns.others]
            unknown = jnp.where(ended > 0.0, 1.0, ages == 0) * (1.0 - terminated)
            weights = weights * (1.0 - unknown)
        return Transitions(
            observations=self._observation(begin, 0, images),
            actions=begin[:, columns.observation : columns.others],
            rewards=total,
            discounts=discount * (1.0 - terminated),
            successors=self._observation(last, columns.others + len(OTHERS), next_images),
            weights=weights,
            masks=self._mask(begin, 0),
            successor_masks=self._mask(last, self.masks),
            next_actions=next_actions,
        )

    def recalled(self, arrays: Arrays, slots: int) -> Trajectory:
        """Return slots ``[slots, N]`` as a trajectory, whose actions are those that the environments were given.

        Stacks of frames that reach back before the first slot repeat its frame.
        """
        columns, rows = self.columns, arrays["rows"]
        shape = slots, self.n_envs

        def by_slot(x: Array) -> Array:
            return x.reshape(*shape, *x.shape[1:])

        def back(name: str, slots_back: int) -> Array:
            begin = jnp.repeat(arrays[name][: self.n_envs][None], slots_back, axis=0)
            earlier = arrays[name][: max(0, slots - slots_back) * self.n_envs]
            return jnp.concatenate([*begin[:slots], earlier])

        rewards, costs, terminated, truncated, valid = (by_slot(rows[:, columns.column(name)]) for name in OTHERS)
        return Trajectory(
            observations=jax.tree.map(by_slot, self._observation(rows, 0, self._images_at(back))),
            actions=by_slot(rows[:, columns.observation : columns.others]),
            rewards=rewards,
            terminated=terminated > 0.0,
            truncated=truncated > 0.0,
            successors=jax.tree.map(
                by_slot, self._observation(rows, columns.others + len(OTHERS), self._next_images_at(back))
            ),
            valid=valid > 0.0,
            episode_start=jnp.zeros(shape, bool),
            log_probs=jnp.zeros(shape, jnp.float32),
            action_masks=None if (mask := self._mask(rows, 0)) is None else by_slot(mask),
            costs=costs,
            carry=(),
            critic_carry=(),
            successor_masks=None if (mask := self._mask(rows, self.masks)) is None else by_slot(mask),
        )

    def whole(self, arrays: Arrays, slots: int) -> Array:
        """Return which stacks of frames of ``slots`` slots do not reach back before the first one, ``[slots, N]`` boolean."""
        known = jnp.broadcast_to(jnp.arange(slots)[:, None] >= self.oldest, (slots, self.n_envs))
        begun = [arrays[f"begun_{i}"] > 0 for i, leaf in enumerate(self._images) if self._is_stack(leaf)]
        if not begun:
            return known
        since = jax.lax.cummax(jnp.all(jnp.stack(begun), axis=0).reshape(slots, self.n_envs).astype(jnp.int32), axis=0)
        return known | (since > 0)

    def _mask(self, rows: Array, begin: int) -> Array | None:
        """Return the masks in rows, ``begin`` columns after the first one of them."""
        begin = self.columns.mask + begin
        return rows[:, begin : begin + self.masks] > 0.0 if self.masks else None

    def _images_at(self, look: Callable[[str, int], Array]) -> list[Array]:
        """Return the images of observations; ``look(name, k)`` returns what is kept of the rows that are k slots older."""

        def whole(i: int, leaf: Leaf) -> Array:
            frames = [look(f"image_{i}", 0)]
            if not self._is_stack(leaf):
                return frames[0]
            begun = jnp.zeros(len(frames[0]), bool)
            for back in range(1, self.frames):
                # Whatever was before the first frame of an episode, it stands in the stack in its place.
                begun |= look(f"begun_{i}", back - 1) > 0
                older = look(f"image_{i}", back)
                frames.append(jnp.where(begun.reshape((-1,) + (1,) * (older.ndim - 1)), frames[-1], older))
            return jnp.stack(frames[::-1], axis=1)

        return [whole(i, leaf) for i, leaf in enumerate(self._images)]

    def _next_images_at(self, look: Callable[[str, int], Array]) -> list[Array]:
        """Return the images of successors: a stack is that of the observation without its oldest frame, and one more."""
        newest = [look(f"next_image_{i}", 0) for i in range(len(self._images))]
        if not self.oldest:
            return newest
        return [
            jnp.concatenate([stack[:, 1:], new[:, None]], axis=1) if self._is_stack(leaf) else new
            for leaf, stack, new in zip(self._images, self._images_at(look), newest, strict=True)
        ]

    def _observation(self, rows: Array, begin: int, images: list[Array]) -> Any:
        """Return the observations in rows, from column ``begin`` on, in the structure of the observation space."""
        parts: list[tuple[tuple[str | int, ...], Array]] = []
        for leaf in self.columns.leaves:
            end = begin + math.prod(leaf.shape)
            parts.append((leaf.path, rows[:, begin:end].reshape(-1, *leaf.shape).astype(leaf.dtype)))
            begin = end
        parts += [(leaf.path, image) for leaf, image in zip(self._images, images, strict=True)]
        return nested(parts)
