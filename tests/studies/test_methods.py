"""What is compared, as it is typed."""

from __future__ import annotations

import pytest

from jumar.errors import UsageError
from jumar.studies.methods import read_methods


@pytest.mark.parametrize(
    ("text", "methods"),
    [
        ("ppo", [("ppo", "ppo", {}, None)]),
        ("ppo, trpo", [("ppo", "ppo", {}, None), ("trpo", "trpo", {}, None)]),
        (
            "ppo,ppo:clip_range=0.1,n_epochs=4,trpo",
            [
                ("ppo", "ppo", {}, None),
                ("ppo:clip_range=0.1,n_epochs=4", "ppo", {"clip_range": "0.1", "n_epochs": "4"}, None),
                ("trpo", "trpo", {}, None),
            ],
        ),
        (
            "ppo:net_arch=64,64,a2c:preset=none",
            [
                ("ppo:net_arch=64,64", "ppo", {"net_arch": "64,64"}, None),
                ("a2c:preset=none", "a2c", {}, "none"),
            ],
        ),
        (
            "ppo:learning_rate=linear:3e-4,ppo-penalty",
            [
                ("ppo:learning_rate=linear:3e-4", "ppo", {"learning_rate": "linear:3e-4"}, None),
                ("ppo-penalty", "ppo-penalty", {}, None),
            ],
        ),
        (
            "ppo:critic_observations=state,forces,gamma=0.9,ppo:policy_observations=state,a2c,trpo",
            [
                (
                    "ppo:critic_observations=state,forces,gamma=0.9",
                    "ppo",
                    {"critic_observations": "state,forces", "gamma": "0.9"},
                    None,
                ),
                ("ppo:policy_observations=state", "ppo", {"policy_observations": "state"}, None),
                ("a2c", "a2c", {}, None),
                ("trpo", "trpo", {}, None),
            ],
        ),
    ],
)
def test_methods_are_separated_by_commas_and_so_are_their_settings(
    text: str, methods: list[tuple[object, ...]]
) -> None:
    assert [(m.name, m.algorithm, m.settings, m.preset) for m in read_methods(text)] == methods


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("pppo", "did you mean ppo"),
        ("pppo:clip_range=0.1", "did you mean ppo"),
        ("ppo,,trpo", "missing between two commas"),
        ("", "missing between two commas"),
        ("ppo:clip_range", "'clip_range' is no setting of ppo"),
        ("ppo:=3", "is no setting of ppo"),
        ("ppo:gamma=0.9,gamma=0.8", "gamma of ppo is given twice"),
        ("ppo,trpo,ppo", "ppo is to be compared with itself"),
        ("ppo:net_arch=64,trppo", "unknown algorithm 'trppo'"),
    ],
)
def test_mistakes_are_named(text: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        read_methods(text)
