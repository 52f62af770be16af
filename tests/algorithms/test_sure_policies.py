"""Policies with next to no randomness, in every method that learns from rollouts: no number of an update is NaN or infinite."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from updates import BOX, CHOICES, CONTINUOUS, ROLLOUT_METHODS, experience, first_learner, improve, make_update


def narrowed(learner: Any, case: str) -> Any:
    """Return the learner with a policy that has next to no randomness left."""
    head: dict[str, Any] = dict(learner.parameters["policy"]["head"])
    if case == "free":
        head["log_std"] = jnp.full(2, -80.0)
    elif case == "state":
        head["log_std"] = {**head["log_std"], "bias": jnp.full(2, -1e6)}
    elif case == "certain":
        head["logits"] = {**head["logits"], "bias": jnp.array([-1e4, 2e4, 0.0])}
    policy = {**learner.parameters["policy"], "head": head}
    return learner._replace(parameters={**learner.parameters, "policy": policy})


@pytest.mark.parametrize(
    ("name", "case"),
    [(name, case) for name in ROLLOUT_METHODS for case in ("free", "certain") if (name, case) != ("acer", "free")]
    + [("a2c", "fixed"), ("npg", "fixed"), ("ppo", "state"), ("trpo", "state")],
)
def test_a_policy_without_randomness_gives_no_nan(name: str, case: str) -> None:
    """The smallest deviations that settings allow, smaller ones that learning might reach, and a sure choice.

    ACER has Discrete actions only.
    """
    own = {} if case in ("free", "certain") else {"deviation": case, "log_std_init": -20.0}
    update = make_update(BOX, CHOICES if case == "certain" else CONTINUOUS, name, **own)
    learner = narrowed(first_learner(update), case)
    _, record = improve(update, learner, experience(update, learner))
    assert record["finite"], record
    assert all(np.isfinite(x) for x in record.values()), record
