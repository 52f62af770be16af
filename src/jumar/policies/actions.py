"""Actions: between what a policy draws and what an environment takes."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from jumar.errors import UsageError


@functools.lru_cache(maxsize=64)
def narrow_dtype(dtype: Any) -> np.dtype:
    """Return a dtype with 64-bit floats and integers narrowed to 32 bits, others as they are."""
    dtype = np.dtype(dtype)
    return np.dtype(f"{dtype.kind}4") if dtype.kind in "iuf" and dtype.itemsize > 4 else dtype


@functools.lru_cache(maxsize=256)
def bounds_inside(low: tuple[float, ...], high: tuple[float, ...], dtype: np.dtype) -> tuple[np.ndarray, np.ndarray]:
    """Return a Box's bounds as arrays of ``dtype``, rounded inwards where it cannot hold them exactly.

    The nearest float32 to 0.4 is larger than 0.4: clipped to it, an action would lie outside of a float64 Box.
    """
    with np.errstate(over="ignore"):
        lowest, highest = np.asarray(low, dtype), np.asarray(high, dtype)
    lowest = np.where(lowest.astype(np.float64) < np.asarray(low), np.nextafter(lowest, dtype.type(np.inf)), lowest)
    highest = np.where(
        highest.astype(np.float64) > np.asarray(high), np.nextafter(highest, dtype.type(-np.inf)), highest
    )
    return lowest, highest


@dataclass(frozen=True)
class ActionCodec:
    r"""Turns a policy's own actions into valid ones of an action space.

    A Gaussian policy's actions are clipped to the Box: only what the environment gets is clipped, never what the
    log-probability belongs to. With ``squash`` they are squashed into it by tanh before: the environment gets
    :math:`m + h \tanh u` of the policy's own ``u``, with the middle and half of the range of each bound; of a Box of integers
    the nearest one. Choices get the space's ``start``. Works on NumPy and on JAX arrays alike.
    """

    kind: str
    """``box``, ``discrete``, ``multi_discrete`` or ``multi_binary``."""
    shape: tuple[int, ...]
    dtype: str
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    choices: tuple[int, ...] = ()
    start: tuple[int, ...] = ()
    squash: bool = False

    @classmethod
    def of(cls, space: gym.Space[Any], squash: bool = False) -> ActionCodec:
        """Build the codec of an action space.

        Raises:
            TypeError: a space that no policy is for.
            UsageError: it is to be squashed into bounds that are not there, or that leave nothing between them.
        """
        dtype = str(space.dtype)
        if isinstance(space, spaces.Box):
            low, high = (tuple(float(x) for x in bound.ravel()) for bound in (space.low, space.high))
            if squash:
                check_bounds(space, "squash", "turn squash off")
            return cls("box", space.shape, dtype, low, high, squash=squash)
        if isinstance(space, spaces.Discrete):
            return cls("discrete", (), dtype, choices=(int(space.n),), start=(int(space.start),))
        if isinstance(space, spaces.MultiDiscrete):
            choices, start = (tuple(int(x) for x in part.ravel()) for part in (space.nvec, space.start))
            return cls("multi_discrete", space.nvec.shape, dtype, choices=choices, start=start)
        if isinstance(space, spaces.MultiBinary):
            return cls("multi_binary", tuple(space.shape), dtype)
        raise TypeError(f"no policy for the action space {space!r}")

    @property
    def size(self) -> int:
        """How many numbers a policy's action has."""
        return math.prod(self.shape)

    @property
    def units(self) -> int:
        """How many numbers critics see of an action; see :meth:`unit_of`."""
        return self.choices[0] if self.kind == "discrete" else self.size

    @property
    def middle(self) -> tuple[float, ...]:
        """The middle of each bound of a Box."""
        return tuple(0.5 * low + 0.5 * high for low, high in zip(self.low, self.high, strict=True))

    @property
    def half_range(self) -> tuple[float, ...]:
        """Half of the distance between each two bounds of a Box."""
        return tuple(0.5 * high - 0.5 * low for low, high in zip(self.low, self.high, strict=True))

    def blank(self, batch: tuple[int, ...]) -> np.ndarray:
        """Return a batch of a policy's own actions, all of them 0."""
        if self.kind == "box":
            return np.zeros((*batch, self.size), np.float32)
        return np.zeros(batch if self.kind == "discrete" else (*batch, self.size), np.int32)

    @property
    def mask_size(self) -> int | None:
        """The length of an action mask, ``None`` where the space has no masks."""
        if self.kind == "multi_binary":
            return 2 * self.size
        return None if self.kind == "box" else sum(self.choices)

    @property
    def mask_segments(self) -> tuple[int, ...]:
        """The lengths of the parts of an action mask, one for each choice that an action is made of."""
        return (2,) * self.size if self.kind == "multi_binary" else self.choices

    def leaves_a_choice(self, masks: Any, xp: ModuleType = np) -> Any:
        """Return whether each mask ``[..., mask_size]`` allows something in every choice, ``[...]`` boolean."""
        ends = np.cumsum(self.mask_segments)
        parts = xp.split(masks, ends[:-1], axis=-1)
        return xp.all(xp.stack([xp.any(part, axis=-1) for part in parts], axis=-1), axis=-1)

    def to_environment(self, actions: Any, xp: ModuleType = np) -> Any:
        """Return valid actions ``[..., *space.shape]`` in the space's dtype.

        Args:
            actions: ``[...]`` for Discrete, else ``[..., size]``, as the policy drew them.
            xp: ``numpy`` or ``jax.numpy``.
        """
        # JAX has no 64-bit numbers unless told so; whoever takes its actions widens them.
        dtype = np.dtype(self.dtype) if xp is np else narrow_dtype(self.dtype)
        if self.kind == "discrete":
            return (actions + self.start[0]).astype(dtype)
        if self.kind == "box":
            precision = np.promote_types(actions.dtype, dtype) if dtype.kind == "f" else np.dtype(actions.dtype)
            low, high = bounds_inside(self.low, self.high, precision)
            actions = actions.astype(precision)
            if self.squash:
                actions = self._rounded(self._from_unit(xp.tanh(actions), precision, xp), xp)
            # After squashing this only takes back what rounding adds at the bounds.
            actions = xp.clip(actions, xp.asarray(low), xp.asarray(high))
        elif self.kind == "multi_discrete":
            actions = actions + xp.asarray(self.start, actions.dtype)
        return actions.astype(dtype).reshape(*actions.shape[:-1], *self.shape)

    def to_unit(self, actions: Any, xp: ModuleType = np) -> Any:
        r"""Return a squashing policy's own actions in units of half of the range, :math:`\tanh u`, ``[..., size]``."""
        return xp.tanh(actions)

    def from_unit(self, units: Any, xp: ModuleType = np) -> Any:
        r"""Return valid actions ``[..., *space.shape]`` of a Box, :math:`m + h x` of ``x`` in [-1, 1], in the space's dtype.

        Of integers it is the nearest.
        """
        dtype = np.dtype(self.dtype) if xp is np else narrow_dtype(self.dtype)
        precision = np.promote_types(units.dtype, dtype) if dtype.kind == "f" else np.dtype(units.dtype)
        low, high = bounds_inside(self.low, self.high, precision)
        actions = self._rounded(self._from_unit(units.astype(precision), precision, xp), xp)
        actions = xp.clip(actions, xp.asarray(low), xp.asarray(high))
        return actions.astype(dtype).reshape(*actions.shape[:-1], *self.shape)

    def unit_of(self, actions: Any, xp: ModuleType = np) -> Any:
        r"""Return valid actions, numbers ``[..., size]``, as critics see them.

        Those of a Box are in units of half of the range, :math:`(a - m) / h`. Of Discrete ones ``[..., 1]`` there is a number
        for each action that there is, ``[..., n]``: 1 for the one that was taken, else 0.
        """
        if self.kind == "discrete":
            return (actions - self.start[0] == xp.arange(self.choices[0])).astype(actions.dtype)
        middle, half_range = (xp.asarray(np.asarray(x, actions.dtype)) for x in (self.middle, self.half_range))
        return (actions - middle) / half_range

    def uniform(self, units: Any, xp: ModuleType = np) -> Any:
        r"""Return units that make valid actions uniform over a Box of numbers uniform in [-1, 1], ``[..., size]``.

        They are the same numbers, but for integers: there each end of the range is rounded to from half an integer beyond it
        on, as every other integer is, so that they are :math:`(1 + 1 / 2h) x`.
        """
        if np.dtype(self.dtype).kind == "f":
            return units
        reach = 1.0 + 0.5 / np.asarray(self.half_range)
        return units * xp.asarray(reach.astype(units.dtype))

    def _rounded(self, actions: Any, xp: ModuleType) -> Any:
        return actions if np.dtype(self.dtype).kind == "f" else xp.round(actions)

    def _from_unit(self, units: Any, precision: np.dtype, xp: ModuleType) -> Any:
        middle, half_range = (xp.asarray(np.asarray(x, precision)) for x in (self.middle, self.half_range))
        return middle + half_range * units


def check_bounds(space: spaces.Box, what: str, otherwise: str) -> None:
    """Refuse bounds that nothing can be squashed into; a density needs room between them, in single precision too.

    Args:
        space: the Box.
        what: what is to squash, in words.
        otherwise: what else one can do, in words.

    Raises:
        UsageError: one of them is infinite, or is not below the other.
    """
    for index in np.ndindex(*space.shape):
        lowest, highest = float(space.low[index]), float(space.high[index])
        entry = f"entry {index[0] if len(index) == 1 else index} of the action" if index else "the action"
        if max(abs(lowest), abs(highest)) > float(np.finfo(np.float32).max):
            wanted = "finite bounds" if math.isinf(max(abs(lowest), abs(highest))) else "bounds that 32 bits hold"
            raise UsageError(
                f"{what} needs {wanted}, and {entry} is in [{lowest:g}, {highest:g}]; bound it (Gymnasium's RescaleAction "
                f"does), or {otherwise}."
            )
        if not np.float32(lowest) < np.float32(highest):
            raise UsageError(
                f"{what} needs a lower bound below the upper one in single precision, and {entry} is in "
                f"[{lowest:g}, {highest:g}]; leave the entry out of the action space, or {otherwise}."
            )
