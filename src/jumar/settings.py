"""Settings: one frozen dataclass per algorithm, from which the command line, the config file and the docs come.

A field is declared by ``setting(default, help, ...)``, which keeps its help, unit and range as metadata. Settings are
data: every value is a number, a text, a flag, a tuple of numbers, a schedule or ``None``, and goes to JSON and back.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import operator
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from jumar.errors import UsageError, unknown
from jumar.schedules import FORMS, Constant, Schedule, numbers, schedule
from jumar.text import whole_number

SettingsType = TypeVar("SettingsType", bound="Settings")

ALIASES = {
    # CleanRL
    "clip_coef": "clip_range",
    "update_epochs": "n_epochs",
    "num_envs": "n_envs",
    "num_steps": "n_steps",
    "anneal_lr": "learning_rate",
    "minibatch_size": "batch_size",
    "norm_adv": "normalize_advantage",
    "clip_vloss": "clip_range_vf",
    # Tianshou
    "eps_clip": "clip_range",
    "repeat_per_collect": "n_epochs",
    "step_per_collect": "n_steps",
    "discount_factor": "gamma",
    # TorchRL, RLlib, Brax
    "clip_epsilon": "clip_range",
    "clipping_epsilon": "clip_range",
    "clip_param": "clip_range",
    "kl_coeff": "kl_coef",
    "kl_target": "target_kl",
    "entropy_coeff": "ent_coef",
    "entropy_cost": "ent_coef",
    "vf_loss_coeff": "vf_coef",
    "vf_clip_param": "clip_range_vf",
    "num_sgd_iter": "n_epochs",
    "grad_clip": "max_grad_norm",
    "discounting": "gamma",
    "unroll_length": "n_steps",
    # rsl_rl, garage
    "state_dependent_std": "deviation",
    "learn_std": "deviation",
    # Baselines and Stable-Baselines2
    "kfac_clip": "target_kl",
    # Spinning Up and the papers
    "delta": "target_kl",
    "lam": "gae_lambda",
    "lambda": "gae_lambda",
    "clip_ratio": "clip_range",
    "clip_eps": "clip_range",
    "pi_lr": "learning_rate",
    "lr": "learning_rate",
    "epochs": "n_epochs",
    "discount": "gamma",
    "policy_kwargs": "net_arch",
    "squash_output": "squash",
    "clip_mean": "sde_clip_mean",
    "timesteps": "total_timesteps",
}
"""What other libraries call a setting, and its name here: for error messages only."""


LARGEST_COUNT = 2**31 - 1
"""Whole numbers are at most this unless a field says otherwise."""


MOST_NUMBERS = 100
"""How many numbers a list may have: deeper networks than this would only compile for ever."""


def setting(
    default: Any,
    help: str,
    *,
    unit: str = "",
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    below: float | None = None,
    choices: tuple[str, ...] | None = None,
) -> Any:
    """Declare a field of a settings class: its default, what it does, its unit, and the values that it may take."""
    metadata = {
        "help": help,
        "unit": unit,
        "at_least": at_least,
        "above": above,
        "at_most": at_most,
        "below": below,
        "choices": choices,
    }
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """Base of the settings of an algorithm: immutable, checked when made."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            object.__setattr__(self, field.name, coerce(type(self), field.name, getattr(self, field.name)))

    @classmethod
    def make(cls: type[SettingsType], values: Mapping[str, Any]) -> SettingsType:
        """Make settings from names and values (texts as typed are fine).

        Raises:
            UsageError: a name is unknown or a value does not fit; the message names the nearest right ones.
        """
        names = [field.name for field in dataclasses.fields(cls)]
        aliases = {alias: ours for alias, ours in ALIASES.items() if ours in names}
        for name in values:
            if name not in names:
                raise unknown("setting", name, names, aliases)
        return cls(**values)

    def to_json(self) -> dict[str, Any]:
        """Return the settings as JSON-ready data; ``make`` takes it back."""
        return {field.name: _plain(getattr(self, field.name)) for field in dataclasses.fields(self)}


def kinds(cls: type[Settings], name: str) -> tuple[type, ...]:
    """Return the plain types that a field takes, for example ``(float, NoneType)``; a schedule is ``Schedule``'s."""
    hint = _hints(cls)[name]
    return typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)


def coerce(cls: type[Settings], name: str, value: Any) -> Any:
    """Return ``value`` in the field's own type, or raise a ``UsageError`` that says what would be right."""
    field = next(f for f in dataclasses.fields(cls) if f.name == name)
    allowed = kinds(cls, name)
    try:
        result = _convert(value, allowed)
    except UsageError as error:  # a schedule's own, which begins with its text
        raise UsageError(f"{name}={error}") from None
    except (TypeError, ValueError, OverflowError):
        raise UsageError(f"{name}={value!r} is not {describe(allowed, field.metadata)}.") from None
    _check_range(name, value, result, field.metadata)
    return result


def describe(allowed: tuple[Any, ...], metadata: Mapping[str, Any]) -> str:
    """Say in words which values a field takes."""
    if metadata["choices"]:
        words = "one of " + ", ".join(metadata["choices"])
    elif Constant in allowed:
        words = f"a number or a schedule ({FORMS})"
    elif bool in allowed:
        words = "true or false"
    elif str in allowed and (int in allowed or float in allowed):
        words = ("a whole number" if int in allowed else "a number") + " or a text"
    elif int in allowed:
        words = "a whole number"
    elif float in allowed:
        words = "a number"
    elif _entry(allowed) is str:
        words = "a list of names such as position,goal"
    elif _entry(allowed) is int:
        words = "a list of whole numbers such as 64,64" + ("" if type(None) in allowed else ", or none")
    else:
        words = "a text"
    return words + (" or none" if type(None) in allowed else "")


def _entry(allowed: tuple[Any, ...]) -> type | None:
    """Return what a list that a field takes is made of; ``None`` where it takes none."""
    lists = [kind for kind in allowed if typing.get_origin(kind) is tuple]
    return typing.get_args(lists[0])[0] if lists else None


@functools.cache
def _hints(cls: type[Settings]) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def _convert(value: Any, allowed: tuple[Any, ...]) -> Any:
    if type(None) in allowed and (value is None or (isinstance(value, str) and value.lower() in ("none", "null"))):
        return None
    if Constant in allowed:
        if isinstance(value, bool):
            raise TypeError
        return schedule(value)
    if bool in allowed:
        if isinstance(value, str) and value.lower() in _FLAGS:
            return _FLAGS[value.lower()]
        return value if isinstance(value, bool) else _refuse()
    if isinstance(value, bool):
        raise TypeError
    if str in allowed and len(allowed) > 1 and type(None) not in allowed:  # a number, or a text that is none
        try:
            return _convert(value, tuple(kind for kind in allowed if kind is not str))
        except (TypeError, ValueError):
            return value if isinstance(value, str) else _refuse()
    if int in allowed:
        if isinstance(value, str):
            return whole_number(value)
        number = float(value)
        return int(number) if number.is_integer() else _refuse()
    if float in allowed:
        return float(value)
    if (entry := _entry(allowed)) is not None:
        parts = list(value)
        if isinstance(value, str):
            listed = value.replace("x", ",") if entry is int else value
            parts = [] if value.strip().lower() in ("", "none") else [part.strip() for part in listed.split(",")]
        return tuple(_convert(part, (entry,)) for part in parts)
    return value if isinstance(value, str) else _refuse()


_FLAGS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def _refuse() -> Any:
    raise ValueError


def _check_range(name: str, given: Any, value: Any, metadata: Mapping[str, Any]) -> None:
    if value is None:
        return
    if metadata["choices"] and value not in metadata["choices"]:
        raise unknown(f"{name} value", str(value), metadata["choices"])
    several = numbers(value) if isinstance(value, Schedule) else value if isinstance(value, tuple) else (value,)
    if len(several) > MOST_NUMBERS:
        raise UsageError(f"{name} has {len(several)} numbers; there may be at most {MOST_NUMBERS}.")
    for number in several:
        if not isinstance(number, (int, float)) or isinstance(number, bool):
            continue
        bounds = {name: metadata[name] for name in _BOUNDS if metadata[name] is not None}
        if isinstance(number, int) and "at_most" not in bounds and number > LARGEST_COUNT:
            bounds["at_most"] = LARGEST_COUNT
        if not (math.isfinite(number) and all(_BOUNDS[name][1](number, bound) for name, bound in bounds.items())):
            raise UsageError(f"{name}={as_typed(given)} is out of range: it must be {range_words(bounds)}.")


_BOUNDS: dict[str, tuple[str, Callable[[float, float], bool]]] = {
    "at_least": ("at least", operator.ge),
    "above": ("above", operator.gt),
    "at_most": ("at most", operator.le),
    "below": ("below", operator.lt),
}


def range_words(metadata: Mapping[str, Any]) -> str:
    """Say what a field's numbers may be, e.g. ``"at least 0 and at most 1"``."""
    bounds = {said: metadata[name] for name, (said, _) in _BOUNDS.items() if metadata.get(name) is not None}
    words = [f"{said} {bound if isinstance(bound, int) else f'{bound:g}'}" for said, bound in bounds.items()]
    return " and ".join(words) or "finite"


def values_words(cls: type[Settings], field: dataclasses.Field[Any]) -> str:
    """Say in words which values a field takes, and in which range: ``"a number, at least 0 and at most 1, or none"``."""
    allowed, bounds = kinds(cls, field.name), range_words(field.metadata)
    words = describe(allowed, field.metadata)
    if bounds == "finite":
        return words
    numbers = words.removesuffix(" or none").removesuffix(",")
    each = "each " if _entry(allowed) else ""
    return f"{numbers}, {each}{bounds}" + (", or none" if numbers != words else "")


def as_typed(value: Any) -> str:
    """Return a setting's value as one types it: ``64,64``, ``none``, ``true``."""
    if value is None or isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(str, value)) if isinstance(value, (tuple, list)) else str(value)


def _plain(value: Any) -> Any:
    if isinstance(value, Schedule):
        return value.value if isinstance(value, Constant) else str(value)
    return list(value) if isinstance(value, tuple) else value


__all__ = [
    "ALIASES",
    "Schedule",
    "Settings",
    "as_typed",
    "coerce",
    "describe",
    "kinds",
    "range_words",
    "setting",
    "values_words",
]
