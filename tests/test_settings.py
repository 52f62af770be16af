"""Settings: what is taken, what is refused and in which words, and that they survive JSON."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
import pytest

from jumar.algorithms.on_policy.ppo import PPOSettings
from jumar.errors import UsageError
from jumar.schedules import Constant, Exponential, InverseSqrt, Linear, Schedule
from jumar.settings import ALIASES, Settings, describe, kinds, setting


@dataclasses.dataclass(frozen=True, kw_only=True)
class Few(Settings):
    """Settings of every kind, with names of their own."""

    rate: Schedule = setting(Constant(0.1), "a schedule", above=0, at_most=100)
    limit: float | None = setting(None, "a number or nothing", above=0)
    share: float = setting(0.5, "a number", at_least=0, at_most=1)
    count: int = setting(3, "a whole number", at_least=1)
    sizes: tuple[int, ...] = setting((64, 64), "sizes", at_least=1)
    flag: bool = setting(True, "a flag")
    colour: str = setting("red", "a text", choices=("red", "green"))
    core: str | None = setting(None, "a text or nothing", choices=("gru", "lstm"))
    bound: Constant | Linear | None = setting(None, "a schedule or nothing", above=0)


def message(cls: type[Settings], **values: Any) -> str:
    with pytest.raises(UsageError) as caught:
        cls.make(values)
    assert caught.value.exit_code == 2
    return str(caught.value)


# -- names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("clip_coef", "clip_range"),
        ("eps_clip", "clip_range"),
        ("clip_epsilon", "clip_range"),
        ("update_epochs", "n_epochs"),
        ("num_envs", "n_envs"),
        ("anneal_lr", "learning_rate"),
        ("kl_target", "target_kl"),
        ("delta", "target_kl"),
        ("lam", "gae_lambda"),
        ("state_dependent_std", "deviation"),
        ("learning_rte", "learning_rate"),
        ("gama", "gamma"),
        ("ent_coeff", "ent_coef"),
        ("clip", "clip_range"),
        ("gae", "gae_lambda"),
    ],
)
def test_misspelt_and_foreign_names_get_the_right_one_first(typed: str, meant: str) -> None:
    text = message(PPOSettings, **{typed: 1})
    assert text.startswith(f"unknown setting {typed!r}; did you mean {meant}")
    assert text.endswith("?")


def test_a_foreign_name_is_not_answered_with_a_setting_that_the_algorithm_lacks() -> None:
    text = message(Few, clip_coef=0.2)
    assert "clip_range" not in text
    assert text.endswith("known: rate, limit, share, count, sizes, flag, colour, core, bound.")


def test_aliases_are_never_names_of_settings_themselves() -> None:
    assert not set(ALIASES) & set(ALIASES.values())


# -- values -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "number"),
    [("2k", 2000), ("1_024", 1024), ("1.5e3", 1500), ("64.1k", 64_100), ("2.01M", 2_010_000), ("1e6", 10**6)],
)
def test_whole_numbers_are_typed_as_steps_are(text: str, number: int) -> None:
    assert PPOSettings.make({"n_steps": text}).n_steps == number


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"gamma": 1.5}, "gamma=1.5 is out of range: it must be at least 0 and at most 1."),
        ({"gamma": "nan"}, "gamma=nan is out of range: it must be at least 0 and at most 1."),
        ({"n_steps": 0}, "n_steps=0 is out of range: it must be at least 1."),
        ({"n_steps": "2.5"}, "n_steps='2.5' is not a whole number."),
        ({"n_steps": "2.0001k"}, "n_steps='2.0001k' is not a whole number."),
        ({"n_steps": "1e999999999"}, "n_steps='1e999999999' is not a whole number."),
        ({"n_steps": "nan"}, "n_steps='nan' is not a whole number."),
        ({"learning_rate": -3e-4}, "learning_rate=-0.0003 is out of range: it must be above 0 and at most 100."),
        ({"learning_rate": "1e30"}, "learning_rate=1e30 is out of range: it must be above 0 and at most 100."),
        ({"learning_rate": "linear:0"}, "learning_rate=linear:0 is out of range: it must be above 0 and at most 100."),
        (
            {"learning_rate": "fast"},
            "learning_rate='fast' is not a number or a schedule (linear:X, exponential:X:Y, inverse_sqrt:X:Y).",
        ),
        (
            {"learning_rate": "none"},
            "learning_rate='none' is not a number or a schedule (linear:X, exponential:X:Y, inverse_sqrt:X:Y).",
        ),
        (
            {"clip_range_vf": "cosine:1"},
            "clip_range_vf='cosine:1' is not a number or a schedule (linear:X, exponential:X:Y, inverse_sqrt:X:Y) or none.",
        ),
        ({"max_grad_norm": "inf"}, "max_grad_norm=inf is out of range: it must be above 0."),
        ({"net_arch": "64,x"}, "net_arch='64,x' is not a list of whole numbers such as 64,64, or none."),
        ({"net_arch": [64, 0]}, "net_arch=64,0 is out of range: it must be at least 1."),
        ({"net_arch": 64}, "net_arch=64 is not a list of whole numbers such as 64,64, or none."),
        ({"normalize_advantage": "perhaps"}, "normalize_advantage='perhaps' is not true or false."),
        ({"normalize_advantage": 1}, "normalize_advantage=1 is not true or false."),
        ({"gae_lambda": True}, "gae_lambda=True is not a number."),
        ({"batch_size": True}, "batch_size=True is not a whole number."),
        (
            {"learning_rate": True},
            "learning_rate=True is not a number or a schedule (linear:X, exponential:X:Y, inverse_sqrt:X:Y).",
        ),
        ({"activation": "rely"}, "unknown activation value 'rely'; did you mean relu?"),
        ({"activation": 3}, "activation=3 is not one of tanh, relu, elu, silu, gelu."),
        ({"recurrent": "lstn"}, "unknown recurrent value 'lstn'; did you mean lstm?"),
    ],
)
def test_values_out_of_range_or_kind_are_refused_in_words(values: dict[str, Any], expected: str) -> None:
    assert message(PPOSettings, **values) == expected


@pytest.mark.parametrize("name", ["count", "share", "rate"])
def test_a_number_too_large_for_any_float_is_refused_in_words(name: str) -> None:
    assert message(Few, **{name: 10**400}).startswith(f"{name}=1000")


@pytest.mark.parametrize(
    ("name", "given", "kept"),
    [
        ("rate", "linear:3e-4", Linear(3e-4)),
        ("rate", "exponential:3e-4:3e-6", Exponential(3e-4, 3e-6)),
        ("bound", "inverse_sqrt:0.2:0.02", InverseSqrt(0.2, 0.02)),
        ("rate", 1, Constant(1.0)),
        ("rate", np.float32(0.5), Constant(0.5)),
        ("rate", Constant(np.float32(0.5)), Constant(0.5)),  # type: ignore[arg-type]
        ("bound", "None", None),
        ("bound", "0.2", Constant(0.2)),
        ("limit", "none", None),
        ("limit", "0.5", 0.5),
        ("share", 1, 1.0),
        ("share", "0", 0.0),
        ("count", "1e6", 1_000_000),
        ("count", 4.0, 4),
        ("count", np.int64(4), 4),
        ("sizes", "256x128", (256, 128)),
        ("sizes", "400,300", (400, 300)),
        ("sizes", "", ()),
        ("sizes", "none", ()),
        ("sizes", (), ()),
        ("sizes", [32], (32,)),
        ("flag", "no", False),
        ("flag", "True", True),
        ("core", "none", None),
        ("core", "gru", "gru"),
        ("colour", "green", "green"),
    ],
)
def test_values_are_kept_in_the_fields_own_type(name: str, given: Any, kept: Any) -> None:
    value = getattr(Few.make({name: given}), name)
    assert value == kept
    assert type(value) is type(kept)


def test_a_number_inside_a_schedule_is_checked_too() -> None:
    assert "out of range" in message(Few, rate=Constant(np.float32(1e30)))  # type: ignore[arg-type]
    assert "is not" in message(Few, rate=Linear("fast"))  # type: ignore[arg-type]
    assert message(Few, rate="exponential:0.1:1e3").startswith("rate=exponential:0.1:1e3 is out of range")
    assert message(Few, rate="exponential:0.1:0") == (
        "rate=exponential:0.1:0.0 is out of range: its numbers must be above 0."
    )


def test_the_bounds_themselves_are_allowed_only_where_said() -> None:
    assert Few(share=0.0).share == 0.0
    assert Few(share=1.0).share == 1.0
    assert Few(count=1).count == 1
    assert Few(rate=Constant(100.0)).rate == Constant(100.0)
    assert "must be above 0" in message(Few, limit=0)


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"rate": "linear:3e-4", "limit": 0.25, "sizes": (), "flag": False, "core": "lstm", "bound": "linear:0.2"},
        {"rate": "exponential:0.1:1e-3", "bound": "inverse_sqrt:0.3:0.1"},
        {"rate": 1 / 3, "share": 0.1 + 0.2, "bound": 0.7},
    ],
)
def test_json_round_trip_is_exact(values: dict[str, Any]) -> None:
    made = Few.make(values)
    assert Few.make(json.loads(json.dumps(made.to_json()))) == made


def test_settings_of_ppo_survive_json() -> None:
    made = PPOSettings.make({"learning_rate": "linear:3e-4", "clip_range_vf": 0.2, "target_kl": 0.03, "net_arch": "32"})
    assert PPOSettings.make(json.loads(json.dumps(made.to_json()))) == made


def test_settings_do_not_change() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Few().count = 7  # type: ignore[misc]


def test_every_kind_of_field_is_described_in_words() -> None:
    words = {f.name: describe(kinds(Few, f.name), f.metadata) for f in dataclasses.fields(Few)}
    assert words == {
        "rate": "a number or a schedule (linear:X, exponential:X:Y, inverse_sqrt:X:Y)",
        "limit": "a number or none",
        "share": "a number",
        "count": "a whole number",
        "sizes": "a list of whole numbers such as 64,64, or none",
        "flag": "true or false",
        "colour": "one of red, green",
        "core": "one of gru, lstm or none",
        "bound": "a number or a schedule (linear:X, exponential:X:Y, inverse_sqrt:X:Y) or none",
    }
