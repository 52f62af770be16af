"""The boundary between a policy and environments: what may cross it, and the faults that name what may not.

Every host backend passes its actions, observations, rewards, masks and costs through here, so that the checks and their
sentences are the same for all.
"""

from __future__ import annotations

import inspect
import sysconfig
import traceback
from collections.abc import Callable, Iterable, Mapping, MutableSequence, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn

import gymnasium as gym
import numpy as np
from gymnasium import Space, spaces

from jumar.envs import batches
from jumar.envs.batches import Batch, Misfit
from jumar.envs.step_costs import GIVEN, Cost, lacking
from jumar.errors import EnvironmentFault, UnsupportedEnvironment
from jumar.spaces import describe_space

LONGEST_WORDS = 1000
"""Characters of an exception's message that are repeated."""


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


_INSTEAD = {
    "step": "instead of the 5 of Gymnasium (observation, reward, terminated, truncated, info)",
    "reset": "instead of the 2 of Gymnasium (observation, info)",
}
_OLD_STEP = (
    "; this is the API of Gym before 0.26, whose done is now either terminated (the task is over) or truncated (a time "
    "limit): return both, or wrap the environment in shimmy.GymV21CompatibilityV0"
)
_OLD_RESET = "; this is the API of Gym before 0.26: return an info beside the observation, such as {}"


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
        if self._observes_mask:
            self._check_mask(batch["action_mask"])

    @cached_property
    def _observes_mask(self) -> bool:
        """Whether observations have an entry that is taken for the action mask."""
        parts = self.observation_space.spaces if isinstance(self.observation_space, spaces.Dict) else {}
        mask = parts.get("action_mask")
        return bool(mask is not None and mask.shape and batches.mask_segments(self.action_space))

    def _check_mask(self, masks: np.ndarray) -> None:
        try:
            batches.check_flags(masks)
        except Misfit as misfit:
            self.fail(None, MisfitExtra("an action mask", str(misfit), misfit.row))

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

    def fail(
        self, row: int | None, error: BaseException, call: str = "step", env: Any = None, keywords: Iterable[str] = ()
    ) -> NoReturn:
        """Raise the fault for what a call into an environment, or reading its result, has raised.

        ``env`` is what was called (with these ``keywords``, where it was its reset), to be looked at if it may not take that.
        """
        if isinstance(error, EnvironmentFault):
            raise error
        if isinstance(error, MissingEntry):
            raise lacking(error.entry, self.name) from error
        if row is None and isinstance(error, Misfit):
            row = error.row
        who, when = self._who(row), self._when(call)
        if isinstance(error, MisfitExtra):
            sentence = f"{who} gave {error.what} {when} that {error}."
        elif isinstance(error, Misfit):
            sentence = f"{who} returned a bad observation {when}: {error}."
        elif isinstance(error, TypeError) and (misfit := wrong_signature(env, call, keywords)) is not None:
            sentence = f"{who} cannot be called {when}: {misfit}"
        elif isinstance(error, ValueError) and "expected 5, got 4" in str(error) and _in_gymnasium(error):
            sentence = f"{who} returned 4 values {when} {_INSTEAD[call]}{_OLD_STEP}."
        else:
            sentence = f"{who} raised {when}: {explain(error)}."
        raise EnvironmentFault(sentence) from error

    def miscounted(self, row: int | None, result: Any, call: str = "step") -> EnvironmentFault:
        """Return the fault for a step or a reset that returned something else than the values of Gymnasium."""
        many = isinstance(result, (tuple, list))
        what = f"{len(result)} values" if many else f"{type(result).__name__} {shown(result)}"
        old = ""
        if call == "step" and many and len(result) == 4:
            old = _OLD_STEP
        elif call == "reset" and not many:
            old = _OLD_RESET
        return EnvironmentFault(f"{self._who(row)} returned {what} {self._when(call)} {_INSTEAD[call]}{old}.")

    def complaint(self, extras: Extras) -> str | None:
        """Return what was wrong with a cost of this step that counts as none, as a sentence."""
        if extras.misfit is None:
            return None
        return f"{self._who(extras.misfit.row)} gave {extras.misfit.what} {self._when()} that {extras.misfit}."

    def info_complaints(self, extras: Extras) -> dict[str, str]:
        """Return for logged entries of this step that were no numbers what was wrong, as sentences."""
        return {
            key: f"{self._who(misfit.row)} gave {misfit.what} {self._when()} that {misfit}."
            for key, misfit in extras.info_misfits.items()
        }

    def _who(self, row: int | None) -> str:
        return self.name if row is None else f"environment {self.first_index + row} of {self.name}"

    def _when(self, call: str = "step") -> str:
        step = self.progress[1]
        if step == 0:
            return "in reset"
        return f"at step {step}" if call == "step" else f"in the reset after step {step}"


class Extras:
    """Action masks and costs of N environments, kept from when the first of them gives one, and entries of ``info``.

    An environment that gives no mask allows everything; one that gives no cost costs nothing, unless ``cost`` requires
    what it is made of in every step. Where it does not, a cost that is no number is none: not every ``info["cost"]`` is
    meant for us. ``misfit`` says what was wrong with the first one of the present step. ``log`` are the entries of ``info``
    that are kept as numbers.
    """

    def __init__(self, n: int, action_space: Space, cost: Cost = GIVEN, log: Sequence[str] = ()) -> None:
        self.log = tuple(log)
        self._infos = np.full((len(self.log), n), np.nan)
        self._info_misfits: dict[str, MisfitExtra] = {}
        self._complained: set[str] = set()
        self._looked_at: set[str] = set()
        self.new_numbers: tuple[str, ...] = ()
        """Entries of ``info`` that are numbers and were first seen in the present step, where some are logged."""
        self.segments = batches.mask_segments(action_space)
        self.cost = cost
        self.has_masks = False
        self.has_costs = False
        self.misfit: MisfitExtra | None = None
        self._masks = np.ones((n, sum(self.segments)), dtype=bool)
        self._costs = np.zeros(n)

    def begin(self) -> None:
        """Forget the costs of the last step."""
        self.misfit = None
        if self.has_costs:
            self._costs[:] = 0.0
        if self.log:
            self._infos[:] = np.nan
            self._info_misfits = {}
            self.new_numbers = ()

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
            raise no_info(info, row)
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
        if with_cost and self.log:
            self._look_at(info)
            for i, key in enumerate(self.log):
                if key in info:
                    self._take_info(i, info[key], row)

    def _take_info(self, i: int, value: Any, row: int) -> None:
        """Keep a logged entry; what is no number is left out, and is said once."""
        key = self.log[i]
        try:
            self._infos[i, row] = read_number(f"an info[{key!r}]", value, row)
        except MisfitExtra as misfit:
            self._complain(key, misfit)

    def _complain(self, key: str, misfit: MisfitExtra) -> None:
        if key not in self._complained:
            self._complained.add(key)
            self._info_misfits[key] = misfit

    def _look_at(self, info: Mapping[Any, Any], axes: int = 0) -> None:
        """Take note of entries that could be logged: numbers, an array of ``axes`` axes each."""
        for key in [key for key in info if isinstance(key, str) and key not in self._looked_at]:
            self._looked_at.add(key)
            if is_number(key, info[key], axes):
                self.new_numbers += (key,)

    def _take_vector_infos(self, infos: Mapping[str, Any], rows: Iterable[int]) -> None:
        if self.log:
            self._look_at(infos, axes=1)
        for i, key in enumerate(self.log):
            try:
                values, given = self._joined(f"an info[{key!r}]", infos, key)
            except MisfitExtra as misfit:
                self._complain(key, misfit)
                continue
            for row in rows:
                if given[row]:
                    self._take_info(i, values[row], row)

    def _take_cost(self, value: Any, row: int) -> None:
        try:
            number = read_number(self.cost.described, value, row)
        except MisfitExtra as misfit:
            self._refuse_cost(misfit)
            return
        self._costs[row] = self.cost(number, np)
        self.has_costs = True

    def _refuse_cost(self, misfit: MisfitExtra) -> None:
        if self.cost.required:
            raise misfit
        self.misfit = self.misfit or misfit

    def _joined(self, what: str, infos: Mapping[str, Any], key: str) -> tuple[Any, Any]:
        """Return an entry of a vector environment's info, and where it is given: two arrays over environments.

        Raises:
            MisfitExtra: one of them has not an entry for each environment.
        """
        values, given = infos.get(key), infos.get(f"_{key}")
        n = len(self._costs)
        if values is None:
            return values, np.zeros(n, dtype=bool)
        given = np.ones(n, dtype=bool) if given is None else of_all(f"an info['_{key}']", given, n)
        return of_all(what, values, n), given

    def _read_mask(self, mask: Any, row: int) -> np.ndarray:
        try:
            return batches.read_mask(self.segments, mask)
        except Misfit as misfit:
            raise MisfitExtra("an action mask", str(misfit), row) from misfit

    def read_vector_masks(self, infos: Mapping[str, Any], rows: Iterable[int], idle: np.ndarray | None = None) -> None:
        """Take the masks of some rows from the info of a vector environment; those of ``idle`` rows are not looked at."""
        if not self.segments or ("action_mask" not in infos and not self.has_masks):
            return
        masks, given = self._joined("an action mask", infos, "action_mask")
        for row in rows:
            acts_next = idle is None or not idle[row]
            if acts_next and given[row]:
                self._masks[row] = self._read_mask(masks[row], row)
                self.has_masks = True
            else:
                self._masks[row] = True

    def read_vector_costs(self, infos: Mapping[str, Any], rows: Iterable[int]) -> None:
        """Take the costs, and the logged entries, of some rows from the info of a vector environment."""
        if self.log:
            rows = list(rows)
            self._take_vector_infos(infos, rows)
        if self.cost.entry not in infos and not self.cost.required:
            return
        try:
            values, given = self._joined(self.cost.described, infos, self.cost.entry)
        except MisfitExtra as misfit:
            self._refuse_cost(misfit)
            return
        for row in rows:
            if given[row]:
                self._take_cost(values[row], row)
            elif self.cost.required:
                raise MissingEntry(self.cost.entry, row)

    def masks(self) -> np.ndarray | None:
        """Return a copy of the present masks ``[N, M]``, if there are any."""
        return self._masks.copy() if self.has_masks else None

    def costs(self) -> np.ndarray | None:
        """Return a copy of this step's costs ``[N]``, if there ever were any."""
        return self._costs.copy() if self.has_costs else None

    def infos(self) -> np.ndarray | None:
        """Return a copy of this step's logged entries ``[K, N]``, NaN for those that are not there, if any are logged."""
        return self._infos.copy() if self.log else None

    @property
    def info_misfits(self) -> Mapping[str, MisfitExtra]:
        """What is wrong with this step's logged entries, each entry being named once only."""
        return self._info_misfits


def read_flag(what: str, value: Any) -> bool:
    """Return ``terminated`` or ``truncated`` as a boolean, or raise :class:`MisfitExtra` for what is none."""
    flag = _as_array(value)
    if flag.size != 1 or flag.dtype.kind not in "biuf" or flag.reshape(()) not in (0, 1):
        raise MisfitExtra(f"a {what}", f"is {shown(value)}, not true or false", None)
    return bool(flag.reshape(()))


def read_flags(what: str, flags: Any, n: int) -> np.ndarray:
    """Return ``terminated`` or ``truncated`` of ``n`` environments as booleans ``[N]``; raises as :func:`read_flag`."""
    array = _as_array(flags)
    if array.shape == (n,) and array.dtype.kind == "b":
        return np.array(array)
    read = np.zeros(n, dtype=bool)
    for row, flag in enumerate(of_all(f"a {what}", flags, n)):
        try:
            read[row] = read_flag(what, flag)
        except MisfitExtra as misfit:
            raise MisfitExtra(misfit.what, str(misfit), row) from misfit
    return read


def of_all(what: str, values: Any, n: int) -> Any:
    """Return ``values``, or raise :class:`MisfitExtra` with ``what`` they are where there is not one for each environment."""
    if not has_rows(values, n):
        raise MisfitExtra(
            what, f"is {shown(values, str)}, not an array with an entry for each of the {n} environments", None
        )
    return values


def has_rows(values: Any, n: int) -> bool:
    """Whether it is a sequence or an array of ``n`` entries."""
    if isinstance(values, (str, bytes)) or not (isinstance(values, Sequence) or hasattr(values, "__array__")):
        return False
    try:
        return len(values) == n
    except Exception:  # an array without axes
        return False


def no_info(info: Any, row: int | None = None) -> MisfitExtra:
    """Return what is wrong with an info that is no dict."""
    return MisfitExtra("an info", f"is no dict but {type(info).__name__} {shown(info)}", row)


def is_number(key: str, value: Any, axes: int = 0) -> bool:
    """Whether an entry of ``info`` could be logged: a number, an array of ``axes`` axes in a vector environment's info."""
    if not isinstance(value, (int, float, np.generic, np.ndarray)) or (axes and key.startswith("_")):
        return False
    array = np.asarray(value)
    return array.ndim == axes and array.dtype.kind in "fiub"


def read_number(what: str, value: Any, row: int) -> float:
    """Return an entry of ``info`` as a number, or raise :class:`MisfitExtra` with ``what`` it is."""
    number = _as_array(value)
    if number.size != 1 or number.dtype.kind not in "fiub" or not np.isfinite(number).all():
        raise MisfitExtra(what, f"is {shown(value, str)}, not a finite number", row)
    return float(number.reshape(()))


def _as_array(value: Any) -> np.ndarray:
    try:
        return np.asarray(value)
    except Exception:  # lists of unequal lengths; objects that will not be an array
        return np.empty(0, dtype=object)


def wrong_signature(env: Any, call: str, keywords: Iterable[str] = ()) -> str | None:
    """Say which ``step`` or ``reset`` of an environment and its wrappers cannot be called as Gymnasium calls it.

    Args:
        env: the environment, or ``None``.
        call: ``"step"``, which is given an action, or ``"reset"``.
        keywords: what the reset was given.

    Returns:
        The rest of a sentence, with the remedy; ``None`` where all can.
    """
    while env is not None:
        function = getattr(env, call, None)
        if not callable(function):
            return f"its {call} is {shown(function)}, not a method."
        try:
            signature = inspect.signature(function)
        except (ValueError, TypeError):  # it is not written in Python
            return None
        try:
            signature.bind(*([None] if call == "step" else []), **dict.fromkeys(keywords))
        except TypeError as error:
            code = getattr(inspect.unwrap(getattr(function, "__func__", function)), "__code__", None)
            where = f" ({Path(code.co_filename).name}:{code.co_firstlineno})" if code else ""
            right = "def step(self, action)" if call == "step" else "def reset(self, *, seed=None, options=None)"
            return f"{type(env).__name__}.{call}: {error}{where}; write it as {right}."
        if call == "reset" and isinstance(env, gym.Wrapper):
            keywords = ("seed", "options")  # Gymnasium's wrappers pass both on
        env = getattr(env, "env", None)
    return None


def read_rewards(rewards: Any, n: int) -> np.ndarray:
    """Return rewards as finite floats ``[N]`` (float32 stays float32), or raise :class:`Misfit` with the row.

    A reward may also be an array of one number.
    """
    array = _as_array(rewards)
    if array.shape != (n,) or array.dtype.kind not in "fiub":
        if not has_rows(rewards, n):
            raise Misfit(f"{type(rewards).__name__} {shown(rewards)}, not a number for each of the {n} environments")
        array = np.array([_read_reward(reward, row) for row, reward in enumerate(rewards)])
    if not batches.all_finite(array):
        row = int(np.argmin(np.isfinite(array)))
        raise Misfit(f"{array[row]}, which is not finite", row)
    return np.array(array) if array.dtype.kind == "f" else array.astype(np.float64)


def _read_reward(reward: Any, row: int) -> Any:
    number = _as_array(reward)
    if number.size != 1 or number.dtype.kind not in "fiub" or isinstance(reward, (list, tuple)):
        raise Misfit(f"{type(reward).__name__} {shown(reward)}, which is not a number", row)
    return number.reshape(())[()]


def space_of(env: Any, kind: str, name: str) -> Any:
    """Return a space of an environment; ``None`` where it has forgotten it.

    Raises:
        UnsupportedEnvironment: it raises where it is asked for it.
    """
    try:
        return getattr(env, kind, None)
    except Exception as error:
        raise UnsupportedEnvironment(f"{name} raised where it was asked for its {kind}: {explain(error)}.") from error


def shown(value: Any, words: Callable[[Any], str] = repr) -> str:
    """Return at most 60 characters that show a value of foreign origin."""
    try:
        return f"{words(value):.60}"
    except Exception:  # of the value's own making
        return "that cannot be shown"


def explain(error: BaseException) -> str:
    """Say in one line what was raised and where, e.g. ``"ValueError: boom (env.py:12)"``."""
    try:
        text = " ".join(str(error).split())
    except Exception:  # of the error's own making
        text = ""
    text = text if len(text) <= LONGEST_WORDS else text[: LONGEST_WORDS - 3] + "..."
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


def _in_gymnasium(error: BaseException) -> bool:
    """Whether one of Gymnasium's wrappers raised."""
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and frames[-1].filename.startswith(str(Path(gym.__file__).parent))
