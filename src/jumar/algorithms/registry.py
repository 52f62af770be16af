"""The algorithms by name."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from jumar.algorithms.off_policy.acer import ACERSettings, acer
from jumar.algorithms.off_policy.bc import BCSettings, bc
from jumar.algorithms.off_policy.ddpg import DDPGSettings, ddpg
from jumar.algorithms.off_policy.dpg import DPGSettings, dpg
from jumar.algorithms.off_policy.sac import SACSettings, sac
from jumar.algorithms.off_policy.sql import SQLSettings, sql
from jumar.algorithms.off_policy.td3 import TD3Settings, td3
from jumar.algorithms.on_policy.a2c import A2CSettings, a2c
from jumar.algorithms.on_policy.acktr import ACKTRSettings, acktr
from jumar.algorithms.on_policy.cpo import CPOSettings, cpo
from jumar.algorithms.on_policy.ispg import ISPGSettings, ispg
from jumar.algorithms.on_policy.npg import NPGSettings, TNPGSettings, npg, tnpg
from jumar.algorithms.on_policy.ppo import PPOPenaltySettings, PPOSettings, ppo, ppo_penalty
from jumar.algorithms.on_policy.reinforce import ReinforceSettings, reinforce
from jumar.algorithms.on_policy.restricted import RestrictedSettings, restricted
from jumar.algorithms.on_policy.trpo import TRPOSettings, trpo
from jumar.algorithms.settings import CollectingSettings
from jumar.algorithms.update import Update
from jumar.errors import UsageError, unknown
from jumar.policies.policy import Policy


@dataclass(frozen=True)
class Algorithm:
    """A named algorithm: its settings and the choice of parts that they stand for."""

    name: str
    title: str
    settings: type[CollectingSettings]
    build: Callable[..., Update]
    """(settings, policy) -> update."""

    def make_settings(self, values: Mapping[str, Any]) -> CollectingSettings:
        """Make the algorithm's settings from names and values, as :meth:`jumar.settings.Settings.make` does.

        Raises:
            UsageError: a name is unknown, or a setting of other algorithms, which are named; or a value does not fit.
        """
        own = self.setting_names
        for name in (name for name in values if name not in own):
            owners = [other.name for other in ALGORITHMS.values() if name in other.setting_names]
            if owners:
                raise UsageError(f"{name} is not a setting of {self.name}, but of {', '.join(owners)}.")
        return self.settings.make(values)

    @property
    def setting_names(self) -> list[str]:
        """The names of the algorithm's settings."""
        return [field.name for field in fields(self.settings)]

    def make(self, settings: CollectingSettings, policy: Policy) -> Update:
        """Put the parts together.

        Raises:
            UsageError: the method is of the user's own and returns no parts, or they do not go together.
        """
        update = self.build(settings, policy)
        if not hasattr(update, "among_frames"):
            raise UsageError(
                f"build of the method {self.name!r} returned a {type(update).__name__}; it must return its parts: what compose "
                "returns, an OnPolicy or an OffPolicy."
            )
        return update


ALGORITHMS: dict[str, Algorithm] = {
    "a2c": Algorithm("a2c", "Advantage actor-critic", A2CSettings, a2c),
    "acer": Algorithm("acer", "Actor-critic with experience replay", ACERSettings, acer),
    "acktr": Algorithm("acktr", "Actor-critic using Kronecker-factored trust regions", ACKTRSettings, acktr),
    "bc": Algorithm("bc", "Behaviour cloning", BCSettings, bc),
    "cpo": Algorithm("cpo", "Constrained policy optimization", CPOSettings, cpo),
    "ddpg": Algorithm("ddpg", "Deep deterministic policy gradient", DDPGSettings, ddpg),
    "dpg": Algorithm("dpg", "Deterministic policy gradient", DPGSettings, dpg),
    "ispg": Algorithm("ispg", "Off-policy policy gradient by importance sampling", ISPGSettings, ispg),
    "npg": Algorithm("npg", "Natural policy gradient", NPGSettings, npg),
    "ppo": Algorithm("ppo", "Proximal policy optimization with the clipped surrogate", PPOSettings, ppo),
    "ppo-penalty": Algorithm(
        "ppo-penalty", "Proximal policy optimization with a KL penalty", PPOPenaltySettings, ppo_penalty
    ),
    "reinforce": Algorithm("reinforce", "Policy gradient by whole returns", ReinforceSettings, reinforce),
    "restricted": Algorithm("restricted", "Policy gradient by steps of one length", RestrictedSettings, restricted),
    "sac": Algorithm("sac", "Soft actor-critic", SACSettings, sac),
    "sql": Algorithm("sql", "Soft Q-learning", SQLSettings, sql),
    "td3": Algorithm("td3", "Twin delayed deep deterministic policy gradient", TD3Settings, td3),
    "tnpg": Algorithm("tnpg", "Truncated natural policy gradient", TNPGSettings, tnpg),
    "trpo": Algorithm("trpo", "Trust region policy optimization", TRPOSettings, trpo),
}


BUILT_IN = frozenset(ALGORITHMS)


def is_name(text: str) -> bool:
    """Whether a text is fit for an algorithm's name: small letters, digits and hyphens."""
    return re.fullmatch(r"[a-z][a-z0-9-]*", text) is not None


def is_known(name: str) -> bool:
    """Whether there is an algorithm of that name in this process."""
    return name in ALGORITHMS


def register(entry: Algorithm) -> None:
    """Let an algorithm be known by its name in this process; one that was registered before is replaced.

    Raises:
        UsageError: the name is one of Jumar's own, or is not made of small letters, digits and hyphens.
    """
    if entry.name in BUILT_IN:
        raise UsageError(f"the name {entry.name!r} is taken by an algorithm of Jumar's; choose another.")
    if not is_name(entry.name):
        raise UsageError(
            f"the name {entry.name!r} must be made of small letters, digits and hyphens, such as my-method."
        )
    ALGORITHMS[entry.name] = entry


def algorithm(name: str) -> Algorithm:
    """Return an algorithm by its lower-case name.

    Raises:
        UsageError: there is none of that name; the message names the nearest.
    """
    if name not in ALGORITHMS:
        raise unknown("algorithm", name, ALGORITHMS, listed_by="jumar list algorithms")
    return ALGORITHMS[name]
