"""Which policies of a run are shown: the final one, the best one, or one for each checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jumar.envs.sources import FromId, for_evaluation
from jumar.errors import UsageError
from jumar.policies.own_code import OwnCode
from jumar.policies.policy import Policy, PolicySettings
from jumar.runs.policy_files import has_policy
from jumar.runs.run_directory import RunDirectory
from jumar.training.plan import Plan
from jumar.training.resolve import typed_code, with_environment
from jumar.training.restore import (
    checkpoint_policies,
    parameters_of,
    policy_folder,
    read_saved_policy,
    refuse_several_seeds,
)
from jumar.training.warm_start import run_of
from jumar.video.cameras import Spaces
from jumar.video.shown import Shown


@dataclass(frozen=True)
class Role:
    """A policy that is shown.

    Attributes:
        step: environment steps that it was trained for.
        label: what tells it from the run's others, such as ``best``; empty for the only one.
        settings: what it is made of, as data.
        policy: what it is made of.
        parameters: its parameters.
        moments: its observation normaliser.
        spaces: of observations and actions, in which it was trained.
    """

    step: int
    label: str
    settings: PolicySettings
    policy: Policy
    parameters: Any
    moments: Any
    spaces: Spaces

    def title(self, environment: str) -> str:
        """Return the first line of a caption."""
        trained = f"{self.step:,} steps of training"
        return f"{environment}   " + (f"{self.label}, {trained}" if self.label else trained)


@dataclass(frozen=True)
class Cast:
    """The run, the environment that it is shown in, and its policies in the order in which they are shown."""

    run: RunDirectory
    plan: Plan
    source: FromId
    roles: tuple[Role, ...]


def cast_of(shown: Shown, *, every_checkpoint: bool, warn: Callable[[str], None], verb: str) -> Cast:
    """Read what is shown of a run; nothing is changed.

    Args:
        shown: which run, policy and environment.
        every_checkpoint: the policy of each checkpoint, the best and the final one among them.
        warn: hears of damaged checkpoints.
        verb: what is done with the run, for messages.

    Raises:
        UsageError: there is no run, policy or environment, or something of the user's own must be repeated.
        DamagedFile: a file is damaged.
    """
    run = RunDirectory.open(shown.run)
    refuse_several_seeds(run, verb)
    plan = with_environment(Plan.from_json(run.read_config(), run.config), shown.env, shown.wrappers, shown.making)
    if plan.environment is None:
        raise UsageError(f"{run} learnt from stored transitions without an environment; {verb} it with --env ENV.")
    own = typed_code(shown.encoder)
    if every_checkpoint:
        roles = _of_checkpoints(run, own, warn)
    else:
        roles = (_saved(policy_folder(run, shown.best), own, "best" if shown.best else ""),)
    source = for_evaluation(FromId(plan.environment))
    assert isinstance(source, FromId)
    return Cast(run, plan, source, roles)


def _saved(folder: Path, own: OwnCode, label: str) -> Role:
    saved = read_saved_policy(folder, own)
    parameters, moments = parameters_of(saved, folder)
    return Role(saved.step, label, saved.settings, saved.policy, parameters, moments, saved.spaces)


def _of_checkpoints(run: RunDirectory, own: OwnCode, warn: Callable[[str], None]) -> tuple[Role, ...]:
    """Return the policy of each checkpoint, in the order of their steps; the best one comes before another of its step."""
    keeper, lane = run_of(run.path)
    if keeper is None:
        raise UsageError(f"{run} has no checkpoints; leave --every-checkpoint out.")
    plan = Plan.from_json(keeper.read_config(), keeper.config).with_own(own)
    settings = PolicySettings.of(plan.settings)
    roles = [
        Role(kept.step, "checkpoint", settings, kept.policy, kept.parameters, kept.moments, kept.spaces)
        for kept in checkpoint_policies(keeper, plan, lane, warn)
    ]
    steps = {role.step for role in roles}
    if has_policy(run.policy) and (final := _saved(run.policy, own, "final")).step not in steps:
        roles.append(final)
    if has_policy(run.best):
        best = _saved(run.best, own, "best")
        # At the step of a checkpoint the two are the same policy.
        roles = [role for role in roles if role.step != best.step] + [best]
    return tuple(sorted(roles, key=lambda role: role.step))
