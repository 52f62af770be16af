"""Jumar: policy optimization in JAX, the policy-gradient family composed from the same few parts.

The names below are imported when they are first used, so that ``import jumar`` takes no time.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from jumar._version import __version__

if TYPE_CHECKING:
    from jumar import (
        callbacks,
        critics,
        curvature,
        distributions,
        estimators,
        networks,
        objectives,
        policies,
        schedules,
        solvers,
    )
    from jumar.agents.actor import Actor, load_policy
    from jumar.agents.agent import (
        A2C,
        ACER,
        ACKTR,
        BC,
        CPO,
        DDPG,
        DPG,
        ISPG,
        NPG,
        PPO,
        REINFORCE,
        SAC,
        SQL,
        TD3,
        TNPG,
        TRPO,
        Agent,
        PPOPenalty,
        RestrictedGradient,
        evaluate_policy,
        load,
        method,
    )
    from jumar.errors import DamagedFile, EnvironmentFault, JumarError, TrainingFailed, UsageError

_HOMES = {
    **dict.fromkeys(
        (
            "A2C",
            "ACER",
            "ACKTR",
            "BC",
            "CPO",
            "DDPG",
            "DPG",
            "ISPG",
            "NPG",
            "PPO",
            "PPOPenalty",
            "REINFORCE",
            "RestrictedGradient",
            "SAC",
            "SQL",
            "TD3",
            "TNPG",
            "TRPO",
            "Agent",
            "evaluate_policy",
            "load",
            "method",
        ),
        "jumar.agents.agent",
    ),
    **dict.fromkeys(("Actor", "load_policy"), "jumar.agents.actor"),
    **dict.fromkeys(("DamagedFile", "EnvironmentFault", "JumarError", "TrainingFailed", "UsageError"), "jumar.errors"),
}
_PARTS = (
    "callbacks",
    "critics",
    "curvature",
    "distributions",
    "estimators",
    "networks",
    "objectives",
    "policies",
    "schedules",
    "solvers",
)

__all__ = [
    "A2C",
    "ACER",
    "ACKTR",
    "BC",
    "CPO",
    "DDPG",
    "DPG",
    "ISPG",
    "NPG",
    "PPO",
    "REINFORCE",
    "SAC",
    "SQL",
    "TD3",
    "TNPG",
    "TRPO",
    "Actor",
    "Agent",
    "DamagedFile",
    "EnvironmentFault",
    "JumarError",
    "PPOPenalty",
    "RestrictedGradient",
    "TrainingFailed",
    "UsageError",
    "__version__",
    "callbacks",
    "critics",
    "curvature",
    "distributions",
    "estimators",
    "evaluate_policy",
    "load",
    "load_policy",
    "method",
    "networks",
    "objectives",
    "policies",
    "schedules",
    "solvers",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    if name in _PARTS:
        return importlib.import_module(f"jumar.{name}")
    if not name.startswith("_"):
        from jumar._stable_baselines3 import PACKAGE, sentence

        if (said := sentence(PACKAGE, name)) is not None:
            raise ImportError(said)  # an AttributeError's words are lost in `from jumar import NAME`
    meant = next((known for known in __all__ if known.lower() == name.lower()), None)
    hint = f"; did you mean {meant}?" if meant else ""
    raise AttributeError(f"module 'jumar' has no attribute {name!r}{hint}")


def __dir__() -> list[str]:
    return __all__
