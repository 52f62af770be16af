"""Policies: from observations to distributions over actions, and actions out of them."""

from jumar.policies.policy import (
    Carry,
    Exploration,
    Policy,
    PolicySettings,
    make_policy,
    make_torso,
)

__all__ = [
    "Carry",
    "Exploration",
    "Policy",
    "PolicySettings",
    "make_policy",
    "make_torso",
]
