"""Whether an environment with goals rewards them by what its ``compute_reward`` is given, as learning in hindsight needs."""

from __future__ import annotations

from typing import Any

import numpy as np

from jumar.envs.goals import Goals, check_goal_space
from jumar.envs.host import HostEnvironments
from jumar.errors import EnvironmentFault, UnsupportedEnvironment
from jumar.text import counted
from jumar.training.checks.course import draw, mask_of
from jumar.training.checks.findings import Findings

STEPS = 100
"""How many steps are compared."""


def check_goal_rewards(findings: Findings, environments: HostEnvironments, seed: int) -> None:
    """Compare the rewards of random steps with what ``compute_reward`` says of them; other environments are passed over.

    Raises:
        EnvironmentFault: the environment failed.
    """
    try:
        check_goal_space(environments.observation_space, environments.name)
    except UnsupportedEnvironment:
        return
    if not environments.rewards_goals:
        findings.what.append("It has goals, and no compute_reward: nothing can be learnt in hindsight.")
        return
    environments.keep_infos(True)
    achieved, desired, rewards, infos = _steps(environments, seed)
    environments.keep_infos(False)
    said = ""
    for words, given in (("", [{} for _ in infos]), (", with copy_info_dict", infos)):
        try:
            computed = np.asarray(environments.rewards_of(Goals(achieved, desired, given)), np.float64)
        except (EnvironmentFault, TypeError, ValueError) as error:
            said = f"compute_reward cannot be asked for {counted(len(rewards), 'goal')} at once: {error}"
            continue
        if computed.shape == rewards.shape and np.allclose(computed, rewards, rtol=1e-4, atol=1e-6):
            findings.what.append(
                "It has goals, and compute_reward gives the rewards of its steps: off-policy methods can learn in hindsight "
                f"(--goal-selection-strategy future{words})."
            )
            return
        said = "It has goals, but compute_reward does not give the rewards of its steps: nothing can be learnt in hindsight."
    findings.suspect(
        said, "compute_reward(achieved_goal, desired_goal, info) takes arrays of goals and gives the reward of each."
    )


def _steps(environments: HostEnvironments, seed: int) -> tuple[Any, Any, np.ndarray, list[dict[str, Any]]]:
    """Return achieved and desired goals, rewards and infos of random steps of the first environment."""
    random = np.random.default_rng(seed)
    observation, masks = environments.reset([seed + i for i in range(environments.n_envs)])
    found = []
    for _ in range(STEPS):
        action = draw(environments.action_space, mask_of(environments, observation, masks), random)
        step = environments.step(np.stack([action] * environments.n_envs))
        observation, masks = step.observations, step.action_masks
        if step.valid[0]:
            info = {} if step.whole_infos is None else dict(step.whole_infos[0])
            goals = (np.array(step.successors[key][0]) for key in ("achieved_goal", "desired_goal"))
            found.append((*goals, step.rewards[0], info))
    achieved, desired, rewards, infos = zip(*found, strict=True)
    return np.stack(achieved), np.stack(desired), np.array(rewards, np.float64), list(infos)
