"""BC: no critic . a policy that does what was done."""

from __future__ import annotations

import dataclasses
from dataclasses import replace
from typing import ClassVar

from gymnasium import spaces

from jumar.algorithms.off_policy.improvements import Cloning
from jumar.algorithms.off_policy.parts import compose
from jumar.algorithms.off_policy.settings import ReplaySettings
from jumar.algorithms.off_policy.state_values import Nothing
from jumar.algorithms.off_policy.update import OffPolicy
from jumar.critics.ensemble import NoActionValues
from jumar.policies.policy import Policy
from jumar.settings import setting


@dataclasses.dataclass(frozen=True, kw_only=True)
class BCSettings(ReplaySettings):
    """Settings of BC; those of critics, targets and exploration have no effect."""

    deviation: str = setting("none", "always none: the policy is deterministic in a Box", choices=("none",))

    takes: ClassVar = (spaces.Box, spaces.Discrete)
    needs_dataset: ClassVar = True


def bc(settings: BCSettings, policy: Policy) -> OffPolicy:
    r"""Behaviour cloning as a choice of parts: the policy is fitted to the actions of a data set.

    For Discrete actions it climbs :math:`E[\log \pi_\theta(a|s)]`, and in a Box a deterministic policy goes down
    :math:`E[\frac1d \|\mu_\theta(s) - a\|^2]`, in units of half of the actions' range.

    Source: Pomerleau 1989, *ALVINN: An Autonomous Land Vehicle in a Neural Network*.
    """
    update = compose(settings, policy, Nothing(), Cloning(Nothing()))
    return replace(update, critic=NoActionValues(), target_network=False, jointly=False)
