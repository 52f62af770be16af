"""What a search goes through: a TOML file with an algorithm, an environment, fixed settings, and ranges of others.

.. code-block:: toml

    algorithm = "ppo"
    env = "jax/CartPole-v1"
    total_timesteps = 50_000
    seeds = 3

    [settings]
    n_envs = 8

    [search]
    learning_rate = { low = 1e-5, high = 1e-2, log = true }
    n_steps = { choices = [32, 64, 128] }

Everything is checked by the readers that the command line has, before anything is trained.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np

from jumar.algorithms.registry import BUILT_IN, Algorithm, algorithm
from jumar.errors import UsageError, unknown
from jumar.report.statistics import interquartile_mean
from jumar.runs import toml
from jumar.schedules import KINDS as SCHEDULES
from jumar.schedules import Constant, Linear, schedule
from jumar.settings import describe, kinds
from jumar.studies.pruning import Halving, Median, Never, Pruner
from jumar.studies.toml_lines import line_of
from jumar.studies.trials import MOST_SEEDS, MOST_TRIALS
from jumar.text import counted, typed
from jumar.training.plan import MOST_STEPS, check_seed, read_count

MOST_CHOICES = 1_000
SAMPLERS = ("tpe", "random", "cmaes")
PRUNERS = ("median", "halving", "none")
STATISTICS: Mapping[str, Callable[..., Any]] = {
    "iqm": interquartile_mean,
    "mean": np.mean,
    "median": np.median,
    "worst": np.min,
}
"""What makes one value of the scores of several seeds."""
EVALUATIONS = 20
"""How many evaluations a run has unless told."""
COUNTED = 2
"""How many of the last evaluations make a score unless told: those of the last tenth of training."""

ALIASES = {
    "algo": "algorithm",
    "environment": "env",
    "timesteps": "total_timesteps",
    "n_timesteps": "total_timesteps",
    "n_seeds": "seeds",
    "n_trials": "trials",
    "n_startup_trials": "startup_trials",
    "direction": "maximize",
    "metric": "objective",
    "n_eval_episodes": "eval_episodes",
    "eval_freq": "eval_every",
    "fixed": "settings",
    "parameters": "search",
    "space": "search",
    "params": "search",
}
"""What one may call an entry, and its name here: for error messages only."""


@dataclass(frozen=True)
class Range:
    """Numbers from ``low`` to ``high``, both included.

    Attributes:
        low: The least.
        high: The largest that the steps reach.
        log: Whether their logarithm is what is drawn evenly.
        step: How far neighbours are apart; ``None``: a range of real numbers.
        whole: Whether they are whole numbers.
        prefix: What a schedule's text has before the number, such as ``linear:``; else empty.
    """

    low: float
    high: float
    log: bool = False
    step: float | None = None
    whole: bool = False
    prefix: str = ""

    def value(self, drawn: Any) -> Any:
        """Return the setting's value that a drawn number stands for."""
        number = int(drawn) if self.whole else float(drawn)
        return f"{self.prefix}{number!r}" if self.prefix else number

    def position(self, value: Any) -> float:
        """Return where a value is, from 0 (low) to 1 (high), by logarithms in a range of them."""
        number = float(value.removeprefix(self.prefix)) if isinstance(value, str) else float(value)
        low, high = (np.log([self.low, self.high]) if self.log else np.array([self.low, self.high])).tolist()
        return ((float(np.log(number)) if self.log else number) - low) / (high - low)

    def __str__(self) -> str:
        words = f"{self.prefix}{typed(self.low)} to {self.prefix}{typed(self.high)}"
        steps = (
            f", steps of {typed(self.step)}" if self.step is not None and not (self.whole and self.step == 1) else ""
        )
        return words + (", by logarithms" if self.log else "") + steps


@dataclass(frozen=True)
class Choices:
    """One of some values, as plain data."""

    values: tuple[Any, ...]

    def value(self, drawn: Any) -> Any:
        """Return the value at a drawn place."""
        return self.values[int(drawn)]

    def position(self, value: Any) -> float:
        """Return where a value is, from 0 (the first) to 1 (the last)."""
        return self.values.index(value) / max(1, len(self.values) - 1)

    def __str__(self) -> str:
        return " | ".join(typed(value) or "none" for value in self.values)


Domain = Range | Choices


@dataclass(frozen=True, kw_only=True)
class Space:
    """A search that was read and checked.

    Attributes:
        algorithm: Its command-line name.
        env: The environment as typed.
        total_timesteps: Environment steps of each run.
        search: What is searched, by the setting's name.
        settings: What is fixed, as plain data.
        seeds: Over how many seeds a trial is trained.
        trials: How many trials there are unless the command says otherwise.
        seed: The seed unless the command says otherwise; ``None``: 0.
        sampler: One of ``SAMPLERS``.
        pruner: One of ``PRUNERS``.
        startup_trials: How many trials come before TPE looks at results and before anything is pruned.
        reduction_factor: Of ``halving``.
        objective: One of ``STATISTICS``.
        maximize: Whether large returns are good ones.
        preset: As for training.
        cost: What a step costs, as typed.
        eval_every: Steps between evaluations; ``None``: a twentieth of the run.
        eval_episodes: Episodes of each evaluation.
        last: How many of the last evaluations make a run's score.
    """

    algorithm: str
    env: str
    total_timesteps: int
    search: Mapping[str, Domain]
    settings: Mapping[str, Any] = field(default_factory=dict)
    seeds: int = 3
    trials: int = 20
    seed: int | None = None
    sampler: str = "tpe"
    pruner: str = "median"
    startup_trials: int = 10
    reduction_factor: int = 2
    objective: str = "iqm"
    maximize: bool = True
    preset: str | None = None
    cost: str | None = None
    eval_every: int | None = None
    eval_episodes: int = 10
    last: int = COUNTED

    @property
    def steps_between(self) -> int:
        """Steps between evaluations."""
        return self.eval_every or max(1, self.total_timesteps // EVALUATIONS)

    @property
    def statistic(self) -> Callable[..., Any]:
        """What makes one value of scores, along an ``axis``."""
        return STATISTICS[self.objective]

    @property
    def rule(self) -> Pruner:
        """When a trial is not worth its other seeds."""
        rules: Mapping[str, Pruner] = {
            "none": Never(),
            "median": Median(self.startup_trials),
            "halving": Halving(self.startup_trials, self.reduction_factor),
        }
        return rules[self.pruner]

    def value(self, scores: Sequence[float]) -> float:
        """Return what the scores of some seeds are worth together."""
        return float(self.statistic(np.asarray(scores, np.float64)))

    def goodness(self, scores: Sequence[float]) -> float:
        """Return the value, or minus it where small returns are good ones: larger is better."""
        return self.value(scores) if self.maximize else -self.value(scores)

    def to_json(self) -> dict[str, Any]:
        """Return everything that the outcome depends on, but for the number of trials and the seed, as plain data."""
        kept = {name: getattr(self, name) for name in _IDENTITY} | {"eval_every": self.steps_between}
        domains = {name: asdict(domain) for name, domain in self.search.items()}
        for domain in domains.values():
            if "values" in domain:
                domain["values"] = list(domain["values"])
        return {**kept, "settings": dict(self.settings), "search": domains}


_IDENTITY = (
    "algorithm", "env", "total_timesteps", "seeds", "sampler", "pruner", "startup_trials", "reduction_factor", "objective",
    "maximize", "preset", "cost", "eval_episodes", "last",
)  # fmt: skip


def read_space(path: str | os.PathLike[str], env: str | None = None) -> Space:
    """Read a space.

    Args:
        path: the file.
        env: the environment that was typed, which takes the place of the file's.

    Raises:
        UsageError: the file cannot be read, is no TOML, or something in it is wrong; the message names file, line and entry.
    """
    document = toml.read(path, "space file")
    return _Reader(document).space(env)


class _Reader:
    """Reads the entries of a space, and says of one that is wrong where it is."""

    def __init__(self, document: toml.Document) -> None:
        self._path, self._text, self._data = document.path, document.text, document.values

    @contextmanager
    def _at(self, *keys: str) -> Iterator[None]:
        """Within the block, an error says file, line and entry."""
        try:
            yield
        except UsageError as error:
            line = line_of(self._text, keys) if keys else None
            place = f", line {line}" if line else ""
            name = f"{'.'.join(keys)}: " if len(keys) > 1 else ""
            raise UsageError(f"{self._path}{place}: {name}{error}") from None

    def space(self, env: str | None) -> Space:
        """Return the space."""
        with self._at("algorithm"):
            chosen = self._algorithm()
        for key in self._data:
            with self._at(key):
                self._check_key(key, chosen)
        found: dict[str, Any] = {"algorithm": chosen.name}
        for name, read in _ENTRIES.items():
            if name in self._data:
                with self._at(name):
                    found[name] = read(name, self._data[name])
        if env is not None:
            found["env"] = env
        elif ":" in found.get("env", ""):
            with self._at("env"):
                raise UsageError(
                    f"the environment {found['env']} is code of your own, and nothing named by a file is imported; repeat "
                    f"--env {found['env']} to allow it."
                )
        for name, example in (("env", '"CartPole-v1"'), ("total_timesteps", "100_000")):
            if name not in found:
                raise UsageError(f"{self._path}: {name} is missing; write, say, {name} = {example}.")
        found["settings"] = self._fixed(chosen)
        found["search"] = self._search(chosen, found["settings"])
        space = Space(**found)
        with self._at("sampler"):
            _check_sampler(space)
        with self._at("seed"):
            check_seed(space.seed or 0, space.seeds)
        return space

    def _algorithm(self) -> Algorithm:
        if "algorithm" not in self._data:
            raise UsageError('algorithm is missing; write, say, algorithm = "ppo".')
        chosen = algorithm(_word("algorithm", self._data["algorithm"]))
        if chosen.name not in BUILT_IN:
            raise UsageError(f"{chosen.name} was registered in this process, and no other one knows it.")
        return chosen

    def _check_key(self, key: str, chosen: Algorithm) -> None:
        known = ["algorithm", *_ENTRIES, "settings", "search"]
        if key in known:
            return
        if key in chosen.setting_names:
            raise UsageError(
                f"{key} is a setting of {chosen.name}: write it below [settings] to fix it, or below [search]."
            )
        raise unknown("entry", key, known, ALIASES)

    def _table(self, name: str) -> Mapping[str, Any]:
        table = self._data.get(name, {})
        if not isinstance(table, Mapping):
            raise UsageError(f"{name} must be a table: write its entries below a line [{name}].")
        return table

    def _fixed(self, chosen: Algorithm) -> dict[str, Any]:
        with self._at("settings"):
            table = self._table("settings")
        fixed = {}
        for name, value in table.items():
            with self._at("settings", name):
                if isinstance(value, Mapping) and set(value) & set(_DOMAIN):
                    raise UsageError(f"{name} is to be searched: write it below [search].")
                fixed[name] = _setting(chosen, name, value)
        return fixed

    def _search(self, chosen: Algorithm, fixed: Mapping[str, Any]) -> dict[str, Domain]:
        with self._at("search"):
            table = self._table("search")
            if not table:
                raise UsageError(
                    "there is nothing to search; write, say, learning_rate = { low = 1e-5, high = 1e-2, log = true } below "
                    "[search]."
                )
        found: dict[str, Domain] = {}
        for name, value in table.items():
            with self._at("search", name):
                if name in fixed:
                    raise UsageError(f"{name} is fixed below [settings]; leave one of the two out.")
                _check_domain(chosen, name, value)
            found[name] = self._choices(chosen, name, value) if "choices" in value else self._range(chosen, name, value)
        return found

    def _choices(self, chosen: Algorithm, name: str, value: Mapping[str, Any]) -> Choices:
        with self._at("search", name, "choices"):
            listed = value["choices"]
            if not isinstance(listed, list) or not 2 <= len(listed) <= MOST_CHOICES:
                raise UsageError(
                    f"choices must be a list of 2 to {MOST_CHOICES:,} values; a single one is a fixed setting."
                )
            values: list[Any] = []
            for each in listed:
                read = _setting(chosen, name, each)
                if read in values:
                    raise UsageError(f"the choice {typed(read) or 'none'} of {name} is given twice.")
                values.append(read)
            return Choices(tuple(values))

    def _range(self, chosen: Algorithm, name: str, value: Mapping[str, Any]) -> Range:
        with self._at("search", name):
            whole = _is_whole(chosen, name)
        ends = []
        for end in ("low", "high"):
            with self._at("search", name, end):
                ends.append(_end(chosen, name, end, value[end]))
        with self._at("search", name):
            if ends[0][0] != ends[1][0]:
                raise UsageError(f"low={value['low']} and high={value['high']} of {name} must have the same schedule.")
        (prefix, low), (_, high) = ends
        with self._at("search", name, "high"):
            if not low < high:
                raise UsageError(
                    f"the range of {name} is empty: it goes from low={typed(low)} to high={typed(high)}."
                    if low > high
                    else f"the range of {name} is a single value, {typed(low)}: write it below [settings]."
                )
        with self._at("search", name, "log"):
            log = value.get("log", False)
            if not isinstance(log, bool):
                raise UsageError(f"log={log!r} must be true or false.")
            if log and low <= 0:
                raise UsageError(f"log = true needs a low above 0, and that of {name} is {typed(low)}.")
        with self._at("search", name, "step"):
            step = _step(value.get("step"), whole, high - low)
            if step is not None and log:
                raise UsageError(f"{name} cannot have both a step and log = true; leave one out.")
        if step is not None:
            # The last value that the steps reach, give or take the rounding of decimal fractions.
            high = low + int((high - low) / step + 1e-9) * step
        return Range(low, high, log, step, whole, prefix)


_DOMAIN = ("low", "high", "log", "step", "choices")


def _check_domain(chosen: Algorithm, name: str, value: Any) -> None:
    """Refuse a setting that is unknown, and what is no range or list of choices."""
    if name not in chosen.setting_names:
        chosen.make_settings({name: None})  # which refuses it, and names the nearest
    example = f"{name} = {{ low = ..., high = ... }} or {name} = {{ choices = [...] }}"
    if isinstance(value, list):
        raise UsageError(f"{name} is a list, and it is not clear what of; write {example}.")
    if not isinstance(value, Mapping):
        raise UsageError(f"{name} is a single value; write it below [settings] to fix it, or {example}.")
    for key in value:
        if key not in _DOMAIN:
            raise unknown(f"entry of {name}", key, _DOMAIN, {"min": "low", "max": "high", "values": "choices"})
    if "choices" in value:
        if others := [key for key in value if key != "choices"]:
            raise UsageError(f"{name} has both choices and {others[0]}; leave one out.")
    elif missing := [key for key in ("low", "high") if key not in value]:
        raise UsageError(f"{missing[0]} of {name} is missing; write {example}.")


def _setting(chosen: Algorithm, name: str, value: Any) -> Any:
    """Return a setting's value as plain data, checked as on the command line."""
    return chosen.make_settings({name: value}).to_json()[name]


def _is_whole(chosen: Algorithm, name: str) -> bool:
    """Return whether a setting that takes numbers takes whole ones only. Raises ``UsageError`` for one that takes none."""
    allowed = kinds(chosen.settings, name)
    metadata = next(each.metadata for each in fields(chosen.settings) if each.name == name)
    if bool in allowed or not {int, float, Constant} & set(allowed):
        raise UsageError(
            f"{name} takes {describe(allowed, metadata)}, which has no range; write {{ choices = [...] }}."
        )
    return int in allowed


def _end(chosen: Algorithm, name: str, end: str, value: Any) -> tuple[str, float]:
    """Return what an end of a range has before its number, and the number."""
    read = _setting(chosen, name, value)
    if isinstance(read, str) and read.partition(":")[0] in SCHEDULES:
        found = schedule(read)
        if isinstance(found, Linear):
            return "linear:", found.value
        raise UsageError(f"{end}={value} of {name} has two numbers; list such schedules as choices.")
    if isinstance(read, bool) or not isinstance(read, (int, float)):
        raise UsageError(f"{end}={typed(value)} of {name} is not a number; list other values as choices.")
    return "", read


MOST_VALUES = 1e12
"""Of a range with a step."""


def _step(value: Any, whole: bool, length: float) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= length:
        raise UsageError(
            f"step={value!r} must be a number above 0 and at most {typed(length)}, the length of the range."
        )
    if length / value > MOST_VALUES:
        raise UsageError(f"step={value!r} is too small: the range has more than {MOST_VALUES:g} values.")
    if whole and not float(value).is_integer():
        raise UsageError(f"step={value!r} must be a whole number, like the setting.")
    return int(value) if whole else float(value)


def _check_sampler(space: Space) -> None:
    if space.sampler == "cmaes":
        ranges = [domain for domain in space.search.values() if isinstance(domain, Range)]
        if len(ranges) < 2:
            raise UsageError(
                f"sampler=cmaes searches ranges of numbers, at least two of them, and there "
                f"{'is' if len(ranges) == 1 else 'are'} {counted(len(ranges), 'range') if ranges else 'none'}; take tpe."
            )


# Readers of single entries ---------------------------------------------------------------------------------------------


def _count(least: int, most: int | None = None) -> Callable[[str, Any], int]:
    return lambda name, value: read_count(name, value, least, most)


def _word(name: str, value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise UsageError(f'{name}={value!r} must be a text, in quotes: {name} = "...".')
    return value


def _preset(name: str, value: Any) -> str:
    if _word(name, value).endswith(".toml"):
        raise UsageError(
            f"{name}={value} is a file; a space names a preset of Jumar's, or none. Write its settings below [settings]."
        )
    return value


def _one_of(known: Sequence[str]) -> Callable[[str, Any], str]:
    def read(name: str, value: Any) -> str:
        if _word(name, value) not in known:
            raise unknown(name, value, known, {"cma-es": "cmaes", "cma": "cmaes", "sha": "halving", "min": "worst"})
        return value

    return read


def _flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise UsageError(f"{name}={value!r} must be true or false.")
    return value


_ENTRIES: Mapping[str, Callable[[str, Any], Any]] = {
    "env": _word,
    "total_timesteps": _count(1, MOST_STEPS),
    "seeds": _count(1, MOST_SEEDS),
    "trials": _count(1, MOST_TRIALS),
    "seed": _count(0),
    "sampler": _one_of(SAMPLERS),
    "pruner": _one_of(PRUNERS),
    "startup_trials": _count(1, MOST_TRIALS),
    "reduction_factor": _count(2, MOST_SEEDS),
    "objective": _one_of(tuple(STATISTICS)),
    "maximize": _flag,
    "preset": _preset,
    "cost": _word,
    "eval_every": _count(1, MOST_STEPS),
    "eval_episodes": _count(1, 10_000),
    "last": _count(1, 10_000),
}
