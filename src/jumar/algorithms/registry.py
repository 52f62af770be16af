"""The algorithms by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from jumar.algorithms.npg import NPGSettings, TNPGSettings, npg, tnpg
from jumar.algorithms.on_policy import OnPolicy
from jumar.algorithms.ppo import PPOSettings, ppo
from jumar.algorithms.settings import OnPolicySettings
from jumar.algorithms.trpo import TRPOSettings, trpo
from jumar.critics import Critic
from jumar.errors import unknown
from jumar.policies import Policy


@dataclass(frozen=True)
class Algorithm:
    """A named algorithm: its settings and the choice of parts that they stand for."""

    name: str
    title: str
    settings: type[OnPolicySettings]
    build: Callable[..., OnPolicy]
    """(settings, policy, critic) -> update."""

    def make(self, settings: OnPolicySettings, policy: Policy, critic: Critic) -> OnPolicy:
        """Put the parts together."""
        return self.build(settings, policy, critic)


ALGORITHMS: dict[str, Algorithm] = {
    "npg": Algorithm("npg", "Natural policy gradient", NPGSettings, npg),
    "ppo": Algorithm("ppo", "Proximal policy optimization with the clipped surrogate", PPOSettings, ppo),
    "tnpg": Algorithm("tnpg", "Truncated natural policy gradient", TNPGSettings, tnpg),
    "trpo": Algorithm("trpo", "Trust region policy optimization", TRPOSettings, trpo),
}


def algorithm(name: str) -> Algorithm:
    """Return an algorithm by its lower-case name.

    Raises:
        UsageError: there is none of that name; the message names the nearest.
    """
    if name not in ALGORITHMS:
        raise unknown("algorithm", name, ALGORITHMS)
    return ALGORITHMS[name]
