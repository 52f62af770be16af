"""The boundary between a policy and environments: what may cross it, and the faults that name what may not.

Every host backend passes its actions, observations, rewards, masks and costs through here, so that the checks and their
sentences are the same for all.
"""

from __future__ import annotations

import sysconfig
import traceback
from collections.abc import Callable, Iterable, Mapping, MutableSequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from gymnasium import Space

from jumar.envs import batches
from jumar.envs.batches import Batch, Misfit
from jumar.envs.costs import GIVEN, Cost, lacking
from jumar.errors import EnvironmentFault
from jumar.spaces import describe_space


class MisfitExtra(Misfit):
    """A cost, an action mask or an info that is none; ``what`` says which."""

    def __init__(self, what: str, sentence: str, row: int | None) -> None:
        super().__init__(sentence, row)
        self.what = what


class MissingEntry(Misfit):
    """An info without the ``entry`` that the cost is made of."""

    def __init__(self, entry: str, row: int | None) -> None:
        super().__init__(f"no {entry!r} in the info", row)
        self.entry = entry


@dataclass(frozen=True)
class Boundary:
    """What may cross from the policy to N environments and back, and the faults that name what may not.

    ``progress[1]`` is the step being taken; ``first_index`` is added to rows in messages.
    """

    name: str
    n: int
    observation_space: Space
    action_space: Space
    progress: MutableSequence[int] | memoryview
    first_index: int = 0

    def prepare_actions(self, actions: Any) -> np.ndarray:
        """Return new actions ``[N, ...]`` as the environments take them."""
        try:
            return batches.prepare_actions(self.action_space, actions, self.n)
        except Misfit as misfit:
            space = describe_space(self.action_space)
            raise EnvironmentFault(
                f"{self._who(misfit.row)} was given a bad action {self._when()}: {misfit}; its action space is {space}."
            ) from misfit

    def observations_from_vector(self, observations: Any) -> Batch:
        """Return a new, checked batch with what a vector environment returned."""
        try:
            batch = batches.from_vector(self.observation_space, self.n, observations)
        except Misfit as misfit:
            raise self.observation_fault(misfit) from misfit
        self.check_observations(batch)
        return batch

    def check_observations(self, batch: Batch) -> None:
        """Refuse observations that are not finite or are no choice of their space."""
        try:
            batches.check_values(self.observation_space, batch)
        except Misfit as misfit:
            raise self.observation_fault(misfit) from misfit

    def observation_fault(self, misfit: Misfit) -> EnvironmentFault:
        """Return the fault for an observation that does not fit its space."""
        return EnvironmentFault(f"{self._who(misfit.row)} returned a bad observation {self._when()}: {misfit}.")

    def read_rewards(self, rewards: Any) -> np.ndarray:
        """Return rewards as finite floats ``[N]``."""
        try:
            return read_rewards(rewards, self.n)
        except Misfit as misfit:
            raise EnvironmentFault(
                f"{self._who(misfit.row)} returned a bad reward {self._when()}: {misfit}."
            ) from misfit

    def fail(self, row: int | None, error: BaseException, result: Any = None, call: str = "step") -> NoReturn:
        """Raise the fault for what a call into an environment, or reading its ``result``, has raised."""
        if isinstance(error, MissingEntry):
            raise lacking(error.entry, self.name) from error
        if row is None and isinstance(error, Misfit):
            row = error.row
        who, when = self._who(row), self._when(call)
        values = {"step": "observation, reward, terminated, truncated, info", "reset": "observation, info"}[call]
        length = values.count(",") + 1
        if isinstance(error, MisfitExtra):
            sentence = f"{who} gave {error.what} {when} that {error}."
        elif isinstance(error, Misfit):
            sentence = f"{who} returned a bad observation {when}: {error}."
        elif _raised_here(error) and not (isinstance(result, tuple) and len(result) == length):
            sentence = f"{who} returned {_count(result)} {when} instead of the {length} of Gymnasium ({values})."
        else:
            sentence = f"{who} raised {when}: {explain(error)}."
        raise EnvironmentFault(sentence) from error

    def _who(self, row: int | None) -> str:
        return self.name if row is None else f"environment {self.first_index + row} of {self.name}"

    def _when(self, call: str = "step") -> str:
        step = self.progress[1]
        if step == 0:
            return "in reset"
        return f"at step {step}" if call == "step" else f"in the reset after step {step}"


class Extras:
    """Action masks and costs of N environments, kept from when the first of them gives one.

    An environment that gives no mask allows everything; one that gives no cost costs nothing, unless ``cost`` requires
    what it is made of in every step.
    """

    def __init__(self, n: int, action_space: Space, cost: Cost = GIVEN) -> None:
        self.segments = batches.mask_segments(action_space)
        self.cost = cost
        self.has_masks = False
        self.has_costs = False
        self._masks = np.ones((n, sum(self.segments)), dtype=bool)
        self._costs = np.zeros(n)

    def begin(self) -> None:
        """Forget the costs of the last step."""
        if self.has_costs:
            self._costs[:] = 0.0

    def read(
        self,
        row: int,
        info: Any,
        mask_function: Callable[[], Any] | None,
        acts_next: bool = True,
        with_cost: bool = True,
    ) -> None:
        """Take the mask and the cost of one environment from its ``action_masks()`` or its ``info``.

        Where no action is taken next, because the episode is over, the mask is not looked at: it may allow nothing.
        """
        if not isinstance(info, dict):
            raise MisfitExtra("an info", f"is no dict but {type(info).__name__} {info!r:.60}", row)
        mask = None
        if acts_next:
            mask = mask_function() if mask_function is not None else info.get("action_mask")
        if mask is not None and self.segments:
            self._masks[row] = self._read_mask(mask, row)
            self.has_masks = True
        elif self.has_masks:
            self._masks[row] = True  # the mask of the step before says nothing about this one
        if with_cost and self.cost.entry in info:
            self._take_cost(info[self.cost.entry], row)
        elif with_cost and self.cost.required:
            raise MissingEntry(self.cost.entry, row)

    def _take_cost(self, value: Any, row: int) -> None:
        self._costs[row] = self.cost(read_number(self.cost.described, value, row), np)
        self.has_costs = True

    def _read_mask(self, mask: Any, row: int) -> np.ndarray:
        try:
            return batches.read_mask(self.segments, mask)
        except Misfit as misfit:
            raise MisfitExtra("an action mask", str(misfit), row) from misfit

    def read_vector_masks(self, infos: Mapping[str, Any], rows: Iterable[int], idle: np.ndarray | None = None) -> None:
        """Take the masks of some rows from the info of a vector environment; those of ``idle`` rows are not looked at."""
        masks, given = infos.get("action_mask"), infos.get("_action_mask")
        if not self.segments or (masks is None and not self.has_masks):
            return
        for row in rows:
            acts_next = idle is None or not idle[row]
            if acts_next and masks is not None and (given is None or given[row]):
                self._masks[row] = self._read_mask(masks[row], row)
                self.has_masks = True
            else:
                self._masks[row] = True

    def read_vector_costs(self, infos: Mapping[str, Any], rows: Iterable[int]) -> None:
        """Take the costs of some rows from the info of a vector environment."""
        values, given = infos.get(self.cost.entry), infos.get(f"_{self.cost.entry}")
        if values is None and not self.cost.required:
            return
        for row in rows:
            if values is not None and (given is None or given[row]):
                self._take_cost(values[row], row)
            elif self.cost.required:
                raise MissingEntry(self.cost.entry, row)

    def masks(self) -> np.ndarray | None:
        """Return a copy of the present masks ``[N, M]``, if there are any."""
        return self._masks.copy() if self.has_masks else None

    def costs(self) -> np.ndarray | None:
        """Return a copy of this step's costs ``[N]``, if there ever were any."""
        return self._costs.copy() if self.has_costs else None


def read_flag(what: str, value: Any) -> bool:
    """Return ``terminated`` or ``truncated`` as a boolean, or raise :class:`MisfitExtra` for what is none."""
    flag = np.asarray(value)
    if flag.size != 1 or flag.dtype.kind not in "biuf" or flag.reshape(()) not in (0, 1):
        raise MisfitExtra(f"a {what}", f"is {value!r:.60}, not true or false", None)
    return bool(flag.reshape(()))


def read_number(what: str, value: Any, row: int) -> float:
    """Return an entry of ``info`` as a number, or raise :class:`MisfitExtra` with ``what`` it is."""
    number = np.asarray(value)
    if number.size != 1 or number.dtype.kind not in "fiub" or not np.isfinite(number).all():
        raise MisfitExtra(what, f"is {value!s:.60}, not a finite number", row)
    return float(number.reshape(()))


def _raised_here(error: BaseException) -> bool:
    """Return whether the caller's own frame raised: the environment had returned, and it could not be unpacked."""
    return (
        isinstance(error, (ValueError, TypeError))
        and error.__traceback__ is not None
        and error.__traceback__.tb_next is None
    )


def read_rewards(rewards: Any, n: int) -> np.ndarray:
    """Return rewards as finite floats ``[N]`` (float32 stays float32), or raise :class:`Misfit` with the row."""
    try:
        array = np.array(rewards)
    except ValueError:  # numbers beside lists
        array = np.empty(0, dtype=object)
    if array.shape != (n,) or array.dtype.kind not in "fiub":
        for row, reward in enumerate(rewards):
            if np.ndim(reward) != 0 or np.asarray(reward).dtype.kind not in "fiub":
                raise Misfit(f"{type(reward).__name__} {reward!r:.60}, which is not a number", row)
        raise Misfit(f"an array of shape {array.shape} and dtype {array.dtype}, not {n} numbers")
    if not batches.all_finite(array):
        row = int(np.argmin(np.isfinite(array)))
        raise Misfit(f"{array[row]}, which is not finite", row)
    return array if array.dtype.kind == "f" else array.astype(np.float64)


def explain(error: BaseException) -> str:
    """Say in one line what was raised and where, e.g. ``"ValueError: boom (env.py:12)"``."""
    text = " ".join(str(error).split())
    if isinstance(error, SyntaxError) and error.filename:
        return f"SyntaxError: {error.msg} ({Path(error.filename).name}:{error.lineno})"
    frame = _raised_in(error)
    if not text and isinstance(error, AssertionError) and frame is not None:
        text = frame.line or ""
    said = type(error).__name__ + (f": {text}" if text else "")
    return said if frame is None else f"{said} ({Path(frame.filename).name}:{frame.lineno})"


def _raised_in(error: BaseException) -> traceback.FrameSummary | None:
    """Return the last frame in the user's own code, or the last frame of all."""
    frames = traceback.extract_tb(error.__traceback__)
    libraries = (*(sysconfig.get_path(key) for key in ("purelib", "platlib", "stdlib")), str(Path(__file__).parent))
    own = [frame for frame in frames if not frame.filename.startswith((*libraries, "<frozen"))]
    return (own or frames or [None])[-1]


def _count(result: Any) -> str:
    return f"{len(result)} values" if isinstance(result, (tuple, list)) else f"{type(result).__name__} {result!r:.60}"
