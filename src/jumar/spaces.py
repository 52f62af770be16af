"""Observation and action spaces: which ones Jumar knows, and how they are written down as plain data.

A space is described in JSON by its kind and numbers alone, so that reading one back executes nothing:

``{"type": "Box", "dtype": "float32", "shape": [3], "low": "-inf", "high": [1.0, 2.0, 2.0]}``
``{"type": "Discrete", "dtype": "int64", "n": 4, "start": 0}``
``{"type": "MultiDiscrete", "dtype": "int64", "nvec": [3, 2], "start": [0, 0]}``
``{"type": "MultiBinary", "shape": [8]}``
``{"type": "Dict", "spaces": [["goal", {...}], ["view", {...}]]}`` and ``{"type": "Tuple", "spaces": [{...}, {...}]}``

Bounds that are the same everywhere are written once; infinite ones are the words ``"inf"`` and ``"-inf"``.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from gymnasium import Space, spaces

from jumar.errors import UnsupportedEnvironment, UsageError
from jumar.fields import DamagedEntry

SUPPORTED_ACTIONS = (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)
SUPPORTED_OBSERVATIONS = (*SUPPORTED_ACTIONS, spaces.Tuple, spaces.Dict)

LARGEST_SPACE = 2**25
"""Elements (of a Discrete space: values) of a space and all its parts; four colour images of 1,920 x 1,080 have 24,883,200. A
larger one in a file would only exhaust the memory."""
_DEEPEST_NESTING = 32
_MOST_PARTS = 10_000
_MOST_AXES = 32  # NumPy's limit before 2.0


def check_spaces(observation_space: Space, action_space: Space, name: str = "the environment") -> None:
    """Refuse spaces that no policy of Jumar can see or act in.

    Observations: Box, Discrete, MultiDiscrete, MultiBinary, and Tuple and Dict of these, nested too.
    Actions: Box, Discrete, MultiDiscrete, MultiBinary.

    Raises:
        UnsupportedEnvironment: naming the environment, the space and what is supported.
    """
    for kind, space, supported in (
        ("observation", observation_space, SUPPORTED_OBSERVATIONS),
        ("action", action_space, SUPPORTED_ACTIONS),
    ):
        what = f"the {kind} space of {name}"
        try:
            _check_space(space, what, supported)
        except UsageError as error:
            raise UnsupportedEnvironment(f"{error}{_filter_words(space) if kind == 'observation' else ''}") from None
        if (size := _size(space)) > LARGEST_SPACE:
            raise UnsupportedEnvironment(f"{what} has {size:,} elements; at most {LARGEST_SPACE:,} are supported.")


def without_text(space: Space) -> tuple[Space, tuple[str, ...]]:
    """Return an observation space without its parts that are text, and where these were, such as ``"['mission']"``.

    A Dict or Tuple that holds nothing else is left out as a whole. A space that is text altogether is returned as it is, for
    :func:`check_spaces` to refuse.
    """
    if is_text(space):
        return space, ()
    return _without_text(space), tuple(_text_in(space, ""))


def is_text(space: Any) -> bool:
    """Whether a space holds text and nothing else: Text, another one of strings, or a Dict or Tuple of such."""
    children = _children(space)
    if children is not None:
        return bool(children) and all(is_text(child) for _, child in children)
    return isinstance(space, spaces.Text) or getattr(getattr(space, "dtype", None), "kind", None) == "U"


def _without_text(space: Space) -> Space:
    if not _text_in(space, ""):
        return space
    kept = [(key, _without_text(child)) for key, child in _children(space) or [] if not is_text(child)]
    return spaces.Dict(dict(kept)) if isinstance(space, spaces.Dict) else spaces.Tuple([child for _, child in kept])


def _text_in(space: Space, path: str) -> list[str]:
    if is_text(space):
        return [path]
    return [where for key, child in _children(space) or [] for where in _text_in(child, f"{path}[{key!r}]")]


def _size(space: Space) -> int:
    """Return how many elements a space and all its parts have; a choice has as many as there are values."""
    children = _children(space)
    if children is not None:
        return sum(_size(child) for _, child in children)
    if isinstance(space, spaces.Discrete):
        return int(space.n)
    if isinstance(space, spaces.MultiDiscrete):
        return sum(map(int, space.nvec.flat))
    return math.prod(space.shape or ())


def _check_space(space: Any, what: str, supported: tuple[type, ...]) -> None:
    if not isinstance(space, supported):
        known = ", ".join(kind.__name__ for kind in supported)
        if space is None:
            raise UsageError(f"{what} is missing; the environment must set it to one of gymnasium.spaces: {known}.")
        raise UsageError(f"{what} is {_short(space)}; supported are {known}.")
    children = _children(space)
    if children is not None:
        if not children:
            raise UsageError(f"{what} is an empty {type(space).__name__}; it must have at least one part.")
        for key, child in children:
            _check_space(child, f"{what} at {key!r}", supported)
    elif math.prod(space.shape or ()) == 0:
        raise UsageError(f"{what} is {_short(space)}, which has no elements.")
    elif isinstance(space, (spaces.Discrete, spaces.MultiDiscrete)):
        starts, counts = np.asarray(space.start), np.asarray(getattr(space, "n", getattr(space, "nvec", None)))
        ends = zip(starts.ravel().tolist(), counts.ravel().tolist(), strict=True)
        if not all(start >= -(2**31) and start + count <= 2**31 for start, count in ends):
            raise UsageError(f"{what} is {_short(space)}, whose values do not fit in 32 bits; count from 0.")


def _filter_words(space: Space) -> str:
    """Say which wrapper leaves out the parts of a Dict that no policy can see; nothing where none does."""
    if not isinstance(space, spaces.Dict):
        return ""
    fit = [key for key, child in space.spaces.items() if _fits(child)]
    if not fit:
        return ""
    return f" The wrapper that leaves it out: --wrapper 'FilterObservation:filter_keys={json.dumps(fit)}'."


def _fits(space: Any) -> bool:
    try:
        _check_space(space, "", SUPPORTED_OBSERVATIONS)
    except UsageError:
        return False
    return True


def _short(space: Any) -> str:
    text = repr(space)
    return text if len(text) <= 80 else text[:77] + "..."


def _children(space: Space) -> list[tuple[Any, Space]] | None:
    """Return the parts of a Dict or Tuple space with their keys, in order; ``None`` for a plain space."""
    if isinstance(space, spaces.Dict):
        return list(space.spaces.items())
    if isinstance(space, spaces.Tuple):
        return list(enumerate(space.spaces))
    return None


def same_space(first: Space, second: Space) -> bool:
    """Return whether two spaces are the same in kind, shape, dtype, bounds and structure.

    Unlike Gymnasium's ``==``, bounds and dtypes must agree exactly; the order of a Dict's keys does not matter.
    """
    if isinstance(first, spaces.Dict) and isinstance(second, spaces.Dict):
        return first.spaces.keys() == second.spaces.keys() and all(
            same_space(child, second.spaces[key]) for key, child in first.spaces.items()
        )
    if isinstance(first, spaces.Tuple) and isinstance(second, spaces.Tuple):
        return len(first.spaces) == len(second.spaces) and all(map(same_space, first.spaces, second.spaces))
    return space_to_json(first) == space_to_json(second)


def require_same_spaces(
    now: tuple[Space, Space], saved: tuple[Space, Space], name: str, whose: str = "the policy was trained with"
) -> None:
    """Refuse an environment whose (observation, action) spaces are not the saved ones.

    Args:
        now: the environment's.
        saved: those of what was saved.
        name: the environment's.
        whose: what the message says before the saved ones.

    Raises:
        UsageError: they differ; both are shown.
    """
    for kind, space, trained in zip(("observation", "action"), now, saved, strict=True):
        if not same_space(space, trained):
            raise UsageError(
                f"the {kind} space of {name} is {describe_space(space)}, but {whose} {describe_space(trained)}."
            )


def require_interchangeable_spaces(now: tuple[Space, Space], saved: tuple[Space, Space], name: str) -> None:
    """Refuse an environment in which a policy of another simulator of the same task cannot act.

    How wide numbers are, and the bounds of observations that are numbers, may differ; shapes and the bounds of actions may not.

    Args:
        now: the environment's (observation, action) spaces.
        saved: those that the policy was trained in.
        name: the environment's.

    Raises:
        UsageError: they differ; both are shown.
    """
    loose = [(_loosened(observations, False), _loosened(actions, True)) for observations, actions in (now, saved)]
    require_same_spaces(loose[0], loose[1], name)


def _loosened(space: Space, bounds: bool) -> Space:
    """Return a space whose numbers are single precision, and without bounds unless they matter."""
    if isinstance(space, spaces.Dict):
        return spaces.Dict({key: _loosened(child, bounds) for key, child in space.spaces.items()})
    if isinstance(space, spaces.Tuple):
        return spaces.Tuple([_loosened(child, bounds) for child in space.spaces])
    if isinstance(space, spaces.Box) and np.issubdtype(space.dtype, np.floating):
        low, high = (space.low, space.high) if bounds else (-np.inf, np.inf)
        with np.errstate(over="ignore"):
            return spaces.Box(np.float32(low), np.float32(high), space.shape, np.float32)
    return spaces.Discrete(int(space.n), start=int(space.start)) if isinstance(space, spaces.Discrete) else space


def describe_space(space: Space) -> str:
    """Say in a few words what a space holds, e.g. ``"6 numbers in [-1, 1]"`` or ``"one of 4"``."""
    if isinstance(space, spaces.Discrete):
        return f"one of {space.n}" + (f" from {space.start}" if space.start else "")
    if isinstance(space, spaces.MultiDiscrete):
        return f"{space.nvec.size} choices of {' x '.join(str(n) for n in space.nvec.flat)}"
    if isinstance(space, spaces.MultiBinary):
        return f"{math.prod(space.shape)} switches"
    if isinstance(space, spaces.Dict):
        return "{" + ", ".join(f"{key}: {describe_space(child)}" for key, child in space.spaces.items()) + "}"
    if isinstance(space, spaces.Tuple):
        return "(" + ", ".join(describe_space(child) for child in space.spaces) + ")"
    if isinstance(space, spaces.Box):
        return _describe_box(space)
    return _short(space)


def _describe_box(space: spaces.Box) -> str:
    size = " x ".join(str(length) for length in space.shape) or "1"
    if space.dtype == np.uint8 and len(space.shape) in (2, 3):
        return f"image {size}"
    noun = "number" if math.prod(space.shape) == 1 else "numbers"
    low, high = _uniform(space.low), _uniform(space.high)
    if low is None or high is None:
        return f"{size} {noun}, bounded unevenly"
    return f"{size} {noun}" + (f" in [{low:g}, {high:g}]" if np.isfinite(low) or np.isfinite(high) else "")


def _uniform(values: np.ndarray) -> Any | None:
    """Return the one value that fills an array bit for bit, or ``None``."""
    if values.size == 0:
        return None
    first = values.flat[0]
    same = np.full(values.shape, first, values.dtype).tobytes() == values.tobytes()
    return first.item() if same else None


# --- to plain data -------------------------------------------------------------------------------------------------


def space_to_json(space: Space) -> dict[str, Any]:
    """Describe a space as plain data that :func:`space_from_json` turns back into an equal one.

    Raises:
        UsageError: for a kind of space that Jumar does not know.
    """
    if isinstance(space, spaces.Box):
        return {
            "type": "Box",
            "dtype": str(space.dtype),
            "shape": list(space.shape),
            "low": _bounds_to_json(space.low, space.bounded_below, "-inf"),
            "high": _bounds_to_json(space.high, space.bounded_above, "inf"),
        }
    if isinstance(space, spaces.Discrete):
        return {"type": "Discrete", "dtype": str(space.dtype), "n": int(space.n), "start": int(space.start)}
    if isinstance(space, spaces.MultiDiscrete):
        return {
            "type": "MultiDiscrete",
            "dtype": str(space.dtype),
            "nvec": space.nvec.tolist(),
            "start": space.start.tolist(),
        }
    if isinstance(space, spaces.MultiBinary):
        return {"type": "MultiBinary", "shape": list(space.shape)}
    if isinstance(space, spaces.Tuple):
        return {"type": "Tuple", "spaces": [space_to_json(child) for child in space.spaces]}
    if isinstance(space, spaces.Dict):
        _check_keys(space)
        return {"type": "Dict", "spaces": [[key, space_to_json(child)] for key, child in space.spaces.items()]}
    known = ", ".join(kind.__name__ for kind in SUPPORTED_OBSERVATIONS)
    raise UsageError(f"cannot write down the space {_short(space)}; supported are {known}.")


def _check_keys(space: spaces.Dict) -> None:
    for key in space.spaces:
        if not isinstance(key, str):
            raise UsageError(f"the Dict space has the key {key!r}; keys must be text.")


def _bounds_to_json(values: np.ndarray, bounded: np.ndarray, infinite: str) -> Any:
    """Write bounds as nested lists, or as one number where all are the same."""
    # Gymnasium replaces an infinite bound of an integer Box by the dtype's limit and remembers it in `bounded`.
    if not bounded.any():
        words: Any = np.full(values.shape, infinite, dtype=object)
    else:
        words = values.astype(object)
        words[~bounded] = infinite
        if values.dtype.kind == "f":  # a lower bound of +inf or an upper one of -inf is odd, but allowed
            words[np.isinf(values)] = np.where(values[np.isinf(values)] > 0, "inf", "-inf")
    uniform = words.size > 0 and bounded.all() == bounded.any() and _uniform(values) is not None
    return words.flat[0] if uniform else words.tolist()


# --- from plain data -----------------------------------------------------------------------------------------------


def space_from_json(data: Any) -> Space:
    """Build the space that :func:`space_to_json` described. It is a reader of :mod:`jumar.fields`.

    Raises:
        DamagedEntry: where the description is malformed, unknown, or too large to be true.
    """
    return _from_json(data, _Limits(_DEEPEST_NESTING, [_MOST_PARTS], [LARGEST_SPACE]))


class _Limits(NamedTuple):
    """How deep the parts of a space may still be nested, how many may follow, and how many elements they may have.

    The latter two are lists of one number, which all parts share.
    """

    depth: int
    parts: list[int]
    elements: list[int]

    def inside(self) -> _Limits:
        return self._replace(depth=self.depth - 1)

    def take(self, count: int) -> None:
        self.parts[0] -= 1
        self.elements[0] -= max(count, 0)
        if self.parts[0] < 0:
            raise ValueError(f"it has more than {_MOST_PARTS:,} parts")
        if self.elements[0] < 0:
            raise ValueError(f"it has more than {LARGEST_SPACE:,} elements")


def _from_json(data: Any, limits: _Limits) -> Space:
    if not isinstance(data, Mapping) or not isinstance(data.get("type"), str):
        raise DamagedEntry(f"does not describe a space: {_cut(data)}")
    if limits.depth == 0:
        raise DamagedEntry(f"describes a space that is nested more than {_DEEPEST_NESTING} deep")
    reader = _READERS.get(data["type"])
    if reader is None:
        raise DamagedEntry(f"describes a space of the unknown type {_cut(data['type'])}")
    try:
        return reader(data, limits)
    except DamagedEntry:
        raise
    except (AssertionError, ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        raise DamagedEntry(f"does not describe a {data['type']} space: {_cut(error).removesuffix('.')}") from error


def _cut(value: Any) -> str:
    text = str(value) if isinstance(value, Exception) else repr(value)
    return text if len(text) <= 120 else text[:117] + "..."


def _only(data: Mapping[str, Any], *keys: str) -> list[Any]:
    if set(data) != {"type", *keys}:
        raise ValueError(f"its entries are {sorted(data)}, not {sorted(('type', *keys))}")
    return [data[key] for key in keys]


def _shape(value: Any, limits: _Limits) -> tuple[int, ...]:
    if not isinstance(value, list) or not all(type(length) is int and length >= 0 for length in value):
        raise ValueError(f"the shape {value!r} is not a list of lengths")
    if len(value) > _MOST_AXES:
        raise ValueError(f"it has {len(value)} axes, and at most {_MOST_AXES} are known")
    limits.take(math.prod(value))
    return tuple(value)


def _dtype(name: Any, kinds: str) -> np.dtype:
    # The name is looked up among the few that exist; np.dtype would also parse structured and object dtypes.
    names = {"f": ("float16", "float32", "float64"), "b": ("bool",)}
    names["i"] = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
    if not isinstance(name, str) or not any(name in names[kind] for kind in kinds):
        raise ValueError(f"the dtype {name!r} is unknown")
    return np.dtype(name)


def _integers(value: Any) -> list[Any]:
    def check(element: Any) -> None:
        if isinstance(element, list):
            for child in element:
                check(child)
        elif type(element) is not int:
            raise ValueError(f"{element!r} is not a whole number")

    if not isinstance(value, list):
        raise ValueError(f"{value!r} is not a list")
    check(value)
    return value


def _read_bounds(value: Any, shape: tuple[int, ...], dtype: np.dtype) -> Any:
    """Return bounds as Gymnasium's Box takes them: one number, or an array of floats or of the exact integers."""
    if not isinstance(value, list):
        return _read_bound(value)
    words = np.empty(shape, dtype=object)
    flat = _flatten(value, len(shape))
    if len(flat) != words.size:
        raise ValueError(f"{len(flat)} bounds do not fill the shape {list(shape)}")
    numbers = [_read_bound(element) for element in flat]
    finite = dtype.kind == "f" or all(math.isfinite(number) for number in numbers)
    bounds = np.array(numbers, dtype=dtype if finite else np.float64).reshape(shape)
    if finite and dtype.kind != "f" and bounds.ravel().astype(object).tolist() != numbers:
        raise ValueError(f"a bound is not of dtype {dtype}")
    return bounds


def _flatten(value: Any, levels: int) -> list[Any]:
    if levels == 0:
        return [value]
    if not isinstance(value, list):
        raise ValueError(f"{value!r} is not a list")
    return [leaf for child in value for leaf in _flatten(child, levels - 1)]


def _read_bound(value: Any) -> int | float:
    if value == "inf":
        return math.inf
    if value == "-inf":
        return -math.inf
    if type(value) is bool:
        return int(value)
    if type(value) not in (int, float) or not math.isfinite(value):
        raise ValueError(f"the bound {value!r} is not a number")
    return value


def _read_box(data: Mapping[str, Any], limits: _Limits) -> Space:
    name, shape, low, high = _only(data, "dtype", "shape", "low", "high")
    dtype, shape = _dtype(name, "fib"), _shape(shape, limits)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            return spaces.Box(
                _read_bounds(low, shape, dtype), _read_bounds(high, shape, dtype), shape=shape, dtype=dtype.type
            )
        except Warning as warning:
            raise ValueError(str(warning)) from warning


def _read_discrete(data: Mapping[str, Any], limits: _Limits) -> Space:
    name, n, start = _only(data, "dtype", "n", "start")
    n, start = _integers([n, start])
    limits.take(n)
    dtype = _dtype(name, "i")
    # Gymnasium before 1.2 has no dtype here: ask for it only where it is not the default.
    options: dict[str, Any] = {} if dtype == np.int64 else {"dtype": dtype.type}
    return spaces.Discrete(n, start=start, **options)


def _read_multi_discrete(data: Mapping[str, Any], limits: _Limits) -> Space:
    name, nvec, start = _only(data, "dtype", "nvec", "start")
    dtype = _dtype(name, "i")
    counts = np.array(_integers(nvec), dtype=dtype)
    starts = np.array(_integers(start), dtype=dtype)
    if counts.shape != starts.shape:
        raise ValueError(f"nvec {_cut(nvec)} and start {_cut(start)} do not fit")
    limits.take(sum(map(int, counts.flat)))
    return spaces.MultiDiscrete(counts, dtype=dtype.type, start=starts)


def _read_multi_binary(data: Mapping[str, Any], limits: _Limits) -> Space:
    (shape,) = _only(data, "shape")
    shape = _shape(shape, limits)
    return spaces.MultiBinary(shape[0] if len(shape) == 1 else list(shape))


def _read_tuple(data: Mapping[str, Any], limits: _Limits) -> Space:
    (children,) = _only(data, "spaces")
    if not isinstance(children, list):
        raise ValueError(f"{_cut(children)} is not a list of spaces")
    limits.take(0)
    return spaces.Tuple([_from_json(child, limits.inside()) for child in children])


def _read_dict(data: Mapping[str, Any], limits: _Limits) -> Space:
    (children,) = _only(data, "spaces")
    if not isinstance(children, list) or not all(
        isinstance(child, list) and len(child) == 2 and isinstance(child[0], str) for child in children
    ):
        raise ValueError(f"{_cut(children)} is not a list of keys and spaces")
    if len({key for key, _ in children}) != len(children):
        raise ValueError("a key occurs twice")
    limits.take(0)
    return spaces.Dict([(key, _from_json(child, limits.inside())) for key, child in children])


_READERS: dict[str, Callable[[Mapping[str, Any], _Limits], Space]] = {
    "Box": _read_box,
    "Discrete": _read_discrete,
    "MultiDiscrete": _read_multi_discrete,
    "MultiBinary": _read_multi_binary,
    "Tuple": _read_tuple,
    "Dict": _read_dict,
}


def nested(parts: list[tuple[tuple[str | int, ...], Any]]) -> Any:
    """Return a tree of dictionaries with an array at the end of each path; an empty path is the array alone."""
    tree: Any = {}
    for path, part in parts:
        if not path:
            return part
        place = tree
        for step in path[:-1]:
            place = place.setdefault(step, {})
        place[path[-1]] = part
    return tree


def with_tuples(tree: Any) -> Any:
    """Return a tree of :func:`nested` with a tuple for each dictionary of indexes, as the space has it."""
    if not isinstance(tree, dict):
        return tree
    parts = {step: with_tuples(part) for step, part in tree.items()}
    return tuple(parts[i] for i in range(len(parts))) if parts.keys() == set(range(len(parts))) else parts
