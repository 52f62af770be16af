"""What a page says of troubles is what training knows of them, for every method."""

from __future__ import annotations

import math
from typing import Any

import pytest
from made_runs import plan_of
from updates import CONTINUOUS, make_update

from jumar.algorithms.off_policy.settings import ReplaySettings
from jumar.web.health import symptoms_of


@pytest.mark.parametrize(("algorithm", "settings"), [("ppo", {}), ("sac", {}), ("sac", {"critic_bins": 51})])
def test_a_page_knows_the_troubles_of_a_method(algorithm: str, settings: dict[str, Any]) -> None:
    plan = plan_of(algorithm, **settings)
    update = make_update(action_space=CONTINUOUS, name=algorithm, **settings)
    limit = plan.settings.critic_limit if isinstance(plan.settings, ReplaySettings) else 0.0
    for q in (0.0, limit, 1e12, math.nan):
        metrics = {"train/q_mean": q, "train/ent_coef": 1.0, "train/entropy": 1.0}
        found, known = symptoms_of(plan)(metrics), update.symptoms(metrics)
        assert {name for name, words in found.items() if words} == {name for name, words in known.items() if words}
