"""What runs were told, as rows: the settings of each, and how they differ."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Any, NamedTuple

from jumar.text import typed
from jumar.training.plan import Plan
from jumar.web.watched import WatchedRun

MISSING = "-"


class Row(NamedTuple):
    """A setting and what it is in each run, or in each group of runs that were told the same."""

    name: str
    values: tuple[str, ...]
    default: str
    """The algorithm's own; empty where that is no such thing."""

    @property
    def differs(self) -> bool:
        """Whether not all values are the same."""
        return len(set(self.values)) > 1

    @property
    def unusual(self) -> bool:
        """Whether a value is not the default."""
        return bool(self.default) and any(value not in (self.default, MISSING) for value in self.values)


def told(plan: Plan) -> dict[str, str]:
    """Return everything that a run was told, as it is typed, but for its seed."""
    environment = plan.environment
    found: dict[str, Any] = {
        "algorithm": plan.algorithm,
        "environment": plan.environment_name if environment is None else environment.full_name,
        "total_timesteps": plan.total_timesteps,
        "preset": plan.preset,
        "eval_every": plan.eval_every,
        "eval_episodes": plan.eval_episodes,
        "checkpoint_every": plan.checkpoint_every,
        "workers": plan.workers,
        "lanes": plan.lanes or None,
        "cost": plan.cost.text,
        "stop_at_return": plan.stop_at_return,
        "stop_without_gain": plan.stop_without_gain,
        "log_info": list(plan.log_info) or None,
        "init_from": plan.init_from.path if plan.init_from else None,
        "dataset" if plan.offline else "prefill": plan.data.path if plan.data else None,
    }
    if environment is not None:
        found["env_kwargs"] = [f"{key}={typed(value)}" for key, value in environment.kwargs.items()] or None
        found["wrappers"] = [name for name, _ in environment.wrappers] or None
        found["frame_stack"] = environment.frame_stack
        found["atari"] = environment.atari
    return {name: typed(value) for name, value in {**found, **plan.settings.to_json()}.items()}


def defaults(plan: Plan) -> dict[str, str]:
    """Return the defaults of an algorithm's settings, as they are typed."""
    return {field.name: typed(field.default) for field in fields(plan.settings)}


def distinct(runs: Sequence[WatchedRun]) -> list[list[WatchedRun]]:
    """Return the runs in groups that were told the same, seeds aside, in the order in which they come."""
    groups: dict[tuple[tuple[str, str], ...], list[WatchedRun]] = {}
    for run in runs:
        groups.setdefault(tuple(told(run.plan).items()), []).append(run)
    return list(groups.values())


def rows(plans: Sequence[Plan]) -> list[Row]:
    """Return a row for each setting that any of the plans has."""
    each = [told(plan) for plan in plans]
    usual = [defaults(plan) for plan in plans]
    found = []
    for name in _names(each):
        default = {some[name] for some in usual if name in some}
        values = tuple(some.get(name, MISSING) for some in each)
        found.append(Row(name, values, default.pop() if len(default) == 1 else ""))
    return found


def version_rows(configs: Sequence[Mapping[str, Any]]) -> list[Row]:
    """Return a row for each version and each word about the machine that a configuration has."""
    each = [_about(config) for config in configs]
    return [Row(name, tuple(some.get(name, MISSING) for some in each), "") for name in _names(each)]


def _about(config: Mapping[str, Any]) -> dict[str, str]:
    found = {name: config[name] for name in ("jumar", "python") if name in config}
    for part in ("versions", "machine"):
        if isinstance(config.get(part), Mapping):
            found |= {str(name): value for name, value in list(config[part].items())[:50]}
    return {name: str(value) for name, value in found.items() if isinstance(value, (str, int, float))}


def _names(each: Iterable[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(name for some in each for name in some))
